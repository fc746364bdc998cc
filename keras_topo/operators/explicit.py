"""Attention with its scores: `(M * phi(Q) phi(K)^T) [V, 1]`."""

from keras import ops

from keras_topo.operators.blocks import map_rows


def explicit_attention(query, key, value, operator):
    """Scores in blocks of query rows.

    Returns:
        Numerators `(batch, heads, L, d)`, denominators `(batch, heads, L, 1)`.
    """
    operator = operator._for_rows()
    value_dim = value.shape[-1]

    def attend_rows(slices, start, shared):
        (query,), (key, value, *tensors) = slices, shared
        size = tuple(ops.shape(query))[-2]
        rows = operator.with_tensors(tensors)._rows(start, size)
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
        scores = scores * ops.cast(rows, scores.dtype)
        return ops.concatenate(
            [ops.matmul(scores, value), ops.sum(scores, -1, keepdims=True)], -1
        )

    shared = [key, value, *operator.tensors()]
    output = map_rows(attend_rows, query, shared, operator.plan.row_step)
    return tuple(ops.split(output, [value_dim], axis=-1))
