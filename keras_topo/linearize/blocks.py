"""Encoder blocks of a model, and what attention they have."""

import keras

from keras_topo.annotations import Shape, Similarity
from keras_topo.layers import (
    MaskedAttention,
    PositionEmbedding,
    TopologicalEncoderBlock,
)


def is_functional(layer: keras.layers.Layer) -> bool:
    """Whether it is a functional or Sequential model."""
    return isinstance(layer, keras.Model) and bool(
        getattr(layer, "inputs", None)
    )


def encoder_blocks(model: keras.Model) -> list[TopologicalEncoderBlock]:
    """The `TopologicalEncoderBlock`s of a model, in order, a list."""
    found = []
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, TopologicalEncoderBlock):
            found.append(layer)
        elif is_functional(layer):
            found += encoder_blocks(layer)
    return found


def has_softmax(block: TopologicalEncoderBlock) -> bool:
    """Whether the attention of a block is softmax attention."""
    attention = block.attention
    if isinstance(attention, MaskedAttention):
        return attention.similarity == "softmax"
    return isinstance(attention, keras.layers.MultiHeadAttention)


def check_feature_map(similarity: Similarity) -> Similarity:
    """`similarity`, which must not be `"softmax"` or `"additive"`.

    Raises:
        ValueError: if it is.
    """
    if similarity in ("softmax", "additive"):
        raise ValueError(
            "`feature_map` expects a feature map, which makes attention "
            f"linear. Received: feature_map={similarity!r}"
        )
    return similarity


def reach_of(model: keras.Model) -> Shape | None:
    """The grid that the positions of a model are made for, or `None`."""
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, PositionEmbedding):
            return layer.grid_shape
        if is_functional(layer):
            found = reach_of(layer)
            if found is not None:
                return found
    return None
