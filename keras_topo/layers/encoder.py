"""`TopologicalEncoderBlock`: a pre-norm Transformer block on a grid."""

import math

import keras
from keras import ops

from keras_topo.layers.arguments import one_of, positive, rate
from keras_topo.layers.attention_weights import check_tokens
from keras_topo.layers.padding import check_padding
from keras_topo.layers.seeds import derived_seed
from keras_topo.layers.toeplitz_attention import ToeplitzAttention
from keras_topo.layers.toeplitz_masks import MASKS

ATTENTIONS = ("toeplitz", "linear", "softmax")


@keras.saving.register_keras_serializable(package="keras_topo")
class TopologicalEncoderBlock(keras.layers.Layer):
    """A Transformer block whose attention knows the grid.

    `x + attention(norm(x))`, then `x + mlp(norm(x))`: pre-norm, with GELU, and
    with stochastic depth (Huang et al., 2016) on both branches.

    Args:
        num_heads: int, number of heads.
        key_dim: int, size of each head; defaults to channels / `num_heads`.
        mlp_dim: int, hidden units of the MLP; defaults to 4 channels.
        attention: `"toeplitz"` (masked linear), `"linear"` (the same without
            a mask) or `"softmax"` (`keras.layers.MultiHeadAttention` over all
            tokens): the same block for TopViT, the unmasked Performer and the
            ordinary ViT.
        mask, mask_degree, mask_rank, separable_terms, share_mask,
        feature_map, num_features, grid_shape, num_prefix_tokens,
        mask_grid_shape, implementation: see `ToeplitzAttention`.
        dropout: float, rate after each branch and inside the MLP.
        attention_dropout: float, rate inside the attention.
        stochastic_depth: float, probability with which an example skips a
            branch in training.
        epsilon: float, of the layer normalisations.
        seed: int, from which all dropouts and random features draw their
            seeds, each its own.

    Call arguments:
        inputs: `(batch, *grid, channels)` or `(batch, tokens, channels)`.
        mask: padding mask, `True` for real tokens; see `ToeplitzAttention`.
        training: bool.

    Returns:
        The shape of the input.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     PatchEmbedding(64, patch_size=4),
    ...     PositionEmbedding(),
    ...     TopologicalEncoderBlock(num_heads=4),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10),
    ... ])
    """

    def __init__(
        self,
        num_heads,
        key_dim=None,
        mlp_dim=None,
        attention="toeplitz",
        mask="table",
        mask_degree=2,
        mask_rank=1,
        separable_terms="table",
        share_mask=False,
        feature_map="relu",
        num_features=None,
        grid_shape=None,
        num_prefix_tokens=0,
        mask_grid_shape=None,
        implementation="auto",
        dropout=0.0,
        attention_dropout=0.0,
        stochastic_depth=0.0,
        epsilon=1e-6,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        one_of(attention, "attention", ATTENTIONS)
        one_of(mask, "mask", (*MASKS, None))
        self.num_heads = positive(num_heads, "num_heads")
        self.key_dim = positive(key_dim, "key_dim", optional=True)
        self.mlp_dim = positive(mlp_dim, "mlp_dim", optional=True)
        self.attention_kind = attention
        self.attention_options = {
            "mask": mask if attention == "toeplitz" else None,
            "mask_degree": mask_degree,
            "mask_rank": mask_rank,
            "separable_terms": separable_terms,
            "share_mask": share_mask,
            "feature_map": feature_map,
            "num_features": num_features,
            "grid_shape": grid_shape,
            "num_prefix_tokens": num_prefix_tokens,
            "mask_grid_shape": mask_grid_shape,
            "implementation": implementation,
        }
        self.dropout = rate(dropout, "dropout")
        self.attention_dropout = rate(attention_dropout, "attention_dropout")
        self.stochastic_depth = rate(stochastic_depth, "stochastic_depth")
        self.epsilon = epsilon
        self.seed = seed
        self.seed_generator = (
            keras.random.SeedGenerator(derived_seed(seed, "stochastic_depth"))
            if stochastic_depth
            else None
        )

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.key_dim is None and channels % self.num_heads:
            raise ValueError(
                "`num_heads` expects a divisor of the channels, unless "
                f"key_dim is given. Received: num_heads={self.num_heads}, "
                f"input_shape={tuple(input_shape)}"
            )
        key_dim = self.key_dim
        if key_dim is None:
            key_dim = channels // self.num_heads
        mlp_dim = 4 * channels if self.mlp_dim is None else self.mlp_dim
        self.attention_norm = self._norm("attention_norm")
        self.attention_norm.build(input_shape)
        if self.attention_kind == "softmax":
            self.attention = keras.layers.MultiHeadAttention(
                self.num_heads,
                key_dim,
                dropout=self.attention_dropout,
                seed=derived_seed(self.seed, "attention"),
                dtype=self.dtype_policy,
                name="attention",
            )
            tokens = (input_shape[0], None, channels)
            self.attention.build(tokens, tokens)
        else:
            self.attention = ToeplitzAttention(
                self.num_heads,
                key_dim,
                dropout=self.attention_dropout,
                seed=derived_seed(self.seed, "attention"),
                dtype=self.dtype_policy,
                name="attention",
                **self.attention_options,
            )
            self.attention.build(input_shape)
            if self.attention_options["mask"] is not None:
                # What the mask was made for goes into the config, so that a
                # clone on another grid resamples it.
                self.attention_options["mask_grid_shape"] = (
                    self.attention.mask_grid_shape
                )
        self.mlp_norm = self._norm("mlp_norm")
        self.mlp_norm.build(input_shape)
        self.mlp_hidden = keras.layers.Dense(
            mlp_dim,
            activation="gelu",
            dtype=self.dtype_policy,
            name="mlp_hidden",
        )
        self.mlp_hidden.build(input_shape)
        self.mlp_output = keras.layers.Dense(
            channels, dtype=self.dtype_policy, name="mlp_output"
        )
        self.mlp_output.build((*input_shape[:-1], mlp_dim))
        self.dropout_layer = keras.layers.Dropout(
            self.dropout,
            seed=derived_seed(self.seed, "dropout"),
            dtype=self.dtype_policy,
        )

    def call(self, inputs, mask=None, training=None):
        branch = self.attention_norm(inputs)
        branch = self._attend(branch, mask, training)
        branch = self.dropout_layer(branch, training=training)
        x = inputs + self._maybe_skip(branch, training)
        branch = self.mlp_hidden(self.mlp_norm(x))
        branch = self.dropout_layer(branch, training=training)
        branch = self.mlp_output(branch)
        branch = self.dropout_layer(branch, training=training)
        return x + self._maybe_skip(branch, training)

    def attention_weights(self, inputs, mask=None):
        """What the tokens take of each other, as a matrix, to look at.

        A block that has not been called yet is built.

        Args:
            inputs, mask: as in a call.

        Returns:
            `(batch, heads, tokens, tokens)`; rows sum to 1.

        Raises:
            ValueError: with more than 8,192 tokens.
        """
        if not self.built:
            self.build(tuple(inputs.shape))
        x = self.attention_norm(inputs)
        if self.attention_kind != "softmax":
            return self.attention.attention_weights(x, mask)
        x, mask = self._flat(x, mask)
        check_tokens(x.shape[1])
        _, weights = self.attention(
            x, x, attention_mask=mask, return_attention_scores=True
        )
        return weights

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "attention": self.attention_kind,
            **self.attention_options,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth": self.stochastic_depth,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }

    def _norm(self, name):
        return keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=self.dtype_policy, name=name
        )

    def _attend(self, x, mask, training):
        if self.attention_kind != "softmax":
            return self.attention(x, mask=mask, training=training)
        shape = tuple(ops.shape(x))
        x, mask = self._flat(x, mask)
        x = self.attention(x, x, attention_mask=mask, training=training)
        return ops.reshape(x, shape)

    def _flat(self, x, mask):
        """Tokens in a row, and a mask as Keras attention takes it."""
        mask = check_padding(mask, x.shape, self)
        shape = tuple(ops.shape(x))
        tokens = math.prod(x.shape[1:-1])
        x = ops.reshape(x, (shape[0], tokens, shape[-1]))
        return x, None if mask is None else mask[:, None]

    def _maybe_skip(self, branch, training):
        """Stochastic depth: dropout of a branch, a whole example at a time."""
        if not (training and self.stochastic_depth):
            return branch
        shape = (ops.shape(branch)[0],) + (1,) * (len(branch.shape) - 1)
        return keras.random.dropout(
            branch,
            self.stochastic_depth,
            noise_shape=shape,
            seed=self.seed_generator,
        )
