"""`benchmarks.edge_features`: runs of equal size, chosen on validation."""

import json

import pytest

from benchmarks import edge_features

pytestmark = pytest.mark.tensorflow_only


def test_goes_on_after_finished_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(edge_features, "LEARNING_RATES", (1e-3, 1e-2))
    monkeypatch.setitem(edge_features.COMMON, "depth", 1)
    file = tmp_path / "results" / "runs.jsonl"
    command = ["--methods", "gine", "--sizes", "12", "4", "4"]
    command += ["--epochs", "2", "--json", str(file)]
    assert edge_features.main([*command, "--seeds", "1"]) == 0
    lines = [json.loads(text) for text in file.read_text().splitlines()]
    assert [(x["seed"], x["learning_rate"]) for x in lines] == [
        (0, 1e-3),
        (0, 1e-2),
    ]
    assert all(line["updates"] == 2 for line in lines)
    best = min(lines, key=lambda line: line["validation"])
    # The first line stays, and a second seed takes the better rate alone.
    assert edge_features.main([*command, "--seeds", "2"]) == 0
    again = [json.loads(text) for text in file.read_text().splitlines()]
    assert again[:2] == lines and len(again) == 3
    assert again[2]["seed"] == 1
    assert again[2]["learning_rate"] == best["learning_rate"]
    assert again[2]["mean"] != best["mean"]  # other graphs
    mean = (best["test"] + again[2]["test"]) / 2
    assert f"| 2 | {mean:.3f} ± " in capsys.readouterr().out


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
