"""Models of other libraries with random weights, and what they compute.

A case is a function `(size, folder, patch, image)` that returns what `convert`
takes and a function from pixels to the outputs of the library, at the size of
the model or at another. Libraries are imported where they are used.
"""

import dataclasses
import importlib.util
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a model, and the names of published ones."""

    channels: int
    heads: int
    units: int
    depth: int


SIZES = {
    "Ti": Size(192, 3, 768, 12),
    "S": Size(384, 6, 1536, 12),
    "B": Size(768, 12, 3072, 12),
}
MEAN = np.array([0.485, 0.456, 0.406], "float32")
DEVIATION = np.array([0.229, 0.224, 0.225], "float32")


@dataclasses.dataclass(frozen=True)
class Case:
    """A source.

    Attributes:
        library: str, the required package.
        make: see above.
        patch: int, its patches.
        square: bool, whether images have to be square.
        options: keyword arguments of `convert`.
    """

    library: str
    make: Callable
    patch: int = 16
    square: bool = False
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def installed(self):
        return importlib.util.find_spec(self.library) is not None


def half(images):
    """The processor of ViT: `x / 255`, mean and deviation of 0.5."""
    return (images / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def imagenet(images):
    """That of DeiT and DINOv2."""
    return (images / np.float32(255) - MEAN) / DEVIATION


# --------------------------------------------------------------- transformers


def of_transformers(name, config_name, output="logits", **options):
    """A case of a class of transformers, saved by it."""

    def make(size, folder, patch, image):
        import torch
        import transformers

        values = {
            "hidden_size": size.channels,
            "num_attention_heads": size.heads,
            "num_hidden_layers": size.depth,
            "image_size": image,
            "patch_size": patch,
            **options,
        }
        dino = config_name.startswith("Dinov2")
        if dino:
            values["mlp_ratio"] = size.units // size.channels
        else:
            values["intermediate_size"] = size.units
        config = getattr(transformers, config_name)(**values)
        torch.manual_seed(0)
        model = getattr(transformers, name)(config).eval()
        _randomize_torch(model)
        model.save_pretrained(folder)
        normalize = half if config.model_type == "vit" else imagenet
        extra = {} if dino else {"interpolate_pos_encoding": True}

        def run(images):
            x = torch.tensor(normalize(images)).permute(0, 3, 1, 2)
            with torch.no_grad():
                return getattr(model(x, **extra), output).numpy()

        return folder, run

    return make


def _randomize_torch(model):
    import torch

    with torch.no_grad():
        for name, x in model.named_parameters():
            if x.ndim == 1:
                x.add_(0.2 * torch.randn_like(x))
            elif "embeddings" in name and not name.endswith("weight"):
                x.copy_(0.5 * torch.randn_like(x))
            else:
                x.copy_(torch.randn_like(x) / x[0].numel() ** 0.5)


def vit_npz(size, folder, patch, image):
    """An npz file of google-research's ViT. That model is ViT of transformers
    with the GELU of Flax, and its file is written from there; positions are
    not resampled alike, so at its own size alone."""
    make = of_transformers(
        "ViTForImageClassification",
        "ViTConfig",
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        num_labels=100,
    )
    _, run = make(size, folder, patch, image)
    from safetensors.numpy import load_file

    w = load_file(folder / "model.safetensors")
    w = {name.removeprefix("vit."): x for name, x in w.items()}
    c, heads = size.channels, size.heads
    kernel = w["embeddings.patch_embeddings.projection.weight"]
    tree = {
        "cls": w["embeddings.cls_token"],
        "embedding/kernel": kernel.transpose(2, 3, 1, 0),
        "embedding/bias": w["embeddings.patch_embeddings.projection.bias"],
        "Transformer/posembed_input/pos_embedding": w[
            "embeddings.position_embeddings"
        ],
        "Transformer/encoder_norm/scale": w["layernorm.weight"],
        "Transformer/encoder_norm/bias": w["layernorm.bias"],
        "head/kernel": w["classifier.weight"].T,
        "head/bias": w["classifier.bias"],
    }
    for k in range(size.depth):
        old, new = f"encoder.layer.{k}.", f"Transformer/encoderblock_{k}/"
        for a, b in (("before", "0"), ("after", "2")):
            at = f"{new}LayerNorm_{b}"
            tree[f"{at}/scale"] = w[f"{old}layernorm_{a}.weight"]
            tree[f"{at}/bias"] = w[f"{old}layernorm_{a}.bias"]
        attention = f"{new}MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            at = f"{old}attention.attention.{part}"
            kernel = w[f"{at}.weight"].T.reshape(c, heads, -1)
            tree[f"{attention}/{part}/kernel"] = kernel
            bias = w[f"{at}.bias"].reshape(heads, -1)
            tree[f"{attention}/{part}/bias"] = bias
        kernel = w[f"{old}attention.output.dense.weight"].T
        tree[f"{attention}/out/kernel"] = kernel.reshape(heads, -1, c)
        tree[f"{attention}/out/bias"] = w[f"{old}attention.output.dense.bias"]
        for a, b in (("intermediate", "0"), ("output", "1")):
            at = f"{new}MlpBlock_3/Dense_{b}"
            tree[f"{at}/kernel"] = w[f"{old}{a}.dense.weight"].T
            tree[f"{at}/bias"] = w[f"{old}{a}.dense.bias"]
    np.savez(folder / "vit.npz", **tree)
    return folder / "vit.npz", run


# ------------------------------------------------------------------- KerasHub


def of_keras_hub(name, task=None, **options):
    """A case of a backbone, or of a classifier around it."""

    def make(size, folder, patch, image):
        import keras_hub

        def build(image):
            values = {
                "image_shape": (image, image, 3),
                "patch_size": patch,
                "num_layers": size.depth,
                "num_heads": size.heads,
                "hidden_dim": size.channels,
                **options,
            }
            units = "mlp_dim" if name == "ViTBackbone" else "intermediate_dim"
            values[units] = size.units
            model = getattr(keras_hub.models, name)(**values)
            if task is None:
                return model
            return getattr(keras_hub.models, task[0])(model, **task[1])

        model = build(image)
        _randomize_keras(model)
        normalize = half if name == "ViTBackbone" else imagenet

        def run(images):
            side = images.shape[1]
            used = model
            if side != image:
                used = build(side)
                _copy_resampled(model, used, patch)
            return np.array(used.predict(normalize(images), verbose=0))

        _interpolate(getattr(model, "backbone", model))
        return model, run

    return make


def _randomize_keras(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path.rpartition("/")[2]
        x = rng.normal(size=shape)
        if name == "kernel":
            inputs = shape[:1] if "mha" in weight.path else shape[:-1]
            if "attention/attention" in weight.path:
                inputs = shape[:1]
            if "attention_output" in weight.path:
                inputs = shape[:2]
            x = x / np.sqrt(np.prod(inputs))
        elif name in ("gamma", "lambda1"):
            x = 1 + 0.2 * x
        else:
            x = x * (0.5 if len(shape) > 1 else 0.2)
        weight.assign(x)


def _interpolate(backbone):
    """The interpolation of DINOv2 when it is built or loaded."""
    if not hasattr(backbone, "embeddings"):
        return
    layer = backbone.embeddings
    layer.interpolated_position_embeddings.assign(
        layer._interpolate_position_embeddings(
            layer.position_embeddings,
            patch_size=layer.patch_size,
            source_shape=layer.position_embedding_shape,
            target_shape=layer.image_shape,
            antialias=layer.antialias_in_interpolation,
        )
    )


def _copy_resampled(model, other, patch):
    """Gives a model for other images the weights of one, positions resampled
    as KerasHub does it."""
    from keras import ops

    values = {w.path: w for w in other.weights}
    for weight in model.weights:
        target = values[weight.path]
        if target.shape == weight.shape:
            target.assign(weight)
            continue
        if "interpolated" in weight.path:
            continue
        old = np.array(weight).reshape(-1, weight.shape[-1])
        count = np.prod(target.shape[:-1])
        sides = [int(np.sqrt(n)) for n in (len(old), count)]
        tokens = len(old) - sides[0] ** 2
        table = old[tokens:].reshape(1, sides[0], sides[0], -1)
        table = ops.image.resize(
            table, (sides[1], sides[1]), interpolation="bicubic"
        )
        table = np.array(table).reshape(-1, old.shape[-1])
        table = np.concatenate([old[:tokens], table])
        target.assign(table.reshape(target.shape))
    _interpolate(getattr(other, "backbone", other))


_REGISTERS = {"num_register_tokens": 4}

CASES = {
    "transformers ViTModel": Case(
        "transformers",
        of_transformers("ViTModel", "ViTConfig", "last_hidden_state"),
    ),
    "transformers ViTModel, pooler_output": Case(
        "transformers",
        of_transformers("ViTModel", "ViTConfig", "pooler_output"),
        options={"pooling": "token"},
    ),
    "transformers ViTForImageClassification": Case(
        "transformers",
        of_transformers(
            "ViTForImageClassification", "ViTConfig", num_labels=100
        ),
    ),
    "transformers DeiTForImageClassification": Case(
        "transformers",
        of_transformers(
            "DeiTForImageClassification", "DeiTConfig", num_labels=100
        ),
    ),
    "transformers DeiTForImageClassificationWithTeacher": Case(
        "transformers",
        of_transformers(
            "DeiTForImageClassificationWithTeacher",
            "DeiTConfig",
            num_labels=100,
        ),
    ),
    "transformers Dinov2Model": Case(
        "transformers",
        of_transformers("Dinov2Model", "Dinov2Config", "last_hidden_state"),
        14,
    ),
    "transformers Dinov2ForImageClassification, SwiGLU": Case(
        "transformers",
        of_transformers(
            "Dinov2ForImageClassification",
            "Dinov2Config",
            use_swiglu_ffn=True,
            num_labels=100,
        ),
        14,
    ),
    "transformers Dinov2WithRegistersModel": Case(
        "transformers",
        of_transformers(
            "Dinov2WithRegistersModel",
            "Dinov2WithRegistersConfig",
            "last_hidden_state",
            **_REGISTERS,
        ),
        14,
    ),
    "transformers Dinov2WithRegistersForImageClassification": Case(
        "transformers",
        of_transformers(
            "Dinov2WithRegistersForImageClassification",
            "Dinov2WithRegistersConfig",
            num_labels=100,
        ),
        14,
    ),
    "KerasHub ViTBackbone": Case(
        "keras_hub", of_keras_hub("ViTBackbone"), square=True
    ),
    "KerasHub ViTBackbone, no biases, no class token": Case(
        "keras_hub",
        of_keras_hub(
            "ViTBackbone",
            use_mha_bias=False,
            use_mlp_bias=False,
            use_patch_bias=False,
            use_class_token=False,
        ),
        square=True,
    ),
    "KerasHub ViTImageClassifier, pre-logits": Case(
        "keras_hub",
        of_keras_hub(
            "ViTBackbone",
            (
                "ViTImageClassifier",
                {"num_classes": 100, "intermediate_dim": 48},
            ),
        ),
        square=True,
    ),
    "KerasHub DeiTBackbone": Case(
        "keras_hub", of_keras_hub("DeiTBackbone"), square=True
    ),
    "KerasHub DeiTImageClassifier, average": Case(
        "keras_hub",
        of_keras_hub(
            "DeiTBackbone",
            ("DeiTImageClassifier", {"num_classes": 100, "pooling": "gap"}),
        ),
        square=True,
    ),
    "KerasHub DINOV2Backbone": Case(
        "keras_hub",
        of_keras_hub("DINOV2Backbone", position_embedding_shape=(266, 266)),
        14,
        square=True,
    ),
    "KerasHub DINOV2Backbone, registers, SwiGLU, antialias": Case(
        "keras_hub",
        of_keras_hub(
            "DINOV2Backbone",
            position_embedding_shape=(266, 266),
            use_swiglu_ffn=True,
            antialias_in_interpolation=True,
            **_REGISTERS,
        ),
        14,
        square=True,
    ),
}
