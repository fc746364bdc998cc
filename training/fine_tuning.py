"""`--from` and `--freeze`: fine-tuning a trained model."""

import dataclasses
from pathlib import Path

import keras

from keras_topo.presets import find_preset, read_metrics


def check(settings):
    """Raises a ValueError for `freeze` without `preset`."""
    if settings.freeze and settings.preset is None:
        raise ValueError("--freeze expects --from. Received: no --from")


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
