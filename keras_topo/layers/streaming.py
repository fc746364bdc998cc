"""Causal attention in pieces: token by token, or chunk by chunk."""

from typing import Any

import keras
from keras import ops

from keras_topo._backend import concrete, update_axis
from keras_topo.annotations import State, Tensor, TensorLike
from keras_topo.arguments import positive
from keras_topo.attention.inputs import normalize
from keras_topo.layers.multi_head import MultiHeadLayer
from keras_topo.masks import Sequence
from keras_topo.operators.dense import HIDDEN


class Streaming(MultiHeadLayer):
    """The part of a causal attention layer that goes token by token.

    Under a mask that carries state (decays, gates, no mask but causality) and
    with a feature map, what the tokens so far leave is one matrix per head,
    and a token costs the same however many came before. Otherwise keys and
    values are kept, of up to `max_tokens` tokens.
    """

    def initial_state(
        self, batch_size: int, max_tokens: int | None = None
    ) -> State:
        """The state before the first token.

        Args:
            batch_size: int.
            max_tokens: int, how many tokens there will be at most; needed by
                layers that keep keys and values: with `"softmax"`, and masks
                that carry no state.

        Returns:
            A dict of tensors, to be handed on from step to step: `sums`, what
            the mask carries; or `keys`, `values` and the `position` of the
            next token; and the `level` of keys, where a feature map scales
            them.

        Raises:
            ValueError: if the layer is not causal or not built, or
                `max_tokens` is missing.
        """
        self._require_causal()
        units, scaled = self._features_of_keys()
        dtype = self._wide_dtype
        state = {}
        if scaled:
            # What exp turns to zero.
            level = ops.full((batch_size, self.num_heads, 1, 1), -1e30, dtype)
            state["level"] = level
        if self._carries_state():
            operator = self._operator_of(self._one_token(batch_size))
            sizes = batch_size, self.num_heads, units, self.value_dim
            sums = operator.initial_state(*sizes, dtype=dtype)
            return {**state, "sums": sums}
        if max_tokens is None:
            raise ValueError(
                "`max_tokens` expects an int, for this layer keeps keys and "
                "values: only a feature map under decays, gates or causality "
                "alone needs none. Received: max_tokens=None"
            )
        max_tokens = positive(max_tokens, "max_tokens")
        shape = (batch_size, self.num_heads, max_tokens)
        state |= {
            "keys": ops.zeros((*shape, units), dtype),
            "values": ops.zeros((*shape, self.value_dim), dtype),
            "position": ops.zeros((), "int32"),
        }
        if self._uses_inputs():
            shape = (batch_size, max_tokens, self._channels)
            state["inputs"] = ops.zeros(shape, dtype)
        return state

    def step(self, token: TensorLike, state: State) -> tuple[Tensor, State]:
        """Attention of the next token.

        Args:
            token: `(batch, channels)`.
            state: from `initial_state`, or the step before.

        Returns:
            The output `(batch, output channels)` and the new state.

        Raises:
            ValueError: if the layer is not causal or not built, shapes do not
                match, or more tokens come than the state has places for.

        Example:

        >>> layer = keras_topo.layers.MaskedAttention(4, 8, causal=True)
        >>> tokens = np.random.rand(2, 10, 32)
        >>> outputs, state = layer(tokens), layer.initial_state(batch_size=2)
        >>> for i in range(10):
        ...     last, state = layer.step(tokens[:, i], state)
        >>> print(np.allclose(last, outputs[:, -1], atol=1e-5))
        True
        """
        token = ops.convert_to_tensor(token)
        check_axes(token, "token", "batch", "channels")
        output, state = self.extend(token[:, None], state)
        return output[:, 0], state

    def extend(self, tokens: TensorLike, state: State) -> tuple[Tensor, State]:
        """Attention of the next few tokens, at once.

        Args:
            tokens: `(batch, tokens, channels)`.
            state: from `initial_state`, or what came before.

        Returns:
            The outputs `(batch, tokens, output channels)` and the new state:
            what as many steps would give.

        Raises:
            ValueError: as `step`.
        """
        self._require_causal()
        tokens = ops.cast(tokens, self.compute_dtype)
        check_axes(tokens, "tokens", "batch", "tokens", "channels")
        check_state(state)
        self._check_cache(tokens, state)
        query, key, value = self._project(tokens)
        wide = self._wide_dtype
        query, key, value = (ops.cast(x, wide) for x in (query, key, value))
        if self.similarity != "softmax":
            query = self._features(query, True)
            key, state = self._leveled(key, state)
        if "sums" in state:
            x, state = self._extend_sums(tokens, query, key, value, state)
        else:
            x, state = self._extend_cache(tokens, query, key, value, state)
        x = ops.cast(x, self.compute_dtype)
        return self._combine(x, tuple(ops.shape(tokens))), state

    def _check_cache(self, tokens, state):
        """Whether a state is of this layer and of as many examples; the
        operator checks what it carries itself."""
        if "sums" in state:
            return
        if not {"keys", "values", "position"} <= set(state):
            raise ValueError(
                "`state` expects what `initial_state`, `extend` or `step` "
                "returned, with `sums`, or `keys`, `values` and `position`. "
                f"Received: a dict of {sorted(state)}"
            )
        found, expected = tokens.shape[0], state["keys"].shape[0]
        if None not in (found, expected) and found != expected:
            raise ValueError(
                f"`state` expects tokens of {expected} examples, the "
                "`batch_size` of initial_state. Received: tokens of "
                f"{found} examples"
            )

    def _extend_sums(self, tokens, query, key, value, state):
        count = tuple(ops.shape(tokens))[1]
        topology = Sequence(count, True, tokens, self._wide_dtype)
        operator = self._operator_of(topology)
        if isinstance(count, int) and count == 1:
            tensors = [x[:, :, 0] for x in (query, key, value)]
            *parts, sums = operator.step(*tensors, state["sums"])
            return normalize(*parts)[:, :, None], {**state, "sums": sums}
        *parts, sums = operator.attend(
            query, key, value, state=state["sums"], return_state=True
        )
        return normalize(*parts), {**state, "sums": sums}

    def _leveled(self, key, state):
        """Features of keys, and the state on their common level."""
        level = self._key_level(key)
        if level is None:
            return self._features(key, False), state
        if "level" not in state:
            raise ValueError(
                "`state` expects what `initial_state`, `extend` or `step` of "
                "this layer returned, with the `level` of its keys. Received: "
                f"a dict of {sorted(state)}"
            )
        level = ops.maximum(level, state["level"])
        factor = ops.exp(state["level"] - level)
        state = {**state, "level": level}
        for name in ("sums", "keys"):
            if name in state:
                state[name] = keras.tree.map_structure(
                    lambda x: x * factor, state[name]
                )
        return self._features(key, False, level=level), state

    def _extend_cache(self, tokens, query, key, value, state):
        position = state["position"]
        places = state["keys"].shape[2]
        count = tuple(ops.shape(tokens))[1]
        known = concrete(position)
        if (
            known is not None
            and isinstance(count, int)
            and int(known) + count > places
        ):
            raise ValueError(
                f"the state expects at most {places} tokens, the `max_tokens` "
                f"of initial_state. Received: {int(known)} tokens before, and "
                f"{count} more"
            )
        state = dict(state)
        for name, x in (("keys", key), ("values", value)):
            state[name] = update_axis(state[name], x, position, 2)
        inputs = None
        if "inputs" in state:
            inputs = ops.cast(tokens, state["inputs"].dtype)
            inputs = update_axis(state["inputs"], inputs, position, 1)
            state["inputs"] = inputs
        state["position"] = position + count
        ids = position + ops.arange(count, dtype="int32")
        operator = self._operator_of(
            Sequence(places, True, inputs, self._wide_dtype)
        )
        rows = ops.cast(operator._for_rows()._rows_at(ids), query.dtype)
        # Rows may be of all examples and heads, of heads, or of none.
        rows = ops.reshape(
            rows, (1,) * (4 - len(rows.shape)) + tuple(ops.shape(rows))
        )
        scores = ops.matmul(query, ops.swapaxes(state["keys"], -1, -2))
        if self.similarity == "softmax":
            scores = scores / self.key_dim**0.5
            scores = ops.where(rows != 0, scores, HIDDEN)
            top = ops.max(scores, axis=-1, keepdims=True)
            scores = ops.exp(scores - ops.stop_gradient(top))
        scores = scores * rows
        total = ops.sum(scores, axis=-1, keepdims=True)
        x = normalize(ops.matmul(scores, state["values"]), total)
        # What a traced function cannot refuse must not look like a result.
        # A write that does not fit is moved back, over earlier tokens.
        fits = position + count <= places
        return ops.where(fits, x, ops.full_like(x, float("nan"))), state

    def _carries_state(self):
        if self.similarity in ("softmax", "additive"):
            return False
        return self._operator_of(self._one_token(1)).carries_state

    def _one_token(self, batch_size):
        inputs = None
        if self._uses_inputs():
            shape = (batch_size, 1, self._channels)
            inputs = ops.zeros(shape, self.compute_dtype)
        return Sequence(1, True, inputs, self._wide_dtype)

    def _uses_inputs(self):
        return getattr(self.mask, "uses_inputs", False)

    def _features_of_keys(self):
        """`m`, the number of features of a key, and whether keys are
        scaled."""
        if self.similarity == "softmax":
            return self.key_dim, False
        key = ops.zeros((1, self.num_heads, 1, self.key_dim))
        level = self._key_level(key)
        return self._features(key, False).shape[-1], level is not None

    def _require_causal(self):
        if not self.causal or self.similarity == "additive":
            raise ValueError(
                f"{type(self).__name__} expects `causal=True`, and 'softmax' "
                "or a feature map as the similarity, to go token by token. "
                f"Received: causal={self.causal}, similarity="
                f"{self.similarity!r}"
            )
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} expects to be built to go token by "
                "token: call it once, or `build((None, None, channels))`. "
                "Received: built=False"
            )
        self._require_own_values()
        if self.magnitude_aware:
            raise ValueError(
                f"{type(self).__name__} expects `magnitude_aware=False` to go "
                "token by token. Received: magnitude_aware=True"
            )


def check_axes(x: Tensor, name: str, *axes: str) -> None:
    """Raises a ValueError if the argument `name` has other axes."""
    if len(x.shape) != len(axes):
        comma = "," if len(axes) == 1 else ""
        raise ValueError(
            f"`{name}` expects the shape ({', '.join(axes)}{comma}). Received: "
            f"{name} of shape {tuple(x.shape)}"
        )


def check_state(state: Any) -> None:
    """Raises a ValueError if it is no state."""
    if not isinstance(state, dict):
        raise ValueError(
            "`state` expects what `initial_state`, `extend` or `step` "
            f"returned, a dict. Received: {type(state).__name__}"
        )
