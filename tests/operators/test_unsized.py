"""Masks of offsets on grids whose size a traced function does not know."""

import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.operators import BlockToeplitz
from keras_topo.operators.unsized import UnsizedToeplitz


@pytest.mark.few_on_jax("(3, 4)-(True, False)")
@pytest.mark.parametrize(
    ("grid", "periodic"),
    [((5,), (False,)), ((3, 4), (True, False)), ((2, 3, 2), (False,) * 3)],
    ids=str,
)
def test_as_on_a_grid_of_known_size(grid, periodic):
    entries = [
        n if wraps else 2 * n - 1
        for n, wraps in zip(grid, periodic, strict=True)
    ]
    random = np.random.default_rng(0)
    table = ref.tensor(random.uniform(0.1, 1, (2, *entries)))
    known = BlockToeplitz(table, grid, periodic=periodic)
    unsized = UnsizedToeplitz(table, grid, periodic)
    assert unsized.num_tokens is None and unsized.nonnegative
    tokens = int(np.prod(grid))
    matrix = ref.dense(known)
    ids = np.array([0, 2, tokens - 1], "int32")
    ref.assert_close(unsized._rows_at(ref.tensor(ids)), matrix[:, ids], 1e-12)
    x = ref.tensor(random.normal(size=(2, tokens, 3)))
    ref.assert_close(unsized.matmul(x), matrix @ ref.numpy(x), 1e-12, "product")
    transposed = np.swapaxes(matrix, -1, -2)
    ref.assert_close(unsized.T.matmul(x), transposed @ ref.numpy(x), 1e-12)
    ids = ref.tensor(ids)
    ref.assert_close(unsized.T._rows_at(ids), transposed[:, ids], 1e-12)
    query, key, value = (
        ref.tensor(random.uniform(0.1, 1, (1, 2, tokens, n))) for n in (2, 2, 3)
    )
    scores = matrix * ref.numpy(ops.matmul(query, ops.swapaxes(key, -1, -2)))
    numerator, denominator = unsized.attend(query, key, value)
    ref.assert_close(numerator, scores @ ref.numpy(value), 1e-10)
    ref.assert_close(denominator, scores.sum(-1, keepdims=True), 1e-10)
