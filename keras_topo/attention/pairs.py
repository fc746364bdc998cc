"""Attention over the pairs of a sparse mask, and its scores."""

import keras
from keras import ops

from keras_topo.operators.dense import HIDDEN
from keras_topo.operators.pairs import PairLayout


def attend_pairs(
    logits_of, query, key, value, mask, visible_keys, dropout, seed
):
    """`M * exp(logits)` at the pairs of `M`, normalized by row, times values.

    Args:
        logits_of: from the queries and the keys of pairs, `(..., n)` each, to
            logits `(...)`.
        query, key, value: `(batch, heads, L, n)`.
        mask: `SparsePairs`.
        visible_keys: `(batch, 1, 1, L)`, zero for padded keys, or `None`.
        dropout: float, rate at which normalized scores are dropped.
        seed: of the dropout.

    Returns:
        `(batch, heads, L, d)`.
    """
    layout, scores = softmax_pairs(logits_of, query, key, mask, visible_keys)
    if dropout:
        scores = keras.random.dropout(scores, dropout, seed=seed)
    return layout.sum_rows(ops.expand_dims(scores, -1) * layout.at_keys(value))


def softmax_pairs(logits_of, query, key, mask, visible_keys):
    """`M * exp(logits)` at the pairs of `M`, normalized by row.

    Args:
        logits_of, query, key, mask, visible_keys: as in `attend_pairs`.

    Returns:
        `PairLayout`, and scores in its order, `(outer * pairs, inner)`.
    """
    layout = PairLayout(mask.pairs, tuple(ops.shape(key))[:3])
    logits = logits_of(layout.at_queries(query), layout.at_keys(key))
    weights = layout.weights(mask.values, query.dtype)
    if visible_keys is not None:
        real = ops.broadcast_to(
            ops.swapaxes(visible_keys, -1, -2),
            tuple(ops.shape(key))[:-1] + (1,),
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
    return layout, _normalized(scores, layout)


def linear_pairs(query, key, mask):
    """`M (.) q . k` at the pairs of `M`, normalized by row.

    Args:
        query, key: features `(batch, heads, L, m)`, zero at padded keys.
        mask: `SparsePairs`.

    Returns:
        As `softmax_pairs`.
    """
    layout = PairLayout(mask.pairs, tuple(ops.shape(key))[:3])
    scores = ops.sum(layout.at_queries(query) * layout.at_keys(key), axis=-1)
    scores = scores * layout.weights(mask.values, scores.dtype)
    return layout, _normalized(scores, layout)


def _normalized(scores, layout):
    """Scores of pairs divided by the sums of their rows, where not zero."""
    total = ops.segment_sum(scores, layout.rows, num_segments=layout.num_rows)
    total = ops.where(total == 0, ops.ones_like(total), total)
    return scores / ops.take(total, layout.rows, axis=0)
