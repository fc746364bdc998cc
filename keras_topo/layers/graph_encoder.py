"""`GraphEncoderBlock`: a pre-norm Transformer block on graphs."""

import types

import keras

from keras_topo.arguments import positive, rate
from keras_topo.layers.graph_attention import GraphKernelAttention
from keras_topo.layers.graph_inputs import (
    fixed_kernel_config,
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
from keras_topo.layers.learned_feature_maps import similarity_config
from keras_topo.layers.seeds import derived_seed


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphEncoderBlock(keras.layers.Layer):
    """A Transformer block whose attention knows the graph.

    `x + attention(norm(x))`, then `x + mlp(norm(x))`.

    Args:
        num_heads: int.
        key_dim: int, size of each head; defaults to channels / `num_heads`.
        mlp_dim: int, hidden units; defaults to 2 channels.
        similarity, fixed_kernel, num_features, implementation: see
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
        num_heads,
        key_dim=None,
        mlp_dim=None,
        similarity="softmax",
        fixed_kernel=None,
        num_features=None,
        implementation="auto",
        dropout=0.0,
        attention_dropout=0.0,
        epsilon=1e-6,
        seed=None,
        inner_dense=None,
        **kwargs,
    ):
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
        self._given = types.SimpleNamespace(fixed_kernel=fixed_kernel)
        self.dropout = rate(dropout, "dropout")
        self.attention_dropout = rate(attention_dropout, "attention_dropout")
        self.epsilon = epsilon
        self.seed = seed

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, inputs_shape, kernel_shape=None):
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
            fixed_kernel=self._given.fixed_kernel,
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
        inputs,
        kernel=None,
        mask=None,
        inputs_mask=None,
        training=None,
        return_attention_scores=False,
    ):
        mask = inputs_mask if mask is None else mask
        x, kernel, mask = split_graph(inputs, kernel, mask)
        branch = self.attention(
            self.attention_norm(x),
            kernel=kernel or None,
            mask=mask,
            training=training,
            return_attention_scores=return_attention_scores,
        )
        if return_attention_scores:
            branch, scores = branch
        x = x + self.dropout_layer(branch, training=training)
        branch = self.mlp_hidden(self.mlp_norm(x))
        branch = self.dropout_layer(branch, training=training)
        branch = self.mlp_output(branch)
        x = x + self.dropout_layer(branch, training=training)
        x = with_nodes(inputs, x)
        return (x, scores) if return_attention_scores else x

    def attention_weights(self, inputs, kernel=None, mask=None):
        """See `GraphKernelAttention.attention_weights`."""
        x, kernel, mask = split_graph(inputs, kernel, mask)
        if not self.built:
            self.build(tuple(x.shape))
        return self.attention.attention_weights(
            self.attention_norm(x), kernel or None, mask
        )

    def compute_output_shape(self, inputs_shape, kernel_shape=None):
        del kernel_shape
        return inputs_shape

    def compute_output_spec(
        self, inputs, *args, return_attention_scores=False, **kwargs
    ):
        output = super().compute_output_spec(inputs, *args, **kwargs)
        if not return_attention_scores:
            return output
        kernel = args[0] if args else kwargs.get("kernel")
        return output, self.attention._scores_spec(inputs, kernel)

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask

    def get_config(self):
        config = with_changes(super().get_config(), self)
        if self.built:
            config = with_attention(config, self.attention)
        return {
            **config,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            **self.options,
            "fixed_kernel": fixed_kernel_config(self._given.fixed_kernel),
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }
