"""`linearize`: the same model with masked linear attention."""

import warnings

import keras
import numpy as np
import pytest
import reference as ref

import keras_topo
from keras_topo.layers import (
    HedgehogFeatureMap,
    MaskedAttention,
    TopologicalEncoderBlock,
)
from keras_topo.linearize.attention import copy_attention
from keras_topo.linearize.blocks import encoder_blocks, has_softmax
from keras_topo.masks import DecayMask, TableMask
from keras_topo.models import causal_lm, topvit

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

SHAPE = (8, 12, 3)


def softmax_model(**options):
    options = {"pooling": "token", "layer_scale": 0.5, **options}
    model = topvit(
        (8, 2, 12, 2),
        patch_size=4,
        image_shape=SHAPE,
        num_classes=3,
        attention="softmax",
        **options,
    )
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        noise = 0.3 * random.normal(size=weight.shape)
        weight.assign(ref.numpy(weight) + noise)
    return model


def images(count=2, shape=SHAPE):
    random = np.random.default_rng(1)
    return random.uniform(0, 255, (count, *shape)).astype("float32")


def quantize(model):
    with warnings.catch_warnings():
        # Keras warns about each layer without anything to quantize.
        warnings.simplefilter("ignore")
        model.quantize("int8")


def arrays(layer):
    return [ref.numpy(w) for w in layer.weights]


@pytest.mark.slow_on_jax
def test_all_but_the_similarity_is_the_same(monkeypatch):
    """With softmax in the place of the feature map and no mask it computes
    what the model did."""
    teacher = softmax_model(prefix_tokens=3, activation="swiglu", pre_logits=5)
    before = arrays(teacher)
    student = keras_topo.linearize(teacher, mask=None, feature_map="relu")
    x = images()
    expected = ref.numpy(teacher(x))
    assert np.abs(ref.numpy(student(x)) - expected).max() > 1e-3
    for block in encoder_blocks(student):
        attention = block.attention
        assert attention.num_prefix_tokens == 3 and attention.mask is None
        monkeypatch.setattr(attention, "similarity", "softmax")
    ref.assert_close(student(x), expected, 1e-5)
    for old, new in zip(before, arrays(teacher), strict=True):
        np.testing.assert_array_equal(old, new)


def test_defaults():
    student = keras_topo.linearize(softmax_model())
    for block in encoder_blocks(student):
        attention = block.attention
        assert isinstance(attention.feature_map, HedgehogFeatureMap)
        assert isinstance(attention.mask, TableMask)
        # Decays of several scales.
        table = ref.numpy(attention.mask.table)
        assert table.shape == (2, 3, 5)
        assert table.max() == 1 and 0 < table[0].min() < table[1].min() < 1
    assert all(w.trainable for w in student.trainable_weights)


def test_some_blocks():
    teacher = softmax_model()
    for blocks in ([1], ["block_2"], [-1]):
        student = keras_topo.linearize(teacher, "decay", blocks=blocks)
        first, second = (block.attention for block in encoder_blocks(student))
        assert isinstance(first, keras.layers.MultiHeadAttention)
        assert isinstance(second.mask, DecayMask)
    # The remaining blocks, later.
    student = keras_topo.linearize(student, "decay", "elu")
    first, second = (block.attention for block in encoder_blocks(student))
    assert first.feature_map == "elu"
    assert isinstance(second.feature_map, HedgehogFeatureMap)


def test_softmax_with_a_mask_keeps_it():
    x = keras.Input((6, 8))
    attention = MaskedAttention(2, 4, mask="table", similarity="softmax")
    y = TopologicalEncoderBlock(attention=attention)(x)
    teacher = keras.Model(x, y)
    (old,) = encoder_blocks(teacher)
    old.attention.mask.table.assign_add(
        0.5 * ref.numpy(old.attention.mask.table)
    )
    (new,) = encoder_blocks(keras_topo.linearize(teacher))
    np.testing.assert_array_equal(
        *map(arrays, (old.attention.mask, new.attention.mask))
    )
    assert isinstance(new.attention.similarity, HedgehogFeatureMap)
    # A new one starts anew.
    (new,) = encoder_blocks(keras_topo.linearize(teacher, "table"))
    assert ref.numpy(new.attention.mask.table).max() == 1


def test_a_layer_of_keras_as_attention():
    x = keras.Input((6, 8))
    # Keras on JAX takes no other size for values.
    value_dim = 3 if ref.on_jax else 5
    attention = keras.layers.MultiHeadAttention(
        2, 3, value_dim=value_dim, kernel_regularizer="l2", seed=7
    )
    y = TopologicalEncoderBlock(attention=attention)(x)
    teacher = keras.Model(x, keras.layers.Flatten()(y))
    student = keras_topo.linearize(teacher, mask=None, feature_map="relu")
    (old,), (new,) = map(encoder_blocks, (teacher, student))
    assert type(new.attention) is MaskedAttention
    assert new.attention.seed == 7
    # Queries, keys and values are one kernel here.
    np.testing.assert_allclose(
        float(sum(student.losses)), float(sum(teacher.losses)), rtol=1e-5
    )
    soft = MaskedAttention(2, 3, value_dim=value_dim, similarity="softmax")
    soft.build((None, 6, 8))
    copy_attention(old.attention, soft, False)
    tokens = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("float32")
    expected = ref.numpy(old.attention(tokens, tokens))
    ref.assert_close(soft(tokens), expected, 1e-5)
    for a, b in zip(arrays(soft), arrays(new.attention), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow_on_jax
def test_language_models():
    teacher = causal_lm(
        16, channels=8, num_heads=2, depth=2, similarity="softmax"
    )
    student = keras_topo.linearize(teacher)
    tokens = np.arange(12).reshape(2, 6)
    for old, new in zip(teacher.blocks, student.blocks, strict=True):
        kernels = old.attention.qkv_dense, new.attention.qkv_dense
        np.testing.assert_array_equal(*(arrays(k)[0] for k in kernels))
        np.testing.assert_array_equal(
            *(arrays(block.attention.mask)[0] for block in (old, new))
        )
    assert tuple(student(tokens).shape) == (2, 6, 16)
    assert student.generate(tokens, 2).shape == (2, 8)
    # Attention carries state now: no `max_tokens`.
    student.initial_state(2)
    other = keras_topo.linearize(teacher, mask="gated", feature_map="elu")
    assert other.get_config()["similarity"] == "elu"
    # Causality alone, too, gets decays, as in any other model.
    plain = causal_lm(
        16, channels=8, num_heads=2, depth=1, mask=None, similarity="softmax"
    )
    (block,) = keras_topo.linearize(plain).blocks
    assert isinstance(block.attention.mask, DecayMask)
    with pytest.raises(ValueError, match="`blocks`.*Received"):
        keras_topo.linearize(teacher, blocks=[0])


@pytest.mark.slow_on_jax
def test_presets(tmp_path):
    """A short recipe where `topvit` makes the same, and resampling."""
    student = keras_topo.linearize(softmax_model())
    keras_topo.save_preset(student, tmp_path / "all")
    text = (tmp_path / "all" / "config.json").read_text()
    assert '"builder": "topvit"' in text and '"toeplitz"' in text
    again = keras_topo.from_preset(tmp_path / "all")
    ref.assert_close(again(images()), ref.numpy(student(images())), 1e-6)
    other = keras_topo.from_preset(tmp_path / "all", image_shape=(12, 16))
    assert tuple(other(images(1, (12, 16, 3))).shape) == (1, 3)


def test_a_preset_of_some_blocks(tmp_path):
    student = keras_topo.linearize(softmax_model(), blocks=[0])
    keras_topo.save_preset(student, tmp_path / "some")
    again = keras_topo.from_preset(tmp_path / "some")
    ref.assert_close(again(images()), ref.numpy(student(images())), 1e-6)


@pytest.mark.slow_on_jax
def test_images_of_any_size():
    teacher = topvit(
        (8, 2, 12, 1),
        patch_size=4,
        image_shape=(None, None, 3),
        attention="softmax",
    )
    student = keras_topo.linearize(teacher)
    assert isinstance(encoder_blocks(student)[0].attention.mask, TableMask)
    for shape in ((8, 8, 3), (12, 20, 3)):
        assert tuple(student(images(1, shape)).shape) == (1, 10)


def test_frozen_teachers_have_trainable_students():
    teacher = softmax_model()
    count = len(teacher.trainable_weights)
    teacher.trainable = False
    student = keras_topo.linearize(teacher, mask=None, feature_map="relu")
    # One matrix and one bias where there were three.
    assert len(student.trainable_weights) == count - 2 * 2 * 2


def test_errors():
    teacher = softmax_model()
    linear = topvit((8, 2, 12, 1), patch_size=4, image_shape=SHAPE)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for model in (linear, plain, keras.layers.Dense(2)):
        with pytest.raises(ValueError, match="`model`.*softmax.*Received"):
            keras_topo.linearize(model)
    for blocks in ([2], ["block_9"], [None], [], 1, "block_1", [[1]], [True]):
        with pytest.raises(ValueError, match="`blocks`.*Received"):
            keras_topo.linearize(teacher, blocks=blocks)
    for name in ("softmax", "additive", "none"):
        with pytest.raises(ValueError, match="`feature_map`.*Received"):
            keras_topo.linearize(teacher, feature_map=name)
    with pytest.raises(ValueError, match="`mask`.*Received"):
        keras_topo.linearize(teacher, mask="tables")
    language = causal_lm(
        16, channels=8, num_heads=2, depth=2, similarity="softmax"
    )
    with pytest.raises(ValueError, match="`blocks` expects None"):
        keras_topo.linearize(language, blocks=[0, 0])
    twice = keras_topo.linearize(teacher, blocks=[0, 0])
    assert has_softmax(encoder_blocks(twice)[1])
    x = keras.Input((6, 8))
    gated = keras.layers.MultiHeadAttention(2, 4, use_gate=True)
    y = TopologicalEncoderBlock(attention=gated)(x)
    with pytest.raises(ValueError, match="without a gate.*use_gate=True"):
        keras_topo.linearize(keras.Model(x, y), mask=None)


@pytest.mark.slow
@pytest.mark.slow_on_jax
def test_what_is_quantized_is_refused():
    teacher = softmax_model()
    quantize(teacher)
    with pytest.raises(ValueError, match="quantized.*Received.*block_1"):
        keras_topo.linearize(teacher)
    # A linearized model can be linearized again.
    student = keras_topo.linearize(softmax_model())
    expected = ref.numpy(student(images()))
    quantize(student)
    assert np.abs(ref.numpy(student(images())) - expected).max() < 0.5
