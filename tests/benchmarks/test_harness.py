"""The harness of the benchmarks, with rows that only pretend to be timed."""

import importlib
import json
import os
import pathlib

import pytest

from benchmarks import harness
from benchmarks.harness import (
    Forecast,
    Report,
    RowError,
    Worker,
    WorkerError,
    Workers,
    format_table,
    ratio_of,
    ratio_of_least,
    seconds_of,
    slope,
    take_turns,
)
from benchmarks.measure import (
    Kept,
    answer_calls,
    measure_seconds,
    memory_status,
)

# Nothing here has a backend.
pytestmark = pytest.mark.tensorflow_only

ROOT = pathlib.Path(__file__).resolve().parents[2]

FAKE_BENCHMARK = """
import os, sys, time
from benchmarks.measure import num_threads, serve

def answer(request):
    if request["do"] == "fail":
        raise ValueError("no such row")
    if request["do"] == "end":
        os._exit(1)
    if request["do"] == "sleep":
        time.sleep(60)
    print("frameworks print what they like")
    return {
        "process": os.getpid(),
        "kind": sys.argv[2],
        "threads": num_threads(),
        "backend": os.environ.get("KERAS_BACKEND"),
        "folder": os.getcwd(),
    }

serve(answer)
"""


@pytest.mark.parametrize(
    "name",
    sorted(
        path.stem for path in pathlib.Path(harness.__file__).parent.glob("*.py")
    ),
)
def test_each_benchmark_can_be_imported(name):
    """Names of the library that a benchmark uses may have moved."""
    importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "fake.py").write_text(FAKE_BENCHMARK)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    return tmp_path


def scripted(times):
    """A function that answers each row with its next time."""
    left = {row: list(seconds) for row, seconds in times.items()}
    return lambda row: {"seconds": left[row].pop(0)}


def test_ratios_are_medians_within_rounds():
    # The machine is ten times as slow in the second round. The ratio of the
    # medians would be 2 / 4.
    ask = scripted({"ours": [1, 20, 2], "peer": [4, 40, 3]})
    rounds = take_turns(ask, ["ours", "peer"], 3)
    assert seconds_of(rounds, "ours") == 2
    assert ratio_of(rounds, "ours", "peer") == 0.5
    assert ratio_of(rounds, "peer", "ours") == 2
    assert ratio_of_least(rounds, "ours", "peer") == pytest.approx(1 / 3)
    assert ratio_of(rounds, "ours", "another") is None
    assert ratio_of([], "ours", "peer") is None


def test_rows_take_turns():
    asked = []

    def ask(row):
        asked.append(row)
        return {"seconds": 1.0}

    rounds = take_turns(ask, ["a", "b"], 3)
    # Back and forth.
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert [list(r) for r in rounds] == [["a", "b"]] * 3


def test_a_budget_ends_rounds_but_the_first(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    ask = scripted({"row": range(1, 100)})
    # Ten seconds each.
    assert len(take_turns(ask, ["row"], 9, budget=5)) == 1
    assert len(take_turns(ask, ["row"], 9, budget=35)) == 3
    assert len(take_turns(ask, ["row"], 2, budget=1000)) == 2


def test_a_failure_names_its_row():
    def ask(row):
        if row == "b":
            raise WorkerError("out of memory")
        return {"seconds": 1.0}

    with pytest.raises(RowError, match="out of memory") as caught:
        take_turns(ask, ["a", "b"], 2)
    assert caught.value.row == "b"


def test_a_forecast_leaves_out_what_takes_too_long():
    forecast = Forecast(limit=10.0)
    assert forecast.allows("row", 100, 2.0)
    forecast.learn("row", 100, 1.0)
    assert forecast.allows("row", 300, 2.0)
    assert not forecast.allows("row", 400, 2.0)
    # Permanently: larger sizes were not measured either.
    assert not forecast.allows("row", 400, 0.0)
    assert forecast.allows("another", 400, 2.0)


def test_slope():
    assert slope([(10, 3.0)]) is None
    points = [(n, 5.0 * n**1.25) for n in (10, 100, 1000)]
    assert slope(points) == pytest.approx(1.25)


def test_a_report_goes_on_where_it_was_cut_off(tmp_path):
    path = tmp_path / "results.json"

    def open_report(**arguments):
        return Report(str(path), "fake", {"rounds": 3, **arguments}, ["numpy"])

    report = open_report()
    report.add([{"row": "a", "tokens": 4, "seconds": 0.5}])
    report.add([{"row": "b", "tokens": 4, "failed": "lack of memory"}])
    saved = json.loads(path.read_text())
    assert saved["arguments"] == {"rounds": 3}
    assert saved["versions"]["numpy"]
    assert len(saved["results"]) == 2
    again = open_report()
    assert again.records() == saved["results"]
    assert [r["seconds"] for r in again.records(row="a")] == [0.5]
    assert not again.records(row="a", tokens=16)
    again.drop_failed()
    again.add([{"row": "c", "tokens": 4}])
    rows = [r["row"] for r in json.loads(path.read_text())["results"]]
    assert rows == ["a", "c"]


def test_a_report_of_other_arguments_is_kept(tmp_path, capsys):
    path = tmp_path / "results.json"
    Report(str(path), "fake", {"rounds": 3}, ["numpy"]).add([{"row": "a"}])
    before = path.read_text()
    report = Report(str(path), "fake", {"rounds": 5}, ["numpy"])
    assert not report.records()
    assert (tmp_path / "results.json.old").read_text() == before
    assert "arguments" in capsys.readouterr().out


def test_a_report_of_other_versions_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    Report(str(path), "fake", {}, ["numpy"]).add([{"row": "a"}])
    monkeypatch.setattr(harness, "versions_of", lambda kinds: {"numpy": "0.1"})
    assert not Report(str(path), "fake", {}, ["numpy"]).records()
    assert (tmp_path / "results.json.old").exists()


@pytest.mark.parametrize("folder", ["keras_topo", "training", "benchmarks"])
def test_versions_tell_the_code_apart(tmp_path, monkeypatch, folder):
    """Of models in training, too, which some benchmarks measure."""
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    before = harness.versions_of(["numpy"])
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "code.py").write_text("x = 1\n")
    after = harness.versions_of(["numpy"])
    assert before["sources"] != after["sources"]
    assert before["numpy"] == after["numpy"]


def test_a_report_without_a_file():
    report = Report(None, "fake", {}, ["numpy"], ("first", "second"))
    report.add([{"row": "a"}], "second")
    assert report.records("first") == []
    assert report.records("second") == [{"row": "a"}]


def test_tables():
    header, rows = ["mask", "ms"], [["table", "12"], ["decay", "3"]]
    assert format_table(header, rows, markdown=True) == (
        "| mask | ms |\n|---|---:|\n| table | 12 |\n| decay | 3 |"
    )
    assert format_table(header, rows) == ("mask   ms\ntable  12\ndecay   3")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.21e-5, "32 us"),
        (0.0123, "12 ms"),
        (0.0999, "0.1 s"),
        (3.21, "3.2 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_seconds(seconds, text):
    assert harness.format_seconds(seconds) == text


def test_ratios():
    texts = [harness.format_ratio(x) for x in (None, 0.0123, 0.999, 2.34, 1234)]
    assert texts == ["", "0.012", "1.0", "2.3", "1,234"]


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    figure, axes = harness.open_panels(["one", "two"], "tokens", "seconds")
    color = harness.draw_line(axes[0], [(16, 2.0), (4, 1.0)], "ours", "decay")
    harness.draw_line(axes[0], [(4, 3.0)], "reference", color=color)
    assert list(axes[0].lines[0].get_xdata()) == [4, 16]
    assert harness.draw_line(axes[1], [], "peer") is None
    path = tmp_path / "picture.png"
    harness.save_panels(figure, path)
    assert path.stat().st_size > 1000


def test_a_worker_answers(folder):
    worker = Worker("fake", "jax", 1, folder)
    try:
        found = worker.ask({"do": "answer"})
        assert found["kind"] == "jax"
        assert found["threads"] == 1
        assert found["backend"] == "jax"
        assert pathlib.Path(found["folder"]).samefile(folder)
        # An exception is an answer.
        with pytest.raises(WorkerError, match="no such row"):
            worker.ask({"do": "fail"})
        assert worker.ask({"do": "answer"})["process"] == found["process"]
    finally:
        worker.close()
    assert not worker.alive


def test_workers_start_again_after_an_end(folder):
    with Workers("fake", 1) as workers:

        def ask(do, **options):
            return workers.ask("numpy", {"do": do}, root=folder, **options)

        first = ask("answer")["process"]
        assert ask("answer")["process"] == first
        with pytest.raises(WorkerError, match="ended early"):
            ask("end")
        second = ask("answer")["process"]
        assert second != first
        with pytest.raises(WorkerError, match="no answer"):
            ask("sleep", timeout=0.2)
        assert ask("answer")["process"] not in (first, second)
        request = {"do": "answer"}
        fresh = workers.ask_fresh("numpy", request, root=folder)
        assert fresh["process"] != ask("answer")["process"]


def test_calls_are_kept_for_a_group():
    made, called = [], []

    def make(request):
        made.append(request)
        return (lambda: called.append(request)), {"chosen": "fast"}

    answer = answer_calls(make, ("shape",))
    small = {"row": "decay", "shape": [4]}
    found = answer({**small, "prepare": True})
    assert found["chosen"] == "fast"
    assert found["first"] >= 0 and "seconds" not in found
    assert made == [small] and len(called) == 1
    assert answer(small)["seconds"] >= 0
    assert len(made) == 1
    answer({"row": "table", "shape": [4], "prepare": True})
    answer(small)
    assert len(made) == 2
    # Another shape, and back.
    answer({"row": "decay", "shape": [16], "prepare": True})
    answer({**small, "prepare": True})
    assert len(made) == 4


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux"
)
def test_memory_of_a_call():
    answer = answer_calls(lambda request: (lambda: b"1" * 10**8, {}), ())
    assert 95 < answer({"memory": True})["megabytes"] < 200
    assert memory_status("VmHWM") > 100


def test_the_first_call_of_a_turn_does_not_count(monkeypatch):
    def seconds_of_calls(*seconds):
        clock, left = [0.0], iter(seconds)
        monkeypatch.setattr(harness.time, "perf_counter", lambda: clock[0])

        def call():
            clock[0] += next(left)

        return measure_seconds(call, span=1.0)

    assert seconds_of_calls(4.0, 0.25, 0.5, 0.5) == 0.5
    # Time matters more where calls are long.
    assert seconds_of_calls(6.0) == 6.0


def test_kept_forgets_other_groups():
    kept = Kept()
    kept.enter("a")
    kept["call"] = 1
    kept.enter("a")
    assert kept["call"] == 1
    kept.enter("b")
    assert not kept
