"""Language models of bytes, measured in bits per byte.

The data are the source files of the Python standard library, or the text files
of a folder. A hash of the relative path assigns each file to a split: one in
ten to validation, one in ten to test, the others to training. A split joins its
files in the order of their paths, with a zero byte before, between and after
them. Text has no zero bytes, so 256 symbols are enough.

The model is trained on windows of `length` bytes at random offsets. Each byte
of the validation and test splits is predicted once. Windows of the same length
start every `stride` bytes, and each counts only the bytes that the previous
window did not reach. So every byte is predicted from at least `length - stride`
and at most `length` earlier bytes, except near the start of the split. Zero
bytes, which end files, are predicted and counted like other bytes.
"""

import dataclasses
import hashlib
import math
import platform
from typing import Literal

import keras
import numpy as np

from keras_topo.training.masks_by_name import check_mask, mask_of
from keras_topo.training.settings import (
    CosineSettings,
    PositiveInt,
    Rate,
)
from keras_topo.training.tasks import Task
from keras_topo.training.text_data import (
    SEPARATOR,
    evaluation_windows,
    join_files,
    read_files,
    split_files,
    training_windows,
)

VOCABULARY_SIZE = 256
SAMPLE_BYTES = 400


class Text(Task):
    """Predicts the next byte; see `keras_topo.training.tasks`.

    Args:
        settings: `TextSettings`.
    """

    name = "text"
    monitor = ("bits_per_byte", False)
    contents = {"sample.txt": "text sampled from the model"}

    def __init__(self, settings, split=None):
        super().__init__(settings, split)
        length, stride = settings.length, settings.stride
        if stride > length:
            raise ValueError(
                "`stride` expects at most `length`, so that no byte is left "
                f"out. Received: stride={stride}, length={length}"
            )
        files = read_files(settings.data, settings.pattern)
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
            if settings.data == "python"
            else None,
            "data_sha256": hashlib.sha256(join_files(files)).hexdigest(),
            "data_files": len(files),
            "data_bytes": {n: len(text) - 1 for n, text in self.splits.items()},
        }
        self.title = (
            f"{settings.similarity} attention, mask {settings.mask}, "
            f"positions {settings.positions}"
        )
        self.steps_per_epoch = settings.updates_per_epoch

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

        settings = self.settings
        names = ("channels", "num_heads", "mlp_dim", "depth", "dropout")
        names += ("similarity", "positions", "seed")
        return causal_lm(
            vocabulary_size=VOCABULARY_SIZE,
            max_length=settings.length if self._is_bounded else None,
            name="causal_lm",
            mask=mask_of(settings.mask),
            **{name: getattr(settings, name) for name in names},
        )

    @property
    def _is_bounded(self):
        """Whether the model has a maximum length: tables, learned positions."""
        settings = self.settings
        mask = mask_of(settings.mask)
        has_table = mask is not None and mask.needs_reach
        return has_table or bool(settings.positions)

    def compile(self, model, jit_compile):
        model.compile(
            optimizer=self.settings.optimizer(model, self.steps_per_epoch),
            loss=keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            ),
            weighted_metrics=[BitsPerByte(), "accuracy"],
            jit_compile=jit_compile,
        )

    def training_data(self, start_epoch):
        settings = self.settings
        return training_windows(
            self.splits["train"],
            settings.length,
            settings.batch_size,
            settings.updates_per_epoch,
            settings.seed,
            start_epoch,
            settings.epochs,
        )

    def validation_data(self):
        """A few windows of the validation split, for the curves."""
        return self._windows("validation", self.settings.validation_windows)

    def _windows(self, split, limit=None):
        settings = self.settings
        return evaluation_windows(
            self.splits[split],
            settings.length,
            settings.stride,
            settings.batch_size,
            limit,
        )

    def evaluate(self, model, parts=("validation", "test")):
        found = {}
        for split in parts:
            results = model.evaluate(
                self._windows(split), verbose=0, return_dict=True
            )
            for metric in ("bits_per_byte", "accuracy"):
                found[f"{split}_{metric}"] = float(results[metric])
        return found

    def finish(self, folder, model, untrained):
        count = SAMPLE_BYTES
        if self._is_bounded:
            count = min(count, self.settings.length - 1)
        text = sample(model, "", count, seed=self.settings.seed)
        (folder / "sample.txt").write_text(text, encoding="utf-8")
        return {}

    def report(self, summary):
        return (
            f"Test: {summary['test_bits_per_byte']:.3f} bits per byte, "
            f"{summary['test_accuracy']:.1%} of the bytes correct"
        )


@dataclasses.dataclass(frozen=True)
class TextSettings(CosineSettings):
    """Settings of language models of bytes."""

    task = Text

    data: str = "python"
    """python (its standard library), or a folder of text files"""
    pattern: str = "*.py"
    """pattern of the file names"""
    length: PositiveInt = 256
    """bytes per window"""
    stride: PositiveInt = 128
    """bytes between starts of windows in testing"""
    validation_windows: PositiveInt = 256
    """number of validation windows for the curves"""
    mask: str = "decay"
    """the name of a mask, none, MODULE:CLASS or FILE.py:CLASS, or a product of
    these, such as 'table*gated'"""
    similarity: str = "relu"
    """similarity of queries and keys"""
    positions: Literal["learned"] | None = None
    """position embedding added to the tokens"""
    channels: PositiveInt = 128
    """channels per token"""
    num_heads: PositiveInt = 4
    """number of attention heads"""
    mlp_dim: PositiveInt = 256
    """hidden units of the feed-forward layers"""
    depth: PositiveInt = 4
    """number of blocks"""
    dropout: Rate = 0.0
    """dropout rate after the branches"""
    updates_per_epoch: PositiveInt = 300
    """batches per epoch"""

    def __post_init__(self):
        super().__post_init__()
        check_mask(self.mask)

    def unread(self):
        if self.data == "python":
            return {"pattern": "data='python'"}
        return {}


class BitsPerByte(keras.metrics.SparseCategoricalCrossentropy):
    """The weighted mean cross-entropy of logits, in bits."""

    def __init__(self, name="bits_per_byte", dtype=None):
        super().__init__(name, dtype, from_logits=True)

    def result(self):
        return super().result() / math.log(2)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


# Sampling.


def sample(model, prompt, num_bytes, temperature=1.0, top_k=None, seed=None):
    """Samples a file that starts with a prompt.

    Args:
        model: model with `generate`, see `keras_topo.models.causal_lm`.
        prompt: str, the start of the file.
        num_bytes: int, largest number of bytes to add.
        temperature, top_k, seed: see `generate`.

    Returns:
        A str: the prompt and its continuation, up to the end of the file.
    """
    beginning = bytes([SEPARATOR]) + prompt.encode()
    tokens = np.frombuffer(beginning, "uint8").astype("int32")[None]
    found = model.generate(
        tokens, num_bytes, temperature=temperature, top_k=top_k, seed=seed
    )
    text = np.asarray(found)[0].astype("uint8").tobytes()[len(beginning) :]
    text = text.split(bytes([SEPARATOR]))[0]
    return prompt + text.decode(errors="replace")
