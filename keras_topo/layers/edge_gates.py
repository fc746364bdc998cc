"""`EdgeGates`: features of edges, as factors of a graph kernel."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Shape, Tensor
from keras_topo.arguments import positive
from keras_topo.layers.edges import at_edges, split_indicator
from keras_topo.layers.graph_inputs import kernel_shape_per_head
from keras_topo.layers.inner_dense import dense, with_changes

# A gate is between exp(-10) and exp(10): none hides an edge for ever.
LARGEST = 10.0


@keras.saving.register_keras_serializable(package="keras_topo")
class EdgeGates(keras.layers.Layer):
    """Multiplies graph kernels by what the features of edges say.

    Per head,

        M'[i, j] = M[i, j] exp(g(e_ij)) at edges, and M[i, j] elsewhere,

    with a small network `g` from the features of an edge to one number per
    head, between -10 and 10. It starts at zero, where nothing is changed.

    Args:
        num_heads: int, kernels of the result; a multiple of the number of
            kernels in the call.
        hidden_dim: int, hidden units of `g`.

    Call arguments:
        kernel: dict with `kernel` or `log_kernel`, `(batch, kernels, nodes,
            nodes)`; or with `pairs` `(batch, pairs, 2)` and `pair_values`
            `(batch, kernels, pairs)`.
        edge_features: `(batch, edges, channels)`; or, of pairs, `(batch,
            pairs, channels + 1)`, the last of which is 1 at edges and 0
            elsewhere.
        edges: `(batch, edges, 2)`, int, node ids, -1 for padding; not for
            pairs.

    Returns:
        The dict with as many kernels as heads.

    *Complexity*: `O(edges)`, and for matrices `O(heads nodes^2)`.

    Example:

    >>> kernel = {"kernel": np.ones((1, 1, 3, 3))}
    >>> edges, features = np.array([[[0, 1], [1, 0]]]), np.ones((1, 2, 4))
    >>> gated = EdgeGates(num_heads=2)(kernel, features, edges)
    >>> tuple(gated["kernel"].shape)
    (1, 2, 3, 3)
    """

    def __init__(
        self,
        num_heads: int,
        hidden_dim: int = 16,
        inner_dense: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        # Of a file: see `keras_topo.layers.inner_dense`.
        self._inner_dense = inner_dense
        self.num_heads = positive(num_heads, "num_heads")
        self.hidden_dim = positive(hidden_dim, "hidden_dim")

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self,
        kernel_shape: Any,
        edge_features_shape: Shape,
        edges_shape: Shape | None = None,
    ) -> None:
        del edges_shape
        channels = edge_features_shape[-1] - ("pairs" in kernel_shape)
        self.hidden = dense(self, self.hidden_dim, "hidden", activation="gelu")
        self.hidden.build((None, None, channels))
        self.gates = dense(
            self,
            self.num_heads,
            "gates",
            kernel_initializer="zeros",
            dtype="float32",
        )
        self.gates.build((None, None, self.hidden_dim))

    def call(
        self,
        kernel: dict[str, Tensor],
        edge_features: Tensor,
        edges: Tensor | None = None,
    ) -> dict[str, Tensor]:
        of_pairs = "pairs" in kernel
        indicator = None
        if of_pairs:
            edge_features, indicator = split_indicator(edge_features)
        gates = self.gates(self.hidden(edge_features))
        gates = LARGEST * ops.tanh(gates / LARGEST)
        if of_pairs:
            gates = ops.swapaxes(gates * indicator, 1, 2)
            values = self._per_head(kernel["pair_values"])
            gated = values * ops.cast(ops.exp(gates), values.dtype)
            return {**kernel, "pair_values": gated}
        (form,) = kernel
        matrix = self._per_head(kernel[form])
        gates = ops.cast(
            at_edges(gates, edges, tuple(ops.shape(matrix))[-1]), matrix.dtype
        )
        if form == "log_kernel":
            return {form: matrix + gates}
        return {form: matrix * ops.exp(gates)}

    def compute_output_shape(
        self,
        kernel_shape: Any,
        edge_features_shape: Shape,
        edges_shape: Shape | None = None,
    ) -> Any:
        del edge_features_shape, edges_shape
        return kernel_shape_per_head(kernel_shape, self.num_heads)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            **with_changes(super().get_config(), self),
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
        }

    def _per_head(self, kernel):
        kernels = kernel.shape[1]
        if self.num_heads % kernels:
            raise ValueError(
                f"`num_heads` expects a multiple of the {kernels} kernels. "
                f"Received: num_heads={self.num_heads}"
            )
        if kernels == self.num_heads:
            return kernel
        return ops.repeat(kernel, self.num_heads // kernels, axis=1)
