"""Causal attention: all at once, in chunks, and token by token."""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo import masks
from keras_topo.layers import MaskedAttention, TopologicalEncoderBlock
from keras_topo.masks import CausalMask, DecayMask, Mask
from keras_topo.operators import Dense

BATCH, TOKENS, CHANNELS = 2, 6, 4
CHUNKS = (1, 3, 2)

MASKS = {
    "none": lambda: None,
    "decay": lambda: "decay",
    "decay-3": lambda: DecayMask(num_scales=3),
    "gated": lambda: "gated",
    "causal": lambda: "causal",
    "table": lambda: "table",
    "distance": lambda: "distance",
    "separable": lambda: "separable",
    "separable-decay": lambda: masks.get("separable", terms="decay", rank=2),
    "gaussian": lambda: "gaussian",
    "resolvent": lambda: "resolvent",
    "sum-of-decays": lambda: masks.get("gated") + DecayMask(),
    "product-of-decays": lambda: masks.get("gated") * DecayMask(),
    "product-with-a-sum": lambda: (
        (masks.get("gated") + DecayMask()) * (DecayMask() + DecayMask())
    ),
    "sum": lambda: masks.get("table") + DecayMask(),
    "product": lambda: masks.get("table") * masks.get("gated"),
}
# Their states have a fixed size for any number of past tokens.
WITH_STATE = {
    "none",
    "decay",
    "decay-3",
    "gated",
    "resolvent",
    "causal",
    "separable-decay",
    "sum-of-decays",
    "product-of-decays",
    "product-with-a-sum",
}
SIMILARITIES = ["relu", "softmax", "exp", "favor"]
if ref.on_jax:
    # Each compiles for seconds.
    MASKS = {name: MASKS[name] for name in ("decay", "gated", "table")}


def inputs(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return ref.tensor(x.astype("float32"))


def make(mask, similarity="relu", **options):
    layer = MaskedAttention(
        2, 3, mask=mask, similarity=similarity, causal=True, seed=1, **options
    )
    layer.build((None, None if mask is None else TOKENS, CHANNELS))
    random = np.random.default_rng(2)
    for weight in layer.trainable_weights:
        noise = random.normal(size=weight.shape) / 2
        weight.assign(weight + ops.cast(noise, weight.dtype))
    return layer


def whole(layer, x):
    return layer(x)


def in_chunks(layer, x, state=None, sizes=CHUNKS):
    if state is None:
        state = layer.initial_state(x.shape[0], x.shape[1])
    found, start = [], 0
    for size in sizes:
        y, state = layer.extend(x[:, start : start + size], state)
        found.append(y)
        start += size
    return ops.concatenate(found, axis=1)


def in_steps(layer, x):
    state = layer.initial_state(x.shape[0], x.shape[1])
    found = []
    for k in range(x.shape[1]):
        y, state = layer.step(x[:, k], state)
        found.append(y)
    return ops.stack(found, axis=1)


def results(layer, function):
    """Outputs, and gradients of inputs and weights."""
    weights = layer.trainable_weights

    def of_tensors(x, *values):
        with keras.StatelessScope(list(zip(weights, values, strict=True))):
            return function(layer, x)

    compute = ref.staged(ref.with_gradients(of_tensors))
    upstream = inputs(BATCH, TOKENS, CHANNELS, seed=5)
    x = inputs(BATCH, TOKENS, CHANNELS)
    values = [ref.tensor(ref.numpy(weight)) for weight in weights]
    y, gradients = compute(upstream, x, *values)
    names = ["inputs", *(w.path for w in weights)]
    gradients = map(ref.numpy, gradients)
    return ref.numpy(y), dict(zip(names, gradients, strict=True))


def ways():
    """Masks and similarities; those that share their code are slow ones."""
    for name in MASKS:
        for similarity in SIMILARITIES:
            random = similarity in ("exp", "favor")
            if random and (ref.on_jax or name not in ("decay", "table")):
                continue
            often = similarity == "relu" or name in ("none", "table")
            if similarity == "favor":
                often = name == "decay"
            # Whose code others share.
            often = often and name not in (
                *("decay-3", "sum", "sum-of-decays", "distance", "separable"),
                "product-with-a-sum",
            )
            marks = () if often else pytest.mark.slow
            yield pytest.param(
                name, similarity, marks=marks, id=f"{name}-{similarity}"
            )


@pytest.mark.few_on_jax("gated-relu", "table-softmax")
@pytest.mark.parametrize(("name", "similarity"), list(ways()))
def test_chunks_and_steps_are_the_whole(name, similarity):
    layer = make(MASKS[name](), similarity)
    tolerance = 1e-4 if similarity in ("exp", "favor") else 1e-5
    expected, gradients = results(layer, whole)
    for function in (in_chunks, in_steps):
        y, found = results(layer, function)
        ref.assert_close(y, expected, tolerance)
        scale = max(np.abs(g).max() for g in gradients.values())
        for what, gradient in gradients.items():
            error = np.abs(found[what] - gradient).max() / scale
            assert error < tolerance, (function.__name__, what, error)


@pytest.mark.few(
    "none",
    "decay",
    "gated",
    "table",
    "causal",
    "resolvent",
    "product",
    "product-of-decays",
    "product-with-a-sum",
)
@pytest.mark.parametrize("name", MASKS)
def test_states(name):
    """A piece of several tokens leaves the same state as single steps."""
    layer = make(MASKS[name]())
    x = inputs(BATCH, TOKENS, CHANNELS)
    start = layer.initial_state(BATCH, TOKENS)
    assert ("sums" in start) == (name in WITH_STATE)

    def states(x):
        _, at_once = layer.extend(x, start)
        state = start
        for k in range(TOKENS):
            _, state = layer.step(x[:, k], state)
        return at_once, state

    at_once, state = ref.staged(states)(x)
    keras.tree.map_structure(
        lambda a, b: ref.assert_close(a, ref.numpy(b), 1e-5), state, at_once
    )
    sizes = keras.tree.flatten(
        keras.tree.map_structure(lambda x: tuple(x.shape), state)
    )
    assert sizes == keras.tree.flatten(
        keras.tree.map_structure(lambda x: tuple(x.shape), start)
    )


def test_states_need_no_number_of_tokens_where_they_are_sums():
    layer = make("decay")
    assert set(layer.initial_state(3)) == {"sums"}
    for other in (make("table"), make("decay", "softmax")):
        with pytest.raises(ValueError, match="`max_tokens`.*Received"):
            other.initial_state(3)


@pytest.mark.parametrize("name", ["gated", "table"])
def test_compiled(name):
    """Pieces whose number of tokens is traced, too, on TensorFlow."""
    similarity = "relu" if name == "gated" else "softmax"
    layer = make(MASKS[name](), similarity)
    x = inputs(BATCH, TOKENS, CHANNELS)
    expected = ref.numpy(layer(x))
    step = ref.compiled(layer.step)
    state = layer.initial_state(BATCH, TOKENS)
    for k in range(TOKENS):
        y, state = step(x[:, k], state)
        ref.assert_close(y, expected[:, k], 1e-5)
    if ref.on_jax:
        return
    import tensorflow as tf

    signature = tf.TensorSpec((BATCH, None, CHANNELS), "float32")
    extend = tf.function(layer.extend, reduce_retracing=True)
    state = layer.initial_state(BATCH, TOKENS)
    concrete = extend.get_concrete_function(
        signature, tf.nest.map_structure(tf.TensorSpec.from_tensor, state)
    )
    start = 0
    for size in CHUNKS:
        y, state = concrete(x[:, start : start + size], state)
        ref.assert_close(y, expected[:, start : start + size], 1e-5)
        start += size


@pytest.mark.parametrize("similarity", ["relu", "softmax"])
def test_a_full_state_is_no_result(similarity):
    """It is refused if possible, and gives NaN in traced functions."""
    layer = make("table", similarity)
    x = inputs(BATCH, 5, CHANNELS)
    _, state = layer.extend(x[:, :3], layer.initial_state(BATCH, 4))
    with pytest.raises(ValueError, match="at most 4 tokens.*3 tokens before"):
        layer.extend(x[:, 3:], state)
    extend = ref.compiled(layer.extend)
    y, state = extend(x[:, 3:4], state)
    assert np.isfinite(ref.numpy(y)).all()
    y, _ = extend(x[:, 4:], state)
    assert np.isnan(ref.numpy(y)).all()


# Causality.


@keras.saving.register_keras_serializable(package="keras_topo_tests")
class Forgetful(Mask):
    """A custom mask that ignores whether attention is causal."""

    def operator(self, topology):
        i = ops.arange(topology.length, dtype="float32")
        return Dense(1.0 / (1.0 + ops.abs(i[:, None] - i)))


@pytest.mark.few(
    "none",
    "decay",
    "gated",
    "table",
    "gaussian",
    "resolvent",
    "product",
    "forgetful",
)
@pytest.mark.parametrize("name", [*MASKS, "forgetful"])
def test_no_token_sees_a_later_one(name):
    mask = Forgetful() if name == "forgetful" else MASKS[name]()
    for similarity in ("relu", "softmax"):
        layer = make(mask, similarity)
        call = ref.staged(layer.__call__)
        x = ref.numpy(inputs(1, TOKENS, CHANNELS))
        other = x.copy()
        other[:, 4:] = ref.numpy(inputs(1, TOKENS, CHANNELS, seed=7))[:, 4:]
        first, second = (ref.numpy(call(ref.tensor(z))) for z in (x, other))
        ref.assert_close(second[:, :4], first[:, :4], 1e-6)
        assert np.all(np.abs(second[:, 4:] - first[:, 4:]).max(-1) > 1e-3)
        if name == "forgetful":
            chunks = ref.staged(lambda x, layer=layer: in_chunks(layer, x))
            stepped = chunks(ref.tensor(x))
            ref.assert_close(stepped, first, 1e-5)


def test_a_causal_mask_makes_a_causal_layer():
    layer = MaskedAttention(2, 3, mask=CausalMask())
    assert layer.causal
    x = inputs(BATCH, TOKENS, CHANNELS)
    expected = ref.numpy(layer(x))
    other = MaskedAttention(2, 3, causal=True)
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    ref.assert_close(other(x), expected, 1e-6)


# Blocks, precision, errors.


def test_blocks_go_token_by_token():
    shorthand = {"num_heads": 2, "mask": "gated", "causal": True}
    attention = MaskedAttention(2, 2, mask="decay", causal=True)
    options = [
        shorthand,
        {"attention": attention},
        {**shorthand, "attention": "softmax", "mask": None},
    ]
    for given in options[:1] if ref.on_jax else options:
        block = TopologicalEncoderBlock(**given)
        x = inputs(BATCH, TOKENS, CHANNELS)
        expected = ref.numpy(block(x))
        for pieces in (in_steps, in_chunks):
            call = ref.staged(lambda x, p=pieces, block=block: p(block, x))
            ref.assert_close(call(x), expected, 1e-5)
    block = TopologicalEncoderBlock(2)
    block.build((None, TOKENS, CHANNELS))
    with pytest.raises(ValueError, match="causal=True"):
        block.initial_state(1)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    for name in ("gated", "table"):
        layer = make(MASKS[name](), dtype=policy)
        x = ops.cast(inputs(BATCH, TOKENS, CHANNELS), policy[6:])
        expected = ref.numpy(layer(x))
        ref.assert_close(in_steps(layer, x), expected, 0.03)
        # Sums are not rounded to half precision.
        states = keras.tree.flatten(layer.initial_state(BATCH, TOKENS))
        dtypes = {keras.backend.standardize_dtype(s.dtype) for s in states}
        assert dtypes <= {"float32", "int32"}


@pytest.mark.slow_on_jax
def test_many_tokens():
    """Beyond the chunks in which the whole is computed, with strong gates."""
    layer = make("gated")
    layer.mask.bias.assign(3 * layer.mask.bias)
    x = inputs(1, 200, CHANNELS)
    expected = ref.numpy(layer(x))
    state = layer.initial_state(1)
    ref.assert_close(in_chunks(layer, x, state, (70, 1, 129)), expected, 1e-5)


def test_errors():
    x = inputs(BATCH, TOKENS, CHANNELS)
    causal = make("decay")
    not_causal = MaskedAttention(2, 3, mask="decay")
    not_causal.build(x.shape)
    additive = MaskedAttention(2, 3, similarity="additive", causal=True)
    additive.build(x.shape)
    for layer in (not_causal, additive):
        with pytest.raises(ValueError, match="`causal=True`.*Received"):
            layer.initial_state(BATCH)
    with pytest.raises(ValueError, match="call it once.*Received"):
        MaskedAttention(2, 3, causal=True).initial_state(BATCH)
    state = causal.initial_state(BATCH)
    for wrong in (None, [np.zeros(3), np.zeros(3)], x):
        with pytest.raises(ValueError, match="`state`.*a dict. Received: "):
            causal.extend(x, wrong)
    with pytest.raises(ValueError, match="`token`.*Received"):
        causal.step(x, state)
    with pytest.raises(ValueError, match="`state`.*Received|state.*Received"):
        causal.step(x[:, 0], causal.initial_state(BATCH + 1))
    with pytest.raises(ValueError, match=r"`sums`.*Received.*\['mine'\]"):
        causal.extend(x, {"mine": 1})
    scaled = make("decay", similarity="exp")
    with pytest.raises(ValueError, match="`state`.*the `level` of its keys"):
        scaled.extend(x, state)
    cached = make("table")
    with pytest.raises(ValueError, match=f"`state`.* {BATCH + 1} examples"):
        cached.step(x[:, 0], cached.initial_state(BATCH + 1, TOKENS))
    for options in ({"grid_shape": (2, 4)}, {"num_prefix_tokens": 1}):
        with pytest.raises(ValueError, match="`causal`.*Received"):
            MaskedAttention(2, 3, causal=True, **options)
    with pytest.raises(ValueError, match="`causal`.*Received"):
        MaskedAttention(2, 3, causal=True).build((None, 2, 4, CHANNELS))
