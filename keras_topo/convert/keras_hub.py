"""ViT, DeiT and DINOv2 of KerasHub, as objects."""

import keras
import ml_dtypes
import numpy as np
from keras import ops

from keras_topo.convert.pixels import Pixels, check_pixels, published
from keras_topo.convert.tensors import Tensors
from keras_topo.convert.weights import Block, Pair, Weights
from keras_topo.layers.interpolation import resample_grid

_BACKBONES = {
    "ViTBackbone": "vit",
    "DeiTBackbone": "deit",
    "DINOV2Backbone": "dinov2",
}
_CLASSIFIERS = ("ViTImageClassifier", "DeiTImageClassifier")
_POOLINGS = {"token": "token", "gap": "mean"}


def read(model: keras.Model, pixels: Pixels | None = None) -> Weights:
    """The `Weights` of a backbone or an image classifier.

    Args:
        model: of KerasHub.
        pixels: see `keras_topo.convert`.
    """
    name, backbone = _class_of(model), model
    if name in _CLASSIFIERS:
        backbone = model.backbone
    kind = _BACKBONES.get(_class_of(backbone))
    if kind is None:
        raise ValueError(
            "`model_or_path` expects a path, a tree of parameters, or a "
            f"{', '.join((*_BACKBONES, *_CLASSIFIERS))} of KerasHub (of a "
            "model of transformers, the folder of its save_pretrained). "
            f"Received: model_or_path={model!r}"
        )
    source = f"{type(model).__name__} {model.name!r}"
    if getattr(backbone, "data_format", "channels_last") == "channels_first":
        raise ValueError(
            f"{source} expects images with channels last; keras_topo has no "
            "other models. Received: data_format='channels_first'"
        )
    tensors = Tensors(_ByPath(backbone, model), source)
    weights = _weights(tensors, backbone, kind, source)
    if backbone is not model:
        _classifier(weights, tensors, model)
    if pixels is None:
        pixels = _pixels(model, kind, source)
    weights.settings["pixel_scale"], weights.settings["pixel_offset"] = pixels
    tensors.finish()
    return weights


def _class_of(model):
    """The name of a class of KerasHub, or of one derived of it; or `""`."""
    for kind in type(model).__mro__:
        if kind.__module__.partition(".")[0] == "keras_hub":
            return kind.__name__
    return ""


class _ByPath(dict):
    """Weights by their paths; those of DINOv2 without the name of the model,
    which stands in front of them."""

    def __init__(self, backbone, model):
        prefix = f"{backbone.name}_"
        for weight in model.weights:
            path = weight.path
            if _class_of(backbone) == "DINOV2Backbone":
                path = path.removeprefix(prefix)
            self[path] = weight

    def __getitem__(self, path):
        return ops.convert_to_numpy(super().__getitem__(path))


def _weights(tensors, backbone, kind, source):
    read_embeddings, read_block, norm = {
        "vit": (_vit_embeddings, _vit_block, "vit_encoder/ln"),
        "deit": (_deit_embeddings, _deit_block, "deit_encoder/ln"),
        "dinov2": (_dinov2_embeddings, _dinov2_block, "layernorm"),
    }[kind]
    channels = backbone.hidden_dim
    patch = backbone.patch_size
    patch = (patch, patch) if isinstance(patch, int) else tuple(patch)
    weights = Weights(
        source=source,
        patches=None,
        positions=None,
        prefix=None,
        blocks=[
            read_block(tensors, k, channels, backbone)
            for k in range(backbone.num_layers)
        ],
        norm=_norm(tensors, norm, channels),
        image_shape=tuple(backbone.image_shape),
        pooling="token+gap" if kind == "dinov2" else "token",
        settings={
            "epsilon": getattr(backbone, "layer_norm_epsilon", 1e-6),
            "activation": "gelu",
            "interpolation": _interpolation(
                getattr(backbone, "antialias_in_interpolation", False)
            ),
        },
    )
    read_embeddings(weights, tensors, backbone, patch, channels)
    return weights


def _interpolation(antialias):
    """What `keras.ops.image.resize` does, by which KerasHub resamples the
    positions of DINOv2; it has nothing for ViT and DeiT."""
    if antialias:
        return "cubic_antialias"
    on_tensorflow = keras.backend.backend() == "tensorflow"
    return "cubic_table" if on_tensorflow else "cubic"


def _grid(image_shape, patch):
    return tuple(n // p for n, p in zip(image_shape[:2], patch, strict=True))


def _vit_embeddings(weights, tensors, backbone, patch, channels):
    at = "vit_patching_and_embedding"
    grid = _grid(weights.image_shape, patch)
    tokens = 1 if backbone.use_class_token else 0
    positions = tensors.take(
        f"{at}/position_embedding/embeddings",
        tokens + grid[0] * grid[1],
        channels,
    )
    if tokens:
        token = tensors.take(f"{at}/class_token", 1, 1, channels)[0]
        weights.prefix = token + positions[:1]
    else:
        weights.pooling = "gap"
    weights.positions = positions[tokens:].reshape(*grid, channels)
    weights.patches = _patches(
        tensors,
        f"{at}/patch_embedding",
        (*patch, weights.image_shape[2], channels),
        backbone.use_patch_bias,
    )


def _deit_embeddings(weights, tensors, backbone, patch, channels):
    at = "deit_patching_and_embedding"
    grid = _grid(weights.image_shape, patch)
    positions = tensors.take(
        f"{at}/position_embedding", 1, 2 + grid[0] * grid[1], channels
    )[0]
    tokens = [
        tensors.take(f"{at}/{name}", 1, 1, channels)[0]
        for name in ("class_token", "distillation_token")
    ]
    weights.prefix = np.concatenate(tokens) + positions[:2]
    weights.positions = positions[2:].reshape(*grid, channels)
    weights.patches = _patches(
        tensors,
        f"{at}/patch_embedding",
        (*patch, weights.image_shape[2], channels),
    )


def _dinov2_embeddings(weights, tensors, backbone, patch, channels):
    grid = _grid(weights.image_shape, patch)
    trained_grid = _grid(backbone.position_embedding_shape, patch)
    trained, used = (
        tensors.take(
            f"embeddings/{name}", 1, 1 + rows * columns, channels
        ).reshape(-1, channels)
        for name, (rows, columns) in (
            ("position_embeddings", trained_grid),
            ("interpolated_position_embeddings", grid),
        )
    )
    # Those for images of the model's size are computed from the others, unless
    # they were trained on.
    resampled = resample_grid(
        ops.convert_to_tensor(trained[1:].reshape(*trained_grid, channels)),
        trained_grid,
        grid,
        weights.settings["interpolation"],
    )
    resampled = ops.convert_to_numpy(resampled).reshape(-1, channels)
    resampled = np.concatenate([trained[:1], resampled])
    largest = np.abs(used).max()
    tolerance = 2e-6 * (1 + largest)
    dtype = keras.backend.standardize_dtype(backbone.weights[0].dtype)
    if dtype in ("bfloat16", "float16"):
        # KerasHub's are rounded, and so is what they are computed of.
        eps = float(ml_dtypes.finfo(dtype).eps)
        tolerance = 4 * eps * largest
    if np.abs(resampled - used).max() > tolerance:
        weights.left_out.append("embeddings/position_embeddings")
        trained, trained_grid = used, grid
    prefix = [tensors.take("embeddings/cls_token", 1, 1, channels)[0]]
    prefix[0] = prefix[0] + trained[:1]
    registers = backbone.num_register_tokens
    if registers:
        name = "embeddings/register_tokens"
        prefix.append(tensors.take(name, 1, registers, channels)[0])
    # Of images of which parts are hidden in training.
    weights.left_out += tensors.ignore("embeddings/mask_token")
    weights.prefix = np.concatenate(prefix)
    weights.positions = trained[1:].reshape(*trained_grid, channels)
    weights.patches = _patches(
        tensors,
        "embeddings/patch_embeddings/projection",
        (*patch, weights.image_shape[2], channels),
    )


def _patches(tensors, name, shape, use_bias=True):
    kernel = tensors.take(f"{name}/kernel", *shape)
    bias = tensors.take(f"{name}/bias", shape[-1]) if use_bias else None
    return kernel, bias


def _vit_block(tensors, k, channels, backbone):
    at = f"vit_encoder/transformer_block_{k + 1}/"
    bias = backbone.use_mlp_bias
    hidden = _dense(tensors, f"{at}mlp/dense_1", channels, None, bias)
    units = hidden[0].shape[1]
    return Block(
        [_norm(tensors, f"{at}ln_{j}", channels) for j in (1, 2)],
        *_attention(tensors, f"{at}mha", channels, backbone.use_mha_bias),
        hidden,
        _dense(tensors, f"{at}mlp/dense_2", units, channels, bias),
    )


def _deit_block(tensors, k, channels, backbone):
    at = f"deit_encoder/transformer_block_{k + 1}/"
    hidden = _dense(tensors, f"{at}mlp/dense", channels, None)
    units = hidden[0].shape[1]
    return Block(
        [_norm(tensors, f"{at}ln_{j}", channels) for j in (1, 2)],
        *_attention(tensors, f"{at}mha", channels, backbone.use_mha_bias),
        hidden,
        _dense(tensors, f"{at}output_layer/output", units, channels),
    )


def _dinov2_block(tensors, k, channels, backbone):
    at = f"encoder/layers_{k}/"
    gated = f"{at}mlp/weights_in/kernel" in tensors
    names = ("weights_in", "weights_out") if gated else ("fc1", "fc2")
    hidden = _dense(tensors, f"{at}mlp/{names[0]}", channels, None)
    units = hidden[0].shape[1] // (2 if gated else 1)
    return Block(
        [_norm(tensors, f"{at}norm{j}", channels) for j in (1, 2)],
        *_attention(tensors, f"{at}attention/attention", channels),
        hidden,
        _dense(tensors, f"{at}mlp/{names[1]}", units, channels),
        scales=tuple(
            tensors.take(f"{at}layer_scale{j}/lambda1", channels)
            for j in (1, 2)
        ),
    )


def _attention(
    tensors, at, channels, use_bias=True
) -> tuple[Pair, Pair, Pair, Pair]:
    """The projections of `keras.layers.MultiHeadAttention`, and its output."""
    projections = []
    heads = units = None
    for name in ("query", "key", "value"):
        kernel = tensors.take(f"{at}/{name}/kernel", channels, heads, units)
        _, heads, units = kernel.shape
        bias = None
        if use_bias:
            bias = tensors.take(f"{at}/{name}/bias", heads, units)
        projections.append((kernel, bias))
    name = f"{at}/attention_output"
    kernel = tensors.take(f"{name}/kernel", heads, units, channels)
    bias = tensors.take(f"{name}/bias", channels) if use_bias else None
    query, key, value = projections
    return query, key, value, (kernel, bias)


def _dense(tensors, name, inputs, units, use_bias=True):
    kernel = tensors.take(f"{name}/kernel", inputs, units)
    if not use_bias:
        return kernel, None
    return kernel, tensors.take(f"{name}/bias", kernel.shape[1])


def _norm(tensors, name, channels):
    return (
        tensors.take(f"{name}/gamma", channels),
        tensors.take(f"{name}/beta", channels),
    )


def _classifier(weights, tensors, model):
    """What a task has behind its backbone."""
    activation = keras.activations.serialize(
        keras.activations.get(model.activation)
    )
    if activation != "linear":
        raise ValueError(
            f"{weights.source} expects activation=None: models of keras_topo "
            "give logits. `convert(model.backbone, num_classes=...)` takes the "
            f"rest of it. Received: activation={activation!r}"
        )
    pooling = _POOLINGS.get(model.pooling)
    if pooling is None or (pooling == "token" and weights.prefix is None):
        raise ValueError(
            f"{weights.source} expects pooling='token', of a backbone with a "
            f"class token, or 'gap'. Received: pooling={model.pooling!r}"
        )
    weights.pooling = pooling
    features = weights.positions.shape[-1]
    if "pre_logits/kernel" in tensors:
        weights.pre_logits = _dense(tensors, "pre_logits", features, None)
        features = weights.pre_logits[0].shape[1]
    weights.logits = _dense(tensors, "predictions", features, model.num_classes)


def _pixels(model, kind, source):
    """Factor and offset of the preprocessor of a task, or those that the
    family was published with."""
    preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is None:
        return published(kind)
    converter = getattr(preprocessor, "image_converter", None)
    if converter is None:
        raise ValueError(
            f"{source} expects a preprocessor with an image_converter, which "
            "says how pixels are scaled; otherwise `pixels` has to say it. "
            f"Received: preprocessor={preprocessor!r}"
        )
    parts = []
    for value, default in ((converter.scale, 1.0), (converter.offset, 0.0)):
        value = np.asarray(default if value is None else value, "float64")
        parts.append(value.tolist())
    return check_pixels(parts)
