"""All that the reference lists is annotated: parameters and what returns."""

import importlib
import inspect
import pathlib
import re
import types

import pytest

import keras_topo

# Signatures are those of either backend: once is enough.
pytestmark = pytest.mark.tensorflow_only

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What `:::` of a page in docs/reference names: modules and single functions.
PUBLIC = sorted(
    name
    for page in (ROOT / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
)


def resolve(name):
    """A module, or what a module holds."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def members(found):
    """The public objects of a module, or the object itself."""
    if not isinstance(found, types.ModuleType):
        return [found]
    names = getattr(found, "__all__", None) or [
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == found.__name__
    ]
    return [getattr(found, name) for name in names]


def functions(member):
    """The functions of ours that a user of `member` may call."""
    if inspect.isfunction(member):
        yield member
    if not inspect.isclass(member):
        return
    for base in member.__mro__:
        if not base.__module__.startswith("keras_topo"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") and not name.endswith("__"):
                continue
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            elif isinstance(value, property):
                value = value.fget
            # Dataclasses write some methods themselves.
            if inspect.isfunction(value) and ours(value):
                yield value


def ours(function):
    return inspect.unwrap(function).__code__.co_filename != "<string>"


def gaps(function):
    """What a function leaves without an annotation."""
    signature = inspect.signature(function)
    for name, parameter in signature.parameters.items():
        if name in ("self", "cls"):
            continue
        if parameter.annotation is parameter.empty:
            yield f"the parameter `{name}`"
    returns = signature.return_annotation
    if returns is signature.empty and function.__name__ != "__init__":
        yield "what it returns"


def unannotated(name):
    """Everything under a public name that lacks an annotation, sorted."""
    return sorted(
        {
            f"{function.__module__}.{function.__qualname__}: {gap}"
            for member in members(resolve(name))
            for function in functions(member)
            for gap in gaps(function)
        }
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_annotated(name):
    missing = unannotated(name)
    assert not missing, "\n".join([f"{len(missing)} gaps:", *missing])


def test_gaps_are_found():
    class Half:
        def __init__(self, size, name: str = ""):
            self.size, self.name = size, name

        def double(self):
            return 2 * self.size

    Half.__module__ = "keras_topo.half"
    init, double = functions(Half)
    assert list(gaps(init)) == ["the parameter `size`"]
    assert list(gaps(double)) == ["what it returns"]


def test_the_package_says_that_it_is_typed():
    package = pathlib.Path(keras_topo.__file__).parent
    assert (package / "py.typed").is_file()
