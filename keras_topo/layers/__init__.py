"""Keras layers of topological attention."""

from keras_topo.layers.embedding import (
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
)
from keras_topo.layers.encoder import TopologicalEncoderBlock
from keras_topo.layers.toeplitz_attention import ToeplitzAttention

__all__ = [
    "PatchEmbedding",
    "PositionEmbedding",
    "PrefixTokens",
    "ToeplitzAttention",
    "TopologicalEncoderBlock",
]
