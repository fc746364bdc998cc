"""Trained models by name: what there is, and loading one to go on with."""

import json
import operator
import os
import pathlib

import keras

from keras_topo.layers import GraphKernelAttention, PositionEmbedding

# Names of the files of a preset.
MODEL, METRICS = "model.keras", "metrics.json"


def presets():
    """The trained models that come with the package.

    Returns:
        A dict from names to dicts with `task` (`"images"`, `"graphs"` or
        `"nodes"`), `data`, `test_accuracy` (0 to 1; the mean over seeds where
        there are several; `metrics.json` has that of the file), `parameters`
        (trainable ones) and `path`, a folder with `model.keras` and
        `metrics.json`, in a checkout with a SavedModel and a model card too.

    Example:

    >>> sorted(keras_topo.presets())
    ['gkat-citeseer', 'gkat-cora', 'gkat-enzymes', ...]
    """
    found = {}
    for zoo in _zoo_folders():
        for file in sorted(zoo.glob(f"*/{MODEL}")):
            folder = file.parent
            if folder.name in found:
                continue
            metrics = read_metrics(folder)
            found[folder.name] = {
                "task": metrics.get("task"),
                "data": metrics.get("arguments", {}).get("data"),
                "test_accuracy": rounded(metrics.get("test_accuracy")),
                "parameters": metrics.get("parameters"),
                "path": str(folder),
            }
    return found


def rounded(share):
    """To a hundredth of a percent, which no test set exceeds."""
    return None if share is None else round(share, 4)


def from_preset(name_or_path, num_classes=None, image_shape=None):
    """Loads a trained model, to use it as it is or to fine-tune it.

    With neither of the other arguments the weights are exactly those that were
    saved. What was changed, and what starts untrained, is printed. All layers
    are trainable, also where some were frozen when the model was saved.

    Args:
        name_or_path: one of `keras_topo.presets()`; a folder that holds
            `model.keras`, such as a run folder of the training scripts; any
            `.keras` file; or `"hf://user/repository"`, with a revision after
            `@` if need be, where huggingface_hub is installed.
        num_classes: int; if it is given, the last layer is replaced by an
            untrained one for so many classes.
        image_shape: `(height, width)` or `(height, width, channels)`, of a
            model of images; its position embeddings and Toeplitz masks are
            resampled to the new grid, linearly and relative to its extent, so
            that they mean the same at another resolution. The weights are kept
            as they were trained; the layers resample in every call.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: if there is no such preset, `num_classes` is not a positive
            int, or `image_shape` does not fit the model.
        ImportError: for `hf://` without huggingface_hub.

    Example:

    >>> model = keras_topo.from_preset("topvit-cifar10", num_classes=3,
    ...                                image_shape=(40, 48))
    >>> model(np.zeros((1, 40, 48, 3))).shape
    (1, 3)
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(
            "`name_or_path` expects a str or a path. Received: name_or_path="
            f"{name_or_path!r}"
        )
    path = pathlib.Path(name_or_path)
    if not (path.suffix == ".keras" and path.is_file()):
        path = find_preset(name_or_path) / MODEL
    # Nothing of anybody else runs, also where unsafe loading was allowed.
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if image_shape is not None:
        model = _with_image_shape(model, image_shape)
    if num_classes is not None:
        model = _with_classes(model, num_classes)
    make_trainable(model)
    return model


def make_trainable(model):
    """Thaws all layers of a model, also where the model itself is trainable."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            make_trainable(layer)
        layer.trainable = True


def find_preset(name_or_path):
    """The local folder of a preset, downloaded if it is an `hf://` handle."""
    text = os.fspath(name_or_path)
    if text.startswith("hf://"):
        return _download(text)
    path = pathlib.Path(text)
    if path.suffix == ".keras" and path.is_file():
        return path.parent
    if (path / MODEL).is_file():
        return path
    if os.sep not in text:
        for zoo in _zoo_folders():
            if (zoo / text / MODEL).is_file():
                return zoo / text
    raise ValueError(
        "`name_or_path` expects a folder with a model.keras, a .keras file, a "
        f"handle hf://user/repository, or one of {sorted(presets())}. "
        f"Received: name_or_path={text!r}"
    )


def read_metrics(folder):
    """What `metrics.json` of a preset says; empty without one."""
    file = pathlib.Path(folder) / METRICS
    return json.loads(file.read_text()) if file.is_file() else {}


def _zoo_folders():
    """Where presets lie: in the installed package, or in a checkout."""
    package = pathlib.Path(__file__).parent
    return [package / "zoo", package.parent / "saved_models"]


def _download(handle):
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "hf:// handles need huggingface_hub: pip install huggingface_hub. "
            f"Received: name_or_path={handle!r}"
        ) from error
    repository, _, revision = handle.removeprefix("hf://").partition("@")
    if repository.count("/") != 1:
        raise ValueError(
            "`name_or_path` expects hf://user/repository or "
            f"hf://user/repository@revision. Received: {handle!r}"
        )
    folder = huggingface_hub.snapshot_download(
        repository, revision=revision or None, allow_patterns=[MODEL, METRICS]
    )
    folder = pathlib.Path(folder)
    if not (folder / MODEL).is_file():
        raise ValueError(f"{handle} has no {MODEL}. Received: {handle!r}")
    return folder


def _with_image_shape(model, image_shape):
    """The model on another grid, with the same weights."""
    (old,) = [tuple(x.shape[1:]) for x in model.inputs[:1]]
    if len(model.inputs) != 1 or len(old) != 3:
        raise ValueError(
            "`image_shape` is for models of images. Received: image_shape="
            f"{image_shape} for {model.name!r}, which is not one"
        )
    try:
        new = tuple(operator.index(n) for n in image_shape)
    except TypeError:
        new = ()
    if len(new) == 2:
        new += old[-1:]
    if len(new) != 3 or min(new) < 1:
        raise ValueError(
            "`image_shape` expects (height, width) or (height, width, "
            f"channels), positive ints. Received: image_shape={image_shape}"
        )
    if new[-1] != old[-1]:
        raise ValueError(
            f"`image_shape` expects {old[-1]} channels, those of the model. "
            f"Received: image_shape={image_shape}"
        )
    if new == old:
        return model
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        raise ValueError(
            "`image_shape` is for models without models inside, such as those "
            f"of keras_topo.models. Received: image_shape={image_shape} for "
            f"{model.name!r}"
        )
    clone = _cloned(model, new, _token_grid(model, new))
    clone.set_weights(model.get_weights())
    resampled = [
        layer.name
        for layer in clone.layers
        if isinstance(layer, PositionEmbedding)
        or any(w.name.startswith("mask_") for w in layer.weights)
    ]
    print(
        f"{model.name}: images of {new[0]} x {new[1]} instead of {old[0]} x "
        f"{old[1]}; resampled in {', '.join(resampled) or 'no layer'}."
    )
    return clone


def _token_grid(model, image_shape):
    """The grid of tokens that a model makes of images of a shape."""
    for layer in model.layers:
        if isinstance(layer, PositionEmbedding):
            tokens = keras.Model(model.inputs[0], layer.output)
            shape = _cloned(tokens, image_shape, None).output_shape
            return tuple(shape[1:-1])
    return None


def _cloned(model, image_shape, grid):
    """The model for other images; `grid` is what layers are told of it."""

    def copy(layer):
        config = layer.get_config()
        # Behind a class token a grid is known by the configuration alone. That
        # of positions is the one that they were trained on.
        known = config.get("grid_shape") is not None
        if grid and known and not isinstance(layer, PositionEmbedding):
            config["grid_shape"] = grid
        return type(layer).from_config(config)

    inputs = model.inputs[0]
    images = keras.Input(image_shape, name=inputs.name, dtype=inputs.dtype)
    return keras.models.clone_model(
        model, input_tensors=images, clone_function=copy
    )


def _with_classes(model, num_classes):
    """The model with another last layer, all others with their weights."""
    whole = hasattr(num_classes, "__index__")
    if not whole or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(
            "`num_classes` expects a positive int. Received: num_classes="
            f"{num_classes!r}"
        )
    changed = _with_head(model, operator.index(num_classes))
    print(
        f"{model.name}: a new, untrained last layer for {num_classes} classes."
    )
    return changed


def _with_head(model, num_classes):
    head = model.layers[-1]
    kind = type(head)

    def copy(layer):
        if layer is not head:
            return type(layer).from_config(layer.get_config())
        if isinstance(head, keras.Model):
            # A classifier behind what computes its inputs.
            return _with_head(head, num_classes)
        return kind.from_config({**head.get_config(), **sizes})

    sizes = _sizes_of_head(head, num_classes)
    if not sizes and not isinstance(head, keras.Model):
        raise ValueError(
            "`num_classes` is for models whose last layer is a Dense, or a "
            "GraphKernelAttention that projects or averages its heads. "
            f"Received: {model.name!r}, which ends in {kind.__name__}"
        )
    clone = keras.models.clone_model(model, clone_function=copy)
    for mine, layer in zip(clone.layers[:-1], model.layers[:-1], strict=True):
        mine.set_weights(layer.get_weights())
    return clone


def _sizes_of_head(head, num_classes):
    """What the number of classes is called in the last layer of a model."""
    if isinstance(head, keras.layers.Dense):
        return {"units": num_classes}
    if isinstance(head, GraphKernelAttention):
        if head.combine == "average":
            return {"key_dim": num_classes, "value_dim": num_classes}
        if head.combine == "project":
            return {"output_shape": num_classes}
    return {}
