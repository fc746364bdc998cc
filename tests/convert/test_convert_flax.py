"""Trees of Flax parameters and npz files, against NumPy in float64."""

import keras
import ml_dtypes
import numpy as np
import pytest
import vit_oracles as oracle

import keras_topo
from keras_topo.convert import convert

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

SIZES = {
    "narrow": {"channels": 32, "heads": 2, "units": 48, "depth": 2},
    "deep": {"channels": 48, "heads": 3, "units": 96, "depth": 6},
    "wide": {"channels": 192, "heads": 3, "units": 384, "depth": 2},
}


def pixels(*shape, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (2, *shape, 3)).astype("float32")


def difference(model, tree, images, grid):
    expected = oracle.flax_logits(tree, images / 127.5 - 1, grid)
    got = keras.ops.convert_to_numpy(model(images))
    assert got.shape == expected.shape
    assert np.abs(expected).max() > 0.1
    return np.abs(got - expected).max()


def nested(flat):
    tree = {}
    for name, array in flat.items():
        *path, last = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return tree


@pytest.mark.few_on_jax("narrow-topvit")
@pytest.mark.parametrize("toeplitz", [False, True], ids=["vit", "topvit"])
@pytest.mark.parametrize("size", SIZES)
def test_logits_equal(size, toeplitz):
    tree = oracle.random_arrays(
        oracle.flax_shapes(**SIZES[size], toeplitz=toeplitz)
    )
    model = convert(nested(tree))
    assert model.input_shape == (None, 16, 16, 3)
    # The default of Flax is too small to affect the results.
    assert model.get_layer("norm").epsilon == 1e-6
    assert model.get_layer("block_2").mlp_norm.epsilon == 1e-6
    assert difference(model, tree, pixels(16, 16), (4, 4)) <= 1e-5


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("shape", [(24, 24), (12, 30)])
def test_other_sizes_are_those_of_scipy_zoom(shape, tmp_path):
    tree = oracle.random_arrays(oracle.flax_shapes(pre_logits=24))
    np.savez(tmp_path / "vit.npz", **tree)
    model = convert(tmp_path / "vit.npz", image_shape=shape)
    assert difference(model, tree, pixels(*shape), (4, 4)) <= 1e-5


@pytest.mark.slow_on_jax
def test_topvit_on_other_sizes():
    """Its tables are resampled as those of `TableMask`."""
    tree = oracle.random_arrays(oracle.flax_shapes(toeplitz=True))
    for shape in ((24, 24), (12, 30)):
        model = convert(tree, image_shape=shape)
        assert difference(model, tree, pixels(*shape), (4, 4)) <= 1e-5


@pytest.mark.slow_on_jax
def test_without_a_class_token():
    tree = oracle.random_arrays(oracle.flax_shapes(token=False))
    model = convert({"params": nested(tree)})
    assert difference(model, tree, pixels(16, 16), (4, 4)) <= 1e-5


@pytest.mark.slow_on_jax
def test_names_of_the_newer_flax():
    tree = oracle.random_arrays(oracle.flax_shapes(linen=True))
    assert difference(convert(tree), tree, pixels(16, 16), (4, 4)) <= 1e-5


@pytest.mark.slow_on_jax
def test_a_grid_that_is_not_square():
    shapes = oracle.flax_shapes(grid=(3, 4), patch=(4, 6), toeplitz=True)
    tree = oracle.random_arrays(shapes)
    with pytest.raises(ValueError, match="pos_embedding.*12 positions"):
        convert(tree)
    model = convert(tree, image_shape=(12, 24))
    assert difference(model, tree, pixels(12, 24), (3, 4)) <= 1e-5


def test_a_square_number_of_positions_on_another_grid():
    """As the source does, which resamples where the number differs."""
    tree = oracle.random_arrays(oracle.flax_shapes(grid=(8, 2)))
    model = convert(tree, image_shape=(32, 8))
    assert difference(model, tree, pixels(32, 8), (8, 2)) <= 1e-5


@pytest.mark.parametrize("part", ["heads", "units"])
def test_blocks_of_other_sizes(part):
    tree = oracle.random_arrays(oracle.flax_shapes())
    at = "Transformer/encoderblock_1/"
    for name, array in list(tree.items()):
        if not name.startswith(at):
            continue
        c, h, u = 32, 2, 16
        shapes = {(c, h, u): (c, 2 * h, u // 2), (h, u): (2 * h, u // 2)}
        shapes[h, u, c] = 2 * h, u // 2, c
        if part == "heads" and array.shape in shapes:
            tree[name] = array.reshape(shapes[array.shape])
        elif part == "units" and "Dense_0" in name:
            tree[name] = array[..., :-8]
        elif part == "units" and name.endswith("Dense_1/kernel"):
            tree[name] = array[:-8]
    with pytest.raises(ValueError, match="blocks of the same.*in block 2"):
        convert(tree)


def test_arguments_of_conversions():
    tree = oracle.random_arrays(oracle.flax_shapes())
    for name, value in (
        ("image_shape", 16),
        ("image_shape", (16,)),
        ("image_shape", (16.0, 12.0)),
        ("image_shape", (0, 16)),
        ("dtype", "foo"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` expects.*Received: "):
            convert(tree, **{name: value})
    sizes = {"image_shape": np.array([16, 16]), "num_classes": np.int64(3)}
    assert convert(tree, **sizes).output_shape == (None, 3)
    twice = {**tree, "Transformer": {"encoder_norm": {"scale": np.ones(32)}}}
    with pytest.raises(ValueError, match="encoder_norm/scale' twice"):
        convert(twice)


def test_pre_logits_behind_another_pooling():
    tree = oracle.random_arrays(oracle.flax_shapes())
    tree["pre_logits/kernel"] = np.ones((32, 24), "float32")
    tree["pre_logits/bias"] = np.ones(24, "float32")
    tree["head/kernel"] = tree["head/kernel"][:24]
    with pytest.raises(ValueError, match="`pooling`.*'token\\+gap'"):
        convert(tree, num_classes=3, pooling="token+gap")
    assert convert(tree, num_classes=3, pooling="gap").output_shape[1] == 3


@pytest.mark.slow_on_jax
def test_features(tmp_path):
    tree = oracle.random_arrays(oracle.flax_shapes(classes=None))
    images = pixels(16, 16)
    assert convert(tree)(images).shape == (2, 17, 32)
    model = convert(tree, pooling="token")
    assert difference(model, tree, images, (4, 4)) <= 1e-5


@pytest.mark.slow_on_jax
def test_bfloat16_as_numpy_writes_it(tmp_path):
    tree = oracle.random_arrays(oracle.flax_shapes())
    short = {k: x.astype(ml_dtypes.bfloat16) for k, x in tree.items()}
    np.savez(tmp_path / "vit.npz", **short)
    with np.load(tmp_path / "vit.npz") as archive:
        assert archive["head/kernel"].dtype.kind == "V"
    tree = {k: x.astype("float32") for k, x in short.items()}
    model = convert(tmp_path / "vit.npz")
    assert difference(model, tree, pixels(16, 16), (4, 4)) <= 1e-5


@pytest.mark.parametrize("name", ["toeplitz_params", "encoder_norm/scale"])
def test_a_missing_or_an_extra_tensor_is_named(name):
    tree = oracle.random_arrays(oracle.flax_shapes(toeplitz=True))
    full = next(key for key in tree if key.endswith(name))
    with pytest.raises(ValueError, match="expects no tensors.*conv_root"):
        convert({**tree, "conv_root/kernel": np.zeros((7, 7, 3, 64), "f")})
    del tree[full]
    with pytest.raises(ValueError, match=f"'{full}', which is missing"):
        convert(tree)


def test_a_block_in_between_is_missing():
    tree = oracle.random_arrays(oracle.flax_shapes(depth=3))
    tree = {k: x for k, x in tree.items() if "encoderblock_1/" not in k}
    with pytest.raises(ValueError, match="expects no tensors.*encoderblock_2"):
        convert(tree)


def test_published_topvit_needs_a_class_token():
    shapes = oracle.flax_shapes(toeplitz=True, token=False)
    with pytest.raises(ValueError, match="'cls'"):
        convert(oracle.random_arrays(shapes))


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="no npz file of arrays"):
        convert(path)
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="no npz file of arrays"):
        convert(path)


@pytest.mark.slow_on_jax
def test_a_preset_of_it(tmp_path):
    """It is saved, loaded, and used for other image sizes."""
    tree = oracle.random_arrays(oracle.flax_shapes(toeplitz=True))
    keras_topo.save_preset(convert(tree), tmp_path / "preset")
    model = keras_topo.from_preset(tmp_path / "preset")
    assert difference(model, tree, pixels(16, 16), (4, 4)) <= 1e-5
    other = keras_topo.from_preset(tmp_path / "preset", image_shape=(24, 20))
    assert other(pixels(24, 20)).shape == (2, 5)
