"""Feature maps, and that the random ones estimate the softmax kernel."""

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
    masked_softmax_attention,
    orthogonal_projection,
)

HEADS, DIM = 2, 4


def projection(name, features=6, seed=0):
    if name not in RANDOM_FEATURE_MAPS:
        return None
    return orthogonal_projection((HEADS, features, DIM), seed)


def inputs(tokens=5, scale=1.0, seed=0):
    x = np.random.default_rng(seed).normal(size=(3, HEADS, tokens, DIM))
    return (scale * x).astype("float32")


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_features_are_not_negative_and_finite(name):
    phi = get_feature_map(name)
    expected = {"favor": 6, "hyperbolic_favor": 12, "constant": 1}
    expected = expected.get(name, DIM)
    for scale in (1.0, 1e2, 1e4):
        for is_query in (True, False):
            x = inputs(scale=scale)
            features = phi(x, is_query, projection(name))
            assert tuple(features.shape) == (3, HEADS, 5, expected)
            features = ref.numpy(features)
            assert np.isfinite(features).all() and (features >= 0).all()
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        features = phi(ops.cast(inputs(), dtype), True, projection(name))
        wide = "float64" if dtype == "float64" else "float32"
        assert keras.backend.standardize_dtype(features.dtype) == wide


def test_maps_by_hand():
    x = np.array([[-1.0, 0.0, 2.0]])
    expected = {
        "relu": [[1e-3, 1e-3, 2 + 1e-3]],
        "elu": [[np.exp(-1), 1.0, 3.0]],
        "square": [[1 + 1e-3, 1e-3, 4 + 1e-3]],
        # Relative to the largest.
        "exp": [[np.exp(-3), np.exp(-2), 1.0]],
    }
    for name, features in expected.items():
        actual = get_feature_map(name)(x)
        ref.assert_close(actual, np.array(features), 1e-6, name)


def test_exponential_features_share_one_scale_among_keys():
    """A separate scale per key would change the attention."""
    x = inputs()
    for name in ("exp", "favor", "hyperbolic_favor"):
        phi = get_feature_map(name)
        w = projection(name)
        together = ref.numpy(phi(x, False, w))
        alone = ref.numpy(phi(x[:, :, :1], False, w))
        ratio = alone / together[:, :, :1]
        spread = ratio.max((-1, -2)) / ratio.min((-1, -2))
        # Up to the 1e-6 that random features carry.
        assert np.all(spread < 1.05), name


@pytest.mark.parametrize("name", ["exp", "favor", "hyperbolic_favor"])
def test_hidden_keys_do_not_set_the_scale(name):
    """Otherwise visible keys could vanish next to a huge hidden one."""
    phi = get_feature_map(name)
    x = inputs()
    visible = np.ones((3, 1, 5, 1), bool)
    visible[:, :, 4] = False
    expected = ref.numpy(phi(x[:, :, :4], False, projection(name)))
    x[:, :, 4] = 100.0
    actual = ref.numpy(phi(x, False, projection(name), visible))
    ref.assert_close(actual[:, :, :4], expected, 1e-5)
    assert np.isfinite(actual).all()


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", RANDOM_FEATURE_MAPS)
def test_random_features_approximate_softmax_attention(name):
    query, key = inputs(6, 0.7, seed=1), inputs(6, 0.7, seed=2)
    value = inputs(6, seed=3)
    exact = ref.softmax_attention(
        *[x.astype(float) for x in (query, key, value)]
    )
    phi = get_feature_map(name)
    errors = []
    for features in (16, 4096):
        w = projection(name, features)
        y = masked_linear_attention(
            phi(query, True, w), phi(key, False, w), value
        )
        errors.append(np.sqrt(np.mean((ref.numpy(y) - exact) ** 2)))
    assert errors[1] < 0.06 and errors[1] < errors[0] / 2, errors
    ref.assert_close(masked_softmax_attention(query, key, value), exact, 1e-5)


@pytest.mark.parametrize("name", RANDOM_FEATURE_MAPS)
def test_random_features_estimate_the_kernel_itself(name):
    """`E[phi(q) . phi(k)]` is `exp(q . k / sqrt(d))` but for the scales."""
    query, key = [inputs(6, 0.5, seed=k)[:1, :1] for k in (1, 2)]
    w = orthogonal_projection((1, 8192, DIM), seed=0)
    phi = get_feature_map(name)
    kernel = np.einsum(
        "bhif,bhjf->bhij",
        ref.numpy(phi(query, True, w)),
        ref.numpy(phi(key, False, w)),
    )
    exact = np.exp(np.einsum("bhif,bhjf->bhij", query, key) / np.sqrt(DIM))
    ratio = kernel / exact
    # One scale for each query.
    ratio = ratio / ratio.mean(-1, keepdims=True)
    assert np.abs(ratio - 1).max() < 0.15


def test_projection_is_orthogonal_and_reproducible():
    w = ref.numpy(orthogonal_projection((HEADS, 10, DIM), seed=3))
    assert w.shape == (HEADS, 10, DIM) and w.dtype == np.float32
    for head in w:
        for start in (0, 4, 8):
            block = head[start : start + 4]
            gram = block @ block.T
            off = gram - np.diag(np.diag(gram))
            assert np.abs(off).max() < 1e-5
    assert not np.allclose(w[0], w[1])
    again = ref.numpy(orthogonal_projection((HEADS, 10, DIM), seed=3))
    np.testing.assert_array_equal(w, again)
    other = ref.numpy(orthogonal_projection((HEADS, 10, DIM), seed=4))
    assert not np.allclose(w, other)
    # Rows as long as Gaussian vectors.
    lengths = np.square(
        ref.numpy(orthogonal_projection((1, 4000, DIM), seed=0))
    ).sum(-1)
    assert abs(lengths.mean() / DIM - 1) < 0.1


def test_errors():
    with pytest.raises(ValueError, match="`feature_map`.*Received: .*'gelu'"):
        get_feature_map("gelu")
    for name in RANDOM_FEATURE_MAPS:
        with pytest.raises(ValueError, match="`projection`.*Received: "):
            get_feature_map(name)(inputs())
