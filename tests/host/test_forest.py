"""Forests on the host, against definitions."""

import numpy as np
import pytest

from keras_topo.graphs import (
    Forest,
    breadth_first_forest,
    minimum_spanning_forest,
)

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough


def random_forest(nodes, roots, seed):
    """Parents of nodes in a random order; each is a root by `roots`."""
    random = np.random.default_rng(seed)
    parents = (random.random(nodes) * np.arange(nodes)).astype(int)
    parents[random.random(nodes) < roots] = -1
    parents[0] = -1
    order = random.permutation(nodes)
    shuffled = np.empty(nodes, int)
    shuffled[order] = np.where(parents < 0, -1, order[parents])
    return shuffled


def subtree(parents, node):
    """The node and all below it."""
    found = {node}
    while True:
        more = {v for v, p in enumerate(parents) if p in found} | found
        if more == found:
            return found
        found = more


@pytest.mark.parametrize("nodes, roots", [(1, 0), (2, 0), (30, 0), (40, 0.2)])
def test_orders(nodes, roots):
    parents = random_forest(nodes, roots, nodes)
    forest = Forest.from_parents(parents)
    light = forest.light_depth()
    assert sorted(forest.order) == list(range(nodes))
    assert (forest.order[forest.position] == np.arange(nodes)).all()
    for node, parent in enumerate(parents):
        below = subtree(parents, node)
        assert forest.size[node] == len(below)
        # A subtree is an interval of the preorder.
        first = forest.position[node]
        assert set(forest.order[first : first + len(below)]) == below
        if parent < 0:
            assert forest.depth[node] == light[node] == 0
            assert forest.head[node] == node
            continue
        assert forest.depth[node] == forest.depth[parent] + 1
        assert forest.tree[node] == forest.tree[parent]
        heavy = forest.head[node] == forest.head[parent]
        assert light[node] == light[parent] + (not heavy)
        siblings = np.flatnonzero(parents == parent)
        if heavy:
            assert forest.size[node] == forest.size[siblings].max()
            assert forest.position[node] == forest.position[parent] + 1
        else:
            assert forest.head[node] == node
        assert sum(forest.head[siblings] == forest.head[parent]) == 1
    assert forest.tree.max() + 1 == (parents < 0).sum()
    assert light.max() <= np.log2(nodes)


def test_deep_and_wide_trees():
    nodes = 20_000
    path = Forest.from_parents(np.arange(-1, nodes - 1))
    assert (path.depth == np.arange(nodes)).all()
    assert (path.light_depth() == 0).all()
    star = Forest.from_parents(np.append(-1, np.zeros(nodes - 1, int)))
    assert (star.depth[1:] == 1).all()
    assert (star.light_depth() == 1).sum() == nodes - 2


def test_a_cycle_is_named():
    # Two trees, and a branch that ends on a cycle.
    parents = [-1, 0, 3, 4, 5, 3, 2, -1]
    with pytest.raises(ValueError, match="cycle through the edge") as caught:
        Forest.from_parents(parents)
    child, parent = map(
        int, str(caught.value).split("edge from ")[1].split(" to its parent ")
    )
    assert {child, parent} <= {3, 4, 5} and parents[child] == parent


def test_forests_of_graphs():
    """Against networkx, on graphs of several parts, with lengths."""
    networkx = pytest.importorskip("networkx")
    random = np.random.default_rng(0)
    for seed in range(4):
        graph = networkx.gnp_random_graph(40, 0.05, seed=seed)
        for _, _, edge in graph.edges(data=True):
            edge["weight"] = float(random.integers(1, 50))
        matrix = networkx.to_scipy_sparse_array(graph, nodelist=range(40))
        parts = networkx.number_connected_components(graph)
        forest, weights = minimum_spanning_forest(matrix)
        tree = networkx.minimum_spanning_tree(graph)
        assert weights.sum() == tree.size("weight")
        assert (forest.parents < 0).sum() == parts
        forest, weights = breadth_first_forest(matrix)
        assert (forest.parents < 0).sum() == parts
        for root in np.flatnonzero(forest.parents < 0):
            lengths = networkx.single_source_shortest_path_length(graph, root)
            for node, length in lengths.items():
                assert forest.depth[node] == length
        for node in np.flatnonzero(forest.parents >= 0):
            assert weights[node] == matrix[node, forest.parents[node]]


def test_roots_and_directions():
    square = [[0, 1, 0, 3], [1, 0, 2, 0], [0, 2, 0, 1], [3, 0, 1, 0]]
    forest, weights = breadth_first_forest(square, roots=[2])
    np.testing.assert_array_equal(forest.parents, [1, 2, -1, 2])
    np.testing.assert_array_equal(weights, [1, 2, 0, 1])
    with pytest.raises(ValueError, match="at most one node of each"):
        breadth_first_forest(square, roots=[0, 2])
    with pytest.raises(ValueError, match="`roots` expects node ids"):
        breadth_first_forest(square, roots=[4])
    # The smaller of two directions, and a single one.
    directed = [[0, 5, 0], [2, 0, 0], [0, 7, 0]]
    forest, weights = minimum_spanning_forest(directed)
    np.testing.assert_array_equal(forest.parents, [-1, 0, 1])
    np.testing.assert_array_equal(weights, [0, 2, 7])
