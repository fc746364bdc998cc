"""Explicit attention: equal to its definition however it is divided."""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.operators import (
    BlockToeplitz,
    Dense,
    LowRank,
    explicit,
)
from keras_topo.operators.explicit import explicit_attention, plan_blocks

GRID = (4, 6)
TOKENS = 24


def arrays(batch=3, heads=2, tokens=TOKENS, m=4, d=5, seed=0):
    random = np.random.default_rng(seed)
    sizes = (m, m, d)
    return [random.uniform(0, 1, (batch, heads, tokens, n)) for n in sizes]


def table_of(*batch, seed=1):
    shape = (*batch, *(2 * n - 1 for n in GRID))
    return np.random.default_rng(seed).normal(size=shape)


def wanted(query, key, value, mask):
    scores = np.einsum("bhif,bhjf->bhij", query, key) * mask
    return scores @ value, scores.sum(-1, keepdims=True)


@pytest.fixture
def blocks(monkeypatch):
    """Sets the sizes of blocks."""

    def set_sizes(whole, block, least):
        monkeypatch.setattr(explicit, "WHOLE_ELEMENTS", whole)
        monkeypatch.setattr(explicit, "MOST_WHOLE_ELEMENTS", whole)
        monkeypatch.setattr(explicit, "BLOCK_ELEMENTS", block)
        monkeypatch.setattr(explicit, "LEAST_ROWS", least)
        monkeypatch.setattr(explicit, "STEP_ELEMENTS", 0)

    return set_sizes


# Rows of blocks: all of them; lines of the grid; not a line, with a last block
# that is shorter; and few, with examples or heads by themselves.
DIVISIONS = {
    "whole": (10**6, 1, 1),
    "lines": (0, 12 * 6 * TOKENS, 1),
    "rows": (0, 5 * 6 * TOKENS, 1),
    "examples": (0, 4 * 7 * TOKENS, 7),
    "heads": (0, 7 * TOKENS, 7),
}


@pytest.mark.few(
    "batch0-whole",
    "batch0-lines",
    "batch0-heads",
    "batch1-rows",
    "batch1-examples",
    "batch2-rows",
    "batch2-lines",
    "batch2-heads",
    "batch3-heads",
    "batch3-examples",
)
@pytest.mark.few_on_jax(
    "batch0-lines", "batch2-rows", "batch1-examples", "batch3-heads"
)
@pytest.mark.parametrize("division", DIVISIONS)
@pytest.mark.parametrize("batch", [(), (2,), (3, 1), (3, 2)])
def test_any_division_equals_the_definition(division, batch, blocks):
    blocks(*DIVISIONS[division])
    inputs, table = arrays(), table_of(*batch)
    mask = ref.block_toeplitz(table, GRID)

    def attend(query, key, value, table):
        operator = BlockToeplitz(table, GRID)
        output = explicit_attention(query, key, value, operator)
        return ops.concatenate(output, axis=-1)

    if not batch and not ref.on_jax:
        attend = ref.compiled(attend)
    tensors = [ref.tensor(x) for x in (*inputs, table)]
    actual = ref.staged(attend)(*tensors)
    expected = np.concatenate(wanted(*inputs, mask), -1)
    ref.assert_close(actual, expected, 1e-12)


def test_divisions_are_what_they_are_called(blocks):
    shape = (3, 2, TOKENS, 4)
    plans = {}
    for name, sizes in DIVISIONS.items():
        blocks(*sizes)
        plan = plan_blocks(shape, (2,), 6)
        plans[name] = plan and (plan.rows, plan.examples, plan.heads)
    assert plans == {
        "whole": None,
        "lines": (12, None, None),
        "rows": (5, None, None),
        "examples": (6, 2, None),
        "heads": (6, 1, 1),
    }


@pytest.mark.few_on_jax("rows", "heads")
@pytest.mark.parametrize("division", ["whole", "rows", "examples", "heads"])
def test_gradients(division, blocks):
    blocks(*DIVISIONS[division])
    inputs, table = arrays(), table_of(2)
    upstream = np.random.default_rng(5).normal(size=(3, 2, TOKENS, 6))

    def attend(query, key, value, table):
        operator = BlockToeplitz(table, GRID)
        output = explicit_attention(query, key, value, operator)
        return ops.concatenate(output, axis=-1)

    tensors = [ref.tensor(x) for x in (*inputs, table)]
    compute = ref.with_gradients(attend)
    compute = ref.compiled(compute) if division == "whole" else compute
    _, gradients = ref.staged(compute)(ref.tensor(upstream), *tensors)
    query, key, value = inputs
    mask = ref.block_toeplitz(table, GRID)
    # By hand: the derivative with respect to the masked scores.
    ones = np.ones_like(value[..., :1])
    inner = upstream @ np.swapaxes(np.concatenate([value, ones], -1), -1, -2)
    scores = query @ np.swapaxes(key, -1, -2)
    weights = np.swapaxes(scores * mask, -1, -2)
    by_mask = np.zeros_like(table)
    places = (slice(None), *ref.offset_indices(GRID))
    np.add.at(by_mask, places, (inner * scores).sum(0))
    expected = [
        (inner * mask) @ key,
        np.swapaxes(inner * mask, -1, -2) @ query,
        weights @ upstream[..., :-1],
        by_mask,
    ]
    for k, (a, b) in enumerate(zip(gradients, expected, strict=True)):
        ref.assert_close(a, b, 1e-12, f"gradient {k}")


def test_any_operator(blocks):
    blocks(*DIVISIONS["rows"])
    inputs = arrays()
    u, w = np.random.default_rng(2).normal(size=(2, 2, TOKENS, 3))
    matrix = u @ np.swapaxes(w, -1, -2)
    tensors = [ref.tensor(x) for x in inputs]
    for operator in (LowRank(u, w), Dense(matrix), Dense(matrix) * 1.0):
        numerator, denominator = explicit_attention(*tensors, operator)
        expected = wanted(*inputs, matrix)
        ref.assert_close(numerator, expected[0], 1e-12)
        ref.assert_close(denominator, expected[1], 1e-12)


@pytest.mark.few("True-rows", "False-whole")
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("division", ["whole", "rows"])
@pytest.mark.parametrize("jit", [False, True])
def test_unknown_batch_and_heads(division, jit, blocks):
    import tensorflow as tf

    blocks(*DIVISIONS[division])
    inputs = arrays()
    for batch in ((3, 1), (1, 2), (3, 2)):
        table = table_of(*batch)
        tensors = [ref.tensor(x) for x in (*inputs, table)]
        shapes = [(None, None, *x.shape[2:]) for x in tensors]
        shapes[-1] = (None if batch[0] > 1 else 1, None, *table.shape[2:])

        def attend(query, key, value, table):
            operator = BlockToeplitz(table, GRID)
            return explicit_attention(query, key, value, operator)

        signature = [
            tf.TensorSpec(shape, x.dtype)
            for shape, x in zip(shapes, tensors, strict=True)
        ]
        function = tf.function(attend, signature, jit_compile=jit)
        expected = wanted(*inputs, ref.block_toeplitz(table, GRID))
        for a, b in zip(function(*tensors), expected, strict=True):
            ref.assert_close(a, b, 1e-12)


def test_an_empty_batch():
    tensors = [ref.tensor(x[:0]) for x in arrays()]
    operator = BlockToeplitz(ref.tensor(table_of(2)), GRID)
    numerator, denominator = explicit_attention(*tensors, operator)
    assert tuple(numerator.shape) == (0, 2, TOKENS, 5)
    assert tuple(denominator.shape) == (0, 2, TOKENS, 1)


@pytest.mark.parametrize(
    "shape, masks, held",
    [
        ((1, 1, 4096, 8), (1,), 2**21),
        ((4, 4, 4096, 8), (4,), 2**21),
        ((32, 12, 4096, 8), (32, 12), 2**22),
        ((2, 64, 65536, 8), (64,), 2**23),
    ],
)
def test_blocks_are_small(shape, masks, held):
    """Scores and rows of a block, in numbers, for any sizes."""
    plan = plan_blocks(shape, masks, 64)
    batch, heads, length = shape[:3]
    pairs = (plan.examples or batch) * (plan.heads or heads)
    assert pairs * plan.rows * length <= held
    assert np.prod(masks) * plan.rows * length <= held


@pytest.mark.tensorflow_only
def test_the_matrix_is_computed_once_under_xla():
    """Not again for every example of a batch."""
    inputs = [ref.tensor(x, "float32") for x in arrays()]
    table = ref.tensor(table_of(2), "float32")

    def attend(query, key, value, table):
        operator = BlockToeplitz(table, GRID)
        return explicit_attention(query, key, value, operator)

    assert keras.backend.backend() == "tensorflow"
    text = ref.compiled(attend).experimental_get_compiler_ir(*inputs, table)(
        stage="hlo"
    )
    assert "opt-barrier" in text


def test_blocks_of_rows_are_whole_steps():
    """Lines of a grid come as slices; parts of lines take two of them."""
    assert plan_blocks((1, 1, 4096, 8), (1,), 64).rows % 64 == 0
    assert plan_blocks((1, 1, 16384, 8), (1,), 128).rows % 128 == 0
    # Steps of any length, or of any number of masks, would not be bounded.
    assert plan_blocks((1, 1, 65536, 8), (1,), 4096).rows < 4096
    assert plan_blocks((32, 12, 4096, 8), (32, 12), 64).rows < 64
