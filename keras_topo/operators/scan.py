"""Linear recurrences along many sequences at once, in blocks."""

import numpy as np
from keras import ops

from keras_topo._backend import constant, matmul

# Long enough for matrix products to be worth their while, short enough for
# their matrices to be few numbers.
BLOCK = 32


class SegmentedScan:
    """`y_i = u_i + exp(a . d_i) y_{i-1}`, anew at the start of each segment.

    Inside a block of 32 the recurrence is a triangular matrix; what enters a
    block from the one before it is the same recurrence over blocks. Exponents
    are of distances inside a block or between neighboring ends of blocks, so
    nothing is divided by what may have underflowed.

    Args:
        distance: `(n, l)`, `d`, between each element and the one before it.
        continues: `(n,)`, bool: `False` where a segment starts.
    """

    def __init__(self, distance, continues):
        continues = np.array(continues, bool)
        continues[:1] = False
        self.size = len(continues)
        self.trivial = not continues.any()
        if self.trivial:
            return
        distance = np.where(continues[:, None], distance, 0.0)
        self.block = min(BLOCK, self.size)
        self._padding = -self.size % self.block
        continues = np.pad(continues, (0, self._padding))
        distance = np.pad(distance, ((0, self._padding), (0, 0)))
        segment = np.cumsum(~continues).reshape(-1, self.block)
        distance = distance.reshape(*segment.shape, -1)
        # From the end of the block before, and from the start of this one.
        self._entry = np.cumsum(distance, axis=1)
        inside = self._entry - self._entry[:, :1]
        # As two float32 numbers: after a heavy edge, one would not tell light
        # ones apart.
        self._high = inside.astype("float32")
        self._low = (inside - self._high).astype("float32")
        self._segment = segment.astype("int32")
        self.outer = None
        if len(segment) > 1:
            self._entered = segment[1:] == segment[:-1, -1:]
            through = np.append(False, self._entered[:, -1])
            self.outer = SegmentedScan(self._entry[:, -1], through)

    @property
    def work(self):
        """Multiply-adds a column."""
        if self.trivial:
            return 0
        outer = 0 if self.outer is None else self.outer.work
        return self.size * self.block + outer

    @property
    def steps(self):
        """Blocked steps, one after another."""
        if self.trivial:
            return 0
        return 1 + (0 if self.outer is None else self.outer.steps)

    def apply(self, u, a):
        """`y`, `(..., n, columns)`, for `u` of that shape and `a` `(*batch, l)`
        whose batch axes broadcast against those of `u`."""
        if self.trivial:
            return u
        blocks = len(self._segment)
        columns = u.shape[-1]
        if self._padding:
            zeros = ops.zeros_like(u[..., : self._padding, :])
            u = ops.concatenate([u, zeros], axis=-2)
        lead = tuple(ops.shape(u))[:-2]
        u = ops.reshape(u, lead + (blocks, self.block, columns))
        y = matmul(self._triangles(a), u)
        if self.outer is not None:
            carried = self.outer.apply(y[..., -1, :], a)[..., :-1, :]
            entry = exponents(a, self._entry[1:])
            weights = _visible_exp(entry, constant(self._entered))
            more = ops.expand_dims(weights, -1) * ops.expand_dims(carried, -2)
            y = ops.concatenate(
                [y[..., :1, :, :], y[..., 1:, :, :] + more], axis=-3
            )
        lead = tuple(ops.shape(y))[:-3]
        y = ops.reshape(y, lead + (blocks * self.block, columns))
        return y[..., : self.size, :]

    def _triangles(self, a):
        """`(*batch, blocks, block, block)`."""
        exponent = 0.0
        for k in range(self._high.shape[-1]):
            distance = 0.0
            for part in (self._high, self._low):
                part = ops.cast(constant(part[..., k]), a.dtype)
                distance = distance + (part[:, :, None] - part[:, None])
            exponent = exponent + a[..., k, None, None, None] * distance
        segment = constant(self._segment)
        lower = np.tril(np.ones((self.block, self.block), bool))
        visible = ops.logical_and(
            segment[:, :, None] == segment[:, None], lower
        )
        return _visible_exp(exponent, visible)


def _visible_exp(exponent, visible):
    """`exp(exponent)` where visible and zero elsewhere. Hidden twice: an
    infinite exponential that is hidden afterwards has a gradient of nan."""
    zeros = ops.zeros_like(exponent)
    return ops.where(
        visible, ops.exp(ops.where(visible, exponent, zeros)), zeros
    )


def exponents(a, distance):
    """`a . d`, `(*batch, ...)`, for `a` `(*batch, l)`, `d` `(..., l)`."""
    shape = distance.shape[:-1]
    flat = constant(distance.reshape(-1, distance.shape[-1]))
    flat = ops.cast(flat, a.dtype)
    if flat.shape[-1] == 1:
        product = ops.expand_dims(flat[:, 0], 0) * a
    else:
        product = ops.squeeze(matmul(flat, ops.expand_dims(a, -1)), -1)
    return ops.reshape(product, tuple(ops.shape(a))[:-1] + shape)
