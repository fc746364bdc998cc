"""Masks known in closed form: hypercubes, products of graphs, tori.

Diffusion on a Cartesian product of graphs is diffusion along each of them, so
kernels `exp(-time T)` of products are Kronecker products of kernels (Kondor
and Lafferty, 2002). Nothing here is approximate, and gradients reach every
parameter.
"""

import operator
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_topo.annotations import GeneratorName, TensorLike
from keras_topo.host.diffusion_generator import GENERATORS
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.dense import Dense
from keras_topo.operators.diffusion import MOST_GROWTH
from keras_topo.operators.kronecker import Kronecker, kronecker_product
from keras_topo.operators.parameters import (
    accumulation_dtype,
    as_tensor,
    known_value,
)
from keras_topo.operators.toeplitz import check_grid_shape
from keras_topo.operators.torus import Torus

# Dimensions of the cube in one factor: a product with a 16 x 16 matrix takes
# about as long as its input takes to pass through memory.
BLOCK_DIMENSIONS = 4


def hypercube(decay: TensorLike, dimensions: int) -> Kronecker:
    """The mask `M[i, j] = decay^h` on a hypercube, `h` the Hamming distance.

    Token `i` is the corner whose coordinates are the binary digits of `i`: the
    mask of sets of yes-or-no attributes. With `decay = tanh(time)` it is the
    diffusion kernel of the hypercube up to a constant, which attention does not
    see; `hypercube_diffusion` has the constant.

    *Complexity*: a `Kronecker` product of blocks of up to four dimensions:
    `4 dimensions L` multiply-adds per column for `L = 2^dimensions` tokens.

    Args:
        decay: `(*batch,)`, in `[0, 1]` for masks that decay; any number is
            computed.
        dimensions: int, at least 0.

    Returns:
        `Kronecker` of shape `(*batch, 2^dimensions, 2^dimensions)`.

    Raises:
        ValueError: if `dimensions` is not an int of at least 0.

    Example:

    >>> print(np.array(hypercube(0.5, 2).to_dense()))
    [[1.   0.5  0.5  0.25]
     [0.5  1.   0.25 0.5 ]
     [0.5  0.25 1.   0.5 ]
     [0.25 0.5  0.5  1.  ]]
    """
    decay = as_tensor(decay, "decay", 0)
    return _cube(ops.ones_like(decay), decay, dimensions)


def hypercube_diffusion(
    time: TensorLike, dimensions: int, generator: GeneratorName = "laplacian"
) -> Kronecker:
    """The diffusion kernel `exp(-time T)` of a hypercube.

    At the Hamming distance `h` on the cube of `m` dimensions

    - `"adjacency"`: `cosh(time)^m tanh(time)^h`;
    - `"laplacian"`: `((1 + exp(-2 time)) / 2)^m tanh(time)^h`;
    - `"normalized_laplacian"`: the same for `time / m`.

    *Complexity*: that of `hypercube`.

    Args:
        time: `(*batch,)`, not negative.
        dimensions: int `m`, at least 0.
        generator: as in `GraphDiffusion`.

    Returns:
        `Kronecker` of shape `(*batch, 2^m, 2^m)`, in float32 at least.

    Raises:
        ValueError: if an argument is not as expected, or `time` is known to be
            negative or to leave the range of float32.

    Example:

    >>> print(np.array(hypercube_diffusion(0.5, 1).to_dense()).round(3))
    [[0.684 0.316]
     [0.316 0.684]]
    """
    dimensions = _check_dimensions(dimensions)
    time = _check_time(time, generator, degree=dimensions)
    if generator == "normalized_laplacian":
        time = time / max(dimensions, 1)
    return _cube(*_edge(time, generator), dimensions)


def cartesian_product(
    operators: Sequence[MaskOperator | TensorLike],
) -> Kronecker:
    """The mask of a Cartesian product of graphs, from masks of the graphs.

    A token is a tuple of nodes, one of each graph, in row-major order, and the
    mask is the product of the masks: a `Kronecker` product. For diffusion
    kernels that is the kernel of the Cartesian product, in which an edge
    changes one node of the tuple, exactly, with the generators `"laplacian"`
    and `"adjacency"`: a grid from paths, a torus from rings, a video from a
    graph of joints and a path of frames. With `"normalized_laplacian"` it is
    not, except for regular graphs of degree `d_k` at the times `time d_k /
    (d_1 + d_2 + ...)`.

    *Complexity*: that of `Kronecker`.

    Args:
        operators: non-empty list of operators or square matrices, first graph
            first.

    Returns:
        `Kronecker`.

    Raises:
        ValueError: if the list is empty, or a matrix is not square.

    Example:

    >>> from keras_topo.operators import ExponentialDecay, GraphDiffusion
    >>> frames = ExponentialDecay(0.5, length=8)
    >>> joints = GraphDiffusion([[0, 1, 0], [1, 0, 1], [0, 1, 0]], time=0.5)
    >>> cartesian_product([frames, joints]).shape  # tokens: (frame, joint)
    (24, 24)
    """
    if not operators:
        raise ValueError(
            "`operators` expects a non-empty list of operators or square "
            f"matrices. Received: operators={operators!r}"
        )
    return Kronecker(operators)


def torus_diffusion(
    time: TensorLike,
    grid_shape: Sequence[int],
    generator: GeneratorName = "laplacian",
) -> Torus | Kronecker:
    """The diffusion kernel `exp(-time T)` of a torus.

    A torus is the Cartesian product of rings, and the kernel of a ring of `n`
    nodes is the circulant of the inverse FFT of `exp(-time (2 - 2 cos(2 pi k /
    n)))`, which is exact to rounding at any time. Edges have weight one; a ring
    of two nodes has one edge, and a ring of one node has none.

    *Complexity*: a `Kronecker` product of `Torus` masks of the axes, each by
    its matrix or an FFT.

    Args:
        time: `(*batch,)`, not negative.
        grid_shape: ints `(n_1, ..., n_d)`.
        generator: as in `GraphDiffusion`.

    Returns:
        Operator of shape `(*batch, L, L)`, in float32 at least: `Torus` for
        a ring, `Kronecker` otherwise.

    Raises:
        ValueError: if an argument is not as expected, or `time` is known to be
            negative or to leave the range of float32.

    Example:

    >>> print(np.array(torus_diffusion(0.5, (4,)).to_dense()[0]).round(4))
    [0.4678 0.2162 0.0999 0.2162]
    """
    grid_shape = check_grid_shape(grid_shape)
    degree = sum(min(n - 1, 2) for n in grid_shape)
    time = _check_time(time, generator, degree)
    if generator == "normalized_laplacian":
        time = time / max(degree, 1)
    rings = [Torus(_ring(time, n, generator), (n,)) for n in grid_shape]
    return rings[0] if len(rings) == 1 else cartesian_product(rings)


def _check_dimensions(dimensions):
    try:
        checked = operator.index(dimensions)
    except TypeError:
        checked = -1
    if checked < 0:
        raise ValueError(
            "`dimensions` expects an int of at least 0. Received: "
            f"dimensions={dimensions!r}"
        )
    return checked


def _check_time(time, generator, degree):
    """`time` as a tensor in float32 at least; `degree` is that of the nodes,
    the largest eigenvalue of the adjacency matrix."""
    if generator not in GENERATORS:
        raise ValueError(
            f"`generator` expects one of {GENERATORS}. Received: "
            f"generator={generator!r}"
        )
    known = known_value(time)
    if known is not None:
        if not (np.isfinite(known) & (known >= 0)).all():
            raise ValueError(
                "`time` expects finite numbers that are not negative. "
                f"Received: time={known}"
            )
        largest = float(known.max(initial=0))
        if generator == "adjacency" and largest * degree > MOST_GROWTH:
            raise ValueError(
                f"`time` expects at most {MOST_GROWTH / degree:g} on this "
                "graph: exp(time A) leaves the range of float32. Received: "
                f"time={known}"
            )
    time = as_tensor(time, "time", 0)
    return ops.cast(time, accumulation_dtype(time.dtype))


def _edge(time, generator):
    """The kernel of a single edge: its entries on the diagonal and beside."""
    if generator == "adjacency":
        # Not ops.cosh and ops.sinh, which know no float64 on JAX.
        other = (ops.expm1(time) - ops.expm1(-time)) / 2
        return ops.exp(-time) + other, other
    other = -ops.expm1(-2 * time) / 2
    return 1 - other, other


def _cube(same, other, dimensions):
    """The Kronecker product of `dimensions` times `[[same, other], [other,
    same]]`, in blocks of about equal size."""
    dimensions = _check_dimensions(dimensions)
    row = ops.stack([same, other], axis=-1)
    edge = ops.stack([row, ops.flip(row, -1)], axis=-2)
    corner = ops.ones_like(row[..., None, :1])
    count = max(1, -(-dimensions // BLOCK_DIMENSIONS))
    factors = []
    for k in range(count):
        block = corner
        for _ in range((dimensions + k) // count):
            block = kronecker_product(block, edge)
        factors.append(Dense(block))
    return Kronecker(factors)


def _ring(time, length, generator):
    """First column of the kernel of a ring, `(*batch, length)`."""
    time = ops.expand_dims(time, -1)
    if length < 3:
        if length == 1:
            return ops.ones_like(time)
        return ops.concatenate(_edge(time, generator), axis=-1)
    angles = 2 * np.pi / length * np.arange(length // 2 + 1)
    values = 2 * np.cos(angles)
    if generator != "adjacency":
        # More accurate than 2 - 2 cos(angle) near zero.
        values = -4 * np.sin(angles / 2) ** 2
    values = ops.cast(ops.convert_to_tensor(values), time.dtype)
    spectrum = ops.exp(time * values)
    return ops.irfft((spectrum, ops.zeros_like(spectrum)), length)
