"""Presets: what a folder may hold, and what is refused."""

import json
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import reference as ref
from preset_models import (
    config_of,
    dense,
    save,
)

import keras_topo
from keras_topo import layers
from keras_topo.layers import GraphKernelAttention
from keras_topo.presets import (
    folders,
)

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax


def test_a_changed_file_is_named(tmp_path):
    folder = save(dense(), tmp_path / "tiny", task="images")
    for name in ("config.json", "model.weights.h5", "metrics.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + b"x")
        with pytest.raises(ValueError, match=f"{name} is not the file that"):
            keras_topo.from_preset(folder)
        (folder / name).write_bytes(whole)
    (folder / "model.weights.h5").unlink()
    with pytest.raises(ValueError, match="weights.h5.*Received: no file"):
        keras_topo.from_preset(folder)
    (folder / "checksums.json").unlink()
    with pytest.raises(ValueError, match="checksums.json expects"):
        keras_topo.from_preset(folder)


@pytest.fixture
def unsafe():
    """A user may have enabled this for another model."""
    keras.config.enable_unsafe_deserialization()
    yield
    # Keras has no function to undo this.
    from keras.src.backend.common import global_state

    global_state.set_global_attribute("safe_mode_saving", None)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a")
@pytest.mark.parametrize("kind", ["layer", "node_wise", "inside", "mask"])
def test_code_is_refused_whatever_is_allowed(kind, tmp_path, unsafe):
    evil = keras.layers.Lambda(lambda x: x + 0)
    if kind == "node_wise":
        evil = keras.Sequential(
            [
                keras.layers.Reshape((3, 1)),
                layers.NodeWise(evil),
                keras.layers.Flatten(),
            ]
        )
    elif kind == "inside":
        evil = dense(evil)
    model = dense(evil)
    if kind == "mask":
        mask = layers.ForestMask([-1, 0], function=lambda d: 1 / (1 + d))
        model = keras.Sequential(
            [
                keras.Input((2, 3)),
                GraphKernelAttention(
                    2, 2, similarity="relu", graph_kernel=mask
                ),
            ]
        )
    model.save(tmp_path / "evil.keras")
    with pytest.raises(ValueError, match="Presets hold no code"):
        keras_topo.from_preset(tmp_path / "evil.keras")
    with pytest.raises(ValueError, match="Presets hold no code"):
        keras_topo.save_preset(model, tmp_path / "evil")
    # Nor from a folder with its own checksums.
    folder = save(dense(), tmp_path / "tiny")
    config = config_of(folder)
    config["model"] = keras.saving.serialize_keras_object(model)
    (folder / "config.json").write_text(json.dumps(config))
    folders.write_checksums(folder)
    with pytest.raises(ValueError, match="Presets hold no code"):
        keras_topo.from_preset(folder)


@pytest.mark.parametrize(
    "forged",
    [
        {"module": "os", "class_name": "function", "config": "system"},
        {"module": "builtins", "class_name": "function", "config": "eval"},
        {
            "module": "os",
            "class_name": "function",
            "config": "system",
            "registered_name": "keras_topo>NodeWise",
        },
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"module": "antigravity", "class_name": "Thing", "config": {}},
    ],
    ids=lambda forged: f"{forged['module']}.{forged['config']}",
)
def test_functions_by_the_name_of_a_module_are_refused(
    forged, tmp_path, unsafe
):
    folder = save(dense(), tmp_path / "tiny")
    config = config_of(folder)
    config["model"]["config"]["layers"][-1]["config"]["activation"] = forged
    (folder / "config.json").write_text(json.dumps(config))
    folders.write_checksums(folder)
    with pytest.raises(ValueError, match="Presets are made of parts of Keras"):
        keras_topo.from_preset(folder)
    assert "antigravity" not in sys.modules


def test_files_that_read_other_files_are_refused(tmp_path):
    folder = save(dense(), tmp_path / "tiny")
    weights = folder / "model.weights.h5"
    whole = weights.read_bytes()
    (tmp_path / "secret").write_bytes(bytes(64))

    def external(file):
        group = file.create_group("more")
        group.create_dataset(
            "0", (2,), "float32", external=[(str(tmp_path / "secret"), 0, 8)]
        )

    def link(file):
        file["more"] = h5py.ExternalLink(str(tmp_path / "secret"), "/")

    def soft(file):
        file["more"] = h5py.SoftLink("/layers")

    for change in (external, link, soft):
        weights.write_bytes(whole)
        with h5py.File(weights, "a") as file:
            change(file)
        folders.write_checksums(folder)
        with pytest.raises(ValueError, match="/more.*in .*model.weights.h5"):
            keras_topo.from_preset(folder)
    weights.write_bytes(whole[:100])
    folders.write_checksums(folder)
    with pytest.raises(ValueError, match="no HDF5 file"):
        keras_topo.from_preset(folder)


def test_a_layer_of_ones_own_loads_where_it_is_registered(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    with pytest.raises(ValueError, match="the class 'Twice'"):
        keras_topo.save_preset(dense(Twice()), tmp_path / "own")
    register = keras.saving.register_keras_serializable("test_presets")
    model = dense(register(Twice)())
    folder = save(model, tmp_path / "own")
    x = np.ones((1, 3), "float32")
    found = keras_topo.from_preset(folder)(x)
    np.testing.assert_array_equal(ref.numpy(found), ref.numpy(model(x)))
    del keras.src.saving.object_registration.GLOBAL_CUSTOM_OBJECTS[
        "test_presets>Twice"
    ]
    with pytest.raises(ValueError, match="registered.*the class 'Twice'"):
        keras_topo.from_preset(folder)


def test_archives_lead_nowhere_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("assets/../../evil.txt", "evil")
    with pytest.raises(ValueError, match="evil.keras expects config.json"):
        keras_topo.from_preset(tmp_path / "evil.keras")
    (tmp_path / "no.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match="no .keras file"):
        keras_topo.from_preset(tmp_path / "no.keras")
    with pytest.raises(ValueError, match="`model` expects a built"):
        keras_topo.save_preset(keras.Sequential(), tmp_path / "unbuilt")
