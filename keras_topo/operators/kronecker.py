"""Kronecker products: masks on grids, axis by axis."""

import math

from keras import ops

from keras_topo.operators import cost as costs
from keras_topo.operators.base import (
    MaskOperator,
    broadcast_batch,
    widest_dtype,
)
from keras_topo.operators.tiled import tiled_attention, tiled_cost


class Kronecker(MaskOperator):
    """The Kronecker product of the masks of the axes of a grid.

    `M[i, j] = F_1[i_1, j_1] ... F_d[i_d, j_d]` for tokens with the grid
    coordinates `i` and `j`, in row-major order.

    *Complexity*: the factors' products, one after the other, each on all
    lines of the grid along its axis; `L (n_1 + ... + n_d)` multiply-adds a
    column with dense factors. The first and the last axis are multiplied
    without a transposition. Where all factors decay along their axes,
    attention works in tiles: see `keras_topo.operators.tiled`.

    Args:
        factors: list of operators (or square matrices), first axis first.

    Example:

    >>> hypercube = Kronecker([np.array([[1.0, 0.5], [0.5, 1.0]])] * 3)
    >>> hypercube.rows(0, 1)  # 0.5 to the power of the Hamming distance
    [[1., 0.5, 0.5, 0.25, 0.5, 0.25, 0.25, 0.125]]
    """

    _fields = ("operators",)

    def __init__(self, factors):
        from keras_topo.operators.dense import Dense

        if not isinstance(factors, (list, tuple)) or not factors:
            raise ValueError(
                "`factors` expects a non-empty list of operators. Received: "
                f"factors={factors!r}"
            )
        self.operators = [
            f if isinstance(f, MaskOperator) else Dense(f) for f in factors
        ]
        self.grid_shape = tuple(f.num_tokens for f in self.operators)
        length = math.prod(self.grid_shape)
        batch = broadcast_batch(*[f.batch_shape for f in self.operators])
        super().__init__((*batch, length, length), widest_dtype(self.operators))

    @property
    def _layouts(self):
        return (self.grid_shape[0],)

    def _apply(self, x):
        shape = tuple(ops.shape(x))
        lead, (n, columns, rest) = shape[:-3], shape[-3:]
        # First axis: tokens first, everything else is columns.
        x = self.operators[0].apply(
            ops.reshape(x, lead + (n, columns * rest, 1))
        )
        lead = tuple(ops.shape(x))[:-3]
        # The others: the lines of the first axis are columns too.
        columns = n * columns
        for k, factor in enumerate(self.operators[1:], start=1):
            n_k = self.grid_shape[k]
            after = math.prod(self.grid_shape[k + 1 :])
            before = math.prod(self.grid_shape[1:k])
            x = ops.reshape(x, lead + (columns * before, n_k, after))
            x = ops.swapaxes(x, -2, -1) if after != 1 else x
            x = ops.reshape(x, lead + (1, columns * before * after, n_k))
            x = factor.apply(x)
            lead = tuple(ops.shape(x))[:-3]
            if after != 1:
                x = ops.reshape(x, lead + (columns * before, after, n_k))
                x = ops.swapaxes(x, -2, -1)
        return ops.reshape(x, lead + (n, shape[-2], rest))

    def _rows(self, start, size):
        return self._rows_at(start + ops.arange(size, dtype="int32"))

    def _rows_at(self, ids):
        # Row `i` is the outer product of the factors' rows at `i_1 ... i_d`.
        rows, after = None, self.num_tokens
        for factor, n in zip(self.operators, self.grid_shape, strict=True):
            after //= n
            found = _factor_rows(factor, ids // after % n)
            found = ops.cast(found, self.dtype)
            rows = found if rows is None else _outer_products(rows, found)
        return rows

    def _for_rows(self):
        from keras_topo.operators.dense import Dense

        return Kronecker([Dense(f.to_dense()) for f in self.operators])

    def _transpose(self):
        return Kronecker([f._transpose() for f in self.operators])

    def _decays(self):
        """`(grid_shape, rates)` where all factors decay along their axes, for
        `tiled_attention`; otherwise `None`."""
        shape, rates = (), []
        for factor, n in zip(self.operators, self.grid_shape, strict=True):
            if isinstance(factor, Kronecker):
                decays = factor._decays()
            else:
                found = getattr(factor, "_decay_rates", lambda: None)()
                decays = found and ((n,), [found])
            if decays is None:
                return None
            shape, rates = shape + decays[0], rates + decays[1]
        return shape, rates

    def _attend_tiles(self, query, key, value):
        """`attend` where all factors are decays: see `tiled_attention`."""
        return tiled_attention(query, key, value, *self._decays())

    def _tiles_cost(self, problem):
        """Work of `_attend_tiles`; `None` where a factor is no decay. Along a
        single axis there are no tiles: that is the factor's own business."""
        decays = self._decays()
        sizes = () if decays is None else [n for n in decays[0] if n > 1]
        if len(sizes) < 2:
            return None
        return tiled_cost(sizes, problem)

    def _nonnegative(self):
        known = [f.nonnegative for f in self.operators]
        # A product of two factors with negative entries may have none.
        uncertain = known.count(False) > 1
        return None if uncertain or None in known else False not in known

    def _cost(self, columns):
        length = self.num_tokens
        total = costs.LAUNCH * len(self.operators)
        for k, (factor, n) in enumerate(
            zip(self.operators, self.grid_shape, strict=True)
        ):
            total += factor._cost(columns * (length // n))
            if 0 < k < len(self.grid_shape) - 1:
                total += 2 * costs.ELEMENT * length * columns
        return total


def _factor_rows(factor, ids):
    """Rows `(*batch, k, n)` of a factor at ids `(k,)`."""
    if hasattr(factor, "_rows_at"):
        return factor._rows_at(ids)
    return ops.take(factor.to_dense(), ids, axis=-2)


def _outer_products(a, b):
    """Products `(*batch, k, n p)` of rows `(*batch, k, n)` and `(*batch, k,
    p)`; batch axes broadcast."""
    product = ops.expand_dims(a, -1) * ops.expand_dims(b, -2)
    shape = tuple(ops.shape(product))
    return ops.reshape(product, shape[:-2] + (shape[-2] * shape[-1],))


def kronecker_product(a, b):
    """The Kronecker product of the trailing matrices; batch axes broadcast."""
    batch = broadcast_batch(a.shape[:-2], b.shape[:-2])
    # First the batch axes: TensorFlow does not broadcast so many at once.
    if len(batch) > 1:
        a = ops.broadcast_to(a, batch + tuple(a.shape[-2:]))
        b = ops.broadcast_to(b, batch + tuple(b.shape[-2:]))
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    shape = tuple(ops.shape(product))
    return ops.reshape(
        product,
        shape[:-4] + (shape[-4] * shape[-3], shape[-2] * shape[-1]),
    )
