"""Attention under products of decays along the axes of a grid, in tiles.

The mask of two tokens is the product, over the axes of the grid, of

    F[i, j] = exp(-(c_i - c_j)) for j < i,  exp(-(c'_j - c'_i)) for j > i,

with `c` and `c'` the cumulative sums of the forward and the backward rates.
On each side of its diagonal, `F` has rank one. The grid is cut into tiles.
Keys in the tile of a query are met explicitly. All others are split by the
first axis along which their tile is another one. Along that axis they enter
through states, sums of `F g v^T`, that are handed from tile to tile in both
directions. Along the axes before it they are in the tile of the query, along
those after it anywhere: there, `F` mixes the states.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_topo._backend import checkpointed_map, matmul
from keras_topo.annotations import Tensor
from keras_topo.operators import cost as costs
from keras_topo.operators.chunked import capped
from keras_topo.operators.parameters import accumulation_dtype

# Passing one number of a state through memory takes as long as so many
# multiply-adds: states mostly fit into the last-level cache.
STATE_PASS = 16
# The same for a score, which is written, masked and read.
SCORE_PASSES = 40
# Numbers of the states of a block of heads. More do not get faster.
BLOCK_STATES = 2**23
# Operations of an axis with states, and of the explicit part.
AXIS_LAUNCHES, LAUNCHES = 2, 4
# Rates along an axis that are summed at a time.
SUM_BLOCK = 32
# Where tiles and scores take the same time forward, at 1,024 tokens, the
# gradients of tiles take half as long again.
GRADIENTS = 1.1

# Numbers of tiles along an axis that are tried.
TILE_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)


def tiled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    grid_shape: Sequence[int],
    axes: Sequence[tuple[Tensor | None, Tensor | None]],
    tile_shape: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Masked attention on a grid, not divided: see the module.

    `numerator[i] = sum_j M_ij (q_i . k_j) v_j`, and `denominator[i]` the same
    with `v = 1`. Entries of `M` are computed without an exponent above zero,
    from sums of rates between tokens, not from differences of sums: they are
    as accurate next to a rate of 1e4 as elsewhere.

    *Complexity*: per token, `T (m + d)` multiply-adds for tiles of `T` tokens
    and, per axis, `4 m (d + 1)` for states and `2 m (d + 1) n / t` to mix them
    along each other axis, in tiles that are `t` long; for axes before it, `n`
    is the length of a tile. Large problems are worked on some heads, or some
    value columns of one head, at a time, so that no more than 16 million
    numbers of states are held in one tensor. Axes have dense `(n, n)` matrices.

    Args:
        query, key: `(batch, heads, L, m)`, features. `L` is the size of the
            grid, tokens are in row-major order.
        value: `(batch, heads, L, d)`.
        grid_shape: tuple of ints `(n_1, ..., n_r)`.
        axes: one pair `(forward, backward)` of rates per axis. Rates have the
            shape `(..., 1)`, one for all steps along the axis, or `(..., n)`,
            where rate `l` is that of the step between `l - 1` and `l`. Their
            leading axes broadcast against `(batch, heads)`. With `None` for
            the forward (backward) rates, tokens do not see those before
            (behind) them along the axis.
        tile_shape: ints, tile sizes along the axes; by default those that the
            cost model takes for the fastest.

    Returns:
        `(numerator, denominator)` of shapes `(batch, heads, L, d)` and
        `(batch, heads, L, 1)`, in float32 at least.

    Example:

    >>> q, k, v = np.random.rand(3, 1, 2, 64, 4)  # two heads
    >>> rate = np.full((2, 1), 0.5)
    >>> numerator, denominator = tiled_attention(
    ...     q, k, v, (8, 8), [(rate, rate), (rate, rate)]
    ... )
    >>> tuple(numerator.shape), tuple(denominator.shape)
    ((1, 2, 64, 4), (1, 2, 64, 1))
    """
    dtype = accumulation_dtype(query.dtype, key.dtype, value.dtype)
    query, key, value = [ops.cast(x, dtype) for x in (query, key, value)]
    lead = tuple(ops.shape(value))[:2]
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    num_features, columns = key.shape[-1], value.shape[-1]
    length = math.prod(grid_shape)

    sizes = tuple(n for n in grid_shape if n > 1) or (1,)
    if tile_shape is None:
        tiles = best_tiles(sizes, num_features, columns)
    else:
        kept = zip(tile_shape, grid_shape, strict=True)
        tiles = tuple(min(t, n) for t, n in kept if n > 1) or (1,)
    matrices = [
        axis_matrix(forward, backward, n, dtype)
        for n, (forward, backward) in zip(grid_shape, axes, strict=True)
        if n > 1
    ] or [ops.ones((1, 1, 1, 1), dtype)]
    shared = all(n == 1 for f in matrices for n in f.shape[:-2])
    if not shared:
        matrices = [
            ops.broadcast_to(f, lead + tuple(f.shape[-2:])) for f in matrices
        ]
    matrices = [ops.reshape(f, (-1,) + tuple(f.shape[-2:])) for f in matrices]

    tensors = [
        ops.reshape(x, (-1, length, x.shape[-1])) for x in (query, key, value)
    ]
    states = num_features * columns * max(_states(sizes, tiles))
    output = _attend_blocks(tensors, matrices, sizes, tiles, states)
    output = ops.reshape(output, lead + (length, columns))
    return output[..., :-1], output[..., -1:]


def axis_matrix(forward, backward, n, dtype):
    """`F` of an axis, `(*batch, n, n)`, with at least two batch axes."""
    offsets = np.arange(n)[:, None] - np.arange(n)
    total = ops.cast(np.eye(n), dtype)
    for rates, steps in ((forward, offsets), (backward, -offsets)):
        if rates is None:
            continue
        rates = capped(ops.cast(rates, dtype))
        if rates.shape[-1] == 1:
            distance = ops.expand_dims(rates, -1) * ops.cast(
                np.maximum(steps, 0), dtype
            )
        else:
            # Sums of the rates between tokens: those of few small ones stay
            # accurate behind a large one, where cumulative sums do not.
            below = ops.cast(np.tril(np.ones((n, n)), -1), dtype)
            distance = _running_sums(ops.expand_dims(rates, -1) * below)
            if steps[0, -1] > 0:
                distance = ops.swapaxes(distance, -1, -2)
        weights = ops.exp(-distance)
        seen = ops.convert_to_tensor(steps > 0)
        total = total + ops.where(seen, weights, ops.zeros_like(weights))
    while len(total.shape) < 4:
        total = ops.expand_dims(total, 0)
    return total


def _running_sums(x):
    """Cumulative sums along axis -2 of numbers that are not negative: in
    blocks, as products with triangular matrices."""
    n, columns = x.shape[-2:]
    size = min(n, SUM_BLOCK)
    blocks = -(-n // size)
    triangle = ops.cast(np.tril(np.ones((size, size))), x.dtype)
    if blocks == 1:
        return matmul(triangle, x)
    rest = [(0, 0)] * (len(x.shape) - 2)
    x = ops.pad(x, [*rest, (0, blocks * size - n), (0, 0)])
    lead = tuple(ops.shape(x))[:-2]
    x = matmul(triangle, ops.reshape(x, (*lead, blocks, size, columns)))
    earlier = ops.cast(np.tril(np.ones((blocks, blocks)), -1), x.dtype)
    x = x + ops.expand_dims(matmul(earlier, x[..., -1, :]), -2)
    return ops.reshape(x, (*lead, blocks * size, columns))[..., :n, :]


# The choice of tiles.


def _states(sizes, tiles):
    """Numbers of states along each axis, in both directions together."""
    padded = [-(-n // t) * t for n, t in zip(sizes, tiles, strict=True)]
    states = []
    for n, t in zip(padded, tiles, strict=True):
        # The tiles at the ends have neighbors on one side only.
        states.append(2 * (n // t - 1) * math.prod(padded) // n)
    return states


def tiled_cost(sizes, problem):
    """Work of `tiled_attention` on a grid of several axes.

    Args:
        sizes: ints, lengths of the axes.
        problem: its sizes, with `batch`, `heads`, `num_features`,
            `value_dim`.
    """
    features, columns = problem.num_features, problem.value_dim + 1
    tiles = best_tiles(tuple(sizes), features, columns)
    heads = problem.batch * problem.heads
    work = _tiles_cost(sizes, tiles, features, columns)
    return GRADIENTS * costs.BATCHED_PRODUCT * heads * work


def _tiles_cost(sizes, tiles, num_features, columns):
    """Work of one head, in the unit of `keras_topo.operators.cost`.

    Args:
        sizes: ints, lengths of the axes.
        tiles: ints, tile sizes.
        num_features: int.
        columns: int, value columns, that of the denominator included.
    """
    padded = [-(-n // t) * t for n, t in zip(sizes, tiles, strict=True)]
    keys = math.prod(tiles)
    total = math.prod(padded) * keys * (num_features + columns + SCORE_PASSES)
    total += LAUNCHES * costs.LAUNCH
    for axis, states in enumerate(_states(sizes, tiles)):
        if not states:
            continue
        count = padded[axis] // tiles[axis]
        others = [*tiles[:axis], *padded[axis + 1 :]]
        carried = count - 1 if count > 2 else 0
        adds = 2 * tiles[axis] + carried + sum(others)
        passes = 3 + (count > 2) + 2 * len(others)
        work = adds + STATE_PASS * passes
        total += states * num_features * columns * work
        total += AXIS_LAUNCHES * costs.LAUNCH
    # Their sums over steps.
    return total + sum(n**2 for n in sizes) * STATE_PASS


@functools.lru_cache(maxsize=1024)
def best_tiles(sizes, num_features, columns):
    """The tile sizes with the least cost."""
    candidates = [
        sorted({-(-n // count) for count in TILE_COUNTS if count <= n})
        for n in sizes
    ]
    return min(
        itertools.product(*candidates),
        key=lambda tiles: _tiles_cost(sizes, tiles, num_features, columns),
    )


# Blocks, so that no more than the states of one are held.


def _attend_blocks(tensors, matrices, sizes, tiles, states):
    """`attend_tiles`, some heads after the others.

    `states` is the number of those of one head.
    """
    query, key, value = tensors
    heads = query.shape[0]
    # Blocks need to know how many there are.
    block = heads or 1
    while block > 1 and (heads % block or block * states > BLOCK_STATES):
        block -= 1
    if not heads or block == heads:
        return _attend_columns(tensors, matrices, sizes, tiles, states)
    split = 0 if matrices[0].shape[0] == 1 else len(matrices)

    def attend_heads(block, shared):
        rest = [*block[3:], *shared]
        return _attend_columns(block[:3], rest, sizes, tiles, states)

    blocks = [
        ops.reshape(x, (heads // block, block) + tuple(x.shape[1:]))
        for x in [*tensors, *matrices[:split]]
    ]
    output = checkpointed_map(attend_heads, blocks, matrices[split:])
    return ops.reshape(output, (heads,) + tuple(output.shape[2:]))


def _attend_columns(tensors, matrices, sizes, tiles, states):
    """`attend_tiles`, some value columns after the others."""
    query, key, value = tensors
    count = min(-(-states // (2 * BLOCK_STATES)), value.shape[-1])
    if count <= 1:
        return attend_tiles(query, key, value, sizes, tiles, matrices)
    length, columns = value.shape[1:]
    width = -(-columns // count)
    value = ops.pad(value, [(0, 0), (0, 0), (0, count * width - columns)])
    value = ops.reshape(value, (-1, length, count, width))

    def attend_columns(block, shared):
        query, key, *matrices = shared
        return attend_tiles(query, key, block[0], sizes, tiles, matrices)

    output = checkpointed_map(
        attend_columns, [ops.moveaxis(value, 2, 0)], [query, key, *matrices]
    )
    output = ops.reshape(
        ops.moveaxis(output, 0, 2), (-1, length, count * width)
    )
    return output[..., :columns]


# The numerics. Heads are one axis, `N`; `p` tiles along an axis, `t` tokens
# long, make up its padded size.


def attend_tiles(query, key, value, sizes, tiles, matrices):
    """`sum_j M_ij (q_i . k_j) v_j`.

    Args:
        query, key, value: `(N, L, columns)`.
        sizes, tiles: ints, lengths of the axes of the grid and of the tiles.
        matrices: `F` of each axis, `(N or 1, n, n)`.

    Returns:
        `(N, L, columns)`.
    """
    counts = [-(-n // t) for n, t in zip(sizes, tiles, strict=True)]
    margins = [
        (0, p * t - n) for p, t, n in zip(counts, tiles, sizes, strict=True)
    ]
    length, columns = value.shape[1:]

    def on_grid(x):
        # Keys of zeros beyond the edges are not seen.
        x = ops.reshape(x, (-1, *sizes, x.shape[-1]))
        return ops.pad(x, [(0, 0), *margins, (0, 0)]) if padded else x

    padded = any(after for _, after in margins)
    query, key, value = on_grid(query), on_grid(key), on_grid(value)
    matrices = [
        ops.pad(f, [(0, 0), margin, margin]) if margin[1] else f
        for f, margin in zip(matrices, margins, strict=True)
    ]
    total = _inside(query, key, value, counts, tiles, matrices)
    heads = ops.shape(query)[0]
    matrices = [
        ops.broadcast_to(f, (heads,) + tuple(f.shape[1:])) for f in matrices
    ]
    for axis, count in enumerate(counts):
        if count > 1:
            total = total + _outside(
                query, key, value, axis, counts, tiles, matrices
            )
    if padded:
        total = total[(slice(None), *[slice(0, n) for n in sizes])]
    return ops.reshape(total, (-1, length, columns))


def _inside(query, key, value, counts, tiles, matrices):
    """What keys in the tile of the query add, on the padded grid."""
    rank, size = len(counts), math.prod(tiles)
    split = [n for pair in zip(counts, tiles, strict=True) for n in pair]
    order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)]
    order.append(2 * rank + 1)

    def by_tile(x):
        x = ops.reshape(x, (-1, *split, x.shape[-1]))
        x = ops.transpose(x, order)
        return ops.reshape(x, (-1, math.prod(counts), size, x.shape[-1]))

    first, *others = [
        _diagonal_blocks(f, count, tile)
        for f, count, tile in zip(matrices, counts, tiles, strict=True)
    ]
    rest = [functools.reduce(_products, others)] if others else []

    def attend(tensors, rest):
        query, key, value, first = tensors
        mask = _products(first, *rest) if rest else first
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) * mask
        return ops.matmul(scores, value)

    tensors = [by_tile(x) for x in (query, key, value)]
    scores = (query.shape[0] or 1) * math.prod(counts) * size**2
    if scores <= 2 * BLOCK_STATES:
        y = attend([*tensors, first], rest)
    else:
        # One tile of the first axis after the other.
        blocks = [
            ops.moveaxis(
                ops.reshape(
                    x, (-1, counts[0], x.shape[1] // counts[0], *x.shape[2:])
                ),
                1,
                0,
            )
            for x in [*tensors, first]
        ]
        y = ops.moveaxis(checkpointed_map(attend, blocks, rest), 0, 1)
    y = ops.reshape(y, (-1, *counts, *tiles, y.shape[-1]))
    y = ops.transpose(y, np.argsort(order).tolist())
    padded = [p * t for p, t in zip(counts, tiles, strict=True)]
    return ops.reshape(y, (-1, *padded, y.shape[-1]))


def _diagonal_blocks(f, count, tile):
    """`(N, p, t, t)`, the blocks of `(N, p t, p t)` on the diagonal."""
    f = ops.reshape(f, (-1, count, tile, count, tile))
    f = ops.transpose(f, (0, 1, 3, 2, 4))
    f = ops.reshape(f, (-1, count * count, tile, tile))
    return f[:, :: count + 1]


def _products(a, b):
    """Kronecker products of all `(N, p, t, t)` and `(N, q, u, u)`:
    `(N, p q, t u, t u)`."""
    p, t = a.shape[1:3]
    q, u = b.shape[1:3]
    # First the tiles: TensorFlow does not broadcast so many axes at once.
    a = ops.reshape(ops.repeat(a, q, axis=1), (-1, p * q, t, 1, t, 1))
    b = ops.reshape(ops.tile(b, (1, p, 1, 1)), (-1, p * q, 1, u, 1, u))
    return ops.reshape(a * b, (-1, p * q, t * u, t * u))


def _outside(query, key, value, axis, counts, tiles, matrices):
    """What keys add whose first axis in another tile is `axis`.

    States have the shape `(M, 2, s, O, columns, m)`: `M` for the heads and
    the tiles along the axes before, two directions, `s = p - 1` borders
    between tiles, `O` for the positions along the other axes.
    """
    count, tile, steps = counts[axis], tiles[axis], counts[axis] - 1
    before, inner = counts[:axis], tiles[:axis]
    padded = [p * t for p, t in zip(counts, tiles, strict=True)]
    after = padded[axis + 1 :]
    outer, others = math.prod(before), math.prod([*inner, *after])
    features, columns = key.shape[-1], value.shape[-1]

    # (N, p_1, t_1, ..., p, t, after..., c)
    split = [n for k in range(axis + 1) for n in (counts[k], tiles[k])] + after
    last = len(split) + 1
    lead = [0, *range(1, 2 * axis, 2), 2 * axis + 1]
    lead += [*range(2, 2 * axis + 1, 2), *range(2 * axis + 3, last)]
    tokens_last = [*lead, last, 2 * axis + 2]

    def by_line(x, order):
        """`(M, p, O, ...)`: then tokens and columns, or columns and tokens."""
        x = ops.transpose(ops.reshape(x, (-1, *split, x.shape[-1])), order)
        return ops.reshape(x, (-1, count, others) + tuple(x.shape[-2:]))

    def per_tile(x):
        """From `(N, ...)` to `(M, ...)`."""
        rest = tuple(x.shape[1:])
        return ops.reshape(ops.repeat(x, outer, axis=0), (-1, *rest))

    entering, leaving, carry = _borders(matrices[axis], count, tile)
    entering, leaving = [
        [per_tile(x) for x in pair] for pair in (entering, leaving)
    ]

    key = by_line(key, [*lead, 2 * axis + 2, last])
    value = by_line(value, tokens_last)
    key = [
        x * ops.expand_dims(w, (2, 4))
        for x, w in zip((key[:, :-1], key[:, 1:]), entering, strict=True)
    ]
    value = ops.stack([value[:, :-1], value[:, 1:]], 1)
    states = ops.matmul(value, ops.stack(key, 1))

    size = others * columns * features
    if steps > 1:
        states = ops.reshape(states, (-1, 2, steps, size))
        states = ops.matmul(per_tile(carry), states)
    states = _along_others(
        states, size, axis, counts, tiles, matrices, per_tile
    )
    states = ops.reshape(states, (-1, 2, steps, others, columns, features))

    query = by_line(query, [*lead, last, 2 * axis + 2])
    query = [
        x * ops.expand_dims(w, (2, 3))
        for x, w in zip((query[:, 1:], query[:, :-1]), leaving, strict=True)
    ]
    y = ops.matmul(states, ops.stack(query, 1))
    rest = [(0, 0)] * 3
    y = ops.pad(y[:, 0], [(0, 0), (1, 0), *rest]) + ops.pad(
        y[:, 1], [(0, 0), (0, 1), *rest]
    )
    y = ops.reshape(y, (-1, *before, count, *inner, *after, columns, tile))
    y = ops.transpose(y, np.argsort(tokens_last).tolist())
    return ops.reshape(y, (-1, *padded, columns))


def _borders(matrix, count, tile):
    """From tokens to borders between tiles, from those to tokens, and on.

    Args:
        matrix: `(N, count * tile, count * tile)`, a decay along one axis.

    Returns:
        Two lists, of both directions: from tokens to the border that they
        reach first, and from a border to the tokens behind it, each `(N,
        count - 1, tile)`; and from one border to the others, `(N, 2, count - 1,
        count - 1)`, `None` where there is only one.
    """
    steps = count - 1
    f = ops.reshape(matrix, (-1, count, tile, count, tile))
    blocks = _diagonal_blocks(matrix, count, tile)
    starts, ends = f[:, 1:, 0], f[:, :-1, -1]
    entering = [
        ops.reshape(x, (-1, steps * steps, tile))[:, :: steps + 1]
        for x in (starts[:, :, :-1], ends[:, :, 1:])
    ]
    leaving = [blocks[:, 1:, :, 0], blocks[:, :-1, :, -1]]
    if steps == 1:
        return entering, leaving, None
    lower = np.tril(np.ones((steps, steps)))
    carry = ops.stack(
        [
            starts[:, :, 1:, 0] * ops.cast(lower, f.dtype),
            ends[:, :, :-1, -1] * ops.cast(lower.T, f.dtype),
        ],
        axis=1,
    )
    return entering, leaving, carry


def _along_others(states, size, axis, counts, tiles, matrices, per_tile):
    """States at the borders of `axis`, after the decays along all other axes.

    Along axes before `axis` states stay within their tile: what is outside of
    it is added where those axes have their turn.

    Args:
        states: the elements of `(M, 2, s, O, columns, m)`.
        size: int, of the last three axes together.
        per_tile: function that repeats `(N, ...)` for the tiles before.

    Returns:
        The same elements, in the same order.
    """
    padded = [p * t for p, t in zip(counts, tiles, strict=True)]
    lines = 2 * (counts[axis] - 1)
    for k, f in enumerate(matrices):
        if k == axis or padded[k] == 1:
            continue
        if k < axis:
            n, split_before = tiles[k], math.prod(tiles[:k])
            f = _diagonal_blocks(f, counts[k], n)
            f = ops.repeat(f, math.prod(counts[:k]), axis=0)
            f = ops.reshape(f, (-1, 1, n, n))
            f = ops.repeat(f, math.prod(counts[k + 1 : axis]), axis=0)
        else:
            n = padded[k]
            split_before = math.prod([*tiles[:axis], *padded[axis + 1 : k]])
            f = per_tile(ops.expand_dims(f, 1))
        count, rest = lines * split_before, size // split_before // n
        # Matrix products that broadcast are laid out anew by XLA: their
        # matrices are repeated.
        states = ops.reshape(states, (-1, count, n, rest))
        states = ops.matmul(ops.repeat(f, count, axis=1), states)
    return states
