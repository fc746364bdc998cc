"""Masked attention and the feature maps of linear attention."""

from keras_topo.attention.masked import (
    masked_linear_attention,
    masked_softmax_attention,
)

__all__ = ["masked_linear_attention", "masked_softmax_attention"]
