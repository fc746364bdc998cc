"""Presets: loading trained models, for other classes and other grids."""

import json
import sys
import types

import keras
import numpy as np
import pytest
import reference as ref
import scipy.sparse

import keras_topo
from keras_topo import models, trained, visualize
from keras_topo.layers import GraphKernelAttention, RandomWalkKernel


def save(model, folder, **metrics):
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


EYE = np.eye(3)


def image_model(mask="table"):
    keras.utils.set_random_seed(0)
    model = models.topvit(
        "mini", image_shape=(16, 16, 3), num_classes=4, mask=mask
    )
    for weight in model.trainable_weights:
        if weight.name.startswith("mask_"):
            value = ref.numpy(weight)
            noise = np.random.default_rng(0).random(value.shape)
            weight.assign(value + noise.astype("float32"))
    return model


def graph_model():
    classifier = models.gkat_graph_classifier(3, 2, depth=1, num_kernels=2)
    return models.from_edges(classifier, RandomWalkKernel((1, 3)), 3)


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
    for path in (folder, str(folder), folder / "model.keras"):
        found = keras_topo.from_preset(path)
        np.testing.assert_array_equal(ref.numpy(found(x)), ref.numpy(model(x)))


def test_any_keras_file_and_no_other_one(tmp_path):
    folder = save(image_model(), tmp_path / "tiny")
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


def test_other_classes_keep_all_but_the_last_layer(tmp_path, capsys):
    model = image_model()
    folder = save(model, tmp_path / "tiny")
    found = keras_topo.from_preset(folder, num_classes=7)
    assert found(images(16, 16, 3)).shape == (2, 7)
    assert (
        "a new, untrained last layer for 7 classes" in capsys.readouterr().out
    )
    for mine, layer in zip(found.layers[:-1], model.layers[:-1], strict=True):
        for a, b in zip(mine.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "mask",
    [
        "table",
        pytest.param("separable", marks=pytest.mark.slow),
        pytest.param("distance", marks=pytest.mark.slow),
    ],
)
def test_another_grid_is_resampled(mask, tmp_path, capsys):
    folder = save(image_model(mask), tmp_path / "tiny")
    found = keras_topo.from_preset(folder, 3, (24, 40))
    assert found(images(24, 40, 3)).shape == (2, 3)
    assert "24 x 40 instead of 16 x 16; resampled in positions, block_1" in (
        capsys.readouterr().out
    )
    # The same offset, relative to the grid, has the same entry.
    old = keras_topo.from_preset(folder).get_layer("block_1")
    new = found.get_layer("block_1")
    small = ref.numpy(old.attention.mask_operator().to_dense())
    large = ref.numpy(new.attention.mask_operator().to_dense())
    np.testing.assert_allclose(large[:, 0, 0], small[:, 0, 0], rtol=1e-5)
    # And what was changed can be saved and trained on.
    found.save(tmp_path / "again.keras")
    again = keras.saving.load_model(tmp_path / "again.keras")
    x = images(24, 40, 3)
    np.testing.assert_allclose(
        ref.numpy(again(x)), ref.numpy(found(x)), atol=1e-5
    )


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("attention", ["toeplitz", "softmax"])
def test_another_grid_behind_a_class_token(attention, tmp_path, capsys):
    keras.utils.set_random_seed(0)
    model = models.topvit(
        "mini", image_shape=(16, 16, 3), pooling="token", attention=attention
    )
    folder = save(model, tmp_path / "tiny")
    found = keras_topo.from_preset(folder, 3, (24, np.int64(40)))
    printed = capsys.readouterr().out
    assert "positions" in printed and "class_token" not in printed
    x = images(24, 40, 3)
    assert found(x).shape == (2, 3)
    weights = visualize.attention_weights(found, x)["block_1"]
    assert weights.shape == (2, 3, 61, 61)
    assert visualize._grid(found.get_layer("block_1")) == ((6, 10), 1)
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
    )
    monkeypatch.setattr(trained, "_zoo_folders", lambda: [tmp_path])
    found = keras_topo.presets()
    assert list(found) == ["tiny"]
    assert found["tiny"]["test_accuracy"] == 0.5
    assert found["tiny"]["data"] == "digits"
    assert keras_topo.from_preset("tiny")(images(16, 16, 3)).shape == (2, 4)
    with pytest.raises(ValueError, match="tiny.*Received: .*'large'"):
        keras_topo.from_preset("large")


def test_handles_of_a_hub(tmp_path, monkeypatch):
    folder = save(image_model(), tmp_path / "tiny")
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(folder)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = keras_topo.from_preset("hf://someone/tiny@v2")
    assert found(images(16, 16, 3)).shape == (2, 4)
    assert asked == [("someone/tiny", "v2", ["model.keras", "metrics.json"])]
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
        head = GraphKernelAttention(2, 4, combine=combine, fixed_kernel=EYE)
        model = keras.Sequential([keras.Input((3, 2)), head])
        folder = save(model, tmp_path / combine)
        if combine == "concatenate":
            with pytest.raises(ValueError, match="projects or averages"):
                keras_topo.from_preset(folder, 5)
        else:
            found = keras_topo.from_preset(folder, np.int64(5))
            assert found.output_shape == (None, 3, 5)
