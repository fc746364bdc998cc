"""Inputs of layers that are integers or booleans."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import TensorLike


def as_floats(x: TensorLike, layer: Any) -> Any:
    """`x` as the numbers that a layer computes with.

    Keras casts floats alone: counts, as those of words, arrive as they are, and
    weights that are cast to their dtype would be cut to integers.
    """
    x = ops.convert_to_tensor(x)
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(x.dtype)):
        return x
    return ops.cast(x, layer.compute_dtype)
