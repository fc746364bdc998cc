"""Weights of other libraries as models of keras_topo: `convert`."""

import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_topo.annotations import StrPath

__all__ = ["convert"]

logger = logging.getLogger("keras_topo.convert")

_TRAINING = ("attention_dropout", "dropout", "name", "seed", "stochastic_depth")


def convert(
    model_or_path: StrPath | Mapping[str, Any] | Any,
    image_shape: Sequence[int | None] | None = None,
    num_classes: int | None = None,
    pooling: Literal["source", "gap", "mean", "token", "token+gap", "prefix"]
    | None = "source",
    pixels: tuple[float | Sequence[float], float | Sequence[float]]
    | None = None,
    dtype: str | None = None,
    **options: Any,
) -> keras.Model:
    """A model of keras_topo with the weights of another library's model.

    Sources are vision Transformers: ViT, DeiT and DINOv2 (with register
    tokens or without) of `transformers` and of KerasHub, ViT of
    google-research/vision_transformer and TopViT of google-research. The result
    is a `topvit` with `attention="softmax"` (for TopViT with `"toeplitz"`) that
    computes the same as the source, to float32 rounding, also on images of
    another size. Positions are resampled as the source does it (those of ViT
    and DeiT of KerasHub, which take images of one size, as its DINOv2 does),
    and the tables of TopViT as those of `TableMask`. It is a model like any
    other: `fit`, `save_preset` and `export_saved_model` work, and
    `from_preset(image_shape=)` resamples again.

    PyTorch, Flax and the source's library are not needed, except for objects
    of KerasHub. Files are read without running any code in them; pickles are
    refused. Every tensor of a source is used once: one that is missing, has
    another shape or has no place in the model is refused by name. What has no
    part in predictions (mask tokens of pre-training, the pooler of a model
    whose tokens are returned) is left out and named in the log.

    **Pixels.** The model takes pixels from 0 to 255 and normalizes them itself,
    as the image processor of the source does: by `preprocessor_config.json`, by
    the `preprocessor` of a KerasHub task, and, where there is none, as the
    family was published (ViT: to -1..1; DeiT and DINOv2: mean and deviation of
    ImageNet). Resizing and cropping are left to the caller.

    **Outputs** are logits where the source has a classifier, and otherwise
    all of its normalized tokens, `(batch, prefix tokens + patches, channels)`:
    `last_hidden_state` of transformers, the output of a KerasHub backbone.

    Args:
        model_or_path: one of

            - a folder of transformers (`config.json`, `model.safetensors` or
              its shards, `preprocessor_config.json` if there is one), or its
              handle `"hf://owner/name"`, with a revision after `@` if need be,
              where huggingface_hub is installed;
            - a `ViTBackbone`, `DeiTBackbone`, `DINOV2Backbone`,
              `ViTImageClassifier` or `DeiTImageClassifier` of KerasHub;
            - an `.npz` file of google-research/vision_transformer, or the tree
              of parameters of its `VisionTransformer` or of the published
              `TopologicalViT`, nested or flat (`a/b/c`).
        image_shape: `(height, width)` or `(height, width, channels)` of the
            images to take, `None` for any height or width; by default the
            shape that the source's positions are made for (518 x 518 of the
            published DINOv2).
        num_classes: int, for a new, untrained classifier; 0 for features in
            front of the source's classifier; `None` keeps what the source has.
        pooling: `"source"`, or, with `num_classes` or a source without a
            classifier, another one of `topvit`. `"token"` of a ViT of
            transformers without a classifier gives its `pooler_output`.
        pixels: `(scale, offset)`, numbers or one per channel, for tokens of
            `scale * pixels + offset` instead: `(1, 0)` for a model that takes
            normalized pixels.
        dtype: name of a dtype policy; the global one by default.
        **options: `dropout`, `attention_dropout`, `stochastic_depth`, `seed`
            and `name` of `topvit`; rates of the source are not taken over.

    Returns:
        A `keras.Model` as of `keras_topo.models.topvit`.

    Raises:
        ValueError: if the source is none of these, is damaged, or computes
            something that keras_topo does not have; naming the file and the
            tensor or the argument.
        ImportError: for `hf://` without huggingface_hub.

    Example (needs the network):

    >>> model = keras_topo.convert(
    ...     "hf://facebook/dinov2-small", (224, 224), num_classes=10
    ... )  # doctest: +SKIP
    >>> tuple(model(np.zeros((1, 224, 224, 3))).shape)  # doctest: +SKIP
    (1, 10)
    """
    from keras_topo.convert.pixels import check_pixels
    from keras_topo.convert.weights import build, head_of

    unknown = sorted(set(options) - set(_TRAINING))
    if unknown:
        raise ValueError(
            f"`convert` expects options of {_TRAINING}; what else there is, "
            f"the source says. Received: {unknown}"
        )
    if num_classes is not None and (
        not hasattr(num_classes, "__index__")
        or isinstance(num_classes, bool)
        or num_classes < 0
    ):
        raise ValueError(
            "`num_classes` expects an int of at least 0. Received: "
            f"num_classes={num_classes!r}"
        )
    if num_classes is not None:
        num_classes = int(num_classes)
    if pixels is not None:
        pixels = check_pixels(pixels)
    image_shape = _checked_shape(image_shape)
    weights = _read(model_or_path, image_shape, pixels)
    image_shape = _whole_shape(image_shape, weights.image_shape)
    head = head_of(weights, num_classes, pooling)
    model = build(weights, head, image_shape, dtype, **options)
    _log(model, weights, head)
    return model


def _read(source, image_shape, pixels):
    """The `Weights` of whatever a source is."""
    if isinstance(source, Mapping):
        from keras_topo.convert import flax

        return flax.read_tree(source, image_shape, pixels)
    if not isinstance(source, (str, os.PathLike)):
        from keras_topo.convert import keras_hub

        return keras_hub.read(source, pixels)
    from keras_topo.convert import hugging_face

    text = os.fspath(source)
    if text.startswith("hf://"):
        return hugging_face.read(hugging_face.download(text), pixels)
    path = pathlib.Path(text).expanduser()
    if path.suffix == ".npz":
        from keras_topo.convert import flax

        return flax.read_file(path, image_shape, pixels)
    if not hugging_face.is_folder(path):
        raise ValueError(
            "`model_or_path` expects a folder with the config.json of a model "
            "of transformers, a handle hf://owner/name, an .npz file, a tree "
            "of parameters or a model of KerasHub (presets of keras_topo are "
            f"for from_preset). Received: model_or_path={text!r}"
        )
    return hugging_face.read(path, pixels)


def _checked_shape(image_shape):
    """Two or three sizes, a tuple of ints and `None`; or `None`."""
    if image_shape is None:
        return None
    shape = tuple(image_shape) if hasattr(image_shape, "__iter__") else ()
    good = [
        n is None or isinstance(n, (int, np.integer)) and n > 0 for n in shape
    ]
    if len(shape) not in (2, 3) or not all(good):
        raise ValueError(
            "`image_shape` expects (height, width), with channels behind them "
            "or not, positive ints or None for any. Received: image_shape="
            f"{image_shape!r}"
        )
    return tuple(None if n is None else int(n) for n in shape)


def _whole_shape(shape, source_shape):
    """The shape of images with channels."""
    if shape is None:
        return source_shape
    if len(shape) == 2:
        shape += source_shape[-1:]
    if shape[-1] != source_shape[-1]:
        raise ValueError(
            f"`image_shape` expects the {source_shape[-1]} channels of the "
            f"source. Received: image_shape={shape}"
        )
    return shape


def _log(model, weights, head):
    left_out = list(weights.left_out)
    if weights.pooler is not None and head.pre_logits is not weights.pooler:
        left_out.append("pooler")
    if left_out:
        logger.info(
            "%s: left out %s.", weights.source, ", ".join(sorted(left_out))
        )
    if head.num_classes is not None and head.logits is None:
        logger.warning(
            "%s: a new, untrained last layer for %d classes.",
            model.name,
            head.num_classes,
        )
