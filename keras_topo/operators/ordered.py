"""What masks that decay along the order of the tokens have in common."""

from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_topo._backend import concrete
from keras_topo.annotations import Size, Tensor
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.chunked import CHUNK, chunked_attention
from keras_topo.operators.forms import Form, Problem
from keras_topo.operators.parameters import (
    CHECKED_ENTRIES,
    accumulation_dtype,
    as_tensor,
)


class OrderedDecay(MaskOperator):
    """A mask `exp(-sum of rates)` between tokens in their order.

    A subclass says which rates by `_directions`. Where the entries with `j > i`
    are zero, what all tokens so far contribute to later ones is a *state*, one
    matrix of features times values per head: a long sequence can be attended to
    in pieces, and token by token. With `g = phi(k)` and `r` the rate,

        S_i = exp(-r_i) S_{i-1} + g_i [v_i, 1]^T,
        [numerator_i, denominator_i] = phi(q_i)^T S_i.
    """

    # Where a traced function does not know how many tokens there are.
    traced_length = None

    @property
    def length(self) -> int | Tensor:
        """The number of tokens, an int or a traced scalar."""
        if self.traced_length is not None:
            return self.traced_length
        return self.num_tokens

    def _directions(self) -> tuple[Tensor | None, Tensor | None]:
        """Rates of the entries with `j < i`, and of those with `j > i`, each
        `(..., L)`, `(..., 1)` if all tokens have the same, or `None` where the
        entries are zero."""
        raise NotImplementedError

    @property
    def carries_state(self) -> bool:
        forward, backward = self._directions()
        return forward is not None and backward is None

    def _initial_state(self, sizes, dtype):
        batch, heads, num_features, value_dim = sizes
        return ops.zeros((batch, heads, num_features, value_dim + 1), dtype)

    def _step(self, query, key, value, state):
        rates = self._directions()[0]
        if rates is None or rates.shape[-1] != 1:
            raise ValueError(
                "step expects the rate of one token, an operator of length 1. "
                f"Received: an operator of length {self.num_tokens}"
            )
        query, key, value = map(ops.convert_to_tensor, (query, key, value))
        dtype = accumulation_dtype(query.dtype, key.dtype, value.dtype)
        query, key, value = (ops.cast(x, dtype) for x in (query, key, value))
        require_state(state, key.shape, value.shape)
        value = ops.concatenate([value, ops.ones_like(value[..., :1])], -1)
        kept = ops.exp(-ops.cast(rates, dtype))[..., None]
        state = (
            kept * ops.cast(state, dtype) + key[..., None] * value[..., None, :]
        )
        output = ops.sum(query[..., None] * state, axis=-2)
        return output[..., :-1], output[..., -1:], state

    def _attend_with_state(self, query, key, value, state):
        if state is not None:
            key_shape, value_shape = key.shape, value.shape
            require_state(
                state,
                (*key_shape[:2], key_shape[-1]),
                (*value_shape[:2], value_shape[-1]),
            )
        return chunked_attention(
            query, key, value, *self._directions(), state, return_state=True
        )

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        def attend(query, key, value):
            return chunked_attention(query, key, value, *self._directions())

        return (Form("chunks", self._chunks_cost(problem), attend),)

    def _chunks_cost(self, problem):
        """Work of attention in chunks; see `keras_topo.operators.cost`."""
        features, width = problem.num_features, problem.value_dim + 1
        sides = sum(rates is not None for rates in self._directions())
        chunk = min(CHUNK, problem.length)
        products = chunk * (features + width)
        elements = 2 * chunk + features + width
        if problem.length > chunk:
            # Into the states, between 64 of them, and out of them.
            products += sides * 3 * features * width
            elements += sides * (2 * features + width)
        tokens = problem.batch * problem.heads * problem.length
        return (8 + 8 * sides) * costs.LAUNCH + tokens * (
            costs.BATCHED_PRODUCT * products + costs.ELEMENT * elements
        )

    def _nonnegative(self):
        return True


def split_length(length: int | Tensor) -> tuple[Size, Tensor | None]:
    """`(length, None)` for ints and unknown lengths, `(None, length)` for
    traced ones."""
    if length is None or isinstance(length, (int, np.integer)):
        return length, None
    return None, ops.cast(length, "int32")


def as_rates(value, name, min_rank):
    """Rates of decay as a floating tensor.

    Raises:
        ValueError: if one is known to be negative, or not a number.
    """
    rates = as_tensor(value, name, min_rank)
    if None in rates.shape or np.prod(rates.shape) > CHECKED_ENTRIES:
        return rates
    values = concrete(rates)
    if values is not None and not np.all(values >= 0):
        raise ValueError(
            f"`{name}` expects rates that are not negative. Received: {name} "
            f"with {np.sum(~(values >= 0))} other entries, such as "
            f"{values[~(values >= 0)].ravel()[0]}"
        )
    return rates


def require_state(state, key_shape, value_shape):
    """Raises unless `state` fits `(batch, heads, m)` and `(..., d)`."""
    width = value_shape[-1] + 1
    expected = (*key_shape, width)
    known = len(state.shape) == 4 and all(
        None in (n, size) or n == size
        for n, size in zip(state.shape, expected, strict=True)
    )
    if not known:
        raise ValueError(
            "`state` expects the shape (batch, heads, m, d + 1), here "
            f"{tuple(expected)}. Received: state of shape "
            f"{tuple(state.shape)}"
        )


def require_direction(causal, reverse):
    if reverse and not causal:
        raise ValueError(
            "`reverse` expects a causal mask, which it transposes. Received: "
            f"causal={causal}, reverse={reverse}"
        )
