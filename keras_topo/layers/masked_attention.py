"""`MaskedAttention`: multi-head attention under any mask."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_topo import masks
from keras_topo.annotations import Shape, Tensor, TensorLike
from keras_topo.attention.inputs import normalize
from keras_topo.layers.attention_weights import scores_spec
from keras_topo.layers.learned_feature_maps import Similarity
from keras_topo.layers.padding import check_padding, pad_tokens
from keras_topo.layers.streaming import Streaming
from keras_topo.masks import GraphMask, Grid, Nodes
from keras_topo.masks.mask import operator_for
from keras_topo.masks.registry import MaskLike
from keras_topo.masks.topology import Topology
from keras_topo.operators import Causal
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.linear import linear_attention
from keras_topo.operators.toeplitz import check_grid_shape


@keras.saving.register_keras_serializable(package="keras_topo")
class MaskedAttention(Streaming):
    """Multi-head attention whose scores are multiplied by a mask.

    Head `h` weighs the value of token `j` for token `i` by `M_h[i, j] s(q_i,
    k_j)` and divides by the sum of the weights (Choromanski et al., 2022). The
    mask `M` is an object of `keras_topo.masks`, which makes its operator for
    the tokens of each call, so that one layer takes sequences and grids of any
    size. With a feature map as the similarity, time is that of the mask: it is
    linear for decays, gates and curves, on sequences and on grids.

    **Tokens.** `(batch, tokens, channels)` is a sequence; `(batch, *grid,
    channels)` with two or three axes a grid, as for a convolution. Prefix
    tokens (class or register tokens, whose mask entries are one) stand in
    front of the tokens of a grid, `(batch, num_prefix_tokens + tokens,
    channels)`; then `grid_shape` is the grid, or a call brings a tensor whose
    shape tells it. Sizes need not be known when the layer is built.

    **Streaming.** With `causal=True` a sequence is attended to token by token:
    `initial_state`, `step` and `extend`, equal to a call on all of it.

    **Cross attention.** With a `value` in the call, queries come from the
    inputs, and keys and values from `value`. Both are sequences, and the mask
    measures the distance between their positions.

    Args:
        num_heads: int, number of heads.
        key_dim: int, size of each head for queries and keys.
        value_dim: int, size of each head for values; defaults to `key_dim`.
        mask: a mask, its name (see `keras_topo.masks.get`), or `None`; the
            layer makes itself a copy.
        similarity: name of a feature map `phi`, for `s = phi(q) . phi(k)`:
            `"relu"`, `"elu"`, `"square"`, `"exp"`, `"favor"`,
            `"hyperbolic_favor"`, `"constant"` (1: the mask alone weighs), or a
            learned one, `"hedgehog"` or a `HedgehogFeatureMap`; `"softmax"`,
            `exp(q . k / sqrt(key_dim))`; or `"additive"`, `exp(leaky_relu(a . q
            + b . k))`, as in GAT.
        causal: bool, whether tokens see none after them; sequences only.
        combine: what becomes of the heads: `"project"` (a learned projection,
            as in Transformers), `"concatenate"`, or `"average"`.
        grid_shape: tuple of ints, the grid of the tokens when the input is
            `(batch, tokens, channels)`.
        num_prefix_tokens: int, tokens in front of those of the grid.
        periodic: bool, or one per axis, whether the ends of the grid meet.
        magnitude_aware: bool, whether attention depends on how large the
            features of a query are, which the normalizer cancels otherwise:
            see `keras_topo.attention.magnitude_aware`. Its `scale` is learned
            per head and starts at `1 / sqrt(key_dim)`. Only for feature maps
            that have a scale (`"relu"`, `"topvit_relu"`, `"elu"`).
        num_features: int, number of random features of `"favor"` and
            `"hyperbolic_favor"`; defaults to `key_dim`.
        dropout: float. With `"softmax"` and `"additive"` the rate at which
            scores are dropped; with a feature map, whose scores are never
            computed, whole keys, one draw per head and example.
        use_bias: bool, whether the dense projections have biases.
        output_shape: int, channels of the output of `combine="project"`;
            defaults to those of the input.
        implementation: of `keras_topo.attention.masked_linear_attention`.
        seed: int, of dropout and random features.
        kernel_initializer, bias_initializer, kernel_regularizer,
        bias_regularizer, kernel_constraint, bias_constraint: of the dense
            projections.
        attention_initializer, attention_regularizer: of the vectors `a` and
            `b` of the additive similarity; default to those of the kernels.

    Call arguments:
        inputs: `(batch, tokens, channels)` or `(batch, *grid, channels)`.
        value: `(batch, other tokens, channels)`, for cross attention.
        grid: a tensor `(batch, *grid, channels)` whose shape is that of the
            grid behind prefix tokens; its numbers do not matter.
        mask: padding mask of the inputs, `(batch, tokens)` or `(batch,
            *grid)`, `True` for real tokens. No token sees a padded one; the
            outputs at padded places are without meaning.
        value_mask: the same for `value`.
        training: bool.
        return_attention_scores: bool, as in `keras.layers.MultiHeadAttention`.

    Returns:
        The shape of the inputs, with `output_shape` channels. With
        `return_attention_scores=True` also the scores, `(batch, heads,
        queries, keys)`: mask times similarity, divided by the sum of the row,
        before dropout. Rows sum to 1 (to 0 where a token sees nothing), and
        padded keys have 0. Tokens of a grid are in row-major order, behind
        prefix tokens. Scores do not change the output, and take
        `O(tokens^2)` time and memory under every mask.

    Raises:
        ValueError: if an argument is outside its range, the grid does not
            match the tokens, or the mask does not fit them; or scores of more
            than 8,192 tokens are to be returned.

    *Complexity*: with a feature map that of the mask, see `keras_topo.masks`;
    otherwise `O(tokens^2)`.

    Example:

    >>> layer = MaskedAttention(num_heads=4, key_dim=16, mask="decay")
    >>> tuple(layer(np.random.rand(2, 14, 28, 64)).shape)
    (2, 14, 28, 64)
    >>> _, scores = layer(
    ...     np.random.rand(2, 7, 7, 64), return_attention_scores=True
    ... )
    >>> tuple(scores.shape)
    (2, 4, 49, 49)
    >>> layer = MaskedAttention(4, 16, mask="gated", causal=True)
    >>> tuple(layer(np.random.rand(2, 1000, 64)).shape)
    (2, 1000, 64)
    """

    _second_argument = "value"

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        mask: MaskLike | None = None,
        similarity: Similarity = "relu",
        causal: bool = False,
        grid_shape: Sequence[int] | None = None,
        num_prefix_tokens: int = 0,
        periodic: bool | Sequence[bool] = False,
        **kwargs: Any,
    ):
        super().__init__(
            num_heads,
            key_dim,
            value_dim=value_dim,
            similarity=similarity,
            **kwargs,
        )
        self.mask = masks.get(mask)
        if self.mask is not None and self.dtype_policy.name == "float64":
            self.mask.dtype_policy = self.dtype_policy
        self.causal = bool(causal) or getattr(self.mask, "is_causal", False)
        self.grid_shape: Any = None
        if grid_shape is not None:
            self.grid_shape = check_grid_shape(grid_shape)
        # Checked where a topology is made of them.
        Grid((1, 1, 1), num_prefix_tokens)
        self.num_prefix_tokens = num_prefix_tokens
        self.periodic = _periodic(periodic)
        if self.causal and (
            grid_shape is not None
            or num_prefix_tokens
            or self.periodic
            or self._is_grid()
            or isinstance(self.mask, GraphMask)
        ):
            raise ValueError(
                "`causal` is for sequences: no grid, no prefix tokens, no ends "
                f"that meet, no graph. Received: causal={causal}, grid_shape="
                f"{grid_shape}, num_prefix_tokens={num_prefix_tokens}, "
                f"periodic={periodic}, mask={mask!r}"
            )

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self,
        inputs_shape: Shape,
        value_shape: Shape | None = None,
        grid_shape: Shape | None = None,
    ) -> None:
        shape = self._check_shape(inputs_shape)
        if value_shape is not None:
            _check_no_grid(grid_shape)
        topology = self._topology(
            shape, shape, keras.KerasTensor(shape), grid_shape
        )
        self._channels = shape[-1]
        self._built_topology = dataclasses.replace(topology, inputs=None)
        kernels = getattr(self.mask, "num_kernels", 1)
        if self.num_heads % kernels:
            raise ValueError(
                f"`num_heads` expects a multiple of the {kernels} kernels of "
                f"`mask`. Received: num_heads={self.num_heads}"
            )
        self._build_heads(shape, value_shape)
        if self.mask is not None and not self.mask.built:
            self.mask.build(self.num_heads, topology)

    def call(
        self,
        inputs: Tensor,
        value: Tensor | None = None,
        grid: Tensor | None = None,
        mask: TensorLike | None = None,
        inputs_mask: TensorLike | None = None,
        value_mask: TensorLike | None = None,
        training: bool | None = None,
        return_attention_scores: bool = False,
    ) -> Any:
        # Keras hands the mask of the first of several tensors over by the
        # name of the argument.
        mask = inputs_mask if mask is None else mask
        mask = check_padding(mask, inputs.shape, self)
        if value is not None:
            _check_no_grid(None if grid is None else grid.shape)
            x, scores = self._cross(
                inputs,
                value,
                mask,
                value_mask,
                training,
                return_attention_scores,
            )
            return (x, scores) if return_attention_scores else x
        self._require_own_values()
        query, key, own = self._project(inputs)
        operator = self._operator(inputs, grid, mask)
        scores = None
        if return_attention_scores:
            # First: they may be too many.
            scores = self._scores(
                query, key, operator, mask, self._nonnegative()
            )
        x = self._attend(
            query, key, own, operator, mask, self._nonnegative(), training
        )
        x = self._combine(x, tuple(ops.shape(inputs)))
        return (x, scores) if return_attention_scores else x

    @property
    def grid(self) -> Shape | None:
        """The sizes of the tokens that the layer was built for, `None` where
        they may be any; itself `None` for nodes of a graph."""
        topology = getattr(self, "_built_topology", None)
        if topology is None or isinstance(topology, Nodes):
            return None
        return topology.shape

    def mask_operator(
        self, shape: Sequence[int] | None = None
    ) -> MaskOperator | None:
        """The learned mask.

        Args:
            shape: sizes of the tokens, `(length,)` or `(n_1, ..., n_d)`;
                defaults to those that the layer was built for.

        Returns:
            A `MaskOperator` of shape `(heads, L, L)` or `(L, L)`, prefix
            tokens first; `None` without a mask.

        Raises:
            ValueError: if the layer is not built, or sizes are not known.
        """
        if not self.built:
            raise ValueError(
                f"{type(self).__name__}.mask_operator expects a layer that is "
                "built. Received: one that is not"
            )
        if self.mask is None and not self.causal:
            return None
        topology = self._built_topology
        axes = len(topology.shape)
        if shape is not None and len(shape) != axes:
            raise ValueError(
                f"`shape` expects {axes} sizes, as many axes as the tokens "
                f"have. Received: shape={shape}"
            )
        if shape is not None:
            sizes = {"length": shape[0]}
            if isinstance(topology, Grid):
                sizes = {"shape": tuple(shape)}
            topology = dataclasses.replace(topology, **sizes)
        if topology.num_tokens is None:
            raise ValueError(
                "`shape` expects the sizes of the tokens, for the layer was "
                f"built for any. Received: shape={shape}"
            )
        return self._operator_of(topology)

    def attention_weights(
        self,
        inputs: TensorLike,
        mask: TensorLike | None = None,
        grid: Tensor | None = None,
    ) -> Tensor:
        """How much each token takes from each other one, `D^-1 (M (.) K)`.

        These are the scores that a call with `return_attention_scores=True`
        returns too. A layer that has not been called yet is built.

        Args:
            inputs, mask, grid: as in a call.

        Returns:
            `(batch, heads, tokens, tokens)`; rows sum to 1.

        Raises:
            ValueError: with more than 8,192 tokens.
        """
        inputs = ops.convert_to_tensor(inputs)
        if not self.built:
            self.build(
                tuple(inputs.shape),
                grid_shape=None if grid is None else tuple(grid.shape),
            )
        self._require_own_values()
        query, key, _ = self._project(inputs)
        mask = check_padding(mask, inputs.shape, self)
        operator = self._operator(inputs, grid, mask)
        return self._scores(query, key, operator, mask, self._nonnegative())

    def compute_output_shape(
        self,
        inputs_shape: Shape,
        value_shape: Shape | None = None,
        grid_shape: Shape | None = None,
    ) -> Shape:
        del value_shape
        self._topology(inputs_shape, inputs_shape, None, grid_shape)
        return self._output_shape(tuple(inputs_shape))

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
        # What comes second says what the keys are.
        other = args[0] if args else kwargs.get(self._second_argument)
        return output, self._scores_spec(inputs, other)

    def _scores_spec(self, inputs, value=None):
        return scores_spec(inputs, value, self.num_heads, self.compute_dtype)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        if isinstance(previous_mask, (list, tuple)):
            previous_mask = previous_mask[0]
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mask": keras.saving.serialize_keras_object(self.mask)
            if self.mask is not None
            else None,
            "causal": self.causal,
            "grid_shape": self.grid_shape,
            "num_prefix_tokens": self.num_prefix_tokens,
            "periodic": self.periodic,
        }

    # Masks.

    def _nonnegative(self):
        # Of such masks there are no negative entries. Looking for them would
        # cost operations in every call.
        return self.mask is None or self.mask.nonnegative

    def _require_own_values(self):
        if self.value_dense is not None:
            raise ValueError(
                f"{type(self).__name__} was built for attention to another "
                "sequence and expects `value`. Received: value=None"
            )

    def _operator(self, inputs, grid, padding_mask):
        """The mask of a call, or `None`."""
        if self.mask is None and not self.causal:
            return None
        sizes = tuple(ops.shape(inputs))
        grid_sizes = None if grid is None else tuple(ops.shape(grid))
        topology = self._topology(inputs.shape, sizes, inputs, grid_sizes)
        if padding_mask is not None and topology.num_prefix_tokens:
            padding_mask = padding_mask[:, topology.num_prefix_tokens :]
        return self._operator_of(
            dataclasses.replace(topology, padding_mask=padding_mask)
        )

    def _operator_of(self, topology: Topology) -> MaskOperator:
        if self.mask is None:
            return Causal(topology.shape[0])
        return operator_for(self.mask, topology)

    def _topology(
        self, shape: Shape, sizes: tuple[Any, ...], inputs: Any, grid_shape: Any
    ) -> masks.Sequence | Grid | Nodes:
        """The topology of tokens.

        Args:
            shape: static shape of the inputs.
            sizes: the same, or the dynamic one of a call.
            inputs: the inputs, for masks that compute from them.
            grid_shape: `(batch, *grid, channels)`, where a tensor came.
        """
        self._check_shape(shape)
        extents = tuple(sizes[1:-1])
        axes = len(extents)
        if self.causal and (axes > 1 or grid_shape is not None):
            raise ValueError(
                "`causal` attention, and the mask 'causal', are for sequences, "
                "inputs of shape (batch, tokens, channels). Received: "
                f"input_shape={tuple(shape)}, grid={grid_shape}"
            )
        if isinstance(self.mask, GraphMask):
            return Nodes(extents[0], inputs)
        prefix = self.num_prefix_tokens
        if axes > 1:
            if prefix or self.grid_shape not in (None, extents):
                raise ValueError(
                    "`grid_shape` and `num_prefix_tokens` are for inputs of "
                    "shape (batch, tokens, channels). Received: input_shape="
                    f"{tuple(shape)}, grid_shape={self.grid_shape}, "
                    f"num_prefix_tokens={prefix}"
                )
            return Grid(extents, 0, self.periodic, inputs, self._wide_dtype)
        if grid_shape is not None:
            grid = tuple(grid_shape[1:-1])
        elif self.grid_shape is not None:
            grid = self.grid_shape
        elif prefix or self.periodic or self._is_grid():
            (tokens,) = extents
            if isinstance(tokens, int) and tokens <= prefix:
                raise ValueError(
                    "the grid does not match the tokens: num_prefix_tokens="
                    f"{prefix} leaves none for it. Received: "
                    f"input_shape={tuple(shape)}"
                )
            grid = (None if tokens is None else tokens - prefix,)
        else:
            return masks.Sequence(
                extents[0], self.causal, inputs, self._wide_dtype
            )
        if inputs is not None and prefix:
            inputs = (
                keras.KerasTensor((shape[0], None, shape[-1]))
                if isinstance(inputs, keras.KerasTensor)
                else inputs[:, prefix:]
            )
        known = [n for n in grid if isinstance(n, int)]
        if (
            len(known) == len(grid)
            and isinstance(extents[0], int)
            and math.prod(known) + prefix != extents[0]
        ):
            raise ValueError(
                f"the grid does not match the tokens: grid_shape={grid} and "
                f"num_prefix_tokens={prefix} expect "
                f"{math.prod(known) + prefix} tokens. With a tensor `grid` in "
                "the call, whose shape is that of the grid, a model takes any "
                "size, and so does from_preset(image_shape=). Received: "
                f"input_shape={tuple(shape)}"
            )
        return Grid(grid, prefix, self.periodic, inputs, self._wide_dtype)

    def _is_grid(self) -> bool:
        """Whether inputs `(batch, tokens, channels)` are a grid of one axis
        rather than a sequence."""
        return False

    def _check_shape(self, shape):
        if len(shape) not in (3, 4, 5) or shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} expects inputs of shape (batch, "
                "*grid, channels) with a known number of channels. Received: "
                f"input_shape={tuple(shape)}"
            )
        return tuple(shape)

    # Cross attention.

    def _cross(
        self, inputs, value, mask, value_mask, training, with_scores=False
    ):
        """Attention of one sequence to another, of any lengths.

        Returns the output and, `with_scores`, those; else `None`.
        """
        if self.value_dense is None:
            raise ValueError(
                f"{type(self).__name__} was built for attention within its "
                "inputs and expects no `value`: build or call it with one at "
                f"first. Received: value of shape {tuple(value.shape)}"
            )
        on_grid = self.grid_shape or self.num_prefix_tokens or self.periodic
        if (
            len(inputs.shape) != 3
            or len(value.shape) != 3
            or on_grid
            or self._is_grid()
        ):
            raise ValueError(
                "`value` expects two sequences, (batch, tokens, channels), "
                "not tokens of a grid. Received: inputs of shape "
                f"{tuple(inputs.shape)}, value of shape {tuple(value.shape)}, "
                f"grid_shape={self.grid_shape}, num_prefix_tokens="
                f"{self.num_prefix_tokens}, periodic={self.periodic}"
            )
        if isinstance(self.mask, GraphMask) or getattr(
            self.mask, "uses_inputs", False
        ):
            raise ValueError(
                "`value` is for no mask, and for masks of the distance "
                "between two sequences. Received: mask="
                f"{type(self.mask).__name__}"
            )
        value_mask = check_padding(value_mask, value.shape, self, "value_mask")
        query, key, own = self._project(inputs, value)
        if (
            self.mask is None
            and not self.causal
            and not self.magnitude_aware
            and self.similarity not in ("softmax", "additive")
        ):
            x = self._unmasked(inputs, query, key, own, value_mask, training)
            scores = None
            if with_scores:
                scores = self._scores(query, key, None, value_mask, True)
            return x, scores
        tokens = tuple(ops.shape(query))[2], tuple(ops.shape(key))[2]
        if all(isinstance(n, int) for n in tokens):
            length = max(tokens)
        else:
            length = ops.maximum(*tokens)
        if value_mask is None:
            value_mask = ops.ones(tuple(ops.shape(value))[:2], "bool")
        query, key, own = (pad_tokens(x, length, 2) for x in (query, key, own))
        value_mask = pad_tokens(value_mask, length, 1)
        operator = None
        if self.mask is not None or self.causal:
            operator = self._operator_of(
                masks.Sequence(length, self.causal, dtype=self._wide_dtype)
            )
        x = self._attend(
            query, key, own, operator, value_mask, self._nonnegative(), training
        )
        x = self._combine(x[:, :, : tokens[0]], tuple(ops.shape(inputs)))
        if not with_scores:
            return x, None
        scores = self._scores(
            query, key, operator, value_mask, self._nonnegative()
        )
        return x, scores[:, :, : tokens[0], : tokens[1]]

    def _unmasked(self, inputs, query, key, value, value_mask, training):
        """Without a mask two sequences meet in one matrix per head."""
        dtype = value.dtype
        if training and self.dropout:
            value = self._drop_keys(value)
        wide = self._wide_dtype
        query, key, value = (ops.cast(x, wide) for x in (query, key, value))
        key = self._features(key, False, value_mask)
        if value_mask is not None:
            visible = value_mask[:, None, :, None]
            value = ops.where(visible, value, ops.zeros_like(value))
            key = ops.where(visible, key, ops.zeros_like(key))
        parts = linear_attention(self._features(query, True), key, value)
        x = ops.cast(normalize(*parts), dtype)
        return self._combine(x, tuple(ops.shape(inputs)))


def _periodic(periodic):
    """`False`, `True` or one bool per axis, of which one is true."""
    if isinstance(periodic, (tuple, list)):
        return tuple(map(bool, periodic)) if any(periodic) else False
    return bool(periodic)


def _check_no_grid(shape):
    if shape is not None:
        raise ValueError(
            "`grid` expects `None` with `value`, of which keys and values are "
            f"made. Received: grid of shape {tuple(shape)}"
        )
