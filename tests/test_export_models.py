"""SavedModels of models of every kind, and what is refused by name."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import (
    dense_model,
    encode,
    load_unverified,
    small_cnn,
    smooth_pixels,
)

from keras_topo.export import export_saved_model, saved_models
from keras_topo.models import topvit

pytestmark = pytest.mark.tensorflow_only


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_models_answer_in_float32(tmp_path, policy, capfd):
    dtype = keras.dtype_policies.get(policy)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255, dtype=dtype),
            keras.layers.Flatten(dtype=dtype),
            keras.layers.Dense(4, dtype=dtype),
        ]
    )
    assert model.outputs[0].dtype == dtype.compute_dtype
    logger = tf.get_logger()
    logger.setLevel("INFO")  # as TensorFlow itself does in a notebook
    try:
        verify = policy == "mixed_bfloat16"
        report = export_saved_model(model, tmp_path / "1", verify=verify)
        assert logger.level == 20
    finally:
        logger.setLevel("WARNING")
    assert capfd.readouterr() == ("", "")
    if verify:
        assert report["tolerance"] == saved_models.TOLERANCES["bfloat16"]

    loaded = tf.saved_model.load(str(tmp_path / "1"))
    images = 255 * tf.random.uniform((3, 8, 8, 1))
    answer = loaded.signatures["serving_default"](images=images)
    assert answer["logits"].dtype == tf.float32
    assert answer["probabilities"].dtype == tf.float32
    # A softmax of bfloat16 would miss 1 by up to 2^-8.
    np.testing.assert_allclose(
        np.sum(answer["probabilities"], -1), 1, rtol=1e-6
    )
    logits = tf.cast(model(images), tf.float32)
    np.testing.assert_allclose(answer["logits"], logits, atol=5e-2)


def test_a_model_trained_with_jit_compile_serves(tmp_path):
    model = small_cnn(channels=1)
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 10, 1))
    model.fit(images, np.arange(4), verbose=0)
    loaded = load_unverified(model, tmp_path / "1")
    answer = loaded.signatures["serving_default"](
        images=tf.constant(images, tf.float32)
    )
    np.testing.assert_allclose(answer["logits"], model(images), atol=1e-5)


def test_dropout_and_named_inputs_and_outputs(tmp_path):
    images = keras.Input((8, 8, 3), name="images")
    hidden = keras.layers.Flatten()(images)
    hidden = keras.layers.Dropout(0.5)(hidden)
    logits = keras.layers.Dense(3)(hidden)
    model = keras.Model({"images": images}, {"logits": logits})
    loaded = load_unverified(model, tmp_path / "1")
    data = tf.random.uniform((2, 8, 8, 3))
    answer = loaded.signatures["serving_default"](images=data)
    expected = model({"images": data})["logits"]
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)


def test_topvit(tmp_path, monkeypatch):
    sizes = sys.modules[topvit.__module__].SIZES
    monkeypatch.setitem(sizes, "mini", (16, 2, 16, 1))
    model = topvit(
        size="mini", patch_size=2, image_shape=(8, 8, 1), num_classes=10
    )
    report = export_saved_model(model, tmp_path / "1")
    assert report["max_abs_difference"] <= 1e-5
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    answer = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant([encode(smooth_pixels(), "JPEG")] * 2)
    )
    assert answer["classes"].shape == (2, 5)


def two_inputs():
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, dense_model()(keras.layers.Add()(inputs)))


def two_outputs():
    model = dense_model()
    return keras.Model(model.inputs, model.outputs * 2)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


WRONG_MODELS = {
    "no model": (lambda: "model.keras", "must be a keras.Model.*type str"),
    "subclassed": (Subclassed, "must be a built functional or Sequential"),
    "unbuilt": (keras.Sequential, "must be a built functional or Sequential"),
    "two inputs": (two_inputs, "one input.*with 2 inputs"),
    "two outputs": (two_outputs, "one output.*with 2 outputs"),
    "vectors": (
        lambda: dense_model((12,)),
        r"must take images.*input shape \(None, 12\)",
    ),
    "fixed batch": (
        lambda: dense_model(None, batch_shape=(2, 8, 8, 3)),
        r"undefined batch size.*input shape \(2, 8, 8, 3\)",
    ),
    "integers": (lambda: dense_model(dtype="uint8"), "input dtype 'uint8'"),
}


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_a_wrong_model_is_named(tmp_path, kind):
    build, message = WRONG_MODELS[kind]
    with pytest.raises(ValueError, match=f"`model`.*{message}") as error:
        export_saved_model(build(), tmp_path / "1")
    assert "Received: " in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_names": ["one", "two"]},
        {"class_names": "abc"},
        {"class_names": {"one": 0, "two": 1, "three": 2}},
        # The order of a set differs between processes, and so would the name.
        pytest.param({"class_names": {"one", "two", "three"}}, id="a set"),
        {"class_names": [1, 2, 3]},
        {"top_k": 0},
        {"top_k": 2.5},
        {"max_pixels": -1},
        {"signatures": ("predict",)},
        {"signatures": "serving_default"},
        {"signatures": ("classify_bytes",)},
        {"tolerance": 0},
        {"tolerance": float("nan")},
        {"path": "gs://bucket/model/1"},
    ],
    ids=repr,
)
def test_a_wrong_argument_is_named(tmp_path, arguments):
    (name,) = arguments
    arguments = {"path": tmp_path / "1", **arguments}
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        export_saved_model(dense_model(), **arguments)
    assert not list(tmp_path.iterdir())


def test_another_backend_is_told_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    message = r"save\(\"model.keras\"\).*KERAS_BACKEND=tensorflow.*'jax'"
    with pytest.raises(RuntimeError, match=message):
        export_saved_model(dense_model(), tmp_path / "1")
