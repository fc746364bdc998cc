"""Products with `(I - A)^-1`: solutions of `y = x + A y` and derivatives.

Nodes come first, then batch axes of the weights, then columns: `x` is `(nodes,
batch, columns)` and the weights of the edges are `(edges, batch)`, for sparse
products gather and sum rows.
"""

import functools
import math

import keras
from keras import ops

from keras_topo._backend import (
    add_in_steps,
    constant,
    entry_products,
    serial_loop,
    sparse_product,
    with_derivatives,
)
from keras_topo.host.levels import (
    chebyshev_factors,
    neumann_steps,
)
from keras_topo.operators.shapes import broadcast_sizes

TOLERANCE = {"float32": 1e-7, "float64": 1e-14}


def solve(solver, x, weights):
    """`(I - A)^-1 x`, differentiable to any order.

    With `h = (I - A)^-T dy`, the gradients are `h` with respect to `x`, and
    `h_i . y_j` with respect to the weight of the edge from `j` to `i`.
    """
    y = solver.solution(ops.stop_gradient(x), ops.stop_gradient(weights))

    def pullback(y, upstream, x, weights):
        h = solve(solver.transposed, upstream, weights)
        return h, solver.edge_products(h, y)

    return with_derivatives(y, [x, weights], pullback)


class Solver:
    """What both ways of solving share.

    Args:
        targets, sources: `(edges,)`, int32 tensors: `A[target, source]` is the
            weight of the edge.
    """

    def __init__(self, targets, sources):
        self.targets, self.sources = targets, sources

    def solution(self, x, weights):
        """`(I - A)^-1 x`, not differentiable."""
        raise NotImplementedError

    @functools.cached_property
    def transposed(self):
        """The solver of the transposed matrix."""
        raise NotImplementedError

    def edge_products(self, h, y):
        """`sum_c h[target, :, c] y[source, :, c]`, `(edges, batch)`."""
        batch = ops.shape(h)[1]
        found = entry_products(
            _flat(h),
            _flat(y),
            flat_ids(self.targets, batch),
            flat_ids(self.sources, batch),
        )
        return ops.reshape(found, (-1, batch))


def flat_ids(ids, batch):
    """Ids of nodes as those of nodes and batch entries together."""
    if isinstance(batch, int) and batch == 1:
        return ids
    offsets = ops.arange(batch, dtype="int32")
    return ops.reshape(ids[:, None] * batch + offsets, (-1,))


def _flat(x):
    shape = tuple(ops.shape(x))
    return ops.reshape(x, (shape[0] * shape[1], shape[2]))


class LevelSolver(Solver):
    """By levels of an acyclic graph: `y_i = x_i + sum_j A_ij y_j`.

    Args:
        plan: `LevelPlan`.
    """

    def __init__(self, targets, sources, plan):
        super().__init__(targets, sources)
        self.plan = plan

    def solution(self, x, weights):
        plan = self.plan
        if not plan.num_steps:
            return x
        weights = ops.take(weights, constant(plan.index), axis=0)
        real = ops.expand_dims(constant(plan.real), -1)
        weights = ops.where(real, weights, ops.zeros_like(weights))
        return add_in_steps(
            x,
            constant(plan.targets),
            constant(plan.sources),
            ops.expand_dims(weights, -1),
        )

    @functools.cached_property
    def transposed(self):
        return LevelSolver(self.sources, self.targets, self.plan.reversed())


class SeriesSolver(Solver):
    """By products alone, with row sums of at most `bound < 1`.

    The sum of powers of `A`, or the Chebyshev semi-iteration, which takes
    about the square root of as many products to the same error where the
    eigenvalues of `A` are real: in the norm in which `A` is symmetric.

    Args:
        bound: float, of the row sums.
        tolerance: float, or `None` for that of the dtype.
        chebyshev: bool, whether `A` is similar to a symmetric matrix.
        condition: float, of that similarity.
        orders: `(edges,)` twice, int32 tensors: edges by targets and by
            sources. Sums of neighboring rows, one after the other, find them
            in the cache. `None` where the edges are traced.
    """

    def __init__(
        self,
        targets,
        sources,
        bound,
        tolerance=None,
        chebyshev=False,
        condition=1.0,
        orders=(None, None),
    ):
        super().__init__(targets, sources)
        self.orders = orders
        self.bound, self.tolerance = bound, tolerance
        self.chebyshev, self.condition = chebyshev, condition

    def num_products(self, dtype="float32"):
        """Products with `A` that one solution takes."""
        if self.chebyshev:
            return len(self._factors(dtype))
        return neumann_steps(self.bound, self.tolerance or TOLERANCE[dtype])

    def _factors(self, dtype):
        tolerance = self.tolerance or TOLERANCE[dtype]
        return chebyshev_factors(self.bound, tolerance / self.condition)

    def _multiplier(self, weights):
        """The function `x -> A x`."""
        targets, sources = self.targets, self.sources
        if self.orders[0] is not None:
            targets, sources, weights = (
                ops.take(values, self.orders[0], axis=0)
                for values in (targets, sources, weights)
            )
        batch = ops.shape(weights)[1]
        targets, sources = flat_ids(targets, batch), flat_ids(sources, batch)
        weights = ops.reshape(weights, (-1,))

        def multiply(x):
            shape = tuple(ops.shape(x))
            y = sparse_product(
                weights, _flat(x), targets, sources, shape[0] * shape[1]
            )
            return ops.reshape(y, shape)

        return multiply

    def solution(self, x, weights):
        multiply = self._multiplier(weights)
        dtype = keras.backend.standardize_dtype(x.dtype)
        steps = self.num_products(dtype)
        if not steps:
            return x
        if not self.chebyshev:
            # Horner's rule: one state, and nothing is ever subtracted.
            return serial_loop(0, steps, lambda k, y: (x + multiply(y),), (x,))[
                0
            ]
        factors = ops.cast(constant(self._factors(dtype)), dtype)

        def step(k, before, y):
            factor = ops.take(factors, k, axis=0)
            return y, factor * (x + multiply(y) - before) + before

        return serial_loop(0, steps, step, (x, x))[1]

    @functools.cached_property
    def transposed(self):
        return SeriesSolver(
            self.sources,
            self.targets,
            self.bound,
            self.tolerance,
            self.chebyshev,
            self.condition,
            self.orders[::-1],
        )


def nodes_first(x, weights):
    """`x` `(..., nodes, columns)` and weights `(*batch, edges)` for `solve`.

    Axes of `x` that the weights do not have become columns.

    Returns:
        `(nodes, batch, columns)`; `(edges, batch)`; and a function that brings
        a result back, with the batch axes of both, broadcast.
    """
    nodes, columns = tuple(ops.shape(x))[-2:]
    while len(weights.shape) > 1 and weights.shape[0] == 1:
        weights = ops.squeeze(weights, 0)
    batch, edges = tuple(ops.shape(weights))[:-1], ops.shape(weights)[-1]
    lead = broadcast_sizes(tuple(ops.shape(x))[:-2], batch)
    x = ops.broadcast_to(x, lead + (nodes, columns))
    split = len(lead) - len(batch)
    inner, outer = lead[split:], math.prod(lead[:split])
    weights = ops.broadcast_to(weights, inner + (edges,))
    inner = math.prod(inner)
    weights = ops.transpose(ops.reshape(weights, (inner, edges)))
    x = ops.reshape(x, (outer, inner, nodes, columns))
    x = ops.transpose(x, (2, 1, 0, 3))
    x = ops.reshape(x, (nodes, inner, outer * columns))

    def back(y):
        y = ops.reshape(y, (nodes, inner, outer, columns))
        y = ops.transpose(y, (2, 1, 0, 3))
        return ops.reshape(y, lead + (nodes, columns))

    return x, weights, back
