"""`--from` and `--freeze`: fine-tuning a trained model."""

import dataclasses
from pathlib import Path

import keras
import numpy as np

from keras_topo.presets import find_preset, read_metrics
from keras_topo.presets.builders import recipe_of, recipe_to_json


def check(settings):
    """Raises a ValueError for settings that expect `preset`, without it."""
    for name in ("freeze", "average_with"):
        if getattr(settings, name, None) and settings.preset is None:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} expects --from. Received: no --from")


def resolved(settings, given, task, decided):
    """The settings, with those that the trained model has fixed.

    Args:
        settings: dataclass with `preset`.
        given: names of the settings on the command line.
        task: str, the task of the preset.
        decided: names of the fixed settings.

    Raises:
        ValueError: if the command line has one of `decided`, or the preset is
            of another task.
    """
    if settings.preset is None:
        return settings
    wrong = sorted(set(given) & set(decided))
    if wrong:
        names = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise ValueError(
            "--from expects no options that the trained model has fixed. "
            f"Received: {names}"
        )
    metrics = read_metrics(find_preset(settings.preset))
    if metrics.get("task", task) != task:
        raise ValueError(
            f"--from expects a model of {task}. Received: {settings.preset}, "
            f"of {metrics['task']}"
        )
    trained = metrics.get("arguments", {})
    found = {
        name: tuple(v) if isinstance(v := trained[name], list) else v
        for name in decided
        if trained.get(name) is not None
    }
    return dataclasses.replace(settings, **found)


def average(model, others, keeps_last_layer=True):
    """Sets the weights of a model to their mean over several models.

    The statistics of batch normalization become means too, but those of the
    mean weights differ. A short training, also at a small learning rate,
    replaces them.

    Args:
        model: Keras model.
        others: dict from names to Keras models, made as `model` was.
        keeps_last_layer: bool, whether the last layers are trained. Otherwise
            `model` keeps its own.

    Raises:
        ValueError: if a model is another function of its weights.
    """
    for name, other in others.items():
        same = [w.shape for w in model.weights] == [
            w.shape for w in other.weights
        ]
        if not same or _recipe(model) != _recipe(other):
            raise ValueError(
                "--average-with expects models that differ from that of --from "
                f"in their weights alone. Received: {name}"
            )
    means = [
        # Not of integers, such as states of random generators.
        values[0] if values[0].dtype.kind in "biu" else np.mean(values, axis=0)
        for values in zip(
            model.get_weights(),
            *(other.get_weights() for other in others.values()),
            strict=True,
        )
    ]
    if not keeps_last_layer:
        own = model.layers[-1].get_weights()
        means[len(means) - len(own) :] = own
    model.set_weights(means)


def _recipe(model):
    """The builder of a model and its arguments, or its configuration."""
    recipe = recipe_of(model)
    return model.to_json() if recipe is None else recipe_to_json(recipe)


def describe(settings):
    """A description of the model."""
    frozen = ", last layer" if settings.freeze else ""
    return f"{Path(settings.preset).name}, fine-tuned{frozen}"


def freeze_all_but_last(model):
    """Freezes all layers but the last. If the last layer is a model, all of its
    layers but the last are frozen too."""
    for layer in model.layers[:-1]:
        layer.trainable = False
    if isinstance(model.layers[-1], keras.Model):
        freeze_all_but_last(model.layers[-1])
