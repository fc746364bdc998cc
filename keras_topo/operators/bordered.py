"""`Bordered`: prefix tokens in front of a mask."""

import dataclasses
from collections.abc import Sequence

from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.operators import cost as costs
from keras_topo.operators.algebra import concatenate_columns
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.composite import Wrapper
from keras_topo.operators.forms import Form, Problem, choose
from keras_topo.operators.linear import linear_attention
from keras_topo.operators.rows import pad_tokens, rows_beyond
from keras_topo.operators.shapes import broadcast_leading


class Bordered(Wrapper):
    """A mask with prefix tokens, which see all tokens and are seen by all.

    `[[1, 1], [1, M]]`: the mask of class or register tokens in front of a
    grid, whose entries are 1.

    *Complexity*: that of `operator`, and `2 L` additions per column.
    Attention of the prefix is plain linear attention; the other tokens add the
    prefix to what `operator` gives them.

    Args:
        operator: the mask of the tokens after the prefix.
        num_prefix_tokens: int, at least 0.

    Raises:
        ValueError: if `num_prefix_tokens` is negative.

    Example:

    >>> from keras_topo.operators import Causal
    >>> print(np.array(Bordered(Causal(2), num_prefix_tokens=1).to_dense()))
    [[1. 1. 1.]
     [1. 1. 0.]
     [1. 1. 1.]]
    """

    def __init__(self, operator: MaskOperator, num_prefix_tokens: int):
        if not isinstance(num_prefix_tokens, int) or num_prefix_tokens < 0:
            raise ValueError(
                "`num_prefix_tokens` expects an int of at least 0. Received: "
                f"num_prefix_tokens={num_prefix_tokens!r}"
            )
        self.num_prefix_tokens = num_prefix_tokens
        length = getattr(operator, "num_tokens", None)
        super().__init__(
            operator,
            num_tokens=None if length is None else length + num_prefix_tokens,
        )

    def _rewrap(self, operator):
        return Bordered(operator, self.num_prefix_tokens)

    def _plan(self):
        # The prefix goes before tokens that are last.
        return dataclasses.replace(self.operator.plan, layouts=(1,))

    def _apply(self, x):
        prefix, rest = ops.split(x, [self.num_prefix_tokens], axis=-1)
        from_prefix = ops.sum(prefix, -1, keepdims=True)
        to_prefix = from_prefix + ops.sum(rest, -1, keepdims=True)
        lead = tuple(ops.shape(to_prefix))[:-1]
        pieces = [
            ops.broadcast_to(to_prefix, lead + (self.num_prefix_tokens,)),
            self.operator.apply(rest) + from_prefix,
        ]
        return ops.concatenate(broadcast_leading(pieces, trailing=3), -1)

    def _rows(self, start, size):
        if self.num_tokens is None:
            return super()._rows(start, size)
        rows = rows_beyond(
            self.operator, start - self.num_prefix_tokens, size, fill=1.0
        )
        return self._prefixed(rows)

    def _rows_at(self, ids):
        ids = ids - self.num_prefix_tokens
        rows = self.operator._rows_at(ops.maximum(ids, 0))
        rows = ops.where(ids[:, None] < 0, ops.ones_like(rows), rows)
        return self._prefixed(rows)

    def _prefixed(self, rows):
        shape = tuple(ops.shape(rows))
        ones = ops.ones(shape[:-1] + (self.num_prefix_tokens,), rows.dtype)
        return ops.concatenate([ones, rows], -1)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        pair = self.operator.factors()
        if pair is None:
            return None
        # 1_prefix 1^T + 1_rest 1_prefix^T + [0; u] [0; w]^T
        prefix = self.num_prefix_tokens
        rest = self.operator.num_tokens
        first = ops.ones((prefix, 1), self.dtype)
        last = ops.ones((rest, 1), self.dtype)
        first = pad_tokens(first, 0, rest)
        last = pad_tokens(last, prefix, 0)
        u, w = [pad_tokens(factor, prefix, 0) for factor in pair]
        return (
            concatenate_columns([first, last, u]),
            concatenate_columns([first + last, first, w]),
        )

    def _cost(self, columns):
        passes = 3 * costs.ELEMENT * self.num_tokens * columns
        return costs.LAUNCH + passes + self.operator._cost(columns)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        prefix = self.num_prefix_tokens
        inner = dataclasses.replace(problem, length=problem.length - prefix)
        best = choose(self.operator.forms(inner))

        def attend(query, key, value):
            query_prefix, query = _split_tokens(query, prefix)
            key_prefix, key_rest = _split_tokens(key, prefix)
            value_prefix, value_rest = _split_tokens(value, prefix)
            first = linear_attention(query_prefix, key, value)
            seen = linear_attention(query, key_prefix, value_prefix)
            rest = best.attend(query, key_rest, value_rest)
            return tuple(
                ops.concatenate([a, b + c], axis=-2)
                for a, b, c in zip(first, rest, seen, strict=True)
            )

        features = problem.num_features * (problem.value_dim + 1)
        extra = problem.pairs * problem.length * 3 * features
        passes = 8 * costs.ELEMENT * problem.pairs * problem.length
        passes *= problem.num_features + problem.value_dim
        cost = best.cost + extra + passes + 12 * costs.LAUNCH
        return (Form(f"prefix, {best.name}", cost, attend, best.exact),)


def _split_tokens(x, prefix):
    """The first tokens of `(..., L, n)`, and the others."""
    if x.shape[-2] is None:
        return x[..., :prefix, :], x[..., prefix:, :]
    # Its gradient is one concatenation; slices would be slow.
    return ops.split(x, [prefix], axis=-2)
