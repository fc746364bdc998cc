"""Kronecker products: masks on grids, axis by axis."""

import dataclasses
import math
from collections.abc import Sequence

from keras import ops

from keras_topo.annotations import TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.composite import Combination, negative_product
from keras_topo.operators.dense import Dense
from keras_topo.operators.forms import Form, Problem
from keras_topo.operators.ordered import OrderedDecay
from keras_topo.operators.shapes import broadcast_leading, static_size
from keras_topo.operators.tiled import tiled_attention, tiled_cost

# Attention in tiles holds a matrix per axis and head: no more entries than
# this, 32 MB of float32.
MOST_AXIS_ENTRIES = 2**23
# Entries of a factor that is small: 8 MB.
MOST_MATRIX_ENTRIES = 2**21


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
    >>> print(np.array(hypercube.rows(0, 1)))  # 0.5^(Hamming distance)
    [[1.    0.5   0.5   0.25  0.5   0.25  0.25  0.125]]
    """

    def __init__(self, factors: Sequence[MaskOperator | TensorLike]):
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
        # Row `i` is the outer product of the factors' rows at `i_1 ... i_d`.
        rows, after = None, self.num_tokens
        for factor, n in zip(self.operators, self.grid_shape, strict=True):
            after //= n
            found = ops.cast(factor._rows_at(ids // after % n), self.dtype)
            rows = found if rows is None else _outer_products(rows, found)
        return rows

    def _for_rows(self):
        prepared = [_prepared(factor) for factor in self.operators]
        if all(a is b for a, b in zip(prepared, self.operators, strict=True)):
            return self
        return Kronecker(prepared)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        line = self._line()
        if line is not None:
            return line._own_forms(problem)
        decays = self._decays()
        if decays is None:
            return ()

        def attend(query, key, value):
            return tiled_attention(query, key, value, *decays)

        sizes = [n for n in decays[0] if n > 1]
        held = static_size(self.batch_shape) * sum(n * n for n in sizes)
        if held > MOST_AXIS_ENTRIES:
            return ()
        return (Form("tiles", tiled_cost(sizes, problem), attend),)

    def _line(self):
        """The factor that is the mask itself, if the others have one token
        and decay: their entry is one."""
        long = [
            factor
            for factor in self.operators
            if factor.num_tokens > 1 or not isinstance(factor, OrderedDecay)
        ]
        long = long or self.operators[:1]
        return long[0] if len(long) == 1 else None

    def _decays(self):
        """`(grid_shape, rates)` where all factors decay along their axes, for
        `tiled_attention`; otherwise `None`."""
        shape, rates = (), []
        for factor, n in zip(self.operators, self.grid_shape, strict=True):
            if isinstance(factor, Kronecker):
                decays = factor._decays()
            elif isinstance(factor, OrderedDecay):
                decays = (n,), [factor._directions()]
            else:
                decays = None
            if decays is None:
                return None
            shape, rates = shape + decays[0], rates + decays[1]
        return shape, rates

    def _traced_negative(self):
        return negative_product(self.operators)

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


def _prepared(factor):
    """A factor as its matrix, if that is small."""
    if isinstance(factor, Dense):
        return factor
    entries = static_size(factor.shape)
    return (
        Dense(factor.to_dense())
        if entries <= MOST_MATRIX_ENTRIES
        else factor._for_rows()
    )


def _outer_products(a, b):
    """Products `(*batch, k, n p)` of rows `(*batch, k, n)` and `(*batch, k,
    p)`; batch axes broadcast."""
    product = ops.expand_dims(a, -1) * ops.expand_dims(b, -2)
    shape = tuple(ops.shape(product))
    return ops.reshape(product, shape[:-2] + (shape[-2] * shape[-1],))


def kronecker_product(a, b):
    """The Kronecker product of the trailing matrices; batch axes broadcast."""
    # First the batch axes: TensorFlow does not broadcast so many at once.
    a, b = broadcast_leading([a, b], trailing=2)
    product = a[..., :, None, :, None] * b[..., None, :, None, :]
    shape = tuple(ops.shape(product))
    return ops.reshape(
        product,
        shape[:-4] + (shape[-4] * shape[-3], shape[-2] * shape[-1]),
    )
