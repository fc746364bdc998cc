"""One layer, and one model, for sequences and grids of any size."""

import sys

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo import masks
from keras_topo.layers import (
    MaskedAttention,
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.masks import DecayMask
from keras_topo.models import topvit

# From the module, because the function hides it.
SIZES = sys.modules["keras_topo.models.topvit"].SIZES

CHANNELS = 4

MASKS = {
    None: lambda reach: None,
    "table": lambda reach: masks.get("table", reach=reach),
    "distance": lambda reach: masks.get("distance", reach=reach),
    "distance-1": lambda reach: masks.get("distance", degree=1, reach=reach),
    "separable": lambda reach: masks.get("separable", rank=2, reach=reach),
    "separable-decay": lambda reach: masks.get(
        "separable", terms="decay", rank=2, reach=reach
    ),
    "decay": lambda reach: "decay",
    "decay-2": lambda reach: DecayMask(num_scales=2),
    "gated": lambda reach: "gated",
    "curves": lambda reach: "curves",
    "gaussian": lambda reach: "gaussian",
    "resolvent": lambda reach: "resolvent",
    "sum": lambda reach: masks.get("table", reach=reach) + DecayMask(),
    "product": lambda reach: masks.get("table", reach=reach) * DecayMask(),
}


def inputs(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return ref.tensor(x.astype("float32"))


def randomise(model):
    random = np.random.default_rng(2)
    for weight in model.trainable_weights:
        noise = random.normal(size=weight.shape) / 3
        weight.assign(weight + ops.cast(noise, weight.dtype))


def fixed_size(layer, shape):
    """The layer built for one size, with the same weights."""
    twin = type(layer).from_config(layer.get_config())
    twin.build((None, *shape))
    twin.set_weights(layer.get_weights())
    return twin


def gradients(layer, x, *options):
    """Outputs and gradients of the inputs and the weights."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, *options)
        loss = tf.reduce_sum(y * tf.sin(tf.range(float(CHANNELS))))
    weights = [w.value for w in layer.trainable_weights]
    found = tape.gradient(loss, [x, *weights])
    return y, [tf.convert_to_tensor(g) for g in found]


CASES = {
    "sequence": ((None, CHANNELS), [(7, CHANNELS), (4, CHANNELS)], {}),
    "causal": ((None, CHANNELS), [(7, CHANNELS)], {"causal": True}),
    "grid": (
        (None, None, CHANNELS),
        [(4, 5, CHANNELS), (3, 2, CHANNELS)],
        {},
    ),
    "volume": ((None, None, None, CHANNELS), [(2, 3, 2, CHANNELS)], {}),
    "ring": (
        (None, None, CHANNELS),
        [(4, 5, CHANNELS)],
        {"periodic": (True, False)},
    ),
}


# The cases of each mask that always run: a grid, and sequences if they have
# separate code.
FEW = {
    *(
        (name, "grid")
        for name in MASKS
        # These share code with other cases.
        if name not in ("distance-1", "separable-decay", "decay-2", "sum")
    ),
    *((name, "causal") for name in ("table", "gated")),
    *((name, "sequence") for name in (None, "gaussian")),
    ("decay", "volume"),
    ("table", "ring"),
}


def unknown_sizes():
    for name in MASKS:
        for case in CASES:
            if (name, case) == ("curves", "causal"):
                continue
            if case == "ring" and name not in ("table", "decay"):
                continue
            if case == "volume" and name not in ("table", "decay", "gated"):
                continue
            marks = () if (name, case) in FEW else pytest.mark.slow
            yield pytest.param(name, case, marks=marks, id=f"{name}-{case}")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(("name", "case"), list(unknown_sizes()))
def test_functions_of_unknown_sizes(name, case):
    """They are traced once, with gradients, and equal a layer of fixed size."""
    import tensorflow as tf

    shape, sizes, options = CASES[case]
    layer = MaskedAttention(2, 3, mask=MASKS[name](4), **options)
    layer.build((None, *shape))
    randomise(layer)
    function = tf.function(
        lambda x: gradients(layer, x),
        input_signature=[tf.TensorSpec((None, *shape), "float32")],
    )
    for k, size in enumerate(sizes):
        x = inputs(2, *size, seed=k)
        y, found = function(x)
        expected, wanted = gradients(fixed_size(layer, size), x)
        ref.assert_close(y, ref.numpy(expected), 2e-5)
        scale = max(np.abs(ref.numpy(g)).max() for g in wanted)
        for ours, theirs in zip(found, wanted, strict=True):
            error = np.abs(ref.numpy(ours) - ref.numpy(theirs)).max()
            assert error < 5e-5 * scale


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("similarity", ["relu", "softmax"])
def test_functions_of_unknown_sizes_with_a_class_token(similarity):
    import tensorflow as tf

    names = ("table", "decay", "gated", "curves", "resolvent")
    for name in names if similarity == "relu" else names[:1]:
        layer = MaskedAttention(
            2,
            3,
            mask=MASKS[name](3),
            similarity=similarity,
            num_prefix_tokens=1,
        )
        layer.build((None, None, CHANNELS), grid_shape=(None, None, None, 1))
        randomise(layer)
        function = tf.function(
            lambda x, grid, layer=layer: layer(x, grid=grid),
            input_signature=[
                tf.TensorSpec((None, None, CHANNELS), "float32"),
                tf.TensorSpec((None, None, None, 1), "float32"),
            ],
        )
        for grid in ((3, 4), (2, 5)):
            x = inputs(2, 1 + grid[0] * grid[1], CHANNELS)
            y = function(x, tf.zeros((2, *grid, 1)))
            twin = MaskedAttention.from_config(
                {**layer.get_config(), "grid_shape": grid}
            )
            twin.build(x.shape)
            twin.set_weights(layer.get_weights())
            ref.assert_close(y, ref.numpy(twin(x)), 2e-5, name)


@pytest.mark.few_on_jax("table", "gated")
@pytest.mark.parametrize("name", MASKS, ids=str)
def test_a_layer_takes_other_sizes(name):
    """It is built for one size and called with another."""
    if ref.on_jax and name not in ("table", "decay", "gated"):
        return
    for first, other in (((5, 4), (7, 4)), ((3, 4, 4), (5, 2, 4))):
        layer = MaskedAttention(2, 3, mask=MASKS[name](None))
        layer.build((None, *first))
        randomise(layer)
        assert layer.grid == first[:-1]
        x = inputs(2, *other)
        twin = fixed_size(layer, other)
        call = ref.staged(layer.__call__)
        ref.assert_close(call(x), ref.numpy(ref.staged(twin.__call__)(x)), 1e-5)
        if name is None:
            continue
        if name != "gated":
            operator = layer.mask_operator(other[:-1])
            expected = ref.dense(twin.mask_operator())
            ref.assert_close(ref.dense(operator), expected, 1e-6)
        # The saved weights are the trained ones.
        for mine, theirs in zip(layer.weights, twin.weights, strict=True):
            assert mine.shape == theirs.shape


@pytest.mark.few_on_jax("relu", "softmax")
@pytest.mark.parametrize("similarity", ["relu", "softmax", "exp"])
def test_padded_tokens_do_not_matter(similarity):
    """With any length, each example gives the same result as alone."""
    lengths = (6, 3)
    visible = np.arange(6) < np.array(lengths)[:, None]
    for name in ("table",) if ref.on_jax else ("table", "gated", "product"):
        layer = MaskedAttention(
            2, 3, mask=MASKS[name](4), similarity=similarity
        )
        layer.build((None, None, CHANNELS))
        randomise(layer)
        x = inputs(2, 6, CHANNELS)
        call = ref.staged(lambda *x, layer=layer, **mask: layer(*x, **mask))
        y = ref.numpy(call(x, mask=visible))
        noise = ops.where(visible[..., None], x, 1e3 * (x + 1))
        again = ref.numpy(call(noise, mask=visible))
        for k, length in enumerate(lengths):
            alone = ref.numpy(call(x[k : k + 1, :length]))[0]
            for found in (y, again):
                ref.assert_close(found[k, :length], alone, 1e-5, name)


# Models.


def trained(model, images, classes=3):
    model.compile("sgd", "mse", jit_compile=False)
    targets = np.eye(classes, dtype="float32")[: len(images)]
    weights = [w.copy() for w in model.get_weights()]
    model.fit(images, targets, batch_size=1, epochs=1, verbose=0)
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(weights, model.get_weights(), strict=True)
    ]
    assert all(changed[-2:])
    return model


def pixels(*shape):
    x = np.random.default_rng(0).uniform(0, 255, shape)
    return x.astype("float32")


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    ("pooling", "mask"),
    [
        ("gap", "table"),
        pytest.param("token", "table", marks=pytest.mark.slow),
        ("token", "gated"),
    ],
)
def test_one_model_for_images_of_any_size(pooling, mask, monkeypatch):
    monkeypatch.setitem(SIZES, "mini", (8, 2, 8, 1))
    model = topvit(
        "mini",
        8,
        (None, None, 3),
        3,
        pooling=pooling,
        mask=mask,
        reference_grid=(4, 4),
    )
    randomise(model)
    trained(model, pixels(2, 32, 32, 3))
    for size in ((40, 48), (64, 32)):
        images = pixels(2, *size, 3)
        clone = keras.models.clone_model(
            model, input_tensors=keras.Input((*size, 3), name="images")
        )
        clone.set_weights(model.get_weights())
        expected = ref.numpy(clone(images))
        ref.assert_close(model.predict_on_batch(images), expected, 1e-5)
    attention = model.get_layer("block_1").attention
    assert attention.grid == (None, None)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("pooling", ["gap", "token"])
def test_a_model_of_one_size_takes_others_by_a_clone(pooling, monkeypatch):
    """The clone resamples what was learned; where the number of tokens is the
    same, the grid is the new one all the same."""
    monkeypatch.setitem(SIZES, "mini", (8, 2, 8, 1))
    model = topvit("mini", 8, (16, 64, 3), 3, pooling=pooling)
    randomise(model)
    clone = keras.models.clone_model(
        model, input_tensors=keras.Input((32, 32, 3))
    )
    clone.set_weights(model.get_weights())
    found = clone.get_layer("block_1").attention
    assert found.grid == (4, 4) and found.mask.reach == (2, 8)
    prefix = int(pooling == "token")
    expected = masks.Grid((4, 4), prefix).bordered(
        found.mask.operator(masks.Grid((4, 4)))
    )
    operator = found.mask_operator()
    ref.assert_close(ref.dense(operator), ref.dense(expected), 1e-6)
    images = pixels(2, 32, 32, 3)
    by_size = topvit(
        "mini", 8, (32, 32, 3), 3, pooling=pooling, reference_grid=(2, 8)
    )
    by_size.set_weights(model.get_weights())
    ref.assert_close(clone(images), ref.numpy(by_size(images)), 1e-5)


@pytest.mark.slow_on_jax
def test_volumes_and_sequences_of_any_size():
    for rank, sizes in ((3, [(4, 2, 6), (2, 6, 4)]), (1, [(8,), (14,)])):
        x = keras.Input((*[None] * rank, 2))
        y = PatchEmbedding(8, 2)(x)
        y = PositionEmbedding((3,) * rank)(y)
        for mask in ("decay", masks.get("table", reach=3)):
            y = TopologicalEncoderBlock(2, mask=mask)(y)
        model = keras.Model(x, PrefixTokens(1)(y))
        randomise(model)
        for size in sizes:
            images = inputs(2, *size, 2)
            clone = keras.models.clone_model(
                model, input_tensors=keras.Input((*size, 2))
            )
            clone.set_weights(model.get_weights())
            ref.assert_close(
                model.predict_on_batch(images), ref.numpy(clone(images)), 1e-5
            )


def test_patches_of_any_image():
    """If sizes are traced, the last patches are padded with zeros."""
    layer = PatchEmbedding(2, (3, 2))
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    assert model.output_shape == (None, None, None, 2)
    for size in ((4, 5), (6, 4)):
        x = inputs(1, *size, 1)
        rows, columns = -(-size[0] // 3), -(-size[1] // 2)
        found = model.predict_on_batch(x)
        assert found.shape == (1, rows, columns, 2)
        ref.assert_close(found, ref.numpy(layer(x)), 1e-6)


def test_what_must_be_known():
    layer = ToeplitzAttention(2, 3)
    with pytest.raises(ValueError, match="`reach`.*Received"):
        layer.build((None, None, None, CHANNELS))
    layer = MaskedAttention(2, 3, mask="decay")
    layer.build((None, None, CHANNELS))
    with pytest.raises(ValueError, match="`shape`.*Received"):
        layer.mask_operator()
    assert layer.mask_operator((5,)).num_tokens == 5
