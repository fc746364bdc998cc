"""Masks on the command line: by name, a product of names, or a user's class."""

import importlib
import inspect
from pathlib import Path

from keras_topo import masks
from keras_topo.training.user_modules import run_file

EXPECTED = (
    f"{', '.join(masks.NAMES)}, none, MODULE:CLASS or FILE.py:CLASS (a "
    "registered subclass of keras_topo.masks.Mask), or a product of these "
    "such as 'table*gated'"
)


def check_mask(text):
    """Checks the name of a mask; classes are imported.

    Raises:
        ValueError: if there is no such mask.
    """
    if text == "none":
        return
    for factor in text.split("*"):
        if factor not in masks.NAMES:
            _check_arguments(factor, mask_class(factor))


def mask_of(name, initial=None):
    """The mask of a name, or `None` for `"none"`.

    Args:
        name: a name that `check_mask` accepts.
        initial: str, the start of those masks of keras_topo that have several;
            `None` for their own.
    """
    if name in (None, "none"):
        return None
    factors = [_factor(factor, initial) for factor in name.split("*")]
    return factors[0] if len(factors) == 1 else masks.ProductMask(factors)


def has_start(name):
    """Whether `initial` changes a mask."""
    return any(map(_takes_initial, name.split("*")))


def _factor(name, initial):
    if name not in masks.NAMES:
        return mask_class(name)()
    if initial and _takes_initial(name):
        return masks.get(name, initial=initial)
    return masks.get(name)


def _takes_initial(factor):
    """Whether it is a mask of keras_topo with several starts."""
    if factor not in masks.NAMES:
        return False
    constructor = inspect.signature(masks.NAMES[factor].__init__)
    return "initial" in constructor.parameters


def _check_arguments(text, cls):
    """Refuses a class that cannot be constructed without arguments."""
    needed = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind
        not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            "`mask` expects a class whose arguments have defaults. Received: "
            f"{text!r}, which needs {', '.join(needed)}"
        )


def mask_class(text):
    """The class named by `MODULE:CLASS` or `FILE.py:CLASS`."""
    source, colon, name = text.rpartition(":")
    found = None
    try:
        if colon:
            found = getattr(_module(source), name, None)
    except (ImportError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise ValueError(
            f"`mask` expects {EXPECTED}. Received: {text!r}, and {source} "
            f"cannot be imported: {error}"
        ) from error
    if not isinstance(found, type) or not issubclass(found, masks.Mask):
        raise ValueError(f"`mask` expects {EXPECTED}. Received: {text!r}")
    return found


def _module(source):
    if not source.endswith(".py"):
        return importlib.import_module(source)
    return run_file(Path(source).expanduser(), "mask_file")
