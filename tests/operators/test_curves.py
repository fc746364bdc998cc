"""Curves through grids, and masks that decay along them."""

import itertools
import types

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.attention import (
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.operators.curves import (
    CURVES,
    along_curves,
    curve_decay,
    curve_order,
    from_curves,
)

GRIDS = [
    *[(n,) for n in (1, 2, 7)],
    *itertools.product((1, 2, 3, 4, 5, 6, 9, 11), repeat=2),
    *itertools.product((1, 2, 3, 5, 6), repeat=3),
    (31, 17),
    (32, 32),
    (4, 16, 8),
]


@pytest.mark.parametrize("curve", sorted(CURVES))
def test_curves_visit_every_cell_once(curve):
    for grid in GRIDS:
        order = curve_order(grid, curve)
        length = np.prod(grid)
        assert order.shape == (length,) and order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(length))


@pytest.mark.parametrize(
    "curve", ["rows", "columns", "hilbert", "hilbert_transposed"]
)
def test_curves_step_to_neighbors(curve):
    for grid in GRIDS:
        cells = np.stack(np.unravel_index(curve_order(grid, curve), grid))
        steps = np.abs(np.diff(cells, axis=-1)).sum(axis=0)
        assert np.all(steps == 1), grid


def test_curves_by_hand():
    for curve, grid, expected in [
        ("rows", (2, 3), [0, 1, 2, 5, 4, 3]),
        ("columns", (2, 3), [0, 3, 4, 1, 2, 5]),
        ("rows", (2, 2, 2), [0, 1, 3, 2, 6, 7, 5, 4]),
        ("columns", (2, 2, 2), [0, 4, 6, 2, 3, 7, 5, 1]),
        ("diagonal", (3, 3), [0, 3, 1, 2, 4, 6, 7, 5, 8]),
        ("diagonal_transposed", (3, 3), [0, 1, 3, 6, 4, 2, 5, 7, 8]),
        ("diagonal", (2, 2, 2), [0, 4, 2, 1, 3, 6, 5, 7]),
        ("hilbert", (2, 2), [0, 1, 3, 2]),
    ]:
        order = curve_order(grid, curve)
        np.testing.assert_array_equal(order, expected, f"{curve} {grid}")


def test_diagonals_come_one_after_the_other():
    for grid in GRIDS:
        cells = np.unravel_index(curve_order(grid, "diagonal"), grid)
        assert np.all(np.diff(sum(cells)) >= 0)


def test_hilbert_curves_stay_together():
    """A part of 64 cells lies in a small box, that of a snake does not."""

    def extent(curve):
        order = curve_order((32, 32), curve).reshape(-1, 64)
        cells = np.stack(np.unravel_index(order, (32, 32)))
        return (cells.max(-1) - cells.min(-1) + 1).max(0).mean()

    assert extent("hilbert") < 14 and extent("rows") == 32


def curve_mask(grid, rates, orders, scale=1.0):
    """`s * mean_k P_k^T E(gamma_k) P_k`, with matrices."""
    length = int(np.prod(grid))
    steps = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    total = 0
    for k, order in enumerate(orders):
        p = np.eye(length)[order]
        total = total + p.T @ np.exp(-rates[..., k, None, None] * steps) @ p
    return np.asarray(scale)[..., None, None] * total / len(orders)


OWN_ORDER = np.random.default_rng(5).permutation(15)


def example(scale=True):
    grid, curves = (3, 5), ["rows", "columns", "hilbert", OWN_ORDER]
    random = np.random.default_rng(0)
    rates, scales = random.uniform(0, 1, (2, 4)), random.uniform(1, 2, 2)
    orders = [
        c if isinstance(c, np.ndarray) else curve_order(grid, c) for c in curves
    ]
    operator = curve_decay(
        grid,
        ref.tensor(rates, "float64"),
        curves,
        ref.tensor(scales, "float64") if scale else None,
    )
    return operator, curve_mask(grid, rates, orders, scales if scale else 1.0)


@pytest.mark.parametrize("scale", [True, False])
def test_equals_the_formula(scale):
    operator, matrix = example(scale)
    assert operator.shape == (2, 15, 15) and operator.nonnegative
    ref.assert_close(ref.dense(operator), matrix, 1e-14)
    ref.assert_close(ref.dense(operator.T), matrix, 1e-14)
    x = np.random.default_rng(1).normal(size=(2, 15, 3))
    product = ref.staged(operator.matmul)(ref.tensor(x, "float64"))
    ref.assert_close(product, matrix @ x, 1e-13)
    rows = ref.compiled(lambda start: operator._rows(start, 4))
    ref.assert_close(rows(ref.tensor(9, "int32")), matrix[:, 9:13], 1e-14)


def test_example_of_the_docstring():
    operator = curve_decay((2, 2), np.full(2, np.log(2.0)))
    expected = [1, 0.3125, 0.3125, 0.25]
    ref.assert_close(operator.rows(0, 1), np.array([expected]), 1e-6)


@pytest.mark.parametrize("scale", [True, False])
def test_attention_along_curves(scale):
    """Outputs, and gradients with respect to all, scale and rates included."""
    operator, matrix = example(scale)
    random = np.random.default_rng(2)
    arrays = [random.uniform(size=(2, 2, 15, c)) for c in (3, 3, 4)]
    query, key, value = [ref.tensor(x, "float64") for x in arrays]

    def attend(query, key, value, *tensors):
        pair = operator.with_tensors(tensors).attend(
            query, key, value, "curves in chunks"
        )
        return keras.ops.concatenate(pair, -1)

    def explicit(query, key, value, *tensors):
        mask = operator.with_tensors(tensors).to_dense()
        scores = mask * keras.ops.matmul(query, keras.ops.swapaxes(key, 2, 3))
        ones = keras.ops.ones_like(value[..., :1])
        value = keras.ops.concatenate([value, ones], -1)
        return keras.ops.matmul(scores, value)

    inputs = [query, key, value, *operator.tensors()]
    upstream = ref.tensor(random.normal(size=(2, 2, 15, 5)), "float64")
    y, gradients = ref.staged(ref.with_gradients(attend))(upstream, *inputs)
    scores = matrix * np.einsum("bhim,bhjm->bhij", *arrays[:2])
    ref.assert_close(y[..., :-1], scores @ arrays[2], 1e-13)
    ref.assert_close(y[..., -1:], scores.sum(-1, keepdims=True), 1e-13)
    _, expected = ref.staged(ref.with_gradients(explicit))(upstream, *inputs)
    assert len(gradients) == 5 if scale else 4
    for got, want in zip(gradients, expected, strict=True):
        ref.assert_close(got, ref.numpy(want), 1e-11)


def test_rates_per_example_and_shared():
    random = np.random.default_rng(3)
    arrays = [random.uniform(size=(2, 3, 6, 2)) for _ in range(3)]
    tensors = [ref.tensor(x, "float64") for x in arrays]
    for lead in [(), (3,), (2, 1), (2, 3)]:
        rates = ref.tensor(random.uniform(size=lead + (2,)), "float64")
        operator = curve_decay((2, 3), rates)
        numerator, _ = ref.staged(operator.attend)(*tensors)
        scores = ref.dense(operator) * np.einsum("bhim,bhjm->bhij", *arrays[:2])
        ref.assert_close(numerator, scores @ arrays[2], 1e-13, f"{lead}")


def test_gathers_are_transposes():
    orders = np.stack([curve_order((3, 4), c) for c in ("rows", "hilbert")])
    random = np.random.default_rng(4)
    x, y = random.normal(size=(12, 2)), random.normal(size=(2, 12, 2))
    np.testing.assert_array_equal(
        along_curves(ref.tensor(x), orders)[1], x[orders[1]]
    )
    back = ref.numpy(from_curves(ref.tensor(y), orders))
    np.testing.assert_allclose(np.sum(x[orders] * y), np.sum(x * back))


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
def test_unknown_batch_and_heads(jit_compile):
    import tensorflow as tf

    rates = np.random.default_rng(5).uniform(size=(2, 3, 2))
    x = np.random.default_rng(6).uniform(size=(2, 3, 6, 4))

    @tf.function(
        autograph=False,
        jit_compile=jit_compile,
        input_signature=[
            tf.TensorSpec((None, None, 2)),
            tf.TensorSpec((None, None, 6, 4)),
        ],
    )
    def run(rates, x):
        return curve_decay((2, 3), rates).attend(x, x, x, "fast")[0]

    orders = [curve_order((2, 3), c) for c in ("rows", "columns")]
    scores = curve_mask((2, 3), rates, orders) * (x @ x.swapaxes(-1, -2))
    actual = run(ref.tensor(rates, "float32"), ref.tensor(x, "float32"))
    ref.assert_close(actual, scores @ x, 1e-5)


def test_cost_grows_with_the_curves():
    def cost(*curves):
        problem = types.SimpleNamespace(
            batch=1, heads=2, length=4096, num_features=64, value_dim=64
        )
        operator = curve_decay((64, 64), np.ones(len(curves)), curves)
        return operator._curves_cost(problem)

    assert cost("rows") < cost("rows", "columns") < 2 * cost("rows")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((2, 3), [0.1, -0.2]), "`rates` expects rates that are not neg"),
        (((2, 3), [0.1, np.nan]), "`rates` expects rates that are not neg"),
        (((2, 3), [0.1]), "one rate per curve, 2 in the last"),
        (((2, 3), [0.1], ["spiral"]), "`curve` expects one of.*'spiral'"),
        (((2, 3), [0.1], "rows"), "`curves` expects a non-empty list"),
        (((2, 3), [0.1], []), "`curves` expects a non-empty list"),
        (((2, 3), [0.1], [np.arange(4)]), r"6 cells.*shape \(4,\)"),
        (((2, 3), [0.1], [np.zeros(6, int)]), "6 cells"),
        (((2, 3), [0.1], [np.arange(6.0)]), "dtype float64"),
        (((2, 0), [0.1, 0.1]), r"`grid_shape` expects.*\(2, 0\)"),
        ((6, [0.1, 0.1]), "`grid_shape` expects.*=6"),
        (((1, 1, 2, 3), [0.1, 0.1]), "`grid_shape` expects one to three"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        curve_decay(*arguments)


def test_infinite_rates_leave_the_diagonal():
    mask = curve_decay((2, 2), [np.inf, np.inf])
    np.testing.assert_array_equal(ref.dense(mask), np.eye(4))
    q = np.random.default_rng(0).random((1, 1, 4, 2))
    for attend in (masked_linear_attention, masked_softmax_attention):
        found = ref.numpy(attend(q, q, q, mask))
        np.testing.assert_allclose(found, q, rtol=1e-5)


def test_many_tokens_in_float16():
    mask = curve_decay((1, 70_000), np.zeros(2, "float16"))
    assert (ref.numpy(mask.rows(0, 1)) == 1).all()
