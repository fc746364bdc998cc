"""`make test-floor` tests the lowest versions that are declared."""

import configparser
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]


def declared():
    """The lower bounds in setup.cfg by name, and that of Python."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    options, extras = config["options"], config["options.extras_require"]
    required = options["install_requires"], extras["jax"], extras["training"]
    bounds = re.findall(r"^([\w-]+)>=(\S+)$", "\n".join(required), re.M)
    # The floor environment has no plots.
    bounds = {name: low for name, low in bounds if name not in extras["plots"]}
    return bounds, options["python_requires"].removeprefix(">=")


def test_pins_are_the_lower_bounds():
    lines = (ROOT / "tests" / "floor.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line[0] != "#")
    assert pins == declared()[0]


def test_python_is_the_lowest():
    _, python = declared()
    makefile = (ROOT / "Makefile").read_text()
    assert f"FLOOR_PYTHON ?= python{python}\n" in makefile
    major, minor = python.split(".")
    assert f"sys.version_info < ({major}, {minor})" in makefile
    assert f"needs Python {python} or newer" in makefile
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"Python {python} or newer" in readme
    ruff = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{major}{minor}"' in ruff


def test_the_readme_names_the_lower_bounds():
    readme = (ROOT / "README.md").read_text()
    bounds, _ = declared()
    for name, title in (
        ("keras", "Keras"),
        ("tensorflow", "TensorFlow"),
        ("jax", "JAX"),
        ("numpy", "NumPy"),
        ("scipy", "SciPy"),
    ):
        assert f"{title} {bounds[name]}" in readme, name
