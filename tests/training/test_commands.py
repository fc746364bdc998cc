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

from keras_topo import _startup
from keras_topo.training import (
    command,
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
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/guides/*.py")),
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
    text = (ROOT / document).read_text(encoding="utf-8")
    if document.startswith("docs/guides/"):  # text is in comments
        text = re.sub("^# ", "", text, flags=re.MULTILINE)
    found = list(commands(text))
    if document in ("Makefile", "docs/training.md", "results/README.md"):
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


@pytest.mark.few("keras_topo")
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("training.publish", "python -m training.publish"),
        ("keras_topo.training.publish", "-m keras_topo.training.publish"),
        ("keras_topo", "keras-topo COMMAND"),
    ],
    ids=["training", "installed", "keras_topo"],
)
def test_scripts_start_quietly_and_by_their_names(module, name, tmp_path):
    """From the root of the repository (as the demo, too), and installed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    found = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT if module == "training.publish" else tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0 and found.stderr == ""
    assert f"{name} " in found.stdout


@pytest.mark.parametrize(
    ("started", "is_ours"),
    [
        ("python -m keras_topo train", True),
        ("python -m keras_topo.training.train images", True),
        ("python -W error -m keras_topo presets", True),
        ("python /usr/bin/keras-topo presets", True),
        (r"python C:\\bin\\keras-topo.exe", os.name == "nt"),
        ("python -m training.train", False),
        ("python -m keras_topology", False),
        ("python mine.py keras-topo", False),
        ("python", False),
        ("python -m", False),
    ],
)
def test_what_starts_quietly(started, is_ours):
    assert _startup.starts_a_script(started.split()) == is_ours


def test_the_command(monkeypatch, capsys):
    asked = []
    fake = types.ModuleType("keras_topo.training.publish")
    fake.main = lambda argv: asked.append(argv) or 3
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    assert command.main(["publish", "--help"]) == 3
    assert asked == [["--help"]]
    assert command.main(["--help"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for name in command.COMMANDS:
        assert f"  {name} " in printed.out
    for argv in ([], ["fly"], ["--fly"]):
        assert command.main(argv) == 2
        assert "expected a command" in capsys.readouterr().err
    assert command.main(["presets"]) == 0
    assert "topvit-cifar10" in capsys.readouterr().out
    assert command.main(["presets", "all"]) == 2
    # The library alone is installed.
    monkeypatch.delitem(sys.modules, fake.__name__)
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.delitem(sys.modules, "keras_topo.training.train", False)
    monkeypatch.delitem(sys.modules, "keras_topo.training.options", False)
    assert command.main(["train", "images"]) == 2
    told = capsys.readouterr().err
    assert "keras-topo[training]" in told and "tyro" in told


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
    monkeypatch.setattr(sys, "argv", ["/usr/bin/keras-topo", "train"])
    assert command_line.program("train") == "keras-topo train"
    monkeypatch.setattr(sys, "argv", ["/lib/keras_topo/__main__.py", "train"])
    spec = types.SimpleNamespace(name="keras_topo.__main__")
    monkeypatch.setattr(main, "__spec__", spec)
    assert command_line.program("train") == "keras-topo train"


def images_decided():
    from keras_topo.training.image_settings import DECIDED

    return DECIDED
