"""Features that say where a node is, from the graph alone."""

import inspect

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import normalized_adjacency
from keras_topo.host.adjacency import as_adjacency

# Nodes above which eigenvectors are computed one by one, by component.
DENSE_NODES = 512
# Nodes of a component up to which they are computed all at once where that
# fails.
MOST_DENSE_NODES = 8192


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

    *Complexity*: `O(nodes^3)`; above 512 nodes that of Lanczos iterations, by
    component.

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
    if nodes <= DENSE_NODES:
        _, vectors = _largest(matrix, wanted + 1)
    else:
        vectors = _largest_of_components(matrix, wanted + 1)
    vectors = vectors[:, 1:]
    largest = np.argmax(np.abs(vectors).round(6), axis=0)
    signs = np.sign(vectors[largest, np.arange(wanted)])
    found[:, :wanted] = vectors * np.where(signs == 0, 1.0, signs)
    return found


def _largest_of_components(matrix, count):
    """Eigenvectors of the `count` largest eigenvalues, in their order."""
    _, component = scipy.sparse.csgraph.connected_components(matrix)
    order = np.argsort(component, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(component))[:-1])
    found = []
    for nodes in members:
        values, vectors = _largest(
            matrix[nodes][:, nodes], min(count, len(nodes))
        )
        found += zip(values, vectors.T, [nodes] * len(values), strict=True)
    # All components have the eigenvalue 1: rounding is not to order them.
    found.sort(key=lambda item: -round(item[0], 9))
    joined = np.zeros((matrix.shape[0], count))
    for column, (_, vector, nodes) in enumerate(found[:count]):
        joined[nodes, column] = vector
    return joined


def _largest(matrix, count):
    """The `count` largest eigenvalues, in order, and their eigenvectors."""
    nodes = matrix.shape[0]
    if nodes > max(DENSE_NODES, count):
        try:
            return _lanczos(matrix, count)
        except scipy.sparse.linalg.ArpackError:
            # It fails where there are hardly any different eigenvalues.
            if nodes > MOST_DENSE_NODES:
                raise
    values, vectors = scipy.linalg.eigh(
        -matrix.toarray(), subset_by_index=(0, count - 1)
    )
    return -values, vectors


def _lanczos(matrix, count):
    """As `_largest`.

    Lanczos iterations see one vector of each eigenspace, and others by
    rounding only. They therefore go on with what the vectors found so far
    leave over, until nothing there is larger.
    """
    nodes = matrix.shape[0]
    # More vectors than usual: eigenvalues near 1 are close to each other.
    options = {"which": "LA", "ncv": min(nodes, max(80, 2 * count + 1))}
    options["v0"] = np.random.default_rng(0).standard_normal(nodes)
    if "rng" in inspect.signature(scipy.sparse.linalg.eigsh).parameters:
        options["rng"] = 0
    values, vectors = scipy.sparse.linalg.eigsh(matrix, count, **options)
    values, vectors = values[::-1], vectors[:, ::-1]

    def rest(vector):
        # Eigenvalues are at most 1 in size: what was found becomes the least.
        found = (values + 2) * (vectors.T @ vector)
        return matrix @ vector - vectors @ found

    operator = scipy.sparse.linalg.LinearOperator(
        matrix.shape, matvec=rest, dtype="float64"
    )
    while True:
        more, others = scipy.sparse.linalg.eigsh(operator, 1, **options)
        if more[0] <= values[-1] + 1e-9:
            return values, vectors
        vectors, _ = np.linalg.qr(np.concatenate([vectors, others], axis=1))
        values, turn = scipy.linalg.eigh(vectors.T @ (matrix @ vectors))
        values = values[::-1][:count]
        vectors = (vectors @ turn[:, ::-1])[:, :count]
