"""`python -m training.motifs`: equal sizes, resuming, table and picture."""

import json

import pytest

from keras_topo.training import graphs, motifs

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))


def test_equal_sizes():
    """Every method within 5% of GKAT's parameters."""
    arguments = motifs.parse_arguments(["--out", "-"])

    def options(method):
        return motifs.graph_arguments(arguments, "cycles", method, 4, 0)

    task = graphs.Task(options("gkat"))
    target = motifs.parameters(options("gkat"), task)
    assert motifs.parameters(options("ones"), task) == target
    ones = task.kernels(options("ones"))
    assert all((kernel == 1).all() for kernel in ones)
    for method in ("gat", "gcn", "sgc"):
        chosen = options(method)
        chosen.update(motifs.match_width(chosen, task, target))
        found = motifs.parameters(chosen, task)
        assert abs(found - target) <= 0.05 * target


def test_runs_and_resumes(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["--tasks", "cycles", "--methods", "gkat", "gcn", "--size", "6"]
    command += ["--walk-lengths", "2", "--epochs", "1", "--out", str(out)]
    command += ["--seeds", "1"]
    assert motifs.main(command) == 0
    lines = (out / "runs.jsonl").read_text().splitlines()
    keys = [
        (line["method"], line["walk_length"]) for line in map(json.loads, lines)
    ]
    assert keys == [("gkat", 2), ("gcn", None)]
    assert (out / "motifs.png").exists()
    table = (out / "motifs.md").read_text()
    assert "gkat, walks of 2" in table and "| cycles |" in table
    # Cut off in its last line, only that run is done again.
    text = (out / "runs.jsonl").read_text()
    (out / "runs.jsonl").write_text(text[:-9])
    assert motifs.main(command) == 0
    again = (out / "runs.jsonl").read_text().splitlines()
    assert again[0] == lines[0] and len(again) == 2
    # What the file holds besides is not of this command.
    assert motifs.main([*command, "--methods", "gcn"]) == 0
    assert "walks of 2" not in (out / "motifs.md").read_text()
    assert "seeds a cell: 1" in capsys.readouterr().out


def test_curves_of_many_lengths(tmp_path):
    """A line for the walks of a task, and one for each other method."""
    cells = [
        {
            "task": "cycles",
            "method": f"gkat, walks of {n}" if n else "gcn",
            "walk_length": n,
            "mean": 0.9,
            "deviation": 0.01,
            "seeds": 5,
            "failed": 0,
            "parameters": [12],
        }
        for n in (2, 3, 4, None)
    ]
    summary = {"cells": cells, "command": "c"}
    motifs.draw(summary, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
    table = motifs.format_table(summary)
    assert "| gkat, walks of 3 | 90.0 ± 1.0 |" in table
    assert "\n12 parameters" in table
    # One run has no deviation.
    for cell in cells:
        cell["seeds"] = 1
    assert "| gkat, walks of 3 | 90.0 |" in motifs.format_table(summary)
    motifs.draw(summary, tmp_path / "curves.png")
