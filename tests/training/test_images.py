"""`python -m training.images` and `python -m training.demo`, end to end."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import answers_with

import keras_topo
from keras_topo.export import saved_models
from keras_topo.training import assessment, images, options, report
from keras_topo.training.fitting import count_parameters
from keras_topo.training.tasks.images import Images

pytestmark = pytest.mark.tensorflow_only

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["--limit", "320", "--batch-size", "16"]
# For a few steps.
TINY = ["--limit", "32", "--batch-size", "16", "--epochs", "1"]
# Of the model: tests are of what a script does with it.
SIZE = (16, 2, 16, 1)


@pytest.fixture(autouse=True, scope="module")
def small_model():
    module = importlib.import_module("keras_topo.models.topvit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.SIZES, "mini", SIZE)
        yield


@pytest.fixture
def no_export(monkeypatch):
    """Where weights are tested: an export and pictures take seconds."""
    monkeypatch.setattr(Images, "_export", lambda *_: {})
    monkeypatch.setattr(Images, "_draw", lambda *_: None)
    monkeypatch.setattr(report, "draw_curves", lambda *_, **options: None)


def start(*arguments):
    """Starts Python from the root of the repository, as a user does."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# `python -m training.images` of the small model, which stops for good in epoch
# 2.
STOPS = """
from training import startup
import runpy, sys, time
import keras
from keras_topo.models import topvit
from keras_topo.training import fitting

def stop(batch, logs):
    if epochs:
        time.sleep(600)

epochs = []
sys.modules[topvit.__module__].SIZES["mini"] = {size}
callbacks = fitting.training_callbacks
fitting.training_callbacks = lambda *args: [
    *callbacks(*args),
    keras.callbacks.LambdaCallback(
        on_train_batch_end=stop,
        on_epoch_end=lambda epoch, logs: epochs.append(epoch),
    ),
]
runpy.run_module("training.images", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    arguments = [*SMALL, "--epochs", "3", "--dropout", "0.1"]
    with pytest.MonkeyPatch.context() as patch:
        # A clean process takes seconds to start, and the demo is one, too.
        patch.setattr(
            saved_models,
            "answers_of_a_clean_process",
            answers_with(lambda _: None),
        )
        assert images.main([*arguments, "--out", str(folder)]) == 0
    return folder, arguments


def test_what_a_run_leaves(finished_run):
    folder, _ = finished_run
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["epoch"] == 3
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["images"] == {"train": 320, "validation": 143, "test": 320}
    assert summary["arguments"]["batch_size"] == 16
    assert summary["command"].startswith("python -m training.train images")
    assert summary["versions"]["keras"] == keras.__version__
    assert summary["training_seconds"] > 0

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    for picture in ("curves.png", "masks.png"):
        decoded = tf.io.decode_png((folder / picture).read_bytes())
        assert min(decoded.shape[:2]) > 200
    assert list((folder / "tensorboard").rglob("events*"))
    assert not (folder / "checkpoint").exists()

    model = keras.saving.load_model(folder / "model.keras")
    assert count_parameters(model) == summary["parameters"]
    served = tf.saved_model.load(str(folder / "saved_model" / "1"))
    pixels = np.full((2, 8, 8, 1), 100, "float32")
    np.testing.assert_allclose(
        served.signatures["serving_default"](images=tf.constant(pixels))[
            "logits"
        ],
        model.predict(pixels, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_finished_run_is_not_trained_again(finished_run, capsys):
    folder, arguments = finished_run
    before = (folder / "model.keras").stat().st_mtime_ns
    assert images.main([*arguments, "--out", str(folder)]) == 0
    assert "Nothing to train" in capsys.readouterr().out
    assert (folder / "model.keras").stat().st_mtime_ns == before


def test_a_run_of_other_arguments_is_refused(finished_run, capsys):
    folder, arguments = finished_run
    other = [*arguments, "--seed", "5", "--out", str(folder)]
    assert images.main(other) == 2
    error = capsys.readouterr().err
    assert "seed (then 0, now 5)" in error and "Received:" in error


@pytest.mark.slow
def test_killed_in_epoch_2_and_started_again(
    finished_run, tmp_path, capfd, no_export
):
    whole, arguments = finished_run
    folder = tmp_path / "killed"
    arguments = [*arguments, "--out", str(folder)]
    process = start("-c", STOPS.format(size=SIZE), *arguments)
    while not (folder / "checkpoint" / "00001.weights.h5").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate()
    assert err == ""
    assert not (folder / "metrics.json").exists()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1

    assert images.main(arguments) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "after epoch 1 of 3" in out
    # A line for each, where no terminal is.
    assert "epoch 1 of 3:" not in out
    assert "epoch 2 of 3:" in out and "epoch 3 of 3:" in out
    assert "\x1b" not in out

    def curves(run):
        return [
            json.loads(line)
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]

    for a, b in zip(curves(whole), curves(folder), strict=True):
        for name in ("epoch", "loss", "val_loss", "learning_rate"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), name


def test_the_demo_needs_tensorflow_only(finished_run):
    folder, _ = finished_run
    process = start("-m", "training.demo", folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    assert "Classified from encoded images, without keras_topo" in out
    assert "of 12 held-out examples correct" in out
    assert str(folder / "masks.png") in out


def test_the_demo_asks_for_a_finished_run(tmp_path, capfd):
    from keras_topo.training import demo

    assert demo.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capfd.readouterr().err


def write_folder(folder, corrupt=False):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (8, 12, 3)).astype("uint8")
            jpeg = tf.io.encode_jpeg(pixels).numpy()
            (folder / name / f"{i}.jpg").write_bytes(jpeg)
    if corrupt:
        (folder / "dog" / "3.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    return str(folder)


@pytest.mark.slow
def test_a_folder_of_images_without_a_mask(tmp_path, capsys):
    data = write_folder(tmp_path / "pets")
    out = tmp_path / "run"
    status = images.main(
        ["--data", data, "--out", str(out), "--epochs", "1"]
        + ["--attention", "softmax", "--batch-size", "4"]
    )
    assert status == 0
    assert "No plot of masks" in capsys.readouterr().out
    assert not (out / "masks.png").exists()
    assert {p.name for p in (out / "samples").iterdir()} == {"cat", "dog"}


def test_a_corrupt_image_stops_the_script(tmp_path, capsys):
    data = write_folder(tmp_path / "pets", corrupt=True)
    assert images.main(["--data", data, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert os.path.join("dog", "3.jpg") in error


def test_an_image_smaller_than_a_patch(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert images.main(["--patch-size", "16", "--out", out]) == 2
    assert "Received" in capsys.readouterr().err


def test_a_non_finite_loss_stops_with_epoch_and_step(tmp_path, capsys, eagerly):
    status = images.main(
        [*SMALL, "--epochs", "2", "--out", str(tmp_path / "run")]
        + ["--learning-rate", "1e30", "--clip-norm", "1e30"]
    )
    assert status == 1
    assert "in epoch 1, step " in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--epochs", "0"),
        ("--learning-rate", "nan"),
        ("--image-size", "8x"),
        ("--image-size", "1x2x3"),
        ("--dropout", "1"),
        ("--seed", "-1"),
    ],
)
def test_bad_flags(flag, value, capsys):
    assert images.main(["--out", "run", flag, value]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert flag in error or flag[2:].replace("-", "_") in error


def test_recipes_and_image_sizes():
    def parse(*arguments):
        return options.parse(images.translated(["--out", "run", *arguments]))[2]

    digits = parse()
    assert digits.dropout == 0.1 and digits.image_size is None
    assert digits.kind == "digits" and digits.epochs == 40
    assert digits.patch_size == (2,)
    cifar = parse("--data", "cifar10", "--image-size", "32x48")
    assert cifar.dropout == 0 and cifar.image_size == (32, 48)
    assert cifar.kind == "photos" and cifar.epochs == 30
    other = parse("--mixed-precision", "bfloat16", "--classes", "1,2")
    assert other.dtype_policy == "mixed_bfloat16"
    assert other.classes == ("1", "2")
    mask = parse("--mask", "keras_topo.masks:GaussianMask")
    assert mask.mask == "keras_topo.masks:GaussianMask"


def test_fine_tuning_and_publishing(finished_run, tmp_path, capsys):
    """From a run to a preset to other classes on another grid."""
    import keras_topo
    from keras_topo.training import publish

    run, _ = finished_run
    preset = tmp_path / "zoo" / "topvit-digits"
    arguments = [str(run), str(preset), "--title", "Digits", "--note", "Small."]
    assert publish.main(arguments) == 0
    card = (preset / "README.md").read_text()
    header, body = card.removeprefix("---\n").split("---\n", 1)
    assert "library_name: keras" in header
    assert "# Digits" in body and "Small." in body
    assert "`classify_bytes`" in body and "training.train images" in body
    metrics = json.loads((preset / "metrics.json").read_text())
    assert f"**{metrics['test_accuracy']:.2%}**" in body
    assert "path" not in metrics["export"]
    tf.saved_model.load(str(preset / "1"))

    random = np.random.default_rng(0)
    for label in ("dark", "bright", "medium"):
        (tmp_path / "data" / label).mkdir(parents=True)
        level = {"dark": 0, "medium": 100, "bright": 200}[label]
        for k in range(20):
            image = random.integers(level, level + 50, (12, 8, 1), "uint8")
            file = tmp_path / "data" / label / f"{k}.png"
            file.write_bytes(tf.io.encode_png(image).numpy())
    arguments = ["--data", str(tmp_path / "data"), "--from", str(preset)]
    arguments += ["--epochs", "1", "--batch-size", "8", "--freeze"]
    found = images.main([*arguments, "--out", str(tmp_path / "fine")])
    printed = capsys.readouterr()
    # The images have three channels, and the model takes one.
    assert found == 2
    assert "expects 1 channels" in printed.err

    model = keras_topo.from_preset(preset, 3, (12, 8))
    assert model(np.zeros((1, 12, 8, 1))).shape == (1, 3)


def test_fine_tuning_leaves_a_frozen_model_as_it_is(
    finished_run, tmp_path, no_export, eagerly
):
    run, _ = finished_run
    arguments = [*TINY, "--from", str(run), "--freeze"]
    arguments += ["--image-size", "12x8"]
    assert images.main([*arguments, "--out", str(tmp_path / "fine")]) == 0
    before = keras.saving.load_model(run / "model.keras")
    after = keras.saving.load_model(tmp_path / "fine" / "model.keras")
    assert after.input_shape == (None, 12, 8, 1)
    for old, new in zip(before.layers, after.layers, strict=True):
        for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
            assert np.array_equal(a, b) == (new.name != "logits")
    summary = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    assert summary["arguments"]["preset"] == str(run)
    # What the model was built with, and not what it might have been.
    before = json.loads((run / "metrics.json").read_text())["arguments"]
    for name in ("dropout", "stem", "patch_size"):
        assert summary["arguments"][name] == before[name]


def test_the_last_layer_stays_where_the_classes_do(
    finished_run, tmp_path, no_export, eagerly
):
    run, _ = finished_run
    arguments = [*TINY, "--from", str(run), "--zoom", "1.5"]
    arguments += ["--learning-rate", "1e-12", "--weight-decay", "0"]
    assert images.main([*arguments, "--out", str(tmp_path / "fine")]) == 0
    before, after = (
        keras.saving.load_model(folder / "model.keras")
        for folder in (run, tmp_path / "fine")
    )
    for a, b in zip(before.weights, after.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


@pytest.mark.slow
def test_sizes_make_one_model_of_all(finished_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Images, "_draw", lambda *_: None)
    run, _ = finished_run
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    arguments = [*TINY, "--from", str(run), "--sizes", "8", "12"]
    assert images.main([*arguments, "--out", str(tmp_path / "any")]) == 0
    summary = json.loads((tmp_path / "any" / "metrics.json").read_text())
    same = summary["test_accuracy"]
    assert summary["test_accuracy_at_8"] == pytest.approx(same)
    assert 0 <= summary["validation_accuracy_at_12"] <= 1
    model = keras_topo.from_preset(tmp_path / "any")
    served = tf.saved_model.load(str(tmp_path / "any" / "saved_model" / "1"))
    assert [*served.signatures] == ["serving_default"]
    for size in (8, 12, 20):
        x = np.random.default_rng(0).random((2, size, size, 1), "float32")
        answer = served.signatures["serving_default"](images=255 * x)
        np.testing.assert_allclose(
            answer["logits"], model(255 * x), rtol=1e-4, atol=1e-4
        )


def test_training_on_the_validation_images_too(
    tmp_path, no_export, eagerly, monkeypatch, capsys
):
    monkeypatch.setattr(Images, "_draw", lambda *_: None)
    out = tmp_path / "all"
    arguments = [*TINY, "--train-on-validation", "--seeds", "2"]
    plain = options.parse(images.translated([*TINY, "--out", "x"]))[-1]
    whole = dataclasses.replace(plain, train_on_validation=True)
    before, after = Images(plain), Images(whole)
    assert images.main([*arguments, "--out", str(out)]) == 0
    sizes = before.data.sizes()
    expected = sizes["train"] + sizes["validation"]
    summary = json.loads((out / "metrics.json").read_text())
    assert summary["images"] == {
        "train": expected,
        "validation": 0,
        "test": sizes["test"],
    }
    assert not [name for name in summary if name.startswith("validation")]
    assert summary["runs"] == 2 and 0 <= summary["test_accuracy"] <= 1
    remark = f"trained on the {sizes['validation']:,} validation images, too"
    assert summary["data_remarks"][-1] == remark and remark in (
        capsys.readouterr().out
    )
    for k in range(2):
        np.testing.assert_array_equal(
            after.data.train[k],
            np.concatenate([before.data.train[k], before.data.validation[k]]),
        )
        np.testing.assert_array_equal(after.data.test[k], before.data.test[k])
    assert after.steps_per_epoch > before.steps_per_epoch


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["--select", "dropout=0,0.1"], "choose on validation images"),
        (["--compare", "dropout=0,0.1"], "choose on validation images"),
        (["--compare", "train_on_validation=False,True"], "other than seed"),
    ],
)
def test_nothing_is_chosen_without_validation(choice, message, capfd, tmp_path):
    argv = TINY + choice + ["--out", str(tmp_path / "run")]
    if choice[1].startswith("dropout"):
        argv.append("--train-on-validation")
    assert images.main(argv) == 2
    assert message in capfd.readouterr().err


def test_a_training_starts_from_the_mean_of_several_models(
    finished_run, tmp_path, no_export, eagerly, capsys
):
    run, _ = finished_run
    model = keras_topo.from_preset(run)
    names = {"class_names": [str(k) for k in range(10)]}
    folders = [run]
    for k in (1, 4):
        model.set_weights([w + k for w in model.get_weights()])
        folders.append(tmp_path / f"plus {k}")
        keras_topo.save_preset(model, folders[-1], metrics=names)
    weights = [keras_topo.from_preset(f).get_weights() for f in folders]
    folders = [str(folder) for folder in folders]
    mean = [*TINY, "--from", folders[0], "--average-with", *folders[1:]]
    argv = images.translated([*mean, "--out", str(tmp_path / "mean")])
    start = Images(options.parse(argv)[-1]).build_model().get_weights()
    for values, found in zip(zip(*weights, strict=True), start, strict=True):
        np.testing.assert_allclose(found, np.mean(values, axis=0), rtol=1e-5)
    assert images.main([*mean, "--out", str(tmp_path / "mean")]) == 0
    used = json.loads((tmp_path / "mean" / "arguments.json").read_text())
    assert used["average_with"] == folders[1:]
    # The last layer is new where one model has other classes.
    model = keras_topo.from_preset(run)
    keras_topo.save_preset(
        model, tmp_path / "letters", metrics={"class_names": [*"abcdefghij"]}
    )
    other = [*argv]
    other[other.index(folders[1])] = str(tmp_path / "letters")
    keras.utils.set_random_seed(3)
    found = Images(options.parse(other)[-1]).build_model().get_weights()
    assert not np.allclose(found[-2], np.mean([w[-2] for w in weights], axis=0))
    np.testing.assert_allclose(
        found[0],
        np.mean([weights[0][0], weights[0][0], weights[2][0]], axis=0),
        rtol=1e-5,
    )
    # Another function of weights of the same shapes.
    elu = keras_topo.models.topvit(
        SIZE, 2, (8, 8, 1), num_classes=10, feature_map="elu", dropout=0.1
    )
    keras_topo.save_preset(elu, tmp_path / "elu", metrics=names)
    wrong = [*mean[:-1], str(tmp_path / "elu"), "--out", str(tmp_path / "x")]
    capsys.readouterr()
    assert images.main(wrong) == 2
    assert "their weights alone. Received: " in capsys.readouterr().err


def test_a_share_of_the_trained_weights_is_kept(
    finished_run, tmp_path, no_export, eagerly, monkeypatch
):
    run, _ = finished_run
    final, trained = Images.final_weights, []

    def spy(task, model, untrained):
        trained.append(model.get_weights())
        return final(task, model, untrained)

    monkeypatch.setattr(Images, "final_weights", spy)
    arguments = [*TINY, "--from", str(run), "--keep", "0.25"]
    assert images.main([*arguments, "--out", str(tmp_path / "mean")]) == 0
    start, mean = (
        keras.saving.load_model(folder / "model.keras").get_weights()
        for folder in (run, tmp_path / "mean")
    )
    assert any(np.any(a != b) for a, b in zip(start, trained[0], strict=True))
    for a, b, c in zip(start, trained[0], mean, strict=True):
        np.testing.assert_allclose(0.25 * a + 0.75 * b, c, atol=1e-6)
    # A new last layer has no weights from before.
    other = ["--classes", "1,2,7", "--out", str(tmp_path / "other")]
    assert images.main([*arguments, *other]) == 0
    mean = keras.saving.load_model(tmp_path / "other" / "model.keras")
    mean = mean.get_weights()
    for a, b, c in zip(start[:-2], trained[1][:-2], mean[:-2], strict=True):
        np.testing.assert_allclose(0.25 * a + 0.75 * b, c, atol=1e-6)
    for b, c in zip(trained[1][-2:], mean[-2:], strict=True):
        np.testing.assert_array_equal(b, c)


def test_a_share_is_kept_in_comparisons_too(finished_run, monkeypatch):
    run, _ = finished_run
    command = [*TINY, "--from", str(run), "--keep", "0.25", "--out", "-"]
    _, _, settings = options.parse(images.translated(command))
    start = keras.saving.load_model(run / "model.keras").get_weights()
    tested = []

    def fit(task, model, *arguments, **options):
        model.set_weights([w + 1 for w in model.get_weights()])
        return 1

    def evaluate(task, model, parts):
        tested.append(model.get_weights())
        return {f"{part}_accuracy": 0.5 for part in parts}

    monkeypatch.setattr(assessment, "fit_stages", fit)
    monkeypatch.setattr(Images, "evaluate", evaluate)
    # A candidate, and the final run that reuses its weights.
    best = assessment.BestCandidate()
    assessment.train_once(settings, None, ("validation",), best)
    found = assessment.train_once(settings, best=best)
    assert found["trained_as"] == "choice"
    for weights in tested:
        for a, b in zip(start, weights, strict=True):
            np.testing.assert_allclose(a + 0.75, b, atol=1e-5)
    assert len(tested) == 2


def test_gray_images_for_a_model_of_color_images(tmp_path, no_export, eagerly):
    """And of its size, where no other is asked for."""
    from keras_topo.models import topvit

    (tmp_path / "color").mkdir()
    model = topvit("mini", patch_size=4, image_shape=(12, 16, 3), num_classes=5)
    model.save(tmp_path / "color" / "model.keras")
    arguments = ["--batch-size", "16", "--epochs", "1", "--limit", "320"]
    arguments += ["--freeze", "--per-class", "8"]
    arguments += ["--classes", "1,2,7", "--from", str(tmp_path / "color")]
    assert images.main([*arguments, "--out", str(tmp_path / "fine")]) == 0
    fine = keras.saving.load_model(tmp_path / "fine" / "model.keras")
    assert fine.input_shape == (None, 12, 16, 3)
    assert fine.output_shape == (None, 3)
    summary = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    assert summary["images"]["train"] == 24
    assert summary["class_names"] == ["1", "2", "7"]
    assert any("gray" in remark for remark in summary["data_remarks"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--freeze"],
        ["--zoom", "0.5"],
        ["--zoom", "1.5", "--no-augment"],
        ["--keep", "0.5"],
        ["--from", "nowhere"],
        ["--from", "{run}", "--model", "Ti"],
        ["--from", "{run}", "--mask=none"],
    ],
)
def test_fine_tuning_arguments(finished_run, tmp_path, arguments, capsys):
    run, _ = finished_run
    arguments = [text.format(run=run) for text in arguments]
    assert images.main([*arguments, "--out", str(tmp_path / "fine")]) == 2
    assert "Received: " in capsys.readouterr().err


def test_only_finished_runs_are_published(tmp_path, capsys):
    from keras_topo.training import publish

    (tmp_path / "run").mkdir()
    found = publish.main([str(tmp_path / "run"), str(tmp_path / "zoo")])
    assert found == 2
    assert "finished run" in capsys.readouterr().err
