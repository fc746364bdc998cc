"""Learned masks between the nodes of one large graph or forest.

A mask layer is given to `GraphKernelAttention` as its `fixed_kernel`. It holds
the graph, as non-trainable weights, and what is learned of the mask, and makes
the operator of `keras_topo.operators` in each call; no matrix of all pairs of
nodes is formed.
"""

import keras
import numpy as np
import scipy.sparse
from keras import ops

from keras_topo.graphs.graph import Graph
from keras_topo.graphs.random_features import (
    diffusion_modulation,
    graph_random_features,
    sample_capacity,
)
from keras_topo.graphs.walks import random_walk_features
from keras_topo.host.adjacency import as_adjacency
from keras_topo.host.forest import Forest
from keras_topo.host.generator import DiffusionGenerator
from keras_topo.host.local_order import local_order
from keras_topo.layers.arguments import (
    add_fixed_weights,
    one_of,
    positive,
    recall,
    remember,
    remember_weights,
)
from keras_topo.operators import (
    ForestDistance,
    ForestExponential,
    GraphDiffusion,
    Permuted,
    SparseFactors,
    damped_cosine,
    exponentiated_polynomial,
    rational,
)
from keras_topo.operators.centroid_plan import CentroidPlan
from keras_topo.operators.diffusion import MOST_GROWTH
from keras_topo.operators.forest import check_edge_weights, shared_plan
from keras_topo.operators.forest_distance import check_weights


class GraphMask(keras.layers.Layer):
    """A mask between the nodes of one graph, one a head, as a layer.

    **To write one**, register a subclass with
    `keras.saving.register_keras_serializable`, give it `num_nodes` and
    `arguments`, what it was constructed with, create weights in `build`,
    which gets `(num_heads,)`, and make an operator of them in `operator`.
    Masks that are sampled also have `resample`, which the callback
    `keras_topo.callbacks.Resample` calls.
    """

    #: Kernels it brings: the number of heads is a multiple of it.
    num_kernels = 1
    num_nodes = None

    def operator(self):
        """The `MaskOperator`, `(nodes, nodes)` or `(heads, nodes, nodes)`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `operator()`"
        )

    def arguments(self):
        """Constructor arguments, those of `keras.layers.Layer` left out."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `arguments()`"
        )

    def clone(self):
        """A mask like this one with weights of its own, not built yet."""
        twin = type(self)(**self.arguments())
        twin.name, twin.trainable = self.name, self.trainable
        twin.dtype_policy = self.dtype_policy
        self._give_sample(twin)
        return twin

    def get_config(self):
        """Arguments, arrays as lists. A subclass whose arrays are weights
        leaves them out."""
        arguments = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self.arguments().items()
        }
        return {**super().get_config(), **arguments}

    def _give_sample(self, twin):
        """Hands on the state of a mask that is sampled."""


FUNCTIONS = (
    "exponential",
    "exponentiated_polynomial",
    "rational",
    "damped_cosine",
    "table",
)


@keras.saving.register_keras_serializable(package="keras_topo")
class ForestMask(GraphMask):
    """A function of the distance between nodes of a forest, learned a head.

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
    """  # noqa: E501

    def __init__(
        self,
        parents,
        edge_weights=None,
        function="exponential",
        degree=2,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.forest = parents
        if not isinstance(parents, Forest):
            self.forest = Forest.from_parents(parents)
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

    def build(self, input_shape):
        (heads,) = input_shape
        # Reaching from two thirds of an edge to eight, on average.
        rates = np.exp2(np.linspace(0.5, -3.0, heads)) / self._mean_weight()
        if self.function == "exponential":
            shape = (heads, self._components)
            rates = np.broadcast_to(rates[:, None], shape)
            self._add("rate", rates if self._vectors else rates[:, 0])
        elif self.function == "exponentiated_polynomial":
            self._add("coefficients", np.zeros((heads, self.degree)), False)
        elif self.function == "rational":
            self._add("rate", rates**2)
        elif self.function == "damped_cosine":
            self._add("rate", rates)
            self._add("frequency", rates)
        elif self.function == "table":
            count = len(self._plan.distances)
            self._add("table", np.ones((heads, count)), False)

    def operator(self):
        if callable(self.function):
            return self.operator_of(self.function)
        if self.function == "exponential":
            return self.operator_of(-ops.softplus(self._value("rate")))
        if self.function == "table":
            return self.operator_of(ops.abs(self._value("table")))
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

    def operator_of(self, parameter):
        """The operator with `a`, `f` or its table as given."""
        if self.function == "exponential":
            return ForestExponential(
                self.forest, self.edge_weights, parameter, 0.0
            )
        return ForestDistance(self.forest, parameter, self.edge_weights)

    def arguments(self):
        return {
            "parents": self.forest,
            "edge_weights": self.edge_weights,
            "function": self.function,
            "degree": self.degree,
        }

    def get_config(self):
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
        operator = self.operator_of(self.function)
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
            # Inverse of the softplus, which is the identity for large numbers.
            initial = np.maximum(initial, 1e-30)
            initial = initial + np.log(-np.expm1(-initial))
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


# Fields of a `DiffusionGenerator`; those that are `None` are left out.
ARRAYS = (
    "rows",
    "columns",
    "weights",
    "diagonal",
    "scale",
    "order",
    "inverse",
)


@keras.saving.register_keras_serializable(package="keras_topo")
class DiffusionMask(GraphMask):
    """The graph diffusion kernel `exp(-time T)`, its time learned a head.

    See `GraphDiffusion`, by whose products it is applied.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, symmetric, not
            negative; or a `keras_topo.graphs.Graph`.
        generator: `"laplacian"`, `"adjacency"` or `"normalized_laplacian"`.
        times: float, or several of which the number of heads is a multiple,
            each for as many heads in a row; where they start, if learned.
        learn_times: bool; a time is `max_time sigmoid(weight)`.
        max_time: float; defaults to four times the largest of `times`, or to
            that itself where they are not learned. Work grows with it.

    Raises:
        ValueError: if the graph is not as expected, or a time is negative or,
            where it is learned, not between 0 and `max_time`.

    *Complexity*: that of `GraphDiffusion` with `max_time`.
    """

    def __init__(
        self,
        adjacency,
        generator="normalized_laplacian",
        times=(1.0,),
        learn_times=True,
        max_time=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.times = tuple(np.asarray(times, "float64").reshape(-1).tolist())
        self.num_kernels = len(self.times)
        self.learn_times = bool(learn_times)
        if not self.times or not all(0 <= t < np.inf for t in self.times):
            raise ValueError(
                "`times` expects finite numbers that are not negative. "
                f"Received: times={times}"
            )
        self._arrays = None
        if isinstance(adjacency, dict):
            self._spec = dict(adjacency)
            self._arrays = recall(self._spec.get("digest"))
        else:
            made = DiffusionGenerator.from_adjacency(adjacency, generator)
            self._arrays = remember(
                {
                    name: getattr(made, name)
                    for name in ARRAYS
                    if getattr(made, name) is not None
                }
            )
            self._spec = {
                "num_nodes": made.num_nodes,
                "bounds": list(made.bounds),
                "shapes": {k: list(x.shape) for k, x in self._arrays.items()},
                "digest": self._arrays.digest,
            }
        if max_time is None:
            max_time = max(self.times) * (4 if learn_times else 1)
            growth = -self._spec["bounds"][0]
            if learn_times and growth > 0:
                # As far as exp(time A) stays within the range of float32.
                largest = max(self.times)
                max_time = max(min(max_time, MOST_GROWTH / growth), largest)
                if max_time == largest:
                    max_time = 1.001 * largest
        self.max_time = float(max_time)
        if learn_times and not all(0 < t < self.max_time for t in self.times):
            raise ValueError(
                f"`times` expects numbers between 0 and max_time="
                f"{self.max_time:g} where they are learned. Received: "
                f"times={times}"
            )
        self.generator = generator
        self.num_nodes = self._spec["num_nodes"]
        # Whether exp(time A) stays in range is better known now.
        self.graph_weights = {}
        if not isinstance(adjacency, dict):
            GraphDiffusion(made, time=self.max_time)

    def build(self, input_shape):
        (heads,) = input_shape
        self.graph_weights = add_fixed_weights(
            self, "graph", self._spec["shapes"], self._arrays
        )
        if self.learn_times:
            share = np.repeat(self.times, heads // self.num_kernels)
            share = share / self.max_time
            initial = np.log(share / (1 - share)).astype("float32")
            self.time_weight = self.add_weight(
                name="times",
                shape=initial.shape,
                initializer=keras.initializers.Constant(initial),
                dtype="float32",
                autocast=False,
            )
        self._repeats = heads // self.num_kernels

    def current_times(self):
        """The times, `(heads,)`, or `()` for one that is not learned."""
        if self.learn_times:
            weight = ops.convert_to_tensor(self.time_weight)
            return self.max_time * ops.sigmoid(weight)
        times = np.asarray(self.times, "float32")
        if self.num_kernels == 1:
            return times[0]
        return np.repeat(times, self._repeats)

    def operator(self):
        arrays = dict.fromkeys(ARRAYS)
        for name, weight in self.graph_weights.items():
            arrays[name] = ops.convert_to_tensor(weight)
        generator = DiffusionGenerator(
            name=self.generator,
            num_nodes=self.num_nodes,
            bounds=tuple(self._spec["bounds"]),
            **arrays,
        )
        return GraphDiffusion(
            generator, time=self.current_times(), max_time=self.max_time
        )

    def arguments(self):
        return {
            "adjacency": self._graph_config(),
            "generator": self.generator,
            "times": self.times,
            "learn_times": self.learn_times,
            "max_time": self.max_time,
        }

    def get_config(self):
        return {**super().get_config(), "times": list(self.times)}

    def _graph_config(self):
        if self._arrays is None and self.built:
            self._arrays = remember_weights(self.graph_weights)
            self._spec["digest"] = self._arrays.digest
        return self._spec


class SampledMask(GraphMask):
    """A mask `F F^T` whose sparse factor is sampled by walks from every node.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        num_walks, length, halt, seed: of the walks.
    """

    def __init__(self, adjacency, num_walks, length, halt, seed, **kwargs):
        super().__init__(**kwargs)
        self.num_walks = positive(num_walks, "num_walks")
        self.length = positive(length, "length")
        self.halt, self.seed = float(halt), int(seed)
        self._first_draw = 0
        if isinstance(adjacency, dict):
            self._spec = dict(adjacency)
            self._arrays = recall(self._spec.get("digest"))
        else:
            if isinstance(adjacency, Graph):
                adjacency = adjacency.adjacency
            matrix = as_adjacency(adjacency)
            nodes = matrix.shape[0]
            arrays = {}
            order = local_order(matrix)
            if order is not None:
                # All of the mask is in this order; `in_order` undoes it.
                matrix = matrix[order][:, order]
                inverse = np.argsort(order).astype("int32")
                arrays = {"order": order, "inverse": inverse}
            matrix = matrix.tocoo()
            pairs, values = self._draw(matrix, self.seed)
            capacity = sample_capacity(
                nodes, len(pairs), self.num_walks, self.length
            )
            self._spec = {
                "num_nodes": nodes,
                "num_edges": matrix.nnz,
                "capacity": capacity,
                "ordered": order is not None,
            }
            self._arrays = remember(
                {
                    **arrays,
                    "edges": np.stack(matrix.coords, axis=1).astype("int32"),
                    "edge_weights": matrix.data.astype("float32"),
                    **self._padded(pairs, values),
                }
            )
            self._spec["digest"] = self._arrays.digest
        self.num_nodes = self._spec["num_nodes"]
        self.graph_weights, self.sample_weights = {}, {}

    def build(self, input_shape):
        edges, capacity = self._spec["num_edges"], self._spec["capacity"]
        # The graph is kept for other samples of it.
        shapes = {"edges": (edges, 2), "edge_weights": (edges,)}
        if self._spec.get("ordered"):
            shapes |= dict.fromkeys(("order", "inverse"), (self.num_nodes,))
        self.graph_weights = add_fixed_weights(
            self, "graph", shapes, self._arrays
        )
        shapes = {
            "pairs": (capacity, 2),
            "values": (*self._values_shape(), capacity),
        }
        self.sample_weights = add_fixed_weights(
            self, "sample", shapes, self._arrays
        )
        # In files too, so that no sample comes twice.
        self.draws = self.add_weight(
            name="draws",
            shape=(),
            dtype="int32",
            initializer=keras.initializers.Constant(self._first_draw),
            trainable=False,
            autocast=False,
        )

    def resample(self):
        """Draws other walks, from the next seed."""
        if not self.built:
            raise ValueError(
                f"{type(self).__name__}.resample expects a layer that is "
                "built. Received: one that is not"
            )
        edges, weights = (
            ops.convert_to_numpy(self.graph_weights[name])
            for name in ("edges", "edge_weights")
        )
        matrix = scipy.sparse.coo_array(
            (weights, tuple(edges.T)), shape=(self.num_nodes,) * 2
        )
        draws = int(ops.convert_to_numpy(self.draws)) + 1
        self.draws.assign(draws)
        sample = self._padded(*self._draw(matrix, [self.seed, draws]))
        for name, array in sample.items():
            self.sample_weights[name].assign(array)

    def in_order(self, operator):
        """An operator on the nodes of the mask as one on those of the graph."""
        if not self._spec.get("ordered"):
            return operator
        return Permuted(
            operator,
            *(
                ops.convert_to_tensor(self.graph_weights[name])
                for name in ("order", "inverse")
            ),
        )

    def _padded(self, pairs, values):
        """Weights of a sample: entries of value zero fill them up."""
        missing = self._spec["capacity"] - len(pairs)
        if missing < 0:
            raise ValueError(
                "a sample of walks expects at most "
                f"{self._spec['capacity']} entries, which all but never "
                f"happens. Received: {len(pairs)}"
            )
        # The last pair again, which keeps them sorted.
        last = pairs[-1:] if len(pairs) else np.zeros((1, 2), "int32")
        pairs = np.concatenate([pairs, np.repeat(last, missing, axis=0)])
        values = np.pad(values, (*((0, 0),) * (values.ndim - 1), (0, missing)))
        return {
            "pairs": pairs.astype("int32"),
            "values": values.astype("float32"),
        }

    def _give_sample(self, twin):
        if self.built:
            twin._first_draw = int(ops.convert_to_numpy(self.draws))

    def _graph_config(self):
        weights = {**self.graph_weights, **self.sample_weights}
        drawn = self.built and int(ops.convert_to_numpy(self.draws)) > 0
        if self.built and (self._arrays is None or drawn):
            self._arrays = remember_weights(weights)
            self._spec["digest"] = self._arrays.digest
        return self._spec

    def arguments(self):
        return {
            "adjacency": self._graph_config(),
            "num_walks": self.num_walks,
            "length": self.length,
            "halt": self.halt,
            "seed": self.seed,
        }

    def _draw(self, adjacency, seed):
        """`pairs` `(entries, 2)` and `values` `(..., entries)` of a sample."""
        raise NotImplementedError

    def _values_shape(self):
        return ()


@keras.saving.register_keras_serializable(package="keras_topo")
class RandomFeaturesMask(SampledMask):
    """Graph random features: an estimate of `(sum_l f_l W^l)^2`, `f` learned.

    `W = D^-1/2 A D^-1/2`. Walks from every node, weighted by the inverse of
    their probabilities, give a sparse factor `F`; the mean of `F F^T` over
    samples is the mask, but for its diagonal, which has the variance of `F`
    besides (Reid et al., 2025). The modulation `f` is the softplus of a weight,
    and starts as that of the diffusion kernel `exp(time W)`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, not negative; or a
            `Graph`.
        num_walks: int, from each node.
        length: int, nodes of a walk: the mask reaches `2 (length - 1)` edges.
        halt: float, probability to stop before each step.
        time: float, positive, at the start.
        seed: int; walks are drawn again only by `resample`.

    *Complexity*: `O(nodes num_walks length)`.
    """

    def __init__(
        self,
        adjacency,
        num_walks=16,
        length=4,
        halt=0.0,
        time=1.0,
        seed=0,
        **kwargs,
    ):
        if not 0 < time < np.inf:
            raise ValueError(
                f"`time` expects a positive number. Received: time={time}"
            )
        self.time = float(time)
        super().__init__(adjacency, num_walks, length, halt, seed, **kwargs)

    def build(self, input_shape):
        super().build(input_shape)
        (heads,) = input_shape
        initial = np.maximum(diffusion_modulation(self.time, self.length), 1e-6)
        initial = initial + np.log(-np.expm1(-initial))
        self.modulation_weight = self.add_weight(
            name="modulation",
            shape=(heads, self.length),
            initializer=keras.initializers.Constant(
                np.tile(initial, (heads, 1)).astype("float32")
            ),
            dtype="float32",
            autocast=False,
        )

    def operator(self):
        modulation = ops.convert_to_tensor(self.modulation_weight)
        values = ops.convert_to_tensor(self.sample_weights["values"])
        factors = SparseFactors(
            ops.convert_to_tensor(self.sample_weights["pairs"]),
            ops.matmul(ops.softplus(modulation), values),
            self.num_nodes,
        )
        return self.in_order(factors)

    def arguments(self):
        return {**super().arguments(), "time": self.time}

    def _draw(self, adjacency, seed):
        found = graph_random_features(
            adjacency, self.num_walks, self.length, self.halt, seed=seed
        )
        return found.pairs, found.values

    def _values_shape(self):
        return (self.length,)


@keras.saving.register_keras_serializable(package="keras_topo")
class RandomWalkMask(SampledMask):
    """The random-walk graph-nodes kernel, from sampled walks.

    `F F^T` with the features of `keras_topo.graphs.random_walk_features`, the
    rows of `F` being of norm 1: nodes see each other as far as walks from both
    meet.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, not negative; or a
            `Graph`.
        num_walks, length, halt, discount, normalize: see
            `random_walk_features`.
        anchors: int, the number of nodes, drawn at random, whose coordinates
            are kept; or `None`, all.
        seed: int; walks (not anchors) are drawn again only by `resample`.

    *Complexity*: `O(nodes num_walks length)`.
    """

    def __init__(
        self,
        adjacency,
        num_walks=16,
        length=4,
        halt=0.0,
        discount=1.0,
        normalize=True,
        anchors=None,
        seed=0,
        **kwargs,
    ):
        self.discount, self.normalize = float(discount), bool(normalize)
        self.anchors = anchors
        super().__init__(adjacency, num_walks, length, halt, seed, **kwargs)

    def operator(self):
        factors = SparseFactors(
            ops.convert_to_tensor(self.sample_weights["pairs"]),
            ops.convert_to_tensor(self.sample_weights["values"]),
            self.num_nodes,
            self.num_nodes if self.anchors is None else self.anchors,
        )
        return self.in_order(factors)

    def arguments(self):
        return {
            **super().arguments(),
            "discount": self.discount,
            "normalize": self.normalize,
            "anchors": self.anchors,
        }

    def _draw(self, adjacency, seed):
        anchors = self.anchors
        if anchors is not None:
            nodes = adjacency.shape[0]
            if not 1 <= positive(anchors, "anchors") <= nodes:
                raise ValueError(
                    f"`anchors` expects 1 to {nodes} nodes. Received: "
                    f"anchors={anchors}"
                )
            # The same for all samples.
            random = np.random.default_rng(self.seed)
            anchors = np.sort(random.choice(nodes, anchors, replace=False))
        found = random_walk_features(
            adjacency,
            self.num_walks,
            self.length,
            self.halt,
            self.discount,
            self.normalize,
            anchors,
            seed,
        ).tocoo()
        return np.stack(found.coords, axis=1), found.data
