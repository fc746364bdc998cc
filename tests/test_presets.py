"""Presets: loading trained models, for other classes and other grids."""

import json
import os
import pathlib
import sys
import types

import keras
import numpy as np
import pytest
import reference as ref
import scipy.sparse
from preset_models import (
    EYE,
    config_of,
    dense,
    graph_model,
    graphs,
    image_model,
    images,
    save,
    save_as_before,
)

import keras_topo
from keras_topo import layers, models, visualize
from keras_topo.layers import GraphKernelAttention
from keras_topo.presets import (
    registry,
    write_registry,
)
from keras_topo.presets.folders import write_checksums


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
    # The changed model can be saved and trained.
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
    """A model for all sizes equals the model for each size."""
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
    # A folder with that name does not change what is loaded.
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
    # Without a card, one is made from the known facts.
    told = {"class_names": ["daisy", "rose"], "image_shape": [8, 8, 3]}
    keras_topo.save_preset(dense(), "hf://someone/dense", told)
    assert cards[0] == "# Dense"
    for part in (
        "library_name: keras",
        'from_preset("hf://someone/dense")',
        "`daisy`, `rose`",
        "pixels from 0 to 255 of 8 x 8 x 3.",
    ):
        assert part in cards[1]
    any_size = models.topvit((8, 2, 8, 1), 4, (None, None, 3), 2, mask="decay")
    keras_topo.save_preset(any_size, "hf://someone/any", told)
    assert "of 8 x 8 x 3, and of any other size." in cards[2]
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


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_a_former_default_of_topvit(attention, tmp_path):
    """Files told a table for attention that had no mask."""
    size, shape = (8, 2, 16, 1), (8, 8, 3)
    model = models.topvit(size, 4, shape, 3, attention=attention)
    folder = keras_topo.save_preset(model, tmp_path / "preset")
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["mask"] = "table"
    (folder / "config.json").write_text(json.dumps(config))
    write_checksums(folder)
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape))
    found = keras_topo.from_preset(folder)
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


def test_a_table_under_softmax_is_none_of_a_former_default(tmp_path):
    size, shape = (8, 2, 16, 1), (8, 8, 3)
    model = models.topvit(size, 4, shape, 3, "softmax", mask="table")
    found = keras_topo.from_preset(keras_topo.save_preset(model, tmp_path))
    assert found.count_params() == model.count_params()
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape))
    np.testing.assert_allclose(found(x), model(x), atol=1e-6)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in ("file", "file/preset"):
        with pytest.raises(ValueError, match="`folder`.*Received.*is a file"):
            keras_topo.save_preset(image_model(), tmp_path / folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_language_models_have_no_classes(tmp_path):
    model = models.causal_lm(8, channels=4, num_heads=2, depth=1)
    model(np.zeros((1, 3), "int32"))
    keras_topo.save_preset(model, tmp_path)
    with pytest.raises(ValueError, match="`num_classes`.*functional.*Received"):
        keras_topo.from_preset(tmp_path, num_classes=3)


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


def test_a_refused_preset_leaves_the_former_one(tmp_path):
    folder = save(dense(), tmp_path / "kept")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for wrong in (float("nan"), object(), np.array([np.inf])):
        with pytest.raises(
            ValueError, match="`metrics` expects a dict of JSON"
        ):
            keras_topo.save_preset(dense(), folder, metrics={"x": wrong})
        with pytest.raises(ValueError, match="`preprocessor` expects a dict"):
            keras_topo.save_preset(dense(), folder, {"x": wrong})
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert after == before
    found = {"accuracy": np.float32(0.5), "counts": np.arange(2)}
    keras_topo.save_preset(dense(), folder, metrics=found)
    written = json.loads((folder / "metrics.json").read_text())
    assert written == {"accuracy": 0.5, "counts": [0, 1]}
    assert keras_topo.from_preset(folder)
