"""The benchmark of sampling: what it records, and what it leaves out."""

import types

import numpy as np
import pytest

import keras_topo.models
from benchmarks import sampling
from benchmarks.harness import Report, WorkerError
from benchmarks.sampling import PEER

pytestmark = pytest.mark.tensorflow_only


class FakeWorkers:
    """Answers with seconds by model and number of tokens."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, mode, request):
        self.asked += 1
        seconds = self.seconds(request["model"], request["tokens"])
        if isinstance(seconds, Exception):
            raise seconds
        if request.get("prepare"):
            return {"first": 9.0, "parameters": 7}
        return {"seconds": seconds}


def test_rates_ratios_and_what_would_take_too_long(monkeypatch, capsys):
    def seconds(model, tokens):
        if model == "gated":
            return WorkerError("Traceback\nlack of memory")
        return 1e-6 * tokens**2 if model == PEER else 1e-3 * tokens

    workers = FakeWorkers(seconds)
    monkeypatch.setattr(sampling, "Workers", lambda *_: workers)
    arguments = types.SimpleNamespace(
        modes=["jax"], tokens=[2000, 100_000], rounds=3, threads=1, batch=2
    )
    arguments.limit = 200
    report = Report(None, "fake", {}, ["numpy"])
    sampling.measure_sampling(report, arguments)
    (record,) = report.records(model="decay", tokens=2000)
    assert record["seconds"] == 2.0
    assert record["tokens_per_second"] == 2000
    assert record["ratio"] == 0.5
    assert (record["rounds"], record["parameters"]) == (3, 7)
    # 10,000 seconds for the peer, 100 for the others.
    (left_out,) = report.records(model=PEER, tokens=100_000)
    assert left_out["failed"] == "left out"
    (alone,) = report.records(model="decay", tokens=100_000)
    assert alone["ratio"] is None
    lines = capsys.readouterr().out.splitlines()
    assert f"| {PEER} | 1,000 (1.00) | left out |" in lines
    assert "| decay | 2,000 (0.50) | 2,000 |" in lines
    assert "| gated | lack of memory | left out |" in lines
    asked = workers.asked
    sampling.measure_sampling(report, arguments)
    assert workers.asked == asked


@pytest.mark.parametrize("name", sampling.MODELS)
def test_calls_add_tokens_to_a_prompt(name, monkeypatch):
    made = {}

    class Model:
        def generate(self, prompt, count, **options):
            return np.pad(prompt, ((0, 0), (0, count)))

        def count_params(self):
            return 5

    def causal_lm(vocabulary_size, **arguments):
        made.update(arguments)
        return Model()

    monkeypatch.setattr(
        keras_topo.models, "causal_lm", causal_lm, raising=False
    )
    request = {"model": name, "tokens": 4, "batch": 2}
    call, facts = sampling.make_call(request)
    assert call().shape == (2, 5)
    assert facts == {"parameters": 5}
    assert made["mask"] == sampling.MODELS[name]["mask"]
