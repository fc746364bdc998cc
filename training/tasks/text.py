"""Language models of bytes: text files in, bits per byte out.

The data are the sources of the Python standard library, which come with every
Python, or the text files of a folder. A hash of its relative path puts each
file into the training, validation or test split, one in ten into each of the
latter two. A split is its files in the order of their paths, with a zero byte
before, between and after them: text has none, so 256 symbols are enough.

The model is trained on windows of `length` bytes at random offsets. All bytes
of the validation and the test split are predicted once, in windows of the same
length which begin `stride` bytes after one another; of each window only the
bytes count that the one before has not reached. So a byte is predicted from at
least `length - stride` bytes before it and from `length` at most, except near
the start of the split, whatever the model is. Zero bytes, which end files, are
predicted and counted like other bytes.
"""

import hashlib
import math
import os
import platform
import sysconfig
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_topo.training.command_line import optional, positive_int, rate
from keras_topo.training.masks_by_name import mask_name, mask_of

SEPARATOR = 0
VOCABULARY_SIZE = 256
# Folders of the standard library that do not hold its sources: tests, other
# packages, applications and generated tables.
LEFT_OUT = {
    "dist-packages",
    "encodings",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
SAMPLE_BYTES = 400


class Text:
    """The task of predicting the next byte; see `keras_topo.training.tasks`.

    Args:
        arguments: dict, see `keras_topo.training.configs.text`.
    """

    name = "text"
    parsers = {
        "data": str,
        "pattern": str,
        "length": positive_int,
        "stride": positive_int,
        "batch_size": positive_int,
        "updates_per_epoch": positive_int,
        "validation_windows": positive_int,
        "channels": positive_int,
        "num_heads": positive_int,
        "mlp_dim": positive_int,
        "depth": positive_int,
        "mask": mask_name,
        "similarity": str,
        "positions": optional(str),
        "dropout": rate,
    }
    contents = {"sample.txt": "the beginning of a file that it wrote"}

    def __init__(self, arguments):
        self.arguments = arguments
        length, stride = arguments["length"], arguments["stride"]
        if stride > length:
            raise ValueError(
                "`stride` expects at most `length`: no byte may be left out. "
                f"Received: stride={stride}, length={length}"
            )
        files = read_files(arguments["data"], arguments["pattern"])
        self.splits = split_files(files)
        for name, text in self.splits.items():
            if len(text) <= length:
                raise ValueError(
                    f"The {name} split expects more than length={length} "
                    "bytes: one file in ten, by a hash of its path. Received: "
                    f"{len(text)} bytes; all splits have {len(files)} files"
                )
        self.facts = {
            "data_python": platform.python_version()
            if arguments["data"] == "python"
            else None,
            "data_sha256": hashlib.sha256(join_files(files)).hexdigest(),
            "data_files": len(files),
            "data_bytes": {n: len(text) - 1 for n, text in self.splits.items()},
        }
        self.title = (
            f"{arguments['similarity']} attention, mask {arguments['mask']}, "
            f"positions {arguments['positions']}"
        )
        self.steps_per_epoch = arguments["updates_per_epoch"]

    def describe(self):
        sizes = self.facts["data_bytes"].items()
        python = self.facts["data_python"]
        source = f"the standard library of Python {python}"
        if python is None:
            source = f"{self.facts['data_files']:,} files"
        sizes = ", ".join(f"{size:,} {name}" for name, size in sizes)
        return f"Data: {sizes} bytes of {source}."

    def build_model(self):
        from keras_topo.models import causal_lm

        arguments = self.arguments
        names = ("channels", "num_heads", "mlp_dim", "depth", "dropout")
        names += ("similarity", "positions", "seed")
        return causal_lm(
            vocabulary_size=VOCABULARY_SIZE,
            max_length=arguments["length"] if self._is_bounded else None,
            name="causal_lm",
            mask=mask_of(arguments["mask"]),
            **{name: arguments[name] for name in names},
        )

    @property
    def _is_bounded(self):
        """Whether the model is for so many bytes: tables, learned positions."""
        arguments = self.arguments
        return arguments["mask"] == "table" or bool(arguments["positions"])

    def compile_arguments(self):
        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
            "weighted_metrics": [BitsPerByte(), "accuracy"],
        }

    def training_data(self, start_epoch):
        arguments = self.arguments
        return training_windows(
            self.splits["train"],
            arguments["length"],
            arguments["batch_size"],
            arguments["updates_per_epoch"],
            arguments["seed"],
            start_epoch,
            arguments["epochs"],
        )

    def validation_data(self):
        """Some windows of the validation split, for the curves."""
        return self._windows("validation", self.arguments["validation_windows"])

    def _windows(self, split, limit=None):
        arguments = self.arguments
        return evaluation_windows(
            self.splits[split],
            arguments["length"],
            arguments["stride"],
            arguments["batch_size"],
            limit,
        )

    def evaluate(self, model):
        found = {}
        for split in ("validation", "test"):
            results = model.evaluate(
                self._windows(split), verbose=0, return_dict=True
            )
            for metric in ("bits_per_byte", "accuracy"):
                found[f"{split}_{metric}"] = float(results[metric])
        return found

    def finish(self, folder, model):
        count = SAMPLE_BYTES
        if self._is_bounded:
            count = min(count, self.arguments["length"] - 1)
        text = sample(model, "", count, seed=self.arguments["seed"])
        (folder / "sample.txt").write_text(text, encoding="utf-8")

    def report(self, summary):
        return (
            f"Test: {summary['test_bits_per_byte']:.3f} bits per byte, "
            f"{summary['test_accuracy']:.1%} of the bytes right"
        )


# Data.


def read_files(data="python", pattern="*.py"):
    """Reads the text files of the standard library, or of a folder.

    Args:
        data: `"python"`, or the path of a folder.
        pattern: pattern of file names, for a folder.

    Returns:
        A dict from relative paths, with `/`, to bytes, in the order of paths.

    Raises:
        ValueError: there are no files, or one has a zero byte.
    """
    if data == "python":
        folder = Path(sysconfig.get_path("stdlib"))
        paths = list(_library_files(folder))
    else:
        folder = Path(data).expanduser()
        paths = [path for path in folder.rglob(pattern) if path.is_file()]
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
    if not files:
        raise ValueError(
            '`data` expects "python" or a folder with text files, named like '
            f"`pattern`. Received: data={data!r}, pattern={pattern!r}"
        )
    for path, content in files.items():
        if SEPARATOR in content:
            raise ValueError(
                "`data` expects text files, without zero bytes. Received: "
                f"{str(folder / path)!r}"
            )
    return dict(sorted(files.items()))


def _library_files(folder):
    """The sources of the standard library, the same on every machine."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_OUT and not name.startswith("config-")
        ]
        for name in names:
            # What is generated has the paths of the machine that did it.
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(parent, name)


def split_files(files):
    """Divides files into splits by a hash of their paths.

    Returns:
        A dict from `"train"`, `"validation"`, `"test"` to uint8 arrays.
    """
    splits = {"train": {}, "validation": {}, "test": {}}
    for path, content in files.items():
        splits[split_of(path)][path] = content
    return {
        name: np.frombuffer(join_files(some), "uint8")
        for name, some in splits.items()
    }


def split_of(path):
    """The split of a file, which depends on its relative path only."""
    digest = hashlib.sha256(path.encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")


def join_files(files):
    """All files as bytes, with a separator before, between and after them."""
    separator = bytes([SEPARATOR])
    return separator + b"".join(text + separator for text in files.values())


# Windows.


def training_windows(
    text, length, batch_size, steps, seed, start_epoch, epochs
):
    """Windows at random offsets, which depend on the seed and the epoch only.

    Args:
        text: uint8 array.
        length: int, bytes of a window.
        batch_size, steps: ints, windows of a batch and batches of an epoch.
        seed: int.
        start_epoch, epochs: ints; the epochs `start_epoch` ... `epochs - 1`.

    Returns:
        A `tf.data.Dataset` of tokens and targets, the same one byte later,
        both (batch, length) int32.
    """
    with tf.device("CPU:0"):
        symbols = tf.constant(text)

    def steps_of_epoch(epoch):
        epoch_seed = tf.stack([tf.cast(seed, tf.int64), epoch])
        return tf.data.Dataset.range(steps).map(
            lambda step: tf.random.experimental.stateless_fold_in(
                epoch_seed, step
            )
        )

    def load(step_seed):
        starts = tf.random.stateless_uniform(
            (batch_size, 1), step_seed, 0, len(text) - length, tf.int32
        )
        windows = tf.gather(symbols, starts + tf.range(length + 1))
        windows = tf.cast(windows, tf.int32)
        return windows[:, :-1], windows[:, 1:]

    dataset = tf.data.Dataset.range(start_epoch, epochs)
    dataset = dataset.flat_map(steps_of_epoch).map(load)
    return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_windows(text, length, stride, batch_size, limit=None):
    """Windows in order, in which each byte after the first counts once.

    Args:
        text: uint8 array of more than `length` bytes.
        length, stride: ints, bytes of a window and between starts of windows.
        batch_size: int. The last batch is filled with windows that do not
            count.
        limit: int, at most as many windows, evenly spaced; `None` for all.

    Returns:
        A `tf.data.Dataset` of tokens and targets, (batch, length) int32, and
        weights of the targets, (batch, length) float32, which are 0 or 1.
    """
    last = len(text) - 1 - length
    starts = np.append(np.arange(0, last, stride), last)
    # Targets at the start of a window that the window before has reached.
    reached = np.append(0, starts[:-1] + length - starts[1:])
    if limit is not None and limit < len(starts):
        chosen = np.linspace(0, len(starts) - 1, limit).astype(int)
        starts, reached = starts[chosen], reached[chosen]
    padding = -len(starts) % batch_size
    starts = np.pad(starts, (0, padding))
    reached = np.pad(reached, (0, padding), constant_values=length)
    with tf.device("CPU:0"):
        symbols = tf.constant(text)

    def load(starts, reached):
        windows = tf.gather(symbols, starts[:, None] + tf.range(length + 1))
        windows = tf.cast(windows, tf.int32)
        weights = tf.range(length)[None] >= reached[:, None]
        return windows[:, :-1], windows[:, 1:], tf.cast(weights, tf.float32)

    dataset = tf.data.Dataset.from_tensor_slices(
        (starts.astype("int32"), reached.astype("int32"))
    )
    dataset = dataset.batch(batch_size, drop_remainder=True).map(load)
    return dataset.prefetch(tf.data.AUTOTUNE)


class BitsPerByte(keras.metrics.SparseCategoricalCrossentropy):
    """The mean cross-entropy of logits in bits, of bytes with their weights."""

    def __init__(self, name="bits_per_byte", dtype=None):
        super().__init__(name, dtype, from_logits=True)

    def result(self):
        return super().result() / math.log(2)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


# Sampling.


def sample(model, prompt, num_bytes, temperature=1.0, top_k=None, seed=None):
    """Continues the beginning of a file.

    Args:
        model: model with `generate`, see `keras_topo.models.causal_lm`.
        prompt: str, how the file begins.
        num_bytes: int, at most as many bytes are added.
        temperature, top_k, seed: see `generate`.

    Returns:
        A str: the prompt and what follows, up to the end of the file.
    """
    beginning = bytes([SEPARATOR]) + prompt.encode()
    tokens = np.frombuffer(beginning, "uint8").astype("int32")[None]
    found = model.generate(
        tokens, num_bytes, temperature=temperature, top_k=top_k, seed=seed
    )
    text = np.asarray(found)[0].astype("uint8").tobytes()[len(beginning) :]
    text = text.split(bytes([SEPARATOR]))[0]
    return prompt + text.decode(errors="replace")
