"""Random walks, sampled for all nodes at once."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import check_walk
from keras_topo.host.adjacency import as_adjacency

# Visits that are held at once, some 40 bytes each.
BLOCK_VISITS = 2**24


def random_walk_features(
    adjacency: Adjacency,
    num_walks: int = 50,
    length: int = 4,
    halt: float = 0.0,
    discount: float = 1.0,
    normalize: bool = True,
    anchors: ArrayLike | None = None,
    seed: int | Sequence[int] = 0,
) -> scipy.sparse.csr_array:
    """Features whose products estimate the random-walk graph-nodes kernel.

    `num_walks` walks from every node, as in `random_walk_kernel`; `F[k, i]` is
    the mean over the walks from `k` of the sum of `discount^l` over the steps
    `l` at which the walk stands on `i`. `F F^T` estimates the kernel, and `F`
    is a factor of low rank where few nodes are anchors. With
    `normalize=False`, `F` is an unbiased estimate of `walk_expectations`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; a step takes an
            edge with a probability in proportion to its weight.
        num_walks: int, walks from each node.
        length: int, nodes of a walk, the first included.
        halt: float in [0, 1), probability to stop before each step.
        discount: float, positive.
        normalize: bool; rows of norm 1 (rows of zeros stay).
        anchors: ids of the nodes whose coordinates are kept; or an int, that
            many drawn at random; or `None`, all.
        seed: int; the same seed gives the same walks.

    Returns:
        float32 CSR array `(nodes, nodes)`, or `(nodes, anchors)`.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(nodes num_walks length)` time (a binary search more where
    edges have weights); memory that of the result and a bounded block.

    Example:

    >>> ring = np.roll(np.eye(5), 1, axis=1)
    >>> random_walk_features(ring, length=2, normalize=False).toarray()[0]
    array([1., 1., 0., 0., 0.], dtype=float32)
    """
    check_sampling(num_walks, length, seed)
    num_walks, length = int(num_walks), int(length)
    check_walk([length], halt, discount)
    adjacency = as_adjacency(adjacency)
    random = np.random.default_rng(seed)
    nodes = adjacency.shape[0]
    columns = _anchor_columns(anchors, nodes, random)
    step = walker(adjacency)
    num_columns = nodes if columns is None else int(columns.max()) + 1
    block = max(1, BLOCK_VISITS // (num_walks * length))
    pieces = []
    for first in range(0, nodes, block):
        starts = np.arange(first, min(first + block, nodes))
        visits = walk_visits(step, starts, num_walks, length, halt, random)
        pieces.append(
            _sum_visits(
                visits, len(starts), num_walks, discount, columns, num_columns
            )
        )
    features = scipy.sparse.vstack(pieces, format="csr")
    if normalize:
        norms = np.sqrt(features.multiply(features).sum(axis=1))
        scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        features = scipy.sparse.diags_array(scale) @ features
    return scipy.sparse.csr_array(features, dtype="float32")


def check_sampling(
    num_walks: int, length: int, seed: int | Sequence[int]
) -> None:
    """Checks how many walks are drawn, and from which seed."""
    for name, value in (("num_walks", num_walks), ("length", length)):
        if value is None or not value >= 1 or value != int(value):
            raise ValueError(
                f"`{name}` expects a positive int. Received: {name}={value}"
            )
    seeds = seed if isinstance(seed, (list, tuple)) else [seed]
    if any(not isinstance(n, (int, np.integer)) or n < 0 for n in seeds):
        raise ValueError(
            "`seed` expects an int that is not negative. Received: "
            f"seed={seed!r}"
        )


def walker(
    adjacency: scipy.sparse.csr_array,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function that takes one random step from each of many nodes.

    Returns:
        `step(nodes, uniform)`: the next nodes, -1 where no edge leads on;
        `uniform` are random numbers from [0, 1), one per node.
    """
    indptr = adjacency.indptr.astype("int64")
    indices = adjacency.indices
    degrees = np.diff(indptr)
    # Node ids of a dead end read an edge that is then discarded.
    last_edge = max(len(indices) - 1, 0)
    if np.all(adjacency.data == adjacency.data[:1]):

        def choose(nodes, uniform):
            return indptr[nodes] + (uniform * degrees[nodes]).astype("int64")

    else:
        # Shares of a row, not weights: a running sum over all edges of a
        # heavy row would lose the small weights of the next ones.
        weights = adjacency.data.astype("float64")
        totals = adjacency.sum(axis=1, dtype="float64")
        rows = np.repeat(np.arange(len(degrees)), degrees)
        share = weights / totals[rows]
        bounds = np.cumsum(share) - share
        # Edge e of row r covers [r + before, r + before + share).
        start = bounds[np.minimum(indptr[:-1], last_edge)]
        bounds = rows + np.clip(bounds - start[rows], 0, 1 - 1e-12)

        def choose(nodes, uniform):
            edge = np.searchsorted(bounds, nodes + uniform, side="right") - 1
            return np.clip(edge, indptr[nodes], indptr[nodes + 1] - 1)

    def step(nodes, uniform):
        if not len(indices):
            return np.full_like(nodes, -1)
        edge = np.clip(choose(nodes, uniform), 0, last_edge)
        return np.where(degrees[nodes] > 0, indices[edge], -1)

    return step


def walk_visits(
    step: Callable[[np.ndarray, np.ndarray], np.ndarray],
    starts: np.ndarray,
    num_walks: int,
    length: int,
    halt: float,
    random: np.random.Generator,
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, step by step, the walks still under way and where they stand.

    Returns:
        Tuples of the step, the numbers of the walks (`num_walks` in a row from
        each start), the nodes that they started from, and their nodes.
    """
    walks = np.arange(len(starts) * num_walks)
    nodes = np.repeat(starts, num_walks)
    for k in range(length):
        if k:
            if halt:
                alive = random.random(len(walks)) >= halt
                walks, nodes = walks[alive], nodes[alive]
            nodes = step(nodes, random.random(len(nodes)))
            alive = nodes >= 0
            if not alive.all():
                walks, nodes = walks[alive], nodes[alive]
        yield k, walks, starts[walks // num_walks], nodes


def _sum_visits(visits, num_starts, num_walks, discount, columns, num_columns):
    """A sparse block of features, `(starts, columns)`."""
    rows, ids, weights = [], [], []
    for k, walks, _, nodes in visits:
        row = walks // num_walks
        column = nodes if columns is None else columns[nodes]
        if columns is not None:
            row, column = row[column >= 0], column[column >= 0]
        rows.append(row)
        ids.append(column)
        weights.append(np.full(len(row), discount**k / num_walks))
    coordinates = (np.concatenate(rows), np.concatenate(ids))
    return scipy.sparse.csr_array(
        (np.concatenate(weights), coordinates), shape=(num_starts, num_columns)
    )


def _anchor_columns(anchors, nodes, random):
    """The column of each node, -1 for those that are no anchors."""
    if anchors is None:
        return None
    if np.ndim(anchors) == 0:
        if not 1 <= anchors <= nodes or anchors != int(anchors):
            raise ValueError(
                f"`anchors` expects 1 to {nodes} nodes. Received: {anchors}"
            )
        anchors = np.sort(random.choice(nodes, int(anchors), replace=False))
    anchors = np.asarray(anchors)
    if (
        anchors.size == 0
        or anchors.dtype.kind not in "iu"
        or anchors.min() < 0
        or anchors.max() >= nodes
        or len(np.unique(anchors)) != len(anchors)
    ):
        raise ValueError(
            f"`anchors` expects different node ids from 0 to {nodes - 1}. "
            f"Received: {anchors}"
        )
    columns = np.full(nodes, -1)
    columns[anchors] = np.arange(len(anchors))
    return columns
