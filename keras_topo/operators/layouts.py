"""Layouts of the tokens and columns of a product: see `MaskOperator`."""

from keras import ops


def relayout(x, split):
    """From `(..., A, columns, B)` to `(..., split, columns, A * B / split)`."""
    shape = tuple(ops.shape(x))
    lead, (a, columns, b) = shape[:-3], shape[-3:]
    if a == split:
        return x
    tokens = a * b
    if a != 1 and b != 1:
        x = ops.swapaxes(x, -3, -2)
    # Now (columns, A, B) or, where one of A and B is 1, equally good.
    if b == 1 and a != 1:
        x = ops.reshape(x, lead + (tokens, columns))
        if split == 1:
            return ops.expand_dims(ops.swapaxes(x, -2, -1), -3)
        x = ops.reshape(x, lead + (split, tokens // split, columns))
        return ops.swapaxes(x, -2, -1)
    x = ops.reshape(x, lead + (columns, split, tokens // split))
    return ops.swapaxes(x, -3, -2)
