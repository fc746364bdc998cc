"""Activations of MLPs by name, those of published models among them."""

from collections.abc import Callable

import keras
from keras import ops

from keras_topo.annotations import Tensor


@keras.saving.register_keras_serializable(package="keras_topo")
def gelu_tanh(x):
    """`x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, the default of Flax;
    `"gelu"` of Keras and of PyTorch has the error function instead."""
    return keras.activations.gelu(x, approximate=True)


@keras.saving.register_keras_serializable(package="keras_topo")
def quick_gelu(x):
    """`x sigmoid(1.702 x)`."""
    return x * ops.sigmoid(1.702 * x)


def swiglu(x):
    """`silu(a) b` of inputs `[a, b]`, half as many (Shazeer, 2020)."""
    gate, value = ops.split(x, 2, axis=-1)
    return ops.silu(gate) * value


_BY_NAME = {"gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}


def get_activation(
    name: str,
) -> tuple[
    Callable[[Tensor], Tensor] | None, Callable[[Tensor], Tensor] | None, int
]:
    """The activation of hidden units, and how many of them it joins to one.

    Args:
        name: str, `"gelu_tanh"`, `"quick_gelu"`, `"swiglu"` or the name of an
            activation of Keras.

    Returns:
        A function for a `Dense` layer, or `None`; a function after it, or
        `None`; and the number of units that become one, 1 or 2.

    Raises:
        ValueError: if there is no such activation.
    """
    if name == "swiglu":
        return None, swiglu, 2
    if name in _BY_NAME:
        return _BY_NAME[name], None, 1
    try:
        if not isinstance(name, str):
            raise ValueError("no name")
        return keras.activations.get(name), None, 1
    except ValueError as error:
        raise ValueError(
            "`activation` expects 'gelu_tanh', 'quick_gelu', 'swiglu' or the "
            f"name of an activation of Keras. Received: activation={name!r}"
        ) from error
