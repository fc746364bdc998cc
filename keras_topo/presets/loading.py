"""Loading a preset, to use it as it is or to go on with it."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Sequence

import keras

from keras_topo.annotations import StrPath
from keras_topo.presets.changes import (
    check_image_shape,
    resampled_layers,
    with_classes,
    with_image_shape,
)
from keras_topo.presets.checks import check_configuration, check_weights
from keras_topo.presets.configurations import (
    model_from_json,
    quantize_again,
    reason,
    without_adapters,
)
from keras_topo.presets.folders import (
    CONFIG,
    MODEL,
    WEIGHTS,
    check_checksums,
    logger,
    read_json,
)
from keras_topo.presets.registry import find_preset, known_digests
from keras_topo.presets.saving import FORMAT


def from_preset(
    name_or_path: StrPath,
    num_classes: int | None = None,
    image_shape: Sequence[int | None] | None = None,
) -> keras.Model:
    """Loads a trained model, to use it as it is or to fine-tune it.

    With neither of the other arguments the weights are exactly those that were
    saved. What was changed, and what starts untrained, goes to the logger
    `keras_topo.presets`. All layers are trainable, also where some were frozen
    when the model was saved.

    Files of strangers run no code, whatever
    `keras.config.enable_unsafe_deserialization()` allows: what is not a part
    of Keras or registered in this process is refused.

    Args:
        name_or_path: one of `keras_topo.presets()`, whose files are held
            against the digests of the registry; a folder as
            `keras_topo.save_preset` writes it, such as a run folder of the
            training scripts; any `.keras` file; or `"hf://user/repository"`,
            with a revision after `@` if need be, where huggingface_hub is
            installed. A name that is also that of a folder means the preset;
            the folder is meant by `"./name"` or a `pathlib.Path`. (Folders
            that hold a `model.keras` alone, as before version 0.2, are read
            once more.)
        num_classes: int; if given, the last layer is replaced by an untrained
            one for that many classes. It is a `Dense`, a convolution or a
            `GraphKernelAttention`; an activation may follow it, and it may be
            in a model inside the model.
        image_shape: `(height, width)` or `(height, width, channels)` for a
            model of images, and in the same way other axes for sequences,
            volumes and videos. Position embeddings and Toeplitz masks are
            resampled to the new grid, linearly and relative to its extent, so
            that they mean the same at another resolution. The weights are kept
            as they were trained; the layers resample in every call. `None`
            for an axis of any size: `(None, None)` makes a model that takes
            all sizes, and can be trained on many.

    Returns:
        A `keras.Model`, not compiled.

    Raises:
        ValueError: if there is no such preset, a file of it was changed or
            holds what is refused, `num_classes` is not a positive int, or
            `image_shape` does not fit the model.
        ImportError: for `hf://` without huggingface_hub.

    Example:

    >>> model = keras_topo.from_preset(
    ...     "topvit-cifar10", num_classes=3, image_shape=(40, 48)
    ... )
    >>> tuple(model(np.zeros((1, 40, 48, 3))).shape)
    (1, 3)
    """
    with _opened(name_or_path) as (config, weights, source):
        check_configuration(config, source)
        check_weights(weights)
        plain = _built(config, source)
        if image_shape is not None:
            shape = check_image_shape(plain, image_shape)
            plain = _with_shape(plain, shape)
        model, changed = plain, None
        if num_classes is not None:
            changed = with_classes(model, num_classes)
        quantized = config.get("quantized", {})
        quantize_again(model, quantized)
        _load_weights(model, weights, source)
    if changed is not None:
        plain, old, new = changed
        quantize_again(plain, quantized, left_out=(new,))
        _copy_weights(model, old, plain, new)
        model = plain
        logger.warning(
            "%s: a new, untrained last layer for %d classes.",
            model.name,
            num_classes,
        )
    make_trainable(model)
    return model


def make_trainable(model: keras.Model) -> None:
    """Thaws all layers of a model, also where the model itself is trainable."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            make_trainable(layer)
        layer.trainable = True


def _built(config, source):
    """The model of a checked configuration, without its weights."""
    try:
        return model_from_json(config)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{source} cannot be read by Keras {keras.version()}; it was "
            f"written by Keras {config.get('keras_version', 'unknown')}: "
            f"{reason(error)}"
        ) from error


def _with_shape(model, shape):
    """The model for inputs of another shape, or itself for the same one."""
    old = tuple(model.inputs[0].shape[1:])
    if shape == old:
        return model
    changed = with_image_shape(model, shape)
    logger.warning(
        "%s: inputs of %s instead of %s; resampled in %s.",
        model.name,
        _as_text(shape),
        _as_text(old),
        ", ".join(resampled_layers(changed)) or "no layer",
    )
    return changed


def _as_text(shape):
    """`32 x 32`, without the channels."""
    return " x ".join("any" if n is None else str(n) for n in shape[:-1])


def _load_weights(model, weights, source):
    try:
        model.load_weights(weights)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"The weights of {source} do not fit its configuration: {error}"
        ) from error


def _copy_weights(source, old_head, target, new_head):
    """Copies all weights but those of the last layer; of that one what is not
    trained, such as the graph that it is for."""
    fixed = {w.name: w for w in old_head.non_trainable_weights}
    for copy in new_head.non_trainable_weights:
        copy.assign(fixed[copy.name])
    left_out = {id(w) for w in old_head.weights + new_head.weights}
    pairs = zip(
        *(
            [w for w in model.weights if id(w) not in left_out]
            for model in (source, target)
        ),
        strict=True,
    )
    for weight, copy in pairs:
        copy.assign(weight)


@contextlib.contextmanager
def _opened(name_or_path):
    """Configuration, file of weights and a name for messages of a preset."""
    folder = find_preset(name_or_path)
    known = known_digests(name_or_path)
    file = pathlib.Path(name_or_path).expanduser()
    if file.suffix == ".keras" and file.is_file():
        with _opened_archive(file) as opened:
            yield opened
    elif (folder / CONFIG).is_file() or known is not None:
        check_checksums(folder, known)
        config = read_json(folder / CONFIG)
        version = config.get("format")
        if version != FORMAT or not {"builder", "model"} & set(config):
            raise ValueError(
                f"{folder / CONFIG} expects the format {FORMAT}, with a "
                f"builder or a model. Received: format={version!r}; a later "
                "version of keras_topo may read it"
            )
        yield config, folder / WEIGHTS, str(folder / CONFIG)
    else:
        logger.warning(
            "%s holds a %s alone, the preset of an earlier version; the next "
            "one does not read it. keras_topo.save_preset writes the new form.",
            folder,
            MODEL,
        )
        with _opened_archive(folder / MODEL) as opened:
            yield opened


@contextlib.contextmanager
def _opened_archive(file):
    """The same of a `.keras` file."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(
            f"{file} is no .keras file, or a truncated one: {error}"
        ) from error
    with archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        assets = [name for name in names if name.startswith("assets/")]
        if CONFIG not in names or WEIGHTS not in names or assets:
            raise ValueError(
                f"{file} expects {CONFIG} and {WEIGHTS}, and no assets such as "
                f"vocabularies. Received: {sorted(names)}"
            )
        weights = os.path.join(folder, WEIGHTS)
        try:
            model = json.loads(archive.read(CONFIG))
            metadata = json.loads(archive.read("metadata.json"))
            # Not extracted by its own name, which may lead elsewhere.
            with archive.open(WEIGHTS) as packed, open(weights, "wb") as out:
                shutil.copyfileobj(packed, out)
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{file} is no .keras file, or a damaged one: {error}"
            ) from error
        config = {
            "keras_version": metadata.get("keras_version"),
            "model": without_adapters(model),
        }
        yield config, weights, str(file)
