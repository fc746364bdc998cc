"""ToeplitzAttention against NumPy, on every kind of grid and mask."""

import json

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo import masks
from keras_topo.layers import ToeplitzAttention
from keras_topo.masks import TableMask

GRIDS = [(7,), (4, 6), (1, 5), (2, 3, 4)]
if ref.on_jax:
    # Each combination compiles for seconds; the operators' own tests have all.
    GRIDS = GRIDS[1:2]
MASKS = [
    {"mask": "table"},
    {"mask": "distance"},
    {"mask": "distance", "mask_degree": 1},
    {"mask": "separable", "mask_rank": 2},
    {"mask": "separable", "mask_rank": 2, "separable_terms": "decay"},
    {"mask": None},
]


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def perturb(layer, seed=0):
    """Moves all weights off their initial values."""
    generator = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        noise = generator.uniform(0.2, 0.6, weight.shape)
        weight.assign(weight + ops.cast(noise, weight.dtype))


def by_definition(layer, x, mask, visible=None):
    """The layer in a few lines of NumPy: `D^-1 (M * phi(Q) phi(K)^T) V`."""
    x = x.reshape(x.shape[0], -1, x.shape[-1]).astype("float64")
    weights = {w.path.split("/", 1)[-1]: ref.numpy(w) for w in layer.weights}
    qkv = x @ weights["qkv/kernel"] + weights["qkv/bias"]
    qkv = qkv.reshape(*x.shape[:2], layer.num_heads, -1).swapaxes(1, 2)
    query, key, value = np.split(
        qkv, [layer.key_dim, 2 * layer.key_dim], axis=-1
    )
    query, key = [np.maximum(t, 0) + 1e-3 for t in (query, key)]
    output = ref.linear_attention(query, key, value, mask, visible)
    output = output.swapaxes(1, 2).reshape(*x.shape[:2], -1)
    return output @ weights["output/kernel"] + weights["output/bias"]


@pytest.mark.few_on_jax("fast", "auto")
@pytest.mark.parametrize("implementation", ["explicit", "fast", "auto"])
def test_published_topvit_layer(implementation):
    """A free table, ReLU features, fourteen by ten patches, three heads."""
    grid, heads = (14, 10), 3
    layer = ToeplitzAttention(
        heads, 64, mask="table", implementation=implementation
    )
    x = random(2, *grid, 48)
    layer.build(x.shape)
    table = np.random.default_rng(1).uniform(0.1, 2.0, (heads, 27, 19))
    layer.mask.weights[0].assign(table)
    expected = by_definition(layer, x, ref.block_toeplitz(table, grid))
    ref.assert_close(
        ref.numpy(layer(x)).reshape(expected.shape), expected, 1e-5
    )


# On one grid every mask, and on the others some.
ON_OTHERS = {(7,): (0,), (1, 5): (3,), (2, 3, 4): (0, 2, 4)}


@pytest.mark.few_on_jax(
    "(4, 6)-{'mask': 'table'}",
    "(4, 6)-{'mask': 'distance'}",
    "(4, 6)-{'mask': None}",
)
@pytest.mark.parametrize(
    ("grid", "options"),
    [
        pytest.param(
            *(grid, options),
            marks=[pytest.mark.slow] * (k not in ON_OTHERS.get(grid, range(6))),
            id=f"{grid}-{options}",
        )
        for grid in GRIDS
        for k, options in enumerate(MASKS)
    ],
)
def test_every_mask_on_every_grid(grid, options):
    layer = ToeplitzAttention(2, 8, value_dim=4, **options)
    x = random(2, *grid, 6)
    assert layer.compute_output_shape(x.shape) == layer(x).shape == x.shape
    perturb(layer)
    operator = layer.mask_operator()
    mask = 1.0 if operator is None else ref.numpy(operator.to_dense())
    assert np.all(mask > 0)
    expected = by_definition(layer, x, mask)
    for implementation in ("explicit", "fast"):
        layer.implementation = implementation
        ref.assert_close(
            ref.numpy(layer(x)).reshape(expected.shape), expected, 1e-5
        )


@pytest.mark.parametrize("name", ["table", "distance", "separable"])
def test_masks_that_start_as_ones(name):
    mask = masks.get(name, initial="ones")
    layer = ToeplitzAttention(2, 8, mask=mask)
    layer.build((None, 3, 4, 6))
    ref.assert_close(layer.mask_operator().to_dense(), np.ones((2, 12, 12)), 0)


def test_prefix_tokens_have_ones():
    layer = ToeplitzAttention(2, 8, grid_shape=(3, 4), num_prefix_tokens=2)
    x = random(2, 14, 6)
    layer.build(x.shape)
    perturb(layer)
    mask = ref.numpy(layer.mask_operator().to_dense())
    assert np.all(mask[:, :2] == 1) and np.all(mask[:, :, :2] == 1)
    table = np.abs(ref.numpy(layer.mask.weights[0]))
    np.testing.assert_allclose(
        mask[:, 2:, 2:], ref.block_toeplitz(table, (3, 4)), rtol=1e-6
    )
    ref.assert_close(layer(x), by_definition(layer, x, mask), 1e-5)


def test_shared_mask():
    layer = ToeplitzAttention(4, 8, share_mask=True)
    x = random(2, 3, 4, 6)
    layer.build(x.shape)
    assert layer.mask_operator().shape == (1, 12, 12)
    perturb(layer)
    mask = ref.numpy(layer.mask_operator().to_dense())
    expected = by_definition(layer, x, mask)
    ref.assert_close(
        ref.numpy(layer(x)).reshape(expected.shape), expected, 1e-5
    )


@pytest.mark.parametrize(
    "feature_map",
    ["relu"]
    if ref.on_jax
    else ["relu", "elu", "square", "exp", "favor", "hyperbolic_favor"],
)
def test_padding_changes_nothing(feature_map):
    """Each example of a batch, including the last, gives the same as alone."""
    layer = ToeplitzAttention(2, 8, feature_map=feature_map, seed=1)
    x = 5 * random(3, 9, 6)
    lengths = [9, 4, 6]
    visible = np.arange(9)[None] < np.array(lengths)[:, None]
    layer.build(x.shape)
    perturb(layer)
    output = ref.numpy(ref.staged(lambda x: layer(x, mask=visible))(x))
    for k, length in enumerate(lengths):
        alone = ToeplitzAttention(
            2, 8, mask=TableMask(reach=9), feature_map=feature_map, seed=1
        )
        alone.build((1, length, 6))
        alone.set_weights(layer.get_weights())
        ref.assert_close(
            output[k : k + 1, :length],
            ref.numpy(ref.staged(alone.__call__)(x[k : k + 1, :length])),
            1e-5,
        )


def test_nothing_visible_is_not_nan():
    layer = ToeplitzAttention(2, 8)
    output = layer(random(2, 3, 3, 6), mask=np.zeros((2, 3, 3), bool))
    assert np.all(np.isfinite(ref.numpy(output)))


@pytest.mark.few_on_jax("favor")
@pytest.mark.parametrize("feature_map", ["relu", "exp", "favor"])
def test_huge_inputs_are_not_nan(feature_map):
    layer = ToeplitzAttention(2, 8, feature_map=feature_map, seed=1)
    output = layer(1e4 * random(1, 4, 4, 6))
    assert np.all(np.isfinite(ref.numpy(output)))


def test_dropout_only_in_training():
    layer = ToeplitzAttention(2, 8, dropout=0.5, seed=3)
    x = random(64, 4, 4, 6)
    plain = ref.numpy(layer(x))
    np.testing.assert_array_equal(plain, ref.numpy(layer(x, training=False)))
    outputs = [ref.numpy(layer(x, training=True)) for _ in range(2)]
    assert not np.allclose(outputs[0], outputs[1])
    # Unbiased: the numerator is linear in the values.
    mean = np.mean([ref.numpy(layer(x, training=True)) for _ in range(60)], 0)
    assert (
        np.abs(mean - plain).mean() < 0.25 * np.abs(outputs[0] - plain).mean()
    )


def test_resampled_mask():
    """The same relative offsets on a finer grid; itself on its own."""
    coarse = ToeplitzAttention(1, 4, mask="table")
    coarse.build((None, 4, 6, 8))
    table = np.random.default_rng(0).uniform(0.5, 1.5, (1, 7, 11))
    coarse.mask.weights[0].assign(table)
    fine = ToeplitzAttention(1, 4, mask="table", mask_grid_shape=(4, 6))
    fine.build((None, 8, 12, 8))
    fine.mask.weights[0].assign(table)
    resampled = ref.numpy(fine.mask_operator().full_table())
    assert resampled.shape == (1, 15, 23)
    # Every other offset of the finer grid is one of the coarser.
    np.testing.assert_allclose(resampled[:, 1::2, 1::2], table, rtol=1e-6)
    np.testing.assert_allclose(
        ref.numpy(coarse.mask_operator().full_table()), table, rtol=1e-6
    )


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": "separable", "mask_rank": 3, "separable_terms": "decay"},
        {"mask": "distance", "mask_degree": 1, "share_mask": True},
        {"mask": None, "feature_map": "favor", "num_features": 12, "seed": 4},
        {"mask_grid_shape": (2, 2), "output_shape": 5, "use_bias": False},
        {"kernel_initializer": "he_normal", "kernel_regularizer": "l2"},
        {"dropout": 0.1, "implementation": "fast", "value_dim": 3},
    ],
    ids=str,
)
def test_config_round_trip(options):
    layer = ToeplitzAttention(2, 8, **options)
    layer.build((None, 3, 4, 6))
    config = json.loads(json.dumps(layer.get_config()))
    clone = ToeplitzAttention.from_config(config)
    clone.build((None, 3, 4, 6))
    assert clone.get_config() == layer.get_config()
    clone.set_weights(layer.get_weights())
    x = random(2, 3, 4, 6)
    np.testing.assert_array_equal(ref.numpy(layer(x)), ref.numpy(clone(x)))


@pytest.mark.few_on_jax("mixed_float16")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    layer = ToeplitzAttention(2, 8, dtype=policy)
    x = random(2, 5, 5, 6)
    output = layer(x)
    assert keras.backend.standardize_dtype(output.dtype) == policy[6:]
    reference = ToeplitzAttention(2, 8)
    reference.build(x.shape)
    reference.set_weights(layer.get_weights())
    ref.assert_close(output, ref.numpy(reference(x)), 3e-2)
    assert layer.mask.weights[0].dtype == "float32"


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"mask": "tabel"}, (None, 4, 6), "`mask` expects.*'tabel'"),
        ({"feature_map": "rely"}, (None, 4, 6), "`feature_map`.*'rely'"),
        ({"implementation": "slow"}, (None, 4, 6), "`implementation`.*'slow'"),
        ({"dropout": 1.0}, (None, 4, 6), "`dropout`.*1.0"),
        (
            {"mask": "separable", "mask_rank": 0},
            (None, 4, 6),
            "`mask_rank`.*0",
        ),
        ({"mask_rank": 3}, (None, 4, 6), "`mask_rank`.*'table'"),
        ({"grid_shape": (2, 3)}, (None, 7, 6), "grid.*Received.*7"),
        ({"grid_shape": (2, 3)}, (None, 2, 4, 6), "`grid_shape`.*Received"),
        ({"num_prefix_tokens": 4}, (None, 4, 6), "grid.*Received"),
        ({}, (None, None, 6), "`reach`.*any size.*Received"),
        ({}, (None, 6), "channels.*Received"),
        ({"mask_grid_shape": (2, 2, 2)}, (None, 4, 4, 6), "`reach`.*2 axes"),
    ],
)
def test_errors(options, shape, message):
    with pytest.raises(ValueError, match=message):
        ToeplitzAttention(2, 8, **options).build(shape)
