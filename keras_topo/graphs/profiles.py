"""Features of nodes: degrees around them, and triangles."""

import numpy as np
import scipy.sparse

from keras_topo.annotations import Adjacency
from keras_topo.host.adjacency import as_adjacency


def degree_profile(adjacency: Adjacency) -> np.ndarray:
    """The degree of each node, and a summary of those of its neighbors.

    The local degree profile of Cai and Wang (2018), of which a histogram with
    a random forest or a support vector machine is a strong classifier of
    graphs without labels. Its numbers are logarithms here, `log(1 + x)` of

        degree, least, largest and mean degree of the neighbors, and their
        standard deviation

    and the last is the share of the other nodes that are neighbors, whose mean
    over nodes is the density of the graph.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
            Weights do not count. Of directed graphs the edges that leave a
            node.

    Returns:
        float32 array `(nodes, 6)`; zeros for a node without edges.

    *Complexity*: `O(edges)`.

    Example:

    >>> star = [[0, 1, 1], [1, 0, 0], [1, 0, 0]]
    >>> np.expm1(degree_profile(star)[:, :5]).round(3)
    array([[2., 1., 1., 1., 0.],
           [1., 2., 2., 2., 0.],
           [1., 2., 2., 2., 0.]], dtype=float32)
    """
    adjacency = as_adjacency(adjacency)
    degrees = np.diff(adjacency.indptr)
    nodes = len(degrees)
    columns = np.zeros((6, nodes))
    columns[0] = degrees
    some = np.flatnonzero(degrees)
    if len(some):
        around = degrees[adjacency.indices].astype("float64")
        # Rows without entries begin where the next one does.
        starts = adjacency.indptr[some]
        mean = np.add.reduceat(around, starts) / degrees[some]
        apart = np.square(around - np.repeat(mean, degrees[some]))
        columns[1, some] = np.minimum.reduceat(around, starts)
        columns[2, some] = np.maximum.reduceat(around, starts)
        columns[3, some] = mean
        columns[4, some] = np.sqrt(
            np.add.reduceat(apart, starts) / degrees[some]
        )
    columns[:5] = np.log1p(columns[:5])
    columns[5] = degrees / max(nodes - 1, 1)
    return columns.T.astype("float32")


def clustering_coefficients(adjacency: Adjacency) -> np.ndarray:
    """The share of the pairs of neighbors of a node that are neighbors.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
            Weights, directions and edges from a node to itself do not count.

    Returns:
        float32 array `(nodes, 1)`; 0 with fewer than two neighbors.

    *Complexity*: the squares of the degrees, summed up.

    Example:

    >>> triangle_with_tail = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1],
    ...                       [0, 0, 1, 0]]
    >>> clustering_coefficients(triangle_with_tail).round(3).T
    array([[1.   , 1.   , 0.333, 0.   ]], dtype=float32)
    """
    adjacency = as_adjacency(adjacency)
    edges = scipy.sparse.csr_array(adjacency + adjacency.T).astype("float64")
    edges.data[:] = 1.0
    edges.setdiag(0.0)
    edges.eliminate_zeros()
    degrees = np.diff(edges.indptr)
    # Each triangle in both of its directions.
    closed = np.asarray((edges @ edges * edges).sum(axis=1)).ravel()
    pairs = np.maximum(degrees * (degrees - 1.0), 1.0)
    return (closed / pairs).astype("float32")[:, None]
