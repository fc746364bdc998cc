"""What is drawn of a run, and what is left out."""

import matplotlib.figure
import pytest

from keras_topo.training import pictures

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
    pictures.draw_curves(history([1.0, 0.5]), "a", "A", num_training=20)
    both = ["training", "validation"]
    found = drawn(saved["a"])
    assert list(found) == ["Loss", "Accuracy", "Learning rate"]
    assert found["Loss"] == found["Accuracy"] == both
    # A legend for all, and none over the curves.
    assert [len(f.legends) for f in saved.values()] == [1]
    assert all(axis.get_legend() is None for axis in saved["a"].axes)


def test_curves_that_say_nothing(saved):
    """A constant rate, and which of few training examples are right."""
    pictures.draw_curves(history([0.1, 0.1]), "a", "A", num_training=4)
    assert drawn(saved["a"]) == {
        "Loss": ["training", "validation"],
        "Accuracy": ["validation"],
    }
    bare = history([0.1], validation=False)
    pictures.draw_curves(bare, "b", "B", num_training=4)
    assert drawn(saved["b"]) == {"Loss": ["training"], "Accuracy": ["training"]}
