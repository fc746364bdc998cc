"""Attention with its scores: `(M * phi(Q) phi(K)^T) [V, 1]`, in blocks."""

import dataclasses

from keras import ops

from keras_topo._backend import checkpointed_map, keep_whole
from keras_topo.operators.blocks import map_blocks, static_size

# Scores of all heads and examples that are kept whole, between the forward
# and the backward pass too: 16 MB of float32.
WHOLE_ELEMENTS = 2**22

# Scores of a block: 8 MB of float32.
BLOCK_ELEMENTS = 2**21

# Rows of a block, before a block holds fewer examples and heads instead.
LEAST_ROWS = 128


def explicit_attention(query, key, value, operator):
    """Masked linear attention by its scores, not divided.

    `numerator_i = sum_j M_ij (q_i . k_j) v_j`, and `denominator_i` the same
    with ones for the values (Choromanski et al., 2022, the definition).

    Args:
        query: `(batch, heads, L, m)`, float32 or float64.
        key: `(batch, heads, L, m)`.
        value: `(batch, heads, L, d)`.
        operator: a `MaskOperator` whose batch axes broadcast against `(batch,
            heads)`.

    Returns:
        Numerators `(batch, heads, L, d)` and denominators `(batch, heads, L,
        1)`.

    *Complexity*: `L^2 (m + d)` multiply-adds per head. Up to 2^22 scores are
    computed at once; more in blocks of 2^21, over rows and, of many examples
    or heads, over these too. The gradient recomputes blocks.
    """
    if hasattr(operator, "_for_rows"):
        operator = operator._for_rows()
    value_dim = value.shape[-1]
    plan = plan_blocks(query.shape, operator)
    tensors = operator.tensors()
    if plan.rows is None:
        rows = operator._rows(0, tuple(ops.shape(query))[-2])
        # Else XLA computes them again for every example.
        rows = keep_whole(ops.cast(rows, query.dtype))
        output = _attend_rows(query, key, value, rows)
    else:

        def attend_block(slices, start, shared):
            (query,), (key, value, *tensors) = slices, shared
            size = tuple(ops.shape(query))[-2]
            rows = operator.with_tensors(tensors)._rows(start, size)
            rows = ops.cast(rows, query.dtype)
            return _map_pairs(plan, query, key, value, rows)

        output = map_blocks(
            attend_block, [query], [key, value, *tensors], -2, plan.rows
        )
    numerator, denominator = ops.split(output, [value_dim], axis=-1)
    return numerator, denominator


def _attend_rows(query, key, value, rows):
    """`(..., r, d + 1)` from rows of the mask, `(..., r, L)`."""
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) * rows
    ones = ops.ones_like(value[..., :1])
    return ops.concatenate(
        [ops.matmul(scores, value), ops.matmul(scores, ones)], axis=-1
    )


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """How explicit attention is divided.

    Attributes:
        rows: int, query rows of a block; `None` for all at once.
        axis: 0 or 1, whether blocks of rows are divided by examples or by
            heads as well.
        pairs: int, how many of them make up a block.
    """

    rows: int | None = None
    axis: int = 0
    pairs: int | None = None


def plan_blocks(shape, operator):
    """A plan for queries of a shape `(batch, heads, L, m)`."""
    batch, heads, length = shape[:3]
    scores = static_size(shape[:2]) * static_size((length,)) ** 2
    if length is None or scores <= WHOLE_ELEMENTS:
        return BlockPlan()
    step = operator._row_step
    least = -(-LEAST_ROWS // step) * step
    return BlockPlan(min(length, least))


def _map_pairs(plan, query, key, value, rows):
    return _attend_rows(query, key, value, rows)
