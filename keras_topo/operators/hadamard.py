"""Elementwise products of masks."""

import math

import numpy as np
from keras import ops

from keras_topo._backend import matmul
from keras_topo.annotations import Tensor
from keras_topo.operators.algebra import Scaled, Sum
from keras_topo.operators.base import MaskOperator, widest_dtype
from keras_topo.operators.blocks import BLOCK_ELEMENTS, map_blocks
from keras_topo.operators.causal import Causal
from keras_topo.operators.composite import Combination, negative_product
from keras_topo.operators.decay import ExponentialDecay
from keras_topo.operators.dense import Dense, DenseExp, Ones
from keras_topo.operators.gated import GatedDecay
from keras_topo.operators.ordered import OrderedDecay
from keras_topo.operators.shapes import static_size
from keras_topo.operators.toeplitz import BlockToeplitz
from keras_topo.operators.unsized import UnsizedToeplitz


def hadamard(first: MaskOperator, second: MaskOperator) -> MaskOperator:
    """The elementwise product of two masks, in the simplest form.

    `Ones` leave the other mask as it is, the rates of decays along one
    sequence add up, products with sums of decays are sums of decays, and all
    else is a `Hadamard` product.

    Args:
        first, second: operators on the same tokens.

    Returns:
        A `MaskOperator`.

    Example:

    >>> from keras_topo.operators import ExponentialDecay
    >>> mask = hadamard(ExponentialDecay(0.5, 4), ExponentialDecay(0.25, 4))
    >>> type(mask).__name__, float(mask.rate)
    ('ExponentialDecay', 0.75)
    """
    if isinstance(first, Ones):
        return second
    if isinstance(second, Ones):
        return first
    decays = (Causal, ExponentialDecay, GatedDecay)
    if isinstance(first, decays) and isinstance(second, decays):
        product = _decay_product(first, second)
        if product is not None:
            return product
    total, other = (first, second) if type(first) is Sum else (second, first)
    if type(total) is Sum:
        terms = [hadamard(term, other) for term in total.operators]
        if not any(isinstance(term, Hadamard) for term in terms):
            return Sum(terms)
    return Hadamard([first, second])


def _decay_product(first, second):
    """The product of two decays along a sequence, or `None`."""
    directions = [first._directions(), second._directions()]
    dtype = widest_dtype([first, second])
    rates = []
    for sides in zip(*directions, strict=True):
        if any(side is None for side in sides):
            rates.append(None)
            continue
        # Not `ops.add`, which takes rates of heads for those of tokens where
        # there are as many of them.
        rates.append(sum(ops.cast(side, dtype) for side in sides))
    forward, backward = rates
    known = [side for side in rates if side is not None]
    if not known:
        # Only the diagonal is left, which no decay has.
        return None
    rate, causal, reverse = known[0], len(known) == 1, forward is None
    length = first.length
    if all(side is None or side.shape[-1] == 1 for side in rates):
        if not causal and any(ahead is not back for ahead, back in directions):
            return None
        if isinstance(first, Causal) and isinstance(second, Causal):
            return Causal(length, reverse)
        return ExponentialDecay(rate[..., 0], length, causal, reverse)
    if causal:
        return GatedDecay(rate, True, reverse=reverse)
    return GatedDecay(forward, backward_rates=backward)


def causal_part(operator: MaskOperator, length: int | Tensor) -> MaskOperator:
    """The mask with zeros for later tokens, `j > i`, in its own form.

    Args:
        operator: a mask of a sequence, causal or not.
        length: int, or a traced scalar where the operator does not know it.
    """
    if isinstance(operator, OrderedDecay) and operator.carries_state:
        return operator
    if isinstance(operator, Sum):
        return Sum([causal_part(o, length) for o in operator.operators])
    if isinstance(operator, Scaled):
        return Scaled(causal_part(operator.operator, length), operator.scalar)
    if isinstance(operator, Dense) and not isinstance(operator, DenseExp):
        return Dense(ops.tril(operator.matrix))
    if isinstance(operator, BlockToeplitz) and len(operator.grid_shape) == 1:
        table = operator.table
        seen = np.arange(table.shape[-1]) >= length - 1
        return BlockToeplitz(
            table * ops.convert_to_tensor(seen, table.dtype),
            operator.grid_shape,
        )
    if isinstance(operator, UnsizedToeplitz) and not operator.reverse:
        table = operator.table
        seen = ops.arange(1 - length, length) >= 0
        return UnsizedToeplitz(
            table * ops.cast(seen, table.dtype), (length,), (False,)
        )
    return hadamard(operator, Causal(length))


class Hadamard(Combination):
    """The elementwise product of masks.

    *Complexity*: products `O(L^2)` per column; attention is explicit, with
    products of rows.

    Args:
        operators: non-empty list of operators on the same tokens.

    Raises:
        ValueError: if the list is empty or the numbers of tokens differ.

    Example:

    >>> from keras_topo.operators import Causal, Toeplitz
    >>> mask = Hadamard([Causal(3), Toeplitz([1.0, 2.0, 3.0])])
    >>> print(np.array(mask.to_dense()))
    [[1. 0. 0.]
     [2. 1. 0.]
     [3. 2. 1.]]
    """

    def _rows(self, start, size):
        return self._product(lambda operator: operator._rows(start, size))

    def _rows_at(self, ids):
        return self._product(lambda operator: operator._rows_at(ids))

    def _traced_negative(self):
        return negative_product(self.operators)

    def _product(self, rows):
        return math.prod(ops.cast(rows(o), self.dtype) for o in self.operators)

    def _apply(self, x):
        last = x.shape[-3] == 1
        x = ops.swapaxes(ops.squeeze(x, -3), -1, -2) if last else x[..., 0]
        prepared = self._for_rows()
        length = tuple(ops.shape(x))[-2]

        def block(slices, start, shared):
            (ids,), (x, *tensors) = slices, shared
            rows = prepared.with_tensors(tensors)._rows_at(ids[:, 0])
            return matmul(ops.cast(rows, x.dtype), x)

        ids = ops.arange(length, dtype="int32")[:, None]
        size = static_size(self.batch_shape) * static_size((self.num_tokens,))
        rows = max(1, BLOCK_ELEMENTS // size)
        if self.num_tokens is not None:
            rows = min(rows, self.num_tokens)
        y = map_blocks(block, [ids], [x, *prepared.tensors()], -2, rows)
        if last:
            return ops.expand_dims(ops.swapaxes(y, -1, -2), -3)
        return y[..., None]
