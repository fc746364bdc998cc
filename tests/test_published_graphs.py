"""Published models of graphs and nodes: raw graphs in, answers by name out.

That SavedModels answer in processes with TensorFlow and without Keras and
keras_topo is one test of each; others ask them in this process.
"""

import functools
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import networkx
import numpy as np
import pytest
import tensorflow as tf

import keras_topo
from keras_topo import GraphClassifier
from keras_topo.export.graph_tensors import GraphTensorSpec, graph_to_example
from keras_topo.export.verification import answers_of_a_clean_process
from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    load_planetoid,
    load_tu_dataset,
    raw_inputs,
)
from keras_topo.models import gkat_graph_classifier, with_preprocessing
from keras_topo.presets import read_metrics, read_preprocessor

pytestmark = pytest.mark.tensorflow_only

ROOT = pathlib.Path(__file__).resolve().parents[1]
ZOO = ROOT / "saved_models"
TASKS = ("graphs", "nodes", "images")
FAST = ("gkat-mutag", "gkat-cora")


@functools.cache
def signatures_of(name):
    """The signatures of a preset, loaded once in this process."""
    return tf.saved_model.load(str(ZOO / name / "1")).signatures


def answers_of(name, requests):
    """Like `answers_of_a_clean_process`, in this one."""
    for signature, inputs in requests:
        sent = {key: tf.constant(x) for key, x in inputs.items()}
        answer = signatures_of(name)[signature](**sent)
        yield {key: x.numpy() for key, x in answer.items()}


def of_task(task):
    """The names of presets of a task; all but one are slow."""
    return [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name, preset in keras_topo.presets().items()
        if preset["task"] == task
    ]


def random_graphs(preprocessor, sizes=(5, 12, 1)):
    random = np.random.default_rng(0)
    learned, graphs = preprocessor.learned, []
    for n in sizes:
        adjacency = networkx.to_numpy_array(
            networkx.gnp_random_graph(n, 0.3, seed=n)
        )
        width = learned["num_own_features"]
        graphs.append(
            Graph(
                adjacency,
                features=random.normal(size=(n, width)) if width else None,
                node_labels=random.choice(learned["label_values"], n),
            )
        )
    return graphs


def requests_of(graphs, preprocessor):
    spec = GraphTensorSpec.from_preprocessor(preprocessor)
    examples = [graph_to_example(g, spec).SerializeToString() for g in graphs]
    return [
        ("serving_default", raw_inputs(graphs, preprocessor)),
        ("serve_examples", {"examples": np.array(examples, object)}),
    ]


@pytest.mark.parametrize("name", of_task("graphs"))
def test_raw_graphs(name):
    """The answers equal those of the preset with inputs from the host."""
    classifier = GraphClassifier.from_preset(name)
    found = classifier.preprocessor
    graphs = random_graphs(found)
    kept = json.loads(
        (ZOO / name / "1/assets.extra/preprocessor.json").read_text()
    )
    assert kept["class_names"] == found.class_names
    assert kept["graph_preprocessor"]["learned"] == found.learned
    for answer in answers_of_a_clean_process(
        ZOO / name / "1", requests_of(graphs, found)
    ):
        np.testing.assert_allclose(
            answer["probabilities"],
            classifier.predict_proba(graphs),
            rtol=1e-4,
            atol=1e-6,
        )
        names = [str(value).encode() for value in classifier.predict(graphs)]
        assert answer["class"].tolist() == names


@pytest.mark.parametrize("name", of_task("graphs"))
def test_graphs_as_accurate_as_the_card_says(name, shared_data):
    from keras_topo.training.graph_data import stratified_split

    metrics = read_metrics(ZOO / name)
    classifier = GraphClassifier.from_preset(name)
    data = metrics["arguments"]["data"]
    dataset = load_tu_dataset(shared_data / "tu" / f"{data}.zip")
    test = stratified_split(dataset.labels, metrics["seed"])[2]
    graphs = [dataset.graphs[i] for i in test]
    truth = [str(dataset.labels[i]).encode() for i in test]
    requests = [
        ("serving_default", raw_inputs(batch, classifier.preprocessor))
        for k in range(0, len(graphs), 8)
        for batch in within_the_limit(graphs[k : k + 8])
    ]
    answers = answers_of(name, requests)
    said = np.concatenate([answer["class"] for answer in answers])
    accuracy = np.mean(said == np.array(truth, object))
    assert accuracy == pytest.approx(metrics["test_accuracy"], abs=1e-6)
    assert f"**{accuracy:.2%}**" in (ZOO / name / "README.md").read_text()


def within_the_limit(graphs):
    """The graphs, or each alone if a model refuses all of them at once."""
    largest = max(graph.num_nodes for graph in graphs)
    if len(graphs) * largest**2 <= 2**20:  # `max_elements`.
        return [graphs]
    return [[graph] for graph in graphs]


def shape_of_words(name):
    """`(1, nodes, features)` of a model of nodes."""
    signatures = read_metrics(ZOO / name)["export"]["signatures"]
    logits = signatures["classify_features"]["outputs"]["logits"]
    nodes = int(logits.partition("(")[2].split(",")[1])
    return 1, nodes, read_preprocessor(name)["features"]["own"]


@pytest.mark.parametrize("name", of_task("nodes"))
def test_raw_words(name):
    """Zeros and ones, and the same ones divided by their sum."""
    model = keras_topo.from_preset(name)
    shape = shape_of_words(name)
    assert model.input_shape == (None, None, shape[-1])
    words = np.random.default_rng(0).random(shape) < 0.01
    words = words.astype("float32")
    shares = words / np.maximum(words.sum(-1, keepdims=True), 1)
    expected = model.predict(words, verbose=0)
    answers = answers_of_a_clean_process(
        ZOO / name / "1",
        [("classify_features", {"nodes": x}) for x in (words, shares)],
    )
    for answer in answers:
        np.testing.assert_allclose(
            answer["logits"], expected, rtol=1e-4, atol=1e-5
        )
    other = keras_topo.from_preset(name, num_classes=3)
    assert other.output_shape[-1] == 3


@pytest.mark.parametrize("name", of_task("nodes"))
def test_nodes_as_accurate_as_the_card_says(name, shared_data):
    metrics = read_metrics(ZOO / name)
    data = load_planetoid(
        shared_data / "planetoid", metrics["arguments"]["data"]
    )
    ids, words = data.test.astype("int32"), data.graph.features
    by_id, by_words = answers_of(
        name,
        [
            ("serving_default", {"ids": ids}),
            ("classify_features", {"nodes": words[None]}),
        ],
    )
    names = read_preprocessor(name)["class_names"]
    truth = np.array([x.encode() for x in names], object)
    truth = truth[data.graph.node_targets[ids]]
    for said in (by_id["class"], by_words["class"][0, ids]):
        accuracy = np.mean(said == truth)
        assert accuracy == pytest.approx(metrics["test_accuracy_of_the_file"])
    assert f"{accuracy:.2%}" in (ZOO / name / "README.md").read_text()


@pytest.mark.parametrize("name", of_task("graphs") + of_task("nodes"))
def test_the_card(name, monkeypatch):
    """Its snippets run, and its table matches the SavedModel."""
    monkeypatch.chdir(ROOT)
    card = (ZOO / name / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet, {})
    for signature, concrete in signatures_of(name).items():
        _, inputs = concrete.structured_input_signature
        parts = (inputs, concrete.structured_outputs)
        (row,) = re.findall(rf"\| `{signature}` \| (.*) \| (.*) \|", card)
        for described, specs in zip(row, parts, strict=True):
            for key, spec in specs.items():
                text = f"`{key}` {spec.dtype.name} {tuple(spec.shape)}"
                assert text in described
            assert described.count("`") == 2 * len(specs)


def large_requests(name):
    """Signatures and inputs with the largest numbers, of either sign."""
    described = read_preprocessor(name)
    if described["task"] == "images":
        yield (
            "serving_default",
            {"images": np.ones((3, *described["image_shape"]))},
        )
    elif described["task"] == "nodes":
        yield "classify_features", {"nodes": np.ones(shape_of_words(name))}
    else:
        config = described["graph_preprocessor"]
        found = GraphPreprocessor.from_config(config)
        yield requests_of(random_graphs(found), found)[0]


@pytest.mark.parametrize("name", sum(map(of_task, TASKS), []))
def test_no_answer_is_nan(name):
    """The largest finite numbers are refused, or the answer is finite."""
    served = signatures_of(name)
    random = np.random.default_rng(0)
    for signature, inputs in large_requests(name):
        for signs in ((1, 1), (-1, -1), (-1, 1)):
            sent = {
                key: tf.constant(x)
                if x.dtype.kind != "f"
                else tf.constant(
                    3e38 * random.choice(signs, x.shape), "float32"
                )
                for key, x in inputs.items()
            }
            try:
                answer = served[signature](**sent)
            except tf.errors.InvalidArgumentError as error:
                assert "finite" in error.message
            else:
                assert np.isfinite(answer["logits"]).all()
                assert np.isfinite(answer["probabilities"]).all()


# The memory of a short request.


def example(num_nodes, label=None, bonds=()):
    """An example with many nodes, and labeled bonds between the first ones."""

    def ints(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    feature = {
        "nodes/nodes.#size": ints([num_nodes]),
        "edges/edges.#source": ints(range(len(bonds))),
        "edges/edges.#target": ints(range(1, len(bonds) + 1)),
    }
    if label is not None:
        feature["nodes/nodes.label"] = ints([label] * num_nodes)
    if bonds:
        feature["edges/edges.label"] = ints(bonds)
    features = tf.train.Features(feature=feature)
    return tf.train.Example(features=features).SerializeToString()


def grown(folder, tmp_path, batches):
    """Lines of `served_memory.py`, split: MiB, bytes, and the answer."""
    files = []
    for k, examples in enumerate(batches):
        files.append(tmp_path / f"{k}.pickle")
        inputs = {"examples": np.array(examples, object)}
        files[-1].write_bytes(pickle.dumps(("serve_examples", inputs)))
    process = subprocess.run(
        [sys.executable, ROOT / "tests" / "served_memory.py", folder, *files],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.returncode == 0, process.stderr[-3000:]
    lines = [
        line.split(maxsplit=2)
        for line in process.stdout.splitlines()
        if re.match(r"\d+ \d+ ", line)
    ]
    assert len(lines) == len(batches) - 1
    return lines


def check_growth(lines, refused):
    print(lines)
    for (mebibytes, size, said), no in zip(lines, refused, strict=True):
        assert int(size) <= 1600
        assert int(mebibytes) < 300
        assert said.startswith("refused" if no else "['class'")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_short_request(tmp_path):
    """1.5 kB get an answer in less than 300 MB, or none (G13)."""
    lines = grown(
        ZOO / "gkat-mutag" / "1",
        tmp_path,
        [
            [example(5, 0)],
            # One graph of the largest allowed size, and a larger one.
            [example(1024, 0)],
            [example(1025, 0)],
            # Sizes claimed without any nodes.
            [example(512)] * 16,
        ],
    )
    check_growth(lines, (False, True, True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_of_edges_and_of_nodes_without_labels(tmp_path):
    """Nodes without labels take no bytes, and edges have features."""
    path = np.eye(6, k=1) + np.eye(6, k=-1)
    bonds = np.array([0, 1, 1, 2, 2, 3, 3, 0, 0, 1])
    graphs = [Graph(path, edge_labels=bonds)] * 2
    found = GraphPreprocessor(cache=False).adapt(graphs, [0, 1])
    model = gkat_graph_classifier(
        found.num_features,
        2,
        found.num_kernels,
        num_edge_features=4,
        local=True,
    )
    keras_topo.export_graph_saved_model(
        with_preprocessing(model, found), tmp_path / "1", verify=False
    )
    lines = grown(
        tmp_path / "1",
        tmp_path,
        [
            [example(5, bonds=[1, 2])],
            [example(1024, bonds=[0, 1, 2, 3] * 10)],
            [example(295, bonds=[3])] * 12,
            [example(296, bonds=[3])] * 12,
            [example(512, bonds=[3])] * 12,
        ],
    )
    check_growth(lines, (False, False, True, True))
