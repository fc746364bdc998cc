"""The rows of the benchmark on masks: every peer computes the same product."""

import importlib
import pathlib

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow_only

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKENS = 64


@pytest.fixture
def masks(monkeypatch):
    # Not installed: a script of the checkout.
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.masks")


def test_rows_and_their_peers_agree(masks):
    x = np.random.default_rng(1).standard_normal((TOKENS, 3), "float32")
    for row in masks.ROWS.values():
        inputs = row.inputs(TOKENS)
        product = np.asarray(row.build(inputs) @ x)
        shared = inputs if row.share is None else row.share(inputs)
        reference = row.peers[0].prepare(shared, x.astype("float64"))()
        assert reference.dtype == "float64", row.name
        assert masks.relative_error(product, reference) < 1e-5, row.name
        for peer in row.peers:
            y = peer.prepare(shared, x.astype(peer.dtype))()
            error = masks.relative_error(y, reference)
            assert error < 1e-5, (row.name, peer.name)
