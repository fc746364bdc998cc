"""Graph diffusion kernels as operators, through sparse products alone."""

import math

import keras
import numpy as np
import scipy.special
from keras import ops
from numpy.typing import ArrayLike

from keras_topo._backend import (
    constant,
    serial_loop,
    sparse_sum,
    with_derivatives,
)
from keras_topo.annotations import Adjacency, GeneratorName, TensorLike
from keras_topo.host.diffusion_generator import DiffusionGenerator
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import as_tensor, known_value
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import sum_to

# Of the expansion, relative to the norm of the kernel.
MOST_GROWTH = 80.0
TOLERANCE = {"float32": 1e-7, "float64": 1e-14}


class GraphDiffusion(MaskOperator):
    """The graph diffusion kernel `exp(-time T)` of a large sparse graph.

    `T` is the Laplacian `D - A`, the negated adjacency matrix `-A`, or the
    normalized Laplacian `D^-1/2 (D - A) D^-1/2` (Kondor and Lafferty, 2002).
    The kernel is never formed: with the eigenvalues of `T` in `[c - r, c + r]`
    the product is the Chebyshev series

        exp(-time T) x = sum_k a_k(time) C_k((T - c) / r) x

    whose terms take one sparse product each, and whose degree follows from
    `time * r` and the tolerance before anything is multiplied: what is left
    out is at most `4 sum_{k > degree} exp(-time r) I_k(time r)`, relative to
    the norm of the kernel. Entries of `exp(time A)` may differ by orders of
    magnitude between parts of a graph. It is therefore a Taylor series, whose
    terms are not negative, so that no large numbers cancel, with `sum_{k >
    degree} exp(-time r) (time r)^k / k!` left out. The gradient with respect to
    time is `-T exp(-time T)`, exactly, and that with respect to `x` is the
    product itself, so that neither direction keeps the terms of the series.
    Derivatives of higher order follow from the same two rules.

    *Complexity*: `degree` sparse products, `O(edges)` a column each, for all
    times together; the degree grows like `time r` while that is small and like
    a few times its square root for large times. Memory of six times `x`, and
    of a number an edge and column for weighted graphs and under XLA.

    Args:
        adjacency: `(L, L)`, scipy sparse or array, on the host, symmetric,
            without negative weights; or a `keras_topo.graphs.Graph`; or a tuple
            `(pairs, values, num_nodes)` of pairs `(edges, 2)`, each edge in
            both directions, with values `(edges,)`; or a
            `keras_topo.graphs.DiffusionGenerator`, for which `generator` is
            not used.
        generator: `"laplacian"`, `"adjacency"` or `"normalized_laplacian"`.
        time: `(*batch,)`, not negative.
        max_time: float, the largest time that `time` may take; needed where
            `time` is traced, as a weight is in `fit`. Greater times than that
            lose accuracy.
        tolerance: float; 1e-7, and 1e-14 in products in float64, by default.

    Raises:
        ValueError: if the graph is not as expected, a time is negative or
            above `max_time`, or is traced without a `max_time`.

    Example:

    >>> mask = GraphDiffusion([[0, 1], [1, 0]], time=0.5)
    >>> print(np.array(mask.to_dense()).round(3))
    [[0.684 0.316]
     [0.316 0.684]]
    """

    _fields = ("time",)

    def __init__(
        self,
        adjacency: Adjacency
        | DiffusionGenerator
        | tuple[ArrayLike, ArrayLike, int],
        generator: GeneratorName = "laplacian",
        time: TensorLike = 1.0,
        max_time: float | None = None,
        tolerance: float | None = None,
    ):
        if not isinstance(adjacency, DiffusionGenerator):
            adjacency = DiffusionGenerator.from_adjacency(adjacency, generator)
        self.generator = adjacency
        # Before a traced function makes a tensor of a number.
        known = known_value(time)
        self.time = as_tensor(time, "time", 0)
        if known is not None:
            if not (np.isfinite(known) & (known >= 0)).all():
                raise ValueError(
                    "`time` expects finite numbers that are not negative. "
                    f"Received: time={known}"
                )
            largest = float(known.max(initial=0))
            # float32 times may be rounded up.
            if max_time is not None and largest > max_time * (1 + 1e-6):
                raise ValueError(
                    f"`time` expects at most max_time={max_time}. Received: "
                    f"time={known}"
                )
            max_time = largest if max_time is None else max_time
        if max_time is None:
            raise ValueError(
                "`max_time` expects a number where `time` is not known, as in "
                "a traced function: the degree depends on it. Received: "
                "max_time=None"
            )
        if tolerance is not None and not 0 < tolerance < 1:
            raise ValueError(
                "`tolerance` expects a number between 0 and 1. Received: "
                f"tolerance={tolerance}"
            )
        self.max_time, self.tolerance = float(max_time), tolerance
        if not 0 <= self.max_time < math.inf:
            raise ValueError(
                "`max_time` expects a finite number that is not negative. "
                f"Received: max_time={max_time}"
            )
        if self.max_time * -adjacency.bounds[0] > MOST_GROWTH:
            raise ValueError(
                f"`time` expects at most {MOST_GROWTH / -adjacency.bounds[0]:g}"
                " on this graph: exp(time A) leaves the range of float32. "
                f"Received: {self.max_time}"
            )
        length = adjacency.num_nodes
        super().__init__((*self.time.shape, length, length), self.time.dtype)

    def degree(self, dtype: str = "float32") -> int:
        """Sparse products that a product takes."""
        tolerance = self.tolerance or TOLERANCE[dtype]
        low, high = self.generator.bounds
        z = self.max_time * (high - low) / 2
        if self._taylor:
            return taylor_degree(z, tolerance)
        return chebyshev_degree(z, tolerance)

    @property
    def _taylor(self):
        return self.generator.name == "adjacency"

    def _plan(self):
        gathered = 0 if self.generator.weights is None else 1
        held = 6 * self.num_tokens + gathered * self.generator.num_entries
        return Plan(
            layouts=(self.num_tokens,),
            held_per_column=held,
            # Rows are gathered: they should be several cache lines long.
            fewest_columns=64,
            rows_cost=self._unit_cost,
        )

    def _apply(self, x):
        x = ops.squeeze(x, -1)
        time = ops.cast(self.time, x.dtype)
        degree = self.degree(keras.backend.standardize_dtype(x.dtype))
        # Once for all steps: in a traced function these are its constants.
        multiply = Multiplier(self.generator, x.dtype)

        def product(x, time):
            # None of the terms of the series is kept for the gradient.
            y = multiply.to_order(ops.stop_gradient(x))
            y = self._expand(y, ops.stop_gradient(time), degree, multiply)

            def pullback(y, upstream, x, time):
                dx = product(upstream, time)
                generated = multiply(multiply.to_order(y))
                generated = multiply.from_order(generated)
                dtime = -ops.sum(upstream * generated, axis=(0, -1))
                return sum_to(dx, x), sum_to(dtime, time)

            y = multiply.from_order(y)
            return with_derivatives(y, [x, time], pullback)

        # As many axes as the times have: a gradient is summed over others.
        missing = len(time.shape) - (len(x.shape) - 2)
        for _ in range(missing):
            x = ops.expand_dims(x, 0)
        # Nodes first: sparse products gather and sum rows.
        y = product(ops.moveaxis(x, -2, 0), time)
        return ops.expand_dims(ops.moveaxis(y, 0, -2), -1)

    def _expand(self, x, time, degree, multiply):
        """The series, for `x` `(L, ..., columns)`."""
        if self._taylor:
            return self._expand_taylor(x, time, degree, multiply)
        low, high = self.generator.bounds
        center, radius = (low + high) / 2, (high - low) / 2
        weights = chebyshev_coefficients(time, center, radius, degree)
        weights = ops.expand_dims(weights, -2)
        total = weights[..., 0] * x
        if not degree:
            return total
        step = multiply.mapped(center, radius)
        current = step(x)
        total = total + weights[..., 1] * current

        def add_term(k, before, current, total):
            following = 2 * step(current) - before
            weight = ops.take(weights, k, axis=-1)
            return current, following, total + weight * following

        return serial_loop(2, degree + 1, add_term, (x, current, total))[-1]

    def _expand_taylor(self, x, time, degree, multiply):
        """`sum_k (time A)^k / k! x`, `A = -T`."""
        # Powers of the longest time: neither they nor the factors overflow.
        share = ops.expand_dims(time / (self.max_time or 1.0), -1)
        weight = ops.ones_like(share)

        def add_term(k, term, weight, total):
            factor = -self.max_time / ops.cast(k, x.dtype)
            term, weight = factor * multiply(term), weight * share
            return term, weight, total + weight * term

        state = (x, weight, weight * x)
        return serial_loop(1, degree + 1, add_term, state)[-1]

    def _transpose(self):
        return self

    def _nonnegative(self):
        # -T has no negative entries off the diagonal.
        return True

    def _cost(self, columns):
        edges = self.generator.num_entries
        step = costs.ELEMENT * (3 * edges + 6 * self.num_tokens) * columns
        return self.degree() * (10 * costs.LAUNCH + step)


class Multiplier:
    """`T x` for `x` `(L, ...)`, with the graph as tensors.

    Nodes are in the order of the generator: `to_order` and `from_order`.
    """

    def __init__(self, generator, dtype):
        def tensor(values):
            return values if ops.is_tensor(values) else constant(values)

        def floats(values):
            return None if values is None else ops.cast(tensor(values), dtype)

        self._num_nodes = generator.num_nodes
        self._rows = tensor(generator.rows)
        self._columns = tensor(generator.columns)
        self._weights = floats(generator.weights)
        self._scale = floats(generator.scale)
        self._diagonal = floats(generator.diagonal)
        self._order = self._inverse = None
        if generator.order is not None:
            self._order = tensor(generator.order)
            self._inverse = tensor(generator.inverse)

    def to_order(self, x):
        return x if self._order is None else ops.take(x, self._order, axis=0)

    def from_order(self, x):
        if self._inverse is None:
            return x
        return ops.take(x, self._inverse, axis=0)

    def __call__(self, x):
        return self._multiply(x, self._diagonal, self._scale)

    def mapped(self, center, radius):
        """A function that multiplies by `(T - center) / radius`."""
        root = math.sqrt(radius)
        scale = 1 / root if self._scale is None else self._scale / root
        diagonal = 0.0 if self._diagonal is None else self._diagonal
        if center or self._diagonal is not None:
            diagonal = (diagonal - center) / radius
        else:
            diagonal = None
        return lambda x: self._multiply(x, diagonal, scale)

    def _multiply(self, x, diagonal, scale):
        """`diagonal x - scale A (scale x)`."""

        def by_node(values):
            if not ops.is_tensor(values):
                return values
            return ops.reshape(values, (-1,) + (1,) * (len(x.shape) - 1))

        y = x if scale is None else by_node(scale) * x
        shape = tuple(ops.shape(y))
        y = ops.reshape(y, (self._num_nodes, math.prod(shape[1:])))
        y = sparse_sum(
            y, self._rows, self._columns, self._weights, self._num_nodes
        )
        y = ops.reshape(y, shape)
        if scale is not None:
            y = by_node(scale) * y
        return -y if diagonal is None else by_node(diagonal) * x - y


def chebyshev_degree(z, tolerance):
    """The degree after which the series of `exp(-z (1 + s))`, `s` in `[-1, 1]`,
    may end."""
    if z == 0:
        return 0
    # Beyond this the terms fall faster than geometrically.
    most = int(z + 20 * math.sqrt(z + 1) + 40)
    terms = scipy.special.ive(np.arange(1, most + 1), z)
    # Of interpolation: twice what truncation leaves out.
    rest = 4 * np.cumsum(terms[::-1])[::-1]
    return max(1, int((rest > tolerance).sum()))


def taylor_degree(z, tolerance):
    """The degree after which the series of `exp(z)` may end."""
    if z == 0:
        return 0
    degree = np.arange(int(z + 20 * math.sqrt(z + 1) + 40))
    # The chance of more than `degree` events where `z` are expected.
    return max(1, int((scipy.special.pdtrc(degree, z) > tolerance).sum()))


def chebyshev_coefficients(time, center, radius, degree):
    """Of the polynomial that interpolates `exp(-time s)` for `s` within
    `radius` of `center` at the zeros of the next Chebyshev polynomial.

    Returns:
        `(*batch, degree + 1)`, differentiable in `time`.
    """
    angles = np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)
    cosines = np.cos(np.arange(degree + 1) * angles[:, None])
    cosines *= 2 / (degree + 1)
    cosines[:, 0] /= 2
    points = ops.cast(center + radius * np.cos(angles), time.dtype)
    values = ops.exp(-ops.expand_dims(time, -1) * points)
    cosines = ops.cast(ops.convert_to_tensor(cosines), time.dtype)
    return ops.sum(ops.expand_dims(values, -1) * cosines, axis=-2)
