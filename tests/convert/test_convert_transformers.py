"""Folders of transformers, hand-made, against NumPy in float64."""

import json
import sys
import types

import keras
import ml_dtypes
import numpy as np
import pytest
import vit_oracles as oracle

import keras_topo
from keras_topo.convert import convert

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
CONFIGS = {
    "vit": {"intermediate_size": 48, "layer_norm_eps": 1e-12},
    "deit": {"intermediate_size": 48, "layer_norm_eps": 1e-12},
    "dinov2": {"mlp_ratio": 2, "layer_norm_eps": 1e-6},
    "dinov2_with_registers": {
        "mlp_ratio": 2,
        "layer_norm_eps": 1e-6,
        "num_register_tokens": 3,
    },
}
SIZES = {
    "narrow": {},
    # An epsilon that affects the results.
    "deep": {
        "hidden_size": 48,
        "num_attention_heads": 3,
        "num_hidden_layers": 6,
        "layer_norm_eps": 1e-2,
    },
    "wide": {"hidden_size": 192, "num_attention_heads": 3},
}
MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])


def make(kind, seed=0, **options):
    config = {**SMALL, **CONFIGS[kind], "model_type": kind, **options}
    shapes = oracle.transformers_shapes(config)
    return config, oracle.random_arrays(shapes, seed)


def pixels(*shape, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (2, *shape, 3)).astype("float32")


def normalized(kind, images):
    """The published normalization of each family."""
    if kind == "vit":
        return images / 127.5 - 1
    return (images / 255 - MEAN) / DEVIATION


def difference(model, config, tensors, images):
    kind = config["model_type"]
    expected = oracle.transformers_tokens(
        tensors, config, normalized(kind, images)
    )
    got = keras.ops.convert_to_numpy(model(images))
    assert got.shape == expected.shape
    return np.abs(got - expected).max()


@pytest.mark.few(
    "narrow-dinov2_with_registers",
    "narrow-vit",
    "wide-deit",
    "deep-dinov2",
    "deep-dinov2_with_registers",
    "wide-vit",
)
@pytest.mark.few_on_jax("narrow-dinov2_with_registers")
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("size", SIZES)
def test_tokens_equal(tmp_path, kind, size):
    config, tensors = make(kind, **SIZES[size])
    model = convert(oracle.write_folder(tmp_path, config, tensors))
    assert model.input_shape == (None, 16, 16, 3)
    assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5


@pytest.mark.slow_on_jax
@pytest.mark.few("shape0-vit", "shape1-deit", "shape0-dinov2")
@pytest.mark.few_on_jax("shape1-deit")
@pytest.mark.parametrize("kind", ["vit", "deit", "dinov2"])
@pytest.mark.parametrize("shape", [(24, 24), (8, 30)])
def test_other_sizes_are_those_of_pytorch(tmp_path, kind, shape):
    """30 is not a multiple of 4: the last two columns are cut off."""
    config, tensors = make(kind)
    oracle.write_folder(tmp_path, config, tensors)
    model = convert(tmp_path, image_shape=shape)
    assert difference(model, config, tensors, pixels(*shape)) <= 1e-5


@pytest.mark.slow_on_jax
def test_images_of_any_size(tmp_path):
    config, tensors = make("dinov2")
    oracle.write_folder(tmp_path, config, tensors)
    model = convert(tmp_path, image_shape=(None, None))
    for shape in ((16, 16), (24, 12)):
        assert difference(model, config, tensors, pixels(*shape)) <= 1e-5


@pytest.mark.slow_on_jax
def test_gated_units_and_the_other_gelu(tmp_path):
    for folder, options in (
        ("a", {"kind": "dinov2", "use_swiglu_ffn": True}),
        ("b", {"kind": "vit", "hidden_act": "gelu_new"}),
    ):
        config, tensors = make(**options)
        oracle.write_folder(tmp_path / folder, config, tensors)
        model = convert(tmp_path / folder)
        assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5


@pytest.mark.slow_on_jax
def test_newer_names_of_the_same_tensors(tmp_path):
    renames = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }

    def renamed(name, kind):
        for old, new in renames.items():
            name = name.replace(old, new)
        return (
            name.replace("encoder.layer.", "layers.")
            if kind == "vit"
            else (name)
        )

    config, tensors = make("vit")
    new = {renamed(name, "vit"): x for name, x in tensors.items()}
    model = convert(oracle.write_folder(tmp_path / "a", config, new, "vit."))
    assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5
    config, tensors = make("dinov2", use_swiglu_ffn=True)
    new = {}
    for name, x in tensors.items():
        name = renamed(name, "dinov2").replace("weights_out", "down_proj")
        if "weights_in" in name:
            for part, half in zip(("gate", "up"), np.split(x, 2), strict=True):
                new[name.replace("weights_in", f"{part}_proj")] = half
        else:
            new[name] = x
    model = convert(oracle.write_folder(tmp_path / "b", config, new))
    assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5


def with_classifier(kind, names, inputs):
    config, tensors = make(kind)
    shapes = {f"{name}.weight": (5, inputs) for name in names}
    shapes |= {f"{name}.bias": (5,) for name in names}
    return config, {**tensors, **oracle.random_arrays(shapes, 2)}


def linear(x, tensors, name):
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


@pytest.mark.few("dinov2", "vit")
@pytest.mark.few_on_jax("dinov2")
@pytest.mark.parametrize("kind", CONFIGS)
def test_classifiers(tmp_path, kind):
    dino = kind.startswith("dinov2")
    config, tensors = with_classifier(kind, ["classifier"], 64 if dino else 32)
    oracle.write_folder(tmp_path, config, tensors, f"{kind}.")
    images = pixels(16, 16)
    x = oracle.transformers_tokens(tensors, config, normalized(kind, images))
    features = x[:, 0]
    if dino:
        patches = x[:, 1 + config.get("num_register_tokens", 0) :]
        features = np.concatenate([features, patches.mean(1)], -1)
    got = np.array(convert(tmp_path)(images))
    expected = linear(features, tensors, "classifier")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    # Features in front of the classifier; and all tokens.
    got = np.array(convert(tmp_path, num_classes=0)(images))
    np.testing.assert_allclose(got, features, rtol=0, atol=1e-5)
    got = np.array(convert(tmp_path, num_classes=0, pooling=None)(images))
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-5)
    # A new one.
    assert convert(tmp_path, num_classes=7)(images).shape == (2, 7)
    with pytest.raises(ValueError, match="`pooling` expects 'source' or"):
        convert(tmp_path, pooling="gap")


@pytest.mark.slow_on_jax
def test_the_two_classifiers_of_deit(tmp_path):
    names = ["cls_classifier", "distillation_classifier"]
    config, tensors = with_classifier("deit", names, 32)
    oracle.write_folder(tmp_path, config, tensors, "deit.")
    images = pixels(16, 16)
    x = oracle.transformers_tokens(tensors, config, normalized("deit", images))
    expected = linear(x[:, 0], tensors, names[0])
    expected = (expected + linear(x[:, 1], tensors, names[1])) / 2
    got = np.array(convert(tmp_path)(images))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.slow_on_jax
def test_the_pooler_is_for_features_of_the_class_token(tmp_path, caplog):
    config, tensors = with_classifier("vit", ["pooler.dense"], 32)
    oracle.write_folder(tmp_path, config, tensors)
    images = pixels(16, 16)
    caplog.set_level("INFO", "keras_topo.convert")
    assert difference(convert(tmp_path), config, tensors, images) <= 1e-5
    assert "left out pooler" in caplog.text
    x = oracle.transformers_tokens(tensors, config, normalized("vit", images))
    expected = np.tanh(linear(x[:, 0], tensors, "pooler.dense"))
    got = np.array(convert(tmp_path, pooling="token")(images))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.slow_on_jax
def test_biases_that_are_not_there(tmp_path):
    config, tensors = make("vit", qkv_bias=False)
    kept = {}
    for name, array in tensors.items():
        if name.endswith(("query.bias", "key.bias", "value.bias")):
            array[:] = 0  # Of the oracle.
        else:
            kept[name] = array
    model = convert(oracle.write_folder(tmp_path, config, kept))
    assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5
    oracle.write_folder(tmp_path, {**config, "qkv_bias": True}, kept)
    with pytest.raises(ValueError, match="query.bias', which is missing"):
        convert(tmp_path)


@pytest.mark.slow_on_jax
def test_pixels(tmp_path):
    config, tensors = make("vit")
    oracle.write_folder(tmp_path, config, tensors)
    images = pixels(16, 16)

    def expected(x):
        return oracle.transformers_tokens(tensors, config, x)

    file = tmp_path / "preprocessor_config.json"
    processor = {
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(DEVIATION),
        "rescale_factor": 1 / 255,
    }
    file.write_text(json.dumps(processor))
    x = normalized("dinov2", images)
    got = np.array(convert(tmp_path)(images))
    np.testing.assert_allclose(got, expected(x), rtol=0, atol=1e-5)
    file.write_text(json.dumps({**processor, "do_normalize": False}))
    got = np.array(convert(tmp_path)(images))
    np.testing.assert_allclose(got, expected(images / 255), rtol=0, atol=1e-5)
    got = np.array(convert(tmp_path, pixels=(1, 0))(x.astype("float32")))
    np.testing.assert_allclose(got, expected(x), rtol=0, atol=1e-5)
    file.write_text(json.dumps({**processor, "image_std": [0, 1, 1]}))
    with pytest.raises(ValueError, match="preprocessor_config.json expects"):
        convert(tmp_path)


@pytest.mark.slow_on_jax
def test_half_precision_files(tmp_path):
    for dtype in ("float16", ml_dtypes.bfloat16):
        config, tensors = make("vit")
        short = {name: x.astype(dtype) for name, x in tensors.items()}
        oracle.write_folder(tmp_path, config, short)
        model = convert(tmp_path)
        assert model.layers[-1].gamma.dtype == "float32"
        tensors = {name: x.astype("float32") for name, x in short.items()}
        assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5


@pytest.mark.slow_on_jax
def test_shards(tmp_path):
    config, tensors = make("vit")
    oracle.write_folder(tmp_path, config, tensors)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for k, part in enumerate((names[:10], names[10:])):
        file = f"model-{k + 1:05}-of-00002.safetensors"
        oracle.write_safetensors(
            tmp_path / file, {name: tensors[name] for name in part}
        )
        places |= dict.fromkeys(part, file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    model = convert(tmp_path)
    assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5
    wrong = {**places, names[0]: places[names[-1]]}
    index.write_text(json.dumps({"weight_map": wrong}))
    with pytest.raises(ValueError, match=f"holds '{names[0]}'"):
        convert(tmp_path)
    wrong = {**places, names[0]: "../model.safetensors"}
    index.write_text(json.dumps({"weight_map": wrong}))
    with pytest.raises(ValueError, match="names of files beside it"):
        convert(tmp_path)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_missing_or_an_extra_tensor_is_named(tmp_path, kind):
    """Every one of them."""
    config, tensors = make(kind, num_hidden_layers=1)
    optional = {"embeddings.mask_token"}
    for name in sorted(set(tensors) - optional):
        kept = {key: x for key, x in tensors.items() if key != name}
        oracle.write_folder(tmp_path, config, kept)
        with pytest.raises(ValueError, match=f"{name}', which is missing"):
            convert(tmp_path)
    extra = {**tensors, "encoder.layer.1.norm1.weight": np.ones(32, "float32")}
    oracle.write_folder(tmp_path, config, extra)
    with pytest.raises(ValueError, match="no tensors but.*layer.1.norm1.w"):
        convert(tmp_path)


@pytest.mark.parametrize(
    "kind, architecture, name",
    [
        ("vit", "ViTForImageClassification", "classifier"),
        ("dinov2", "Dinov2ForImageClassification", "classifier"),
        ("deit", "DeiTForImageClassificationWithTeacher", "cls_classifier"),
    ],
)
def test_a_classifier_that_is_missing(tmp_path, kind, architecture, name):
    config, tensors = make(kind, num_hidden_layers=1)
    config["architectures"] = [architecture]
    oracle.write_folder(tmp_path, config, tensors)
    with pytest.raises(ValueError, match=f"'{name}.weight', which is missing"):
        convert(tmp_path)
    config["id2label"] = {}  # Of num_labels=0.
    oracle.write_folder(tmp_path, config, tensors)
    assert len(convert(tmp_path).output_shape) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "swin"}, "config.json expects one of.*model_type"),
        ({"hidden_act": "mish"}, "config.json expects one of.*hidden_act"),
        ({"hidden_size": "wide"}, "config.json expects an int.*hidden_size"),
        ({"hidden_size": 64}, "'embeddings.position_embeddings'.*shape"),
        ({"num_attention_heads": 5}, "num_attention_heads divides"),
        ({"num_hidden_layers": 10**9}, "encoder.layer.2.*which is missing"),
        ({"num_hidden_layers": 1}, "expects no tensors but.*encoder.layer.1"),
        ({"image_size": 32}, "position_embeddings' to have the shape"),
        ({"layer_norm_eps": -1.0}, "config.json expects a positive number"),
        ({"qkv_bias": "yes"}, "config.json expects true or false"),
        ({"patch_size": [4, 4, 4]}, "config.json expects a positive int, or"),
    ],
)
def test_refusals(tmp_path, change, message):
    config, tensors = make("vit")
    oracle.write_folder(tmp_path, {**config, **change}, tensors)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path)


def test_numbers_that_are_not_finite(tmp_path):
    config, tensors = make("vit")
    tensors["layernorm.bias"][3] = np.nan
    oracle.write_folder(tmp_path, config, tensors)
    with pytest.raises(ValueError, match="finite numbers.*'layernorm.bias'"):
        convert(tmp_path)


def test_pickles_are_not_read(tmp_path):
    config, tensors = make("vit")
    oracle.write_folder(tmp_path, config, tensors)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="hold pickles and are not read"):
        convert(tmp_path)


@pytest.mark.parametrize(
    "source", ["nowhere", 5, "hf://a/b/c", "model.safetensors"]
)
def test_other_sources(source):
    with pytest.raises((ValueError, ImportError), match="Received"):
        convert(source)


@pytest.mark.slow_on_jax
def test_options(tmp_path):
    config, tensors = make("vit")
    oracle.write_folder(tmp_path, config, tensors)
    with pytest.raises(ValueError, match="expects options of.*mask"):
        convert(tmp_path, mask="decay")
    with pytest.raises(ValueError, match="`num_classes` expects an int"):
        convert(tmp_path, num_classes=-1)
    with pytest.raises(ValueError, match="`image_shape` expects"):
        convert(tmp_path, image_shape=(16, 16, 4))
    with pytest.raises(ValueError, match="`pixels` expects"):
        convert(tmp_path, pixels=3)
    model = convert(
        tmp_path,
        num_classes=3,
        dropout=0.1,
        stochastic_depth=0.1,
        seed=1,
        dtype="mixed_bfloat16",
        name="fine",
    )
    assert model.name == "fine"
    assert model.get_layer("block_1").compute_dtype == "bfloat16"
    assert model.get_layer("block_1").dropout == 0.1
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.few("dinov2_with_registers")
@pytest.mark.slow_on_jax
@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers"])
def test_a_preset_of_it(tmp_path, kind):
    """It is saved by its builder, loads, and resamples again."""
    config, tensors = make(kind)
    oracle.write_folder(tmp_path / "source", config, tensors)
    keras_topo.save_preset(convert(tmp_path / "source"), tmp_path / "preset")
    with pytest.raises(ValueError, match="are for from_preset"):
        convert(tmp_path / "preset")
    written = json.loads((tmp_path / "preset" / "config.json").read_text())
    assert written["builder"] == "topvit"
    model = keras_topo.from_preset(tmp_path / "preset")
    assert difference(model, config, tensors, pixels(16, 16)) <= 1e-5
    images = pixels(24, 20)
    resized = keras_topo.from_preset(tmp_path / "preset", image_shape=(24, 20))
    again = convert(tmp_path / "source", image_shape=(24, 20))
    np.testing.assert_array_equal(resized(images), again(images))


def test_handles(tmp_path, monkeypatch):
    config, tensors = make("vit", num_hidden_layers=1)
    oracle.write_folder(tmp_path, config, tensors)
    asked = []

    def download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        if repository == "no/network":
            raise OSError("no route")
        return str(tmp_path)

    hub = types.SimpleNamespace(snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    model = convert("hf://someone/vit@v2", num_classes=3)
    assert model.output_shape == (None, 3)
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == ("someone/vit", "v2")
    # No file that holds code or pickles.
    assert all(name.endswith((".json", ".safetensors")) for name in patterns)
    with pytest.raises(ValueError, match="no route.*pass the path of a folder"):
        convert("hf://no/network")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        convert("hf://someone/vit")


def test_channels_of_pixels(tmp_path):
    config, tensors = make("deit", num_hidden_layers=1, num_channels=1)
    name = "embeddings.patch_embeddings.projection.weight"
    tensors[name] = tensors[name][:, :1]
    oracle.write_folder(tmp_path, config, tensors)
    with pytest.raises(ValueError, match="1 channels: `pixels` says how"):
        convert(tmp_path)
    model = convert(tmp_path, pixels=(1 / 255, 0.0))
    assert model.input_shape == (None, 16, 16, 1)


def test_the_name_in_the_package_is_the_function():
    assert keras_topo.convert is convert
    assert "convert" in keras_topo.__all__
