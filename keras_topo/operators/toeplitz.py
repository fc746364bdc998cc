"""Toeplitz masks on sequences and block-Toeplitz masks on grids.

`M[i, j]` depends on the offset `i - j` alone, axis by axis. The product is a
convolution: with the table of offsets embedded in a circulant, a d-dimensional
FFT (Choromanski et al., 2022). A table that is a short sum of
products of per-axis tables is a sum of Kronecker products, and on a small grid
the matrix itself is the fastest of all.
"""

import functools
import math
import operator

import numpy as np
from keras import ops
from scipy.fft import next_fast_len

from keras_topo._backend import slice_axis, toeplitz_fft
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator, product_cost
from keras_topo.operators.dense import apply_matrix
from keras_topo.operators.parameters import (
    accumulation_dtype,
    all_known,
    as_tensor,
    nonnegative_values,
    traced_negative,
)
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_batch, broadcast_sizes

# Attention multiplies masks by m (d + 1) columns; methods are compared at this
# number of them.
TYPICAL_COLUMNS = 1024


class BlockToeplitz(MaskOperator):
    """The mask of a grid in which only the offset of two tokens counts.

    `M[i, j] = table[i_1 - j_1 + n_1 - 1, ..., i_d - j_d + n_d - 1]` for tokens
    with the grid coordinates `i` and `j`, in row-major order. Any function of
    the offset is a table: a learned one, as in TopViT, or `f` of the L1
    distance.

    The product takes the cheapest exact way that its cost model knows:

    - the dense matrix, on small grids: `L^2` multiply-adds a column;
    - the d-dimensional FFT: `O(L log L)` a column;
    - when `table` comes as `r` separable terms, `r` Kronecker products of 1-D
      Toeplitz matrices: `r L (n_1 + ... + n_d)` multiply-adds a column.

    Memory is that of the product: no `L x L` matrix unless it is cheapest.

    Args:
        table: `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`; or a list of `r` terms,
            each a list of `d` tables of shape `(*batch, 2 n_k - 1)`, whose
            outer products sum to the table.
        grid_shape: ints `(n_1, ..., n_d)`.
        method: `"auto"`, `"dense"`, `"fft"` or `"kronecker"` (separable tables
            only).

    Raises:
        ValueError: if the table does not have `2 n_k - 1` entries along axis
            `k`, or the grid has an axis shorter than one.

    Example:

    >>> table = np.random.rand(8, 2 * 14 - 1, 2 * 28 - 1)  # eight heads
    >>> mask = BlockToeplitz(table, (14, 28))
    >>> mask.matmul(np.random.rand(8, 14 * 28, 64)).shape
    (8, 392, 64)
    """

    _fields = ("table", "terms")

    def __init__(self, table, grid_shape, method="auto"):
        self.grid_shape = check_grid_shape(grid_shape)
        rank = len(self.grid_shape)
        expected = tuple(2 * n - 1 for n in self.grid_shape)
        self.table = self.terms = None
        if _is_separable(table):
            self.terms = [
                [as_tensor(axis, "table", 1) for axis in term] for term in table
            ]
            shapes = [[x.shape[-1] for x in term] for term in self.terms]
            if not shapes or any(tuple(s) != expected for s in shapes):
                raise ValueError(
                    "a separable `table` for the grid "
                    f"{self.grid_shape} expects terms of {rank} tables of "
                    f"{expected} offsets. Received: terms of {shapes}"
                )
            tensors = [x for term in self.terms for x in term]
            batch = broadcast_batch(*[x.shape[:-1] for x in tensors])
        else:
            self.table = as_tensor(table, "table", rank)
            if tuple(self.table.shape[-rank:]) != expected:
                raise ValueError(
                    f"`table` for the grid {self.grid_shape} expects "
                    f"{expected} offsets in its last axes. Received: table of "
                    f"shape {tuple(self.table.shape)}"
                )
            tensors = [self.table]
            batch = tuple(self.table.shape[:-rank])
        methods = ("auto", "dense", "fft")
        if self.terms is not None:
            methods += ("kronecker",)
        if method not in methods:
            raise ValueError(
                f"`method` expects one of {methods}. Received: "
                f"method={method!r}"
            )
        self.method = method
        length = math.prod(self.grid_shape)
        super().__init__((*batch, length, length), tensors[0].dtype)

    def full_table(self):
        """The table of offsets, `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`."""
        if self.table is not None:
            return self.table
        rank = len(self.grid_shape)
        total = 0.0
        for term in self.terms:
            product = 1.0
            for k, axis in enumerate(term):
                shape = tuple(axis.shape[:-1]) + tuple(
                    -1 if k == other else 1 for other in range(rank)
                )
                product = product * ops.reshape(axis, shape)
            total = total + product
        return total

    @property
    def chosen_method(self):
        """The way that products are computed: `method`, or the cheapest."""
        if self.method != "auto":
            return self.method
        method_costs = self._method_costs(TYPICAL_COLUMNS)
        return min(method_costs, key=method_costs.get)

    def _method_costs(self, columns):
        length = self.num_tokens
        method_costs = {
            "dense": product_cost(length, length, columns)
            + row_cost(length) * length,
            "fft": self._fft_cost(columns),
        }
        if self.terms is not None:
            method_costs["kronecker"] = self._kronecker()._cost(columns)
        return method_costs

    def _fft_cost(self, columns):
        return fft_cost(self.grid_shape, columns)

    def _kronecker(self):
        from keras_topo.operators.algebra import Sum
        from keras_topo.operators.kronecker import Kronecker

        products = [
            Kronecker(
                [
                    BlockToeplitz(axis, (n,))
                    for axis, n in zip(term, self.grid_shape, strict=True)
                ]
            )
            for term in self.terms
        ]
        return products[0] if len(products) == 1 else Sum(products)

    def _plan(self):
        method, length = self.chosen_method, self.num_tokens
        if method == "kronecker":
            return self._kronecker().plan
        layouts = (1, length) if method == "dense" else (1,)
        step = math.prod(self.grid_shape[1:])
        exact = method == "dense"
        return Plan(layouts, length, row_step=step, exact=exact)

    def _apply(self, x):
        method = self.chosen_method
        if method == "dense":
            return apply_matrix(self._rows(0, self.num_tokens), x)
        if method == "kronecker":
            return self._kronecker()._apply(x)
        return self._apply_fft(x)

    def _apply_fft(self, x):
        # float32 at least: transforms lose what bfloat16 has not got.
        dtype = accumulation_dtype(x.dtype, self.dtype)
        kernel = self._circulant(dtype)
        shape = tuple(ops.shape(x))
        grid = ops.reshape(
            ops.cast(x, dtype), shape[:-3] + (shape[-2],) + self.grid_shape
        )
        return ops.reshape(
            toeplitz_fft(grid, kernel, self.grid_shape),
            broadcast_sizes(
                shape[:-3], tuple(ops.shape(kernel))[: -len(self.grid_shape)]
            )
            + shape[-3:],
        )

    def _circulant(self, dtype):
        """First column of the circulant that holds the matrix."""
        table = ops.cast(self.full_table(), dtype)
        return circulant_kernel(table, self.grid_shape)

    def _rows(self, start, size):
        step = math.prod(self.grid_shape[1:])
        if not isinstance(start, int):
            return self._rows_at(start + ops.arange(size, dtype="int32"))
        first, last = start // step, -(-(start + size) // step)
        rows = toeplitz_rows(
            self.full_table(), self.grid_shape, first, last - first
        )
        return rows[..., start - first * step :, :][..., :size, :]

    def _rows_at(self, ids):
        shape = self.grid_shape
        table = self.full_table()
        keys = np.indices(shape).reshape(len(shape), -1)
        place, stride = 0, 1
        for k in range(len(shape) - 1, -1, -1):
            coordinate = ids // math.prod(shape[k + 1 :]) % shape[k]
            offset = coordinate[:, None] - keys[k].astype("int32")
            place = place + stride * (offset + shape[k] - 1)
            stride *= 2 * shape[k] - 1
        lead = tuple(ops.shape(table))[: -len(shape)]
        return ops.take(ops.reshape(table, lead + (stride,)), place, axis=-1)

    def _traced_negative(self):
        return None if self.table is None else traced_negative(self.table)

    def _transpose(self):
        if self.terms is not None:
            table = [
                [ops.flip(axis, -1) for axis in term] for term in self.terms
            ]
        else:
            axes = tuple(range(-len(self.grid_shape), 0))
            table = ops.flip(self.table, axes)
        return BlockToeplitz(table, self.grid_shape, self.method)

    def _nonnegative(self):
        if self.terms is None:
            return nonnegative_values(self.table)
        known = [nonnegative_values(x) for term in self.terms for x in term]
        if False not in known or None in known:
            return all_known(known) or None
        # Negative entries of the axes may have products and sums without.
        return nonnegative_values(self.full_table())

    def _cost(self, columns):
        return self._method_costs(columns)[self.chosen_method]


class Toeplitz(BlockToeplitz):
    """A Toeplitz mask of a sequence, `M[i, j] = c[i - j]` or `r[j - i]`.

    *Complexity*: products `O(L log L)` a column by FFT, or `L^2`
    multiply-adds where that is less.

    Args:
        column: `(*batch, L)`, the first column of the matrix.
        row: `(*batch, L)`, its first row, `row[0]` being ignored; defaults to
            `column`, a symmetric mask. As `scipy.linalg.toeplitz(c, r)`, but
            never conjugated.
        method: `"auto"`, `"dense"` or `"fft"`.

    Raises:
        ValueError: if `column` and `row` differ in length.

    Example:

    >>> Toeplitz([1.0, 2.0, 3.0], [1.0, 0.0, 0.0]).to_dense()
    [[1., 0., 0.],
     [2., 1., 0.],
     [3., 2., 1.]]
    """

    def __init__(self, column, row=None, method="auto"):
        column = as_tensor(column, "column", 1)
        row = column if row is None else as_tensor(row, "row", 1)
        if column.shape[-1] != row.shape[-1]:
            raise ValueError(
                "`row` expects as many entries as `column`. Received: column "
                f"of shape {tuple(column.shape)}, row of shape "
                f"{tuple(row.shape)}"
            )
        batch = broadcast_batch(column.shape[:-1], row.shape[:-1])
        row = ops.broadcast_to(row, batch + (row.shape[-1],))
        column = ops.broadcast_to(column, batch + (column.shape[-1],))
        if column.dtype != row.dtype:
            dtype = accumulation_dtype(column.dtype, row.dtype)
            column, row = ops.cast(column, dtype), ops.cast(row, dtype)
        table = ops.concatenate([ops.flip(row[..., 1:], -1), column], -1)
        super().__init__(table, (column.shape[-1],), method)


# Numerics, on tables rather than operators.


def toeplitz_rows(table, grid_shape, start, size):
    """Dense rows of a block-Toeplitz matrix.

    Args:
        table: `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`.
        grid_shape: `(n_1, ..., n_d)`.
        start: the coordinate on the first grid axis of the first row, an int
            or a traced scalar.
        size: int, how many coordinates.

    Returns:
        `(*batch, size * n_2 ... n_d, n_1 ... n_d)`.

    Nothing is gathered, entry by entry, and so the gradient scatters nothing:
    each axis of offsets becomes two axes of tokens by tiling and reshaping.
    """
    rank = len(grid_shape)
    n = grid_shape[0]
    table = slice_axis(table, start, size + n - 1, -rank)
    batch = tuple(ops.shape(table))[:-rank]
    # Last axis first, while there is little to move. The axes are kept as
    # (batch, a_{k+1} ... a_d, o_1 ... o_k, j_{k+1} ... j_d).
    rows_done, columns_done = 1, 1
    for k in range(rank - 1, -1, -1):
        queries, keys = (size if k == 0 else grid_shape[k]), grid_shape[k]
        outer = math.prod(
            [size + n - 1] + [2 * m - 1 for m in grid_shape[1:k]] if k else [1]
        )
        table = ops.reshape(
            table,
            batch + (rows_done, outer, queries + keys - 1, columns_done),
        )
        table = _spread_offsets(table, queries, keys)
        # (batch, rows, outer, queries, keys, columns): queries to the front.
        b = len(batch)
        table = ops.transpose(
            table,
            tuple(range(b)) + (b + 2, b, b + 1, b + 3, b + 4),
        )
        rows_done *= queries
        columns_done *= keys
    return ops.reshape(table, batch + (rows_done, columns_done))


def _spread_offsets(x, queries, keys):
    """`y[..., a, j, :] = x[..., a - j + keys - 1, :]`.

    Reversed, padded to an odd one out and tiled, the offsets read with a
    period one shorter shift by one from row to row.
    """
    shape = tuple(ops.shape(x))
    lead, payload = shape[:-2], shape[-1]
    period = queries + keys - 1
    x = ops.flip(x, -2)
    if queries == 1:
        return ops.expand_dims(x, -3)
    if keys == 1:
        return ops.expand_dims(ops.flip(x, -2), -2)
    zero = ops.zeros(lead + (1, payload), x.dtype)
    x = ops.concatenate([x, zero], -2)
    x = ops.broadcast_to(
        ops.expand_dims(x, -3), lead + (queries, period + 1, payload)
    )
    x = ops.reshape(x, lead + (queries * (period + 1), payload))
    # Not x[...]: the gradient of a strided slice is slow in TensorFlow.
    x = slice_axis(x, 0, queries * period, -2)
    x = ops.reshape(x, lead + (queries, period, payload))
    return slice_axis(x, queries - 1, keys, -2)


def circulant_kernel(table, grid_shape):
    """The table, padded and rolled to the first column of a circulant.

    Offset 0 moves to index 0, negative offsets to the end, and each axis is
    padded to a length that FFTs like.
    """
    for k, n in enumerate(grid_shape):
        axis = k - len(grid_shape)
        padding = padded_length(n) - (2 * n - 1)
        negative = slice_axis(table, 0, n - 1, axis)
        positive = slice_axis(table, n - 1, n, axis)
        shape = list(ops.shape(positive))
        shape[axis] = padding
        zeros = ops.zeros(tuple(shape), table.dtype)
        table = ops.concatenate([positive, zeros, negative], axis)
    return table


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


def _is_separable(table):
    """Whether `table` is a list of terms, each a list of per-axis tables.

    Not a table in the form of nested lists, whose innermost items are numbers.
    """
    return isinstance(table, (list, tuple)) and all(
        isinstance(term, (list, tuple)) and all(np.ndim(x) > 0 for x in term)
        for term in table
    )
