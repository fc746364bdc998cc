"""The table of mutants, and the command that tries them on a small project."""

import ast
import subprocess

import pytest

from tests.mutant_table import Mutant
from tests.mutants import MUTANTS, ROOT, main, mutated

pytestmark = pytest.mark.tensorflow_only  # Without Keras: once is enough.


def test_every_mutant_applies():
    """The table must follow changes of the code."""
    for mutant in MUTANTS:
        text = mutated(mutant, ROOT)
        assert text != (ROOT / mutant.file).read_text(), mutant.name
        ast.parse(text)
        assert mutant.tests
        for path in mutant.tests:
            assert (ROOT / path).is_file(), f"{mutant.name}: {path}"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository of one package, moved when it is imported, and tests."""
    monkeypatch.setattr("tests.mutants.IMPORTED", ["pytest"])
    files = {
        "setup.cfg": "[options]\npackage_dir =\n    small.part = elsewhere\n",
        ".gitignore": "small/part\n",
        "small/__init__.py": "",
        "elsewhere/__init__.py": "def mean(x):\n    return sum(x) / len(x)\n",
        "tests/test_mean.py": (
            "from small.part import mean\n\n"
            "def test_of_two():\n    assert mean([1.0, 3.0]) == 2\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def a_mutant(name, replacement, source="sum(x) / len(x)"):
    tests = ("tests/test_mean.py",)
    return Mutant(name, "elsewhere/__init__.py", source, replacement, tests)


KILLED = a_mutant("a sum", "sum(x)")
SURVIVES = a_mutant("half a sum", "sum(x) / 2")
BROKEN = a_mutant("no Python", "sum(x")


def test_killed_and_survived(project, capsys):
    assert main([], project, [KILLED, SURVIVES, BROKEN]) == 1
    found = capsys.readouterr().out
    assert "a sum: killed by tests/test_mean.py::test_of_two" in found
    assert "half a sum: SURVIVED tests/test_mean.py" in found
    assert "no Python: NO MUTANT" in found
    assert "1 of 3 mutants killed" in found
    # Its original folder is gone.
    assert "sum(x) / len(x)" in (project / "elsewhere/__init__.py").read_text()
    assert not list(project.rglob("__pycache__"))


def test_tests_that_fail_without_mutants(project, capsys):
    test = project / "tests" / "test_mean.py"
    test.write_text(test.read_text().replace("== 2", "== 3"))
    assert main([], project, [KILLED]) == 1
    assert "without mutants: exit status 1" in capsys.readouterr().out


def test_a_mutant_that_does_not_apply(project):
    for source, count in (("x", 3), ("y", 0)):
        mutant = a_mutant("old", "z", source)
        with pytest.raises(ValueError, match=f"Received: {count} times"):
            main([], project, [mutant])


def test_some_of_them(project, capsys):
    assert main(["--list"], project, [KILLED, SURVIVES]) == 0
    assert capsys.readouterr().out == "a sum\nhalf a sum\n"
    assert main(["--only", "a s"], project, [KILLED, BROKEN]) == 0
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--only", "none"], project, [KILLED])
