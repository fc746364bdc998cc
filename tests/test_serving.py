"""What TensorFlow Serving gets: warm-up requests, configurations, messages."""

import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest
import scipy.sparse

import keras_topo
from keras_topo import models
from keras_topo.graphs import Graph, GraphPreprocessor
from keras_topo.layers import RandomWalkKernel

pytestmark = pytest.mark.tensorflow_only

DEPLOY = pathlib.Path(__file__).parents[1] / "deploy"
spec = importlib.util.spec_from_file_location("client", DEPLOY / "client.py")
client = importlib.util.module_from_spec(spec)
spec.loader.exec_module(client)


def export_images(path):
    # Requests and signatures are the same for any image model.
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    return keras_topo.export_saved_model(model, path, verify=False)


def export_graphs(path):
    classifier = models.gkat_graph_classifier(3, 2, depth=1, num_kernels=2)
    whole = models.with_edge_inputs(classifier, RandomWalkKernel((1, 3)), 3)
    return keras_topo.export_graph_saved_model(whole, path, verify=False)


def export_raw_graphs(path):
    graphs = [
        Graph.from_edges(
            [(0, 1), (1, 2)],
            3,
            weights=[0.5, 2.0],
            node_labels=["C", "N", "C"],
            features=np.ones((3, 2)),
            edge_labels=[1, 2],
        )
    ] * 2
    found = GraphPreprocessor(return_steps=2, kernel_sizes=(2,), cache=False)
    found.adapt(graphs, ["a", "b"])
    model = models.gkat_graph_classifier(
        found.num_features, 2, 1, depth=1, num_edge_features=2
    )
    whole = models.with_preprocessing(model, found)
    return keras_topo.export_graph_saved_model(whole, path, verify=False)


def export_nodes(path):
    ring = scipy.sparse.csr_array(np.roll(np.eye(6), 1, 0) + np.eye(6))
    model = models.gkat_node_classifier(4, 3, ring, num_heads=2, key_dim=2)
    features = np.ones((6, 4), "float32")
    model(features[None])
    return keras_topo.export_node_saved_model(
        model, path, features, verify=False
    )


EXPORTS = {
    "images": (export_images, {"serving_default", "classify_bytes"}),
    "graphs": (export_graphs, {"serving_default", "serve_examples"}),
    "raw graphs": (export_raw_graphs, {"serving_default", "serve_examples"}),
    "nodes": (export_nodes, {"serving_default"}),
}


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, tmp_path_factory):
    """A name and the folder of a SavedModel."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp(request.param) / "1"
    EXPORTS[request.param][0](path)
    return request.param, path


def signature_defs(path):
    """The signatures that the SavedModel declares."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = saved_model_pb2.SavedModel()
    file.ParseFromString((path / "saved_model.pb").read_bytes())
    return file.meta_graphs[0].signature_def


def check_request(predict, definitions):
    """A `PredictRequest` against the signature that it names."""
    import tensorflow as tf

    definition = definitions[predict.model_spec.signature_name]
    assert set(predict.inputs) == set(definition.inputs)
    for name, tensor in predict.inputs.items():
        expected = definition.inputs[name]
        assert tensor.dtype == expected.dtype, name
        shape = tf.TensorShape(tensor.tensor_shape)
        assert shape.is_compatible_with(tf.TensorShape(expected.tensor_shape))


@pytest.mark.few("images", "raw graphs", "nodes")
def test_warm_up_requests_are_of_the_signatures_and_are_answered(exported):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    name, path = exported
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    definitions = signature_defs(path)
    loaded = tf.saved_model.load(str(path))
    seen = set()
    for record in tf.data.TFRecordDataset(str(file)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        predict = log.predict_log.request
        check_request(predict, definitions)
        seen.add(predict.model_spec.signature_name)
        signature = loaded.signatures[predict.model_spec.signature_name]
        outputs = signature(
            **{
                key: tf.constant(tf.make_ndarray(value))
                for key, value in predict.inputs.items()
            }
        )
        for values in outputs.values():
            if values.dtype.is_floating:
                assert np.isfinite(values.numpy()).all()
    assert seen == EXPORTS[name][1]


def inputs_of(name):
    """An input for every signature, by its name."""
    import tensorflow as tf

    from keras_topo.export.graph_tensors import (
        GraphTensorSpec,
        graph_to_example,
    )
    from keras_topo.graphs import edge_inputs

    if name == "images":
        images = np.full((2, 8, 8, 3), 100, "float32")
        files = [tf.io.encode_png(x.astype("uint8")).numpy() for x in images]
        return {
            "serving_default": {"images": images},
            "classify_bytes": {"image_bytes": np.array(files, object)},
        }
    if name == "graphs":
        path = np.eye(4, k=1) + np.eye(4, k=-1)
        graph = Graph(path, features=np.ones((4, 3), "float32"))
        spec = GraphTensorSpec({"features": 3})
        example = graph_to_example(graph, spec).SerializeToString()
        return {
            "serving_default": edge_inputs([graph], 3),
            "serve_examples": {"examples": np.array([example], object)},
        }
    if name == "raw graphs":
        # As `deploy/client.py` reads them from JSON files.
        raw = {
            "edges": [[0, 1]],
            "edge_weights": [2.0],
            "edge_labels": [2],
            "node_labels": ["N", "C"],
            "features": [[0.0, 1.0], [2.0, 3.0]],
        }
        lone = {key: [] for key in raw} | {
            "node_labels": ["C"],
            "features": [[1.0, 1.0]],
        }
        graph = Graph.from_edges(
            raw["edges"],
            2,
            weights=raw["edge_weights"],
            **{k: raw[k] for k in ("node_labels", "features", "edge_labels")},
        )
        spec = GraphTensorSpec(
            {"features": 2},
            node_label=("label", "string"),
            edge_weight="weight",
            edge_label=("label", "int64"),
        )
        example = graph_to_example(graph, spec).SerializeToString()
        return {
            "serving_default": client.graph_inputs([raw, lone]),
            "serve_examples": {"examples": np.array([example], object)},
        }
    return {
        "serving_default": {"ids": np.array([0, 5], "int32")},
        "classify_features": {"nodes": np.ones((1, 6, 4), "float32")},
    }


@pytest.mark.few("images", "raw graphs", "nodes")
def test_requests_of_every_signature(exported):
    """Requests over gRPC match the signatures; REST sends the same numbers."""
    import tensorflow as tf

    name, path = exported
    definitions = signature_defs(path)
    found = inputs_of(name)
    assert set(found) == {k for k in definitions if not k.startswith("__")}
    loaded = tf.saved_model.load(str(path))
    for signature, inputs in found.items():
        request = client.grpc_request("model", signature, inputs)
        check_request(request, definitions)
        assert request.model_spec.name == "model"
        tensors = {
            key: tf.constant(tf.make_ndarray(value))
            for key, value in request.inputs.items()
        }
        outputs = loaded.signatures[signature](**tensors)
        body = json.loads(client.rest_request(signature, inputs))
        assert body["signature_name"] == signature
        again = loaded.signatures[signature](
            **{
                key: as_the_server_reads_it(value, tensors[key].dtype)
                for key, value in body["inputs"].items()
            }
        )
        for key, values in outputs.items():
            np.testing.assert_array_equal(values, again[key])


def as_the_server_reads_it(value, dtype):
    """A JSON value of the columnar format as a tensor."""
    import base64

    import tensorflow as tf

    def read(item):
        if isinstance(item, list):
            return [read(x) for x in item]
        return base64.b64decode(item["b64"]) if "b64" in item else item

    return tf.constant(read(value) if dtype == tf.string else value, dtype)


def test_graphs_of_clients():
    """Graphs are padded to one size; errors name the invalid field."""
    path = {"edges": [[0, 1], [1, 2]], "node_labels": [6, 7, 6]}
    lone = {"edges": [], "node_labels": [8]}
    assert client.graph_inputs([path, lone]) == {
        "node_mask": [[True] * 3, [True, False, False]],
        "node_labels": [[6, 7, 6], [8, 6, 6]],
        "edges": [[[0, 1], [1, 2]], [[-1, -1], [-1, -1]]],
    }
    sized = {"edges": [], "num_nodes": 2}
    assert client.graph_inputs([sized]) == {
        "node_mask": [[True, True]],
        "edges": [[[-1, -1]]],
    }
    for graphs, message in (
        ([], "the same fields"),
        ([path, sized], "the same fields"),
        ([{**path, "atoms": []}], "the same fields.*atoms"),
        ([{"edges": []}], "num_nodes"),
        ([{**path, "edge_labels": [1]}], "`edge_labels` expects 2.*1"),
    ):
        with pytest.raises(ValueError, match=message):
            client.graph_inputs(graphs)


def test_configurations_are_those_of_the_server():
    """They parse as messages of TensorFlow Serving."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = (DEPLOY / "models.config").read_text()
    config = text_format.Parse(
        text, model_server_config_pb2.ModelServerConfig()
    )
    models = config.model_config_list.config
    assert len({m.name for m in models}) == len(models)
    for model in models:
        assert model.base_path == f"/models/{model.name}"
        assert model.model_platform == "tensorflow"
