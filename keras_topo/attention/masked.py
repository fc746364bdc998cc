"""Masked attention: with the mask as an operator, and as a matrix.

`A = M * K(Q, K)` (elementwise), `D = diag(A 1)`, output `D^-1 A V`
(Choromanski et al., 2022).
"""

import math

import keras
from keras import ops

from keras_topo.attention.blocks import (
    BLOCK_ELEMENTS,
    map_blocks,
    static_size,
)
from keras_topo.attention.pairs import attend_pairs
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator, accumulation_dtype
from keras_topo.operators.dense import HIDDEN, Dense, DenseExp
from keras_topo.operators.sparse import SparsePairs

IMPLEMENTATIONS = ("auto", "explicit", "fast")

# Up to this many tokens the scores of a head are kept whole between the
# forward and the backward pass; beyond, in blocks that are recomputed.
WHOLE_TOKENS = 1024


def masked_linear_attention(
    query_features,
    key_features,
    value,
    mask=None,
    padding_mask=None,
    implementation="auto",
    allow_negative=False,
):
    """Attention with scores `M[i, j] phi(q_i) . phi(k_j)`, normalised by row.

    The lemma of Choromanski et al. (2022): with
    `X_j = phi(k_j) (x) [v_j; 1]` and `Y = M X`, the output of token `i` is
    `phi(q_i)^T Y_i`, its last entry being the normaliser. `m (d + 1)` products
    with the mask, whatever the mask, take the place of the `L x L` scores.

    Args:
        query_features: `(batch, heads, L, m)`, non-negative for a safe
            normaliser.
        key_features: `(batch, heads, L, m)`.
        value: `(batch, heads, L, d)`.
        mask: a `MaskOperator` whose batch axes broadcast against `(batch,
            heads)`; or its matrix, `(..., L, L)`; or `None` for unmasked
            linear attention.
        padding_mask: `(batch, L)`, boolean, `True` for real tokens. Padded
            keys get zero features, which removes them exactly.
        implementation: `"fast"` multiplies by the operator, in blocks of
            value columns; `"explicit"` computes the scores, in blocks of
            query rows; `"auto"` takes the one that costs less by the cost
            model of the operators. The results are the same.
        allow_negative: bool; `True` for masks with negative entries, for whose
            normalizer, the sum of a row of scores, the caller answers: where
            it comes near zero the output grows without bound. By default they
            are refused where they are known to be such (`mask.nonnegative` is
            `False`). That is looked up in the parameters of the mask, up to a
            million numbers, and never in traced functions.

    Returns:
        `(batch, heads, L, d)` in the dtype of `value`. Computed in float32 at
        least. A token whose weights are all zero gets zeros; with an FFT
        product such zeros are known to float32 rounding only, relative to the
        largest sum of the head, and so is a row far below it.

    Raises:
        ValueError: if shapes do not match, `implementation` is unknown or the
            mask is known to have negative entries.

    *Complexity*: explicit `O(L^2 (m + d))`, memory `O(L)` times the rows of a
    block; fast as `m (d + 1)` columns of the operator's product, memory `O(L
    m)` times the columns of a block. Neither keeps intermediate results of
    blocks for the gradient, which recomputes them.

    Example:

    >>> q, k, v = np.random.rand(3, 1, 8, 4096, 16)
    >>> mask = BlockToeplitz(np.random.rand(8, 127, 127), (64, 64))
    >>> masked_linear_attention(q, k, v, mask).shape
    (1, 8, 4096, 16)
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"`implementation` expects one of {IMPLEMENTATIONS}. Received: "
            f"implementation={implementation!r}"
        )
    query_features, key_features, value, dtype = _check_inputs(
        query_features=query_features, key_features=key_features, value=value
    )
    # Both: what stands at padded places may be infinite, and zero times that
    # is not zero.
    key_features = _drop_padding(key_features, padding_mask)
    value = _drop_padding(value, padding_mask)
    mask = _as_operator(mask, value, allow_negative)
    if mask is None:
        output = _linear_attention(query_features, key_features, value)
    else:
        if implementation == "auto":
            implementation = choose_implementation(
                mask,
                query_features.shape[-1],
                value.shape[-1],
                static_size(tuple(value.shape[:1])),
                value.shape[1],
            )
        attend = {"explicit": _explicit, "fast": _fast}[implementation]
        output = attend(query_features, key_features, value, mask)
    return ops.cast(output, dtype)


def masked_softmax_attention(
    query,
    key,
    value,
    mask=None,
    padding_mask=None,
    dropout=0.0,
    seed=None,
    allow_negative=False,
):
    """Softmax attention whose exponentials are multiplied by a mask.

    Scores `M[i, j] exp(q_i . k_j / sqrt(d_qk))`, normalised by row: with
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
        dropout: float, rate at which normalised scores are dropped. Without
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
    """
    query, key, value, dtype = _check_inputs(query=query, key=key, value=value)
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
    query_scores,
    key_scores,
    value,
    mask=None,
    padding_mask=None,
    dropout=0.0,
    seed=None,
    allow_negative=False,
):
    """Attention with additive scores, the form of GAT, times a mask.

    Scores `M[i, j] exp(leaky_relu(s_i + t_j))` with a slope of 0.2 below zero,
    normalised by row (Velickovic et al., 2018); with the adjacency matrix of a
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
    """
    query, key, value, dtype = _check_inputs(
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


def choose_implementation(mask, num_features, value_dim, batch, heads):
    """`"explicit"` or `"fast"`: whichever the cost model finds cheaper."""
    if mask.num_tokens is None:
        # Nothing to estimate by: where the fast form is linear, it is fast.
        linear = mask.factors() is not None or isinstance(mask, SparsePairs)
        return "fast" if linear else "explicit"
    explicit = explicit_cost(mask, num_features, value_dim, batch, heads)
    fast = fast_cost(mask, num_features, value_dim, batch, heads)
    return "explicit" if explicit <= fast else "fast"


def explicit_cost(mask, num_features, value_dim, batch, heads):
    """Work of the explicit form, in the unit of `MaskOperator.cost`."""
    length = mask.num_tokens
    scores = length * length * (num_features + value_dim)
    # Fitted to measurements: part of what passes through memory stays in the
    # cache between a product and the next. The mask is shared by the batch.
    passes = 2.5 * costs.ELEMENT * length * length
    mask_rows = 1.5 * costs.ELEMENT * length * length + mask._rows_cost
    mask_rows = mask_rows * _mask_copies(mask)
    launches = (
        costs.LAUNCH
        * 4
        * max(1, batch * heads * length * length // BLOCK_ELEMENTS)
    )
    return launches + batch * heads * (scores + passes) + mask_rows


def fast_cost(mask, num_features, value_dim, batch, heads):
    """Work of the fast form, in the unit of `MaskOperator.cost`."""
    length = mask.num_tokens
    pairs = batch * heads
    factors = mask.factors()
    if factors is not None:
        features = num_features * factors[0].shape[-1]
        products = 2 * length * features * (value_dim + 1)
        passes = 4 * costs.ELEMENT * length * features
        return costs.LAUNCH * 4 + pairs * (products + passes)
    columns = num_features * (value_dim + 1)
    passes = 4 * costs.ELEMENT * length * columns
    launches = costs.LAUNCH * max(1, pairs * length * columns // BLOCK_ELEMENTS)
    return launches + pairs * (mask.cost(columns) + passes)


def _mask_copies(mask):
    return static_size(mask.batch_shape)


# The three forms.


def _linear_attention(query_features, key_features, value):
    """Unmasked: `phi(Q) (phi(K)^T V)`, normalised."""
    keys = ops.swapaxes(key_features, -1, -2)
    context = ops.matmul(keys, value)
    total = ops.sum(keys, axis=-1, keepdims=True)
    return _normalise(
        ops.matmul(query_features, context), ops.matmul(query_features, total)
    )


def _explicit(query_features, key_features, value, mask):
    """Scores in blocks of query rows."""

    def attend_rows(slices, start, shared):
        (query,), (key, value, *tensors) = slices, shared
        operator = mask.with_tensors(tensors)
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2))
        scores = scores * _rows(operator, start, query)
        return _normalise(
            ops.matmul(scores, value), ops.sum(scores, -1, keepdims=True)
        )

    shared = [key_features, value, *mask.tensors()]
    return _map_rows(attend_rows, query_features, shared, mask)


def _fast(query_features, key_features, value, mask):
    """Products with the operator, in blocks of value columns."""
    factors = mask.factors()
    if factors is not None:
        return _fast_low_rank(query_features, key_features, value, factors)
    length = tuple(ops.shape(value))[-2]
    split = mask._layouts[0]
    if split == mask.num_tokens:
        split = 1
    value_dim = value.shape[-1]
    ones = ops.ones_like(value[..., :1])
    value = ops.concatenate([value, ones], axis=-1)

    # (batch, heads, A, columns, B): see MaskOperator on layouts.
    def lay_out(x):
        shape = tuple(ops.shape(x))
        x = ops.reshape(x, shape[:-2] + (split, length // split, shape[-1]))
        return ops.swapaxes(x, -1, -2)

    query, key, value = map(lay_out, (query_features, key_features, value))
    num_features = query_features.shape[-1]
    lead = tuple(ops.shape(query))[:-3]

    def attend_columns(slices, start, shared):
        (value,), (query, key, *tensors) = slices, shared
        operator = mask.with_tensors(tensors)
        columns = value.shape[-2]
        # X[f, c] = phi(k)_f v_c
        x = ops.expand_dims(key, -2) * ops.expand_dims(value, -3)
        shape = (split, num_features * columns, length // split)
        y = operator.apply(ops.reshape(x, lead + shape))
        y = ops.cast(y, query.dtype)  # a float64 mask multiplies in float64
        shape = (split, num_features, columns, length // split)
        y = ops.reshape(y, lead + shape)
        return ops.sum(ops.expand_dims(query, -2) * y, axis=-3)

    elements = static_size(
        (*query.shape[:2], mask._held_per_column, num_features)
    )
    elements = max(1, elements)  # an empty batch
    # Of an unknown batch there may be one.
    columns = math.prod(n or 1 for n in (*query.shape[:2], num_features))
    least = -(-mask._fewest_columns // columns)
    block = min(value_dim + 1, max(least, BLOCK_ELEMENTS // elements))
    # As equal as they can be: a short last block wastes its launches.
    block = -(-(value_dim + 1) // -(-(value_dim + 1) // block))
    output = map_blocks(
        attend_columns,
        [value],
        [query, key, *mask.tensors()],
        axis=-2,
        block=block,
        checkpoint=block <= value_dim,
    )
    output = ops.swapaxes(output, -1, -2)
    output = ops.reshape(output, lead + (length, value_dim + 1))
    return _normalise(*ops.split(output, [value_dim], axis=-1))


def _fast_low_rank(query_features, key_features, value, factors):
    """Linear attention with the features `u (x) phi(q)` and `w (x) phi(k)`.

    Term by term, `phi(K)^T diag(w_r) V` and `diag(u_r) phi(Q)` times it: the
    factor of the mask multiplies the values before, and the products after,
    which is the same and leaves matrix products of the best shape. The
    normaliser needs no such products: `w^T phi(K)` is small.
    """
    u, w = [ops.cast(factor, value.dtype) for factor in factors]
    rank, num_features = u.shape[-1], query_features.shape[-1]
    length, value_dim = value.shape[-2], value.shape[-1]

    def summarise(slices, start, shared):
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
    context = map_blocks(
        summarise, [key_features, value, w], [], reduce="sum", **blocks
    )
    # (..., r, m, d) to (..., m, r d)
    context = ops.swapaxes(context, -3, -2)
    lead = tuple(ops.shape(context))[:-3]
    context = ops.reshape(context, lead + (num_features, rank * value_dim))
    numerator = map_blocks(attend, [query_features, u], [context], **blocks)
    totals = ops.matmul(ops.swapaxes(w, -1, -2), key_features)
    denominator = ops.matmul(query_features, ops.swapaxes(totals, -1, -2))
    denominator = ops.sum(denominator * u, axis=-1, keepdims=True)
    return _normalise(numerator, denominator)


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
    """`M * exp(logits)`, normalised by row, times the values."""
    mask = _as_operator(mask, value, allow_negative)
    visible_keys = None
    if padding_mask is not None:
        visible_keys = ops.swapaxes(_padding_axes(padding_mask, value), -1, -2)
        key, value = [_drop_padding(x, padding_mask) for x in (key, value)]
    if isinstance(mask, SparsePairs):
        return attend_pairs(
            logits_of[1], query, key, value, mask, visible_keys, dropout, seed
        )
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
            scores = _softmax(logits + bias)
            output = ops.matmul(drop(scores), value)
            return ops.where(some, output, ops.zeros_like(output))
        if mask is not None:
            operator = mask.with_tensors(rest)
            rows = _rows(operator, start, query)
            weights = rows if weights is None else weights * rows
        if weights is None:
            scores = _softmax(logits)
            return ops.matmul(drop(scores), value)
        visible = weights != 0
        logits = ops.where(visible, logits, HIDDEN)
        top = ops.max(logits, axis=-1, keepdims=True)
        # In a row without visible entries `exp(0)` meets weights of zero.
        scores = ops.exp(logits - ops.stop_gradient(top)) * weights
        return _normalise(
            ops.matmul(drop(scores), value), ops.sum(scores, -1, keepdims=True)
        )

    def drop(scores):
        # Before or after normalisation is the same: rows sum before it.
        if not dropout:
            return scores
        return keras.random.dropout(scores, dropout, seed=seed)

    if dropout:
        # Not in blocks: a block that is computed again for the gradient would
        # drop other scores.
        return attend_rows([query], 0, shared)
    return _map_rows(attend_rows, query, shared, mask)


# Pieces.


def _map_rows(function, query, shared, mask):
    """`function` on blocks of query rows, of a size to bound the scores."""
    length = query.shape[-2]
    if length is None or length <= WHOLE_TOKENS:
        return function([query], 0, shared)
    step = 1 if mask is None else mask._row_step
    first = 0 if mask is None else mask._num_leading_rows
    row = max(1, static_size(tuple(query.shape[:2]))) * length
    block = max(1, BLOCK_ELEMENTS // (row * step)) * step
    block = min(block, (length - first) // step * step)
    return map_blocks(function, [query], shared, -2, block, first)


def _rows(operator, start, query):
    """The rows of the mask that belong to a block of queries."""
    size = tuple(ops.shape(query))[-2]
    return ops.cast(operator._rows(start, size), query.dtype)


def _softmax(logits):
    if logits.shape[-1] == 1:
        # One token, of which Keras would warn.
        return ops.ones_like(logits)
    return ops.softmax(logits, axis=-1)


def _normalise(numerator, denominator):
    """Divides; where a row has no weight at all, the result is zero.

    Only the denominator is guarded: an epsilon in the scores would make the
    explicit and the fast form differ.
    """
    empty = ops.abs(denominator) < 1e-30
    safe = ops.where(empty, ops.ones_like(denominator), denominator)
    return ops.where(empty, ops.zeros_like(numerator), numerator / safe)


def _drop_padding(x, padding_mask):
    """Zeros at padded tokens of `(batch, heads, L, n)`."""
    if padding_mask is None:
        return x
    visible = ops.cast(_padding_axes(padding_mask, x), "bool")
    return ops.where(visible, x, ops.zeros_like(x))


def _padding_axes(padding_mask, x):
    """`(batch, L)` to `(batch, 1, L, 1)`, in the dtype of `x`."""
    padding_mask = ops.convert_to_tensor(padding_mask)
    if len(padding_mask.shape) != 2 or padding_mask.shape[1] != x.shape[-2]:
        raise ValueError(
            "`padding_mask` expects the shape (batch, tokens) with "
            f"{x.shape[-2]} tokens. Received: padding_mask of shape "
            f"{tuple(padding_mask.shape)}"
        )
    return ops.cast(padding_mask, x.dtype)[:, None, :, None]


def _check_inputs(**tensors):
    """Checks query, key and value, under whatever names their caller has.

    Returns them in the accumulation dtype, and the dtype of the value.
    """
    tensors = {name: ops.convert_to_tensor(x) for name, x in tensors.items()}
    for name, x in tensors.items():
        if len(x.shape) != 4:
            raise ValueError(
                f"`{name}` expects the shape (batch, heads, tokens, features)."
                f" Received: {name} of shape {tuple(x.shape)}"
            )
    query, key, value = tensors.values()
    names = list(tensors)
    if not (
        _agree(query.shape, key.shape)
        and _agree(query.shape[:-1], value.shape[:-1])
    ):
        received = ", ".join(
            f"{name} {tuple(x.shape)}" for name, x in tensors.items()
        )
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` expect the same shape (batch, "
            f"heads, tokens, features), and `{names[2]}` the same batch, heads "
            f"and tokens. Received: {received}"
        )
    dtype = accumulation_dtype(query.dtype, key.dtype, value.dtype)
    result = value.dtype
    return *[ops.cast(x, dtype) for x in (query, key, value)], result


def _agree(shape, other):
    """Whether two shapes may be equal, `None` being an unknown size."""
    return all(
        a == b or None in (a, b) for a, b in zip(shape, other, strict=True)
    )


def _as_operator(mask, value, allow_negative):
    if mask is None:
        return None
    if isinstance(mask, str):
        raise ValueError(
            "`mask` expects a MaskOperator, a matrix or None; layers have "
            f"masks by name. Received: mask={mask!r}"
        )
    if not isinstance(mask, MaskOperator):
        mask = Dense(mask)
    if not _agree((mask.num_tokens,), value.shape[-2:-1]):
        raise ValueError(
            "`mask` expects as many tokens as `value`. Received: a mask of "
            f"{mask.num_tokens} tokens, value of shape {tuple(value.shape)}"
        )
    if len(mask.batch_shape) > 2:
        raise ValueError(
            "`mask` expects at most the batch axes (batch, heads). Received: "
            f"a mask of shape {mask.shape}"
        )
    leading = tuple(value.shape[:2])[2 - len(mask.batch_shape) :]
    if not all(
        n == 1 or _agree((n,), (m,))
        for n, m in zip(mask.batch_shape, leading, strict=True)
    ):
        raise ValueError(
            "the batch axes of `mask` expect 1 or the sizes of (batch, heads). "
            f"Received: a mask of shape {mask.shape}, value of shape "
            f"{tuple(value.shape)}"
        )
    if not allow_negative and mask.nonnegative is False:
        raise ValueError(
            "`mask` expects entries that are not negative: the sum of a row of "
            "scores, by which attention divides, may vanish otherwise. Pass "
            "`allow_negative=True` where it is known not to. Received: "
            f"mask={mask} with negative entries"
        )
    return mask
