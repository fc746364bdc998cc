"""Resolvents on grids: paths from a corner, and sums of corners."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_topo._backend import constant, scan, staged
from keras_topo.annotations import TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.algebra import Sum
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import as_tensor, known_value
from keras_topo.operators.plan import Plan
from keras_topo.operators.resolvent import check_weights
from keras_topo.operators.resolvent_solvers import nodes_first, solve
from keras_topo.operators.toeplitz import BlockToeplitz


class GridResolvent(MaskOperator):
    """The resolvent of a grid whose edges lead away from one corner.

    Cell `i` is reached from its neighbor `i - e_k` nearer to the corner, for
    each axis `k`: `y_i = x_i + sum_k w_k(i) y_{i - e_k}`. `M[i, j]` sums over
    all monotone paths from `j` to `i` the products of their weights, and is
    zero where there is none. With constant weights `a` per step to the right
    and `b` per step down,

        M = binom(dr + dc, dr) b^dr a^dc,    dr, dc >= 0

    and a sequence has the one-sided decay `a^(i - j)`.

    The product goes from the corner in wavefronts, which hold the cells at the
    same distance from it, for weights of any size; sequences in parts of
    `sqrt(L)` tokens. Nothing is inverted. Gradients are the product with the
    transposed mask, from the opposite corner, differentiable to any order.
    Entries beyond the range of the dtype, as weights above one lead to, are not
    finite.

    *Complexity*: `n_1 + ... + n_d - d + 1` wavefronts, each of the cells of the
    grid without its longest axis: `O(d^2 L)` per column on grids of equal
    sides; `O(L)` for a sequence, in about `2 sqrt(L)` steps. Products hold
    about `1 + 3 d` times `x`.

    Args:
        weights: not negative. `(*batch, d)`, constant along each axis; or, with
            `per_edge`, `(*batch, d, n_1, ..., n_d)`: the weight of the edge
            into each cell along each axis, which cells on the border that have
            no neighbor there ignore. Differentiable.
        grid_shape: `(n_1, ..., n_d)`; tokens in row-major order.
        corner: `(d,)` of 0 and 1: whether edges lead along each axis from its
            start, 0, or from its end, 1. From the first cell by default.
        per_edge: bool.

    Raises:
        ValueError: if sizes are not positive, shapes do not match, a corner has
            other numbers than 0 and 1, or known weights are negative or not
            finite.

    Example:

    >>> print(np.array(GridResolvent([1.0, 1.0], (2, 2)).to_dense()))
    [[1. 0. 0. 0.]
     [1. 1. 0. 0.]
     [1. 0. 1. 0.]
     [2. 1. 1. 1.]]
    """

    _fields = ("weights",)

    def __init__(
        self,
        weights: TensorLike,
        grid_shape: Sequence[int],
        corner: Sequence[int] | None = None,
        per_edge: bool = False,
    ):
        self.grid_shape = _check_grid(grid_shape)
        axes = len(self.grid_shape)
        self.corner = _check_corner(corner, axes)
        self.per_edge = bool(per_edge)
        wanted = (axes, *self.grid_shape) if per_edge else (axes,)
        known = known_value(weights)
        self.weights = as_tensor(weights, "weights", len(wanted))
        if tuple(self.weights.shape[-len(wanted) :]) != wanted:
            raise ValueError(
                f"`weights` expects the shape (..., {str(wanted)[1:-1]}) for "
                f"grid_shape={self.grid_shape} and per_edge={self.per_edge}. "
                f"Received: weights of shape {tuple(self.weights.shape)}"
            )
        if known is not None:
            check_weights(known)
        self._solver = GridSolver(self.grid_shape, self.corner, self.per_edge)
        batch = tuple(self.weights.shape[: -len(wanted)])
        tokens = math.prod(self.grid_shape)
        super().__init__((*batch, tokens, tokens), self.weights.dtype)

    def _plan(self):
        length = self.num_tokens
        return Plan(
            layouts=(length,),
            held_per_column=length + 3 * self._solver.num_cells,
            fewest_columns=16,
            rows_cost=self._unit_cost if self.per_edge else self._cost(1),
        )

    def _apply(self, x):
        x = ops.squeeze(x, -1)
        weights = ops.cast(self.weights, x.dtype)
        if self.per_edge:
            batch = tuple(ops.shape(weights))[: len(self.batch_shape)]
            count = len(self.grid_shape) * self.num_tokens
            weights = ops.reshape(weights, batch + (count,))
        x, weights, back = nodes_first(x, weights)
        return ops.expand_dims(back(solve(self._solver, x, weights)), -1)

    def _for_rows(self):
        """With constant weights `M[i, j]` depends on `i - j` alone."""
        if self.per_edge:
            return self
        # What the corner gives to all cells, one column.
        at = [n - 1 if c else 0 for n, c in zip(*self._sides(), strict=True)]
        unit = np.zeros((*self.grid_shape, 1))
        unit[tuple(at)] = 1
        table = self.matmul(
            ops.cast(constant(unit.reshape(self.num_tokens, 1)), self.dtype)
        )
        batch = tuple(ops.shape(table))[:-2]
        table = ops.reshape(table, batch + self.grid_shape)
        pads = [(0, 0)] * len(batch) + [
            (0, n - 1) if c else (n - 1, 0)
            for n, c in zip(*self._sides(), strict=True)
        ]
        table = ops.cast(ops.pad(table, pads), self.dtype)
        return BlockToeplitz(table, self.grid_shape)

    def _sides(self):
        return self.grid_shape, self._solver.direction

    def _transpose(self):
        clone = self.with_tensors(self.tensors())
        clone._solver = self._solver.transposed
        return clone

    def _nonnegative(self):
        return True

    def _cost(self, columns):
        solver = self._solver
        axes = len(self.grid_shape)
        work = (6 + 2 * axes) * solver.num_cells
        return (
            costs.LAUNCH * (8 + (4 + 2 * axes) * solver.num_steps)
            + costs.ELEMENT * work * columns
        )


def grid_resolvent(
    grid_shape: Sequence[int],
    weights: TensorLike,
    corner: tuple[int, ...] | list[tuple[int, ...]] | None = None,
    per_edge: bool = False,
) -> MaskOperator:
    """The sum of the resolvents from several corners of a grid, all of them by
    default: the mask of Chimera for images.

    Each token sees all others: those in each quadrant through the corner that
    the quadrant points to. With all corners, a token sees itself `2^d` times,
    and in two dimensions it sees the tokens of its row and column twice.

    *Complexity*: that of `GridResolvent`, for each corner.

    Args:
        grid_shape: `(n_1, ..., n_d)`.
        weights: as in `GridResolvent`, for all corners; or a list of one for
            each.
        corner: tuple of 0 and 1, or a list of such tuples; by default all, in
            the order of `itertools.product((0, 1), repeat=d)`.
        per_edge: bool, as in `GridResolvent`.

    Returns:
        A `MaskOperator` of shape `(*batch, L, L)`.

    Raises:
        ValueError: as `GridResolvent` does; if a list of weights does not have
            one entry per corner.

    Example:

    >>> print(np.array(grid_resolvent((3,), [0.5]).to_dense()).round(2))
    [[2.   0.5  0.25]
     [0.5  2.   0.5 ]
     [0.25 0.5  2.  ]]

    Reference: Lahoti et al., "Chimera: State Space Models Beyond Sequences",
    arXiv 2510.12111.
    """
    grid_shape = _check_grid(grid_shape)
    if corner is None:
        corner = list(itertools.product((0, 1), repeat=len(grid_shape)))
    corners = corner if isinstance(corner, list) else [corner]
    each = isinstance(weights, list) and not np.isscalar(weights[0])
    each = weights if each else [weights] * len(corners)
    if len(each) != len(corners):
        raise ValueError(
            f"`weights` expects a list of one for each of {len(corners)} "
            f"corners. Received: a list of {len(each)}"
        )
    terms = [
        GridResolvent(w, grid_shape, c, per_edge)
        for w, c in zip(each, corners, strict=True)
    ]
    return terms[0] if len(terms) == 1 else Sum(terms)


def _check_grid(grid_shape):
    sizes = tuple(grid_shape)
    if not sizes or not all(
        isinstance(n, (int, np.integer)) and n > 0 for n in sizes
    ):
        raise ValueError(
            "`grid_shape` expects positive ints, one for each axis. Received: "
            f"grid_shape={grid_shape}"
        )
    return tuple(int(n) for n in sizes)


def _check_corner(corner, axes):
    corner = (0,) * axes if corner is None else tuple(corner)
    if len(corner) != axes or not set(corner) <= {0, 1}:
        raise ValueError(
            f"`corner` expects {axes} numbers, 0 or 1, one for each axis of "
            f"the grid. Received: corner={corner}"
        )
    return tuple(int(c) for c in corner)


@dataclasses.dataclass(frozen=True)
class GridSolver:
    """`solve` for grids: `x` `(cells, batch, columns)`, weights `(axes, batch)`
    or, per edge, `(axes * cells, batch)`.

    Attributes:
        grid: sizes of the axes.
        corner: 0 or 1 for each axis.
        per_edge: bool.
        is_transposed: bool; edges then lead to the corner, and still the
            weight at a cell is that of the edge between it and its neighbor
            nearer to the corner.
    """

    grid: tuple
    corner: tuple
    per_edge: bool
    is_transposed: bool = False

    @property
    def transposed(self):
        return dataclasses.replace(self, is_transposed=not self.is_transposed)

    @property
    def direction(self):
        """For each axis, whether edges lead from its end."""
        return tuple(int(c != self.is_transposed) for c in self.corner)

    @property
    def num_steps(self):
        return _waves(self.grid, self.direction).steps

    @property
    def num_cells(self):
        """Those of all wavefronts, some of them outside of the grid."""
        waves = _waves(self.grid, self.direction)
        return waves.steps * math.prod(waves.front)

    def solution(self, x, weights):
        return _staged_solution(self)(x, weights)

    def _solution(self, x, weights):
        waves = _waves(self.grid, self.direction)
        if not waves.axes:
            return x
        weights = [self._along(k, weights) for k in waves.axes]
        if len(waves.axes) == 1:
            (axis,) = waves.axes
            return self._solve_axis(x, weights[0], self.direction[axis])
        batch, columns = tuple(ops.shape(x))[1:]
        front = waves.front
        # The cells that are not there read a row of zeros.
        sequences = [_take(x, waves.cells, front + (batch, columns))]
        if self.per_edge:
            sequences += [
                _take(w, waves.cells, front + (batch, 1)) for w in weights
            ]

        def step(state, x, *weights_here):
            for k, w in enumerate(weights_here or weights):
                # The last of the axes is that of time.
                before = state if k == len(front) else _shift(state, k)
                x = x + w * before
            return x

        states = scan(step, ops.zeros_like(sequences[0][0]), sequences)
        states = ops.reshape(states, (self.num_cells, batch, columns))
        return ops.take(states, constant(waves.places), axis=0)

    def _along(self, axis, weights):
        """Of one axis, `(batch, 1)` or, into each cell, `(cells, batch)`."""
        if not self.per_edge:
            return ops.expand_dims(weights[axis], -1)
        cells = math.prod(self.grid)
        weights = weights[axis * cells : (axis + 1) * cells]
        if not self.is_transposed:
            return weights
        # Those of the cells from which the edges come.
        shape = self.grid + (ops.shape(weights)[-1],)
        weights = ops.reshape(weights, shape)
        weights = _shift(weights, axis, reverse=self.direction[axis])
        return ops.reshape(weights, (cells, shape[-1]))

    def _solve_axis(self, x, weights, reverse):
        if self.per_edge:
            weights = ops.expand_dims(weights, -1)
        else:
            weights = ops.expand_dims(weights, 0)
        if not reverse:
            return _solve_line(x, weights)
        return ops.flip(_solve_line(ops.flip(x, 0), ops.flip(weights, 0)), 0)

    def edge_products(self, h, y):
        """`h . y` between the ends of each edge, summed over edges of the same
        weight."""
        if self.is_transposed:
            h, y = y, h
        shape = self.grid + tuple(ops.shape(h))[1:]
        h, y = ops.reshape(h, shape), ops.reshape(y, shape)
        axes = len(self.grid)
        found = []
        for k, reverse in enumerate(self.corner):
            product = ops.sum(h * _shift(y, k, reverse=reverse), axis=-1)
            if self.per_edge:
                product = ops.reshape(product, (-1, ops.shape(product)[-1]))
            else:
                product = ops.sum(product, axis=tuple(range(axes)))[None]
            found.append(product)
        return ops.concatenate(found)


# By solver: the plans of a graph are its constants.
@functools.lru_cache(maxsize=64)
def _staged_solution(solver):
    return staged(solver._solution)


def _solve_line(x, weights):
    """`y_i = x_i + w_i y_{i - 1}` along the first axis.

    In about `sqrt(L)` parts, all of them step by step at once; then the same
    for what one part hands on to the next.

    Args:
        x: `(length, batch, columns)`.
        weights: `(length, batch, 1)`, or `(1, batch, 1)` where all are equal.
    """
    length, batch, columns = x.shape[0], *tuple(ops.shape(x))[1:]
    if length <= SHORT_LINE:
        y = [x[0]]
        for i in range(1, length):
            y.append(x[i] + weights[min(i, weights.shape[0] - 1)] * y[-1])
        return ops.stack(y)
    part = math.isqrt(length - 1) + 1
    parts = -(-length // part)
    padding = [(0, part * parts - length), (0, 0), (0, 0)]
    x = ops.reshape(ops.pad(x, padding), (parts, part, batch, columns))
    x = ops.swapaxes(x, 0, 1)
    if weights.shape[0] == 1:
        steps = ops.broadcast_to(weights, (part, 1, batch, 1))
    else:
        steps = ops.reshape(ops.pad(weights, padding), (parts, part, batch, 1))
        steps = ops.swapaxes(steps, 0, 1)
    inside = scan(lambda y, x, w: x + w * y, ops.zeros_like(x[0]), [x, steps])
    # What the first step of a part takes over from the part before, later.
    through = scan(lambda y, w: w * y, ops.ones_like(steps[0]), [steps])
    carried = _solve_line(inside[-1], through[-1])
    y = inside + through * _shift(carried, 0)
    y = ops.reshape(ops.swapaxes(y, 0, 1), (part * parts, batch, columns))
    return y[:length]


# Steps that are not worth being cut into parts.
SHORT_LINE = 16


def _shift(x, axis, reverse=False):
    """`x` moved one place along an axis, zeros entering behind it."""
    ahead = [slice(None)] * len(x.shape)
    ahead[axis] = slice(1, None) if reverse else slice(0, x.shape[axis] - 1)
    pads = [(0, 0)] * len(x.shape)
    pads[axis] = (0, 1) if reverse else (1, 0)
    return ops.pad(x[tuple(ahead)], pads)


def _take(x, cells, shape):
    """Rows of `x` at `cells` `(steps, cells)`, `(steps, *shape)`."""
    x = ops.concatenate([x, ops.zeros_like(x[:1])])
    x = ops.take(x, constant(cells), axis=0)
    return ops.reshape(x, (cells.shape[0],) + shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Waves:
    """The cells of a grid by their distance from a corner.

    A wavefront is an array over all axes but the longest, whose coordinate
    follows from the distance. Its neighbors are in the front before, in the
    same place along the longest axis, one place nearer along others. Places
    outside of the grid come before cells along the longest axis, where they
    hold zeros, and behind them, where nobody reads them.

    Attributes:
        axes: of more than one cell, the longest last.
        front: sizes of all of them but the last.
        steps: int, wavefronts.
        cells: `(steps, prod(front))`, int32, tokens; `L` outside of the grid.
        places: `(L,)`, int32, where each token is among all of those.
    """

    axes: tuple
    front: tuple
    steps: int
    cells: np.ndarray
    places: np.ndarray


@functools.lru_cache(maxsize=64)
def _waves(grid, direction):
    axes = [k for k, n in enumerate(grid) if n > 1]
    axes = tuple(sorted(axes, key=lambda k: grid[k]))
    front = tuple(grid[k] for k in axes[:-1])
    steps = sum(grid) - len(grid) + 1
    coordinates = np.indices(grid).reshape(len(grid), -1)
    for k, reverse in enumerate(direction):
        if reverse:
            coordinates[k] = grid[k] - 1 - coordinates[k]
    places = coordinates.sum(0)
    for k in axes[:-1]:
        places = places * grid[k] + coordinates[k]
    cells = np.full(steps * math.prod(front), math.prod(grid), "int32")
    cells[places] = np.arange(math.prod(grid))
    return Waves(
        axes, front, steps, cells.reshape(steps, -1), places.astype("int32")
    )
