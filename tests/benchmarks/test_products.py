"""The rows of the benchmark on masks: every peer computes the same product."""

import numpy as np
import pytest

from benchmarks.products.answers import ROWS, relative_error

pytestmark = pytest.mark.tensorflow_only

TOKENS = 64


def test_rows_and_their_peers_agree():
    x = np.random.default_rng(1).standard_normal((TOKENS, 3), "float32")
    for row in ROWS.values():
        inputs = row.inputs(TOKENS)
        product = np.asarray(row.build(inputs) @ x)
        shared = inputs if row.share is None else row.share(inputs)
        reference = row.peers[0].prepare(shared, x.astype("float64"))()
        assert reference.dtype == "float64", row.name
        assert relative_error(product, reference) < 1e-5, row.name
        for peer in row.peers:
            y = peer.prepare(shared, x.astype(peer.dtype))()
            error = relative_error(y, reference)
            assert error < 1e-5, (row.name, peer.name)
