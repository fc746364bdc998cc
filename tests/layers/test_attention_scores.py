"""`return_attention_scores`, as in `keras.layers.MultiHeadAttention`."""

import keras
import numpy as np
import pytest
import reference as ref
import scipy.sparse
from keras import ops
from random_weights import inputs, randomise

from keras_topo import masks
from keras_topo.attention import (
    attention_scores,
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.layers import (
    ForestAttention,
    GraphEncoderBlock,
    GraphKernelAttention,
    LogKernel,
    MaskedAttention,
    NodeWise,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.masks import DiffusionMask, RandomFeaturesMask, RandomWalkMask
from keras_topo.operators import Causal, SparsePairs

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

CHANNELS, HEADS, KEY_DIM = 4, 2, 3
SIMILARITIES = ["relu", "softmax", "additive"]


def similarity_and_values(layer, x):
    """In float64, by the definitions: `(batch, heads, tokens, tokens)` and
    values `(batch, heads, tokens, value_dim)`."""
    x = np.float64(x).reshape(len(x), -1, x.shape[-1])
    projected = x @ np.float64(ref.numpy(layer._projection.kernel))
    if layer._projection.use_bias:
        projected += np.float64(ref.numpy(layer._projection.bias))
    projected = projected.reshape(*x.shape[:2], HEADS, -1)
    projected = projected.transpose(0, 2, 1, 3)
    if layer.similarity == "additive":
        a, b = (
            np.float64(ref.numpy(w))[:, :, 0]
            for w in (layer.query_scores, layer.key_scores)
        )
        s, t = (np.einsum("bhnd,hd->bhn", projected, w) for w in (a, b))
        logits = s[..., None] + t[..., None, :]
        return np.exp(np.where(logits > 0, logits, 0.2 * logits)), projected
    query, key, value = np.split(projected, [KEY_DIM, 2 * KEY_DIM], axis=-1)
    if layer.similarity == "softmax":
        logits = np.einsum("bhid,bhjd->bhij", query, key) / KEY_DIM**0.5
        return np.exp(logits), value
    query, key = (np.maximum(x, 0) + 1e-3 for x in (query, key))
    return np.einsum("bhid,bhjd->bhij", query, key), value


def check(layer, x, mask, output, scores, padding=None):
    """Compares scores with the oracle, and the output with their product."""
    found, value = similarity_and_values(layer, x)
    expected = found * mask
    if padding is not None:
        expected = expected * padding.reshape(len(x), 1, 1, -1)
    total = expected.sum(axis=-1, keepdims=True)
    expected = expected / np.where(total == 0, 1, total)
    assert tuple(scores.shape) == expected.shape
    ref.assert_close(scores, expected, 2e-5)
    y = (expected @ value).transpose(0, 2, 1, 3)
    y = layer.output_dense(y.reshape(*x.shape[:-1], -1).astype("float32"))
    ref.assert_close(output, ref.numpy(y), 2e-5)


# Sequences and grids.

GRIDS = [None, *(name for name in masks.registry.NAMES if name != "causal")]


@pytest.mark.few_on_jax("table-relu")
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", GRIDS)
def test_every_mask_on_a_grid(name, similarity):
    layer = MaskedAttention(HEADS, KEY_DIM, mask=name, similarity=similarity)
    x = inputs(2, 3, 4, CHANNELS)
    layer(x)
    randomise(layer)
    padding = np.ones((2, 3, 4), bool)
    padding[1, 2, 1:] = False
    plain = ref.numpy(layer(x, mask=padding))
    output, scores = layer(x, mask=padding, return_attention_scores=True)
    np.testing.assert_array_equal(plain, ref.numpy(output))
    visible = ref.tensor(padding.reshape(2, 12))
    operator = layer._operator(ref.tensor(x), None, visible)
    mask = 1.0 if operator is None else ref.dense(operator)
    check(layer, x, mask, output, scores, padding)
    assert not ref.numpy(scores)[1, :, :, 9:].any()
    np.testing.assert_allclose(ref.numpy(scores).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", ["causal", "decay", "gated", "table", None])
@pytest.mark.few_on_jax("decay-softmax", "None-relu")
def test_causal_sequences(name, similarity):
    layer = MaskedAttention(
        HEADS, KEY_DIM, mask=name, similarity=similarity, causal=True
    )
    x = inputs(2, 6, CHANNELS)
    layer(x)
    randomise(layer)
    output, scores = layer(x, return_attention_scores=True)
    operator = layer._operator(ref.tensor(x), None, None)
    check(layer, x, ref.dense(operator), output, scores)
    assert not np.triu(ref.numpy(scores), k=1).any()


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", ["relu", "softmax"])
def test_prefix_tokens_come_first(similarity):
    layer = ToeplitzAttention(
        HEADS,
        KEY_DIM,
        feature_map=similarity,
        grid_shape=(2, 3),
        num_prefix_tokens=2,
    )
    x = inputs(2, 8, CHANNELS)
    layer(x)
    randomise(layer)
    output, scores = layer(x, return_attention_scores=True)
    mask = ref.dense(layer.mask_operator())
    assert (mask[:, :2] == 1).all() and (mask[:, :, :2] == 1).all()
    check(layer, x, mask, output, scores)


@pytest.mark.parametrize("similarity", ["relu", "softmax"])
@pytest.mark.parametrize("name", [None, "decay"])
@pytest.mark.few_on_jax("None-relu")
def test_two_sequences(name, similarity):
    layer = MaskedAttention(HEADS, KEY_DIM, mask=name, similarity=similarity)
    x, value = inputs(2, 5, CHANNELS), inputs(2, 3, CHANNELS, seed=1)
    visible = np.array([[True] * 3, [True, True, False]])
    plain = layer(x, value=value, value_mask=visible)
    output, scores = layer(
        x, value=value, value_mask=visible, return_attention_scores=True
    )
    np.testing.assert_array_equal(ref.numpy(plain), ref.numpy(output))
    scores = ref.numpy(scores)
    assert scores.shape == (2, HEADS, 5, 3)
    assert not scores[1, :, :, 2].any()
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)
    _, _, values = layer._project(ref.tensor(x), ref.tensor(value))
    y = (scores @ ref.numpy(values)).transpose(0, 2, 1, 3).reshape(2, 5, -1)
    ref.assert_close(output, ref.numpy(layer.output_dense(y)), 2e-5)


# Graphs.

NODES = 6


def kernels(count=2):
    kernel = np.random.default_rng(1).uniform(size=(2, count, NODES, NODES))
    kernel[0, :, 2] = 0  # A node that attends to nothing.
    kernel[:, :, 4, 1] = 0
    return kernel.astype("float32")


def log_kernel():
    return {"log_kernel": LogKernel()(kernels())}


def factors():
    return {"factors": kernels()[..., :2]}


GRAPHS = {
    "kernel": lambda: {"kernel": kernels()},
    "log_kernel": log_kernel,
    "factors": factors,
}


def dense_of(kernel):
    kernel = {name: np.float64(ref.numpy(x)) for name, x in kernel.items()}
    if "factors" in kernel:
        return kernel["factors"] @ kernel["factors"].swapaxes(-1, -2)
    if "log_kernel" in kernel:
        return np.exp(kernel["log_kernel"])
    return kernel["kernel"]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("form", GRAPHS)
@pytest.mark.few_on_jax("kernel-additive", "log_kernel-softmax", "factors-relu")
def test_kernels_of_graphs(form, similarity):
    layer = GraphKernelAttention(HEADS, KEY_DIM, similarity=similarity)
    x, kernel = inputs(2, NODES, CHANNELS), GRAPHS[form]()
    padding = np.ones((2, NODES), bool)
    padding[1, 4:] = False
    plain = ref.numpy(layer(x, kernel, mask=padding))
    randomise(layer)
    graph = {"nodes": x, **kernel, "node_mask": padding}
    output, scores = layer(graph, return_attention_scores=True)
    # A dict input returns a dict.
    assert set(output) == set(graph)
    assert plain.shape == tuple(output["nodes"].shape)
    check(layer, x, dense_of(kernel), output["nodes"], scores, padding)


def some_pairs():
    """Pairs with two kernels, padded by pairs of value zero."""
    kernel = kernels() * (np.random.default_rng(3).random((6, 6)) < 0.5)
    pairs = np.zeros((2, 40, 2), "int32")
    values = np.zeros((2, 2, 40), "float32")
    for k in range(2):
        places = np.argwhere(kernel[k].any(axis=0))
        pairs[k, : len(places)] = places
        values[k, :, : len(places)] = kernel[k][:, places[:, 0], places[:, 1]]
    return kernel, {"pairs": pairs, "pair_values": values}


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_pairs_have_scores_of_their_own(similarity):
    layer = GraphKernelAttention(HEADS, KEY_DIM, similarity=similarity)
    x = inputs(2, NODES, CHANNELS)
    kernel, pairs = some_pairs()
    layer(x, pairs)
    randomise(layer)
    padding = np.ones((2, NODES), bool)
    padding[1, 4:] = False
    output, scores = layer(x, pairs, padding, return_attention_scores=True)
    scores = ref.numpy(scores)
    assert scores.shape == (2, HEADS, 40)
    matrix = np.zeros((2, HEADS, NODES, NODES))
    for k in range(2):
        for p, (i, j) in enumerate(pairs["pairs"][k]):
            matrix[k, :, i, j] += scores[k, :, p]
    check(layer, x, kernel, output, matrix, padding)
    weights = ref.numpy(layer.attention_weights(x, pairs, padding))
    ref.assert_close(weights, matrix, 1e-5)


def tree():
    return ForestAttention(HEADS, KEY_DIM, [-1, 0, 0, 1, 1, -1])


def fixed(kernel, similarity="relu"):
    return GraphKernelAttention(
        HEADS, KEY_DIM, similarity=similarity, graph_kernel=kernel
    )


RING = scipy.sparse.csr_array(
    np.roll(np.eye(NODES), 1, 0) + np.roll(np.eye(NODES), -1, 0)
)
FIXED = {
    "forest": tree,
    "diffusion": lambda: fixed(DiffusionMask(RING)),
    "random-features": lambda: fixed(RandomFeaturesMask(RING)),
    "random-walks": lambda: fixed(RandomWalkMask(RING), "softmax"),
    "sparse": lambda: fixed(RING, "additive"),
    "matrix": lambda: fixed(RING.toarray(), "softmax"),
}


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", FIXED)
def test_fixed_graphs_have_a_matrix(name):
    layer = FIXED[name]()
    x = inputs(2, NODES, CHANNELS)
    plain = ref.numpy(layer(x))
    output, scores = layer(x, return_attention_scores=True)
    np.testing.assert_array_equal(plain, ref.numpy(output))
    if name in ("sparse", "matrix"):
        mask = RING.toarray()
    else:
        mask = ref.dense(layer.mask_operator())
    check(layer, x, mask, output, scores)


@pytest.mark.slow_on_jax
def test_the_function():
    """Scores times values are the output of the other functions."""
    random = np.random.default_rng(0)
    query, key, value = random.normal(size=(3, 1, 2, 6, 4))
    pairs = SparsePairs([[0, 1], [0, 2], [5, 5]], [1.0, 2.0, 0.5], 6)
    for mask in (None, Causal(6), pairs):
        scores = attention_scores("softmax", query, key, mask)
        expected = masked_softmax_attention(query, key, value, mask)
        ref.assert_close(ref.numpy(scores) @ value, ref.numpy(expected), 1e-5)
        scores = attention_scores("linear", query**2, key**2, mask)
        expected = masked_linear_attention(query**2, key**2, value, mask)
        ref.assert_close(ref.numpy(scores) @ value, ref.numpy(expected), 1e-5)
    found = attention_scores("softmax", query, key, pairs, of_pairs=True)
    matrix = ref.numpy(attention_scores("softmax", query, key, pairs))
    expected = matrix[:, :, [0, 0, 5], [1, 2, 5]]
    ref.assert_close(found, expected, 1e-6)
    with pytest.raises(ValueError, match="`kind` expects.*'cosine'"):
        attention_scores("cosine", query, key)
    with pytest.raises(ValueError, match="`of_pairs=True`"):
        attention_scores("linear", query, key, Causal(6), of_pairs=True)
    with pytest.raises(ValueError, match="as many tokens"):
        attention_scores("linear", query, key, Causal(5))
    with pytest.raises(ValueError, match="not negative"):
        attention_scores("linear", query, key, -np.ones((6, 6)))


# Blocks and models.


class Uniform(keras.layers.Layer):
    """A custom attention layer without scores."""

    num_heads = 1

    def call(self, x):
        return x + ops.mean(x, axis=1, keepdims=True)


BLOCKS = {
    "toeplitz": lambda: TopologicalEncoderBlock(HEADS, causal=False),
    "softmax": lambda: TopologicalEncoderBlock(HEADS, attention="softmax"),
    "layer": lambda: TopologicalEncoderBlock(
        attention=MaskedAttention(HEADS, KEY_DIM, mask="decay")
    ),
    "graph": lambda: GraphEncoderBlock(
        HEADS, graph_kernel=RING.toarray(), similarity="relu"
    ),
}


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name):
    block = BLOCKS[name]()
    x = inputs(2, NODES, CHANNELS)
    plain = ref.numpy(block(x))
    output, scores = block(x, return_attention_scores=True)
    np.testing.assert_allclose(plain, ref.numpy(output), rtol=1e-5, atol=1e-6)
    ref.assert_close(scores, ref.numpy(block.attention_weights(x)), 1e-5)
    assert scores.shape == (2, HEADS, NODES, NODES)
    # In a functional model, with any number of tokens if the layer allows it.
    tokens = NODES if name == "graph" else None
    given = keras.Input((tokens, CHANNELS))
    symbols = block(given, return_attention_scores=True)
    assert symbols[1].shape == (None, HEADS, tokens, tokens)
    found = keras.Model(given, symbols)(x)
    ref.assert_close(found[1], ref.numpy(scores), 1e-5)


def test_attention_of_ones_own_has_none():
    block = TopologicalEncoderBlock(attention=Uniform())
    with pytest.raises(ValueError, match="return_attention_scores.*Uniform"):
        block(inputs(2, NODES, CHANNELS), return_attention_scores=True)


@pytest.mark.slow_on_jax
def test_functional_models(tmp_path):
    """Models of any size, saved and loaded, with XLA, and a sparse kernel."""
    grid = keras.Input((None, None, CHANNELS))
    layer = MaskedAttention(HEADS, KEY_DIM, mask="decay", similarity="softmax")
    output, scores = layer(grid, return_attention_scores=True)
    assert scores.shape == (None, HEADS, None, None)
    assert output.shape == (None, None, None, CHANNELS)
    model = keras.Model(grid, {"output": output, "scores": scores})
    model.save(tmp_path / "scores.keras")
    again = keras.saving.load_model(tmp_path / "scores.keras")
    for shape in ((2, 3, 4, CHANNELS), (1, 2, 2, CHANNELS)):
        x = inputs(*shape)
        expected = layer(x, return_attention_scores=True)
        for found in (model(x), again(x), again.predict(x, verbose=0)):
            ref.assert_close(found["output"], ref.numpy(expected[0]), 1e-5)
            ref.assert_close(found["scores"], ref.numpy(expected[1]), 1e-5)
    kernel, pairs = some_pairs()
    given = {
        "nodes": keras.Input((None, CHANNELS), name="nodes"),
        "pairs": keras.Input((None, 2), dtype="int32", name="pairs"),
        "pair_values": keras.Input((2, None), name="pair_values"),
    }
    graphs = GraphKernelAttention(HEADS, KEY_DIM)
    output, scores = graphs(given, return_attention_scores=True)
    assert scores.shape == (None, HEADS, None)
    model = keras.Model(given, [output["nodes"], scores])
    x = {"nodes": inputs(2, NODES, CHANNELS), **pairs}
    expected = graphs(x, return_attention_scores=True)[1]
    ref.assert_close(model(x)[1], ref.numpy(expected), 1e-5)


def test_layers_of_a_sequential():
    """Sequential passes no arguments, but its layers can be called directly."""
    model = keras.Sequential(
        [
            keras.Input((NODES, CHANNELS)),
            fixed(RING.toarray(), "softmax"),
            NodeWise(keras.layers.ReLU()),
            fixed(RING.toarray()),
        ]
    )
    given = inputs(2, NODES, CHANNELS)
    x, scores = given, []
    for layer in model.layers:
        if isinstance(layer, GraphKernelAttention):
            x, found = layer(x, return_attention_scores=True)
            scores.append(found)
        else:
            x = layer(x)
    ref.assert_close(x, ref.numpy(model(given)), 1e-6)
    first, second = scores
    expected = model.layers[0].attention_weights(given)
    ref.assert_close(first, ref.numpy(expected), 1e-5)
    assert second.shape == (2, HEADS, NODES, NODES)


@pytest.mark.parametrize("similarity", ["relu", "softmax"])
def test_compiled_by_xla(similarity):
    layer = MaskedAttention(
        HEADS, KEY_DIM, mask="distance", similarity=similarity
    )
    x = inputs(2, 3, 4, CHANNELS)
    eager = layer(x, return_attention_scores=True)
    compiled = ref.compiled(lambda x: layer(x, return_attention_scores=True))
    for found, expected in zip(compiled(ref.tensor(x)), eager, strict=True):
        ref.assert_close(found, ref.numpy(expected), 1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", ["relu", "softmax"])
def test_dropout_leaves_scores(similarity):
    x = inputs(2, 5, CHANNELS)
    layers = [
        MaskedAttention(
            HEADS,
            KEY_DIM,
            mask="decay",
            similarity=similarity,
            dropout=0.5,
            seed=1,
        )
        for _ in range(2)
    ]
    for layer in layers:
        layer(x)
    layers[1].set_weights(layers[0].get_weights())
    plain = ref.numpy(layers[0](x, training=True))
    output, scores = layers[1](x, training=True, return_attention_scores=True)
    np.testing.assert_array_equal(plain, ref.numpy(output))
    _, quiet = layers[1](x, return_attention_scores=True)
    np.testing.assert_array_equal(ref.numpy(quiet), ref.numpy(scores))


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy):
    layer = MaskedAttention(
        HEADS, KEY_DIM, mask="decay", similarity="softmax", dtype=policy
    )
    output, scores = layer(inputs(1, 5, CHANNELS), return_attention_scores=True)
    assert output.dtype == scores.dtype
    total = ref.numpy(ops.cast(scores, "float32")).sum(-1)
    np.testing.assert_allclose(total, 1, rtol=0.02)


def test_the_same_as_keras():
    """Weights of `keras.layers.MultiHeadAttention`, in its shapes."""
    theirs = keras.layers.MultiHeadAttention(HEADS, KEY_DIM)
    x = inputs(2, 5, CHANNELS)
    expected = theirs(x, x, return_attention_scores=True)
    ours = MaskedAttention(HEADS, KEY_DIM, similarity="softmax")
    ours.build(x.shape)
    query, key, value, output = (
        [ref.numpy(w) for w in layer.weights]
        for layer in (
            theirs.query_dense,
            theirs.key_dense,
            theirs.value_dense,
            theirs.output_dense,
        )
    )
    kernel = np.concatenate([query[0], key[0], value[0]], axis=-1)
    bias = np.concatenate([query[1], key[1], value[1]], axis=-1)
    ours.set_weights(
        [
            kernel.reshape(CHANNELS, -1),
            bias.reshape(-1),
            output[0].reshape(-1, CHANNELS),
            output[1],
        ]
    )
    found = ours(x, return_attention_scores=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        ref.assert_close(ours, ref.numpy(theirs), 1e-5)


def test_refuses_too_many_tokens():
    layer = MaskedAttention(1, 1, mask="decay")
    x = np.zeros((1, 9000, 1), "float32")
    with pytest.raises(ValueError, match="at most 8,192 tokens.*9,000"):
        layer(x, return_attention_scores=True)
