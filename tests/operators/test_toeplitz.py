"""The products of block-Toeplitz masks: which one runs, and hand examples."""

import keras
import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_topo.operators import BlockToeplitz, Kronecker, Toeplitz, table


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.fixture
def calls(monkeypatch):
    """Counts transforms and Kronecker products."""
    counts = {"fft": 0, "kronecker": 0}
    transform, kronecker = table.toeplitz_fft, Kronecker._apply

    def counted_fft(*args):
        counts["fft"] += 1
        return transform(*args)

    def counted_kronecker(*args):
        counts["kronecker"] += 1
        return kronecker(*args)

    monkeypatch.setattr(table, "toeplitz_fft", counted_fft)
    monkeypatch.setattr(Kronecker, "_apply", counted_kronecker)
    return counts


def separable(grid):
    return [[random(2 * n - 1, seed=n) for n in grid]]


@pytest.mark.parametrize("method", ["dense", "fft", "kronecker"])
def test_the_method_asked_for_is_the_one_that_runs(method, calls):
    grid = (4, 5)
    mask = BlockToeplitz(separable(grid), grid, method)
    assert mask.chosen_method == mask.T.chosen_method == method
    x = random(20, 2)
    y = ref.numpy(mask @ x)
    assert calls == {
        "fft": int(method == "fft"),
        "kronecker": int(method == "kronecker"),
    }
    matrix = ref.block_toeplitz(ref.outer(*separable(grid)[0]), grid)
    ref.assert_close(y, matrix @ x, 1e-12)


def test_auto_runs_what_it_says(calls):
    for grid in ((4, 4), (96, 96)):
        calls.update(fft=0, kronecker=0)
        mask = BlockToeplitz(separable(grid), grid)
        mask @ random(mask.num_tokens, 1)
        ran = [name for name, count in calls.items() if count] or ["dense"]
        assert mask.chosen_method == ran[-1]


def test_auto_is_dense_on_small_grids_and_never_on_large_ones():
    table = random(7, 7).astype("float32")
    assert BlockToeplitz(table, (4, 4)).chosen_method == "dense"
    n = 256
    table = np.ones((2 * n - 1, 2 * n - 1), "float32")
    assert BlockToeplitz(table, (n, n)).chosen_method == "fft"
    terms = [[np.ones(2 * n - 1, "float32")] * 2]
    assert BlockToeplitz(terms, (n, n)).chosen_method == "kronecker"


def test_cost_is_that_of_the_cheapest_method():
    grid = (12, 12)
    terms = separable(grid)
    auto = BlockToeplitz(terms, grid)
    chosen = BlockToeplitz(terms, grid, auto.chosen_method)
    assert auto.cost(1024) == chosen.cost(1024)
    for method in ("dense", "fft", "kronecker"):
        assert auto.cost(1024) <= BlockToeplitz(terms, grid, method).cost(1024)


def test_toeplitz_by_hand():
    mask = Toeplitz([1.0, 2.0, 3.0], [9.0, 4.0, 5.0])
    expected = [[1.0, 4.0, 5.0], [2.0, 1.0, 4.0], [3.0, 2.0, 1.0]]
    np.testing.assert_array_equal(ref.numpy(mask.to_dense()), expected)


@pytest.mark.slow_on_jax
def test_grid_by_hand():
    """Two rows of two: the sign of an offset is query minus key."""
    #        key: right, same, left  (columns of the table)
    table = np.array(
        [
            [1.0, 2.0, 3.0],  # query above key
            [4.0, 5.0, 6.0],  # same row
            [7.0, 8.0, 9.0],  # query below key
        ]
    )
    expected = [
        [5.0, 4.0, 2.0, 1.0],
        [6.0, 5.0, 3.0, 2.0],
        [8.0, 7.0, 5.0, 4.0],
        [9.0, 8.0, 6.0, 5.0],
    ]
    for method in ("dense", "fft"):
        mask = BlockToeplitz(table, (2, 2), method)
        np.testing.assert_array_equal(ref.numpy(mask.to_dense()), expected)
        ref.assert_close(mask @ np.eye(4), np.array(expected), 1e-12)


def test_full_table_of_a_separable_one():
    grid = (3, 4, 2)
    terms = [*separable(grid), *separable(grid)]
    expected = 2 * ref.outer(*separable(grid)[0])
    actual = BlockToeplitz(terms, grid).full_table()
    ref.assert_close(actual, expected, 1e-12)


# Each new size costs JAX a compilation.
EXAMPLES = 3 if keras.backend.backend() == "jax" else 15


@pytest.mark.slow_on_jax
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(
    grid=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
    columns=st.integers(1, 3),
)
def test_any_grid_by_fft_equals_the_matrix(grid, seed, columns):
    grid = tuple(grid)
    table = random(*(2 * n - 1 for n in grid), seed=seed)
    matrix = ref.block_toeplitz(table, grid)
    x = random(matrix.shape[-1], columns, seed=seed + 1)
    mask = BlockToeplitz(table, grid, "fft")
    ref.assert_close(mask @ x, matrix @ x, 1e-11)
    ref.assert_close(mask.T @ x, matrix.T @ x, 1e-11)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(
    grid=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    rank=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_any_separable_table_by_kronecker_equals_the_matrix(grid, rank, seed):
    grid = tuple(grid)
    generator = np.random.default_rng(seed)
    terms = [
        [generator.normal(size=2 * n - 1) for n in grid] for _ in range(rank)
    ]
    matrix = ref.block_toeplitz(sum(ref.outer(*term) for term in terms), grid)
    x = random(matrix.shape[-1], 2, seed=seed)
    mask = BlockToeplitz(terms, grid, "kronecker")
    ref.assert_close(mask @ x, matrix @ x, 1e-11)


def test_plain_tables_and_widths():
    mask = BlockToeplitz([1.0, 2.0, 3.0], np.array([2]))
    ref.assert_close(mask.to_dense(), [[2, 1], [3, 2]], 0)
    nested = [[1.0, 2.0, 3.0]]
    mask = BlockToeplitz(nested, (np.int64(1), np.int64(2)))
    ref.assert_close(mask.to_dense(), [[2, 1], [3, 2]], 0)
    wide = Toeplitz(np.ones(2, "float32"), np.ones(2, "float64"))
    assert wide.dtype == Toeplitz(np.ones(2), np.ones(2, "float32")).dtype
