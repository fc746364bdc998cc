"""`python -m training.pooled`: scikit-learn's classifiers through folds."""

import json
import zipfile

import numpy as np
import pytest

from keras_topo.graphs import GraphPreprocessor, pooled_features
from keras_topo.training import pooled
from keras_topo.training.folds import draw_folds
from keras_topo.training.graph_data import load_graphs

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture(autouse=True)
def few_choices(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))
    choices = ({"classifier": "svm", "C": 10.0}, {"classifier": "forest"})
    monkeypatch.setattr(pooled, "CLASSIFIERS", choices)
    forest = pooled.RandomForestClassifier
    monkeypatch.setattr(
        pooled, "RandomForestClassifier", lambda _, **k: forest(5, **k)
    )


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


def read(out):
    lines = (out / "runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_folds(archive, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), "--splits", "4"]
    assert pooled.main([*command, "--folds", "0"]) == 0
    lines = read(out)
    # Two classifiers on two kinds of features, and the best of them.
    assert [line["kind"] for line in lines] == ["choice"] * 4 + ["final"]
    assert all("test_accuracy" not in line for line in lines[:4])
    scores = [line["validation_accuracy"] for line in lines[:4]]
    assert lines[4]["choice"] == lines[int(np.argmax(scores))]["choice"]
    assert pooled.main(command) == 0
    assert read(out)[:5] == lines  # Not repeated.
    summary = json.loads((out / "folds.json").read_text())
    (result,) = summary["results"]
    finals = [line for line in read(out) if line["kind"] == "final"]
    assert result["folds"] == 4
    assert result["mean"] == pytest.approx(
        np.mean([line["test_accuracy"] for line in finals])
    )
    # Degrees tell a chord; without structure there is the size alone.
    assert result["mean"] == 1.0
    assert {line["choice"]["features"] for line in finals} == {"all"}
    text = (out / "folds.md").read_text()
    assert "features of own, all; classifier of svm 10.0, forest" in text
    # Other features are another run.
    assert pooled.main([*command, "--features", "own"]) == 2
    assert "features (then" in capsys.readouterr().err


def test_a_run_is_what_it_says(archive, tmp_path):
    """Trained on the training graphs of its fold, scored on its test graphs."""
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), "--splits", "4"]
    assert pooled.main([*command, "--features", "own", "--folds", "2"]) == 0
    final = read(out)[-1]
    dataset, _, _ = load_graphs(str(archive))
    fold = draw_folds(dataset.labels, 4)[2]
    train = [dataset.graphs[i] for i in fold["train"]]
    preprocessor = GraphPreprocessor(degrees=False, return_steps=0).adapt(train)
    x, y = pooled_features(dataset.graphs, preprocessor), dataset.labels
    classifier = pooled.make_classifier(final["choice"], 0)
    classifier.fit(x[fold["train"]], y[fold["train"]])
    right = classifier.predict(x[fold["test"]]) == y[fold["test"]]
    assert final["test_accuracy"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--data", "none"], "--data expects one of"),
        (["--folds", "9"], "--folds expects numbers from 0 to 3"),
        (["--splits", "30"], "expects at least 30 items of each class"),
    ],
)
def test_what_is_refused(archive, tmp_path, capsys, wrong, message):
    out = tmp_path / "run"
    command = ["--data", str(archive), "--out", str(out), "--splits", "4"]
    assert pooled.main([*command, *wrong]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
