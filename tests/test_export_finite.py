"""No export answers NaN or infinity, whatever finite numbers it is sent."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from export_models import dense_model

import keras_topo
from keras_topo import models
from keras_topo.graphs import Graph, edge_inputs

pytestmark = pytest.mark.tensorflow_only

LARGE = 3e38


def large(model):
    """The same model with large weights."""
    kernel = model.layers[-1].kernel
    kernel.assign(1e4 * kernel)
    return model


def images(path):
    keras_topo.export_saved_model(large(dense_model()), path, verify=False)
    pixels = np.full((2, 8, 8, 3), 7, "float32")
    return "images", {"images": pixels}


def sequences(path):
    model = large(dense_model((6, 3)))
    keras_topo.export_saved_model(model, path, verify=False)
    return "inputs", {"inputs": np.ones((2, 6, 3), "float32")}


def of_edges(outputs):
    """A minimal model with the inputs of `with_edge_inputs`."""
    inputs = {
        "nodes": keras.Input((None, 3), name="nodes"),
        "edges": keras.Input((None, 2), dtype="int32", name="edges"),
        "node_mask": keras.Input((None,), dtype="bool", name="node_mask"),
    }
    x = keras.layers.GlobalAveragePooling1D()(inputs["nodes"])
    return keras.Model(inputs, keras.layers.Dense(outputs)(x))


def graph_inputs():
    graph = Graph(np.eye(4, k=1) + np.eye(4, k=-1), np.ones((4, 3)))
    return edge_inputs([graph], 3)


def edges(path):
    keras_topo.export_graph_saved_model(large(of_edges(2)), path, verify=False)
    return "nodes", graph_inputs()


def nodes(path):
    ring = scipy.sparse.csr_array(np.roll(np.eye(6), 1, 0) + np.eye(6))
    model = models.gkat_node_classifier(4, 3, ring, num_heads=2, key_dim=2)
    features = np.ones((6, 4), "float32")
    model(features[None])
    keras_topo.export_node_saved_model(model, path, features, verify=False)
    return "nodes", {"nodes": features[None]}


EXPORTS = {f.__name__: f for f in (images, sequences, edges, nodes)}


@pytest.mark.few("images", "nodes")
@pytest.mark.parametrize("name", EXPORTS)
def test_numbers_that_overflow_inside(tmp_path, name):
    """Raw graphs: `tests/test_export_raw_graphs.py`."""
    keras.utils.set_random_seed(0)
    key, inputs = EXPORTS[name](tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    which = "classify_features" if name == "nodes" else "serving_default"
    good = {k: tf.constant(x) for k, x in inputs.items()}
    for sign in (1, -1):
        signs = np.random.default_rng(1).choice([1, sign], inputs[key].shape)
        bad = {**good, key: tf.constant(LARGE * signs, tf.float32)}
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match=f"(?s)`{key}`.*computes finite (logits|probabilities)",
        ):
            signatures[which](**bad)
        answer = signatures[which](**good)
        assert all(np.isfinite(x).all() for x in answer.values())


@pytest.mark.slow
def test_models_of_one_output(tmp_path):
    """A softmax over one output would always be one."""
    model = keras.Sequential(
        [keras.Input((6, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    report = keras_topo.export_saved_model(model, tmp_path / "1", verify=False)
    outputs = report["signatures"]["serving_default"]["outputs"]
    assert outputs == {"outputs": "float32 (None, 1)"}
    whole, inputs = of_edges(1), graph_inputs()
    with pytest.raises(ValueError, match="'multilabel'.*one output"):
        keras_topo.export_graph_saved_model(whole, tmp_path / "2")
    for task, key in (
        ("multilabel", "probabilities"),
        ("regression", "predictions"),
    ):
        report = keras_topo.export_graph_saved_model(
            whole, tmp_path / task, task=task, verify=False
        )
        assert report["task"] == task
        signatures = tf.saved_model.load(str(tmp_path / task)).signatures
        answer = signatures["serving_default"](
            **{k: tf.constant(x) for k, x in inputs.items()}
        )
        expected = whole(inputs)
        if task == "multilabel":
            expected = keras.ops.sigmoid(expected)
        np.testing.assert_allclose(answer[key], expected, rtol=1e-5)
