"""Graph kernels against closed forms, scipy and sampled walks."""

import functools

import networkx
import numpy as np
import pytest
import scipy.linalg
import scipy.special

from keras_topo.graphs import (
    Graph,
    diffusion_kernel,
    normalized_adjacency,
    pagerank_kernel,
    random_walk_features,
    random_walk_kernel,
    return_probabilities,
    walk_expectations,
)
from keras_topo.graphs.kernels import GENERATORS, generator_matrix

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough


def adjacency(graph):
    return networkx.to_scipy_sparse_array(graph, dtype="float64")


def random_graph(n=25, seed=0, weighted=False, directed=False):
    random = np.random.default_rng(seed)
    matrix = random.random((n, n)) < 0.12
    matrix = np.triu(matrix, 1).astype("float64")
    if weighted:
        matrix *= random.uniform(0.1, 3.0, (n, n))
    if not directed:
        matrix += matrix.T
    # A node without edges.
    matrix[3], matrix[:, 3] = 0, 0
    return matrix


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_diffusion_is_expm(generator, directed, weighted):
    matrix = random_graph(weighted=weighted, directed=directed)
    times = [0.0, 0.5, 2.0]
    kernels = diffusion_kernel(matrix, times, generator)
    assert kernels.shape == (3, 25, 25)
    degrees = matrix.astype("float32").astype("float64").sum(1)
    laplacian = np.diag(degrees) - matrix.astype("float32")
    incoming = matrix.sum(axis=0)
    scale, into = (
        np.where(x > 0, 1 / np.sqrt(np.maximum(x, 1e-9)), 0)
        for x in (degrees, incoming)
    )
    some = np.diag(((degrees > 0) | (incoming > 0)).astype(float))
    expected = {
        "adjacency": -matrix.astype("float32").astype("float64"),
        "laplacian": laplacian,
        "normalized_laplacian": some - scale[:, None] * matrix * into,
    }[generator]
    for time, kernel in zip(times, kernels, strict=True):
        np.testing.assert_allclose(
            kernel, scipy.linalg.expm(-time * expected), rtol=1e-6, atol=1e-9
        )
    np.testing.assert_array_equal(
        diffusion_kernel(matrix, 0.5, generator), kernels[1]
    )


@pytest.mark.parametrize("m", [1, 3, 5])
def test_hypercube(m):
    cube = networkx.convert_node_labels_to_integers(
        networkx.hypercube_graph(m), label_attribute="place"
    )
    places = np.array([cube.nodes[i]["place"] for i in cube])
    places = places.reshape(2**m, m)
    h = (places[:, None] != places[None]).sum(-1)
    matrix, t = adjacency(cube), 0.7
    expected = {
        "adjacency": np.cosh(t) ** m * np.tanh(t) ** h,
        "laplacian": ((1 + np.exp(-2 * t)) / 2) ** m * np.tanh(t) ** h,
        "normalized_laplacian": ((1 + np.exp(-2 * t / m)) / 2) ** m
        * np.tanh(t / m) ** h,
    }
    for generator, kernel in expected.items():
        np.testing.assert_allclose(
            diffusion_kernel(matrix, t, generator), kernel, atol=1e-9
        )


def test_complete_graph_star_and_ring():
    n, t = 6, 0.3
    # Eigenvalues of the Laplacian: 0 once, n otherwise.
    expected = np.full((n, n), (1 - np.exp(-n * t)) / n)
    expected += np.exp(-n * t) * np.eye(n)
    kernel = diffusion_kernel(adjacency(networkx.complete_graph(n)), t)
    np.testing.assert_allclose(kernel, expected, atol=1e-12)

    # A star with m leaves: its adjacency maps center and leaves' mean to one
    # another with the eigenvalues +-sqrt(m).
    m = 5
    kernel = diffusion_kernel(adjacency(networkx.star_graph(m)), t, "adjacency")
    root = np.sqrt(m)
    assert kernel[0, 0] == pytest.approx(np.cosh(t * root))
    assert kernel[0, 1] == pytest.approx(np.sinh(t * root) / root)
    assert kernel[1, 2] == pytest.approx((np.cosh(t * root) - 1) / m)
    assert kernel[1, 1] == pytest.approx((np.cosh(t * root) - 1) / m + 1)

    # A long ring: exp(t A) has modified Bessel functions for entries.
    kernel = diffusion_kernel(
        adjacency(networkx.cycle_graph(40)), t, "adjacency"
    )
    np.testing.assert_allclose(
        kernel[0, :10], scipy.special.iv(np.arange(10), 2 * t), atol=1e-12
    )


def test_walk_kernel_by_hand():
    # A path of three nodes, walks of three nodes.
    path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    features = walk_expectations(path, length=3, halt=0.5, discount=0.5)
    # decay 1/4 a step; P^2 from an end: half back, half to the other end.
    expected = [
        [1 + 1 / 32, 1 / 4, 1 / 32],
        [1 / 8, 1 + 1 / 16, 1 / 8],
        [1 / 32, 1 / 4, 1 + 1 / 32],
    ]
    np.testing.assert_allclose(features, expected)
    kernel = random_walk_kernel(path, 3, 0.5, 0.5)
    unit = np.array(expected)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(kernel, unit @ unit.T)


def test_walk_kernels_of_several_lengths_and_unbounded():
    matrix = random_graph(weighted=True)
    kernels = random_walk_kernel(matrix, [1, 3, None], halt=0.3)
    np.testing.assert_allclose(kernels[0], np.eye(25), atol=1e-12)
    np.testing.assert_allclose(
        kernels[1], random_walk_kernel(matrix, 3, halt=0.3)
    )
    np.testing.assert_allclose(
        kernels[2], random_walk_kernel(matrix, 200, halt=0.3), atol=1e-9
    )
    # Of any sequence.
    np.testing.assert_array_equal(
        random_walk_kernel(matrix, range(1, 4, 2), halt=0.3), kernels[:2]
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("halt, discount", [(0.0, 1.0), (0.3, 0.8)])
def test_sampled_walks_converge(weighted, halt, discount):
    """The error halves with four times the walks."""
    matrix = random_graph(weighted=weighted)
    options = {"length": 4, "halt": halt, "discount": discount}
    exact = walk_expectations(matrix, **options)
    errors = []
    for walks in (100, 1600):
        trials = [
            random_walk_features(
                matrix, walks, normalize=False, seed=seed, **options
            ).toarray()
            - exact
            for seed in range(8)
        ]
        errors.append(np.sqrt(np.mean(np.square(trials))))
        # Unbiased: the mean over seeds is closer than a single trial.
        assert np.abs(np.mean(trials, 0)).max() < 6 / np.sqrt(8 * walks)
    assert 3.2 < errors[0] / errors[1] < 5.0


def test_sampled_walks_details():
    matrix = random_graph()
    features = random_walk_features(matrix, 10, seed=4)
    again = random_walk_features(matrix, 10, seed=4)
    other = random_walk_features(matrix, 10, seed=5)
    assert (features != again).nnz == 0 and (features != other).nnz > 0
    norms = np.sqrt(features.multiply(features).sum(1))
    np.testing.assert_allclose(norms, 1, atol=1e-6)
    # A walk at a node without edges stays there.
    assert features[[3]].toarray().nonzero()[1].tolist() == [3]
    # Anchors select columns of the full factor.
    whole = random_walk_features(matrix, 10, normalize=False, seed=4)
    part = random_walk_features(
        matrix, 10, normalize=False, anchors=[7, 2], seed=4
    )
    np.testing.assert_array_equal(part.toarray(), whole.toarray()[:, [7, 2]])
    assert random_walk_features(matrix, 3, anchors=6).shape == (25, 6)


def test_sampling_in_blocks(monkeypatch):
    from keras_topo.graphs import walks

    matrix = random_graph()
    monkeypatch.setattr(walks, "BLOCK_VISITS", 10 * 4 * 6)
    features = random_walk_features(matrix, 10, normalize=False)
    assert features.shape == (25, 25)
    # Every walk of a node with edges visits four nodes.
    sums = features.sum(1)
    connected = matrix.sum(1) > 0
    np.testing.assert_allclose(sums[connected], 4, atol=1e-5)


def test_heavy_and_light_weights():
    """Steps are in proportion to weights, also after very heavy rows."""
    matrix = np.zeros((4, 4))
    matrix[0, 1] = 1e12
    matrix[2, 0], matrix[2, 1], matrix[2, 3] = 1e-6, 3e-6, 0
    features = random_walk_features(
        matrix, 20000, length=2, normalize=False
    ).toarray()
    np.testing.assert_allclose(features[2], [0.25, 0.75, 1, 0], atol=0.02)


def test_return_probabilities():
    matrix = random_graph(weighted=True)
    probabilities = return_probabilities(matrix, 7)
    degrees = matrix.sum(1, keepdims=True)
    transition = np.divide(
        matrix, degrees, out=np.zeros_like(matrix), where=degrees > 0
    )
    for step in range(1, 8):
        power = np.linalg.matrix_power(transition, step)
        np.testing.assert_allclose(
            probabilities[:, step - 1], np.diag(power), atol=1e-6
        )
    assert return_probabilities(matrix, 0).shape == (25, 0)
    large = adjacency(networkx.cycle_graph(600))
    np.testing.assert_allclose(
        return_probabilities(large, 4)[5], [0, 1 / 2, 0, 3 / 8]
    )


def test_normalized_adjacency():
    matrix = normalized_adjacency([[0, 1], [1, 0]]).toarray()
    np.testing.assert_allclose(matrix, np.full((2, 2), 0.5))
    alone = normalized_adjacency(np.zeros((1, 1)), self_loops=False)
    assert alone.toarray() == 0


def test_pagerank():
    """The kernel equals networkx's PageRank up to square roots of degrees."""
    matrix = random_graph(weighted=True)
    kernels = pagerank_kernel(matrix, [0.2, 1.0])
    np.testing.assert_allclose(kernels[1], np.eye(25), atol=1e-12)
    loops = matrix.astype("float32").astype("float64") + np.eye(25)
    graph = networkx.from_numpy_array(loops)
    root = np.sqrt(loops.sum(1))
    for k in range(25):
        found = networkx.pagerank(graph, 0.8, {k: 1}, 500, tol=1e-13)
        np.testing.assert_allclose(
            kernels[0, k] * root / root[k], list(found.values()), atol=1e-9
        )
    # Exact zeros between components.
    assert np.count_nonzero(kernels[0, 3]) == 1
    np.testing.assert_array_equal(pagerank_kernel(matrix, 0.2), kernels[0])


def test_kernels_of_a_graph():
    """A `Graph` stands for its adjacency matrix."""
    matrix = random_graph(weighted=True)
    for kernel in (
        diffusion_kernel,
        pagerank_kernel,
        random_walk_kernel,
        walk_expectations,
        random_walk_features,
        normalized_adjacency,
        functools.partial(return_probabilities, steps=2),
    ):
        found, expected = kernel(Graph(matrix)), kernel(matrix)
        if hasattr(found, "toarray"):
            found, expected = found.toarray(), expected.toarray()
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_negative_noise():
    """Entries between far ends of a path are smaller than rounding errors."""
    path = adjacency(networkx.path_graph(60))
    assert diffusion_kernel(path, 0.1).min() == 0


@pytest.mark.parametrize("generator", GENERATORS)
def test_no_noise_between_components(generator):
    """Exactly zero: a mask hides an entry only if it is zero."""
    component = np.random.default_rng(0).permutation(np.repeat([0, 1], 8))
    together = component[:, None] == component
    matrix = np.random.default_rng(1).uniform(0.5, 1, (16, 16)) * together
    matrix = matrix + matrix.T
    # Eigenvectors do not keep components apart.
    tiny = scipy.linalg.eigh(generator_matrix(matrix, generator).toarray())[1]
    assert (abs(tiny[component == 0]).max(0) > 0).sum() > 8
    for kernel in (
        diffusion_kernel(matrix, 0.5, generator),
        pagerank_kernel(matrix),
    ):
        np.testing.assert_array_equal(kernel != 0, together)


def test_walks_are_the_same_sparse_and_dense(monkeypatch):
    matrix = random_graph(weighted=True, directed=True)
    dense = random_walk_kernel(matrix, [1, 3])
    monkeypatch.setattr("keras_topo.graphs.kernels.DENSE", 1.0)
    np.testing.assert_allclose(
        random_walk_kernel(matrix, [1, 3]), dense, atol=1e-12
    )
    # By definition, rows have norm 1.
    walks = walk_expectations(matrix, 3)
    walks = walks / np.linalg.norm(walks, axis=1, keepdims=True)
    np.testing.assert_allclose(dense[1], walks @ walks.T, atol=1e-12)


ERRORS = {
    "directed": (
        lambda: pagerank_kernel([[0, 1], [0, 0]]),
        "symmetric.*1 from 0 to 1 and 0 back",
    ),
    "past": (lambda: diffusion_kernel(np.eye(2), [1, -1]), "`time`.*-1"),
    "pagerank": (lambda: pagerank_kernel([[0.0]], 0.0), "`halt`"),
    "generator": (
        lambda: diffusion_kernel(np.eye(2), generator="heat"),
        "`generator`",
    ),
    "time": (lambda: diffusion_kernel(np.eye(2), np.nan), "`time`"),
    "overflow": (
        lambda: diffusion_kernel(np.ones((800, 800)), 1.0, "adjacency"),
        "`time` expects kernels whose entries are floats.*time=1",
    ),
    "overflow, directed": (
        lambda: diffusion_kernel(
            np.triu(np.full((9, 9), 500.0)), [0.1, 2], "adjacency"
        ),
        "`time` expects kernels whose entries are floats.*time=2",
    ),
    "fraction": (lambda: random_walk_kernel(np.eye(2), 1.5), "`length`"),
    "infinite": (lambda: random_walk_kernel(np.eye(2), np.inf), "`length`"),
    "oblong": (lambda: diffusion_kernel(np.ones((2, 3))), "`adjacency`"),
    "empty": (lambda: diffusion_kernel(np.ones((0, 0))), "one node"),
    "nan": (lambda: diffusion_kernel([[np.nan]]), "finite"),
    "negative": (lambda: random_walk_kernel([[-1.0]]), "negative"),
    "length": (lambda: random_walk_kernel(np.eye(2), 0), "`length`"),
    "halt": (lambda: random_walk_kernel(np.eye(2), halt=1.0), "`halt`"),
    "discount": (
        lambda: random_walk_kernel(np.eye(2), discount=-1),
        "`discount`",
    ),
    "unbounded": (lambda: random_walk_kernel(np.eye(2), None), "infinite"),
    "walks": (lambda: random_walk_features(np.eye(2), 0), "`num_walks`"),
    "anchor": (
        lambda: random_walk_features(np.eye(2), anchors=[0, 0]),
        "`anchors`",
    ),
    "anchors": (
        lambda: random_walk_features(np.eye(2), anchors=3),
        "`anchors`",
    ),
}


def test_whole_numbers_of_any_type():
    matrix = random_graph()
    for length in (2.0, np.float64(2), np.int32(2)):
        np.testing.assert_array_equal(
            random_walk_kernel(matrix, length), random_walk_kernel(matrix, 2)
        )
    found = random_walk_features(matrix, num_walks=3.0, length=2.0)
    expected = random_walk_features(matrix, num_walks=3, length=2)
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_generator_matrix_is_sparse():
    ring = adjacency(networkx.cycle_graph(50))
    assert generator_matrix(ring, "normalized_laplacian").nnz == 150


def test_weighted_and_directed_laplacians():
    """Rounding keeps the symmetry, and edges into a sink count (G15)."""
    random = np.random.default_rng(0)
    weights = np.triu(random.uniform(0, 1, (30, 30)), 1)
    weights = weights + weights.T
    degrees = weights.sum(1)
    symmetric = weights / np.sqrt(degrees[:, None] * degrees)
    expected = scipy.linalg.expm(-0.7 * (np.eye(30) - symmetric))
    found = diffusion_kernel(weights, 0.7, "normalized_laplacian")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-15)
    sink = np.array([[0, 1.0, 1], [1, 0, 1], [0, 0, 0]])
    found = diffusion_kernel(sink, 0.7, "normalized_laplacian")
    assert (found[:2, 2] > 0).all() and found[2, 2] < 1
