"""What masks are told of the tokens of a call."""

import numpy as np
import pytest
import reference as ref

from keras_topo.masks import Grid, Nodes, Sequence


def test_sizes():
    grid = Grid([14, np.int64(28)], num_prefix_tokens=1, periodic=[True, False])
    assert grid.shape == (14, 28) and grid.periodic == (True, False)
    assert grid.num_cells == 392 and grid.num_tokens == 393
    assert grid.extents == (14.0, 28.0) and grid.is_known
    assert grid.cells == Grid((14, 28), 0, (True, False))
    sequence = Sequence(5, causal=True)
    assert sequence.shape == (5,) and sequence.num_tokens == 5
    assert sequence.cells is sequence
    for unknown in (Sequence(None), Grid((3, None))):
        assert unknown.num_tokens is None and not unknown.is_known
    assert Nodes(7).num_tokens == 7


def test_offsets_broadcast_to_a_table():
    rows, columns = map(np.asarray, Grid((3, 2)).offsets())
    assert rows.shape == (5, 1) and columns.shape == (1, 3)
    assert rows[:, 0].tolist() == [-2, -1, 0, 1, 2]
    # The shorter way round: an even ring has one token at its far end.
    for n, expected in ((4, [0, 1, 2, -1]), (5, [0, 1, 2, -2, -1])):
        (offsets,) = Grid((n,), periodic=True).offsets()
        assert np.asarray(offsets).tolist() == expected


def test_toeplitz_reads_a_table_of_offsets():
    table = np.random.default_rng(0).uniform(size=(2, 5, 3)).astype("float32")
    grid = Grid((3, 2), num_prefix_tokens=1)
    expected = ref.bordered(ref.block_toeplitz(table, (3, 2)), 1)
    ref.assert_close(ref.dense(grid.toeplitz(table)), expected, 1e-6)
    # A sum of products.
    terms = [[table[:, :, 0], table[:, 0]], [table[:, :, 1], table[:, 1]]]
    expected = sum(
        ref.kron(
            ref.block_toeplitz(rows, (3,)), ref.block_toeplitz(columns, (2,))
        )
        for rows, columns in terms
    )
    found = ref.dense(grid.toeplitz(terms))
    ref.assert_close(found, ref.bordered(expected, 1), 1e-6)
    causal = Sequence(3, causal=True).toeplitz(table[:, :, 0])
    expected = np.tril(ref.block_toeplitz(table[:, :, 0], (3,)))
    ref.assert_close(ref.dense(causal), expected, 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequence(0), "`length`.*0"),
        (lambda: Sequence(2.5), "`length`.*2.5"),
        (lambda: Grid(()), "`shape`"),
        (lambda: Grid((2, 2, 2, 2)), "`shape`"),
        (lambda: Grid(4), "`shape`.*4"),
        (lambda: Grid((2, -1)), "`shape`.*-1"),
        (lambda: Grid((2, 2), num_prefix_tokens=-1), "`num_prefix_tokens`"),
        (lambda: Grid((2, 2), num_prefix_tokens=1.5), "`num_prefix_tokens`"),
        (lambda: Grid((2, 2), periodic=(True,)), "`periodic`.*2 axes"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "Received: " in str(caught.value)
