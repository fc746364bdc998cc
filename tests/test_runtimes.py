"""LiteRT and ONNX files, each in its own runtime."""

import json
import sys
import zipfile

import keras
import numpy as np
import pytest
import reference as ref
from export_models import dense_model

import keras_topo
from keras_topo import models
from keras_topo.export import runtimes
from keras_topo.export.copies import plain_copy
from keras_topo.presets import read_preprocessor

pytestmark = pytest.mark.tensorflow_only

MODELS = {
    "table": {"mask": "table"},
    "separable": {"mask": "separable", "separable_terms": "decay"},
    "distance": {"mask": "distance"},
    "linear": {"attention": "linear"},
    "softmax": {"attention": "softmax"},
    "token": {"pooling": "token"},
    "stem": {"stem": "convolutions"},
}
# One block: most of the time goes into building and converting.
sys.modules["keras_topo.models.topvit"].SIZES["tiny"] = (12, 3, 24, 1)
EXPORTS = {"litert": "tflite", "onnx": "onnx"}
NAMES = ["daisy", "rose", "tulip", "Löwenzahn"]


def image_model(**options):
    keras.utils.set_random_seed(0)
    return models.topvit(
        "tiny", image_shape=(16, 24, 3), num_classes=4, **options
    )


def pixels(*shape):
    return 255 * np.random.default_rng(1).random(shape, "float32")


def run(runtime, path, inputs):
    return getattr(runtimes, f"_run_{runtime}")(path, inputs)


def needs(runtime):
    for package in runtimes.PACKAGES[runtime]:
        pytest.importorskip(package)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EXPORTS)
@pytest.mark.parametrize("name", MODELS)
def test_files_give_the_answers_of_the_model(name, runtime, tmp_path):
    needs(runtime)
    model = image_model(**MODELS[name])
    path = tmp_path / f"model.{EXPORTS[runtime]}"
    report = getattr(keras_topo, f"export_{runtime}")(model, path)
    assert report["max_abs_difference"] < 1e-4
    x = pixels(3, 16, 24, 3)
    answer = run(runtime, path, {"images": x})
    assert set(answer) == {"logits", "probabilities"}
    np.testing.assert_allclose(answer["logits"], model(x), atol=1e-4)
    np.testing.assert_allclose(answer["probabilities"].sum(-1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EXPORTS)
def test_three_formats_of_a_trained_model_agree(runtime, tmp_path):
    """To 1e-5, logits and probabilities, each format in its own runtime."""
    import tensorflow as tf

    needs(runtime)
    preset = keras_topo.presets()["topvit-cifar10"]
    model = keras_topo.from_preset("topvit-cifar10")
    names = read_preprocessor("topvit-cifar10")["class_names"]
    path = tmp_path / f"model.{EXPORTS[runtime]}"
    keras_topo.export(model, path, runtime, class_names=names)
    x = pixels(4, *model.input_shape[1:])
    saved = tf.saved_model.load(f"{preset['path']}/1").signatures
    expected = saved["serving_default"](images=tf.constant(x))
    answer = run(runtime, path, {"images": x})
    for key in ("logits", "probabilities"):
        np.testing.assert_allclose(answer[key], expected[key], atol=1e-5)
        assert np.abs(answer[key]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EXPORTS)
def test_names_go_along(runtime, tmp_path):
    needs(runtime)
    path = tmp_path / "model"
    keras_topo.export(
        dense_model(units=4), path, runtime, class_names=NAMES, verify=False
    )
    if runtime == "litert":
        with zipfile.ZipFile(path) as file:
            found = file.read("labels.txt").decode().splitlines()
    else:
        import onnx

        (entry,) = onnx.load(str(path)).metadata_props
        assert entry.key == "class_names"
        found = json.loads(entry.value)
    assert found == NAMES
    assert run(runtime, path, {"images": pixels(2, 8, 8, 3)})


# ----------------------------------------- the copy that other runtimes get


def test_masks_become_matrices_without_a_change():
    model = image_model(implementation="fast")
    explicit = plain_copy(model)
    block = explicit.get_layer("block_1")
    assert block.attention.implementation == "explicit"
    x = pixels(2, 16, 24, 3)
    np.testing.assert_allclose(
        ref.numpy(explicit(x)), ref.numpy(model(x)), atol=1e-4
    )


def test_half_precision_becomes_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = image_model()
    finally:
        keras.config.set_dtype_policy("float32")
    plain = plain_copy(model)
    dtypes = {layer.compute_dtype for layer in plain._flatten_layers()}
    assert dtypes == {"float32"}
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    x = pixels(2, 16, 24, 3)
    difference = ref.numpy(plain(x)) - ref.numpy(model(x)).astype("float32")
    assert 0 < np.abs(difference).max() < 0.1


def test_adapters_are_added_in():
    model = image_model()
    count = len(model.weights)
    dense = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dense)
    ]
    for layer in dense:
        layer.enable_lora(2)
        shape = layer.lora_kernel_b.shape
        layer.lora_kernel_b.assign(np.random.default_rng(0).normal(size=shape))
    plain = plain_copy(model)
    assert len(dense) > 2 and len(plain.weights) == count < len(model.weights)
    x = pixels(2, 16, 24, 3)
    np.testing.assert_allclose(
        ref.numpy(plain(x)), ref.numpy(model(x)), rtol=1e-4, atol=1e-4
    )


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_models_inside_and_classes_of_ones_own():
    """A recurrent layer has an `implementation` of its own, a number."""
    inputs = keras.Input((16, 24, 3))
    x = keras.Sequential([keras.layers.RandomFlip(), Unregistered()])(inputs)
    x = image_model(implementation="fast")(x)
    x = keras.layers.Reshape((4, 1))(x)
    x = keras.layers.Lambda(lambda y: y + 1)(x)
    model = keras.Model(inputs, keras.layers.LSTM(2)(x))
    plain = plain_copy(model)
    inner = plain.get_layer("topvit_tiny").get_layer("block_1")
    assert inner.attention.implementation == "explicit"
    x = pixels(2, 16, 24, 3)
    np.testing.assert_allclose(
        ref.numpy(plain(x, training=False)),
        ref.numpy(model(x, training=False)),
        atol=1e-4,
    )


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_quantized_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "_is_there", lambda name: True)
    model = dense_model()
    model.quantize("int8")
    with pytest.raises(ValueError, match="not quantized.*mode 'int8'"):
        keras_topo.export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------- what is refused


def pretend(monkeypatch, run, write=lambda *_: None):
    monkeypatch.setattr(runtimes, "_is_there", lambda name: True)
    monkeypatch.setattr(runtimes, "_write_onnx", write)
    monkeypatch.setattr(runtimes, "_run_onnx", run)


def test_another_answer_is_refused(tmp_path, monkeypatch):
    def zeros(file, inputs):
        shape = len(inputs["images"]), 3
        names = ("logits", "probabilities")
        return {name: np.zeros(shape, "float32") for name in names}

    pretend(monkeypatch, zeros)
    with pytest.raises(RuntimeError, match="differ from the Keras model"):
        keras_topo.export_onnx(dense_model(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_converted_is_refused_with_the_reason(
    tmp_path, monkeypatch
):
    def write(*_):
        raise KeyError("no such operation: Fancy")

    pretend(monkeypatch, None, write)
    with pytest.raises(RuntimeError, match="run by onnx.*Fancy"):
        keras_topo.export_onnx(dense_model(), tmp_path / "model.onnx")

    def write(*_):
        raise ValueError("a page of MLIR\nTF Select ops: Roll, Fold\nDetails")

    pretend(monkeypatch, None, write)
    open_axes = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(RuntimeError, match="no Roll, Fold; `input_shape` g"):
        keras_topo.export_onnx(open_axes, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_where_batches_fail_it_goes_one_by_one(tmp_path, monkeypatch):
    model, seen = dense_model(), []

    def write(found, function, specs, file):
        seen.append(specs[0].shape[0])
        file.write_text("a model")

    def run(file, inputs):
        if seen == [None]:
            raise ValueError("not in batches")
        logits = ref.numpy(model(inputs["images"]))
        shares = ref.numpy(keras.ops.softmax(logits))
        return {"logits": logits, "probabilities": shares}

    pretend(monkeypatch, run, write)
    path = tmp_path / "model.onnx"
    report = keras_topo.export(model, path, "onnx")
    assert seen == [None, 1] and path.read_text() == "a model"
    inputs = report["signatures"]["serving_default"]["inputs"]
    assert inputs == {"images": "float32 (1, 8, 8, 3)"}
    with pytest.raises(FileExistsError, match="`path`.*overwrite=True"):
        keras_topo.export(model, path, "onnx")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "_is_there", lambda name: name != "tf2onnx")
    with pytest.raises(ImportError, match="Missing: tf2onnx"):
        keras_topo.export_onnx(dense_model(), tmp_path / "model.onnx")


def test_formats_and_options_are_named(tmp_path):
    model = dense_model()
    for options, message in (
        ({"format": "torch"}, "`format` expects one of.*'torch'"),
        ({"top": 5}, "`top` is no option of models of tensors.*top_k"),
        ({"spec": None}, "`spec` is no option"),
        ({"input_shape": (9, 9)}, "`input_shape` expects sizes for those"),
        ({"task": "ranking"}, "`task` expects one of"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_topo.export(model, tmp_path / "1", **options)
