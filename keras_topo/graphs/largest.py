"""The largest entries of a kernel, row by row, without the whole matrix."""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, cast

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import (
    DENSE,
    check_walk,
    diffusion_rows,
    normalize_rows,
    normalized_adjacency,
    transition_matrix,
    walk_sums,
)
from keras_topo.graphs.labeled_walks import degree_bins, labeled_walk_kernels
from keras_topo.host.adjacency import as_adjacency

#: The kinds of `KERNELS`.
KernelKind: TypeAlias = Literal[
    "random_walk",
    "diffusion",
    "steps",
    "labeled_walk",
    "neighbors",
    "normalized",
    "ones",
]

# Of these there are several, one for each of `sizes`.
SIZED_KERNELS = ("random_walk", "diffusion", "steps", "labeled_walk")
KERNELS = (*SIZED_KERNELS, "neighbors", "normalized", "ones")
# Those whose sizes are numbers of nodes.
WALKS = ("random_walk", "steps", "labeled_walk")
# Those that have entries at edges and on the diagonal alone.
LOCAL_KERNELS = ("neighbors", "normalized")
# Entries of a block of rows.
BLOCK = 2**22
# Ids of nodes are kept as float32 beside the values of kernels.
MOST_NODES = 2**24
# Entries of a row are ranked in steps of its largest one over this, so that
# equal ones stay equal wherever they are computed: rounding is below a step.
STEPS = 2**16


def kinds_of(kind: str, name: str = "kind") -> list[KernelKind]:
    """The kinds of kernels that a text joins by `"+"`, a list.

    Args:
        kind: str.
        name: what errors call it.

    Raises:
        ValueError: for an unknown kind, or a repeated one.
    """
    kinds = kind.split("+") if isinstance(kind, str) else []
    if (
        not kinds
        or not set(kinds) <= set(KERNELS)
        or len(set(kinds)) < len(kinds)
    ):
        raise ValueError(
            f"`{name}` expects one of {KERNELS}, or different ones joined by "
            f"'+'. Received: {name}={kind!r}"
        )
    return cast("list[KernelKind]", kinds)


def count_kernels(kind: str, sizes: Sequence[float]) -> int:
    """How many kernels of a graph there are."""
    return sum(
        len(sizes) if each in SIZED_KERNELS else 1 for each in kinds_of(kind)
    )


def form_of_large_graphs(kind: str) -> Literal["dense", "pairs"]:
    """What `form="auto"` stands for where graphs are large."""
    # Pairs, the largest entries, cannot hold ones.
    return "dense" if "ones" in kinds_of(kind) else "pairs"


def dense_kernels(
    adjacency: Adjacency,
    kind: str,
    sizes: Sequence[float] = (1.0,),
    labels: ArrayLike | None = None,
) -> np.ndarray:
    """Kernels of a graph as dense matrices.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        kind: `"random_walk"`, of `sizes` nodes per walk;
            `"diffusion"` of the normalized Laplacian, for the times `sizes`;
            `"steps"`, where a walk of `n` nodes ends, `P^(n - 1)` with
            `P = D^-1 A`; `"labeled_walk"`, whether walks of `n` nodes
            see the same labels (see `labeled_walk_kernel`);
            `"neighbors"`, `A + I` as ones and zeros; `"normalized"`,
            `D^-1/2 (A + I) D^-1/2`; or `"ones"`. Or several of them joined by
            `"+"`, as in `"steps+ones"`, one after the other.
        sizes: numbers, one kernel each; the last three do not use them.
        labels: `(nodes,)`, ints or strings, of labeled walks; `None` for bins
            of degrees: 0, 1, 2 to 3, 4 to 7 and so on.

    Returns:
        float32 array `(kernels, nodes, nodes)`.

    Raises:
        ValueError: for an unknown kind or a wrong size.

    Example:

    >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    >>> dense_kernels(path, "random_walk+ones", sizes=[2, 3]).shape
    (3, 3, 3)
    """
    rows = kernel_rows(adjacency, kind, sizes, labels)
    return rows(0, as_adjacency(adjacency).shape[0]).astype("float32")


def largest_pairs(
    adjacency: Adjacency,
    kind: str,
    sizes: Sequence[float] = (1.0,),
    count: int = 32,
    labels: ArrayLike | None = None,
) -> np.ndarray:
    """The largest entries of each row, and those at the edges of the graph.

    Largest by the maximum over the kernels; among entries that are equal to
    2^-16 of the largest of the row, those of the first nodes. Zeros are kept
    at edges alone, and `"neighbors"` and `"normalized"` keep all others: a hub,
    too, has an entry of its own.

    Args:
        adjacency, kind, sizes, labels: as in `dense_kernels`, but without
            `"ones"`.
        count: int, entries of a row, beside those at edges.

    Returns:
        float32 array `(2 + kernels, pairs)`: rows, columns (node ids) and the
        values of each kernel, in row order.

    Raises:
        ValueError: for `"ones"`, or a graph of 2^24 nodes or more.

    *Complexity*: memory linear in `count * nodes` beside what the kernel is
    made of: the walks of each node, powers of the steps, the eigenvectors of
    diffusion, or all of a kernel of labeled walks.

    Example:

    >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    >>> largest_pairs(path, "diffusion", sizes=[1.0], count=1).round(2)
    array([[0.  , 0.  , 1.  , 1.  , 1.  , 2.  , 2.  ],
           [0.  , 1.  , 0.  , 1.  , 2.  , 1.  , 2.  ],
           [0.47, 0.31, 0.31, 0.57, 0.31, 0.31, 0.47]], dtype=float32)
    """
    kinds = kinds_of(kind)
    if "ones" in kinds:
        raise ValueError(
            "`kind` expects one that hides something, where pairs are kept. "
            f"Received: kind={kind!r}"
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
    rows = kernel_rows(adjacency, kind, sizes, labels)
    step = max(1, BLOCK // (nodes * count_kernels(kind, sizes)))
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


def kernel_rows(
    adjacency: Adjacency,
    kind: str,
    sizes: Sequence[float],
    labels: ArrayLike | None = None,
) -> Callable[[int, int], np.ndarray]:
    """A function from `start, stop` to these rows of kernels."""
    adjacency = as_adjacency(adjacency)
    parts = [_rows(adjacency, k, sizes, labels) for k in kinds_of(kind)]
    if len(parts) == 1:
        return parts[0]
    return lambda start, stop: np.concatenate(
        [rows(start, stop) for rows in parts]
    )


def _rows(adjacency, kind, sizes, labels):
    """`kernel_rows` of a single kind."""
    if kind in WALKS:
        check_walk(sizes, 0.0, 1.0)
        sizes = [int(n) for n in sizes]
    if kind == "random_walk":
        walks = walk_sums(adjacency, sizes, 0.0, 1.0)
        walks = [normalize_rows(features) for features in walks]
        return lambda start, stop: np.stack(
            [_product(features, start, stop) for features in walks]
        )
    if kind == "diffusion":
        times = np.asarray(sizes, "float64")
        return diffusion_rows(adjacency, times, "normalized_laplacian")
    if kind == "steps":
        powers = _powers(transition_matrix(adjacency), sizes)
        return lambda start, stop: np.stack(
            [_dense(power[start:stop]) for power in powers]
        )
    if kind == "labeled_walk":
        if labels is None:
            labels = degree_bins(adjacency)
        # In float32: of a graph of thousands of nodes these are whole.
        kernels = labeled_walk_kernels(
            adjacency, labels, sizes, dtype="float32"
        )
        return lambda start, stop: np.stack([k[start:stop] for k in kernels])
    if kind == "ones":
        nodes = adjacency.shape[0]
        return lambda start, stop: np.ones((1, stop - start, nodes), "float32")
    matrix = _local_kernel(adjacency, kind)
    return lambda start, stop: matrix[start:stop].toarray()[None]


def _powers(transition, sizes):
    """`P^(n - 1)` for each of `sizes`, sparse while few entries are not 0."""
    nodes = transition.shape[0]
    power = scipy.sparse.eye_array(nodes, format="csr")
    found = {1: power}
    for n in range(2, max(sizes) + 1):
        power = power @ transition
        if scipy.sparse.issparse(power) and power.nnz > DENSE * nodes**2:
            power = power.toarray()
        if n in sizes:
            found[n] = power
    return [found[n] for n in sizes]


def _dense(matrix):
    return matrix.toarray() if scipy.sparse.issparse(matrix) else matrix


def _local_kernel(adjacency, kind):
    """A kernel that is zero but at edges and on the diagonal, a CSR array."""
    if kind == "normalized":
        return normalized_adjacency(adjacency)
    nodes = adjacency.shape[0]
    matrix = adjacency + scipy.sparse.eye_array(nodes, format="csr")
    matrix.data[:] = 1.0
    return scipy.sparse.csr_array(matrix)


def _product(features, start, stop):
    return _dense(features[start:stop] @ features.T)


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
