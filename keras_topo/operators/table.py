"""The masks of grids in which only the offset of two tokens counts."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from keras import ops
from scipy.fft import next_fast_len

from keras_topo._backend import slice_axis, toeplitz_fft
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.cost import product_cost
from keras_topo.operators.dense import apply_matrix
from keras_topo.operators.parameters import (
    accumulation_dtype,
    as_tensor,
    nonnegative_values,
    traced_negative,
)
from keras_topo.operators.plan import Plan
from keras_topo.operators.slab import (
    SlabRows,
    rows_at,
    toeplitz_rows,
    without_ones,
)

# Attention multiplies masks by m (d + 1) columns; methods are compared at this
# number of them.
TYPICAL_COLUMNS = 1024

Method: TypeAlias = Literal["auto", "dense", "fft"]
METHODS: tuple[Method, ...] = ("auto", "dense", "fft")


class OffsetTable(MaskOperator):
    """A mask by its table of offsets: what `BlockToeplitz` documents.

    Args:
        table: tensor, `(*batch, o_1, ..., o_d)`: `o_k` is `n_k` along a
            periodic axis, `2 n_k - 1` along others.
        grid_shape: ints `(n_1, ..., n_d)`.
        method: `"auto"`, `"dense"` or `"fft"`.
        periodic: bool, or one bool per axis.
    """

    _fields = ("table",)

    def __init__(
        self,
        table: TensorLike,
        grid_shape: Sequence[int],
        method: Method | Literal["kronecker"] = "auto",
        periodic: bool | Sequence[bool] = False,
    ):
        self.grid_shape = check_grid_shape(grid_shape)
        self.periodic = check_periodic(periodic, self.grid_shape)
        self.method = check_method(method, METHODS)
        rank = len(self.grid_shape)
        self.table = as_tensor(table, "table", rank)
        expected = table_shape(self.grid_shape, self.periodic)
        if tuple(self.table.shape[-rank:]) != expected:
            raise ValueError(
                f"`table` for {describe_grid(self.grid_shape, self.periodic)} "
                f"expects {expected} offsets in its last axes. Received: table "
                f"of shape {tuple(self.table.shape)}"
            )
        batch = tuple(self.table.shape[:-rank])
        length = math.prod(self.grid_shape)
        super().__init__((*batch, length, length), self.table.dtype)

    def full_table(self) -> Tensor:
        """The table of signed offsets, `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`,
        along periodic axes too."""
        return unrolled(self.table, self.periodic)

    @property
    def chosen_method(self) -> str:
        """The way that products are computed: `method`, or the cheapest."""
        if self.method != "auto":
            return self.method
        method_costs = self._method_costs(TYPICAL_COLUMNS)
        return min(method_costs, key=lambda name: method_costs[name])

    def _method_costs(self, columns: int) -> dict[str, float]:
        length = self.num_tokens
        rows = row_cost(length) * length
        return {
            "dense": product_cost(length, length, columns) + rows,
            "fft": fft_cost(
                self.grid_shape,
                columns,
                padded_shape(self.grid_shape, self.periodic),
            ),
        }

    def _cost(self, columns):
        return self._method_costs(columns)[self.chosen_method]

    def _plan(self):
        length, dense = self.num_tokens, self.chosen_method == "dense"
        step = math.prod(self.grid_shape[1:])
        layouts = (1, length) if dense else (1,)
        return Plan(layouts, length, row_step=step, exact=dense)

    def _apply(self, x):
        if self.chosen_method == "dense":
            return apply_matrix(self._rows(0, self.num_tokens), x)
        # float32 at least: transforms lose what bfloat16 has not got.
        dtype = accumulation_dtype(x.dtype, self.dtype)
        kernel = circulant_kernel(
            ops.cast(self.table, dtype), self.grid_shape, self.periodic
        )
        shape = tuple(ops.shape(x))
        grid = ops.reshape(
            ops.cast(x, dtype), shape[:-3] + (shape[-2],) + self.grid_shape
        )
        y = toeplitz_fft(grid, kernel, self.grid_shape)
        # The batch axes of the mask may have joined those of x.
        lead = tuple(ops.shape(y))[: -len(self.grid_shape) - 1]
        return ops.reshape(y, lead + shape[-3:])

    def _transpose(self):
        table = self.table
        for k, periodic in enumerate(self.periodic):
            axis = k - len(self.periodic)
            table = ops.flip(table, axis)
            if periodic:
                # Offset 0 stays where it is.
                table = ops.roll(table, 1, axis)
        return self.with_tensors([table])

    def _for_rows(self):
        return SlabRows(self)

    def _rows(self, start, size):
        if size != self.num_tokens:
            return self._for_rows()._rows(start, size)
        table, grid = without_ones(self.full_table(), self.grid_shape)
        return toeplitz_rows(table, grid, 0, grid[0])

    def _rows_at(self, ids):
        return rows_at(self.full_table(), self.grid_shape, ids)

    def _nonnegative(self):
        return nonnegative_values(self.table)

    def _traced_negative(self):
        return traced_negative(self.table)


# Tables.


def table_shape(grid_shape, periodic):
    """How many offsets a table has along each axis."""
    return tuple(
        n if wraps else 2 * n - 1
        for n, wraps in zip(grid_shape, periodic, strict=True)
    )


def unrolled(table, periodic):
    """Offsets from `1 - n` to `n - 1` along axes that have those from 0."""
    for k, wraps in enumerate(periodic):
        if wraps:
            axis = k - len(periodic)
            n = table.shape[axis]
            negative = slice_axis(table, 1, n - 1, axis)
            table = ops.concatenate([negative, table], axis)
    return table


def circulant_kernel(table, grid_shape, periodic):
    """The table, padded and rolled to the first column of a circulant.

    Offset 0 moves to index 0, negative offsets to the end, and each axis is
    padded to a length that FFTs like. Periodic axes are circulant already.
    """
    for k, (n, wraps) in enumerate(zip(grid_shape, periodic, strict=True)):
        if wraps:
            continue
        axis = k - len(grid_shape)
        padding = padded_length(n) - (2 * n - 1)
        negative = slice_axis(table, 0, n - 1, axis)
        positive = slice_axis(table, n - 1, n, axis)
        shape = list(ops.shape(positive))
        shape[axis] = padding
        zeros = ops.zeros(tuple(shape), table.dtype)
        table = ops.concatenate([positive, zeros, negative], axis)
    return table


# Costs.


def padded_shape(grid_shape, periodic):
    """Lengths of the transforms along each axis."""
    return tuple(
        n if wraps else padded_length(n)
        for n, wraps in zip(grid_shape, periodic, strict=True)
    )


@functools.cache
def padded_length(n):
    """The shortest length from `2 n - 1` that real FFTs are fast at."""
    return next_fast_len(2 * n - 1, real=True)


def fft_cost(grid_shape, columns, padded=None):
    """Work of `toeplitz_fft`: each axis there and back, padding as it grows."""
    padded = padded or [padded_length(n) for n in grid_shape]
    work = 0.0
    for k in range(len(grid_shape)):
        # Axes after k are padded (halved, being real), axes before it not.
        rest = math.prod(grid_shape[:k]) * math.prod(padded[k + 1 :])
        work += rest * padded[k] * math.log2(max(2, padded[k]))
    launches = costs.LAUNCH * 6 * len(grid_shape)
    return launches + costs.FFT * work * (columns + 1)


def row_cost(length):
    """Work of one dense row of a block-Toeplitz matrix."""
    return 3 * costs.ELEMENT * length


# Checks.


def check_grid_shape(grid_shape, name="grid_shape"):
    """`grid_shape`, an int or ints of any integer type, as a tuple of ints."""
    try:
        axes = np.atleast_1d(grid_shape).tolist()
        checked = tuple(operator.index(n) for n in axes)
    except (TypeError, ValueError):
        checked = ()
    if not checked or min(checked) < 1:
        raise ValueError(
            f"`{name}` expects positive ints, one for each grid axis. "
            f"Received: {name}={grid_shape}"
        )
    return checked


def check_periodic(periodic, grid_shape):
    """`periodic`, a bool or one per axis, as a tuple of bools."""
    flags = np.asarray(periodic)
    if flags.dtype != bool or flags.shape not in ((), (len(grid_shape),)):
        raise ValueError(
            f"`periodic` expects a bool, or one for each of the axes of the "
            f"grid {grid_shape}. Received: periodic={periodic!r}"
        )
    return tuple(np.broadcast_to(flags, len(grid_shape)).tolist())


def check_method(method, methods):
    if method not in methods:
        raise ValueError(
            f"`method` expects one of {methods}. Received: method={method!r}"
        )
    return method


def describe_grid(grid_shape, periodic):
    if all(periodic):
        return f"the torus {grid_shape}"
    if any(periodic):
        return f"the grid {grid_shape}, periodic={periodic},"
    return f"the grid {grid_shape}"
