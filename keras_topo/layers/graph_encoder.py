"""`GraphEncoderBlock`: a pre-norm Transformer block on graphs."""

import types
from typing import Any, Self

import keras

from keras_topo.annotations import (
    Implementation,
    Tensor,
    TensorLike,
    TensorOrDict,
)
from keras_topo.arguments import (
    by_former_name,
    positive,
    rate,
    with_names_of,
)
from keras_topo.layers.floats import as_floats
from keras_topo.layers.graph_attention import GraphKernelAttention
from keras_topo.layers.graph_inputs import (
    GraphKernel,
    graph_kernel_config,
    nodes_shape,
    split_graph,
    with_nodes,
)
from keras_topo.layers.inner_dense import (
    changed,
    dense,
    with_attention,
    with_changes,
)
from keras_topo.layers.learned_feature_maps import Similarity, similarity_config
from keras_topo.layers.seeds import derived_seed


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphEncoderBlock(keras.layers.Layer):
    """A Transformer block whose attention knows the graph.

    `x + attention(norm(x))`, then `x + mlp(norm(x))`.

    Args:
        num_heads: int.
        key_dim: int, size of each head; defaults to channels / `num_heads`.
        mlp_dim: int, hidden units; defaults to 2 channels.
        similarity, graph_kernel, num_features, implementation: see
            `GraphKernelAttention`.
        dropout: float, rate after each branch and inside the MLP.
        attention_dropout: float, rate at which scores are dropped.
        epsilon: float, of the layer normalizations.
        seed: int, from which all dropouts and random features draw their
            seeds, each its own.

    Call arguments:
        inputs, kernel, mask, training, return_attention_scores: see
            `GraphKernelAttention`.

    Returns:
        The shape of the nodes, or the dict with new nodes; and scores, if
        asked for.

    Example:

    >>> nodes, kernel = np.random.rand(2, 30, 16), np.random.rand(2, 30, 30)
    >>> tuple(GraphEncoderBlock(num_heads=4)(nodes, kernel).shape)
    (2, 30, 16)
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int | None = None,
        mlp_dim: int | None = None,
        similarity: Similarity = "softmax",
        graph_kernel: GraphKernel = None,
        num_features: int | None = None,
        implementation: Implementation = "auto",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        epsilon: float = 1e-6,
        seed: int | None = None,
        inner_dense: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        graph_kernel = by_former_name(
            kwargs, "fixed_kernel", "graph_kernel", graph_kernel
        )
        super().__init__(**kwargs)
        # Of a file: see `keras_topo.layers.inner_dense`.
        self._inner_dense = inner_dense
        self.supports_masking = True
        self.num_heads = positive(num_heads, "num_heads")
        self.key_dim = positive(key_dim, "key_dim", optional=True)
        self.mlp_dim = positive(mlp_dim, "mlp_dim", optional=True)
        self.options = {
            # Not a layer itself, which would be taken for one of the block.
            "similarity": similarity_config(similarity),
            "num_features": num_features,
            "implementation": implementation,
        }
        # Not an attribute itself: a mask would be taken for a layer of the
        # block, where it is the model of one that its attention makes.
        self._given = types.SimpleNamespace(graph_kernel=graph_kernel)
        self.dropout = rate(dropout, "dropout")
        self.attention_dropout = rate(attention_dropout, "attention_dropout")
        self.epsilon = epsilon
        self.seed = seed

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, inputs_shape: Any, kernel_shape: Any = None) -> None:
        del kernel_shape
        shape = nodes_shape(inputs_shape, self)
        channels = shape[-1]
        if self.key_dim is None and channels % self.num_heads:
            raise ValueError(
                "`num_heads` expects a divisor of the channels, unless "
                f"key_dim is given. Received: num_heads={self.num_heads}, "
                f"input_shape={shape}"
            )
        key_dim = self.key_dim
        if key_dim is None:
            key_dim = channels // self.num_heads
        mlp_dim = 2 * channels if self.mlp_dim is None else self.mlp_dim
        policy = self.dtype_policy
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=policy, name="attention_norm"
        )
        self.attention_norm.build(shape)
        self.attention = GraphKernelAttention(
            self.num_heads,
            key_dim,
            graph_kernel=self._given.graph_kernel,
            dropout=self.attention_dropout,
            seed=derived_seed(self.seed, "attention"),
            dtype=policy,
            name="attention",
            **self.options,
            **changed(self._inner_dense, "attention"),
        )
        self.attention.build(shape)
        self.mlp_norm = keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=policy, name="mlp_norm"
        )
        self.mlp_norm.build(shape)
        self.mlp_hidden = dense(self, mlp_dim, "mlp_hidden", activation="gelu")
        self.mlp_hidden.build(shape)
        self.mlp_output = dense(self, channels, "mlp_output")
        self.mlp_output.build((*shape[:-1], mlp_dim))
        self.dropout_layer = keras.layers.Dropout(
            self.dropout,
            seed=derived_seed(self.seed, "dropout"),
            dtype=policy,
        )

    def call(
        self,
        inputs: TensorOrDict,
        kernel: TensorOrDict | None = None,
        mask: TensorLike | None = None,
        inputs_mask: TensorLike | None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        mask = inputs_mask if mask is None else mask
        x, kernel, mask = split_graph(inputs, kernel, mask)
        x = as_floats(x, self)
        branch = self.attention(
            self.attention_norm(x),
            kernel=kernel or None,
            mask=mask,
            training=training,
            return_attention_scores=return_attention_scores,
        )
        scores = None
        if return_attention_scores:
            branch, scores = branch
        x = x + self.dropout_layer(branch, training=training)
        branch = self.mlp_hidden(self.mlp_norm(x))
        branch = self.dropout_layer(branch, training=training)
        branch = self.mlp_output(branch)
        x = x + self.dropout_layer(branch, training=training)
        x = with_nodes(inputs, x)
        return (x, scores) if return_attention_scores else x

    def attention_weights(
        self,
        inputs: TensorOrDict,
        kernel: TensorOrDict | None = None,
        mask: TensorLike | None = None,
    ) -> Tensor:
        """See `GraphKernelAttention.attention_weights`."""
        x, kernel, mask = split_graph(inputs, kernel, mask)
        x = as_floats(x, self)
        if not self.built:
            self.build(tuple(x.shape))
        return self.attention.attention_weights(
            self.attention_norm(x), kernel or None, mask
        )

    def compute_output_shape(
        self, inputs_shape: Any, kernel_shape: Any = None
    ) -> Any:
        del kernel_shape
        return inputs_shape

    def compute_output_spec(
        self,
        inputs: Any,
        *args: Any,
        return_attention_scores: bool = False,
        **kwargs: Any,
    ) -> Any:
        output = super().compute_output_spec(inputs, *args, **kwargs)
        if not return_attention_scores:
            return output
        kernel = args[0] if args else kwargs.get("kernel")
        return output, self.attention._scores_spec(inputs, kernel)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return previous_mask

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config(with_names_of(cls.__init__, config))

    def get_config(self) -> dict[str, Any]:
        config = with_changes(super().get_config(), self)
        if self.built:
            config = with_attention(config, self.attention)
        return {
            **config,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            **self.options,
            "graph_kernel": graph_kernel_config(self._given.graph_kernel),
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }
