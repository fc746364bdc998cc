"""Kronecker products: masks on grids, axis by axis."""

import dataclasses
import math

from keras import ops

from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.composite import Combination
from keras_topo.operators.dense import Dense
from keras_topo.operators.shapes import broadcast_batch, broadcast_leading


class Kronecker(Combination):
    """The Kronecker product of the masks of the axes of a grid.

    `M[i, j] = F_1[i_1, j_1] ... F_d[i_d, j_d]` for tokens with the grid
    coordinates `i` and `j`, in row-major order.

    *Complexity*: the factors' products, one after the other, each on all
    lines of the grid along its axis; `L (n_1 + ... + n_d)` multiply-adds a
    column with dense factors. The first and the last axis are multiplied
    without a transposition.

    Args:
        factors: list of operators (or square matrices), first axis first.

    Example:

    >>> hypercube = Kronecker([np.array([[1.0, 0.5], [0.5, 1.0]])] * 3)
    >>> hypercube.rows(0, 1)  # 0.5 to the power of the Hamming distance
    [[1., 0.5, 0.5, 0.25, 0.5, 0.25, 0.25, 0.125]]
    """

    def __init__(self, factors):
        if isinstance(factors, (list, tuple)):
            factors = [
                f if isinstance(f, MaskOperator) else Dense(f) for f in factors
            ]
        super().__init__(
            factors,
            lambda found: math.prod(f.num_tokens for f in found),
            "factors",
        )
        self.grid_shape = tuple(f.num_tokens for f in self.operators)

    def _recombine(self, operators):
        return Kronecker(operators)

    def _plan(self):
        plan = super()._plan()
        length = self.num_tokens
        # Each of these factors is multiplied by on lines of the whole grid.
        lines = [
            o.plan.held_per_column * (length // o.num_tokens)
            for o in self.operators
        ]
        # A row of the first factor is prod(n_2 ... n_d) rows of the product.
        step = math.prod(self.grid_shape[1:]) * self.operators[0].plan.row_step
        return dataclasses.replace(
            plan,
            layouts=(self.grid_shape[0],),
            held_per_column=max(lines),
            fewest_columns=1,
            row_step=step,
        )

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

    def _rows_at(self, ids):
        rows = None
        rest = self.num_tokens
        for factor, n in zip(self.operators, self.grid_shape, strict=True):
            rest //= n
            own = ops.cast(factor._rows_at(ids // rest % n), self.dtype)
            if rows is None:
                rows = own
                continue
            rows, own = broadcast_leading([rows, own], trailing=1)
            shape = tuple(ops.shape(rows))
            rows = ops.expand_dims(rows, -1) * ops.expand_dims(own, -2)
            rows = ops.reshape(rows, shape[:-1] + (shape[-1] * n,))
        return rows

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
