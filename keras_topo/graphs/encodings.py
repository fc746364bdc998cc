"""Features that say where a node is, from the graph alone."""

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import normalized_adjacency
from keras_topo.host.adjacency import as_adjacency

# Nodes from which the eigenvectors are computed one by one.
DENSE_NODES = 512


def laplacian_eigenvectors(adjacency: Adjacency, count: int) -> np.ndarray:
    """The `count` eigenvectors of the normalized Laplacian after the first one.

    Dwivedi and Bresson (2021): positions of the nodes, in which neighbors are
    close. They are those of `I - D^-1/2 A D^-1/2` of the graph without
    directions, of norm 1. Their signs mean nothing: here the largest entry is
    positive, and training flips them at random. Where eigenvalues repeat, the
    vectors are those that the solver finds.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        count: int, eigenvectors.

    Returns:
        float32 array `(nodes, count)`, in the order of their eigenvalues;
        columns of zeros where a graph has too few nodes.

    *Complexity*: `O(nodes^3)`, and above 512 nodes Lanczos iterations.

    Example:

    >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    >>> abs(laplacian_eigenvectors(path, count=1)).round(3).T
    array([[0.707, 0.   , 0.707]], dtype=float32)
    """
    adjacency = as_adjacency(adjacency).astype("float64")
    if count < 0 or int(count) != count:
        raise ValueError(
            f"`count` expects a number of eigenvectors. Received: count={count}"
        )
    nodes = adjacency.shape[0]
    found = np.zeros((nodes, count), "float32")
    wanted = min(count, nodes - 1)
    if wanted < 1:
        return found
    adjacency = adjacency.maximum(adjacency.T)
    matrix = normalized_adjacency(adjacency, self_loops=False)
    # Nodes without edges have eigenvalue 0 of the Laplacian too.
    lonely = scipy.sparse.diags_array(
        (adjacency.sum(axis=1) == 0).astype(float)
    )
    matrix = scipy.sparse.csr_array(matrix + lonely)
    if nodes <= DENSE_NODES or wanted + 1 >= nodes:
        _, vectors = scipy.linalg.eigh(
            -matrix.toarray(), subset_by_index=(0, wanted)
        )
    else:
        values, vectors = scipy.sparse.linalg.eigsh(
            matrix, wanted + 1, which="LA", v0=np.ones(nodes)
        )
        vectors = vectors[:, np.argsort(-values, kind="stable")]
    vectors = vectors[:, 1:]
    largest = np.argmax(np.abs(vectors).round(6), axis=0)
    signs = np.sign(vectors[largest, np.arange(wanted)])
    found[:, :wanted] = vectors * np.where(signs == 0, 1.0, signs)
    return found
