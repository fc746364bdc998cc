"""The environment of a training: devices, memory and versions."""

import contextlib
import logging
import os
import platform
from importlib import metadata
from pathlib import Path

import keras

from keras_topo._backend import compiles_by_default


def use_jit(choice):
    """Whether to compile with XLA; see `compiles_by_default`."""
    return {"auto": compiles_by_default(), "on": True, "off": False}[choice]


def compiles_shapes(choice):
    """Whether XLA compiles each batch shape separately."""
    return keras.backend.backend() == "jax" or use_jit(choice)


@contextlib.contextmanager
def retracing_in_silence():
    """Silences TensorFlow's retracing warnings. Retracing is intended here,
    because each run has a new model."""
    logger = logging.getLogger("tensorflow")

    def admits(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger.addFilter(admits)
    try:
        yield
    finally:
        logger.removeFilter(admits)


def memory():
    """Bytes of memory available to this process: of the machine, or of its
    container."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = Path("/sys/fs/cgroup", name)
        with contextlib.suppress(OSError, ValueError):  # None, or "max".
            found.append(int(limit.read_text()))
    return min(found)


def versions():
    """Versions of the packages that a result depends on."""
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
