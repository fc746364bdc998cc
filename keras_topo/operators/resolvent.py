"""Masks that sum over all paths of a graph: `(I - A)^-1`."""

import math

import numpy as np
import scipy.sparse
from keras import ops
from numpy.typing import ArrayLike

from keras_topo._backend import constant
from keras_topo.annotations import TensorLike
from keras_topo.host.levels import Cycle, level_plan, row_sums
from keras_topo.operators import cost as costs
from keras_topo.operators.algebra import Scaled
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import as_tensor, known_value
from keras_topo.operators.plan import Plan
from keras_topo.operators.resolvent_solvers import (
    LevelSolver,
    SeriesSolver,
    nodes_first,
    solve,
)
from keras_topo.operators.sparse import check_pairs


class Resolvent(MaskOperator):
    """The resolvent `M = (I - A)^-1 = I + A + A^2 + ...` of a sparse graph.

    `M[i, j]` sums over all paths from `j` to `i` the products of the weights of
    their edges. Weights are not negative. Nothing is ever inverted:

    - On a **directed acyclic graph** the product is `y_i = x_i + sum_j A_ij
      y_j`, level by level of the longest paths, for weights of any size. Exact
      but for rounding.
    - On **any graph with row sums of at most `gamma < 1`** it is a series of
      `K` products with `A`. What is left out is at most `gamma^(K + 1) / (1 -
      gamma)` in each row, and `K` is chosen so that this is within the
      tolerance. Where `A` is symmetric, the Chebyshev semi-iteration reaches
      it in far fewer products, in the 2-norm: 41 instead of 174 for `gamma =
      0.9` in float32. Its rounding leaves entries below the tolerance
      imprecise, also in sign, where the plain series has small entries right.

    Gradients are solutions too: with `h = M^T dy`, `dA_ij = h_i . y_j` on the
    edges, so that neither direction keeps more than `x` and `y`. They are
    differentiable to any order. Entries between nodes without a path, and in a
    series without one of up to `K` edges, are exactly zero.

    *Complexity*: acyclic, `O(edges)` per column, in about one step per level,
    twice as many at most; else `O(K edges)` per column. Planning takes
    `O(edges log(edges))` on the host, once for equal graphs in use. Products
    hold three times `x`, the edges of a step per column, and in series under
    XLA all edges.

    Args:
        edges: `(edges, 2)`, int: pairs `(i, j)`, the edge from `j` (key) to `i`
            (query), the same for all batch axes. An edge listed twice has the
            sum. An array; or, in series with `max_row_sum`, a traced tensor.
        weights: `(*batch, edges)`, not negative: `A[i, j]`. Differentiable.
        num_tokens: int, `L`.
        acyclic: bool; `True` for a graph without cycles, `False` to sum the
            series. By default, acyclic if the graph is.
        max_row_sum: float below 1, the largest sum of weights of the edges into
            a node; needed in series where weights are traced, as in `fit`.
            Larger sums than that lose accuracy.
        symmetric: bool; `True` promises that `A` is symmetric. By default,
            symmetry is checked where edges and weights are known, and not
            assumed elsewhere. Acyclic graphs do not use it.
        tolerance: float, of the series; 1e-7, and 1e-14 in products in float64,
            by default.

    Raises:
        ValueError: if shapes do not match; if ids are outside of the graph; if
            known weights are negative or not finite; with `acyclic=True`, if
            there is a cycle, which the message names; in series, if a row sum
            is one or more, is above `max_row_sum`, or is unknown without it.

    Example:

    >>> mask = Resolvent([[1, 0], [2, 1]], [0.5, 0.5], 3)
    >>> print(np.array(mask.to_dense()).round(2))
    [[1.   0.   0.  ]
     [0.5  1.   0.  ]
     [0.25 0.5  1.  ]]
    """

    # Not the edges: nothing is differentiated with respect to node ids.
    _fields = ("weights",)

    def __init__(
        self,
        edges: TensorLike,
        weights: TensorLike,
        num_tokens: int,
        acyclic: bool | None = None,
        max_row_sum: float | None = None,
        symmetric: bool | None = None,
        tolerance: float | None = None,
    ):
        if not isinstance(num_tokens, (int, np.integer)) or num_tokens < 1:
            raise ValueError(
                "`num_tokens` expects a positive int. Received: "
                f"num_tokens={num_tokens!r}"
            )
        num_tokens = int(num_tokens)
        known_edges = known_value(edges)
        if known_edges is not None:
            edges = known_edges
        ids = check_pairs(edges, (num_tokens, num_tokens), "edges")
        if known_edges is not None:
            # Not a constant in the graph of a traced function.
            ids = constant(known_edges.astype("int32"))
        known = known_value(weights)
        self.weights = as_tensor(weights, "weights", 1)
        counts = {ids.shape[0], self.weights.shape[-1]} - {None}
        if len(ids.shape) != 2 or len(counts) > 1:
            raise ValueError(
                "`edges` expects the shape (edges, 2) and `weights` (..., "
                f"edges). Received: edges of shape {tuple(ids.shape)}, weights "
                f"of shape {tuple(self.weights.shape)}"
            )
        if known is not None:
            check_weights(known)
        _check_numbers(max_row_sum, tolerance)
        plan = _plan(known_edges, num_tokens, acyclic)
        if plan is not None:
            self._solver = LevelSolver(ids[:, 0], ids[:, 1], plan)
        else:
            bound = _row_sum_bound(known_edges, known, num_tokens, max_row_sum)
            symmetric = _symmetric(known_edges, known, num_tokens, symmetric)
            self._solver = SeriesSolver(
                ids[:, 0],
                ids[:, 1],
                bound,
                tolerance,
                symmetric,
                orders=_orders(known_edges),
            )
        super().__init__(
            (*self.weights.shape[:-1], num_tokens, num_tokens),
            self.weights.dtype,
        )

    @property
    def acyclic(self) -> bool:
        """Whether the product goes by levels."""
        return isinstance(self._solver, LevelSolver)

    @property
    def num_levels(self) -> int | None:
        """Steps of a product by levels, one after another; `None` in series."""
        solver = self._solver
        return (
            solver.plan.num_steps if isinstance(solver, LevelSolver) else None
        )

    def num_products(self, dtype: str = "float32") -> int:
        """Products with `A` that a product takes, 1 by levels."""
        solver = self._solver
        return (
            1 if isinstance(solver, LevelSolver) else solver.num_products(dtype)
        )

    @property
    def _num_edges(self):
        count = self.weights.shape[-1]
        return 8 * self.num_tokens if count is None else count  # a guess

    def _plan(self):
        solver = self._solver
        by_level = isinstance(solver, LevelSolver)
        gathered = solver.plan.width if by_level else self._num_edges
        return Plan(
            layouts=(self.num_tokens,),
            held_per_column=3 * self.num_tokens + gathered,
            # Rows are gathered: they should be several cache lines long.
            fewest_columns=64,
            rows_cost=self._unit_cost,
        )

    def _apply(self, x):
        weights = ops.cast(self.weights, x.dtype)
        x, weights, back = nodes_first(ops.squeeze(x, -1), weights)
        return ops.expand_dims(back(solve(self._solver, x, weights)), -1)

    def _transpose(self):
        clone = self.with_tensors(self.tensors())
        clone._solver = self._solver.transposed
        return clone

    def _nonnegative(self):
        return True

    def _cost(self, columns):
        work = 3 * costs.ELEMENT * (self._num_edges + self.num_tokens) * columns
        if self.num_levels is not None:
            return 4 * costs.LAUNCH * (1 + self.num_levels) + work
        return self.num_products() * (4 * costs.LAUNCH + work)


def check_weights(weights):
    """Raises a ValueError for values that are no weights of a resolvent."""
    wrong = ~(weights >= 0) | ~np.isfinite(weights)
    if wrong.any():
        raise ValueError(
            "`weights` expects finite numbers that are not negative. Received: "
            f"{weights[wrong][0]}"
        )


def _check_numbers(max_row_sum, tolerance):
    if max_row_sum is not None and not 0 <= max_row_sum < 1:
        raise ValueError(
            "`max_row_sum` expects a number from 0 to below 1. Received: "
            f"max_row_sum={max_row_sum}"
        )
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(
            "`tolerance` expects a number between 0 and 1. Received: "
            f"tolerance={tolerance}"
        )


def _plan(edges, num_tokens, acyclic):
    """The `LevelPlan` of the graph, or `None` for a series."""
    if acyclic is False:
        return None
    if edges is None:
        if acyclic:
            raise ValueError(
                "`edges` expects an array on the host where `acyclic=True`: "
                "levels are planned from it. Received: a traced tensor"
            )
        return None
    try:
        return level_plan(edges, num_tokens)
    except Cycle as cycle:
        if acyclic:
            raise ValueError(
                "`edges` expects a graph without cycles where `acyclic=True`. "
                f"Received: the cycle {cycle}"
            ) from None
    return None


def _orders(edges):
    """Edges by their targets, and by their sources."""
    if edges is None:
        return None, None
    return tuple(
        constant(np.lexsort((edges[:, 1 - k], edges[:, k])).astype("int32"))
        for k in (0, 1)
    )


def _row_sum_bound(edges, weights, num_tokens, max_row_sum):
    if edges is None or weights is None:
        if max_row_sum is None:
            raise ValueError(
                "`max_row_sum` expects a number where `weights` or `edges` are "
                "not known, as in a traced function: the number of products "
                "depends on it. Received: max_row_sum=None"
            )
        return float(max_row_sum)
    sums = row_sums(edges, weights, num_tokens)
    largest = float(sums.max(initial=0))
    # Sums may be rounded up.
    if largest >= 1 or largest > (max_row_sum or 1) * (1 + 1e-6):
        node = int(np.unravel_index(sums.argmax(), sums.shape)[-1])
        limit = "below 1" if largest >= 1 else f"of at most {max_row_sum}"
        raise ValueError(
            f"`weights` expects row sums {limit} on a graph with cycles, or "
            "with acyclic=False. Received: weights of the edges into node "
            f"{node} that sum to {largest:g}"
        )
    return largest if max_row_sum is None else float(max_row_sum)


def _symmetric(edges, weights, num_tokens, promised):
    if edges is None or weights is None or promised is False:
        return bool(promised)
    found = all(
        _is_symmetric(edges, w, num_tokens)
        for w in weights.reshape(-1, weights.shape[-1])
    )
    if promised and not found:
        raise ValueError(
            "`symmetric` expects True for symmetric weights only. Received: "
            "weights of edges (i, j) that differ from those of (j, i)"
        )
    return found


def _is_symmetric(edges, weights, num_tokens):
    shape = (num_tokens, num_tokens)
    matrix = scipy.sparse.coo_array((weights, tuple(edges.T)), shape).tocsr()
    difference = abs(matrix - matrix.T)
    # Sums of edges that are listed twice may be rounded.
    return difference.max() <= 1e-6 * matrix.max() if matrix.nnz else True


def personalized_pagerank(
    edges: ArrayLike,
    num_tokens: int,
    damping: TensorLike = 0.85,
    weights: ArrayLike | None = None,
    max_damping: float | None = None,
    tolerance: float | None = None,
) -> MaskOperator:
    """Personalized PageRank, `(1 - a) (I - a T)^-1`, as a mask.

    `T = D^-1 A` steps from `i` to a neighbor `j`, in proportion to weights. A
    walk goes on with probability `a`, the damping, at every step, and row `i`
    is the distribution of where a walk from `i` ends. Rows sum to one unless
    walks from `i` reach a node without edges: those that go on there are lost.

    *Complexity*: as `Resolvent`: `O(K edges)` per column. On undirected graphs
    `K` is that of Chebyshev: 32 instead of 110 at `a = 0.85` in float32.

    Args:
        edges: `(edges, 2)`, an int array: pairs `(i, j)`, a step from `i` to
            `j`; undirected edges in both directions.
        num_tokens: int, `L`.
        damping: `(*batch,)`, `a`, from 0 to below 1. Differentiable.
        weights: `(edges,)`, an array of numbers that are not negative; ones by
            default.
        max_damping: float below 1; needed where `damping` is traced.
        tolerance: float; 1e-7, and 1e-14 in products in float64, by default.

    Returns:
        A `MaskOperator` of shape `(*batch, L, L)`.

    Raises:
        ValueError: as `Resolvent` does; if a damping is not from 0 to below 1.

    Example:

    >>> mask = personalized_pagerank([[0, 1], [1, 0]], 2, 0.5)
    >>> print(np.array(mask.to_dense()).round(3))
    [[0.667 0.333]
     [0.333 0.667]]
    """
    known = known_value(damping)
    if known is not None and not ((known >= 0) & (known < 1)).all():
        raise ValueError(
            "`damping` expects numbers from 0 to below 1. Received: "
            f"damping={known}"
        )
    damping = as_tensor(damping, "damping", 0)
    edges = np.asarray(edges)
    check_pairs(edges, (num_tokens, num_tokens), "edges")
    count = len(edges)
    weights = np.ones(count) if weights is None else np.asarray(weights, float)
    if weights.shape != (count,) or edges.ndim != 2:
        raise ValueError(
            "`edges` expects the shape (edges, 2) and `weights` (edges,). "
            f"Received: edges of shape {edges.shape}, weights of shape "
            f"{weights.shape}"
        )
    check_weights(weights)
    degrees = np.bincount(edges[:, 0], weights, num_tokens)
    steps = weights / np.where(degrees > 0, degrees, 1)[edges[:, 0]]
    largest = max_damping
    if largest is None and known is not None:
        largest = float(known.max(initial=0))
    resolvent = Resolvent(
        edges,
        ops.expand_dims(damping, -1) * ops.cast(constant(steps), damping.dtype),
        num_tokens,
        acyclic=False,
        max_row_sum=largest,
        symmetric=False,
        tolerance=tolerance,
    )
    solver = resolvent._solver
    if isinstance(solver, SeriesSolver) and _is_symmetric(
        edges, weights, num_tokens
    ):
        # T is D^-1/2 (D^-1/2 A D^-1/2) D^1/2.
        positive = degrees[degrees > 0]
        spread = positive.max() / positive.min() if len(positive) else 1.0
        solver.chebyshev = True
        solver.condition = math.sqrt(spread)
    return Scaled(resolvent, 1 - damping)
