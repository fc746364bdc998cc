"""Block-Toeplitz masks on grids whose size a traced function does not know."""

import math

from keras import ops

from keras_topo._backend import matmul
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import (
    as_tensor,
    nonnegative_values,
    traced_negative,
)


class UnsizedToeplitz(MaskOperator):
    """The mask of a table of offsets on a grid of unknown size.

    As `BlockToeplitz`, which plans by sizes: here they may be traced scalars,
    and rows are gathered from the table.

    *Complexity*: products `O(L^2 columns)`, memory `O(L)` per row.

    Args:
        table: `(*batch, o_1, ..., o_d)`, with `o_k = n_k` along a periodic axis
            and `2 n_k - 1` along others.
        grid_shape: sizes `(n_1, ..., n_d)`, ints or int32 scalars.
        periodic: one bool per axis.
    """

    _fields = ("table", "sizes")

    def __init__(self, table, grid_shape, periodic):
        axes = len(grid_shape)
        self.table = as_tensor(table, "table", axes)
        self.sizes = ops.stack([ops.cast(n, "int32") for n in grid_shape])
        self.periodic = tuple(periodic)
        self.reverse = False
        batch = tuple(self.table.shape)[: len(self.table.shape) - axes]
        super().__init__((*batch, None, None), self.table.dtype)

    def _length(self):
        return math.prod(self._sizes())

    def _sizes(self):
        return [self.sizes[k] for k in range(len(self.periodic))]

    def _rows_at(self, ids):
        ids = ops.cast(ids, "int32")
        sizes = self._sizes()
        rows = grid_coordinates(ids, sizes)
        tokens = ops.arange(self._length(), dtype="int32")
        columns = grid_coordinates(tokens, sizes)
        index = 0
        for i, j, n, wraps in zip(
            rows, columns, sizes, self.periodic, strict=True
        ):
            offset = i[:, None] - j[None, :]
            if self.reverse:
                offset = -offset
            if wraps:
                index = index * n + offset % n
            else:
                index = index * (2 * n - 1) + offset + n - 1
        batch = tuple(ops.shape(self.table))[: len(self.batch_shape)]
        flat = ops.reshape(self.table, (*batch, -1))
        return ops.take(flat, index, axis=-1)

    def _apply(self, x):
        # The tokens are split over two axes, of which one has one entry.
        dense = self._rows_at(ops.arange(self._length(), dtype="int32"))
        dense = ops.cast(dense, x.dtype)
        if x.shape[-1] == 1:
            return ops.expand_dims(matmul(dense, ops.squeeze(x, -1)), -1)
        x = ops.swapaxes(ops.squeeze(x, -3), -1, -2)
        return ops.expand_dims(ops.swapaxes(matmul(dense, x), -1, -2), -3)

    def _transpose(self):
        other = self.with_tensors(self.tensors())
        other.reverse = not self.reverse
        return other

    def _nonnegative(self):
        return nonnegative_values(self.table)

    def _traced_negative(self):
        return traced_negative(self.table)

    def _cost(self, columns):
        # Nothing else is known: the size is nominal.
        return float(columns)


def grid_coordinates(ids, sizes):
    """The coordinates of cells, numbered in row-major order.

    As `ops.unravel_index`, for sizes that may be traced.

    Args:
        ids: int32.
        sizes: ints or int32 scalars, those of the grid.

    Returns:
        A list of one tensor per axis, of the shape of `ids`.
    """
    found = []
    for n in reversed(sizes):
        found.append(ids % n)
        ids = ids // n
    return found[::-1]
