"""`ToeplitzAttention`: linear self-attention with a mask of grid offsets."""

import math

import keras
from keras import ops

from keras_topo.attention import FEATURE_MAPS, masked_linear_attention
from keras_topo.layers.arguments import one_of, positive
from keras_topo.layers.attention_weights import weights_of
from keras_topo.layers.multi_head import MultiHeadLayer, features
from keras_topo.layers.padding import check_padding
from keras_topo.layers.random_features import add_random_projection
from keras_topo.layers.seeds import derived_seed
from keras_topo.layers.toeplitz_masks import MASKS
from keras_topo.operators import Bordered
from keras_topo.operators.toeplitz import check_grid_shape


@keras.saving.register_keras_serializable(package="keras_topo")
class ToeplitzAttention(MultiHeadLayer):
    """Multi-head linear self-attention, modulated by a block-Toeplitz mask.

    The attention of TopViT (Choromanski et al., 2022): head `h`
    weighs the value of token `j` for token `i` by `M_h[i - j] phi(q_i) .
    phi(k_j)`, with a learned mask `M_h` of the offset on the grid, and divides
    by the sum of the weights. It never forms a tokens x tokens matrix where
    another way is cheaper.

    The input is `(batch, *grid, channels)` for a 1-, 2- or 3-dimensional grid,
    as for a convolution, and the grid is read from it. With prefix tokens
    (class or register tokens, whose mask entries are 1) it is `(batch,
    num_prefix_tokens + tokens, channels)` and `grid_shape` gives the grid.

    Args:
        num_heads: int, number of heads.
        key_dim: int, size of each head for queries and keys.
        value_dim: int, size of each head for values; defaults to `key_dim`.
        mask: the kind of mask:

            - `"table"`: a free table of signed offsets a head, `|table|` being
              the mask; ones at the start.
            - `"distance"`: `exp(a_0 + a_1 x + a_2 x^2)` of the L1 distance `x`
              relative to the largest on the grid, the exponent being clipped
              to -30 and 30; two or three parameters per head, or for the
              whole layer.
            - `"separable"`: a sum of `mask_rank` products of one factor an
              axis, each the absolute value of a table of offsets or
              `exp(-softplus(c) |offset| / n)`.
            - `None`: no mask, plain linear attention.
        mask_degree: 1 or 2, degree of the polynomial of `"distance"`.
        mask_rank: int, number of terms of `"separable"`.
        separable_terms: `"table"` or `"decay"`, the factors of `"separable"`.
        share_mask: bool, one mask for all heads instead of one a head.
        feature_map: name of `phi`: `"relu"` (as in TopViT), `"elu"`,
            `"square"`, `"exp"`, `"favor"` or `"hyperbolic_favor"`.
        num_features: int, number of random features of the last two; defaults
            to `key_dim`.
        grid_shape: tuple of ints, the grid of the tokens when the input is
            `(batch, tokens, channels)`; by default they form a sequence.
        num_prefix_tokens: int, tokens in front of those of the grid.
        mask_grid_shape: tuple of ints, the grid that the offsets of the mask
            were made for; defaults to the one that the layer is built on. On
            any other grid the mask is resampled, so that it means the same at
            another resolution.
        dropout: float, rate at which whole keys are dropped from the weighted
            sums, a head and an example at a time: the dropout of attention
            weights, one draw shared by all queries, and the same in every
            implementation. The weights kept are scaled up.
        use_bias: bool, whether the dense projections have biases.
        output_shape: int, channels of the output; defaults to those of the
            input.
        implementation: `"auto"`, `"explicit"` or `"fast"`: see
            `keras_topo.attention.masked_linear_attention`.
        seed: int, seed of the dropout and of the random features.
        kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint: of the dense
            projections.

    Call arguments:
        inputs: `(batch, *grid, channels)` or `(batch, tokens, channels)`.
        mask: `(batch, *grid)` or `(batch, tokens)`, boolean, `True` for real
            tokens: a Keras padding mask. Padded keys are removed exactly;
            the outputs at padded places are without meaning.
        training: bool, whether to drop out.

    Returns:
        The input's shape, with `output_shape` channels.

    Raises:
        ValueError: if the grid does not match the tokens, the grid is not
            known when the layer is built, or an argument or the mask is not
            as above.

    *Complexity* for `L` tokens, `m` features and values of size `d`, a head:
    the lesser of `L^2 (m + d)` and `m (d + 1)` products with the mask, each
    `O(L log L)`; memory linear in `L`.

    Example:

    >>> layer = ToeplitzAttention(num_heads=4, key_dim=16)
    >>> layer(np.random.rand(2, 14, 28, 64)).shape
    (2, 14, 28, 64)
    >>> layer.mask_operator().shape
    (4, 392, 392)
    """

    def __init__(
        self,
        num_heads,
        key_dim,
        value_dim=None,
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
        dropout=0.0,
        use_bias=True,
        output_shape=None,
        implementation="auto",
        seed=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(
            num_heads,
            key_dim,
            value_dim=value_dim,
            num_features=num_features,
            dropout=dropout,
            use_bias=use_bias,
            output_shape=output_shape,
            implementation=implementation,
            seed=seed,
            projections={
                "kernel_initializer": kernel_initializer,
                "bias_initializer": bias_initializer,
                "kernel_regularizer": kernel_regularizer,
                "bias_regularizer": bias_regularizer,
                "kernel_constraint": kernel_constraint,
                "bias_constraint": bias_constraint,
            },
            **kwargs,
        )
        self.mask = one_of(mask, "mask", (*MASKS, None))
        self.mask_degree = one_of(mask_degree, "mask_degree", (1, 2))
        self.mask_rank = positive(mask_rank, "mask_rank")
        self.separable_terms = one_of(
            separable_terms, "separable_terms", ("table", "decay")
        )
        self.share_mask = bool(share_mask)
        self.feature_map = one_of(feature_map, "feature_map", FEATURE_MAPS)
        self.grid_shape = grid_shape
        if grid_shape is not None:
            self.grid_shape = check_grid_shape(grid_shape)
        if not isinstance(num_prefix_tokens, int) or num_prefix_tokens < 0:
            raise ValueError(
                "`num_prefix_tokens` expects an int of at least 0. Received: "
                f"num_prefix_tokens={num_prefix_tokens!r}"
            )
        self.num_prefix_tokens = num_prefix_tokens
        self.mask_grid_shape = mask_grid_shape
        if mask_grid_shape is not None:
            self.mask_grid_shape = check_grid_shape(
                mask_grid_shape, "mask_grid_shape"
            )
        self.seed_generator = (
            keras.random.SeedGenerator(derived_seed(seed, "dropout"))
            if dropout
            else None
        )

    def build(self, input_shape):
        self.grid = self._grid_of(input_shape)
        if self.mask_grid_shape is None:
            self.mask_grid_shape = self.grid
        elif len(self.mask_grid_shape) != len(self.grid):
            raise ValueError(
                f"`mask_grid_shape` expects {len(self.grid)} axes, those of "
                f"the grid {self.grid}. Received: "
                f"mask_grid_shape={self.mask_grid_shape}"
            )
        key_units = self.num_heads * self.key_dim
        value_units = self.num_heads * self.value_dim
        # One projection for queries, keys and values: one matrix product.
        self.qkv_dense = self._dense(
            2 * key_units + value_units, "qkv", self.use_bias
        )
        self.qkv_dense.build(input_shape)
        self.output_dense = self._dense(
            self._output_channels(input_shape), "output", self.use_bias
        )
        self.output_dense.build((*input_shape[:-1], value_units))
        self.mask_weights = []
        if self.mask is not None:
            create, _ = MASKS[self.mask]
            heads = 1 if self.share_mask else self.num_heads
            self.mask_weights = create(self, heads, self.mask_grid_shape)
        self.projection = add_random_projection(self, self.feature_map)

    def call(self, inputs, mask=None, training=None):
        query, key, value = self._project(inputs)
        mask = check_padding(mask, inputs.shape, self)
        value = self._drop_keys(value, training)
        output = self._attend(query, key, value, mask)
        output = ops.transpose(output, (0, 2, 1, 3))
        value_units = self.num_heads * self.value_dim
        shape = tuple(ops.shape(inputs))
        output = ops.reshape(output, (*shape[:-1], value_units))
        return self.output_dense(output)

    def attention_weights(self, inputs, mask=None):
        """What the tokens take of each other, `D^-1 (M (.) K)`, as a matrix.

        To look at; `call` never forms it. A layer that has not been called yet
        is built.

        Args:
            inputs: `(batch, *grid, channels)` or `(batch, tokens, channels)`.
            mask: as in a call.

        Returns:
            `(batch, heads, tokens, tokens)`; rows sum to 1.

        Raises:
            ValueError: with more than 8,192 tokens.
        """
        inputs = ops.convert_to_tensor(inputs)
        if not self.built:
            self.build(inputs.shape)
        query, key, _ = self._project(inputs)
        mask = check_padding(mask, inputs.shape, self)
        return weights_of(
            lambda value: self._attend(query, key, value, mask), query
        )

    def _project(self, inputs):
        """Queries, keys and values, `(batch, heads, tokens, units)`."""
        if self._grid_of(inputs.shape) != self.grid:
            raise ValueError(
                f"{type(self).__name__} was built on the grid {self.grid}. A "
                "model for another one, whose masks are resampled, is "
                "keras.models.clone_model(model, input_tensors=keras.Input("
                "shape)) with the weights of the first: "
                "clone.set_weights(model.get_weights()). A layer takes "
                f"mask_grid_shape={self.mask_grid_shape}. Received: inputs of "
                f"shape {tuple(inputs.shape)}"
            )
        tokens = self.num_prefix_tokens + math.prod(self.grid)
        x = self.qkv_dense(inputs)
        # Spelled out: a -1 beside an unknown batch size loses the static shape.
        head_units = 2 * self.key_dim + self.value_dim
        batch = tuple(ops.shape(inputs))[0]
        x = ops.reshape(x, (batch, tokens, self.num_heads, head_units))
        x = ops.transpose(x, (0, 2, 1, 3))
        # A split, whose gradient is one concatenation; slices would be slow.
        return ops.split(x, [self.key_dim, 2 * self.key_dim], axis=-1)

    def _attend(self, query, key, value, mask):
        return masked_linear_attention(
            features(query, self.feature_map, True, self.projection),
            features(key, self.feature_map, False, self.projection, mask),
            value,
            self.mask_operator(),
            padding_mask=mask,
            implementation=self.implementation,
            # There are none: entries are absolute values or exponentials.
            # Looking for them would cost operations in every call.
            allow_negative=True,
        )

    def mask_operator(self):
        """The learned mask on the grid the layer was built on.

        Returns:
            A `MaskOperator` of shape `(heads, L, L)`, or `(1, L, L)` where
            heads share it, prefix tokens first; `None` without a mask.
        """
        if self.mask is None:
            return None
        _, make = MASKS[self.mask]
        weights = [ops.convert_to_tensor(w) for w in self.mask_weights]
        operator = make(self, weights, self.mask_grid_shape, self.grid)
        if self.num_prefix_tokens:
            operator = Bordered(operator, self.num_prefix_tokens)
        return operator

    def compute_output_shape(self, input_shape):
        self._grid_of(input_shape)
        return (*input_shape[:-1], self._output_channels(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "mask": self.mask,
            "mask_degree": self.mask_degree,
            "mask_rank": self.mask_rank,
            "separable_terms": self.separable_terms,
            "share_mask": self.share_mask,
            "feature_map": self.feature_map,
            "grid_shape": self.grid_shape,
            "num_prefix_tokens": self.num_prefix_tokens,
            "mask_grid_shape": self.mask_grid_shape,
        }

    def _grid_of(self, input_shape):
        """The grid that an input of this shape lies on."""
        if len(input_shape) < 3 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} expects inputs of shape (batch, "
                "*grid, channels) with a known number of channels. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        extents = tuple(input_shape[1:-1])
        if None in extents:
            raise ValueError(
                f"{type(self).__name__} expects a grid of known size: its "
                "mask has an entry for each offset. Received: "
                f"input_shape={tuple(input_shape)}"
            )
        if len(extents) > 1:
            if self.num_prefix_tokens or self.grid_shape not in (
                None,
                extents,
            ):
                raise ValueError(
                    "`grid_shape` and `num_prefix_tokens` are for inputs of "
                    "shape (batch, tokens, channels). Received: input_shape="
                    f"{tuple(input_shape)}, grid_shape={self.grid_shape}, "
                    f"num_prefix_tokens={self.num_prefix_tokens}"
                )
            return extents
        tokens = extents[0] - self.num_prefix_tokens
        grid = (tokens,) if self.grid_shape is None else self.grid_shape
        if tokens < 1 or math.prod(grid) != tokens:
            raise ValueError(
                f"the grid does not match the tokens: grid_shape={grid} and "
                f"num_prefix_tokens={self.num_prefix_tokens} expect "
                f"{math.prod(grid) + self.num_prefix_tokens} tokens. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        return grid

    def _drop_keys(self, value, training):
        if not (training and self.dropout):
            return value
        shape = tuple(ops.shape(value))
        return keras.random.dropout(
            value,
            self.dropout,
            noise_shape=(*shape[:3], 1),
            seed=self.seed_generator,
        )
