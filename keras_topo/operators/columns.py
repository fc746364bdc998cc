"""The lemma of Choromanski et al. (2022): attention through products."""

import math

import keras
from keras import ops

from keras_topo.operators.blocks import BLOCK_ELEMENTS, map_blocks
from keras_topo.operators.shapes import static_size


def columns_attention(query, key, value, operator):
    """Attention as `m (d + 1)` columns of the operator's product.

    `X_j = phi(k_j) (x) [v_j; 1]`, `Y = M X`, and `phi(q_i)^T Y_i` are the
    numerator and the denominator of token `i`; in blocks of value columns, so
    that no tensor of `L x m x (d + 1)` numbers is held.

    Returns:
        Numerators `(batch, heads, L, d)`, denominators `(batch, heads, L, 1)`.
    """
    length = tuple(ops.shape(value))[-2]
    plan = operator.plan
    split = plan.layouts[0]
    if split == operator.num_tokens:
        split = 1
    value_dim = value.shape[-1]
    total = ops.sum(ops.abs(query), axis=-1, keepdims=True)
    ones = ops.ones_like(value[..., :1])
    value = ops.concatenate([value, ones], axis=-1)

    # (batch, heads, A, columns, B): see MaskOperator on layouts.
    def lay_out(x):
        shape = tuple(ops.shape(x))
        x = ops.reshape(x, shape[:-2] + (split, length // split, shape[-1]))
        return ops.swapaxes(x, -1, -2)

    query, key, value = map(lay_out, (query, key, value))
    num_features = query.shape[-2]
    lead = tuple(ops.shape(query))[:-3]

    def attend_columns(slices, start, shared):
        (value,), (query, key, *tensors) = slices, shared
        columns = value.shape[-2]
        # X[f, c] = phi(k)_f v_c
        x = ops.expand_dims(key, -2) * ops.expand_dims(value, -3)
        shape = (split, num_features * columns, length // split)
        y = operator.with_tensors(tensors).apply(ops.reshape(x, lead + shape))
        y = ops.cast(y, query.dtype)  # a float64 mask multiplies in float64
        shape = (split, num_features, columns, length // split)
        y = ops.reshape(y, lead + shape)
        return ops.sum(ops.expand_dims(query, -2) * y, axis=-3)

    held = plan.held_per_column
    elements = max(1, static_size((*query.shape[:2], held, num_features)))
    # Of an unknown batch there may be one.
    columns = math.prod(n or 1 for n in (*query.shape[:2], num_features))
    least = -(-plan.fewest_columns // columns)
    block = min(value_dim + 1, max(least, BLOCK_ELEMENTS // elements))
    # As equal as they can be: a short last block wastes its launches.
    block = -(-(value_dim + 1) // -(-(value_dim + 1) // block))
    output = map_blocks(
        attend_columns,
        [value],
        [query, key, *operator.tensors()],
        axis=-2,
        block=block,
        checkpoint=block <= value_dim,
    )
    output = ops.swapaxes(output, -1, -2)
    output = ops.reshape(output, lead + (length, value_dim + 1))
    if not plan.exact:
        output = _without_noise(output, total)
    return tuple(ops.split(output, [value_dim], axis=-1))


def _without_noise(output, total):
    """Zeros for tokens whose weights are no more than the rounding of an FFT,
    which knows them relative to the largest: their quotient would be anything.

    Args:
        output: `(batch, heads, L, d + 1)`, the denominators last.
        total: `(batch, heads, L, 1)`, sums of the features of queries: small
            queries have small weights, and these are right.
    """
    dtype = keras.backend.standardize_dtype(output.dtype)
    rounding = 2e-6 if dtype == "float32" else 4e-15
    small = ops.where(total == 0, ops.ones_like(total), total)
    weights = ops.abs(output[..., -1:]) / small
    # An empty batch has no largest weight.
    largest = ops.max(weights, axis=-2, keepdims=True, initial=0.0)
    known = ops.stop_gradient(weights > rounding * largest)
    return ops.where(known, output, ops.zeros_like(output))
