"""Masks that decay at one rate along a sequence."""

import numpy as np
from keras import ops

from keras_topo._backend import matmul, slice_axis
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.chunked import capped
from keras_topo.operators.ordered import (
    OrderedDecay,
    as_rates,
    require_direction,
    split_length,
)
from keras_topo.operators.parameters import accumulation_dtype
from keras_topo.operators.plan import Plan

# Long enough for matrix products to be worth their while, short enough for
# them to be few.
CHUNK = 32
# What is carried between chunks is a matrix of their number squared: beyond so
# many, they get longer.
MOST_CHUNKS = 4096


class ExponentialDecay(OrderedDecay):
    """The mask `M[i, j] = exp(-rate |i - j|)` of a sequence.

    An exponentiated affine function of the distance on a path; with `causal`,
    its entries with `j > i` are zero. Off the diagonal the matrix has rank one
    on each side, so the product is a scan: a dense product inside chunks, of 32
    tokens and more in sequences of more than 131,072, and one number per column
    carried from chunk to chunk in each direction.

    *Complexity*: products take about `36 L` multiply-adds per column up to
    131,072 tokens, `250 L` for a million.

    Args:
        rate: `(*batch,)`, non-negative rates of decay per token.
        length: int, `L`; or an int32 scalar where a traced function does not
            know it. Then there are no products, but rows and attention.
        causal: bool, whether tokens see none after them.
        reverse: bool; with `causal`, tokens see none before them instead:
            the transpose.

    Raises:
        ValueError: if a rate is known to be negative or not a number.

    Example:

    >>> print(np.array(ExponentialDecay(np.log(2.0), 3).to_dense()).round(2))
    [[1.   0.5  0.25]
     [0.5  1.   0.5 ]
     [0.25 0.5  1.  ]]
    """

    _fields = ("rate", "traced_length")

    def __init__(
        self,
        rate: TensorLike,
        length: int | Tensor,
        causal: bool = False,
        reverse: bool = False,
    ):
        require_direction(causal, reverse)
        self.rate = as_rates(rate, "rate", 0)
        self.causal = bool(causal)
        self.reverse = bool(reverse)
        length, self.traced_length = split_length(length)
        super().__init__(
            tuple(self.rate.shape) + (length, length), self.rate.dtype
        )

    def _plan(self):
        length = self.num_tokens
        return Plan(layouts=(1, length), held_per_column=length)

    def _directions(self):
        rates = self.rate[..., None]
        if not self.causal:
            return rates, rates
        return (None, rates) if self.reverse else (rates, None)

    def _weights(self, distance, dtype):
        """`exp(-rate distance)`, zero where `distance` is negative."""
        # In float16, distances are infinite, and infinity times zero is NaN.
        rate = capped(ops.cast(self.rate, accumulation_dtype(dtype)))
        rate = ops.reshape(rate, tuple(ops.shape(rate)) + (1, 1))
        distance = ops.cast(distance, rate.dtype)
        weights = ops.exp(-rate * ops.maximum(distance, 0))
        weights = ops.where(distance < 0, ops.zeros_like(weights), weights)
        return ops.cast(weights, dtype)

    def _apply(self, x):
        if x.shape[-3] == 1:
            return self._apply_last(x)
        return self._apply_first(x)

    def _chunks(self):
        chunk = max(CHUNK, -(-self.num_tokens // MOST_CHUNKS))
        chunk = min(chunk, self.num_tokens)
        count = -(-self.num_tokens // chunk)
        return chunk, count

    def _matrices(self, dtype):
        """Within a chunk, into the carries, between them, and out of them.

        There is one carry for each direction: what a chunk hands on to the
        next one, and to the one before.
        """
        chunk, count = self._chunks()
        i = np.arange(chunk, dtype="int32")
        k = np.arange(count, dtype="int32")
        distance = i[:, None] - i[None, :]
        passed = (k[:, None] - k[None, :] - 1) * chunk
        downward = (chunk - 1 - i, passed, i + 1)
        upward = (i, passed.T, chunk - i)
        if not self.causal:
            carries = [downward, upward]
        else:
            carries = [upward if self.reverse else downward]
        collect, between, expand = zip(*carries, strict=True)
        return (
            self._weights(self._seen(distance), dtype),
            self._weights(np.stack(collect), dtype),
            [self._weights(x, dtype) for x in between],
            self._weights(np.stack(expand), dtype),
        )

    # Both products below append the carries to the tokens of a chunk, so that
    # one matrix product gives its result; adding them afterwards would pass
    # everything through memory twice more.

    def _apply_last(self, x):
        chunk, count = self._chunks()
        within, collect, between, expand = self._matrices(x.dtype)
        within = ops.swapaxes(within, -1, -2)
        shape = tuple(ops.shape(x))
        lead, columns = shape[:-3], shape[-2]
        x = ops.squeeze(x, -3)
        padding = chunk * count - self.num_tokens
        if padding:
            zeros = ops.zeros(lead + (columns, padding), x.dtype)
            x = ops.concatenate([x, zeros], -1)
        x = ops.reshape(x, lead + (columns * count, chunk))
        if count == 1:
            y = matmul(x, within)
        else:
            leaving = matmul(x, ops.swapaxes(collect, -1, -2))
            lead = tuple(ops.shape(leaving))[:-2]
            leaving = ops.reshape(
                leaving, lead + (columns, count, len(between))
            )
            carries = [
                matmul(leaving[..., k], ops.swapaxes(weights, -1, -2))
                for k, weights in enumerate(between)
            ]
            carries = ops.reshape(
                ops.stack(carries, -1), lead + (columns * count, len(between))
            )
            x = ops.broadcast_to(x, lead + (columns * count, chunk))
            x = ops.concatenate([x, carries], -1)
            y = matmul(x, ops.concatenate([within, expand], -2))
        lead = tuple(ops.shape(y))[:-2]
        y = ops.reshape(y, lead + (1, columns, chunk * count))
        return slice_axis(y, 0, self.num_tokens, -1) if padding else y

    def _apply_first(self, x):
        chunk, count = self._chunks()
        within, collect, between, expand = self._matrices(x.dtype)
        shape = tuple(ops.shape(x))
        lead, columns = shape[:-3], shape[-2]
        x = ops.squeeze(x, -1)
        padding = chunk * count - self.num_tokens
        if padding:
            zeros = ops.zeros(lead + (padding, columns), x.dtype)
            x = ops.concatenate([x, zeros], -2)
        x = ops.reshape(x, lead + (count, chunk, columns))

        def per_chunk(matrix):
            return ops.expand_dims(matrix, -3)

        if count == 1:
            y = matmul(per_chunk(within), x)
        else:
            leaving = matmul(per_chunk(collect), x)
            lead = tuple(ops.shape(leaving))[:-3]
            carries = [
                matmul(weights, leaving[..., k, :])
                for k, weights in enumerate(between)
            ]
            x = ops.broadcast_to(x, lead + (count, chunk, columns))
            x = ops.concatenate([x, ops.stack(carries, -2)], -2)
            matrix = ops.concatenate([within, ops.swapaxes(expand, -1, -2)], -1)
            y = matmul(per_chunk(matrix), x)
        lead = tuple(ops.shape(y))[:-3]
        y = ops.reshape(y, lead + (chunk * count, columns, 1))
        return slice_axis(y, 0, self.num_tokens, -3) if padding else y

    def _rows_at(self, ids):
        columns = ops.arange(self.length, dtype="int32")
        return self._weights(self._seen(ids[:, None] - columns), self.dtype)

    def _seen(self, offsets):
        """Distances for offsets `i - j`, negative where the mask is zero."""
        if not self.causal:
            return abs(offsets)
        return -offsets if self.reverse else offsets

    def _transpose(self):
        if not self.causal:
            return self
        return ExponentialDecay(self.rate, self.length, True, not self.reverse)

    def _cost(self, columns):
        elements = self.num_tokens * columns
        return (
            4 * costs.LAUNCH
            + elements * (self._chunks()[0] + 4) * costs.SMALL_PRODUCT
            + 2 * costs.ELEMENT * elements
        )
