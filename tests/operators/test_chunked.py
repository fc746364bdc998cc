"""Attention in chunks under decays: `chunked_attention` and its operators."""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.operators import Causal, ExponentialDecay, GatedDecay, Ones
from keras_topo.operators.chunked import chunked_attention
from keras_topo.testing import OperatorTest

BATCH, HEADS, FEATURES, WIDTH = 2, 3, 4, 2
# Each is compiled on JAX, which takes a second.
LENGTHS = (65,) if ref.on_jax else (1, 64, 65, 1000)

# Forward and backward rates: constant or per token, with batch axes or not.
KINDS = {
    "constant": ((HEADS, 1), "same"),
    "constant-causal": ((1,), None),
    "constant-differing": ((HEADS, 1), (BATCH, 1, 1)),
    "gated": ((BATCH, HEADS, "L"), "same"),
    "gated-causal": ((HEADS, "L"), None),
    "gated-reverse": (None, ("L",)),
    "gated-differing": ((BATCH, 1, "L"), (HEADS, "L")),
    "mixed": ((BATCH, 1, 1), (1, HEADS, "L")),
}


def features(length, batch=BATCH, heads=HEADS, seed=0):
    random = np.random.default_rng(seed)
    query, key = random.uniform(0, 1, (2, batch, heads, length, FEATURES))
    return query, key, random.normal(size=(batch, heads, length, WIDTH))


def rates_of(kind, length):
    """Forward and backward, one array for both where they are the same."""
    random = np.random.default_rng(1)
    found = []
    for shape in KINDS[kind]:
        if shape == "same":
            found.append(found[0])
        elif shape is None:
            found.append(None)
        else:
            shape = [length if n == "L" else n for n in shape]
            found.append(random.uniform(0, 0.3, shape))
    return found


def oracle(query, key, value, forward, backward):
    """Numerator and denominator in one, `(batch, heads, L, d + 1)`."""
    length = query.shape[-2]
    full = [
        None if r is None else r + np.zeros(length) for r in (forward, backward)
    ]
    ones = np.ones((*value.shape[:-1], 1))
    scores = ref.gated_decay(*full) * (query @ key.swapaxes(-1, -2))
    return scores @ np.concatenate([value, ones], -1)


def attend(query, key, value, forward, backward, **sizes):
    pair = chunked_attention(query, key, value, forward, backward, **sizes)
    return ops.concatenate(pair, axis=-1)


def placed(kind, rates):
    """Forward and backward of a kind, from its distinct rates."""
    rates = iter(rates)
    forward, backward = KINDS[kind]
    forward = None if forward is None else next(rates)
    if backward is None or backward == "same":
        return forward, None if backward is None else forward
    return forward, next(rates)


def with_rates(kind, **sizes):
    """From a kind to `function(query, key, value, *rates)`."""

    def function(query, key, value, *rates):
        return attend(query, key, value, *placed(kind, rates), **sizes)

    return function


def arguments(kind, length):
    """The arrays of `with_rates`."""
    forward, backward = rates_of(kind, length)
    rates = [r for r in (forward, backward) if r is not None]
    rates = rates[:1] if forward is backward else rates
    return [*features(length), *rates]


@pytest.mark.few_on_jax(
    "constant-causal-65",
    "gated-65",
    "gated-differing-65",
    "gated-reverse-65",
    "mixed-65",
)
@pytest.mark.parametrize(
    ("kind", "length"),
    [
        # Many tokens take seconds: one of each kind of rates.
        pytest.param(
            *(kind, length),
            marks=[pytest.mark.slow]
            * (
                length == 1000
                and kind not in ("constant-causal", "gated-differing", "mixed")
            ),
        )
        for kind in KINDS
        for length in LENGTHS
    ],
)
def test_equals_explicit(kind, length):
    arrays = arguments(kind, length)
    wanted = oracle(*arrays[:3], *rates_of(kind, length))
    sizes = [{}, {"chunk": 16, "block": 64}]
    for size in sizes[1:] if ref.on_jax else sizes:
        function = ref.staged(with_rates(kind, **size))
        actual = function(*map(ref.tensor, arrays))
        ref.assert_close(actual, wanted, 1e-12, size)


@pytest.mark.few_on_jax("7-16")
@pytest.mark.parametrize("chunk, block", [(1, 1), (4, 8), (7, 16), (64, 64)])
def test_any_chunk_gives_the_same(chunk, block):
    arrays = arguments("gated-differing", 23)
    wanted = oracle(*arrays)
    function = with_rates("gated-differing", chunk=chunk, block=block)
    actual = ref.staged(function)(*map(ref.tensor, arrays))
    ref.assert_close(actual, wanted, 1e-12)


# One block, and several of several chunks, the last not full.
BLOCKS = [8] if ref.on_jax else [64, 8]


@pytest.mark.few_on_jax("gated-differing-8", "gated-causal-8")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, block):
    length = 21
    arrays = arguments(kind, length)
    shape = (BATCH, HEADS, length, WIDTH + 1)
    upstream = np.random.default_rng(2).normal(size=shape)
    directions = [np.random.default_rng(3).normal(size=a.shape) for a in arrays]
    function = ref.with_gradients(with_rates(kind, chunk=4, block=block))
    y, gradients = ref.staged(function)(
        ref.tensor(upstream), *map(ref.tensor, arrays)
    )
    for k, direction in enumerate(directions):
        # Along one direction, by a complex step.
        moved = [a.astype(complex) for a in arrays]
        moved[k] = moved[k] + 1e-30j * direction
        wanted = np.sum(upstream * oracle(*moved[:3], *placed(kind, moved[3:])))
        wanted = wanted.imag / 1e-30
        actual = np.sum(ref.numpy(gradients[k]) * direction)
        assert actual == pytest.approx(wanted, rel=1e-11, abs=1e-11), k


@pytest.mark.slow_on_jax
@pytest.mark.few("gated-8", "gated-causal-64", "constant-64")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("kind", ["constant", "gated", "gated-causal"])
def test_gradients_of_gradients(kind, block):
    """Hessian-vector products, against differences of gradients."""
    arrays = arguments(kind, 21)
    random = np.random.default_rng(4)
    vectors = [random.normal(size=a.shape) for a in arrays]
    function = with_rates(kind, chunk=4, block=block)

    def squared(*tensors):
        return ops.sum(ops.square(function(*tensors)))

    def slope(*tensors):
        _, gradients = ref.with_gradients(squared)(
            ops.ones((), "float64"), *tensors
        )
        pairs = zip(gradients, vectors, strict=True)
        return sum(ops.sum(g * ref.tensor(v)) for g, v in pairs)

    _, products = ref.staged(ref.with_gradients(slope))(
        ops.ones((), "float64"), *map(ref.tensor, arrays)
    )
    gradient = ref.staged(ref.with_gradients(squared))
    step = 1e-5
    moved = [
        gradient(
            ops.ones((), "float64"),
            *[
                ref.tensor(a + sign * step * v)
                for a, v in zip(arrays, vectors, strict=True)
            ],
        )[1]
        for sign in (1, -1)
    ]
    for product, up, down in zip(products, *moved, strict=True):
        wanted = (ref.numpy(up) - ref.numpy(down)) / (2 * step)
        ref.assert_close(product, wanted, 1e-7)


# Rates of any size.


@pytest.mark.slow_on_jax
def test_equal_and_zero_rates():
    length = 70
    query, key, value = map(ref.tensor, features(length))
    rate = ref.tensor([0.1, 0.2, 0.0])
    gated = GatedDecay(ops.broadcast_to(rate[:, None], (HEADS, length)))
    decay = ExponentialDecay(rate, length)
    ref.assert_close(gated.to_dense(), ref.dense(decay), 1e-14)
    zero = GatedDecay(np.zeros(length))
    pairs = [
        (gated, decay),
        (zero, Ones(length, "float64")),
        (GatedDecay(np.zeros(length), causal=True), Causal(length)),
        (ExponentialDecay(np.zeros(()), length, causal=True), Causal(length)),
    ]
    for operator, other in pairs:
        actual = ops.concatenate(
            operator.attend(query, key, value, "chunks"), axis=-1
        )
        scores = ref.numpy(other.to_dense()) * ref.numpy(
            query @ ops.swapaxes(key, -1, -2)
        )
        ones = ops.ones_like(value[..., :1])
        wanted = scores @ ref.numpy(ops.concatenate([value, ones], -1))
        ref.assert_close(actual, wanted, 1e-13)


@pytest.mark.few_on_jax("gated-differing")
@pytest.mark.parametrize("kind", ["gated", "gated-causal", "gated-differing"])
def test_large_rates(kind):
    """In float32, and where small rates follow large ones."""
    length = 150
    arrays = arguments(kind, length)
    for rates in arrays[3:]:
        rates[..., 10] = 60.0
        rates[..., 70:75] = 1e4
        rates[..., 100] = 1e30
        rates[..., 101:] = 1e-3
    # Sums of 1e30 would know nothing else.
    capped = [np.minimum(rates, 1e4) for rates in arrays[3:]]
    wanted = oracle(*arrays[:3], *placed(kind, capped))
    function = ref.with_gradients(with_rates(kind, chunk=32, block=64))
    upstream = np.ones(wanted.shape, "float32")
    y, gradients = ref.staged(function)(
        ref.tensor(upstream), *[ref.tensor(a, "float32") for a in arrays]
    )
    ref.assert_close(y, wanted, 3e-6)
    for gradient in gradients:
        assert np.isfinite(ref.numpy(gradient)).all()


@pytest.mark.slow_on_jax
def test_infinite_rates_start_anew():
    rates = np.full(12, 0.1)
    rates[5] = np.inf
    operator = GatedDecay(rates, causal=True)
    dense = ref.numpy(operator.to_dense())
    assert (dense[5:, :5] == 0).all()
    assert np.isfinite(dense).all()
    query, key, value = map(ref.tensor, features(12))
    whole = operator.attend(query, key, value, "chunks")[0]
    later = GatedDecay(rates[5:], causal=True).attend(
        query[:, :, 5:], key[:, :, 5:], value[:, :, 5:], "chunks"
    )[0]
    ref.assert_close(whole[:, :, 5:], ref.numpy(later), 1e-13)


@pytest.mark.parametrize("chunk", [64, 4])
def test_gradient_at_a_rate_of_zero(chunk):
    """The slope towards larger rates, not the mean of two."""
    length = 9
    arrays = [*features(length), np.zeros(length)]
    function = ref.with_gradients(with_rates("gated-reverse", chunk=chunk))
    upstream = np.ones((BATCH, HEADS, length, WIDTH + 1))
    _, gradients = ref.staged(function)(*map(ref.tensor, [upstream, *arrays]))
    moved = [a.astype(complex) for a in arrays]
    for token in range(length):
        rates = moved[3].copy()
        rates[token] += 1e-30j
        wanted = oracle(*moved[:3], None, rates).sum().imag / 1e-30
        actual = float(ref.numpy(gradients[3])[token])
        assert actual == pytest.approx(wanted, rel=1e-12)


@pytest.mark.slow_on_jax
def test_rows_of_a_long_mask():
    """In float32, where one sum of all rates would know three digits."""
    length = 200_000
    random = np.random.default_rng(5)
    rates = random.uniform(0, 0.02, length).astype("float32")
    rates[::5000] = 20.0
    ids = np.array([150_003, 3, 199_999, 100_100], "int32")
    operator = GatedDecay(rates)._for_rows()
    rows = ref.numpy(operator._rows_at(ref.tensor(ids)))
    sums = np.cumsum(rates.astype("float64"))
    wanted = np.exp(-abs(sums[ids][:, None] - sums))
    ref.assert_close(rows, wanted, 1e-6)
    some = ref.numpy(operator._rows(ref.tensor(100_000, "int32"), 3))
    ref.assert_close(some[2], np.exp(-abs(sums[100_002] - sums)), 1e-6)


@pytest.mark.few_on_jax("GatedDecay1")
@pytest.mark.parametrize(
    "operator",
    [
        Causal(9, dtype="float64"),
        Causal(9, reverse=True, dtype="float64"),
        ExponentialDecay(np.array([0.3, 0.1]), 9),
        ExponentialDecay(np.array([0.3, 0.1]), 9, causal=True),
        ExponentialDecay(np.array(0.3), 9, causal=True, reverse=True),
        GatedDecay(np.arange(9) / 9),
        GatedDecay(np.arange(18).reshape(2, 9) / 9, causal=True),
        GatedDecay(np.arange(9) / 9, backward_rates=np.ones((2, 9))),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_rows_in_any_order(operator):
    dense = ref.numpy(operator.to_dense())
    ids = np.array([4, 0, 8, 4], "int32")
    rows = ref.numpy(operator._rows_at(ref.tensor(ids)))
    np.testing.assert_allclose(rows, dense[..., ids, :], rtol=1e-14)
    np.testing.assert_array_equal(rows == 0, dense[..., ids, :] == 0)


# States.

LONG = 80  # More than a chunk.


def full(*tensors):
    return 2.0 * np.tril(ref.decay(tensors[0], LONG)) + ref.gated_decay(
        tensors[1], None
    )


# By the operator of the tokens from `start` to `stop`, its matrix, parameters.
STATEFUL = {
    "causal": (
        lambda start, stop, dtype: Causal(stop - start, dtype=dtype),
        lambda: np.tril(np.ones((LONG, LONG))),
        (),
    ),
    "decay": (
        lambda start, stop, rate: ExponentialDecay(
            rate, stop - start, causal=True
        ),
        lambda rate: np.tril(ref.decay(rate, LONG)),
        (np.array([0.1, 0.0, 1.0]),),
    ),
    "gated": (
        lambda start, stop, rates: GatedDecay(
            rates[..., start:stop], causal=True
        ),
        lambda rates: ref.gated_decay(rates, None),
        (np.random.default_rng(6).uniform(0, 1, (BATCH, HEADS, LONG)),),
    ),
    "sum": (
        lambda start, stop, rate, rates: (
            2.0 * ExponentialDecay(rate, stop - start, causal=True)
            + GatedDecay(rates[..., start:stop], causal=True)
        ),
        full,
        (np.array([0.1, 0.5]), np.random.default_rng(6).uniform(0, 1, LONG)),
    ),
}


@pytest.mark.few_on_jax("gated")
@pytest.mark.parametrize("name", STATEFUL)
def test_whole_pieces_and_steps_agree(name):
    """Outputs, states and gradients, in pieces shorter and longer than a chunk
    and in a few steps."""
    piece, dense, parameters = STATEFUL[name]
    contract = OperatorTest(
        lambda *tensors: piece(0, LONG, *tensors), dense, parameters, piece
    )
    cuts = [[0, 7, 72, 80], [0, 65, *range(66, 76), 80]]
    contract.check_state([[0, 7, 72, 73, 74, 80]] if ref.on_jax else cuts)


def test_state_of_several_blocks():
    query, key, value = features(37)
    rates = np.random.default_rng(8).uniform(0, 1, (HEADS, 37))
    tensors = [ref.tensor(x) for x in (query, key, value, rates)]
    state = ref.tensor(np.ones((BATCH, HEADS, FEATURES, WIDTH + 1)))
    for rate in (tensors[3], tensors[3][:, :1]):
        results = [
            ref.staged(
                lambda *x, state, rate, sizes=sizes: chunked_attention(
                    *x, rate, None, state, True, **sizes
                )
            )(*tensors[:3], state=state, rate=rate)
            for sizes in ({}, {"chunk": 4, "block": 12})
        ]
        for a, b in zip(*results, strict=True):
            ref.assert_close(a, ref.numpy(b), 1e-12)


@pytest.mark.slow_on_jax
def test_initial_state_changes_nothing():
    rates = np.random.default_rng(6).uniform(0, 1, (BATCH, HEADS, 9))
    operator = GatedDecay(ref.tensor(rates), causal=True)
    tensors = [ref.tensor(x) for x in features(9)]
    state = operator.initial_state(BATCH, HEADS, FEATURES, WIDTH, "float64")
    assert tuple(state.shape) == (BATCH, HEADS, FEATURES, WIDTH + 1)
    plain = operator.attend(*tensors, "chunks")
    for a, b in zip(operator.attend(*tensors, state=state), plain, strict=True):
        ref.assert_close(a, ref.numpy(b), 1e-14)


# Shapes and dtypes.


@pytest.mark.slow_on_jax
def test_empty_batch():
    query, key, value = (ref.tensor(x) for x in features(70, batch=0))
    for operator in (
        Causal(70),
        ExponentialDecay(np.ones(HEADS), 70),
        GatedDecay(np.ones((HEADS, 70)), causal=True),
    ):
        numerator, denominator = operator.attend(query, key, value, "chunks")
        assert tuple(numerator.shape) == (0, HEADS, 70, WIDTH)
        assert tuple(denominator.shape) == (0, HEADS, 70, 1)
    x = ops.zeros((0, HEADS, 70, 2))
    assert tuple((operator @ x).shape) == (0, HEADS, 70, 2)


def test_half_precision_is_computed_in_float32():
    tensors = [ref.tensor(x, "bfloat16") for x in features(9)]
    operator = ExponentialDecay(ref.tensor([0.1, 0.2, 0.3], "bfloat16"), 9)
    for x in operator.attend(*tensors, "chunks"):
        assert keras.backend.standardize_dtype(x.dtype) == "float32"


@pytest.mark.few("constant-causal-True", "mixed-False")
@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "kind, compiled",
    [
        ("constant-differing", False),
        ("constant-causal", True),
        ("gated-differing", True),
        ("mixed", False),
    ],
)
def test_unknown_batch_and_heads(kind, compiled):
    import tensorflow as tf

    length = 21
    arrays = arguments(kind, length)
    signature = [
        tf.TensorSpec((None, None, *a.shape[2:]), a.dtype) for a in arrays[:3]
    ]
    for rates in arrays[3:]:
        shape = tuple(n if n in (1, length) else None for n in rates.shape)
        signature.append(tf.TensorSpec(shape, rates.dtype))
    for block in (8,) if compiled else (64, 8):
        function = tf.function(
            with_rates(kind, chunk=4, block=block),
            input_signature=signature,
            jit_compile=compiled,
            autograph=False,
        )
        wanted = oracle(*arrays[:3], *rates_of(kind, length))
        ref.assert_close(function(*arrays), wanted, 1e-12)


@pytest.mark.tensorflow_only
def test_products_with_unknown_batch():
    import tensorflow as tf

    rates = np.random.default_rng(9).uniform(0, 1, (2, 3, 9))
    x = np.random.default_rng(9).normal(size=(2, 3, 9, 2))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 9), "float64"),
            tf.TensorSpec((None, None, 9, 2), "float64"),
        ]
    )
    def product(rates, x):
        return GatedDecay(rates) @ x

    ref.assert_close(
        product(rates, x), ref.gated_decay(rates, rates) @ x, 1e-12
    )


# Errors.

CAUSAL = GatedDecay(np.ones(4), causal=True)
STATE = np.zeros((BATCH, HEADS, FEATURES, WIDTH))
TOKEN = [x[:, :, 0] for x in map(ref.tensor, features(1))]
TOKENS = [ref.tensor(x) for x in features(4)]
WRONG = {
    "negative": (lambda: ExponentialDecay(-0.1, 3), "`rate`.*-0.1"),
    "nan": (lambda: GatedDecay([0.1, np.nan]), "`rates`.*nan"),
    "negative-backward": (
        lambda: GatedDecay([0.1], backward_rates=[-1.0]),
        "`backward_rates`",
    ),
    "scalar": (lambda: GatedDecay(0.5), "`rates` expects at least 1"),
    "empty": (lambda: GatedDecay(np.zeros(0)), "at least one token"),
    "lengths": (
        lambda: GatedDecay(np.ones(3), backward_rates=np.ones(2)),
        "`backward_rates`.*3",
    ),
    "causal-backward": (
        lambda: GatedDecay([0.1], causal=True, backward_rates=[0.1]),
        "`backward_rates` expects None",
    ),
    "reverse": (lambda: GatedDecay([0.1], reverse=True), "`reverse`"),
    "reverse-decay": (
        lambda: ExponentialDecay(0.1, 2, reverse=True),
        "`reverse`",
    ),
    "state-shape": (
        lambda: CAUSAL.attend(*TOKENS, state=STATE),
        "`state`.*m, d",
    ),
    "state-shape-step": (
        lambda: Causal(1).step(*TOKEN, STATE),
        "`state`.*m, d",
    ),
    "state-of-two-sides": (
        lambda: GatedDecay(np.ones(4)).attend(*TOKENS, return_state=True),
        "causal masks",
    ),
    "step-of-two-sides": (
        lambda: ExponentialDecay(0.1, 4).step(*TOKEN, STATE),
        "causal masks",
    ),
    "initial-reverse": (
        lambda: Causal(3, reverse=True).initial_state(1, 1, 1, 1),
        "causal masks",
    ),
    "step-of-many": (lambda: CAUSAL.step(*TOKEN, STATE), "length 1"),
    "engine": (
        lambda: chunked_attention(
            *TOKENS, ops.ones(1), ops.ones(1), return_state=True
        ),
        "`backward=None`",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_errors(wrong):
    call, message = WRONG[wrong]
    with pytest.raises(ValueError, match=f"(?s){message}.*"):
        call()


def test_sums_of_many_large_rates():
    """They leave the range of int32, in steps of 1/64."""
    mask = GatedDecay(np.full(400_000, 104.0, "float32"), causal=True)
    row = ref.numpy(mask.rows(399_999, 400_000))[0]
    assert row[-1] == 1 and not row[:-1].any()
