"""Graph random features: what they are the mean of, and how fast."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from keras_topo.graphs import (
    Graph,
    diffusion_modulation,
    graph_random_features,
    modulation,
)
from keras_topo.graphs import random_features as module

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough

NODES, LENGTH = 12, 4


def graph():
    """A weighted graph with two components and a node without edges."""
    random = np.random.default_rng(0)
    upper = np.triu(random.random((NODES, NODES)) < 0.4, 1)
    upper[:7, 7:] = upper[:, -1] = False
    weights = np.where(upper, random.uniform(0.5, 2, upper.shape), 0)
    return weights + weights.T


def normalized(adjacency):
    degree = adjacency.sum(1)
    scale = np.where(degree > 0, np.maximum(degree, 1e-9) ** -0.5, 0)
    return scale[:, None] * adjacency * scale


def powers(matrix):
    return np.stack([np.linalg.matrix_power(matrix, k) for k in range(LENGTH)])


def estimate(**options):
    found = graph_random_features(graph(), length=LENGTH, **options)
    return np.stack([found.matrix(f).toarray() for f in np.eye(LENGTH)])


@pytest.mark.parametrize("halt", [0.0, 0.3])
@pytest.mark.parametrize("normalize", [True, False])
def test_powers_of_the_matrix(normalize, halt):
    """Unbiased, with an error of one over the root of the number of walks."""
    matrix = normalized(graph()) if normalize else graph()
    expected = powers(matrix)
    options = {"halt": halt, "normalize": normalize}
    few, many = [
        np.sqrt(
            np.mean(
                [
                    (estimate(num_walks=n, seed=s, **options) - expected) ** 2
                    for s in range(8)
                ]
            )
        )
        for n in (100, 1600)
    ]
    assert 3 < few / many < 5.4
    mean = np.mean(
        [estimate(num_walks=1600, seed=s, **options) for s in range(8)], axis=0
    )
    # Of eight samples, whose largest entries err by more than the mean.
    np.testing.assert_allclose(mean, expected, atol=5 * many)


def test_the_mask_is_unbiased():
    """Over seeds, the mean converges to the dense mask at the 1/sqrt(n) rate:
    two samples everywhere, one off the diagonal."""
    f = diffusion_modulation(1.0, LENGTH)
    square = np.einsum("l,lij->ij", f, powers(normalized(graph())))
    expected = square @ square
    adjacency = graph()

    def mask(seed, independent):
        first, *other = [
            graph_random_features(adjacency, 4, LENGTH, seed=s).matrix(f)
            for s in range(2 * seed, 2 * seed + 1 + independent)
        ]
        return (first @ (other or [first])[0].T).toarray()

    for independent in (True, False):
        samples = np.stack([mask(s, independent) for s in range(1024)])
        error = samples - expected
        if not independent:
            diagonal = error.mean(0).diagonal()
            # The variance of the features, where there are several ways.
            assert (diagonal > -1e-3).all() and diagonal.max() > 0.03
            error[:, np.arange(NODES), np.arange(NODES)] = 0
        few, many = [
            np.sqrt(np.mean(error.reshape(-1, n, NODES, NODES).mean(1) ** 2))
            for n in (4, 64)
        ]
        assert 3 < few / many < 5.4
    # Up to length 4, three steps each; the rest of the series is small.
    kernel = scipy.linalg.expm(normalized(graph()))
    assert abs(expected - kernel).max() < 0.05


def test_seeds_blocks_and_edgeless_nodes(monkeypatch):
    first, second = [graph_random_features(graph(), seed=3) for _ in range(2)]
    np.testing.assert_array_equal(first.pairs, second.pairs)
    np.testing.assert_array_equal(first.values, second.values)
    other = graph_random_features(Graph(graph()), seed=4)
    assert (
        other.values.shape != first.values.shape
        or (other.values != first.values).any()
    )
    # The last node has no edges: it only reaches itself, at step 0.
    alone = first.pairs[:, 0] == NODES - 1
    np.testing.assert_array_equal(first.pairs[alone], [[NODES - 1] * 2])
    np.testing.assert_array_equal(first.values[:, alone].ravel(), [1, 0, 0, 0])
    order = np.lexsort(first.pairs.T[::-1])
    np.testing.assert_array_equal(order, np.arange(len(order)))
    # In blocks of one node, other walks of the same kind.
    monkeypatch.setattr(module, "BLOCK_VISITS", 1)
    blocks = graph_random_features(graph(), num_walks=3000, seed=3)
    w = blocks.matrix([0, 1, 0, 0]).toarray()
    np.testing.assert_allclose(w, normalized(graph()), atol=0.05)


def test_capacity():
    random = np.random.default_rng(0)
    adjacency = scipy.sparse.random_array((400, 400), density=0.02, rng=random)
    adjacency = adjacency + adjacency.T
    counts = [
        len(graph_random_features(adjacency, 4, 3, seed=s).pairs)
        for s in range(20)
    ]
    for count in counts:
        capacity = module.sample_capacity(400, count, 4, 3)
        assert max(counts) <= capacity <= 400 * 9
    features = graph_random_features(adjacency, 4, 3)
    assert features.capacity == module.sample_capacity(400, counts[0], 4, 3)
    # Walks of one node are not random.
    assert graph_random_features(adjacency, 4, 1).capacity == 400


def test_padding():
    features = graph_random_features(graph(), 2, LENGTH)
    padded = features.padded(features.capacity)
    assert padded.pairs.shape == (features.capacity, 2)
    assert padded.values.shape == (LENGTH, features.capacity)
    assert padded.pairs.dtype == "int32" and padded.values.dtype == "float32"
    keys = padded.pairs @ [NODES, 1]
    assert (np.diff(keys) >= 0).all()
    f = diffusion_modulation(1.0, LENGTH)
    np.testing.assert_array_equal(
        padded.matrix(f).toarray(), features.matrix(f).toarray()
    )
    entries = len(features.pairs)
    assert len(features.padded(entries).pairs) == entries
    with pytest.raises(ValueError, match=f"`capacity` .* {entries} .*Received"):
        features.padded(entries - 1)


@pytest.mark.parametrize("normalize", [True, False])
def test_directed_edges(normalize):
    """Powers of the matrix, also where walks reach a dead end."""
    matrix = np.zeros((5, 5))
    for i, j, weight in [(0, 1, 1), (0, 2, 3), (1, 2, 2), (2, 0, 1), (1, 3, 2)]:
        matrix[i, j] = weight
    expected = normalized(matrix) if normalize else matrix
    features = graph_random_features(
        matrix, 20000, LENGTH, normalize=normalize, seed=1
    )
    for power, f in zip(powers(expected), np.eye(LENGTH), strict=True):
        found = features.matrix(f).toarray()
        error = abs(found - power).max()
        assert error < 0.05 * max(1.0, power.max())


def test_modulation():
    alpha = np.array([2.0, 0.3, -0.1, 0.7])
    f = modulation(alpha)
    np.testing.assert_allclose(np.convolve(f, f)[:4], alpha, atol=1e-12)
    exponential = [1, 0.8, 0.8**2 / 2, 0.8**3 / 6]
    np.testing.assert_allclose(
        modulation(exponential), diffusion_modulation(0.8, 4), atol=1e-12
    )
    for wrong in ([0.0, 1.0], [], [[1.0]], [np.nan], [1.0, np.inf]):
        with pytest.raises(ValueError, match="`coefficients` expects"):
            modulation(wrong)
    # Factorials of more than 170 are no floats.
    assert np.isfinite(diffusion_modulation(5.0, 300)).all()
    for wrong in ((np.nan, 4), (1.0, 0), (1.0, 2.5)):
        with pytest.raises(ValueError, match="Received: (time|length)="):
            diffusion_modulation(*wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_walks": 0}, "`num_walks`"),
        ({"num_walks": 2.5}, "Received.*num_walks=2.5"),
        ({"length": None}, "`length`"),
        ({"length": 0}, "`length`"),
        ({"halt": 1.0}, "`halt`"),
        ({"adjacency": -graph()}, "not negative"),
        ({"adjacency": np.full((2, 2), np.nan)}, "finite"),
    ],
)
def test_errors(options, message):
    options = {"adjacency": graph(), **options}
    with pytest.raises(ValueError, match=message):
        graph_random_features(**options)


def test_wrong_modulation():
    with pytest.raises(ValueError, match="expects 4 numbers"):
        graph_random_features(graph()).matrix([1.0, 2.0])
