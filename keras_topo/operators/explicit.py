"""Attention with its scores: `(M * phi(Q) phi(K)^T) [V, 1]`, in blocks."""

import dataclasses

from keras import ops

from keras_topo._backend import checkpointed_map, keep_whole, slice_axis
from keras_topo.operators.blocks import map_blocks
from keras_topo.operators.shapes import static_size

# Scores of all heads and examples that are kept whole, between the forward
# and the backward pass too: 32 MB of float32. Loops cost more than they save
# where examples share a mask.
WHOLE_ELEMENTS = 2**23

# The same for up to `WHOLE_TOKENS` tokens, where each head is small: 256 MB.
# Blocks would be computed again for the gradient.
WHOLE_TOKENS = 1024
MOST_WHOLE_ELEMENTS = 2**26

# Scores of a block: 2 MB of float32, which stay in the cache from one product
# to the next.
BLOCK_ELEMENTS = 2**19

# Rows of a block, before it holds fewer examples or heads instead: products
# with fewer rows take longer per row.
LEAST_ROWS = 64

# Entries of all masks that a block has for the sake of whole steps of rows.
STEP_ELEMENTS = 2**23


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

    *Complexity*: `L^2 (m + d)` multiply-adds per head. Up to 2^23 scores,
    and 2^26 of up to 1,024 tokens, are computed at once and kept for the
    gradient. More are computed in blocks of 2^19, over rows and, of many
    examples or heads, over these too; the gradient computes them again.
    """
    operator = operator._for_rows()
    row_step = operator.plan.row_step
    plan = plan_blocks(query.shape, operator.batch_shape, row_step)
    if plan is None:
        rows = operator._rows(0, tuple(ops.shape(query))[-2])
        # Else XLA computes them again for every example.
        rows = keep_whole(ops.cast(rows, query.dtype))
        return _attend(query, key, value, rows)
    step = row_step if plan.rows % row_step == 0 else 1

    def attend_rows(slices, start, shared):
        (query,), (key, value, *tensors) = slices, shared
        size = tuple(ops.shape(query))[-2]
        rows = _rows(operator.with_tensors(tensors), start, size, step)
        rows = ops.cast(rows, query.dtype)
        if plan.examples is None and plan.heads is None:
            return _joined(query, key, value, rows)
        # Rows of each head and example there are, for blocks of these.
        missing = 2 - (len(rows.shape) - 2)
        rows = ops.reshape(rows, (1,) * missing + tuple(ops.shape(rows)))
        return _map_axis(
            0,
            plan.examples,
            lambda *tensors: _map_axis(1, plan.heads, _joined, *tensors),
            query,
            key,
            value,
            rows,
        )

    shared = [key, value, *operator.tensors()]
    output = map_blocks(attend_rows, [query], shared, -2, plan.rows)
    return tuple(ops.split(output, [value.shape[-1]], axis=-1))


def _attend(query, key, value, rows):
    """With rows of the mask, `(..., r, L)`."""
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) * rows
    return ops.matmul(scores, value), ops.sum(scores, -1, keepdims=True)


def _joined(query, key, value, rows):
    """The same as one tensor, `(..., r, d + 1)`."""
    return ops.concatenate(_attend(query, key, value, rows), axis=-1)


def _rows(operator, start, size, step):
    """`size` rows from `start`, which is a multiple of `step`."""
    if step == 1 or size % step or not hasattr(operator, "_step_rows"):
        return operator._rows(start, size)
    return operator._step_rows(start // step, size // step)


def _map_axis(axis, block, function, query, key, value, rows):
    """`function` in blocks of examples (axis 0) or heads (axis 1)."""
    if block is None:
        return function(query, key, value, rows)
    size = query.shape[axis]
    shared = [] if rows.shape[axis] == size else [rows]
    sliced = [query, key, value] + ([] if shared else [rows])
    pieces = []
    whole = size // block * block
    if whole:
        stacked = [_stack(x, axis, whole, block) for x in sliced]
        mapped = checkpointed_map(
            lambda blocks, shared: function(*blocks, *shared), stacked, shared
        )
        pieces.append(_unstack(mapped, axis))
    if whole < size:
        last = [slice_axis(x, whole, size - whole, axis) for x in sliced]
        pieces.append(function(*last, *shared))
    return pieces[0] if len(pieces) == 1 else ops.concatenate(pieces, axis)


def _stack(x, axis, size, block):
    """Blocks of an axis, `(blocks, ..., block, ...)`."""
    if size != x.shape[axis]:
        x = slice_axis(x, 0, size, axis)
    shape = tuple(ops.shape(x))
    shape = (*shape[:axis], size // block, block, *shape[axis + 1 :])
    return ops.moveaxis(ops.reshape(x, shape), axis, 0)


def _unstack(x, axis):
    x = ops.moveaxis(x, 0, axis)
    shape = tuple(ops.shape(x))
    size = shape[axis] * shape[axis + 1]
    return ops.reshape(x, (*shape[:axis], size, *shape[axis + 2 :]))


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """How explicit attention is divided.

    Attributes:
        rows: int, query rows of a block.
        examples: int, how many examples a block holds; `None` for all.
        heads: int, how many heads; `None` for all.
    """

    rows: int
    examples: int | None = None
    heads: int | None = None


def plan_blocks(shape, batch_shape, step=1):
    """A `BlockPlan`, or `None` for all scores at once.

    Args:
        shape: of the queries, `(batch, heads, L, m)`.
        batch_shape: of the mask, whose rows are held for all of it.
        step: int, blocks of rows are multiples of it where that fits.
    """
    batch, heads, length = shape[:3]
    pairs = max(1, static_size(shape[:2]))
    if length is None:
        return None
    short = length <= WHOLE_TOKENS
    most = MOST_WHOLE_ELEMENTS if short else WHOLE_ELEMENTS
    if pairs * length**2 <= most:
        return None
    rows = max(1, BLOCK_ELEMENTS // (pairs * length))
    masks = max(1, static_size(batch_shape))
    # More than the scores need: the rows of a mask that examples share are
    # read once.
    least = min(LEAST_ROWS, max(1, 8 * BLOCK_ELEMENTS // (masks * length)))
    rows = min(length, max(rows, least))
    if rows >= step:
        rows = rows // step * step
    elif masks * step * length <= STEP_ELEMENTS:
        rows = step
    held = max(1, BLOCK_ELEMENTS // (rows * length))
    if None in (batch, *batch_shape) or pairs <= held:
        return BlockPlan(rows)
    if heads is None or heads <= held:
        return BlockPlan(rows, examples=max(1, held // (heads or 1)))
    return BlockPlan(rows, examples=1, heads=held)
