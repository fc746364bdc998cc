"""Feature maps with weights, and attention that knows magnitudes."""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.attention import magnitude_aware
from keras_topo.layers import (
    GraphKernelAttention,
    HedgehogFeatureMap,
    MaskedAttention,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.models import causal_lm

HEADS, DIM, CHANNELS = 2, 3, 8
ACTIVATIONS = ("softmax", "exp")


def inputs(*shape, scale=1.0, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return (scale * x).astype("float32")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def features(layer, x, kind):
    """By the definition, in float64 and without any scale."""
    weights = [
        np.float64(ref.numpy(getattr(layer, f"{kind}_{part}")))
        for part in ("projection", "bias")
    ]
    z = np.einsum("bhld,hmd->bhlm", x, weights[0]) + weights[1][:, None]
    if layer.activation == "softmax":
        return np.concatenate([softmax(z), softmax(-z)], axis=-1) + 1e-6
    return np.exp(np.concatenate([z, -z], axis=-1))


def randomised(layer, seed=1):
    random = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(ref.numpy(weight) + random.normal(size=weight.shape) / 2)
    return layer


def heads_of(layer, x):
    """Queries, keys and values in float64."""
    found = layer._project(ref.tensor(x))
    return [np.float64(ref.numpy(part)) for part in found]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_starts_as_the_identity(activation):
    feature_map = HedgehogFeatureMap(activation=activation)
    feature_map.build(HEADS, DIM)
    x = np.float64(inputs(1, HEADS, 4, DIM))
    expected = {
        "softmax": np.concatenate([softmax(x), softmax(-x)], axis=-1) + 1e-6,
        "exp": np.exp(np.concatenate([x, -x], axis=-1)),
    }[activation]
    for kind in ("query", "key"):
        found = feature_map.features(np.float32(x), kind == "query")
        found = ref.numpy(found)
        ref.assert_close(features(feature_map, x, kind), expected, 1e-6)
        # One scale for each query, one for all keys of a head.
        axes = -1 if kind == "query" else (-2, -1)
        scaled = [y / y.sum(axes, keepdims=True) for y in (found, expected)]
        ref.assert_close(*scaled, 1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_attention_by_the_definition(activation):
    """The scales that keep features finite do not change attention."""
    layer = ToeplitzAttention(
        HEADS,
        DIM,
        mask="decay",
        feature_map=HedgehogFeatureMap(5, activation, seed=1),
    )
    x = inputs(2, 3, 4, CHANNELS)
    padding = np.ones((2, 3, 4), bool)
    padding[1, 2, 1:] = False
    layer.build(x.shape)
    randomised(layer)
    query, key, value = heads_of(layer, x)
    phi = layer.feature_map
    expected = ref.linear_attention(
        features(phi, query, "query"),
        features(phi, key, "key"),
        value,
        ref.dense(layer.mask_operator()),
        padding.reshape(2, -1),
    )
    expected = expected.transpose(0, 2, 1, 3).reshape(2, 3, 4, -1)
    expected = layer.output_dense(ref.tensor(expected.astype("float32")))
    found, scores = layer(
        x, mask=ref.tensor(padding), return_attention_scores=True
    )
    visible = padding
    ref.assert_close(
        ref.numpy(found)[visible], ref.numpy(expected)[visible], 1e-4
    )
    ref.assert_close(ref.numpy(scores).sum(-1), np.ones((2, HEADS, 12)), 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_inputs_stay_finite(activation):
    layer = MaskedAttention(
        HEADS,
        DIM,
        mask="decay",
        similarity=HedgehogFeatureMap(None, activation),
    )
    for scale in (1e2, 1e4):
        y = ref.numpy(layer(inputs(1, 6, CHANNELS, scale=scale)))
        assert np.isfinite(y).all()


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_token_by_token(activation):
    layer = MaskedAttention(
        HEADS,
        DIM,
        mask="decay",
        similarity=HedgehogFeatureMap(None, activation),
        causal=True,
    )
    x = ref.tensor(inputs(2, 6, CHANNELS))
    layer.build(x.shape)
    randomised(layer)
    expected = ref.numpy(layer(x))
    state, found = layer.initial_state(2), []
    for start, stop in ((0, 2), (2, 3), (3, 6)):
        y, state = layer.extend(x[:, start:stop], state)
        found.append(ref.numpy(y))
    ref.assert_close(np.concatenate(found, axis=1), expected, 1e-5)


def test_more_rows_than_a_head_has():
    feature_map = HedgehogFeatureMap(num_features=DIM + 2, seed=3)
    feature_map.build(HEADS, DIM)
    rows = ref.numpy(feature_map.query_projection)
    assert rows.shape == (HEADS, DIM + 2, DIM)
    np.testing.assert_array_equal(rows[0, :DIM], np.eye(DIM))
    more = rows[0, DIM:]
    ref.assert_close(more @ more.T, np.eye(2), 1e-5)
    again = HedgehogFeatureMap(num_features=DIM + 2, seed=3)
    again.build(HEADS, DIM)
    np.testing.assert_array_equal(rows, ref.numpy(again.query_projection))


def test_every_layer_has_weights_of_its_own():
    feature_map = HedgehogFeatureMap(activation="exp")
    blocks = [
        TopologicalEncoderBlock(
            num_heads=2, mask="decay", feature_map=feature_map
        )
        for _ in range(2)
    ]
    for block in blocks:
        block.build((None, 4, CHANNELS))
    assert not feature_map.built
    first, second = (block.attention.feature_map for block in blocks)
    assert first is not second and first.activation == "exp"
    paths = [w.path for w in blocks[0].trainable_weights]
    assert sum("hedgehog" in path for path in paths) == 4
    again = TopologicalEncoderBlock.from_config(blocks[0].get_config())
    again.build((None, 4, CHANNELS))
    assert again.attention.feature_map.activation == "exp"


@pytest.mark.slow_on_jax
def test_in_other_layers_and_models():
    layer = GraphKernelAttention(HEADS, DIM, similarity="hedgehog")
    nodes, kernel = inputs(2, 5, CHANNELS), np.ones((2, 5, 5), "float32")
    assert np.isfinite(ref.numpy(layer(nodes, kernel))).all()
    options = {"channels": 8, "num_heads": 2, "depth": 1}
    for similarity in ("hedgehog", HedgehogFeatureMap(3)):
        model = causal_lm(16, similarity=similarity, **options)
        copy = type(model).from_config(model.get_config())
        copy.build((None, None))
        copy.set_weights(model.get_weights())
        tokens = np.arange(10).reshape(2, 5)
        ref.assert_close(copy(tokens), ref.numpy(model(tokens)), 1e-6)


def test_float64():
    layer = MaskedAttention(HEADS, DIM, similarity="hedgehog", dtype="float64")
    layer.build((None, 5, CHANNELS))
    assert layer.similarity.query_projection.dtype == "float64"


def test_errors_of_feature_maps():
    with pytest.raises(ValueError, match="`similarity`.*hedgehog.*Received"):
        MaskedAttention(2, 3, similarity="hedgehogs")
    with pytest.raises(ValueError, match="`feature_map`.*Received"):
        ToeplitzAttention(2, 3, feature_map=keras.layers.ReLU())
    with pytest.raises(ValueError, match="`activation`.*Received"):
        HedgehogFeatureMap(activation="relu")
    with pytest.raises(ValueError, match="`num_features`.*Received"):
        HedgehogFeatureMap(num_features=0)


# Magnitude-aware attention.


def magnitude_layer(mask, **options):
    layer = MaskedAttention(
        HEADS, DIM, mask=mask, similarity="elu", magnitude_aware=True, **options
    )
    layer.build((None, 5, CHANNELS))
    return randomised(layer)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("mask", [None, "table"])
def test_magnitude_by_the_definition(mask):
    layer = magnitude_layer(mask)
    x = inputs(2, 5, CHANNELS)
    query, key, value = heads_of(layer, x)
    padding = np.ones((2, 1, 1, 5))
    padding[1, ..., 3:] = 0
    matrix = (
        np.ones((5, 5)) if mask is None else ref.dense(layer.mask_operator())
    )
    matrix = matrix * padding
    query, key = (np.where(t > 0, t + 1, np.exp(t)) for t in (query, key))
    sums = matrix * np.einsum("bhid,bhjd->bhij", query, key)
    total = sums.sum(-1, keepdims=True)
    rows = matrix.sum(-1, keepdims=True)
    scale = np.log1p(np.exp(np.float64(ref.numpy(layer.magnitude))))
    z = scale[:, None, None] * total / rows
    expected = (1 + z) * sums / total - z * matrix / rows
    found, scores = layer(
        x,
        mask=ref.tensor(padding[:, 0, 0].astype("bool")),
        return_attention_scores=True,
    )
    ref.assert_close(scores, expected, 2e-5)
    y = (expected @ value).transpose(0, 2, 1, 3).reshape(2, 5, -1)
    y = ref.numpy(layer.output_dense(ref.tensor(y.astype("float32"))))
    ref.assert_close(found, y, 2e-5)


def test_longer_queries_attend_more_sharply():
    """As with softmax, and not with linear attention."""
    key, value = inputs(1, 1, 6, 4), inputs(1, 1, 6, 2, seed=1)
    query = np.abs(inputs(1, 1, 6, 4, seed=2))

    def mean(x):
        return ops.broadcast_to(ops.mean(x, axis=2, keepdims=True), x.shape)

    def attend(query):
        k = np.maximum(key, 0) + 1e-3
        scores = query @ k.swapaxes(-1, -2)
        x = scores / scores.sum(-1, keepdims=True) @ value
        y = magnitude_aware(
            ref.tensor(x), query, k, ref.tensor(value), 0.5, mean
        )
        return x, ref.numpy(y) - value.mean(2, keepdims=True)

    once, twice = attend(query), attend(2 * query)
    ref.assert_close(once[0], twice[0], 1e-5)
    assert np.all(np.abs(twice[1]) > np.abs(once[1]))


@pytest.mark.slow_on_jax
def test_magnitude_of_another_sequence():
    layer = MaskedAttention(HEADS, DIM, similarity="relu", magnitude_aware=True)
    x, value = inputs(2, 4, CHANNELS), inputs(2, 6, CHANNELS, seed=1)
    y, scores = layer(x, value, return_attention_scores=True)
    assert tuple(scores.shape) == (2, HEADS, 4, 6)
    ref.assert_close(ref.numpy(scores).sum(-1), np.ones((2, HEADS, 4)), 1e-5)
    values = np.concatenate([value, value], axis=1)
    ref.assert_close(layer(x, values), ref.numpy(y), 1e-5)


@pytest.mark.few_on_jax("mixed_float16")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_huge_queries_stay_finite(policy):
    layer = magnitude_layer("decay", dtype=policy)
    y = ref.numpy(layer(inputs(1, 5, CHANNELS, scale=10.0)))
    assert np.isfinite(y.astype("float32")).all()


def test_errors_of_magnitude():
    for similarity in ("softmax", "exp", "favor", "hedgehog"):
        with pytest.raises(ValueError, match="`magnitude_aware`.*Received"):
            MaskedAttention(2, 3, similarity=similarity, magnitude_aware=True)
    layer = magnitude_layer("decay", causal=True)
    with pytest.raises(ValueError, match="magnitude_aware=False.*Received"):
        layer.initial_state(1)
    with pytest.raises(ValueError, match="magnitude_aware"):
        GraphKernelAttention(2, 3, similarity="relu", magnitude_aware=True)


def test_queries_and_keys_start_with_the_same_rows():
    """Without a seed, too: rows beyond the size of a head are random."""
    found = HedgehogFeatureMap(12)
    found.build(2, 4)
    np.testing.assert_array_equal(
        ref.numpy(found.query_projection), ref.numpy(found.key_projection)
    )
