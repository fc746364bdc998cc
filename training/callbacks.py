"""Training callbacks: stopping, seeding, choosing the best epoch, recording.

They replace two Keras callbacks. `TerminateOnNaN` does not report the epoch and
ignores the validation loss. `BackupAndRestore` writes weights and epoch
separately, so after a kill between the two it repeats an epoch on weights that
already include it.
"""

import os
import time
import types

import keras
import numpy as np


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names epoch and step."""


def training_callbacks(run, seed, more=(), every=0.0, progress=None):
    """The callbacks of a training, in call order.

    Args:
        run: the `Run`, or `None` for a training that is not recorded.
        seed: int, the seed of the run.
        more: callbacks that run before an epoch is recorded.
        every: float, minimum seconds between checkpoints.
        progress: callback that prints; `None` to use the Keras progress bar.

    Returns:
        A list: non-finite stop, seeding, `more`, TensorBoard, recording and
        progress.
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
    """Keeps the weights of the best epoch on the validation data, and stops
    after `patience` epochs without improvement. It also works in resumed runs.

    If epochs tie in `task.monitor`, the smallest `task.tie_breaker` decides (if
    the task has one), and then the first epoch.

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
        """Whether the recorded epochs have already ended the training."""
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
        """Writes the best weights into the run folder."""
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
        """Restores the state of an uninterrupted run."""
        self.restore_best_weights = False
        self.best, self.best_epoch, self.wait = None, 0, 0
        for line in self.earlier:
            super().on_epoch_end(line["epoch"] - 1, line)
        self.restore_best_weights = True


class Progress(keras.callbacks.Callback):
    """Prints a line for the first and last epoch, and for epochs in between at
    most every `SECONDS`."""

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

    Keras reports the mean loss of the epoch so far, which stays non-finite
    from that step on.
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
    """Reseeds all random generators of the model at the start of an epoch.

    Dropout and stochastic depth then depend on (seed, epoch) only. Keras does
    not save the states of these generators.
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
        every: float, minimum seconds between checkpoints: a short epoch takes
            longer to save than to repeat.
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
