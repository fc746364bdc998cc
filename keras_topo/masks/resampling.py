"""Values on one grid, read on another, whose sizes may be traced."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Tensor


def interpolation_matrix(positions, num_samples):
    """Linear interpolation as a matrix, `(len(positions), num_samples)`.

    `positions` are measured in samples; those beyond the ends are clamped.
    """
    positions = np.clip(positions, 0, num_samples - 1)
    # Hat functions of width one around each sample.
    return np.maximum(
        0, 1 - np.abs(positions[:, None] - np.arange(num_samples))
    )


def _traced_matrix(positions, num_samples):
    """The same for traced positions."""
    positions = ops.clip(positions, 0, num_samples - 1)
    samples = ops.cast(np.arange(num_samples), positions.dtype)
    return ops.maximum(0.0, 1.0 - ops.abs(positions[:, None] - samples))


def _place_dtype(values):
    """Of places on a grid, which need more digits than 16 bits have."""
    return keras.backend.result_type(values.dtype, "float32")


def resample_positions(values, old_grid, new_grid, first_axis):
    """Resamples `(..., *old_grid, ...)` between grids over the same image.

    Cells are matched by their centers: cell `i` of `n` is centered at `(i +
    1/2) / n`.
    """
    for k, (old, new) in enumerate(zip(old_grid, new_grid, strict=True)):
        if isinstance(new, int):
            if old == new:
                continue
            positions = (np.arange(new) + 0.5) * old / new - 0.5
            matrix = interpolation_matrix(positions, old)
        else:
            dtype = _place_dtype(values)
            size = ops.cast(new, dtype)
            cells = ops.cast(ops.arange(new), dtype)
            matrix = _traced_matrix((cells + 0.5) * old / size - 0.5, old)
        values = _contract(values, matrix, first_axis + k)
    return values


def resample_offsets(
    table: Tensor,
    old_grid: tuple[int, ...],
    new_grid: tuple[Any, ...],
    periodic: tuple[bool, ...] | None = None,
) -> Tensor:
    """Resamples a table of offsets, `(..., 2 n_1 - 1, ..., 2 n_d - 1)`.

    An offset of `o` cells of `n` is `o / n` of the image's extent, whatever
    the number of cells; offset 0 stays where it is. Along a periodic axis the
    table has `n` entries, of which the first follows the last.
    """
    first_axis = len(table.shape) - len(old_grid)
    periodic = periodic or (False,) * len(old_grid)
    for k, (old, new, wraps) in enumerate(
        zip(old_grid, new_grid, periodic, strict=True)
    ):
        known = isinstance(new, int)
        if known and old == new:
            continue
        if wraps:
            # The first entry once more, behind the last.
            axis = first_axis + k
            first = ops.take(table, np.array([0], "int32"), axis=axis)
            table = ops.concatenate([table, first], axis=axis)
            count, middle = old + 1, 0
        else:
            count, middle = 2 * old - 1, old - 1
        if known:
            offsets = np.arange(0 if wraps else 1 - new, new) * old / new
            matrix = interpolation_matrix(offsets + middle, count)
        else:
            offsets = ops.arange(0 if wraps else 1 - new, new)
            dtype = _place_dtype(table)
            size = ops.cast(new, dtype)
            offsets = ops.cast(offsets, dtype) * old / size
            matrix = _traced_matrix(offsets + middle, count)
        table = _contract(table, matrix, first_axis + k)
    return table


def clamp_offsets(
    table: Tensor, reach: int, length: int | Tensor, causal: bool
) -> Tensor:
    """A table of offsets of `reach` tokens, `(..., 2 reach - 1)`, for `length`
    tokens, `(..., 2 length - 1)`: its ends go on.

    With `causal` the table has the `reach` entries of offsets from 0, and
    those below get its first one.
    """
    if isinstance(length, int):
        offsets = np.arange(1 - length, length)
        index = np.clip(offsets, 0 if causal else 1 - reach, reach - 1)
        index = (index if causal else index + reach - 1).astype("int32")
        if length == reach and not causal:
            return table
    else:
        offsets = ops.arange(1 - length, length)
        index = ops.clip(offsets, 0 if causal else 1 - reach, reach - 1)
        index = ops.cast(index if causal else index + reach - 1, "int32")
    return ops.take(table, index, axis=-1)


def _contract(values, matrix, axis):
    """Multiplies one axis by a matrix."""
    matrix = ops.cast(ops.convert_to_tensor(matrix), values.dtype)
    return ops.moveaxis(
        ops.tensordot(matrix, values, axes=[[1], [axis]]), 0, axis
    )
