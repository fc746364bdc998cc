"""`python -m training.graphs`: runs, resumes, folds, and what it refuses."""

import json
import zipfile

import keras
import numpy as np
import pytest

from keras_topo.graphs import Graph, node_features
from keras_topo.training import graphs
from keras_topo.training.graph_data import (
    GENERATED,
    FeatureRecipe,
    GraphBatches,
    load_graphs,
    stratified_split,
)

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture
def no_export(monkeypatch):
    """Where something else is tested: an export takes seconds."""
    import keras_topo

    monkeypatch.setattr(
        keras_topo,
        "export_graph_saved_model",
        lambda *args, **options: {"class_names": None},
        raising=False,
    )


SMALL = ["--depth", "1", "--heads", "4", "--key-dim", "4", "--epochs", "2"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def archive(tmp_path):
    """Cycles of four to seven nodes, with a chord (class 2) or without (1)."""
    random = np.random.default_rng(0)
    files = {"A": [], "graph_indicator": [], "graph_labels": []}
    first = 1
    for graph in range(40):
        n, label = int(random.integers(4, 8)), 1 + graph % 2
        nodes = list(range(first, first + n))
        edges = list(zip(nodes, nodes[1:] + nodes[:1], strict=True))
        if label == 2:
            edges.append((nodes[0], nodes[2]))
        files["A"] += [f"{a}, {b}\n{b}, {a}" for a, b in edges]
        files["graph_indicator"] += [str(graph + 1)] * n
        files["graph_labels"].append(str(label))
        first += n
    path = tmp_path / "CHORDS.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for name, lines in files.items():
            zipped.writestr(f"CHORDS/CHORDS_{name}.txt", "\n".join(lines))
    return path


@pytest.mark.parametrize("model", graphs.MODELS)
def test_trains_and_saves(tmp_path, archive, model, capsys, request):
    if model != "gkat":
        request.getfixturevalue("no_export")
        request.getfixturevalue("eagerly")
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), "--model", model]
    assert graphs.main([*command, *SMALL]) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["epoch"] == 2 and summary["graphs"]["test"] == 4
    assert (out / "curves.png").exists()
    loaded = keras.saving.load_model(out / "model.keras")
    assert loaded.count_params() == summary["parameters"]
    text = capsys.readouterr().out
    assert "Test accuracy" in text and "model.keras" in text
    # Finished: nothing is trained again.
    assert graphs.main([*command, *SMALL]) == 0
    assert "nothing to train" in capsys.readouterr().out


def test_learns(tmp_path, archive, no_export):
    """A chord makes a triangle: walks that are back after three steps."""
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), *SMALL]
    command += ["--epochs", "15", "--learning-rate", "0.03", "--seed", "1"]
    assert graphs.main(command) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["test_accuracy"] == 1.0


def test_resumes(tmp_path, archive, monkeypatch, no_export, eagerly):
    """Stopped after an epoch and started again, it ends the same."""

    def losses(out):
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["val_loss"] for line in lines]

    command = ["--data", str(archive), *SMALL, "--epochs", "3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert graphs.main([*command, "--out", str(whole)]) == 0

    real = graphs.training_callbacks

    def stopping(run, seed):
        stop = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: epoch == 1 and interrupt()
        )
        return [*real(run, seed), stop]

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(graphs, "training_callbacks", stopping)
    assert graphs.main([*command, "--out", str(parts)]) == 130
    assert len(losses(parts)) == 1
    monkeypatch.setattr(graphs, "training_callbacks", real)
    assert graphs.main([*command, "--out", str(parts)]) == 0
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-4)


def folds_file(tmp_path, count=40, folds=4):
    ids = np.random.default_rng(0).permutation(count)
    parts = np.array_split(ids, folds)
    content = []
    for k in range(folds):
        rest = np.concatenate([p for i, p in enumerate(parts) if i != k])
        content.append(
            {
                "test": parts[k].tolist(),
                "validation": rest[:5].tolist(),
                "train": rest[5:].tolist(),
            }
        )
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": content}))
    return path


def test_folds(tmp_path, archive, capsys, eagerly):
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), *SMALL]
    command += ["--protocol", "folds", "--splits", str(folds_file(tmp_path))]
    command += ["--select", "kernel=ones,random_walk", "--final-runs", "2"]
    assert graphs.main([*command, "--folds", "0"]) == 0
    # Test graphs are told about only where nothing is chosen any more.
    text = capsys.readouterr().out.splitlines()
    told = [line.split()[2] for line in text if line.startswith("fold 0")]
    assert told == ["choice", "choice", "final", "final"]
    for line in text:
        if line.startswith("fold 0"):
            assert (": validation " in line) and "%" in line
            assert (", test " in line) == (" final " in line)
    file = out / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    # Two to choose from, one of which is the first final run.
    assert [line["seed"] for line in lines] == [0, 0, 1]
    # The choice is the better one on validation graphs.
    scores = [line["validation_accuracy_last"] for line in lines[:2]]
    best = lines[int(np.argmax(scores))]["choice"]
    assert lines[2]["choice"] == best
    finals = [line for line in lines if line["choice"] == best]
    # Cut off in the last line, it repeats that run and goes on.
    text = file.read_text()
    file.write_text(text[:-20])
    assert graphs.main([*command, "--folds", "0"]) == 0
    again = [json.loads(line) for line in file.read_text().splitlines()]
    assert again[:2] == lines[:2] and len(again) == 3
    assert again[2]["test_accuracy_last"] == lines[2]["test_accuracy_last"]
    summary = json.loads((out / "folds.json").read_text())
    assert summary["folds"] == 1
    assert "| 0 |" in (out / "folds.md").read_text()
    expected = np.mean([line["test_accuracy_last"] for line in finals])
    assert summary["mean"] == pytest.approx(expected)
    mean = f"{100 * expected:.2f}%"
    text = capsys.readouterr().out
    assert f"Test accuracy {mean} over 1 fold (mean of 2 runs each)" in text
    assert f": {mean} of test" in (out / "folds.md").read_text()
    two = {"mean": 0.5, "deviation": 0.25, "folds": 2}
    assert graphs.format_mean(two, "+-") == "50.00 +- 25.00%"
    # A version before this one compared it.
    stored = json.loads((out / "arguments.json").read_text())
    (out / "arguments.json").write_text(json.dumps({**stored, "out": "a"}))
    # How many final runs is no argument of a run.
    command += ["--folds", "0", "--final-runs", "1"]
    assert graphs.main(command) == 0
    assert len(file.read_text().splitlines()) == 3
    summary = json.loads((out / "folds.json").read_text())
    assert summary["mean"] == finals[0]["test_accuracy_last"]
    # Other arguments are another run.
    assert graphs.main([*command, "--epochs", "3"]) == 2
    assert "epochs (then 2, now 3)" in capsys.readouterr().err


def test_wrong_choices_are_known_before_training(tmp_path, archive, capsys):
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), *SMALL]
    command += ["--protocol", "folds", "--splits", str(folds_file(tmp_path))]
    for wrong, message in (
        (["--select", "heads=2,3", "--kernel-sizes", "1", "2"], "`num_heads`"),
        (["--select", "pooling=mean,middle"], "'middle'"),
        (["--folds", "0", "9"], "--folds expects"),
    ):
        assert graphs.main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


ERRORS = {
    "data": (["--data", "nowhere.zip"], "--data expects"),
    "name": (["--data", "NOPE", "--data-dir", "."], "--data NOPE: "),
    "splits": (
        ["--protocol", "folds", "--splits", "nowhere.json"],
        "--splits",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(tmp_path, archive, name, capsys):
    arguments, message = ERRORS[name]
    command = ["--data", str(archive), *arguments]
    assert graphs.main([*command, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["depth", "width=1", "kernel_sizes=1"])
def test_wrong_choices(tmp_path, text, capsys):
    with pytest.raises(SystemExit):
        graphs.main(["--out", str(tmp_path), "--select", text])
    assert "--select expects" in capsys.readouterr().err


def test_wrong_folds(tmp_path, archive, capsys):
    splits = folds_file(tmp_path, count=39)
    command = ["--data", str(archive), "--protocol", "folds"]
    command += ["--splits", str(splits), "--out", str(tmp_path / "run")]
    assert graphs.main(command) == 2
    assert "each of the 40 graphs" in capsys.readouterr().err


def test_batches_hold_every_graph():
    dataset, split = load_graphs("motif-grid", seed=1)
    assert len(dataset) == 2 * (768 + 256 + 256)
    assert dataset.classes == ["without motif", "with motif"]
    ids = split[2][:50]
    kernels = [g.adjacency.toarray() for g in dataset.graphs]
    batches = GraphBatches(dataset.graphs, kernels, ids, 8, 2, seed=3)

    def seen(elements):
        found, labels = [], []
        for inputs, targets in elements:
            assert len(targets) <= 8
            found += np.asarray(inputs["nodes"]).sum((1, 2)).tolist()
            labels += np.asarray(targets).argmax(-1).tolist()
        return found, labels

    expected = sorted(dataset.graphs[i].features.sum() for i in ids)
    first, labels = seen(batches.epoch(0))
    assert sorted(first) == expected
    assert sorted(labels) == sorted(dataset.labels[ids])
    second, _ = seen(batches.epoch(1))
    assert sorted(second) == expected and second != first
    # The dataset is these epochs, one after the other, and can begin later.
    both = list(batches.dataset(epochs=2))
    assert len(both) == 2 * len(batches)
    assert seen(both)[0] == first + second
    assert seen(batches.dataset(1, 2))[0] == second


@pytest.fixture(scope="module")
def cycles():
    return load_graphs("cycles", seed=0)[0].graphs[:3]


@pytest.mark.parametrize("degrees", [None, 3])
def test_features_are_those_of_a_client(cycles, degrees):
    """What is trained on is what the served model makes of a graph."""
    graphs = [graph.with_features(None) for graph in cycles]
    recipe = FeatureRecipe(0, 0, degrees, 5)
    found = recipe(graphs)[2].features
    expected = node_features(graphs[2], 0, False, degrees, 5)
    np.testing.assert_array_equal(found, expected)


def test_features_by_the_values_of_labels():
    """The same vector for the same label, whatever else a graph has."""
    recipe = FeatureRecipe(3, 0, None, 2, [5, 7, 9])
    graph = Graph([[1.0]], node_labels=[9])
    assert recipe.own(graph).features.tolist() == [[0, 0, 1]]
    assert recipe([graph])[0].features.tolist() == [[0, 0, 1, 1, 1]]


def test_numbers_to_predict_are_refused(tmp_path):
    files = {"A": "", "graph_indicator": "1\n", "graph_labels": "0.5\n"}
    for suffix, text in files.items():
        (tmp_path / f"TOY_{suffix}.txt").write_text(text)
    with pytest.raises(ValueError, match="--data expects.*class"):
        load_graphs("TOY", tmp_path)


def test_split_is_stratified():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    parts = stratified_split(labels, 0)
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert [len(part) for part in parts] == [80, 10, 10]
    assert np.bincount(labels[parts[2]]).tolist() == [5, 3, 2]


def test_generated_names():
    assert "motif-circular-ladder" in GENERATED and len(GENERATED) == 6


def test_fine_tuning(tmp_path, archive, no_export, eagerly):
    """The kernel, the features and all but the last layer are the preset's."""
    options = ["--data", str(archive), "--epochs", "1", "--jit", "off"]
    first = tmp_path / "first"
    shape = ["--depth", "1", "--heads", "2", "--key-dim", "4"]
    shape += ["--kernel-sizes", "1", "3", "--return-steps", "5"]
    assert graphs.main([*options, *shape, "--out", str(first)]) == 0
    fine = ["--from", str(first), "--freeze", "--out", str(tmp_path / "fine")]
    assert graphs.main([*options, *fine]) == 0
    before, after = (
        keras.saving.load_model(folder / "model.keras").layers[-1]
        for folder in (first, tmp_path / "fine")
    )
    for old, new in zip(before.layers, after.layers, strict=True):
        for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
            if new.name != "logits":
                np.testing.assert_array_equal(a, b)
    summary = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    assert summary["arguments"]["kernel_sizes"] == [1.0, 3.0]
    assert summary["features"]["return_steps"] == 5
    whole = keras.saving.load_model(tmp_path / "fine" / "model.keras")
    assert all(layer.trainable for layer in whole.layers[-1].layers)
    # Architecture, abbreviated too, and a split whose test graphs it knows.
    for wrong in (["--depth", "2"], ["--dep", "2"], ["--seed", "1"]):
        other = ["--from", str(first), *wrong, "--out", str(tmp_path / "x")]
        with pytest.raises(SystemExit):
            graphs.main([*options, *other])
    wrong = ["--data", "motif-cycle", "--from", str(tmp_path / "nowhere")]
    with pytest.raises(SystemExit):
        graphs.main([*wrong, "--out", str(tmp_path / "x")])
