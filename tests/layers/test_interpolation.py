"""Positions on another grid, as the libraries resample theirs."""

import keras
import numpy as np
import pytest
import scipy.ndimage
from keras import ops

from keras_topo.layers import PatchEmbedding, PositionEmbedding
from keras_topo.layers.interpolation import INTERPOLATIONS, resample_grid

GRIDS = [
    ((5, 5), (8, 8)),
    ((7, 7), (4, 4)),
    ((6, 6), (9, 5)),
    ((14, 14), (24, 24)),
    ((16, 16), (33, 21)),
    ((37, 37), (16, 16)),
    ((4, 4), (1, 1)),
]


def values_on(grid):
    rng = np.random.default_rng(0)
    return rng.normal(size=(*grid, 3)).astype("float32")


def resampled(values, new, interpolation):
    values = ops.convert_to_tensor(values)
    return ops.convert_to_numpy(
        resample_grid(values, values.shape[:2], new, interpolation)
    )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("old, new", GRIDS)
def test_bicubic_of_pytorch(old, new, antialias):
    torch = pytest.importorskip("torch")
    values = values_on(old)
    expected = torch.nn.functional.interpolate(
        torch.tensor(values).permute(2, 0, 1)[None],
        size=new,
        mode="bicubic",
        align_corners=False,
        antialias=antialias,
    )[0].permute(1, 2, 0)
    name = "cubic_antialias" if antialias else "bicubic"
    got = resampled(values, new, name)
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("old, new", GRIDS)
def test_zoom_of_scipy(old, new):
    values = values_on(old)
    factors = (*(n / o for n, o in zip(new, old, strict=True)), 1)
    expected = scipy.ndimage.zoom(values, factors, order=1)
    got = resampled(values, new, "corners")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("old, new", GRIDS)
@pytest.mark.few_on_jax("old2-new2-False", "old2-new2-True", "old5-new5-True")
def test_bicubic_of_keras(old, new, antialias):
    values = values_on(old)
    name = "cubic"
    if keras.backend.backend() == "tensorflow":
        name = "cubic_table"
    expected = ops.image.resize(
        values[None],
        new,
        interpolation="bicubic",
        antialias=antialias,
        data_format="channels_last",
    )[0]
    got = resampled(values, new, "cubic_antialias" if antialias else name)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_sizes_that_are_traced(interpolation):
    import tensorflow as tf

    values = values_on((16, 16))

    @tf.function(input_signature=2 * [tf.TensorSpec((), "int32")])
    def traced(rows, columns):
        return resample_grid(
            tf.constant(values), (16, 16), (rows, columns), interpolation
        )

    for new in ((33, 21), (16, 16), (7, 40)):
        expected = resampled(values, new, interpolation)
        got = traced(*new)
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_constant_stays_one(interpolation):
    values = np.full((4, 5, 2), 3.0, "float32")
    for new in ((4, 5), (9, 3), (1, 12)):
        got = resampled(values, new, interpolation)
        np.testing.assert_allclose(got, np.full((*new, 2), 3.0), rtol=1e-6)


def test_the_layer_keeps_it():
    layer = PositionEmbedding((4, 4), interpolation="bicubic")
    copy = PositionEmbedding.from_config(layer.get_config())
    assert copy.interpolation == "bicubic"
    x = np.zeros((1, 7, 5, 3), "float32")
    got = copy(x)[0]
    table = ops.convert_to_numpy(copy.embeddings)
    expected = resampled(table, (7, 5), "bicubic")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="`interpolation` expects one of"):
        PositionEmbedding(interpolation="nearest")


def test_patches_that_are_not_whole():
    layer = PatchEmbedding(6, 4, padding="valid")
    image = np.random.rand(2, 11, 8, 3).astype("float32")
    assert layer(image).shape == (2, 2, 2, 6)
    assert layer.compute_output_shape((2, 11, 9, 3)) == (2, 2, 2, 6)
    assert layer.compute_output_shape((2, None, 9, 3)) == (2, None, 2, 6)
    np.testing.assert_array_equal(layer(image), layer(image[:, :8]))
    copy = PatchEmbedding.from_config(layer.get_config())
    assert copy.padding == "valid"
    with pytest.raises(ValueError, match="`padding` expects one of"):
        PatchEmbedding(6, 4, padding="reflect")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_half_precision_of_unknown_sizes(interpolation, dtype):
    """Places on a grid are numbers of more digits than 16 bits have."""
    values = np.random.default_rng(0).normal(size=(37, 37, 4))
    values = ops.cast(values, dtype)
    sizes = [ops.convert_to_tensor(n, "int32") for n in (8, 28)]
    known, unknown = (
        ops.convert_to_numpy(
            ops.cast(
                resample_grid(values, (37, 37), grid, interpolation), "float32"
            )
        )
        for grid in ((8, 28), sizes)
    )
    eps = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype]
    np.testing.assert_allclose(unknown, known, rtol=0, atol=12 * eps)
