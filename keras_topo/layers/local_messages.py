"""`LocalMessages`: messages between neighbors, with features of edges."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Shape, Tensor
from keras_topo.arguments import positive
from keras_topo.layers.edges import (
    at_targets,
    split_indicator,
    sum_at_sources,
)
from keras_topo.layers.floats import as_floats
from keras_topo.layers.inner_dense import dense, with_changes
from keras_topo.operators.parameters import accumulation_dtype


@keras.saving.register_keras_serializable(package="keras_topo")
class LocalMessages(keras.layers.Layer):
    """One round of messages along edges (GINE; Hu et al., 2020).

        x_i' = mlp((1 + eps) x_i + sum over edges (i, j) of relu(x_j + W e_ij))

    With attention beside it this is the pattern of GPS (Rampasek et al.,
    2022). As in attention, a node takes from those that its edges lead to.

    Args:
        units: int, channels of the output and hidden units of the network.
        of_pairs: bool, whether `edges` are the pairs of a kernel.

    Call arguments:
        nodes: `(batch, nodes, channels)`.
        edges: `(batch, edges, 2)`, int, node ids, -1 for padding; or the
            `pairs` of a kernel.
        edge_features: `(batch, edges, channels)`; or, of pairs, `(batch,
            pairs, channels + 1)`: see `EdgeGates`.

    Returns:
        `(batch, nodes, units)`.

    *Complexity*: `O(edges channels + nodes channels units)`.

    Example:

    >>> edges, features = np.array([[[0, 1], [1, 0]]]), np.ones((1, 2, 4))
    >>> tuple(LocalMessages(8)(np.ones((1, 3, 6)), edges, features).shape)
    (1, 3, 8)
    """

    def __init__(
        self,
        units: int,
        of_pairs: bool = False,
        inner_dense: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        # Of a file: see `keras_topo.layers.inner_dense`.
        self._inner_dense = inner_dense
        self.units = positive(units, "units")
        self.of_pairs = bool(of_pairs)

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self, nodes_shape: Shape, edges_shape: Shape, edge_features_shape: Shape
    ) -> None:
        del edges_shape
        channels = nodes_shape[-1]
        of_edges = edge_features_shape[-1] - self.of_pairs
        self.edge_projection = dense(self, channels, "edges")
        self.edge_projection.build((None, None, of_edges))
        self.hidden = dense(self, self.units, "hidden", activation="relu")
        self.hidden.build((None, None, channels))
        self.output_dense = dense(self, self.units, "output")
        self.output_dense.build((None, None, self.units))
        self.eps = self.add_weight(name="eps", shape=(), initializer="zeros")

    def call(
        self, nodes: Tensor, edges: Tensor, edge_features: Tensor
    ) -> Tensor:
        nodes = as_floats(nodes, self)
        indicator = None
        if self.of_pairs:
            edge_features, indicator = split_indicator(edge_features)
        messages = ops.relu(
            at_targets(nodes, edges) + self.edge_projection(edge_features)
        )
        # In float32 at least: a hub has thousands of neighbors.
        messages = ops.cast(messages, accumulation_dtype(messages.dtype))
        if indicator is not None:
            messages = messages * ops.cast(indicator, messages.dtype)
        total = sum_at_sources(messages, edges, tuple(ops.shape(nodes))[1])
        x = (1 + self.eps) * nodes + ops.cast(total, nodes.dtype)
        return self.output_dense(self.hidden(x))

    def compute_output_shape(
        self, nodes_shape: Shape, edges_shape: Shape, edge_features_shape: Shape
    ) -> Shape:
        del edges_shape, edge_features_shape
        return (*nodes_shape[:-1], self.units)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            **with_changes(super().get_config(), self),
            "units": self.units,
            "of_pairs": self.of_pairs,
        }
