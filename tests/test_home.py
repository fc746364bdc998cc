"""`~` is the home folder in every path that a function of the library takes."""

import ast
import pathlib

import keras
import numpy as np
import pytest

import keras_topo
from keras_topo import models
from keras_topo.export import runtimes
from keras_topo.graphs import load_planetoid, load_tu_dataset
from keras_topo.layers import RandomWalkKernel
from keras_topo.presets import read_metrics, read_preprocessor

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    # Where a folder named `~` would appear.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path
    assert not list((tmp_path / "elsewhere").iterdir())


def small_model():
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


def test_presets(home):
    model = small_model()
    described, metrics = {"task": "images"}, {"task": "images"}
    keras_topo.save_preset(model, "~/zoo/mine", described, metrics)
    assert (home / "zoo" / "mine" / "config.json").is_file()
    again = keras_topo.from_preset("~/zoo/mine")
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_preprocessor("~/zoo/mine") == described
    assert read_metrics("~/zoo/mine") == metrics
    model.save(home / "model.keras")
    assert keras_topo.from_preset("~/model.keras").count_params() == 98


@pytest.mark.parametrize(
    "read", [load_planetoid, load_tu_dataset, keras_topo.convert]
)
def test_what_is_not_there_is_named(home, read):
    with pytest.raises((ValueError, OSError), match=f"{home}/missing.npz"):
        read("~/missing.npz")


def export_graphs(path):
    classifier = models.gkat_graph_classifier(3, 2, depth=1, num_kernels=2)
    whole = models.with_edge_inputs(classifier, RandomWalkKernel((1, 3)), 3)
    return keras_topo.export_graph_saved_model(whole, path, verify=False)


def export_nodes(path):
    features = np.ones((6, 4), "float32")
    ring = np.roll(np.eye(6), 1, 0) + np.eye(6)
    model = models.gkat_node_classifier(4, 3, ring, num_heads=2, key_dim=2)
    model(features[None])
    return keras_topo.export_node_saved_model(
        model, path, features, verify=False
    )


def export_images(path):
    return keras_topo.export_saved_model(
        small_model(), path, verify=False, signatures=("serving_default",)
    )


@pytest.mark.tensorflow_only
def test_saved_models(home):
    assert export_images("~/served/1")["path"] == str(home / "served" / "1")
    assert (home / "served" / "1" / "saved_model.pb").is_file()
    (home / "taken").mkdir()
    for export in (export_images, export_graphs, export_nodes):
        with pytest.raises(FileExistsError, match=f"'{home}/taken'"):
            export("~/taken")


@pytest.mark.tensorflow_only
def test_files_of_other_runtimes(home, monkeypatch):
    """Paths of exports, tested without the runtimes."""

    def convert(plain, file, runtime, batch):
        file.write_bytes(b"x")
        return {}

    monkeypatch.setattr(runtimes, "_is_there", lambda name: True)
    monkeypatch.setattr(runtimes, "_convert", convert)
    for name in ("litert", "onnx"):
        report = keras_topo.export(
            small_model(), f"~/files/{name}", name, verify=False
        )
        assert report["path"] == str(home / "files" / name)
        assert (home / "files" / name).read_bytes() == b"x"


@pytest.mark.tensorflow_only
def test_graph_schemas(home):
    from keras_topo.export.graph_schema import load_graph_schema

    with pytest.raises((ValueError, OSError), match=str(home / "missing")):
        load_graph_schema("~/missing")


@pytest.mark.tensorflow_only
def test_scripts_take_no_plain_paths():
    """argparse's `type=Path` leaves `~` as it is: `path` is there for it."""
    wrong = []
    for folder in ("benchmarks", "training"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "type":
                    name = ast.unparse(node.value)
                    if name.rpartition(".")[2] == "Path":
                        wrong.append(f"{file}:{node.value.lineno}")
    assert not wrong
