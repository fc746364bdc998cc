"""Kernels of low rank, as factors: walks that meet at a few anchors."""

from collections.abc import Sequence

import numpy as np

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import (
    as_lengths,
    check_walk,
    normalize_rows,
    transition_matrix,
)
from keras_topo.graphs.largest import count_kernels, kinds_of
from keras_topo.host.adjacency import as_adjacency

# Of these kernels there are factors.
FACTORED = ("random_walk", "ones")


def anchored_walk_factors(
    adjacency: Adjacency,
    length: int | Sequence[float] | np.ndarray = 4,
    anchors: int = 8,
) -> np.ndarray:
    """Factors of a random-walk kernel that tells only a few nodes apart.

    Anchors are the nodes with the most edges (the first among equals); all
    other nodes count as one place. With `f_k(i)` the expected visits of a walk
    from `k` to `i`, as in `random_walk_kernel`, a row of the factors is

        (f_k(a_1), ..., f_k(a_r), sum of f_k(i) over all other i)

    divided by its norm. `F F^T` is a kernel of rank `anchors + 1`: two nodes
    see each other as far as walks from them meet at the same hubs. No row is
    zero. Of a graph that has no more nodes than anchors it is
    `random_walk_kernel`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        length: int, nodes of a walk; or a sequence of these.
        anchors: int.

    Returns:
        float64 array `(nodes, anchors + 1)`, or `(lengths, nodes, anchors +
        1)`; columns of zeros where there are fewer nodes.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(length edges anchors)`.

    Example:

    >>> star = [[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    >>> anchored_walk_factors(star, length=2, anchors=1).round(3)
    array([[0.707, 0.707],
           [0.707, 0.707],
           [0.707, 0.707],
           [0.707, 0.707]])
    """
    lengths, several = as_lengths(length)
    if None in lengths or anchors != int(anchors) or anchors < 1:
        raise ValueError(
            "`length` and `anchors` expect positive ints. Received: "
            f"length={length}, anchors={anchors}"
        )
    check_walk(lengths, 0.0, 1.0)
    transition = transition_matrix(adjacency)
    nodes, anchors = transition.shape[0], int(anchors)
    degrees = np.diff(as_adjacency(adjacency).indptr)
    chosen = np.argsort(-degrees, kind="stable")[:anchors]
    visits = np.zeros((nodes, anchors + 1))
    visits[:, -1] = 1.0
    visits[chosen] = 0.0
    visits[chosen, np.arange(len(chosen))] = 1.0
    total, found = visits, {1: visits}
    for n in range(2, int(max(lengths)) + 1):
        visits = transition @ visits
        total = total + visits
        found[n] = total
    factors = [normalize_rows(found[int(n)]) for n in lengths]
    return np.stack(factors) if several else factors[0]


def kernel_factors(
    adjacency: Adjacency,
    kind: str,
    sizes: Sequence[float] = (1.0,),
    anchors: int = 8,
) -> np.ndarray:
    """Kernels of a graph as factors `F`, `M = F F^T`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        kind: `"random_walk"`, of anchors alone (see `anchored_walk_factors`),
            `"ones"`, or both joined by `"+"`.
        sizes: nodes of the walks, one kernel each.
        anchors: int.

    Returns:
        float32 array `(kernels, nodes, rank)`; see `count_columns`.

    Raises:
        ValueError: for a kernel of which there are no factors.

    Example:

    >>> star = [[0, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    >>> kernel_factors(star, "random_walk+ones", sizes=[2, 3], anchors=1).shape
    (3, 4, 2)
    """
    nodes = as_adjacency(adjacency).shape[0]
    rank = count_columns(kind, anchors)
    found = np.zeros((count_kernels(kind, sizes), nodes, rank), "float32")
    place = 0
    for each in kinds_of(kind):
        if each == "ones":
            found[place, :, 0] = 1.0
            place += 1
        else:
            factors = anchored_walk_factors(adjacency, list(sizes), anchors)
            found[place : place + len(sizes)] = factors
            place += len(sizes)
    return found


def count_columns(kind: str, anchors: int) -> int:
    """The rank of the factors of kernels.

    Raises:
        ValueError: for a kernel of which there are no factors.
    """
    kinds = kinds_of(kind)
    if not set(kinds) <= set(FACTORED):
        raise ValueError(
            f"`kernel` expects one of {FACTORED}, or both joined by '+', in "
            f"the form of factors. Received: kernel={kind!r}"
        )
    return 1 if kinds == ["ones"] else anchors + 1
