"""`--from` and the options that need it: fine-tuning a trained model."""

import dataclasses
from pathlib import Path

import keras
import numpy as np

from keras_topo.presets import find_preset, read_metrics, read_preprocessor
from keras_topo.presets.configurations import are_alike


def check(settings):
    """Raises a ValueError for settings that expect `preset`, without it."""
    for name in ("freeze", "average_with", "freeze_batch_norm"):
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
        others: list of pairs of a name and a Keras model like `model`.
        keeps_last_layer: bool, whether the last layers are trained. Otherwise
            `model` keeps its own.

    Raises:
        ValueError: if a model is another function of its weights.
    """
    for name, other in others:
        if not are_alike(model, other):
            raise ValueError(
                "--average-with expects models that differ from that of --from "
                f"in their weights alone. Received: {name}"
            )
    means = [
        # Not of integers, such as states of random generators.
        values[0] if values[0].dtype.kind in "biu" else np.mean(values, axis=0)
        for values in zip(
            model.get_weights(),
            *(other.get_weights() for _, other in others),
            strict=True,
        )
    ]
    if not keeps_last_layer:
        own = model.layers[-1].get_weights()
        means[len(means) - len(own) :] = own
    model.set_weights(means)


def class_names(name):
    """Class names of a preset, a list, or `None` if it has none."""
    return read_metrics(find_preset(name)).get("class_names") or (
        read_preprocessor(name).get("class_names")
    )


def refuse_known_validation(settings):
    """Raises a ValueError if validation images would be images that a model
    of `--from` or `--average-with` was trained on, in its last training."""
    if getattr(settings, "train_on_validation", False) or not settings.preset:
        return
    for name in (settings.preset, *getattr(settings, "average_with", ())):
        arguments = read_metrics(find_preset(name)).get("arguments", {})
        same = Path(arguments.get("data", "")).name == Path(settings.data).name
        if same and arguments.get("train_on_validation"):
            raise ValueError(
                "--from and --average-with expect models that do not know the "
                "validation images, or --train-on-validation of a training of "
                f"images. Received: {name}, trained on them"
            )


def describe(settings):
    """A description of the model."""
    names = (settings.preset, *getattr(settings, "average_with", ()))
    start = " and ".join(Path(name).name for name in names)
    mean = "mean of " * (len(names) > 1)
    frozen = ", last layer" if settings.freeze else ""
    return f"{mean}{start}, fine-tuned{frozen}"


def freeze_all_but_last(model):
    """Freezes all layers but the last. If the last layer is a model, all of its
    layers but the last are frozen too."""
    for layer in model.layers[:-1]:
        layer.trainable = False
    if isinstance(model.layers[-1], keras.Model):
        freeze_all_but_last(model.layers[-1])


def batch_norm_layers(model):
    """The layers of batch normalization of a model, a list."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def freeze_batch_norm(model):
    """Freezes batch normalization, which then uses its statistics in training
    as in inference.

    Args:
        model: Keras model.

    Raises:
        ValueError: if the model has none.
    """
    layers = batch_norm_layers(model)
    if not layers:
        raise ValueError(
            "--freeze-batch-norm expects a model with batch normalization. "
            "Received: a model without it"
        )
    for layer in layers:
        layer.trainable = False
