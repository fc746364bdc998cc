"""Masks whose low-rank factors are sparse."""

import math

from keras import ops

from keras_topo._backend import sparse_product
from keras_topo.operators import cost as costs
from keras_topo.operators.base import (
    MaskOperator,
    all_known,
    as_tensor,
    broadcast_batch,
    nonnegative_values,
)
from keras_topo.operators.sparse import broadcast_sizes, check_pairs


class SparseFactors(MaskOperator):
    """The mask `M = F G^T` of two sparse matrices `(L, features)`.

    What sampled random walks give: `F[i, k]` says how much walks from `i` are
    seen at `k`, and two nodes see each other as far as their walks meet. With
    one factor, `M = F F^T`, the mask is symmetric and positive semi-definite.

    *Complexity*: products `O(entries)` a column, which hold the features,
    `(features, columns)`, and nothing of the size of the entries.

    Args:
        pairs: `(entries, 2)`, int: token and feature of each entry of `F`. One
            listed twice has the sum; one of value 0 may stand anywhere.
        values: `(*batch, entries)`.
        num_nodes: int, `L`.
        num_features: int; defaults to `num_nodes`.
        right_pairs: `(entries, 2)`, of `G`; defaults to `F`.
        right_values: `(*batch, entries)`.

    Raises:
        ValueError: if `pairs` does not hold pairs, or not as many as `values`,
            or one of `right_pairs` and `right_values` is missing.

    Example:

    >>> SparseFactors([[0, 0], [1, 0], [1, 1]], [1.0, 2.0, 1.0], 2).to_dense()
    [[1., 2.],
     [2., 5.]]
    """

    # Not the pairs: nothing is differentiated with respect to ids.
    _fields = ("values", "right_values")

    def __init__(
        self,
        pairs,
        values,
        num_nodes,
        num_features=None,
        right_pairs=None,
        right_values=None,
    ):
        self.num_features = num_nodes if num_features is None else num_features
        self.pairs, self.values = _factor(pairs, values, "")
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
                right_pairs, right_values, "right_"
            )
            batch = broadcast_batch(batch, self.right_values.shape[:-1])
        super().__init__((*batch, num_nodes, num_nodes), dtype)

    @property
    def _layouts(self):
        return (self.num_tokens,)

    @property
    def _held_per_column(self):
        return 2 * self.num_tokens + self.num_features

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
        entries = sum(pairs.shape[0] or 0 for pairs, _ in self._factors())
        return 8 * costs.LAUNCH + 3 * costs.ELEMENT * entries * columns


def _factor(pairs, values, side):
    pairs, values = check_pairs(pairs), as_tensor(values, f"{side}values", 1)
    if len(pairs.shape) != 2 or pairs.shape[0] != values.shape[-1]:
        raise ValueError(
            f"`{side}pairs` expects the shape (entries, 2) and `{side}values` "
            f"(..., entries). Received: {side}pairs of shape "
            f"{tuple(pairs.shape)}, {side}values of shape "
            f"{tuple(values.shape)}"
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
    lead = broadcast_sizes(tuple(ops.shape(x))[:-2], batch)
    x = ops.broadcast_to(x, lead + (size, channels))
    rank = len(batch)
    outer, inner = lead[: len(lead) - rank], lead[len(lead) - rank :]
    # One product for each set of values; other axes are columns of it.
    copies = math.prod(inner)
    entries = values.shape[-1]
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
