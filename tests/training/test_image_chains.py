"""Image models that are trained in parts, averaged, resized and published."""

import json

import numpy as np
import pytest
import tensorflow as tf
from export_models import answers_with

import keras_topo
from keras_topo.export import saved_models
from keras_topo.presets import read_preprocessor
from keras_topo.training import demo, images, model_card, options, publish
from keras_topo.training import report as reports
from keras_topo.training.fine_tuning import refuse_known_validation
from keras_topo.training.tasks.images import Images

pytestmark = pytest.mark.tensorflow_only

NAMES = [str(k) for k in range(10)]
# For a few steps.
TINY = ["--limit", "32", "--batch-size", "16", "--epochs", "1"]


@pytest.fixture(autouse=True)
def without_export(monkeypatch):
    monkeypatch.setattr(Images, "_export", lambda *_: {})
    monkeypatch.setattr(Images, "_draw", lambda *_: None)
    monkeypatch.setattr(reports, "draw_curves", lambda *_, **options: None)


def preset(folder, shape=(8, 8, 1), stem="residual", described=None, **metrics):
    """Saves an untrained model of the digits as a preset."""
    grid = (4, 4) if None in shape else None
    model = keras_topo.models.topvit(
        (8, 1, 8, 1), 2, shape, num_classes=10, stem=stem, reference_grid=grid
    )
    random = np.random.default_rng(0)
    model.set_weights(
        [random.uniform(0.1, 0.3, w.shape) for w in model.get_weights()]
    )
    metrics = {"class_names": NAMES, "task": "images", **metrics}
    keras_topo.save_preset(
        model, folder, described, None if described else metrics
    )
    return str(folder)


def task_of(*arguments):
    argv = images.translated([*TINY, "--out", "unused", *arguments])
    return Images(options.parse(argv)[-1])


def test_frozen_batch_norm_keeps_all_that_it_has(tmp_path, eagerly):
    start = preset(tmp_path / "start")
    out = tmp_path / "run"
    arguments = [*TINY, "--from", start, "--sizes", "8", "12"]
    arguments += ["--freeze-batch-norm", "--out", str(out)]
    assert images.main(arguments) == 0
    before = keras_topo.from_preset(start).weights
    after = keras_topo.from_preset(out).weights
    same = {True: [], False: []}
    for old, new in zip(before, after, strict=True):
        frozen = "stem_norm" in old.path
        same[frozen].append(np.array_equal(old.numpy(), new.numpy()))
    assert len(same[True]) >= 8 and all(same[True])
    assert not any(same[False])


def test_there_is_batch_norm_to_freeze(tmp_path, capsys):
    start = preset(tmp_path / "start", stem="patches")
    arguments = [*TINY, "--freeze-batch-norm", "--out", str(tmp_path / "run")]
    assert images.main([*arguments, "--from", start]) == 2
    assert "with batch normalization. Received" in capsys.readouterr().err
    assert images.main(arguments) == 2
    assert "--freeze-batch-norm expects --from" in capsys.readouterr().err


def test_weights_are_not_mixed_without_their_statistics(tmp_path):
    start = preset(tmp_path / "start")
    with pytest.raises(ValueError, match="statistics do not match.*--keep 0.4"):
        task_of("--from", start, "--keep", "0.4").build_model()
    frozen = ("--from", start, "--keep", "0.4", "--freeze-batch-norm")
    assert task_of(*frozen).build_model().built


def test_images_that_a_model_knows_are_not_for_validation(tmp_path, capsys):
    known = {"data": "digits", "train_on_validation": True}
    part = preset(tmp_path / "part", arguments=known)
    other = preset(tmp_path / "other")
    arguments = [*TINY, "--out", str(tmp_path / "run"), "--from"]
    for models in ([part], [other, "--average-with", part]):
        assert images.main([*arguments, *models]) == 2
        error = capsys.readouterr().err
        assert "do not know the validation images" in error and part in error
        settings = task_of("--train-on-validation", "--from", *models).settings
        refuse_known_validation(settings)
    argv = images.translated([*arguments, part, "--data", "pets"])
    refuse_known_validation(options.parse(argv)[-1])


def test_the_mean_of_a_model_of_one_size_and_one_of_any(tmp_path):
    one = preset(tmp_path / "one")
    every = preset(tmp_path / "every", (None, None, 1))
    task_of("--from", one, "--average-with", every).build_model()
    start = ("--from", one, "--average-with", every, "--sizes", "8", "12")
    assert task_of(*start).build_model().input_shape == (None, None, None, 1)


def test_class_names_of_a_preset_without_metrics(tmp_path):
    names = {"task": "images", "class_names": NAMES}
    start = preset(tmp_path / "start", described=names)
    found = task_of("--from", start).build_model()
    np.testing.assert_array_equal(
        found.get_weights()[-2],
        keras_topo.from_preset(start).get_weights()[-2],
    )


def test_a_model_counts_as_often_as_it_is_named(tmp_path):
    a, b = preset(tmp_path / "a"), preset(tmp_path / "b")
    model = keras_topo.from_preset(b)
    model.set_weights([w + 3 for w in model.get_weights()])
    keras_topo.save_preset(model, b, metrics={"class_names": NAMES})
    task = task_of("--from", a, "--average-with", b, b)
    assert task.title == "mean of a and b and b, fine-tuned, on digits"
    np.testing.assert_allclose(
        task.build_model().get_weights()[0],
        keras_topo.from_preset(a).get_weights()[0] + 2,
        rtol=1e-6,
    )


def test_the_card_of_a_model_of_several_sizes():
    metrics = {
        "task": "images",
        "parameters": 1234,
        "test_accuracy": 0.75,
        "test_accuracy_at_32": 0.75,
        "test_accuracy_at_48": 0.5,
        "test_standard_error": 0.004,
        "images": {"train": 50000, "validation": 0, "test": 10000},
        "arguments": {"preset": "runs/first", "attention": "softmax"},
        "command": "python -m training.train images --from runs/first",
        "training_seconds": 100,
        "versions": {"keras": "3"},
        "runs": 3,
        "test_deviation": 0.01,
        "test_accuracy_of_the_file": 0.75,
        "failed": {"2": "The loss is not finite."},
    }
    text = model_card.describe(metrics, "cifar10")
    assert "softmax attention (ViT) and 1,234 parameters" in text
    assert "The accuracy, of the file, is 75.00% at 32 x 32, 50.00% at " in text
    assert "1 of the seeds diverged and counts as 0 in the mean." in text
    assert "validation none. The standard error" in text
    assert "Made from `runs/first` by `python -m" in model_card.origin(metrics)
    metrics["arguments"] = {"attention": "toeplitz"}
    text = model_card.describe(metrics, "cifar10")
    assert "topologically masked linear attention (TopViT)" in text
    assert "validation none; the model was tested once." in text
    assert "Made by `python -m" in model_card.origin(metrics)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attention": "toeplitz", "mask": "none"}, "without masks"),
        ({"attention": "linear"}, "without masks"),
        ({"attention": "softmax", "mask": "none"}, "softmax attention (ViT)"),
        ({"attention": "softmax", "mask": "table"}, "masked softmax attention"),
        ({"mask": "curves"}, "topologically masked linear attention"),
    ],
)
def test_attention_on_cards(arguments, said):
    found = model_card.attention("images", arguments)
    assert said in found and ("masked" in said) == ("masked" in found)


@pytest.mark.slow
def test_a_model_of_any_size_is_published_at_one(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setattr(Images, "_draw", lambda *_: None)
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    start, run = preset(tmp_path / "start"), tmp_path / "run"
    arguments = [*TINY, "--from", start, "--sizes", "8", "12"]
    assert images.main([*arguments, "--out", str(run)]) == 0
    assert "for TensorFlow Serving; takes pixels\n" in capsys.readouterr().out
    assert demo.main([str(run)]) == 2
    assert "--image-size HEIGHT WIDTH" in capsys.readouterr().err
    zoo = tmp_path / "digits"
    argv = [str(run), str(zoo), "--image-size"]
    assert publish.main([*argv, "16", "16"]) == 2
    assert "was tested at. Received: 16 16" in capsys.readouterr().err
    assert not zoo.exists()
    assert publish.main([*argv, "12", "12"]) == 0
    model = keras_topo.from_preset(zoo)
    assert model.input_shape == (None, 12, 12, 1)
    same = zip(
        model.get_weights(),
        keras_topo.from_preset(run).get_weights(),
        strict=True,
    )
    assert all(np.array_equal(a, b) for a, b in same)
    served = tf.saved_model.load(str(zoo / "1")).signatures
    assert sorted(served) == ["classify_bytes", "serving_default"]
    described = read_preprocessor(str(zoo))
    assert described["image_shape"] == [12, 12, 1]
    metrics = json.loads((zoo / "metrics.json").read_text())
    assert metrics["test_accuracy"] == metrics["test_accuracy_at_12"]
    assert metrics["image_shape"] == [12, 12, 1]
    assert "path" not in metrics["export"]
    card = (zoo / "README.md").read_text()
    assert "at 8 x 8" in card and "(None, 12, 12, 1)" in card


def test_a_run_without_an_export_is_not_published(tmp_path, capsys):
    run = tmp_path / "run"
    preset(run, export=None)
    (run / "saved_model" / "1").mkdir(parents=True)
    (run / "preprocessor.json").touch()
    assert publish.main([str(run), str(tmp_path / "zoo")]) == 2
    assert "Received: export=None" in capsys.readouterr().err
