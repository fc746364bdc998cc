"""Text files as bytes, in splits and in windows."""

import hashlib
import os
import sysconfig
from pathlib import Path

import numpy as np
import tensorflow as tf

SEPARATOR = 0
# Folders of the standard library without library source code: tests, other
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


# Data.


def read_files(data="python", pattern="*.py"):
    """Reads the text files of the standard library, or of a folder.

    Args:
        data: `"python"`, or the path of a folder.
        pattern: pattern of file names, for a folder.

    Returns:
        A dict from relative paths, with `/`, to bytes, in the order of paths.

    Raises:
        ValueError: if there are no files, or one has a zero byte.
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
            '`data` expects "python" or a folder with text files that match '
            f"`pattern`. Received: data={data!r}, pattern={pattern!r}"
        )
    for path, content in files.items():
        if SEPARATOR in content:
            raise ValueError(
                "`data` expects text files without zero bytes. Received: "
                f"{str(folder / path)!r}"
            )
    return dict(sorted(files.items()))


def _library_files(folder):
    """The source files of the standard library, the same on every machine."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_OUT and not name.startswith("config-")
        ]
        for name in names:
            # Generated files contain paths of the machine.
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
    """Windows at random offsets that depend on the seed and the epoch only.

    Args:
        text: uint8 array.
        length: int, bytes per window.
        batch_size, steps: ints, windows per batch and batches per epoch.
        seed: int.
        start_epoch, epochs: ints; the epochs `start_epoch` ... `epochs - 1`.

    Returns:
        A `tf.data.Dataset` of tokens and targets, both (batch, length) int32.
        Targets are the tokens one byte later.
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
        length, stride: ints, bytes per window and between starts of windows.
        batch_size: int. The last batch is padded with windows of weight zero.
        limit: int, largest number of windows, evenly spaced; `None` for all.

    Returns:
        A `tf.data.Dataset` of tokens and targets, (batch, length) int32, and
        weights of the targets, (batch, length) float32, which are 0 or 1.
    """
    last = len(text) - 1 - length
    starts = np.append(np.arange(0, last, stride), last)
    # Number of targets of each window that the previous window covers.
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
