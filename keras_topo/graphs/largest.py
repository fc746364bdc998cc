"""The largest entries of a kernel, row by row, without the whole matrix."""

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph

from keras_topo.graphs.kernels import (
    generator_matrix,
    normalize_rows,
    normalized_adjacency,
    walk_sums,
)
from keras_topo.host.adjacency import as_adjacency

KERNELS = ("random_walk", "diffusion", "neighbors", "normalized", "ones")
# Those that have entries at edges and on the diagonal alone.
LOCAL_KERNELS = ("neighbors", "normalized")
# Entries of a block of rows.
BLOCK = 2**22
# Ids of nodes are kept as float32 beside the values of kernels.
MOST_NODES = 2**24


def dense_kernels(adjacency, kind, sizes=(1.0,)):
    """Kernels of a graph as dense matrices.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        kind: `"random_walk"`, of `sizes` nodes per walk;
            `"diffusion"` of the normalized Laplacian, for the times `sizes`;
            `"neighbors"`, `A + I` as ones and zeros; `"normalized"`,
            `D^-1/2 (A + I) D^-1/2`; or `"ones"`.
        sizes: numbers, one kernel each; of no matter to the other three.

    Returns:
        float32 array `(kernels, nodes, nodes)`.
    """
    rows, _ = kernel_rows(adjacency, kind, sizes)
    return rows(0, as_adjacency(adjacency).shape[0]).astype("float32")


def largest_pairs(adjacency, kind, sizes=(1.0,), count=32):
    """The largest entries of each row, and those at the edges of the graph.

    Largest by the maximum over the kernels; of equal ones those of the first
    nodes. Zeros are never kept, and `"neighbors"` and `"normalized"` keep all
    others: a hub, too, has an entry of its own.

    Args:
        adjacency, kind, sizes: as in `dense_kernels`, but not `"ones"`.
        count: int, entries of a row, beside those at edges.

    Returns:
        float32 array `(2 + kernels, pairs)`: rows, columns (node ids) and the
        values of each kernel, in row order.

    Raises:
        ValueError: for `"ones"`, or a graph of 2^24 nodes or more.

    *Complexity*: memory linear in `count * nodes` beside what the kernel is
    made of: the walks of each node, or the eigenvectors of diffusion.
    """
    if kind == "ones":
        raise ValueError(
            "`kind` expects one that hides something, where pairs are kept. "
            "Received: kind='ones'"
        )
    adjacency = as_adjacency(adjacency)
    nodes = adjacency.shape[0]
    if nodes >= MOST_NODES:
        raise ValueError(
            f"`adjacency` expects fewer than {MOST_NODES:,} nodes. Received: "
            f"{nodes:,}"
        )
    rows, num_kernels = kernel_rows(adjacency, kind, sizes)
    step = max(1, BLOCK // (nodes * num_kernels))
    found = []
    for start in range(0, nodes, step):
        stop = min(start + step, nodes)
        values = rows(start, stop).astype("float32")
        kept = _largest(values.max(axis=0), count)
        kept |= adjacency[start:stop].toarray() != 0
        if kind in LOCAL_KERNELS:
            kept[:] = True
        i, j = np.nonzero(kept & (values.max(axis=0) > 0))
        found.append(
            np.concatenate([[i + start], [j], values[:, i, j]]).astype(
                "float32"
            )
        )
    return np.concatenate(found, axis=1)


def kernel_rows(adjacency, kind, sizes):
    """A function from `start, stop` to rows of kernels, and their number."""
    adjacency = as_adjacency(adjacency)
    if kind == "random_walk":
        walks = [
            _unit_rows(f)
            for f in walk_sums(adjacency, [int(n) for n in sizes], 0.0, 1.0)
        ]
        return lambda a, b: np.stack([_product(f, a, b) for f in walks]), len(
            walks
        )
    if kind == "diffusion":
        return _diffusion_rows(adjacency, sizes), len(sizes)
    nodes = adjacency.shape[0]
    if kind == "ones":
        return lambda a, b: np.ones((1, b - a, nodes), "float32"), 1
    if kind == "normalized":
        matrix = normalized_adjacency(adjacency)
    elif kind == "neighbors":
        matrix = adjacency + scipy.sparse.eye_array(nodes, format="csr")
        matrix.data[:] = 1.0
    else:
        raise ValueError(
            f"`kind` expects one of {KERNELS}. Received: kind={kind!r}"
        )
    matrix = scipy.sparse.csr_array(matrix)
    return lambda a, b: matrix[a:b].toarray()[None], 1


def _unit_rows(features):
    if scipy.sparse.issparse(features):
        norms = np.sqrt(features.power(2).sum(axis=1))
        return scipy.sparse.csr_array(
            scipy.sparse.diags_array(1.0 / norms) @ features
        )
    return normalize_rows(features)


def _product(features, start, stop):
    rows = features[start:stop] @ features.T
    return rows.toarray() if scipy.sparse.issparse(rows) else rows


def _diffusion_rows(adjacency, times):
    """Rows of `exp(-time T)`, zero between components."""
    matrix = generator_matrix(adjacency, "normalized_laplacian").toarray()
    _, component = scipy.sparse.csgraph.connected_components(
        adjacency, directed=False
    )
    times = np.asarray(times, "float64")
    if np.allclose(matrix, matrix.T, rtol=0, atol=1e-12 * abs(matrix).max()):
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        weights = np.exp(-times[:, None] * values)

        def rows(start, stop):
            scaled = vectors[start:stop] * weights[:, None]
            inside = component[start:stop, None] == component
            return np.maximum(scaled @ vectors.T, 0.0) * inside

        return rows
    kernels = scipy.linalg.expm(-times[:, None, None] * matrix)
    return lambda start, stop: np.maximum(kernels[:, start:stop], 0.0)


def _largest(values, count):
    """Which entries are among the `count` largest of their row."""
    if count >= values.shape[1]:
        return np.ones(values.shape, bool)
    bound = -np.partition(-values, count - 1, axis=1)[:, count - 1, None]
    above, equal = values > bound, values == bound
    left = count - above.sum(axis=1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=1) <= left))
