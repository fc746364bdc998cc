"""Linear attention whose mask has low rank: matrix products alone.

All functions return numerators `(..., L, d)` and denominators `(..., L, 1)`.
"""

from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.operators.blocks import BLOCK_ELEMENTS, map_blocks
from keras_topo.operators.shapes import static_size


def linear_attention(
    query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Without a mask, `phi(Q) (phi(K)^T [V, 1])`."""
    keys = ops.swapaxes(key, -1, -2)
    context = ops.matmul(keys, value)
    total = ops.sum(keys, axis=-1, keepdims=True)
    return ops.matmul(query, context), ops.matmul(query, total)


def low_rank_attention(
    query: Tensor, key: Tensor, value: Tensor, factors: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Linear attention with the features `u (x) phi(q)` and `w (x) phi(k)`.

    Term by term, `phi(K)^T diag(w_r) V` and `diag(u_r) phi(Q)` times it: the
    factor of the mask multiplies the values before, and the products after,
    which is the same and leaves matrix products of the best shape. The
    normalizer needs no such products: `w^T phi(K)` is small.
    """
    u, w = [ops.cast(factor, value.dtype) for factor in factors]
    rank, num_features = u.shape[-1], query.shape[-1]
    length, value_dim = value.shape[-2], value.shape[-1]

    def summarize(slices, start, shared):
        key, value, w = slices
        weighted = ops.expand_dims(ops.swapaxes(w, -1, -2), -1)
        weighted = weighted * ops.expand_dims(value, -3)
        keys = ops.expand_dims(ops.swapaxes(key, -1, -2), -3)
        return ops.matmul(keys, weighted)

    def attend(slices, start, shared):
        (query, u), (context,) = slices, shared
        terms = ops.matmul(query, context)
        shape = tuple(ops.shape(terms))[:-1]
        terms = ops.reshape(terms, shape + (rank, value_dim))
        return ops.squeeze(ops.matmul(ops.expand_dims(u, -2), terms), -2)

    elements = static_size(tuple(value.shape[:2])) * rank * value_dim
    elements = max(1, elements)  # an empty batch
    block = max(1, BLOCK_ELEMENTS // elements)
    if length is not None:
        block = min(length, block)
    blocks = {"axis": -2, "block": block, "checkpoint": block != length}
    context = map_blocks(summarize, [key, value, w], [], reduce="sum", **blocks)
    # (..., r, m, d) to (..., m, r d)
    context = ops.swapaxes(context, -3, -2)
    lead = tuple(ops.shape(context))[:-3]
    context = ops.reshape(context, lead + (num_features, rank * value_dim))
    numerator = map_blocks(attend, [query, u], [context], **blocks)
    totals = ops.matmul(ops.swapaxes(w, -1, -2), key)
    denominator = ops.matmul(query, ops.swapaxes(totals, -1, -2))
    return numerator, ops.sum(denominator * u, axis=-1, keepdims=True)
