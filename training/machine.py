"""What a training depends on beside its settings: devices and versions."""

import contextlib
import logging
import os
import platform
from importlib import metadata
from pathlib import Path

import keras

from keras_topo._backend import compiles_by_default


def use_jit(choice):
    """Whether to compile by XLA; see `compiles_by_default`."""
    return {"auto": compiles_by_default(), "on": True, "off": False}[choice]


def compiles_shapes(choice):
    """Whether each shape of a batch costs a compilation by XLA."""
    return keras.backend.backend() == "jax" or use_jit(choice)


@contextlib.contextmanager
def retracing_in_silence():
    """Leaves unsaid that TensorFlow traces a function again, where that is
    meant: each run of many has a fresh model."""
    logger = logging.getLogger("tensorflow")

    def admits(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger.addFilter(admits)
    try:
        yield
    finally:
        logger.removeFilter(admits)


def memory():
    """Bytes of memory that this process may have: of the machine, or of the
    container around it."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path("/sys/fs/cgroup", name)
        with contextlib.suppress(OSError, ValueError):  # None, or "max".
            found.append(int(limit.read_text()))
    return min(found)


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
