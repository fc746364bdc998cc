"""Graph random features: functions of a matrix from weighted random walks."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency
from keras_topo.graphs.kernels import check_walk
from keras_topo.graphs.walks import check_sampling, walk_visits, walker
from keras_topo.host.adjacency import as_adjacency

# Visits that are sorted at once, some 60 bytes each.
BLOCK_VISITS = 2**22


@dataclasses.dataclass(frozen=True, eq=False)
class GraphRandomFeatures:
    """Sparse estimates of the powers of a matrix `W`, on common entries.

    Attributes:
        num_nodes: int.
        pairs: `(entries, 2)`, int32: the node that walks start from and one
            that they visit; sorted.
        values: `(length, entries)`, float32: the mean of `values[l]`, as a
            matrix, over seeds is `W^l`.
        num_walks: int, walks from each node.

    Example:

    >>> path = np.eye(3, k=1) + np.eye(3, k=-1)
    >>> features = keras_topo.graphs.graph_random_features(path, num_walks=100)
    >>> features.num_nodes, features.values.shape[0], features.pairs.shape[1]
    (3, 4, 2)
    """

    num_nodes: int
    pairs: np.ndarray
    values: np.ndarray
    num_walks: int

    @property
    def capacity(self) -> int:
        """Entries that suffice for a sample from any other seed.

        See `sample_capacity`; what shapes that are compiled or saved once have
        to hold, where walks are drawn again.
        """
        return sample_capacity(
            self.num_nodes, len(self.pairs), self.num_walks, len(self.values)
        )

    def padded(self, capacity: int) -> Self:
        """The same features with `capacity` entries.

        Those that are added have the value 0 and stand at the last pair of
        nodes, which keeps the pairs sorted.

        Args:
            capacity: int.

        Raises:
            ValueError: if there are more entries than that.
        """
        missing = capacity - len(self.pairs)
        if missing < 0:
            raise ValueError(
                f"`capacity` expects at least {len(self.pairs)} entries. "
                f"Received: capacity={capacity}"
            )
        padding = ((0, missing), (0, 0))
        return dataclasses.replace(
            self,
            pairs=np.pad(
                self.pairs, padding, constant_values=self.num_nodes - 1
            ),
            values=np.pad(self.values, padding[::-1]),
        )

    def matrix(self, modulation: ArrayLike) -> scipy.sparse.csr_array:
        """`sum_l f_l W^l`, estimated: a CSR array `(nodes, nodes)`.

        Args:
            modulation: `(length,)`, `f`.

        Raises:
            ValueError: if `modulation` has another shape.
        """
        modulation = np.asarray(modulation, "float32")
        if modulation.shape != (len(self.values),):
            raise ValueError(
                f"`modulation` expects {len(self.values)} numbers, one for "
                "each node of a walk. Received: modulation of shape "
                f"{modulation.shape}"
            )
        return scipy.sparse.csr_array(
            (modulation @ self.values, tuple(self.pairs.T)),
            shape=(self.num_nodes, self.num_nodes),
        )


def graph_random_features(
    adjacency: Adjacency,
    num_walks: int = 16,
    length: int = 4,
    halt: float = 0.0,
    normalize: bool = True,
    seed: int | Sequence[int] = 0,
) -> GraphRandomFeatures:
    """Walks from every node, weighted to estimate powers of the adjacency.

    With `W = D^-1/2 A D^-1/2`, a walk that took the edges `e_1 ... e_l` counts
    at its node `l` with the product of `W` over these edges, divided by the
    probability that a walk takes them. The mean over walks is `F_l`, whose
    expectation is `W^l` (Reid et al., 2025). A mask

        M = sum_k alpha_k W^k    with    alpha = f * f (convolved)

    is `(sum_l f_l W^l)^2`, which `F F^T` with `F = sum_l f_l F_l` estimates in
    linear time: `SparseFactors`. Walks from different nodes are independent, so
    that the estimate is unbiased off the diagonal; on it,

        E[(F F^T)_ii] = M_ii + sum_k Var(F_ik),

    an excess that falls as `1 / num_walks`. The product of two independent
    samples, `F G^T` from two seeds, is unbiased throughout, but neither
    symmetric nor positive semi-definite.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, not negative; or a
            `Graph`. A step takes an edge with a probability in proportion to
            its weight. If it is not symmetric, `D` holds the sums of rows, `W`
            is zero at nodes that no edge leaves, and `F F^T` estimates the
            product of `sum_l f_l W^l` with its transpose.
        num_walks: int, walks from each node.
        length: int, nodes of a walk, the first included.
        halt: float in [0, 1), probability to stop before each step: fewer
            visits far away, each of which counts for more.
        normalize: bool; `W = A` without.
        seed: int; the same seed gives the same walks.

    Returns:
        A `GraphRandomFeatures`.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(nodes num_walks length)` time, and a sort of the visits of
    a block of nodes; memory that of the result and of a block.

    Example:

    >>> path = np.eye(3, k=1) + np.eye(3, k=-1)
    >>> features = graph_random_features(path, num_walks=10000, length=2)
    >>> features.matrix([0.0, 1.0]).toarray().round(1)
    array([[0. , 0.7, 0. ],
           [0.7, 0. , 0.7],
           [0. , 0.7, 0. ]], dtype=float32)
    """
    check_sampling(num_walks, length, seed)
    check_walk([length], halt, 1.0)
    length, num_walks = int(length), int(num_walks)
    adjacency = as_adjacency(adjacency)
    degrees = adjacency.sum(axis=1, dtype="float64")
    step = walker(adjacency)
    random = np.random.default_rng(seed)
    nodes = adjacency.shape[0]
    block = max(1, BLOCK_VISITS // (num_walks * length))
    pairs, values = [], []
    for first in range(0, nodes, block):
        starts = np.arange(first, min(first + block, nodes))
        visits = walk_visits(step, starts, num_walks, length, halt, random)
        weighted = _weights(visits, degrees, num_walks, halt, normalize)
        found = _sum_visits(weighted, length, nodes)
        pairs.append(found[0] + np.array([first, 0], "int32"))
        values.append(found[1])
    return GraphRandomFeatures(
        nodes,
        np.concatenate(pairs),
        np.concatenate(values, axis=1),
        num_walks,
    )


def sample_capacity(
    num_nodes: int, entries: int, num_walks: int, length: int
) -> int:
    """Entries that suffice for any other sample of the same walks.

    A node has from 1 to `b = num_walks (length - 1) + 1` entries, independently
    of others. By Hoeffding's inequality a second sample has `t` entries more
    than the first with a chance below `exp(-t^2 / (nodes b^2))`: with `t = 6 b
    sqrt(nodes)`, in one of `e^36` cases, less than 1e-15.

    Args:
        num_nodes, num_walks, length: ints.
        entries: int, those of one sample.

    Returns:
        int.
    """
    most = num_walks * (length - 1) + 1
    slack = 6 * most * math.sqrt(num_nodes)
    return int(min(num_nodes * most, entries + slack))


def modulation(coefficients: ArrayLike) -> np.ndarray:
    """`f` with `f * f = alpha`: how to weigh walks for `sum_k alpha_k W^k`.

    Args:
        coefficients: `(length,)`, `alpha`, the first of them positive.

    Returns:
        `(length,)`, float64.

    Raises:
        ValueError: if the first coefficient is not positive, or one is not
            finite.

    *Complexity*: `O(length^2)`.

    Example:

    >>> modulation([1.0, 2.0, 1.0])
    array([1., 1., 0.])
    """
    alpha = np.asarray(coefficients, "float64")
    if (
        alpha.ndim != 1
        or not len(alpha)
        or not alpha[0] > 0
        or not np.isfinite(alpha).all()
    ):
        raise ValueError(
            "`coefficients` expects a vector of finite numbers, the first of "
            f"them positive. Received: coefficients={coefficients!r:.80}"
        )
    f = np.zeros_like(alpha)
    f[0] = math.sqrt(alpha[0])
    for k in range(1, len(alpha)):
        known = np.dot(f[1:k], f[k - 1 : 0 : -1])
        f[k] = (alpha[k] - known) / (2 * f[0])
    return f


def diffusion_modulation(time: float, length: int) -> np.ndarray:
    """`f` of the diffusion kernel `exp(time W)`: `(time / 2)^k / k!`.

    With the normalized Laplacian, `exp(-time (1 - W))` is `e^-time` times it.

    Args:
        time: float.
        length: int.

    Returns:
        `(length,)`, float64.

    Raises:
        ValueError: if `time` is not finite or `length` no positive int.

    Example:

    >>> diffusion_modulation(2.0, 4)
    array([1.        , 1.        , 0.5       , 0.16666667])
    """
    if not np.isfinite(time):
        raise ValueError(
            f"`time` expects a finite number. Received: time={time}"
        )
    if not length >= 1 or length != int(length):
        raise ValueError(
            f"`length` expects a positive int. Received: length={length}"
        )
    # Term by term: the factorials themselves overflow from 171 on.
    ratios = np.append(1.0, time / 2 / np.arange(1, int(length)))
    return np.cumprod(ratios)


def _weights(visits, degrees, num_walks, halt, normalize):
    """Yields starts (from 0), nodes and weights of the visits of each step."""
    # Of a walk from r: prod(W) / prod(P), P = A / d and W = A / sqrt(d d'),
    # is sqrt(d_r / d_node); with W = A it is the product of the degrees.
    product = before = None
    for k, walks, origins, nodes in visits:
        if normalize:
            with np.errstate(divide="ignore", invalid="ignore"):
                weight = np.sqrt(degrees[origins] / degrees[nodes])
            # The start counts fully even without edges; W has no entries at
            # a node that no edge leaves, which walks along directed edges
            # may reach.
            weight[degrees[nodes] == 0] = float(k == 0)
        else:
            if product is None or before is None:
                product, before = np.ones(len(walks)), nodes.copy()
            else:
                product[walks] *= degrees[before[walks]]
                before[walks] = nodes
            weight = product[walks]
        weight = weight / ((1 - halt) ** k * num_walks)
        yield k, walks // num_walks, nodes, weight


def _sum_visits(visits, length, num_nodes):
    """Entries of a block and their values, `(length, entries)`."""
    keys, steps, weights = [], [], []
    for k, rows, nodes, weight in visits:
        keys.append(rows.astype("int64") * num_nodes + nodes)
        steps.append(np.full(len(rows), k))
        weights.append(weight)
    entries, place = np.unique(np.concatenate(keys), return_inverse=True)
    flat = np.concatenate(steps) * len(entries) + place
    values = np.bincount(
        flat, np.concatenate(weights), minlength=length * len(entries)
    )
    pairs = np.stack(np.divmod(entries, num_nodes), axis=1)
    return (
        pairs.astype("int32"),
        values.reshape(length, len(entries)).astype("float32"),
    )
