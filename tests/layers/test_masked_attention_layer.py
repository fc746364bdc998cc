"""`MaskedAttention`: between two sequences, masks of Keras, numerics."""

import keras
import numpy as np
import pytest
import reference as ref
from random_weights import inputs, randomise

from keras_topo import masks
from keras_topo.layers import (
    MaskedAttention,
    PrefixTokens,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.masks import DiffusionMask

CHANNELS, HEADS, KEY_DIM = 4, 2, 3


def dense(layer, x):
    kernel, bias = (np.float64(ref.numpy(w)) for w in layer.weights)
    return x @ kernel + bias


def split(x):
    x = x.reshape(*x.shape[:2], HEADS, -1)
    return x.transpose(0, 2, 1, 3)


def scores(similarity, query, key):
    if similarity == "softmax":
        return np.exp(np.einsum("bhid,bhjd->bhij", query, key) / KEY_DIM**0.5)
    query, key = (np.maximum(x, 0) + 1e-3 for x in (query, key))
    return np.einsum("bhid,bhjd->bhij", query, key)


def combined(layer, weights, value):
    y = weights / weights.sum(-1, keepdims=True) @ value
    y = y.transpose(0, 2, 1, 3).reshape(*y.shape[:1], y.shape[2], -1)
    return dense(layer.output_dense, y)


def staged(layer):
    return ref.staged(lambda *args, **options: layer(*args, **options))


# Attention between two sequences.


def mask_between(layer, queries, keys):
    """Of distances of the positions in both sequences."""
    if layer.mask is None:
        mask = np.ones((1, queries, keys))
    else:
        length = max(queries, keys)
        mask = ref.dense(layer.mask_operator((length,)))[..., :queries, :keys]
    if layer.causal:
        mask = mask * np.tril(np.ones((queries, keys)))
    return mask


@pytest.mark.few_on_jax("table-relu", "None-softmax")
@pytest.mark.parametrize("similarity", ["relu", "softmax"])
@pytest.mark.parametrize("name", [None, "decay", "table"])
def test_cross_attention(name, similarity):
    sizes = [(4, 7), (6, 3)]
    for causal in (False, True):
        if ref.on_jax and (causal or name == "decay"):
            continue
        layer = MaskedAttention(
            HEADS,
            KEY_DIM,
            value_dim=2,
            mask=name,
            similarity=similarity,
            causal=causal,
        )
        layer.build((None, 5, CHANNELS), value_shape=(None, 5, CHANNELS + 1))
        randomise(layer)
        for queries, keys in sizes:
            x = inputs(2, queries, CHANNELS)
            value = inputs(2, keys, CHANNELS + 1, seed=1)
            visible = np.ones((2, keys), bool)
            # The last token is hidden, and the first is visible to all.
            visible[1, -1] = False
            pair = split(dense(layer.value_dense, value))
            key, values = np.split(pair, [KEY_DIM], axis=-1)
            query = split(dense(layer.qkv_dense, x))
            weights = scores(similarity, query, key)
            weights = weights * mask_between(layer, queries, keys)
            call = staged(layer)
            y = call(x, value=value)
            assert y.shape == (2, queries, CHANNELS)
            ref.assert_close(y, combined(layer, weights, values), 1e-5)
            y = call(x, value=value, value_mask=visible)
            weights = weights * visible[:, None, None]
            ref.assert_close(y, combined(layer, weights, values), 1e-5)


@pytest.mark.slow_on_jax
def test_cross_attention_in_a_model():
    """Of any lengths; the mask of an embedding of values reaches the layer."""
    queries = keras.Input((None, CHANNELS))
    words = keras.Input((None,), dtype="int32")
    value = keras.layers.Embedding(9, CHANNELS, mask_zero=True)(words)
    layer = MaskedAttention(HEADS, KEY_DIM, mask=masks.get("table", reach=4))
    model = keras.Model([queries, words], layer(queries, value=value))
    assert model.output_shape == (None, None, CHANNELS)
    x, ids = inputs(2, 5, CHANNELS), np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
    y = model.predict_on_batch([x, ids])
    for k, length in ((0, 3), (1, 1)):
        alone = [x[k : k + 1], ids[k : k + 1, :length]]
        ref.assert_close(y[k : k + 1], model.predict_on_batch(alone), 1e-5)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    ref.assert_close(again.predict_on_batch([x, ids]), y, 1e-6)


def test_cross_attention_is_refused():
    x, value = inputs(1, 4, CHANNELS), inputs(1, 3, CHANNELS)
    layer = MaskedAttention(HEADS, KEY_DIM, mask="gated")
    graph = MaskedAttention(HEADS, KEY_DIM, mask=DiffusionMask(np.ones((4, 4))))
    combined = MaskedAttention(
        HEADS, KEY_DIM, mask=masks.get("gated") + masks.get("decay")
    )
    additive = MaskedAttention(HEADS, KEY_DIM, similarity="additive")
    alone = MaskedAttention(HEADS, KEY_DIM)
    alone(x)
    with pytest.raises(ValueError, match=r"`value_mask`.*\(1, 3\).*\(1, 4\)"):
        MaskedAttention(HEADS, KEY_DIM)(
            x, value, value_mask=np.ones((1, 4), bool)
        )
    with pytest.raises(ValueError, match=r"`grid`.*`value`.*\(1, 3, "):
        MaskedAttention(HEADS, KEY_DIM)(x, value, value)
    cases = [
        (layer, x, value, "GatedMask"),
        (graph, x, value, "DiffusionMask"),
        (combined, x, value, "SumMask"),
        (additive, x, value, "'additive'"),
        (alone, x, value, "built for attention within its inputs"),
        (
            MaskedAttention(HEADS, KEY_DIM),
            inputs(1, 2, 2, CHANNELS),
            value,
            "two sequences",
        ),
    ]
    for options in (
        {"num_prefix_tokens": 1},
        {"grid_shape": (2, 2)},
        {"periodic": True},
    ):
        on_grid = MaskedAttention(HEADS, KEY_DIM, mask="decay", **options)
        cases.append((on_grid, x, value, "not tokens of a grid"))
    for layer, x, value, message in cases:
        with pytest.raises(ValueError, match=f"{message}"):
            layer(x, value=value)


# Masks of Keras.


@pytest.mark.slow_on_jax
def test_the_mask_of_an_embedding_arrives_beside_a_grid():
    """A second tensor in the call does not keep it from arriving, in the layer
    and in a block, behind prefix tokens too."""
    ids = np.array([[[1, 2, 3], [4, 0, 0]], [[5, 6, 0], [7, 8, 1]]])
    words = keras.Input((2, 3), dtype="int32")
    x = keras.layers.Embedding(9, CHANNELS, mask_zero=True)(words)
    for make in (
        lambda: MaskedAttention(
            HEADS, KEY_DIM, mask="decay", num_prefix_tokens=1
        ),
        lambda: TopologicalEncoderBlock(2, mask="table", num_prefix_tokens=1),
    ):
        tokens = PrefixTokens(1)(x)
        layer = make()
        model = keras.Model(words, layer(tokens, grid=x))
        randomise(layer)
        flat = keras.Model(words, tokens)(ids)
        visible = np.pad(ids.reshape(2, 6) != 0, ((0, 0), (1, 0)))
        visible[:, 0] = True
        grid = np.zeros((2, 2, 3, 1), "float32")
        expected = ref.numpy(layer(flat, grid=grid, mask=visible))
        ref.assert_close(model(ids), expected, 1e-6)
        unmasked = ref.numpy(layer(ref.tensor(ref.numpy(flat)), grid=grid))
        assert np.abs(unmasked - expected).max() > 1e-3


# Masks of graphs, similarities, rings.


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", ["relu", "softmax", "additive"])
def test_masks_of_graphs(similarity):
    """On `(batch, nodes, channels)`, as in `GraphKernelAttention`."""
    adjacency = np.diag(np.ones(5), 1)
    adjacency = adjacency + adjacency.T
    mask = DiffusionMask(adjacency, times=(0.5,))
    layer = MaskedAttention(HEADS, KEY_DIM, mask=mask, similarity=similarity)
    x = inputs(2, 6, CHANNELS)
    y = ref.numpy(layer(x))
    assert layer.grid is None
    weights = ref.numpy(layer.attention_weights(x))
    kernel = ref.dense(layer.mask_operator())
    kernel = np.broadcast_to(kernel, (HEADS, 6, 6))
    ref.assert_close(
        kernel[0], ref.diffusion(adjacency, "normalized_laplacian", 0.5), 1e-5
    )
    plain = MaskedAttention(HEADS, KEY_DIM, similarity=similarity)
    plain.build(x.shape)
    own = [w for w in layer.weights if not w.path.count("diffusion_mask")]
    plain.set_weights([ref.numpy(w) for w in own])
    unmasked = ref.numpy(plain.attention_weights(x))
    expected = kernel * unmasked
    expected = expected / expected.sum(-1, keepdims=True)
    ref.assert_close(weights, expected, 1e-4)
    assert np.isfinite(y).all() and y.shape == x.shape


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", ["relu", "softmax"])
@pytest.mark.parametrize("name", ["table", "decay", "gaussian", "distance"])
def test_a_shift_of_a_ring_shifts_the_output(name, similarity):
    layer = MaskedAttention(
        HEADS, KEY_DIM, mask=name, similarity=similarity, periodic=(True, False)
    )
    x = inputs(1, 5, 3, CHANNELS)
    layer.build(x.shape)
    randomise(layer)
    y = ref.numpy(layer(x))
    shifted = ref.numpy(layer(np.roll(x, 2, axis=1)))
    ref.assert_close(shifted, np.roll(y, 2, axis=1), 1e-5)
    along = ref.numpy(layer(np.roll(x, 1, axis=2)))
    assert np.abs(along - np.roll(y, 1, axis=2)).max() > 1e-4


NAMES = [None, *masks.NAMES]


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float64"])
def test_precision(policy):
    """No NaN in outputs or gradients, also of large inputs; near to float32."""
    compute_dtype = policy.removeprefix("mixed_")
    for name in NAMES:
        for similarity in ("relu", "softmax"):
            if similarity == "softmax" and name not in (None, "table"):
                continue
            layer = MaskedAttention(
                HEADS, KEY_DIM, mask=name, similarity=similarity, dtype=policy
            )
            # Causal attention needs sequences.
            shape = (12,) if name == "causal" else (3, 4)
            x = inputs(1, *shape, CHANNELS)
            layer.build(x.shape)
            precise = MaskedAttention(
                HEADS, KEY_DIM, mask=name, similarity=similarity
            )
            precise.build(x.shape)
            precise.set_weights(layer.get_weights())
            x = ref.tensor(x, compute_dtype)
            y = layer(x)
            dtype = keras.backend.standardize_dtype(y.dtype)
            assert dtype == compute_dtype
            tolerance = 1e-5 if policy == "float64" else 0.05
            expected = ref.numpy(precise(ref.tensor(x, "float32")))
            ref.assert_close(y, expected, tolerance, f"{name} {similarity}")
            large = 100 * ref.tensor(x, compute_dtype)
            y, (gradient,) = ref.with_gradients(layer)(large, large)
            assert np.isfinite(ref.numpy(y)).all(), name
            assert np.isfinite(ref.numpy(gradient)).all(), name
            wide = "float64" if policy == "float64" else "float32"
            if layer.mask is not None:
                assert {w.dtype for w in layer.mask.weights} <= {wide}


@pytest.mark.slow_on_jax
def test_sums_in_float64():
    mask = masks.get("table") + masks.get("decay") * masks.get("causal")
    layer = MaskedAttention(HEADS, KEY_DIM, mask=mask, dtype="float64")
    layer.build((None, 5, CHANNELS))
    assert {w.dtype for w in layer.weights} == {"float64"}
    y = layer(ref.tensor(inputs(1, 5, CHANNELS), "float64"))
    assert keras.backend.standardize_dtype(y.dtype) == "float64"


# The mask as an argument.


def test_a_mask_is_copied():
    mask = masks.get("table")
    layers = [MaskedAttention(HEADS, KEY_DIM, mask=mask) for _ in range(2)]
    layers.append(ToeplitzAttention(HEADS, KEY_DIM, mask=mask))
    for layer in layers:
        layer.build((None, 2, 3, CHANNELS))
    assert not mask.built and len({id(x.mask) for x in layers}) == 3
    layers[0].mask.weights[0].assign(np.zeros(layers[0].mask.weights[0].shape))
    assert np.abs(ref.numpy(layers[1].mask.weights[0])).max() == 1


def test_errors():
    cases = [
        (dict(mask="tabel"), (None, 4, 6), "`mask`.*'tabel'"),
        (dict(mask=np.ones((4, 4))), (None, 4, 6), "`mask`"),
        (dict(similarity="cosine"), (None, 4, 6), "`similarity`.*'cosine'"),
        (dict(combine="sum"), (None, 4, 6), "`combine`.*'sum'"),
        (dict(grid_shape=(2, 3)), (None, 7, 6), "grid.*Received"),
        (dict(num_prefix_tokens=4), (None, 4, 6), "grid.*Received"),
        (dict(periodic=(True, True)), (None, 4, 6), "`periodic`"),
        (dict(), (None, 6), "channels.*Received"),
        (dict(), (None, 4, None), "channels.*Received"),
        (dict(), (None, 1, 2, 3, 4, 5), "channels.*Received"),
    ]
    for options, shape, message in cases:
        with pytest.raises(ValueError, match=message):
            MaskedAttention(2, 8, **options).build(shape)
    layer = MaskedAttention(2, 3, mask="decay", num_prefix_tokens=1)
    with pytest.raises(ValueError, match="grid does not match"):
        layer(inputs(1, 6, 4), grid=inputs(1, 2, 3, 4))
