"""The scores of attention, normalized: what the output averages values by."""

import math
from typing import Literal

from keras import ops

from keras_topo.annotations import Tensor, TensorLike
from keras_topo.arguments import one_of
from keras_topo.attention.inputs import (
    as_operator,
    drop_padding,
    normalize,
    padding_axes,
    refuse_negative,
)
from keras_topo.attention.pairs import linear_pairs, softmax_pairs
from keras_topo.attention.softmax import ADDITIVE, DOT, softmax
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.dense import HIDDEN, DenseExp
from keras_topo.operators.parameters import accumulation_dtype
from keras_topo.operators.sparse import SparsePairs

KINDS = ("linear", "softmax", "additive")


def attention_scores(
    kind: Literal["linear", "softmax", "additive"],
    query: TensorLike,
    key: TensorLike,
    mask: MaskOperator | TensorLike | None = None,
    padding_mask: TensorLike | None = None,
    allow_negative: bool = False,
    of_pairs: bool = False,
) -> Tensor:
    """Normalized scores, `A = D^-1 (M (.) K)`, computed explicitly.

    `A V` is the output of `masked_linear_attention`,
    `masked_softmax_attention` or `masked_additive_attention`, which need not
    hold `A` itself.

    Args:
        kind: `"linear"`, `K_ij = q_i . k_j` of features; `"softmax"`, `exp(q_i
            . k_j / sqrt(d_qk))`; or `"additive"`, `exp(leaky_relu(q_i +
            k_j))`.
        query: `(batch, heads, L, n)`; with one feature for `"additive"`.
        key: `(batch, heads, S, n)`; `S` is `L` where there is a mask.
        mask, allow_negative: as in `masked_linear_attention`.
        padding_mask: `(batch, S)`, boolean, `True` for real keys.
        of_pairs: bool, whether to return the scores of the pairs of `mask`, a
            `SparsePairs`, instead of a matrix.

    Returns:
        `(batch, heads, L, S)`, or `(batch, heads, pairs)`, in float32 at
        least. The scores of a query sum to 1, or to 0 where it sees nothing.
        They are zero for padded keys and where the mask is zero.

    Raises:
        ValueError: if `kind` is unknown, the mask does not fit or is known to
            have negative entries, or `of_pairs` comes without pairs.

    *Complexity*: `O(L S n)` time and `L S` scores in memory for each head,
    whatever the mask; of pairs `O(pairs n)`.

    Example:

    >>> query, key = np.zeros((2, 1, 1, 3, 8))
    >>> causal = keras_topo.operators.Causal(3)
    >>> scores = attention_scores("softmax", query, key, causal)
    >>> print(np.array(scores[0, 0]).round(2))
    [[1.   0.   0.  ]
     [0.5  0.5  0.  ]
     [0.33 0.33 0.33]]
    """
    one_of(kind, "kind", KINDS)
    query, key = ops.convert_to_tensor(query), ops.convert_to_tensor(key)
    dtype = accumulation_dtype(query.dtype, key.dtype)
    query, key = ops.cast(query, dtype), ops.cast(key, dtype)
    key = drop_padding(key, padding_mask)
    mask = as_operator(mask, key, allow_negative)
    visible = None
    if padding_mask is not None:
        visible = ops.swapaxes(padding_axes(padding_mask, key), -1, -2)
    if kind == "softmax":
        query = query / math.sqrt(query.shape[-1])
    logits_of = ADDITIVE if kind == "additive" else DOT
    if of_pairs:
        if not isinstance(mask, SparsePairs):
            raise ValueError(
                "`of_pairs=True` expects a mask of pairs. Received: "
                f"mask={mask}"
            )
        if kind == "linear":
            layout, scores = linear_pairs(query, key, mask)
        else:
            layout, scores = softmax_pairs(
                logits_of[1], query, key, mask, visible
            )
        scores = layout.by_head(scores)
        return refuse_negative(scores, mask, allow_negative)
    logits, weights = logits_of[0](query, key), visible
    if isinstance(mask, DenseExp):
        # Its logarithm, which may be too large for an exponential.
        bias = mask.log_rows(0, tuple(ops.shape(query))[-2])
        bias = ops.maximum(ops.cast(bias, dtype), HIDDEN)
        if kind != "linear":
            logits = logits + bias
            bias = ops.cast(bias > HIDDEN / 2, dtype)
        else:
            bias = ops.exp(bias)
        weights = bias if weights is None else weights * bias
    elif mask is not None:
        rows = mask._for_rows()._rows(0, tuple(ops.shape(query))[-2])
        rows = ops.cast(rows, dtype)
        weights = rows if weights is None else weights * rows
    if kind == "linear":
        scores = logits if weights is None else logits * weights
        scores = normalize(scores, ops.sum(scores, axis=-1, keepdims=True))
    elif weights is None:
        scores = softmax(logits)
    else:
        logits = ops.where(weights != 0, logits, HIDDEN)
        top = ops.max(logits, axis=-1, keepdims=True, initial=HIDDEN)
        # In a row without visible entries `exp(0)` meets weights of zero.
        scores = ops.exp(logits - ops.stop_gradient(top)) * weights
        scores = normalize(scores, ops.sum(scores, axis=-1, keepdims=True))
    return refuse_negative(scores, mask, allow_negative)
