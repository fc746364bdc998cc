"""`python -m training.train motifs`: equal sizes, and the table."""

import json

import pytest

from keras_topo.training import motifs, options, train
from keras_topo.training.tasks.motifs import METHODS, Motifs, count

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))


def task_of(*arguments):
    command = ["motifs", "--data", "cycles", "--size", "6", *arguments]
    return Motifs(options.parse([*command, "--out", "-"])[2])


def test_equal_sizes():
    """Every method within 5% of GKAT's parameters."""
    target = None
    for method in METHODS:
        task = task_of("--model", method)
        found = count(task.settings, task.preprocessor.model_arguments())
        target = target or found
        assert abs(found - target) <= 0.05 * target
        inputs = task.sequence("test")[0][0]
        real = inputs["kernel"][0, 0, :50, :50]
        assert (method == "ones") == bool((real == 1).all())
    free = task_of("--model", "gcn", "--no-match")
    assert free.settings.heads * free.settings.key_dim == 16


def test_sizes_of_a_trial():
    task = task_of("--model", "ones")
    assert task.facts["graphs"] == {"train": 12, "validation": 4, "test": 4}
    assert (
        task.facts["data_sha256"] != task_of("--seed", "1").facts["data_sha256"]
    )


def test_a_table(tmp_path, capsys, eagerly):
    out = tmp_path / "run"
    # By the former command.
    command = ["--tasks", "cycles", "--methods", "gkat", "gcn", "--size", "6"]
    command += ["--walk-lengths", "2", "--epochs", "1", "--out", str(out)]
    command += ["--seeds", "1"]
    assert motifs.main(command) == 0
    lines = (out / "runs.jsonl").read_text().splitlines()
    cells = [json.loads(line)["cell"] for line in lines]
    sizes = {"kernel_sizes": [2.0]}
    assert cells == [
        {"data": "cycles", "model": "gkat", **sizes},
        {"data": "cycles", "model": "gcn", **sizes},
    ]
    assert (out / "table.png").exists()
    table = (out / "folds.md").read_text()
    assert "| data | model | kernel_sizes | test accuracy | para" in table
    assert "| cycles | gcn | 2.0 | " in table
    # Cut off in its last line, only that run is done again.
    text = (out / "runs.jsonl").read_text()
    (out / "runs.jsonl").write_text(text[:-9])
    assert motifs.main(command) == 0
    again = (out / "runs.jsonl").read_text().splitlines()
    assert again[0] == lines[0] and len(again) == 2


def test_former_commands():
    found = motifs.translated(["--epochs", "20", "--out", "a"])
    name, run, settings = options.parse(found)
    assert name == "motifs" and run.seeds == 5 and settings.epochs == 20
    assert [text.count(",") for text in run.compare] == [4, 4]
    assert train.PROGRAM == "python -m training.train"
