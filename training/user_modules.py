"""Python files of users, as modules."""

import importlib.util
import sys


def run_file(path, prefix):
    """Runs a Python file once and gives its module.

    Args:
        path: `pathlib.Path`, of a file that exists.
        prefix: str, before the name of the file in `sys.modules`, so that it
            hides no module of that name.
    """
    path = path.resolve()
    name = f"{prefix}_{path.stem}"
    known = sys.modules.get(name)
    # Once: a class is registered when its file is run.
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up the types of their fields there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # Whatever ends it, Ctrl-C too: half a module is none.
        del sys.modules[name]
        raise
    return module
