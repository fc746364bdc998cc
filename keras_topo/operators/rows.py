"""Rows of masks that are parts of larger masks."""

from keras import ops


def rows_beyond(operator, start, size, fill):
    """Rows `start` to `start + size` of a mask, also before and after it.

    Args:
        operator: the mask, of `n` tokens.
        start: int or traced scalar, of any sign.
        size: int.
        fill: float, the entries of rows outside of `0 ... n - 1`.

    Returns:
        `(*batch, size, n)`.
    """
    length = operator.num_tokens
    if isinstance(start, int):
        first, last = max(start, 0), min(start + size, length)
        if first >= last:
            lead = operator.batch_shape
            if None in lead:
                lead = tuple(ops.shape(operator._rows(0, 1)))[:-2]
            return ops.full(lead + (size, length), fill, operator.dtype)
        rows = operator._rows(first, last - first)
        return pad_tokens(rows, first - start, start + size - last, fill)
    count = min(size, length)
    first = ops.clip(start, 0, length - count)
    ids = start + ops.arange(size, dtype="int32")
    rows = operator._rows(first, count)
    rows = ops.take(rows, ops.clip(ids - first, 0, count - 1), axis=-2)
    inside = ops.logical_and(ids >= 0, ids < length)
    return ops.where(inside[:, None], rows, ops.full_like(rows, fill))


def pad_tokens(x, before, after, fill=0.0):
    """`(..., n, k)` with rows of `fill` before and after."""
    if not before and not after:
        return x
    padding = [(0, 0)] * (len(x.shape) - 2) + [(before, after), (0, 0)]
    return ops.pad(x, padding, constant_values=fill)
