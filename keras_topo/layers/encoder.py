"""`TopologicalEncoderBlock`: a pre-norm Transformer block on any tokens."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_topo.annotations import Shape, Size, State, Tensor, TensorLike
from keras_topo.arguments import one_of, positive, rate
from keras_topo.layers.activations import get_activation
from keras_topo.layers.attention_weights import check_tokens, scores_spec
from keras_topo.layers.floats import as_floats
from keras_topo.layers.graph_inputs import GraphKernelLayer
from keras_topo.layers.inner_dense import (
    changed,
    dense,
    with_attention,
    with_changes,
)
from keras_topo.layers.learned_feature_maps import similarity_config
from keras_topo.layers.masked_attention import MaskedAttention
from keras_topo.layers.multi_head import MultiHeadLayer
from keras_topo.layers.padding import check_padding
from keras_topo.layers.seeds import derived_seed
from keras_topo.layers.toeplitz_attention import (
    OF_NAMED_MASKS,
    ToeplitzAttention,
    named_mask,
)
from keras_topo.masks.registry import MaskLike
from keras_topo.operators.base import MaskOperator

ATTENTIONS = ("toeplitz", "linear", "softmax")
# What Keras's own attention has no use for: it sees all tokens alike.
_ON_GRIDS = (
    *OF_NAMED_MASKS,
    "grid_shape",
    "num_prefix_tokens",
    "num_features",
    "implementation",
)
# What belongs to the block itself, or is set by it.
_OWN = {
    "self",
    "num_heads",
    "key_dim",
    "mask",
    "dropout",
    "seed",
    "inner_dense",
    "kwargs",
}
_OPTIONS = {
    name
    for kind in (ToeplitzAttention, MaskedAttention, MultiHeadLayer)
    for name in inspect.signature(kind.__init__).parameters
} - _OWN


@keras.saving.register_keras_serializable(package="keras_topo")
class TopologicalEncoderBlock(keras.layers.Layer):
    """A Transformer block whose attention knows where the tokens lie.

    `x + attention(norm(x))`, then `x + mlp(norm(x))`: pre-norm, with GELU, and
    with stochastic depth (Huang et al., 2016) on both branches.

    Args:
        num_heads: int, number of heads; not with an attention layer.
        key_dim: int, size of each head; defaults to channels / `num_heads`.
        mlp_dim: int, hidden units of the MLP; defaults to 4 channels.
        attention: an attention layer, such as `MaskedAttention`, which the
            block copies and calls with the tokens, and with `mask` where the
            layer takes one. Or shorthand: `"toeplitz"` (masked linear),
            `"linear"` (the same without a mask) or `"softmax"`
            (`keras.layers.MultiHeadAttention` over all tokens, and
            `MaskedAttention` where it is causal or has a mask): the same block
            for TopViT, the unmasked Performer and the ordinary ViT.
        mask: of the shorthand: a mask of `keras_topo.masks`, its name, or
            `None`; `"table"` by default with `"toeplitz"`.
        dropout: float, rate after each branch and inside the MLP.
        attention_dropout: float, rate inside the attention.
        stochastic_depth: float, probability with which an example skips a
            branch in training.
        epsilon: float, of the layer normalizations.
        seed: int, from which all dropouts and random features draw their
            seeds, each its own.
        activation: str, of the MLP: the name of an activation of Keras,
            `"gelu_tanh"` (the approximation that is Flax's default),
            `"quick_gelu"`, or `"swiglu"`, gated units (Shazeer, 2020) of which
            there are `mlp_dim` behind the gate.
        mlp_bias: bool, whether the two layers of the MLP have biases;
            `use_bias` is for the attention.
        layer_scale: float, the initial value of a learned factor for each
            channel of each branch (Touvron et al., 2021); `None` for none.
        **options: other arguments of `ToeplitzAttention` and
            `MaskedAttention`, for the shorthand, such as `causal` or
            `feature_map`; and of `keras.layers.Layer`.

    Call arguments:
        inputs: `(batch, *grid, channels)` or `(batch, tokens, channels)`.
        grid: see `MaskedAttention`.
        mask: padding mask, `True` for real tokens; see `MaskedAttention`.
        training: bool.
        return_attention_scores: bool, see `MaskedAttention`; an attention
            layer of your own has to take it too.

    Returns:
        The shape of the input, and scores, if asked for. A block with causal
        attention also works token by token, with `initial_state`, `step` and
        `extend`, as `MaskedAttention` does.

    Raises:
        ValueError: if an argument is outside its range, or arguments of the
            shorthand come with an attention layer.

    Example:

    >>> from keras_topo.layers import PatchEmbedding, PositionEmbedding
    >>> model = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     PatchEmbedding(64, patch_size=4),
    ...     PositionEmbedding(),
    ...     TopologicalEncoderBlock(num_heads=4, mask="decay"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10),
    ... ])
    >>> model.output_shape
    (None, 10)
    """

    def __init__(
        self,
        num_heads: int | None = None,
        key_dim: int | None = None,
        mlp_dim: int | None = None,
        attention: Literal["toeplitz", "linear", "softmax"]
        | keras.layers.Layer
        | dict[str, Any] = "toeplitz",
        mask: MaskLike | None = "default",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        epsilon: float = 1e-6,
        seed: int | None = None,
        activation: str = "gelu",
        mlp_bias: bool = True,
        layer_scale: float | None = None,
        **options: Any,
    ):
        shorthand = {
            name: options.pop(name) for name in _OPTIONS & set(options)
        }
        # Of a file: see `keras_topo.layers.inner_dense`.
        self._inner_dense = options.pop("inner_dense", None)
        super().__init__(**options)
        self.supports_masking = True
        self.num_heads: Size = positive(num_heads, "num_heads", optional=True)
        self.key_dim = positive(key_dim, "key_dim", optional=True)
        self.mlp_dim = positive(mlp_dim, "mlp_dim", optional=True)
        self.dropout = rate(dropout, "dropout")
        self.attention_dropout = rate(attention_dropout, "attention_dropout")
        self.stochastic_depth = rate(stochastic_depth, "stochastic_depth")
        self.epsilon = epsilon
        self.activation = activation
        get_activation(activation)
        self.mlp_bias = bool(mlp_bias)
        self.layer_scale = layer_scale
        self.seed = seed
        self.attention_kind = attention
        self.attention: Any = None
        if isinstance(attention, dict):
            self.attention = keras.saving.deserialize_keras_object(attention)
        elif isinstance(attention, keras.layers.Layer):
            # Its own, so that one layer may be given to many blocks.
            self.attention = _copy(attention)
        else:
            one_of(attention, "attention", ATTENTIONS)
            if num_heads is None:
                raise ValueError(
                    "`num_heads` expects a positive int, unless `attention` "
                    "is a layer. Received: num_heads=None"
                )
        mask = _mask_of(attention, mask)
        if self.attention is not None:
            self.attention_kind = None
            given = [
                name
                for name, value in (("num_heads", num_heads), ("mask", mask))
                if value is not None
            ]
            if given or shorthand or attention_dropout:
                raise ValueError(
                    "an attention layer has its arguments already. Received: "
                    f"{given + sorted(shorthand)} beside attention="
                    f"{self.attention.name!r}, attention_dropout="
                    f"{attention_dropout}"
                )
        # Not attributes themselves: a mask would be taken for a layer of the
        # block, where it is the model of one that its attention makes.
        self._shorthand = _Given(mask, shorthand)
        self.seed_generator = (
            keras.random.SeedGenerator(derived_seed(seed, "stochastic_depth"))
            if stochastic_depth
            else None
        )

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self, inputs_shape: Shape, grid_shape: Shape | None = None
    ) -> None:
        channels = inputs_shape[-1]
        extents = inputs_shape if grid_shape is None else grid_shape
        self._extents = tuple(extents[1:-1])
        mlp_dim = 4 * channels if self.mlp_dim is None else self.mlp_dim
        self.attention_norm = self._norm("attention_norm")
        self.attention_norm.build(inputs_shape)
        if self.attention is None:
            self.attention = self._make_attention(inputs_shape)
        if not self.attention.built:
            self._build_attention(tuple(inputs_shape), grid_shape)
        self.mlp_norm = self._norm("mlp_norm")
        self.mlp_norm.build(inputs_shape)
        activation, self._after_hidden, joined = get_activation(self.activation)
        self.mlp_hidden = dense(
            self,
            joined * mlp_dim,
            "mlp_hidden",
            activation=activation,
            use_bias=self.mlp_bias,
        )
        self.mlp_hidden.build(inputs_shape)
        self.mlp_output = dense(
            self, channels, "mlp_output", use_bias=self.mlp_bias
        )
        self.mlp_output.build((*inputs_shape[:-1], mlp_dim))
        self.attention_scale = self._add_scale("attention_scale", channels)
        self.mlp_scale = self._add_scale("mlp_scale", channels)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout,
            seed=derived_seed(self.seed, "dropout"),
            dtype=self.dtype_policy,
        )

    def _make_attention(self, shape):
        """The attention layer that the shorthand stands for."""
        channels = shape[-1]
        if self.key_dim is None and channels % self.num_heads:
            raise ValueError(
                "`num_heads` expects a divisor of the channels, unless "
                f"key_dim is given. Received: num_heads={self.num_heads}, "
                f"input_shape={tuple(shape)}"
            )
        key_dim = self.key_dim
        if key_dim is None:
            key_dim = channels // self.num_heads
        options = dict(self._shorthand.options)
        mask = self._shorthand.mask
        common = {
            "dropout": self.attention_dropout,
            "seed": derived_seed(self.seed, "attention"),
            "dtype": self.dtype_policy,
            "name": "attention",
        }
        inner = changed(self._inner_dense, "attention")
        if self.attention_kind == "softmax":
            ours = set(options) - {"feature_map", *_ON_GRIDS}
            if mask is None and not ours:
                return keras.layers.MultiHeadAttention(
                    self.num_heads, key_dim, **common
                )
            options.pop("feature_map", None)
            options["similarity"] = "softmax"
            options.pop("num_features", None)
            named = set(OF_NAMED_MASKS) & set(options)
            given = {name: options.pop(name) for name in named}
            mask = named_mask(mask, given)
            return MaskedAttention(
                self.num_heads, key_dim, mask=mask, **options, **common, **inner
            )
        return ToeplitzAttention(
            self.num_heads, key_dim, mask=mask, **options, **common, **inner
        )

    def _build_attention(self, shape, grid_shape):
        if self._takes_grid():
            self.attention.build(shape, grid_shape=grid_shape)
        elif isinstance(self.attention, keras.layers.MultiHeadAttention):
            tokens = (shape[0], None, shape[-1])
            self.attention.build(tokens, tokens)
        else:
            self.attention.build(shape)

    def call(
        self,
        inputs: Tensor,
        grid: Tensor | None = None,
        mask: TensorLike | None = None,
        inputs_mask: TensorLike | None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        mask = inputs_mask if mask is None else mask
        inputs = as_floats(inputs, self)
        branch = self.attend(
            inputs, grid, mask, training, return_attention_scores
        )
        scores = None
        if return_attention_scores:
            branch, scores = branch
        branch = _scaled(branch, self.attention_scale)
        branch = self.dropout_layer(branch, training=training)
        x = inputs + self._maybe_skip(branch, training)
        x = x + self._maybe_skip(self._mlp(x, training), training)
        return (x, scores) if return_attention_scores else x

    def attend(
        self,
        inputs: Tensor,
        grid: Tensor | None = None,
        mask: TensorLike | None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        """The attention of the block, `attention(norm(x))`.

        Arguments and returns are those of a call.
        """
        return self._attend(
            self.attention_norm(as_floats(inputs, self)),
            grid,
            mask,
            training,
            return_attention_scores,
        )

    def _mlp(self, x, training: bool | None = False):
        branch = self.mlp_hidden(self.mlp_norm(x))
        if self._after_hidden is not None:
            branch = self._after_hidden(branch)
        branch = self.dropout_layer(branch, training=training)
        branch = _scaled(self.mlp_output(branch), self.mlp_scale)
        return self.dropout_layer(branch, training=training)

    def initial_state(
        self, batch_size: int, max_tokens: int | None = None
    ) -> State:
        """See `MaskedAttention.initial_state`."""
        return self._streaming().initial_state(batch_size, max_tokens)

    def step(self, token: TensorLike, state: State) -> tuple[Tensor, State]:
        """See `MaskedAttention.step`."""
        return self._go_on(self._streaming().step, token, state)

    def extend(self, tokens: TensorLike, state: State) -> tuple[Tensor, State]:
        """See `MaskedAttention.extend`."""
        return self._go_on(self._streaming().extend, tokens, state)

    def _streaming(self):
        if not self.built or not hasattr(self.attention, "initial_state"):
            raise ValueError(
                f"{type(self).__name__} expects to be built, with an attention "
                "that goes token by token, such as MaskedAttention with "
                f"causal=True. Received: built={self.built}, attention="
                f"{self.attention}"
            )
        return self.attention

    def _go_on(self, attend, tokens, state):
        tokens = ops.cast(tokens, self.compute_dtype)
        branch, state = attend(self.attention_norm(tokens), state)
        x = tokens + _scaled(branch, self.attention_scale)
        return x + self._mlp(x), state

    @property
    def grid(self) -> Shape | None:
        """See `MaskedAttention.grid`."""
        if isinstance(self.attention, MaskedAttention):
            return self.attention.grid
        return self._shorthand.options.get("grid_shape") or self._extents

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of those of the grid."""
        if isinstance(self.attention, MaskedAttention):
            return self.attention.num_prefix_tokens
        return self._shorthand.options.get("num_prefix_tokens", 0)

    def mask_operator(
        self, shape: Sequence[int] | None = None
    ) -> MaskOperator | None:
        """The learned mask, see `MaskedAttention.mask_operator`."""
        if self._takes_grid():
            return self.attention.mask_operator(shape)
        if isinstance(self.attention, MaskedAttention):
            return self.attention.mask_operator()
        return None

    def attention_weights(
        self,
        inputs: TensorLike,
        mask: TensorLike | None = None,
        grid: Tensor | None = None,
    ) -> Tensor:
        """How much each token takes from each other one, as a matrix.

        A block that has not been called yet is built.

        Args:
            inputs, mask, grid: as in a call.

        Returns:
            `(batch, heads, tokens, tokens)`; rows sum to 1.

        Raises:
            ValueError: with more than 8,192 tokens.
        """
        if not self.built:
            self.build(
                tuple(inputs.shape),
                None if grid is None else tuple(grid.shape),
            )
        x = self.attention_norm(inputs)
        if self._takes_grid():
            return self.attention.attention_weights(x, mask, grid)
        if isinstance(self.attention, MaskedAttention):
            return self.attention.attention_weights(x, mask=mask)
        x, mask = self._flat(x, mask)
        check_tokens(x.shape[1])
        _, weights = self.attention(
            x, x, attention_mask=mask, return_attention_scores=True
        )
        return weights

    def compute_output_shape(
        self, inputs_shape: Shape, grid_shape: Shape | None = None
    ) -> Shape:
        del grid_shape
        return tuple(inputs_shape)

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
        return output, scores_spec(
            inputs, None, self.attention.num_heads, self.compute_dtype
        )

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        if isinstance(previous_mask, (list, tuple)):
            previous_mask = previous_mask[0]
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        config = {
            **with_changes(super().get_config(), self),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "attention": self.attention_kind,
            "mask": None,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth": self.stochastic_depth,
            "epsilon": self.epsilon,
            "activation": self.activation,
            "mlp_bias": self.mlp_bias,
            "layer_scale": self.layer_scale,
            "seed": self.seed,
        }
        if self.attention_kind is None:
            attention = keras.saving.serialize_keras_object(self.attention)
            # A copy is built for the tokens of the block that has it.
            attention.pop("build_config", None)
            return {**config, "attention": attention}
        mask = self._shorthand.mask
        options = dict(self._shorthand.options)
        if isinstance(self.attention, MaskedAttention):
            # What the mask was made for, so that a clone on another grid
            # resamples it.
            mask = self.attention.mask
            for name in set(OF_NAMED_MASKS) - {"mask_grid_shape"}:
                options.pop(name, None)
        if isinstance(self.attention, MultiHeadLayer):
            config = with_attention(config, self.attention)
        if isinstance(mask, keras.layers.Layer):
            mask = keras.saving.serialize_keras_object(mask)
        for name in {"feature_map", "similarity"} & set(options):
            options[name] = similarity_config(options[name])
        return {**config, "mask": mask, **options}

    def _norm(self, name):
        return keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=self.dtype_policy, name=name
        )

    def _add_scale(self, name, channels):
        """Factors of a branch, or `None`."""
        if self.layer_scale is None:
            return None
        return self.add_weight(
            name=name,
            shape=(channels,),
            initializer=keras.initializers.Constant(self.layer_scale),
        )

    def _takes_grid(self):
        """Whether it is an attention of sequences and grids, not of graphs."""
        return isinstance(self.attention, MaskedAttention) and not isinstance(
            self.attention, GraphKernelLayer
        )

    def _attend(self, x, grid, mask, training, with_scores):
        """The attention, or a pair of it and its scores."""
        scores = {"return_attention_scores": True} if with_scores else {}
        if self._takes_grid():
            return self.attention(
                x, grid=grid, mask=mask, training=training, **scores
            )
        if not isinstance(self.attention, keras.layers.MultiHeadAttention):
            takes = inspect.signature(self.attention.call).parameters
            if with_scores and "return_attention_scores" not in takes:
                raise ValueError(
                    "`return_attention_scores=True` expects an attention layer "
                    "that takes it. Received: "
                    f"attention={type(self.attention).__name__}"
                )
            options = {"mask": mask, "training": training, **scores}
            return self.attention(
                x, **{name: options[name] for name in options if name in takes}
            )
        shape = tuple(ops.shape(x))
        x, mask = self._flat(x, mask)
        x = self.attention(
            x, x, attention_mask=mask, training=training, **scores
        )
        if with_scores:
            x, scores = x
            return ops.reshape(x, shape), scores
        return ops.reshape(x, shape)

    def _flat(self, x, mask):
        """Tokens in a row, and a mask as Keras attention takes it."""
        mask = check_padding(mask, x.shape, self)
        batch, *grid, channels = tuple(ops.shape(x))
        x = ops.reshape(x, (batch, math.prod(grid), channels))
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


def _copy(layer):
    return type(layer).from_config(layer.get_config())


def _scaled(branch, scale):
    return branch if scale is None else branch * ops.cast(scale, branch.dtype)


class _Given:
    """What the attention of a block is to be made of."""

    def __init__(self, mask, options):
        self.mask = mask
        self.options = options


def _mask_of(attention, mask):
    """The mask of the shorthand, whose default depends on the attention."""
    if isinstance(mask, str) and mask == "default":
        return "table" if attention == "toeplitz" else None
    if attention == "linear" and mask is not None:
        raise ValueError(
            "`mask` expects None with attention='linear', which is "
            f"'toeplitz' without a mask. Received: mask={mask!r}"
        )
    return mask
