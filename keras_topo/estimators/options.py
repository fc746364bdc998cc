"""Options that all estimators share, and how they are checked."""

import contextlib
import inspect
import numbers
import random
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

import keras
import numpy as np

from keras_topo.arguments import positive, rate
from keras_topo.models import MODELS
from keras_topo.presets.builders import Recipe

# Arguments of training, and their defaults.
TRAINING = {
    "epochs": 100,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "clip_norm": 1.0,
    "label_smoothing": 0.0,
    "seed": 0,
}
# What the estimator tells the function that builds the model.
OF_THE_DATA = {
    "num_features",
    "num_classes",
    "num_kernels",
    "num_edge_features",
    "feature_statistics",
    "level",
    "batching",
    "seed",
    "target_statistics",
}


def training_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`TRAINING` with what was given, checked.

    Raises:
        ValueError: if a value is outside its range; the message names it.
    """
    options = {**TRAINING, **given}
    for name in ("epochs", "batch_size"):
        options[name] = positive(options[name], name)
    smoothing = rate(options["label_smoothing"], "label_smoothing")
    return {
        **options,
        **optimizer_options(options),
        "label_smoothing": float(smoothing),
        "seed": seed_option(options["seed"]),
    }


def optimizer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`learning_rate`, `weight_decay` and `clip_norm`, checked: floats."""
    return {
        name: None
        if name == "clip_norm" and options[name] is None
        else float(non_negative(options[name], name))
        for name in ("learning_rate", "weight_decay", "clip_norm")
    }


def seed_option(seed: int) -> int:
    """`seed`, checked: an int."""
    is_int = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    # As NumPy's generators do.
    if not is_int or not 0 <= seed < 2**32:
        raise ValueError(
            f"`seed` expects an int from 0 to below 2**32. Received: {seed!r}"
        )
    return int(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds all random numbers, as `keras.utils.set_random_seed`.

    Afterwards, Python's and NumPy's go on as before: a caller who draws splits
    between trainings does not draw the same one each time.
    """
    states = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def listed(
    callbacks: keras.callbacks.Callback | Iterable[keras.callbacks.Callback],
) -> list[keras.callbacks.Callback]:
    """One callback or several, as a list."""
    if isinstance(callbacks, keras.callbacks.Callback):
        return [callbacks]
    return list(callbacks)


def check_model(model: Any) -> str | Callable[..., Any]:
    """`model`, a key of `MODELS` or a function."""
    known = isinstance(model, str) and model in MODELS
    if not known and not callable(model):
        raise ValueError(
            f"`model` expects one of {tuple(MODELS)}, or a function that "
            f"builds one. Received: model={model!r}"
        )
    return model


def check_model_options(
    model: str | Callable[..., Any], options: Mapping[str, Any]
) -> None:
    """Raises a ValueError for options that the model does not have."""
    builder = MODELS[model].builder if isinstance(model, str) else model
    check_options(builder, options, {*TRAINING}, OF_THE_DATA)


def check_options(
    builder: Callable[..., Any],
    options: Mapping[str, Any],
    training: Collection[str],
    given: Collection[str],
) -> None:
    """Raises a ValueError for options that a function that builds models lacks.

    Args:
        builder: the function.
        options: what it is to be called with.
        training: names of options of training, which its estimator has.
        given: names of arguments that the estimator gives it.
    """
    parameters = inspect.signature(builder).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = set() if takes_any else set(options) - set(parameters)
    # What follows from the data is not to be said otherwise.
    unknown = sorted(unknown | set(options) & ({*given} - {"seed"}))
    if unknown:
        known = sorted({*training, *parameters} - {*given} | {"seed"})
        raise ValueError(
            f"`options` expects some of {', '.join(known)}. Received: "
            f"{', '.join(unknown)}"
        )


def options_of(recipe: Recipe, without: Collection[str]) -> dict[str, Any]:
    """How a model was built, but for what a caller gives its builder anew."""
    return {k: x for k, x in recipe.arguments.items() if k not in without}


def non_negative(value: float, name: str) -> float:
    """`value`, which must be a finite number from zero."""
    is_number = isinstance(value, numbers.Real) and np.isfinite(value)
    if not is_number or value < 0:
        raise ValueError(
            f"`{name}` expects a number from zero. Received: {name}={value!r}"
        )
    return value
