"""Hankel products of sums by distance, group by group."""

import numpy as np
from keras import ops

from keras_topo._backend import constant, matmul
from keras_topo.host.distances import ranks
from keras_topo.operators.toeplitz import Toeplitz


class Buckets:
    """Sums by group (a component, or a part) and by distance.

    Groups that need about as many buckets stand together, each with the same
    number, so that one product serves them all.

    Args:
        group: `(n,)`, ints from 0.
        distance: `(n,)`; ints with a common step.
        number: numbers distances, for products over those that there are;
            `None` for Hankel products over all multiples of the step.
        single: `(groups,)`, bool: groups without a product, of one node.

    Attributes:
        count: int.
        of_node: `(n,)`, the bucket of each node.
    """

    def __init__(self, group, distance, number, single=None):
        groups = int(group.max()) + 1
        if single is None:
            single = np.zeros(groups, bool)
        place, values, owner = distance, np.empty(0), np.empty(0, int)
        if number is not None:
            place, values, owner = ranks(group, distance)
        most = np.zeros(groups, np.int64)
        np.maximum.at(most, group, place)
        # Powers of two: a few products a level.
        width = 2 ** np.ceil(np.log2(most + 1)).astype(np.int64)
        width[single] = 0
        self._blocks, self.count = [], 0
        first = np.empty(groups, np.int64)
        for size in np.unique(width):
            members = np.flatnonzero(width == size)
            step = max(int(size), 1)
            first[members] = self.count + step * np.arange(len(members))
            block = Block(self.count, len(members), int(size))
            if number is not None and size:
                table = np.full((len(members), size), np.nan)
                row = np.full(groups, -1)
                row[members] = np.arange(len(members))
                mine = row[owner] >= 0
                column = np.concatenate(
                    [np.arange(k) for k in np.bincount(owner[mine])]
                )
                table[row[owner[mine]], column] = values[mine]
                block.set_distances(table, number)
            self._blocks.append(block)
            self.count += step * len(members)
        self.of_node = first[group] + np.where(single[group], 0, place)

    @property
    def work(self):
        return sum(block.work for block in self._blocks)

    def number(self, numbers):
        for block in self._blocks:
            block.number(numbers)

    def multiply(self, sums, values, method):
        """`O[t] = sum_s f(s + t) X[s]` in every group; zero in single ones."""
        found = [
            block.multiply(sums[block.start : block.stop], values, method)
            for block in self._blocks
        ]
        return ops.concatenate(found, axis=0)


class Block:
    """`rows` groups of `size` buckets each; of one and no product for 0."""

    def __init__(self, start, rows, size):
        self.start, self.rows, self.size = start, rows, size
        self.stop = start + rows * max(size, 1)
        self._sums = self._index = None

    @property
    def work(self):
        if not self.size:
            return 0
        per_row = self.size * min(self.size, 40 * self.size.bit_length())
        return self.rows * per_row

    def set_distances(self, table, numbers):
        """Distances of buckets, `(rows, size)`, nan where there are none."""
        numbers.count(table.size * self.size)
        self._sums = table[:, :, None] + table[:, None, :]
        numbers.add(self._sums[~np.isnan(self._sums)])

    def number(self, numbers):
        if self._sums is not None:
            self._index = numbers.index(self._sums).astype("int32")
            self._used = ~np.isnan(self._sums)
            self._sums = None

    def multiply(self, sums, values, method):
        if not self.size:
            return ops.zeros_like(sums)
        if self._index is not None:
            matrix = ops.take(values, constant(self._index), axis=-1)
            used = constant(self._used)
            matrix = ops.where(used, matrix, ops.zeros_like(matrix))
            return multiply_rows(
                sums, self.rows, self.size, lambda z: matmul(matrix, z)
            )
        # A Hankel matrix is a Toeplitz matrix of the reversed order. Beyond
        # the table there are no two nodes.
        need = 2 * self.size - 1
        table = values[..., :need]
        missing = need - table.shape[-1]
        if missing > 0:
            zeros = ops.zeros_like(table[..., :1])
            table = ops.concatenate(
                [table, ops.repeat(zeros, missing, axis=-1)], axis=-1
            )
        column = table[..., self.size - 1 :]
        row = ops.flip(table[..., : self.size], -1)
        hankel = Toeplitz(
            ops.expand_dims(column, -2), ops.expand_dims(row, -2), method
        )
        return multiply_rows(
            sums, self.rows, self.size, lambda z: hankel @ ops.flip(z, -2)
        )


def multiply_rows(x, rows, size, product):
    """`product` on `(*lead, rows, size, columns)`, for `x` of shape `(rows *
    size, *lead, columns)` and back."""
    shape = tuple(ops.shape(x))
    rank = len(shape)
    x = ops.reshape(x, (rows, size) + shape[1:])
    lead = list(range(2, rank))
    x = ops.transpose(x, (*lead, 0, 1, rank))
    x = product(x)
    x = ops.transpose(x, (rank - 2, rank - 1, *range(rank - 2), rank))
    return ops.reshape(x, shape)
