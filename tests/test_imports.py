"""Imports run one way, and TensorFlow comes only where it is asked for."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

# Separate processes and files: one backend is enough.
pytestmark = pytest.mark.tensorflow_only

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Folders of packages, by name: `package_dir` of setup.cfg.
FOLDERS = {
    "keras_topo": ROOT / "keras_topo",
    "keras_topo.models": ROOT / "models",
    "keras_topo.training": ROOT / "training",
}

# The packages that each package of keras_topo may import, besides the shared
# checks of arguments and the names of types.
BELOW = {
    "_backend": set(),
    "host": set(),
    "operators": {"_backend", "host"},
    "attention": {"_backend", "arguments", "operators"},
    "graphs": {"host"},
}
BELOW["masks"] = {*BELOW, "arguments"}
BELOW["layers"] = {*BELOW["masks"], "masks"}
BELOW["presets"] = {*BELOW["layers"], "layers", "models"}
BELOW["models"] = {*BELOW["layers"], "layers", "presets"}
BELOW["convert"] = {*BELOW["models"], "models"}
BELOW["decoding"] = set()
BELOW["export"] = {"arguments", "decoding", "graphs", "presets"}
BELOW["linearize"] = {*BELOW["layers"], "layers", "presets"}
BELOW["testing"] = {"attention", "operators"}


def modules():
    """Files by the names of modules."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found[".".join((package, *parts))] = file
    return found


def imports(name, names, top_level=False):
    """Modules among `names` that one of them imports, in functions too.

    What type checkers alone import does not count.

    Args:
        name: str, of the module.
        names: dict of files by the names of modules.
        top_level: bool, whether to leave out what functions import.
    """
    tree = ast.parse(names[name].read_text())
    inside, unread = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside.update(id(child) for child in ast.walk(node))
        if isinstance(node, ast.If) and ast.unparse(node.test) == (
            "TYPE_CHECKING"
        ):
            unread.update(id(child) for child in ast.walk(node))
    found = set()
    for node in ast.walk(tree):
        if id(node) in unread or (top_level and id(node) in inside):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(node, name, names[name])
            for alias in node.names:
                module = f"{source}.{alias.name}"
                found.add(module if module in names else source)
    return found & set(names)


def absolute(node, name, file):
    """The module that `from ... import` reads, in the module `name`."""
    if not node.level:
        return node.module
    # The first dot is the package, which an `__init__` is itself.
    above = node.level - (file.stem == "__init__")
    parts = name.split(".")
    parts = parts[: len(parts) - above]
    return ".".join([*parts, node.module] if node.module else parts)


def find_cycle(graph):
    """Modules along a cycle, or `None`."""
    done = set()

    def visit(module, path):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph[module]):
            cycle = visit(target, [*path, module])
            if cycle:
                return cycle
        done.add(module)
        return None

    cycles = (visit(module, []) for module in sorted(graph))
    return next((cycle for cycle in cycles if cycle), None)


def package_of(module):
    return (module.split(".") + [""])[1]


@pytest.mark.parametrize("package", BELOW)
def test_packages_import_only_what_is_below(package):
    names = modules()
    mine = [name for name in names if package_of(name) == package]
    assert mine
    wrong = [
        f"{name} -> {target}"
        for name in mine
        for target in sorted(imports(name, names))
        if package_of(target) not in BELOW[package] | {package, "annotations"}
    ]
    assert not wrong


def test_there_are_no_cycles():
    names = modules()
    graph = {name: imports(name, names) for name in names}
    assert find_cycle(graph) is None


@pytest.mark.parametrize("package", ["host", "operators", "attention"])
def test_functions_import_nothing_of_the_library(package):
    names = modules()
    for name in names:
        if package_of(name) == package:
            everywhere = imports(name, names)
            assert everywhere == imports(name, names, top_level=True), name


def test_a_cycle_is_found():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}
    assert find_cycle(graph) == ["b", "d", "b"]
    assert find_cycle({**graph, "d": {"c"}}) is None


WITHOUT_TENSORFLOW = """
import importlib, sys

for name in sys.argv[1:]:
    importlib.import_module(name)
    assert "tensorflow" not in sys.modules, name
import keras_topo
from keras_topo.export import export_onnx
assert callable(keras_topo.export) and callable(export_onnx)
assert "tensorflow" not in sys.modules
"""


def test_jax_users_do_not_import_tensorflow():
    """One process, as each takes seconds; each name imports those above it."""
    pytest.importorskip("jax")
    modules = [
        "keras_topo",
        "keras_topo.graphs",
        "keras_topo.models",
        "keras_topo.export.copies",
        "keras_topo.export.runtimes",
        "keras_topo.convert.hugging_face",
        "keras_topo.convert.keras_hub",
    ]
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *modules],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-3000:]


def test_host_code_is_numpy_and_scipy():
    """Host code needs no deep learning framework."""
    allowed = {"keras_topo", "numpy", "scipy", *sys.stdlib_module_names}
    for name, file in modules().items():
        if package_of(name) != "host":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            targets = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = [node.module]
            for target in targets:
                assert target.partition(".")[0] in allowed, (name, target)
