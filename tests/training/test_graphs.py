"""`python -m training.train graphs`: runs, resumes, folds, what it refuses."""

import dataclasses
import json
import zipfile

import keras
import numpy as np
import pytest

import keras_topo
from keras_topo.training import (
    assessment,
    fitting,
    graph_files,
    graph_settings,
    graphs,
    options,
    train,
)
from keras_topo.training.fitting import count_parameters
from keras_topo.training.folds import draw_split
from keras_topo.training.graph_data import GENERATED, load_graphs
from keras_topo.training.graph_settings import MODELS
from keras_topo.training.tasks.graphs import Graphs, GraphSettings

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture
def no_export(monkeypatch):
    """Where something else is tested: an export takes seconds."""
    monkeypatch.setattr(graph_files, "export", lambda *_: None)


def run(*arguments):
    return train.main(["graphs", *map(str, arguments)])


SMALL = ["--depth", "1", "--heads", "4", "--key-dim", "4", "--epochs", "2"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path)


def write_archive(folder, called="CHORDS", labels=False):
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
    if labels:
        files["node_labels"] = [str(k % 3) for k in range(first - 1)]
    path = folder / f"{called}.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for name, lines in files.items():
            zipped.writestr(f"{called}/{called}_{name}.txt", "\n".join(lines))
    return path


@pytest.mark.few("sgc", "gin")
@pytest.mark.parametrize("model", MODELS)
def test_trains_and_saves(tmp_path, archive, model, capsys, no_export, eagerly):
    out = tmp_path / "run"
    command = ["--data", archive, "--out", out, "--model", model, *SMALL]
    assert run(*command) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["epoch"] == 2 and summary["graphs"]["test"] == 4
    assert summary["class_names"] == ["1", "2"]
    assert (out / "curves.png").exists()
    # The preset has its preprocessor, and answers as the test did.
    estimator = keras_topo.GraphClassifier.from_preset(out)
    assert count_parameters(estimator.model) == summary["parameters"]
    assert estimator.classes == [1, 2]
    task = Graphs(GraphSettings(data=str(archive), model=model))
    right = estimator.predict(task.graphs["test"]) == task.classes["test"]
    assert right.mean() == summary["test_accuracy"]
    loaded = keras.saving.load_model(out / "model.keras")
    assert count_parameters(loaded) == summary["parameters"]
    text = capsys.readouterr().out
    assert "Test accuracy" in text and "model.keras" in text
    # Finished: nothing is trained again.
    assert run(*command) == 0
    assert "Nothing to train" in capsys.readouterr().out


@pytest.mark.usefixtures("in_this_process")
def test_leaves_a_saved_model_and_samples(tmp_path, archive, eagerly):
    out = tmp_path / "run"
    command = ["--data", archive, "--out", out, *SMALL, "--epochs", "1"]
    assert run(*command) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["export"]["class_names"] == ["1", "2"]
    assert (out / "saved_model" / "1" / "saved_model.pb").exists()
    assert len(list((out / "samples").glob("*/*.example"))) == 4


@pytest.mark.slow
def test_learns(tmp_path, archive, no_export):
    """A chord makes a triangle: walks that are back after three steps."""
    out = tmp_path / "run"
    # By the former name of the command, which older cards have.
    command = ["--data", str(archive), "--out", str(out), *SMALL]
    command += ["--epochs", "15", "--learning-rate", "0.03", "--seed", "1"]
    assert graphs.main(command) == 0
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["test_accuracy"] == 1.0


@pytest.mark.slow
def test_resumes(tmp_path, archive, monkeypatch, no_export, eagerly):
    """Stopped after an epoch and started again, it ends the same."""

    def losses(out):
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["val_loss"] for line in lines]

    command = ["--data", archive, *SMALL, "--epochs", "3"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*command, "--out", whole) == 0

    def interrupt(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    real = fitting.training_callbacks

    def stopping(*arguments):
        stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
        return [*real(*arguments), stop]

    monkeypatch.setattr(fitting, "training_callbacks", stopping)
    assert run(*command, "--out", parts) == 130
    assert len(losses(parts)) == 1
    monkeypatch.setattr(fitting, "training_callbacks", real)
    # Not on other data of the same name.
    content = archive.read_bytes()
    with zipfile.ZipFile(archive) as zipped:
        files = {n: zipped.read(n).decode() for n in zipped.namelist()}
    name = "CHORDS/CHORDS_graph_labels.txt"
    files[name] = files[name].replace("1", "3")
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text.replace("1, 2\n2, 1\n", "", 1))
    load_graphs.cache_clear()
    assert run(*command, "--out", parts) == 2
    archive.write_bytes(content)
    load_graphs.cache_clear()
    assert run(*command, "--out", parts) == 0
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-4)


def test_training_graphs_alone_are_trained_on(archive):
    """Neither weights nor statistics nor vocabularies know the others."""
    settings = GraphSettings(data=str(archive), degrees=True, seed=3)
    dataset, own, _ = Graphs.load(settings)
    assert own is None
    fold = {"train": [0, 1, 2, 3], "validation": [4, 5], "test": [6, 7]}
    for split in (None, fold):
        task = Graphs(settings, split)
        ids = split or draw_split(dataset.labels, seed=3)
        assert task.facts["graphs"] == {n: len(x) for n, x in ids.items()}
        for name, shuffle in (
            ("train", True),
            ("validation", False),
            ("test", False),
        ):
            graphs = [dataset.graphs[i] for i in ids[name]]
            labels = [dataset.labels[i] for i in ids[name]]
            assert task.classes[name].tolist() == labels
            sequence = task.sequence(name, shuffle)
            if not shuffle:
                # Small ones first: less padding.
                pairs = zip(graphs, labels, strict=True)
                pairs = sorted(pairs, key=lambda pair: pair[0].num_nodes)
                graphs, labels = map(list, zip(*pairs, strict=True))
            assert sequence.graphs == graphs
            expected = [task.dataset.classes.index(x) for x in labels]
            assert sequence.targets.values.ravel().tolist() == expected
        assert task.training_data(0) is task.sequence("train", True)
        assert task.validation_data() is task.sequence("validation")
        p = task.preprocessor
        features = np.concatenate(p.node_features(task.graphs["train"]))
        mean, variance = p.feature_statistics
        np.testing.assert_allclose(mean, features.mean(0), atol=1e-6)
        assert (np.array(variance) >= features.var(0) - 1e-6).all()
        most = max(
            np.diff(g.adjacency.indptr).max() for g in task.graphs["train"]
        )
        assert p.learned["max_degree"] == most


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
    splits = folds_file(tmp_path)
    command = ["--data", archive, "--out", out, *SMALL, "--splits", splits]
    command += ["--select", "kernel=ones,random_walk", "--seeds", "2"]
    command += ["--epochs", "1"]
    assert run(*command, "--folds", "0") == 0
    file = out / "runs.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    # Two to choose from, and two runs of what was chosen.
    assert [line["seed"] for line in lines] == [0, 0, 0, 1]
    assert [line["kind"] for line in lines] == ["choice"] * 2 + ["final"] * 2
    assert "test_accuracy" not in {*lines[0], *lines[1]}
    scores = [line["validation_accuracy"] for line in lines[:2]]
    best = lines[int(np.argmax(scores))]["choice"]
    finals = lines[2:]
    assert [line["choice"] for line in finals] == [best] * 2
    summary = json.loads((out / "folds.json").read_text())
    (result,) = summary["results"]
    expected = np.mean([line["test_accuracy"] for line in finals])
    assert result["mean"] == pytest.approx(expected)
    assert result["folds"] == 1
    text = (out / "folds.md").read_text()
    assert f": {100 * expected:.2f}" in text and "kernel of ones, rand" in text
    # How many final runs is no argument of a run.
    assert run(*command[:-1], "1", "--folds", "0") == 0
    assert len(file.read_text().splitlines()) == 4
    # The final run of the first seed is that of the candidate, not trained
    # again; and it is what it would be if it were.
    chosen = lines[int(np.argmax(scores))]
    reused = finals[0]
    assert reused["trained_as"] == "choice" and "trained_as" not in finals[1]
    for name in ("validation_accuracy", "validation_loss", "best_epoch"):
        assert reused[name] == chosen[name]
    kept = [line for line in lines if line is not reused]
    file.write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert run(*command, "--folds", "0") == 0
    again = json.loads(file.read_text().splitlines()[-1])
    assert "trained_as" not in again and again["seed"] == 0
    for name in ("validation_loss", "test_loss", "test_accuracy"):
        assert again[name] == pytest.approx(reused[name], abs=1e-6)
    # Other arguments, or other folds, are another run.
    assert run(*command, "--folds", "0", "--dropout", "0.5") == 2
    assert "dropout (then 0.1, now 0.5)" in capsys.readouterr().err
    content = json.loads(splits.read_text())
    splits.write_text(json.dumps({"folds": content["folds"][::-1]}))
    assert run(*command, "--folds", "0") == 2
    assert "splits (then" in capsys.readouterr().err


def test_the_epoch_is_chosen_in_each_fold(tmp_path, archive, eagerly):
    """On validation graphs, of candidates and of final runs alike."""
    out = tmp_path / "run"
    command = ["--data", archive, "--out", out, *SMALL, "--epochs", "3"]
    command += ["--splits", folds_file(tmp_path), "--folds", "1"]
    command += ["--choose-epoch", "validation", "--seeds", "1"]
    # What diverges later is not what counts.
    command += ["--learning-rate", "0.2", "--warmup-epochs", "0"]
    assert run(*command, "--select", "depth=1,2") == 0
    lines = (out / "runs.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    _, _, parsed = options.parse(["graphs", *map(str, command)])
    for line in lines:
        settings = dataclasses.replace(
            parsed,
            **line["choice"],
            seed=line["seed"],
            choose_epoch="last",
        )
        fold = json.loads((tmp_path / "folds.json").read_text())["folds"][1]
        task = Graphs(settings, fold)
        model = fitting.build_model(task)
        history = []

        def note(epoch, logs, history=history):
            history.append((-logs["val_accuracy"], logs["val_loss"], epoch))

        task.callbacks = lambda task=task, note=note: [
            *Graphs.callbacks(task),
            keras.callbacks.LambdaCallback(on_epoch_end=note),
        ]
        fitting.fit_stages(task, model, False, verbose=0)
        accuracy, loss, epoch = min(history)
        assert line["best_epoch"] == epoch + 1
        assert line["validation_accuracy"] == pytest.approx(-accuracy)
        assert line["validation_loss"] == pytest.approx(loss, rel=1e-4)
    text = (out / "folds.md").read_text()
    assert "depth of 1, 2; the epoch of each run, up to 3" in text


OPTIONS = {
    "labeled": ["--kernel", "labeled_walk"],
    "mixed": ["--kernel", "steps+labeled_walk+ones"],
    "learned": ["--learned-kernel", "True", "--kernel-sizes", "2", "3", "5"],
    "local": ["--local", "True", "--kernel", "ones"],
    "local-gates": ["--local", "True", "--edge-gates", "True"],
    "features": ["--degree-profile", "--clustering", "--degrees", "False"],
    "pairs": ["--form", "pairs", "--similarity", "relu", "--local", "True"],
    "factors": [
        *("--form", "factors", "--similarity", "relu", "--anchors", "2"),
        *("--local", "True"),
    ],
    "factors-of-ones": ["--form", "factors", "--kernel", "ones"],
    "mixed-pairs": [
        *("--form", "pairs", "--kernel", "steps+labeled_walk"),
        *("--pairs-per-node", "3"),
    ],
}


@pytest.mark.few("mixed", "mixed-pairs")
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_family(tmp_path, archive, name, no_export, eagerly):
    """Each trains, and its preset answers as the test did."""
    out = tmp_path / "run"
    command = ["--data", archive, "--out", out, *SMALL, *OPTIONS[name]]
    assert run(*command) == 0
    summary = json.loads((out / "metrics.json").read_text())
    estimator = keras_topo.GraphClassifier.from_preset(out)
    _, _, settings = options.parse(["graphs", *map(str, command)])
    task = Graphs(settings)
    right = estimator.predict(task.graphs["test"]) == task.classes["test"]
    assert right.mean() == summary["test_accuracy"]
    layers = {layer.name for layer in estimator.model._flatten_layers()}
    assert ("kernel_mixture" in layers) == (
        name in ("mixed", "learned", "mixed-pairs")
    )
    assert ("messages_1" in layers) == ("--local" in command)
    assert ("edge_gates" in layers) == (name == "local-gates")


@pytest.mark.slow
def test_the_family_for_all_data(tmp_path, archive, eagerly):
    """Its variant with choices of kernels, through folds and with labels."""
    labeled = write_archive(tmp_path, "LABELED", labels=True)
    command = ["--variant", "gkat", "--splits", "3", "--folds", "0"]
    command += ["--epochs", "1", "--seeds", "1", "--depth", "1"]
    command += ["--select", "kernel=ones,steps+labeled_walk"]
    for k, data in enumerate((archive, labeled)):
        out = tmp_path / f"run{k}"
        assert run("--data", data, "--out", out, *command) == 0
        lines = (out / "runs.jsonl").read_text().splitlines()
        assert len(lines) == 3


def test_each_run_has_its_fold_choice_and_seed(tmp_path, archive, monkeypatch):
    """And none of the training graphs is among the test graphs."""
    asked = []

    def train_once(settings, fold, parts, best):
        asked.append((settings, fold))
        score = {1: 0.2, 2: 0.9}[settings.depth]
        scores = {"validation": score, "test": 1 - score}
        found = {f"{part}_accuracy": scores[part] for part in parts}
        return {**found, "parameters": 1}

    monkeypatch.setattr(assessment, "train_once", train_once)
    splits = folds_file(tmp_path)
    command = ["--data", archive, "--out", tmp_path / "run", *SMALL]
    command += ["--splits", splits, "--select", "depth=1,2", "--seeds", "2"]
    assert run(*command, "--folds", "2", "3") == 0
    found = [(settings.depth, settings.seed) for settings, _ in asked]
    assert found == [(1, 0), (2, 0), (2, 0), (2, 1)] * 2
    folds = json.loads(splits.read_text())["folds"]
    for (_, fold), k in zip(asked, [2] * 4 + [3] * 4, strict=True):
        assert {n: ids.tolist() for n, ids in fold.items()} == folds[k]
        assert not set(fold["train"]) & set(fold["test"])
    summary = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert summary["results"][0]["mean"] == pytest.approx(0.1)


def test_compared_kernels_have_one_form(tmp_path, archive, monkeypatch):
    """In all cells, candidates and folds, whatever training graphs are."""
    nodes = [graph.num_nodes for graph in load_graphs(str(archive))[0].graphs]
    small, large = np.flatnonzero(np.array(nodes) < 7), np.argmax(nodes)
    assert max(nodes) == 7
    folds = [
        {"train": small[2:], "validation": small[:1], "test": [large]},
        {"train": [*small[2:], large], "validation": small[:1], "test": [1]},
    ]
    asked = []
    monkeypatch.setattr(assessment, "build_model", asked.append)
    monkeypatch.setattr(
        assessment, "chosen_folds", lambda *_: dict(enumerate(folds))
    )
    monkeypatch.setattr(assessment, "splits_digest", str)

    def prepared(*command):
        command = ["--data", archive, "--splits", "x", "--out", "-", *command]
        _, run, settings = options.parse(["graphs", *map(str, command)])
        job = assessment.Assessment(run, settings)
        asked.clear()
        facts = job.prepare()
        found = {task.preprocessor.form for task in asked}
        for _, settings, *_ in job.cells:
            for fold in folds:
                found.add(Graphs(settings, fold).preprocessor.form)
        (form,) = found
        return form, facts, [cell[3] for cell in job.cells]

    kernels = "kernel=ones,random_walk"
    # The preprocessor decides for small graphs, as it did for earlier runs.
    form, facts, cells = prepared("--compare", kernels)
    assert form == "dense" and not any("form" in each for each in cells)
    assert "form" not in prepared("--select", kernels)[1]
    monkeypatch.setattr(graph_settings, "DENSE_NODES", 6)
    form, facts, cells = prepared("--compare", kernels)
    assert form == "dense" and "form" not in facts
    assert [each["form"] for each in cells] == ["dense", "dense"]
    form, facts, _ = prepared("--select", kernels)
    assert form == facts["form"] == "dense"
    command = ("--compare", "model=gkat,gin", "--select", "local=True,False")
    assert prepared(*command)[0] == "pairs"
    # Alone it is that of all graphs, not that of the training graphs.
    settings = GraphSettings(data=str(archive))
    assert Graphs(settings, folds[0]).preprocessor.form == "pairs"
    # A form of one's own stays.
    command = ("--form", "dense", "--compare", "model=gkat,gin")
    assert prepared(*command)[0] == "dense"
    monkeypatch.setattr(graph_settings, "MOST_DENSE_NODES", 6)
    assert prepared("--select", "kernel=random_walk,steps")[0] == "pairs"
    with pytest.raises(ValueError, match="--form pairs without ones; .*to 7 n"):
        prepared("--compare", kernels)


def test_former_commands():
    command = ["--protocol", "folds", "--splits", "F.json", "--no-degrees"]
    command += ["--select", "depth=1,2", "--select", "dropout=0,0.2"]
    command += ["--final-runs", "1", "--data", "ENZYMES", "--data-dir", "D"]
    found = graphs.translated([*command, "--out", "a", "--folds", "0", "3"])
    _, run, settings = options.parse(found)
    assert run.select == ("depth=1,2", "dropout=0,0.2")
    assert (run.splits, run.folds, run.seeds) == ("F.json", (0, 3), 1)
    assert settings.degrees is False and settings.data == "ENZYMES"


def test_former_folds_without_splits_are_refused(capsys):
    with pytest.raises(SystemExit) as end:
        graphs.main(["--protocol", "folds", "--data", "ENZYMES", "--out", "a"])
    assert end.value.code == 2
    assert "--protocol folds expects --splits" in capsys.readouterr().err
    command = ["--protocol", "folds", "--splits=F.json"]
    assert graphs.translated(command) == ["graphs", "--splits=F.json"]
    assert graphs.translated(["--protocol", "split"]) == ["graphs"]


def test_a_data_set_that_is_not_there(tmp_path, archive, capsys):
    command = ["--data", "REDDIT-MULTI-5K", "--data-dir", tmp_path]
    assert run(*command, "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "REDDIT-MULTI-5K.zip or a folder REDDIT-MULTI-5K in" in said
    assert "graphkerneldatasets/REDDIT-MULTI-5K.zip" in said
    assert f"Received: {tmp_path}, which holds CHORDS" in said
    assert not (tmp_path / "run").exists()


FOLDS = ["--splits", "4"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--data", "nowhere.zip"], "--data expects"),
        (["--data", "NOPE", "--data-dir", "."], "--data NOPE expects"),
        (["--splits", "nowhere.json"], "--splits expects"),
        ([*FOLDS, "--select", "heads=2,3"], "`num_heads`"),
        ([*FOLDS, "--select", "pooling=mean,middle"], "'middle'"),
        ([*FOLDS, "--select", "depth"], "--select expects NAME=V1"),
        ([*FOLDS, "--select", "width=1"], "--select expects NAME=V1"),
        ([*FOLDS, "--select", "data=a,b"], "Received: data"),
        (
            [*FOLDS, "--select", "depth=1", "--select", "heads=4"],
            "more than once",
        ),
        ([*FOLDS, "--folds", "0", "9"], "--folds expects"),
        (["--splits", "30"], "at least 30 items of each class"),
        (["--kernel-sizes", "1.5"], "`kernel_sizes` of walks"),
        (["--freeze"], "--freeze expects --from"),
    ],
)
def test_what_is_refused(tmp_path, archive, capsys, wrong, message):
    command = ["--data", archive, "--out", tmp_path / "run", *SMALL]
    assert run(*command, *wrong) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused(tmp_path, archive, capsys):
    with zipfile.ZipFile(archive) as zipped:
        files = {n: zipped.read(n).decode() for n in zipped.namelist()}
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, text in files.items():
            if name.endswith("labels.txt"):
                text = text.replace("2", "1")
            zipped.writestr(name, text)
    assert run("--data", archive, "--out", tmp_path / "run") == 2
    assert "at least two classes" in capsys.readouterr().err


def test_generated_graphs_have_their_split():
    dataset, split, facts = load_graphs("motif-grid", None, 1, 8)
    assert len(dataset) == 2 * (8 + 3 + 3)
    assert dataset.classes == ["without motif", "with motif"]
    ids = np.concatenate(list(split.values()))
    assert ids.tolist() == list(range(len(dataset)))
    assert facts != load_graphs("motif-grid", None, 2, 8)[2]
    assert "motif-circular-ladder" in GENERATED and len(GENERATED) == 6


def test_numbers_to_predict_are_refused(tmp_path):
    files = {"A": "", "graph_indicator": "1\n", "graph_labels": "0.5\n"}
    for suffix, text in files.items():
        (tmp_path / f"TOY_{suffix}.txt").write_text(text)
    with pytest.raises(ValueError, match="--data expects.*class"):
        load_graphs("TOY", tmp_path)


@pytest.mark.slow
def test_fine_tuning(tmp_path, no_export, eagerly, capsys):
    """The kernel, the features and all but the last layer are the preset's."""
    archive = write_archive(tmp_path, labels=True)
    other = write_archive(tmp_path, "OTHER")
    given = ["--data", archive, "--epochs", "1", "--jit", "off"]
    first, fine = tmp_path / "first", tmp_path / "fine"
    shape = ["--depth", "1", "--heads", "2", "--key-dim", "4"]
    shape += ["--kernel-sizes", "1", "3", "--return-steps", "5"]
    assert run(*given, *shape, "--out", first) == 0
    more = ["--freeze", "--batch-size", "8", "--accumulate", "3"]
    assert run(*given, "--from", first, *more, "--out", fine) == 0
    before, after = map(keras_topo.from_preset, (first, fine))
    for old, new in zip(before.layers, after.layers, strict=True):
        for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
            if new.name != "logits":
                np.testing.assert_array_equal(a, b)
    summary = json.loads((fine / "metrics.json").read_text())
    assert summary["arguments"]["kernel_sizes"] == [1.0, 3.0]
    assert summary["arguments"]["return_steps"] == 5
    assert all(layer.trainable for layer in after.layers)
    # Frozen parameters are parameters; updates are those of the optimizer.
    assert summary["parameters"] == count_parameters(before)
    steps = -(-summary["graphs"]["train"] // 8)
    assert steps > summary["updates"] == steps // 3
    # Architecture, a split whose test graphs it knows, other features.
    capsys.readouterr()
    for wrong, message in (
        (["--depth", "2"], "has fixed. Received: --depth"),
        (["--seed", "1"], "may have been among its training graphs"),
    ):
        again = [*given, "--from", first, *wrong, "--out", tmp_path / "x"]
        assert run(*again) == 2
        assert message in capsys.readouterr().err
    # Other seeds have other splits: told before the first is trained.
    again = [*given, "--from", first, "--seeds", "2", "--out", tmp_path / "x"]
    for more in ([], ["--compare", "learning_rate=0.1,0.01"]):
        assert run(*again, *more) == 2
        assert not (tmp_path / "x").exists()
        error = capsys.readouterr().err
        assert error.startswith("error: --seeds 2: --from expects other data")
    assert run("--data", other, "--from", first, "--out", tmp_path / "x") == 2
    assert "graphs like its training graphs" in capsys.readouterr().err
    assert run("--from", tmp_path / "nowhere", "--out", tmp_path / "x") == 2
