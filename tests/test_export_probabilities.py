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


@pytest.mark.few("before a linear one", "inside")
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
    # The error explains what to do.
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


def test_labels_of_an_unknown_activation_are_asked_for(tmp_path):
    """Otherwise a second sigmoid might be applied."""
    inputs = keras.Input((4, 6), name="steps")
    outputs = keras.layers.TimeDistributed(
        keras.layers.Dense(3, activation="sigmoid")
    )(inputs)
    with pytest.raises(ValueError, match="last activation can be told"):
        export_saved_model(
            keras.Model(inputs, outputs), tmp_path / "1", task="multilabel"
        )
    outputs = keras.layers.Activation("sigmoid")(
        keras.layers.TimeDistributed(keras.layers.Dense(3))(inputs)
    )
    model = keras.Model(inputs, outputs)
    loaded = load_unverified(model, tmp_path / "1", task="multilabel")
    steps = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    answer = loaded.signatures["serving_default"](inputs=tf.constant(steps))
    np.testing.assert_allclose(answer["probabilities"], model(steps), rtol=1e-5)


def test_labels_of_a_dense_layer_are_not_asked_for(tmp_path):
    """Logits that happen to lie between 0 and 1."""
    inputs = keras.Input((3, 6), name="x")
    dense = keras.layers.Dense(2, kernel_initializer="zeros")
    model = keras.Model(inputs, dense(inputs))
    dense.bias.assign([0.2, 0.7])
    loaded = load_unverified(model, tmp_path / "1", task="multilabel")
    answer = loaded.signatures["serving_default"](inputs=tf.zeros((1, 3, 6)))
    expected = 1 / (1 + np.exp(-np.array([0.2, 0.7])))
    np.testing.assert_allclose(answer["probabilities"][0, 0], expected, 1e-5)
    np.testing.assert_allclose(answer["logits"][0, 0], [0.2, 0.7], 1e-5)


class TokensAndPositions(keras.layers.Layer):
    def __init__(self, tokens, positions):
        super().__init__()
        self.tokens = keras.layers.Embedding(tokens, 4)
        self.positions = keras.layers.Embedding(positions, 4)

    def call(self, ids):
        places = keras.ops.arange(ids.shape[-1])
        return self.tokens(ids) + self.positions(places)


@pytest.mark.parametrize("inside", [False, True])
def test_ids_are_bounded_by_the_embedding_of_tokens(tmp_path, inside):
    ids = keras.Input((8,), dtype="int32", name="ids")
    if inside:
        x = TokensAndPositions(1000, 50)(ids)
    else:
        places = keras.layers.Embedding(5000, 4)
        x = keras.layers.Embedding(1000, 4)(ids)
        x = x + places(keras.ops.zeros_like(ids))
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(ids, keras.layers.Dense(3)(x))
    loaded = load_unverified(model, tmp_path / "1", task="classification")
    serve = loaded.signatures["serving_default"]
    found = serve(tokens=tf.constant([[999, 700, 50, 49, 0, 1, 2, 3]]))[
        "logits"
    ]
    assert np.isfinite(found).all()
    with pytest.raises(InvalidArgument, match="from 0 to 999"):
        serve(tokens=tf.constant([[1000, 0, 0, 0, 0, 0, 0, 0]]))


def test_ids_do_not_wrap_around(tmp_path):
    """An input of 8 bits has 256 ids, whatever the embedding knows."""
    ids = keras.Input((5,), dtype="uint8", name="ids")
    x = keras.layers.Flatten()(keras.layers.Embedding(1000, 4)(ids))
    model = keras.Model(ids, keras.layers.Dense(3)(x))
    loaded = load_unverified(model, tmp_path / "1", task="classification")
    serve = loaded.signatures["serving_default"]
    assert serve(tokens=tf.constant([[255, 0, 1, 2, 3]]))["logits"].shape == (
        1,
        3,
    )
    for wrong in (256, 300, -1):
        with pytest.raises(InvalidArgument, match="from 0 to 255"):
            serve(tokens=tf.constant([[wrong, 0, 0, 0, 0]]))


def test_numbers_that_are_smaller_than_pixels(tmp_path, monkeypatch):
    """A rate is the exponential of what comes in."""
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    model = keras.Sequential(
        [
            keras.Input((10, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(1, "exponential", kernel_initializer="ones"),
        ]
    )
    requests = []
    monkeypatch.setattr(
        saved_models,
        "write_warmup",
        lambda folder, found: requests.extend(found),
    )
    options = {"task": "regression", "overwrite": True}
    report = export_saved_model(model, tmp_path / "1", **options)
    assert report["verified"] and len(requests) == 3
    for _, inputs in requests:
        assert np.isfinite(model(inputs["inputs"])).all()
    # Without a trial, a server must still be able to start.
    requests.clear()
    kernel, bias = model.get_weights()
    model.set_weights([kernel, bias + 200])
    export_saved_model(model, tmp_path / "1", verify=False, **options)
    assert [len(inputs["inputs"]) for _, inputs in requests] == [0]
