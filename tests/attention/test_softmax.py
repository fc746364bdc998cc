"""Masked softmax attention, against NumPy."""

import numpy as np
import pytest
import reference as ref
from calls import GRID, HEADS, KINDS, masked_softmax_attention


@pytest.mark.parametrize("name", ["table", "low-rank", "causal", None])
def test_softmax_attention_against_numpy(name):
    length = GRID[0] * GRID[1]
    random = np.random.default_rng(0)
    query, key = random.normal(size=(2, 3, HEADS, length, 4)) * 2
    value = random.normal(size=(3, HEADS, length, 5))
    padding = random.uniform(size=(3, length)) < 0.7
    mask, matrix = None, np.ones(1)
    if name:
        kind = KINDS[name]
        parameters = [ref.tensor(p) for p in kind.parameters()]
        mask = kind.build(*parameters)
        matrix = ref.numpy(ref.staged(kind.dense)(*parameters))
    for padding_mask in (None, padding):
        y = masked_softmax_attention(query, key, value, mask, padding_mask)
        expected = ref.softmax_attention(
            query, key, value, matrix, padding_mask
        )
        ref.assert_close(y, expected, 1e-10)


def test_softmax_mask_is_the_exponential_of_a_bias():
    """With `M = exp(N)`, it equals softmax of the logits plus `N`."""
    random = np.random.default_rng(0)
    query, key, value = random.normal(size=(3, 2, 2, 7, 4))
    bias = random.normal(size=(2, 7, 7))
    logits = query @ np.swapaxes(key, -1, -2) / 2 + bias
    scores = np.exp(logits)
    expected = scores / scores.sum(-1, keepdims=True) @ value
    y = masked_softmax_attention(query, key, value, np.exp(bias))
    ref.assert_close(y, expected, 1e-12)


def test_hidden_logits_however_large_do_not_underflow_a_row():
    query = np.ones((1, 1, 3, 1), "float32")
    key = np.array([0.0, 1.0, 1e6], "float32").reshape(1, 1, 3, 1)
    value = np.array([1.0, 2.0, 3.0], "float32").reshape(1, 1, 3, 1)
    mask = np.ones((3, 3), "float32")
    mask[:, 2] = 0.0
    expected = (1 + 2 * np.e) / (1 + np.e) * np.ones((1, 1, 3, 1))
    y = masked_softmax_attention(query, key, value, mask)
    ref.assert_close(y, expected, 1e-6)
    padding = np.array([[True, True, False]])
    y = masked_softmax_attention(query, key, value, padding_mask=padding)
    ref.assert_close(y, expected, 1e-6)


def test_softmax_gradients_against_finite_differences():
    random = np.random.default_rng(0)
    arrays = [*random.normal(size=(3, 1, 2, 5, 3))]
    mask = random.uniform(0.5, 1.5, (2, 5, 5))
    mask[:, 1, 3] = 0.0
    upstream = random.normal(size=(1, 2, 5, 3))

    def function(*tensors):
        return masked_softmax_attention(*tensors)

    _, gradients = ref.with_gradients(function)(
        *[ref.tensor(x) for x in (upstream, *arrays, mask)]
    )
    step = 1e-6
    for k, array in enumerate((*arrays, mask)):
        direction = random.normal(size=array.shape) * (array != 0)
        values = []
        for sign in (1, -1):
            moved = [*arrays, mask]
            moved[k] = array + sign * step * direction
            values.append(np.sum(upstream * ref.softmax_attention(*moved)))
        slope = (values[0] - values[1]) / (2 * step)
        actual = np.sum(ref.numpy(gradients[k]) * direction)
        assert abs(actual - slope) < 1e-7 * max(1, abs(slope))
