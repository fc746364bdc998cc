"""Dense rows of block-Toeplitz masks, from a table that is spread once.

A row of a block-Toeplitz matrix repeats its table. With the trailing axes of
the table spread to pairs of tokens, in a *slab*, the rows of all tokens that
share their coordinates on the leading axes are one slice.
"""

import dataclasses
import math

from keras import ops

from keras_topo._backend import slice_axis, windows
from keras_topo.operators.composite import Wrapper
from keras_topo.operators.shapes import static_size

# Numbers that the slab of a table may have, batch axes included: 32 MB of
# float32. The rows of a line have no more.
SLAB_ELEMENTS = 2**23

# Rows that one slice yields at least, where the grid allows.
SLICE_ROWS = 64


class SlabRows(Wrapper):
    """A block-Toeplitz mask that is prepared to give its rows.

    What `BlockToeplitz._for_rows` returns. The slab has the shape `(*batch,
    copies R, o_1, ..., o_g, R)`: `R` tokens share their coordinates on the `g`
    leading axes, and `o_k` are the offsets along these, keys increasing.
    Copies are shifted against each other along the last leading axis, so that
    the rows of `copies R` tokens are one slice.

    A *line* is what rows are counted by: `R` tokens with one leading axis,
    where a slice may start at any of them, and `copies R` with several.

    Args:
        operator: the mask, with `grid_shape` and `full_table()`.
    """

    _fields = ("operator", "slab")

    def __init__(self, operator):
        super().__init__(operator)
        table, grid = without_ones(operator.full_table(), operator.grid_shape)
        self.grid = grid
        limit = SLAB_ELEMENTS // max(1, static_size(self.batch_shape))
        self.leading = num_leading_axes(grid, limit)
        self.copies = num_copies(grid, self.leading, limit)
        self.stride = 1 if self.leading == 1 else self.copies
        self.line = self.stride * math.prod(grid[self.leading :])
        self.lines = self.num_tokens // self.line
        self.lines_per_slice = self.copies // self.stride
        self.slab = make_slab(table, grid, self.leading, self.copies)

    def _plan(self):
        return dataclasses.replace(self.operator.plan, row_step=self.line)

    def _rewrap(self, operator):
        return SlabRows(operator)

    def _apply(self, x):
        return self.operator._apply(x)

    def _cost(self, columns):
        return self.operator._cost(columns)

    def _for_rows(self):
        return self

    def _rows_at(self, ids):
        return self.operator._rows_at(ids)

    def _rows(self, start, size):
        line = self.line
        if isinstance(start, int):
            first, skip = divmod(start, line)
            count = -(-(start + size) // line) - first
        elif line == 1:
            first, skip, count = start, 0, size
        else:
            # So many lines hold the rows wherever in a line they start.
            count = min(self.lines, (size + line - 2) // line + 1)
            first = ops.minimum(start // line, self.lines - count)
            skip = start - first * line
        rows = self._step_rows(first, count)
        if count * line == size:
            return rows
        return slice_axis(rows, skip, size, -2)

    def _step_rows(self, first, count):
        """The rows of `count` lines from line `first`, an int or a traced
        scalar: `_rows` where a block is known to start with a line."""
        step = self.lines_per_slice
        pieces = []
        for k in range(0, count, step):
            start = first + k
            if count - k >= step:
                pieces.append(self._slice(start))
                continue
            # The last slice ends with the last line, and starts before.
            last = self.lines - step
            if isinstance(start, int):
                clamped = min(start, last)
            else:
                clamped = ops.minimum(start, last)
            rows = self._slice(clamped)
            skip = (start - clamped) * self.line
            pieces.append(slice_axis(rows, skip, (count - k) * self.line, -2))
        if len(pieces) == 1:
            return pieces[0]
        return ops.concatenate(pieces, axis=-2)

    def _slice(self, line):
        """The rows of one slice, from `line`."""
        rows = self.slab
        lead = tuple(ops.shape(rows))[: -self.leading - 1]
        for k in range(self.leading - 1, -1, -1):
            n, stride, copies = self.grid[k], 1, 1
            if k == self.leading - 1:
                stride, copies = self.stride, self.copies
            coordinate = line % (n // stride) if k else line
            line = line // (n // stride)
            first = n - copies - coordinate * stride
            rows = slice_axis(rows, first, n, k - self.leading - 1)
        return ops.reshape(rows, lead + (self.num_tokens,))


def without_ones(table, grid):
    """The table and the grid without the axes of length one."""
    kept = tuple(n for n in grid if n > 1) or (1,)
    if len(kept) == len(grid):
        return table, grid
    batch = tuple(ops.shape(table))[: -len(grid)]
    return ops.reshape(table, batch + tuple(2 * n - 1 for n in kept)), kept


def num_leading_axes(grid, limit):
    """As few leading axes as keep the slab small."""
    for leading in range(1, len(grid)):
        offsets = math.prod(2 * n - 1 for n in grid[:leading])
        if offsets * math.prod(grid[leading:]) ** 2 <= limit:
            return leading
    return len(grid)


def num_copies(grid, leading, limit):
    """How often the tokens of a line are repeated, for slices of many rows."""
    n, rest = grid[leading - 1], math.prod(grid[leading:])
    offsets = math.prod(2 * m - 1 for m in grid[: leading - 1])
    found = 1
    for copies in range(2, n + 1):
        # Slices that start anywhere must not run into the next line.
        if leading > 1 and n % copies:
            continue
        width = 2 * n - copies
        if offsets * width * copies * rest**2 > limit:
            break
        if found * rest >= SLICE_ROWS:
            break
        found = copies
    return found


def make_slab(table, grid, leading, copies):
    """`(*batch, copies R, o_1, ..., o_g, R)`; see `SlabRows`.

    Args:
        table: `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`.
        grid: `(n_1, ..., n_d)`, no axis of length one but a single one.
        leading: int, `g`.
        copies: int.
    """
    rank = len(grid)
    # From query minus key to key minus query, while there is little to move.
    # Axis by axis: `ops.flip` of Keras 3.13 takes one on TensorFlow.
    for axis in range(-rank, leading - rank):
        table = ops.flip(table, axis)
    batch = tuple(ops.shape(table))[:-rank]
    line = math.prod(grid[leading:])
    offsets = tuple(2 * n - 1 for n in grid[:leading])
    slab = spread_axes(table, grid, leading)
    slab = ops.reshape(slab, batch + (line, *offsets, line))
    if copies == 1:
        return slab
    width = offsets[-1] - copies + 1
    shifted = [
        slice_axis(slab, copies - 1 - k, width, -2) for k in range(copies)
    ]
    slab = ops.stack(shifted, axis=len(batch))
    return ops.reshape(
        slab, batch + (copies * line, *offsets[:-1], width, line)
    )


def toeplitz_rows(table, grid_shape, start, size):
    """Dense rows of a block-Toeplitz matrix.

    Args:
        table: `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`.
        grid_shape: `(n_1, ..., n_d)`.
        start: the coordinate on the first grid axis of the first row, an int
            or a traced scalar.
        size: int, how many coordinates.

    Returns:
        `(*batch, size * n_2 ... n_d, n_1 ... n_d)`.
    """
    n = grid_shape[0]
    rank = len(grid_shape)
    if size != n:
        # Traced blocks of rows count from the last offset.
        table = slice_axis(table, start, size + n - 1, -rank)
    rows = spread_axes(table, grid_shape, 0, size)
    batch = tuple(ops.shape(table))[:-rank]
    line = math.prod(grid_shape[1:])
    return ops.reshape(rows, batch + (size * line, n * line))


def spread_axes(table, grid, leading, size=None):
    """Spreads axes of offsets to pairs of tokens, all but the leading ones.

    Args:
        table: `(*batch, o_1, ..., o_d)`, `o_k = 2 n_k - 1`.
        grid: `(n_1, ..., n_d)`.
        leading: int, `g`.
        size: int; where the first axis is spread, how many tokens it has on
            the side of the queries, `o_1` being `size + n_1 - 1`.

    Returns:
        `(*batch, R_q, o_1 ... o_g, R)`, flat: the axes of the queries, the
        offsets that are left, the axes of the keys.
    """
    rank = len(grid)
    shape = tuple(ops.shape(table))
    batch, offsets = shape[:-rank], shape[-rank:]
    # Last axis first, while there is little to move. The axes are kept as
    # (batch, a_{k+1} ... a_d, o_1 ... o_k, j_{k+1} ... j_d).
    rows_done, columns_done = 1, 1
    for k in range(rank - 1, leading - 1, -1):
        keys = grid[k]
        queries = size if k == 0 and size is not None else keys
        outer = math.prod(offsets[:k])
        table = ops.reshape(
            table,
            batch + (rows_done, outer, queries + keys - 1, columns_done),
        )
        # Offsets are query minus key: the windows move down.
        table = windows(ops.flip(table, -2), queries, keys)
        # (batch, rows, outer, queries, keys, columns): queries to the front.
        b = len(batch)
        table = ops.transpose(
            table,
            tuple(range(b)) + (b + 2, b, b + 1, b + 3, b + 4),
        )
        rows_done *= queries
        columns_done *= keys
    return table


def rows_at(table, grid, ids):
    """Dense rows of a block-Toeplitz matrix at any tokens.

    Args:
        table: `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`.
        grid: `(n_1, ..., n_d)`.
        ids: `(n,)`, int32, may be traced.

    Returns:
        `(*batch, n, L)`.
    """
    rank, length = len(grid), math.prod(grid)
    batch = tuple(ops.shape(table))[:-rank]
    tokens = ops.arange(length, dtype="int32")
    places = 0
    for k, n in enumerate(grid):
        after = math.prod(grid[k + 1 :])
        queries, keys = (ids // after) % n, (tokens // after) % n
        offsets = queries[:, None] - keys[None, :] + (n - 1)
        places = places * (2 * n - 1) + offsets
    table = ops.reshape(table, batch + (math.prod(2 * n - 1 for n in grid),))
    return ops.take(table, places, axis=-1)
