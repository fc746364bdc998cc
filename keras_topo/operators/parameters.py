"""The tensors that define operators, and what is known of them."""

import math
from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

from keras_topo._backend import concrete
from keras_topo.annotations import Tensor, TensorLike

# Parameters up to this size are looked at for negative entries.
CHECKED_ENTRIES = 10**6
# Negative entries down to this times the largest are rounding.
ROUNDING = 1e-6


def accumulation_dtype(*dtypes: str) -> str:
    """The widest of `dtypes` and float32: what products are computed in.

    Not `keras.backend.result_type`, which knows no float64 on JAX.
    """
    names = {keras.backend.standardize_dtype(dtype) for dtype in dtypes}
    return "float64" if "float64" in names else "float32"


def as_tensor(value: TensorLike, name: str, min_rank: int) -> Tensor:
    """`value` as a floating tensor with at least `min_rank` axes."""
    value = ops.convert_to_tensor(value)
    if not keras.backend.is_float_dtype(value.dtype):
        value = ops.cast(value, keras.config.floatx())
    if len(value.shape) < min_rank:
        raise ValueError(
            f"`{name}` expects at least {min_rank} axes. Received: {name} of "
            f"shape {tuple(value.shape)}"
        )
    return value


def known_value(value: TensorLike) -> np.ndarray | None:
    """Numbers as an array; `None` where they are traced."""
    if isinstance(value, keras.Variable):
        value = value.value
    return concrete(value) if ops.is_tensor(value) else np.asarray(value)


def nonnegative_values(x: Tensor) -> bool | None:
    """Whether a tensor has no entries below zero but for rounding; `None`
    where it is traced, large or not a number."""
    if not _is_checked(x):
        return None
    values = concrete(x)
    if values is None or not values.size:
        return None
    smallest = float(values.min())
    if math.isnan(smallest):
        return None
    return smallest >= 0 or smallest >= -ROUNDING * float(values.max())


def traced_negative(x: Tensor) -> Tensor | None:
    """The same of a traced tensor, as a traced bool, `True` where it *has*
    entries below zero; `None` where it is large or not traced."""
    if not _is_checked(x) or not math.prod(x.shape) or concrete(x) is not None:
        return None
    smallest = ops.min(x)
    return ops.logical_and(smallest < 0, smallest < -ROUNDING * ops.max(x))


def all_known(known: Iterable[bool | None]) -> bool | None:
    """`all` of truths that may be `None`, unknown."""
    known = list(known)
    if False in known:
        return False
    return None if None in known else True


def _is_checked(x):
    return None not in x.shape and math.prod(x.shape) <= CHECKED_ENTRIES
