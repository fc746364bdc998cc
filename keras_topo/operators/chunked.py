"""Attention under masks that decay along an order of the tokens, in chunks.

`M_ij = exp(-(c_i - c_j))` for `j < i`, with `c` the cumulative sum of rates per
token, and the mirrored thing for `j > i`. Inside a chunk the scores are
explicit. What the tokens of other chunks contribute to a chunk goes through one
matrix of features times values per direction, its *state*.

Every exponent is minus a sum of rates between two tokens: nothing is divided
by a decay, so nothing overflows at any rate.
"""

from collections import namedtuple

import numpy as np
from keras import ops

from keras_topo._backend import checkpointed_map, matmul
from keras_topo.annotations import State, Tensor
from keras_topo.operators.parameters import accumulation_dtype

# Tokens whose scores are explicit.
CHUNK = 64
# Tokens that are worked on at a time. For the gradients of a longer sequence,
# nothing is kept but one state per block.
BLOCK = 4096
# Rates are split into multiples of this, whose sums are exact, and a rest.
STEP = 1 / 64

# One direction: whether it goes from right to left, and which rates it has.
_Direction = namedtuple("_Direction", ("reverse", "index"))
# What chunks need of one tensor of rates. `scores`: the mask in each chunk,
# `(b, h, n or 1, size, size)`. `entry`: factors from before a chunk to each of
# its tokens, `exit`: from each to the last, `(b, h, n or 1, size, 1)`.
# `totals`: the sums of the rates of each chunk, `(b, h, n)`.
_Decay = namedtuple("_Decay", ("scores", "entry", "exit", "totals"))


def chunked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    forward: Tensor | None,
    backward: Tensor | None,
    state: State | None = None,
    return_state: bool = False,
    chunk: int = CHUNK,
    block: int = BLOCK,
) -> tuple[Tensor, ...]:
    """Masked linear attention under decays, not yet divided.

    `numerator_i = sum_j M_ij (q_i . k_j) v_j`, and the denominator the same
    with `v = 1`, where

    - `M_ii = 1`,
    - `M_ij = exp(-sum_{l = j+1..i} forward_l)` for `j < i`,
    - `M_ij = exp(-sum_{l = i+1..j} backward_l)` for `j > i`.

    *Complexity*: `chunk (m + d) + 2 m (d + 1)` multiply-adds a token and a
    little more; the second term counts once per direction.

    Args:
        query, key: features, `(batch, heads, L, m)`.
        value: `(batch, heads, L, d)`.
        forward: rates of the entries with `j < i`, or `None` where those are
            zero; `(..., L)`, or `(..., 1)` if all tokens have the same, with
            leading axes that broadcast against `(batch, heads)`. Rates per
            token are non-negative.
        backward: the same for `j > i`. One tensor for both is used once.
        state: `(batch, heads, m, d + 1)`, what the tokens before these left:
            `sum_j M_ij k_j [v_j, 1]^T` for the last of them, `i`.
        return_state: bool, whether to return the state after the last token.
        chunk: int, tokens whose scores are explicit.
        block: int, tokens that are worked on at a time.

    Returns:
        numerator `(batch, heads, L, d)`, denominator `(batch, heads, L, 1)`
        and, if asked for, the state; in the widest of the dtypes and in
        float32 at least.

    Raises:
        ValueError: if there is a `backward` and a state is given or asked for.
    """
    if backward is not None and (state is not None or return_state):
        raise ValueError(
            "A state expects a mask that is zero for j > i, `backward=None`. "
            f"Received: backward={backward}"
        )
    dtype = accumulation_dtype(query.dtype, key.dtype, value.dtype)
    query, key, value = (ops.cast(x, dtype) for x in (query, key, value))
    value = ops.concatenate([value, ops.ones_like(value[..., :1])], axis=-1)
    rates = [r for r in (forward, backward) if r is not None]
    if forward is backward:
        rates = rates[:1]
    rates = [capped(_with_batch_axes(r, dtype)) for r in rates]
    directions = [
        _Direction(bool(k), min(k, len(rates) - 1))
        for k, r in enumerate((forward, backward))
        if r is not None
    ]
    states = [None if state is None else ops.cast(state, dtype)]
    states = states * len(directions)

    length = key.shape[-2]
    if length is None:
        # One block, of chunks that are counted when the function runs.
        length, size, blocks = ops.shape(key)[-2], chunk, 1
        count = -(-length // size)
    else:
        size = min(chunk, length)
        count = -(-length // size)
        blocks = -(-count * size // max(block, size))
        count = -(-count // blocks)
    padding = blocks * count * size - length
    if not isinstance(padding, int) or padding:
        if return_state:
            # Padding has a rate of zero, and the tokens keep theirs.
            rates = [_per_token(r, length) for r in rates]
        query, key, value = (_pad(x, padding, -2) for x in (query, key, value))
        rates = [r if r.shape[-1] == 1 else _pad(r, padding, -1) for r in rates]
    if blocks == 1:
        output, final = _attend(
            query, key, value, rates, directions, states, count
        )
    else:
        output, final = _attend_blocks(
            query, key, value, rates, directions, states, count, blocks
        )
    if not isinstance(padding, int) or padding:
        output = output[..., :length, :]
    result = (output[..., :-1], output[..., -1:])
    return (*result, final) if return_state else result


def _attend(query, key, value, rates, directions, states, count):
    """One block of `count` chunks: `(batch, heads, tokens, d + 1)`, and the
    left state after it.

    `states`, one per direction, enter it; `None` where nothing does.
    """
    size = _chunk_size(key, count)
    query, key, value = (
        _split(x, count, size=size) for x in (query, key, value)
    )
    decays = [_decay(r, count, size) for r in rates]
    scores = matmul(query, ops.swapaxes(key, -1, -2))
    output = matmul(scores * _mask(decays, directions), value)
    final = None
    for (reverse, index), state in zip(directions, states, strict=True):
        decay = decays[index]
        if isinstance(count, int) and count == 1 and state is None and reverse:
            continue
        sums = _sums_of_chunks(key, value, decay, reverse)
        entering = _entering(sums, decay.totals, state, reverse)
        if entering is not None:
            weights = decay.exit if reverse else decay.entry
            output = output + matmul(query * weights, entering)
        if not reverse:
            final = _final(sums, entering, decay.totals)
    return _join(output, 2), final


def _attend_blocks(query, key, value, rates, directions, states, count, n):
    """The same for `n` blocks, of which gradients recompute one at a time."""
    tensors = [_blocks_first(x, n, 2) for x in (query, key, value)]
    constant = [r for r in rates if r.shape[-1] == 1]
    tensors += [_blocks_first(r, n, 2) for r in rates if r.shape[-1] != 1]
    size = key.shape[-2] // n // count

    def rates_of(per_token, constant):
        per_token, constant = iter(per_token), iter(constant)
        return [
            next(constant if r.shape[-1] == 1 else per_token) for r in rates
        ]

    def summarize(block, constant):
        key, value, *per_token = block
        key, value = (_split(x, count) for x in (key, value))
        decays = [_decay(r, count, size) for r in rates_of(per_token, constant)]
        found = []
        for reverse, index in directions:
            sums = _sums_of_chunks(key, value, decays[index], reverse)
            found.append(_sum_of_block(sums, decays[index].totals, reverse))
        return ops.stack(found)

    sums = checkpointed_map(summarize, tensors[1:], constant)
    entering, final = [], None
    for k, (reverse, index) in enumerate(directions):
        each = ops.moveaxis(sums[:, k], 0, 2)
        totals = _totals(rates[index], n, count * size)
        found = _entering(each, totals, states[k], reverse)
        entering.append(ops.moveaxis(found, 2, 0))
        if not reverse:
            final = _final(each, found, totals)

    def attend(block, constant):
        states = block[: len(directions)]
        query, key, value, *per_token = block[len(directions) :]
        rates = rates_of(per_token, constant)
        return _attend(query, key, value, rates, directions, states, count)[0]

    output = checkpointed_map(attend, entering + tensors, constant)
    return _join(ops.moveaxis(output, 0, 2), 2), final


# Decays.


def _decay(rates, count, size):
    """`_Decay` of rates `(b, h, 1)` or `(b, h, count * size)`."""
    i = np.arange(size)
    if rates.shape[-1] == 1:
        totals = _totals(rates, count, size)
        rates = rates[..., None, None]
        after = _like(i[:, None] + 1, rates)
        return _Decay(
            ops.exp(-rates * _like(np.abs(i[:, None] - i), rates)),
            ops.exp(-rates * after),
            ops.exp(-rates * (size - after)),
            totals,
        )
    sums = _Sums.of(_split(capped(rates), count, -1, size))
    differences = sums[..., :, None] - sums[..., None, :]
    signs = _like(np.where(i[:, None] < i, 1.0, -1.0), rates)
    last = sums[..., -1:]
    return _Decay(
        ops.exp(differences * signs),
        ops.exp(-sums.value)[..., None],
        ops.exp(sums - last)[..., None],
        last.value[..., 0],
    )


class _Sums:
    """Cumulative sums along the last axis, with accurate differences.

    In two parts: of multiples of `STEP`, which are exact up to a quarter of a
    million in float32, and of small rests. Next to a rate of 100, sums in one
    float32 number would not tell rates of 1e-6 from zero.
    """

    def __init__(self, high, low):
        self.high = high
        self.low = low

    @classmethod
    def of(cls, rates):
        high = ops.stop_gradient(ops.round(rates / STEP) * STEP)
        return cls(*(ops.cumsum(x, axis=-1) for x in (high, rates - high)))

    def __getitem__(self, index):
        return _Sums(self.high[index], self.low[index])

    def __sub__(self, other):
        return (self.high - other.high) + (self.low - other.low)

    @property
    def value(self):
        return self.high + self.low

    def delayed(self):
        """Sums of the entries before each."""
        zeros = ops.zeros_like(self.high[..., :1])
        return _Sums(
            *(
                ops.concatenate([zeros, x[..., :-1]], axis=-1)
                for x in (self.high, self.low)
            )
        )


class LongSums:
    """Cumulative sums of all tokens, `(..., L)`, with accurate differences.

    A whole number of steps, int32, and a rest that is summed by chunks first:
    differences of a million rates are accurate to 1e-5 in float32.
    """

    def __init__(self, whole, rest):
        self.parts = [whole, rest]

    @classmethod
    def of(cls, rates):
        length = tuple(ops.shape(rates))[-1]
        count = -(-length // CHUNK)
        rates = _pad(capped(rates), count * CHUNK - length, -1)
        step = _step_of_sums(rates, length)
        whole, rest = _whole_steps(rates, step)
        rest = ops.cumsum(_split(rest, count, -1, CHUNK), axis=-1)
        # The rests of a chunk make some whole steps together.
        more, after = _whole_steps(rest[..., -1], step)
        before = ops.cumsum(after, axis=-1) - after
        rest = rest + before[..., None]
        more = (ops.cumsum(more, axis=-1) - more)[..., None]
        whole = ops.cumsum(whole, axis=-1)
        whole = _join(_split(whole, count, -1, CHUNK) + more, -2)
        return cls(whole[..., :length], _join(rest, -2)[..., :length])

    def between(self, ids):
        """`c_i - c_j` for rows `i` of `ids` and all columns: `(..., n, L)`."""
        whole, rest = (
            ops.take(x, ids, axis=-1)[..., :, None] - x[..., None, :]
            for x in self.parts
        )
        step = _step_of_sums(rest, tuple(ops.shape(rest))[-1])
        return ops.cast(whole, rest.dtype) * step + rest


def _step_of_sums(rates, length):
    """A step of which int32 holds the sum of any `length` rates."""
    step = STEP
    while isinstance(length, int) and _cap(rates) * length > 2e9 * step:
        step *= 2
    return step


def _whole_steps(rates, step):
    """The nearest number of steps, int32, and what is left."""
    steps = ops.stop_gradient(ops.round(rates / step))
    return ops.cast(steps, "int32"), rates - steps * step


def capped(rates):
    """Larger rates hide as much, and sums of infinity have no differences."""
    return ops.minimum(rates, _cap(rates))


def _cap(rates):
    double = accumulation_dtype(rates.dtype) == "float64"
    return 746.0 if double else 104.0


def _totals(rates, count, size):
    """Sums of the rates of `count` chunks, `(b, h, count)`."""
    if rates.shape[-1] == 1:
        shape = tuple(ops.shape(rates))[:2] + (count,)
        return ops.broadcast_to(rates * size, shape)
    return ops.sum(_split(capped(rates), count, -1, size), axis=-1)


def _mask(decays, directions):
    """The mask inside chunks, `(b, h, n or 1, size, size)`."""
    first = decays[directions[0].index].scores
    last = decays[directions[-1].index].scores
    lower = np.tril(np.ones(first.shape[-2:]))
    if len(directions) == 1:
        return first * _like(lower.T if directions[0].reverse else lower, first)
    return first if first is last else ops.where(lower > 0, first, last)


# States.


def _sums_of_chunks(key, value, decay, reverse):
    """`sum_j w_j k_j v_j^T` over each chunk, as the last of its tokens sees it,
    or in reverse the token before it: `(batch, heads, n, m, d + 1)`."""
    weights = decay.entry if reverse else decay.exit
    return matmul(ops.swapaxes(key * weights, -1, -2), value)


def _entering(sums, totals, state, reverse):
    """The states that enter each of `n` chunks, `(batch, heads, n, m, d + 1)`;
    `None` if nothing does.

    Args:
        sums: what each chunk leaves, of the same shape.
        totals: the sums of rates of each, `(b, h, n)`.
        state: what enters the first chunk, or `None`.
        reverse: bool, whether states go from right to left.
    """
    count = tuple(ops.shape(sums))[2]
    if isinstance(count, int) and count == 1:
        return None if state is None else ops.expand_dims(state, 2)
    after = _Sums.of(capped(totals))
    before = after.delayed()
    # From after chunk l to before chunk k.
    between = before[..., :, None] - after[..., None, :]
    if isinstance(count, int):
        earlier = _like(np.tril(np.ones((count, count)), -1), sums)
    else:
        chunks = ops.arange(count, dtype="int32")
        earlier = ops.cast(chunks[:, None] > chunks, sums.dtype)
    weights = ops.exp(-between * earlier) * earlier
    if reverse:
        weights = ops.swapaxes(weights, -1, -2)
    entering = _combine(weights, sums)
    if state is None:
        return entering
    passed = after[..., -1:] - after if reverse else before.value
    return entering + ops.exp(-passed)[..., None, None] * state[:, :, None]


def _sum_of_block(sums, totals, reverse):
    """What all chunks of a block leave, `(batch, heads, m, d + 1)`."""
    after = _Sums.of(capped(totals))
    passed = after.delayed().value if reverse else after[..., -1:] - after
    return _combine(ops.exp(-passed)[..., None, :], sums)[:, :, 0]


def _final(sums, entering, totals):
    """The state that leaves the last of some chunks."""
    if entering is None:
        return sums[:, :, -1]
    last = ops.exp(-totals[..., -1])[..., None, None]
    return last * entering[:, :, -1] + sums[:, :, -1]


def _combine(weights, states):
    """`sum_l weights[k, l] states[l]`, `(batch, heads, k, m, d + 1)`."""
    batch, heads, count, features, width = ops.shape(states)
    rows = tuple(ops.shape(weights))[-2]
    # Small: repeated rather than left to a product that broadcasts.
    weights = ops.broadcast_to(weights, (batch, heads, rows, count))
    states = ops.reshape(states, (batch, heads, count, features * width))
    states = matmul(weights, states)
    return ops.reshape(states, (batch, heads, rows, features, width))


# Shapes.


def _with_batch_axes(rates, dtype):
    """Rates as `(b, h, 1 or L)`."""
    rates = ops.cast(rates, dtype)
    missing = 3 - len(rates.shape)
    return ops.reshape(rates, (1,) * missing + tuple(ops.shape(rates)))


def _per_token(rates, length):
    shape = tuple(ops.shape(rates))[:2] + (length,)
    return ops.broadcast_to(rates, shape)


def _pad(x, padding, axis):
    widths = [[0, 0] for _ in x.shape]
    widths[axis][1] = padding
    return ops.pad(x, widths)


def _chunk_size(x, count):
    return x.shape[-2] // count if isinstance(count, int) else CHUNK


def _split(x, count, axis=-2, size=None):
    """The tokens of `axis` in `count` parts, by an axis before it.

    Args:
        size: int, that of a part, where `count` is traced.
    """
    shape = list(ops.shape(x))
    axis = axis % len(shape)
    if size is None:
        size = x.shape[axis] // count
    return ops.reshape(x, shape[:axis] + [count, size] + shape[axis + 1 :])


def _join(x, axis):
    """Undoes `_split`: `axis` and the next become one."""
    shape = list(ops.shape(x))
    axis = axis % len(shape)
    tokens = shape[axis] * shape[axis + 1]
    return ops.reshape(x, shape[:axis] + [tokens] + shape[axis + 2 :])


def _blocks_first(x, count, axis):
    return ops.moveaxis(_split(x, count, axis), axis, 0)


def _like(array, x):
    """An array of the host, as numbers of the dtype of `x`."""
    return ops.convert_to_tensor(array, dtype=x.dtype)
