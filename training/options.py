"""The command line of `training.train`, built from dataclasses by tyro."""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import sys
from typing import Annotated, Literal, get_type_hints

import docstring_parser
import tyro

from keras_topo.training import configs
from keras_topo.training.command_line import program
from keras_topo.training.folds import combinations
from keras_topo.training.settings import PositiveInt, mismatch, with_changes

PROGRAM = program("train")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not depend on the task."""

    out: str
    """the run folder"""
    variant: str | None = None
    """named set of changes from the config"""
    resume: bool = True
    """continue the run in --out; --no-resume deletes it first"""
    results: str | None = None
    """append the summary of the finished run to this file, as a line of JSON;
    not with --splits or --compare"""
    seeds: PositiveInt | None = None
    """number of seeds; train once with each, starting at --seed (default: 1; 3
    for each fold of --splits)"""
    splits: str | None = None
    """cross-validation: a JSON file of folds, or the number of folds to draw;
    no model is kept"""
    folds: tuple[int, ...] = ()
    """with --splits: run these folds only, counted from 0"""
    select: tuple[str, ...] = ()
    """NAME=V1,V2,... candidate values of a setting; the best is chosen on the
    validation data of each fold of --splits, or of the data's own split; no
    model is kept"""
    compare: tuple[str, ...] = ()
    """NAME=V1,V2,... train with each of these values and make a table; no
    model is kept"""
    distribute: Literal["none", "mirrored", "multihost"] = "none"
    """mirrored: all devices of this host, with TensorFlow; multihost: the
    devices of all hosts, with KERAS_BACKEND=jax. Each batch is split between
    devices; not with --splits or --compare"""
    hosts: tuple[str, ...] = ()
    """with multihost: HOST:PORT of each process; the first one coordinates"""
    process: int | None = None
    """with multihost: index of this host in --hosts, from 0"""

    def __post_init__(self):
        expected = mismatch(self.seeds, PositiveInt | None)
        if expected:
            raise ValueError(
                f"--seeds expects {expected}. Received: {self.seeds}"
            )
        if self.folds and not self.splits:
            raise ValueError("--folds expects --splits. Received: none")
        for option in ("splits", "compare", "select"):
            if not getattr(self, option):
                continue
            if self.results:
                raise ValueError(
                    f"--{option} expects no --results: its results go into "
                    f"the run folder. Received: {self.results}"
                )
            if self.distribute != "none":
                raise ValueError(
                    f"--{option} expects no --distribute: it trains on one "
                    f"device. Received: {self.distribute}"
                )


def parse(argv):
    """Reads the command line.

    Args:
        argv: list of str.

    Returns:
        `(name, options, settings)`: the config, `RunOptions`, and the config's
        settings with the changes of the command line.

    Raises:
        ValueError: for an invalid config or option; the message is one line.
        SystemExit: after `--help`.
    """
    name, rest = _config_name(argv)
    for option in ("--select", "--compare", "--folds"):
        if rest.count(option) > 1:
            raise ValueError(
                f"{option} expects all of its values after one option. "
                f"Received: {option} more than once"
            )
    module = configs.load(name)
    settings = configs.variant_of(module, _variant(rest))
    if {"-h", "--help"} & set(rest):
        # Not by tyro, which joins some of its lines and leaves others.
        if description := _description(module):
            # As this process was started.
            description = description.replace(
                "python -m training.train", PROGRAM
            )
            print(description, end="\n\n")
        _parse(name, rest, _documented(RunOptions), _documented(settings))
    with one_line():
        found = _parse(name, rest, RunOptions, settings)
    given = {name: f"--{name.replace('_', '-')}" for name in _given(rest)}
    choices = {}
    for option in ("compare", "select"):
        texts = getattr(found.run, option)
        parsed = parse_choices(f"--{option}", texts, found.settings)
        given |= {name: f"--{option} {name}" for name in parsed}
        choices |= parsed
    settings = found.settings.resolved(given)
    _check_readers(settings, given, choices)
    return name, found.run, settings


def parse_choices(option, texts, settings):
    """`NAME=V1,V2` to a dict from names to values of their settings' types."""
    known = [field.name for field in dataclasses.fields(settings)]
    found = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or name not in known or not values:
            raise ValueError(
                f"{option} expects NAME=V1,V2,... with the name of a setting. "
                f"Received: {text}"
            )
        if name in found:
            raise ValueError(
                f"{option} expects all values of a setting together, "
                f"{name}=V1,V2,... Received: {name} twice"
            )
        found[name] = [
            _value(option, name, each, settings) for each in values.split(",")
        ]
    return found


def _value(option, name, text, settings):
    try:
        with one_line():
            changed = tyro.cli(
                type(settings),
                default=settings,
                args=[f"--{name.replace('_', '-')}", *text.split()],
                config=(tyro.conf.FlagConversionOff,),
            )
    except ValueError as error:
        raise ValueError(f"{option} {name}: {error}") from None
    value = getattr(changed, name)
    return list(value) if isinstance(value, tuple) else value


def _parse(name, rest, run, settings):
    """The object that tyro reads from a command line: `.run`, `.settings`."""
    unprefixed = tyro.conf.arg(name="")
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("run", Annotated[run, unprefixed]),
            (
                "settings",
                Annotated[type(settings), unprefixed],
                dataclasses.field(default=settings),
            ),
        ],
    )
    return tyro.cli(
        command,
        args=rest,
        prog=f"{PROGRAM} {name}",
        description="",
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _documented(settings):
    """A dataclass, or an object of one, with its help texts as single lines.

    tyro keeps line breaks of the source before words that start with a sign,
    and wraps at others.
    """
    is_class = isinstance(settings, type)
    cls = settings if is_class else type(settings)
    documents = {
        parameter.arg_name: parameter.description or ""
        for base in reversed(cls.__mro__[:-1])
        for parameter in docstring_parser.parse_from_object(base).params
    }
    if {field.name for field in dataclasses.fields(cls)} - set(documents):
        # Comments and other help texts, which tyro reads off the class.
        return settings
    types = get_type_hints(cls, include_extras=True)
    documented = dataclasses.make_dataclass(
        cls.__name__,
        [
            (
                field.name,
                Annotated[
                    types[field.name],
                    tyro.conf.arg(help=" ".join(documents[field.name].split())),
                ],
                dataclasses.field(
                    default=field.default,
                    default_factory=field.default_factory,
                    kw_only=field.kw_only,
                ),
            )
            for field in dataclasses.fields(cls)
        ],
        frozen=True,
    )
    if is_class:
        return documented
    return documented(
        **{f.name: getattr(settings, f.name) for f in dataclasses.fields(cls)}
    )


def _check_readers(settings, given, choices):
    """Raises a ValueError for an option that has no effect.

    Args:
        settings: `Settings`.
        given: dict from names of settings to their options.
        choices: dict from names to the values of `--compare` and `--select`.
            Their combinations may each read other options.
    """
    unread = [
        with_changes(settings, changes).unread()
        for changes in combinations(choices)
    ]
    for name, option in given.items():
        if not all(name in each for each in unread):
            continue
        reasons = dict.fromkeys(each[name] for each in unread)
        value = choices.get(name, getattr(settings, name))
        raise ValueError(
            f"{option} has no effect with {' or '.join(reasons)}. "
            f"Received: {name}={value!r}"
        )


def _config_name(argv):
    """The config, and the options after it."""
    if argv and not argv[0].startswith("-"):
        return argv[0], list(argv[1:])
    if argv[:1] in (["-h"], ["--help"]):
        print(_help())
        raise SystemExit(0)
    raise ValueError(
        f"{PROGRAM} expects a config first, one of "
        f"{', '.join(configs.names())}, or the path of a file that ends in "
        f".py. Received: {argv[0] if argv else 'none'}"
    )


def _given(rest):
    """Names of the settings on the command line, a list."""
    options = [t.partition("=")[0][2:] for t in rest if t.startswith("--")]
    return [name.removeprefix("no-").replace("-", "_") for name in options]


def _variant(rest):
    """`--variant`, which sets the defaults of all other options."""
    for k, token in enumerate(rest):
        if token == "--variant" and k + 1 < len(rest):
            return rest[k + 1]
        if token.startswith("--variant="):
            return token.partition("=")[2]
    return None


def _help():
    width = max(map(len, configs.names())) + 2
    lines = [
        f"usage: {PROGRAM} CONFIG --out FOLDER [OPTIONS]",
        "",
        "Trains a model by a config. CONFIG is one of these, or the path of a",
        "Python file that ends in .py:",
        "",
        *(f"  {n:<{width}}{configs.summary(n)}" for n in configs.names()),
        "",
        f"{PROGRAM} CONFIG --help lists the options of a config.",
    ]
    return "\n".join(lines)


def _description(module):
    text = inspect.cleandoc(module.__doc__ or "")
    variants = getattr(module, "variants", {})
    if variants:
        text += f"\n\nVariants: {', '.join(variants)}."
    return text


@contextlib.contextmanager
def one_line():
    """Turns the box in which tyro reports an error into a ValueError."""
    written = io.StringIO()
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    try:
        with contextlib.redirect_stderr(written):
            yield
    except SystemExit as end:
        if end.code:
            raise ValueError(_message(written.getvalue())) from None
        raise
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    # Warnings are not errors.
    sys.stderr.write(written.getvalue())


def _message(box):
    lines = []
    for line in box.splitlines()[1:]:
        line = re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│╭╰╮╯─ ")
        if line.startswith(("For full helptext", "Argument helptext")):
            break
        lines.append(line)
    text = " ".join(filter(None, lines))
    # The name that tyro gives to checks of a whole dataclass is not useful.
    return re.sub(r"^Error parsing (?!-)\S+: ", "", text)
