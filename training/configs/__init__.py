"""Configs of `training.train`: what a run is started with, as Python files.

A config is a Python file with

    task = Text                     # a class, see keras_topo.training.tasks
    arguments = {"epochs": 10, ...}  # all of them: those of training.train
                                    # (its PARSERS) and those of the task
    variants = {"table": {"mask": "table"}, ...}  # optional: named changes

and a docstring that states the command, the time that it takes and the result
to expect. Variants and the command line change values; they add none.
"""

import argparse
import importlib
import importlib.util
import pkgutil
from pathlib import Path


def load(name_or_path):
    """Imports a config.

    Args:
        name_or_path: name of a module in this folder, or path of a Python
            file, which ends in `.py`.

    Returns:
        The module.

    Raises:
        ValueError: there is no such config, or it lacks something.
    """
    text = str(name_or_path)
    if text.endswith(".py"):
        path = Path(text).expanduser()
        if not path.is_file():
            raise ValueError(
                "--config expects a Python file that exists. Received: "
                f"{text!r}"
            )
        spec = importlib.util.spec_from_file_location(path.stem, path)
        config = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(config)
    else:
        known = sorted(m.name for m in pkgutil.iter_modules(__path__))
        if text not in known:
            raise ValueError(
                f"--config expects one of {', '.join(known)}, or the path of "
                f"a file that ends in .py. Received: {text!r}"
            )
        config = importlib.import_module(f"{__name__}.{text}")
    missing = [n for n in ("task", "arguments") if not hasattr(config, n)]
    if missing:
        raise ValueError(
            "A config expects values of `task` and `arguments`. Received: "
            f"{text!r}, which has no {' and no '.join(missing)}"
        )
    return config


def resolve(config, parsers, variant=None, settings=()):
    """The arguments of a run: those of a config, with what was changed.

    Args:
        config: module, as `load` returns it.
        parsers: dict from the names of all arguments to functions that make a
            value of a text and raise `argparse.ArgumentTypeError`. Values of
            the config go through them, too.
        variant: name in `config.variants`, or `None`.
        settings: list of `"name=value"`, which come after the variant.

    Returns:
        A dict.

    Raises:
        ValueError: an unknown variant or name, or a value that is refused.
    """
    missing = sorted(parsers.keys() - config.arguments.keys())
    if missing:
        raise ValueError(
            f"The arguments of a config expect values of {', '.join(missing)}. "
            "Received: none"
        )
    variants = getattr(config, "variants", {})
    if variant is not None and variant not in variants:
        raise ValueError(
            f"--variant expects one of {', '.join(variants) or 'none'}. "
            f"Received: {variant!r}"
        )
    changes = dict(variants.get(variant, {}))
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set expects name=value. Received: {setting!r}")
        changes[name] = text
    arguments = {**config.arguments, **changes}
    unknown = sorted(arguments.keys() - parsers.keys())
    if unknown:
        raise ValueError(
            f"The arguments of this config are {', '.join(sorted(parsers))}. "
            f"Received: {', '.join(unknown)}"
        )
    for name, value in arguments.items():
        try:
            arguments[name] = parsers[name](str(value))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"The argument {name}: {error}") from None
    return arguments
