"""`--from` and `--freeze`: going on from a trained model."""

import dataclasses
from pathlib import Path

import keras

from keras_topo.presets import find_preset, read_metrics


def check(settings):
    """Raises a ValueError for `freeze` without `preset`."""
    if settings.freeze and settings.preset is None:
        raise ValueError("--freeze expects --from. Received: no --from")


def resolved(settings, given, task, decided):
    """The settings with what the trained model has decided.

    Args:
        settings: dataclass with `preset`.
        given: names of the settings on the command line.
        task: str, that of the preset.
        decided: names of settings.

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
            "--from expects no options that the trained model has decided. "
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
    """The model in words."""
    frozen = ", last layer" if settings.freeze else ""
    return f"{Path(settings.preset).name}, fine-tuned{frozen}"


def freeze_all_but_last(model):
    """Leaves the last layer of a model trainable, and of one behind another
    the last one of that."""
    for layer in model.layers[:-1]:
        layer.trainable = False
    if isinstance(model.layers[-1], keras.Model):
        freeze_all_but_last(model.layers[-1])
