"""Imports Python files of users."""

import importlib.util
import sys


def run_file(path, prefix):
    """Runs a Python file once and returns its module.

    Args:
        path: `pathlib.Path` of an existing file.
        prefix: str, prefix of its name in `sys.modules`, so that it does not
            hide another module.
    """
    path = path.resolve()
    name = f"{prefix}_{path.stem}"
    known = sys.modules.get(name)
    # Run it only once, because running it registers classes.
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their field types in `sys.modules`.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # On any failure, including Ctrl-C, drop the incomplete module.
        del sys.modules[name]
        raise
    return module
