"""What is defined by tensors: taken apart, put together, a pytree."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Self

import keras
from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.operators.pytrees import register
from keras_topo.operators.shapes import agree


class TensorHolder:
    """Base of operators, as what holds tensors.

    Loops that recompute for the gradient need the tensors that it reaches as
    their arguments: `tensors` and `with_tensors`. Frameworks need all tensors:
    the class is registered as a pytree.
    """

    #: Names of the attributes that hold tensors, operators, lists of them, or
    #: `None`.
    _fields = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(cls)

    def tensors(self) -> list[Tensor]:
        """The tensors that define the operator, as a flat list.

        Raises:
            ValueError: if an attribute holds a tensor or an operator that
                `_fields` does not name: there would be no gradient for it.
        """
        for name, value in vars(self).items():
            if name not in self._fields and _is_parameter(value):
                raise ValueError(
                    f"`_fields` of {type(self).__name__} expects the names of "
                    "all attributes that hold tensors or operators. Received: "
                    f"_fields={self._fields}, without {name!r}"
                )
        found = []
        for name in self._fields:
            found.extend(_flatten(getattr(self, name)))
        return found

    def with_tensors(self, tensors: Iterable[Tensor]) -> Self:
        """A copy of the operator that holds `tensors`, in the same order.

        Raises:
            ValueError: unless there are as many as the operator has, of the
                same shapes.
        """
        tensors = list(tensors)
        shapes = [tuple(x.shape) for x in self.tensors()]
        found = [tuple(ops.convert_to_tensor(x).shape) for x in tensors]
        if len(found) != len(shapes) or not all(
            len(a) == len(b) and agree(a, b)
            for a, b in zip(found, shapes, strict=True)
        ):
            raise ValueError(
                f"`tensors` expects those of {type(self).__name__}, of the "
                f"shapes {shapes}. Received: shapes {found}"
            )
        return self._rebuild(iter(tensors))

    def _rebuild(self, iterator: Iterator[Tensor]) -> Self:
        clone = copy.copy(self)
        for name in self._fields:
            setattr(clone, name, _unflatten(getattr(self, name), iterator))
        return clone


def _is_parameter(value):
    """Whether `value` is differentiable, or an operator."""
    if isinstance(value, TensorHolder):
        return True
    if isinstance(value, keras.Variable) or ops.is_tensor(value):
        dtype = keras.backend.standardize_dtype(value.dtype)
        return keras.backend.is_float_dtype(dtype)
    return False


def _flatten(value):
    if value is None:
        return []
    if isinstance(value, TensorHolder):
        return value.tensors()
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _flatten(item)]
    # A variable would be read inside the loops of attention otherwise.
    return [ops.convert_to_tensor(value)]


def _unflatten(value, iterator):
    if value is None:
        return None
    if isinstance(value, TensorHolder):
        return value._rebuild(iterator)
    if isinstance(value, (list, tuple)):
        return [_unflatten(item, iterator) for item in value]
    return next(iterator)
