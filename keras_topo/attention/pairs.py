"""Softmax attention over the pairs of a sparse mask."""

import math

import keras
from keras import ops

from keras_topo.operators.dense import HIDDEN
from keras_topo.operators.sparse import flat_pairs


def attend_pairs(
    logits_of, query, key, value, mask, visible_keys, dropout, seed
):
    """`M * exp(logits)` at the pairs of `M`, normalised by row, times values.

    Args:
        logits_of: from the queries and the keys of pairs, `(..., n)` each, to
            logits `(...)`.
        query, key, value: `(batch, heads, L, n)`.
        mask: `SparsePairs`.
        visible_keys: `(batch, 1, 1, L)`, zero for padded keys, or `None`.
        dropout: float, rate at which normalised scores are dropped.
        seed: of the dropout.

    Returns:
        `(batch, heads, L, d)`.
    """
    shape = tuple(ops.shape(value))
    batch, heads, length, value_dim = shape
    # Axes on which pairs differ join the tokens; the others stay inside, so
    # that what is gathered for a pair lies together.
    pairs = mask.pairs
    lead = (1, 1) + tuple(pairs.shape[:-2])
    per_head, per_example = lead[-1] != 1, lead[-2] != 1
    if per_head:
        outer, inner = (batch, heads), (1, 1)
    elif per_example:
        outer, inner = (batch, 1), (1, heads)
    else:
        outer, inner = (1, 1), (batch, heads)
        pairs = ops.reshape(pairs, tuple(ops.shape(pairs))[-2:])
    rows, keys = flat_pairs(pairs, outer, length)
    num_rows = math.prod(outer) * length

    def tokens_first(x, count):
        """`(batch, heads, count, n)` to `(outer * count, inner, n)`."""
        if not per_head:
            # (batch, count, heads, n) or (count, batch, heads, n)
            x = ops.moveaxis(x, 2, 1 if per_example else 0)
        return ops.reshape(
            x, (math.prod(outer) * count, math.prod(inner), x.shape[-1])
        )

    def at_keys(x):
        return ops.take(tokens_first(x, length), keys, axis=0)

    queries = ops.take(tokens_first(query, length), rows, axis=0)
    logits = logits_of(queries, at_keys(key))
    count = tuple(ops.shape(mask.values))[-1]
    weights = ops.broadcast_to(
        ops.cast(mask.values, query.dtype), (batch, heads, count)
    )
    weights = tokens_first(ops.expand_dims(weights, -1), count)[..., 0]
    if visible_keys is not None:
        real = ops.broadcast_to(
            ops.swapaxes(visible_keys, -1, -2), (batch, heads, length, 1)
        )
        weights = weights * at_keys(real)[..., 0]

    visible = weights != 0
    logits = ops.where(visible, logits, HIDDEN)
    top = ops.segment_max(
        ops.stop_gradient(logits), rows, num_segments=num_rows
    )
    # Of a row without visible pairs `exp(0)` meets weights of zero.
    scores = ops.exp(logits - ops.take(top, rows, axis=0)) * weights
    total = ops.segment_sum(scores, rows, num_segments=num_rows)
    empty = ops.abs(total) < 1e-30
    total = ops.where(empty, ops.ones_like(total), total)
    scores = scores / ops.take(total, rows, axis=0)
    if dropout:
        scores = keras.random.dropout(scores, dropout, seed=seed)
    output = ops.segment_sum(
        ops.expand_dims(scores, -1) * at_keys(value),
        rows,
        num_segments=num_rows,
    )
    if per_head:
        return ops.reshape(output, shape)
    if per_example:
        output = ops.reshape(output, (batch, length, heads, value_dim))
        return ops.moveaxis(output, 1, 2)
    output = ops.reshape(output, (length, batch, heads, value_dim))
    return ops.moveaxis(output, 0, 2)
