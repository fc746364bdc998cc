"""Sums and multiples of masks."""

from collections.abc import Callable, Sequence

from keras import ops

from keras_topo._backend import concrete
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.composite import Combination, Wrapper
from keras_topo.operators.forms import Form, Problem, choose
from keras_topo.operators.parameters import (
    as_tensor,
    nonnegative_values,
    traced_negative,
)
from keras_topo.operators.shapes import broadcast_batch, broadcast_leading


class Sum(Combination):
    """The sum of masks; also written `a + b`, `a - b` and `sum([a, b])`.

    Attention with a sum is one division of what its terms add up to, each in
    its own form.

    *Complexity*: that of the terms, one after the other.

    Args:
        operators: non-empty list of operators on the same tokens.

    Raises:
        ValueError: if the list is empty or the numbers of tokens differ.

    Example:

    >>> from keras_topo.operators import Causal, Ones
    >>> print(np.array((Causal(3) + Ones(3)).to_dense()))
    [[2. 1. 1.]
     [2. 2. 1.]
     [2. 2. 2.]]
    """

    def _apply(self, x):
        total = self.operators[0].apply(x)
        for operator in self.operators[1:]:
            total = total + operator.apply(x)
        return total

    def _rows(self, start, size):
        return self._total(lambda operator: operator._rows(start, size))

    def _rows_at(self, ids):
        return self._total(lambda operator: operator._rows_at(ids))

    def _total(self, rows: Callable[[MaskOperator], Tensor]) -> Tensor:
        return sum(ops.cast(rows(o), self.dtype) for o in self.operators)

    def _nonnegative(self) -> bool | None:
        # What is negative in one term may not be in the sum.
        return super()._nonnegative() or None

    def factors(self) -> tuple[Tensor, Tensor] | None:
        found = [operator.factors() for operator in self.operators]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) < len(found):
            return None
        return tuple(
            concatenate_columns([pair[k] for pair in pairs]) for k in (0, 1)
        )

    def _cost(self, columns):
        passes = (len(self.operators) - 1) * costs.ELEMENT
        return passes * self.num_tokens * columns + sum(
            operator._cost(columns) for operator in self.operators
        )

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        best = [choose(operator.forms(problem)) for operator in self.operators]

        def attend(query, key, value):
            parts = [form.attend(query, key, value) for form in best]
            return tuple(map(_add, zip(*parts, strict=True)))

        names = sorted({form.name for form in best})
        output = problem.pairs * problem.length * (problem.value_dim + 1)
        adding = (len(best) - 1) * costs.ELEMENT * output
        return (
            Form(
                f"terms: {', '.join(names)}",
                adding + sum(form.cost for form in best),
                attend,
                all(form.exact for form in best),
            ),
        )

    @property
    def carries_state(self) -> bool:
        return all(operator.carries_state for operator in self.operators)

    def _initial_state(self, sizes, dtype):
        return tuple(o._initial_state(sizes, dtype) for o in self.operators)

    def _step(self, query, key, value, state):
        return self._with_states(
            lambda o, s: o._step(query, key, value, s), state
        )

    def _attend_with_state(self, query, key, value, state):
        if state is None:
            state = (None,) * len(self.operators)
        return self._with_states(
            lambda o, s: o._attend_with_state(query, key, value, s), state
        )

    def _with_states(self, function, state):
        if not isinstance(state, (list, tuple)) or len(state) != len(
            self.operators
        ):
            raise ValueError(
                f"`state` expects a tuple of {len(self.operators)} states, one "
                f"per term. Received: state={state!r}"
            )
        parts = [
            function(operator, part)
            for operator, part in zip(self.operators, state, strict=True)
        ]
        numerators, denominators, states = zip(*parts, strict=True)
        return _add(numerators), _add(denominators), tuple(states)


class Scaled(Wrapper):
    """A multiple of a mask; also written `scalar * operator`.

    Args:
        operator: the mask.
        scalar: number, or a tensor that broadcasts against the batch axes of
            the mask: one factor per head.

    Example:

    >>> from keras_topo.operators import Causal
    >>> print(np.array((0.5 * Causal(2)).to_dense()))
    [[0.5 0. ]
     [0.5 0.5]]
    >>> Scaled(Causal(2), [1.0, 0.5]).shape  # one factor per head
    (2, 2, 2)
    """

    _fields = ("operator", "scalar")

    def __init__(self, operator: MaskOperator, scalar: TensorLike):
        if isinstance(operator, MaskOperator):
            if isinstance(scalar, (int, float)):
                # Not by way of float32, where 1e-100 is zero.
                scalar = ops.convert_to_tensor(scalar, operator.dtype)
            scalar = ops.cast(as_tensor(scalar, "scalar", 0), operator.dtype)
            batch = broadcast_batch(operator.batch_shape, scalar.shape)
        else:
            batch = None  # refused by the base class
        self.scalar = scalar
        super().__init__(operator, batch)

    def _rewrap(self, operator):
        return Scaled(operator, self.scalar)

    def _times(self, x, trailing):
        scalar = ops.cast(self.scalar, x.dtype)
        shape = tuple(ops.shape(scalar)) + (1,) * trailing
        return x * ops.reshape(scalar, shape)

    def _apply(self, x):
        return self._times(self.operator.apply(x), 3)

    def _rows(self, start, size):
        return self._times(self.operator._rows(start, size), 2)

    def _rows_at(self, ids):
        return self._times(self.operator._rows_at(ids), 2)

    def _nonnegative(self):
        known = self.operator.nonnegative
        if known is False:
            # Zeros and negative numbers may hide what is negative.
            scalar = concrete(self.scalar)
            positive = scalar is not None and (scalar > 0).all()
            return False if positive else None
        return known and nonnegative_values(self.scalar)

    def _traced_negative(self):
        if self.operator.nonnegative:
            return traced_negative(self.scalar)
        negative = self.operator._traced_negative()
        if negative is None:
            return None
        return ops.logical_and(negative, ops.all(self.scalar > 0))

    def factors(self) -> tuple[Tensor, Tensor] | None:
        pair = self.operator.factors()
        return pair and (self._times(pair[0], 2), pair[1])

    def _cost(self, columns):
        passes = costs.ELEMENT * self.num_tokens * columns
        return passes + self.operator._cost(columns)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        best = choose(self.operator.forms(problem))
        output = problem.pairs * problem.length * (problem.value_dim + 1)

        def attend(query, key, value):
            return self._scale(best.attend(query, key, value), 2)

        cost = best.cost + costs.ELEMENT * output
        return (Form(f"scaled, {best.name}", cost, attend, best.exact),)

    def _scale(self, parts, trailing):
        return tuple(self._times(x, trailing) for x in parts)

    @property
    def carries_state(self) -> bool:
        return self.operator.carries_state

    def _initial_state(self, sizes, dtype):
        return self.operator._initial_state(sizes, dtype)

    def _step(self, query, key, value, state):
        *parts, state = self.operator._step(query, key, value, state)
        return (*self._scale(parts, 1), state)

    def _attend_with_state(self, query, key, value, state):
        *parts, state = self.operator._attend_with_state(
            query, key, value, state
        )
        return (*self._scale(parts, 2), state)


# What `a + b` and `2 * a` make: their module imports that of their base.
MaskOperator._sum_of, MaskOperator._scaled_by = Sum, Scaled


def concatenate_columns(factors: Sequence[Tensor]) -> Tensor:
    """Concatenates `(*batch, L, r)` along `r`, broadcasting the batch."""
    return ops.concatenate(broadcast_leading(factors, trailing=2), -1)


def _add(tensors):
    total, *others = tensors
    for x in others:
        total = total + x
    return total
