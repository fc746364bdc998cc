"""Commands in documents: each is understood, and means what it meant."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types

import pytest

from keras_topo.training import (
    command_line,
    fine_tuning,
    graphs,
    images,
    motifs,
    options,
)

pytestmark = pytest.mark.tensorflow_only

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "Makefile",
    "README.md",
    *(f"results/{n}" for n in ("README.md", "motifs/motifs.md")),
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("results/*/*.md")),
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("saved_models/*/README.md")),
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("training/configs/*.py")),
]
# What stands for something else.
PLACEHOLDERS = {
    "--attention A [--mask M]": "--attention toeplitz --mask decay",
    "--data D --model M": "--data cora --model gcn",
    "mine.py:Gaussian": "keras_topo.masks:GaussianMask",
    "$(RUN)": "runs/digits",
}
FORMER = {
    "graphs": graphs.translated,
    "images": images.translated,
    "motifs": motifs.translated,
    "nodes": lambda argv: ["nodes", *argv],
    "train": list,
}
NAMES = "|".join(FORMER)


@pytest.fixture(autouse=True)
def without_presets(monkeypatch):
    """`--from` a run that is not there: what it has decided is left open."""
    monkeypatch.setattr(
        fine_tuning, "resolved", lambda settings, *arguments: settings
    )


def commands(text):
    """The arguments of each command, as `training.train` takes them."""
    text = re.sub(r"\\{1,2}\n\s*", " ", text)
    for match in re.finditer(
        rf"python -m training\.({NAMES})\b([^`\n]*(?:\n[^`\n]+)?`)?([^`\n]*)",
        text,
    ):
        name, inline, line = match.groups()
        words = " ".join((inline or line).strip("`").split())
        for placeholder, value in PLACEHOLDERS.items():
            words = words.replace(placeholder, value)
        found = FORMER[name](shlex.split(words))
        # Prose about the program, and a config of one's own.
        if "--" in words and not found[0].endswith(".py"):
            yield [*found, *(["--out", "-"] if "--out" not in found else [])]


@pytest.mark.parametrize("document", sorted(set(DOCUMENTS)))
def test_commands_are_understood(document):
    found = list(commands((ROOT / document).read_text(encoding="utf-8")))
    if document in ("Makefile", "README.md", "results/README.md"):
        assert len(found) >= 3
    for argv in found:
        if "--help" not in argv:
            options.parse(argv)


@pytest.mark.parametrize(
    "file",
    sorted(
        [
            *ROOT.glob("saved_models/*/metrics.json"),
            *ROOT.glob("results/cora/*/metrics.json"),
            *ROOT.glob("results/beacons/*/metrics.json"),
            *ROOT.glob("results/*/folds.json"),
        ]
    ),
    ids=lambda path: f"{path.parent.name}",
)
def test_former_commands_mean_what_they_meant(file):
    """The settings that a recorded command has today are those it had."""
    recorded = json.loads(file.read_text())
    (argv,) = commands(recorded["command"])
    _, _, settings = options.parse(argv)
    if hasattr(settings, "filled"):
        settings = settings.filled()
    compared = 0
    for name, value in recorded["arguments"].items():
        if not hasattr(settings, name) or name in ("select", "folds"):
            continue
        if recorded["arguments"].get("preset") and name in images_decided():
            continue
        if value is None:
            # What the model fills in is in its recipe.
            value = recorded.get("recipe", {}).get(name)
            if value is None:
                continue
        found = getattr(settings, name)
        if isinstance(found, tuple):
            found = list(found)
            value = (
                list(dict.fromkeys(value)) if name == "patch_size" else value
            )
        # What a short trial makes of it is decided later.
        if name == "warmup_epochs" and found >= settings.epochs:
            continue
        assert found == value, name
        compared += 1
    assert compared > 10


@pytest.mark.parametrize("package", ["training", "keras_topo.training"])
def test_scripts_start_quietly_and_by_their_names(package, tmp_path):
    """From the root of the repository, and installed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    found = subprocess.run(
        [sys.executable, "-m", f"{package}.publish", "--help"],
        cwd=ROOT if package == "training" else tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0 and found.stderr == ""
    assert f"usage: python -m {package}.publish" in found.stdout


def test_the_names_of_scripts(monkeypatch):
    main = sys.modules["__main__"]
    for started, expected in (
        ("keras_topo.training.train", "python -m keras_topo.training.train"),
        ("training.train", "python -m training.train"),
        ("pytest.__main__", "python -m training.train"),
    ):
        spec = types.SimpleNamespace(name=started)
        monkeypatch.setattr(main, "__spec__", spec)
        assert command_line.program("train") == expected
    monkeypatch.setattr(main, "__spec__", None)
    assert command_line.program("train") == "python -m training.train"


def images_decided():
    from keras_topo.training.image_settings import DECIDED

    return DECIDED
