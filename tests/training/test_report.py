"""What is drawn of a run, and what is left out."""

import matplotlib.figure
import numpy as np
import pytest

from keras_topo.training import report

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture
def saved(monkeypatch):
    """The figures that are saved, by the names of their files."""
    figures = {}

    def savefig(figure, path, **options):
        figures[path] = figure

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return figures


def history(rates, validation=True):
    line = {"loss": 1.0, "accuracy": 0.5}
    if validation:
        line |= {"val_loss": 1.0, "val_accuracy": 0.5}
    return [
        {"epoch": k + 1, "learning_rate": rate, **line}
        for k, rate in enumerate(rates)
    ]


def drawn(figure):
    return {
        axis.get_title(): [line.get_label() for line in axis.lines]
        for axis in figure.axes
    }


def test_curves(saved):
    report.draw_curves(history([1.0, 0.5]), "a", "A", num_training=20)
    both = ["training", "validation"]
    found = drawn(saved["a"])
    assert list(found) == ["Loss", "Accuracy", "Learning rate"]
    assert found["Loss"] == found["Accuracy"] == both
    # A legend for all, and none over the curves.
    assert [len(f.legends) for f in saved.values()] == [1]
    assert all(axis.get_legend() is None for axis in saved["a"].axes)


def test_curves_that_say_nothing(saved):
    """A constant rate, and which of few training examples are right."""
    report.draw_curves(history([0.1, 0.1]), "a", "A", num_training=4)
    assert drawn(saved["a"]) == {
        "Loss": ["training", "validation"],
        "Accuracy": ["validation"],
    }
    bare = history([0.1], validation=False)
    report.draw_curves(bare, "b", "B", num_training=4)
    assert drawn(saved["b"]) == {"Loss": ["training"]}


def test_long_curves_are_running_means(saved):
    rates = [float(k < 100) for k in range(200)]
    lines = history(rates)
    for k, line in enumerate(lines):
        line["loss"] = float(k % 2)
    report.draw_curves(lines, "a", "A")
    loss, _, rate = saved["a"].axes
    single, mean = (line.get_ydata() for line in loss.lines[:2])
    assert set(single) == {0.0, 1.0}
    np.testing.assert_allclose(mean[:3], [0, 0.5, 1 / 3])
    np.testing.assert_allclose(mean[7:], 0.5)
    # A schedule has no noise.
    (line,) = rate.lines
    assert list(line.get_ydata()) == rates
    labels, *_ = drawn(saved["a"]).values()
    # Legends name what has no underscore in front.
    shown = [label for label in labels if not label.startswith("_")]
    assert shown == ["training", "validation"]


def test_the_spread_over_seeds():
    summary = {"runs": 3, "test_deviation": 0.0887}
    assert report.format_spread(summary) == (
        ", the mean over 3 seeds with a deviation of 8.87 points"
    )
    found = report.format_spread(summary, "bits_per_byte")
    assert found.endswith(" with a deviation of 0.0887")
    found = report.format_spread({**summary, "failed": {"2": "NaN"}})
    assert found.endswith(
        "points (1 of them failed and count as 0: seed 2, NaN)"
    )


def test_an_assessment_as_a_table():
    def result(cell, *scores):
        return {
            "cell": cell,
            "mean": float(np.mean(scores)),
            "deviation": float(np.std(scores)),
            "folds": 1,
            "parameters": [1202, 1210],
            "by_fold": [
                {
                    "fold": 0,
                    "choice": {"sizes": [1.0, 2.0]},
                    "runs": len(scores),
                    "failed": 0,
                    "test_accuracy": float(np.mean(scores)),
                }
            ],
        }

    summary = {
        "command": "c",
        "data": "d",
        "metric": "accuracy",
        "seeds": 2,
        "grid": {"sizes": [[1.0, 2.0], [3.0]]},
        "results": [
            result({"data": "a", "model": "x"}, 0.5, 0.75),
            result({"data": "b", "model": "x"}, 0.5),
        ],
    }
    text = report.format_assessment(summary)
    assert "mean and deviation over 2 seeds" in text
    assert "sizes of 1.0 2.0, 3.0" in text
    assert "| a | x | 62.50 ± 12.50% | 1,202 to 1,210 |" in text
    # One run has no deviation.
    assert "| b | x | 50.00% | 1,202 to 1,210 |" in text
    summary["results"][1]["difference"] = {
        "mean": -0.125,
        "standard_error": 0.05,
    }
    summary["chosen"] = result({}, 0.625)
    text = report.format_assessment(summary)
    assert "| data | model | test accuracy | difference | parameters |" in text
    assert "| a | x | 62.50 ± 12.50% |  | 1,202 to 1,210 |" in text
    assert "| b | x | 50.00% | -12.50 ± 5.00 | 1,202 to 1,210 |" in text
    assert "Differences are from a, x: " in text
    assert "data and model chosen on validation items" in text
    assert "in each fold, too: 62.50%." in text
    summary["results"] = [result({}, 0.5)]
    summary["seeds"] = 1
    text = report.format_assessment(summary)
    assert "d: 50.00% (accuracy of test items, one run)" in text
    assert "| 0 | sizes 1.0 2.0 | 1 | 50.00% |" in text
