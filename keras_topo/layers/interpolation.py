"""Position embeddings on one grid, read on another, whose sizes may be traced.

One matrix per axis: published models resample theirs axis by axis too. Each
maker of a matrix is written once for NumPy, where sizes are known, and for
`keras.ops`, where they are not.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.masks.resampling import resample_positions

Interpolation: TypeAlias = Literal[
    "linear", "bicubic", "corners", "cubic", "cubic_antialias", "cubic_table"
]


def resample_grid(
    values: Tensor,
    old_grid: tuple[int, ...],
    new_grid: tuple[Any, ...],
    interpolation: Interpolation = "linear",
) -> Tensor:
    """Resamples `(*old_grid, channels)` to `(*new_grid, channels)`.

    Args:
        values: tensor.
        old_grid: tuple of ints.
        new_grid: tuple of ints or of traced sizes.
        interpolation: a name of `INTERPOLATIONS`.
    """
    if interpolation == "linear":
        return resample_positions(values, old_grid, new_grid, first_axis=0)
    make = _MATRICES[interpolation]
    for axis, (old, new) in enumerate(zip(old_grid, new_grid, strict=True)):
        if isinstance(new, int):
            if old == new:
                continue
            matrix = make(np, np.arange(new, dtype="float64"), old, new)
        else:
            # Places on a grid need more digits than 16 bits have.
            dtype = keras.backend.result_type(values.dtype, "float32")
            cells = ops.cast(ops.arange(new), dtype)
            size = ops.cast(new, dtype)
            matrix = make(ops, cells, old, size)
        matrix = ops.cast(ops.convert_to_tensor(matrix), values.dtype)
        values = ops.moveaxis(
            ops.tensordot(matrix, values, axes=[[1], [axis]]), 0, axis
        )
    return values


def _corners(xp, cells, old, new):
    """Linear, first cell to first and last to last: `scipy.ndimage.zoom` of
    order 1."""
    positions = cells * (old - 1) / xp.maximum(new - 1, 1)
    return xp.maximum(0.0, 1.0 - xp.abs(_distances(xp, positions, old)))


def _bicubic(xp, cells, old, new):
    """Keys's cubic with a = -0.75, the ends going on: `interpolate` of PyTorch
    with `mode="bicubic"`."""
    positions = (cells + 0.5) * old / new - 0.5
    first = xp.floor(positions)
    matrix = 0.0
    for tap in (-1.0, 0.0, 1.0, 2.0):
        weight = _keys(xp, positions - first - tap, -0.75)
        sample = xp.clip(first + tap, 0, old - 1)
        at = xp.maximum(0.0, 1.0 - xp.abs(_distances(xp, sample, old)))
        matrix = matrix + weight[:, None] * at
    return matrix


def _cubic(xp, cells, old, new, widest=1.0):
    """Keys's cubic with a = -0.5 on the samples that there are, its weights
    scaled to a sum of 1: bicubic of `keras.ops.image.resize`."""
    positions = (cells + 0.5) * old / new - 0.5
    weights = _keys(xp, _distances(xp, positions, old) / widest, -0.5)
    return weights / xp.sum(weights, axis=1, keepdims=True)


def _cubic_antialias(xp, cells, old, new):
    """The same, as wide as a new cell where those are larger; of PyTorch with
    `antialias=True` too."""
    return _cubic(xp, cells, old, new, xp.maximum(old / new, 1.0))


def _cubic_table(xp, cells, old, new):
    """The same as `_cubic`, at places rounded to 1 / 1024: TensorFlow looks
    its weights up in a table."""
    if xp is np:
        # As it rounds, too.
        cells, old, new = np.float32(cells), np.float32(old), np.float32(new)
    positions = (cells + 0.5) * (old / new) - 0.5
    first = xp.floor(positions)
    positions = first + xp.round((positions - first) * 1024.0) / 1024.0
    weights = _keys(xp, _distances(xp, positions, int(old)), -0.5)
    return weights / xp.sum(weights, axis=1, keepdims=True)


def _distances(xp, positions, old):
    """From each of the positions to each sample."""
    return positions[:, None] - np.arange(old, dtype="float32")[None]


def _keys(xp, x, a):
    """The piecewise cubic kernel of Keys (1981), zero from 2 on."""
    x = xp.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return xp.where(x <= 1.0, near, xp.where(x < 2.0, far, 0.0 * x))


_MATRICES: dict[Interpolation, Callable[..., Tensor]] = {
    "bicubic": _bicubic,
    "corners": _corners,
    "cubic": _cubic,
    "cubic_antialias": _cubic_antialias,
    "cubic_table": _cubic_table,
}

#: How `PositionEmbedding` may resample.
INTERPOLATIONS: tuple[Interpolation, ...] = ("linear", *_MATRICES)
