"""Masks that are any function of the distance in a forest."""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo._backend import concrete
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.host.forest import Forest
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.centroid_plan import CentroidPlan
from keras_topo.operators.forest import host_array, shared_plan
from keras_topo.operators.layouts import relayout
from keras_topo.operators.parameters import (
    CHECKED_ENTRIES,
    as_tensor,
    nonnegative_values,
)
from keras_topo.operators.plan import Plan

# Tokens up to which zeros in explicit rows of the mask are exact by themselves.
EXACT_ROWS = 8192
# Beyond them, what is smaller relative to the largest entry is a zero.
NOISE = 4e-6


class ForestDistance(MaskOperator):
    """The mask `M[i, j] = f(dist(i, j))` on the nodes of a forest, for any `f`.

    `dist` is the sum of the weights of the edges between two nodes; nodes of
    different trees do not see each other.

    The product cuts each tree at its centroid and sums the inputs by their
    distance `s` from it, `X[s]`. Nodes at a distance `t` receive `O[t] = sum_s
    f(s + t) X[s]`, a Hankel product, by FFT where it is long. Between nodes in
    the same part the path does not pass through the centroid, so the same sum
    over their part is subtracted. The parts are cut in turn, all at once, down
    to components of 32 nodes (more in forests of fewer than 32,768), within
    which the matrix is used as it is.

    Weights that are multiples of a common step are handled like edges of that
    many steps. Other weights, and those far larger than their common step, go
    by the distinct distances from each centroid, which have to be few in
    forests of more than 8,192 nodes.

    Explicit rows of more than 8,192 tokens, which softmax attention uses, have
    zeros for entries below 4e-6 times the largest value of `f`.

    *Complexity*: products of `O(L log^2 L)` operations per column in `O(log L)`
    steps, preparation on the host `O(L log^2 L)`; without a common step
    `O(L K log L)` for `K` distinct distances from a centroid.

    Args:
        parents: `(L,)`, ints on the host: the parent of each node, -1 for
            roots; or a `keras_topo.graphs.Forest`.
        f: a function from distances `(n,)`, a tensor in `floatx`, to values
            `(*batch, n)`, finite also at twice the longest distance; or its
            table, `(*batch, n)`, at the distances `0, 1, 2, ...` in steps, as
            many as the longest path has and one.
        edge_weights: `(L,)`, non-negative, of the edge between a node and its
            parent; of roots it is not used. `None` for ones.

    Raises:
        ValueError: if `parents` is not a forest, a weight is negative or not
            finite, the table is too short, a value of `f` is not finite, or the
            weights of a large forest have neither a common step nor few
            distinct distances.

    Example:

    >>> mask = ForestDistance([-1, 0, 0], lambda d: 1 / (1 + d))
    >>> print(np.array(mask.to_dense()).round(2))
    [[1.   0.5  0.5 ]
     [0.5  1.   0.33]
     [0.5  0.33 1.  ]]
    """

    _fields = ("values",)

    def __init__(
        self,
        parents: Forest | ArrayLike,
        f: Callable[[Tensor], Tensor] | TensorLike,
        edge_weights: ArrayLike | None = None,
    ):
        forest = parents
        if not isinstance(forest, Forest):
            forest = Forest.from_parents(forest)
        weights = check_weights(edge_weights, forest)
        self._tree = shared_plan(CentroidPlan, forest, weights)
        distances = self._tree.distances
        if callable(f):
            given = ops.convert_to_tensor(distances, keras.config.floatx())
            values = as_tensor(f(given), "f", 0)
            if tuple(values.shape[-1:]) != (len(distances),):
                raise ValueError(
                    "`f` expects a function from distances of shape "
                    f"({len(distances)},) to values of shape (..., "
                    f"{len(distances)}). Received: f whose values have the "
                    f"shape {tuple(values.shape)}"
                )
        else:
            if isinstance(f, str):
                raise ValueError(
                    "`f` expects a function of distances, or a table of its "
                    f"values. Received: f={f!r}"
                )
            values = as_tensor(f, "f", 1)
            if not self._tree.common_step:
                raise ValueError(
                    "`f` expects a function where the weights of edges have no "
                    "common step, or one far shorter than they are. Received: "
                    "f as a table of shape "
                    f"{tuple(values.shape)}"
                )
            if values.shape[-1] < len(distances):
                raise ValueError(
                    f"`f` expects a table of at least {len(distances)} values, "
                    "one for each distance on the longest path. Received: a "
                    f"table of shape {tuple(values.shape)}"
                )
        # What a longer table has beyond would get into the FFTs.
        values = values[..., : len(distances)]
        check_finite(values, distances)
        self.values = values
        # Without weights of their own there are two nodes at every distance.
        positive = np.ones(1) if weights is None else weights[weights > 0]
        self._all_occur = bool((positive == positive[:1]).all())
        length = forest.num_nodes
        super().__init__((*values.shape[:-1], length, length), values.dtype)

    def _plan(self):
        length = self.num_tokens
        return Plan(
            layouts=(length,),
            held_per_column=length,
            # Values of `f` are looked up anew for every product.
            fewest_columns=min(max(64, self._tree.entries // length), 512),
            rows_cost=self._unit_cost,
        )

    def _apply(self, x, method="auto"):
        values = ops.cast(self.values, x.dtype)
        y = self._tree.apply(ops.squeeze(x, -1), values, method)
        return ops.expand_dims(y, -1)

    def _unit_product(self, x):
        # An FFT leaves noise where there should be zeros. Without one, long
        # trees would take matrices that are too large.
        exact = self.num_tokens <= EXACT_ROWS
        y = self._apply(
            relayout(x, self.num_tokens), "dense" if exact else "auto"
        )
        if not exact:
            values = ops.abs(ops.cast(self.values, y.dtype))
            largest = ops.max(values, axis=-1)[..., None, None, None]
            y = ops.where(ops.abs(y) < NOISE * largest, ops.zeros_like(y), y)
        return relayout(y, x.shape[-3])

    def _transpose(self):
        return self

    def _nonnegative(self):
        if concrete(self.values) is None:
            return None
        known = nonnegative_values(self.values)
        if known is not False or self._all_occur:
            return known
        # Negative values may be at distances that no two nodes have.
        entries = math.prod(self.shape)
        if entries > CHECKED_ENTRIES:
            return None
        return nonnegative_values(self.to_dense())

    def _cost(self, columns):
        plan = self._tree
        return (
            20 * costs.LAUNCH * (1 + len(plan.levels))
            + columns * plan.work
            + 10 * costs.ELEMENT * self.num_tokens * columns * len(plan.levels)
        )


def check_finite(values, distances):
    """An FFT would spread what is not finite over a whole tree."""
    known = concrete(values)
    if known is None:
        return
    wrong = ~np.isfinite(known)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"`f` expects finite values at distances up to {distances[-1]:g}. "
            f"Received: {known[at]} at the distance {distances[at[-1]]:g}"
        )


def check_weights(edge_weights, forest):
    """`(L,)`, float64 or `None`; zero at roots."""
    if edge_weights is None:
        return None
    weights = host_array(edge_weights)
    if weights.shape != forest.parents.shape:
        raise ValueError(
            f"`edge_weights` expects the shape {forest.parents.shape}. "
            f"Received: edge_weights of shape {weights.shape}"
        )
    weights = np.where(forest.parents >= 0, weights, 0)
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(bad):
        raise ValueError(
            "`edge_weights` expects finite numbers that are not negative. "
            f"Received: {weights[bad[0]]} for the edge of node {bad[0]}"
        )
    return weights
