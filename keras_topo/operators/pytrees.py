"""Operators as pytrees: tensors as leaves, all else as their structure."""

from keras import ops

from keras_topo._backend import register_pytree


def register(operator_class):
    """Makes operators of a class arguments of `jax.jit` or `tf.function`."""
    register_pytree(operator_class, take_apart, put_together)


def take_apart(operator):
    """The tensors of an operator, a list, and its structure.

    The structure is hashable, and equal for operators that differ in the
    numbers of their tensors alone. What has no hash, as the plan of a tree,
    is equal to itself only.
    """
    leaves = []
    return leaves, _structure(operator, leaves)


def put_together(structure, leaves):
    """The operator of a structure, around an iterable of leaves.

    Leaves may be anything, as pytrees demand: nothing is checked.
    """
    return structure.build(iter(leaves))


def _structure(value, leaves):
    # An operator by what it has: this module is imported by theirs.
    if hasattr(value, "_fields") and hasattr(value, "with_tensors"):
        items = sorted(vars(value).items())
        return _Operator(
            type(value),
            tuple((name, _structure(item, leaves)) for name, item in items),
        )
    if isinstance(value, (list, tuple)) and not all(
        isinstance(item, (int, str, float)) for item in value
    ):
        items = tuple(_structure(item, leaves) for item in value)
        return _Items(type(value), items)
    if ops.is_tensor(value):
        leaves.append(value)
        return _LEAF
    return _Static(value)


class _Node:
    """A part of a structure, compared by `key`."""

    key = ()

    def __eq__(self, other):
        return type(self) is type(other) and self.key == other.key

    def __hash__(self):
        return hash((type(self), self.key))


class _Operator(_Node):
    def __init__(self, operator_class, items):
        self.key = (operator_class, items)

    def build(self, leaves):
        operator_class, items = self.key
        operator = object.__new__(operator_class)
        for name, item in items:
            setattr(operator, name, item.build(leaves))
        return operator


class _Items(_Node):
    def __init__(self, sequence, items):
        self.key = (sequence, items)

    def build(self, leaves):
        sequence, items = self.key
        return sequence(item.build(leaves) for item in items)


class _Leaf(_Node):
    def build(self, leaves):
        return next(leaves)


class _Static(_Node):
    def __init__(self, value):
        self.value = value
        try:
            hash(value)
        except TypeError:
            # Held by this object, so its id is not given away.
            value = id(value)
        self.key = value

    def build(self, leaves):
        return self.value


_LEAF = _Leaf()
