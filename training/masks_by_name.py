"""Masks on the command line: by name, a product of names, or a user's class."""

import importlib
import inspect
from pathlib import Path

from keras_topo import masks
from keras_topo.training.user_modules import run_file

EXPECTED = (
    f"{', '.join(masks.NAMES)}, none, a product of names such as "
    "'table*gated', MODULE:CLASS or FILE.py:CLASS, a registered subclass of "
    "keras_topo.masks.Mask"
)


def check_mask(text):
    """Checks the name of a mask; the class is imported.

    Raises:
        ValueError: if there is no such mask.
    """
    if text != "none" and not _is_known(text):
        mask_class(text)


def mask_of(name, initial=None):
    """The mask of a name, or `None` for `"none"`.

    Args:
        name: a name that `check_mask` accepts.
        initial: str, the start of those masks of keras_topo that have several;
            `None` for their own.
    """
    if name in (None, "none"):
        return None
    if not _is_known(name):
        return mask_class(name)()
    factors = [
        masks.get(factor, initial=initial)
        if initial and _takes_initial(factor)
        else masks.get(factor)
        for factor in name.split("*")
    ]
    return factors[0] if len(factors) == 1 else masks.ProductMask(factors)


def has_start(name):
    """Whether `initial` changes a mask."""
    return _is_known(name) and any(map(_takes_initial, name.split("*")))


def _is_known(name):
    """Whether it is a name, or a product of names."""
    return all(factor in masks.NAMES for factor in name.split("*"))


def _takes_initial(factor):
    constructor = inspect.signature(type(masks.get(factor)).__init__)
    return "initial" in constructor.parameters


def mask_class(text):
    """The class named by `MODULE:CLASS` or `FILE.py:CLASS`."""
    source, colon, name = text.rpartition(":")
    found = None
    try:
        if colon:
            found = getattr(_module(source), name, None)
    except (ImportError, OSError, SyntaxError) as error:
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
