"""Scores of pairs of nodes from a graph alone: baselines of link prediction.

All of them count edges and not their weights, and take a directed graph as an
undirected one. See Liben-Nowell and Kleinberg (2007), *The link-prediction
problem for social networks*.
"""

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import AnyGraph
from keras_topo.graphs.any_graph import as_graph, library_of
from keras_topo.graphs.links import check_pairs
from keras_topo.host.adjacency import as_adjacency

# Pairs whose rows of the adjacency matrix are multiplied at once.
BLOCK = 2**14


def common_neighbors(adjacency: AnyGraph, pairs: ArrayLike) -> np.ndarray:
    """How many neighbors two nodes have in common, `|N(u) & N(v)|`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`, or one
            of networkx, PyTorch Geometric or DGL.
        pairs: `(pairs, 2)`, ints, nodes in its order.

    Returns:
        `(pairs,)`, float64.

    Raises:
        ValueError: if `pairs` are not pairs of node ids.

    *Complexity*: `O(pairs degree)`.

    Example:

    >>> square = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    >>> common_neighbors(square, [[0, 2], [0, 1]])
    array([2., 0.])
    """
    return _sum_over_common(adjacency, pairs, np.ones_like)


def adamic_adar(adjacency: AnyGraph, pairs: ArrayLike) -> np.ndarray:
    """Common neighbors, weighted by how few neighbors they have.

    The score of Adamic and Adar (2003):

        s(u, v) = sum of 1 / log(d_w) over w in N(u) & N(v)

    Args:
        adjacency, pairs: as in `common_neighbors`.

    Returns:
        `(pairs,)`, float64.

    Raises:
        ValueError: if `pairs` are not pairs of node ids.

    *Complexity*: `O(pairs degree)`.

    Example:

    >>> square = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    >>> adamic_adar(square, [[0, 2], [0, 1]]).round(3)
    array([2.885, 0.   ])
    """
    # A common neighbor has two neighbors at least, unless a node is paired
    # with itself.
    return _sum_over_common(
        adjacency, pairs, lambda d: 1 / np.log(np.maximum(d, 2))
    )


def resource_allocation(adjacency: AnyGraph, pairs: ArrayLike) -> np.ndarray:
    """Common neighbors, each as one over its degree (Zhou et al., 2009).

        s(u, v) = sum of 1 / d_w over w in N(u) & N(v)

    Args:
        adjacency, pairs: as in `common_neighbors`.

    Returns:
        `(pairs,)`, float64.

    Raises:
        ValueError: if `pairs` are not pairs of node ids.

    *Complexity*: `O(pairs degree)`.

    Example:

    >>> square = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    >>> resource_allocation(square, [[0, 2], [0, 1]])
    array([1., 0.])
    """
    return _sum_over_common(adjacency, pairs, lambda d: 1 / np.maximum(d, 1))


def katz(
    adjacency: AnyGraph, pairs: ArrayLike, beta: float = 0.005, steps: int = 4
) -> np.ndarray:
    """Walks between two nodes, of which longer ones count less (Katz, 1953).

        s(u, v) = sum of beta^l (A^l)[u, v] over l = 1 ... steps

    Args:
        adjacency, pairs: as in `common_neighbors`.
        beta: float, positive.
        steps: int, positive, of the longest walks.

    Returns:
        `(pairs,)`, float64.

    Raises:
        ValueError: if an argument is outside its range, or `pairs` are not
            pairs of node ids.

    *Complexity*: `O(steps edges nodes)` at most, for the rows of the first
    nodes of the pairs.

    Example:

    >>> square = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    >>> katz(square, [[0, 2], [0, 1]], beta=0.1, steps=2).round(3)
    array([0.02, 0.1 ])
    """
    if not 0 < beta < np.inf:
        raise ValueError(
            f"`beta` expects a positive number. Received: beta={beta}"
        )
    if int(steps) != steps or steps < 1:
        raise ValueError(
            f"`steps` expects a positive int. Received: steps={steps}"
        )
    matrix, pairs = _prepare(adjacency, pairs)
    sources, which = np.unique(pairs[:, 0], return_inverse=True)
    scores = np.zeros(len(pairs))
    # Some sources after another: rows fill up as walks get longer.
    for start in range(0, len(sources), BLOCK // 16):
        stop = start + BLOCK // 16
        walks = scipy.sparse.eye_array(matrix.shape[0], format="csr")
        walks = walks[sources[start:stop]]
        inside = np.flatnonzero((which >= start) & (which < stop))
        for _ in range(int(steps)):
            walks = scipy.sparse.csr_array(beta * (walks @ matrix))
            scores[inside] += _entries(
                walks, which[inside] - start, pairs[inside, 1]
            )
    return scores


def _sum_over_common(adjacency, pairs, weight):
    """Sums of `weight(degrees)` over the common neighbors of pairs."""
    matrix, pairs = _prepare(adjacency, pairs)
    weighted = matrix @ scipy.sparse.diags_array(weight(matrix.sum(axis=1)))
    weighted = scipy.sparse.csr_array(weighted)
    scores = np.zeros(len(pairs))
    for start in range(0, len(pairs), BLOCK):
        u, v = pairs[start : start + BLOCK].T
        common = weighted[u] * matrix[v]
        scores[start : start + BLOCK] = common.sum(axis=1)
    return scores


def _prepare(adjacency, pairs):
    """Ones at edges in either direction, without self-loops; and pairs."""
    if library_of(adjacency):
        adjacency = as_graph(adjacency, name="adjacency")
    matrix = as_adjacency(adjacency, "float64")
    pairs = check_pairs(pairs, matrix.shape[0])
    matrix = scipy.sparse.csr_array(matrix + matrix.T)
    matrix = scipy.sparse.csr_array(
        matrix - scipy.sparse.diags_array(matrix.diagonal())
    )
    matrix.eliminate_zeros()
    matrix.data[:] = 1.0
    return matrix, pairs


def _entries(matrix, rows, columns):
    if not len(rows):
        return np.zeros(0)
    found = matrix[rows, columns]
    if scipy.sparse.issparse(found):
        found = found.toarray()
    return np.asarray(found).ravel()
