"""Masks on forests of all kinds, against the matrix."""

import numpy as np
import pytest
import reference as ref
from keras import ops
from keras.backend import standardize_dtype

from keras_topo.graphs import Forest
from keras_topo.operators import (
    ForestDistance,
    ForestExponential,
    centroid_plan,
)

pytestmark = pytest.mark.slow_on_jax


def caterpillar(nodes):
    spine = (nodes + 1) // 2
    return np.concatenate([np.arange(-1, spine - 1), np.arange(nodes - spine)])


def random_tree(nodes):
    random = np.random.default_rng(nodes)
    return (random.random(nodes) * np.arange(nodes)).astype(int) - (
        np.arange(nodes) == 0
    )


def random_forest(nodes):
    parents = random_tree(nodes)
    parents[np.random.default_rng(0).random(nodes) < 0.1] = -1
    return parents


KINDS = {
    "path": lambda nodes: np.arange(-1, nodes - 1),
    "star": lambda nodes: np.append(-1, np.zeros(nodes - 1, int)),
    "caterpillar": caterpillar,
    "tree": random_tree,
    "forest": random_forest,
    "edgeless": lambda nodes: np.full(nodes, -1),
}
# One; few; one block of a scan or a leaf and a bit; several levels of blocks.
SIZES = (1, 2, 7, 33, 150)


def shuffled(parents, seed=0):
    """The same forest with its nodes in another order."""
    order = np.random.default_rng(seed).permutation(len(parents))
    result = np.empty_like(parents)
    result[order] = np.where(parents < 0, -1, order[parents])
    return result


def product(operator, x):
    return ref.numpy(operator @ ref.tensor(x, "float64"))


@pytest.mark.parametrize("nodes", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_exponentials(kind, nodes):
    random = np.random.default_rng(1)
    parents = shuffled(KINDS[kind](nodes))
    up, down = random.uniform(-1, 1, (2, nodes, 2))
    a, b = np.array([-0.5, 0.3]), np.array(0.2)
    operator = ForestExponential(
        parents, (up, down), ref.tensor(a, "float64"), ref.tensor(b, "float64")
    )
    matrix = ref.forest_exponential(parents, up, down, a, b)
    x = random.normal(size=(nodes, 3))
    ref.assert_close(product(operator, x), matrix @ x, 1e-12)
    ref.assert_close(product(operator.T, x), matrix.T @ x, 1e-12)


WEIGHTS = {
    "ones": lambda nodes: None,
    "steps": lambda nodes: np.arange(nodes) % 4 * 0.25,
    # A step far shorter than the weights, and none.
    "short-step": lambda nodes: 1 + np.arange(nodes) % 2 * 2.0**-9,
    "no-step": lambda nodes: 3.0 ** (np.arange(nodes) % 2 / 2),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("nodes", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_the_distance(kind, nodes, weights):
    parents = shuffled(KINDS[kind](nodes))
    given = WEIGHTS[weights](nodes)
    w = np.ones(nodes) if given is None else given
    distances, reached = ref.forest_distances(parents, *2 * (w[:, None],))

    def f(distance):
        return np.cos(distance) / (1 + 0.1 * distance**2)

    operator = ForestDistance(
        parents, lambda d: f(ops.convert_to_numpy(d).astype(float)), given
    )
    matrix = np.where(reached, f(distances[..., 0]), 0)
    x = np.random.default_rng(1).normal(size=(nodes, 3))
    # Distances reach `f` in float32.
    tolerance = 1e-5 if weights == "no-step" else 1e-6
    ref.assert_close(product(operator, x), matrix @ x, tolerance)


@pytest.mark.parametrize("weights", ["ones", "no-step"])
@pytest.mark.parametrize("kind", KINDS)
def test_small_trees_are_not_cut(kind, weights, monkeypatch):
    monkeypatch.setattr(centroid_plan, "FEW_ENTRIES", 2**20)
    # A seed of its own: plans in use elsewhere would be found again.
    parents = shuffled(KINDS[kind](60), seed=5)
    operator = ForestDistance(
        parents, lambda d: 1 / (1 + d), WEIGHTS[weights](60)
    )
    if weights == "ones":
        assert not operator._tree.levels
    w = 1.0 if weights == "ones" else WEIGHTS[weights](60)
    distances, reached = ref.forest_distances(
        parents, *2 * (np.broadcast_to(w, 60)[:, None],)
    )
    matrix = np.where(reached, 1 / (1 + distances[..., 0]), 0)
    ref.assert_close(operator.to_dense(), matrix, 1e-6)


def test_many_distances_take_the_matrix():
    """Of distances that all differ, cuts would need more values than it."""
    parents = random_tree(500)
    weights = np.random.default_rng(0).random(500)
    operator = ForestDistance(parents, lambda d: 1 / (1 + d), weights)
    assert not operator._tree.levels
    assert operator._tree.entries == 500**2
    star = ForestDistance(KINDS["star"](500), lambda d: 1 / (1 + d), weights)
    assert star._tree.entries <= 500**2


def test_few_distances_are_cut():
    """Weights without a common step, a star of paths."""
    nodes, arms = 901, 100
    parents = np.append(-1, np.maximum(np.arange(900) - arms + 1, 0))
    weights = np.append(0, np.repeat(np.sqrt(np.arange(2, 11)), arms))
    operator = ForestDistance(parents, lambda d: 1 / (1 + d), weights)
    assert operator._tree.levels and not operator._tree.common_step
    distances, _ = ref.forest_distances(parents, *2 * (weights[:, None],))
    x = np.random.default_rng(1).normal(size=(nodes, 2))
    matrix = 1 / (1 + distances[..., 0])
    ref.assert_close(product(operator, x), matrix @ x, 1e-5)


def test_leaves_of_all_sizes():
    """Many single nodes beside a tree do not become rows of its length."""
    parents = np.full(5000, -1)
    parents[1:30] = np.arange(29)
    operator = ForestDistance(parents, lambda d: ops.exp(-d))
    assert operator._tree.entries < 5000 + 30**2 + 1
    x = np.random.default_rng(0).normal(size=(5000, 2)).astype("float32")
    y = ref.numpy(operator @ x)
    path = np.exp(-np.abs(np.subtract.outer(np.arange(30), np.arange(30))))
    ref.assert_close(y[:30], path @ x[:30], 1e-5)
    ref.assert_close(y[30:], x[30:], 1e-6)


def test_a_forest_is_ordered_once():
    forest = Forest.from_parents(shuffled(caterpillar(20)))
    for operator in (
        ForestExponential(forest, a=-0.5),
        ForestDistance(forest, lambda d: ops.exp(-0.5 * d)),
    ):
        ref.assert_close(
            operator.to_dense(),
            ForestExponential(forest.parents, a=-0.5).to_dense(),
            1e-5,
        )


def test_far_nodes_of_a_long_path():
    """Exponents are of short distances only: nothing overflows."""
    nodes = 3000
    operator = ForestExponential(np.arange(-1, nodes - 1), a=-5.0)
    x = np.ones((nodes, 1), "float32")
    e = np.exp(-5.0)
    inner = (1 + e) / (1 - e)
    y = ref.numpy(operator @ x)[50:-50]
    ref.assert_close(y, np.full_like(y, inner), 1e-6)


def test_light_edges_beside_heavy_ones():
    """Distances of 1e4 and of 0.1 in one block of the scan."""
    nodes = 40
    weights = np.where(np.arange(nodes) % 7 == 3, 1e4, 0.1)
    operator = ForestExponential(np.arange(-1, nodes - 1), weights, a=-1.0)
    both = (weights[:, None], weights[:, None])
    matrix = ref.forest_exponential(
        np.arange(-1, nodes - 1), *both, np.array([-1.0]), np.array(0.0)
    )
    x = np.random.default_rng(0).random((nodes, 2)).astype("float32")
    ref.assert_close(operator @ x, matrix @ x, 1e-6)


def test_edge_weights_are_of_the_host():
    for weights, message in (
        (ops.ones(2), "a tensor or a variable"),
        (["one", "two"], "numbers"),
    ):
        for make in (ForestExponential, ForestDistance):
            arguments = {"f": ops.exp} if make is ForestDistance else {}
            with pytest.raises(ValueError, match=message):
                make([-1, 0], edge_weights=weights, **arguments)


def test_plans_are_shared():
    parents = np.arange(-1, 60)
    first = ForestExponential(parents, a=-1.0)
    assert ForestExponential(parents.copy(), a=-2.0)._tree is first._tree
    assert first.T.T._tree is first._tree
    other = ForestExponential(parents, 2.0 * np.ones(61))
    assert other._tree is not first._tree
    tables = [ForestDistance(parents, np.ones(61)) for _ in range(2)]
    assert tables[0]._tree is tables[1]._tree is not first._tree


def test_hidden_nodes_are_hidden_in_rows():
    """A cut-off has exact zeros, and softmax attention sees none of them."""
    nodes = 1000
    table = np.zeros(nodes, "float32")
    table[:3] = 1
    operator = ForestDistance(np.arange(-1, nodes - 1), table)
    i = np.arange(nodes)
    expected = np.abs(i[:, None] - i) < 3
    assert (
        (ref.numpy(operator.rows(100, 110)) != 0) == expected[100:110]
    ).all()


def test_gradients_are_finite_where_products_are():
    """Trees of few nodes in one block, whose total length overflows."""
    parents = np.arange(-1, 63)
    parents[::8] = -1

    def product(a):
        return ForestExponential(parents, a=a) @ ops.ones((64, 1))

    gradient = ref.with_gradients(product)(
        ref.tensor(np.ones((64, 1)), "float32"), ref.tensor(4.0, "float32")
    )[1][0]
    assert np.isfinite(ref.numpy(gradient))


def test_weights_of_very_different_size():
    operator = ForestDistance(
        [-1, 0, 1, 2], lambda d: ops.exp(-d), [0, 1, 1, 1e10]
    )
    row = ref.numpy(operator.rows(0, 1))[0]
    ref.assert_close(row, np.exp([0.0, -1.0, -2.0, -1e10]), 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parameters_of_half_precision(dtype):
    parents = caterpillar(80)
    for operator in (
        ForestExponential(parents, a=ops.cast(-0.25, dtype)),
        ForestDistance(parents, ops.cast(0.5 ** np.arange(80), dtype)),
    ):
        dense = operator.to_dense()
        assert operator.dtype == dtype
        assert standardize_dtype(dense.dtype) == dtype
        ref.assert_close(
            ref.numpy(ops.cast(dense, "float32")),
            ref.numpy(operator @ np.eye(80, dtype="float32")),
            5e-3,
        )


ERRORS = {
    "table": (lambda: ForestDistance(caterpillar(8), np.ones(3)), "at least 6"),
    "values": (
        lambda: ForestDistance([-1, 0], lambda d: d[:1]),
        "`f` expects a function",
    ),
    "one-value": (
        lambda: ForestDistance([-1, 0], lambda d: 1.0),
        "`f` expects a function",
    ),
    "name": (lambda: ForestDistance([-1, 0], "rational"), "`f` expects a func"),
    "infinite": (
        lambda: ForestDistance([-1, 0], lambda d: 1 / d),
        "`f` expects finite values .* inf at the distance 0",
    ),
    "table-without-step": (
        lambda: ForestDistance([-1, 0, 1], np.ones(9), [0, 1.0, 2**0.5]),
        "`f` expects a function where",
    ),
    "negative": (
        lambda: ForestDistance([-1, 0], np.ones(9), [0, -1.0]),
        "not negative. Received: -1.0 for the edge of node 1",
    ),
    "nan": (
        lambda: ForestDistance([-1, 0], np.ones(9), [0, np.nan]),
        "finite",
    ),
    "length": (
        lambda: ForestDistance([-1, 0], np.ones(9), [1.0]),
        "`edge_weights` expects the shape",
    ),
    "cycle": (lambda: ForestDistance([1, 0], np.ones(9)), "a cycle"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    build, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "Received: " in str(caught.value)


def test_a_table_may_be_longer():
    """Than the longest path of a tree that is cut, whatever it has there."""
    path = np.arange(-1, 2199)
    table = np.exp(-0.01 * np.arange(6000, dtype="float32"))
    x = np.ones((2200, 1), "float32")
    expected = ref.numpy(ForestDistance(path, table[:2200]).matmul(x))
    longest = len(ForestDistance(path, lambda d: d).values)
    table[longest:] = np.nan
    found = ForestDistance(path, table).matmul(x)
    ref.assert_close(ref.numpy(found), expected, 1e-6)


@pytest.mark.slow
def test_any_weights_of_some_thousand_nodes():
    """Without a common step, where leaves of 2,048 nodes do not help."""
    weights = np.random.default_rng(0).random(4500)
    parents = random_tree(4500)
    x = np.zeros((4500, 1), "float32")
    x[7] = 1
    mask = ForestDistance(parents, lambda d: 1 / (1 + d), weights)
    rows = ForestExponential(parents, weights, a=-1.0).matmul(x)
    expected = 1 / (1 - np.log(ref.numpy(rows).astype("float64")))
    ref.assert_close(ref.numpy(mask.matmul(x)), expected, 1e-4)


def test_weights_with_too_many_distances(monkeypatch):
    monkeypatch.setattr("keras_topo.host.distances.MOST_ENTRIES", 1000)
    weights = np.random.default_rng(0).random(300)
    with pytest.raises(ValueError, match="few distinct distances"):
        ForestDistance(random_tree(300), lambda d: d, weights)


@pytest.mark.parametrize(
    "weights",
    [
        [0, 2, 3, 1e6],
        np.float32([0, 0.05, 0.07, 1e4]),
        [0, 1e5, 77777, 1],
        [0, 1e-3, 2e-3, 1e10],
    ],
)
def test_steps_divide_small_weights_beside_large_ones(weights):
    operator = ForestDistance([-1, 0, 1, 2], lambda d: 1 / (1 + d), weights)
    place = np.cumsum(np.asarray(weights, "float64"))
    expected = 1 / (1 + np.abs(place[:, None] - place))
    ref.assert_close(ref.numpy(operator.to_dense()), expected, 1e-5)


def test_tables_are_no_longer_than_trees_are_large():
    few = ForestDistance([-1, 0, 0], ops.exp, [0, 1e-6, 0.777777e-6])
    assert len(few.values) < 10


@pytest.mark.slow
def test_integer_weights_of_a_large_tree():
    """Where distances are many, and the step is short."""
    random = np.random.default_rng(0)
    parents = (random.random(5_000) * np.arange(5_000)).astype(int)
    parents[0] = -1
    weights = random.integers(1, 1000, 5_000)
    operator = ForestDistance(parents, lambda d: ops.exp(-d / 500), weights)
    exponential = ForestExponential(parents, weights, -1 / 500)
    x = random.normal(size=(5_000, 2)).astype("float32")
    ref.assert_close(ref.numpy(operator @ x), ref.numpy(exponential @ x), 1e-4)


def test_distances_are_not_negative():
    """Sums of square roots, with edges of no length."""
    random = np.random.default_rng(0)
    parents = np.arange(-1, 199)
    weights = random.choice([0, 0.1, 2**0.5, 3**0.5 / 7], 200)
    operator = ForestDistance(parents, lambda d: ops.exp(-ops.sqrt(d)), weights)
    assert np.isfinite(ref.numpy(operator.values)).all()


@pytest.mark.slow_on_jax
def test_hidden_nodes_are_hidden_in_rows_of_a_long_path():
    table = np.zeros(8193, "float32")
    table[:3] = 1.0
    operator = ForestDistance(np.arange(-1, 8192), table)
    row = ref.numpy(operator.rows(4000, 4001))[0]
    assert set(np.flatnonzero(row)) == set(range(3998, 4003))
