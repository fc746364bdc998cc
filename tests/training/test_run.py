"""Run folders, resume, schedule and the non-finite stop."""

import json
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_topo.training import fitting
from keras_topo.training.batches import evaluation_batches, training_batches
from keras_topo.training.callbacks import (
    ChooseEpoch,
    NonFiniteLoss,
    training_callbacks,
)
from keras_topo.training.datasets import Split
from keras_topo.training.fitting import adamw, count_parameters
from keras_topo.training.run import Run

pytestmark = pytest.mark.tensorflow_only


def small_model(rate=0.3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1), name="images"),
            keras.layers.Flatten(),
            # No ReLU here: it maps NaN to 0 on some devices.
            keras.layers.Dense(16),
            keras.layers.LayerNormalization(),
            keras.layers.Dropout(rate),
            keras.layers.Dense(3),
        ]
    )
    return model


def small_data(count=64):
    rng = np.random.default_rng(0)
    return Split(
        rng.uniform(0, 1, (count, 4, 4, 1)).astype("float32"),
        rng.integers(0, 3, count).astype("int32"),
    )


def fit(run, epochs=4, stop_after=None, data=None, jit=False):
    """Trains, in a process of its own as far as Keras can tell."""
    model = small_model()
    dataset, steps = training_batches(data or small_data(), 3, 8, 7, 0, epochs)
    model.compile(
        adamw(model, 1e-2, 0.1, steps, epochs, 1, 1.0),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit,
    )
    run.open({"seed": 7, "epochs": epochs})
    finished = run.restore(model)
    callbacks = training_callbacks(run, seed=7)
    if stop_after is not None:
        callbacks.insert(0, Interrupt(stop_after))
    dataset, _ = training_batches(
        data or small_data(), 3, 8, 7, finished, epochs
    )
    try:
        model.fit(
            dataset,
            steps_per_epoch=steps,
            epochs=epochs,
            initial_epoch=finished,
            callbacks=callbacks,
            shuffle=False,
        )
    except KeyboardInterrupt:
        pass
    return model


class Interrupt(keras.callbacks.Callback):
    """Stops in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch == self.epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now and batch == 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of four epochs, and the model."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, fit(Run(folder))


@pytest.fixture
def finished_run(finished, tmp_path):
    """A copy of it, for changes."""
    return Run(shutil.copytree(finished[0], tmp_path / "copy"))


def test_a_resumed_run_equals_an_uninterrupted_one(finished, tmp_path):
    folder, whole = finished
    run = Run(tmp_path / "parts")
    fit(run, stop_after=1)
    assert [line["epoch"] for line in run.history()] == [1]
    fit(run, stop_after=3)
    resumed = fit(run)
    for a, b in zip(Run(folder).history(), run.history(), strict=True):
        assert a["epoch"] == b["epoch"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["learning_rate"] == b["learning_rate"]
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert int(resumed.optimizer.iterations) == 4 * 8


def test_data_are_read_without_autotuning(monkeypatch):
    """Those of the training, and those of the validation."""
    read = []
    monkeypatch.setattr(
        fitting, "without_autotune", lambda data: read.append(data) or data
    )
    model, task = small_model(), Averaged(1)
    task.compile(model)
    fitting.fit(task, model, verbose=0)
    assert len(read) == 2


def test_a_step_is_traced_once(monkeypatch):
    """Without its variables an optimizer would have it traced twice."""
    traced = []
    step = keras.Model.train_step
    monkeypatch.setattr(
        keras.Model,
        "train_step",
        lambda *arguments: traced.append(1) or step(*arguments),
    )
    model, task = small_model(), Averaged(1)
    task.compile(model)
    fitting.fit(task, model, verbose=0)
    assert len(traced) == 1


class Averaged:
    """A task whose weights are averaged, as `fitting.fit` sees it."""

    is_quick, seconds_between_checkpoints = False, 0.0

    def __init__(self, epochs=3):
        self.settings = types.SimpleNamespace(
            epochs=epochs, choose_epoch="last", seed=7
        )
        self.steps_per_epoch = 8

    def compile(self, model):
        optimizer = adamw(model, 1e-2, 0.1, 8, 3, 1, 1.0, average=0.9)
        model.compile(
            optimizer, keras.losses.CategoricalCrossentropy(from_logits=True)
        )

    def callbacks(self):
        return [keras.callbacks.SwapEMAWeights()]

    def training_data(self, start):
        return training_batches(small_data(), 3, 8, 7, start, 3)[0]

    def validation_data(self):
        return evaluation_batches(small_data(16), 3, 8)


def test_averaged_weights(tmp_path):
    """They are the mean over the updates, of a resumed run as well."""
    task, model, steps = Averaged(), small_model(), []
    task.compile(model)
    before = [w.numpy() for w in model.trainable_variables]

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append([w.numpy() for w in model.trainable_variables])

    task.callbacks = lambda: [keras.callbacks.SwapEMAWeights(), Steps()]
    fitting.fit(task, model, verbose=0)
    average = steps[0]
    for weights in steps[1:]:
        average = [
            0.9 * a + 0.1 * w for a, w in zip(average, weights, strict=True)
        ]
    for found, expected, start in zip(
        model.trainable_variables, average, before, strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert np.abs(found - start).max() > 1e-3

    # Killed after the first epoch, and again after the last one.
    for epochs in (1, 3, 3):
        task, resumed = Averaged(epochs), small_model()
        task.compile(resumed)
        run = Run(tmp_path)
        run.open({"seed": 7})
        fitting.fit(task, resumed, run, run.restore(resumed), verbose=0)
        run.close()
    for a, b in zip(model.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_line_cut_off_by_a_kill_is_written_again(tmp_path):
    run = Run(tmp_path)
    fit(run, stop_after=2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    (tmp_path / "checkpoint" / "partial.weights.h5").write_bytes(b"half")
    fit(run)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


def test_only_the_last_checkpoint_is_kept_and_dropped_at_the_end(finished_run):
    run, folder = finished_run, finished_run.folder
    kept = [path.name for path in (folder / "checkpoint").iterdir()]
    assert kept == ["00004.weights.h5"]
    assert list((folder / "tensorboard").rglob("events*"))
    run.finish({"test_accuracy": 0.5})
    assert run.summary() == {"test_accuracy": 0.5}
    assert not (folder / "checkpoint").exists()


def test_another_run_in_the_folder_is_refused(finished_run):
    run = finished_run
    run.open({"seed": 7, "epochs": 4})
    with pytest.raises(
        ValueError,
        match=r"epochs \(then 4, now 5\), seed \(then 7, now 1\)",
    ):
        run.open({"seed": 1, "epochs": 5})
    # An argument that the version of the earlier run did not have.
    run.open({"seed": 7, "epochs": 4, "new": 0}, defaults={"new": 0, "seed": 1})
    with pytest.raises(ValueError, match=r"new \(then 0, now 2\)"):
        run.open({"seed": 7, "epochs": 4, "new": 2}, defaults={"new": 0})
    run.open({"seed": 1, "epochs": 5}, resume=False)
    assert json.loads((run.folder / "arguments.json").read_text())["seed"] == 1


def test_a_run_that_has_not_begun_may_change(tmp_path):
    run = Run(tmp_path)
    run.open({"seed": 1})
    run.open({"seed": 2})
    assert json.loads((tmp_path / "arguments.json").read_text())["seed"] == 2


def test_no_resume_deletes_nothing_but_the_run(finished_run):
    run, folder = finished_run, finished_run.folder
    (folder / "notes.txt").write_text("mine")
    run.open({"seed": 8}, resume=False)
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["arguments.json", "lock", "notes.txt"]


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="must be new, empty"):
        Run(tmp_path).open({})
    with pytest.raises(ValueError, match="a file"):
        Run(tmp_path / "thesis.tex").open({})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_pixel_stops_at_its_step(tmp_path, bad):
    data = small_data(count=65)
    dataset, steps = training_batches(data, 3, 8, 7, 0, 2)
    # The image left out of the first epoch, and the step when it comes.
    seen = [set(map(bytes, images.numpy())) for images, _ in dataset]
    rest = {bytes(image) for image in data.images} - set.union(*seen[:steps])
    image = rest.pop()
    step = [image in images for images in seen[steps:]].index(True) + 1
    index = [bytes(other) for other in data.images].index(image)
    data.images[index, 1, 1, 0] = bad
    with pytest.raises(NonFiniteLoss, match=f"epoch 2, step {step}$"):
        fit(Run(tmp_path), data=data)
    assert [line["epoch"] for line in Run(tmp_path).history()] == [1]


def test_a_non_finite_validation_loss_stops_before_the_checkpoint(tmp_path):
    run = Run(tmp_path)
    run.open({})
    stop, *_, record, _ = training_callbacks(run, seed=0)
    with pytest.raises(NonFiniteLoss, match="validation loss .* epoch 2"):
        stop.on_epoch_end(1, {"loss": 1.0, "val_loss": np.nan})
    assert run.history() == []


def test_schedule_warms_up_and_decays_to_zero():
    model = small_model()
    optimizer = adamw(model, 1e-2, 0.1, 10, 5, warmup_epochs=1)
    rates = [float(optimizer._learning_rate(step)) for step in range(51)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-2)
    assert np.argmax(rates) == 10
    assert rates[50] == pytest.approx(0, abs=1e-9)
    flat = adamw(model, 1e-2, 0.1, 10, 5)
    assert float(flat._learning_rate(0)) == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("greater", "tie_breaker", "expected"),
    [(True, None, 1), (True, "loss", 3), (False, None, 0), (False, "loss", 4)],
)
def test_equal_epochs_are_told_apart(greater, tie_breaker, expected):
    task = types.SimpleNamespace(
        monitor=("accuracy", greater),
        tie_breaker=tie_breaker,
        settings=types.SimpleNamespace(patience=2, epochs=9),
    )
    chooser = ChooseEpoch(task)
    model = types.SimpleNamespace(get_weights=list, stop_training=False)
    chooser.set_model(model)
    keras.callbacks.EarlyStopping.on_train_begin(chooser)
    epochs = [(0.5, 1.0), (0.7, 0.9), (0.7, 0.9), (0.7, 0.8), (0.5, 0.7)]
    for epoch, (accuracy, loss) in enumerate(epochs):
        logs = {"val_accuracy": accuracy, "val_loss": loss}
        chooser.on_epoch_end(epoch, logs)
    assert chooser.best_epoch == expected
    if greater:
        # An epoch that wins a tie is a better one.
        assert model.stop_training == (tie_breaker is None)


def test_parameters_are_what_can_be_trained():
    within = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(5)])
    model = keras.Sequential(
        [keras.Input((2,)), within, keras.layers.BatchNormalization()]
    )
    expected = 2 * 3 + 3 + 3 * 5 + 5 + 2 * 5
    assert count_parameters(model) == expected
    within.layers[0].trainable = False
    model.layers[-1].trainable = False
    assert count_parameters(model) == expected
    assert [layer.trainable for layer in within.layers] == [False, True]
    assert not model.layers[-1].trainable and within.trainable


def test_weight_decay_acts_on_kernels_only():
    model = small_model()
    optimizer = adamw(model, 0.1, 0.5, 10, 1)
    before = [v.numpy() for v in model.trainable_variables]
    optimizer.build(model.trainable_variables)
    zeros = [tf.zeros_like(v) for v in model.trainable_variables]
    optimizer.apply(zeros)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        if variable.name == "kernel":
            np.testing.assert_allclose(variable, old * 0.95, rtol=1e-5)
        else:
            np.testing.assert_array_equal(variable, old)


def test_a_folder_is_used_by_one_process_at_a_time(tmp_path):
    with Run(tmp_path) as run:
        run.open({"seed": 1})
        run.open({"seed": 1})  # by itself again
        with pytest.raises(ValueError, match="another process uses"):
            Run(tmp_path).open({"seed": 1})
        with pytest.raises(ValueError, match="another process"):
            Run(tmp_path).open({"seed": 1}, resume=False)
    with Run(tmp_path) as run:
        run.open({"seed": 1})
        run.discard_unused()
    assert not tmp_path.exists()


def test_tuples_are_compared_as_they_are_stored(finished_run):
    run = finished_run
    run.open({"seed": 7, "epochs": 4, "sizes": (1, 2)}, resume=False)
    (run.folder / "metrics.json").write_text("{}")
    (run.folder / "runs.jsonl").write_text('{"a": 1}\n')
    run.open({"seed": 7, "epochs": 4, "sizes": (1, 2)})
