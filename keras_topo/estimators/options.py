"""Options that all estimators share, and how they are checked."""

import inspect
import numbers

import numpy as np

from keras_topo.arguments import positive, rate
from keras_topo.models import MODELS

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


def training_options(given):
    """`TRAINING` with what was given, checked.

    Raises:
        ValueError: if a value is outside its range; the message names it.
    """
    options = {**TRAINING, **given}
    for name in ("epochs", "batch_size"):
        options[name] = positive(options[name], name)
    _number("learning_rate", options["learning_rate"])
    _number("weight_decay", options["weight_decay"])
    if options["clip_norm"] is not None:
        _number("clip_norm", options["clip_norm"], above_zero=True)
    rate(options["label_smoothing"], "label_smoothing")
    seed = options["seed"]
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(
            f"`seed` expects an int that is not negative. Received: {seed!r}"
        )
    return options


def check_model(model):
    """`model`, a key of `MODELS` or a function."""
    known = isinstance(model, str) and model in MODELS
    if not known and not callable(model):
        raise ValueError(
            f"`model` expects one of {tuple(MODELS)}, or a function that "
            f"builds one. Received: model={model!r}"
        )
    return model


def check_model_options(model, options):
    """Raises a ValueError for options that the model does not have."""
    builder = MODELS[model].builder if isinstance(model, str) else model
    parameters = inspect.signature(builder).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        known = sorted({*TRAINING, *parameters} - OF_THE_DATA | {"seed"})
        raise ValueError(
            f"`options` expects some of {', '.join(known)}. Received: "
            f"{', '.join(unknown)}"
        )


def _number(name, value, above_zero=False):
    is_number = isinstance(value, numbers.Real) and np.isfinite(value)
    if not is_number or value < 0 or (above_zero and value == 0):
        least = "above zero" if above_zero else "from zero"
        raise ValueError(
            f"`{name}` expects a number {least}. Received: {name}={value!r}"
        )
