"""`ToeplitzAttention` in detail: formulas of its masks, masking, numerics,
configuration. `test_toeplitz_attention.py` has the definition."""

import json

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.layers import ToeplitzAttention

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

CHANNELS = 6

MASKS = {
    "table": {"mask": "table"},
    "distance-1": {"mask": "distance", "mask_degree": 1},
    "distance-2": {"mask": "distance"},
    "separable": {"mask": "separable"},
    "separable-3": {"mask": "separable", "mask_rank": 3},
    "decay": {
        "mask": "separable",
        "separable_terms": "decay",
        "mask_rank": 2,
    },
    "none": {"mask": None},
}


def inputs(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x.astype("float32")


def run(layer, *args, **kwargs):
    """A call outside training, as one program on JAX."""
    call = ref.staged(lambda args, kwargs: layer(*args, **kwargs))
    return call([ref.tensor(x) for x in args], kwargs)


def randomise(layer, seed=1, low=0.3, high=1.5):
    """Gives masks other values than those at the start."""
    random = np.random.default_rng(seed)
    for weight in layer.mask.weights:
        weight.assign(random.uniform(low, high, weight.shape))


def build(shape, num_heads=2, key_dim=4, **options):
    layer = ToeplitzAttention(num_heads, key_dim, **options)
    layer.build((None, *shape))
    return layer


def twin(layer, shape, **changes):
    """Another layer with the same weights, and other options."""
    other = ToeplitzAttention.from_config({**layer.get_config(), **changes})
    other.build((None, *shape))
    other.set_weights(layer.get_weights())
    return other


def by_hand(layer, x, mask, phi):
    """`D^-1 (M * phi(Q) phi(K)^T) V`, from the weights of the layer."""
    batch, heads = x.shape[0], layer.num_heads
    tokens = x.reshape(batch, -1, x.shape[-1])
    kernel, bias = [w.numpy() for w in layer.qkv_dense.weights]
    projected = tokens @ kernel + bias
    projected = projected.reshape(batch, tokens.shape[1], heads, -1)
    projected = projected.transpose(0, 2, 1, 3)
    q, k, v = np.split(projected, [layer.key_dim, 2 * layer.key_dim], axis=-1)
    scores = mask * (phi(q) @ phi(k).swapaxes(-1, -2))
    y = scores / scores.sum(-1, keepdims=True) @ v
    y = y.transpose(0, 2, 1, 3).reshape(batch, tokens.shape[1], -1)
    kernel, bias = [w.numpy() for w in layer.output_dense.weights]
    return (y @ kernel + bias).reshape(*x.shape[:-1], -1)


@pytest.mark.few_on_jax("fast")
@pytest.mark.parametrize("implementation", ["explicit", "fast"])
def test_a_published_topvit_layer_with_a_class_token(implementation):
    """Its real size: 14 x 14 patches and one token, three heads of 64."""
    shape = (197, 192)
    layer = build(
        shape,
        3,
        64,
        grid_shape=(14, 14),
        num_prefix_tokens=1,
        implementation=implementation,
    )
    values = np.random.default_rng(0).uniform(0.1, 2, (3, 27, 27))
    mask = ref.bordered(ref.block_toeplitz(values, (14, 14)), 1)
    x = inputs(2, *shape)
    expected = by_hand(layer, x, mask, lambda z: np.maximum(z, 0) + 1e-3)
    # The sign of an entry does not count.
    for sign in (1, -1):
        layer.mask.weights[0].assign(sign * values)
        ref.assert_close(run(layer, x), expected, 1e-5)


def test_distance_mask_is_the_exponential_of_a_polynomial():
    layer = build((3, 5, CHANNELS), mask="distance")
    coefficients = np.array([[0.3, -1.0, 0.5], [0.0, 2.0, -3.0]])
    layer.mask.weights[0].assign(coefficients)
    x = ref.l1_distances((3, 5)) / 6
    a = coefficients[..., None, None]
    expected = np.exp(a[:, 0] + a[:, 1] * x + a[:, 2] * x**2)
    ref.assert_close(ref.dense(layer.mask_operator()), expected, 1e-5)
    # However large, no infinities.
    layer.mask.weights[0].assign(1e6 * coefficients)
    assert np.isfinite(ref.numpy(run(layer, inputs(1, 3, 5, CHANNELS)))).all()


GRIDS = [(16,), (1, 16), (3, 5), (2, 3, 4), (1, 1)]


@pytest.mark.few_on_jax("(3, 5)-1", "(1, 1)-2")
@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_distance_masks_are_clipped_as_a_whole(degree, grid):
    """The whole exponent is clipped, not the part of each axis."""
    layer = build((*grid, CHANNELS), 6, mask="distance", mask_degree=degree)
    a0 = np.array([0.0, 0.0, 29.0, -25.0, 50.0, 0.0])
    a1 = np.array([-20.0, 29.5, -58.0, 54.0, -100.0, -1e6])
    coefficients = np.zeros((6, degree + 1))
    coefficients[:, 0], coefficients[:, 1] = a0, a1
    layer.mask.weights[0].assign(coefficients)
    found = np.log(ref.dense(layer.mask_operator()))
    x = ref.l1_distances(grid) / max(1, sum(n - 1 for n in grid))
    expected = a0[:, None, None] + a1[:, None, None] * x
    # Those of the first four heads are within the bounds.
    assert np.abs(expected[:4]).max() < 30
    assert np.abs(found[:4] - expected[:4]).max() < 1e-4
    assert np.abs(found).max() < 30 + 1e-4
    if degree == 2 or len(grid) == 1 or grid[:-1] == (1,):
        clipped = np.clip(expected[5], -30, 30)
        assert np.abs(found[5] - clipped).max() < 1e-3
    # Beyond them, near tokens keep their order, and a gradient.
    tokens = found.shape[-1]
    if tokens > 1:
        assert found[4, 0, 0] == pytest.approx(30, abs=1e-4)
        assert found[4, 0, -1] < 0 and found[5, 0, -1] < -29.9


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("degree", [1, 2])
def test_a_clipped_distance_mask_still_learns(degree):
    layer = build((3, 9, CHANNELS), 1, mask="distance", mask_degree=degree)
    (weight,) = layer.mask.weights
    weight.assign([[0.0, -40.0, 0.0][: degree + 1]])

    def loss(weights):
        with keras.StatelessScope([(weight, weights)]):
            operator = layer.mask_operator()
        return ops.sum(ops.log(operator.to_dense())[0, 0, :3])

    compute = ref.with_gradients(loss)
    _, (gradient,) = compute(
        ref.tensor(np.float32(1.0)), ref.tensor(ref.numpy(weight))
    )
    # d/da_1 of a_1 (0 + 1 + 2) / 10
    assert ref.numpy(gradient)[0, 1] == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_decay_mask_falls_along_each_axis(rank):
    layer = build(
        (3, 5, CHANNELS),
        mask="separable",
        separable_terms="decay",
        mask_rank=rank,
    )
    randomise(layer, low=-1.5)
    rows, columns, scale = map(ref.numpy, layer.mask.weights)
    expected = sum(
        abs(scale[:, r, None, None])
        * ref.kron(
            ref.decay(np.log1p(np.exp(rows[:, r])) / 3, 3),
            ref.decay(np.log1p(np.exp(columns[:, r])) / 5, 5),
        )
        for r in range(rank)
    )
    ref.assert_close(ref.dense(layer.mask_operator()), expected, 1e-5)


@pytest.mark.few_on_jax("table")
@pytest.mark.parametrize("name", ["table", "distance-1", "separable"])
def test_no_call_looks_for_negative_entries(name, monkeypatch):
    """There are none, and computing the minimum of a table takes time."""

    def look(x):
        raise AssertionError("a mask was searched for negative entries")

    for module in ("table", "dense"):
        for function in ("nonnegative_values", "traced_negative"):
            target = f"keras_topo.operators.{module}.{function}"
            monkeypatch.setattr(target, look)
    x = ref.tensor(inputs(2, 3, 4, CHANNELS))
    layer = build((3, 4, CHANNELS), **MASKS[name])
    expected = run(layer, x)
    ref.assert_close(ref.compiled(layer)(x), expected, 1e-5)


@pytest.mark.few_on_jax("explicit-{}", "fast-{}")
@pytest.mark.parametrize("options", [{}, {"share_mask": True}], ids=str)
@pytest.mark.parametrize("implementation", ["explicit", "fast"])
def test_one_head(implementation, options):
    layer = build((4, 4, 16), 1, 16, implementation=implementation, **options)
    randomise(layer)
    x = inputs(4, 4, 4, 16)
    mask = ref.dense(layer.mask_operator())
    expected = by_hand(layer, x, mask, lambda z: np.maximum(z, 0) + 1e-3)
    ref.assert_close(run(layer, x), expected, 1e-5)


def test_a_grid_one_token_wide():
    for grid in ((1, 6), (6, 1), (1, 1), (1,)):
        layer = build((*grid, CHANNELS))
        randomise(layer)
        assert np.isfinite(
            ref.numpy(run(layer, inputs(3, *grid, CHANNELS)))
        ).all()


# Prefix tokens.


def test_flat_tokens_are_the_grid():
    grid = build((3, 5, CHANNELS))
    randomise(grid)
    flat = twin(grid, (15, CHANNELS), grid_shape=(3, 5))
    x = inputs(2, 3, 5, CHANNELS)
    expected = ref.numpy(run(grid, x)).reshape(2, 15, CHANNELS)
    ref.assert_close(run(flat, x.reshape(2, 15, CHANNELS)), expected, 1e-5)


# Padding.


@pytest.mark.slow_on_jax
def test_each_example_has_its_own_padding():
    """The last like the first, and none for all."""
    layer = build((3, 4, CHANNELS))
    randomise(layer)
    x = inputs(3, 3, 4, CHANNELS)
    mask = np.random.default_rng(0).uniform(size=(3, 3, 4)) < 0.6
    together = ref.numpy(run(layer, x, mask=mask))
    for k in range(3):
        alone = ref.numpy(run(layer, x[k : k + 1], mask=mask[k : k + 1]))
        ref.assert_close(together[k : k + 1], alone, 1e-5)
        assert not np.allclose(together[k], ref.numpy(run(layer, x))[k])
    mask[1] = False
    y = ref.numpy(run(layer, x, mask=mask))
    assert np.isfinite(y).all()
    # Only the bias of the output.
    assert np.allclose(y[1], layer.output_dense.bias.numpy(), atol=1e-6)


def test_keras_masks_arrive_and_pass_on():
    x = np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    embedding = keras.layers.Embedding(5, CHANNELS, mask_zero=True)
    layer = build((4, CHANNELS))
    y = layer(embedding(x))
    expected = layer(embedding(x), mask=x != 0)
    ref.assert_close(y, ref.numpy(expected), 1e-6)
    model = keras.Sequential(
        [embedding, layer, keras.layers.GlobalAveragePooling1D()]
    )
    pooled = ref.numpy(model(x))
    by_mask = (ref.numpy(y) * (x != 0)[..., None]).sum(1)
    by_mask /= (x != 0).sum(1, keepdims=True)
    ref.assert_close(pooled, by_mask, 1e-5)


# Dropout.


def test_dropout_drops_keys_the_same_in_every_implementation():
    shape = (4, 4, CHANNELS)
    explicit = build(shape, dropout=0.5, seed=1, implementation="explicit")
    fast = build(shape, dropout=0.5, seed=1, implementation="fast")
    fast.set_weights(explicit.get_weights())
    x = inputs(2, *shape)
    y = ref.numpy(explicit(x, training=True))
    ref.assert_close(fast(x, training=True), y, 1e-5)


# Resampling.


@pytest.mark.few_on_jax("decay")
@pytest.mark.parametrize("name", ["distance-2", "separable-3", "decay"])
def test_other_masks_on_another_grid(name):
    options = MASKS[name]
    small = build((3, 5, CHANNELS), **options)
    randomise(small)
    large = twin(small, (6, 9, CHANNELS))
    assert large.mask.reach == (3, 5)
    matrix = ref.dense(large.mask_operator())
    assert matrix.shape == (2, 54, 54) and (matrix > 0).all()
    # Of a token and itself.
    corner = ref.numpy(small.mask_operator().rows(0, 1))[:, 0, 0]
    ref.assert_close(matrix[:, 0, 0], corner, 1e-5)
    assert np.isfinite(ref.numpy(large(inputs(1, 6, 9, CHANNELS)))).all()


# Configuration.

CONFIGS = [
    {},
    {"value_dim": 3, "use_bias": False, "output_shape": 7},
    *MASKS.values(),
    dict(share_mask=True, mask_grid_shape=(4, 4)),
    {"feature_map": "favor", "num_features": 5, "seed": 2},
    {"feature_map": "hyperbolic_favor", "dropout": 0.1, "seed": 1},
    dict(
        kernel_initializer="he_normal",
        bias_initializer=keras.initializers.Constant(0.5),
        kernel_regularizer=keras.regularizers.L2(0.01),
        bias_regularizer="l1",
        kernel_constraint=keras.constraints.MaxNorm(2),
        bias_constraint="non_neg",
    ),
    {"implementation": "fast", "name": "attention", "dtype": "mixed_bfloat16"},
]


@pytest.mark.few_on_jax("1", "10")
@pytest.mark.parametrize("options", CONFIGS, ids=range(len(CONFIGS)))
def test_config_round_trip(options):
    shape = (3, 5, CHANNELS)
    layer = build(shape, **options)
    # Through JSON, where tuples become lists.
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, ToeplitzAttention) and again.built
    assert again.get_config() == layer.get_config()
    for old, new in zip(layer.weights, again.weights, strict=True):
        assert old.path == new.path and old.shape == new.shape
    assert layer.compute_output_shape((2, *shape)) == (
        2,
        3,
        5,
        options.get("output_shape", CHANNELS),
    )


def test_registered_name():
    name = keras.saving.get_registered_name(ToeplitzAttention)
    assert name == "keras_topo>ToeplitzAttention"


@pytest.mark.slow_on_jax
def test_regularizers_and_constraints_act():
    layer = build((3, 5, CHANNELS), kernel_regularizer="l2")
    layer(inputs(1, 3, 5, CHANNELS))
    assert len(layer.losses) == 2
    layer = build((3, 5, CHANNELS), bias_constraint="non_neg")
    assert layer.qkv_dense.bias.constraint is not None


@pytest.mark.parametrize("feature_map", ["favor", "hyperbolic_favor"])
def test_random_features_come_from_the_seed_and_are_saved(feature_map):
    layers = [
        build((5, CHANNELS), feature_map=feature_map, seed=seed, num_features=6)
        for seed in (1, 1, 2)
    ]
    first, second, third = [ref.numpy(x.random_projection) for x in layers]
    assert first.shape == (2, 6, 4)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, third)
    assert not layers[0].random_projection.trainable
    assert any(w is layers[0].random_projection for w in layers[0].weights)


# Numerics.


@pytest.mark.few_on_jax("decay-mixed_bfloat16")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["distance-1", "decay"])
def test_mixed_precision(policy, name):
    options = MASKS[name]
    shape = (3, 5, CHANNELS)
    layer = build(shape, dtype=policy, **options)
    randomise(layer)
    x = inputs(2, *shape)
    y = run(layer, x)
    compute = policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(y.dtype) == compute
    assert all(w.dtype == "float32" for w in layer.trainable_weights)
    assert layer.mask_operator().dtype == "float32"
    precise = twin(layer, shape, dtype="float32")
    ref.assert_close(y, ref.numpy(run(precise, x)), 0.05)


def test_float64():
    layer = build((3, 5, CHANNELS), dtype="float64")
    y = layer(inputs(2, 3, 5, CHANNELS).astype("float64"))
    assert keras.backend.standardize_dtype(y.dtype) == "float64"
    assert layer.mask.weights[0].dtype == "float64"


@pytest.mark.few("relu", "favor")
@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "feature_map",
    ["relu"]
    # Each costs JAX a dozen compilations.
    if keras.backend.backend() == "jax"
    else ["relu", "elu", "square", "exp", "favor", "hyperbolic_favor"],
)
def test_finite_inputs_give_finite_outputs_and_gradients(feature_map):
    shape = (3, 5, CHANNELS)
    for implementation in ("explicit", "fast"):
        layer = build(
            shape, feature_map=feature_map, implementation=implementation
        )
        for x in (
            np.zeros((2, *shape), "float32"),
            inputs(2, *shape) * 1e4,
            -np.full((2, *shape), 1e4, "float32"),
        ):
            compute = ref.with_gradients(layer)
            x = ref.tensor(x)
            y, (gradient,) = compute(ops.ones_like(x), x)
            assert np.isfinite(ref.numpy(y)).all()
            assert np.isfinite(ref.numpy(gradient)).all()


# Errors.

ERRORS = {
    "heads": ({"num_heads": 0}, None, "`num_heads`"),
    "heads-float": ({"num_heads": 2.0}, None, "`num_heads`"),
    "key_dim": ({"key_dim": -1}, None, "`key_dim`"),
    "mask": ({"mask": "tables"}, None, "`mask`"),
    "degree": ({"mask": "distance", "mask_degree": 3}, None, "`mask_degree`"),
    "rank": ({"mask": "separable", "mask_rank": 0}, None, "`mask_rank`"),
    "terms": (
        {"mask": "separable", "separable_terms": "decays"},
        None,
        "`separable_terms`",
    ),
    "other-mask": ({"separable_terms": "decay"}, None, "`separable_terms`"),
    "feature_map": ({"feature_map": "gelu"}, None, "`feature_map`"),
    "dropout": ({"dropout": 1.0}, None, "`dropout`"),
    "implementation": (
        {"implementation": "slow"},
        None,
        "`implementation`",
    ),
    "prefix": ({"num_prefix_tokens": -1}, None, "`num_prefix_tokens`"),
    "grid": (dict(grid_shape=(3, 0)), None, "grid_shape"),
    "mask-grid": (
        dict(mask_grid_shape=(4, 4)),
        (None, 15, CHANNELS),
        "`reach`",
    ),
    "tokens": (
        dict(grid_shape=(4, 4)),
        (None, 15, CHANNELS),
        "grid does not match",
    ),
    "tokens-and-prefix": (
        dict(grid_shape=(3, 5), num_prefix_tokens=1),
        (None, 15, CHANNELS),
        "grid does not match",
    ),
    "only-prefix": (
        {"num_prefix_tokens": 3},
        (None, 3, CHANNELS),
        "grid does not match",
    ),
    "unknown-grid": ({}, (None, None, 4, CHANNELS), "`reach`"),
    "unknown-length": ({}, (None, None, CHANNELS), "`reach`"),
    "unknown-channels": ({}, (None, 4, None), "channels"),
    "no-grid": ({}, (None, CHANNELS), "input_shape"),
    "prefix-on-a-grid": (
        {"num_prefix_tokens": 1},
        (None, 3, 5, CHANNELS),
        "`num_prefix_tokens`",
    ),
    "other-grid": (
        dict(grid_shape=(5, 3)),
        (None, 3, 5, CHANNELS),
        "`grid_shape`",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    options, shape, argument = ERRORS[name]
    with pytest.raises(ValueError, match=argument) as caught:
        layer = ToeplitzAttention(**{"num_heads": 2, "key_dim": 4, **options})
        layer.build(shape)
    assert "Received: " in str(caught.value)
