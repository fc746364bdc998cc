"""Masked softmax attention and masked additive attention.

Scores `M[i, j] exp(logit_ij)`, normalized by row.
"""

import math

import keras
from keras import ops

from keras_topo._backend import has_fused_attention
from keras_topo.annotations import Seed, Tensor, TensorLike
from keras_topo.attention.inputs import (
    as_operator,
    check_inputs,
    drop_padding,
    normalize,
    padding_axes,
    refuse_negative,
)
from keras_topo.attention.pairs import attend_pairs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.blocks import map_rows
from keras_topo.operators.dense import HIDDEN, DenseExp
from keras_topo.operators.sparse import SparsePairs


def masked_softmax_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    mask: MaskOperator | TensorLike | None = None,
    padding_mask: TensorLike | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    allow_negative: bool = False,
) -> Tensor:
    """Softmax attention whose exponentials are multiplied by a mask.

    Scores `M[i, j] exp(q_i . k_j / sqrt(d_qk))`, normalized by row: with
    `M = exp(N)` this is ordinary attention with the additive bias `N`. The
    maximum that is subtracted from a row's logits for stability is taken over
    its visible entries (`M[i, j] != 0`), so that no row underflows.

    Args:
        query: `(batch, heads, L, d_qk)`, not scaled.
        key: `(batch, heads, L, d_qk)`.
        value: `(batch, heads, L, d)`.
        mask: as in `masked_linear_attention`. With `SparsePairs` only the
            pairs are computed; `DenseExp` is the bias `N` itself, and fastest.
        padding_mask: `(batch, L)`, boolean, `True` for real tokens.
        dropout: float, rate at which normalized scores are dropped. Without
            pairs, the scores of a head are then kept whole.
        seed: int or `keras.random.SeedGenerator`, of the dropout.
        allow_negative: as in `masked_linear_attention`.

    Returns:
        `(batch, heads, L, d)` in the dtype of `value`, computed in float32 at
        least. A token that sees nothing gets zeros.

    Raises:
        ValueError: if shapes do not match, or the mask is known to have
            negative entries.

    *Complexity*: `O(L^2 (d_qk + d))`, in blocks of query rows; with pairs
    `O(pairs (d_qk + d))`.

    Example:

    >>> q, k, v = np.random.rand(3, 1, 4, 10, 8)
    >>> mask = keras_topo.operators.ExponentialDecay(0.5, length=10)
    >>> tuple(masked_softmax_attention(q, k, v, mask).shape)
    (1, 4, 10, 8)
    """
    query, key, value, dtype = check_inputs(query=query, key=key, value=value)
    query = query / math.sqrt(query.shape[-1])
    output = _softmax_attention(
        DOT,
        query,
        key,
        value,
        mask,
        padding_mask,
        dropout,
        seed,
        allow_negative,
    )
    return ops.cast(output, dtype)


def masked_additive_attention(
    query_scores: TensorLike,
    key_scores: TensorLike,
    value: TensorLike,
    mask: MaskOperator | TensorLike | None = None,
    padding_mask: TensorLike | None = None,
    dropout: float = 0.0,
    seed: Seed = None,
    allow_negative: bool = False,
) -> Tensor:
    """Attention with additive scores, the form of GAT, times a mask.

    Scores `M[i, j] exp(leaky_relu(s_i + t_j))` with a slope of 0.2 below zero,
    normalized by row (Velickovic et al., 2018); with the adjacency matrix of a
    graph with self-loops as the mask this is GAT.

    Args:
        query_scores: `(batch, heads, L, 1)`, `s`.
        key_scores: `(batch, heads, L, 1)`, `t`.
        value, mask, padding_mask, dropout, seed, allow_negative: as in
            `masked_softmax_attention`.

    Returns:
        `(batch, heads, L, d)` in the dtype of `value`.

    Raises:
        ValueError: if shapes do not match, or the mask is known to have
            negative entries.

    *Complexity*: `O(L^2 d)`, in blocks of query rows; with pairs
    `O(pairs d)`.

    Example:

    >>> s, t = np.random.rand(2, 1, 4, 3, 1)  # four heads, three nodes
    >>> value = np.random.rand(1, 4, 3, 8)
    >>> path = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    >>> tuple(masked_additive_attention(s, t, value, mask=path).shape)
    (1, 4, 3, 8)
    """
    query, key, value, dtype = check_inputs(
        query_scores=query_scores, key_scores=key_scores, value=value
    )
    if query.shape[-1] != 1:
        raise ValueError(
            "`query_scores` expects one score a token. Received: query_scores "
            f"of shape {tuple(query.shape)}"
        )
    output = _softmax_attention(
        ADDITIVE,
        query,
        key,
        value,
        mask,
        padding_mask,
        dropout,
        seed,
        allow_negative,
    )
    return ops.cast(output, dtype)


# How a logit comes about: from blocks of rows and all keys, `(..., r, n)` and
# `(..., L, n)`, and from the two ends of pairs, `(..., n)` each.
DOT = (
    lambda query, key: ops.matmul(query, ops.swapaxes(key, -1, -2)),
    lambda query, key: ops.sum(query * key, axis=-1),
)
ADDITIVE = (
    lambda query, key: _leaky_relu(query + ops.swapaxes(key, -1, -2)),
    lambda query, key: _leaky_relu(ops.squeeze(query + key, -1)),
)


def _leaky_relu(x):
    if keras.backend.standardize_dtype(x.dtype) == "float32":
        return ops.leaky_relu(x, negative_slope=0.2)
    # TensorFlow keeps the slope in float32.
    return ops.maximum(x, 0.2 * x)


def _softmax_attention(
    logits_of,
    query,
    key,
    value,
    mask,
    padding_mask,
    dropout,
    seed,
    allow_negative,
):
    """`M * exp(logits)`, normalized by row, times the values."""
    mask = as_operator(mask, value, allow_negative)
    # A bias is the logarithm of the mask. Where negative entries are allowed
    # nobody looks for them.
    may_fuse = not allow_negative and (mask is None or mask.nonnegative)
    output = _attend(
        logits_of,
        query,
        key,
        value,
        mask,
        padding_mask,
        dropout,
        seed,
        may_fuse,
    )
    return refuse_negative(output, mask, allow_negative)


def _attend(
    logits_of, query, key, value, mask, padding_mask, dropout, seed, may_fuse
):
    visible_keys = None
    if padding_mask is not None:
        visible_keys = ops.swapaxes(padding_axes(padding_mask, value), -1, -2)
        key, value = [drop_padding(x, padding_mask) for x in (key, value)]
    if isinstance(mask, SparsePairs):
        return attend_pairs(
            logits_of[1], query, key, value, mask, visible_keys, dropout, seed
        )
    if mask is not None:
        mask = mask._for_rows()
    length = query.shape[-2]
    if (
        logits_of is DOT
        and may_fuse
        and length is not None
        and not dropout
        and query.shape[-1] == value.shape[-1]
        and has_fused_attention(
            length, keras.backend.standardize_dtype(query.dtype)
        )
    ):
        return _fused_attention(query, key, value, mask, visible_keys)
    shared = [key, value, *([] if mask is None else mask.tensors())]
    if visible_keys is not None:
        shared.append(visible_keys)

    def attend_rows(slices, start, shared):
        (query,), (key, value, *rest) = slices, shared
        weights = None
        if visible_keys is not None:
            *rest, weights = rest
        logits = logits_of[0](query, key)
        if isinstance(mask, DenseExp):
            # One pass where a product and the maximum over visible entries
            # take many.
            size = tuple(ops.shape(query))[-2]
            bias = mask.with_tensors(rest).log_rows(start, size)
            # In float16 what hides is minus infinity, and a row of it NaN.
            bias = ops.maximum(ops.cast(bias, query.dtype), HIDDEN)
            if weights is not None:
                bias = bias + HIDDEN * (1.0 - weights)
            some = ops.max(bias, axis=-1, keepdims=True) > HIDDEN / 2
            scores = softmax(logits + bias)
            output = ops.matmul(drop(scores), value)
            return ops.where(some, output, ops.zeros_like(output))
        if mask is not None:
            operator = mask.with_tensors(rest)
            rows = _rows(operator, start, query)
            weights = rows if weights is None else weights * rows
        if weights is None:
            scores = softmax(logits)
            return ops.matmul(drop(scores), value)
        visible = weights != 0
        logits = ops.where(visible, logits, HIDDEN)
        # `initial` for empty batches, of which there is no maximum.
        top = ops.max(logits, axis=-1, keepdims=True, initial=HIDDEN)
        # In a row without visible entries `exp(0)` meets weights of zero.
        scores = ops.exp(logits - ops.stop_gradient(top)) * weights
        return normalize(
            ops.matmul(drop(scores), value), ops.sum(scores, -1, keepdims=True)
        )

    def drop(scores):
        # Before or after normalization is the same: rows sum before it.
        if not dropout:
            return scores
        return keras.random.dropout(scores, dropout, seed=seed)

    if dropout:
        # Not in blocks: a block that is computed again for the gradient would
        # drop other scores.
        return attend_rows([query], 0, shared)
    step = 1 if mask is None else mask.plan.row_step
    return map_rows(attend_rows, query, shared, step)


def _fused_attention(query, key, value, mask, visible_keys):
    """With `log M` as the bias of the framework's attention.

    A token that sees nothing gets zeros.
    """
    bias = None
    if isinstance(mask, DenseExp):
        bias = ops.maximum(ops.cast(mask.log_matrix, query.dtype), HIDDEN)
    elif mask is not None:
        rows = _rows(mask, 0, query)
        ones = ops.ones_like(rows)
        bias = ops.where(
            rows > 0, ops.log(ops.where(rows > 0, rows, ones)), HIDDEN
        )
    if bias is not None:
        missing = 4 - len(bias.shape)
        bias = ops.reshape(bias, (1,) * missing + tuple(ops.shape(bias)))
    if visible_keys is not None:
        hidden = HIDDEN * (1.0 - visible_keys)
        bias = hidden if bias is None else bias + hidden
    # Keras wants the heads after the tokens.
    tensors = [ops.swapaxes(x, 1, 2) for x in (query, key, value)]
    output = ops.dot_product_attention(
        *tensors, bias=bias, scale=1.0, flash_attention=False
    )
    output = ops.swapaxes(output, 1, 2)
    if bias is None:
        return output
    some = ops.max(bias, axis=-1, keepdims=True) > HIDDEN / 2
    return ops.where(some, output, ops.zeros_like(output))


def _rows(operator, start, query):
    """The rows of the mask that belong to a block of queries."""
    size = tuple(ops.shape(query))[-2]
    return ops.cast(operator._rows(start, size), query.dtype)


def softmax(logits):
    if logits.shape[-1] == 1:
        # One token, of which Keras would warn.
        return ops.ones_like(logits)
    return ops.softmax(logits, axis=-1)
