"""Rooted forests on the host: checks, orders, heavy paths."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency
from keras_topo.host.adjacency import as_adjacency, check_node_ids


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
    """A rooted forest and the orders of its nodes, in `O(L log L)`.

    Made by `Forest.from_parents`. The preorder visits a node, then the subtrees
    of its children, the largest first: a subtree is an interval of it, and so
    is a *heavy path*, which goes from a node to its largest subtree, down to a
    leaf. A path from a node to its root meets at most `log2 L` heavy paths.

    Attributes:
        parents: `(nodes,)`, int64; -1 for roots.
        depth: `(nodes,)`, edges between a node and its root.
        order: `(nodes,)`, the nodes in preorder.
        position: `(nodes,)`, the place of a node in the preorder.
        size: `(nodes,)`, nodes of the subtree.
        tree: `(nodes,)`, number of the tree of each node, in preorder.
        head: `(nodes,)`, the first node of the heavy path of each node.

    Example:

    >>> forest = Forest.from_parents([-1, 0, 0, 1])
    >>> forest.depth, forest.order
    (array([0, 1, 1, 2]), array([0, 1, 3, 2], dtype=int32))
    """

    parents: np.ndarray
    depth: np.ndarray
    order: np.ndarray
    position: np.ndarray
    size: np.ndarray
    tree: np.ndarray
    head: np.ndarray

    @classmethod
    def from_parents(cls, parents: ArrayLike) -> "Forest":
        """Checks `parents`, the parent of each node or -1, and orders nodes.

        Raises:
            ValueError: if there are no nodes, or `parents` is not a vector of
                integers from -1 to the number of nodes, or has a cycle, of
                which an edge is named.
        """
        parents = check_parents(parents)
        depth = depths(parents)
        nodes = len(parents)
        # Any order of children does for the sizes of subtrees: a node comes
        # in postorder after its subtree and what came before, and in preorder
        # after its ancestors and what came before.
        ids = np.arange(nodes)
        before = _rank(_preorder(parents, ids))
        after = nodes - 1 - _rank(_preorder(parents, -ids))
        size = after - before + depth + 1
        order = _preorder(parents, -size)
        position = _rank(order)
        # In preorder, a heavy path goes on where a node follows its parent.
        starts = np.ones(nodes, bool)
        starts[1:] = parents[order[1:]] != order[:-1]
        path = np.cumsum(starts) - 1
        head = np.empty(nodes, np.int64)
        head[order] = order[starts][path]
        tree = np.empty(nodes, np.int64)
        tree[order] = np.cumsum(parents[order] < 0) - 1
        return cls(parents, depth, order, position, size, tree, head)

    @classmethod
    def from_trees(cls, forests: Sequence["Forest | ArrayLike"]) -> "Forest":
        """A batch of trees as one forest, their nodes one after another.

        Args:
            forests: list of `parents` or of `Forest`s, at least one.

        Raises:
            ValueError: if there is none, or one is not a forest.
        """
        if not len(forests):
            raise ValueError(
                "`forests` expects at least one forest. Received: an empty list"
            )
        parents, first = [], 0
        for forest in forests:
            if not isinstance(forest, Forest):
                forest = check_parents(forest)
            else:
                forest = forest.parents
            parents.append(np.where(forest < 0, -1, forest + first))
            first += len(forest)
        return cls.from_parents(np.concatenate(parents))

    @property
    def num_nodes(self) -> int:
        return len(self.parents)

    def light_depth(self) -> np.ndarray:
        """`(nodes,)`: heavy paths between the path of a node and its root."""
        heads = np.unique(self.head)
        index = np.full(self.num_nodes, -1)
        index[heads] = np.arange(len(heads))
        above = self.parents[heads]
        above = np.where(above < 0, -1, index[self.head[above]])
        return depths(above)[index[self.head]]


def minimum_spanning_forest(adjacency: Adjacency) -> tuple[Forest, np.ndarray]:
    """The forest of least total weight that connects what the graph connects.

    A mask on it is an approximation of one on the graph: distances between
    nodes are those along the forest, never shorter.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array: lengths of edges,
            positive, of which the smaller of both directions counts; or a
            `Graph`.

    Returns:
        A `Forest` and the weights `(nodes,)` of the edges to parents, zero at
        roots: what `ForestExponential` and `ForestAttention` take.

    *Complexity*: `O(edges log nodes)`.

    Example:

    >>> square = [[0, 1, 0, 3], [1, 0, 2, 0], [0, 2, 0, 1], [3, 0, 1, 0]]
    >>> forest, weights = minimum_spanning_forest(square)
    >>> forest.parents, weights
    (array([-1,  0,  1,  2]), array([0., 1., 2., 1.]))
    """
    adjacency = _edges(adjacency)
    # SciPy reads the lengths of both directions as two edges.
    tree = scipy.sparse.csgraph.minimum_spanning_tree(adjacency)
    return _rooted(tree + tree.T)


def breadth_first_forest(
    adjacency: Adjacency, roots: ArrayLike | None = None
) -> tuple[Forest, np.ndarray]:
    """Trees of shortest paths, in edges, from one root per component.

    Distances from a root are those of the graph; others are the same or longer
    on the forest.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, or a `Graph`; edges
            count in both directions.
        roots: node ids, at most one per component; components without one are
            rooted at the node of the highest degree.

    Returns:
        A `Forest` and the weights `(nodes,)` of the edges to parents, those of
        the graph (the smaller of both directions), zero at roots.

    Raises:
        ValueError: if two roots are in one component.

    *Complexity*: `O(edges)`.

    Example:

    >>> triangle = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    >>> forest, weights = breadth_first_forest(triangle, roots=[0])
    >>> forest.parents, weights
    (array([-1,  0,  0]), array([0., 1., 1.]))
    """
    adjacency = _edges(adjacency)
    nodes = adjacency.shape[0]
    count, component = scipy.sparse.csgraph.connected_components(
        adjacency, directed=False
    )
    degree = np.diff(adjacency.indptr)
    order = np.lexsort((-degree, component))
    chosen = order[np.searchsorted(component[order], np.arange(count))]
    if roots is not None:
        roots = np.asarray(roots).reshape(-1)
        check_node_ids(roots, nodes, "roots")
        roots = roots.astype(np.int64)
        if len(np.unique(component[roots])) < len(roots):
            raise ValueError(
                "`roots` expects at most one node of each component. Received: "
                f"roots={roots.tolist()}"
            )
        chosen[component[roots]] = roots
    return _rooted(adjacency, chosen)


def _edges(adjacency):
    """A symmetric matrix of lengths: the smaller of both directions."""
    edges = as_adjacency(adjacency, "float64").tocoo()
    low, high = np.minimum(edges.row, edges.col), np.maximum(*edges.coords)
    # Of the two directions of an edge, the first in this order is the shorter.
    order = np.lexsort((edges.data, high, low))
    low, high, data = low[order], high[order], edges.data[order]
    first = np.append(True, (np.diff(low) != 0) | (np.diff(high) != 0))
    first = first[: len(low)] & (low != high)
    rows = np.concatenate([low[first], high[first]])
    columns = np.concatenate([high[first], low[first]])
    return scipy.sparse.csr_array(
        (np.tile(data[first], 2), (rows, columns)), shape=edges.shape
    )


def _rooted(adjacency, roots=()):
    """The breadth-first forest of a symmetric matrix, and its weights.

    Components without a root get their first node.
    """
    nodes = adjacency.shape[0]
    count, component = scipy.sparse.csgraph.connected_components(
        adjacency, directed=False
    )
    first = np.unique(component, return_index=True)[1]
    roots = np.asarray(roots, np.int64)
    first[component[roots]] = roots
    # A node above all roots, from which one search reaches everything.
    above = scipy.sparse.csr_array(
        (np.ones(count), (np.zeros(count, int), first)), shape=(1, nodes)
    )
    graph = scipy.sparse.block_array(
        [[adjacency, None], [above, scipy.sparse.csr_array((1, 1))]],
        format="csr",
    )
    before = scipy.sparse.csgraph.breadth_first_order(graph, nodes)[1][:nodes]
    parents = np.where(before == nodes, -1, before).astype(np.int64)
    weights = np.zeros(nodes)
    child = np.flatnonzero(parents >= 0)
    weights[child] = np.asarray(adjacency[child, parents[child]]).ravel()
    return Forest.from_parents(parents), weights


def check_parents(parents: ArrayLike) -> np.ndarray:
    """`parents` as an int64 vector, checked but for cycles."""
    array = np.asarray(parents)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            "`parents` expects a vector of integers. Received: parents of "
            f"shape {array.shape} and dtype {array.dtype}"
        )
    if not len(array):
        raise ValueError(
            "`parents` expects at least one node. Received: an empty vector"
        )
    array = array.astype(np.int64)
    wrong = np.flatnonzero((array < -1) | (array >= len(array)))
    if len(wrong):
        raise ValueError(
            f"`parents` expects numbers from -1 to {len(array) - 1}. Received: "
            f"parents[{wrong[0]}]={array[wrong[0]]}"
        )
    return array


def depths(parents: np.ndarray) -> np.ndarray:
    """Edges between each node and its root, by doubling: `O(L log L)`.

    Raises:
        ValueError: if there is a cycle.
    """
    nodes = len(parents)
    depth = (parents >= 0).astype(np.int64)
    # A root is its own ancestor, at a distance of zero.
    ancestor = np.where(parents >= 0, parents, np.arange(nodes))
    for _ in range(max(1, int(nodes).bit_length())):
        depth = depth + depth[ancestor]
        ancestor = ancestor[ancestor]
    lost = np.flatnonzero(parents[ancestor] >= 0)
    if len(lost):
        # After more steps than there are nodes, one stands on the cycle.
        child = ancestor[lost[0]]
        raise ValueError(
            "`parents` expects a forest. Received: a cycle through the edge "
            f"from {child} to its parent {parents[child]}"
        )
    return depth


def _preorder(parents, key):
    """Nodes in preorder, roots and children in ascending order of `key`."""
    nodes = len(parents)
    # A node above all roots makes the forest a tree.
    above = np.where(parents < 0, nodes, parents)
    children = np.lexsort((key, above))
    counts = np.bincount(above, minlength=nodes + 1)
    pointer = np.concatenate([[0], np.cumsum(counts)])
    graph = scipy.sparse.csr_array(
        (np.ones(nodes), children, pointer), shape=(nodes + 1, nodes + 1)
    )
    order = scipy.sparse.csgraph.depth_first_order(
        graph, nodes, return_predecessors=False
    )
    return order[1:]


def _rank(order):
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
