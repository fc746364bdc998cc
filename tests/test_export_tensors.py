"""SavedModels of outputs that are probabilities already, and of tensors that
are no images of one size."""

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


def per_pixel():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])


def of_any_size():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


def of_video():
    return dense_model((2, 4, 4, 3))


def of_sequences():
    return dense_model((6, 3), last=[keras.layers.Softmax()])


@pytest.mark.parametrize(
    "build, name, outputs",
    [
        (per_pixel, "images", {"outputs"}),
        (of_any_size, "images", {"logits", "probabilities"}),
        (of_video, "inputs", {"logits", "probabilities"}),
        (of_sequences, "inputs", {"probabilities"}),
    ],
)
def test_other_tensors_than_images_of_one_size(
    tmp_path, monkeypatch, build, name, outputs
):
    monkeypatch.setattr(
        saved_models,
        "answers_of_a_clean_process",
        answers_with(lambda _: None),
    )
    model = build()
    report = export_saved_model(model, tmp_path / "1")
    assert report["verified"] and set(report["differences"]) == outputs
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    assert list(signatures) == ["serving_default"]
    shape = [12 if n is None else n for n in model.inputs[0].shape[1:]]
    x = 255 * np.random.default_rng(0).random((2, *shape), "float32")
    answer = signatures["serving_default"](**{name: tf.constant(x)})
    key = next(iter(outputs - {"probabilities"}), "probabilities")
    np.testing.assert_allclose(answer[key], model(x), rtol=1e-5, atol=1e-4)
    answer = signatures["serving_default"](**{name: tf.zeros((0, *shape))})
    assert answer[key].shape[0] == 0
    x[0] = np.nan
    with pytest.raises(InvalidArgument, match=f"`{name}` must be finite"):
        signatures["serving_default"](**{name: tf.constant(x)})


def test_names_are_for_classifiers(tmp_path):
    with pytest.raises(ValueError, match="`class_names` must be a list of 2"):
        export_saved_model(per_pixel(), tmp_path / "1", class_names=["a"])
