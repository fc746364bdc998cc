"""Causal language models, which predict the next token from those before."""

import math
import types
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo import masks
from keras_topo._backend import compiled, concrete
from keras_topo.annotations import Shape, Similarity, State, Tensor
from keras_topo.arguments import one_of, positive, rate
from keras_topo.layers import MaskedAttention, TopologicalEncoderBlock
from keras_topo.layers.learned_feature_maps import similarity_config
from keras_topo.layers.seeds import derived_seed
from keras_topo.layers.streaming import check_axes, check_state
from keras_topo.presets.builders import builder


@builder
def causal_lm(
    vocabulary_size: int = 256,
    channels: int = 128,
    num_heads: int = 4,
    mlp_dim: int | None = None,
    depth: int = 4,
    mask: str | masks.Mask | None = "decay",
    similarity: Similarity = "relu",
    positions: Literal["learned"] | None = None,
    max_length: int | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    name: str | None = "causal_lm",
) -> "CausalLanguageModel":
    """A causal language model: embeddings, Transformer blocks, logits.

    Args:
        vocabulary_size: int, number of tokens there are.
        channels: int, size of an embedding, a multiple of `num_heads`.
        num_heads: int.
        mlp_dim: int, hidden units of the MLPs; defaults to 4 channels.
        depth: int, number of blocks.
        mask: a mask of `keras_topo.masks`, its name, or `None` for causality
            alone: `"table"` is linear attention with relative positions (Luo
            et al., 2021), `"gated"` gated linear attention.
        similarity: `"softmax"` or the name of a feature map, see
            `MaskedAttention`.
        positions: `"learned"`, an embedding per position, or `None`: masks
            that decay know the order.
        max_length: int, the length that learned positions and tables are made
            for. A text may be longer than a table, but not than positions.
        dropout: float, rate in the blocks and after the embeddings.
        seed: int, seed of dropouts and random features. Initial weights come
            from the global seed, as in Keras.
        name: name of the model.

    Returns:
        A `CausalLanguageModel`, from `tokens` `(batch, length)`, int32, to
        logits `(batch, length, vocabulary_size)`, float32.

    Raises:
        ValueError: if an argument is outside its range, or `max_length` is
            missing for learned positions or a table.

    Example:

    >>> model = causal_lm(channels=32, depth=2)
    >>> tokens = np.zeros((1, 10), "int32")
    >>> tuple(model(tokens).shape)
    (1, 10, 256)
    >>> model.generate(tokens, max_new_tokens=5).shape
    (1, 15)
    """
    model = CausalLanguageModel(
        vocabulary_size,
        channels,
        num_heads,
        mlp_dim,
        depth,
        mask,
        similarity,
        positions,
        max_length,
        dropout,
        seed,
        name=name,
    )
    model.build((None, None))
    return model


@keras.saving.register_keras_serializable(package="keras_topo")
class CausalLanguageModel(keras.Model):
    """The model that `causal_lm` makes; see there for its arguments and an
    example.

    Call arguments:
        tokens: `(batch, length)`, int32.
        training: bool.

    Returns:
        Logits of the token after each, `(batch, length, vocabulary_size)`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        channels: int,
        num_heads: int,
        mlp_dim: int | None,
        depth: int,
        mask: str | dict[str, Any] | masks.Mask | None,
        similarity: Similarity,
        positions: Literal["learned"] | None,
        max_length: int | None,
        dropout: float,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = positive(vocabulary_size, "vocabulary_size")
        self.channels = positive(channels, "channels")
        self.num_heads = positive(num_heads, "num_heads")
        self.mlp_dim = positive(mlp_dim, "mlp_dim", optional=True)
        self.depth = positive(depth, "depth")
        # A configuration, as of the mask.
        self.similarity = similarity = similarity_config(similarity)
        self.positions = one_of(positions, "positions", (None, "learned"))
        self.max_length = positive(max_length, "max_length", optional=True)
        self.dropout = rate(dropout, "dropout")
        self.seed = seed
        _check_sizes(channels, num_heads, positions, max_length)
        mask = masks.get(mask)
        if mask is not None and max_length is not None:
            mask.set_reach((max_length,))
        if mask is not None and mask.lacks_reach:
            raise ValueError(
                "`max_length` expects an int with a mask that is made for a "
                "length. Received: max_length=None, mask="
                f"{type(mask).__name__}"
            )
        # A configuration: the masks themselves are those of the layers.
        self._mask = mask and keras.saving.serialize_keras_object(mask)
        policy = self.dtype_policy
        self.embedding = keras.layers.Embedding(
            vocabulary_size, channels, dtype=policy, name="embedding"
        )
        self.position_embedding = None
        if positions:
            self.position_embedding = keras.layers.Embedding(
                max_length, channels, dtype=policy, name="positions"
            )
        self.dropout_layer = keras.layers.Dropout(
            dropout, seed=derived_seed(seed, "embedding"), dtype=policy
        )
        self.blocks = [
            TopologicalEncoderBlock(
                mlp_dim=self.mlp_dim,
                attention=MaskedAttention(
                    num_heads,
                    channels // num_heads,
                    mask=mask,
                    similarity=similarity,
                    causal=True,
                    seed=derived_seed(seed, f"attention_{k}"),
                    dtype=policy,
                    name="attention",
                ),
                dropout=dropout,
                seed=derived_seed(seed, f"block_{k}"),
                dtype=policy,
                name=f"block_{k + 1}",
            )
            for k in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(
            epsilon=1e-6, dtype=policy, name="norm"
        )
        self.logits = keras.layers.Dense(
            vocabulary_size, dtype="float32", name="logits"
        )

        # In an object that Keras does not track.
        self._compiled_functions = types.SimpleNamespace(by_name={})

    def build(self, tokens_shape: Shape) -> None:
        if self.built:
            # By `causal_lm`, and again by a file or a caller.
            return
        shape = (*tokens_shape, self.channels)
        self.embedding.build(tokens_shape)
        if self.position_embedding is not None:
            self.position_embedding.build((None,))
        for block in self.blocks:
            block.build(shape)
        self.norm.build(shape)
        self.logits.build(shape)

    def call(self, tokens: Tensor, training: bool | None = None) -> Tensor:
        x = self._embed(tokens, 0)
        x = self.dropout_layer(x, training=training)
        for block in self.blocks:
            x = block(x, training=training)
        return self.logits(self.norm(x))

    def compute_output_shape(self, tokens_shape: Shape) -> Shape:
        return (*tokens_shape, self.vocabulary_size)

    def initial_state(
        self, batch_size: int, max_tokens: int | None = None
    ) -> State:
        """The state before the first token.

        Args:
            batch_size, max_tokens: see `MaskedAttention.initial_state`.

        Returns:
            A dict of tensors, for `step` and `extend`.

        Raises:
            ValueError: as that, or for more tokens than learned positions.
        """
        if not self.built:
            self.build((None, None))
        if (max_tokens or 0) > self._most_tokens():
            raise ValueError(
                "`max_tokens` expects at most the learned positions, "
                f"{self.max_length}. Received: max_tokens={max_tokens}"
            )
        return {
            "position": ops.zeros((), "int32"),
            "blocks": [
                block.initial_state(batch_size, max_tokens)
                for block in self.blocks
            ],
        }

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The logits after one more token.

        Args:
            tokens: `(batch,)`, int32.
            state: from `initial_state`, or the step before.

        Returns:
            Logits `(batch, vocabulary_size)` and the new state.

        Raises:
            ValueError: if `tokens` has another number of axes.
        """
        tokens = ops.convert_to_tensor(tokens)
        check_axes(tokens, "tokens", "batch")
        logits, state = self.extend(ops.expand_dims(tokens, 1), state)
        return logits[:, 0], state

    def extend(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The logits after a few more tokens, at once.

        Args:
            tokens: `(batch, tokens)`, int32.
            state: from `initial_state`, or what came before.

        Returns:
            Logits `(batch, tokens, vocabulary_size)` and the new state: what
            as many steps would give.

        Raises:
            ValueError: if `tokens` has another number of axes, or `state` is
                not one.
        """
        tokens = ops.convert_to_tensor(tokens)
        check_axes(tokens, "tokens", "batch", "tokens")
        check_state(state)
        position = concrete(state["position"])
        end = None if position is None else int(position) + tokens.shape[1]
        if end is not None and end > self._most_tokens():
            raise ValueError(
                "`tokens` expects at most as many as there are learned "
                f"positions, {self.max_length}. Received: {end} tokens, those "
                "before included"
            )
        x = self._embed(tokens, state["position"])
        states = []
        for block, before in zip(self.blocks, state["blocks"], strict=True):
            x, after = block.extend(x, before)
            states.append(after)
        position = state["position"] + tuple(ops.shape(tokens))[1]
        state = {"position": position, "blocks": states}
        return self.logits(self.norm(x)), state

    def generate(
        self,
        prompt: ArrayLike,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Samples tokens one after the other.

        Args:
            prompt: `(batch, length)`, int32, at least one token.
            max_new_tokens: int.
            temperature: float; logits are divided by it, and 0 takes the most
                likely token.
            top_k: int; only the `top_k` most likely tokens are drawn from.
            seed: int, of the draws.

        Returns:
            `(batch, length + max_new_tokens)`, int32, an array: the prompt and
            what follows.

        Raises:
            ValueError: if an argument is outside its range.

        *Complexity*: where the attention carries state (see
        `MaskedAttention`), time and memory per token do not depend on how many
        came before; elsewhere they grow with all of them.
        """
        prompt = self._checked_prompt(prompt)
        if prompt.ndim != 2 or prompt.shape[1] < 1:
            raise ValueError(
                "`prompt` expects the shape (batch, length), at least one "
                f"token. Received: prompt of shape {prompt.shape}"
            )
        positive(max_new_tokens, "max_new_tokens")
        positive(top_k, "top_k", optional=True)
        if not temperature >= 0:
            raise ValueError(
                "`temperature` expects a number of at least 0. Received: "
                f"temperature={temperature}"
            )
        random = np.random.default_rng(seed)
        total = prompt.shape[1] + max_new_tokens
        state = self.initial_state(len(prompt), total)
        extend = self._compiled("extend")
        logits, state = extend(ops.convert_to_tensor(prompt), state)
        logits = logits[:, -1]
        step = self._compiled("step")
        found = [prompt]
        for k in range(max_new_tokens):
            tokens = _draw(
                ops.convert_to_numpy(logits), temperature, top_k, random
            )
            found.append(tokens[:, None])
            if k + 1 < max_new_tokens:
                logits, state = step(ops.convert_to_tensor(tokens), state)
        return np.concatenate(found, axis=1)

    def _checked_prompt(self, prompt):
        """The tokens of a prompt, int32."""
        last = self.vocabulary_size - 1
        expected = f"`prompt` expects ints from 0 to {last}. Received: "
        try:
            prompt = np.asarray(prompt)
        except ValueError as error:  # Rows of several lengths.
            raise ValueError(f"{expected}{error}") from error
        if prompt.dtype.kind not in "iu":
            raise ValueError(f"{expected}prompt of dtype {prompt.dtype}")
        if prompt.size and (prompt.min() < 0 or prompt.max() > last):
            raise ValueError(
                f"{expected}prompt of {prompt.min()} to {prompt.max()}"
            )
        return prompt.astype("int32")

    def _compiled(self, name):
        """A method, compiled once; anew where layers have been quantized or
        adapted since."""
        layers = self._flatten_layers(include_self=False)
        state = tuple(
            (str(layer.dtype_policy.name), len(layer.variables))
            for layer in layers
        )
        functions = self._compiled_functions.by_name
        known, function = functions.get(name, (None, None))
        if known != state:
            function = compiled(getattr(self, name), self)
            functions[name] = state, function
        return function

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "vocabulary_size": self.vocabulary_size,
            "channels": self.channels,
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "depth": self.depth,
            "mask": self._mask,
            "similarity": self.similarity,
            "positions": self.positions,
            "max_length": self.max_length,
            "dropout": self.dropout,
            "seed": self.seed,
        }

    def _most_tokens(self):
        """How many learned positions hold, if there are any."""
        if self.positions and self.max_length is not None:
            return self.max_length
        return math.inf

    def _embed(self, tokens, position):
        x = self.embedding(tokens)
        if self.position_embedding is None:
            return x
        length = tuple(ops.shape(tokens))[1]
        if isinstance(length, int) and length > self._most_tokens():
            raise ValueError(
                "`tokens` expects at most as many as there are learned "
                f"positions, {self.max_length}. Received: {length} tokens"
            )
        places = position + ops.arange(length, dtype="int32")
        return x + self.position_embedding(places)


def _check_sizes(channels, num_heads, positions, max_length):
    if channels % num_heads:
        raise ValueError(
            "`channels` expects a multiple of num_heads. Received: "
            f"channels={channels}, num_heads={num_heads}"
        )
    if positions and max_length is None:
        raise ValueError(
            "`max_length` expects an int with learned positions. "
            "Received: max_length=None"
        )


def _draw(logits, temperature, top_k, random):
    """Tokens `(batch,)` from logits `(batch, vocabulary)`."""
    if temperature == 0:
        return logits.argmax(axis=-1).astype("int32")
    logits = logits.astype("float64") / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = np.partition(logits, -top_k, axis=-1)[:, -top_k, None]
        logits = np.where(logits < least, -np.inf, logits)
    # The largest of logits with Gumbel noise is a draw from the softmax.
    noise = random.gumbel(size=logits.shape)
    return (logits + noise).argmax(axis=-1).astype("int32")
