"""Padding masks: which tokens, or nodes, of an example are real."""

import math
from typing import Any

from keras import ops

from keras_topo.annotations import Shape, Tensor


def check_padding(
    mask: Any, shape: Shape, layer: Any, name: str = "mask"
) -> Tensor | None:
    """A padding mask as booleans `(batch, tokens)`.

    Args:
        mask: `(batch, tokens)` or `(batch, *grid)`, true for real tokens; or
            `None`.
        shape: tuple, that of the inputs, `(batch, *grid, channels)`.
        layer: the layer, for the message.
        name: of the argument, `"mask"` or `"value_mask"`.

    Returns:
        A tensor, or `None`.

    Raises:
        ValueError: if the mask has another shape. A second tensor that is
            passed by position, as to `keras.layers.MultiHeadAttention`,
            arrives here.
    """
    if mask is None:
        return None
    mask = ops.convert_to_tensor(mask)
    batch, *grid = tuple(shape)[:-1]
    tokens = None if None in grid else math.prod(grid)
    given = tuple(mask.shape)
    if not (_fits(given, (batch, *grid)) or _fits(given, (batch, tokens))):
        whose = "its inputs" if name == "mask" else "`value`"
        raise ValueError(
            f"{type(layer).__name__} expects `{name}`, its padding mask, of "
            f"shape {(batch, *grid)}, as the tokens of {whose}. Received: "
            f"{name} of shape {given}"
        )
    mask = ops.cast(mask, "bool")
    if len(given) > 2:
        tokens = -1 if tokens is None else tokens
        mask = ops.reshape(mask, (tuple(ops.shape(mask))[0], tokens))
    return mask


def pad_tokens(x: Tensor, length: int | Tensor, axis: int) -> Tensor:
    """`x` with zeros, or `False`, behind its tokens, up to `length` of them."""
    size = tuple(ops.shape(x))[axis]
    if isinstance(size, int) and isinstance(length, int) and size == length:
        return x
    shape = list(ops.shape(x))
    shape[axis] = length - size
    return ops.concatenate([x, ops.zeros(tuple(shape), x.dtype)], axis=axis)


def _fits(shape, expected):
    """Whether shapes may be equal, `None` being an unknown size."""
    return len(shape) == len(expected) and all(
        n == m or None in (n, m) for n, m in zip(shape, expected, strict=True)
    )
