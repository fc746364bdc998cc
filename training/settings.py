"""Training settings: dataclasses whose fields are checked.

The type of a field defines its valid values: `PositiveInt`, `Rate`, a
`Literal`, and so on. The docstring below a field is its command-line help.
"""

import dataclasses
import math
import types
import typing
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The valid numbers of a type, in words and as a test."""

    words: str
    admits: typing.Callable


PositiveInt = Annotated[int, Bounds("a positive integer", lambda v: v > 0)]
Natural = Annotated[int, Bounds("a non-negative integer", lambda v: v >= 0)]
PositiveFloat = Annotated[float, Bounds("a positive number", lambda v: v > 0)]
NaturalFloat = Annotated[
    float, Bounds("a non-negative number", lambda v: v >= 0)
]
Rate = Annotated[float, Bounds("a number in [0, 1)", lambda v: 0 <= v < 1)]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of every training; each task adds its own.

    Attributes:
        task: class of the task that has these settings, see
            `keras_topo.training.tasks`.

    Raises:
        ValueError: if a field has an invalid value.
    """

    task: typing.ClassVar[type]

    epochs: PositiveInt = 10
    """number of epochs, at most"""
    learning_rate: PositiveFloat = 1e-3
    """peak learning rate"""
    weight_decay: NaturalFloat = 0.0
    """weight decay of kernels"""
    choose_epoch: Literal["last", "validation"] = "last"
    """epoch to keep: the last, or the best on the validation data"""
    patience: PositiveInt | None = None
    """with choose_epoch validation: stop after this many epochs without
    improvement"""
    jit: Literal["auto", "on", "off"] = "auto"
    """compile with XLA; auto: if there is an accelerator"""
    dtype_policy: Literal["float32", "mixed_bfloat16", "mixed_float16"] = (
        "float32"
    )
    """mixed: compute in 16 bits"""
    seed: Natural = 0
    """seed of all random numbers"""

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
        """The final settings of a run.

        Args:
            given: names of the settings on the command line.
        """
        return self

    def unread(self):
        """Settings that have no effect, given the others.

        Returns:
            A dict from names to reasons, such as `"model='gcn'"`.
        """
        return {}

    def used(self):
        """The settings that a training uses and records."""
        return self


@dataclasses.dataclass(frozen=True)
class CosineSettings(Settings):
    """Settings of AdamW with warm-up and cosine decay, see `fitting.adamw`."""

    batch_size: PositiveInt = 32
    """examples per batch"""
    warmup_epochs: Natural = 0
    """epochs over which the learning rate rises"""
    clip_norm: PositiveFloat | None = 1.0
    """maximum global norm of the gradients"""

    def used(self):
        """Shortens the warm-up if it exceeds the epochs, so that a short trial
        keeps the shape of the schedule."""
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
    """What a type expects, in words, if a value does not match; else None."""
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
    """The settings with changed values.

    Args:
        settings: instance of `Settings`.
        changes: dict from field names to values.

    Raises:
        ValueError: for an unknown name or an invalid value.
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


def default_arguments(settings):
    """The defaults of the settings, as `as_arguments` gives values."""
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in dataclasses.fields(settings)
        if (value := field.default) is not dataclasses.MISSING
    }
