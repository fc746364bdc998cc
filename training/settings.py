"""Settings of trainings: dataclasses whose fields are checked.

A field says what it takes by its type: `PositiveInt`, `Rate`, a `Literal`, and
so on. The docstring below it is its help on the command line.
"""

import dataclasses
import math
import types
import typing
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Which numbers a type admits, in words and as a test."""

    words: str
    admits: typing.Callable


PositiveInt = Annotated[int, Bounds("a positive integer", lambda v: v > 0)]
Natural = Annotated[int, Bounds("an integer from 0 on", lambda v: v >= 0)]
PositiveFloat = Annotated[float, Bounds("a positive number", lambda v: v > 0)]
NaturalFloat = Annotated[float, Bounds("a number from 0 on", lambda v: v >= 0)]
Rate = Annotated[float, Bounds("a number in [0, 1)", lambda v: 0 <= v < 1)]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every training is told; each task adds its own.

    Attributes:
        task: class of the task that has these settings, see
            `keras_topo.training.tasks`.

    Raises:
        ValueError: a field has a value that its type does not admit.
    """

    task: typing.ClassVar[type]

    epochs: PositiveInt = 10
    """how often the model sees the training data, at most"""
    learning_rate: PositiveFloat = 1e-3
    """of the optimizer, at its peak"""
    weight_decay: NaturalFloat = 0.0
    """of kernels"""
    choose_epoch: Literal["last", "validation"] = "last"
    """which epoch counts: the last, or the best on validation data"""
    patience: PositiveInt | None = None
    """with choose_epoch validation: stop after so many epochs that were no
    better"""
    jit: Literal["auto", "on", "off"] = "auto"
    """compile with XLA; auto: where there is an accelerator"""
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = (
        "float32"
    )
    """mixed: compute in 16 bits"""
    seed: Natural = 0
    """of everything random"""

    def __post_init__(self):
        hints = typing.get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            expected = mismatch(value, hints[field.name])
            if expected:
                raise ValueError(
                    f"`{field.name}` expects {expected}. Received: "
                    f"{field.name}={value!r}"
                )
        if self.patience and self.choose_epoch == "last":
            raise ValueError(
                "`patience` expects choose_epoch='validation'. Received: "
                f"patience={self.patience}, choose_epoch='last'"
            )

    def resolved(self, given):
        """The settings as a run has them.

        Args:
            given: names of the settings that stood on the command line.
        """
        return self

    def unread(self):
        """Settings that nothing reads, given the others.

        Returns:
            A dict from their names to why, such as `"model='gcn'"`.
        """
        return {}

    def used(self):
        """The settings that a training follows, which is what is recorded."""
        return self


@dataclasses.dataclass(frozen=True)
class CosineSettings(Settings):
    """Settings of AdamW with warm-up and a cosine, see `fitting.adamw`."""

    batch_size: PositiveInt = 32
    """examples of a batch"""
    warmup_epochs: Natural = 0
    """epochs in which the learning rate rises"""
    clip_norm: PositiveFloat | None = 1.0
    """bound on the global norm of the gradients"""

    def used(self):
        """With a warm-up within the epochs: a short trial keeps the shape of
        the schedule."""
        if self.warmup_epochs < self.epochs:
            return self
        return dataclasses.replace(self, warmup_epochs=self.epochs // 3)

    def optimizer(self, model, steps_per_epoch, accumulate=1, average=0.0):
        """The optimizer for a model."""
        from keras_topo.training.fitting import adamw

        return adamw(
            model,
            self.learning_rate,
            self.weight_decay,
            steps_per_epoch,
            self.epochs,
            self.used().warmup_epochs,
            self.clip_norm,
            accumulate,
            average,
        )


def mismatch(value, hint):
    """What a type expects, in words, where a value is not of it; else None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [b for b in hint.__metadata__ if isinstance(b, Bounds)]
        kind = mismatch(value, arguments[0])
        for b in bounds:
            if kind or not b.admits(value):
                return b.words
        return kind
    if origin in (typing.Union, types.UnionType):
        found = [mismatch(value, each) for each in arguments]
        return " or ".join(found) if all(found) else None
    if origin is Literal:
        return None if value in arguments else f"one of {arguments}"
    if origin in (tuple, list):
        if not isinstance(value, (tuple, list)):
            return "a tuple"
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        if len(arguments) != len(value):
            return f"{len(arguments)} values"
        found = [mismatch(*pair) for pair in zip(value, arguments, strict=True)]
        return next((f"each to be {words}" for words in found if words), None)
    if hint in (None, type(None)):
        return None if value is None else "None"
    if isinstance(value, bool) and hint is not bool:
        return f"a value of type {hint.__name__}"
    if hint is float:
        real = isinstance(value, (int, float)) and math.isfinite(value)
        return None if real else "a number"
    if isinstance(value, hint):
        return None
    names = {int: "an integer", bool: "True or False", str: "a text"}
    return names.get(hint, f"a value of type {hint.__name__}")


def with_changes(settings, changes):
    """The settings with other values.

    Args:
        settings: instance of `Settings`.
        changes: dict from names of fields.

    Raises:
        ValueError: an unknown name, or a value that is not admitted.
    """
    known = [field.name for field in dataclasses.fields(settings)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(
            f"Settings of this config are {', '.join(sorted(known))}. "
            f"Received: {', '.join(unknown)}"
        )
    return dataclasses.replace(
        settings,
        **{
            k: tuple(v) if isinstance(v, list) else v
            for k, v in changes.items()
        },
    )


def as_arguments(settings):
    """The settings as a dict of values that JSON can hold."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(settings).items()
    }
