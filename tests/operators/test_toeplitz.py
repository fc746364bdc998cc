"""The products of block-Toeplitz masks: which one runs, and hand examples."""

import keras
import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_topo.operators import BlockToeplitz, Kronecker, Toeplitz, slab, table

# On TensorFlow; the contracts of operators and layers run on JAX, too.
pytestmark = pytest.mark.slow_on_jax


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


@pytest.mark.slow_on_jax
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


# Periodic axes.

PERIODIC = {
    "cylinder": ((4, 5), (False, True)),
    "globe": ((6, 3), (True, False)),
    "volume": ((2, 3, 4), (True, False, True)),
    "ring": ((5,), True),
    "short": ((1, 4), (True, False)),
}


def periodic_matrix(table, grid, periodic):
    """`M[i, j]` with the offset modulo `n` along periodic axes."""
    index = [
        (x - (n - 1)) % n if wraps else x
        for x, n, wraps in zip(
            ref.offset_indices(grid), grid, periodic, strict=True
        )
    ]
    return table[(..., *index)]


@pytest.mark.few_on_jax("dense-globe", "dense-short", "fft-globe", "fft-volume")
@pytest.mark.parametrize("name", PERIODIC)
@pytest.mark.parametrize("method", ["dense", "fft"])
def test_periodic_axes(name, method):
    grid, given = PERIODIC[name]
    periodic = np.broadcast_to(given, len(grid)).tolist()
    sizes = [
        n if wraps else 2 * n - 1
        for n, wraps in zip(grid, periodic, strict=True)
    ]
    table = random(2, *sizes)
    matrix = periodic_matrix(table, grid, periodic)
    length = matrix.shape[-1]
    x = random(length, 2, seed=1)

    def results(table, start):
        mask = BlockToeplitz(table, grid, method, periodic=given)
        again = BlockToeplitz(mask.full_table(), grid)
        ids = np.array([length - 1, 0], "int32")
        return (
            mask @ x,
            mask.T @ x,
            mask.to_dense(),
            mask.T._rows(start, 2),
            mask._rows_at(ids),
            again.to_dense(),
        )

    actual = ref.staged(results)(ref.tensor(table), ref.tensor(1, "int32"))
    transposed = np.swapaxes(matrix, -1, -2)
    expected = (
        matrix @ x,
        transposed @ x,
        matrix,
        transposed[:, 1:3],
        matrix[:, [-1, 0]],
        matrix,
    )
    for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
        ref.assert_close(a, b, 1e-12, k)


def test_a_periodic_axis_saves_its_padding():
    sizes = {False: 127, True: 64}
    costs = [
        BlockToeplitz(
            np.ones((127, sizes[wraps])), (64, 64), "fft", (False, wraps)
        ).cost(64)
        for wraps in (False, True)
    ]
    assert costs[1] < 0.7 * costs[0]


@pytest.mark.slow_on_jax
def test_separable_periodic_axes():
    grid, periodic = (3, 4), (False, True)
    terms = [[random(5, seed=k), random(4, seed=k + 9)] for k in range(2)]
    table = sum(ref.outer(*term) for term in terms)
    matrix = periodic_matrix(table, grid, periodic)
    for method in ("kronecker", "fft"):
        mask = BlockToeplitz(terms, grid, method, periodic)
        assert mask.chosen_method == mask.T.chosen_method == method
        ref.assert_close(mask @ np.eye(12), matrix, 1e-12)
        ref.assert_close(mask.T @ np.eye(12), matrix.T, 1e-12)
        ref.assert_close(mask.to_dense(), matrix, 1e-12)


@pytest.mark.parametrize("periodic", [1, "yes", (True,), (True, 0), None])
def test_what_periodic_may_not_be(periodic):
    with pytest.raises(ValueError, match="`periodic` expects a bool"):
        BlockToeplitz(np.ones((3, 5)), (2, 3), periodic=periodic)


def test_a_table_of_a_wrong_size_for_periodic_axes():
    with pytest.raises(ValueError, match=r"expects \(3, 3\) offsets"):
        BlockToeplitz(np.ones((3, 5)), (2, 3), periodic=(False, True))


# Rows.


@pytest.mark.few_on_jax("grid2-300", "grid6-4352", "grid9-600")
@pytest.mark.parametrize(
    "grid, elements",
    [
        ((7,), 2**22),
        ((70,), 2**22),
        ((70,), 300),
        ((1, 6, 1), 2**22),
        ((3, 5), 2**22),
        ((9, 16), 2**22),
        ((9, 16), 17 * 256),
        # Two and three leading axes, with several copies and with one.
        ((3, 8, 2), 400),
        ((3, 8, 2), 1),
        ((2, 3, 2, 2), 600),
    ],
)
def test_rows_from_anywhere(grid, elements, monkeypatch):
    """A slab of any shape, starts that are traced and that are not."""
    monkeypatch.setattr(slab, "SLAB_ELEMENTS", elements)
    offsets = random(2, *(2 * n - 1 for n in grid))
    matrix = ref.block_toeplitz(offsets, grid)
    length = matrix.shape[-1]
    mask = BlockToeplitz(offsets, grid)._for_rows()
    step = mask.plan.row_step
    sizes = {1, min(3, length), step, min(2 * step + 1, length), length}
    starts = {
        size: sorted({0, (length - size) // 2, length - size}) for size in sizes
    }
    traced = [(start, size) for size, all_ in starts.items() for start in all_]

    def rows(starts):
        return [
            mask._rows(starts[k], size) for k, (_, size) in enumerate(traced)
        ]

    found = ref.staged(rows)(ref.tensor([s for s, _ in traced], "int32"))
    for (start, size), actual in zip(traced, found, strict=True):
        expected = matrix[:, start : start + size]
        np.testing.assert_array_equal(ref.numpy(actual), expected)
        if not ref.on_jax:
            actual = mask._rows(start, size)
            np.testing.assert_array_equal(ref.numpy(actual), expected)
    ids = np.array([length - 1, 0, length // 2, 0], "int32")
    actual = ref.numpy(mask._rows_at(ref.tensor(ids)))
    np.testing.assert_array_equal(actual, matrix[:, ids])


def test_slabs_are_small_on_any_grid(monkeypatch):
    for grid in (
        (1, 4096),
        (4096,),
        (4, 32, 32),
        (2, 2048),
        (64, 64),
        (8,) * 4,
    ):
        offsets = np.ones([2 * n - 1 for n in grid], "float32")
        mask = BlockToeplitz(offsets, grid)._for_rows()
        assert np.prod(mask.slab.shape) <= slab.SLAB_ELEMENTS
        # A block of rows is not many slices.
        rows = mask.line * mask.lines_per_slice
        assert rows >= 32
    many = BlockToeplitz(ops.ones((12, 31, 31)), (16, 16))._for_rows()
    assert many.leading == 1
    monkeypatch.setattr(slab, "SLAB_ELEMENTS", 12 * 31 * 16**2 - 1)
    many = BlockToeplitz(ops.ones((12, 31, 31)), (16, 16))._for_rows()
    assert many.leading == 2
    assert np.prod(many.slab.shape) <= slab.SLAB_ELEMENTS


def test_rows_have_the_right_gradient():
    grid = (3, 4)
    offsets = random(2, 5, 7)
    upstream = random(2, 5, 12, seed=3)

    def rows(offsets):
        return BlockToeplitz(offsets, grid)._for_rows()._rows(3, 5)

    compute = ref.staged(ref.with_gradients(rows))
    _, (actual,) = compute(ref.tensor(upstream), ref.tensor(offsets))
    expected = np.zeros_like(offsets)
    index = [x[3:8] for x in ref.offset_indices(grid)]
    np.add.at(expected, (slice(None), *index), upstream)
    ref.assert_close(actual, expected, 1e-12)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("method", ["dense", "fft"])
def test_unknown_batch_axes(method):
    """Per-example tables, whose product and gradient broadcast as known ones
    do; and an empty batch."""
    import tensorflow as tf

    grid, size = (2, 3), 6
    signature = [
        tf.TensorSpec((None, 1, 3, 5), "float64"),
        tf.TensorSpec((None, None, size, 2), "float64"),
    ]

    @tf.function(input_signature=signature)
    def product(offsets, x):
        with tf.GradientTape() as tape:
            tape.watch((offsets, x))
            mask = BlockToeplitz(offsets, grid, method)
            y = mask @ x
        gradients = tape.gradient(y, (offsets, x))
        return y, *gradients, mask._rows(tf.constant(1), 2)

    for batch, heads in ((2, 3), (1, 1), (0, 3)):
        offsets = random(batch, 1, 3, 5)
        x = random(batch, heads, size, 2, seed=1)
        matrix = ref.block_toeplitz(offsets, grid)
        y, d_offsets, dx, rows = product(offsets, x)
        ref.assert_close(y, matrix @ x, 1e-12)
        ones = np.ones_like(x)
        ref.assert_close(dx, np.swapaxes(matrix, -1, -2) @ ones, 1e-12)
        inner = np.einsum("bhic,bhjc->bij", ones, x)[:, None]
        expected = np.zeros_like(offsets)
        places = (slice(None), slice(None), *ref.offset_indices(grid))
        np.add.at(expected, places, inner)
        ref.assert_close(d_offsets, expected, 1e-12)
        ref.assert_close(rows, matrix[:, :, 1:3], 0)


@pytest.mark.parametrize("method", ["dense", "fft"])
def test_an_empty_batch(method):
    mask = BlockToeplitz(ref.tensor(random(5, 7)), (3, 4), method)
    assert tuple((mask @ np.zeros((0, 12, 2))).shape) == (0, 12, 2)
