"""Resolvents against inverses, paths that are counted, and what they refuse.

Products, rows and gradients are in `test_contract.py` too.
"""

import itertools
import math

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.attention import masked_linear_attention
from keras_topo.host import levels as plans
from keras_topo.operators import (
    BlockToeplitz,
    GridResolvent,
    Resolvent,
    grid_resolvent,
    personalized_pagerank,
)

# On TensorFlow; the contracts of operators and layers run on JAX, too.
pytestmark = pytest.mark.slow_on_jax

RING = np.array([[0, 1], [1, 2], [2, 0]])


def random_edges(length, count, seed=0):
    """Without loops, some of them listed twice."""
    random = np.random.default_rng(seed)
    edges = random.integers(0, length, (count, 2))
    return edges[edges[:, 0] != edges[:, 1]]


def acyclic_edges(length, count, seed=0):
    """In an order of the nodes that is not that of their numbers."""
    names = np.random.default_rng(seed).permutation(length)
    edges = np.sort(random_edges(length, count, seed), axis=1)[:, ::-1]
    return names[edges]


def scaled_weights(edges, length, largest, batch=(), seed=1):
    """Random ones with rows that sum to `largest` at most."""
    random = np.random.default_rng(seed)
    weights = random.random((*batch, len(edges)))
    sums = plans.row_sums(edges, weights, length)
    return weights * largest / sums.max(-1, keepdims=True)


# Acyclic graphs.


@pytest.mark.few_on_jax("0-batch1", "60-batch0", "400-batch2")
@pytest.mark.parametrize("batch", [(), (3,), (2, 1)])
@pytest.mark.parametrize("count", [0, 1, 60, 400])
def test_acyclic_graphs(count, batch):
    length = 40
    edges = acyclic_edges(length, count)
    weights = np.random.default_rng(1).random((*batch, len(edges)))
    matrix = ref.resolvent(edges, weights, length)
    operator = Resolvent(edges, ref.tensor(weights), length)
    assert operator.acyclic and operator.nonnegative
    dense = ref.dense(operator)
    ref.assert_close(dense, matrix, 1e-12)
    # Where no path leads, and nowhere else.
    reached = ref.resolvent(edges, np.ones(len(edges)), length) > 0.5
    assert np.array_equal(dense != 0, np.broadcast_to(reached, dense.shape))
    transposed = np.swapaxes(matrix, -1, -2)
    ref.assert_close(ref.dense(operator.T), transposed, 1e-12)


def test_a_path_is_a_decay():
    """One-sided: half at each step."""
    edges = np.stack([np.arange(1, 50), np.arange(49)], axis=1)
    operator = Resolvent(edges, ref.tensor(np.full(49, 0.5)), 50, acyclic=True)
    # Longer than a path, a level has one edge: no step is padding.
    assert operator.num_levels == 49
    expected = np.tril(ref.decay(np.log(np.array(2.0)), 50))
    dense = ref.dense(operator)
    ref.assert_close(dense, expected, 1e-14)
    assert (dense[expected == 0] == 0).all()


def test_weights_of_any_size_count_paths():
    """Of the complete acyclic graph: `2^(d - 1)` between nodes `d` apart."""
    edges = np.array([(i, j) for i in range(12) for j in range(i)])
    dense = ref.dense(Resolvent(edges, np.ones(len(edges), "float32"), 12))
    d = np.subtract.outer(np.arange(12), np.arange(12))
    expected = np.where(d > 0, 2.0 ** (d - 1), d == 0)
    ref.assert_close(dense, expected, 0)


def test_levels_are_cut_into_steps_of_one_size(monkeypatch):
    """A wide level beside a long path: little padding, the same result."""
    path = np.stack([np.arange(1, 60), np.arange(59)], axis=1)
    star = np.stack([np.full(500, 59), np.arange(60, 560)], axis=1)
    fan = np.stack([np.arange(560, 700), np.full(140, 3)], axis=1)
    edges = np.concatenate([path, star, fan])
    level = plans.levels(edges[:, 0], edges[:, 1], 700)
    assert level[59] == 59 and level[:60].tolist() == list(range(60))
    plan = plans.LevelPlan(edges[:, 0], edges[:, 1], level)
    assert plan.real.sum() == len(edges)
    assert plan.real.size <= 2 * len(edges) + plans.FEWEST_EDGES * 60
    weights = np.random.default_rng(0).random(len(edges))
    x = np.random.default_rng(1).normal(size=(700, 2))
    operator = Resolvent(edges, ref.tensor(weights), 700)
    expected = ref.resolvent(edges, weights, 700) @ x
    ref.assert_close(operator @ ref.tensor(x), expected, 1e-12)


def test_equal_graphs_in_use_share_their_plan():
    edges = acyclic_edges(20, 40)
    first = Resolvent(edges, np.ones(len(edges)), 20)
    second = Resolvent(edges.copy(), np.zeros(len(edges)), 20)
    assert first._solver.plan is second._solver.plan
    other = Resolvent(edges, np.zeros(len(edges)), 21)
    assert first._solver.plan is not other._solver.plan


# Series.


@pytest.mark.few_on_jax("0.0-batch1", "0.9-batch1")
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("largest", [0.0, 0.5, 0.9])
def test_series(largest, batch):
    length = 30
    edges = random_edges(length, 90)
    weights = scaled_weights(edges, length, largest, batch)
    matrix = ref.resolvent(edges, weights, length)
    operator = Resolvent(edges, ref.tensor(weights), length)
    assert not operator.acyclic
    ref.assert_close(ref.dense(operator), matrix, 1e-13)
    single = Resolvent(edges, ref.tensor(weights, "float32"), length)
    ref.assert_close(ref.dense(single), matrix, 2e-6)
    assert (ref.dense(single) >= 0).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_series_leave_out_is_within_the_tolerance(symmetric, tolerance):
    length = 30
    ring = np.stack([np.arange(length), np.roll(np.arange(length), 1)], axis=1)
    other = ring[:, ::-1] if symmetric else random_edges(length, 60)
    edges = np.concatenate([ring, other])
    # All rows sum to 0.9.
    weights = 0.9 / np.bincount(edges[:, 0])[edges[:, 0]]
    matrix = ref.resolvent(edges, weights, length)
    operator = Resolvent(
        edges, ref.tensor(weights), length, tolerance=tolerance
    )
    assert operator._solver.chebyshev == symmetric
    wrong = ref.dense(operator) - matrix
    order = 2 if symmetric else np.inf
    error = np.linalg.norm(wrong, order)
    # As many products as it takes, not many more.
    assert tolerance / 1e3 < error < tolerance
    steps = operator.num_products("float64")
    if not symmetric:
        assert 0.9 ** (steps + 1) / 0.1 <= tolerance < 0.9**steps / 0.1


def test_numbers_of_products_in_the_docstring():
    both = np.concatenate([RING, RING[:, ::-1]])
    for edges, weight, steps in ((both, 0.45, 41), (RING, 0.9, 174)):
        operator = Resolvent(edges, np.full(len(edges), weight), 3)
        assert operator.num_products() == steps
        operator = personalized_pagerank(edges, 3, 0.85).operator
        assert operator.num_products() == (32 if steps == 41 else 110)


def test_nodes_that_are_not_reached_are_zero():
    edges = np.array([(0, 1), (1, 0), (3, 2), (2, 3), (4, 0)])
    weights = np.full(5, 0.5, "float32")
    for symmetric_only in (False, True):
        use = slice(0, 4) if symmetric_only else slice(None)
        operator = Resolvent(edges[use], weights[use], 5)
        assert operator._solver.chebyshev == symmetric_only
        matrix = ref.resolvent(edges[use], weights[use], 5)
        assert np.array_equal(ref.dense(operator) != 0, matrix != 0)


def test_traced_edges_and_weights():
    edges = random_edges(10, 30)
    weights = scaled_weights(edges, 10, 0.8)
    x = np.random.default_rng(2).normal(size=(2, 10, 3))
    expected = ref.resolvent(edges, weights, 10) @ x

    @ref.compiled
    def product(edges, weights, x):
        return Resolvent(edges, weights, 10, max_row_sum=0.8) @ x

    y = product(ref.tensor(edges, "int32"), ref.tensor(weights), ref.tensor(x))
    ref.assert_close(y, expected, 1e-13)


@pytest.mark.parametrize("undirected", [False, True])
def test_personalized_pagerank(undirected):
    length = 25
    edges = random_edges(length, 80)
    random = np.random.default_rng(0)
    weights = random.uniform(0.1, 3, len(edges))
    if undirected:
        edges = np.concatenate([edges, edges[:, ::-1]])
        weights = np.concatenate([weights, weights])
    damping = np.array([0.5, 0.9])
    adjacency = ref.sparse_pairs(edges, weights, length)
    degrees = adjacency.sum(1, keepdims=True)
    steps = adjacency / np.where(degrees > 0, degrees, 1)
    expected = [
        (1 - a) * np.linalg.inv(np.eye(length) - a * steps) for a in damping
    ]
    operator = personalized_pagerank(
        edges, length, ref.tensor(damping), weights
    )
    assert operator.operator._solver.chebyshev == undirected
    dense = ref.dense(operator)
    ref.assert_close(dense, np.stack(expected), 1e-13)
    ends = dense.sum(-1)[:, degrees[:, 0] > 0]
    if undirected:
        ref.assert_close(ends, np.ones_like(ends), 1e-12)
    ref.assert_close(
        ref.dense(operator.T), np.swapaxes(expected, -1, -2), 1e-13
    )


def test_damping_is_learned():
    edges = np.concatenate([RING, RING[:, ::-1]])
    x = np.random.default_rng(0).normal(size=(3, 2))

    def energy(damping):
        operator = personalized_pagerank(edges, 3, damping, max_damping=0.85)
        return ops.sum((operator @ ref.tensor(x)) ** 2)

    ref.check_second_derivatives(energy, [np.array([0.3, 0.8])])


# Grids.


GRIDS = ((5,), (3, 4), (4, 3), (1, 4), (3, 1, 2), (2, 3, 4), (1, 1))


@pytest.mark.few_on_jax("(3, 4)-False", "(1, 4)-True")
@pytest.mark.parametrize("per_edge", [False, True])
@pytest.mark.few("(5,)-True", "(3, 4)-False", "(1, 4)-True", "(2, 3, 4)-True")
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_grids_from_every_corner(grid, per_edge):
    random = np.random.default_rng(0)
    shape = (len(grid), *grid) if per_edge else (len(grid),)
    weights = random.random((2, *shape))
    corners = list(itertools.product((0, 1), repeat=len(grid)))
    total = 0
    # Each is compiled.
    for corner in corners[:: 3 if ref.on_jax or len(corners) > 4 else 1]:
        matrix = ref.grid_resolvent(weights, grid, corner, per_edge)
        operator = GridResolvent(ref.tensor(weights), grid, corner, per_edge)
        dense = ref.dense(operator)
        ref.assert_close(dense, matrix, 1e-13, corner)
        assert np.array_equal(dense != 0, np.abs(matrix) > 1e-13)
        transposed = np.swapaxes(matrix, -1, -2)
        ref.assert_close(ref.dense(operator.T), transposed, 1e-13, corner)
        for rows, expected in (
            (operator._for_rows(), matrix),
            (operator.T._for_rows(), transposed),
        ):
            assert isinstance(rows, BlockToeplitz) != per_edge
            ref.assert_close(ref.dense(rows), expected, 1e-13, corner)
    for corner in corners:
        total = total + ref.grid_resolvent(weights, grid, corner, per_edge)
    everywhere = grid_resolvent(grid, ref.tensor(weights), per_edge=per_edge)
    ref.assert_close(ref.dense(everywhere), total, 1e-13)


def test_constant_weights_are_binomials():
    rows, columns, down, right = 6, 9, 0.7, 0.4
    table = np.zeros((2 * rows - 1, 2 * columns - 1))
    for r, c in np.ndindex(rows, columns):
        paths = math.comb(r + c, r)
        table[rows - 1 + r, columns - 1 + c] = paths * down**r * right**c
    operator = GridResolvent(ref.tensor([down, right]), (rows, columns))
    expected = ref.dense(BlockToeplitz(table, (rows, columns)))
    ref.assert_close(ref.dense(operator), expected, 1e-6)


def test_a_sequence_is_a_decay_beyond_what_its_powers_hold():
    """`0.5^256` underflows in float32, `2^-k` does not matter there."""
    operator = GridResolvent(np.array([0.5], "float32"), (600,))
    dense = ref.dense(operator)
    expected = np.tril(ref.decay(np.log(np.array(2.0)), 600))
    ref.assert_close(dense, expected, 1e-6)


def test_a_grid_is_the_graph_of_its_edges():
    """On a grid of a thousand cells, in float32."""
    grid, corner = (24, 40), (1, 0)
    edges, axes = ref.grid_edges(grid, corner)
    random = np.random.default_rng(0)
    per_edge = random.uniform(0, 0.5, (2, *grid)).astype("float32")
    along = per_edge.reshape(2, -1)[axes, edges[:, 0]]
    x = random.normal(size=(3, 960, 2)).astype("float32")
    graph = Resolvent(edges, along, 960, acyclic=True)
    assert graph.num_levels >= sum(grid) - 2
    cells = GridResolvent(per_edge, grid, corner, per_edge=True)
    ref.assert_close(cells @ x, ref.numpy(graph @ x), 1e-5)
    ref.assert_close(cells.T @ x, ref.numpy(graph.T @ x), 1e-5)


# Derivatives, batches and dtypes.


def derivative_cases():
    dag = acyclic_edges(8, 20)
    ring = random_edges(8, 20)
    weights = scaled_weights(ring, 8, 0.7)
    random = np.random.default_rng(3)
    return {
        "acyclic": (lambda w: Resolvent(dag, w, 8), random.random(len(dag))),
        "heads": (
            lambda w: Resolvent(dag, w, 8),
            random.random((2, len(dag))),
        ),
        "series": (lambda w: Resolvent(ring, w, 8, max_row_sum=0.8), weights),
        "grid": (lambda w: GridResolvent(w, (2, 4)), random.random(2)),
        "grid-edges": (
            lambda w: GridResolvent(w, (2, 4), (0, 1), per_edge=True),
            random.random((2, 2, 4)),
        ),
    }


DERIVATIVES = derivative_cases()


@pytest.mark.few_on_jax("acyclic", "series")
@pytest.mark.parametrize("name", DERIVATIVES)
def test_second_derivatives(name):
    build, weights = DERIVATIVES[name]
    x = np.random.default_rng(4).normal(size=(8, 2))

    def energy(weights, x):
        return ops.sum((build(weights) @ x) ** 3)

    ref.check_second_derivatives(energy, [weights, x], 1e-6)


@pytest.mark.few_on_jax("acyclic", "grid-edges")
@pytest.mark.parametrize("name", DERIVATIVES)
def test_empty_batches(name):
    build, weights = DERIVATIVES[name]
    operator = build(ref.tensor(weights))
    batch = weights.shape[:-1] if name == "heads" else ()
    x = np.zeros((0, *batch, 8, 2))
    assert tuple((operator @ ref.tensor(x)).shape) == x.shape
    assert (operator @ ref.tensor(np.zeros((8, 0)))).shape[-1] == 0
    empty = build(ref.tensor(np.zeros((0, *weights.shape))))
    assert tuple((empty @ ref.tensor(np.ones((8, 2)))).shape) == (
        0,
        *batch,
        8,
        2,
    )


@pytest.mark.few("series-True", "grid-edges-True", "heads-True", "acyclic-True")
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_unknown_batch_and_heads(name, jit_compile):
    """Examples and heads with weights of their own, as in a graph of Keras."""
    import tensorflow as tf

    build, weights = DERIVATIVES[name]
    if name == "heads":
        weights = weights[0]
    scale = np.array([[0.5], [1.0], [0.2]]).reshape(3, 1, *weights.ndim * [1])
    weights = ref.tensor(weights * scale)
    x = ref.tensor(np.random.default_rng(5).normal(size=(3, 2, 8, 4)))
    rank = weights.shape.rank

    @tf.function(
        jit_compile=jit_compile,
        autograph=False,
        input_signature=[
            tf.TensorSpec((None, 1, *weights.shape[2:]), "float64"),
            tf.TensorSpec((None, None, 8, 4), "float64"),
        ],
    )
    def gradients(weights, x):
        y, found = ref.with_gradients(lambda w, x: build(w) @ x)(x, weights, x)
        return y, *found

    expected, wanted = ref.with_gradients(lambda w, x: build(w) @ x)(
        x, weights, x
    )
    assert rank == len(weights.shape)
    for found, known in zip(
        gradients(weights, x), [expected, *wanted], strict=True
    ):
        ref.assert_close(found, ref.numpy(known), 1e-12)


@pytest.mark.few_on_jax("series", "grid-edges")
@pytest.mark.parametrize("name", ["acyclic", "series", "grid-edges"])
def test_attention(name):
    build, weights = DERIVATIVES[name]
    random = np.random.default_rng(6)
    q, k, v = random.random((3, 2, 2, 8, 3))
    matrix = ref.dense(build(ref.tensor(weights)))
    expected = ref.linear_attention(q, k, v, matrix)
    for implementation in ("fast", "explicit"):
        actual = masked_linear_attention(
            *map(ref.tensor, (q, k, v)),
            build(ref.tensor(weights)),
            implementation=implementation,
        )
        ref.assert_close(actual, expected, 1e-12, implementation)


def test_half_precision_is_computed_in_single():
    edges = acyclic_edges(30, 90)
    weights = np.random.default_rng(0).random(len(edges))
    operator = Resolvent(edges, ref.tensor(weights, "float16"), 30)
    x = ref.tensor(np.eye(30), "float16")
    y = operator @ x
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    rounded = weights.astype("float16").astype("float64")
    ref.assert_close(y, ref.resolvent(edges, rounded, 30), 1e-5)


# Errors.


def traced_weights():
    @ref.compiled
    def product(weights):
        return Resolvent(RING, weights, 3) @ ops.ones((3, 1))

    product(ops.ones((3,)) / 4)


ERRORS = {
    "tokens": (lambda: Resolvent(RING, np.ones(3), 0), "`num_tokens` expects"),
    "tokens-unknown": (
        lambda: Resolvent(RING, np.ones(3), None),
        "`num_tokens` expects",
    ),
    "range": (
        lambda: Resolvent(RING, np.ones(3), 2),
        "`edges` expects ids of tokens from 0 to 1. Received: 2",
    ),
    "floats": (lambda: Resolvent(RING + 0.5, np.ones(3), 4), "`edges` expects"),
    "triples": (
        lambda: Resolvent(np.zeros((2, 3), int), np.ones(2), 3),
        r"`edges` expects the shape.*edges of shape \(2, 3\)",
    ),
    "batch": (
        lambda: Resolvent(RING[None], np.ones(3), 3),
        r"`edges` expects the shape \(edges, 2\)",
    ),
    "counts": (
        lambda: Resolvent(RING, np.ones(2), 3),
        r"`edges` expects.*weights of shape \(2,\)",
    ),
    "negative": (
        lambda: Resolvent(RING, [0.1, -0.5, 0.1], 3),
        "`weights` expects finite numbers.*Received: -0.5",
    ),
    "nan": (lambda: Resolvent(RING, [0.1, np.nan, 0.1], 3), "Received: nan"),
    "infinite": (lambda: Resolvent([[1, 0]], [np.inf], 2), "Received: inf"),
    "cycle": (
        lambda: Resolvent(RING, np.ones(3) / 4, 3, acyclic=True),
        "without cycles.*Received: the cycle "
        "(0 -> 2 -> 1 -> 0|1 -> 0 -> 2 -> 1|2 -> 1 -> 0 -> 2)",
    ),
    "loop": (
        lambda: Resolvent([[1, 0], [1, 1]], np.ones(2) / 4, 2, acyclic=True),
        "the cycle 1 -> 1",
    ),
    "row-sum": (
        lambda: Resolvent([[0, 1], [1, 0], [1, 1]], [0.2, 0.5, 0.5], 2),
        "`weights` expects row sums below 1.* node 1 that sum to 1",
    ),
    "row-sum-series": (
        lambda: Resolvent([[1, 0]], [2.0], 2, acyclic=False),
        "row sums below 1.* node 1 that sum to 2",
    ),
    "row-sum-promised": (
        lambda: Resolvent(RING, np.full(3, 0.8), 3, max_row_sum=0.5),
        "row sums of at most 0.5.* sum to 0.8",
    ),
    "row-sum-limit": (
        lambda: Resolvent(RING, np.ones(3), 3, max_row_sum=1.0),
        "`max_row_sum` expects a number from 0 to below 1",
    ),
    "row-sum-traced": (traced_weights, "`max_row_sum` expects a number where"),
    "symmetric": (
        lambda: Resolvent(RING, np.ones(3) / 4, 3, symmetric=True),
        "`symmetric` expects True",
    ),
    "tolerance": (
        lambda: Resolvent(RING, np.ones(3) / 4, 3, tolerance=0.0),
        "`tolerance` expects a number",
    ),
    "damping": (
        lambda: personalized_pagerank(RING, 3, 1.0),
        "`damping` expects numbers from 0 to below 1",
    ),
    "damping-weights": (
        lambda: personalized_pagerank(RING, 3, 0.5, np.ones(2)),
        r"`weights` \(edges,\). Received.*weights of shape \(2,\)",
    ),
    "grid": (lambda: GridResolvent([0.5], (0,)), "`grid_shape` expects"),
    "grid-weights": (
        lambda: GridResolvent([0.5], (2, 2)),
        r"`weights` expects the shape \(..., 2,?\).*\(1,\)",
    ),
    "grid-edges": (
        lambda: GridResolvent(np.ones((2, 2, 3)), (3, 2), per_edge=True),
        r"`weights` expects the shape \(..., 2, 3, 2\).*\(2, 2, 3\)",
    ),
    "grid-negative": (
        lambda: GridResolvent([0.5, -1.0], (2, 2)),
        "`weights` expects finite.*Received: -1",
    ),
    "corner": (
        lambda: GridResolvent([0.5, 0.5], (2, 2), (0, 2)),
        r"`corner` expects 2 numbers.*Received: corner=\(0, 2\)",
    ),
    "corners": (
        lambda: grid_resolvent((2, 2), [np.ones(2)] * 3),
        "one for each of 4 corners. Received: a list of 3",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    build, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "Received: " in str(caught.value)


def test_a_long_cycle_is_named_in_short():
    edges = np.stack([np.arange(100), np.roll(np.arange(100), 1)], axis=1)
    with pytest.raises(ValueError, match=r"-> \.\.\. ->") as caught:
        Resolvent(edges, np.ones(100) / 2, 100, acyclic=True)
    assert len(str(caught.value)) < 300
