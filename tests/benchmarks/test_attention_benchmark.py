"""The benchmark of attention: what its rows compute and what it records."""

import math
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from benchmarks import attention, attention_rows, attention_tables
from benchmarks.attention import Group, Subject
from benchmarks.attention_rows import (
    CAUSAL_PEER,
    FEATURES,
    KINDS,
    PEER,
    PLAIN_SOFTMAX,
    make_call,
    make_mask,
)
from benchmarks.harness import ROOT, Forecast, WorkerError
from benchmarks.measure import compile_call

SHAPE = (2, 3, 16)
MODE = {"tensorflow": "tensorflow", "jax": "jax"}.get(keras.backend.backend())

needs_no_backend = pytest.mark.tensorflow_only


def run(row, backward=False):
    request = {"row": row, "shape": list(SHAPE), "backward": backward}
    call, facts = make_call(MODE, request)
    return call(), facts


def masks():
    for kind in KINDS:
        try:
            yield kind, make_mask(kind, *SHAPE)
        except attention_rows.Missing:
            continue


@needs_no_backend
def test_masks_fit_and_have_positive_entries():
    for kind, mask in masks():
        dense = np.asarray(mask.to_dense())
        batch, heads, tokens = SHAPE
        assert dense.shape[-2:] == (tokens, tokens), kind
        # They broadcast against examples and heads.
        np.broadcast_shapes(dense.shape[:-2], (batch, heads))
        visible = dense
        if kind.startswith("causal"):
            assert not np.triu(dense, 1).any(), kind
            visible = dense[..., np.tri(tokens, dtype=bool)]
        assert (visible > 0).all(), kind


@pytest.mark.parametrize("kind", ["table", "decay"])
def test_rows_of_a_kind_agree(kind):
    query, key, value = attention_rows.random_inputs(SHAPE).astype("float64")
    dense = np.asarray(make_mask(kind, *SHAPE).to_dense(), "float64")
    scores = dense * (query @ key.swapaxes(-1, -2))
    expected = scores @ value / scores.sum(axis=-1, keepdims=True)
    for implementation in attention_rows.IMPLEMENTATIONS:
        output, facts = run(f"{kind} {implementation}")
        np.testing.assert_allclose(output, expected, rtol=2e-5)
        assert ("chosen" in facts) == (implementation == "auto")


@pytest.mark.slow_on_jax
def test_softmax_as_written_is_that_of_the_peer():
    torch = pytest.importorskip("torch")
    output, _ = run(PLAIN_SOFTMAX)
    request = {"row": PEER, "shape": list(SHAPE), "backward": False}
    peer = make_call("torch", request)[0]()
    assert isinstance(peer, torch.Tensor) and not peer.requires_grad
    np.testing.assert_allclose(output, peer.numpy(), rtol=2e-5)
    causal = make_call("torch", {**request, "row": CAUSAL_PEER})[0]()
    query, key, value = attention_rows.random_inputs(SHAPE)
    np.testing.assert_allclose(causal[:, :, 0], value[:, :, 0], rtol=2e-5)
    gradients = make_call("torch", {**request, "backward": True})[0]()
    assert [tuple(g.shape) for g in gradients] == [(*SHAPE, FEATURES)] * 3


def test_gradients_reach_the_parameters_of_a_mask():
    gradients, _ = run("decay auto", backward=True)
    shapes = [tuple(g.shape) for g in gradients]
    assert shapes == [(*SHAPE, FEATURES)] * 3 + [(SHAPE[1],)]
    assert all(np.abs(np.asarray(g)).max() > 0 for g in gradients)


def test_compiled_gradients_leave_out_ids():
    x = keras.ops.convert_to_tensor(np.array([1.0, 2.0, 3.0], "float32"))
    ids = keras.ops.convert_to_tensor(np.array([0, 2], "int32"))

    def square(x, ids):
        return keras.ops.take(x * x, ids)

    np.testing.assert_allclose(compile_call(square, [x, ids])(), [1, 9])
    gradients = compile_call(square, [x, ids], backward=True)()
    assert len(gradients) == 1
    gradient = keras.ops.convert_to_tensor(gradients[0])
    np.testing.assert_allclose(gradient, [2, 0, 6])


class FakeWorkers:
    """Answers by what is in `seconds`, by row and mode or row, mode and
    commit."""

    def __init__(self, seconds, old=None):
        self.seconds, self.old = seconds, old
        self.asked = 0

    def ask(self, mode, request, timeout=None, root=None):
        self.asked += 1
        key = (request["row"], mode)
        if root is not None and root == self.old:
            key += ("old",)
        found = self.seconds.get(key, 1.0)
        if isinstance(found, Exception):
            raise found
        if found is None:
            return {"first": 0.0, "missing": "GatedDecay"}
        return {"first": 0.0, "seconds": found, "chosen": "fast"}


def arguments(**changes):
    return types.SimpleNamespace(
        **{
            "kinds": ["decay", "gated decay"],
            "modes": ["tensorflow", "jax"],
            "shapes": [(1, 1, 64), (1, 1, 1024)],
            "rounds": 2,
            "threads": 1,
            "budget": math.inf,
            "limit": 10.0,
            "explicit_to": 16384,
            "memory_from": 2**30,
            "against": "",
            "quick": False,
            "all": False,
            **changes,
        }
    )


SECONDS = {
    (PEER, "torch"): 4.0,
    ("decay explicit", "tensorflow"): 2.5,
    ("decay fast", "tensorflow"): 1.6,
    ("decay auto", "tensorflow"): 2.0,
    ("decay auto", "jax"): 0.5,
    ("gated decay auto", "tensorflow"): None,
    ("gated decay auto", "jax"): WorkerError("Traceback\nlack of memory"),
}


@needs_no_backend
def test_records_of_a_group():
    group = Group((1, 1, 1024), False, FakeWorkers(SECONDS), None, arguments())
    records = group.measure(Forecast(10.0))
    found = {(r["row"], r["mode"]): r for r in records}
    record = found["decay auto", "tensorflow"]
    assert record["ratio"] == 0.5
    assert record["milliseconds"] == 2000.0
    assert record["auto_over_best"] == 1.25
    assert record["rounds"] == 2
    assert record["shape"] == [1, 1, 1024] and record["tokens"] == 1024
    assert "auto_over_best" not in found["decay auto", "jax"]
    missing = found["gated decay auto", "tensorflow"]
    assert missing["failed"] == "there is no GatedDecay"
    assert "memory" in found["gated decay auto", "jax"]["failed"]
    # Implementations are compared in the first mode alone.
    assert ("decay fast", "jax") not in found
    text = attention_tables.format_group(records, arguments())
    assert "lack of memory" in text and "there is no GatedDecay" in text
    text = attention_tables.format_everything(records, arguments())
    # Four seconds over the half of JAX.
    assert "| decay, forward | 8.0 |" in text
    assert "At most 1.25: decay auto at 1,024 tokens, tensorflow" in text


@needs_no_backend
def test_a_row_that_fails_in_a_round_leaves_the_others():
    class Late(FakeWorkers):
        def ask(self, mode, request, timeout=None, root=None):
            if request["row"] == "decay auto" and "prepare" not in request:
                raise WorkerError("no answer")
            return super().ask(mode, request, timeout, root)

    group = Group((1, 1, 1024), False, Late({}), None, arguments())
    records = group.measure(Forecast(10.0))
    failed = {r["row"] for r in records if "failed" in r}
    assert failed == {"decay auto"}
    assert any(r["row"] == "gated decay auto" for r in records)


@needs_no_backend
def test_two_commits_side_by_side(tmp_path):
    seconds = {
        ("decay auto", "tensorflow"): 2.0,
        ("decay auto", "tensorflow", "old"): 1.0,
        ("decay auto", "jax"): 1.0,
        ("decay auto", "jax", "old"): 4.0,
        ("gated decay auto", "tensorflow", "old"): None,
        ("gated decay auto", "jax", "old"): None,
    }
    settings = arguments(against="abc1234", quick=True)
    workers = FakeWorkers(seconds, tmp_path)
    group = Group((1, 1, 1024), False, workers, tmp_path, settings)
    records = group.measure(Forecast(10.0))
    found = {(r["row"], r["mode"]): r for r in records if not r["commit"]}
    assert found["decay auto", "tensorflow"]["over_commit"] == 2.0
    assert found["decay auto", "jax"]["over_commit"] == 0.25
    # The old package does not have this row.
    assert found["gated decay auto", "jax"]["over_commit"] is None
    text = attention_tables.format_against(records, "abc1234")
    assert "| decay auto | tensorflow | 1,024, forward | 2.00 |" in text
    assert "jax" not in text


@needs_no_backend
def test_what_seems_slower_is_measured_again(tmp_path):
    class Unlucky(FakeWorkers):
        """A row that is slow by chance in the first two rounds."""

        slow = 2

        def ask(self, mode, request, timeout=None, root=None):
            answer = super().ask(mode, request, timeout, root)
            if (
                request["row"] == "decay auto"
                and "prepare" not in request
                and root != self.old
                and self.slow
            ):
                self.slow -= 1
                answer = {**answer, "seconds": 3.0}
            return answer

    settings = arguments(
        against="abc1234", quick=True, modes=["jax"], kinds=["decay"], rounds=3
    )
    workers = Unlucky({}, tmp_path)
    group = Group((1, 1, 1024), False, workers, tmp_path, settings)
    (record,) = [
        r
        for r in group.measure(Forecast(10.0))
        if r["row"] == "decay auto" and not r["commit"]
    ]
    # Three times as long in two rounds of three, equal in three more.
    assert record["over_commit"] == 1.0
    text = attention_tables.format_against([record], "abc1234")
    assert "0 above" in text


@needs_no_backend
def test_a_run_that_was_cut_off_measures_the_rest(monkeypatch, tmp_path):
    workers = FakeWorkers({})
    workers.__class__.__enter__ = lambda self: self
    workers.__class__.__exit__ = lambda self, *_: None
    monkeypatch.setattr(attention, "Workers", lambda *_: workers)
    settings = arguments()

    def open_report():
        path = str(tmp_path / "results.json")
        return attention.Report(path, "fake", {}, ["numpy"])

    attention.measure_all(open_report(), settings)
    everything, asked = open_report().records(), workers.asked
    assert {r["tokens"] for r in everything} == {64, 1024}
    assert {r["backward"] for r in everything} == {False, True}
    attention.measure_all(open_report(), settings)
    assert workers.asked == asked
    # Without the last group, that one alone is measured again.
    report = open_report()
    kept = [r for r in everything if r["tokens"] == 64 or not r["backward"]]
    report._sections["results"] = kept
    attention.measure_all(report, settings)
    assert len(report.records()) == len(everything)
    assert asked < workers.asked < 2 * asked


@needs_no_backend
def test_slow_rows_are_left_out():
    forecast = Forecast(10.0)
    subject = Subject("decay auto", "jax")
    shape = (1, 1, 1024)
    forecast.learn((subject, False), subject.work((1, 1, 64)), 9.0)
    group = Group(shape, False, FakeWorkers({}), None, arguments())
    rows = {(r["row"], r["mode"]) for r in group.measure(forecast)}
    assert ("decay auto", "jax") not in rows
    assert ("decay auto", "tensorflow") in rows


@needs_no_backend
def test_sizes_of_runs():
    def rows(shape, backward=False, **changes):
        settings = arguments(kinds=list(KINDS), **changes)
        group = Group(shape, backward, None, None, settings)
        return {(s.row, s.mode) for s in group.select()}

    one = rows((1, 1, 64))
    assert ("table explicit", "tensorflow") in one
    assert not any(mode == "jax" for _, mode in one)
    summary = rows((1, 1, 4096))
    assert ("table auto", "jax") in summary
    assert ("table fast", "jax") not in summary
    assert (CAUSAL_PEER, "torch") in summary
    assert ("table explicit", "tensorflow") not in rows((1, 1, 65536))
    assert ("decay auto", "jax") in rows((1, 1, 4096), backward=True)
    assert ("table auto", "jax") not in rows((1, 1, 4096), backward=True)
    every = rows((1, 1, 64), all=True)
    assert ("table fast", "jax") in every
    quick = rows((1, 1, 1024), quick=True)
    assert ("table auto", "tensorflow") in quick
    assert ("table fast", "tensorflow") not in quick


@needs_no_backend
def test_a_commit_beside_this_one():
    try:
        commit = attention.resolve_commit("HEAD")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    with attention.open_commit(commit) as folder:
        script = (
            "import importlib.util as u, pathlib\n"
            "here = pathlib.Path.cwd()\n"
            "for name in ('keras_topo', 'models', 'training'):\n"
            "    found = pathlib.Path(u.find_spec(name).origin)\n"
            "    assert found.resolve().is_relative_to(here), found\n"
            "import benchmarks.attention\n"
            "print(benchmarks.attention.__file__)\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert str(folder) in found
        linked = folder / "benchmarks"
        assert linked.resolve() == ROOT / "benchmarks"
    assert not folder.exists()
    with attention.open_commit("") as nothing:
        assert nothing is None
