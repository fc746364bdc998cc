"""Masks on grids whose ends meet: rings and tori."""

from collections.abc import Sequence

from keras_topo.annotations import TensorLike
from keras_topo.operators.table import Method
from keras_topo.operators.toeplitz import BlockToeplitz


class Torus(BlockToeplitz):
    """The mask of a torus in which only the offset of two tokens counts.

    `M[i, j] = table[(i_1 - j_1) mod n_1, ..., (i_d - j_d) mod n_d]` for tokens
    with the grid coordinates `i` and `j`, in row-major order: images with
    periodic boundaries, rings, angles. In one dimension it is a circulant
    matrix, `scipy.linalg.circulant(table)`. `BlockToeplitz` also takes grids
    of which only some axes are periodic.

    The product takes the cheaper of two exact ways:

    - the dense matrix, on small tori: `L^2` multiply-adds per column;
    - the d-dimensional FFT, `O(L log L)` a column. A circulant needs no
      padding, which makes it cheaper than on a grid that does not wrap by a
      factor of up to `2^d`.

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

    >>> print(np.array(Torus([1.0, 2.0, 3.0], (3,)).to_dense()))
    [[1. 3. 2.]
     [2. 1. 3.]
     [3. 2. 1.]]
    """

    def __init__(
        self,
        table: TensorLike,
        grid_shape: Sequence[int],
        method: Method = "auto",
    ):
        super().__init__(table, grid_shape, method, periodic=True)
