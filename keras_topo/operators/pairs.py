"""Attention over the pairs of a sparse mask: their scores alone."""

import math

from keras import ops

from keras_topo.annotations import Tensor


class PairLayout:
    """Where the two ends of pairs find their tokens.

    Axes on which pairs differ join the tokens; the others stay inside, so that
    what is gathered for a pair lies together.

    Args:
        pairs: `(*batch, pairs, 2)`, int32, with batch axes that broadcast to
            `(batch, heads)`.
        sizes: batch, heads and tokens, ints or traced.
    """

    def __init__(self, pairs, sizes):
        self.batch, self.heads, self.length = batch, heads, length = sizes
        lead = (1, 1) + tuple(pairs.shape[:-2])
        self._per_head = lead[-1] != 1
        self._per_example = lead[-2] != 1
        if self._per_head:
            outer, self._inner = (batch, heads), (1, 1)
        elif self._per_example:
            outer, self._inner = (batch, 1), (1, heads)
        else:
            outer, self._inner = (1, 1), (batch, heads)
            pairs = ops.reshape(pairs, tuple(ops.shape(pairs))[-2:])
        self._outer = math.prod(outer)
        self.rows, self._keys = flat_pairs(pairs, outer, length)
        self.num_rows = self._outer * length

    def tokens_first(self, x):
        """`(batch, heads, count, n)` to `(outer * count, inner, n)`."""
        count = tuple(ops.shape(x))[-2]
        if not self._per_head:
            # (batch, count, heads, n) or (count, batch, heads, n)
            x = ops.moveaxis(x, 2, 1 if self._per_example else 0)
        shape = (self._outer * count, math.prod(self._inner), x.shape[-1])
        return ops.reshape(x, shape)

    def at_queries(self, x):
        """Of each pair, `x` `(batch, heads, L, n)` at its first token."""
        return ops.take(self.tokens_first(x), self.rows, axis=0)

    def at_keys(self, x):
        """The same at its second token."""
        return ops.take(self.tokens_first(x), self._keys, axis=0)

    def weights(self, values, dtype):
        """Values `(*batch, pairs)` as `(outer * pairs, inner)`."""
        count = tuple(ops.shape(values))[-1]
        values = ops.broadcast_to(
            ops.cast(values, dtype), (self.batch, self.heads, count)
        )
        return self.tokens_first(ops.expand_dims(values, -1))[..., 0]

    def by_head(self, x):
        """What `weights` gives, as `(batch, heads, pairs)` again."""
        if self._per_head:
            return ops.reshape(x, (self.batch, self.heads, -1))
        if self._per_example:
            x = ops.reshape(x, (self.batch, -1, self.heads))
            return ops.moveaxis(x, 1, 2)
        x = ops.reshape(x, (-1, self.batch, self.heads))
        return ops.moveaxis(x, 0, 2)

    def sum_rows(self, terms):
        """Sums over the pairs of each query, `(batch, heads, L, n)`."""
        total = ops.segment_sum(terms, self.rows, num_segments=self.num_rows)
        size = terms.shape[-1]
        sizes = self.batch, self.heads, self.length
        if self._per_head:
            return ops.reshape(total, (*sizes, size))
        batch, heads, length = sizes
        if self._per_example:
            total = ops.reshape(total, (batch, length, heads, size))
            return ops.moveaxis(total, 1, 2)
        total = ops.reshape(total, (length, batch, heads, size))
        return ops.moveaxis(total, 0, 2)


def pair_attention(
    query: Tensor, key: Tensor, value: Tensor, pairs: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Linear attention over pairs: `M_ij (phi(q_i) . phi(k_j))` at each.

    Args:
        query, key: `(batch, heads, L, m)`.
        value: `(batch, heads, L, d)`.
        pairs: `(*batch, pairs, 2)`.
        values: `(*batch, pairs)`, the entries of the mask.

    Returns:
        Numerators `(batch, heads, L, d)`, denominators `(batch, heads, L, 1)`.
    """
    layout = PairLayout(pairs, tuple(ops.shape(value))[:3])
    scores = ops.sum(layout.at_queries(query) * layout.at_keys(key), axis=-1)
    scores = scores * layout.weights(values, scores.dtype)
    scores = ops.expand_dims(scores, -1)
    numerator = layout.sum_rows(scores * layout.at_keys(value))
    return numerator, layout.sum_rows(scores)


def flat_pairs(pairs, lead, length):
    """Rows and columns of pairs, counted through examples of `length`.

    Args:
        pairs: `(*batch, pairs, 2)`, with batch axes that broadcast to `lead`.
        lead: sizes of the batch axes, ints or traced.
        length: tokens of an example.

    Returns:
        Two int tensors of `prod(lead) * pairs` entries.
    """
    total, count = math.prod(lead), tuple(ops.shape(pairs))[-2]
    pairs = ops.broadcast_to(pairs, tuple(lead) + (count, 2))
    pairs = ops.reshape(pairs, (total, count, 2))
    offset = length * ops.arange(total, dtype="int32")
    pairs = ops.reshape(pairs + offset[:, None, None], (total * count, 2))
    return pairs[:, 0], pairs[:, 1]
