"""Features of degrees and triangles, against networkx."""

import networkx
import numpy as np
import pytest
import reference as ref

from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    clustering_coefficients,
    degree_profile,
)
from keras_topo.layers import ClusteringCoefficients, DegreeProfile

GRAPHS = {
    "random": networkx.gnp_random_graph(12, 0.3, seed=0),
    "hub": networkx.star_graph(6),
    "alone": networkx.empty_graph(1),
    "parts": networkx.disjoint_union(
        networkx.empty_graph(2), networkx.complete_graph(4)
    ),
}


def expected_profile(graph):
    """By the definition, node by node."""
    rows = []
    for node in graph:
        around = [graph.degree[other] for other in graph[node]]
        row = [len(around), 0, 0, 0, 0]
        if around:
            row[1:] = min(around), max(around), np.mean(around), np.std(around)
        share = len(around) / max(len(graph) - 1, 1)
        rows.append([*np.log1p(row), share])
    return np.array(rows)


@pytest.mark.parametrize("name", GRAPHS)
def test_on_the_host(name):
    graph = GRAPHS[name]
    adjacency = networkx.to_scipy_sparse_array(graph, dtype=float)
    np.testing.assert_allclose(
        degree_profile(adjacency), expected_profile(graph), atol=1e-6
    )
    triangles = [networkx.clustering(graph)[node] for node in graph]
    found = clustering_coefficients(adjacency)
    np.testing.assert_allclose(found[:, 0], triangles, atol=1e-6)
    # Weights and self-loops do not count.
    weighted = adjacency * 3.0
    np.testing.assert_array_equal(
        degree_profile(weighted), degree_profile(adjacency)
    )
    looped = adjacency.toarray() + np.eye(len(graph))
    np.testing.assert_array_equal(clustering_coefficients(looped), found)


def test_directions():
    arrows = Graph.from_edges([(0, 1), (0, 2), (1, 2)], 3, directed=True)
    found = np.expm1(degree_profile(arrows)[:, :5])
    np.testing.assert_allclose(
        found, [[2, 0, 1, 0.5, 0.5], [1, 0, 0, 0, 0], [0] * 5], atol=1e-6
    )
    np.testing.assert_array_equal(clustering_coefficients(arrows)[:, 0], 1)


def test_in_a_model():
    sizes = [len(graph) for graph in GRAPHS.values()]
    nodes = max(sizes) + 1
    adjacency = np.zeros((len(sizes), nodes, nodes), "float32")
    for k, (graph, n) in enumerate(zip(GRAPHS.values(), sizes, strict=True)):
        adjacency[k, :n, :n] = networkx.to_numpy_array(graph)
    mask = np.arange(nodes)[None] < np.array(sizes)[:, None]
    profile = ref.numpy(DegreeProfile()(adjacency, mask=mask))
    clustering = ref.numpy(ClusteringCoefficients()(adjacency))
    for k, n in enumerate(sizes):
        own = adjacency[k, :n, :n]
        np.testing.assert_allclose(
            profile[k, :n], degree_profile(own), atol=1e-5
        )
        np.testing.assert_allclose(
            clustering[k, :n], clustering_coefficients(own), atol=1e-6
        )
    assert not profile[0, -1].any()


def test_as_features():
    graphs = [GRAPHS["random"], GRAPHS["parts"]]
    preprocessor = GraphPreprocessor(
        degrees=False,
        return_steps=2,
        eigenvectors=1,
        degree_profile=True,
        clustering=True,
        cache=False,
    ).adapt(graphs)
    assert preprocessor.num_features == 6 + 1 + 2 + 1
    for example, graph in zip(preprocessor(graphs), graphs, strict=True):
        adjacency = networkx.to_scipy_sparse_array(graph, dtype=float)
        nodes = example["nodes"]
        np.testing.assert_array_equal(nodes[:, :6], degree_profile(adjacency))
        np.testing.assert_array_equal(
            nodes[:, 6:7], clustering_coefficients(adjacency)
        )
    again = GraphPreprocessor.from_config(preprocessor.get_config())
    assert again.num_features == 10 and again.degree_profile
    # Configurations of earlier versions do not have these options.
    config = preprocessor.get_config()
    earlier = {
        k: v
        for k, v in config.items()
        if k not in ("degree_profile", "clustering")
    }
    assert not GraphPreprocessor.from_config(earlier).clustering
    with pytest.raises(ValueError, match="`clustering` expects one of"):
        GraphPreprocessor(clustering=1)
