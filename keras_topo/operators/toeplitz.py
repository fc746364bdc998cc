"""Toeplitz masks on sequences and block-Toeplitz masks on grids.

`M[i, j]` depends on the offset `i - j` alone, axis by axis. The product is a
convolution: with the table of offsets embedded in a circulant, a d-dimensional
FFT (Choromanski et al., 2022). A table that is a short sum of products of
per-axis tables is a sum of Kronecker products, and on a small grid the matrix
itself is the fastest of all.
"""

from typing import Any, Self

from keras import ops

from keras_topo.annotations import TensorLike
from keras_topo.operators.parameters import accumulation_dtype, as_tensor
from keras_topo.operators.separable import is_separable, separable
from keras_topo.operators.shapes import broadcast_batch
from keras_topo.operators.slab import toeplitz_rows
from keras_topo.operators.table import (
    Method,
    OffsetTable,
    check_grid_shape,
    fft_cost,
)

__all__ = [
    "BlockToeplitz",
    "Toeplitz",
    "check_grid_shape",
    "fft_cost",
    "toeplitz_rows",
]


class BlockToeplitz(OffsetTable):
    """The mask of a grid in which only the offset of two tokens counts.

    `M[i, j] = table[i_1 - j_1 + n_1 - 1, ..., i_d - j_d + n_d - 1]` for tokens
    with the grid coordinates `i` and `j`, in row-major order. Any function of
    the offset is a table: a learned one, as in TopViT, or `f` of the L1
    distance. Along a periodic axis, whose ends meet, the index is `(i_k - j_k)
    mod n_k`: longitudes, angles, the length of a ring.

    The product takes the cheaper of two exact ways:

    - the dense matrix, on small grids: `L^2` multiply-adds per column;
    - the d-dimensional FFT: `O(L log L)` a column. Periodic axes need no
      padding, which halves the work for each of them.

    When `table` comes as `r` separable terms, the result is a sum of `r`
    Kronecker products of 1-D Toeplitz masks where that is cheaper: `r L (n_1 +
    ... + n_d)` multiply-adds per column. It is then not a `BlockToeplitz`, but
    answers `full_table()` and `chosen_method` as one.

    *Complexity*: as above per column. Memory is that of the product: no `L x
    L` matrix unless it is cheapest. A block of rows is a slice of a slab that
    has at most 2^23 entries, batch axes included.

    Args:
        table: `(*batch, o_1, ..., o_d)`, with `o_k = n_k` offsets along a
            periodic axis and `2 n_k - 1` along others; or a list of `r` terms,
            each a list of `d` tables of shape `(*batch, o_k)`, whose outer
            products sum to the table.
        grid_shape: ints `(n_1, ..., n_d)`.
        method: `"auto"`, `"dense"`, `"fft"` or `"kronecker"` (separable tables
            only).
        periodic: bool, or one bool per axis.

    Raises:
        ValueError: if the table does not have `o_k` entries along axis `k`,
            the grid has an axis shorter than one, or `periodic` is not a bool
            or one per axis.

    Example:

    >>> table = np.random.rand(8, 2 * 14 - 1, 2 * 28 - 1)  # eight heads
    >>> mask = BlockToeplitz(table, (14, 28))
    >>> tuple(mask.matmul(np.random.rand(8, 14 * 28, 64)).shape)
    (8, 392, 64)
    >>> table = np.random.rand(2 * 32 - 1, 64)  # latitudes and longitudes
    >>> BlockToeplitz(table, (32, 64), periodic=(False, True)).shape
    (2048, 2048)
    """

    # Copies are made without arguments.
    def __new__(
        cls, table: TensorLike = None, *args: Any, **kwargs: Any
    ) -> Self:
        if cls is BlockToeplitz and is_separable(table):
            # It answers as one: see the class.
            return separable(table, *args, **kwargs)  # pyright: ignore[reportReturnType]
        return super().__new__(cls)


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

    >>> mask = Toeplitz([1.0, 2.0, 3.0], [1.0, 0.0, 0.0])
    >>> print(np.array(mask.to_dense()))
    [[1. 0. 0.]
     [2. 1. 0.]
     [3. 2. 1.]]
    """

    def __init__(
        self,
        column: TensorLike,
        row: TensorLike | None = None,
        method: Method = "auto",
    ):
        column = as_tensor(column, "column", 1)
        first = column if row is None else as_tensor(row, "row", 1)
        if column.shape[-1] != first.shape[-1]:
            raise ValueError(
                "`row` expects as many entries as `column`. Received: column "
                f"of shape {tuple(column.shape)}, row of shape "
                f"{tuple(first.shape)}"
            )
        # Only to tell batch axes that do not broadcast.
        broadcast_batch(column.shape[:-1], first.shape[:-1])
        if column.dtype != first.dtype:
            dtype = accumulation_dtype(column.dtype, first.dtype)
            column, first = ops.cast(column, dtype), ops.cast(first, dtype)
        if tuple(column.shape) != tuple(first.shape):
            # By addition, which broadcasts axes of unknown size as well.
            first = first + ops.zeros_like(column)
            column = column + ops.zeros_like(first)
        table = ops.concatenate([ops.flip(first[..., 1:], -1), column], -1)
        super().__init__(table, (column.shape[-1],), method)
