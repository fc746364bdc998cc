"""Shared parts of the command lines of the smaller scripts."""

import argparse
import sys
from pathlib import Path

from keras_topo._startup import COMMAND


def program(name):
    """The command of a script, in the form that started this process: by
    `keras-topo`, from the root of the repository, or installed."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    started = Path(sys.argv[0]).name.removesuffix(".exe")
    if started == COMMAND or (spec and spec.name == "keras_topo.__main__"):
        return f"{COMMAND} {name}"
    installed = spec and spec.name.startswith("keras_topo.")
    return f"python -m {'keras_topo.' if installed else ''}training.{name}"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults other than `None`."""

    def _get_help_string(self, action):
        if action.default is None:
            return action.help
        return super()._get_help_string(action)


def _number(kind, test, expected):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not test(value):
            raise argparse.ArgumentTypeError(
                f"expected {expected}. Received: {text!r}"
            )
        return value

    return parse


positive_int = _number(int, lambda v: v > 0, "a positive integer")
natural = _number(int, lambda v: v >= 0, "a non-negative integer")
positive_float = _number(
    float, lambda v: 0 < v < float("inf"), "a positive number"
)

# Of an option with the size of images.
HEIGHT_AND_WIDTH = {
    "type": positive_int,
    "nargs": 2,
    "metavar": ("HEIGHT", "WIDTH"),
}


def path(text):
    """A path; `~` is the home folder, even if no shell has expanded it."""
    return Path(text).expanduser()
