"""Presets of every kind of model, whole, changed, quantized or adapted."""

import json

import keras
import numpy as np
import pytest
import reference as ref
from preset_models import (
    config_of,
    dense,
    graph_model,
    image_model,
    images,
    save,
)

import keras_topo
from keras_topo import layers
from keras_topo.presets import (
    folders,
    read_preprocessor,
    saving,
)

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax


def test_a_model_that_was_changed_is_saved_as_it_is(tmp_path):
    model = image_model()
    model.get_layer("logits").activation = keras.activations.softmax
    folder = save(model, tmp_path / "tiny")
    assert "model" in config_of(folder)
    x = images(16, 16, 3)
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x)), ref.numpy(model(x))
    )


def test_the_precision_is_that_of_the_time(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = image_model()
    finally:
        keras.config.set_dtype_policy("float32")
    folder = save(model, tmp_path / "tiny")
    assert config_of(folder)["dtype_policy"] == "mixed_bfloat16"
    found = keras_topo.from_preset(folder)
    assert found.get_layer("block_1").compute_dtype == "bfloat16"


def test_versions_of_keras_that_know_less(tmp_path):
    """Names from other versions are allowed if they are not built."""
    folder = save(dense(), tmp_path / "tiny")
    config = config_of(folder)
    head = config["model"]["config"]["layers"][-1]["config"]
    head["kernel_initializer"]["config"]["axes_of_the_future"] = None
    head["option_of_the_future"] = None
    (folder / "config.json").write_text(json.dumps(config))
    folders.write_checksums(folder)
    assert keras_topo.from_preset(folder).output_shape == (None, 2)
    head["option_of_the_future"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    folders.write_checksums(folder)
    with pytest.raises(ValueError, match="written by Keras"):
        keras_topo.from_preset(folder)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "how", [pytest.param("int8", marks=pytest.mark.slow), "lora"]
)
def test_quantized_and_adapted_models(how, tmp_path):
    model = image_model()
    if how == "int8":
        model.quantize("int8")
    for layer in model._flatten_layers():
        if how == "lora" and isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
            b = np.random.default_rng(0).normal(size=layer.lora_kernel_b.shape)
            layer.lora_kernel_b.assign(0.1 * b)
    folder = save(model, tmp_path / "tiny")
    x = images(16, 16, 3)
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x)),
        ref.numpy(model(x)),
        atol=1e-5,
    )
    other = keras_topo.from_preset(folder, 3, (24, 32))
    assert other(images(24, 32, 3)).shape == (2, 3)
    inner = other.get_layer("block_1").mlp_hidden
    assert (inner.quantization_mode == "int8") == (how == "int8")
    again = keras_topo.from_preset(save(other, tmp_path / "again"))
    x = images(24, 32, 3)
    np.testing.assert_allclose(
        ref.numpy(again(x)), ref.numpy(other(x)), atol=1e-5
    )


@pytest.mark.tensorflow_only
def test_a_quantized_layer_inside_another_one(tmp_path):
    inner = layers.NodeWise(keras.layers.Dense(5))
    model = keras.Sequential(
        [keras.Input((4, 3)), inner, keras.layers.Dense(2)]
    )
    inner.layer.quantize("int8")
    folder = save(model, tmp_path / "tiny")
    x = np.random.default_rng(0).random((2, 4, 3), "float32")
    for options, classes in (({}, 2), ({"num_classes": 3}, 3)):
        found = keras_topo.from_preset(folder, **options)
        assert found.output_shape == (None, 4, classes)
        mine = ref.numpy(found.layers[0](x))
        np.testing.assert_array_equal(mine, ref.numpy(inner(x)))


def augmented():
    """Keras's pattern: augmentation, and a trained model, in a model."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.RandomTranslation(0.1, 0.1)(inputs)
    x = image_model()(x)
    return keras.Model(inputs, keras.layers.Activation("softmax")(x))


def per_pixel():
    inputs = keras.Input((16, 16, 3))
    x = layers.PatchEmbedding(8, 4)(inputs)
    x = layers.PositionEmbedding()(x)
    x = layers.TopologicalEncoderBlock(2, mlp_dim=8)(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x))


def volumes():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4, 2)),
            layers.PatchEmbedding(8, (2, 2, 2)),
            layers.PositionEmbedding(),
            layers.ToeplitzAttention(2, 4),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(5),
        ]
    )


def sequences():
    return keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.PositionEmbedding(),
            layers.ToeplitzAttention(1, 3),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(5),
            keras.layers.Softmax(),
        ]
    )


def of_any_size():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ]
    )


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "build, shape",
    [
        (augmented, (24, 16)),
        (per_pixel, (16, 24)),
        (volumes, (8, 12, 6)),
        (sequences, (20,)),
        (of_any_size, (20, 30)),
    ],
)
def test_tasks_of_other_kinds(build, shape, tmp_path):
    model = build()
    folder = save(model, tmp_path / "tiny")
    old = [n or 16 for n in model.input_shape[1:]]
    x = images(*old)
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x, training=False)),
        ref.numpy(model(x, training=False)),
        atol=1e-5,
    )
    found = keras_topo.from_preset(folder, 3, shape)
    y = found(images(*shape, old[-1]), training=False)
    assert y.shape[-1] == 3 and len(y.shape) == len(model.output_shape)
    # All weights but those of the last layer are those that were trained.
    for mine, trained in zip(
        found.trainable_weights[:-2], model.trainable_weights[:-2], strict=True
    ):
        np.testing.assert_array_equal(ref.numpy(mine), ref.numpy(trained))
    with pytest.raises(ValueError, match="`image_shape` expects"):
        keras_topo.from_preset(folder, image_shape=(*shape, 1, 1, 1))


def test_what_turns_raw_inputs_into_those_of_the_model(tmp_path):
    told = {"task": "images", "class_names": ["a", "b"]}
    folder = keras_topo.save_preset(
        dense(), tmp_path / "tiny", preprocessor=told
    )
    assert read_preprocessor(folder) == told
    # Metrics of another model do not apply.
    keras_topo.save_preset(dense(), folder)
    assert read_preprocessor(folder) == {}
    assert keras_topo.from_preset(folder).output_shape == (None, 2)


@pytest.mark.slow_on_jax
def test_a_copy_knows_how_it_was_built(tmp_path):
    model = graph_model()
    folder = save(saving.copied(model), tmp_path / "graphs")
    assert config_of(folder)["builder"] == "with_edge_inputs"
