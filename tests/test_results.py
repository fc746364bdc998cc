"""Tables of `results/README.md` that list single runs are those of the runs."""

import json
import pathlib
import re

import pytest

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
CHAPTERS = (RESULTS / "README.md").read_text(encoding="utf-8").split("\n## ")


@pytest.mark.parametrize(
    ("title", "files", "figure"),
    [
        (
            "Masks on CIFAR-10",
            ["cifar10-masks/runs.jsonl"],
            lambda run: f"{100 * run['test_accuracy']:.1f}",
        ),
        (
            "Softmax to linear on CIFAR-10",
            ["linearize/runs.jsonl", "linearize/scratch.jsonl"],
            lambda run: f"{100 * run['test_accuracy']:.1f}",
        ),
        (
            "Language models of bytes",
            ["text/runs.jsonl"],
            lambda run: f"{run['test_bits_per_byte']:.3f}",
        ),
    ],
)
def test_each_run_has_a_cell(title, files, figure):
    (chapter,) = (text for text in CHAPTERS if text.partition("\n")[0] == title)
    shown = {0: [], 1: [], 2: []}
    header = re.search(r"^\|.*seed 0.*\|$", chapter, re.MULTILINE)[0]
    first = [cell.strip() for cell in header.split("|")].index("seed 0")
    for line in chapter.splitlines():
        if line.startswith("| ") and not line.startswith(("| |", "| teacher")):
            if line == header:
                continue
            cells = [cell.strip() for cell in line.split("|")]
            for seed in shown:
                shown[seed] += filter(None, [cells[first + seed]])
    measured = {0: [], 1: [], 2: []}
    for file in files:
        for line in (RESULTS / file).read_text(encoding="utf-8").splitlines():
            run = json.loads(line)
            measured[run["seed"]].append(figure(run))
    assert {k: sorted(v) for k, v in shown.items()} == {
        k: sorted(v) for k, v in measured.items()
    }
