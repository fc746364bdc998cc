"""`GraphPropagation`: neighbors averaged by a kernel: GCN, SGC, APPNP."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import TensorLike, TensorOrDict
from keras_topo.arguments import by_former_name, positive, rate
from keras_topo.layers.graph_inputs import (
    GraphKernel,
    GraphKernelLayer,
    nodes_shape,
    with_nodes,
)


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphPropagation(GraphKernelLayer):
    """Multiplies node features by the kernel of their graph, `M^steps X`.

    With `M = D^-1/2 (A + I) D^-1/2` and a `Dense` layer before it this is a
    graph convolution (GCN, Kipf and Welling, 2017); several steps before one
    `Dense` layer are SGC (Wu et al., 2019). With `teleport` each step goes
    back to the features that came in,

        Z <- (1 - teleport) M Z + teleport X, beginning with Z = X,

    which approaches personalized PageRank (APPNP, Klicpera et al., 2019).

    Args:
        steps: int.
        teleport: float from 0 to below 1, the share of `X` in each step.
        graph_kernel: see `GraphKernelAttention`.

    Call arguments:
        inputs, kernel, mask: see `GraphKernelAttention`; one kernel only.

    Returns:
        The shape of the nodes, or the dict with other nodes.

    Raises:
        ValueError: if `steps` is no positive int, `teleport` is not from 0 to
            below 1, or the kernel is missing, does not fit the nodes, or is
            more than one.

    *Complexity*: `steps` products with the kernel.

    Example:

    >>> nodes, kernel = np.random.rand(2, 30, 16), np.random.rand(2, 30, 30)
    >>> tuple(GraphPropagation()(nodes, kernel).shape)
    (2, 30, 16)
    """

    # `teleport` comes last: it is younger than the others.
    def __init__(
        self,
        steps: int = 1,
        graph_kernel: GraphKernel = None,
        teleport: float = 0.0,
        **kwargs: Any,
    ):
        graph_kernel = by_former_name(
            kwargs, "fixed_kernel", "graph_kernel", graph_kernel
        )
        super().__init__(graph_kernel, **kwargs)
        self.steps = positive(steps, "steps")
        self.teleport = rate(teleport, "teleport")

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, inputs_shape: Any, kernel_shape: Any = None) -> None:
        del kernel_shape
        nodes_shape(inputs_shape, self)
        self._check_heads(1)
        self._build_graph_kernel()

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
            visible = mask[..., None]
            x = ops.where(visible, x, ops.zeros_like(x))
        x = ops.expand_dims(x, 1)
        start, share = x, self.teleport
        for _ in range(self.steps):
            x = operator.matmul(x)
            if share:
                # Products are in float32 at least, whatever came in.
                x = (1 - share) * x + share * ops.cast(start, x.dtype)
        x = ops.cast(ops.squeeze(x, 1), nodes.dtype)
        return with_nodes(inputs, x)

    def compute_output_shape(
        self, inputs_shape: Any, kernel_shape: Any = None
    ) -> Any:
        del kernel_shape
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "steps": self.steps,
            "teleport": self.teleport,
        }
