"""Configs of `training.train`: the settings of runs, as Python files.

A config is a Python file with

    config = TextSettings(epochs=10, ...)    # the dataclass of a task
    variants = {"table": {"mask": "table"}, ...}  # optional: named changes

and a docstring that states the command, its running time and the expected
result. `python -m training.train --help` shows the first line.
"""

import ast
import dataclasses
import importlib
import pkgutil
from pathlib import Path

from keras_topo.training.settings import Settings, with_changes
from keras_topo.training.user_modules import run_file


def names():
    """Names of the configs in this folder, a list."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def summary(name):
    """The first line of a config's docstring, read without importing it."""
    text = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def load(name_or_path):
    """Imports a config.

    Args:
        name_or_path: name of a module in this folder, or path of a Python
            file that ends in `.py`.

    Returns:
        The module.

    Raises:
        ValueError: if there is no such config, or it is incomplete.
    """
    text = str(name_or_path)
    if text.endswith(".py"):
        path = Path(text).expanduser()
        if not path.is_file():
            raise ValueError(
                f"CONFIG expects a Python file that exists. Received: {text!r}"
            )
        module = run_file(path, "config_file")
    else:
        if text not in names():
            raise ValueError(
                f"CONFIG expects one of {', '.join(names())}, or the path of "
                f"a file that ends in .py. Received: {text!r}"
            )
        module = importlib.import_module(f"{__name__}.{text}")
    config = getattr(module, "config", None)
    if not isinstance(config, Settings) or not dataclasses.is_dataclass(config):
        raise ValueError(
            "A config expects a value of `config`, an instance of "
            f"keras_topo.training.settings.Settings. Received: {text!r}, with "
            f"config={config!r}"
        )
    return module


def variant_of(module, name=None):
    """The settings of a config, or of one of its variants.

    Args:
        module: as `load` returns it.
        name: a key of `variants`, or `None`.

    Raises:
        ValueError: if the variant is unknown, or its changes are invalid.
    """
    variants = getattr(module, "variants", {})
    if name is None:
        return module.config
    if name not in variants:
        raise ValueError(
            f"--variant expects one of {', '.join(variants) or 'none'}. "
            f"Received: {name!r}"
        )
    return with_changes(module.config, variants[name])
