"""Feature maps over the range of float32: finite, and right where it counts.

Attention through a feature map, its gradients included, against the same in
float64, where nothing overflows or underflows.
"""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.attention import (
    FEATURE_MAPS,
    RANDOM_FEATURE_MAPS,
    get_feature_map,
    masked_linear_attention,
    orthogonal_projection,
)
from keras_topo.operators import Causal

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

TOKENS, DIM = 6, 4
SHAPE = (2, 3, TOKENS, DIM)

PHI = {
    "relu": lambda x: np.maximum(x, 0) + 1e-3,
    "elu": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
    "square": lambda x: x**2 + 1e-3,
    "exp": lambda x: np.exp(x - x.max()),
}


def inputs(seed, scale=1.0):
    x = np.random.default_rng(seed).normal(size=SHAPE)
    return (scale * x).astype("float32")


def attend(name, query, key, value, mask=None, padding=None):
    projection = None
    if name in RANDOM_FEATURE_MAPS:
        projection = orthogonal_projection((3, 5, DIM), 0)
    visible = None if padding is None else padding[:, None, :, None]
    phi = get_feature_map(name)
    return masked_linear_attention(
        phi(query, True, projection),
        phi(key, False, projection, visible),
        value,
        mask,
        padding,
    )


def gradients_of(function, *arrays):
    tensors = [ref.tensor(x) for x in arrays]
    compute = ref.with_gradients(function)
    upstream = ref.tensor(np.ones(arrays[-1].shape, "float32"))
    return [ref.numpy(g) for g in compute(upstream, *tensors)[1]]


@pytest.mark.few_on_jax(
    "10000.0-relu",
    "10000.0-favor",
    "100000000.0-relu",
    "100000000.0-favor",
    "1e+20-relu",
    "1e+20-favor",
    "1e+37-relu",
    "1e+37-favor",
)
@pytest.mark.parametrize("name", FEATURE_MAPS)
@pytest.mark.parametrize("scale", [1e4, 1e8, 1e20, 1e37])
def test_finite_inputs_give_finite_attention(name, scale):
    query, key, value = inputs(0, scale), inputs(1, scale), inputs(2)
    key[0, 0] = 0.0
    query[1, 1, :3] = 0.0
    y = attend(name, query, key, value)
    assert np.isfinite(ref.numpy(y)).all()
    gradients = gradients_of(
        lambda q, k, v: attend(name, q, k, v), query, key, value
    )
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    # A mean of values, with weights that are not negative.
    low, high = value.min(-2), value.max(-2)
    y = ref.numpy(y)
    assert (y >= low[:, :, None] - 1e-4).all()
    assert (y <= high[:, :, None] + 1e-4).all()


@pytest.mark.parametrize("name", ["relu", "elu", "square"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_features_of_ordinary_size_are_as_written(name, scale):
    """They are not scaled, because epsilon is relative to them."""
    x = inputs(0, scale)
    expected = PHI[name](x.astype("float64"))
    for is_query in (True, False):
        features = ref.numpy(get_feature_map(name)(x, is_query))
        np.testing.assert_allclose(features, expected, 2e-6, 2e-7)


@pytest.mark.parametrize("scale", [1e5, 1e8, 1e15, 1e30])
def test_square_is_exact_at_any_scale(scale):
    """Factors per query, and one factor for all keys of a head, cancel."""
    query, key, value = inputs(0, scale), inputs(1, scale), inputs(2)
    # Including a small one, and a head of ordinary size.
    query[0, 0, 1], key[1, 1] = 0.1, inputs(3)[1, 1]
    phi = PHI["square"]
    expected = ref.linear_attention(
        phi(query.astype("float64")), phi(key.astype("float64")), value
    )
    ref.assert_close(attend("square", query, key, value), expected, 1e-5)


@pytest.mark.parametrize("name", ["square", "exp"])
def test_hidden_keys_do_not_scale_the_others(name):
    query, key, value = inputs(0), inputs(1), inputs(2)
    padding = np.ones((2, TOKENS), bool)
    padding[:, -1] = False
    expected = ref.numpy(attend(name, query, key, value, None, padding))
    key[:, :, -1] = 3e37
    found = ref.numpy(attend(name, query, key, value, None, padding))
    np.testing.assert_array_equal(found, expected)


# Each key is so far below the largest that float32 cannot hold both.
FAR_BELOW = {
    "rising": [-60.0, -55.0, 40.0, 39.0, -30.0, 0.0],
    "falling": [40.0, 0.0, -30.0, -60.0, -50.0, 39.5],
    "low": [-289.0, -288.0, -200.0, -201.0, -250.0, -190.0],
    "ordinary": [0.5, -0.5, 1.0, 0.0, -1.0, 2.0],
}


def exp_attention(query, key, value, mask, upstream):
    """Causal attention by `exp`, and its gradients, in float64."""

    def attend(query, key, value):
        query = np.exp(query - query.real.max(-1, keepdims=True))
        key = np.exp(key - key.real.max((-2, -1), keepdims=True))
        scores = mask * np.einsum("bhif,bhjf->bhij", query, key)
        return scores / scores.sum(-1, keepdims=True) @ value

    arrays = [x.astype("float64") for x in (query, key, value)]
    gradients = ref.complex_step_gradients(
        lambda *x: (upstream * attend(*x)).sum(), arrays
    )
    return attend(*arrays), gradients


@pytest.mark.few_on_jax("rising-xla", "low-xla")
@pytest.mark.parametrize("compile_it", [False, True], ids=["eager", "xla"])
@pytest.mark.parametrize("name", FAR_BELOW)
def test_exp_keeps_keys_far_below_the_largest(name, compile_it):
    """A causal mask hides the largest key from earlier tokens."""
    shape = (1, 2, TOKENS, DIM)
    random = np.random.default_rng(0)
    key = np.array(FAR_BELOW[name])[:, None] + random.normal(size=shape)
    query, value, upstream = random.normal(size=(3, *shape))
    query = query + np.array(FAR_BELOW["falling"])[:, None]
    arrays = [x.astype("float32") for x in (query, key, value)]
    mask = np.tril(np.ones((TOKENS, TOKENS)))
    expected, gradients = exp_attention(*arrays, mask, upstream)

    def compute(upstream, *tensors):
        return ref.with_gradients(
            lambda q, k, v: attend("exp", q, k, v, Causal(TOKENS))
        )(upstream, *tensors)

    if compile_it:
        compute = ref.compiled(compute)
    tensors = [ref.tensor(x) for x in (upstream.astype("float32"), *arrays)]
    y, found = compute(*tensors)
    ref.assert_close(y, expected, 1e-5)
    for actual, exact in zip(found, gradients, strict=True):
        # For every token, even with tiny features.
        actual = ref.numpy(actual)
        assert np.isfinite(actual).all()
        error = np.abs(actual - exact).max(-1)
        assert (error < 1e-4 * np.abs(exact).max() + 1e-6).all()


@pytest.mark.slow_on_jax
def test_exp_sums_stay_in_range():
    """A million keys of the largest feature, and large values."""
    tokens = 10**6
    zeros = np.zeros((1, 1, tokens, 8), "float16")
    value = np.full((1, 1, tokens, 1), 1e6, "float32")
    phi = get_feature_map("exp")
    features = phi(zeros, False)
    y = masked_linear_attention(phi(zeros, True), features, value)
    np.testing.assert_allclose(ref.numpy(y), 1e6, rtol=1e-3)
    for dtype in ("float16", "bfloat16"):
        small = phi(ops.cast(zeros[:, :, :3], dtype), False)
        assert keras.backend.standardize_dtype(small.dtype) == "float32"
