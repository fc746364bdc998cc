"""Values on one grid, read on another."""

import numpy as np
from keras import ops


def interpolation_matrix(positions, num_samples):
    """Linear interpolation as a matrix, `(len(positions), num_samples)`.

    `positions` are measured in samples; those beyond the ends are clamped.
    """
    positions = np.clip(positions, 0, num_samples - 1)
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, num_samples - 1)
    weight = positions - low
    matrix = np.zeros((len(positions), num_samples))
    rows = np.arange(len(positions))
    matrix[rows, low] += 1 - weight
    matrix[rows, high] += weight
    return matrix


def resample_positions(values, old_grid, new_grid, first_axis):
    """Resamples `(..., *old_grid, ...)` between grids over the same image.

    Cells are matched by their centres: cell `i` of `n` is centred at `(i +
    1/2) / n`.
    """
    for k, (old, new) in enumerate(zip(old_grid, new_grid, strict=True)):
        if old != new:
            positions = (np.arange(new) + 0.5) * old / new - 0.5
            matrix = interpolation_matrix(positions, old)
            values = _contract(values, matrix, first_axis + k)
    return values


def resample_offsets(table, old_grid, new_grid):
    """Resamples a table of offsets, `(..., 2 n_1 - 1, ..., 2 n_d - 1)`.

    An offset of `o` cells of `n` is `o / n` of the image's extent, whatever
    the number of cells; offset 0 stays where it is.
    """
    first_axis = len(table.shape) - len(old_grid)
    for k, (old, new) in enumerate(zip(old_grid, new_grid, strict=True)):
        if old != new:
            offsets = np.arange(-(new - 1), new) * old / new
            matrix = interpolation_matrix(offsets + old - 1, 2 * old - 1)
            table = _contract(table, matrix, first_axis + k)
    return table


def _contract(values, matrix, axis):
    """Multiplies one axis by a matrix."""
    matrix = ops.convert_to_tensor(matrix, values.dtype)
    return ops.moveaxis(
        ops.tensordot(matrix, values, axes=[[1], [axis]]), 0, axis
    )
