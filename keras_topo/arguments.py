"""Checks of constructor arguments that layers share."""

import numpy as np


def positive(value, name, optional=False):
    """`value`, which must be a positive int; or `None`, if `optional`."""
    if optional and value is None:
        return None
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
