"""`Permuted`: a mask whose tokens come in another order."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.composite import Wrapper
from keras_topo.operators.forms import Form, Problem, choose


class Permuted(Wrapper):
    """A mask whose tokens come in another order: `M[order[i], order[j]]` is
    entry `(i, j)` of `operator`.

    It serves graphs, which are kept in an order in which neighbors are near
    each other, and decays along curves through grids.

    *Complexity*: that of `operator`, and two passes over a column. Attention
    permutes queries, keys and values, not `m (d + 1)` columns.

    Args:
        operator: the mask in the other order.
        order: `(L,)`, int32: token `i` of `operator` is token `order[i]` of
            this mask.
        inverse: `(L,)`, int32, the inverse permutation.

    Raises:
        ValueError: if `order` or `inverse` is known to be no permutation of
            the tokens, or not that of the other.

    Example:

    >>> order = np.array([2, 0, 1])
    >>> causal = keras_topo.operators.Causal(3)
    >>> mask = Permuted(causal, order, inverse=np.argsort(order))
    >>> print(np.array(mask.to_dense()))  # token 2 is the first in that order
    [[1. 0. 1.]
     [1. 1. 1.]
     [0. 0. 1.]]
    """

    def __init__(
        self, operator: MaskOperator, order: TensorLike, inverse: TensorLike
    ):
        super().__init__(operator)
        self.order = _permutation(order, self.num_tokens, "order")
        self.inverse = _permutation(inverse, self.num_tokens, "inverse")
        arrays = self.order, self.inverse
        if (
            all(isinstance(ids, np.ndarray) for ids in arrays)
            and (self.inverse[self.order] != np.arange(len(self.order))).any()
        ):
            raise ValueError(
                "`inverse` expects the inverse permutation of `order`, "
                "np.argsort(order). Received: another one"
            )

    def _rewrap(self, operator):
        return Permuted(operator, self.order, self.inverse)

    def _plan(self):
        plan, length = self.operator.plan, self.num_tokens
        held = plan.held_per_column
        return dataclasses.replace(
            plan,
            layouts=(length,),
            held_per_column=None if held is None else 2 * length + held,
            row_step=1,
        )

    def _apply(self, x):
        x = permute(x, self.order, self.inverse, -3)
        return permute(self.operator.apply(x), self.inverse, self.order, -3)

    def _rows_at(self, ids):
        ids = ops.take(self.inverse, ids, axis=0)
        rows = self.operator._rows_at(ids)
        return permute(rows, self.inverse, self.order, -1)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        pair = self.operator.factors()
        if pair is None:
            return None
        return tuple(
            permute(factor, self.inverse, self.order, -2) for factor in pair
        )

    def _cost(self, columns):
        passes = 4 * costs.ELEMENT * self.num_tokens * columns
        return 2 * costs.LAUNCH + passes + self.operator._cost(columns)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        best = choose(self.operator.forms(problem))

        def attend(query, key, value):
            value_dim = value.shape[-1]
            tensors = [
                permute(x, self.order, self.inverse, -2)
                for x in (query, key, value)
            ]
            output = ops.concatenate(best.attend(*tensors), axis=-1)
            output = permute(output, self.inverse, self.order, -2)
            return tuple(ops.split(output, [value_dim], axis=-1))

        passes = 4 * costs.ELEMENT * problem.pairs * problem.length
        passes *= problem.num_features + problem.value_dim
        cost = best.cost + passes + 6 * costs.LAUNCH
        return (Form(f"permuted, {best.name}", cost, attend, best.exact),)


def _permutation(ids, length, name):
    """`ids` as int32; arrays are looked at, tensors are not."""
    if ops.is_tensor(ids) or isinstance(ids, keras.Variable):
        return ops.cast(ids, "int32")
    ids = np.asarray(ids)
    if ids.shape != (length,) or (np.sort(ids) != np.arange(length)).any():
        raise ValueError(
            f"`{name}` expects a permutation of 0 ... {length - 1}. Received: "
            f"{name}={ids}"
        )
    return ids.astype("int32")


def permute(x: Tensor, order: Tensor, inverse: Tensor, axis: int) -> Tensor:
    """`x` in another order along an axis; the gradient is a permutation too,
    where that of a gather would be a sum over equal ids."""

    @ops.custom_gradient
    def permuted(x):
        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            return permute(upstream, inverse, order, axis)

        return ops.take(x, order, axis=axis), gradient

    return permuted(x)
