"""Exports of presets, by what they say of themselves."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import answers_with

import keras_topo
from keras_topo import models
from keras_topo.export import saved_models
from keras_topo.training import export, republish

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture(autouse=True)
def no_clean_process(monkeypatch):
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = models.topvit((8, 2, 8, 1), 4, (8, 8, 3), num_classes=2)
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    told = {"task": "images", "class_names": ["sky", "sea"], "max_pixels": 100}
    keras_topo.save_preset(model, folder, told)
    return folder


def test_images_are_read_as_in_training(of_images, tmp_path, capsys):
    assert export.main([str(of_images), str(tmp_path / "1")]) == 0
    assert "classify_bytes; largest difference" in capsys.readouterr().out
    served = tf.saved_model.load(str(tmp_path / "1")).signatures
    image = tf.io.encode_png(np.zeros((10, 10, 3), "uint8"))[None]
    answer = served["classify_bytes"](image_bytes=image)
    assert set(answer["classes"].numpy()[0]) == {b"sky", b"sea"}
    image = tf.io.encode_png(np.zeros((10, 11, 3), "uint8"))[None]
    with pytest.raises(tf.errors.InvalidArgumentError, match="100"):
        served["classify_bytes"](image_bytes=image)
    # Another size; and names of one's own.
    arguments = ["--image-size", "8", "12", "--class-names", "a,b"]
    assert export.main([str(of_images), str(tmp_path / "2"), *arguments]) == 0
    serve = tf.saved_model.load(str(tmp_path / "2")).signatures[
        "serving_default"
    ]
    answer = serve(images=np.zeros((1, 8, 12, 3), "float32"))
    assert answer["class"].numpy()[0] in (b"a", b"b")
    assert export.main([str(of_images), str(tmp_path / "2")]) == 2
    assert "error: " in capsys.readouterr().err


def test_only_saved_models_decode_files(of_images):
    """Every run of images names how its files are read."""
    _, options = export.exportable(of_images)
    assert options["max_pixels"] == 100
    for other in ("onnx", "litert"):
        _, options = export.exportable(of_images, format=other)
        assert options == {"class_names": ["sky", "sea"]}


def test_a_preset_that_cannot_be_republished_stays_as_it_is(
    of_images, tmp_path, capsys
):
    folder = tmp_path / "tiny"
    shutil.copytree(of_images, folder)
    before = sorted(folder.iterdir())
    arguments = [str(folder), "--class-names", "no,yes"]
    assert republish.main(arguments) == 2
    assert "of the task 'images'" in capsys.readouterr().err
    assert republish.main([str(folder)]) == 2
    assert "README.md" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_what_is_refused(of_images, tmp_path, capsys):
    told = {"task": "nodes"}
    data = ["--data-dir", str(tmp_path)]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    keras_topo.save_preset(model, tmp_path / "nodes", told)
    keras_topo.save_preset(model, tmp_path / "other", {"task": "words"})
    for name, arguments, message in (
        ("nodes", [], "--data-dir expects"),
        ("nodes", data, "the name of its data"),
        ("nodes", ["--image-size", "8", "8"], "only for image models"),
        ("other", [], "task='words'"),
        ("nowhere", [], "`name_or_path` expects"),
    ):
        preset = str(tmp_path / name)
        assert export.main([preset, str(tmp_path / "1"), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_graphs_are_exported_as_they_were(tmp_path):
    """From the zoo, by name; and once more in a copy of its folder."""
    known = keras_topo.presets()["gkat-mutag"]["path"]
    folder = tmp_path / "zoo" / "gkat-mutag"
    shutil.copytree(known, folder)
    assert export.main(["gkat-mutag", str(tmp_path / "1")]) == 0
    assert republish.main([str(folder)]) == 0
    reports = [
        json.loads((place / "metrics.json").read_text())["export"]
        for place in (pathlib.Path(known), folder)
    ]
    assert reports[0]["signatures"] == reports[1]["signatures"]
    edges = tf.constant([[[0, 1], [1, 2], [2, 0], [-1, -1]]])
    answers = [
        tf.saved_model.load(str(place)).signatures["serving_default"](
            edges=edges,
            node_labels=tf.constant([[0, 1, 2]]),
            node_mask=tf.ones((1, 3), "bool"),
        )
        for place in (f"{known}/1", tmp_path / "1", folder / "1")
    ]
    for answer in answers:
        np.testing.assert_allclose(
            answer["logits"], answers[0]["logits"], atol=1e-5
        )
