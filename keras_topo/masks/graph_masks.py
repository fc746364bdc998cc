"""`GraphMask`: a learned mask between the nodes of one large graph.

A mask layer is given to `GraphKernelAttention` as its `graph_kernel`. It holds
the graph, as non-trainable weights, and what is learned of the mask, and makes
the operator of `keras_topo.operators` in each call; no matrix of all pairs of
nodes is formed.
"""

from typing import Any, Self

import numpy as np

from keras_topo.masks.mask import Mask
from keras_topo.masks.topology import Topology
from keras_topo.operators.base import MaskOperator


class GraphMask(Mask):
    """A mask between the nodes of one graph, one a head, as a layer.

    **To write one**, register a subclass with
    `keras.saving.register_keras_serializable`, give it `num_nodes` and
    `arguments`, what it was constructed with, create weights in `build`, and
    make an operator of them in `operator`; the topology is that of its own
    graph, `Nodes`, and may be left out.
    Masks that are sampled also have `resample`, which the callback
    `keras_topo.callbacks.Resample` calls.
    """

    #: Kernels it brings: the number of heads is a multiple of it.
    num_kernels = 1
    num_nodes = None

    def build(self, num_heads: int, topology: Topology | None = None) -> None:
        """Creates the weights; see `Mask.build`."""

    def operator(self, topology: Topology | None = None) -> MaskOperator:
        """The `MaskOperator`, `(nodes, nodes)` or `(heads, nodes, nodes)`."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `operator(topology)`"
        )

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, those of `keras.layers.Layer` left out."""
        raise NotImplementedError(
            f"{type(self).__name__} must implement `arguments()`"
        )

    def clone(self) -> Self:
        """A mask like this one with weights of its own, not built yet."""
        twin = type(self)(**self.arguments())
        twin.name, twin.trainable = self.name, self.trainable
        twin.dtype_policy = self.dtype_policy
        self._give_sample(twin)
        return twin

    def get_config(self) -> dict[str, Any]:
        """Arguments, arrays as lists. A subclass whose arrays are weights
        leaves them out."""
        arguments = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in self.arguments().items()
        }
        return {**super().get_config(), **arguments}

    def _give_sample(self, twin):
        """Hands on the state of a mask that is sampled."""
