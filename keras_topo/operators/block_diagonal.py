"""`BlockDiagonal`: masks side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_topo._backend import slice_axis
from keras_topo.annotations import Tensor
from keras_topo.operators import cost as costs
from keras_topo.operators.algebra import concatenate_columns
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.composite import Combination
from keras_topo.operators.forms import Form, Problem, choose
from keras_topo.operators.rows import pad_tokens, rows_beyond
from keras_topo.operators.shapes import broadcast_leading


class BlockDiagonal(Combination):
    """Masks side by side, invisible to each other: a batch as one graph.

    *Complexity*: that of the blocks, one after the other; attention too.

    Args:
        operators: non-empty list of operators, in the order of their tokens.

    Example:

    >>> from keras_topo.operators import Causal, Ones
    >>> print(np.array(BlockDiagonal([Ones(1), Causal(2)]).to_dense()))
    [[1. 0. 0.]
     [0. 1. 0.]
     [0. 1. 1.]]
    """

    def __init__(self, operators: Sequence[MaskOperator]):
        super().__init__(operators, lambda os: sum(o.num_tokens for o in os))
        sizes = [operator.num_tokens for operator in self.operators]
        self._starts = tuple(np.cumsum([0, *sizes]).tolist())

    def _recombine(self, operators):
        return BlockDiagonal(operators)

    def _plan(self):
        plan = super()._plan()
        # Blocks are cut out of tokens that are last.
        held = plan.held_per_column
        return dataclasses.replace(
            plan,
            layouts=(1,),
            row_step=1,
            held_per_column=None if held is None else held + self.num_tokens,
        )

    def _pieces(self, x, axis):
        return [
            slice_axis(x, start, operator.num_tokens, axis)
            for operator, start in zip(
                self.operators, self._starts, strict=False
            )
        ]

    def _apply(self, x):
        pieces = [
            operator.apply(piece)
            for operator, piece in zip(
                self.operators, self._pieces(x, -1), strict=True
            )
        ]
        return ops.concatenate(broadcast_leading(pieces, trailing=3), axis=-1)

    def _rows(self, start, size):
        pieces = [
            ops.cast(
                rows_beyond(operator, start - first, size, fill=0.0), self.dtype
            )
            for operator, first in zip(
                self.operators, self._starts, strict=False
            )
        ]
        return ops.concatenate(broadcast_leading(pieces, trailing=2), axis=-1)

    def _rows_at(self, ids):
        pieces = []
        for operator, first in zip(self.operators, self._starts, strict=False):
            last = operator.num_tokens - 1
            own = ids - first
            rows = operator._rows_at(ops.clip(own, 0, last))
            inside = ops.logical_and(own >= 0, own <= last)
            rows = ops.where(inside[:, None], rows, ops.zeros_like(rows))
            pieces.append(ops.cast(rows, self.dtype))
        return ops.concatenate(broadcast_leading(pieces, trailing=2), axis=-1)

    def _traced_negative(self):
        found = [operator._traced_negative() for operator in self.operators]
        found = [negative for negative in found if negative is not None]
        return ops.any(ops.stack(found)) if found else None

    def factors(self) -> tuple[Tensor, Tensor] | None:
        found = [operator.factors() for operator in self.operators]
        pairs = [pair for pair in found if pair is not None]
        if len(pairs) < len(found):
            return None
        return tuple(
            concatenate_columns(
                [
                    pad_tokens(
                        pair[k],
                        start,
                        self.num_tokens - start - operator.num_tokens,
                    )
                    for operator, pair, start in zip(
                        self.operators, pairs, self._starts, strict=False
                    )
                ]
            )
            for k in (0, 1)
        )

    def _cost(self, columns):
        passes = costs.ELEMENT * self.num_tokens * columns
        return passes + sum(o._cost(columns) for o in self.operators)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        best = [
            choose(
                operator.forms(
                    dataclasses.replace(problem, length=operator.num_tokens)
                )
            )
            for operator in self.operators
        ]

        def attend(*tensors):
            blocks = zip(*[self._pieces(x, -2) for x in tensors], strict=True)
            parts = [
                form.attend(*block)
                for form, block in zip(best, blocks, strict=True)
            ]
            return tuple(
                ops.concatenate(pieces, axis=-2)
                for pieces in zip(*parts, strict=True)
            )

        names = sorted({form.name for form in best})
        passes = 4 * costs.ELEMENT * problem.pairs * problem.length
        passes *= problem.num_features + problem.value_dim
        return (
            Form(
                f"blocks: {', '.join(names)}",
                passes + sum(form.cost for form in best),
                attend,
                all(form.exact for form in best),
            ),
        )
