"""Parametric functions of a distance, for `ForestDistance`.

Each function here takes parameters with batch axes, such as one value per
head, and returns a callable from distances `(n,)` to values `(*batch, n)`. The
values are not negative, have the dtype of the parameters, and pass gradients
to them.
"""

from collections.abc import Callable

import numpy as np
from keras import ops

from keras_topo._backend import concrete
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators.parameters import accumulation_dtype, as_tensor

# The logarithm of the range of a mask: beyond it, float32 sums of its entries
# would lose the smaller ones altogether.
MAX_EXPONENT = 30.0


def exponentiated_polynomial(
    coefficients: TensorLike,
) -> Callable[[Tensor], Tensor]:
    """`f(d) = exp(c_0 + c_1 d + c_2 d^2 + ...)`.

    The exponent is clipped to `[-30, 30]`, so that values are finite in
    float32 at every distance, also at twice the longest, where
    `ForestDistance` asks for them; where it is clipped the gradient is zero.
    Powers `d^degree` themselves have to be in the range of float32.

    Args:
        coefficients: `(*batch, degree + 1)`, the constant first.

    Returns:
        A callable from `(n,)` to `(*batch, n)`.

    Raises:
        ValueError: if `coefficients` is a number, or is empty.

    *Complexity*: `O(degree n)`.

    Example:

    >>> from keras_topo.operators import ForestDistance
    >>> f = exponentiated_polynomial(np.array([[0.0, -0.5], [0.0, -2.0]]))
    >>> ForestDistance([-1, 0, 1], f).shape  # two heads
    (2, 3, 3)
    """
    coefficients = as_tensor(coefficients, "coefficients", 1)
    degree = coefficients.shape[-1] - 1
    if degree < 0:
        raise ValueError(
            "`coefficients` expects at least one. Received: coefficients of "
            f"shape {tuple(coefficients.shape)}"
        )

    def f(distances):
        distances = ops.cast(distances, coefficients.dtype)
        # Horner's scheme: no power is multiplied by zero, should it overflow.
        exponent = coefficients[..., degree:] + ops.zeros_like(distances)
        for k in range(degree - 1, -1, -1):
            exponent = exponent * distances + coefficients[..., k : k + 1]
        return _bounded_exp(exponent)

    return f


def rational(a: TensorLike) -> Callable[[Tensor], Tensor]:
    """`f(d) = 1 / (1 + a d^2)`, which decays slowly.

    Args:
        a: `(*batch,)`, not negative.

    Returns:
        A callable from `(n,)` to `(*batch, n)`.

    Raises:
        ValueError: if `a` is known to be negative.

    Example:

    >>> from keras_topo.operators import ForestDistance
    >>> mask = ForestDistance([-1, 0, 1], rational(1.0))
    >>> print(np.array(mask.rows(0, 1)).round(2))
    [[1.  0.5 0.2]]
    """
    a = _nonnegative_tensor(a, "a")

    def f(distances):
        distances = ops.cast(distances, a.dtype)
        return 1 / (1 + ops.expand_dims(a, -1) * distances * distances)

    return f


def damped_cosine(
    rate: TensorLike, frequency: TensorLike
) -> Callable[[Tensor], Tensor]:
    """`f(d) = exp(-rate d) (1 + cos(frequency d)) / 2`.

    A wave that stays between zero and its envelope: with `frequency = pi`
    nodes see those at even distances. The exponent is clipped as in
    `exponentiated_polynomial`.

    Args:
        rate: `(*batch,)`, not negative.
        frequency: `(*batch,)`, radians per unit of distance.

    Returns:
        A callable from `(n,)` to `(*batch, n)`.

    Raises:
        ValueError: if `rate` is known to be negative.

    Example:

    >>> from keras_topo.operators import ForestDistance
    >>> mask = ForestDistance([-1, 0, 1], damped_cosine(0.0, np.pi))
    >>> print(np.array(mask.rows(0, 1)).round(2))
    [[1. 0. 1.]]
    """
    is_number = [isinstance(x, (int, float)) for x in (rate, frequency)]
    tensors = [
        _nonnegative_tensor(rate, "rate"),
        as_tensor(frequency, "frequency", 0),
    ]
    # Numbers have no dtype of their own.
    dtype = accumulation_dtype(
        *[x.dtype for x, n in zip(tensors, is_number, strict=True) if not n]
    )
    rate, frequency = [ops.cast(x, dtype) for x in tensors]

    def f(distances):
        distances = ops.cast(distances, dtype)
        envelope = _bounded_exp(-ops.expand_dims(rate, -1) * distances)
        angle = ops.expand_dims(frequency, -1) * distances
        # (1 + cos x) / 2, without cancellation near its zeros. Keras has no
        # cosine in float64 on JAX.
        wave = ops.cast(ops.cos(angle / 2), dtype)
        return envelope * ops.square(wave)

    return f


def _nonnegative_tensor(value, name):
    value = as_tensor(value, name, 0)
    known = concrete(value)
    if known is not None and (np.asarray(known) < 0).any():
        raise ValueError(
            f"`{name}` expects numbers that are not negative. Received: "
            f"{name}={known}"
        )
    return value


def _bounded_exp(exponent):
    return ops.exp(ops.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT))
