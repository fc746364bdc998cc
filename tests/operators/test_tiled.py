"""Attention in tiles, compared with the explicit mask in NumPy, in float64."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.operators import Dense, ExponentialDecay, Kronecker, tiled
from keras_topo.operators.forms import Problem
from keras_topo.operators.tiled import tiled_attention


def axis_mask(rates, n):
    """`(*batch, n, n)` from `(forward, backward)`, entry by entry."""
    forward, backward = (
        None if r is None else np.broadcast_to(r, np.shape(r)[:-1] + (n,))
        for r in rates
    )
    lead = np.shape(backward if forward is None else forward)[:-1]
    mask = np.zeros(lead + (n, n))
    for i in range(n):
        for j in range(n):
            if i == j:
                mask[..., i, j] = 1
            elif i > j and forward is not None:
                mask[..., i, j] = np.exp(-forward[..., j + 1 : i + 1].sum(-1))
            elif i < j and backward is not None:
                mask[..., i, j] = np.exp(-backward[..., i + 1 : j + 1].sum(-1))
    return mask


def grid_mask(axes, grid):
    mask = np.ones((1, 1, 1, 1))
    for rates, n in zip(axes, grid, strict=True):
        f = axis_mask(rates, n)
        mask = np.einsum("...ij,...kl->...ikjl", mask, f)
        size = mask.shape[-4] * n
        mask = mask.reshape(mask.shape[:-4] + (size, size))
    return mask


def oracle(query, key, value, mask):
    scores = mask * np.einsum("bhim,bhjm->bhij", query, key)
    return np.concatenate([scores @ value, scores.sum(-1, keepdims=True)], -1)


def features(batch, heads, length, m=3, d=4, seed=0):
    random = np.random.default_rng(seed)
    return [random.uniform(-1, 1, (batch, heads, length, c)) for c in (m, m, d)]


def rates(grid, lead, kind, seed=1):
    random = np.random.default_rng(seed)

    def of(n):
        return random.uniform(0, 1, lead + (n,))

    if kind == "constant":
        return [(of(1), of(1)) for n in grid]
    if kind == "gates":
        return [(of(n), of(n)) for n in grid]
    return [((None, of(n)) if n % 2 else (of(1), None)) for n in grid]


def attend(arrays, grid, axes, tiles=None, dtype="float64"):
    arrays = [ref.tensor(x, dtype) for x in arrays]
    axes = [
        tuple(None if r is None else ref.tensor(r, dtype) for r in pair)
        for pair in axes
    ]

    def run(*arrays):
        pair = tiled_attention(*arrays, grid, axes, tiles)
        return keras.ops.concatenate(pair, -1)

    return ref.staged(run)(*arrays)


@pytest.mark.few_on_jax(
    "grid0-tiles0-causal",
    "grid2-tiles2-constant",
    "grid2-tiles2-gates",
    "grid4-tiles4-gates",
    "grid5-tiles5-constant",
    "grid7-None-causal",
)
@pytest.mark.parametrize("kind", ["constant", "gates", "causal"])
@pytest.mark.parametrize(
    "grid, tiles",
    [
        ((7, 6), (3, 2)),
        ((6, 9), (6, 4)),
        ((9, 4), (2, 4)),
        ((5, 1, 8), (2, 1, 3)),
        ((4, 5, 6), (2, 2, 4)),
        ((11,), (3,)),
        ((70, 2), (16, 1)),
        ((1, 1), None),
    ],
)
def test_equals_the_explicit_mask(grid, tiles, kind):
    arrays = features(2, 3, int(np.prod(grid)))
    for lead in [(), (3,), (2, 1)] if len(grid) == 2 else [(2, 3)]:
        axes = rates(grid, lead, kind)
        expected = oracle(*arrays, grid_mask(axes, grid))
        actual = attend(arrays, grid, axes, tiles)
        ref.assert_close(actual, expected, 1e-13, f"rates {lead}")


def test_chosen_tiles_in_float32():
    grid = (20, 24)
    arrays = features(1, 2, 480, m=32, d=32)
    axes = rates(grid, (2,), "gates")
    tiles = tiled.best_tiles(grid, 32, 33)
    assert max(n // t for n, t in zip(grid, tiles, strict=True)) > 1
    expected = oracle(*arrays, grid_mask(axes, grid))
    ref.assert_close(
        attend(arrays, grid, axes, None, "float32"), expected, 1e-5
    )


@pytest.mark.few_on_jax("10000.0")
@pytest.mark.parametrize("rate", [60.0, 1e4])
def test_large_rates(rate):
    """Values and gradients are finite, and small rates behind large ones are
    as accurate as elsewhere."""
    grid, tiles = (6, 5), (2, 2)
    arrays = [np.abs(x) for x in features(1, 1, 30)]
    gates = np.full(5, 1e-3)
    gates[1] = rate
    axes = [(gates[:1], gates[:1] * rate), (gates, gates)]
    expected = oracle(*arrays, grid_mask(axes, grid))
    ref.assert_close(
        attend(arrays, grid, axes, tiles, "float32"), expected, 1e-6
    )

    def run(constant, gates, *arrays):
        axes = [(constant, constant), (gates, gates)]
        return tiled_attention(*arrays, grid, axes, tiles)[0]

    inputs = [ref.tensor(x, "float32") for x in (gates[1:2], gates, *arrays)]
    upstream = ref.tensor(np.ones((1, 1, 30, 4)), "float32")
    _, gradients = ref.staged(ref.with_gradients(run))(upstream, *inputs)
    for gradient in gradients:
        assert np.all(np.isfinite(ref.numpy(gradient)))


@pytest.mark.few_on_jax("10")
@pytest.mark.parametrize("limit", [None, 50, 10])
def test_gradients(limit, monkeypatch):
    """By complex steps; also through blocks of heads, and of columns."""
    if limit:
        monkeypatch.setattr(tiled, "BLOCK_STATES", limit)
    grid, tiles = (3, 4), (2, 2)
    arrays = features(1, 2, 12, m=2, d=2)
    first, second = np.array([[0.4], [0.9]]), np.array([0.3, 0.2, 0.5, 0.7])
    upstream = np.random.default_rng(3).normal(size=(1, 2, 12, 3))

    def run(first, second, *arrays):
        axes = [(first, first), (second, None)]
        pair = tiled_attention(*arrays, grid, axes, tiles)
        return keras.ops.concatenate(pair, -1)

    def total(first, second, *arrays):
        mask = [
            np.exp(
                -np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
                * first[..., None]
            ),
            np.tril(
                np.exp(-np.subtract.outer(np.cumsum(second), np.cumsum(second)))
            ),
        ]
        mask = np.einsum("hij,kl->hikjl", *mask).reshape(2, 12, 12)
        return np.sum(upstream * oracle(*arrays, mask))

    inputs = [first, second, *arrays]
    expected = ref.complex_step_gradients(total, inputs)
    _, actual = ref.staged(ref.with_gradients(run))(
        ref.tensor(upstream, "float64"),
        *[ref.tensor(x, "float64") for x in inputs],
    )
    for got, want in zip(actual, expected, strict=True):
        ref.assert_close(got, want, 1e-12)


@pytest.mark.slow
def test_blocks_hold_few_states(monkeypatch):
    """Blocks of heads, with rates for all or for each, and of columns."""
    grid, tiles = (6, 5), (2, 3)
    arrays = features(2, 3, 30)
    held = []
    inner = tiled.attend_tiles
    monkeypatch.setattr(
        tiled,
        "attend_tiles",
        lambda q, k, v, *rest: (
            held.append((q.shape[0], v.shape[-1])) or inner(q, k, v, *rest)
        ),
    )
    for limit, block, lead in (
        (400, (1, 5), ()),
        (1100, (3, 5), (2, 3)),
        (100, (1, 3), ()),
    ):
        monkeypatch.setattr(tiled, "BLOCK_STATES", limit)
        axes = rates(grid, lead, "gates")
        expected = oracle(*arrays, grid_mask(axes, grid))
        held.clear()
        ref.assert_close(attend(arrays, grid, axes, tiles), expected, 1e-13)
        assert set(held) == {block}


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_batch_and_heads(jit_compile):
    import tensorflow as tf

    grid, tiles = (4, 6), (2, 4)
    arrays = features(2, 3, 24)
    axes = rates(grid, (2, 3), "gates")

    @tf.function(
        autograph=False,
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec((None, None, 24, 3)),
            tf.TensorSpec((None, None, 24, 4)),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None, None, 1)),
        ],
    )
    def run(features, value, first, second):
        axes = [(first, first), (second, None)]
        return tiled_attention(features, features, value, grid, axes, tiles)

    axes = [(axes[0][0],) * 2, (axes[1][0][..., :1], None)]
    expected = oracle(arrays[0], arrays[0], arrays[2], grid_mask(axes, grid))
    pair = run(
        *[
            ref.tensor(x, "float32")
            for x in (arrays[0], arrays[2], axes[0][0], axes[1][0])
        ]
    )
    ref.assert_close(keras.ops.concatenate(pair, -1), expected, 1e-5)


# Kronecker products.


def decay(rate, n):
    return ExponentialDecay(ref.tensor(rate, "float64"), n)


@pytest.mark.slow_on_jax
def test_kronecker_attends_in_tiles():
    nested = Kronecker([decay(0.3, 3), decay([0.2, 0.7], 4)])
    operator = Kronecker([nested, decay([0.5, 0.1], 5)])
    arrays = features(1, 2, 60)
    tensors = [ref.tensor(x, "float64") for x in arrays]
    pair = operator.attend(*tensors, "tiles")
    ref.assert_close(
        keras.ops.concatenate(pair, -1),
        oracle(*arrays, ref.dense(operator)),
        1e-13,
    )


def test_tiles_are_for_several_axes_of_decays():
    problem = Problem(1, 1, 4, 3, 4)

    def names(*factors):
        return [form.name for form in Kronecker(list(factors)).forms(problem)]

    single = ["chunks", "explicit", "columns"]
    assert names(decay(0.5, 4)) == single
    assert names(decay(0.5, 1), decay(0.5, 4)) == single
    ones = Dense(ref.tensor(np.ones((2, 2)), "float64"))
    assert names(decay(0.5, 2), ones) == ["explicit", "columns"]


def test_kronecker_rows_at_any_start():
    random = np.random.default_rng(0)
    first, second = random.uniform(size=(2, 3, 3)), random.uniform(size=(4, 4))
    second[1] = 0
    operator = Kronecker(
        [ref.tensor(first, "float64"), ref.tensor(second, "float64")]
    )
    matrix = np.stack([np.kron(f, second) for f in first])
    for prepared in (operator, operator._for_rows()):
        rows = ref.compiled(lambda i, o=prepared: o._rows(i, 5))
        for start in (0, 3, 7):
            actual = ref.numpy(rows(ref.tensor(start, "int32")))
            expected = matrix[:, start : start + 5]
            ref.assert_close(actual, expected, 1e-15)
            np.testing.assert_array_equal(actual == 0, expected == 0)
        ids = np.array([9, 0, 5, 5], "int32")
        ref.assert_close(
            prepared._rows_at(ref.tensor(ids)), matrix[:, ids], 1e-15
        )
