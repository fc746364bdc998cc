"""Graph kernels as dense matrices, exact: diffusion, random walks, PageRank."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency, GeneratorName
from keras_topo.host.adjacency import as_adjacency, check_symmetric
from keras_topo.host.diffusion_generator import GENERATORS

# Share of entries from which a dense product is the faster one.
DENSE = 0.05


def diffusion_kernel(
    adjacency: Adjacency,
    time: float | Sequence[float] | np.ndarray = 1.0,
    generator: GeneratorName = "laplacian",
) -> np.ndarray:
    """The graph diffusion kernel `exp(-time T)` (Kondor and Lafferty, 2002).

    `T` is the Laplacian `D - A`, the negated adjacency matrix `-A`, or the
    normalized Laplacian `I - D^-1/2 A D^-1/2`, in which nodes without edges
    have a row of zeros. For directed graphs, the degrees on the left count the
    edges that leave a node, and those on the right the edges that enter it.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        time: float, not negative, or a sequence of floats for several kernels.
        generator: `"laplacian"`, `"adjacency"` or `"normalized_laplacian"`.

    Returns:
        float64 array `(nodes, nodes)`, or `(times, nodes, nodes)`.

    Raises:
        ValueError: if `generator` is unknown, a time is negative or not
            finite, or the kernel overflows.

    *Complexity*: `O(nodes^3)`, one eigendecomposition for all times; for
    directed graphs one matrix exponential per time.

    Example:

    >>> diffusion_kernel([[0, 1], [1, 0]], time=0.5).round(3)
    array([[0.684, 0.316],
           [0.316, 0.684]])
    """
    times = np.asarray(time, "float64")
    if times.ndim > 1 or not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(
            "`time` expects a finite number that is not negative, or a "
            f"sequence of these. Received: time={time}"
        )
    rows = diffusion_rows(adjacency, np.atleast_1d(times), generator)
    kernels = rows(0, as_adjacency(adjacency).shape[0])
    return kernels if times.ndim else kernels[0]


def diffusion_rows(
    adjacency: Adjacency, times: np.ndarray, generator: GeneratorName
) -> Callable[[int, int], np.ndarray]:
    """Kernels of diffusion, some rows at a time.

    Args:
        adjacency, generator: as in `diffusion_kernel`.
        times: float64 array `(times,)`.

    Returns:
        A function from `start, stop` to these rows, `(times, stop - start,
        nodes)`, float64.
    """
    matrix = generator_matrix(adjacency, generator).toarray()
    # Rounding makes few normalized matrices symmetric to the last bit.
    if not np.allclose(
        matrix, matrix.T, rtol=0, atol=1e-12 * abs(matrix).max()
    ):
        with np.errstate(over="ignore", invalid="ignore"):
            kernels = scipy.linalg.expm(-times[:, None, None] * matrix)
        _check_no_overflow(kernels, times)
        return lambda start, stop: kernels[:, start:stop]
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    with np.errstate(over="ignore"):
        weights = np.exp(-times[:, None, None] * values)
    _check_no_overflow(weights, times)
    inside = _components(matrix)

    def rows(start, stop):
        kernels = (vectors[start:stop] * weights) @ vectors.T
        return _without_noise(kernels, inside[start:stop], inside)

    return rows


def _check_no_overflow(values, times):
    finite = np.isfinite(values).all(axis=(1, 2))
    if not finite.all():
        raise ValueError(
            "`time` expects kernels whose entries are floats: degrees are too "
            "large for it, unless generator='normalized_laplacian'. Received: "
            f"time={times[np.argmin(finite)]:g}"
        )


def pagerank_kernel(
    adjacency: Adjacency, halt: float | Sequence[float] | np.ndarray = 0.1
) -> np.ndarray:
    """Personalized PageRank as a symmetric kernel (Klicpera et al., 2019).

        M = halt (I - (1 - halt) S)^-1,     S = D^-1/2 (A + I) D^-1/2

    with `D` the degrees of `A + I`: up to the square roots of degrees, how
    often a walk from one node that halts with probability `halt` before each
    step ends at another.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, symmetric; or a
            `Graph`.
        halt: float in (0, 1], or a sequence of floats for several kernels;
            about one over how many steps the kernel reaches.

    Returns:
        float64 array `(nodes, nodes)`, or `(halts, nodes, nodes)`.

    Raises:
        ValueError: if `halt` is outside its range or `adjacency` is not
            symmetric.

    *Complexity*: `O(nodes^3)` per kernel.

    Example:

    >>> pagerank_kernel([[0, 1], [1, 0]], halt=0.5)
    array([[0.75, 0.25],
           [0.25, 0.75]])
    """
    halts = np.asarray(halt, "float64")
    if halts.ndim > 1 or not ((halts > 0) & (halts <= 1)).all():
        raise ValueError(
            "`halt` expects a number in (0, 1] or a sequence. Received: "
            f"halt={halt}"
        )
    adjacency = as_adjacency(adjacency, "float64")
    check_symmetric(adjacency)
    matrix = normalized_adjacency(adjacency).toarray()
    identity = np.eye(len(matrix))
    rest = 1 - halts[..., None, None]
    kernels = (1 - rest) * np.linalg.inv(identity - rest * matrix)
    inside = _components(matrix)
    return _without_noise(kernels, inside, inside)


def generator_matrix(
    adjacency: Adjacency, generator: GeneratorName
) -> scipy.sparse.csr_array:
    """The matrix `T` of a diffusion, a float64 CSR array."""
    if generator not in GENERATORS:
        raise ValueError(
            f"`generator` expects one of {GENERATORS}. Received: "
            f"generator={generator!r}"
        )
    adjacency = as_adjacency(adjacency).astype("float64")
    if generator == "adjacency":
        return -adjacency
    degrees = adjacency.sum(axis=1)
    if generator == "laplacian":
        laplacian = scipy.sparse.diags_array(degrees) - adjacency
        return scipy.sparse.csr_array(laplacian)
    # A node that edges only lead to has a degree as well, and its edges count.
    incoming = adjacency.sum(axis=0)
    some = scipy.sparse.diags_array(
        ((degrees > 0) | (incoming > 0)).astype("float64")
    )
    from_node, to_node = (
        scipy.sparse.diags_array(_inverse(np.sqrt(x)))
        for x in (degrees, incoming)
    )
    return scipy.sparse.csr_array(some - from_node @ adjacency @ to_node)


def random_walk_kernel(
    adjacency: Adjacency,
    length: int | None | Sequence[int | None] | np.ndarray = 4,
    halt: float = 0.0,
    discount: float = 1.0,
    normalize: bool = True,
) -> np.ndarray:
    """The random-walk graph-nodes kernel, in expectation.

    Choromanski et al. (2022): a walk from node `k` moves along
    edges in proportion to their weights, at most to `length` nodes, and halts
    before each step with probability `halt`, and where no edge leads on.
    `f_k(i)` is the expected sum of `discount^l` over the steps `l` at which
    the walk stands on `i` (`l = 0` is the start):

        F = sum_l (discount (1 - halt))^l P^l,     P = D^-1 A
        K(k, l) = <f_k, f_l>,   each f divided by its norm if `normalize`

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        length: int, nodes of a walk; or `None` for walks without a bound, for
            which `discount * (1 - halt)` must be less than 1; or a sequence
            of these, for several kernels.
        halt: float in [0, 1).
        discount: float, positive.
        normalize: bool, alpha = 1 rather than 0 in the paper.

    Returns:
        float64 array `(nodes, nodes)`, or `(lengths, nodes, nodes)`.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(length nodes^3)` at most, less while `P^l` is sparse.

    Example:

    >>> random_walk_kernel([[0, 1], [1, 0]], length=2, normalize=False)
    array([[2., 2.],
           [2., 2.]])
    """
    lengths, several = as_lengths(length)
    kernels = [
        _products_of_rows(features, normalize)
        for features in walk_sums(adjacency, lengths, halt, discount)
    ]
    return np.stack(kernels) if several else kernels[0]


def walk_expectations(
    adjacency: Adjacency,
    length: int | None | Sequence[int | None] | np.ndarray = 4,
    halt: float = 0.0,
    discount: float = 1.0,
) -> np.ndarray:
    """The matrix `F` of `random_walk_kernel`: expected visits of walks.

    With walks that halt and have no bound, `halt * F` is personalized PageRank,
    `halt (I - (1 - halt) P)^-1`; the factor does not matter to a mask.

    Args:
        adjacency, length, halt, discount: as in `random_walk_kernel`.

    Returns:
        float64 array `(nodes, nodes)`, or `(lengths, nodes, nodes)`: row `k` is
        of the walks that start at `k`.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(length nodes^3)` at most, less while `P^l` is sparse.

    Example:

    >>> visits = walk_expectations([[0, 1], [1, 0]], length=None, halt=0.5)
    >>> (0.5 * visits).round(3)  # personalized PageRank
    array([[0.667, 0.333],
           [0.333, 0.667]])
    """
    lengths, several = as_lengths(length)
    matrices = [
        f.toarray() if scipy.sparse.issparse(f) else f
        for f in walk_sums(adjacency, lengths, halt, discount)
    ]
    return np.stack(matrices) if several else matrices[0]


def as_lengths(length: Any) -> tuple[list[Any], bool]:
    """Lengths of walks as a list, and whether they are several."""
    several = isinstance(length, Sequence | np.ndarray)
    lengths = list(length) if several else [length]
    # Whole numbers of any type; others are refused by `check_walk`.
    whole = [x is not None and x == x // 1 for x in lengths]
    return [
        int(x) if is_whole else x
        for x, is_whole in zip(lengths, whole, strict=True)
    ], several


def walk_sums(
    adjacency: Adjacency,
    lengths: Iterable[int | None],
    halt: float,
    discount: float,
) -> list[Any]:
    """`F` for each length, as a CSR array while few entries are not zero."""
    lengths = list(lengths)
    decay = check_walk(lengths, halt, discount)
    transition = transition_matrix(adjacency)
    nodes = transition.shape[0]
    found = {}
    if None in lengths:
        matrix = np.eye(nodes) - decay * transition.toarray()
        found[None] = np.linalg.inv(matrix)
    bounded = [n for n in lengths if n is not None]
    power = total = scipy.sparse.eye_array(nodes, format="csr")
    for step in range(max(bounded, default=0)):
        if step:
            power = decay * (power @ transition)
            total = total + power
            if scipy.sparse.issparse(power) and power.nnz > DENSE * nodes**2:
                power, total = power.toarray(), total.toarray()
        if step + 1 in bounded:
            found[step + 1] = total
    return [found[n] for n in lengths]


def _products_of_rows(features, normalize):
    """`F F^T`, dense, of a dense or sparse `F`, its rows of norm 1 or not."""
    if normalize:
        features = normalize_rows(features)
    products = features @ features.T
    return products.toarray() if scipy.sparse.issparse(products) else products


def transition_matrix(adjacency: Adjacency) -> scipy.sparse.csr_array:
    """`P = D^-1 A`, a float64 CSR array; a node without edges has no row."""
    adjacency = as_adjacency(adjacency).astype("float64")
    scale = scipy.sparse.diags_array(_inverse(adjacency.sum(axis=1)))
    return scipy.sparse.csr_array(scale @ adjacency)


def _components(matrix):
    """The component of each node, `(nodes,)`."""
    return scipy.sparse.csgraph.connected_components(matrix != 0)[1]


def _without_noise(kernels, component, others):
    """Zeros between components, and for what rounding made negative.

    A mask hides an entry only if it is zero. Of these kernels none is less.
    """
    kernels = np.maximum(kernels, 0.0)
    if not others.any():  # A single one.
        return kernels
    return np.where(component[:, None] == others, kernels, 0.0)


def normalized_adjacency(
    adjacency: Adjacency, self_loops: bool = True
) -> scipy.sparse.csr_array:
    """`D^-1/2 (A + I) D^-1/2`, the kernel of graph convolutions (GCN).

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        self_loops: bool; `False` leaves `I` out.

    Returns:
        float64 CSR array `(nodes, nodes)`.

    Example:

    >>> path = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    >>> normalized_adjacency(path).toarray().round(2)
    array([[0.5 , 0.41, 0.  ],
           [0.41, 0.33, 0.41],
           [0.  , 0.41, 0.5 ]])
    """
    adjacency = as_adjacency(adjacency).astype("float64")
    if self_loops:
        adjacency = adjacency + scipy.sparse.eye_array(adjacency.shape[0])
    scale = scipy.sparse.diags_array(_inverse(np.sqrt(adjacency.sum(axis=1))))
    return scipy.sparse.csr_array(scale @ adjacency @ scale)


def return_probabilities(adjacency: Adjacency, steps: int) -> np.ndarray:
    """Probabilities that a walk stands where it began, after 1 to `steps`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        steps: int.

    Returns:
        float32 array `(nodes, steps)`: the diagonals of `P, P^2, ...`.

    Example:

    >>> return_probabilities([[0, 1, 0], [1, 0, 1], [0, 1, 0]], steps=4)
    array([[0. , 0.5, 0. , 0.5],
           [0. , 1. , 0. , 1. ],
           [0. , 0.5, 0. , 0.5]], dtype=float32)
    """
    transition = transition_matrix(adjacency)
    nodes = transition.shape[0]
    if nodes <= 512:
        transition = transition.toarray()
    # diag(P^(a + b)) needs P^a and P^b only: half of the products.
    powers = [transition]
    while 2 * len(powers) < steps:
        powers.append(powers[-1] @ transition)
    columns = []
    for step in range(1, steps + 1):
        if step <= len(powers):
            columns.append(powers[step - 1].diagonal())
        else:
            a, b = powers[-1], powers[step - len(powers) - 1]
            columns.append(np.asarray((a * b.T).sum(axis=1)).ravel())
    if not columns:
        return np.zeros((nodes, 0), "float32")
    return np.stack(columns, axis=1).astype("float32")


def keep_largest(kernels: ArrayLike, count: int) -> dict[str, Any]:
    """The largest entries of each row, as pairs for a fixed kernel.

    Args:
        kernels: `(nodes, nodes)`, or `(kernels, nodes, nodes)`, whose largest
            entries are those of their maximum.
        count: int, entries of a row at most; zeros are never kept.

    Returns:
        A dict with `pairs` `(pairs, 2)`, in row order, `pair_values`
        `(pairs,)` or `(kernels, pairs)`, float32, and `num_nodes`, int: what
        `GraphKernelAttention` takes as `graph_kernel`.

    Example:

    >>> kernel = diffusion_kernel([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> keep_largest(kernel, count=1)["pairs"].tolist()
    [[0, 0], [1, 1], [2, 2]]
    """
    kernels = np.asarray(kernels)
    largest = kernels if kernels.ndim == 2 else kernels.max(axis=0)
    nodes = largest.shape[0]
    count = min(count, nodes)
    columns = np.argpartition(-largest, count - 1, axis=1)[:, :count]
    columns = np.sort(columns, axis=1)
    rows = np.repeat(np.arange(nodes), count)
    columns = columns.ravel()
    kept = largest[rows, columns] > 0
    rows, columns = rows[kept], columns[kept]
    return {
        "pairs": np.stack([rows, columns], axis=1),
        "pair_values": kernels[..., rows, columns].astype("float32"),
        "num_nodes": nodes,
    }


def normalize_rows(features: Any) -> Any:
    """Each row of an array, dense or CSR, divided by its Euclidean norm."""
    if scipy.sparse.issparse(features):
        norms = np.sqrt(features.power(2).sum(axis=1))
        scaled = scipy.sparse.diags_array(_inverse(norms)) @ features
        return scipy.sparse.csr_array(scaled)
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(norms == 0, 1.0, norms)


def check_walk(
    lengths: Iterable[float | None], halt: float, discount: float
) -> float:
    """Checks the parameters of a walk; returns what a step is discounted by."""
    for length in lengths:
        if length is not None and not (length >= 1 and length == length // 1):
            raise ValueError(
                "`length` expects a positive int, the nodes of a walk, or "
                f"None. Received: length={length}"
            )
    if not 0 <= halt < 1:
        raise ValueError(
            "`halt` expects a probability from 0 to below 1. Received: "
            f"halt={halt}"
        )
    if not 0 < discount < np.inf:
        raise ValueError(
            "`discount` expects a positive number. Received: "
            f"discount={discount}"
        )
    decay = discount * (1 - halt)
    if None in lengths and decay >= 1:
        raise ValueError(
            "`length=None` expects discount * (1 - halt) below 1, or the sum "
            f"over steps is infinite. Received: discount={discount}, "
            f"halt={halt}"
        )
    return decay


def _inverse(x):
    """`1 / x`, and 0 where `x` is 0."""
    return np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)
