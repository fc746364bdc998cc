"""Masked linear attention, with the mask as an operator.

`A = M * K(Q, K)` (elementwise), `D = diag(A 1)`, output `D^-1 A V`
(Choromanski et al., 2022).
"""

from keras import ops

from keras_topo.annotations import FormName, Tensor, TensorLike
from keras_topo.attention.inputs import (
    as_operator,
    check_inputs,
    drop_padding,
    normalize,
    refuse_negative,
)
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.forms import IMPLEMENTATIONS
from keras_topo.operators.linear import linear_attention


def masked_linear_attention(
    query_features: TensorLike,
    key_features: TensorLike,
    value: TensorLike,
    mask: MaskOperator | TensorLike | None = None,
    padding_mask: TensorLike | None = None,
    implementation: FormName = "auto",
    allow_negative: bool = False,
) -> Tensor:
    """Attention with scores `M[i, j] phi(q_i) . phi(k_j)`, normalized by row.

    The lemma of Choromanski et al. (2022): with
    `X_j = phi(k_j) (x) [v_j; 1]` and `Y = M X`, the output of token `i` is
    `phi(q_i)^T Y_i`, its last entry being the normalizer. `m (d + 1)` products
    with the mask, whatever the mask, take the place of the `L x L` scores.

    Args:
        query_features: `(batch, heads, L, m)`, non-negative for a safe
            normalizer.
        key_features: `(batch, heads, L, m)`.
        value: `(batch, heads, L, d)`.
        mask: a `MaskOperator` whose batch axes broadcast against `(batch,
            heads)`; or its matrix, `(..., L, L)`; or `None` for unmasked
            linear attention.
        padding_mask: `(batch, L)`, boolean, `True` for real tokens. Padded
            keys get zero features, which removes them exactly.
        implementation: `"auto"` takes the form of attention that costs least
            by the cost model of the operators (`mask.explain` says which);
            `"explicit"` computes the scores, in blocks; `"fast"` is the
            cheapest form but that one; the name of a form is that form. The
            results are the same.
        allow_negative: bool, whether the mask may have negative entries. The
            caller then answers for the normalizer, the sum of a row of
            scores: where it comes near zero the output grows without bound.
            By default, masks known to have negative entries
            (`mask.nonnegative` is `False`) are refused. Up to a million
            parameters of the mask are looked at. Traced functions cannot
            raise: for tables and matrices with negative entries they return
            NaN.

    Returns:
        `(batch, heads, L, d)` in the dtype of `value`. Computed in float32 at
        least. A token whose weights are all zero gets zeros. Products by FFT
        know such zeros, and rows far below the largest sum of the head, only
        to float32 rounding relative to that sum.

    Raises:
        ValueError: if shapes do not match, `implementation` is unknown or the
            mask is known to have negative entries.

    *Complexity*: explicit `O(L^2 (m + d))`, memory `O(L)` times the rows of a
    block; columns as `m (d + 1)` columns of the operator's product, memory `O(L
    m)` times the columns of a block; others as the operator says. None keeps
    intermediate results of blocks for the gradient, which recomputes them.

    Example:

    >>> q, k, v = np.random.rand(3, 1, 8, 256, 16)  # a grid of 16 x 16 tokens
    >>> table = np.random.rand(8, 31, 31)
    >>> mask = keras_topo.operators.BlockToeplitz(table, (16, 16))
    >>> tuple(masked_linear_attention(q, k, v, mask).shape)
    (1, 8, 256, 16)
    """
    query_features, key_features, value, dtype = check_inputs(
        query_features=query_features, key_features=key_features, value=value
    )
    # Both: what stands at padded places may be infinite, and zero times that
    # is not zero.
    key_features = drop_padding(key_features, padding_mask)
    value = drop_padding(value, padding_mask)
    mask = as_operator(mask, value, allow_negative)
    tensors = query_features, key_features, value
    if mask is None:
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"`implementation` expects one of {IMPLEMENTATIONS}. Received: "
                f"implementation={implementation!r}"
            )
        parts = linear_attention(*tensors)
    else:
        parts = mask.attend(*tensors, implementation)
    output = refuse_negative(normalize(*parts), mask, allow_negative)
    return ops.cast(output, dtype)
