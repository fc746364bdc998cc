"""What every training script shares: run folder, resume, schedule, stopping.

A run folder holds `arguments.json` (what the run was started with),
`metrics.jsonl` (a line per finished epoch), `checkpoint/` (the last finished
epoch, gone when the run is finished), `tensorboard/`, and at the end
`metrics.json` beside what the task leaves there.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names epoch and step."""


class Run:
    """A run folder.

    Args:
        folder: path of the folder; made by `open`.
        writes: `False` in processes that take part in a run which another
            one records.

    Attributes:
        folder: `pathlib.Path`.
    """

    # What `open(resume=False)` may delete: nothing that a run did not write.
    _WRITTEN = (
        "arguments.json",
        "attention.png",
        "checkpoint",
        "checksums.json",
        "config.json",
        "curves.png",
        "masks.png",
        "metrics.json",
        "metrics.jsonl",
        "folds.json",
        "folds.md",
        "kernels.png",
        "model.keras",
        "model.weights.h5",
        "motifs.json",
        "motifs.md",
        "motifs.png",
        "preprocessor.json",
        "runs.jsonl",
        "sample.txt",
        "samples",
        "saved_model",
        "tensorboard",
    )

    def __init__(self, folder, writes=True):
        self.folder = Path(folder).expanduser()
        self.writes = writes

    def open(self, arguments, resume=True, ignored=()):
        """Makes the folder, or reopens the run that it holds.

        A run that has not finished an epoch has nothing to resume and may be
        started again with other arguments.

        Args:
            arguments: dict that JSON can hold.
            resume: go on with an earlier run of the same arguments; `False`
                deletes it and starts anew.
            ignored: names of arguments that the result does not depend on.

        Raises:
            ValueError: the folder holds another run, or other files.
        """
        if not self.writes:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                "The run folder must be a folder, new or existing. "
                f"Received: {str(self.folder)!r}, a file"
            )
        arguments = {k: v for k, v in arguments.items() if k not in ignored}
        file = self.folder / "arguments.json"
        if file.exists():
            if not resume:
                self._clear()
            elif (
                self.summary()
                or self._checkpoints()
                or read_lines(self.folder / "runs.jsonl")
            ):
                earlier = json.loads(file.read_text())
                # An earlier version may have held what is ignored by now.
                for name in ignored:
                    earlier.pop(name, None)
                self._compare(arguments, earlier)
        elif self.folder.exists() and any(
            # A kill while the arguments were being written leaves this.
            path.name != "arguments.json.partial"
            for path in self.folder.iterdir()
        ):
            raise ValueError(
                "The run folder must be new, empty, or hold an earlier run. "
                f"Received: {str(self.folder)!r}, which holds other files"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(file, arguments)

    def discard_unused(self):
        """Removes the folder of a run that could not begin."""
        if not self.writes:
            return
        written = [path.name for path in self.folder.glob("*")]
        if written == ["arguments.json"]:
            (self.folder / "arguments.json").unlink()
            self.folder.rmdir()

    def _compare(self, arguments, earlier):
        differing = [
            f"{name} (then {earlier.get(name)!r}, now {arguments.get(name)!r})"
            for name in sorted({*arguments, *earlier})
            if earlier.get(name) != arguments.get(name)
        ]
        if differing:
            raise ValueError(
                "A run resumes with the arguments it was started with only; "
                "choose another --out, or --no-resume to replace the run. "
                f"Received: {str(self.folder)!r}, whose run differs in "
                + ", ".join(differing)
            )

    def _clear(self):
        for name in self._WRITTEN:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def summary(self):
        """The summary of a finished run (a dict), or `None`."""
        file = self.folder / "metrics.json"
        return json.loads(file.read_text()) if file.exists() else None

    def history(self):
        """The lines of `metrics.jsonl`, a list of dicts."""
        file = self.folder / "metrics.jsonl"
        if not file.exists():
            return []
        lines = []
        for line in file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break  # Cut off by a kill: the epoch has no checkpoint yet.
        return lines

    def save_epoch(self, model, metrics):
        """Records a finished epoch: its line of metrics, then its checkpoint.

        The checkpoint appears under its name only when it is complete, and
        counts as the end of the epoch: without it the epoch is repeated and
        its line replaced.

        Args:
            model: compiled Keras model.
            metrics: dict with `"epoch"`, counted from 1.
        """
        if not self.writes:
            return
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        folder = self.folder / "checkpoint"
        folder.mkdir(exist_ok=True)
        earlier = self._checkpoints()
        partial = folder / "partial.weights.h5"
        # Weights and optimizer state.
        with alone():
            model.save_weights(partial, overwrite=True)
        os.replace(partial, folder / f"{metrics['epoch']:05d}.weights.h5")
        for path in earlier:
            path.unlink()

    def restore(self, model):
        """Loads the last finished epoch into a compiled model.

        Returns:
            The number of finished epochs, 0 for a new run.
        """
        checkpoints = self._checkpoints()
        epochs = 0
        if checkpoints:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            model.load_weights(checkpoints[-1])
            epochs = int(checkpoints[-1].name.split(".")[0])
        if not self.writes:
            return epochs
        # Lines of an epoch that was cut off are written again.
        finished = [
            json.dumps(line)
            for line in self.history()
            if line["epoch"] <= epochs
        ]
        write_text(
            self.folder / "metrics.jsonl",
            "".join(line + "\n" for line in finished),
        )
        return epochs

    def finish(self, summary):
        """Writes `metrics.json`, which makes the run a finished one."""
        write_json(self.folder / "metrics.json", summary)
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)

    def _checkpoints(self):
        folder = self.folder / "checkpoint"
        return sorted(folder.glob("[0-9]*.weights.h5"))


def preprocessor_of(metrics):
    """What `preprocessor.json` of a run holds: see `keras_topo.save_preset`.

    Args:
        metrics: dict with `task`, and what there is of `image_shape`,
            `features` and `class_names`, as in the summary of a run.

    Returns:
        A dict, or `None` for no metrics.
    """
    if "task" not in metrics:
        return None
    names = metrics.get("class_names")
    if names is None:
        names = (metrics.get("export") or {}).get("class_names")
    found = {
        "task": metrics["task"],
        "image_shape": metrics.get("image_shape"),
        "features": metrics.get("features"),
        "class_names": names,
    }
    return {key: value for key, value in found.items() if value is not None}


@contextlib.contextmanager
def presets_in_silence():
    """Leaves unsaid what `from_preset` has changed, where it was said."""
    logger = logging.getLogger("keras_topo.presets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def alone():
    """Leaves `keras.distribution`, whose variables all processes have to make
    together; to save, Keras makes one."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def write_text(path, text):
    """Writes a file so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_json(path, value):
    """Writes a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_lines(file):
    """Lines of JSON; a last one that a kill cut off does not count."""
    lines = []
    if file.exists():
        text = file.read_text()
        for line in text.splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        whole = "".join(json.dumps(line) + "\n" for line in lines)
        if whole != text:
            write_text(file, whole)
    return lines


def print_contents(folder, contents):
    """Prints what lies in a run folder, a line for each file that is there.

    Args:
        folder: `pathlib.Path`.
        contents: dict from names to what they hold.
    """
    for name, meaning in contents.items():
        path = folder / name
        if path.exists():
            print(f"  {str(path):<34} {meaning}")


def adamw(
    model,
    learning_rate,
    weight_decay,
    steps_per_epoch,
    epochs,
    warmup_epochs=0,
    clip_norm=None,
    accumulate=1,
):
    """AdamW with linear warm-up, cosine decay to zero and gradient clipping.

    Weight decay acts on the kernels of the model only: not on biases and
    normalizations, nor on mask and position parameters, for which zero means
    something.

    Args:
        model: built Keras model.
        learning_rate: float, the peak.
        weight_decay: float.
        steps_per_epoch, epochs: ints, the length of the training.
        warmup_epochs: int, at most `epochs`.
        clip_norm: float, bound on the global norm of the gradients, or `None`.
        accumulate: int, batches whose mean gradient makes one update.

    Returns:
        A `keras.optimizers.AdamW`.
    """
    warmup = warmup_epochs * steps_per_epoch
    total = epochs * steps_per_epoch
    schedules = keras.optimizers.schedules
    if warmup:
        schedule = schedules.CosineDecay(
            # The first step counts too: not zero.
            initial_learning_rate=learning_rate / warmup,
            decay_steps=max(total - warmup, 1),
            warmup_target=learning_rate,
            warmup_steps=warmup,
        )
    else:
        schedule = schedules.CosineDecay(learning_rate, decay_steps=total)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    optimizer = AdamWOfBatches(
        schedule,
        weight_decay=weight_decay,
        global_clipnorm=clip_norm and clip_norm / replicas,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not _is_kernel(v)]
    )
    return optimizer


class AdamWOfBatches(keras.optimizers.AdamW):
    """AdamW that clips the gradient of a batch where replicas share it out.

    Keras clips the gradient of each replica and adds them up: another training
    than that on one device. Here all get the mean of what they have to add up,
    so that the sum is clipped by `replicas * global_clipnorm`.
    """

    def apply(self, grads, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            grads = context.all_reduce(tf.distribute.ReduceOp.MEAN, grads)
        super().apply(grads, trainable_variables)


def _is_kernel(variable):
    return variable.name.endswith("kernel")


def training_callbacks(run, seed):
    """The callbacks of a resumable run, for `model.fit`.

    Args:
        run: the `Run`.
        seed: int, the seed of the run.

    Returns:
        A list: non-finite stop, seeding, TensorBoard, the record of epochs
        and the progress bar, in the order in which they must be called.
    """
    callbacks = [StopOnNonFiniteLoss(), SeedEpochs(seed)]
    if run.writes:
        logs = keras.callbacks.TensorBoard(
            str(run.folder / "tensorboard"), write_graph=False
        )
        callbacks += [logs, RecordEpochs(run), ProgressBar()]
    return callbacks


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
    """Saves every finished epoch into the run folder."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        metrics = {"epoch": epoch + 1}
        metrics.update({name: float(v) for name, v in (logs or {}).items()})
        metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
        metrics["seconds"] = round(time.perf_counter() - self._start, 3)
        self.run.save_epoch(self.model, metrics)


class ProgressBar(keras.callbacks.ProgbarLogger):
    """The Keras bar; in a file or a pipe one line per epoch, no rewriting."""

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if not sys.stdout.isatty():
            self.progbar.interval = float("inf")
