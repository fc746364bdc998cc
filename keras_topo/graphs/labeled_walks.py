"""Kernels of labeled walks: products of a graph with itself, by labels."""

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import as_lengths, check_walk, transition_matrix

# Degrees from each of these on are in one more bin.
DEGREE_BINS = tuple(2**k for k in range(31))


def labeled_walk_kernel(
    adjacency: Adjacency,
    labels: ArrayLike,
    length: int | Sequence[int] | np.ndarray = 4,
    normalize: bool = True,
) -> np.ndarray:
    """How likely walks from two nodes see the same labels, one by one.

    Two random walks start at nodes `i` and `j`, and move along edges in
    proportion to their weights; where no edge leads on, a walk stays. With `P`
    the matrix of their steps,

        K_1(i, j) = 1 if labels[i] == labels[j] else 0
        K_(n+1)   = K_1 (.) (P K_n P^T)

    is the probability that the labels on both walks of `n` nodes are equal,
    node by node: a walk on the product of the graph with itself, of which
    pairs of nodes of one label are the nodes (Gaertner et al., 2003; Kashima
    et al., 2003). It is positive semi-definite. If `normalize`, entries are
    divided by the square roots of those on the diagonal, as in
    `random_walk_kernel`: nodes are alike by 1 if all walks from them are.
    Unlike kernels of walks that meet, it does not fall with distance.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        labels: `(nodes,)`, ints or strings.
        length: int, nodes of a walk; or a sequence of these, for several
            kernels.
        normalize: bool.

    Returns:
        float64 array `(nodes, nodes)`, or `(lengths, nodes, nodes)`; zero
        exactly where no pair of walks has equal labels.

    Raises:
        ValueError: if an argument is outside its range, or there is not one
            label per node.

    *Complexity*: `O(length nodes edges)` time and `O(nodes^2)` memory.

    Example:

    >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    >>> labeled_walk_kernel(path, ["C", "C", "O"], length=2).round(3)
    array([[1.   , 0.707, 0.   ],
           [0.707, 1.   , 0.   ],
           [0.   , 0.   , 1.   ]])
    """
    lengths, several = as_lengths(length)
    kernels = labeled_walk_kernels(adjacency, labels, lengths, normalize)
    return np.stack(kernels) if several else kernels[0]


def labeled_walk_kernels(
    adjacency: Adjacency,
    labels: ArrayLike,
    lengths: Iterable[int],
    normalize: bool = True,
    dtype: str = "float64",
) -> list[np.ndarray]:
    """A list of the kernels of `labeled_walk_kernel`, one for each length."""
    lengths = list(lengths)
    if None in lengths:
        raise ValueError(
            "`length` expects walks with a bound. Received: length=None"
        )
    check_walk(lengths, 0.0, 1.0)
    steps = walks_that_stay(adjacency)
    labels = np.asarray(labels)
    if labels.shape != (steps.shape[0],):
        raise ValueError(
            f"`labels` expects one for each of the {steps.shape[0]} nodes. "
            f"Received: labels of shape {labels.shape}"
        )
    equal = labels[:, None] == labels
    kernel, found = equal.astype("float64"), {}
    for nodes in range(1, max(lengths) + 1):
        if nodes > 1:
            # `P K P^T`, of a symmetric kernel.
            kernel = steps @ np.ascontiguousarray((steps @ kernel).T)
            kernel *= equal
        if nodes in lengths:
            found[nodes] = _normalized(kernel, normalize).astype(dtype)
    return [found[n] for n in lengths]


def walks_that_stay(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """`D^-1 A`, and 1 on the diagonal of nodes without an edge that leads on;
    a float64 CSR array."""
    steps = transition_matrix(adjacency)
    ends = np.diff(steps.indptr) == 0
    return scipy.sparse.csr_array(
        steps + scipy.sparse.diags_array(ends.astype("float64"))
    )


def degree_bins(adjacency: scipy.sparse.csr_array) -> np.ndarray:
    """The bin of the degree of each node, for graphs without labels.

    Bins are 0, 1, 2 to 3, 4 to 7, and so on: equal degrees are rare among
    large ones.

    Args:
        adjacency: `(nodes, nodes)`, scipy CSR array.

    Returns:
        `(nodes,)`, int64. Of directed graphs, by the edges that leave a node.
    """
    degrees = np.diff(adjacency.indptr)
    return np.searchsorted(DEGREE_BINS, degrees, side="right")


def _normalized(kernel, normalize):
    if not normalize:
        return kernel
    # The diagonal is positive: two walks may be the same one.
    scale = 1 / np.sqrt(kernel.diagonal())
    return kernel * scale[:, None] * scale
