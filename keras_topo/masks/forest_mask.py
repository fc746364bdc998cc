"""`ForestMask`: learned functions of the distance in a forest."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo.annotations import Tensor
from keras_topo.arguments import one_of, positive
from keras_topo.host.forest import Forest
from keras_topo.masks.graph_masks import GraphMask
from keras_topo.masks.mask import inverse_softplus, magnitudes
from keras_topo.masks.topology import Topology
from keras_topo.operators import (
    ForestDistance,
    ForestExponential,
    damped_cosine,
    exponentiated_polynomial,
    rational,
)
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.centroid_plan import CentroidPlan
from keras_topo.operators.forest import check_edge_weights, shared_plan
from keras_topo.operators.forest_distance import check_weights

Name: TypeAlias = Literal[
    "exponential",
    "exponentiated_polynomial",
    "rational",
    "damped_cosine",
    "table",
]
FUNCTIONS = get_args(Name)
#: A function of the distance: a name, or one of tensors.
ForestFunction: TypeAlias = Name | Callable[[Tensor], Tensor]


@keras.saving.register_keras_serializable(package="keras_topo")
class ForestMask(GraphMask):
    """A function of the distance in a forest, learned per head.

    Nodes of different trees do not see each other. With `d` the distance and
    `x` the distance over the longest one in the forest, `function` is

    | name | mask | learned |
    |---|---|---|
    | `"exponential"` | `exp(-r d)` | `r > 0`, one for each component of the edge weights |
    | `"exponentiated_polynomial"` | `exp(c_1 x + ... + c_n x^n)` | `c`, zeros at the start |
    | `"rational"` | `1 / (1 + r d^2)` | `r > 0` |
    | `"damped_cosine"` | `exp(-r d) (1 + cos(w d)) / 2` | `r, w > 0` |
    | `"table"` | a number for each distance | its absolute value, ones at the start |
    | a callable | `f(d)` | nothing |

    (The longest distance of the plan: with weights that have no common step it
    may be up to twice the longest of two nodes.)

    Positive numbers are softplus of a weight; at the start they differ from
    head to head. A constant factor of a mask cancels in attention: none is
    learned.

    Args:
        parents: `(nodes,)`, the parent of each node, -1 for roots; or a
            `keras_topo.graphs.Forest`. A batch of trees is one forest:
            `Forest.from_trees`. For the tree of a graph see
            `keras_topo.graphs.minimum_spanning_forest` and
            `breadth_first_forest`.
        edge_weights: `(nodes,)`, of the edge from a node to its parent; `None`
            for ones. For `"exponential"` also vectors, `(nodes, l)`, and a
            tuple of both directions of travel: see `ForestExponential`.
        function: see above. A callable maps distances, a tensor `(n,)`, to
            values `(n,)` or `(heads, n)` that are not negative, and is
            registered with `keras.saving.register_keras_serializable` where
            the layer is to be saved.
        degree: int, of `"exponentiated_polynomial"`.

    Raises:
        ValueError: if `parents` is not a forest, weights do not fit or are
            negative where they may not be, or a callable returns negative
            values.

    *Complexity*: that of `ForestExponential` or `ForestDistance`; the plan is
    made once on the host and shared by all layers on the same forest.

    Example:

    >>> mask = ForestMask([-1, 0, 1], function="table")
    >>> mask.build(num_heads=2, topology=keras_topo.masks.Nodes(3))
    >>> mask.operator().shape
    (2, 3, 3)
    """  # noqa: E501

    # Also of a callable: its values are checked once, when it is given.
    nonnegative = True

    def __init__(
        self,
        parents: Forest | ArrayLike,
        edge_weights: ArrayLike | dict[str, Any] | None = None,
        function: ForestFunction | dict[str, Any] = "exponential",
        degree: int = 2,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.forest = (
            parents
            if isinstance(parents, Forest)
            else Forest.from_parents(parents)
        )
        if isinstance(edge_weights, dict):
            edge_weights = (edge_weights["up"], edge_weights["down"])
        self.edge_weights = edge_weights
        if isinstance(function, dict):
            function = keras.saving.deserialize_keras_object(function)
        if not callable(function):
            one_of(function, "function", FUNCTIONS)
        self.function = function
        self.degree = positive(degree, "degree")
        self.num_nodes = self.forest.num_nodes
        # Made here, where mistakes in the forest are best told, and held:
        # operators of each call find it.
        if function == "exponential":
            up, _, self._vectors = check_edge_weights(edge_weights, self.forest)
            self._components = up.shape[1]
            some = -np.ones(self._components if self._vectors else ())
            self._plan = self.operator_of(some)._tree
        else:
            weights = check_weights(edge_weights, self.forest)
            self._plan = shared_plan(CentroidPlan, self.forest, weights)
            if function == "table" and not self._plan.common_step:
                raise ValueError(
                    "`function` expects something else than a table where "
                    "edge weights have no common step. Received: "
                    "function='table'"
                )
        if callable(function):
            self._check_values()

    def build(self, num_heads: int, topology: Topology | None = None) -> None:
        del topology
        # Reaching from two thirds of an edge to eight, on average.
        rates = np.exp2(np.linspace(0.5, -3.0, num_heads)) / self._mean_weight()
        if self.function == "exponential":
            shape = (num_heads, self._components)
            rates = np.broadcast_to(rates[:, None], shape)
            self._add("rate", rates if self._vectors else rates[:, 0])
        elif self.function == "exponentiated_polynomial":
            self._add("coefficients", np.zeros((num_heads, self.degree)), False)
        elif self.function == "rational":
            self._add("rate", rates**2)
        elif self.function == "damped_cosine":
            self._add("rate", rates)
            self._add("frequency", rates)
        elif self.function == "table":
            count = len(self._plan.distances)
            self._add("table", np.ones((num_heads, count)), False)

    def operator(self, topology: Topology | None = None) -> MaskOperator:
        del topology
        if callable(self.function):
            return self.operator_of(self.function)
        if self.function == "exponential":
            return self.operator_of(-ops.softplus(self._value("rate")))
        if self.function == "table":
            return self.operator_of(magnitudes(self._value("table")))
        if self.function == "exponentiated_polynomial":
            longest = max(float(self._plan.distances[-1]), 1e-30)
            coefficients = self._value("coefficients")
            zeros = ops.zeros_like(coefficients[:, :1])
            function = exponentiated_polynomial(
                ops.concatenate([zeros, coefficients], axis=-1)
            )
            return self.operator_of(lambda d: function(d / longest))
        rate = ops.softplus(self._value("rate"))
        if self.function == "rational":
            return self.operator_of(rational(rate))
        frequency = ops.softplus(self._value("frequency"))
        return self.operator_of(damped_cosine(rate, frequency))

    def operator_of(
        self, parameter: Callable[[Tensor], Tensor] | Tensor
    ) -> ForestExponential | ForestDistance:
        """The operator with `a`, `f` or its table as given."""
        if self.function == "exponential":
            return ForestExponential(
                self.forest, self.edge_weights, parameter, 0.0
            )
        return ForestDistance(self.forest, parameter, self.edge_weights)

    def arguments(self) -> dict[str, Any]:
        return {
            "parents": self.forest,
            "edge_weights": self.edge_weights,
            "function": self.function,
            "degree": self.degree,
        }

    def get_config(self) -> dict[str, Any]:
        weights = self.edge_weights
        if isinstance(weights, tuple):
            names = ("up", "down")
            weights = {
                name: np.asarray(w).tolist()
                for name, w in zip(names, weights, strict=True)
            }
        elif weights is not None:
            weights = np.asarray(weights).tolist()
        function = self.function
        if callable(function):
            function = keras.saving.serialize_keras_object(function)
        return {
            **super().get_config(),
            "parents": self.forest.parents.tolist(),
            "edge_weights": weights,
            "function": function,
            "degree": self.degree,
        }

    def _mean_weight(self):
        """Of an edge, the sum of the absolute values of its components."""
        if self.edge_weights is None:
            return 1.0
        both = np.abs(np.asarray(self.edge_weights, "float64"))
        has_parent = self.forest.parents >= 0
        if isinstance(self.edge_weights, tuple):
            both = both.mean(axis=0)
        both = both.reshape(self.num_nodes, -1).sum(axis=1)[has_parent]
        return max(float(both.mean()), 1e-12) if len(both) else 1.0

    def _check_values(self):
        """Refuses a callable that is not finite, or negative between nodes."""
        operator = ForestDistance(self.forest, self.function, self.edge_weights)
        distances = self._plan.distances
        values = ops.convert_to_numpy(operator.values)
        bad = ~np.isfinite(values)
        # Some distances of a plan are between no two nodes.
        if not bad.any() and operator.nonnegative is not True:
            bad = values < 0
        if bad.any():
            place = tuple(np.argwhere(bad)[0])
            raise ValueError(
                "`function` expects finite values that are not negative: "
                "attention divides by sums of them. Received: "
                f"{values[place]} at the distance {distances[place[-1]]:g}"
            )

    def _add(self, name, initial, is_positive=True):
        if is_positive:
            initial = inverse_softplus(initial)
        weight = self.add_weight(
            name=name,
            shape=initial.shape,
            initializer=keras.initializers.Constant(initial.astype("float32")),
            dtype="float32",
            autocast=False,
        )
        setattr(self, f"{name}_weight", weight)

    def _value(self, name):
        return ops.convert_to_tensor(getattr(self, f"{name}_weight"))
