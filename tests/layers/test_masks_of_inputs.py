"""Keras masks pass through functional models, whose batch is not known."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.layers import (
    GraphEncoderBlock,
    GraphKernelAttention,
    GraphPooling,
    PositionEmbedding,
    PrefixTokens,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)

TOKENS, CHANNELS = 6, 8
WORDS = np.array([[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 1]])

LAYERS = {
    "prefix": lambda: PrefixTokens(),
    "prefixes": lambda: PrefixTokens(3),
    "positions": lambda: PositionEmbedding(),
    "toeplitz": lambda: ToeplitzAttention(2, 4),
    "block": lambda: TopologicalEncoderBlock(2),
    "block-softmax": lambda: TopologicalEncoderBlock(2, attention="softmax"),
    "graph": lambda: GraphKernelAttention(
        2, 4, graph_kernel=np.ones((TOKENS, TOKENS))
    ),
    "graph-block": lambda: GraphEncoderBlock(
        2, graph_kernel=np.ones((TOKENS, TOKENS))
    ),
}


def embedded():
    words = keras.Input((TOKENS,), dtype="int32", name="words")
    return words, keras.layers.Embedding(10, CHANNELS, mask_zero=True)(words)


@pytest.mark.parametrize("name", LAYERS)
def test_a_functional_model_passes_the_mask_on(name):
    """To the layer and to those after it: padded words do not count."""
    words, x = embedded()
    layer = LAYERS[name]()
    x = layer(x)
    model = keras.Model(words, [x, GraphPooling()(x)])
    out, pooled = [ref.numpy(y) for y in model(WORDS)]
    prefix = getattr(layer, "num_tokens", 0)
    assert out.shape == (2, prefix + TOKENS, CHANNELS)
    visible = np.pad(WORDS != 0, ((0, 0), (prefix, 0)), constant_values=True)
    mean = (out * visible[..., None]).sum(1) / visible.sum(1)[:, None]
    ref.assert_close(pooled, mean, 1e-5)


def test_prefix_tokens_of_a_grid():
    """A mask of the grid is flattened as the grid is."""
    layer = PrefixTokens(2)
    x = keras.Input((2, 3, CHANNELS))
    grid_mask = keras.Input((2, 3), dtype="bool")
    layer.build(x.shape)
    mask = layer.compute_mask(x, grid_mask)
    model = keras.Model(grid_mask, mask)
    given = np.array([[[1, 0, 1], [0, 0, 1]], [[1, 1, 1], [0, 1, 1]]], bool)
    expected = np.concatenate([np.ones((2, 2), bool), given.reshape(2, 6)], 1)
    np.testing.assert_array_equal(ref.numpy(model(given)), expected)


def test_prefix_tokens_of_sequences_of_any_length():
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(10, CHANNELS, mask_zero=True)(words)
    x = PrefixTokens(2)(x)
    assert x.shape == (None, None, CHANNELS)
    model = keras.Model(words, GraphPooling("log_size")(x))
    for length in (3, 5):
        sizes = ref.numpy(model(WORDS[:1, :length]))
        ref.assert_close(np.exp(sizes), [[min(length, 4) + 2.0]], 1e-5)
    for shape in [(None, 2, None), (None, 4)]:
        with pytest.raises(ValueError, match="PrefixTokens.*Received: "):
            PrefixTokens().build(shape)
