"""`~` in paths, which the shell leaves alone in `--out=~/run`."""

import pytest

from benchmarks.harness import Report
from keras_topo.graphs import load_planetoid, load_tu_dataset
from keras_topo.graphs.cache import cache_folder
from keras_topo.training import demo, publish, sample, train
from keras_topo.training.graph_data import load_graphs
from keras_topo.training.run import Run

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_run_folders_and_files_of_results(home, capsys):
    assert Run("~/run").folder == home / "run"
    text = ["text", "--out=~/run", "--data=~/missing"]
    assert train.main([*text, "--results=~/results.jsonl"]) == 2
    (home / "results.jsonl").write_text("{\n")
    (home / "missing").mkdir()
    for k in range(40):
        (home / "missing" / f"{k}.py").write_text("x = 1\n" * 60)
    assert train.main([*text, "--results=~/results.jsonl"]) == 2
    assert str(home / "results.jsonl") in capsys.readouterr().err
    report = Report("~/report.json", "benchmarks.fake", {}, ["tensorflow"])
    report.add([{"row": 1}])
    assert (home / "report.json").exists()


def test_the_cache_of_kernels(home, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", "~/cache")
    assert cache_folder() == home / "cache"


@pytest.mark.parametrize(
    "read",
    [
        load_planetoid,
        load_tu_dataset,
        lambda path: load_graphs(path, None, 0),
        lambda path: load_graphs("ENZYMES", path, 0),
    ],
)
def test_graphs(home, read):
    with pytest.raises(ValueError, match=str(home / "missing")):
        read("~/missing")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(demo, []), (sample, []), (publish, ["~/zoo"])],
    ids=["demo", "sample", "publish"],
)
def test_finished_runs(home, script, arguments, capsys):
    assert script.main(["~/missing", *arguments]) == 2
    assert str(home / "missing") in capsys.readouterr().err
