"""What attention layers share: projections into heads, similarity, heads
together again."""

import functools
import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import (
    Constraint,
    Implementation,
    Initializer,
    Regularizer,
    Shape,
)
from keras_topo.arguments import one_of, positive, rate
from keras_topo.attention import (
    attention_scores,
    get_feature_map,
    masked_additive_attention,
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.attention.feature_maps import SCALED_FEATURE_MAPS, key_level
from keras_topo.attention.magnitude import magnitude_aware, magnitude_scores
from keras_topo.layers.attention_weights import check_tokens
from keras_topo.layers.favor_projection import add_random_projection
from keras_topo.layers.floats import as_floats
from keras_topo.layers.inner_dense import changed, with_changes
from keras_topo.layers.learned_feature_maps import (
    Similarity,
    get_similarity,
    is_learned,
    similarity_config,
)
from keras_topo.layers.seeds import copy_initializer, derived_seed
from keras_topo.masks.mask import positive_weight, softplus, wide_dtype
from keras_topo.operators.forms import IMPLEMENTATIONS

COMBINATIONS = ("project", "concatenate", "average")

_MODULES = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


class MultiHeadLayer(keras.layers.Layer):
    """Attention in several heads, between dense projections.

    It stands in front of other base classes, which get `**kwargs`. Arguments
    are those of `MaskedAttention`, checked and part of the config; those that
    end in `_initializer`, `_regularizer` or `_constraint` become attributes,
    and dense projections take those that start with `kernel_` or `bias_`.

    Raises:
        ValueError: if an argument is outside its range.
    """

    #: Attribute of the projection into heads, by which files know it.
    _projection_name = "qkv_dense"

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        similarity: Similarity = "relu",
        combine: Literal["project", "concatenate", "average"] = "project",
        magnitude_aware: bool = False,
        num_features: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | None = None,
        implementation: Implementation = "auto",
        seed: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        attention_initializer: Initializer = None,
        attention_regularizer: Regularizer = None,
        inner_dense: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        # Of a file: see `keras_topo.layers.inner_dense`.
        self._inner_dense = inner_dense
        self.supports_masking = True
        self.num_heads = positive(num_heads, "num_heads")
        self.key_dim = positive(key_dim, "key_dim")
        self.value_dim = positive(
            key_dim if value_dim is None else value_dim, "value_dim"
        )
        self.similarity: Any = get_similarity(similarity)
        if is_learned(self.similarity) and self.dtype_policy.name == "float64":
            self.similarity.dtype_policy = self.dtype_policy
        self.combine = one_of(combine, "combine", COMBINATIONS)
        self.magnitude_aware = bool(magnitude_aware)
        self.num_features = positive(
            num_features, "num_features", optional=True
        )
        self.dropout = rate(dropout, "dropout")
        self.use_bias = use_bias
        self.output_channels = positive(
            output_shape, "output_shape", optional=True
        )
        self.implementation = one_of(
            implementation, "implementation", IMPLEMENTATIONS
        )
        self.seed = seed
        projections = {
            "kernel_initializer": kernel_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "bias_constraint": bias_constraint,
            "attention_initializer": attention_initializer,
            "attention_regularizer": attention_regularizer,
        }
        self._projections = tuple(projections)
        for name, value in projections.items():
            setattr(self, name, _module(name).get(value))
        self._check_similarity(similarity)
        self.seed_generator = (
            keras.random.SeedGenerator(derived_seed(seed, "dropout"))
            if dropout
            else None
        )

    def _check_similarity(self, given: Similarity) -> None:
        """Whether the other arguments are for the similarity, as it came."""
        if self.magnitude_aware and self.similarity not in SCALED_FEATURE_MAPS:
            raise ValueError(
                "`magnitude_aware` is for feature maps whose features have a "
                f"scale, {SCALED_FEATURE_MAPS}: exponentials know how large a "
                f"query is. Received: similarity={given!r}"
            )
        if self.similarity == "additive":
            if self.value_dim != self.key_dim:
                raise ValueError(
                    "`value_dim` expects key_dim with the additive similarity, "
                    "whose values are its keys. Received: "
                    f"value_dim={self.value_dim}, key_dim={self.key_dim}"
                )
        elif self.attention_initializer or self.attention_regularizer:
            raise ValueError(
                "`attention_initializer` and `attention_regularizer` are for "
                "the vectors of the additive similarity. Received: "
                f"similarity={given!r}"
            )

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "similarity": similarity_config(self.similarity),
            "combine": self.combine,
            "magnitude_aware": self.magnitude_aware,
            "num_features": self.num_features,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "output_shape": self.output_channels,
            "implementation": self.implementation,
            "seed": self.seed,
            **{
                name: _module(name).serialize(getattr(self, name))
                for name in self._projections
            },
        }
        return with_changes(config, self)

    # Building.

    def _build_heads(self, shape, value_shape=None):
        """The projections, for inputs `(batch, *tokens, channels)`.

        Args:
            value_shape: shape of the tokens that keys and values come from,
                where they are others.
        """
        key_units = self.num_heads * self.key_dim
        units = self.num_heads * self.value_dim
        self.value_dense: Any = None
        if self.similarity == "additive":
            if value_shape is not None:
                raise ValueError(
                    "`similarity` expects 'softmax' or a feature map for "
                    "attention between two sequences. Received: "
                    "similarity='additive'"
                )
            projection = self._dense(units, "values", False)
            for k, name in enumerate(("query_scores", "key_scores")):
                weight = self.add_weight(
                    name=name,
                    shape=(self.num_heads, self.value_dim, 1),
                    initializer=functools.partial(
                        self._initialize_heads, k * self.num_heads
                    ),
                    regularizer=self.attention_regularizer
                    or self.kernel_regularizer,
                )
                setattr(self, name, weight)
        elif value_shape is None:
            # One projection for queries, keys and values: one matrix product.
            projection = self._dense(
                2 * key_units + units, "qkv", self.use_bias
            )
        else:
            projection = self._dense(key_units, "query", self.use_bias)
            self.value_dense = self._dense(
                key_units + units, "key_value", self.use_bias
            )
            self.value_dense.build(value_shape)
        setattr(self, self._projection_name, projection)
        projection.build(shape)
        self.output_dense = self.output_bias = None
        if self.combine == "project":
            self.output_dense = self._dense(
                self._output_channels(shape), "output", self.use_bias
            )
            self.output_dense.build((*shape[:-1], units))
        elif self.use_bias:
            self.output_bias = self.add_weight(
                name="bias",
                shape=(self.value_dim if self.combine == "average" else units,),
                initializer=copy_initializer(self.bias_initializer, "bias"),
                regularizer=self.bias_regularizer,
            )
        self.random_projection = add_random_projection(self, self.similarity)
        if is_learned(self.similarity) and not self.similarity.built:
            self.similarity.build(self.num_heads, self.key_dim)
        self.magnitude = None
        if self.magnitude_aware:
            initial = np.full(self.num_heads, self.key_dim**-0.5)
            self.magnitude = positive_weight(self, "magnitude", initial)

    def _dense(self, units, name, use_bias):
        """A projection; those into heads keep the seed of an initializer that
        has one."""
        options = {
            option: getattr(self, option)
            for option in self._projections
            if option.startswith(("kernel_", "bias_"))
        }
        kept = name in ("qkv", "values", "query")
        options["kernel_initializer"] = copy_initializer(
            self.kernel_initializer, None if kept else name
        )
        options["bias_initializer"] = copy_initializer(
            self.bias_initializer, f"{name}_bias"
        )
        options["dtype"] = self.dtype_policy
        options |= changed(self._inner_dense, name)
        return keras.layers.Dense(
            units, use_bias=use_bias, name=name, **options
        )

    def _initialize_heads(self, first, shape, dtype=None):
        """Head by head: the fan of a head is not that of a convolution."""
        heads = []
        for k in range(first, first + shape[0]):
            # No two heads start alike, nor do their two vectors.
            initializer = copy_initializer(
                self.attention_initializer or self.kernel_initializer,
                f"attention_{k}",
            )
            heads.append(initializer(shape[1:], dtype=dtype))
        return ops.stack(heads)

    # Calling.

    @property
    def _wide_dtype(self):
        """That of masks and sums, float32 at least."""
        return wide_dtype(self)

    @property
    def _projection(self):
        return getattr(self, self._projection_name)

    def _project(self, inputs, value=None):
        """Queries, keys and values, `(batch, heads, tokens, units)`; of the
        additive similarity the former are scores of one unit."""
        if self.similarity == "additive":
            x, scores = self._values_and_scores(inputs)
            query, key = ops.split(self._split_heads(scores), 2, -1)
            return query, key, self._split_heads(x)
        # A split, whose gradient is one concatenation; slices would be slow.
        x = self._split_heads(self._projection(inputs))
        if value is None:
            return ops.split(x, [self.key_dim, 2 * self.key_dim], axis=-1)
        pair = self._split_heads(self.value_dense(value))
        return x, *ops.split(pair, [self.key_dim], axis=-1)

    def _split_heads(self, x):
        """`(batch, *tokens, heads * n)` to `(batch, heads, tokens, n)`."""
        # Spelled out: a -1 beside an unknown batch size loses the static shape.
        batch, *tokens, units = tuple(ops.shape(x))
        x = ops.reshape(
            x,
            (
                batch,
                math.prod(tokens),
                self.num_heads,
                units // self.num_heads,
            ),
        )
        return ops.transpose(x, (0, 2, 1, 3))

    def _values_and_scores(self, inputs):
        """Values `W x` and the scores `a . W x`, `b . W x` of each head.

        As one product: `a . (W x) = (a W) . x`.
        """
        inputs = as_floats(inputs, self)
        heads = ops.concatenate([self.query_scores, self.key_scores], axis=-1)
        heads = ops.cast(heads, inputs.dtype)
        if self._projection.quantization_mode is not None:
            # Its kernel is not `W` then, but integers.
            x = self._projection(inputs)
            shape = tuple(ops.shape(x))[:-1]
            by_head = ops.reshape(x, (*shape, self.num_heads, self.value_dim))
            scores = ops.einsum("...hv,hvs->...hs", by_head, heads)
            return x, ops.reshape(scores, (*shape, 2 * self.num_heads))
        channels = inputs.shape[-1]
        weights = ops.cast(self._projection.kernel, inputs.dtype)
        by_head = ops.reshape(
            weights, (channels, self.num_heads, self.value_dim)
        )
        # (heads, channels, 2) to (channels, heads * 2)
        scores = ops.matmul(ops.swapaxes(by_head, 0, 1), heads)
        scores = ops.reshape(ops.swapaxes(scores, 0, 1), (channels, -1))
        x = ops.matmul(inputs, ops.concatenate([weights, scores], axis=-1))
        return ops.split(x, [self.num_heads * self.value_dim], axis=-1)

    def _attend(
        self,
        query,
        key,
        value,
        operator,
        mask,
        nonnegative,
        training: bool | None = False,
    ):
        """Attention of heads under an operator, or `None`.

        Args:
            nonnegative: bool, whether the operator is known to have no
                negative entries, so that nobody looks for them.
        """
        options = {"allow_negative": nonnegative}
        drops = training and self.dropout
        if self.similarity in ("softmax", "additive"):
            if drops:
                options["dropout"] = self.dropout
                options["seed"] = self.seed_generator
            attend = (
                masked_softmax_attention
                if self.similarity == "softmax"
                else masked_additive_attention
            )
            return attend(query, key, value, operator, mask, **options)
        if drops:
            value = self._drop_keys(value)
        return self._attend_linearly(
            self._features(query, True),
            self._features(key, False, mask),
            value,
            mask=operator,
            padding_mask=mask,
            implementation=self.implementation,
            **options,
        )

    def _attend_linearly(self, query, key, value, **options):
        """Attention of features, see `masked_linear_attention`."""
        mean = functools.partial(masked_linear_attention, **options)
        x = mean(query, key, value)
        if self.magnitude is None:
            return x
        one = ops.ones_like(query[..., :1])
        return magnitude_aware(
            x,
            query,
            key,
            value,
            self._magnitude_scale(),
            functools.partial(mean, one, one),
        )

    def _magnitude_scale(self):
        return softplus(self.magnitude)[:, None, None]

    def _scores(self, query, key, operator, mask, nonnegative, of_pairs=False):
        """What `_attend` averages values by, before dropout.

        Args:
            of_pairs: bool, whether for each pair of a sparse operator rather
                than as a matrix.

        Returns:
            `(batch, heads, queries, keys)` or `(batch, heads, pairs)`, in the
            compute dtype.
        """
        if not of_pairs:
            check_tokens(tuple(ops.shape(key))[2])
        kind = self.similarity
        if kind not in ("softmax", "additive"):
            kind = "linear"
            query = self._features(query, True)
            key = self._features(key, False, mask)
        score = functools.partial(
            attention_scores,
            kind,
            mask=operator,
            padding_mask=mask,
            allow_negative=nonnegative,
            of_pairs=of_pairs,
        )
        scores = score(query, key)
        if self.magnitude is not None:
            ones = (ops.ones_like(x[..., :1]) for x in (query, key))
            scores = magnitude_scores(
                scores, query, key, self._magnitude_scale(), score(*ones)
            )
        return ops.cast(scores, self.compute_dtype)

    def _features(self, x, is_query, padding_mask=None, level=None):
        """The feature map of `(batch, heads, tokens, units)`.

        Args:
            padding_mask: `(batch, tokens)`, boolean, `True` for real tokens.
            level: of keys, see `keras_topo.attention.feature_maps`.
        """
        visible = None
        if padding_mask is not None:
            visible = padding_mask[:, None, :, None]
        if is_learned(self.similarity):
            return self.similarity.features(x, is_query, visible, level)
        feature_map = get_feature_map(self.similarity)
        return feature_map(x, is_query, self.random_projection, visible, level)

    def _key_level(self, key):
        """See `keras_topo.attention.feature_maps.key_level`."""
        if is_learned(self.similarity):
            return self.similarity.key_level(key)
        projection = self.random_projection
        if projection is not None:
            projection = ops.convert_to_tensor(projection)
        return key_level(self.similarity, key, projection)

    def _drop_keys(self, value):
        """The dropout of whole keys, one draw shared by all queries."""
        shape = tuple(ops.shape(value))
        return keras.random.dropout(
            value,
            self.dropout,
            noise_shape=(*shape[:3], 1),
            seed=self.seed_generator,
        )

    def _combine(self, x, shape):
        """`(batch, heads, tokens, value_dim)` to the output, of inputs of a
        (dynamic) shape."""
        if self.combine == "average":
            x = ops.mean(x, axis=1)
            x = ops.reshape(x, (*shape[:-1], self.value_dim))
        else:
            x = ops.transpose(x, (0, 2, 1, 3))
            units = self.num_heads * self.value_dim
            x = ops.reshape(x, (*shape[:-1], units))
        if self.output_dense is not None:
            return self.output_dense(x)
        if self.output_bias is not None:
            x = x + ops.cast(self.output_bias, x.dtype)
        return x

    def _output_channels(self, input_shape):
        if self.output_channels is None:
            return input_shape[-1]
        return self.output_channels

    def _output_shape(self, input_shape: Shape) -> Shape:
        channels = {
            "project": self._output_channels(input_shape),
            "concatenate": self.num_heads * self.value_dim,
            "average": self.value_dim,
        }[self.combine]
        return (*input_shape[:-1], channels)


def _module(name):
    return _MODULES[name.rpartition("_")[2]]
