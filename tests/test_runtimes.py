"""LiteRT and ONNX files, each in its own runtime."""

import keras
import numpy as np
import pytest
import reference as ref

import keras_topo
from keras_topo import models, runtimes

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
EXPORTS = {"litert": "tflite", "onnx": "onnx"}


def image_model(**options):
    keras.utils.set_random_seed(0)
    return models.topvit(
        "mini", image_shape=(16, 24, 3), num_classes=4, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EXPORTS)
@pytest.mark.parametrize("name", MODELS)
def test_files_give_the_answers_of_the_model(name, runtime, tmp_path):
    for package in runtimes.PACKAGES[runtime]:
        pytest.importorskip(package)
    model = image_model(**MODELS[name])
    path = tmp_path / f"model.{EXPORTS[runtime]}"
    report = getattr(keras_topo, f"export_{runtime}")(model, path)
    assert report["max_abs_difference"] < 1e-4
    x = 255 * np.random.default_rng(1).random((1, 16, 24, 3), "float32")
    run = getattr(runtimes, f"_run_{runtime}")
    np.testing.assert_allclose(run(path, x), ref.numpy(model(x)), atol=1e-4)


def test_masks_become_matrices_without_a_change():
    model = image_model(implementation="fast")
    explicit = runtimes.with_explicit_masks(model)
    block = explicit.get_layer("block_1")
    assert block.attention.implementation == "explicit"
    x = 255 * np.random.default_rng(1).random((2, 16, 24, 3), "float32")
    np.testing.assert_allclose(
        ref.numpy(explicit(x)), ref.numpy(model(x)), atol=1e-4
    )


def pretend(monkeypatch, run, convert=lambda *_: None):
    monkeypatch.setattr(runtimes, "_is_there", lambda name: True)
    monkeypatch.setattr(runtimes, "_convert", convert)
    monkeypatch.setattr(runtimes, "_run_onnx", run)


def test_another_answer_is_refused(tmp_path, monkeypatch):
    pretend(monkeypatch, lambda file, x: np.zeros((1, 4), "float32"))
    with pytest.raises(RuntimeError, match="differs from the Keras model"):
        keras_topo.export_onnx(image_model(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_converted_is_refused_with_the_reason(
    tmp_path, monkeypatch
):
    def convert(*_):
        raise KeyError("no such operation: Fancy")

    pretend(monkeypatch, None, convert)
    with pytest.raises(RuntimeError, match="run by onnx.*Fancy"):
        keras_topo.export_onnx(image_model(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "_is_there", lambda name: name != "tf2onnx")
    with pytest.raises(ImportError, match="Missing: tf2onnx"):
        keras_topo.export_onnx(image_model(), tmp_path / "model.onnx")


def test_other_models_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "_is_there", lambda name: True)
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="input of known shape"):
        keras_topo.export_litert(model, tmp_path / "model.tflite")
