"""`python -m training.train nodes`: the karate club, files, seeds."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_topo import export_node_saved_model
from keras_topo.graphs import pagerank_kernel
from keras_topo.training import assessment, nodes, options, train
from keras_topo.training.callbacks import NonFiniteLoss
from keras_topo.training.node_data import load_karate, load_nodes
from keras_topo.training.node_settings import (
    RECIPES,
    build_classifier,
    make_kernel,
)
from keras_topo.training.tasks.nodes import Nodes, NodeSettings

pytestmark = pytest.mark.tensorflow_only

SMALL = ["--heads", "2", "--key-dim", "4", "--epochs", "3"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def no_export(monkeypatch):
    """For tests of something else: an export takes seconds."""
    monkeypatch.setattr(Nodes, "_export", lambda *_: None)


def run(*arguments):
    return train.main(["nodes", *map(str, arguments)])


def settings_of(*arguments):
    return options.parse(["nodes", *arguments, "--out", "-"])[2]


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


@pytest.mark.few(
    *("gkat-walks", "gkat-propagation", "gkat-consistency", "appnp")
)
@pytest.mark.parametrize("model", RECIPES)
def test_trains_and_saves(
    tmp_path, planetoid, model, capsys, no_export, eagerly
):
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--model", model, "--out", str(out)]
    assert run(*command, *SMALL) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["epochs"] == 3 and summary["recipe"]["heads"] == 2
    assert summary["nodes"] == {"train": 2, "validation": 2, "test": 6}
    loaded = keras.saving.load_model(out / "model.keras")
    # The kernel is of the data.
    trainable = sum(int(np.prod(w.shape)) for w in loaded.trainable_weights)
    assert summary["parameters"] == trainable < loaded.count_params()
    logits = loaded(np.eye(12, dtype="float32")[None])
    assert tuple(logits.shape) == (1, 12, 2)
    assert (out / "curves.png").exists()
    assert "Test accuracy" in capsys.readouterr().out


def test_consistency_training_resumes(
    tmp_path, planetoid, no_export, eagerly, monkeypatch
):
    """The same copies lack the same nodes, and the same epoch is chosen."""
    command = ["--data", planetoid, "--model", "gkat-consistency", *SMALL]
    command += ["--copies", "3", "--epochs", "5", "--out"]
    monkeypatch.setattr(Nodes, "seconds_between_checkpoints", 0.0)
    assert run(*command, tmp_path / "whole") == 0

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Nodes, "callbacks", lambda _: [Interrupt()])
        assert run(*command, tmp_path / "parts") == 130
    assert run(*command, tmp_path / "parts") == 0
    whole, parts = (
        json.loads((tmp_path / name / "metrics.json").read_text())
        for name in ("whole", "parts")
    )
    assert whole["epochs"] == parts["epochs"] == 5
    assert whole["recipe"]["copies"] == 3
    assert whole["epoch"] == parts["epoch"]
    models = [
        keras.saving.load_model(tmp_path / name / "model.keras")
        for name in ("whole", "parts")
    ]
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_large_graph(tmp_path, no_export, eagerly):
    """Smaller here: a mask known by its products, walks drawn again."""
    command = ["--data", "beacons", "--nodes", "300", "--epochs", "3"]
    for model, more in (
        ("gkat-diffusion", ["--kernel-sizes", "1", "4"]),
        ("gkat-features", ["--resample", "1", "--kernel-sizes", "5"]),
    ):
        out = tmp_path / model
        model = ["--model", model, *more, "--out", str(out)]
        assert run(*command, *model) == 0
        summary = json.loads((out / "metrics.json").read_text())
        assert summary["epochs"] == 3


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_learns_from_two_nodes(tmp_path, planetoid):
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--out", str(out), *SMALL]
    command += ["--epochs", "60", "--dropout", "0", "--attention-dropout", "0"]
    # By its former name, which older cards have.
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
    with pytest.raises(ValueError, match="expects a built keras.Model"):
        export_node_saved_model(print, tmp_path / "1", np.eye(12))
    softmax = keras.Sequential(
        [keras.Input((None, 12)), keras.layers.Dense(2, activation="softmax")]
    )
    report = export_node_saved_model(
        softmax, tmp_path / "1", np.eye(12), verify=False
    )
    outputs = report["signatures"]["serving_default"]["outputs"]
    assert set(outputs) == {"probabilities"}


@pytest.mark.slow
def test_seeds_resume(tmp_path, planetoid, no_export, eagerly):
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--out", str(out), *SMALL]
    assert run(*command, "--seeds", "2") == 0
    first = (out / "runs.jsonl").read_text()
    # One more seed: the two that are there are not run again.
    assert run(*command, "--seeds", "3") == 0
    lines = (out / "runs.jsonl").read_text()
    assert lines.startswith(first)
    assert [json.loads(x)["seed"] for x in lines.splitlines()] == [0, 1, 2]
    assert json.loads((out / "metrics.json").read_text())["runs"] == 3


def test_a_table_of_another_split_is_another(tmp_path, planetoid, monkeypatch):
    asked = []

    def train_once(settings, fold, parts, best):
        asked.append(settings.model)
        scores = {f"{part}_accuracy": 0.5 for part in parts}
        return {**scores, "parameters": 1}

    monkeypatch.setattr(assessment, "train_once", train_once)
    command = ["--data", str(planetoid), "--out", tmp_path / "run", *SMALL]
    command += ["--compare", "model=gcn,sgc"]
    for _ in range(2):
        assert run(*command) == 0
    assert asked == ["gcn", "sgc"]
    with np.load(planetoid) as arrays:
        content = dict(arrays)
    content["test_idx"] = content["test_idx"][1:]
    np.savez(planetoid, **content)
    load_nodes.cache_clear()
    assert run(*command) == 0
    assert asked == ["gcn", "sgc"] * 2


def test_choices_are_made_on_validation_nodes(tmp_path, planetoid, monkeypatch):
    """Of the split of the data, and candidates see no test nodes."""
    asked = []

    def train_once(settings, fold, parts, best):
        asked.append((settings.dropout, settings.seed, tuple(parts)))
        score = 0.9 if settings.dropout == 0.2 else 0.5
        scores = {f"{part}_accuracy": score for part in parts}
        return {**scores, "parameters": 1}

    monkeypatch.setattr(assessment, "train_once", train_once)
    command = ["--data", str(planetoid), "--out", tmp_path / "run", *SMALL]
    command += ["--model", "gcn", "--select", "dropout=0.1,0.2,0.3"]
    assert run(*command, "--seeds", "2") == 0
    chosen = [(rate, 0, ("validation",)) for rate in (0.1, 0.2, 0.3)]
    final = [(0.2, seed, ("validation", "test")) for seed in (0, 1)]
    assert asked == chosen + final
    page = (tmp_path / "run" / "folds.md").read_text()
    assert "Chosen on validation items: dropout of 0.1, 0.2, 0.3; the" in page
    assert "| 0 | dropout 0.2 | 2 | 90.00% |" in page


def test_a_choice_is_trained_once(tmp_path, planetoid, eagerly):
    """The final run of its seed has the weights of the candidate."""
    command = ["--data", str(planetoid), "--out", tmp_path / "run", *SMALL]
    command += ["--model", "gcn", "--select", "dropout=0.1,0.2"]
    assert run(*command, "--seeds", "2") == 0
    lines = (tmp_path / "run" / "runs.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    assert [x["kind"] for x in lines] == ["choice"] * 2 + ["final"] * 2
    candidates, finals = lines[:2], lines[2:]
    assert all("test_accuracy" not in line for line in candidates)
    assert finals[0]["trained_as"] == "choice"
    assert "trained_as" not in finals[1]
    (candidate,) = [c for c in candidates if c["choice"] == finals[0]["choice"]]
    for name in ("validation_accuracy", "best_epoch"):
        assert finals[0][name] == candidate[name]


@pytest.mark.slow
def test_a_seed_that_fails_is_told(
    tmp_path, planetoid, no_export, eagerly, monkeypatch, capsys
):
    fit = assessment.fit_stages

    def failing(task, model, *rest, **options):
        if task.settings.seed == 1:
            raise NonFiniteLoss("the training loss became nan")
        return fit(task, model, *rest, **options)

    monkeypatch.setattr(assessment, "fit_stages", failing)
    out = tmp_path / "run"
    command = ["--data", str(planetoid), "--out", str(out), *SMALL]
    for seeds in ("2", "3"):
        assert run(*command, "--seeds", seeds) == 0
        summary = json.loads((out / "metrics.json").read_text())
        assert summary["failed"] == {"1": "the training loss became nan"}
        lines = (out / "runs.jsonl").read_text().splitlines()
        seconds = [json.loads(x)["training_seconds"] for x in lines]
        assert summary["training_seconds"] == pytest.approx(sum(seconds))
        assert "1 of them failed and count as 0: seed 1, the" in (
            capsys.readouterr().out
        )


def test_karate():
    data = load_karate()
    assert data.graph.num_nodes == 34 and data.graph.num_edges == 78
    assert data.graph.node_targets[data.train].tolist() == [0, 1]
    assert len(data.test) == 32


def test_features_of_files_are_divided_by_their_sum(planetoid):
    with np.load(planetoid) as arrays:
        content = dict(arrays)
    content["x_data"] = np.arange(12, dtype="float32")
    content["x_indices"] = np.arange(12, dtype="int32") // 2
    np.savez(planetoid, **content)
    data = load_nodes(str(planetoid))
    assert data.is_scaled
    assert set(data.dataset.graph.features.sum(1)) == {0.0, 1.0}
    assert data.raw_features.sum() == 66
    assert not load_nodes("karate").is_scaled


def test_several_kernels(planetoid):
    settings = settings_of(
        *("--data", str(planetoid), "--model", "gkat-propagation"),
        *("--kernel-sizes", "0.1", "0.4", "--kernel-top", "12"),
    ).filled()
    graph = load_nodes(settings.data).dataset.graph
    kernel = make_kernel(graph.adjacency, settings)
    np.testing.assert_allclose(
        kernel["pair_values"].reshape(2, 12, 12),
        pagerank_kernel(graph.adjacency, [0.1, 0.4]),
        rtol=1e-5,
    )
    # A head for each of them.
    model = build_classifier(settings, 12, 2, kernel)
    logits = model.get_layer("logits")
    assert logits.num_heads == 2
    # Scores start at zero and are held there: two losses besides the L2.
    assert not np.any(logits.query_scores) and not np.any(logits.key_scores)
    assert len(model.losses) == 3


def test_the_nodes_of_a_split(planetoid):
    """Trained on are training nodes, and nothing else."""
    task = Nodes(NodeSettings(data=str(planetoid)))
    graph = task.data.dataset.graph
    for batches, ids in (
        (task.training_data(0), [0, 11]),
        (task.validation_data(), [1, 10]),
    ):
        x, y, weights = batches[0]
        assert np.flatnonzero(weights[0]).tolist() == ids
        np.testing.assert_array_equal(y[0], graph.node_targets)
    split = {"train": [3, 4], "validation": [5], "test": [6]}
    task = Nodes(NodeSettings(data=str(planetoid)), split)
    assert np.flatnonzero(task.training_data(0)[0][2][0]).tolist() == [3, 4]
    assert Nodes.labels(task.settings).tolist() == [0] * 6 + [1] * 6


def test_what_a_model_is_filled_with():
    found = settings_of("--model", "gcn", "--dropout", "0.1").filled()
    assert (found.key_dim, found.dropout, found.kernel_sizes) == (16, 0.1, (3,))
    assert settings_of("--model", "gkat").filled().input_dropout == 0.6
    found = settings_of("--model", "gkat", "--dropout", "0.2").filled()
    assert (found.input_dropout, found.feature_dropout) == (0.2, 0)
    found = settings_of("--model", "gkat-consistency").filled()
    assert (found.similarity, found.input_dropout) == ("constant", 0)
    assert (found.copies, found.consistency, found.node_dropout) == (4, 1, 0.5)
    found = settings_of("--kernel", "pagerank").filled()
    assert (found.model, found.kernel_sizes) == ("gkat", (0.1,))
    assert settings_of("--variant", "beacons").filled().depth == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--similarity", "nothing"], "`similarity`"),
        (["--kernel-sizes", "2", "3", "4"], "`"),  # for eight heads
        (["--kernel-sizes", "2.5"], "whole numbers"),
        (["--kernel", "pagerank", "--halt", "0.3"], "`halt` expects"),
        (["--kernel", "pagerank", "--kernel-sizes", "2"], "probabilities"),
        (["--model", "gkat-walks", "--kernel-sizes", "2", "4"], "one number"),
        (["--model", "gkat-diffusion", "--resample", "2"], "`resample`"),
        (["--model", "gkat-features", "--kernel-sizes", "2.5"], "whole"),
        (["--data", "nowhere.npz"], "does not exist"),
    ],
)
def test_what_is_refused(tmp_path, planetoid, capsys, wrong, message):
    command = ["--data", planetoid, "--out", tmp_path / "run"]
    assert run(*command, *wrong) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "run").exists()
