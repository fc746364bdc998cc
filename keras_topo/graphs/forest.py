"""Rooted forests on the host: checks, orders, heavy paths."""

import dataclasses

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import depth_first_order


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
    """

    parents: np.ndarray
    depth: np.ndarray
    order: np.ndarray
    position: np.ndarray
    size: np.ndarray
    tree: np.ndarray
    head: np.ndarray

    @classmethod
    def from_parents(cls, parents):
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

    @property
    def num_nodes(self):
        return len(self.parents)

    def light_depth(self):
        """`(nodes,)`: heavy paths between the path of a node and its root."""
        heads = np.unique(self.head)
        index = np.full(self.num_nodes, -1)
        index[heads] = np.arange(len(heads))
        above = self.parents[heads]
        above = np.where(above < 0, -1, index[self.head[above]])
        return depths(above)[index[self.head]]


def check_parents(parents):
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


def depths(parents):
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
    return depth_first_order(graph, nodes, return_predecessors=False)[1:]


def _rank(order):
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
