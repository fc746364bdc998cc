"""The zoo: every model answers as its card says, under load and abuse."""

import base64
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_topo

pytestmark = [pytest.mark.tensorflow_only, pytest.mark.slow]

SOAK = pathlib.Path(__file__).with_name("soak.py")
# Rows of a request.
SIZES = (1, 2, 3, 5, 8, 16, 31, 64)


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def image_requests(model, random):
    """PNG files and pixels, and inputs that are not images."""
    import tensorflow as tf

    shape = model.input_shape[1:]
    good, bad = [], []
    for rows in SIZES:
        images = random.integers(0, 256, (rows, *shape), "uint8")
        logits = model.predict(images.astype("float32"), verbose=0)
        pixels = {"images": images.astype("float32")}
        outputs = {"logits": logits, "probabilities": softmax(logits)}
        good.append(("serving_default", pixels, outputs))
        files = [tf.io.encode_png(x).numpy() for x in images]
        scores = -np.sort(-softmax(logits))[:, :5]
        good.append(
            ("classify_bytes", {"image_bytes": files}, {"scores": scores})
        )
    photo = tf.io.encode_jpeg(random.integers(0, 256, (64, 64, 3), "uint8"))
    black = np.zeros((7100, 7100, 3), "uint8")
    for name, file in (
        ("truncated JPEG", photo.numpy()[:1000]),
        ("random bytes", random.bytes(1000)),
        ("empty", b""),
        ("50 megapixels", tf.io.encode_png(black).numpy()),
    ):
        inputs = {"image_bytes": [*files[:2], file]}
        bad.append((name, "classify_bytes", inputs))
    pixels = pixels["images"]
    bad += [
        ("wrong dtype", "serving_default", {"images": pixels.astype("int32")}),
        ("wrong shape", "serving_default", {"images": pixels[:, :-1]}),
        ("no batch", "serving_default", {"images": pixels[0]}),
        ("not finite", "serving_default", {"images": pixels * np.nan}),
    ]
    return good, bad


def graph_requests(name, random):
    """GraphTensors and padded arrays, and inputs that are not graphs."""
    from keras_topo.export.graph_tensors import (
        GraphTensorSpec,
        graph_to_example,
    )
    from keras_topo.graphs import Graph, raw_inputs

    classifier = keras_topo.GraphClassifier.from_preset(name)
    found = classifier.preprocessor
    learned = found.learned
    spec = GraphTensorSpec.from_preprocessor(found)
    channels = learned["num_own_features"]

    def a_graph():
        nodes = int(random.integers(1, 40))
        upper = np.triu(random.random((nodes, nodes)) < 3 / nodes, k=1)
        features = random.normal(size=(nodes, channels)) if channels else None
        return Graph(
            (upper | upper.T).astype("float32"),
            features,
            random.choice(learned["label_values"], nodes),
        )

    good = []
    for rows in SIZES:
        graphs = [a_graph() for _ in range(rows)]
        logits = classifier.predict_raw(graphs)
        names = np.array(found.class_names)[logits.argmax(-1)]
        outputs = {
            "logits": logits,
            "probabilities": softmax(logits),
            "class": names,
        }
        good.append(("serving_default", raw_inputs(graphs, found), outputs))
        examples = [
            graph_to_example(graph, spec).SerializeToString()
            for graph in graphs
        ]
        good.append(("serve_examples", {"examples": examples}, outputs))
    inputs = raw_inputs([a_graph(), a_graph()], found)
    return good, graph_refusals(examples, inputs, random)


def graph_refusals(examples, inputs, random):
    """Requests that get an error: a name, a signature, inputs."""
    import tensorflow as tf

    example = tf.train.Example.FromString(examples[0])
    ends = example.features.feature["edges/edges.#source"].int64_list.value
    assert "edges/edges.#source" in example.features.feature
    ends.append(1000)
    target = example.features.feature["edges/edges.#target"].int64_list.value
    target.append(0)
    example.features.feature["edges/edges.#size"].int64_list.value[0] += 1
    broken = [
        ("edges out of range", example.SerializeToString()),
        ("random bytes", random.bytes(300)),
        ("truncated", examples[1][:-7]),
        ("empty", b""),
    ]
    bad = [
        (what, "serve_examples", {"examples": [examples[0], file]})
        for what, file in broken
    ]
    far = {**inputs, "edges": inputs["edges"] + 1000}
    labels = inputs["node_labels"]
    bad += [
        ("edges out of range, padded", "serving_default", far),
        (
            "unknown labels",
            "serving_default",
            {**inputs, "node_labels": labels + 1000},
        ),
        (
            "wrong dtype",
            "serving_default",
            {**inputs, "node_labels": labels.astype("float32")},
        ),
        (
            "wrong shape",
            "serving_default",
            {**inputs, "node_labels": labels[0]},
        ),
    ]
    if "features" in inputs:
        features = inputs["features"]
        bad += [
            (
                "wrong number of features",
                "serving_default",
                {**inputs, "features": features[..., :-1]},
            ),
            (
                "not finite",
                "serving_default",
                {**inputs, "features": features * np.nan},
            ),
        ]
    return bad


def node_requests(model, random, shared_data, name):
    """Ids of nodes, features of all nodes, and ids that do not exist."""
    from keras_topo.graphs import load_planetoid

    data = load_planetoid(shared_data / "planetoid", name)
    # Raw words: the model divides them by their sum.
    features = data.graph.features
    logits = model.predict(features[None], verbose=0)[0]
    good = []
    for rows in SIZES:
        ids = random.integers(0, len(features), rows).astype("int32")
        outputs = {
            "logits": logits[ids],
            "probabilities": softmax(logits[ids]),
        }
        good.append(("serving_default", {"ids": ids}, outputs))
    ids = good[0][1]["ids"]
    bad = [
        ("no such node", "serving_default", {"ids": ids * 0 + len(features)}),
        ("negative", "serving_default", {"ids": ids * 0 - 1}),
        ("wrong dtype", "serving_default", {"ids": ids.astype("float32")}),
        ("wrong shape", "serving_default", {"ids": ids[None]}),
        (
            "wrong number of nodes",
            "classify_features",
            {"nodes": features[None, :-1]},
        ),
    ]
    return good, bad


def encoded(arrays):
    import tensorflow as tf

    return {
        name: base64.b64encode(
            tf.make_tensor_proto(value).SerializeToString()
        ).decode()
        for name, value in arrays.items()
    }


@pytest.mark.parametrize("name", keras_topo.presets())
def test_saved_model(name, tmp_path, request):
    preset = keras_topo.presets()[name]
    model = keras_topo.from_preset(name)
    random = np.random.default_rng(0)
    if preset["task"] == "images":
        good, bad = image_requests(model, random)
    elif preset["task"] == "graphs":
        good, bad = graph_requests(name, random)
    else:
        shared_data = request.getfixturevalue("shared_data")
        data = pathlib.Path(preset["data"]).stem
        good, bad = node_requests(model, random, shared_data, data)
    file = tmp_path / "requests.json"
    file.write_text(
        json.dumps(
            {
                "good": [
                    {
                        "signature": signature,
                        "inputs": encoded(inputs),
                        "outputs": encoded(outputs),
                    }
                    for signature, inputs, outputs in good
                ],
                "bad": [
                    {
                        "name": what,
                        "signature": signature,
                        "inputs": encoded(inputs),
                    }
                    for what, signature, inputs in bad
                ],
            }
        )
    )
    process = subprocess.run(
        [sys.executable, str(SOAK), str(pathlib.Path(preset["path"], "1"))]
        + [str(file)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    summary = json.loads(process.stdout.splitlines()[-1])
    print(name, summary)
    assert summary["requests"] == 2000
    assert set(summary["refused"]) == {what for what, *_ in bad}
