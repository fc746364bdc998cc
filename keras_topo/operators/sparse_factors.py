"""Masks whose low-rank factors are sparse."""

import math

import numpy as np
from keras import ops

from keras_topo._backend import sparse_product
from keras_topo.annotations import TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import (
    accumulation_dtype,
    all_known,
    as_tensor,
    nonnegative_values,
)
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_batch, broadcast_sizes
from keras_topo.operators.sparse import (
    check_pairs,
    dense_rows,
)


class SparseFactors(MaskOperator):
    """The mask `M = F G^T` of two sparse matrices `(L, features)`.

    What sampled random walks give: `F[i, k]` says how much walks from `i` are
    seen at `k`, and two nodes see each other as far as their walks meet. With
    one factor, `M = F F^T`, the mask is symmetric and positive semi-definite.

    *Complexity*: products `O(entries)` a column, rows `O(entries)` each. They
    hold the features, `(features, columns)`; TensorFlow outside of XLA nothing
    of the size of entries times columns, in either direction.

    Args:
        pairs: `(entries, 2)`, int: token and feature of each entry of `F`, the
            same for all batch axes. One listed twice has the sum; one of value
            0 may stand anywhere.
        values: `(*batch, entries)`, with batch axes of known sizes.
        num_nodes: int, `L`.
        num_features: int; defaults to `num_nodes`.
        right_pairs: `(right_entries, 2)`, of `G`; `G = F` by default.
        right_values: `(*batch, right_entries)`; the batch axes of both
            broadcast.

    Raises:
        ValueError: if `pairs` does not hold pairs, or not as many as `values`,
            or ids outside of the matrix (arrays are looked at, tensors are
            not); if a number of tokens or features is not positive; if one of
            `right_pairs` and `right_values` is missing.

    Example:

    >>> mask = SparseFactors([[0, 0], [1, 0], [1, 1]], [1.0, 2.0, 1.0], 2)
    >>> print(np.array(mask.to_dense()))
    [[1. 2.]
     [2. 5.]]
    """

    # Not the pairs: nothing is differentiated with respect to ids.
    _fields = ("values", "right_values")

    def __init__(
        self,
        pairs: TensorLike,
        values: TensorLike,
        num_nodes: int,
        num_features: int | None = None,
        right_pairs: TensorLike | None = None,
        right_values: TensorLike | None = None,
    ):
        num_features = num_nodes if num_features is None else num_features
        for name, size in (
            ("num_nodes", num_nodes),
            ("num_features", num_features),
        ):
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(
                    f"`{name}` expects a positive int. Received: "
                    f"{name}={size!r}"
                )
        num_nodes, self.num_features = int(num_nodes), int(num_features)
        sizes = num_nodes, self.num_features
        self.pairs, self.values = _factor(pairs, values, sizes, "")
        self.right_pairs = self.right_values = None
        if (right_pairs is None) != (right_values is None):
            raise ValueError(
                "`right_pairs` and `right_values` come together. Received: "
                f"{'right_values' if right_pairs is None else 'right_pairs'} "
                "alone"
            )
        batch, dtype = self.values.shape[:-1], self.values.dtype
        if right_pairs is not None:
            self.right_pairs, self.right_values = _factor(
                right_pairs, right_values, sizes, "right_"
            )
            batch = broadcast_batch(batch, self.right_values.shape[:-1])
            if self.right_values.dtype != dtype:
                dtype = accumulation_dtype(dtype, self.right_values.dtype)
        super().__init__((*batch, num_nodes, num_nodes), dtype)

    def _plan(self):
        length = self.num_tokens
        _, (right_pairs, _) = self._factors()
        left = costs.ELEMENT * length * self.num_features
        return Plan(
            layouts=(length,),
            held_per_column=2 * length + self.num_features,
            # Entries are read once for several columns.
            fewest_columns=16 * max(1, math.prod(self.batch_shape)),
            rows_cost=left + self._entries_cost(right_pairs, length),
        )

    def _factors(self):
        left = self.pairs, self.values
        if self.right_pairs is None:
            return left, left
        return left, (self.right_pairs, self.right_values)

    def _apply(self, x):
        x = ops.squeeze(x, -1)
        (pairs, values), (right_pairs, right_values) = self._factors()
        x = multiply(
            right_pairs[:, 1],
            right_pairs[:, 0],
            ops.cast(right_values, x.dtype),
            x,
            self.num_features,
        )
        x = multiply(
            pairs[:, 0],
            pairs[:, 1],
            ops.cast(values, x.dtype),
            x,
            self.num_tokens,
        )
        return ops.expand_dims(x, -1)

    def _rows(self, start, size):
        # Rows of F, and G times their transpose.
        (pairs, values), (right_pairs, right_values) = self._factors()
        dtype = accumulation_dtype(self.dtype)
        left = dense_rows(
            pairs, ops.cast(values, dtype), start, size, self.num_features
        )
        rows = multiply(
            right_pairs[:, 0],
            right_pairs[:, 1],
            ops.cast(right_values, dtype),
            ops.swapaxes(left, -1, -2),
            self.num_tokens,
        )
        return ops.cast(ops.swapaxes(rows, -1, -2), self.dtype)

    def _transpose(self):
        if self.right_pairs is None:
            return self
        return SparseFactors(
            self.right_pairs,
            self.right_values,
            self.num_tokens,
            self.num_features,
            self.pairs,
            self.values,
        )

    def _nonnegative(self):
        found = [
            nonnegative_values(values)
            for values in (self.values, self.right_values)
            if values is not None
        ]
        # Negative factors may have a product without negative entries.
        return all_known(found) or None

    def _cost(self, columns):
        return sum(
            self._entries_cost(pairs, columns) for pairs, _ in self._factors()
        )

    def _entries_cost(self, pairs, columns):
        entries = pairs.shape[0]
        if entries is None:
            entries = 32 * self.num_tokens  # a guess
        return 4 * costs.LAUNCH + 3 * costs.ELEMENT * entries * columns


def _factor(pairs, values, sizes, side):
    """The entries of a factor, checked, as tensors."""
    pairs = check_pairs(pairs, sizes, f"{side}pairs", ("tokens", "features"))
    values = as_tensor(values, f"{side}values", 1)
    counts = {pairs.shape[0], values.shape[-1]} - {None}
    if len(pairs.shape) != 2 or len(counts) > 1:
        raise ValueError(
            f"`{side}pairs` expects the shape (entries, 2) and `{side}values` "
            f"(..., entries). Received: {side}pairs of shape "
            f"{tuple(pairs.shape)}, {side}values of shape "
            f"{tuple(values.shape)}"
        )
    if None in values.shape[:-1]:
        # There is one product for each set of values.
        raise ValueError(
            f"`{side}values` expects batch axes of known sizes. Received: "
            f"{side}values of shape {tuple(values.shape)}"
        )
    return pairs, values


def multiply(rows, columns, values, x, num_rows):
    """A sparse matrix, one for each batch entry of its values, times `x`.

    Args:
        rows, columns: `(entries,)`.
        values: `(*batch, entries)`.
        x: `(*lead, n, c)`, whose lead broadcasts against `batch`.
        num_rows: int.

    Returns:
        `(*lead, num_rows, c)`, lead and batch broadcast.
    """
    size, channels = tuple(ops.shape(x))[-2:]
    batch = tuple(values.shape[:-1])
    # The known sizes of the values first: those of x may be traced.
    lead = broadcast_sizes(batch, tuple(ops.shape(x))[:-2])
    x = ops.broadcast_to(x, lead + (size, channels))
    entries = tuple(ops.shape(values))[-1]
    # One product for each set of values; other axes are columns of it.
    while batch and batch[0] == 1:
        batch, values = batch[1:], ops.squeeze(values, 0)
    rank = len(batch)
    outer, inner = lead[: len(lead) - rank], lead[len(lead) - rank :]
    copies = math.prod(inner)
    values = ops.broadcast_to(values, tuple(inner) + (entries,))
    values = ops.reshape(values, (copies, entries))
    x = ops.reshape(x, (math.prod(outer), copies, size, channels))
    x = ops.transpose(x, (1, 2, 0, 3))
    products = []
    for k in range(copies):
        flat = ops.reshape(x[k], (size, math.prod(outer) * channels))
        products.append(
            sparse_product(values[k], flat, rows, columns, num_rows)
        )
    y = ops.stack(products)
    y = ops.reshape(y, (copies, num_rows, math.prod(outer), channels))
    y = ops.transpose(y, (2, 0, 1, 3))
    return ops.reshape(y, lead + (num_rows, channels))
