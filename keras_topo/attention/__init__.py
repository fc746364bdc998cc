"""Masked attention and the feature maps of linear attention."""

from keras_topo.attention.feature_maps import (
    FEATURE_MAPS,
    RANDOM_FEATURE_MAPS,
    get_feature_map,
    orthogonal_projection,
)
from keras_topo.attention.linear import masked_linear_attention
from keras_topo.attention.magnitude import magnitude_aware
from keras_topo.attention.scores import attention_scores
from keras_topo.attention.softmax import (
    masked_additive_attention,
    masked_softmax_attention,
)

__all__ = [
    "FEATURE_MAPS",
    "RANDOM_FEATURE_MAPS",
    "attention_scores",
    "get_feature_map",
    "magnitude_aware",
    "masked_additive_attention",
    "masked_linear_attention",
    "masked_softmax_attention",
    "orthogonal_projection",
]
