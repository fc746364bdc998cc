"""What the command lines of the training scripts share."""

import argparse
import platform
from importlib import metadata
from pathlib import Path

import keras
import tensorflow as tf


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not where the default is that there is none."""

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
natural = _number(int, lambda v: v >= 0, "an integer, not negative")
positive_float = _number(
    float, lambda v: 0 < v < float("inf"), "a positive number"
)
natural_float = _number(
    float, lambda v: 0 <= v < float("inf"), "a number, not negative"
)
rate = _number(float, lambda v: 0 <= v < 1, "a number in [0, 1)")


def path(text):
    """A path; `~` is the home folder, also where no shell has seen it."""
    return Path(text).expanduser()


def optional(parse):
    """The same values, and `None`."""
    return lambda text: None if text == "None" else parse(text)


def choice(*names):
    """One of some names, for values that do not come from options."""

    def parse(text):
        if text not in names:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(names)}. Received: {text!r}"
            )
        return text

    return parse


def add_run_arguments(parser):
    """`--out` and `--resume`."""
    group = parser.add_argument_group("run")
    group.add_argument("--out", required=True, help="the run folder")
    group.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with the run in --out; --no-resume deletes it first",
    )


def add_fine_tuning_arguments(parser, unused):
    """`--from` and `--freeze`.

    Args:
        parser: `argparse.ArgumentParser`.
        unused: names of options that a trained model has decided already.

    Returns:
        The group of arguments, for more of them.
    """
    group = parser.add_argument_group("fine-tuning")
    group.add_argument(
        "--from",
        dest="preset",
        metavar="PRESET",
        help="go on from a trained model: a name of keras_topo.presets(), a "
        "run folder, or hf://user/repository; not with "
        + ", ".join(f"--{name}" for name in unused),
    )
    group.add_argument(
        "--freeze",
        action="store_true",
        help="train the last layer alone",
    )
    return group


def check_fine_tuning(parser, argv, arguments, unused):
    """Ends the script where arguments contradict the model of `--from`."""
    given = {
        token.split("=")[0].removeprefix("--")
        for token in argv
        if token.startswith("--")
    }
    if arguments["preset"] is None:
        if arguments["freeze"]:
            parser.error("--freeze is for --from. Received: no --from")
        return
    decided = sorted(given & set(unused))
    if decided:
        parser.error(
            "--from expects no options that the trained model has decided. "
            f"Received: --{', --'.join(decided)}"
        )


def freeze_all_but_last(model):
    """Leaves the last layer of a model trainable, and of one behind another
    the last one of that."""
    for layer in model.layers[:-1]:
        layer.trainable = False
    if isinstance(model.layers[-1], keras.Model):
        freeze_all_but_last(model.layers[-1])


def check_walk_lengths(parser, sizes):
    """Ends the script unless these are whole numbers of nodes."""
    if any(size != int(size) for size in sizes):
        parser.error(
            "--kernel-sizes of random walks expects whole numbers of nodes. "
            f"Received: {sizes}"
        )


def use_jit(choice):
    """Resolves `auto`: on TensorFlow XLA pays on accelerators only."""
    if choice == "auto" and keras.backend.backend() == "tensorflow":
        return bool(tf.config.list_physical_devices("GPU"))
    return {"auto": "auto", "on": True, "off": False}[choice]


def compiles_shapes(choice):
    """Whether each shape of a batch costs a compilation by XLA."""
    return keras.backend.backend() == "jax" or bool(use_jit(choice))


def versions():
    """Versions of what a result depends on, by package."""
    packages = ["keras-topo", "keras", "tensorflow", "numpy"]
    if keras.backend.backend() == "jax":
        packages.append("jax")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return {**found, "backend": keras.backend.backend()}
