"""Embeddings and encoder blocks, alone and in keras.Sequential."""

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

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize(
    ("shape", "patch", "grid"),
    [
        ((8, 12, 3), 4, (2, 3)),
        ((9, 10, 3), (4, 5), (3, 2)),
        ((10, 3), 4, (3,)),
        ((4, 6, 5, 2), 2, (2, 3, 3)),
    ],
)
def test_patches(shape, patch, grid):
    layer = PatchEmbedding(7, patch)
    x = random(2, *shape)
    assert layer(x).shape == (2, *grid, 7)
    assert layer.compute_output_shape(x.shape) == (2, *grid, 7)


def test_patches_lose_no_pixel():
    layer = PatchEmbedding(1, 4, kernel_initializer="ones")
    x = np.ones((1, 6, 7, 1), "float32")
    assert float(ref.numpy(layer(x)).sum()) == x.sum()


@pytest.mark.parametrize(
    ("patch", "shape", "message"),
    [
        (8, (None, 7, 9, 3), "size of a patch.*Received"),
        ((4, 4), (None, 9, 3), "one patch_size for each"),
    ],
)
def test_patch_errors(patch, shape, message):
    with pytest.raises(ValueError, match=message):
        PatchEmbedding(4, patch).build(shape)


def test_positions_resample():
    """Cell centers keep their embedding, and a constant stays constant."""
    coarse = PositionEmbedding()
    coarse.build((None, 3, 5, 2))
    values = random(3, 5, 2)
    coarse.embeddings.assign(values)
    zeros = np.zeros((1, 3, 5, 2), "float32")
    ref.assert_close(coarse(zeros)[0], values, 0)
    fine = PositionEmbedding(grid_shape=(3, 5))
    fine.build((None, 9, 15, 2))
    fine.set_weights(coarse.get_weights())
    result = ref.numpy(fine(np.zeros((1, 9, 15, 2), "float32")))[0]
    # The center of three fine cells is the center of the coarse cell.
    np.testing.assert_allclose(result[1::3, 1::3], values, atol=1e-6)


LAYERS = [
    PatchEmbedding(4, (2, 3), use_bias=False),
    PositionEmbedding(grid_shape=(2, 2)),
    PrefixTokens(2),
    TopologicalEncoderBlock(2, mlp_dim=5, mask="separable", mask_rank=2),
    TopologicalEncoderBlock(
        3, key_dim=4, attention="softmax", dropout=0.1, stochastic_depth=0.2
    ),
    TopologicalEncoderBlock(2, attention="linear", attention_dropout=0.1),
]


@pytest.mark.few_on_jax("PrefixTokens")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda x: type(x).__name__)
def test_config_round_trip(layer):
    config = json.loads(json.dumps(layer.get_config()))
    clone = type(layer).from_config(config)
    assert clone.get_config() == layer.get_config()
    x = random(2, 4, 6, 4)
    output = layer(x)
    assert layer.compute_output_shape(x.shape) == output.shape
    clone.build(x.shape)
    clone.set_weights(layer.get_weights())
    np.testing.assert_array_equal(ref.numpy(output), ref.numpy(clone(x)))


def test_block_errors():
    with pytest.raises(ValueError, match="`attention`.*'sofmax'"):
        TopologicalEncoderBlock(2, attention="sofmax")
    with pytest.raises(ValueError, match="`num_heads`.*Received"):
        TopologicalEncoderBlock(5).build((None, 4, 4, 6))
    with pytest.raises(ValueError, match="`stochastic_depth`"):
        TopologicalEncoderBlock(2, stochastic_depth=1.0)


def test_stochastic_depth_only_in_training():
    layer = TopologicalEncoderBlock(2, stochastic_depth=0.5, seed=1)
    x = random(16, 3, 3, 4)
    plain = ref.numpy(layer(x))
    np.testing.assert_array_equal(plain, ref.numpy(layer(x, training=False)))
    trained = ref.numpy(layer(x, training=True))
    # Whole examples skip both branches; others are scaled.
    skipped = np.all(trained == x, axis=(1, 2, 3))
    assert 0 < skipped.sum() < 16


@pytest.mark.parametrize("attention", ["toeplitz", "linear", "softmax"])
def test_block_honours_padding(attention):
    layer = TopologicalEncoderBlock(2, attention=attention)
    x = random(2, 6, 4)
    visible = np.array([[1] * 6, [1] * 4 + [0] * 2], bool)
    changed = x.copy()
    changed[1, 4:] = 9.0
    outputs = [ref.numpy(layer(v, mask=visible)) for v in (x, changed)]
    np.testing.assert_allclose(outputs[0][:, :4], outputs[1][:, :4], atol=1e-6)


def image_model():
    return keras.Sequential(
        [
            keras.Input((10, 12, 3)),
            PatchEmbedding(8, patch_size=2),
            PositionEmbedding(),
            TopologicalEncoderBlock(num_heads=2),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, dtype="float32"),
        ]
    )


# Each takes long to compile: one per backend.
@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "policy", ["float32" if ref.on_jax else "mixed_bfloat16"]
)
def test_sequential_end_to_end(policy, tmp_path):
    """Builds, trains under XLA, saves, and answers the same when loaded.

    In a fresh process: `tests/masks/test_user_mask.py`.
    """
    earlier = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = image_model()
    finally:
        keras.config.set_dtype_policy(earlier)
    model.compile("adamw", "mse", jit_compile=True)
    x, y = random(16, 10, 12, 3), random(16, 4)
    losses = model.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0]
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.few_on_jax("(12, 3)")
@pytest.mark.parametrize("shape", [(12, 3), (4, 6, 4, 2)], ids=str)
def test_sequential_on_sequences_and_videos(shape):
    model = keras.Sequential(
        [
            keras.Input(shape),
            PatchEmbedding(8, patch_size=2),
            PositionEmbedding(),
            TopologicalEncoderBlock(num_heads=2, mask="separable"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    history = model.fit(
        random(4, *shape), random(4, 2), verbose=0, batch_size=4
    )
    assert np.isfinite(history.history["loss"][0])
