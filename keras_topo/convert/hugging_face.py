"""ViT, DeiT and DINOv2 as `transformers` saves them: configuration and
safetensors, read without PyTorch."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from keras_topo.convert.pixels import Pixels, of_preprocessor
from keras_topo.convert.safetensors import INDEX, SINGLE, read_folder
from keras_topo.convert.tensors import Renamed, Tensors
from keras_topo.convert.weights import Block, Weights
from keras_topo.presets.folders import read_json
from keras_topo.presets.hub import hub, hub_handle

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

#: Model types and the prefixes of their tensors under a classifier.
TYPES = {
    "vit": "vit.",
    "deit": "deit.",
    "dinov2": "dinov2.",
    "dinov2_with_registers": "dinov2_with_registers.",
}

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "selu": "selu",
    "silu": "silu",
    "swish": "silu",
}

# Newer names of transformers, and those that its files have.
_RENAMES = [
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.([qkv])_proj\.", r".attention.attention.\1."),
    (r"\.attention\.q\.", ".attention.query."),
    (r"\.attention\.k\.", ".attention.key."),
    (r"\.attention\.v\.", ".attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
]
_VIT_RENAMES = [
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]
_VIT_NORMS = ("layernorm_before", "layernorm_after")


def download(handle: str) -> pathlib.Path:
    """The folder of `hf://owner/name`, from the hub or its local cache.

    Raises:
        ImportError: without huggingface_hub.
        ValueError: if it cannot be had.
    """
    module = hub(handle)
    repository, revision = hub_handle(handle)
    try:
        folder = module.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[CONFIG, PREPROCESSOR, SINGLE, INDEX]
            + ["model-*.safetensors"],
        )
    except Exception as error:  # Of whatever kind the network gives.
        raise ValueError(
            f"{handle} cannot be downloaded: {error}. Without a network, pass "
            "the path of a folder with config.json and model.safetensors. "
            f"Received: {handle!r}"
        ) from error
    return pathlib.Path(folder)


def is_folder(path: pathlib.Path) -> bool:
    """Whether it is a folder of transformers: a preset has other keys."""
    return path.is_dir() and "model_type" in read_json(path / CONFIG)


def read(folder: pathlib.Path, pixels: Pixels | None = None) -> Weights:
    """The `Weights` of a folder.

    Args:
        folder: `pathlib.Path`.
        pixels: see `keras_topo.convert`.
    """
    config = Config(read_json(folder / CONFIG), folder / CONFIG)
    kind = config.choice("model_type", None, {name: name for name in TYPES})
    if pixels is None:
        pixels = of_preprocessor(folder / PREPROCESSOR, kind)
    arrays = _renamed(read_folder(folder), kind, folder)
    return _weights(Tensors(arrays, str(folder)), config, kind, pixels)


def _renamed(arrays, kind, folder):
    """The tensors by the names that files of transformers have, without the
    prefix of a classifier's inner model."""
    places = {}
    renames = _RENAMES + (_VIT_RENAMES if kind in ("vit", "deit") else [])
    for old in arrays:
        name = old.removeprefix(TYPES[kind])
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        if name in places:
            raise ValueError(
                f"{folder} expects one tensor {name!r}. Received: "
                f"{places[name][1]!r} and {old!r}"
            )
        places[name] = (arrays, old)
    return Renamed(places)


def _weights(tensors, config, kind, pixels):
    channels = config.number("hidden_size", 768)
    with_registers = kind == "dinov2_with_registers"
    dino = kind.startswith("dinov2")
    tokens = 2 if kind == "deit" else 1
    patch = config.pair("patch_size", 14 if kind == "dinov2" else 16)
    image = config.pair("image_size", 224)
    pixel_channels = config.number("num_channels", 3)
    grid = tuple(n // p for n, p in zip(image, patch, strict=True))
    count = tokens + grid[0] * grid[1]
    positions = tensors.take(
        "embeddings.position_embeddings", 1, count, channels
    )[0]
    names = ("cls_token", "distillation_token")[:tokens]
    prefix = [
        tensors.take(f"embeddings.{name}", 1, 1, channels)[0] for name in names
    ]
    # Positions are added to these tokens, and not to registers.
    prefix = [np.concatenate(prefix) + positions[:tokens]]
    if with_registers:
        registers = config.number("num_register_tokens", 4, least=0)
        name = "embeddings.register_tokens"
        prefix.append(tensors.take(name, 1, registers, channels)[0])
    projection = "embeddings.patch_embeddings.projection"
    kernel = tensors.take(
        f"{projection}.weight", channels, pixel_channels, *patch
    )
    blocks = [
        _block(tensors, f"encoder.layer.{k}.", config, channels, dino)
        for k in range(config.number("num_hidden_layers", 12))
    ]
    weights = Weights(
        source=tensors.source,
        patches=(
            kernel.transpose(2, 3, 1, 0),
            tensors.take(f"{projection}.bias", channels),
        ),
        positions=positions[tokens:].reshape(*grid, channels),
        prefix=np.concatenate(prefix),
        blocks=blocks,
        norm=_norm(tensors, "layernorm", channels),
        logits=_classifier(tensors, config, channels, dino),
        pooler=_pooler(tensors, config, channels),
        pooling="token+gap" if dino else "token",
        image_shape=(*image, pixel_channels),
        settings={
            "epsilon": config.real("layer_norm_eps", 1e-6 if dino else 1e-12),
            "activation": config.choice("hidden_act", "gelu", _ACTIVATIONS),
            "interpolation": "cubic_antialias" if with_registers else "bicubic",
            "pixel_scale": pixels[0],
            "pixel_offset": pixels[1],
        },
    )
    if kind == "deit" and weights.logits is None:
        weights.logits = _two_classifiers(tensors, config, channels)
        if weights.logits is not None:
            weights.pooling = "prefix"
    # Of images of which parts are hidden in training.
    weights.left_out += tensors.ignore("embeddings.mask_token")
    # Which are 0, 1, 2, ...
    weights.left_out += tensors.ignore("embeddings.position_ids")
    tensors.finish()
    return weights


def _block(tensors, at, config, channels, dino):
    heads = config.number("num_attention_heads", 12)
    units = config.number("head_dim", max(1, channels // heads))
    if "head_dim" not in config and channels % heads:
        raise ValueError(
            f"{config.source} expects a hidden_size that num_attention_heads "
            f"divides. Received: {channels} and {heads}"
        )
    inside = heads * units
    attention = []
    for name in ("query", "key", "value"):
        name = f"{at}attention.attention.{name}"
        kernel = tensors.take(f"{name}.weight", inside, channels)
        bias = None
        if config.flag("qkv_bias", True):
            bias = tensors.take(f"{name}.bias", inside).reshape(heads, units)
        attention.append((kernel.T.reshape(channels, heads, units), bias))
    name = f"{at}attention.output.dense"
    kernel, bias = _dense(tensors, name, inside, channels)
    output = (kernel.reshape(heads, units, channels), bias)
    norms = ("norm1", "norm2") if dino else _VIT_NORMS
    scales = None
    if dino:
        scales = tuple(
            tensors.take(f"{at}layer_scale{k}.lambda1", channels)
            for k in (1, 2)
        )
    query, key, value = attention
    hidden, mlp = _mlp(tensors, at, config, channels, dino)
    return Block(
        [_norm(tensors, at + name, channels) for name in norms],
        query,
        key,
        value,
        output,
        hidden,
        mlp,
        scales,
    )


def _mlp(tensors, at, config, channels, dino):
    """Both layers of an MLP; a gate stands in front of what it gates."""
    if not dino:
        units = config.number("intermediate_size", 3072)
        names = ("intermediate.dense", "output.dense")
    else:
        units = int(channels * config.real("mlp_ratio", 4))
        names = ("mlp.fc1", "mlp.fc2")
    if not (dino and config.flag("use_swiglu_ffn", False)):
        return (
            _dense(tensors, at + names[0], channels, units),
            _dense(tensors, at + names[1], units, channels),
        )
    units = (int(units * 2 / 3) + 7) // 8 * 8
    if f"{at}mlp.gate_proj.weight" not in tensors:
        return (
            _dense(tensors, f"{at}mlp.weights_in", channels, 2 * units),
            _dense(tensors, f"{at}mlp.weights_out", units, channels),
        )
    parts = [
        _dense(tensors, f"{at}mlp.{name}_proj", channels, units)
        for name in ("gate", "up")
    ]
    kernel, bias = (np.concatenate(x, -1) for x in zip(*parts, strict=True))
    return (kernel, bias), _dense(
        tensors, f"{at}mlp.down_proj", units, channels
    )


def _classifier(tensors, config, channels, dino):
    named = config.is_of("ForImageClassification")
    if "classifier.weight" not in tensors and not named:
        return None
    inputs = 2 * channels if dino else channels
    return _dense(tensors, "classifier", inputs, None)


def _two_classifiers(tensors, config, channels):
    """Those of the class token and of the distillation token: their average is
    a classifier of both tokens side by side."""
    named = config.is_of("ForImageClassificationWithTeacher")
    if "cls_classifier.weight" not in tensors and not named:
        return None
    one = _dense(tensors, "cls_classifier", channels, None)
    classes = len(one[1])
    two = _dense(tensors, "distillation_classifier", channels, classes)
    return np.concatenate([one[0], two[0]]) / 2, (one[1] + two[1]) / 2


def _pooler(tensors, config, channels):
    if "pooler.dense.weight" not in tensors:
        return None
    config.choice("pooler_act", "tanh", {"tanh": "tanh"})
    return _dense(tensors, "pooler.dense", channels, None)


def _dense(tensors, name, inputs, units):
    """Kernel and bias of a linear layer, inputs on the left."""
    kernel = tensors.take(f"{name}.weight", units, inputs)
    return kernel.T, tensors.take(f"{name}.bias", len(kernel))


def _norm(tensors, name, channels):
    return (
        tensors.take(f"{name}.weight", channels),
        tensors.take(f"{name}.bias", channels),
    )


class Config:
    """Values of a configuration, checked.

    Args:
        values: dict.
        source: path, for messages.
    """

    def __init__(self, values: Mapping[str, Any], source: Any) -> None:
        self._values = values
        self.source = source

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def is_of(self, ending: str) -> bool:
        """Whether the model has classes, and one of a name that ends so."""
        names = self._values.get("architectures")
        first = names[0] if isinstance(names, list) and names else ""
        without = self._values.get("id2label") == {}
        return str(first).endswith(ending) and not without

    def number(self, name: str, default: int, least: int = 1) -> int:
        value = self._get(name, default)
        if type(value) is not int or value < least:
            self._refuse(name, f"an int of at least {least}", value)
        return value

    def real(self, name: str, default: float) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not 0 < value < 1e6:
            self._refuse(name, "a positive number", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            self._refuse(name, "true or false", value)
        return value

    def pair(self, name: str, default: int) -> tuple[int, int]:
        value = self._get(name, default)
        pair = [value, value] if isinstance(value, int) else value
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or any(type(n) is not int or n < 1 for n in pair)
        ):
            self._refuse(name, "a positive int, or two", value)
        height, width = pair
        return height, width

    def choice(
        self, name: str, default: str | None, choices: Mapping[str, str]
    ) -> str:
        value = self._get(name, default)
        if not isinstance(value, str) or value not in choices:
            self._refuse(name, f"one of {sorted(choices)}", value)
        return choices[value]

    def _get(self, name, default):
        value = self._values.get(name)
        return default if value is None else value

    def _refuse(self, name: str, expected: str, value: Any) -> NoReturn:
        raise ValueError(
            f"{self.source} expects {expected} as {name}. Received: "
            f"{name}={value!r}"
        )
