"""The largest entries of a kernel, row by row, without the whole matrix."""

import numpy as np
import scipy.sparse

from keras_topo.graphs.kernels import (
    diffusion_rows,
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
# Entries of a row are ranked in steps of its largest one over this, so that
# equal ones stay equal wherever they are computed: rounding is below a step.
STEPS = 2**16


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
    rows = kernel_rows(adjacency, kind, sizes)
    return rows(0, as_adjacency(adjacency).shape[0]).astype("float32")


def largest_pairs(adjacency, kind, sizes=(1.0,), count=32):
    """The largest entries of each row, and those at the edges of the graph.

    Largest by the maximum over the kernels; of equal ones, to 2^-16 of the
    largest of the row, those of the first nodes. Zeros are kept at edges
    alone, and `"neighbors"` and `"normalized"` keep all others: a hub, too, has
    an entry of its own.

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
    if kind in LOCAL_KERNELS:
        matrix = _local_kernel(adjacency, kind)
        matrix.sort_indices()
        entries = matrix.tocoo()
        return np.stack([entries.row, entries.col, entries.data]).astype(
            "float32"
        )
    rows = kernel_rows(adjacency, kind, sizes)
    step = max(1, BLOCK // (nodes * len(sizes)))
    found = []
    for start in range(0, nodes, step):
        stop = min(start + step, nodes)
        values = rows(start, stop).astype("float32")
        highest = values.max(axis=0)
        kept = _largest(_ranks(highest), count) & (highest > 0)
        kept |= adjacency[start:stop].toarray() != 0
        i, j = np.nonzero(kept)
        pairs = np.concatenate([[i + start], [j], values[:, i, j]])
        found.append(pairs.astype("float32"))
    return np.concatenate(found, axis=1)


def kernel_rows(adjacency, kind, sizes):
    """A function from `start, stop` to these rows of kernels."""
    adjacency = as_adjacency(adjacency)
    if kind == "random_walk":
        walks = walk_sums(adjacency, [int(n) for n in sizes], 0.0, 1.0)
        walks = [normalize_rows(features) for features in walks]
        return lambda start, stop: np.stack(
            [_product(features, start, stop) for features in walks]
        )
    if kind == "diffusion":
        times = np.asarray(sizes, "float64")
        return diffusion_rows(adjacency, times, "normalized_laplacian")
    if kind == "ones":
        nodes = adjacency.shape[0]
        return lambda start, stop: np.ones((1, stop - start, nodes), "float32")
    matrix = _local_kernel(adjacency, kind)
    return lambda start, stop: matrix[start:stop].toarray()[None]


def _local_kernel(adjacency, kind):
    """A kernel that is zero but at edges and on the diagonal, a CSR array."""
    if kind == "normalized":
        return normalized_adjacency(adjacency)
    if kind != "neighbors":
        raise ValueError(
            f"`kind` expects one of {KERNELS}. Received: kind={kind!r}"
        )
    nodes = adjacency.shape[0]
    matrix = adjacency + scipy.sparse.eye_array(nodes, format="csr")
    matrix.data[:] = 1.0
    return scipy.sparse.csr_array(matrix)


def _product(features, start, stop):
    rows = features[start:stop] @ features.T
    return rows.toarray() if scipy.sparse.issparse(rows) else rows


def _ranks(values):
    """Values of rows as whole steps: `LargestEntries` has the same in Keras."""
    largest = values.max(axis=1, keepdims=True)
    largest = np.where(largest > 0, largest, np.float32(1))
    return np.round(values * (STEPS / largest))


def _largest(values, count):
    """Which entries are among the `count` largest of their row."""
    if count >= values.shape[1]:
        return np.ones(values.shape, bool)
    bound = -np.partition(-values, count - 1, axis=1)[:, count - 1, None]
    above, equal = values > bound, values == bound
    left = count - above.sum(axis=1, keepdims=True)
    return above | (equal & (np.cumsum(equal, axis=1) <= left))
