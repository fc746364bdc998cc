"""Arrays that layers keep as non-trainable weights, and find by a digest."""

import collections.abc
import functools
import hashlib
import weakref

import keras
import numpy as np

#: Names of fixed weights that hold node ids.
INTEGERS = ("pairs", "edges", "rows", "columns", "order", "inverse")

_IN_USE = weakref.WeakValueDictionary()


class FixedArrays(collections.abc.Mapping):
    """Arrays by name, of fixed weights.

    A config holds a digest of them in place of the numbers, by which a copy
    finds them as long as a layer has them (`recall`): a model that
    `keras.models.clone_model` makes is of the same graph.
    """

    # Not a dict: attributes of layers that are get copied.

    def __init__(self, arrays, digest):
        self._arrays, self.digest = dict(arrays), digest

    def __getitem__(self, name):
        return self._arrays[name]

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)


def remember(arrays):
    """`FixedArrays` with these arrays; the same for equal ones."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    key = digest.hexdigest()
    found = _IN_USE.get(key)
    if found is None:
        found = _IN_USE[key] = FixedArrays(arrays, key)
    return found


def recall(digest):
    """The arrays with a digest, or `None` where no layer has them."""
    return _IN_USE.get(digest)


def remember_weights(weights):
    """The `FixedArrays` of weights that came from a file."""
    return remember(
        {
            name: keras.ops.convert_to_numpy(weight)
            for name, weight in weights.items()
        }
    )


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
