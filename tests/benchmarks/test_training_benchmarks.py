"""The benchmarks of training: what they record, and the models they build."""

import types

import numpy as np
import pytest

from benchmarks import throughput, training_memory, training_step
from benchmarks.harness import Report, WorkerError
from benchmarks.training_step import PEER

pytestmark = pytest.mark.tensorflow_only


class FakeWorkers:
    """Answers with `answers`, by mode and a field of the request."""

    def __init__(self, field, answers):
        self.field, self.answers, self.asked = field, answers, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, mode, request):
        self.asked += 1
        found = self.answers(mode, request.get(self.field))
        if isinstance(found, Exception):
            raise found
        return found

    ask_fresh = ask


def test_steps_are_compared_within_a_mode(monkeypatch, capsys):
    def answers(mode, model):
        if (mode, model) == ("xla", "table"):
            return WorkerError("Traceback\nlack of memory")
        seconds = {"tensorflow": 4.0, "xla": 2.0}[mode]
        return {"first": 9.0, "seconds": seconds / (2 - (model == PEER))}

    workers = FakeWorkers("model", answers)
    monkeypatch.setattr(training_step, "Workers", lambda *_: workers)
    arguments = types.SimpleNamespace(
        modes=["tensorflow", "xla"], rounds=3, threads=1
    )
    report = Report(None, "fake", {}, ["numpy"], ("training_step",))
    training_step.measure_steps(report, arguments)
    (record,) = report.records("training_step", row="decays", mode="xla")
    assert record["ratio"] == 0.5
    assert record["milliseconds"] == 1000.0
    assert record["rounds"] == 3
    (failed,) = report.records("training_step", row="table", mode="xla")
    assert "memory" in failed["failed"]
    text = capsys.readouterr().out
    assert "| table | 2,000 ms (0.50) | lack of memory |" in text
    asked = workers.asked
    training_step.measure_steps(report, arguments)
    assert workers.asked == asked


def test_throughput_in_training_and_serving(monkeypatch, capsys):
    def answers(mode, model):
        if model == "table" and mode == "xla":
            return WorkerError("Traceback\nlack of memory")
        return {"first": 9.0, "seconds": 2.0 if model == PEER else 0.5}

    workers = FakeWorkers("model", answers)
    monkeypatch.setattr(throughput, "Workers", lambda *_: workers)
    monkeypatch.setattr(throughput, "CASES", ((16, 2, 4),))
    arguments = types.SimpleNamespace(
        modes=["tensorflow", "xla"], rounds=3, threads=1
    )
    report = Report(None, "fake", {}, ["numpy"])
    throughput.measure_throughput(report, arguments)
    (record,) = report.records(model="decay", kind="serving")
    assert record["mode"] == "tensorflow" and record["rounds"] == 3
    assert record["images_per_second"] == 8.0 and record["ratio"] == 4.0
    (failed,) = report.records(model="table", mode="xla")
    assert "memory" in failed["failed"]
    text = capsys.readouterr().out
    assert "64 tokens, 4 images per batch" in text
    assert "| table | 8.0 (4.00) | lack of memory | 8.0 (4.00) |" in text
    asked = workers.asked
    throughput.measure_throughput(report, arguments)
    assert workers.asked == asked


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["training", pytest.param("serving", marks=pytest.mark.slow)]
)
def test_what_is_called_for_throughput(kind, monkeypatch):
    monkeypatch.setattr(throughput, "SIZE", (8, 2, 8, 1))
    request = {"case": [8, 4, 2], "kind": kind, "model": "table"}
    call, _ = throughput.make_call(request, jit=False)
    if kind == "serving":
        assert call().shape == (2, 10)
    else:
        assert call() > 0


def test_memory_of_every_mode(monkeypatch, capsys):
    def answers(mode, grid):
        if mode == "jax":
            return WorkerError("the process ended early")
        return {"growth": 10.0 if grid else 1500.0, "resident": 2500.0}

    workers = FakeWorkers("grid", answers)
    monkeypatch.setattr(training_memory, "Workers", lambda *_: workers)
    arguments = types.SimpleNamespace(modes=["xla", "jax"], threads=1)
    report = Report(None, "fake", {}, ["numpy"], ("training_memory",))
    training_memory.measure_memory(report, arguments)
    lines = capsys.readouterr().out.splitlines()
    assert (
        "| 1 x 1 x 1,048,576 x 64, decay, forward + backward | xla | 1,500 MB "
        "| 2,500 MB |"
    ) in lines
    assert (
        "| 4 x 4 x 4,096 x 8, explicit on (4, 32, 32) | jax |  | the process "
        "ended early |"
    ) in lines
    asked = workers.asked
    training_memory.measure_memory(report, arguments)
    assert workers.asked == asked


@pytest.mark.parametrize("name", sorted(training_step.MODELS))
def test_models_of_the_step(name):
    from keras_topo.models import topvit

    options = training_step.MODELS[name]
    model = topvit("mini", 8, (16, 16, 3), **options)
    names = {weight.name for weight in model.trainable_weights}
    assert ("table" in names) == (name == "table")
    assert ("rate_0" in names) == (name == "decays")
    logits = model(np.zeros((1, 16, 16, 3), "float32"))
    assert logits.shape == (1, 10)
