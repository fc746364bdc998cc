"""Softmax attention over the pairs of a sparse mask."""

import keras
from keras import ops

from keras_topo.operators.dense import HIDDEN
from keras_topo.operators.pairs import PairLayout


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
    layout = PairLayout(mask.pairs, tuple(ops.shape(value))[:3])
    logits = logits_of(layout.at_queries(query), layout.at_keys(key))
    weights = layout.weights(mask.values, query.dtype)
    if visible_keys is not None:
        real = ops.broadcast_to(
            ops.swapaxes(visible_keys, -1, -2),
            tuple(ops.shape(value))[:-1] + (1,),
        )
        weights = weights * layout.at_keys(real)[..., 0]

    visible = weights != 0
    logits = ops.where(visible, logits, HIDDEN)
    rows, num_rows = layout.rows, layout.num_rows
    top = ops.segment_max(
        ops.stop_gradient(logits), rows, num_segments=num_rows
    )
    # Of a row without visible pairs `exp(0)` meets weights of zero.
    scores = ops.exp(logits - ops.take(top, rows, axis=0)) * weights
    total = ops.segment_sum(scores, rows, num_segments=num_rows)
    total = ops.where(total == 0, ops.ones_like(total), total)
    scores = scores / ops.take(total, rows, axis=0)
    if dropout:
        scores = keras.random.dropout(scores, dropout, seed=seed)
    return layout.sum_rows(ops.expand_dims(scores, -1) * layout.at_keys(value))
