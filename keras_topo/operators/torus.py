"""Masks on grids whose ends meet: rings and tori."""

from keras import ops

from keras_topo.operators.parameters import as_tensor
from keras_topo.operators.toeplitz import (
    BlockToeplitz,
    check_grid_shape,
    fft_cost,
)


class Torus(BlockToeplitz):
    """The mask of a torus in which only the offset of two tokens counts.

    `M[i, j] = table[(i_1 - j_1) mod n_1, ..., (i_d - j_d) mod n_d]` for tokens
    with the grid coordinates `i` and `j`, in row-major order: images with
    periodic boundaries, rings, angles. In one dimension a circulant matrix,
    `scipy.linalg.circulant(table)`.

    The product takes the cheaper of two exact ways:

    - the dense matrix, on small tori: `L^2` multiply-adds a column;
    - the d-dimensional FFT, `O(L log L)` a column. A circulant needs no
      padding, which makes it cheaper than `BlockToeplitz` on the same grid by
      a factor of up to `2^d`.

    A mask that is a product over the axes is faster as a `Kronecker` product
    of rings, as `torus_diffusion` is.

    Args:
        table: `(*batch, n_1, ..., n_d)`.
        grid_shape: ints `(n_1, ..., n_d)`.
        method: `"auto"`, `"dense"` or `"fft"`.

    Raises:
        ValueError: if the table does not end in `grid_shape`, or the grid has
            an axis shorter than one.

    Example:

    >>> Torus([1.0, 2.0, 3.0], (3,)).to_dense()
    [[1., 3., 2.],
     [2., 1., 3.],
     [3., 2., 1.]]
    """

    def __init__(self, table, grid_shape, method="auto"):
        grid_shape = check_grid_shape(grid_shape)
        rank = len(grid_shape)
        table = as_tensor(table, "table", rank)
        if tuple(table.shape[-rank:]) != grid_shape:
            raise ValueError(
                f"`table` for the torus {grid_shape} expects one entry for "
                "each offset, in its last axes. Received: table of shape "
                f"{tuple(table.shape)}"
            )
        super().__init__(_unrolled(table, rank), grid_shape, method)
        self.table = table

    def full_table(self):
        """The table of signed offsets of `BlockToeplitz`,
        `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`."""
        return _unrolled(self.table, len(self.grid_shape))

    def _circulant(self, dtype):
        return ops.cast(self.table, dtype)

    def _fft_cost(self, columns):
        return fft_cost(self.grid_shape, columns, padded=self.grid_shape)

    def _transpose(self):
        table = self.table
        for axis in range(-len(self.grid_shape), 0):
            table = ops.roll(ops.flip(table, axis), 1, axis)
        return Torus(table, self.grid_shape, self.method)


def _unrolled(table, rank):
    """Offsets from `1 - n` to `n - 1` of axes that have those from 0."""
    for axis in range(-rank, 0):
        _, negative = ops.split(table, [1], axis)
        table = ops.concatenate([negative, table], axis)
    return table
