"""What all tests of operators share."""

import pytest

from keras_topo.operators import forest_distance


@pytest.fixture(autouse=True)
def small_trees_are_cut(monkeypatch):
    """So that tests of small trees are tests of cuts."""
    monkeypatch.setattr(forest_distance, "FEW_ENTRIES", 0)
