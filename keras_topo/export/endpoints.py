"""Signatures of a SavedModel: checks in them, and what they are called.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_topo.annotations import Tensor


def describe(tensor: Any) -> str:
    return f"{tensor.dtype.name} {tuple(tensor.shape)}"


def require(condition: Tensor, message: str, values: Tensor) -> Any:
    """An assertion in a signature that shows the first value that breaks it.

    Args:
        condition: bool tensor, true where all is well.
        message: str, before the value.
        values: tensor of the shape of `condition`.

    Returns:
        An operation to put into `tf.control_dependencies`.
    """
    import tensorflow as tf

    # Traced, a comparison of splits does not know that it has one axis.
    condition, values = tf.reshape(condition, [-1]), tf.reshape(values, [-1])
    bad = tf.boolean_mask(values, tf.logical_not(condition))[:1]
    if bad.dtype == tf.string:
        # A client's bytes may be many, and no text.
        shown = tf.strings.substr(bad, 0, 60)
        shown = tf.strings.unicode_transcode(shown, "UTF-8", "UTF-8")
    else:
        shown = tf.strings.as_string(bad)
    text = tf.strings.join([message, " ", tf.strings.reduce_join(shown)])
    return tf.debugging.Assert(tf.reduce_all(condition), [text])


def add_endpoints(
    archive: keras.export.ExportArchive,
    endpoints: Mapping[str, tuple[Callable[..., Any], Any]],
) -> dict[str, Any]:
    """Adds signatures to an archive.

    They refuse inputs of another shape than they say, and inputs that lead to
    NaN or infinity.

    Args:
        archive: `keras.export.ExportArchive`.
        endpoints: dict from names to a function and its arguments:
            `tf.TensorSpec`s, or one dict of them.

    Returns:
        A dict from names to the dtypes and shapes of `inputs` and `outputs`.
    """
    described = {}
    for name, (function, arguments) in endpoints.items():
        inputs = keras.tree.flatten(arguments)
        traced = archive.add_endpoint(
            name,
            _only_finite(_only_shapes(function, inputs), inputs),
            arguments,
        )
        outputs = traced.get_concrete_function(*arguments).structured_outputs
        described[name] = {
            "inputs": {x.name: describe(x) for x in inputs},
            "outputs": {key: describe(x) for key, x in outputs.items()},
        }
    return described


def _only_shapes(function, inputs):
    """The function, where inputs of another shape are an error.

    TensorFlow does not compare them with the signature: a model that could
    take images of other sizes would answer, as no training taught it.
    """
    import tensorflow as tf

    @functools.wraps(function)
    def checked(*args):
        found = [
            tf.ensure_shape(x, spec.shape, name=spec.name)
            for x, spec in zip(keras.tree.flatten(args), inputs, strict=True)
        ]
        return function(*keras.tree.pack_sequence_as(args, found))

    return checked


def _only_finite(function, inputs):
    """The function, whose outputs are an error unless they are finite.

    Finite inputs may overflow anywhere inside: what counts is what comes out.
    """
    import tensorflow as tf

    names = " and ".join(f"`{x.name}`" for x in inputs)

    @functools.wraps(function)
    def checked(*args):
        outputs = function(*args)
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(tf.math.is_finite(x)),
                [
                    f"{names} expect values from which the model computes "
                    f"finite {key}. Received: values that lead to NaN or "
                    "infinity"
                ],
            )
            for key, x in outputs.items()
            if x.dtype.is_floating
        ]
        with tf.control_dependencies(checks):
            return {key: tf.identity(x) for key, x in outputs.items()}

    return checked
