"""Attention under products of decays along the axes of a grid, in tiles.

The mask of two tokens of the grid is the product over the axes of

    F[i, j] = exp(-(c_i - c_j)) for j < i,   exp(-(c'_j - c'_i)) for j > i,

with `c` and `c'` the cumulative sums of the forward and backward rates of the
axis. Off the diagonal, `F` has rank one on each side. The grid is cut into
tiles. A key in the tile of the query is met explicitly. Every other key is
told apart by the first axis along which its tile is another: along that axis
it enters through a state, `sum F g v^T`, that is carried from tile to tile in
each direction; along the axes before, it is in the same tile, and along those
after it, anywhere. States along one axis are mixed along the others by `F`.
"""

import math

import numpy as np
from keras import ops

from keras_topo._backend import checkpointed_map, matmul
from keras_topo.operators.base import accumulation_dtype


def tiled_attention(query, key, value, grid_shape, axes, tile_shape=None):
    dtype = accumulation_dtype(query.dtype, key.dtype, value.dtype)
    query, key, value = [ops.cast(x, dtype) for x in (query, key, value)]
    batch, heads, length, value_dim = tuple(ops.shape(value))
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    matrices = [
        axis_matrix(forward, backward, n, dtype)
        for n, (forward, backward) in zip(grid_shape, axes, strict=True)
        if n > 1
    ]
    sizes = tuple(n for n in grid_shape if n > 1)
    tiles = tile_shape
    lead = (batch, heads)
    one = all(n == 1 for f in matrices for n in f.shape[:-2])
    matrices = [
        ops.reshape(
            f if one else ops.broadcast_to(f, lead + tuple(f.shape[-2:])),
            (1 if one else -1,) + tuple(f.shape[-2:]),
        )
        for f in matrices
    ]
    flat = [
        ops.reshape(x, (-1, length, x.shape[-1])) for x in (query, key, value)
    ]
    output = attend_tiles(*flat, sizes, tiles, matrices)
    output = ops.reshape(output, lead + (length, value_dim + 1))
    return output[..., :-1], output[..., -1:]


def axis_matrix(forward, backward, n, dtype):
    """`F`, `(*batch, n, n)`."""
    i = np.arange(n)
    offset = i[:, None] - i[None]
    total = ops.convert_to_tensor(np.eye(n), dtype)
    for rates, sign in ((forward, 1), (backward, -1)):
        if rates is None:
            continue
        rates = ops.cast(rates, dtype)
        hidden = ops.convert_to_tensor(sign * offset <= 0)
        if rates.shape[-1] == 1:
            distance = rates[..., None] * ops.convert_to_tensor(
                np.maximum(sign * offset, 0), dtype
            )
        else:
            # sum of rates between
            lower = ops.convert_to_tensor(np.tril(np.ones((n, n))), dtype)
            strict = ops.convert_to_tensor(np.tril(np.ones((n, n)), -1), dtype)
            distance = matmul(lower, rates[..., :, None] * strict)
            if sign < 0:
                distance = ops.swapaxes(distance, -1, -2)
        weights = ops.exp(-distance)
        total = total + ops.where(hidden, ops.zeros_like(weights), weights)
    while len(total.shape) < 4:
        total = total[None]
    return total


def attend_tiles(query, key, value, sizes, tiles, matrices):
    rank = len(sizes)
    counts = [-(-n // t) for n, t in zip(sizes, tiles, strict=True)]
    padded = [p * t for p, t in zip(counts, tiles, strict=True)]

    def split(x):
        x = ops.reshape(x, (-1, *sizes, x.shape[-1]))
        margin = [(0, b - a) for a, b in zip(sizes, padded, strict=True)]
        if any(m[1] for m in margin):
            x = ops.pad(x, [(0, 0), *margin, (0, 0)])
        return x

    def pad_matrix(f, by):
        return ops.pad(f, [(0, 0), (0, by), (0, by)]) if by else f

    matrices = [
        pad_matrix(f, b - a)
        for f, a, b in zip(matrices, sizes, padded, strict=True)
    ]
    blocks = [
        diagonal_blocks(f, p, t)
        for f, p, t in zip(matrices, counts, tiles, strict=True)
    ]
    query, key, value = split(query), split(key), split(value)
    total = inside(query, key, value, counts, tiles, blocks)
    for axis in range(rank):
        if counts[axis] > 1:
            total = total + outside(
                query, key, value, axis, counts, tiles, matrices, blocks
            )
    for axis, (a, b) in enumerate(zip(sizes, padded, strict=True), start=1):
        if a != b:
            total = total[(slice(None),) * axis + (slice(0, a),)]
    return total


def diagonal_blocks(f, count, tile):
    f = ops.reshape(f, (-1, count, tile, count, tile))
    f = ops.transpose(f, (0, 1, 3, 2, 4))
    f = ops.reshape(f, (-1, count * count, tile, tile))
    return f[:, :: count + 1]


def inside(query, key, value, counts, tiles, blocks):
    rank = len(counts)
    size = math.prod(tiles)
    into, back = tile_order(rank)

    def tiled(x):
        shape = [n for pair in zip(counts, tiles, strict=True) for n in pair]
        x = ops.reshape(x, (-1, *shape, x.shape[-1]))
        x = ops.transpose(x, into)
        return ops.reshape(x, (-1, math.prod(counts), size, x.shape[-1]))

    q, k, v = tiled(query), tiled(key), tiled(value)
    mask = blocks[0]
    for b in blocks[1:]:
        mask = kron_blocks(mask, b)
    scores = matmul(q, ops.swapaxes(k, -1, -2)) * mask
    y = matmul(scores, v)
    y = ops.reshape(y, (-1, *counts, *tiles, y.shape[-1]))
    y = ops.transpose(y, back)
    padded = [p * t for p, t in zip(counts, tiles, strict=True)]
    return ops.reshape(y, (-1, *padded, y.shape[-1]))


def tile_order(rank):
    into = [0] + [1 + 2 * k for k in range(rank)]
    into += [2 + 2 * k for k in range(rank)] + [2 * rank + 1]
    return into, list(np.argsort(into))


def kron_blocks(a, b):
    """(lead, p, t, t) x (lead, q, u, u) -> (lead, p q, t u, t u)"""
    p, t = a.shape[1:3]
    q, u = b.shape[1:3]
    # First the batch axes: TensorFlow does not broadcast so many at once.
    a = ops.repeat(a, q, axis=1)
    b = ops.tile(b, (1, p, 1, 1))
    y = a[:, :, :, None, :, None] * b[:, :, None, :, None, :]
    return ops.reshape(y, (-1, p * q, t * u, t * u))


def outside(query, key, value, axis, counts, tiles, matrices, blocks):
    rank = len(counts)
    count, tile = counts[axis], tiles[axis]
    padded = [p * t for p, t in zip(counts, tiles, strict=True)]
    before = counts[:axis]
    inner = tiles[:axis]
    after = padded[axis + 1 :]
    others = math.prod(inner) * math.prod(after)
    outer = math.prod(before)
    shape = []
    for k in range(axis + 1):
        shape += [counts[k], tiles[k]]
    shape += after
    # (N, p_0, t_0, ..., p_a, t_a, after..., c)
    tiles_at = [1 + 2 * k for k in range(axis)]
    inner_at = [2 + 2 * k for k in range(axis)]
    after_at = [2 * axis + 3 + k for k in range(len(after))]
    last = 2 * axis + 3 + len(after)
    into = [0, *tiles_at, 2 * axis + 1, *inner_at, *after_at]
    order = [*into, 2 * axis + 2, last]
    order_t = [*into, last, 2 * axis + 2]

    def layout(x, order):
        c = x.shape[-1]
        x = ops.transpose(ops.reshape(x, (-1, *shape, c)), order)
        trailing = (c, tile) if order is order_t else (tile, c)
        return ops.reshape(x, (-1, count, others, *trailing))

    def spread(x):
        """lead -> lead * outer"""
        if outer == 1 or x.shape[0] == 1:
            return x
        s = tuple(x.shape[1:])
        x = ops.repeat(x[:, None], outer, axis=1)
        return ops.reshape(x, (-1, *s))

    f = ops.reshape(matrices[axis], (-1, count, tile, count, tile))
    # states at the starts of tiles 1.. from the left, at the ends of tiles
    # ..p-2 from the right
    steps = count - 1
    forward, backward = f[:, 1:, 0], f[:, :-1, -1]  # (lead, p - 1, p, t)

    def at_diagonal(x):
        x = ops.reshape(x, (-1, steps * steps, tile))
        return spread(x[:, :: steps + 1])

    building = [at_diagonal(forward[:, :, :-1]), at_diagonal(backward[:, :, 1:])]
    reading = [
        spread(blocks[axis][:, 1:, :, 0]),
        spread(blocks[axis][:, :-1, :, -1]),
    ]
    lower = np.tril(np.ones((steps, steps), bool))
    zero = ops.zeros_like(forward[:, :, 1:, 0])
    carry = [
        ops.where(lower, forward[:, :, 1:, 0], zero),
        ops.where(lower.T, backward[:, :, :-1, -1], zero),
    ]
    m, d = key.shape[-1], value.shape[-1]
    k, v = layout(key, order), layout(value, order_t)
    k = [k[:, :-1], k[:, 1:]]
    k = ops.stack(
        [x * ops.expand_dims(w, (2, 4)) for x, w in zip(k, building, strict=True)],
        1,
    )
    v = ops.stack([v[:, :-1], v[:, 1:]], 1)
    state = matmul(v, k)  # (M, 2, p - 1, O, d, m)
    if steps > 1:
        state = ops.reshape(state, (-1, 2, steps, others * m * d))
        carry = spread(ops.stack(carry, 1))
        carry = ops.broadcast_to(
            carry, (ops.shape(state)[0], 2, steps, steps)
        )
        state = matmul(carry, state)
    for other in range(rank):
        if other == axis:
            continue
        if other < axis:
            n = tiles[other]
            left = math.prod(tiles[:other])
            right = math.prod(tiles[other + 1 : axis]) * math.prod(after)
            mixing = blocks[other]  # (lead, p_other, t, t)
            lead = [1] * axis
            lead[other] = counts[other]
            mixing = ops.reshape(mixing, (-1, *lead, n, n))
            target = (mixing.shape[0], *before, n, n)
            if mixing.shape[0] is None:
                target = (ops.shape(mixing)[0], *before, n, n)
            mixing = ops.broadcast_to(mixing, target)
            mixing = ops.reshape(mixing, (-1, 1, n, n))
            if outer > 1 and blocks[other].shape[0] == 1:
                mixing = ops.reshape(mixing, (1, outer, 1, n, n))
                state = ops.reshape(
                    state,
                    (-1, outer, 2 * steps * left, n, right * m * d),
                )
            else:
                state = ops.reshape(
                    state, (-1, 2 * steps * left, n, right * m * d)
                )
        else:
            n = padded[other]
            left = math.prod(inner) * math.prod(padded[axis + 1 : other])
            right = math.prod(padded[other + 1 :])
            mixing = spread(matrices[other][:, None])
            state = ops.reshape(state, (-1, 2 * steps * left, n, right * m * d))
        mixing = ops.broadcast_to(
            mixing, tuple(ops.shape(state))[:-2] + (n, n)
        )
        state = matmul(mixing, state)
    state = ops.reshape(state, (-1, 2, steps, others, d, m))
    q = layout(query, order_t)
    q = [q[:, 1:], q[:, :-1]]
    q = ops.stack(
        [x * ops.expand_dims(w, (2, 3)) for x, w in zip(q, reading, strict=True)],
        1,
    )
    y = matmul(state, q)  # (M, 2, p - 1, O, d, t)
    beside = [(0, 0)] * 5
    beside[1] = (1, 0)
    left = ops.pad(y[:, 0], beside)
    beside[1] = (0, 1)
    y = left + ops.pad(y[:, 1], beside)
    y = ops.reshape(y, (-1, *before, count, *inner, *after, d, tile))
    y = ops.transpose(y, list(np.argsort(order_t)))
    return ops.reshape(y, (-1, *padded, d))
