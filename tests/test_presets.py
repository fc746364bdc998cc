"""Presets: loading trained models, for other classes and other grids."""

import json
import os
import pathlib
import sys
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest
import reference as ref
import scipy.sparse

import keras_topo
from keras_topo import layers, models, visualize
from keras_topo.layers import GraphKernelAttention, RandomWalkKernel
from keras_topo.presets import (
    folders,
    read_preprocessor,
    registry,
    saving,
    write_registry,
)


def save(model, folder, **metrics):
    return keras_topo.save_preset(model, folder, metrics=metrics)


def save_as_before(model, folder):
    """A preset of version 0.1."""
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    return folder


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


EYE = np.eye(3)

# One block: most of the time goes into building models.
sys.modules["keras_topo.models.topvit"].SIZES["tiny"] = (12, 3, 24, 1)


def dense(*last):
    return keras.Sequential(
        [keras.Input((3,)), *last, keras.layers.Dense(2, name="head")]
    )


def image_model(mask="table"):
    keras.utils.set_random_seed(0)
    model = models.topvit(
        "tiny", image_shape=(16, 16, 3), num_classes=4, mask=mask
    )
    for weight in model.trainable_weights:
        if weight.name.startswith("mask_"):
            value = ref.numpy(weight)
            noise = np.random.default_rng(0).random(value.shape)
            weight.assign(value + noise.astype("float32"))
    return model


def graph_model():
    classifier = models.gkat_graph_classifier(3, 2, depth=1, num_kernels=2)
    return models.with_edge_inputs(classifier, RandomWalkKernel((1, 3)), 3)


def graphs():
    random = np.random.default_rng(0)
    return {
        "nodes": random.random((2, 5, 3), "float32"),
        "edges": np.tile(
            np.array([[0, 1], [1, 2], [3, 4]], "int32"), (2, 1, 1)
        ),
        "node_mask": np.ones((2, 5), bool),
    }


def images(*shape):
    return 255 * np.random.default_rng(1).random((2, *shape), "float32")


def test_a_preset_is_what_was_saved(tmp_path):
    model = image_model()
    folder = save(model, tmp_path / "tiny")
    x = images(16, 16, 3)
    for path in (folder, str(folder)):
        found = keras_topo.from_preset(path)
        np.testing.assert_array_equal(ref.numpy(found(x)), ref.numpy(model(x)))
    assert config_of(folder)["builder"] == "topvit"
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "model.weights.h5",
        "metrics.json",
        "checksums.json",
    }


def test_folders_of_the_version_before_are_read_with_a_remark(tmp_path, caplog):
    model = image_model()
    folder = save_as_before(model, tmp_path / "tiny")
    found = keras_topo.from_preset(folder)
    x = images(16, 16, 3)
    np.testing.assert_array_equal(ref.numpy(found(x)), ref.numpy(model(x)))
    (record,) = caplog.records
    assert "model.keras" in record.message and record.levelname == "WARNING"


def test_any_keras_file_and_no_other_one(tmp_path):
    folder = save_as_before(image_model(), tmp_path / "tiny")
    (folder / "model.keras").rename(tmp_path / "best.keras")
    assert keras_topo.from_preset(tmp_path / "best.keras").count_params()
    save(image_model(), tmp_path / "other")
    with pytest.raises(ValueError, match="`name_or_path` expects"):
        keras_topo.from_preset(tmp_path / "other" / "missing.keras")


def test_what_was_frozen_when_saved_can_be_trained(tmp_path):
    model = image_model()
    count = len(model.trainable_weights)
    for layer in model.layers[:-1]:
        layer.trainable = False
    folder = save(model, tmp_path / "tiny")
    for options in ({}, {"num_classes": 3}, {"image_shape": (24, 24)}):
        found = keras_topo.from_preset(folder, **options)
        assert len(found.trainable_weights) == count


def test_other_classes_keep_all_but_the_last_layer(tmp_path, capsys, caplog):
    model = image_model()
    folder = save(model, tmp_path / "tiny")
    found = keras_topo.from_preset(folder, num_classes=7)
    assert found(images(16, 16, 3)).shape == (2, 7)
    assert "a new, untrained last layer for 7 classes" in caplog.text
    assert capsys.readouterr().out == ""
    for mine, layer in zip(found.layers[:-1], model.layers[:-1], strict=True):
        for a, b in zip(mine.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "mask",
    [
        "table",
        pytest.param("separable", marks=pytest.mark.slow),
        pytest.param("distance", marks=pytest.mark.slow),
    ],
)
def test_another_grid_is_resampled(mask, tmp_path, caplog):
    folder = save(image_model(mask), tmp_path / "tiny")
    found = keras_topo.from_preset(folder, 3, (24, 40))
    assert found(images(24, 40, 3)).shape == (2, 3)
    assert "24 x 40 instead of 16 x 16; resampled in positions, block_1" in (
        caplog.text
    )
    # The same offset, relative to the grid, has the same entry.
    old = keras_topo.from_preset(folder).get_layer("block_1")
    new = found.get_layer("block_1")
    small = ref.numpy(old.attention.mask_operator().to_dense())
    large = ref.numpy(new.attention.mask_operator().to_dense())
    np.testing.assert_allclose(large[:, 0, 0], small[:, 0, 0], rtol=1e-5)
    # And what was changed can be saved and trained on.
    save(found, tmp_path / "again")
    assert config_of(tmp_path / "again")["image_shape"] == [24, 40, 3]
    again = keras_topo.from_preset(tmp_path / "again")
    x = images(24, 40, 3)
    np.testing.assert_allclose(
        ref.numpy(again(x)), ref.numpy(found(x)), atol=1e-5
    )


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("attention", ["toeplitz", "softmax"])
def test_another_grid_behind_a_class_token(attention, tmp_path, caplog):
    keras.utils.set_random_seed(0)
    model = models.topvit(
        "tiny", image_shape=(16, 16, 3), pooling="token", attention=attention
    )
    folder = save(model, tmp_path / "tiny")
    found = keras_topo.from_preset(folder, 3, (24, np.int64(40)))
    assert "positions" in caplog.text and "class_token" not in caplog.text
    x = images(24, 40, 3)
    assert found(x).shape == (2, 3)
    weights = visualize.attention_weights(found, x)["block_1"]
    assert weights.shape == (2, 3, 61, 61)
    assert visualize.weights.grid_of(found.get_layer("block_1")) == ((6, 10), 1)
    found.save(tmp_path / "again.keras")
    again = keras_topo.from_preset(tmp_path / "again.keras", None, (16, 16))
    x = images(16, 16, 3)
    back = ref.numpy(again(x)).shape
    assert back == (2, 3)
    same = keras.models.Model(again.input, again.get_layer("norm").output)
    first = keras.models.Model(model.input, model.get_layer("norm").output)
    np.testing.assert_allclose(
        ref.numpy(same(x)), ref.numpy(first(x)), atol=1e-5
    )


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("mask", ["table", "decay"])
def test_any_grid(mask, tmp_path):
    """One model for all sizes is each time the model of that size."""
    folder = save(image_model(mask), tmp_path / "tiny")
    any_size = keras_topo.from_preset(folder, 3, (None, None))
    assert any_size.input_shape == (None, None, None, 3)
    any_size = keras_topo.from_preset(folder, image_shape=(None, None, 3))
    again = keras_topo.from_preset(save(any_size, tmp_path / "again"))
    assert again.input_shape == (None, None, None, 3)
    for size in ((16, 16), (24, 40)):
        x = images(*size, 3)
        one_size = keras_topo.from_preset(folder, image_shape=size)
        for model in (any_size, again):
            np.testing.assert_allclose(
                ref.numpy(model(x)), ref.numpy(one_size(x)), atol=1e-5
            )


def test_no_other_grid_where_layers_have_one(tmp_path):
    inputs = keras.Input((4, 4, 4))
    x = layers.PrefixTokens(1)(layers.PositionEmbedding()(inputs))
    block = layers.TopologicalEncoderBlock(
        2, grid_shape=(4, 4), num_prefix_tokens=1
    )
    model = keras.Model(inputs, keras.layers.Dense(2)(block(x)[:, 0]))
    folder = save(model, tmp_path / "model")
    assert keras_topo.from_preset(folder, None, (6, 5)).input_shape[1] == 6
    with pytest.raises(ValueError, match="`image_shape` expects ints"):
        keras_topo.from_preset(folder, image_shape=(None, None))


@pytest.mark.slow_on_jax
def test_smooth_images_look_alike_at_another_resolution(tmp_path):
    """Features of an image and of the same image enlarged by patches."""
    model = image_model()
    folder = save(model, tmp_path / "tiny")
    larger = keras_topo.from_preset(folder, image_shape=(32, 32))
    x = np.repeat(images(4, 4, 3), 4, axis=1).repeat(4, axis=2)
    y = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    difference = ref.numpy(larger(y)) - ref.numpy(model(x))
    assert np.abs(difference).max() < 0.25 * np.abs(ref.numpy(model(x))).max()


@pytest.mark.slow_on_jax
def test_graphs_and_their_classifier_inside(tmp_path):
    model = graph_model()
    folder = save(model, tmp_path / "graphs")
    x = graphs()
    found = keras_topo.from_preset(folder)
    np.testing.assert_allclose(
        ref.numpy(found(x)), ref.numpy(model(x)), atol=1e-6
    )
    other = keras_topo.from_preset(folder, num_classes=5)
    assert other(x).shape == (2, 5)
    block, twin = (
        m.layers[-1].get_layer("block_1").get_weights() for m in (model, other)
    )
    for a, b in zip(block, twin, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="models of images"):
        keras_topo.from_preset(folder, image_shape=(8, 8))


@pytest.mark.slow_on_jax
def test_nodes_keep_their_graph(tmp_path):
    ring = scipy.sparse.csr_array(np.roll(np.eye(6), 1, 0) + np.eye(6))
    model = models.gkat_node_classifier(4, 3, ring, num_heads=2, key_dim=2)
    x = np.random.default_rng(0).random((1, 6, 4), "float32")
    expected = ref.numpy(model(x))
    folder = save(model, tmp_path / "nodes")
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x)), expected, atol=1e-6
    )
    other = keras_topo.from_preset(folder, num_classes=5)
    assert other(x).shape == (1, 6, 5)
    kernels = [
        ref.numpy(m.layers[-1].fixed["pair_values"]) for m in (model, other)
    ]
    np.testing.assert_array_equal(*kernels)


def test_registered_names(tmp_path, monkeypatch):
    save(
        image_model(),
        tmp_path / "tiny",
        task="images",
        test_accuracy=0.5,
        parameters=10,
        arguments={"data": "digits"},
        data_license="as of scikit-learn",
    )
    monkeypatch.setattr(registry, "zoo_folders", lambda: [tmp_path])
    write_registry(tmp_path)
    found = keras_topo.presets()
    assert list(found) == ["tiny"]
    assert found["tiny"]["test_accuracy"] == 0.5
    assert found["tiny"]["data"] == "digits"
    assert keras_topo.from_preset("tiny")(images(16, 16, 3)).shape == (2, 4)
    with pytest.raises(ValueError, match="tiny.*Received: .*'large'"):
        keras_topo.from_preset("large")
    # A folder of that name is no reason to load something else.
    here = tmp_path / "here"
    save(dense(), here / "tiny")
    monkeypatch.chdir(here)
    assert keras_topo.from_preset("tiny").output_shape == (None, 4)
    for path in ("./tiny", pathlib.Path("tiny")):
        assert keras_topo.from_preset(path).output_shape == (None, 2)


def test_handles_of_a_hub(tmp_path, monkeypatch):
    folder = save(image_model(), tmp_path / "tiny")
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(folder)

    sent, cards = [], []

    def upload_folder(repo_id, folder_path, revision, commit_message):
        files = sorted(os.listdir(folder_path))
        cards.append(pathlib.Path(folder_path, "README.md").read_text())
        sent.append((repo_id, revision, files))

    hub = types.SimpleNamespace(
        snapshot_download=snapshot_download,
        upload_folder=upload_folder,
        create_repo=lambda name, exist_ok: sent.append((name, exist_ok)),
        create_branch=lambda name, branch, exist_ok: sent.append(branch),
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = keras_topo.from_preset("hf://someone/tiny@v2")
    assert found(images(16, 16, 3)).shape == (2, 4)
    ((repository, revision, patterns),) = asked
    assert (repository, revision) == ("someone/tiny", "v2")
    assert {"config.json", "model.weights.h5", "checksums.json"} < set(patterns)
    keras_topo.save_preset(dense(), "hf://someone/dense@main", card="# Dense")
    files = ["README.md", "checksums.json", "config.json", "model.weights.h5"]
    assert sent == [
        ("someone/dense", True),
        "main",
        ("someone/dense", "main", files),
    ]
    # Without a card it has one of what is known.
    told = {"class_names": ["daisy", "rose"], "image_shape": [8, 8, 3]}
    keras_topo.save_preset(dense(), "hf://someone/dense", told)
    assert cards[0] == "# Dense"
    for part in (
        "library_name: keras",
        'from_preset("hf://someone/dense")',
        "`daisy`, `rose`",
        "8 x 8 x 3",
    ):
        assert part in cards[1]
    with pytest.raises(ValueError, match="hf://user/repository"):
        keras_topo.from_preset("hf://tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        keras_topo.from_preset("hf://someone/tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "`num_classes`.*Received: num_classes=0"),
        ({"num_classes": 2.5}, "`num_classes`"),
        ({"num_classes": True}, "`num_classes`"),
        ({"image_shape": (32,)}, "`image_shape` expects"),
        ({"image_shape": (32, 32, 1)}, "expects 3 channels"),
        ({"image_shape": (0, 32)}, "positive ints"),
    ],
)
def test_errors(options, message, tmp_path):
    folder = save(image_model(), tmp_path / "tiny")
    with pytest.raises(ValueError, match=message):
        keras_topo.from_preset(folder, **options)
    with pytest.raises(ValueError, match="`name_or_path` expects a str"):
        keras_topo.from_preset(None)


def test_last_layers_of_attention(tmp_path):
    for combine in ("project", "average", "concatenate"):
        head = GraphKernelAttention(2, 4, combine=combine, graph_kernel=EYE)
        model = keras.Sequential([keras.Input((3, 2)), head])
        folder = save(model, tmp_path / combine)
        if combine == "concatenate":
            with pytest.raises(ValueError, match="projects or averages"):
                keras_topo.from_preset(folder, 5)
        else:
            found = keras_topo.from_preset(folder, np.int64(5))
            assert found.output_shape == (None, 3, 5)


# ---------------------------------------------------- what a folder may hold


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
    """What a user may have allowed for a model of his own."""
    keras.config.enable_unsafe_deserialization()
    yield
    # Keras has no function that takes it back.
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
    # Nor from a folder with sums of its own.
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


# ------------------------------------------------------------ kinds of models


def test_a_model_that_was_changed_is_saved_as_it_is(tmp_path):
    model = image_model()
    model.get_layer("logits").activation = keras.activations.softmax
    folder = save(model, tmp_path / "tiny")
    assert "model" in config_of(folder)
    x = images(16, 16, 3)
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x)), ref.numpy(model(x))
    )


def test_the_precision_is_that_of_the_time(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = image_model()
    finally:
        keras.config.set_dtype_policy("float32")
    folder = save(model, tmp_path / "tiny")
    assert config_of(folder)["dtype_policy"] == "mixed_bfloat16"
    found = keras_topo.from_preset(folder)
    assert found.get_layer("block_1").compute_dtype == "bfloat16"


def test_versions_of_keras_that_know_less(tmp_path):
    """Names of other versions, as long as nothing is made of them."""
    folder = save(dense(), tmp_path / "tiny")
    config = config_of(folder)
    head = config["model"]["config"]["layers"][-1]["config"]
    head["kernel_initializer"]["config"]["axes_of_the_future"] = None
    head["option_of_the_future"] = None
    (folder / "config.json").write_text(json.dumps(config))
    folders.write_checksums(folder)
    assert keras_topo.from_preset(folder).output_shape == (None, 2)
    head["option_of_the_future"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    folders.write_checksums(folder)
    with pytest.raises(ValueError, match="written by Keras"):
        keras_topo.from_preset(folder)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "how", [pytest.param("int8", marks=pytest.mark.slow), "lora"]
)
def test_quantized_and_adapted_models(how, tmp_path):
    model = image_model()
    if how == "int8":
        model.quantize("int8")
    for layer in model._flatten_layers():
        if how == "lora" and isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
            b = np.random.default_rng(0).normal(size=layer.lora_kernel_b.shape)
            layer.lora_kernel_b.assign(0.1 * b)
    folder = save(model, tmp_path / "tiny")
    x = images(16, 16, 3)
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x)),
        ref.numpy(model(x)),
        atol=1e-5,
    )
    other = keras_topo.from_preset(folder, 3, (24, 32))
    assert other(images(24, 32, 3)).shape == (2, 3)
    inner = other.get_layer("block_1").mlp_hidden
    assert (inner.quantization_mode == "int8") == (how == "int8")
    again = keras_topo.from_preset(save(other, tmp_path / "again"))
    x = images(24, 32, 3)
    np.testing.assert_allclose(
        ref.numpy(again(x)), ref.numpy(other(x)), atol=1e-5
    )


@pytest.mark.tensorflow_only
def test_a_quantized_layer_inside_another_one(tmp_path):
    inner = layers.NodeWise(keras.layers.Dense(5))
    model = keras.Sequential(
        [keras.Input((4, 3)), inner, keras.layers.Dense(2)]
    )
    inner.layer.quantize("int8")
    folder = save(model, tmp_path / "tiny")
    x = np.random.default_rng(0).random((2, 4, 3), "float32")
    for options, classes in (({}, 2), ({"num_classes": 3}, 3)):
        found = keras_topo.from_preset(folder, **options)
        assert found.output_shape == (None, 4, classes)
        mine = ref.numpy(found.layers[0](x))
        np.testing.assert_array_equal(mine, ref.numpy(inner(x)))


def augmented():
    """Keras's pattern: augmentation, and a trained model, in a model."""
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.RandomTranslation(0.1, 0.1)(inputs)
    x = image_model()(x)
    return keras.Model(inputs, keras.layers.Activation("softmax")(x))


def per_pixel():
    inputs = keras.Input((16, 16, 3))
    x = layers.PatchEmbedding(8, 4)(inputs)
    x = layers.PositionEmbedding()(x)
    x = layers.TopologicalEncoderBlock(2, mlp_dim=8)(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x))


def volumes():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4, 2)),
            layers.PatchEmbedding(8, (2, 2, 2)),
            layers.PositionEmbedding(),
            layers.ToeplitzAttention(2, 4),
            keras.layers.GlobalAveragePooling3D(),
            keras.layers.Dense(5),
        ]
    )


def sequences():
    return keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.PositionEmbedding(),
            layers.ToeplitzAttention(1, 3),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(5),
            keras.layers.Softmax(),
        ]
    )


def of_any_size():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ]
    )


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "build, shape",
    [
        (augmented, (24, 16)),
        (per_pixel, (16, 24)),
        (volumes, (8, 12, 6)),
        (sequences, (20,)),
        (of_any_size, (20, 30)),
    ],
)
def test_tasks_of_other_kinds(build, shape, tmp_path):
    model = build()
    folder = save(model, tmp_path / "tiny")
    old = [n or 16 for n in model.input_shape[1:]]
    x = images(*old)
    np.testing.assert_allclose(
        ref.numpy(keras_topo.from_preset(folder)(x, training=False)),
        ref.numpy(model(x, training=False)),
        atol=1e-5,
    )
    found = keras_topo.from_preset(folder, 3, shape)
    y = found(images(*shape, old[-1]), training=False)
    assert y.shape[-1] == 3 and len(y.shape) == len(model.output_shape)
    # All weights but those of the last layer are those that were trained.
    for mine, trained in zip(
        found.trainable_weights[:-2], model.trainable_weights[:-2], strict=True
    ):
        np.testing.assert_array_equal(ref.numpy(mine), ref.numpy(trained))
    with pytest.raises(ValueError, match="`image_shape` expects"):
        keras_topo.from_preset(folder, image_shape=(*shape, 1, 1, 1))


def test_what_turns_raw_inputs_into_those_of_the_model(tmp_path):
    told = {"task": "images", "class_names": ["a", "b"]}
    folder = keras_topo.save_preset(
        dense(), tmp_path / "tiny", preprocessor=told
    )
    assert read_preprocessor(folder) == told
    # Of another model, which says nothing of it.
    keras_topo.save_preset(dense(), folder)
    assert read_preprocessor(folder) == {}
    assert keras_topo.from_preset(folder).output_shape == (None, 2)


@pytest.mark.slow_on_jax
def test_a_copy_knows_how_it_was_built(tmp_path):
    model = graph_model()
    folder = save(saving.copied(model), tmp_path / "graphs")
    assert config_of(folder)["builder"] == "with_edge_inputs"


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
