"""`DiffusionMask`: diffusion kernels of a graph, their times learned."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Adjacency, GeneratorName, Tensor
from keras_topo.host.diffusion_generator import DiffusionGenerator
from keras_topo.masks.fixed_arrays import (
    add_fixed_weights,
    recall,
    remember,
    remember_weights,
)
from keras_topo.masks.graph_masks import GraphMask
from keras_topo.masks.topology import Topology
from keras_topo.operators import GraphDiffusion
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.diffusion import MOST_GROWTH

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
    """The graph diffusion kernel `exp(-time T)`, with a time learned per head.

    Products are those of `keras_topo.operators.GraphDiffusion`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array, symmetric, not
            negative; or a `keras_topo.graphs.Graph`.
        generator: `"laplacian"`, `"adjacency"` or `"normalized_laplacian"`.
        times: float, or several floats, of which the number of heads is a
            multiple: each serves the same number of consecutive heads. Learned
            times start there.
        learn_times: bool; learned times are `max_time sigmoid(weight)`.
        max_time: float; defaults to four times the largest of `times`, or to
            the largest of them where they are not learned. Work grows with it.

    Raises:
        ValueError: if the graph is not as expected, or a time is negative or,
            where it is learned, not between 0 and `max_time`.

    *Complexity*: that of `GraphDiffusion` with `max_time`.

    Example:

    >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> mask = DiffusionMask(path, times=(0.5, 2.0))
    >>> mask.build(num_heads=4, topology=keras_topo.masks.Nodes(3))
    >>> mask.operator().shape
    (4, 3, 3)
    """

    nonnegative = True

    def __init__(
        self,
        adjacency: Adjacency,
        generator: GeneratorName = "normalized_laplacian",
        times: float | Sequence[float] = (1.0,),
        learn_times: bool = True,
        max_time: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.times: tuple[float, ...] = tuple(
            np.asarray(times, "float64").reshape(-1).tolist()
        )
        self.num_kernels = len(self.times)
        self.learn_times = bool(learn_times)
        if not self.times or not all(0 <= t < np.inf for t in self.times):
            raise ValueError(
                "`times` expects finite numbers that are not negative. "
                f"Received: times={times}"
            )
        self._arrays = made = None
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
        if made is not None:
            GraphDiffusion(made, time=self.max_time)

    def build(self, num_heads: int, topology: Topology | None = None) -> None:
        del topology
        self.graph_weights = add_fixed_weights(
            self, "graph", self._spec["shapes"], self._arrays
        )
        if self.learn_times:
            share = np.repeat(self.times, num_heads // self.num_kernels)
            share = share / self.max_time
            initial = np.log(share / (1 - share)).astype("float32")
            self.time_weight = self.add_weight(
                name="times",
                shape=initial.shape,
                initializer=keras.initializers.Constant(initial),
                dtype="float32",
                autocast=False,
            )
        self._repeats = num_heads // self.num_kernels

    def current_times(self) -> Tensor:
        """The times, `(heads,)`, or `()` for one that is not learned."""
        if self.learn_times:
            weight = ops.convert_to_tensor(self.time_weight)
            return self.max_time * ops.sigmoid(weight)
        times = np.asarray(self.times, "float32")
        if self.num_kernels == 1:
            return times[0]
        return np.repeat(times, self._repeats)

    def operator(self, topology: Topology | None = None) -> MaskOperator:
        del topology
        arrays: dict[str, Any] = dict.fromkeys(ARRAYS)
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

    def arguments(self) -> dict[str, Any]:
        return {
            "adjacency": self._graph_config(),
            "generator": self.generator,
            "times": self.times,
            "learn_times": self.learn_times,
            "max_time": self.max_time,
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "times": list(self.times)}

    def _graph_config(self):
        if self._arrays is None and self.built:
            self._arrays = remember_weights(self.graph_weights)
            self._spec["digest"] = self._arrays.digest
        return self._spec
