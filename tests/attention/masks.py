"""Masks of every kind that attention meets, as operators and as matrices."""

import dataclasses
from collections.abc import Callable

import numpy as np
import reference as ref
from keras import ops

from keras_topo.operators import (
    BlockToeplitz,
    Bordered,
    Causal,
    ExponentialDecay,
    Kronecker,
    LowRank,
    Ones,
)


@dataclasses.dataclass(frozen=True)
class Kind:
    #: A function from tensors and the number of prefix tokens to the operator.
    build: Callable
    #: From tensors to the matrix without prefix, by `keras.ops` that autodiff
    #: differentiates and NumPy's index arithmetic.
    dense: Callable
    shapes: tuple

    def parameters(self, seed=0):
        random = np.random.default_rng(seed)
        return [random.uniform(0.2, 1.2, shape) for shape in self.shapes]

    def operator(self, dtype):
        return self.build(*[ref.tensor(p, dtype) for p in self.parameters()])


def gather(table, grid):
    """The block-Toeplitz matrix of a tensor, entry by entry."""
    index = np.ravel_multi_index(
        ref.offset_indices(grid), [2 * n - 1 for n in grid]
    )
    rank = len(grid)
    lead = tuple(table.shape[:-rank])
    flat = ops.reshape(table, (*lead, -1))
    return ops.take(flat, index.astype("int32"), axis=-1)


def outer(first, second):
    return first[..., :, None] * second[..., None, :]


def kinds(grid, heads):
    """One of each kind on a two-dimensional grid, with a mask per head."""
    n1, n2 = grid
    length = n1 * n2
    table = (heads, 2 * n1 - 1, 2 * n2 - 1)
    distance = ref.l1_distances(grid) / (n1 + n2 - 2)

    def distance_table(a):
        o1, o2 = [abs(np.arange(-(n - 1), n)) for n in grid]
        x = ref.tensor((o1[:, None] + o2[None, :]) / (n1 + n2 - 2), a.dtype)
        a = a[..., None, None]
        return BlockToeplitz(
            ops.exp(-a[:, 0] - a[:, 1] * x - a[:, 2] * x * x), grid
        )

    def distance_matrix(a):
        x = ref.tensor(distance, a.dtype)
        a = a[..., None, None]
        return ops.exp(-a[:, 0] - a[:, 1] * x - a[:, 2] * x * x)

    def decays(rates):
        return Kronecker(
            [ExponentialDecay(rates[:, k] / n, n) for k, n in enumerate(grid)]
        )

    def decay_matrix(rates):
        exponent = 0.0
        for k, (index, n) in enumerate(
            zip(ref.offset_indices(grid), grid, strict=True)
        ):
            steps = ref.tensor(abs(index - (n - 1)) / n, rates.dtype)
            exponent = exponent + rates[:, k, None, None] * steps
        return ops.exp(-exponent)

    def triangle(dtype):
        return ref.tensor(np.tril(np.ones((length, length))), dtype)

    return {
        "table": Kind(
            lambda t: BlockToeplitz(t, grid),
            lambda t: gather(t, grid),
            (table,),
        ),
        "table-fft": Kind(
            lambda t: BlockToeplitz(t, grid, "fft"),
            lambda t: gather(t, grid),
            (table,),
        ),
        "distance": Kind(distance_table, distance_matrix, ((heads, 3),)),
        "separable": Kind(
            lambda *t: BlockToeplitz([t[:2], t[2:]], grid, "kronecker"),
            lambda a, b, c, d: gather(outer(a, b) + outer(c, d), grid),
            ((heads, 2 * n1 - 1), (heads, 2 * n2 - 1)) * 2,
        ),
        "decay": Kind(decays, decay_matrix, ((heads, 2),)),
        "low-rank": Kind(
            LowRank,
            lambda u, w: ops.matmul(u, ops.swapaxes(w, -1, -2)),
            ((heads, length, 2),) * 2,
        ),
        "shared-table": Kind(
            lambda t: BlockToeplitz(t, grid),
            lambda t: gather(t, grid),
            ((1, *table[1:]),),
        ),
        # Plus ones, because a scale alone would cancel.
        "causal": Kind(
            lambda s: s * Causal(length, dtype=s.dtype) + Ones(length, s.dtype),
            lambda s: s[:, None, None] * triangle(s.dtype) + 1.0,
            ((heads,),),
        ),
    }


def with_prefix(kind, prefix):
    """The same mask behind prefix tokens, whose entries are 1."""
    if not prefix:
        return kind

    def dense(*tensors):
        matrix = kind.dense(*tensors)
        padding = [(0, 0)] * (len(matrix.shape) - 2) + [(prefix, 0)] * 2
        return ops.pad(matrix, padding, constant_values=1.0)

    return Kind(
        lambda *tensors: Bordered(kind.build(*tensors), prefix),
        dense,
        kind.shapes,
    )
