"""Patches, positions and prefix tokens."""

import json

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.layers import (
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    TopologicalEncoderBlock,
)
from keras_topo.masks.resampling import (
    interpolation_matrix,
    resample_offsets,
    resample_positions,
)

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax


def inputs(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x.astype("float32")


def test_patches_by_hand():
    layer = PatchEmbedding(4, patch_size=(2, 3))
    x = inputs(2, 4, 6, 3)
    y = ref.numpy(layer(x))
    kernel, bias = [w.numpy() for w in layer.projection.weights]
    assert kernel.shape == (2, 3, 3, 4)
    for i in range(2):
        for j in range(2):
            patch = x[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            expected = np.einsum("bhwc,hwcd->bd", patch, kernel) + bias
            ref.assert_close(y[:, i, j], expected, 1e-5)


@pytest.mark.parametrize(
    ("extent", "patch", "grid"),
    [
        ((8,), 4, (2,)),
        ((9,), 4, (3,)),
        ((8, 12), 4, (2, 3)),
        ((9, 4), 4, (3, 1)),
        ((7, 5), (2, 5), (4, 1)),
        ((4, 6, 5), 2, (2, 3, 3)),
        ((4, 6, 5), (2, 3, 5), (2, 2, 1)),
    ],
)
def test_every_pixel_is_in_a_patch(extent, patch, grid):
    layer = PatchEmbedding(4, patch, kernel_initializer="ones")
    x = inputs(2, *extent, 3)
    y = ref.numpy(layer(x))
    assert y.shape == (2, *grid, 4) == layer.compute_output_shape(x.shape)
    # Padded with zeros: with ones for a kernel, the patches add up.
    sums = y.reshape(2, -1, 4).sum(1)
    expected = x.reshape(2, -1).sum(1)[:, None].repeat(4, 1)
    ref.assert_close(sums, expected, 1e-4)


@pytest.mark.parametrize("patch", [0, -2, (4, 0), (), (2.0, 2)])
def test_patch_size_errors(patch):
    with pytest.raises(ValueError, match="`patch_size`.*Received: patch_size"):
        PatchEmbedding(8, patch)


@pytest.mark.parametrize("grid", [(7,), (3, 5), (2, 3, 4)])
def test_positions_are_added(grid):
    layer = PositionEmbedding()
    x = inputs(2, *grid, 6)
    y = ref.numpy(layer(x))
    assert y.shape == x.shape == layer.compute_output_shape(x.shape)
    assert layer.grid_shape == grid
    embeddings = layer.embeddings.numpy()
    assert embeddings.shape == (*grid, 6) and embeddings.std() > 0
    ref.assert_close(y, x + embeddings, 1e-6)


def test_positions_on_another_grid():
    layer = PositionEmbedding(grid_shape=(2, 3))
    layer.build((None, 4, 3, 5))
    assert tuple(layer.embeddings.shape) == (2, 3, 5)
    values = inputs(2, 3, 5, seed=1)
    layer.embeddings.assign(values)
    added = ref.numpy(layer(np.zeros((1, 4, 3, 5), "float32")))[0]
    # Cells of half the height: centers at -1/4, 1/4, 3/4 and 5/4 of the old
    # ones, clamped at the ends.
    a, b = values
    expected = np.stack([a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b])
    ref.assert_close(added, expected, 1e-6)


@pytest.mark.parametrize(
    ("grid_shape", "shape"),
    [
        (None, (None, None, 4, 3)),
        ((4, 4), (None, 16, 3)),
    ],
)
def test_position_errors(grid_shape, shape):
    with pytest.raises(ValueError, match="`grid_shape`.*input_shape="):
        PositionEmbedding(grid_shape).build(shape)


def test_prefix_tokens_come_first():
    layer = PrefixTokens(2)
    x = inputs(3, 2, 4, 5)
    y = ref.numpy(layer(x))
    assert y.shape == (3, 10, 5) == layer.compute_output_shape(x.shape)
    tokens = layer.embeddings.numpy()
    for example in y:
        np.testing.assert_allclose(example[:2], tokens, rtol=1e-6)
    np.testing.assert_allclose(y[:, 2:], x.reshape(3, 8, 5), rtol=1e-6)
    for wrong in (0, -1, 1.0):
        with pytest.raises(ValueError, match="`num_tokens`.*Received"):
            PrefixTokens(wrong)


@pytest.mark.few_on_jax(
    "PatchEmbedding1", "PositionEmbedding0", "PrefixTokens0"
)
@pytest.mark.parametrize(
    "layer",
    [
        PatchEmbedding(4, 2),
        PatchEmbedding(
            4,
            (2, 1),
            use_bias=False,
            kernel_initializer="he_normal",
            bias_initializer=keras.initializers.Constant(2),
        ),
        PatchEmbedding(4, 2, dtype="mixed_float16", name="patches"),
        PositionEmbedding(),
        PositionEmbedding((2, 2), embeddings_initializer="ones"),
        PrefixTokens(),
        PrefixTokens(3, embeddings_initializer="ones"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_config_round_trip(layer):
    x = inputs(2, 4, 4, 3)
    y = ref.numpy(layer(x))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert again.built
    again.set_weights(layer.get_weights())
    ref.assert_close(again(x), y, 1e-6)
    name = keras.saving.get_registered_name(type(layer))
    assert name == f"keras_topo>{type(layer).__name__}"


# Resampling.


@pytest.mark.parametrize("size", [1, 2, 7])
def test_interpolation_weights_sum_to_one(size):
    matrix = interpolation_matrix(np.linspace(-2, size + 2, 23), size)
    assert matrix.shape == (23, size)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    identity = interpolation_matrix(np.arange(size), size)
    np.testing.assert_array_equal(identity, np.eye(size))


@pytest.mark.few_on_jax("new0-old1", "new2-old0", "new3-old0")
@pytest.mark.parametrize("old", [(3, 5), (1, 4), (6, 2)])
@pytest.mark.parametrize("new", [(3, 5), (2, 9), (1, 1), (7, 3)])
def test_offsets_keep_their_place(old, new):
    table = ref.tensor(
        np.random.default_rng(0).uniform(size=(2, *(2 * n - 1 for n in old)))
    )
    resampled = ref.numpy(resample_offsets(table, old, new))
    assert resampled.shape == (2, *(2 * n - 1 for n in new))
    table = ref.numpy(table)
    if old == new:
        np.testing.assert_array_equal(resampled, table)
    zero = (slice(None), *(n - 1 for n in new))
    old_zero = (slice(None), *(n - 1 for n in old))
    np.testing.assert_allclose(resampled[zero], table[old_zero], rtol=1e-6)
    # A linear function of the offset, relative to the extent, stays itself
    # (away from the ends, where a finer grid has nothing to go by).
    slopes = sum(
        (np.arange(-(n - 1), n) / n).reshape(
            [-1 if k == j else 1 for j in range(2)]
        )
        for k, n in enumerate(old)
    )
    result = ref.numpy(resample_offsets(ref.tensor(slopes), old, new))
    for index in np.ndindex(result.shape):
        offset = [(i - (n - 1)) / n for i, n in zip(index, new, strict=True)]
        inside = all(
            abs(o) <= (n - 1) / n for o, n in zip(offset, old, strict=True)
        )
        if inside:
            assert abs(result[index] - sum(offset)) < 1e-6


def test_positions_stay_on_the_same_grid():
    values = ref.tensor(inputs(3, 4, 2))
    same = resample_positions(values, (3, 4), (3, 4), first_axis=0)
    np.testing.assert_array_equal(ref.numpy(same), ref.numpy(values))
    constant = ref.tensor(np.ones((3, 4, 2), "float32"))
    other = resample_positions(constant, (3, 4), (8, 2), first_axis=0)
    ref.assert_close(other, np.ones((8, 2, 2)), 1e-6)


@pytest.mark.slow_on_jax
def test_a_model_cloned_to_another_size_resamples_what_it_learned():
    """Positions and masks are saved, and cloned, as they were trained."""

    def layers(source):
        return [keras.Input((12, 8, 3))] + [
            type(layer).from_config(layer.get_config()) for layer in source
        ]

    model = keras.Sequential(
        [
            keras.Input((6, 8, 3)),
            PatchEmbedding(8, patch_size=2),
            PositionEmbedding(),
            TopologicalEncoderBlock(num_heads=2),
            TopologicalEncoderBlock(num_heads=2, mask="separable"),
            TopologicalEncoderBlock(num_heads=2, mask="distance"),
            TopologicalEncoderBlock(num_heads=2, attention="linear"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    larger = keras.Sequential(layers(model.layers))
    larger.set_weights(model.get_weights())
    assert larger.layers[1].grid_shape == (3, 4)
    for block in larger.layers[2:4]:
        assert block.attention.mask.reach == (3, 4)
        assert block.attention.grid == (6, 4)
    for block, masks in zip(larger.layers[2:5], model.layers[2:5], strict=True):
        for new, old in zip(
            block.attention.mask.weights,
            masks.attention.mask.weights,
            strict=True,
        ):
            np.testing.assert_array_equal(new.numpy(), old.numpy())
    assert np.isfinite(ref.numpy(larger(inputs(2, 12, 8, 3)))).all()
