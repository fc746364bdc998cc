"""Bases of operators that are made of operators."""

from collections.abc import Callable, Sequence

from keras_topo.annotations import Shape, Size, Tensor
from keras_topo.operators.base import (
    MaskOperator,
    require_operator,
    widest_dtype,
)
from keras_topo.operators.parameters import all_known
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_batch


class Wrapper(MaskOperator):
    """An operator around another one, `operator`.

    A subclass implements `_rewrap(operator)`, itself around another operator,
    beside what differs from the inner one.
    """

    _fields = ("operator",)

    def __init__(
        self,
        operator: MaskOperator,
        batch_shape: Shape | None = None,
        num_tokens: Size = None,
    ):
        require_operator(operator, "operator")
        self.operator = operator
        batch = operator.batch_shape if batch_shape is None else batch_shape
        length = operator.num_tokens if num_tokens is None else num_tokens
        super().__init__((*batch, length, length), operator.dtype)

    def _rewrap(self, operator):
        raise NotImplementedError

    def _plan(self):
        return self.operator.plan

    def _transpose(self):
        return self._rewrap(self.operator._transpose())

    def _for_rows(self) -> MaskOperator:
        prepared = self.operator._for_rows()
        return self if prepared is self.operator else self._rewrap(prepared)

    def _nonnegative(self):
        return self.operator.nonnegative

    def _traced_negative(self):
        return self.operator._traced_negative()


class Combination(MaskOperator):
    """An operator made of several, `operators`.

    A subclass implements its product, rows and forms of attention, and
    `_recombine(operators)`, itself of other operators, where its constructor
    takes more than these.

    Args:
        operators: non-empty list of operators.
        num_tokens: from the list to the number of tokens; all have the same
            by default.
        name: str, the argument that the list came as.
    """

    _fields = ("operators",)

    def __init__(
        self,
        operators: Sequence[MaskOperator],
        num_tokens: Callable[[Sequence[MaskOperator]], int] | None = None,
        name: str = "operators",
    ):
        if not isinstance(operators, (list, tuple)) or not operators:
            raise ValueError(
                f"`{name}` expects a non-empty list of operators. Received: "
                f"{name}={operators!r}"
            )
        for operator in operators:
            require_operator(operator, name)
        self.operators = list(operators)
        length = (num_tokens or _common_length)(self.operators)
        batch = broadcast_batch(*[o.batch_shape for o in operators])
        super().__init__((*batch, length, length), widest_dtype(operators))

    def _recombine(self, operators):
        return type(self)(operators)

    def _plan(self):
        return Plan.joint([operator.plan for operator in self.operators])

    def _transpose(self):
        return self._recombine([o._transpose() for o in self.operators])

    def _for_rows(self) -> MaskOperator:
        prepared = [operator._for_rows() for operator in self.operators]
        if all(a is b for a, b in zip(prepared, self.operators, strict=True)):
            return self
        return self._recombine(prepared)

    def _nonnegative(self) -> bool | None:
        return all_known(o.nonnegative for o in self.operators)


def _common_length(operators):
    lengths = [operator.num_tokens for operator in operators]
    if len({length for length in lengths if length is not None}) > 1:
        raise ValueError(
            "`operators` expects operators on the same number of tokens. "
            f"Received: operators on {lengths} tokens"
        )
    return next((n for n in lengths if n is not None), None)


def negative_product(operators: Sequence[MaskOperator]) -> Tensor | None:
    """Whether products of entries are negative: see `_traced_negative`."""
    unknown = [o for o in operators if not o.nonnegative]
    # A product of two factors with negative entries may have none.
    return unknown[0]._traced_negative() if len(unknown) == 1 else None
