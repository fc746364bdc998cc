"""Kernels of labeled walks and of steps, against walks counted one by one."""

import itertools

import networkx
import numpy as np
import pytest

from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    compute_kernels,
    dense_kernels,
    labeled_walk_kernel,
    largest_pairs,
    random_walk_kernel,
)
from keras_topo.graphs.labeled_walks import degree_bins


def small_graph(nodes=5, directed=False, weighted=True, seed=0):
    random = np.random.default_rng(seed)
    adjacency = random.uniform(0.5, 2, (nodes, nodes)) if weighted else 1.0
    adjacency = adjacency * (random.uniform(size=(nodes, nodes)) < 0.5)
    if not directed:
        adjacency = np.triu(adjacency, 1)
        adjacency = adjacency + adjacency.T
    adjacency[-1] = 0  # From the last node no edge leads on.
    if not directed:
        adjacency[:, -1] = 0
    # As weights are kept.
    return adjacency.astype("float32").astype("float64")


def steps_of(adjacency):
    """The probability of a step from each node to each other node."""
    totals = adjacency.sum(axis=1, keepdims=True)
    stays = np.diag((totals[:, 0] == 0).astype(float))
    return adjacency / np.where(totals > 0, totals, 1) + stays


def counted(adjacency, labels, length):
    """`K(i, j)`: over all pairs of walks, those with the same labels."""
    steps, nodes = steps_of(adjacency), len(adjacency)
    seen = [{} for _ in range(nodes)]
    for walk in itertools.product(range(nodes), repeat=length):
        probability = 1.0
        for a, b in itertools.pairwise(walk):
            probability *= steps[a, b]
        key = tuple(labels[node] for node in walk)
        seen[walk[0]][key] = seen[walk[0]].get(key, 0.0) + probability
    return np.array(
        [
            [
                sum(p * other.get(key, 0.0) for key, p in own.items())
                for other in seen
            ]
            for own in seen
        ]
    )


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_all_walks(directed, weighted):
    adjacency = small_graph(directed=directed, weighted=weighted, seed=3)
    labels = ["C", "O", "C", "N", "C"]
    lengths = [1, 2, 4]
    found = labeled_walk_kernel(adjacency, labels, lengths, normalize=False)
    assert found.dtype == "float64"
    for kernel, length in zip(found, lengths, strict=True):
        expected = counted(adjacency, labels, length)
        np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-12)
        # A mask hides an entry only if it is zero.
        np.testing.assert_array_equal(kernel == 0, expected == 0)
    normalized = labeled_walk_kernel(adjacency, labels, lengths)
    diagonal = np.sqrt(np.diagonal(found, axis1=1, axis2=2))
    np.testing.assert_allclose(
        normalized,
        found / diagonal[:, :, None] / diagonal[:, None],
        rtol=1e-12,
    )
    np.testing.assert_allclose(np.diagonal(normalized, 0, 1, 2), 1, rtol=1e-12)
    assert np.linalg.eigvalsh(normalized).min() > -1e-12


def test_one_label_per_node_and_one_for_all():
    adjacency = small_graph(6, seed=1)
    steps = steps_of(adjacency)
    # All labels are equal: every pair of walks counts.
    same = labeled_walk_kernel(adjacency, np.zeros(6, int), 3, False)
    np.testing.assert_allclose(same, 1.0, rtol=1e-12)
    # All labels differ: only pairs of identical walks count.
    own = labeled_walk_kernel(adjacency, np.arange(6), 2, False)
    np.testing.assert_allclose(
        own, np.diag(np.square(steps).sum(axis=1)), atol=1e-12
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": [0, 1]}, "`labels` expects one for each of the 5 nodes"),
        ({"length": 0}, "`length` expects a positive int"),
        ({"length": None}, "`length` expects walks with a bound"),
        ({"length": [2, 1.5]}, "`length` expects a positive int"),
    ],
)
def test_errors(arguments, message):
    arguments = {"labels": [0, 1, 0, 1, 0], "length": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        labeled_walk_kernel(small_graph(), **arguments)


def test_degrees_are_labels_where_there_are_none():
    star = Graph.from_edges([(0, k) for k in range(1, 10)], 11)
    np.testing.assert_array_equal(
        degree_bins(star.adjacency), [4] + [1] * 9 + [0]
    )
    (kernel,) = dense_kernels(star, "labeled_walk", (2,))
    expected = labeled_walk_kernel(star, degree_bins(star.adjacency), 2)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    assert kernel[1, 2] == 1 and kernel[0, 1] == 0 and kernel[10, 10] == 1


def test_kinds_side_by_side():
    adjacency = small_graph(7, seed=2)
    steps = adjacency / np.maximum(adjacency.sum(axis=1, keepdims=True), 1e-9)
    labels = np.arange(7) % 2
    found = dense_kernels(
        adjacency, "steps+random_walk+labeled_walk+ones", (1, 3), labels
    )
    expected = np.concatenate(
        [
            [np.eye(7), steps @ steps],
            random_walk_kernel(adjacency, [1, 3]),
            labeled_walk_kernel(adjacency, labels, [1, 3]),
            np.ones((1, 7, 7)),
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    pairs = largest_pairs(
        adjacency, "steps+labeled_walk", (1, 3), 7, labels=labels
    )
    matrices = np.zeros((4, 7, 7), "float32")
    rows, columns = pairs[:2].astype(int)
    matrices[:, rows, columns] = pairs[2:]
    kept = expected[[0, 1, 4, 5]]
    np.testing.assert_allclose(matrices, kept, rtol=1e-5, atol=1e-6)


def test_steps_stay_sparse_and_become_dense():
    ring = networkx.to_scipy_sparse_array(networkx.cycle_graph(200))
    found = dense_kernels(ring, "steps", (2, 4, 30))
    steps = ring.toarray() / 2
    for kernel, n in zip(found, (2, 4, 30), strict=True):
        expected = np.linalg.matrix_power(steps, n - 1)
        np.testing.assert_allclose(kernel, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["stepps", "ones+ones", "steps+", ""])
def test_unknown_kinds(kind):
    with pytest.raises(ValueError, match="`kind` expects one of"):
        dense_kernels(np.eye(2), kind)
    with pytest.raises(ValueError, match="`kernel` expects one of"):
        GraphPreprocessor(kernel=kind or "none")


def test_ones_are_no_pairs():
    with pytest.raises(ValueError, match="kind='steps.ones'"):
        largest_pairs(np.eye(2), "steps+ones")


def labeled(labels):
    return Graph.from_edges([(0, 1), (1, 2)], 3, node_labels=labels)


def test_the_cache_knows_labels(tmp_path):
    """A graph with other labels has another kernel and another file."""
    calls = []

    def kernel(adjacency, labels, scale):
        calls.append(1)
        return scale * np.equal.outer(labels, labels)

    graphs = [labeled(["C", "C", "O"])]

    def compute(labels, **options):
        options = {"scale": 1, **options}
        return compute_kernels(
            graphs, kernel, cache=tmp_path, labels=labels, **options
        )[0]

    # Not the count of calls: a closure is a part of the key.
    def files():
        return len(list(tmp_path.glob("*.kernels")))

    for labels in (["C", "C", "O"], ["C", "O", "O"], ["CC", "O", ""]):
        expected = np.equal.outer(np.array(labels), np.array(labels))
        np.testing.assert_array_equal(compute([labels]), expected)
    assert len(calls) == 3
    options = {"kind": "labeled_walk", "sizes": (1, 2)}
    for k, labels in enumerate(([0, 0, 1], [0, 1, 0], [1, 1, 0])):
        before = files()
        (found,) = compute_kernels(
            graphs, dense_kernels, cache=tmp_path, labels=[labels], **options
        )
        np.testing.assert_allclose(
            found, labeled_walk_kernel(graphs[0], labels, [1, 2]), rtol=1e-6
        )
        assert files() == before + 1, k
        compute_kernels(
            graphs, dense_kernels, cache=tmp_path, labels=[labels], **options
        )
        assert files() == before + 1
    with pytest.raises(ValueError, match="`labels` expects an array for each"):
        compute([])


def test_a_preprocessor_compares_the_labels_of_nodes(tmp_path):
    first, second = labeled(["C", "C", "O"]), labeled(["C", "O", "C"])
    preprocessor = GraphPreprocessor(
        kernel="labeled_walk", kernel_sizes=(1, 2), cache=tmp_path
    ).adapt([first, second])
    assert preprocessor.num_kernels == 2
    for graph in (first, second):
        (example,) = preprocessor([graph])
        np.testing.assert_allclose(
            example["kernel"],
            labeled_walk_kernel(graph, graph.node_labels, [1, 2]),
            rtol=1e-6,
        )
    # Without labels, and where they are not to be used, by degrees.
    plain = Graph.from_edges([(0, 1), (1, 2)], 3)
    for graph, options in ((plain, {}), (first, {"node_labels": False})):
        by_degrees = GraphPreprocessor(
            kernel="labeled_walk", cache=False, **options
        )
        (example,) = by_degrees.adapt([graph])([graph])
        np.testing.assert_array_equal(
            example["kernel"][0], [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
        )
    # Labels that training graphs lack are one label.
    lenient = GraphPreprocessor(
        kernel="labeled_walk", unknown="zeros", cache=False
    ).adapt([first])
    (example,) = lenient([labeled(["X", "Y", "C"])])
    np.testing.assert_array_equal(
        example["kernel"][0], [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    )
