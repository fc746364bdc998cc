"""Masks on grids whose table is a sum of products of per-axis tables."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_topo.annotations import TensorLike
from keras_topo.operators.algebra import Sum
from keras_topo.operators.dense import Dense
from keras_topo.operators.kronecker import Kronecker
from keras_topo.operators.parameters import as_tensor
from keras_topo.operators.table import (
    METHODS,
    TYPICAL_COLUMNS,
    OffsetTable,
    check_grid_shape,
    check_method,
    check_periodic,
    describe_grid,
    table_shape,
    unrolled,
)


class SeparableSum(Sum):
    """A sum of Kronecker products of 1-D Toeplitz masks.

    The matrices of short axes are made once, here, and not in every block of
    an attention.

    *Complexity*: `r L (n_1 + ... + n_d)` multiply-adds per column for `r` terms
    with dense factors. Rows come from the full table, which is small.

    Args:
        terms: list of lists of tables, as in `separable`, checked.
        grid_shape: tuple of ints.
        periodic: tuple of bools.
    """

    _fields = ("operators", "terms")

    chosen_method = "kronecker"

    def __init__(self, terms, grid_shape, periodic):
        super().__init__(
            [
                Kronecker([_prepared(f) for f in _factors(term, periodic)])
                for term in terms
            ]
        )
        self.terms = terms
        self.grid_shape = grid_shape
        self.periodic = periodic

    def full_table(self):
        """The table of signed offsets, `(*batch, 2 n_1 - 1, ..., 2 n_d - 1)`,
        along periodic axes too."""
        return unrolled(sum_of_products(self.terms), self.periodic)

    def _table(self):
        return OffsetTable(self.full_table(), self.grid_shape)

    def _for_rows(self):
        return self._table()._for_rows()

    def _rows(self, start, size):
        return self._table()._rows(start, size)

    def _rows_at(self, ids):
        return self._table()._rows_at(ids)

    def _plan(self):
        return dataclasses.replace(super()._plan(), row_step=1, rows_cost=0.0)

    def _recombine(self, operators):
        # Without the terms: other operators are not those of their tables.
        return Sum(operators)

    def _transpose(self):
        terms = [
            [f._transpose().table for f in _factors(term, self.periodic)]
            for term in self.terms
        ]
        return SeparableSum(terms, self.grid_shape, self.periodic)

    def _nonnegative(self):
        # Negative entries of the axes may have products and sums without.
        known = super()._nonnegative()
        return self._table()._nonnegative() if known is None else known

    def _traced_negative(self):
        return self._table()._traced_negative()


def separable(
    terms: Sequence[Sequence[TensorLike]],
    grid_shape: Sequence[int],
    method: Any = "auto",
    periodic: bool | Sequence[bool] = False,
) -> OffsetTable | SeparableSum:
    """The mask whose table is the sum of the outer products of `terms`.

    Args:
        terms: non-empty list of terms, each a list of one table per axis,
            `(*batch, 2 n_k - 1)`, or `(*batch, n_k)` along a periodic axis.
        grid_shape: ints `(n_1, ..., n_d)`.
        method: `"kronecker"`, `"dense"`, `"fft"`, or `"auto"` for the one
            that costs least.
        periodic: bool, or one bool per axis.

    Returns:
        For `"kronecker"` a sum of Kronecker products of 1-D Toeplitz masks,
        else the operator of the full table. Both have `full_table()`.

    Raises:
        ValueError: if a term does not have one table of the right size per
            axis.
    """
    grid_shape = check_grid_shape(grid_shape)
    periodic = check_periodic(periodic, grid_shape)
    check_method(method, (*METHODS, "kronecker"))
    terms = [[as_tensor(axis, "table", 1) for axis in term] for term in terms]
    expected = table_shape(grid_shape, periodic)
    sizes = [tuple(axis.shape[-1] for axis in term) for term in terms]
    if not terms or any(found != expected for found in sizes):
        raise ValueError(
            "a separable `table` for "
            f"{describe_grid(grid_shape, periodic)} expects terms of "
            f"{len(grid_shape)} tables of {expected} offsets. Received: terms "
            f"of {sizes}"
        )
    if method == "kronecker":
        return SeparableSum(terms, grid_shape, periodic)
    table = OffsetTable(sum_of_products(terms), grid_shape, method, periodic)
    if method == "auto":
        cost = sum(
            Kronecker(_factors(term, periodic))._cost(TYPICAL_COLUMNS)
            for term in terms
        )
        if cost < table._cost(TYPICAL_COLUMNS):
            return SeparableSum(terms, grid_shape, periodic)
    return table


def _factors(term, periodic):
    """The 1-D masks of the axes."""
    return [
        OffsetTable(
            axis,
            (axis.shape[-1] if wraps else (axis.shape[-1] + 1) // 2,),
            periodic=wraps,
        )
        for axis, wraps in zip(term, periodic, strict=True)
    ]


def _prepared(factor):
    """A 1-D mask as the matrix by which it multiplies, if it does."""
    if factor.chosen_method != "dense":
        return factor
    return Dense(factor.to_dense())


def is_separable(table):
    """Whether `table` is a list of terms, each a list of per-axis tables.

    Not a table in the form of nested lists, whose innermost items are numbers.
    """
    return isinstance(table, (list, tuple)) and all(
        isinstance(term, (list, tuple)) and all(np.ndim(x) > 0 for x in term)
        for term in table
    )


def sum_of_products(terms):
    """The table that is the sum of the outer products of `terms`."""
    total = 0.0
    for term in terms:
        rank, product = len(term), 1.0
        for k, axis in enumerate(term):
            shape = tuple(ops.shape(axis))
            ones = [1] * rank
            ones[k] = shape[-1]
            product = product * ops.reshape(axis, shape[:-1] + tuple(ones))
        total = total + product
    return total
