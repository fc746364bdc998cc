"""Masks on the command line: by name, or a class of one's own."""

import importlib
import importlib.util
import sys
from pathlib import Path

from keras_topo import masks

EXPECTED = (
    f"{', '.join(masks.NAMES)}, none, MODULE:CLASS or FILE.py:CLASS, a "
    "registered subclass of keras_topo.masks.Mask"
)


def check_mask(text):
    """Checks the name of a mask; the class is imported.

    Raises:
        ValueError: there is no such mask.
    """
    if text != "none" and text not in masks.NAMES:
        mask_class(text)


def mask_of(name, **options):
    """The mask of a name, or `None` for `"none"`.

    Args:
        name: as `check_mask` has checked it.
        **options: constructor arguments, for the masks of keras_topo.
    """
    if name in (None, "none"):
        return None
    if name in masks.NAMES:
        return masks.get(name, **options)
    return mask_class(name)()


def mask_class(text):
    """The class that `MODULE:CLASS` or `FILE.py:CLASS` stands for."""
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
    path = Path(source).expanduser().resolve()
    # Once: a class is registered when its file is run.
    name = f"mask_file_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
