"""Saving a model as a preset."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_topo.annotations import StrPath
from keras_topo.presets.builders import recipe_of, set_recipe
from keras_topo.presets.cards import uploaded
from keras_topo.presets.configurations import (
    leaf_layers,
    model_from_json,
    model_to_json,
    quantize_again,
    reason,
)
from keras_topo.presets.folders import (
    CARD,
    CONFIG,
    METRICS,
    PREPROCESSOR,
    WEIGHTS,
    write_checksums,
    write_json,
)
from keras_topo.presets.hub import hub, hub_handle

FORMAT = 1


def save_preset(
    model: keras.Model,
    folder: StrPath,
    preprocessor: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    card: str | None = None,
) -> pathlib.Path | str:
    """Saves a model as configuration and weights, for `from_preset`.

    The preset loads with every version of Keras that keras_topo supports, and
    can run no code where it is loaded. For a model of a builder (`topvit` and
    the others of `keras_topo.models`, or a function under
    `keras_topo.presets.builder`) it holds the builder's name and arguments,
    and for any other model the configuration of Keras. The optimizer is not
    saved, and adapters of `enable_lora` are added to the weights that they
    adapt.

    Args:
        model: a built `keras.Model` of layers of Keras, of keras_topo, or of
            classes that `keras.saving.register_keras_serializable` registers.
        folder: where to, made if need be; files of other names stay. Or
            `"hf://user/repository"`, with a branch after `@` if need be, to
            which it is uploaded, made if need be, where huggingface_hub is
            installed and logged in.
        preprocessor: dict of JSON values, what turns raw inputs into those of
            the model. Keys that keras_topo writes and reads: `task`
            (`"images"`, `"graphs"`, `"nodes"`, or that of an estimator),
            `image_shape` (pixels from 0 to 255, with channels), `class_names`
            (in the order of the logits), `graph_preprocessor` (`get_config()`
            of a `GraphPreprocessor`) and `features` (how nodes are described).
        metrics: dict of JSON values, how the model was made and how good it
            is. Numbers and arrays of NumPy may stand for JSON's in both.
        card: str, Markdown for readers. What is uploaded has one in any case,
            by default of the other arguments.

    Returns:
        The folder, a `pathlib.Path`, or the handle.

    Raises:
        ValueError: if the model is not built, or holds what cannot be loaded
            again: layers with code in them, unregistered classes, vocabularies
            in other files; or if a value is none of JSON. The folder is then
            as it was.
        ImportError: for `hf://` without huggingface_hub.

    Example:

    >>> model = keras_topo.models.topvit((32, 2, 64, 1), num_classes=2)
    >>> names = {"class_names": ["daisy", "rose"]}
    >>> folder = keras_topo.save_preset(model, "presets/flowers", names)
    >>> again = keras_topo.from_preset("presets/flowers")
    >>> images = np.random.rand(1, 32, 32, 3)
    >>> print(np.allclose(again(images), model(images), atol=1e-5))
    True
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"`model` expects a built keras.Model. Received: model={model!r}"
        )
    text = os.fspath(folder)
    if text.startswith("hf://"):
        return _upload(model, text, preprocessor, metrics, card)
    folder = pathlib.Path(text).expanduser()
    _check_folder(folder)
    described = {
        PREPROCESSOR: _as_json(preprocessor, "preprocessor"),
        METRICS: _as_json(metrics, "metrics"),
    }
    config, made = model_to_json(model)
    config = {
        "format": FORMAT,
        "keras_version": keras.version(),
        **config,
    }
    _check_assets(model)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ("partial." + WEIGHTS)
    try:
        with _without_optimizer(model):
            model.save_weights(partial, overwrite=True)
        _check_loads(config, made, partial)
        os.replace(partial, folder / WEIGHTS)
    finally:
        partial.unlink(missing_ok=True)
    write_json(folder / CONFIG, config)
    for name, value in described.items():
        # What an earlier preset left there is of another model.
        (folder / name).unlink(missing_ok=True)
        if value is not None:
            write_json(folder / name, value)
    if card is not None:
        (folder / CARD).write_text(card, encoding="utf-8")
    write_checksums(folder)
    return folder


def _as_json(value, name):
    """`value` as what JSON can hold, before anything is written."""

    def converted(found):
        if isinstance(found, (np.generic, np.ndarray)):
            return found.tolist()
        raise TypeError(f"{found!r:.200} of type {type(found).__name__}")

    if value is None:
        return None
    try:
        text = json.dumps(dict(value), default=converted, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` expects a dict of JSON values, whose numbers are "
            f"finite. Received: {error}"
        ) from error
    return json.loads(text)


def _check_folder(folder):
    """Refuses a file, before anything is written."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(
                f"`folder` expects a folder. Received: {folder}, where {path} "
                "is a file"
            )


def copied(model: keras.Model) -> keras.Model:
    """A clone with untrained weights that knows how it was built, too.

    Args:
        model: functional or Sequential.

    Returns:
        What `keras.models.clone_model` gives.
    """
    clone = keras.models.clone_model(model)
    set_recipe(clone, recipe_of(model))
    return clone


@contextlib.contextmanager
def _without_optimizer(model):
    """Keras saves the state of an optimizer with the weights."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        model.optimizer = None
    try:
        yield
    finally:
        if optimizer is not None:
            model.optimizer = optimizer


def _check_loads(config, made, weights):
    """Whether what was written makes a model again; `made` is one without
    weights, or `None`."""
    try:
        model = made or model_from_json(config)
        quantize_again(model, config.get("quantized", {}))
        model.load_weights(weights)
    except Exception as error:  # Of whatever kind a foreign class raises.
        raise ValueError(
            "`model` expects layers that load again from their configuration "
            f"and weights. Received: a model of which one does "
            f"not: {reason(error)}"
        ) from error


def _check_assets(model):
    """Refuses layers that keep some of their state in files."""
    with tempfile.TemporaryDirectory() as folder:
        for layer in leaf_layers(model):
            if hasattr(layer, "save_assets"):
                layer.save_assets(folder)
        files = sorted(os.listdir(folder))
    if files:
        raise ValueError(
            "`model` expects layers whose state is weights or configuration: "
            "give vocabularies to their layers as lists. Received: a model "
            f"with {', '.join(files)}"
        )


def _upload(model, handle, preprocessor, metrics, card):
    module = hub(handle)
    repository, revision = hub_handle(handle)
    if card is None:
        any_size = any(None in x.shape[1:] for x in model.inputs)
        card = uploaded(handle, preprocessor, metrics, any_size)
    with tempfile.TemporaryDirectory() as folder:
        save_preset(model, folder, preprocessor, metrics, card)
        module.create_repo(repository, exist_ok=True)
        if revision is not None:
            module.create_branch(repository, branch=revision, exist_ok=True)
        module.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message="Upload with keras_topo.save_preset",
        )
    return handle
