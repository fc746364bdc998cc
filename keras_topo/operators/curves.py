"""Masks that decay along curves through a grid.

A curve visits every cell of a grid once, and a mask that decays along it is
computed in linear time. One curve keeps some neighbors close to each other and
separates others; the mean over a few curves keeps them all.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo._backend import constant
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.algebra import Scaled, Sum
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.chunked import CHUNK, capped, chunked_attention
from keras_topo.operators.decay import ExponentialDecay
from keras_topo.operators.forms import Form, Problem
from keras_topo.operators.ordered import as_rates
from keras_topo.operators.parameters import (
    accumulation_dtype,
    as_tensor,
    nonnegative_values,
    traced_negative,
)
from keras_topo.operators.permuted import Permuted
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_batch


def curve_decay(
    grid_shape: Sequence[int],
    rates: TensorLike,
    curves: Sequence[str | ArrayLike] = ("rows", "columns"),
    scale: TensorLike | None = None,
) -> "CurveDecay":
    """The mask of the mean of decays along curves through a grid.

    `M = s * mean_k P_k^T E(gamma_k) P_k`, where `P_k` brings the tokens of the
    grid into the order of curve `k`, and `E(gamma)[i, j] = exp(-gamma |i -
    j|)`: the mask of Violin for the two snakes, rows and columns.

    *Complexity*: that of an `ExponentialDecay` for every curve.

    Args:
        grid_shape: ints, `(n_1, ..., n_d)`, of one to three axes. Tokens are
            in row-major order.
        rates: `(*batch, num_curves)`, the rates of decay, not negative.
        curves: names of curves, see `curve_order`, or other orders: `(L,)`,
            ints, the token at each position of the curve.
        scale: number or `(*batch,)`, `s`; one by default.

    Returns:
        `CurveDecay` of shape `(*batch, L, L)`.

    Raises:
        ValueError: if a curve is not known or is no order of the grid, if the
            numbers of rates and curves differ, or if a rate is known to be
            negative or not a number.

    Example:

    >>> mask = curve_decay((2, 2), [np.log(2.0), np.log(2.0)])
    >>> print(np.array(mask.to_dense()).round(4))
    [[1.     0.3125 0.3125 0.25  ]
     [0.3125 1.     0.25   0.5   ]
     [0.3125 0.25   1.     0.5   ]
     [0.25   0.5    0.5    1.    ]]
    """
    return CurveDecay(grid_shape, rates, curves, scale)


class CurveDecay(MaskOperator):
    """The operator that `curve_decay` makes; see there for its arguments and an
    example.

    *Complexity*: a product takes a gather of the tokens and an
    `ExponentialDecay` per curve. In attention, queries, keys and values are
    gathered, and all curves are one call of `chunked_attention`.
    """

    _fields = ("rates", "scale")

    def __init__(
        self,
        grid_shape: Sequence[int],
        rates: TensorLike,
        curves: Sequence[str | ArrayLike] = ("rows", "columns"),
        scale: TensorLike | None = None,
    ):
        self.grid_shape = check_curve_grid(grid_shape)
        self.rates = as_rates(rates, "rates", 1)
        self._orders = _orders(self.grid_shape, curves)
        count = len(self._orders)
        if self.rates.shape[-1] != count:
            raise ValueError(
                f"`rates` expects one rate per curve, {count} in the last "
                f"axis. Received: rates of shape {tuple(self.rates.shape)}"
            )
        batch = tuple(self.rates.shape)[:-1]
        self.scale = None
        if scale is not None:
            scale = as_tensor(scale, "scale", 0)
            self.scale = ops.cast(scale, self.rates.dtype)
            batch = broadcast_batch(batch, tuple(self.scale.shape))
        length = math.prod(self.grid_shape)
        super().__init__((*batch, length, length), self.rates.dtype)

    def _sum(self):
        """The mask from the operators that it is made of."""
        terms = []
        for k, order in enumerate(self._orders):
            decay = ExponentialDecay(self.rates[..., k], self.num_tokens)
            inverse = np.argsort(order).astype("int32")
            terms.append(Permuted(decay, order, inverse))
        return Scaled(Sum(terms), self._weight())

    def _weight(self):
        one = ops.ones((), self.dtype) if self.scale is None else self.scale
        return one / len(self._orders)

    def _plan(self):
        length = self.num_tokens
        return Plan(layouts=(length,), held_per_column=3 * length)

    def _apply(self, x):
        return self._sum().apply(x)

    def _rows_at(self, ids):
        # As in `ExponentialDecay`: infinity times zero is NaN, and in float16
        # distances are infinite.
        dtype = accumulation_dtype(self.dtype)
        rates = capped(ops.cast(self.rates, dtype))
        total = 0
        for k, order in enumerate(self._orders):
            position = constant(np.argsort(order).astype("int32"))
            distance = ops.abs(
                ops.expand_dims(ops.take(position, ids), -1) - position
            )
            rate = ops.expand_dims(rates[..., k], (-2, -1))
            total = total + ops.exp(-rate * ops.cast(distance, dtype))
        total = total * ops.cast(
            ops.expand_dims(self._weight(), (-2, -1)), dtype
        )
        return ops.cast(total, self.dtype)

    def _transpose(self):
        return self

    def _nonnegative(self):
        return True if self.scale is None else nonnegative_values(self.scale)

    def _traced_negative(self):
        return None if self.scale is None else traced_negative(self.scale)

    def _cost(self, columns):
        return self._sum()._cost(columns)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        cost = self._curves_cost(problem)
        return (Form("curves in chunks", cost, self._attend_curves),)

    def _attend_curves(self, query, key, value):
        """All curves in one call of `chunked_attention`."""
        batch, heads, length, num_features = tuple(ops.shape(query))
        value_dim = value.shape[-1]
        orders = np.stack(self._orders)
        count = len(orders)
        # One gather for all: it costs what copying its result does.
        tokens = ops.concatenate([query, key, value], axis=-1)
        tokens = along_curves(tokens, orders)
        tokens = ops.reshape(
            tokens, (batch, heads * count, length, tokens.shape[-1])
        )
        query, key, value = ops.split(
            tokens, [num_features, 2 * num_features], axis=-1
        )
        rates = self.rates
        while len(rates.shape) < 3:
            rates = ops.expand_dims(rates, 0)
        rates = ops.broadcast_to(rates, (ops.shape(rates)[0], heads, count))
        rates = ops.reshape(rates, (-1, heads * count, 1))
        y = ops.concatenate(
            chunked_attention(query, key, value, rates, rates), axis=-1
        )
        y = ops.reshape(y, (batch, heads, count, length, value_dim + 1))
        y = from_curves(y, orders)
        weight = ops.cast(self._weight(), y.dtype)
        y = y * ops.expand_dims(weight, (-2, -1))
        return y[..., :-1], y[..., -1:]

    def _curves_cost(self, problem):
        """Work of `_attend_curves`."""
        features, columns = problem.num_features, problem.value_dim + 1
        products = CHUNK * (features + columns) + 6 * features * columns
        elements = 2 * CHUNK + 10 * (features + columns)
        tokens = problem.batch * problem.heads * problem.length
        return 32 * costs.LAUNCH + len(self._orders) * tokens * (
            costs.BATCHED_PRODUCT * products + costs.ELEMENT * elements
        )


# Tokens along curves. Each of the two is the gradient of the other: nothing is
# scattered.


def along_curves(x: Tensor, orders: np.ndarray) -> Tensor:
    """`(..., L, columns)` to `(..., K, L, columns)`, for `orders` `(K, L)`."""

    @ops.custom_gradient
    def gather(x):
        def gradient(*arguments, upstream=None):
            return from_curves(_upstream(arguments, upstream), orders)

        lead, columns = tuple(ops.shape(x))[:-2], x.shape[-1]
        y = ops.take(x, orders.reshape(-1), axis=-2)
        return ops.reshape(y, (*lead, *orders.shape, columns)), gradient

    return gather(x)


def from_curves(y: Tensor, orders: np.ndarray) -> Tensor:
    """The transpose: each curve back in the order of the grid, and summed."""
    count, length = orders.shape
    back = np.argsort(orders, axis=-1) + length * np.arange(count)[:, None]

    @ops.custom_gradient
    def gather(y):
        def gradient(*arguments, upstream=None):
            return along_curves(_upstream(arguments, upstream), orders)

        lead, columns = tuple(ops.shape(y))[:-3], y.shape[-1]
        flat = ops.reshape(y, (*lead, count * length, columns))
        total = 0
        for ids in back.astype("int32"):
            total = total + ops.take(flat, ids, axis=-2)
        return total, gradient

    return gather(y)


def _upstream(arguments, upstream):
    # The backends hand the gradient over in different ways.
    return arguments[0] if upstream is None else upstream


# The curves.


def curve_order(grid_shape: Sequence[int], curve: str) -> np.ndarray:
    """The order in which a curve visits the cells of a grid.

    - `"rows"`: the snake by rows, back and forth along the last axis; layer by
      layer on grids of three axes.
    - `"columns"`: the same along the first axis.
    - `"diagonal"`: by diagonals, cells of one sum of coordinates, back and
      forth; on grids of three axes by planes of one sum, each of them a snake.
    - `"hilbert"`: a Hilbert curve generalized to any sizes. A box is halved
      along the axis of travel if it is long, and otherwise passed in a `U`
      whose sides are boxes again. It begins at the first cell and ends beside
      it at the end of an axis.
    - `"diagonal_transposed"`, `"hilbert_transposed"`: those of the grid with
      its axes reversed.

    Snakes and Hilbert curves step from cells to neighbors.

    Args:
        grid_shape: ints, of one to three axes.
        curve: string, the name of the curve.

    Returns:
        `(L,)`, int32, read-only: the cell at each position of the curve, cells
        being numbered in row-major order.

    Raises:
        ValueError: if the shape is no grid of one to three axes, or the name
            is not known.

    Example:

    >>> print(curve_order((2, 3), "rows"))
    [0 1 2 5 4 3]
    """
    if not isinstance(curve, str) or curve not in CURVES:
        raise ValueError(
            f"`curve` expects one of {sorted(CURVES)}. Received: "
            f"curve={curve!r}"
        )
    return _cached_order(check_curve_grid(grid_shape), curve)


def check_curve_grid(grid_shape):
    """A tuple of ints.

    Raises:
        ValueError: unless it has one to three sizes of at least 1.
    """
    sizes = tuple(grid_shape) if np.iterable(grid_shape) else ()
    if not 1 <= len(sizes) <= 3 or not all(
        isinstance(n, (int, np.integer)) and n >= 1 for n in sizes
    ):
        raise ValueError(
            "`grid_shape` expects one to three ints of at least 1. Received: "
            f"grid_shape={grid_shape!r}"
        )
    return tuple(int(n) for n in sizes)


def _orders(grid_shape, curves):
    """The orders of curves given by names or as arrays."""
    if np.iterable(curves) and not isinstance(curves, str):
        curves = list(curves)
    if not isinstance(curves, list) or not curves:
        raise ValueError(
            "`curves` expects a non-empty list of names and orders. Received: "
            f"curves={curves!r}"
        )
    return [
        curve_order(grid_shape, curve)
        if isinstance(curve, str)
        else _check_order(grid_shape, curve)
        for curve in curves
    ]


def _check_order(grid_shape, curve):
    order, length = np.asarray(curve), math.prod(grid_shape)
    if (
        order.shape != (length,)
        or order.dtype.kind not in "iu"
        or not np.array_equal(np.sort(order), np.arange(length))
    ):
        raise ValueError(
            "`curves` expects names, or orders that hold each of the "
            f"{length} cells of a grid of shape {grid_shape} once. Received: "
            f"an array of shape {order.shape} and dtype {order.dtype}"
        )
    return order.astype("int32")


@functools.lru_cache(maxsize=256)
def _cached_order(grid_shape, curve):
    cells, reverse_axes = CURVES[curve]
    visited = cells(grid_shape[::-1] if reverse_axes else grid_shape)
    visited = visited[:, ::-1] if reverse_axes else visited
    order = np.ravel_multi_index(tuple(visited.T), grid_shape).astype("int32")
    order.flags.writeable = False
    return order


def _snake(grid_shape):
    """`(L, axes)`, the coordinates along the snake by rows."""
    if not grid_shape:
        return np.zeros((1, 0), int)
    inner = _snake(grid_shape[1:])
    return np.concatenate(
        [
            np.insert(inner[::-1] if k % 2 else inner, 0, k, axis=1)
            for k in range(grid_shape[0])
        ]
    )


def _diagonal(grid_shape):
    """Coordinates by diagonals: sorted by their sum; then, in every second
    diagonal the other way, by the first axis, and so on."""
    cells = np.indices(grid_shape).reshape(len(grid_shape), -1).T
    total = cells.sum(axis=1)
    turn = np.where(total % 2, -1, 1)
    keys = [total]
    for axis in range(len(grid_shape) - 1):
        keys.append(turn * cells[:, axis])
        turn = turn * np.where(cells[:, axis] % 2, -1, 1)
    return cells[np.lexsort(keys[::-1])]


def _hilbert(grid_shape):
    """Coordinates along the generalized Hilbert curve.

    Between corners at the ends of an axis there is a path through a box only
    if that axis is even or all are odd. All boxes below are such.
    """
    sides = [
        n * np.eye(len(grid_shape), dtype=int)[axis]
        for axis, n in enumerate(grid_shape)
    ]
    lines = _box(np.zeros(len(grid_shape), int), _first_even(sides))
    return np.concatenate(list(lines))


def _first_even(sides):
    """`sides` with the axis of travel first: the longest even one, if any."""

    def preference(k):
        size = _size(sides[k])
        return (size % 2 == 0, size)

    first = max(range(len(sides)), key=preference)
    return [sides[first], *sides[:first], *sides[first + 1 :]]


def _size(side):
    return int(np.abs(side).sum())


def _box(start, sides):
    """Pieces of the path through a box from the corner `start` to the other
    end of the first of its `sides`, vectors along the axes."""
    along, *others = sides
    others = [side for side in others if _size(side) > 1]
    n, step = _size(along), np.sign(along)
    if not others:
        yield start + np.arange(n)[:, None] * step
        return
    others.sort(key=_size, reverse=True)
    across, *rest = others
    width = _size(across)
    if n == 2:
        # There through one slice, back through the other.
        side, *beside = _first_even(others)
        end = start + step + side - np.sign(side)
        yield from _box(start, [side, *beside])
        yield from _box(end, [-side, *beside])
    elif width == 2 or 2 * n > 3 * width:
        half = _even_half(n) * step
        yield from _box(start, [half, *others])
        yield from _box(start + half, [along - half, *others])
    else:
        up = _even_half(width) * np.sign(across)
        half = n // 2 * step
        yield from _box(start, [up, half, *rest])
        yield from _box(start + up, [along, across - up, *rest])
        corner = start + (along - step) + (up - np.sign(up))
        yield from _box(corner, [-up, half - along, *rest])


def _even_half(n):
    """The even number next to half of `n`, at least 2 and below `n`."""
    return max(2, 2 * round(n / 4))


# Names: the coordinates along the curve, and whether the axes are reversed.
CURVES = {
    "rows": (_snake, False),
    "columns": (_snake, True),
    "diagonal": (_diagonal, False),
    "diagonal_transposed": (_diagonal, True),
    "hilbert": (_hilbert, False),
    "hilbert_transposed": (_hilbert, True),
}
