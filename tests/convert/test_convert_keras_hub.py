"""The reader of KerasHub on objects that look like its models, against NumPy
in float64; `test_convert_libraries` has the real ones."""

import types

import keras
import numpy as np
import pytest
import vit_oracles as oracle

from keras_topo.convert import convert
from keras_topo.convert import keras_hub as reader
from keras_topo.layers.interpolation import resample_grid

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

CONFIG = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "mlp_ratio": 1.5,
    "layer_norm_eps": 1e-6,
    "image_size": 16,
    "patch_size": 4,
    "num_register_tokens": 3,
}
AT = {
    "vit": "vit_patching_and_embedding",
    "deit": "deit_patching_and_embedding",
    "dinov2": "embeddings",
}
CLASSES = {"vit": "ViTBackbone", "deit": "DeiTBackbone"}


class Weight(types.SimpleNamespace):
    """A minimal stand-in for a variable."""

    dtype = "float32"

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)


def weights_of(kind, config, tensors):
    """Weights of a backbone by their paths, from tensors of transformers."""
    found = embeddings_of(kind, tensors)
    c, heads = config["hidden_size"], config["num_attention_heads"]

    def dense(new, old):
        found[f"{new}/kernel"] = tensors[f"{old}.weight"].T
        found[f"{new}/bias"] = tensors[f"{old}.bias"]

    def norm(new, old):
        found[f"{new}/gamma"] = tensors[f"{old}.weight"]
        found[f"{new}/beta"] = tensors[f"{old}.bias"]

    for k in range(config["num_hidden_layers"]):
        old = f"encoder.layer.{k}."
        new = f"{kind}_encoder/transformer_block_{k + 1}/"
        norms, attention = ("ln_1", "ln_2"), "mha"
        mlp = {
            "vit": ("mlp/dense_1", "mlp/dense_2"),
            "deit": ("mlp/dense", "output_layer/output"),
            "dinov2": ("mlp/fc1", "mlp/fc2"),
        }[kind]
        old_norms = ("layernorm_before", "layernorm_after")
        old_mlp = ("intermediate.dense", "output.dense")
        if kind == "dinov2":
            new = f"encoder/layers_{k}/"
            norms = old_norms = ("norm1", "norm2")
            attention, old_mlp = "attention/attention", ("mlp.fc1", "mlp.fc2")
            for j in (1, 2):
                scale = tensors[f"{old}layer_scale{j}.lambda1"]
                found[f"{new}layer_scale{j}/lambda1"] = scale
        for a, b in zip(norms, old_norms, strict=True):
            norm(new + a, old + b)
        for a, b in zip(mlp, old_mlp, strict=True):
            dense(new + a, old + b)
        for name in ("query", "key", "value"):
            b = f"{old}attention.attention.{name}"
            kernel = tensors[f"{b}.weight"].T.reshape(c, heads, -1)
            found[f"{new}{attention}/{name}/kernel"] = kernel
            bias = tensors[f"{b}.bias"].reshape(heads, -1)
            found[f"{new}{attention}/{name}/bias"] = bias
        b = f"{old}attention.output.dense"
        name = f"{new}{attention}/attention_output"
        found[f"{name}/kernel"] = tensors[f"{b}.weight"].T.reshape(heads, -1, c)
        found[f"{name}/bias"] = tensors[f"{b}.bias"]
    norm("layernorm" if kind == "dinov2" else f"{kind}_encoder/ln", "layernorm")
    return found


def embeddings_of(kind, tensors):
    """Weights of patches, positions and tokens by their paths."""
    at, found = AT[kind], {}
    patches = {"dinov2": "patch_embeddings/projection"}
    patches = f"{at}/{patches.get(kind, 'patch_embedding')}"
    old = "embeddings.patch_embeddings.projection"
    kernel = tensors[f"{old}.weight"]
    found[f"{patches}/kernel"] = kernel.transpose(2, 3, 1, 0)
    found[f"{patches}/bias"] = tensors[f"{old}.bias"]
    positions = tensors["embeddings.position_embeddings"]
    token = tensors["embeddings.cls_token"]
    if kind == "vit":
        found[f"{at}/position_embedding/embeddings"] = positions[0]
        found[f"{at}/class_token"] = token
    elif kind == "deit":
        found[f"{at}/position_embedding"] = positions
        found[f"{at}/class_token"] = token
        name = "distillation_token"
        found[f"{at}/{name}"] = tensors[f"embeddings.{name}"]
    else:
        found[f"{at}/position_embeddings"] = positions
        found[f"{at}/interpolated_position_embeddings"] = positions
        found[f"{at}/cls_token"] = token
        for name in ("mask_token", "register_tokens"):
            found[f"{at}/{name}"] = tensors[f"embeddings.{name}"]
    return found


def like_keras_hub(kind, config, tensors):
    """An object with the attributes and weights of a backbone of KerasHub.

    Args:
        kind: "vit", "deit" or "dinov2".
        config, tensors: of transformers, with the same numbers.
    """
    found = weights_of(kind, config, tensors)
    name = CLASSES.get(kind, "DINOV2Backbone")
    backbone = type(name, (), {"__module__": "keras_hub.src"})()
    size = config["image_size"]
    vars(backbone).update(
        name="mine",
        hidden_dim=config["hidden_size"],
        patch_size=config["patch_size"],
        num_layers=config["num_hidden_layers"],
        image_shape=(size, size, 3),
        layer_norm_epsilon=config["layer_norm_eps"],
        use_class_token=True,
        use_patch_bias=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        position_embedding_shape=(size, size, 3),
        num_register_tokens=config["num_register_tokens"],
        weights=[Weight(path=p, value=x) for p, x in found.items()],
    )
    if kind == "dinov2":
        del backbone.layer_norm_epsilon
        # Its layers are named after it.
        for weight in backbone.weights:
            weight.path = f"mine_{weight.path}"
    return backbone


def make(kind):
    model_type = "dinov2_with_registers" if kind == "dinov2" else kind
    config = {**CONFIG, "model_type": model_type}
    if kind != "dinov2":
        config["layer_norm_eps"] = 1e-2  # An epsilon that affects the results.
    tensors = oracle.random_arrays(oracle.transformers_shapes(config))
    return config, tensors, like_keras_hub(kind, config, tensors)


@pytest.fixture(autouse=True)
def arrays(monkeypatch):
    """`keras.ops` knows real variables only."""
    monkeypatch.setattr(
        reader._ByPath,
        "__getitem__",
        lambda self, path: np.asarray(dict.__getitem__(self, path)),
    )


@pytest.mark.few_on_jax("dinov2")
@pytest.mark.parametrize("kind", AT)
def test_tokens_equal(kind):
    config, tensors, backbone = make(kind)
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3))
    expected = oracle.transformers_tokens(tensors, config, images)
    model = convert(backbone, pixels=(1, 0))
    got = keras.ops.convert_to_numpy(model(images.astype("float32")))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("computed", [True, False])
def test_positions_of_dinov2_in_half_precision(dtype, computed):
    """Those of the model's size, computed from the others, are rounded; those
    that were trained on are something else."""
    config, _, backbone = make("dinov2")
    channels, patch = config["hidden_size"], config["patch_size"]
    backbone.position_embedding_shape = (10 * patch, 10 * patch, 3)
    grid = (config["image_size"] // patch,) * 2

    def rounded(x):
        x = keras.ops.cast(keras.ops.cast(x, dtype), "float32")
        return keras.ops.convert_to_numpy(x)

    rng = np.random.default_rng(0)
    trained = rounded(rng.normal(scale=0.02, size=(1, 101, channels)))
    old = trained[0, 1:].reshape(10, 10, channels)
    used = resample_grid(
        keras.ops.convert_to_tensor(old), (10, 10), grid, "cubic"
    )
    used = rounded(used).reshape(-1, channels)
    if not computed:
        used = rounded(used + rng.normal(scale=0.01, size=used.shape))
    used = np.concatenate([trained[0, :1], used])[None]
    values = {"position_embeddings": trained}
    values["interpolated_position_embeddings"] = used
    for weight in backbone.weights:
        weight.dtype = dtype
        name = weight.path.split("/")[-1]
        weight.value = values.get(name, weight.value)
    model = convert(backbone, pixels=(1, 0))
    expected = trained[0, 1:] if computed else used[0, 1:]
    (found,) = model.get_layer("positions").get_weights()
    np.testing.assert_array_equal(found.reshape(-1, channels), expected)


@pytest.mark.slow_on_jax
def test_a_classifier():
    config, tensors, backbone = make("deit")
    shapes = {"predictions.weight": (5, 32), "predictions.bias": (5,)}
    head = oracle.random_arrays(shapes)
    task = type("DeiTImageClassifier", (), {"__module__": "keras_hub"})()
    vars(task).update(
        name="task",
        backbone=backbone,
        num_classes=5,
        activation=None,
        pooling="gap",
        preprocessor=types.SimpleNamespace(
            image_converter=types.SimpleNamespace(
                scale=[0.1, 0.2, 0.3], offset=None
            )
        ),
        weights=backbone.weights
        + [
            Weight(path="predictions/kernel", value=head[next(iter(head))].T),
            Weight(path="predictions/bias", value=head["predictions.bias"]),
        ],
    )
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3))
    x = images * [0.1, 0.2, 0.3]
    x = oracle.transformers_tokens(tensors, config, x).mean(1)
    expected = x @ head["predictions.weight"].T + head["predictions.bias"]
    got = convert(task)(images.astype("float32"))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    for preprocessor in (keras.layers.Rescaling(1 / 255), lambda x: x / 255):
        task.preprocessor = preprocessor
        with pytest.raises(ValueError, match="image_converter.*Received"):
            convert(task)
        scaled = convert(task, pixels=(1 / 255, 0.0))
        assert scaled.get_layer("rescaling").scale == 1 / 255
    task.pooling = "max"
    with pytest.raises(ValueError, match="'gap'. Received: pooling='max'"):
        convert(task)


@pytest.mark.parametrize("kind", AT)
def test_a_missing_or_an_extra_weight_is_named(kind):
    _, _, backbone = make(kind)
    weights = backbone.weights
    for k, weight in enumerate(weights):
        path = weight.path.removeprefix("mine_")
        backbone.weights = weights[:k] + weights[k + 1 :]
        if path.endswith("mask_token"):
            continue
        with pytest.raises(ValueError, match=f"'{path}', which is missing"):
            convert(backbone)
    extra = Weight(path="decoder/kernel", value=np.ones((2, 2), "float32"))
    backbone.weights = [*weights, extra]
    with pytest.raises(ValueError, match="no tensors but.*'decoder/kernel'"):
        convert(backbone)
