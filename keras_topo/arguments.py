"""Checks of constructor arguments that layers share, and former names."""

import inspect
import numbers
import warnings
from collections.abc import Callable, Collection
from typing import Any, TypeVar, overload

import numpy as np

Choice = TypeVar("Choice")


@overload
def positive(value: Any, name: str) -> int: ...


@overload
def positive(value: Any, name: str, optional: bool) -> int | None: ...


def positive(value: Any, name: str, optional: bool = False) -> int | None:
    """`value`, which must be a positive int; or `None`, if `optional`."""
    if optional and value is None:
        return None
    is_int = isinstance(value, (int, np.integer))
    if not is_int or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"`{name}` expects a positive int. Received: {name}={value!r}"
        )
    return int(value)


def rate(value: float, name: str) -> float:
    """`value`, which must be from 0 to below 1."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` expects a rate from 0 to below 1. Received: "
            f"{name}={value!r}"
        )
    return value


def one_of(value: Choice, name: str, choices: Collection[Any]) -> Choice:
    """`value`, which must be one of `choices`."""
    # An array has no single answer to whether it is one of them.
    if not isinstance(value, (str, int, type(None))) or value not in choices:
        raise ValueError(
            f"`{name}` expects one of {tuple(choices)}. Received: "
            f"{name}={value!r}"
        )
    return value


def by_former_name(
    kwargs: dict[str, Any], old: str, new: str, value: Any = None
) -> Any:
    """The value of an argument, which may have come by its former name.

    Args:
        kwargs: dict, keyword arguments, from which `old` is taken.
        old, new: str, the former name and that of today.
        value: what came by the name of today.
    """
    if old not in kwargs:
        return value
    former = kwargs.pop(old)
    if former is None:
        return value
    if value is not None:
        raise ValueError(
            f"`{old}` is the former name of `{new}`: give one of them. "
            "Received: both"
        )
    warnings.warn(
        f"`{old}` is now called `{new}`; the former name goes with version 0.3",
        DeprecationWarning,
        stacklevel=3,
    )
    return former


# Names of arguments in earlier versions, and those of today.
_RENAMED = {"fixed_kernel": "graph_kernel"}


def former_names(parameters: Collection[str]) -> dict[str, str]:
    """Names that a function took before, and those of today, which it takes.

    Args:
        parameters: names of its parameters. One that still has a former name
            among them, as functions of users may, means it.
    """
    return {
        old: new
        for old, new in _RENAMED.items()
        if new in parameters and old not in parameters
    }


def with_names_of(
    function: Callable[..., Any], config: dict[str, Any]
) -> dict[str, Any]:
    """A configuration, of whatever version, with the names of a function.

    These are the names of today, unless the function, of a user, has a former
    one among its parameters.

    Args:
        function: a builder, or the `__init__` of a layer.
        config: dict, arguments by name.
    """
    parameters = inspect.signature(function).parameters
    names = {}
    for old, new in _RENAMED.items():
        if old in parameters and new not in parameters:
            names[new] = old
        else:
            names[old] = new
    return {names.get(key, key): value for key, value in config.items()}
