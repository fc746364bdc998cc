"""The folder of a run: its arguments, epochs and results.

A run folder holds `arguments.json` (the arguments of the run), `metrics.jsonl`
(a line per finished epoch), `checkpoint/` (the last finished epoch; deleted
when the run is finished), `tensorboard/`, and at the end `metrics.json` and the
files of the task. A process that uses the folder holds the lock on the file
`lock`.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

import keras

from keras_topo.training.files import read_lines, write_json, write_text


class Run:
    """A run folder.

    Args:
        folder: path of the folder; created by `open`.
        writes: `False` in processes of a run that another process records.

    Attributes:
        folder: `pathlib.Path`.
    """

    # `open(resume=False)` may delete only files that a run has written.
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
        "table.png",
        "kernels.png",
        "lock",
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
        self._lock = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Releases the lock; so does the end of the process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    __del__ = close

    def open(self, arguments, resume=True, defaults=None):
        """Creates the folder, or reopens the run that it holds.

        If a run has not finished an epoch, it can be started again with other
        arguments.

        Args:
            arguments: dict of JSON values.
            resume: continue an earlier run with the same arguments; `False`
                deletes it and starts over.
            defaults: dict of JSON values of arguments that the earlier run may
                not name, because its version did not have them.

        Raises:
            ValueError: if the folder holds another run, or other files, or
                another process is using it.
        """
        if not self.writes:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                "The run folder must be a folder, new or existing. "
                f"Received: {str(self.folder)!r}, a file"
            )
        # As read back from the file: tuples become lists.
        arguments = json.loads(json.dumps(arguments))
        file = self.folder / "arguments.json"
        if file.exists():
            self._take_lock()
        if file.exists():
            if not resume:
                self._clear()
            elif (
                self.summary()
                or self._checkpoints()
                or read_lines(self.folder / "runs.jsonl")
            ):
                earlier = json.loads(file.read_text())
                self._compare(arguments, {**(defaults or {}), **earlier})
        elif self.folder.exists() and any(
            # Left by a kill while the arguments were being written.
            path.name not in ("arguments.json.partial", "lock")
            for path in self.folder.iterdir()
        ):
            raise ValueError(
                "The run folder must be new, empty, or hold an earlier run. "
                f"Received: {str(self.folder)!r}, which holds other files"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        write_json(file, arguments)

    def _take_lock(self):
        if self._lock is not None:
            return
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            _lock_file(lock)
        except OSError as error:
            os.close(lock)
            raise ValueError(
                "The run folder must not be in use. Received: "
                f"{str(self.folder)!r}, which another process uses"
            ) from error
        self._lock = lock

    def discard_unused(self):
        """Removes the folder of a run that could not start."""
        if not self.writes:
            return
        written = {path.name for path in self.folder.glob("*")}
        if self._lock is not None and written == {"arguments.json", "lock"}:
            for name in written:
                (self.folder / name).unlink()
            self.folder.rmdir()
        self.close()

    def _compare(self, arguments, earlier):
        differing = [
            f"{name} (then {earlier.get(name)!r}, now {arguments.get(name)!r})"
            for name in sorted({*arguments, *earlier})
            if earlier.get(name) != arguments.get(name)
        ]
        if differing:
            raise ValueError(
                "A run can be resumed only with its original arguments; "
                "choose another --out, or --no-resume to replace the run. "
                f"Received: {str(self.folder)!r}, whose run differs in "
                + ", ".join(differing)
            )

    def _clear(self):
        for name in self._WRITTEN:
            if name == "lock":
                continue
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
        """The lines of `metrics.jsonl`, a list of dicts: see `read_lines`."""
        return read_lines(self.folder / "metrics.jsonl")

    def save_epoch(self, model, metrics):
        """Records a finished epoch: its line of metrics, then its checkpoint.

        The checkpoint gets its final name only when it is complete. It marks
        the end of the epoch: without it, the epoch is repeated and its line
        replaced.

        Args:
            model: compiled Keras model.
            metrics: dict with `"epoch"`, counted from 1.
        """
        if not self.writes:
            return
        self.save_line(metrics)
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

    def save_line(self, metrics):
        """Records an epoch without a checkpoint. An interrupted run repeats
        it."""
        if self.writes:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(metrics) + "\n")

    def finished_epochs(self):
        """The number of the last epoch that has a checkpoint, or 0."""
        checkpoints = self._checkpoints()
        return int(checkpoints[-1].name.split(".")[0]) if checkpoints else 0

    def restore(self, model, start=0):
        """Loads the last finished epoch into a compiled model.

        Args:
            model: compiled Keras model.
            start: int, number of finished epochs before this model's first
                epoch. Checkpoints up to there belong to another model and are
                not loaded.

        Returns:
            The number of finished epochs, 0 for a new run.
        """
        epochs = self.finished_epochs()
        if epochs > start:
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            model.load_weights(self._checkpoints()[-1])
        if not self.writes:
            return epochs
        # Drop lines of unfinished epochs; they are written again.
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
        """Writes `metrics.json`, which marks the run as finished."""
        write_json(self.folder / "metrics.json", summary)
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)

    def _checkpoints(self):
        folder = self.folder / "checkpoint"
        return sorted(folder.glob("[0-9]*.weights.h5"))


@contextlib.contextmanager
def alone():
    """Suspends `keras.distribution`. Under it, all processes must create
    variables together, but Keras creates one when this process saves."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _lock_file(file):
    """Takes the lock on a file descriptor, or raises an OSError."""
    try:
        import fcntl
    except ImportError:  # Windows.
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
