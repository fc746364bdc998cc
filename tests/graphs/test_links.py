"""Splits of edges, negatives, heuristics and measures of rankings."""

import dataclasses

import networkx
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from keras_topo.graphs import (
    Graph,
    adamic_adar,
    average_precision,
    common_neighbors,
    hits_at,
    katz,
    load_planetoid,
    normalized_adjacency,
    random_walk_kernel,
    resource_allocation,
    roc_auc,
    sample_negatives,
    split_edges,
)
from keras_topo.graphs.links import edges_of, without_edges

# NumPy and SciPy alone: once is enough.
pytestmark = pytest.mark.tensorflow_only


def random_graph(directed=False, nodes=40, p=0.15, seed=0):
    random = np.random.default_rng(seed)
    matrix = random.random((nodes, nodes)) < p
    matrix = matrix * random.integers(1, 5, (nodes, nodes))
    if not directed:
        matrix = np.triu(matrix) + np.triu(matrix, 1).T
    graph = Graph(
        matrix,
        features=random.normal(size=(nodes, 3)),
        node_labels=np.arange(nodes) % 3,
    )
    ends = graph.edge_index()
    # Symmetric, and different for each edge.
    labels = ends.min(0) * nodes + ends.max(0)
    return dataclasses.replace(
        graph, edge_labels=labels, edge_features=labels[:, None] / 7
    )


def as_set(pairs):
    return set(map(tuple, np.asarray(pairs).tolist()))


@pytest.mark.parametrize("directed", [False, True])
def test_sets_are_a_partition(directed):
    graph = random_graph(directed)
    split = split_edges(graph, (0.7, 0.1, 0.2), seed=3)
    parts = [split.training, split.validation, split.test]
    edges = as_set(edges_of(graph))
    assert sum(map(len, parts)) == len(edges)
    assert set.union(*map(as_set, parts)) == edges
    assert len(split.validation) == round(0.1 * len(edges))
    assert len(split.test) == round(0.2 * len(edges))
    assert split.directed is directed
    # The training graph: its edges with their attributes, and self-loops.
    assert as_set(edges_of(split.graph, directed)) == as_set(split.training)
    assert split.graph.is_undirected() is not directed
    loops = graph.adjacency.diagonal()
    assert np.count_nonzero(loops)
    np.testing.assert_array_equal(split.graph.adjacency.diagonal(), loops)
    i, j = split.graph.edge_index()
    labels = np.minimum(i, j) * 40 + np.maximum(i, j)
    np.testing.assert_array_equal(split.graph.edge_labels, labels)
    np.testing.assert_allclose(split.graph.edge_features[:, 0], labels / 7)
    kept = graph.adjacency.toarray()[i, j]
    np.testing.assert_array_equal(split.graph.adjacency.data, kept)
    np.testing.assert_array_equal(split.graph.features, graph.features)
    assert "directed=" + str(directed) in repr(split)


@pytest.mark.parametrize("directed", [False, True])
def test_negatives_are_no_edges(directed):
    graph = random_graph(directed)
    split = split_edges(graph, (0.7, 0.1, 0.2), seed=3)
    negatives = split.validation_negatives, split.test_negatives
    for found, edges in zip(
        negatives, (split.validation, split.test), strict=True
    ):
        assert found.shape == edges.shape and found.dtype == np.int64
        assert (graph.adjacency.toarray()[tuple(found.T)] == 0).all()
        assert (found[:, 0] != found[:, 1]).all()
        assert directed or (found[:, 0] < found[:, 1]).all()
    together = np.concatenate(negatives)
    assert len(as_set(together)) == len(together)


def test_rounding_gives_no_directions():
    """Normalized weights of float32 depend on the order of the products."""
    plain = networkx.to_numpy_array(networkx.karate_club_graph())
    plain = plain.astype("float32")
    scale = 1 / np.sqrt(plain.sum(1))
    graph = Graph((scale[:, None] * plain) * scale)
    assert (graph.adjacency != graph.adjacency.T).nnz
    assert graph.is_undirected() and graph.num_edges == 78
    split = split_edges(graph, (0.7, 0.1, 0.2))
    held_out = np.concatenate([split.validation, split.test])
    known = split.graph.adjacency.toarray()
    assert not known[tuple(held_out.T)].any()
    assert not known[tuple(held_out.T[::-1])].any()
    # A small weight in one direction alone is an edge all the same.
    plain[0, 9] = 1e-9
    assert not Graph(plain).is_undirected()


def test_seeds():
    graph = random_graph()
    first, again, other = (split_edges(graph, seed=s) for s in (0, 0, 1))
    for name in ("training", "validation", "test", "test_negatives"):
        np.testing.assert_array_equal(
            getattr(first, name), getattr(again, name)
        )
        assert as_set(getattr(first, name)) != as_set(getattr(other, name))


def test_nothing_of_held_out_edges_is_left():
    """Other held-out edges, with the same training edges, change nothing."""
    graph = random_graph()
    split = split_edges(graph, (0.7, 0.1, 0.2))
    held_out = np.concatenate([split.validation, split.test])
    # Another graph with other edges of other weights in their place.
    count = len(held_out)
    others = sample_negatives(graph, count, np.random.default_rng(5))
    ends = np.concatenate([split.training, others])
    weights = np.concatenate(
        [graph.adjacency.toarray()[tuple(split.training.T)], np.full(count, 9)]
    )
    loops = np.flatnonzero(graph.adjacency.diagonal())
    ends = np.concatenate([ends, np.stack([loops, loops], 1)])
    weights = np.concatenate([weights, graph.adjacency.diagonal()[loops]])
    other = Graph.from_edges(ends, 40, weights, features=graph.features)
    assert as_set(edges_of(other)) != as_set(edges_of(graph))
    left = without_edges(other, others)
    for function in (
        lambda g: g.adjacency.toarray(),
        Graph.degrees,
        lambda g: g.features,
        lambda g: random_walk_kernel(g, 3),
        lambda g: normalized_adjacency(g).toarray(),
    ):
        np.testing.assert_array_equal(function(split.graph), function(left))
    assert (graph.degrees() != split.graph.degrees()).any()


def test_negatives_are_uniform():
    graph = random_graph(nodes=12, p=0.3)
    allowed = 12 * 11 // 2 - len(edges_of(graph))
    random = np.random.default_rng(0)
    counts = {}
    rounds, few = 2000, 5
    for _ in range(rounds):
        for pair in as_set(sample_negatives(graph, few, random)):
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == allowed
    expected = rounds * few / allowed
    found = np.array(list(counts.values()))
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)
    # All there are, and one more.
    everything = sample_negatives(graph, allowed, random)
    assert as_set(everything) == set(counts)
    with pytest.raises(ValueError, match="`count`.*Received: count="):
        sample_negatives(graph, allowed + 1, random)


def test_a_reversed_edge_is_a_negative_of_a_directed_graph():
    graph = Graph.from_edges([[0, 1], [1, 2], [2, 0]], 3, directed=True)
    found = sample_negatives(graph, 3, np.random.default_rng(0))
    assert as_set(found) == {(1, 0), (2, 1), (0, 2)}
    with pytest.raises(ValueError, match="`directed=False` expects"):
        split_edges(graph, directed=False)
    # If a symmetric graph is treated as directed, each direction is an edge.
    graph = Graph.from_edges([[0, 1], [1, 2]], 5)
    assert len(split_edges(graph, (1, 0, 0), directed=True).training) == 4


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)]
)
def test_shares(shares):
    with pytest.raises(ValueError, match="`shares` expects.*Received: shares"):
        split_edges(random_graph(), shares)


def test_pairs_are_checked():
    graph = random_graph()
    with pytest.raises(ValueError, match="`pairs` expects.*shape"):
        common_neighbors(graph, [[0, 1, 2]])
    with pytest.raises(ValueError, match="`pairs` expects node ids"):
        adamic_adar(graph, [[0, 40]])
    assert katz(graph, np.zeros((0, 2))).shape == (0,)
    with pytest.raises(ValueError, match="`beta` expects"):
        katz(graph, [[0, 1]], beta=0)
    with pytest.raises(ValueError, match="`steps` expects"):
        katz(graph, [[0, 1]], steps=0)


def test_heuristics_against_networkx(monkeypatch):
    # Several blocks of pairs, and of the first nodes of pairs.
    monkeypatch.setattr("keras_topo.graphs.link_scores.BLOCK", 160)
    graph = networkx.gnp_random_graph(40, 0.15, seed=1)
    nodes = np.arange(40)
    pairs = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    matrix = networkx.to_scipy_sparse_array(graph)
    tuples = list(map(tuple, pairs.tolist()))
    for function, theirs in (
        (adamic_adar, networkx.adamic_adar_index),
        (resource_allocation, networkx.resource_allocation_index),
    ):
        expected = [score for *_, score in theirs(graph, tuples)]
        np.testing.assert_allclose(function(matrix, pairs), expected)
    np.testing.assert_array_equal(
        common_neighbors(matrix, pairs),
        [len(list(networkx.common_neighbors(graph, u, v))) for u, v in tuples],
    )
    a = 0.1 * networkx.to_numpy_array(graph)
    expected = a + a @ a + a @ a @ a
    np.testing.assert_allclose(
        katz(matrix, pairs, beta=0.1, steps=3), expected[tuple(pairs.T)]
    )
    # Weights, self-loops and directions do not matter.
    changed = 3.0 * networkx.to_numpy_array(graph) + np.eye(40)
    np.testing.assert_allclose(
        adamic_adar(np.triu(changed), pairs), adamic_adar(matrix, pairs)
    )


@pytest.mark.parametrize("ties", [False, True])
def test_measures_against_scikit_learn(ties):
    random = np.random.default_rng(0)
    for positives, negatives in ((1, 1), (1, 30), (30, 2), (200, 300)):
        scores = random.normal(size=positives + negatives)
        scores[:positives] += 0.5
        if ties:
            scores = np.round(scores)
        truth = np.repeat([1, 0], [positives, negatives])
        parts = scores[:positives], scores[positives:]
        np.testing.assert_allclose(
            average_precision(*parts), average_precision_score(truth, scores)
        )
        np.testing.assert_allclose(
            roc_auc(*parts), roc_auc_score(truth, scores)
        )


def test_hits():
    positive, negative = [5.0, 3.0, 2.0, 0.0], [4.0, 2.0, 1.0]
    assert hits_at(1, positive, negative) == 0.25
    assert hits_at(2, positive, negative) == 0.5  # A tie is not a hit.
    assert hits_at(3, positive, negative) == 0.75
    assert hits_at(4, positive, negative) == 1.0
    with pytest.raises(ValueError, match="`k` expects.*k=0"):
        hits_at(0, positive, negative)
    with pytest.raises(ValueError, match="`negative_scores` expects finite"):
        hits_at(1, positive, [np.nan])
    with pytest.raises(ValueError, match="`positive_scores` expects"):
        roc_auc([], negative)


@pytest.mark.needs_shared_data
def test_cora(shared_data):
    graph = load_planetoid(shared_data / "planetoid", "cora").graph
    split = split_edges(graph)
    assert [len(x) for x in (split.training, split.validation, split.test)] == [
        4486,
        264,
        528,
    ]
    assert split.graph.num_edges == 4486
    found = roc_auc(
        adamic_adar(split.graph, split.test),
        adamic_adar(split.graph, split.test_negatives),
    )
    assert 0.68 < found < 0.76
