"""Layers of counts: integers are numbers, as in layers of Keras."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo import attention, layers, masks, operators

KERNEL = np.full((1, 3, 3), 0.4, "float32")
EDGES = np.array([[[0, 1], [1, 0], [1, 2], [2, 1]]], "int32")
GAT = {"similarity": "additive", "combine": "average"}
# Layers, and what they take beside the counts.
LAYERS = {
    "attention": (lambda: layers.MaskedAttention(1, 2, mask="decay"), ()),
    "additive": (lambda: layers.MaskedAttention(1, 2, mask="decay", **GAT), ()),
    "graphs": (lambda: layers.GraphKernelAttention(1, 2), (KERNEL,)),
    "gat": (lambda: layers.GraphKernelAttention(1, 2, **GAT), (KERNEL,)),
    "propagation": (layers.GraphPropagation, (KERNEL,)),
    "isomorphism": (lambda: layers.GraphIsomorphism(2), (KERNEL,)),
    "messages": (
        lambda: layers.LocalMessages(2),
        (EDGES, np.ones((1, 4, 1), "float32")),
    ),
    "pooling": (lambda: layers.GraphPooling("mean+max"), ()),
    "positions": (layers.PositionEmbedding, ()),
    "prefix": (layers.PrefixTokens, ()),
    "dropout": (lambda: layers.NodeDropout(0.5, copies=2, seed=0), ()),
    "block": (lambda: layers.TopologicalEncoderBlock(1, 2, 4), ()),
    "graph block": (lambda: layers.GraphEncoderBlock(1, 2, 4), (KERNEL,)),
}


@pytest.mark.few_on_jax("additive", "pooling", "block")
@pytest.mark.parametrize("name", LAYERS)
def test_counts(name):
    make, others = LAYERS[name]
    counts = np.array([[[0, 3], [1, 1], [1, 0]]])
    found = []
    for dtype in ("float32", "int32"):
        keras.utils.set_random_seed(0)
        layer = make()
        layer.build(*[x.shape for x in (counts, *others)])
        for weight in layer.trainable_weights:
            if not weight.path.endswith(("gamma", "bias")):
                weight.assign(0.3 + keras.random.normal(weight.shape, seed=1))
        options = {"training": True} if name == "dropout" else {}
        found.append(layer(counts.astype(dtype), *others, **options))
    assert keras.backend.standardize_dtype(found[1].dtype) == "float32"
    expected = ref.numpy(found[0])
    assert np.abs(expected % 1).max() > 0 or name == "dropout"
    np.testing.assert_allclose(ref.numpy(found[1]), expected, rtol=1e-6)


def test_values_that_are_counts():
    q = np.random.default_rng(0).random((1, 1, 3, 2), "float32")
    counts = np.array([[[[0, 3], [1, 1], [1, 0]]]])
    for function in (
        attention.masked_linear_attention,
        attention.masked_softmax_attention,
    ):
        found = function(q, q, counts, operators.Causal(3))
        expected = function(q, q, counts.astype("float32"), operators.Causal(3))
        np.testing.assert_allclose(ref.numpy(found), ref.numpy(expected))


@pytest.mark.parametrize("similarity", ["relu", "exp", "square", "softmax"])
def test_no_examples(similarity):
    for mask in (None, "decay", "table"):
        layer = layers.MaskedAttention(
            2, 4, mask=mask, similarity=similarity, causal=mask is None
        )
        layer.build((None, 6, 8))
        assert tuple(layer(np.zeros((0, 6, 8))).shape) == (0, 6, 8)
    q = np.zeros((0, 2, 6, 4), "float32")
    for mask in (operators.Causal(6), operators.ExponentialDecay(0.1, 6)):
        found = attention.masked_softmax_attention(q, q, q, mask)
        assert tuple(found.shape) == q.shape


def test_pooling_in_the_precision_of_its_policy():
    x = np.full((1, 3, 1), 1 / 3)
    pooled = ref.numpy(layers.GraphPooling("mean", dtype="float64")(x))
    if not ref.on_jax:
        np.testing.assert_allclose(pooled, 1 / 3, rtol=1e-15)
    none = layers.GraphPooling("mean+max")(np.zeros((2, 0, 4)))
    np.testing.assert_array_equal(ref.numpy(none), np.zeros((2, 8)))


@pytest.mark.parametrize("mask", ["table", "separable"])
def test_entries_that_start_at_zero_learn(mask):
    """Far from the diagonal `exp(-rate distance)` is zero in float32."""
    made = masks.get(mask)
    topology = masks.Sequence(512)
    made.build(8, topology)
    weights = made.trainable_variables
    zeros = [ref.numpy(weight) == 0 for weight in weights]
    assert sum(found.sum() for found in zeros) > 100
    run = ref.with_gradients(
        lambda *tensors: _entries_of(made, weights, tensors, topology)
    )
    entries = ref.numpy(made.operator(topology).to_dense())
    _, gradients = run(
        ref.tensor(np.ones_like(entries)), *[w.value for w in weights]
    )
    for gradient, found in zip(gradients, zeros, strict=True):
        assert (ref.numpy(gradient)[found] != 0).all()


def _entries_of(mask, weights, tensors, topology):
    """The matrix of a mask whose weights have other values."""
    with keras.StatelessScope(list(zip(weights, tensors, strict=True))):
        return mask.operator(topology).to_dense()
