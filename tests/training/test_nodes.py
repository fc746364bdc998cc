"""`python -m training.nodes`: the karate club, files, seeds and resuming."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_topo import export_node_saved_model
from keras_topo.graphs import pagerank_kernel
from keras_topo.training import nodes

pytestmark = pytest.mark.tensorflow_only

SMALL = ["--heads", "2", "--key-dim", "4", "--epochs", "3"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_export(monkeypatch):
    """For tests of something else: an export takes seconds."""
    monkeypatch.setattr(nodes, "export_first", lambda run, data: None)


@pytest.fixture
def planetoid(tmp_path):
    """Two cliques of six nodes joined by an edge; features say nothing."""
    block = np.ones((6, 6)) - np.eye(6)
    adjacency = np.kron(np.eye(2), block)
    adjacency[5, 6] = adjacency[6, 5] = 1
    path = tmp_path / "cliques.npz"
    np.savez(
        path,
        x_data=np.ones(12, "float32"),
        x_indices=np.arange(12, dtype="int32"),
        x_indptr=np.arange(13, dtype="int32"),
        x_shape=np.array([12, 12]),
        edge_index=np.stack(np.nonzero(adjacency)),
        y=np.repeat([0, 1], 6),
        train_idx=np.array([0, 11]),
        val_idx=np.array([1, 10]),
        test_idx=np.array([2, 3, 4, 7, 8, 9]),
    )
    return path


@pytest.mark.parametrize("model", nodes.MODELS)
def test_trains_and_saves(
    tmp_path, planetoid, model, capsys, no_export, eagerly
):
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--model", model, "--out", str(out)]
    assert nodes.main([*command, *SMALL]) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["runs"] == 1
    loaded = keras.saving.load_model(out / "model.keras")
    logits = loaded(np.eye(12, dtype="float32")[None])
    assert tuple(logits.shape) == (1, 12, 2)
    assert (out / "curves.png").exists()
    assert "Test accuracy" in capsys.readouterr().out


def test_a_large_graph(tmp_path, no_export, eagerly):
    """Smaller here: a mask known by its products, walks drawn again."""
    command = ["--data", "beacons", "--nodes", "300", "--epochs", "3"]
    for model, more in (
        ("gkat-diffusion", ["--kernel-sizes", "1", "4"]),
        ("gkat-features", ["--resample", "1", "--kernel-sizes", "5"]),
    ):
        out = tmp_path / model
        model = ["--model", model, *more, "--out", str(out)]
        assert nodes.main([*command, *model]) == 0
        (line,) = (out / "runs.jsonl").read_text().splitlines()
        assert json.loads(line)["epochs"] == 3


def test_arguments_of_masks(capsys):
    for wrong in (
        ["--model", "gkat-walks", "--kernel-sizes", "2", "4"],
        ["--model", "gkat-diffusion", "--resample", "2"],
        ["--model", "gkat-features", "--kernel-sizes", "2.5"],
    ):
        with pytest.raises(SystemExit):
            nodes.main([*wrong, "--out", "unused"])
    assert "--resample is for" in capsys.readouterr().err


def test_learns_from_two_nodes(tmp_path, planetoid):
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--out", str(out), *SMALL]
    command += ["--epochs", "60", "--dropout", "0", "--attention-dropout", "0"]
    assert nodes.main(command) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["test_accuracy"] == 1.0
    # Served by ids, and what it cannot answer is refused by name.
    signature = tf.saved_model.load(out / "saved_model" / "1").signatures[
        "serving_default"
    ]
    ids = np.array([9, 2, 9], "int32")
    answer = signature(ids=tf.constant(ids))
    assert np.argmax(answer["probabilities"], -1).tolist() == [1, 0, 1]
    with pytest.raises(tf.errors.InvalidArgumentError, match="`ids` expects"):
        signature(ids=tf.constant([12]))
    signature = tf.saved_model.load(out / "saved_model" / "1").signatures[
        "classify_features"
    ]
    with pytest.raises(tf.errors.InvalidArgumentError, match="`nodes` expec"):
        signature(nodes=tf.zeros((1, 24, 6)))
    # As many features as the graph has nodes, though pairs do not tell.
    model = keras.saving.load_model(out / "model.keras")
    with pytest.raises(ValueError, match="12 nodes"):
        export_node_saved_model(model, tmp_path / "1", np.eye(14, 12))
    softmax = keras.Sequential(
        [keras.Input((None, 12)), keras.layers.Dense(2, activation="softmax")]
    )
    for wrong, message in (
        (softmax, "must return logits"),
        (print, "expects a built keras.Model"),
    ):
        with pytest.raises(ValueError, match=message):
            export_node_saved_model(wrong, tmp_path / "1", np.eye(12))


def test_seeds_resume(tmp_path, planetoid, no_export, eagerly):
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--out", str(out), *SMALL]
    assert nodes.main([*command, "--seeds", "2"]) == 0
    first = (out / "runs.jsonl").read_text()
    # One more seed: the two that are there are not run again.
    assert nodes.main([*command, "--seeds", "3"]) == 0
    lines = (out / "runs.jsonl").read_text()
    assert lines.startswith(first)
    assert [json.loads(x)["seed"] for x in lines.splitlines()] == [0, 1, 2]
    assert json.loads((out / "metrics.json").read_text())["runs"] == 3


def test_karate():
    data = nodes.load_karate()
    assert data.graph.num_nodes == 34 and data.graph.num_edges == 78
    assert data.graph.node_targets[data.train].tolist() == [0, 1]
    assert len(data.test) == 32


def test_several_kernels(planetoid):
    arguments = nodes.parse_arguments(
        ["--data", str(planetoid), "--out", "-", "--model", "gkat-propagation"]
        + ["--kernel-sizes", "0.1", "0.4", "--kernel-top", "12"]
    )
    data = nodes.load_nodes(arguments["data"])
    kernel = nodes.make_kernel(data.graph.adjacency, arguments)
    np.testing.assert_allclose(
        kernel["pair_values"].reshape(2, 12, 12),
        pagerank_kernel(data.graph.adjacency, [0.1, 0.4]),
        rtol=1e-5,
    )
    # A head for each of them.
    model = nodes.build_model(arguments, data, kernel)
    logits = model.get_layer("logits")
    assert logits.num_heads == 2
    # Scores start at zero and are held there: two losses besides the L2.
    assert not np.any(logits.query_scores) and not np.any(logits.key_scores)
    assert len(model.losses) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        ["--similarity", "nothing"],
        ["--kernel-sizes", "2", "3", "4"],  # for eight heads
    ],
)
def test_models_that_cannot_be_built(tmp_path, planetoid, capsys, wrong):
    command = ["--data", str(planetoid), "--out", str(tmp_path / "run")]
    assert nodes.main([*command, *wrong]) == 2
    assert "error: `" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--kernel-sizes", "2.5"],
        ["--kernel", "pagerank", "--halt", "0.3"],
        ["--kernel", "pagerank", "--kernel-sizes", "2"],
    ],
)
def test_wrong_kernels(wrong, capsys):
    with pytest.raises(SystemExit):
        nodes.parse_arguments(["--out", "-", *wrong])
    assert "Received: " in capsys.readouterr().err


def test_errors(tmp_path, capsys):
    out = tmp_path / "run"
    assert nodes.main(["--data", "nowhere.npz", "--out", str(out)]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not out.exists()
