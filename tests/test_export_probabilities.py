"""SavedModels of models that end in probabilities; names of classes."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import (
    answers_with,
    dense_model,
    encode,
    load_unverified,
    smooth_pixels,
)

from keras_topo.export import export_saved_model, saved_models

pytestmark = pytest.mark.tensorflow_only

InvalidArgument = tf.errors.InvalidArgumentError


@pytest.fixture
def pixels():
    return smooth_pixels()


def nested_softmax():
    inputs = keras.Input((8, 8, 3))
    model = dense_model(last=[keras.layers.Activation("softmax")])
    return keras.Model(inputs, model(inputs))


def ends_in_softmax(kind):
    last = {
        "layer": [keras.layers.Softmax()],
        "dense": [keras.layers.Dense(3, "softmax")],
        # In float32 after a computation in half precision, as Keras advises.
        "before a linear one": [
            keras.layers.Dense(3, "softmax"),
            keras.layers.Activation("linear", dtype="float32"),
        ],
    }
    return (
        nested_softmax() if kind == "inside" else dense_model(last=last[kind])
    )


@pytest.mark.parametrize(
    "kind", ["layer", "dense", "before a linear one", "inside"]
)
def test_probabilities_do_not_go_through_a_second_softmax(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    model = ends_in_softmax(kind)
    report = export_saved_model(model, tmp_path / "1")
    assert set(report["differences"]) == {"probabilities", "scores"}
    images = 255 * np.random.default_rng(1).random((4, 8, 8, 3), "float32")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    answer = signatures["serving_default"](images=tf.constant(images))
    assert set(answer) == {"probabilities"}
    np.testing.assert_allclose(
        answer["probabilities"], model(images), atol=1e-6
    )


def test_class_indices_of_keras_become_a_list(tmp_path, pixels):
    model = dense_model()
    indices = {"cat": 2, "dog": 0, "eel": 1}
    with pytest.raises(ValueError, match="`class_names` must be a list.*") as e:
        export_saved_model(model, tmp_path / "1", class_names=indices)
    # The error says how.
    way = re.search(r"sorted\(.*?\)", str(e.value))[0]
    names = eval(way, {"class_indices": indices})
    loaded = load_unverified(model, tmp_path / "1", class_names=names)
    encoded = encode(pixels, "PNG")
    answer = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant([encoded])
    )
    resized = tf.image.resize(pixels, (8, 8), antialias=True)
    best = int(np.argmax(model(resized[None])))
    assert (
        answer["classes"].numpy()[0, 0].decode() == ["dog", "eel", "cat"][best]
    )


def test_names_are_one_per_class(tmp_path):
    with pytest.raises(ValueError, match="`class_names` must be a list of 3"):
        export_saved_model(dense_model(), tmp_path / "1", class_names=["a"])
