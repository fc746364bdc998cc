"""`GraphIsomorphism`: sums over neighbors and a network, as in GIN."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import TensorLike, TensorOrDict
from keras_topo.arguments import by_former_name, positive
from keras_topo.layers.graph_inputs import (
    GraphKernel,
    GraphKernelLayer,
    nodes_shape,
    with_nodes,
)
from keras_topo.layers.inner_dense import dense, with_changes


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphIsomorphism(GraphKernelLayer):
    """One layer of GIN (Xu et al., 2019).

        x_i' = mlp((1 + eps) x_i + sum over neighbors j of x_j)

    with a learned `eps`, zero at first, and a network of two layers with ReLU
    between them. The kernel `M` is `A + I`, `"neighbors"` of
    `GraphPreprocessor`: the sum is computed as `M X + eps X`. A layer with
    features of edges is `LocalMessages`.

    Args:
        units: int, channels of the output and hidden units of the network.
        graph_kernel: see `GraphKernelAttention`.

    Call arguments:
        inputs, kernel, mask: see `GraphKernelAttention`; one kernel only.

    Returns:
        `(batch, nodes, units)`, or the dict with other nodes.

    Raises:
        ValueError: if `units` is no positive int, or the kernel is missing,
            does not fit the nodes, or is more than one.

    *Complexity*: one product with the kernel, and `O(nodes units (channels +
    units))`.

    Example:

    >>> nodes, neighbors = np.ones((1, 3, 4)), np.ones((1, 3, 3))
    >>> tuple(GraphIsomorphism(8)(nodes, neighbors).shape)
    (1, 3, 8)
    """

    def __init__(
        self,
        units: int,
        graph_kernel: GraphKernel = None,
        inner_dense: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        graph_kernel = by_former_name(
            kwargs, "fixed_kernel", "graph_kernel", graph_kernel
        )
        super().__init__(graph_kernel, **kwargs)
        # Of a file: see `keras_topo.layers.inner_dense`.
        self._inner_dense = inner_dense
        self.units = positive(units, "units")

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, inputs_shape: Any, kernel_shape: Any = None) -> None:
        del kernel_shape
        channels = nodes_shape(inputs_shape, self)[-1]
        self._check_heads(1)
        self._build_graph_kernel()
        self.hidden = dense(self, self.units, "hidden", activation="relu")
        self.hidden.build((None, None, channels))
        self.output_dense = dense(self, self.units, "output")
        self.output_dense.build((None, None, self.units))
        self.eps = self.add_weight(name="eps", shape=(), initializer="zeros")

    def call(
        self,
        inputs: TensorOrDict,
        kernel: TensorOrDict | None = None,
        mask: TensorLike | None = None,
        inputs_mask: TensorLike | None = None,
    ) -> TensorOrDict:
        mask = inputs_mask if mask is None else mask
        nodes, operator, mask = self._graph(inputs, kernel, mask, 1)
        x = nodes
        if mask is not None:
            # What stands at padded nodes may be infinite.
            x = ops.where(mask[..., None], x, ops.zeros_like(x))
        # In float32 at least: a hub has thousands of neighbors.
        total = ops.squeeze(operator.matmul(ops.expand_dims(x, 1)), 1)
        x = ops.cast(total, x.dtype) + ops.cast(self.eps, x.dtype) * x
        return with_nodes(inputs, self.output_dense(self.hidden(x)))

    def compute_output_shape(
        self, inputs_shape: Any, kernel_shape: Any = None
    ) -> Any:
        del kernel_shape
        if isinstance(inputs_shape, dict):
            nodes = self.compute_output_shape(inputs_shape["nodes"])
            return {**inputs_shape, "nodes": nodes}
        return (*inputs_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **with_changes(super().get_config(), self),
            "units": self.units,
        }
