"""Masks of a graph that are products of sampled sparse factors."""

from typing import Any

import keras
import numpy as np
import scipy.sparse
from keras import ops

from keras_topo.annotations import Adjacency
from keras_topo.arguments import positive
from keras_topo.graphs.random_features import (
    diffusion_modulation,
    graph_random_features,
    sample_capacity,
)
from keras_topo.graphs.walks import random_walk_features
from keras_topo.host.adjacency import as_adjacency
from keras_topo.host.local_order import local_order
from keras_topo.masks.fixed_arrays import (
    add_fixed_weights,
    recall,
    remember,
    remember_weights,
)
from keras_topo.masks.graph_masks import GraphMask
from keras_topo.masks.mask import inverse_softplus
from keras_topo.masks.topology import Topology
from keras_topo.operators import Permuted, SparseFactors
from keras_topo.operators.base import MaskOperator


class SampledMask(GraphMask):
    """A mask `F F^T` whose sparse factor is sampled by walks from every node.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        num_walks, length, halt, seed: of the walks.
    """

    # Walks add up weights of edges, and are modulated by positive numbers.
    nonnegative = True

    def __init__(
        self,
        adjacency: Adjacency,
        num_walks: int,
        length: int,
        halt: float,
        seed: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_walks = positive(num_walks, "num_walks")
        self.length = positive(length, "length")
        self.halt, self.seed = float(halt), int(seed)
        self._first_draw = 0
        if isinstance(adjacency, dict):
            self._spec = dict(adjacency)
            self._arrays = recall(self._spec.get("digest"))
        else:
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

    def build(self, num_heads: int, topology: Topology | None = None) -> None:
        del topology
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

    def resample(self) -> None:
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

    def in_order(self, operator: MaskOperator) -> MaskOperator:
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

    def arguments(self) -> dict[str, Any]:
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

    def _values_shape(self) -> tuple[int, ...]:
        return ()


@keras.saving.register_keras_serializable(package="keras_topo")
class RandomFeaturesMask(SampledMask):
    """Graph random features: an estimate of `(sum_l f_l W^l)^2`, `f` learned.

    `W = D^-1/2 A D^-1/2`. Walks from every node, weighted by the inverse of
    their probabilities, give a sparse factor `F`. The mean of `F F^T` over
    samples is the mask, except on the diagonal, to which the variance of `F`
    is added (Reid et al., 2025). The modulation `f` is the softplus of a
    weight, and starts as that of the diffusion kernel `exp(time W)`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, not negative; or a
            `Graph`.
        num_walks: int, from each node.
        length: int, nodes of a walk: the mask reaches `2 (length - 1)` edges.
        halt: float, probability to stop before each step.
        time: float, positive, at the start.
        seed: int; walks are drawn again only by `resample`.

    *Complexity*: `O(nodes num_walks length)`.

    Example:

    >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> mask = RandomFeaturesMask(path, num_walks=100, length=3)
    >>> mask.build(num_heads=2, topology=keras_topo.masks.Nodes(3))
    >>> mask.operator().shape
    (2, 3, 3)
    """

    def __init__(
        self,
        adjacency: Adjacency,
        num_walks: int = 16,
        length: int = 4,
        halt: float = 0.0,
        time: float = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ):
        if not 0 < time < np.inf:
            raise ValueError(
                f"`time` expects a positive number. Received: time={time}"
            )
        self.time = float(time)
        super().__init__(adjacency, num_walks, length, halt, seed, **kwargs)

    def build(self, num_heads: int, topology: Topology | None = None) -> None:
        super().build(num_heads, topology)
        initial = np.maximum(diffusion_modulation(self.time, self.length), 1e-6)
        self.modulation_weight = self.add_weight(
            name="modulation",
            shape=(num_heads, self.length),
            initializer=keras.initializers.Constant(
                np.tile(inverse_softplus(initial), (num_heads, 1))
            ),
            dtype="float32",
            autocast=False,
        )

    def operator(self, topology: Topology | None = None) -> MaskOperator:
        del topology
        modulation = ops.convert_to_tensor(self.modulation_weight)
        values = ops.convert_to_tensor(self.sample_weights["values"])
        factors = SparseFactors(
            ops.convert_to_tensor(self.sample_weights["pairs"]),
            ops.matmul(ops.softplus(modulation), values),
            self.num_nodes,
        )
        return self.in_order(factors)

    def arguments(self) -> dict[str, Any]:
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

    Example:

    >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> mask = RandomWalkMask(path, num_walks=100, length=3)
    >>> mask.build(num_heads=2, topology=keras_topo.masks.Nodes(3))
    >>> print(np.array(np.diag(mask.operator().to_dense())).round(4))
    [1. 1. 1.]
    """

    def __init__(
        self,
        adjacency: Adjacency,
        num_walks: int = 16,
        length: int = 4,
        halt: float = 0.0,
        discount: float = 1.0,
        normalize: bool = True,
        anchors: int | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        self.discount, self.normalize = float(discount), bool(normalize)
        self.anchors = anchors
        super().__init__(adjacency, num_walks, length, halt, seed, **kwargs)

    def operator(self, topology: Topology | None = None) -> MaskOperator:
        del topology
        factors = SparseFactors(
            ops.convert_to_tensor(self.sample_weights["pairs"]),
            ops.convert_to_tensor(self.sample_weights["values"]),
            self.num_nodes,
            self.num_nodes if self.anchors is None else self.anchors,
        )
        return self.in_order(factors)

    def arguments(self) -> dict[str, Any]:
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
