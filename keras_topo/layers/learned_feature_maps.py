"""Feature maps with weights, which learn to behave like softmax."""

from typing import Any, Literal, Self, TypeAlias, TypeGuard

import keras
import numpy as np
from keras import ops

from keras_topo._backend import matmul
from keras_topo.annotations import Tensor
from keras_topo.arguments import one_of, positive
from keras_topo.attention import FEATURE_MAPS, orthogonal_projection
from keras_topo.attention.feature_maps import exp, key_level
from keras_topo.masks.mask import wide_dtype

ACTIVATIONS = ("exp", "softmax")

# Of a softmax, so that no two tokens are without a feature in common.
EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="keras_topo")
class HedgehogFeatureMap(keras.layers.Layer):
    """Exponentials of a small learned projection (Zhang et al., 2024).

    Of a query or a key `x` of a head, with `z = W x + b`, the features are

        "exp":      phi(x) = [exp(z), exp(-z)]
        "softmax":  phi(x) = [softmax(z), softmax(-z)] + 1e-6

    Queries and keys have a `W` and a `b` each, `W` starts as the identity and
    `b` as zeros. Learned so that `phi(q) . phi(k)` imitates `exp(q . k /
    sqrt(key_dim))`, such features keep what softmax attention has and ReLU has
    not: few keys with much weight, and more weight the larger `q . k`
    (*The Hedgehog & the Porcupine*, ICLR 2024). `keras_topo.linearize` puts
    them in the place of a softmax.

    It is an argument of attention layers, which build it: `similarity` of
    `MaskedAttention`, `feature_map` of `ToeplitzAttention`, blocks and
    builders. `"hedgehog"` stands for one with default arguments. To write
    another one, register a subclass that implements `logits` or `features`.

    **Numerics.** Features are in float32 at least. The largest logit of each
    query is subtracted, and with `"exp"` that of all visible keys of a head;
    the normalizer of attention cancels both. With `"softmax"` keys have
    features of their own scale, so that what comes later in a sequence changes
    none of those before.

    Args:
        num_features: int, `m`, the rows of `W`; defaults to `key_dim`. There
            are `2 m` features. Rows beyond `key_dim` start as random ones,
            the same for queries and keys, orthogonal in groups of `key_dim`.
        activation: `"exp"` or `"softmax"`.
        seed: int, of those random rows.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(tokens key_dim m)` for each head.

    Example:

    >>> layer = keras_topo.layers.MaskedAttention(
    ...     num_heads=4, key_dim=16, mask="decay",
    ...     similarity=HedgehogFeatureMap(num_features=32),
    ... )
    >>> tuple(layer(np.random.rand(2, 14, 28, 64)).shape)
    (2, 14, 28, 64)
    """

    def __init__(
        self,
        num_features: int | None = None,
        activation: Literal["exp", "softmax"] = "exp",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_features = positive(
            num_features, "num_features", optional=True
        )
        self.activation = one_of(activation, "activation", ACTIVATIONS)
        self.seed = seed

    def build(self, num_heads: int, key_dim: int) -> None:
        """Creates the weights.

        Args:
            num_heads, key_dim: ints, those of the attention layer.
        """
        rows = self.num_features or key_dim
        # One draw for both: products of features then begin as those of
        # queries and keys.
        start = self._initial_rows(num_heads, rows, key_dim)
        for name in ("query", "key"):
            projection = self._add_weight(
                f"{name}_projection",
                start.shape,
                lambda shape, dtype=None: ops.convert_to_tensor(
                    start, dtype or "float32"
                ),
            )
            bias = self._add_weight(f"{name}_bias", (num_heads, rows), "zeros")
            setattr(self, f"{name}_projection", projection)
            setattr(self, f"{name}_bias", bias)

    def _add_weight(self, name, shape, initializer):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=wide_dtype(self),
            autocast=False,
        )

    def _initial_rows(self, num_heads, rows, key_dim):
        found = [np.eye(key_dim)[:rows]]
        if rows > key_dim:
            extra = orthogonal_projection(
                (rows - key_dim, key_dim), seed=self.seed
            )
            extra = ops.convert_to_numpy(extra)
            found.append(extra / np.linalg.norm(extra, axis=-1, keepdims=True))
        shape = num_heads, rows, key_dim
        return np.broadcast_to(np.concatenate(found), shape)

    def logits(self, x: Tensor, is_query: bool = True) -> Tensor:
        """`W x + b`, `(batch, heads, tokens, m)`, in float32 at least."""
        name = "query" if is_query else "key"
        projection = ops.convert_to_tensor(getattr(self, f"{name}_projection"))
        bias = ops.convert_to_tensor(getattr(self, f"{name}_bias"))
        x = ops.cast(x, projection.dtype)
        return matmul(x, ops.swapaxes(projection, -1, -2)) + bias[:, None]

    def features(
        self,
        x: Tensor,
        is_query: bool = True,
        visible: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """The features of queries or of keys.

        Args:
            x: `(batch, heads, tokens, key_dim)`.
            is_query: bool, whether it holds queries.
            visible, level: see `keras_topo.attention.feature_maps`.

        Returns:
            `(batch, heads, tokens, 2 m)`, not negative.
        """
        logits = self.logits(x, is_query)
        if self.activation == "softmax":
            both = [ops.softmax(logits), ops.softmax(-logits)]
            return ops.concatenate(both, axis=-1) + EPSILON
        return exp(_with_opposite(logits), is_query, None, visible, level)

    def key_level(self, x: Tensor) -> Tensor | None:
        """The logarithm of the scale of keys, see
        `keras_topo.attention.feature_maps.key_level`; `None` without one."""
        if self.activation == "softmax":
            return None
        return key_level("exp", _with_opposite(self.logits(x, False)))

    def clone(self) -> Self:
        """A feature map like this one with weights of its own, not built."""
        return type(self).from_config(self.get_config())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "activation": self.activation,
            "seed": self.seed,
        }

    # The layer that owns it builds it, for heads that no file holds.

    def get_build_config(self) -> dict[str, Any] | None:
        return None

    def build_from_config(self, config: dict[str, Any] | None) -> None:
        del config


#: Learned feature maps by name.
LEARNED_FEATURE_MAPS = {"hedgehog": HedgehogFeatureMap}
SIMILARITIES = ("softmax", "additive", *FEATURE_MAPS)
#: A similarity: its name, a learned feature map, or the configuration of one.
Similarity: TypeAlias = (
    Literal[
        "softmax",
        "additive",
        "constant",
        "relu",
        "topvit_relu",
        "elu",
        "square",
        "exp",
        "favor",
        "hyperbolic_favor",
        "hedgehog",
    ]
    | str
    | HedgehogFeatureMap
    | dict[str, Any]
)


def get_similarity(similarity: Any, argument: str = "similarity") -> Any:
    """A similarity that has no owner yet.

    Args:
        similarity: the name of one; a learned feature map, of which a copy is
            made; or its configuration.
        argument: str, the name of the argument, for the message.

    Returns:
        A str, or a `HedgehogFeatureMap` that is not built.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(similarity, str) and similarity in LEARNED_FEATURE_MAPS:
        return LEARNED_FEATURE_MAPS[similarity]()
    if isinstance(similarity, dict) and "class_name" in similarity:
        similarity = keras.saving.deserialize_keras_object(similarity)
    if isinstance(similarity, HedgehogFeatureMap):
        # Its own, so that one feature map may be given to many layers.
        return similarity.clone()
    return one_of(similarity, argument, (*SIMILARITIES, *LEARNED_FEATURE_MAPS))


def is_learned(similarity: Any) -> TypeGuard[HedgehogFeatureMap]:
    """Whether it is a feature map with weights, as `get_similarity` gave it."""
    return isinstance(similarity, HedgehogFeatureMap)


def similarity_config(similarity: Any) -> Any:
    """Values of JSON of what `get_similarity` takes."""
    if isinstance(similarity, keras.layers.Layer):
        return keras.saving.serialize_keras_object(similarity)
    return similarity


def _with_opposite(logits):
    return ops.concatenate([logits, -logits], axis=-1)
