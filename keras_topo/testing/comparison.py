"""Arrays compared, gradients and compilation on whichever backend runs."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Tensor, TensorLike


def tensor(array: TensorLike, dtype: str | None = None) -> Tensor:
    """An array as a tensor of the backend, in its own dtype or in `dtype`."""
    x = ops.convert_to_tensor(np.asarray(array))
    return x if dtype is None else ops.cast(x, dtype)


def numpy(x: TensorLike) -> np.ndarray:
    """A tensor as a NumPy array; half precision becomes float32."""
    if keras.backend.standardize_dtype(x.dtype) in ("bfloat16", "float16"):
        x = ops.cast(x, "float32")
    return np.asarray(ops.convert_to_numpy(x))


def dtype_of(x: Tensor) -> str:
    """The dtype of a tensor, a string."""
    return keras.backend.standardize_dtype(x.dtype)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest expected magnitude.

    Args:
        actual, expected: arrays of one shape.

    Returns:
        A float; 0 for empty arrays.

    Raises:
        AssertionError: if shapes differ, or `actual` is not finite.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    # Raised, not asserted: under `python -O` too.
    if actual.shape != expected.shape:
        raise AssertionError(
            f"expected an array of shape {expected.shape}. Received: "
            f"{actual.shape}"
        )
    if not expected.size:
        return 0.0
    if not np.all(np.isfinite(actual)):
        raise AssertionError("expected finite numbers")
    scale = np.max(np.abs(expected)) or 1.0
    return float(np.max(np.abs(actual - expected)) / scale)


def assert_close(
    actual: TensorLike, expected: np.ndarray, tolerance: float, what: str = ""
) -> None:
    """Checks that `relative_error` is at most `tolerance`.

    Args:
        actual: tensor or array.
        expected: array.
        tolerance: float.
        what: string, the name of what is compared, for the message.

    Raises:
        AssertionError: if it is larger, shapes differ, or `actual` is not
            finite.
    """
    actual = actual if isinstance(actual, np.ndarray) else numpy(actual)
    error = relative_error(actual, expected)
    if not error <= tolerance:
        raise AssertionError(
            f"{what}: expected a relative error of at most {tolerance:.1e}. "
            f"Received: {error:.2e}"
        )


def compiled(function):
    """The function under XLA; its arguments are traced."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    import jax

    return jax.jit(function)


def staged(function):
    """Compiled on JAX, which would compile each operation by itself otherwise;
    as it is on TensorFlow, which runs operations as they come."""
    if keras.backend.backend() == "tensorflow":
        return function
    return compiled(function)


def with_gradients(function):
    """From `function(*tensors)` to `(upstream, *tensors) -> (y, gradients)`.

    The gradients are those of `sum(upstream * y)` with respect to every
    tensor, zeros where it plays no part.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def recorded(upstream, *tensors):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(tensors)
                y = function(*tensors)
            return y, tape.gradient(
                y,
                list(tensors),
                output_gradients=upstream,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        return recorded
    import jax

    def compute(upstream, *tensors):
        y, pullback = jax.vjp(function, *tensors)
        return y, list(pullback(upstream))

    return compute


def complex_step_gradients(
    function: Callable[..., Any], arrays: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Gradients of a real-analytic scalar function, exact to rounding.

    `Im f(p + i h) / h`: no difference is taken, so `h` can be tiny.

    Args:
        function: from complex arrays to a number.
        arrays: list of float64 arrays.

    Returns:
        A list of arrays, one for each of `arrays`.
    """
    gradients = []
    step = 1e-30
    for k, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            moved = [a.astype(complex) for a in arrays]
            moved[k][index] += 1j * step
            gradient[index] = function(*moved).imag / step
        gradients.append(gradient)
    return gradients
