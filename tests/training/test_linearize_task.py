"""`python -m training.train linearize`, end to end."""

import contextlib
import importlib
import io
import json

import keras
import numpy as np
import pytest

import keras_topo
from keras_topo.linearize.blocks import encoder_blocks, has_softmax
from keras_topo.training import fitting, options, report, train
from keras_topo.training.linearize_settings import LinearizeSettings
from keras_topo.training.tasks.images import Images
from keras_topo.training.tasks.linearize import load_data, updates_of

pytestmark = pytest.mark.tensorflow_only

DIGITS = ["--variant", "digits", "--limit", "48", "--batch-size", "16"]
# Of 9 of the teacher.
STAGES = ["--updates", "2", "4", "3", "--every", "2"]


@pytest.fixture(autouse=True, scope="module")
def small_model():
    module = importlib.import_module("keras_topo.models.topvit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.SIZES, "mini", (8, 2, 12, 1))
        # Where weights are tested: an export and pictures take seconds.
        patch.setattr(Images, "_export", lambda *_: {})
        patch.setattr(Images, "_draw", lambda *_: None)
        patch.setattr(report, "draw_curves", lambda *_, **options: None)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, eager_fixtures):
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    arguments = ["--attention", "softmax", "--epochs", "3", "--dropout", "0.1"]
    with eager_fixtures():
        assert run("images", *DIGITS, *arguments, out=folder) == 0
    return folder


def run(*arguments, out):
    return train.main([*map(str, arguments), "--out", str(out)])


def lines_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def linearize(teacher, out, *arguments):
    return run("linearize", "--from", teacher, *DIGITS, *arguments, out=out)


@pytest.fixture(scope="module")
def whole(teacher, tmp_path_factory, eager_fixtures):
    """A run that was not interrupted, and what it printed."""
    out = tmp_path_factory.mktemp("linear") / "whole"
    printed = io.StringIO()
    with eager_fixtures(), contextlib.redirect_stdout(printed):
        assert linearize(teacher, out, *STAGES) == 0
    return out, printed.getvalue()


def test_three_stages(teacher, whole, capsys):
    out, printed = whole
    assert "attention 2 (epochs 1 to 1), features 4 (epochs 2 to 3)" in printed
    assert "88.9% of the teacher's" in printed
    for stage in ("attention", "features", "labels"):
        assert f"Stage {stage}:" in printed
    lines = lines_of(out)
    # Of three updates in two epochs one is left over.
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert ["accuracy" in line for line in lines] == [False] + 4 * [True]

    summary = json.loads((out / "metrics.json").read_text())
    stages = summary["stages"]
    assert [(s["stage"], s["updates"]) for s in stages] == [
        ("linearized", 0),
        ("attention", 2),
        ("features", 4),
        ("labels", 2),
    ]
    for stage, line in zip(stages[1:], (lines[0], *lines[2::2]), strict=True):
        assert stage["validation_accuracy"] == line["val_accuracy"]
    assert summary["updates"] == 8
    assert summary["share_of_teacher_updates"] == pytest.approx(8 / 9)
    assert summary["task"] == "images" and summary["config"] == "linearize"
    found = json.loads((teacher / "metrics.json").read_text())
    assert summary["teacher"]["updates"] == found["updates"] == 9
    for part in ("validation", "test"):
        name = f"{part}_accuracy"
        assert summary["teacher"][name] == pytest.approx(found[name])
    assert not (out / "checkpoint").exists()

    student = keras_topo.from_preset(out)
    assert not any(map(has_softmax, encoder_blocks(student)))
    copy = keras.saving.load_model(out / "model.keras")
    for a, b in zip(student.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Again: nothing is left to do.
    assert linearize(teacher, out, *STAGES) == 0
    assert "Nothing to train" in capsys.readouterr().out


class Stop(keras.callbacks.Callback):
    """Interrupts a run at the start of an epoch, counted from 1."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch + 1 == self.epoch:
            raise KeyboardInterrupt


def test_interrupted_runs_end_like_others(
    teacher, whole, tmp_path, eagerly, monkeypatch
):
    """Within a stage, and between two of them."""
    whole, parts = whole[0], tmp_path / "parts"
    callbacks = fitting.training_callbacks
    for epoch in (3, 4):
        monkeypatch.setattr(
            fitting,
            "training_callbacks",
            lambda *args, epoch=epoch: [*callbacks(*args), Stop(epoch)],
        )
        assert linearize(teacher, parts, *STAGES) == 130
        assert len(lines_of(parts)) == epoch - 1
    monkeypatch.setattr(fitting, "training_callbacks", callbacks)
    assert linearize(teacher, parts, *STAGES) == 0
    found, expected = map(lines_of, (parts, whole))
    for a, b in zip(found, expected, strict=True):
        del a["seconds"], b["seconds"]
        assert a == pytest.approx(b, rel=1e-5)
    models = map(keras_topo.from_preset, (parts, whole))
    for a, b in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_file_and_some_stages(teacher, tmp_path, eagerly):
    """Without what it says of its training, updates are to be given."""
    file = tmp_path / "file" / "teacher.keras"
    file.parent.mkdir()
    file.write_bytes((teacher / "model.keras").read_bytes())
    assert linearize(file, tmp_path / "run", "--updates", 0, 1, 0) == 0
    summary = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [s["stage"] for s in summary["stages"]] == ["linearized", "features"]
    assert summary["teacher"]["updates"] is None
    assert "share_of_teacher_updates" not in summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--from"),
        (["--from", "no-such-folder"], "`name_or_path`"),
        (["--from", "gkat-mutag"], "--from expects an image model"),
        (["--from", "TEACHER", "--epochs", 3], "--budget or --updates"),
        (["--from", "TEACHER", "--budget", 0.01], "--budget expects"),
        (["--from", "TEACHER", "--updates", 0, 0, 0], "`updates`"),
        (["--from", "TEACHER", "--split", 0, 0, 0], "`split`"),
        (["--from", "TEACHER", "--teacher-weight", 2], "`teacher_weight`"),
        (["--from", "TEACHER", "--mask", "tables"], "`mask`"),
        (
            ["--from", "TEACHER", "--choose-epoch", "validation"],
            "`choose_epoch`",
        ),
        (
            ["--from", "TEACHER", "--feature-map", "elu", "--features", 2],
            "`features`",
        ),
        (["--from", "TEACHER", "--magnitude-aware"], "`magnitude_aware`"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_refused(arguments, message, teacher, tmp_path, capsys):
    arguments = [teacher if a == "TEACHER" else a for a in arguments]
    assert run("linearize", *DIGITS, *arguments, out=tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Received: " in error and not (tmp_path / "run").exists()


def test_other_classes(teacher, monkeypatch):
    settings = LinearizeSettings(preset=str(teacher), data="digits")
    module = importlib.import_module(load_data.__module__)
    monkeypatch.setattr(
        module, "read_preprocessor", lambda _: {"class_names": ["a", "b"]}
    )
    with pytest.raises(ValueError, match="--data expects.*Received"):
        load_data(settings, keras_topo.from_preset(teacher))


def test_a_teacher_without_softmax(teacher, tmp_path, eagerly, capsys):
    student = tmp_path / "student"
    assert linearize(teacher, student, "--updates", 1, 0, 0) == 0
    capsys.readouterr()
    assert linearize(student, tmp_path / "run", "--updates", 1, 0, 0) == 2
    assert "`model` expects" in capsys.readouterr().err


def test_budgets():
    settings = LinearizeSettings(split=(1.0, 0.0, 3.0))
    assert settings.updates_by_stage(5265) == {"attention": 132, "labels": 394}
    settings = LinearizeSettings(updates=(5, 6, 7))
    expected = {"attention": 5, "features": 6, "labels": 7}
    assert settings.updates_by_stage(None) == expected
    with pytest.raises(ValueError, match="--updates.*Received"):
        LinearizeSettings().updates_by_stage(None)
    assert updates_of({}) is None
    # Of version 0.1, which did not say.
    recorded = {
        "images": {"train": 45000},
        "arguments": {"batch_size": 128, "epochs": 15},
    }
    assert updates_of(recorded) == 5265


def test_options_of_a_model_are_none_here():
    argv = ["linearize", "--from", "runs/x", "--out", "-", "--patch-size", "2"]
    with pytest.raises(ValueError, match="patch-size"):
        options.parse(argv)
