"""Constructor arguments that layers share: checks, copies, configs."""

import functools

import keras
import numpy as np

#: Names of fixed weights that hold node ids.
INTEGERS = ("pairs", "edges", "rows", "columns", "order", "inverse")


def positive(value, name):
    """`value`, which must be a positive int."""
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(
            f"`{name}` expects a positive int. Received: {name}={value!r}"
        )
    return int(value)


def rate(value, name):
    """`value`, which must be from 0 to below 1."""
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` expects a rate from 0 to below 1. Received: "
            f"{name}={value}"
        )
    return value


def one_of(value, name, choices):
    """`value`, which must be one of `choices`."""
    # An array has no single answer to whether it is one of them.
    if not isinstance(value, (str, int, type(None))) or value not in choices:
        raise ValueError(
            f"`{name}` expects one of {tuple(choices)}. Received: "
            f"{name}={value!r}"
        )
    return value


def add_fixed_weights(layer, prefix, shapes, arrays):
    """Non-trainable weights that hold arrays.

    Args:
        layer: the layer they belong to.
        prefix: str, of their names.
        shapes: dict of shapes by name.
        arrays: dict of arrays by name, node ids to be kept as int32 and all
            else as float32; or `None`, where a file brings the numbers.

    Returns:
        dict of weights by name.
    """
    weights = {}
    for name, shape in shapes.items():
        integers = name in INTEGERS
        dtype = "int32" if integers else "float32"
        initializer = "zeros"
        if arrays is not None:
            # Not assigned: within `fit`, where a model may be built, what is
            # assigned is lost, and only the initializer counts.
            array = np.asarray(arrays[name], dtype)
            initializer = functools.partial(_as_initializer, array)
        weights[name] = layer.add_weight(
            name=f"{prefix}_{name}",
            shape=tuple(shape),
            dtype=dtype,
            initializer=initializer,
            trainable=False,
            autocast=False,
        )
    return weights


def _as_initializer(array, shape, dtype=None):
    return keras.ops.convert_to_tensor(array, dtype)


def copy_initializer(initializer, offset=0):
    """A copy: an initializer with a seed gives the same values twice.

    Its seed, if it has one, is larger by `offset`.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if isinstance(config.get("seed"), int):
        config["seed"] += offset
    return type(initializer).from_config(config)


_MODULES = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


def serialized(layer, *names):
    """A config of the initializers, regularizers and constraints named."""
    return {
        name: _MODULES[name.rpartition("_")[2]].serialize(getattr(layer, name))
        for name in names
    }
