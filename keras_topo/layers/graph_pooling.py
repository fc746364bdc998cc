"""`GraphPooling`: from nodes to one vector a graph."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Shape, Tensor, TensorLike, TensorOrDict
from keras_topo.arguments import one_of
from keras_topo.layers.floats import as_floats
from keras_topo.layers.graph_inputs import split_graph
from keras_topo.layers.padding import check_padding
from keras_topo.operators.dense import HIDDEN
from keras_topo.operators.parameters import accumulation_dtype

MODES = ("mean", "max", "sum", "log_size")


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphPooling(keras.layers.Layer):
    """Pools the nodes of each graph.

    Args:
        mode: `"mean"`, `"max"`, `"sum"`, `"log_size"`, or several of them
            joined by `"+"`, as in `"mean+max"`, whose results are
            concatenated. `"log_size"` is one number, the logarithm of the
            number of nodes of the graph: a mean does not tell it, and a sum
            says it in every channel at once.

    Call arguments:
        inputs: nodes `(batch, nodes, channels)`, or a dict with `nodes` and
            possibly `node_mask`, or `graph_sizes`.
        mask: `(batch, nodes)`, `True` for real nodes; padded ones do not
            count. A graph without real nodes gives zeros.
        graph_sizes: `(graphs,)`, int, the number of nodes of each graph, for
            graphs that are joined in nodes `(1, all nodes, channels)`, in
            their order; what follows is padding. `mask` is not used then.

    Returns:
        `(batch, features)`: the channels of the inputs for each of `"mean"`,
        `"max"` and `"sum"`, and one for `"log_size"`.

    Raises:
        ValueError: for an unknown mode, or a mask or sizes of another shape.

    Example:

    >>> tuple(GraphPooling("mean+max")(np.random.rand(2, 30, 16)).shape)
    (2, 32)
    """

    def __init__(self, mode: str = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.mode = mode
        self.modes = [one_of(m, "mode", MODES) for m in mode.split("+")]

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self, inputs_shape: Any, graph_sizes_shape: Shape | None = None
    ) -> None:
        pass

    def call(
        self,
        inputs: TensorOrDict,
        graph_sizes: Tensor | None = None,
        mask: TensorLike | None = None,
        inputs_mask: TensorLike | None = None,
    ) -> Tensor:
        mask = inputs_mask if mask is None else mask
        if isinstance(inputs, dict) and graph_sizes is None:
            graph_sizes = inputs.get("graph_sizes")
        nodes, _, mask = split_graph(inputs, None, mask)
        nodes = as_floats(nodes, self)
        dtype = nodes.dtype
        nodes = ops.cast(nodes, accumulation_dtype(dtype))
        if graph_sizes is not None:
            return ops.cast(self._pool_joined(nodes, graph_sizes), dtype)
        real = check_padding(mask, nodes.shape, self)
        if real is None:
            real = ops.ones_like(nodes[..., 0], dtype="bool")
        visible = real[..., None]
        zeros = ops.zeros_like(nodes)
        total = ops.sum(ops.where(visible, nodes, zeros), axis=1)
        count = ops.sum(ops.cast(visible, nodes.dtype), axis=1)

        def top():
            # `initial` for graphs without nodes.
            return ops.max(
                ops.where(visible, nodes, HIDDEN), axis=1, initial=HIDDEN
            )

        return ops.cast(self._pooled(total, count, top), dtype)

    def _pool_joined(self, nodes, graph_sizes):
        """Pools the graphs that are joined in one."""
        sizes = ops.convert_to_tensor(graph_sizes)
        kind = keras.backend.standardize_dtype(sizes.dtype)
        if len(sizes.shape) != 1 or "int" not in kind:
            raise ValueError(
                "`graph_sizes` expects ints (graphs,); a padding mask is given "
                f"by name, `mask=`. Received: {kind} of shape "
                f"{tuple(sizes.shape)}"
            )
        if nodes.shape[0] not in (None, 1):
            raise ValueError(
                "`graph_sizes` expects nodes (1, all nodes, channels), of "
                f"joined graphs. Received: the shape {tuple(nodes.shape)}"
            )
        nodes, sizes = nodes[0], ops.cast(sizes, "int32")
        graphs = ops.shape(sizes)[0]
        # Padding belongs to one more graph, which is left out.
        ids = ops.searchsorted(
            ops.cumsum(sizes),
            ops.arange(ops.shape(nodes)[0], dtype="int32"),
            side="right",
        )
        options = {"num_segments": graphs + 1}
        total = ops.segment_sum(nodes, ids, **options)[:-1]
        count = ops.cast(sizes, nodes.dtype)[:, None]
        return self._pooled(
            total, count, lambda: ops.segment_max(nodes, ids, **options)[:-1]
        )

    def _pooled(self, total, count, top):
        """The modes side by side.

        Args:
            total: `(graphs, channels)`, sums over the nodes.
            count: `(graphs, 1)`, their numbers.
            top: function that gives the largest, `(graphs, channels)`.
        """
        pooled = []
        for mode in self.modes:
            if mode == "sum":
                pooled.append(total)
            elif mode == "mean":
                pooled.append(total / ops.maximum(count, 1.0))
            elif mode == "log_size":
                pooled.append(ops.log(ops.maximum(count, 1.0)))
            else:
                pooled.append(ops.where(count > 0, top(), 0.0))
        return ops.concatenate(pooled, axis=-1)

    def compute_output_shape(
        self, inputs_shape: Any, graph_sizes_shape: Shape | None = None
    ) -> Shape:
        if isinstance(inputs_shape, dict):
            graph_sizes_shape = inputs_shape.get("graph_sizes")
            inputs_shape = inputs_shape["nodes"]
        channels = inputs_shape[-1]
        widths = [1 if m == "log_size" else channels for m in self.modes]
        graphs = (graph_sizes_shape or inputs_shape)[0]
        return (graphs, sum(widths))

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}
