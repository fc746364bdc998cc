"""How attention divides its work so that no intermediate tensor is large."""

from collections.abc import Callable, Sequence
from typing import Literal

from keras import ops

from keras_topo._backend import checkpointed_map, slice_axis
from keras_topo.annotations import Tensor
from keras_topo.operators.shapes import static_size

# Elements that the largest intermediate tensor of a block may have: 8 MB of
# float32. Several such tensors fit the last-level cache of a server, and
# launches and loops do not count.
BLOCK_ELEMENTS = 2**21

# Up to this many tokens the scores of a head are kept whole between the
# forward and the backward pass; beyond, in blocks that are recomputed.
WHOLE_TOKENS = 1024


def map_rows(
    function: Callable[..., Tensor],
    query: Tensor,
    shared: Sequence[Tensor],
    step: int = 1,
) -> Tensor:
    """`function` on blocks of query rows, of a size to bound the scores.

    Args:
        function: as in `map_blocks`, with queries alone as slices.
        query: `(batch, heads, L, n)`.
        shared: list of tensors that every block needs whole.
        step: int, blocks are multiples of it where it is not too long.
    """
    length = query.shape[-2]
    if length is None or length <= WHOLE_TOKENS:
        return function([query], 0, shared)
    row = max(1, static_size(tuple(query.shape[:2]))) * length
    block = max(1, BLOCK_ELEMENTS // row)
    if block > step:
        block -= block % step
    block = min(block, length)
    return map_blocks(function, [query], shared, -2, block)


def map_blocks(
    function: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    shared: Sequence[Tensor],
    axis: int,
    block: int,
    checkpoint: bool = True,
    reduce: Literal["concatenate", "sum"] = "concatenate",
) -> Tensor:
    """Maps `function` over blocks of an axis and puts the results together.

    Args:
        function: `function(slices, start, shared)`, from slices of `tensors`
            along `axis` that begin at `start` (an int or a traced scalar)
            to a tensor; if concatenated, its axis -2 is the blocked one.
        tensors: list of tensors to be sliced along `axis`.
        shared: list of tensors that every block needs whole.
        axis: int, negative.
        block: int, length of a block; the last one may be shorter. Along an
            axis of unknown length there is one block.
        checkpoint: bool; `False` where a single block covers everything, and
            its intermediate results are small enough to keep.
        reduce: `"concatenate"` (along axis -2) or `"sum"`.

    Returns:
        A tensor.
    """
    length = tensors[0].shape[axis]
    if length is None:
        # Blocks need to know how many there are: all at once.
        return function(tensors, 0, shared)
    count = length // block
    last = length - count * block
    pieces = []
    if count == 1 and not checkpoint:
        slices = [_slice(x, 0, block, axis) for x in tensors]
        pieces.append(function(slices, 0, shared))
    elif count:
        starts = block * ops.arange(count, dtype="int32")
        stacked = [
            _stack_blocks(_slice(x, 0, count * block, axis), count, axis)
            for x in tensors
        ]
        mapped = checkpointed_map(
            lambda blocks, shared: function(blocks[1:], blocks[0], shared),
            [starts, *stacked],
            shared,
        )
        pieces.append(
            ops.sum(mapped, axis=0)
            if reduce == "sum"
            else _concatenate_blocks(mapped)
        )
    if last:
        # A map over one block: checkpointed like the others.
        start = length - last
        mapped = checkpointed_map(
            lambda blocks, shared: function(blocks, start, shared),
            [_slice(x, start, last, axis)[None] for x in tensors],
            shared,
        )
        pieces.append(mapped[0])
    if len(pieces) == 1:
        return pieces[0]
    return sum(pieces) if reduce == "sum" else ops.concatenate(pieces, axis=-2)


def _slice(x, start, size, axis):
    if start == 0 and size == x.shape[axis]:
        return x
    return slice_axis(x, start, size, axis)


def _stack_blocks(x, count, axis):
    """`(..., count * block, ...)` to `(count, ..., block, ...)`."""
    shape = list(ops.shape(x))
    axis = axis % len(shape)
    shape[axis : axis + 1] = [count, shape[axis] // count]
    x = ops.reshape(x, tuple(shape))
    return ops.moveaxis(x, axis, 0)


def _concatenate_blocks(x):
    """`(count, ..., block, n)` to `(..., count * block, n)`."""
    x = ops.moveaxis(x, 0, -3)
    shape = tuple(ops.shape(x))
    return ops.reshape(x, shape[:-3] + (shape[-3] * shape[-2], shape[-1]))
