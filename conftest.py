"""What tests and examples of docstrings share: quiet logs, quick programs."""

import contextlib
import importlib
import os
import pathlib
import sys

# Read when TensorFlow is imported, which the first test module does.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Nearly all of the time goes into tracing and compiling programs that run once.
QUICK = "--xla_backend_optimization_level=0"
QUICK += " --xla_llvm_disable_expensive_passes=true"

if os.environ.get("KERAS_BACKEND") == "jax":
    import jax

    # For oracles in float64, which JAX computes only when told so, before
    # anything else. What users run, float32, is asked for where it is tested.
    jax.config.update("jax_enable_x64", True)
    # The options above.
    jax.config.update("jax_disable_most_optimizations", True)
else:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"

# Not Keras: the process that starts others (`-n 2`) needs none, and importing
# TensorFlow takes seconds.
import pytest  # noqa: E402

ROOT = pathlib.Path(__file__).parent

# Where these are links, their files are collected by the folders' own names.
collect_ignore = ["keras_topo/models", "keras_topo/training", "keras_topo/zoo"]


def pytest_ignore_collect(collection_path):
    """What tests import has no examples, and is imported by another name."""
    if (
        collection_path.suffix == ".py"
        and collection_path.is_relative_to(ROOT / "tests")
        and not collection_path.name.startswith("test_")
    ):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collect_file(file_path):
    """`models/gkat.py` is `keras_topo.models.gkat`, not a second copy of it."""
    if file_path.suffix != ".py" or not file_path.is_relative_to(ROOT):
        return
    names = list(file_path.relative_to(ROOT).with_suffix("").parts)
    if names[0] in ("models", "training"):
        if names[-1] == "__init__":
            names.pop()
        name = ".".join(names)
        sys.modules[name] = importlib.import_module(f"keras_topo.{name}")


def compile_eagerly(monkeypatch):
    """From now on, `compile` makes models that run step by step."""
    import keras

    # JAX compiles each step by itself, which takes longer than all at once.
    if keras.config.backend() == "jax":
        return
    # Keras asks whether a model has a `compile` of its own.
    owner = next(c for c in keras.Model.__mro__ if "compile" in vars(c))
    compile_model = owner.compile

    def compile_and_set(model, *args, **kwargs):
        compile_model(model, *args, **kwargs)
        model.run_eagerly = True

    monkeypatch.setattr(owner, "compile", compile_and_set)


@pytest.fixture
def eagerly(monkeypatch):
    """Of a few steps, tracing takes more time than all the rest."""
    compile_eagerly(monkeypatch)


@pytest.fixture(scope="module")
def eager_fixtures():
    """Where fixtures of a module train, `with eager_fixtures():` around it."""

    @contextlib.contextmanager
    def patched():
        with pytest.MonkeyPatch.context() as patch:
            compile_eagerly(patch)
            yield

    return patched


@pytest.fixture(autouse=True)
def example(request):
    """Examples know four names, and write into a folder of their own."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    import keras
    import numpy as np

    import keras_topo

    on_tensorflow = keras.config.backend() == "tensorflow"
    if "keras_topo/export/" in request.node.nodeid and not on_tensorflow:
        pytest.skip("exports need TensorFlow")
    request.getfixturevalue("doctest_namespace").update(
        np=np, keras=keras, ops=keras.ops, keras_topo=keras_topo
    )
    folder = request.getfixturevalue("tmp_path")
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(folder / "cache"))
    request.getfixturevalue("eagerly")
