"""Masks of low rank."""

from keras import ops

from keras_topo._backend import matmul, slice_axis
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.parameters import (
    all_known,
    as_tensor,
    nonnegative_values,
)
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_batch


class LowRank(MaskOperator):
    """The mask `M = u w^T` of rank `r`.

    Masked linear attention with it is plain linear attention with `r` times
    as many features: two matrix products and nothing else.

    *Complexity*: products `2 r L` multiply-adds per column.

    Args:
        u: `(*batch, L, r)`.
        w: `(*batch, L, r)`; defaults to `u`, a positive semi-definite mask.

    Raises:
        ValueError: if `u` and `w` differ in their last two axes.

    Example:

    >>> mask = LowRank(np.random.rand(1000, 16))
    >>> tuple(mask.matmul(np.random.rand(1000, 64)).shape)
    (1000, 64)
    """

    _fields = ("u", "w")

    def __init__(self, u: TensorLike, w: TensorLike | None = None):
        left = as_tensor(u, "u", 2)
        right = left if w is None else as_tensor(w, "w", 2)
        if right.shape[-2:] != left.shape[-2:]:
            raise ValueError(
                "`w` expects the tokens and the rank of `u`. Received: u of "
                f"shape {tuple(left.shape)}, w of shape {tuple(right.shape)}"
            )
        self.u, self.w = left, None if w is None else right
        length = left.shape[-2]
        batch = broadcast_batch(left.shape[:-2], right.shape[:-2])
        super().__init__((*batch, length, length), left.dtype)

    @property
    def rank(self) -> int:
        """`r`."""
        return self.u.shape[-1]

    def factors(self) -> tuple[Tensor, Tensor]:
        return self.u, (self.u if self.w is None else self.w)

    def _plan(self):
        length = self.num_tokens
        rows = 0.0 if length is None else self.rank * length * length
        return Plan(layouts=(1, length), held_per_column=length, rows_cost=rows)

    def _apply(self, x):
        u, w = [ops.cast(factor, x.dtype) for factor in self.factors()]
        if x.shape[-3] == 1:
            inner = matmul(ops.squeeze(x, -3), w)
            return ops.expand_dims(matmul(inner, ops.swapaxes(u, -1, -2)), -3)
        inner = matmul(ops.swapaxes(w, -1, -2), ops.squeeze(x, -1))
        return ops.expand_dims(matmul(u, inner), -1)

    def _rows(self, start, size):
        u, w = self.factors()
        return matmul(slice_axis(u, start, size, -2), ops.swapaxes(w, -1, -2))

    def _rows_at(self, ids):
        u, w = self.factors()
        return matmul(ops.take(u, ids, axis=-2), ops.swapaxes(w, -1, -2))

    def _transpose(self):
        u, w = self.factors()
        return LowRank(w, u)

    def _nonnegative(self):
        # Factors with negative entries may have products without.
        return all_known(map(nonnegative_values, self.factors())) or None

    def _cost(self, columns):
        work = 2 * self.rank * costs.SMALL_PRODUCT + costs.ELEMENT
        return 2 * costs.LAUNCH + work * self.num_tokens * columns
