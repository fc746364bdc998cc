"""Callbacks of trainings: stopping, seeds, the best epoch, the record.

`TerminateOnNaN` of Keras stops at the step and not with its epoch, and looks
at no validation loss; `BackupAndRestore` writes weights and epoch one after the
other, so a kill between them repeats an epoch on the weights that it gave. What
is here in their place is exact.
"""

import os
import time
import types

import keras
import numpy as np


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names epoch and step."""


def training_callbacks(run, seed, more=(), every=0.0, progress=None):
    """The callbacks of a training, in the order in which they are called.

    Args:
        run: the `Run`, or `None` for a training that is not recorded.
        seed: int, the seed of the run.
        more: callbacks that come before the record of an epoch.
        every: float, seconds between checkpoints, at least.
        progress: callback that prints; `None` where Keras draws its bar.

    Returns:
        A list: non-finite stop, seeding, `more`, TensorBoard, the record of
        epochs and the progress.
    """
    callbacks = [StopOnNonFiniteLoss(), SeedEpochs(seed), *more]
    if run is not None and run.writes:
        chooser = [each for each in more if isinstance(each, ChooseEpoch)]
        logs = keras.callbacks.TensorBoard(
            str(run.folder / "tensorboard"), write_graph=False
        )
        callbacks += [
            logs,
            RecordEpochs(run, *chooser, every=every),
            *([progress] if progress else []),
        ]
    return callbacks


class ChooseEpoch(keras.callbacks.EarlyStopping):
    """Keeps the weights of the best epoch on validation data, and stops after
    `patience` epochs without a better one; also in a run that resumes.

    Between epochs of equal `task.monitor` the least `task.tie_breaker` decides,
    if the task has one, and then the first.

    Args:
        task: `keras_topo.training.tasks.Task`.
        run: the `Run`, or `None`.
    """

    def __init__(self, task, run=None):
        metric, greater = task.monitor
        super().__init__(
            f"val_{metric}",
            patience=task.settings.patience or task.settings.epochs,
            mode="max" if greater else "min",
            restore_best_weights=True,
        )
        self.tie_breaker = task.tie_breaker
        self.run = run
        self.earlier = [] if run is None else run.history()

    def get_monitor_value(self, logs):
        value = super().get_monitor_value(logs)
        if value is None or self.tie_breaker is None:
            return value
        return value, logs[f"val_{self.tie_breaker}"]

    def _is_improvement(self, value, best):
        if best is None or self.tie_breaker is None:
            return super()._is_improvement(value, best)
        (value, tie), (best, best_tie) = value, best
        if value == best:
            return tie < best_tie
        return super()._is_improvement(value, best)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._replay()
        self.model.stop_training = False
        if self.earlier:
            self.best_weights = self._file_weights()

    def has_stopped(self):
        """Whether the epochs that the run has already were the last ones."""
        if not self.earlier:
            return False
        super().on_train_begin()
        stopped = types.SimpleNamespace(stop_training=False)
        model, self._model = self._model, stopped
        self._replay()
        self._model = model
        return stopped.stop_training

    def weights(self):
        """The weights of the best epoch, a list."""
        if self.best_weights is not None:
            return self.best_weights
        self._replay()
        return self._file_weights()

    def save(self):
        """Writes them into the folder of the run."""
        if self.best_weights is None:
            return
        file = self.run.folder / "checkpoint" / "best.npz"
        partial = file.with_name("partial.npz")
        file.parent.mkdir(exist_ok=True)
        np.savez(partial, *self.best_weights)
        os.replace(partial, file)

    def _file_weights(self):
        with np.load(self.run.folder / "checkpoint" / "best.npz") as arrays:
            return [arrays[f"arr_{k}"] for k in range(len(arrays.files))]

    def _replay(self):
        """What would be known if this run had not been interrupted."""
        self.restore_best_weights = False
        self.best, self.best_epoch, self.wait = None, 0, 0
        for line in self.earlier:
            super().on_epoch_end(line["epoch"] - 1, line)
        self.restore_best_weights = True


class Progress(keras.callbacks.Callback):
    """A line for an epoch: the first, the last, and those in between that end
    `SECONDS` after the one before."""

    SECONDS = 10

    def __init__(self, settings):
        super().__init__()
        self.settings, self.last = settings, None

    def on_train_begin(self, logs=None):
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now, epochs = time.perf_counter(), self.settings.epochs
        soon = self.last is not None and now - self.last < self.SECONDS
        if soon and epoch + 1 < epochs:
            return
        self.last = now
        values = ", ".join(
            f"{name.replace('val_', 'validation ')} {value:.4f}"
            for name, value in (logs or {}).items()
        )
        print(
            f"Seed {self.settings.seed}, epoch {epoch + 1} of {epochs}: "
            f"{values} ({now - self.began:.0f} s)",
            flush=True,
        )


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises `NonFiniteLoss` after the first step with a NaN or infinite loss.

    Keras reports the mean loss of the epoch so far, which is non-finite from
    that step on.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            raise NonFiniteLoss(
                f"the training loss became {loss} in epoch {self._epoch + 1}, "
                f"step {batch + 1}"
            )

    def on_epoch_end(self, epoch, logs=None):
        loss = float((logs or {}).get("val_loss", 0.0))
        if not np.isfinite(loss):
            raise NonFiniteLoss(
                f"the validation loss became {loss} in epoch {epoch + 1}, "
                "after its last step"
            )


class SeedEpochs(keras.callbacks.Callback):
    """Sets all random generators of the model anew at the start of an epoch.

    Dropout and stochastic depth then depend on (seed, epoch) only. Keras keeps
    the states of these generators out of saved files.
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        states = [
            variable
            for variable in self.model.variables
            if variable.name == "seed_generator_state"
        ]
        words = np.random.SeedSequence([self.seed, epoch]).generate_state(
            max(len(states), 1)
        )
        for state, word in zip(states, words, strict=False):
            state.assign([int(word) % 2**31, 0])


class RecordEpochs(keras.callbacks.Callback):
    """Records every finished epoch in the run folder.

    Args:
        run: the `Run`.
        chooser: `ChooseEpoch` whose best weights are saved with an epoch, or
            `None`.
        every: float, seconds between checkpoints at least: of short epochs
            each would take longer to save than to repeat.
    """

    def __init__(self, run, chooser=None, every=0.0):
        super().__init__()
        self.run, self.chooser, self.every = run, chooser, every
        self._saved = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        metrics = {"epoch": epoch + 1}
        metrics.update({name: float(v) for name, v in (logs or {}).items()})
        metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
        metrics["seconds"] = round(time.perf_counter() - self._start, 3)
        now = time.perf_counter()
        if now - self._saved < self.every:
            self.run.save_line(metrics)
            return
        self._saved = now
        if self.chooser is not None:
            self.chooser.save()
        self.run.save_epoch(self.model, metrics)
