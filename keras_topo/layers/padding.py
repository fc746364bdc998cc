"""Padding masks: which tokens, or nodes, of an example are real."""

import math

from keras import ops


def check_padding(mask, shape, layer):
    """A padding mask as booleans `(batch, tokens)`.

    Args:
        mask: `(batch, tokens)` or `(batch, *grid)`, true for real tokens; or
            `None`.
        shape: tuple, that of the inputs, `(batch, *grid, channels)`.
        layer: the layer, for the message.

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
        raise ValueError(
            f"{type(layer).__name__} expects `mask`, its padding mask, of "
            f"shape {(batch, *grid)}, as the tokens of its inputs. (The "
            "attention is within the inputs: a call takes no query and value "
            f"apart.) Received: mask of shape {given}"
        )
    mask = ops.cast(mask, "bool")
    if len(given) > 2:
        mask = ops.reshape(mask, (tuple(ops.shape(mask))[0], tokens))
    return mask


def _fits(shape, expected):
    """Whether shapes may be equal, `None` being an unknown size."""
    return len(shape) == len(expected) and all(
        n == m or None in (n, m) for n, m in zip(shape, expected, strict=True)
    )
