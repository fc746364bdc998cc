"""What examples of docstrings may assume, and what all tests share."""

import importlib
import os
import pathlib
import sys

# Read when TensorFlow is imported, which the first test module does.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parent

# Where these are links, their files are collected once, by the folders' names.
collect_ignore = ["keras_topo/models", "keras_topo/training", "keras_topo/zoo"]


@pytest.hookimpl(tryfirst=True)
def pytest_collect_file(file_path, parent):
    """`models/gkat.py` is `keras_topo.models.gkat`, not a second copy of it."""
    names = list(file_path.relative_to(ROOT).with_suffix("").parts)
    if names[0] in ("models", "training") and file_path.suffix == ".py":
        if names[-1] == "__init__":
            names.pop()
        name = ".".join(names)
        sys.modules[name] = importlib.import_module(f"keras_topo.{name}")


@pytest.fixture(autouse=True)
def doctest_environment(request):
    """Examples have four names, and a folder for the files that they write."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    import keras
    import numpy as np

    import keras_topo

    request.getfixturevalue("doctest_namespace").update(
        np=np, keras=keras, ops=keras.ops, keras_topo=keras_topo
    )
    folder = request.getfixturevalue("tmp_path")
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(folder / "cache"))
