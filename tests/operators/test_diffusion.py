"""Diffusion kernels as operators, against the matrix exponential."""

import networkx
import numpy as np
import pytest
import reference as ref
import scipy.sparse
import scipy.sparse.linalg
from keras import ops

from keras_topo.graphs import DiffusionGenerator
from keras_topo.operators import GraphDiffusion

GENERATORS = ("laplacian", "adjacency", "normalized_laplacian")
GRAPHS = {
    "one-node": networkx.path_graph(1),
    "edgeless": networkx.empty_graph(3),
    "path": networkx.path_graph(9),
    "star": networkx.star_graph(30),
    "hubs": networkx.barabasi_albert_graph(60, 3, seed=0),
    "parts": networkx.disjoint_union(
        networkx.cycle_graph(9), networkx.empty_graph(2)
    ),
    "complete": networkx.complete_graph(12),
}


def adjacency_of(graph, weighted):
    matrix = networkx.to_numpy_array(graph)
    if weighted:
        weights = np.random.default_rng(0).integers(1, 9, matrix.shape) / 4
        matrix = matrix * np.triu(weights, 1)
        matrix = matrix + matrix.T
    return matrix


@pytest.mark.few(
    "one-node-laplacian-True",
    "edgeless-adjacency-False",
    "path-laplacian-True",
    "star-adjacency-True",
    "hubs-normalized_laplacian-False",
    "parts-laplacian-False",
    "complete-normalized_laplacian-True",
    "one-node-normalized_laplacian-False",
    "edgeless-normalized_laplacian-True",
    "path-adjacency-False",
    "star-laplacian-False",
    "hubs-laplacian-True",
    "parts-normalized_laplacian-True",
    "complete-laplacian-False",
)
@pytest.mark.few_on_jax(
    "one-node-laplacian-True",
    "edgeless-adjacency-False",
    "path-laplacian-True",
    "star-adjacency-True",
    "hubs-normalized_laplacian-False",
    "parts-laplacian-False",
    "complete-normalized_laplacian-True",
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_products(graph, generator, weighted):
    adjacency = adjacency_of(GRAPHS[graph], weighted)
    times = np.array([0.0, 0.3, 1.0])
    if generator != "adjacency":
        times = np.append(times, 30.0)
    matrix = ref.diffusion(adjacency, generator, times)
    x = np.random.default_rng(1).normal(size=(len(adjacency), 3))
    for dtype, tolerance in (("float64", 1e-11), ("float32", 2e-6)):
        operator = GraphDiffusion(
            scipy.sparse.csr_array(adjacency),
            generator,
            ref.tensor(times, dtype),
        )
        y = ref.numpy(operator @ ref.tensor(x, dtype))
        for k in range(len(times)):
            # Rounding grows with the degree.
            longer = max(times[k], 1) if dtype == "float32" else 1
            ref.assert_close(
                y[k], matrix[k] @ x, tolerance * longer, f"time {times[k]}"
            )


@pytest.mark.parametrize("generator", GENERATORS)
def test_hypercube(generator):
    """The closed forms, by Hamming distance."""
    m, time = 8, 0.7
    adjacency = networkx.to_scipy_sparse_array(networkx.hypercube_graph(m))
    codes = np.array(list(networkx.hypercube_graph(m)))
    hamming = (codes[:, None] != codes).sum(-1)
    t = time / m if generator == "normalized_laplacian" else time
    scale = (
        np.cosh(t) ** m
        if generator == "adjacency"
        else ((1 + np.exp(-2 * t)) / 2) ** m
    )
    operator = GraphDiffusion(adjacency, generator, ref.tensor(time, "float64"))
    dense = ref.numpy(operator @ ref.tensor(np.eye(2**m), "float64"))
    ref.assert_close(dense, scale * np.tanh(t) ** hamming, 1e-11)


def test_a_larger_graph_against_scipy():
    random = np.random.default_rng(0)
    nodes = 2000
    ends = random.integers(0, nodes, (2, 5 * nodes))
    half = scipy.sparse.coo_array(
        (np.ones(5 * nodes), ends), shape=(nodes, nodes)
    )
    adjacency = ((half + half.T) > 0).astype(float).tolil()
    adjacency.setdiag(0)  # SciPy's Laplacian knows no loops.
    matrix = DiffusionGenerator.from_adjacency(
        adjacency, "normalized_laplacian"
    )
    x = random.normal(size=(nodes, 4))
    laplacian = scipy.sparse.csgraph.laplacian(adjacency, normed=True)
    expected = scipy.sparse.linalg.expm_multiply(-laplacian, x)
    operator = GraphDiffusion(matrix, time=1.0)
    ref.assert_close(ref.numpy(operator @ x.astype("float32")), expected, 2e-6)
    assert operator.degree("float32") <= 10


def test_the_adjacency_generator_keeps_small_parts_beside_large_ones():
    """`exp(time A)` of an edge beside a star whose eigenvalue is 20."""
    star = networkx.disjoint_union(
        networkx.star_graph(400), networkx.path_graph(2)
    )
    adjacency = networkx.to_scipy_sparse_array(star, dtype="float64")
    for time in (0.8, 3.0):
        operator = GraphDiffusion(adjacency, "adjacency", np.float32(time))
        x = np.zeros((403, 1), "float32")
        x[-1] = 1
        y = ref.numpy(operator @ x)
        ref.assert_close(y[-2:, 0], [np.sinh(time), np.cosh(time)], 1e-5)
        assert (y >= 0).all()


def shuffled_grid(weighted=False):
    """A grid large enough to be put in order, nodes in random order."""
    grid = networkx.to_scipy_sparse_array(networkx.grid_2d_graph(101, 100))
    grid = scipy.sparse.triu(grid).tocoo()
    weights = np.random.default_rng(0).integers(1, 9, grid.nnz) / 4
    names = np.random.default_rng(1).permutation(grid.shape[0])
    grid = scipy.sparse.coo_array(
        (
            weights if weighted else grid.data,
            (names[grid.row], names[grid.col]),
        ),
        shape=grid.shape,
    )
    return (grid + grid.T).astype("float64").tocsr()


@pytest.mark.few_on_jax("True")
@pytest.mark.parametrize("weighted", [False, True])
def test_nodes_are_put_in_an_order_with_neighbors_nearby(weighted):
    adjacency = shuffled_grid(weighted)
    generator = DiffusionGenerator.from_adjacency(adjacency)
    distance = np.abs(generator.rows - generator.columns).mean()
    coo = adjacency.tocoo()
    assert distance < np.abs(coo.row - coo.col).mean() / 20

    random = np.random.default_rng(2)
    x = random.normal(size=(generator.num_nodes, 2))
    upstream = random.normal(size=x.shape)
    laplacian = scipy.sparse.csgraph.laplacian(adjacency)

    def product(time, x):
        return GraphDiffusion(generator, time=time, max_time=1.0) @ x

    y, (dtime, dx) = ref.with_gradients(product)(
        *(ref.tensor(v, "float64") for v in (upstream, 0.4, x))
    )
    expected = scipy.sparse.linalg.expm_multiply(-0.4 * laplacian, x)
    ref.assert_close(ref.numpy(y), expected, 1e-11)
    ref.assert_close(
        ref.numpy(dtime), -(upstream * (laplacian @ expected)).sum(), 1e-11
    )
    ref.assert_close(
        ref.numpy(dx),
        scipy.sparse.linalg.expm_multiply(-0.4 * laplacian, upstream),
        1e-11,
    )


def test_order_is_kept_where_none_brings_neighbors_nearer():
    random = np.random.default_rng(0)
    ends = random.integers(0, 10_000, (2, 50_000))
    half = scipy.sparse.coo_array(
        (np.ones(50_000), ends), shape=(10_000, 10_000)
    )
    generator = DiffusionGenerator.from_adjacency((half + half.T).tocsr())
    assert generator.order is None


def test_gradient_with_respect_to_time_by_finite_differences():
    adjacency = adjacency_of(GRAPHS["hubs"], True)
    x = np.random.default_rng(1).normal(size=(60, 3))
    upstream = np.random.default_rng(2).normal(size=(60, 3))

    def product(time, x):
        return GraphDiffusion(adjacency, time=time, max_time=1.0) @ x

    (dtime, dx) = ref.with_gradients(product)(
        *(ref.tensor(v, "float64") for v in (upstream, 0.4, x))
    )[1]

    def value(time):
        y = product(ref.tensor(time, "float64"), ref.tensor(x, "float64"))
        return (ref.numpy(y) * upstream).sum()

    step = 1e-5
    difference = (value(0.4 + step) - value(0.4 - step)) / (2 * step)
    ref.assert_close(ref.numpy(dtime), difference, 1e-8)
    matrix = ref.diffusion(adjacency, "laplacian", 0.4)
    ref.assert_close(ref.numpy(dx), matrix @ upstream, 1e-11)


def test_the_bound_holds_the_spectrum():
    for graph in GRAPHS.values():
        for weighted in (False, True):
            adjacency = adjacency_of(graph, weighted)
            for name in GENERATORS:
                low, high = DiffusionGenerator.from_adjacency(
                    adjacency, name
                ).bounds
                values = np.linalg.eigvalsh(ref.generator(adjacency, name))
                assert low - 1e-6 <= values[0] and values[-1] <= high + 1e-6
                # Not much further than it has to.
                assert high - low <= 2 * (values[-1] - values[0]) + 2


ERRORS = {
    "generator": (
        lambda: GraphDiffusion(np.ones((2, 2)), "heat"),
        "`generator` expects one of",
    ),
    "directed": (
        lambda: GraphDiffusion(np.array([[0, 1], [0, 0]])),
        "symmetric matrix. Received: 1 from 0 to 1 and 0 back",
    ),
    "negative-weight": (
        lambda: GraphDiffusion(-np.ones((2, 2))),
        "`adjacency`",
    ),
    "nan": (lambda: GraphDiffusion(np.full((2, 2), np.nan)), "`adjacency`"),
    "empty": (lambda: GraphDiffusion(np.zeros((0, 0))), "at least one node"),
    "negative-time": (
        lambda: GraphDiffusion(np.ones((2, 2)), time=-1.0),
        "`time` expects finite numbers that are not negative",
    ),
    "growth": (
        lambda: GraphDiffusion(np.ones((100, 100)), "adjacency"),
        "`time` expects at most 0.8 on this graph",
    ),
    "tolerance": (
        lambda: GraphDiffusion(np.ones((2, 2)), tolerance=0),
        "`tolerance` expects",
    ),
    "not-a-matrix": (lambda: GraphDiffusion([0, 1]), "`adjacency` expects"),
    "max-time": (
        lambda: GraphDiffusion(np.ones((2, 2)), time=2.0, max_time=1.0),
        "at most max_time=1.0",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    build, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "Received: " in str(caught.value)


def test_a_number_is_known_in_traced_functions():
    """Without weights, which XLA multiplies by in another way."""
    adjacency = adjacency_of(GRAPHS["hubs"], False)
    x = np.random.default_rng(1).normal(size=(60, 3)).astype("float32")

    @ref.compiled
    def product(x):
        return GraphDiffusion(adjacency, time=0.5) @ x

    ref.assert_close(
        product(x), ref.diffusion(adjacency, "laplacian", 0.5) @ x, 2e-6
    )


def test_weights_of_double_precision():
    random = np.random.default_rng(0)
    adjacency = np.triu(random.random((20, 20)), 1)
    adjacency = adjacency + adjacency.T
    operator = GraphDiffusion(adjacency, time=ref.tensor(0.5, "float64"))
    ref.assert_close(
        operator.to_dense(), ref.diffusion(adjacency, "laplacian", 0.5), 1e-12
    )


def test_a_traced_time_needs_a_bound():
    @ref.compiled
    def product(time):
        return GraphDiffusion(np.ones((2, 2)), time=time) @ ops.ones((2, 1))

    with pytest.raises(ValueError, match="`max_time` expects a number"):
        product(ops.ones(()))


@pytest.mark.few_on_jax("laplacian")
@pytest.mark.parametrize("generator", GENERATORS)
def test_second_derivatives_by_differences(generator):
    """Also mixed ones, in time and in `x`."""
    adjacency = adjacency_of(GRAPHS["path"], True)
    random = np.random.default_rng(3)
    x, direction = random.normal(size=(2, 9, 2))

    def energy(time, scale):
        y = GraphDiffusion(adjacency, generator, time, max_time=1.0)
        moved = ref.tensor(x, "float64") + scale * ref.tensor(direction)
        return ops.sum((y @ moved) ** 2)

    ref.check_second_derivatives(energy, [np.array(0.3), np.array(0.7)])
