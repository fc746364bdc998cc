"""What all tests of operators share."""

import pytest

from keras_topo.operators import centroid_plan


@pytest.fixture(autouse=True)
def small_trees_are_cut(monkeypatch):
    """So that tests of small trees are tests of cuts."""
    monkeypatch.setattr(centroid_plan, "FEW_ENTRIES", 0)
