"""Masks that decay at a rate of its own for each token."""

import copy
import math

from keras import ops

from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.chunked import CHUNK, LongSums, chunked_attention
from keras_topo.operators.ordered import (
    OrderedDecay,
    as_rates,
    require_direction,
)
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import (
    agree,
    broadcast_batch,
    broadcast_sizes,
)


class GatedDecay(OrderedDecay):
    """The mask `M[i, j] = exp(-|c_i - c_j|)`, `c` the cumulative sum of rates.

    The rate of a token says how much of what came before it fades there: zero
    keeps all, and a large rate starts anew. With equal rates this is
    `ExponentialDecay`. In `M[i, j]` with `j < i` the rates of the tokens `j +
    1` to `i` count, and with `j > i` those of `i + 1` to `j`.

    *Complexity*: products as attention with one feature, about `70 L`
    multiply-adds per column.

    Args:
        rates: `(*batch, L)`, non-negative; infinity is a rate.
        causal: bool, whether tokens see none after them.
        backward_rates: `(*batch, L)`, rates of the entries with `j > i`, whose
            batch axes broadcast against those of `rates`; by default the
            same rates.
        reverse: bool; with `causal`, tokens see none before them instead:
            the transpose.

    Raises:
        ValueError: if a rate is known to be negative or not a number, if
            `rates` and `backward_rates` differ in length, or if a causal mask
            is given `backward_rates`.

    Example:

    >>> print(np.array(GatedDecay(np.log([1.0, 2.0, 4.0])).to_dense()).round(3))
    [[1.    0.5   0.125]
     [0.5   1.    0.25 ]
     [0.125 0.25  1.   ]]
    """

    # `_sums` holds what `_for_rows` has prepared.
    _fields = ("rates", "backward_rates", "_sums")

    def __init__(
        self,
        rates: TensorLike,
        causal: bool = False,
        backward_rates: TensorLike | None = None,
        reverse: bool = False,
    ):
        require_direction(causal, reverse)
        self.rates = as_rates(rates, "rates", 1)
        self.backward_rates = None
        self.causal = bool(causal)
        self.reverse = bool(reverse)
        self._sums = None
        *batch, length = self.rates.shape
        if backward_rates is not None:
            if causal:
                raise ValueError(
                    "`backward_rates` expects None if the mask is causal. "
                    f"Received: causal={causal} and backward_rates"
                )
            self.backward_rates = as_rates(backward_rates, "backward_rates", 1)
            if not agree(self.backward_rates.shape[-1:], (length,)):
                raise ValueError(
                    "`backward_rates` expects the rates of as many tokens as "
                    f"`rates`, {length}. Received: backward_rates of shape "
                    f"{tuple(self.backward_rates.shape)}"
                )
            batch = broadcast_batch(batch, self.backward_rates.shape[:-1])
        super().__init__((*batch, length, length), self.rates.dtype)

    @property
    def length(self) -> int | Tensor:
        return tuple(ops.shape(self.rates))[-1]

    def _plan(self):
        length = self.num_tokens
        held = None if length is None else 2 * length
        return Plan(layouts=(length,), held_per_column=held)

    def _directions(self):
        if not self.causal:
            backward = self.backward_rates
            return self.rates, self.rates if backward is None else backward
        return (None, self.rates) if self.reverse else (self.rates, None)

    def _apply(self, x):
        """Attention with one feature, which is one for all tokens."""
        x = ops.squeeze(x, -1)
        rates = self._distinct_rates()
        sizes = broadcast_sizes(
            tuple(ops.shape(x))[:-2], *[tuple(ops.shape(r))[:-1] for r in rates]
        )
        count = math.prod(sizes)
        length, columns = ops.shape(x)[-2:]
        x = ops.broadcast_to(x, sizes + (length, columns))
        x = ops.reshape(x, (count, 1, length, columns))
        rates = [
            ops.reshape(
                ops.broadcast_to(r, sizes + (length,)), (count, 1, length)
            )
            for r in rates
        ]
        forward, backward = rates[0], rates[-1]
        if self.causal and self.reverse:
            forward = None
        elif self.causal:
            backward = None
        ones = ops.ones_like(x[..., :1])
        y, _ = chunked_attention(ones, ones, x, forward, backward)
        return ops.reshape(y, sizes + (length, columns, 1))

    def _for_rows(self):
        prepared = copy.copy(self)
        prepared._sums = self._sums_of_rates()
        return prepared

    def _sums_of_rates(self):
        return [
            part
            for rates in self._distinct_rates()
            for part in LongSums.of(rates).parts
        ]

    def _distinct_rates(self):
        found = [self.rates, self.backward_rates]
        return [rates for rates in found if rates is not None]

    def _rows_at(self, ids):
        parts = self._sums or self._sums_of_rates()
        sums = [LongSums(*parts[k : k + 2]) for k in range(0, len(parts), 2)]
        later = ids[:, None] - ops.arange(self.length, dtype="int32")
        # Of the tokens between, on either side of the diagonal.
        rates = ops.where(
            later >= 0, sums[0].between(ids), -sums[-1].between(ids)
        )
        rows = ops.exp(-rates)
        if not self.causal:
            return rows
        hidden = later > 0 if self.reverse else later < 0
        return ops.where(hidden, ops.zeros_like(rows), rows)

    def _transpose(self):
        if self.causal:
            return GatedDecay(self.rates, True, reverse=not self.reverse)
        if self.backward_rates is None:
            return self
        return GatedDecay(self.backward_rates, backward_rates=self.rates)

    def _cost(self, columns):
        elements = self.num_tokens * columns
        return 16 * costs.LAUNCH + elements * (
            (CHUNK + 4) * costs.SMALL_PRODUCT + 4 * costs.ELEMENT
        )
