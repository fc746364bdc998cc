"""Shapes that are known in part, the one place where they are combined.

A static shape holds ints, and `None` where a traced function does not know a
size. A dynamic shape, from `ops.shape`, holds ints and traced scalars.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from keras import ops

from keras_topo.annotations import Shape, Size, Tensor

# Stands for an unknown size where work is estimated or divided into blocks.
NOMINAL_SIZE = 32


def broadcast_batch(*shapes: Iterable[Size]) -> Shape:
    """Broadcasts static shapes.

    Raises:
        ValueError: if sizes differ and neither is one.
    """
    result = []
    for sizes in _aligned(shapes):
        known = {size for size in sizes if size not in (1, None)}
        if len(known) > 1:
            raise ValueError(
                "Batch axes of operators must broadcast. Received: "
                f"batch shapes {shapes}"
            )
        unknown = None if None in sizes else 1
        result.append(known.pop() if known else unknown)
    return tuple(result)


def broadcast_sizes(*shapes: Sequence[Any]) -> tuple[Any, ...]:
    """Broadcasts dynamic shapes, each of any number of axes."""
    result = []
    for sizes in _aligned(shapes):
        size, *others = sizes
        for other in others:
            size = _broadcast_two(size, other)
        result.append(size)
    return tuple(result)


def broadcast_leading(tensors: Sequence[Tensor], trailing: int) -> list[Tensor]:
    """Broadcasts all axes of `tensors` but the trailing ones."""
    lead = broadcast_sizes(*[tuple(ops.shape(x))[:-trailing] for x in tensors])
    return [broadcast_lead(x, lead, trailing) for x in tensors]


def broadcast_lead(x: Tensor, lead: tuple[Any, ...], trailing: int) -> Tensor:
    """`x` with the leading axes `lead`, a dynamic shape."""
    return ops.broadcast_to(x, lead + tuple(ops.shape(x))[-trailing:])


def sum_to(gradient: Tensor, like: Tensor) -> Tensor:
    """Sums `gradient` over the axes along which `like` was broadcast."""
    extra = len(gradient.shape) - len(like.shape)
    if extra:
        gradient = ops.sum(gradient, axis=tuple(range(extra)))
    axes = tuple(
        k
        for k, (g, n) in enumerate(zip(gradient.shape, like.shape, strict=True))
        if n == 1 and g != 1
    )
    return ops.sum(gradient, axis=axes, keepdims=True) if axes else gradient


def static_size(shape: Iterable[Size]) -> int:
    """Product of a static shape, an unknown axis counting as a nominal one."""
    return math.prod(n if isinstance(n, int) else NOMINAL_SIZE for n in shape)


def agree(shape: Iterable[Size], other: Iterable[Size]) -> bool:
    """Whether two static shapes may be equal."""
    return all(
        a == b or None in (a, b) for a, b in zip(shape, other, strict=True)
    )


def _aligned(shapes):
    """The sizes of each axis, shapes being aligned at their last one."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return zip(*padded, strict=True)


def _broadcast_two(a, b):
    if isinstance(a, int):
        # A traced size beside an int of more than one is equal to it, or one.
        return b if a == 1 else a
    if isinstance(b, int):
        return a if b == 1 else b
    return a if a is b else ops.where(a == 1, b, a)


def check_batch(mask, leading):
    """Raises a ValueError unless the batch axes of a mask broadcast to those of
    attention, `(batch, heads)`."""
    batch = mask.batch_shape
    if len(batch) > 2:
        raise ValueError(
            "`mask` expects at most the batch axes (batch, heads). Received: a "
            f"mask of shape {mask.shape}"
        )
    found = leading[2 - len(batch) :]
    if not all(
        n == 1 or agree((n,), (m,)) for n, m in zip(batch, found, strict=True)
    ):
        raise ValueError(
            "the batch axes of `mask` expect 1 or the sizes of (batch, heads). "
            f"Received: a mask of shape {mask.shape}, batch and heads {leading}"
        )
