"""Magnitude-aware linear attention (MALA)."""

from collections.abc import Callable

from keras import ops

from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators.parameters import accumulation_dtype

# Of the factor: where it is larger, products with values might not be finite.
LARGEST_FACTOR = 1e3


def magnitude_aware(
    output: TensorLike,
    query_features: TensorLike,
    key_features: TensorLike,
    value: TensorLike,
    scale: TensorLike,
    mean: Callable[[Tensor], Tensor],
) -> Tensor:
    """Gives linear attention back the magnitude of queries (Fan et al., 2025).

    The normalizer of linear attention cancels the length of `phi(q)`: a query
    twice as long attends in the same way, where softmax attends more sharply.
    *Rectifying Magnitude Neglect in Linear Attention* (ICCV 2025) adds up

        (1 + z_i) A_ij - z_i M_ij / sum_l M_il,
        z_i = scale phi(q_i) . sum_j M_ij phi(k_j) / sum_j M_ij

    in place of the scores `A` of linear attention, here with a mask `M` (ones
    in the paper). Scores of a token still sum to one. They may be negative. The
    output is `x + z (x - u)`, with `x` that of linear attention and `u` the
    mean of the values under the mask alone: the longer the query, the farther
    from the mean. `z` is cut off at 1,000.

    Args:
        output: `x`, `(batch, heads, L, d)`.
        query_features, key_features: `(batch, heads, L, m)`, not negative.
        value: `(batch, heads, L, d)`.
        scale: broadcasts against `(heads, 1, 1)`, not negative.
        mean: function from `(batch, heads, L, n)` to its means under the mask,
            of the same shape.

    Returns:
        `(batch, heads, L, d)`, in the dtype of `output`.

    *Complexity*: that of the mask with one feature and `m + d` columns.
    """
    dtype = accumulation_dtype(output.dtype)
    wide = [ops.cast(x, dtype) for x in (value, key_features)]
    means = mean(ops.concatenate(wide, axis=-1))
    mean_value, mean_key = ops.split(means, [value.shape[-1]], axis=-1)
    factor = _factor(query_features, mean_key, scale)
    x = ops.cast(output, dtype)
    return ops.cast(x + factor * (x - mean_value), output.dtype)


def magnitude_scores(
    scores: Tensor,
    query_features: Tensor,
    key_features: Tensor,
    scale: Tensor,
    shares: Tensor,
) -> Tensor:
    """The scores of `magnitude_aware`, normalized.

    Args:
        scores: `A`, `(batch, heads, L, S)`, those of linear attention.
        query_features, key_features, scale: as of `magnitude_aware`.
        shares: the mask by row, `M_ij / sum_l M_il`, `(batch, heads, L, S)`.

    Returns:
        `(batch, heads, L, S)`.
    """
    factor = _factor(query_features, ops.matmul(shares, key_features), scale)
    return scores + factor * (scores - shares)


def _factor(query_features, mean_key, scale):
    """`z`, `(batch, heads, L, 1)`."""
    product = ops.sum(query_features * mean_key, axis=-1, keepdims=True)
    return ops.minimum(scale * product, LARGEST_FACTOR)
