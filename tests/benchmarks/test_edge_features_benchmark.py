"""`benchmarks.edge_features`: runs of equal size, chosen on validation."""

import json

import numpy as np
import pytest

from benchmarks import edge_features
from keras_topo.graphs import spectral_radius_dataset

pytestmark = pytest.mark.tensorflow_only


def test_goes_on_after_finished_runs(tmp_path, capsys, monkeypatch):
    errors = {3e-3: 0.3, 1e-3: 0.2, 1e-2: 0.4}

    def measure(method, seed, rate, sizes, epochs):
        return {
            "method": method,
            "seed": seed,
            "learning_rate": rate,
            # Another rate would be chosen by the test error.
            "validation": errors[rate],
            "test": 1 - errors[rate] + seed,
            "mean": 5.0,
            "parameters": 1234,
            "graphs": list(sizes),
            "options": {"epochs": epochs},
            "seconds": 0.0,
        }

    monkeypatch.setattr(edge_features, "measure", measure)
    file = tmp_path / "results" / "runs.jsonl"
    command = ["--methods", "gine", "--json", str(file)]
    assert edge_features.main([*command, "--seeds", "1"]) == 0
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    assert [x["learning_rate"] for x in lines] == [3e-3, 1e-3, 1e-2]
    # An incomplete line is measured again; others stay, and further seeds use
    # only the chosen rate.
    lines[0]["seconds"] = 7.0
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file.write_text(text + '{"method": "gi')
    assert edge_features.main([*command, "--seeds", "3"]) == 0
    again = [json.loads(text) for text in file.read_text().splitlines()]
    assert again[:3] == lines
    assert [(x["seed"], x["learning_rate"]) for x in again[3:]] == [
        (1, 1e-3),
        (2, 1e-3),
    ]
    # 0.8, 1.8 and 2.8.
    row = "| gine | 1,234 | 0.001 | 3 | 1.800 ± 0.816 |"
    assert row in capsys.readouterr().out
    # With other epochs or graphs they are other runs, in a table of their own.
    for changes in (["--epochs", "2"], ["--sizes", "12", "4", "4"]):
        before = len(file.read_text().splitlines())
        assert edge_features.main([*command, *changes, "--seeds", "1"]) == 0
        assert len(file.read_text().splitlines()) == before + 3
        assert "| gine | 1,234 | 0.001 | 1 | " in capsys.readouterr().out


@pytest.mark.slow
def test_a_run(monkeypatch):
    monkeypatch.setitem(edge_features.COMMON, "depth", 1)
    line = edge_features.measure("gine", 1, 1e-2, (12, 4, 4), 2)
    assert line["updates"] == 2 and line["parameters"] > 1000
    train, _, test = spectral_radius_dataset((12, 4, 4), seed=1)
    error = np.abs(test.labels - train.labels.mean()).mean()
    assert line["mean"] == pytest.approx(error)
    assert 0 < line["test"] < 10 * error
    json.dumps(line)


def test_models_are_of_one_size():
    from keras_topo.models import MODELS

    sizes = []
    for method, (with_edges, options) in edge_features.METHODS.items():
        options = {**edge_features.COMMON, **options}
        name = options.pop("model")
        if name == "gkat":
            # As `GraphRegressor` has it.
            options.setdefault("local", with_edges)
        model = MODELS[name].builder(
            num_features=25,
            num_classes=1,
            num_kernels=4 if name == "gkat" else 1,
            num_edge_features=4 * with_edges,
            **options,
        )
        sizes.append(model.count_params())
        assert len(model.inputs) == 3 + 2 * with_edges, method
    assert max(sizes) < 1.1 * min(sizes)
