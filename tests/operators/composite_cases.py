"""Cases of operators made of others."""

import numpy as np
import reference as ref
from case import alone, case

from keras_topo.operators import (
    BlockDiagonal,
    BlockToeplitz,
    Bordered,
    Causal,
    Dense,
    ExponentialDecay,
    GatedDecay,
    Kronecker,
    LowRank,
    Ones,
    Permuted,
    Scaled,
    Sum,
    Toeplitz,
)
from keras_topo.operators.hadamard import Hadamard

# Of the tokens of a permuted mask.
ORDER = np.array([2, 0, 5, 1, 4, 3], "int32")
# Of masks that are zero beyond three tokens.
WINDOW = np.array([1.0, 1.0, 1.0] + [0.0] * 12)


def windowed(column, length=8):
    """A Toeplitz mask that is zero beyond three tokens, by FFT."""
    window = ref.tensor(WINDOW[:length], column.dtype)
    return Toeplitz(column * window, method="fft")


CASES = [
    *case(
        "kronecker-matrices", lambda *f: Kronecker(f), ref.kron, *[(3, 3)] * 2
    ),
    *case("kronecker-1", lambda f: Kronecker([f]), lambda f: f, (4, 4)),
    *alone(
        "kronecker-broadcast",
        lambda a, b: Kronecker([Dense(a), Dense(b)]),
        ref.kron,
        (2, 1, 3, 3),
        (3, 2, 2),
    ),
    *case(
        "kronecker-mixed",
        lambda c, r, rate: Kronecker(
            [Toeplitz(c, r), ExponentialDecay(rate, 5)]
        ),
        lambda c, r, rate: ref.kron(ref.toeplitz(c, r), ref.decay(rate, 5)),
        (3,),
        (3,),
        (),
    ),
    *case(
        "kronecker-3",
        lambda u, t, m: Kronecker(
            [LowRank(u), BlockToeplitz(t, (3,), "fft"), Dense(m)]
        ),
        lambda u, t, m: ref.kron(
            ref.kron(ref.low_rank(u, u), ref.block_toeplitz(t, (3,))), m
        ),
        (2, 2),
        (5,),
        (4, 4),
    ),
    *case(
        "kronecker-of-grids",
        lambda t, m: Kronecker(
            [
                Causal(2, dtype=t.dtype),
                BlockToeplitz(t, (2, 3)),
                Kronecker([m, m]),
            ]
        ),
        lambda t, m: ref.kron(
            ref.kron(np.tril(np.ones((2, 2))), ref.block_toeplitz(t, (2, 3))),
            ref.kron(m, m),
        ),
        (3, 5),
        (2, 2),
    ),
    *case(
        "hadamard",
        lambda m, t: Hadamard([Dense(m), BlockToeplitz(t, (2, 3))]),
        lambda m, t: m * ref.block_toeplitz(t, (2, 3)),
        (6, 6),
        (3, 5),
    ),
    *alone(
        "hadamard-broadcast",
        lambda u, rate, rates: Hadamard(
            [LowRank(u), ExponentialDecay(rate, 5), GatedDecay(rates, True)]
        ),
        lambda u, rate, rates: (
            ref.low_rank(u, u)
            * ref.decay(rate, 5)
            * ref.gated_decay(rates, None)
            * np.tril(np.ones((5, 5)))
        ),
        (5, 2),
        (2,),
        (3, 1, 5),
    ),
    *case(
        "sum",
        lambda m, u: Sum([Dense(m), LowRank(u), Ones(5, u.dtype)]),
        lambda m, u: m + ref.low_rank(u, u) + 1.0,
        (5, 5),
        (5, 2),
    ),
    *case(
        "sum-low-rank",
        lambda u, w: LowRank(u) + Ones(5, u.dtype) + LowRank(u, w),
        lambda u, w: ref.low_rank(u, u) + 1.0 + ref.low_rank(u, w),
        (5, 2),
        (5, 2),
        low_rank=True,
    ),
    # Blocks of rows that suit one term cut across the other's.
    *case(
        "sum-bordered-and-grid",
        lambda a, b: Sum(
            [Bordered(BlockToeplitz(a, (3, 3)), 1), BlockToeplitz(b, (5, 2))]
        ),
        lambda a, b: (
            ref.bordered(ref.block_toeplitz(a, (3, 3)), 1)
            + ref.block_toeplitz(b, (5, 2))
        ),
        (5, 5),
        (9, 3),
    ),
    *case(
        "sum-grids",
        lambda a, b: BlockToeplitz(a, (4, 3)) + BlockToeplitz(b, (2, 6), "fft"),
        lambda a, b: (
            ref.block_toeplitz(a, (4, 3)) + ref.block_toeplitz(b, (2, 6))
        ),
        (7, 5),
        (3, 11),
    ),
    *case(
        "scaled",
        lambda m, s: Scaled(Dense(m), s),
        lambda m, s: m * s[..., None, None],
        (4, 4),
        (),
    ),
    *alone(
        "scaled-by-head",
        lambda t, s: s * BlockToeplitz(t, (2, 3)),
        lambda t, s: ref.block_toeplitz(t, (2, 3)) * s[:, None, None],
        (3, 5),
        (4,),
    ),
    *case(
        "scaled-low-rank",
        lambda u, s: Scaled(LowRank(u), s),
        lambda u, s: ref.low_rank(u, u) * s[..., None, None],
        (4, 2),
        (),
        low_rank=True,
    ),
    *case(
        "block_diagonal",
        lambda c, m, u: BlockDiagonal(
            [Toeplitz(c, method="fft"), Dense(m), LowRank(u)]
        ),
        lambda c, m, u: ref.block_diagonal(
            ref.toeplitz(c, c), m, ref.low_rank(u, u)
        ),
        (3,),
        (1, 1),
        (4, 2),
    ),
    *alone(
        "block_diagonal-broadcast",
        lambda a, b: BlockDiagonal([Dense(a), Dense(b)]),
        ref.block_diagonal,
        (2, 1, 2, 2),
        (3, 3, 3),
    ),
    *case(
        "block_diagonal-low-rank",
        lambda u, w: BlockDiagonal([LowRank(u), LowRank(w), LowRank(u, u)]),
        lambda u, w: ref.block_diagonal(
            ref.low_rank(u, u), ref.low_rank(w, w), ref.low_rank(u, u)
        ),
        (2, 2),
        (3, 1),
        low_rank=True,
    ),
    *case(
        "permuted",
        lambda t: Permuted(BlockToeplitz(t, (2, 3)), ORDER, np.argsort(ORDER)),
        lambda t: ref.block_toeplitz(t, (2, 3))[
            ..., np.argsort(ORDER)[:, None], np.argsort(ORDER)
        ],
        (3, 5),
    ),
    *case(
        "permuted-low-rank",
        lambda u, w: Permuted(LowRank(u, w), ORDER, np.argsort(ORDER)),
        lambda u, w: (u @ w.swapaxes(-1, -2))[
            ..., np.argsort(ORDER)[:, None], np.argsort(ORDER)
        ],
        (6, 2),
        (6, 2),
        low_rank=True,
    ),
    *case(
        "bordered",
        lambda t: Bordered(BlockToeplitz(t, (3, 4)), 2),
        lambda t: ref.bordered(ref.block_toeplitz(t, (3, 4)), 2),
        (5, 7),
    ),
    *case(
        "bordered-fft",
        lambda t: Bordered(BlockToeplitz(t, (3, 4), "fft"), 1),
        lambda t: ref.bordered(ref.block_toeplitz(t, (3, 4)), 1),
        (5, 7),
    ),
    *case(
        "bordered-0",
        lambda m: Bordered(Dense(m), 0),
        lambda m: m,
        (3, 3),
    ),
    *case(
        "bordered-1-token",
        lambda m: Bordered(Dense(m), 1),
        lambda m: ref.bordered(m, 1),
        (1, 1),
    ),
    *case(
        "bordered-kronecker",
        lambda rate, m: Bordered(
            Kronecker([ExponentialDecay(rate, 4), Dense(m)]), 1
        ),
        lambda rate, m: ref.bordered(ref.kron(ref.decay(rate, 4), m), 1),
        (),
        (3, 3),
    ),
    *case(
        "bordered-twice",
        lambda t: Bordered(Bordered(BlockToeplitz(t, (2, 3)), 1), 2),
        lambda t: ref.bordered(ref.block_toeplitz(t, (2, 3)), 3),
        (3, 5),
    ),
    *case(
        "bordered-low-rank",
        lambda u, w: Bordered(LowRank(u, w), 2),
        lambda u, w: ref.bordered(ref.low_rank(u, w), 2),
        (4, 2),
        (4, 2),
        low_rank=True,
    ),
    # Of decays.
    *case(
        "kronecker-decays-3x70",
        lambda a, b: Kronecker(
            [ExponentialDecay(a, 3), GatedDecay(b, causal=True)]
        ),
        lambda a, b: ref.kron(ref.decay(a, 3), ref.gated_decay(b, None)),
        (),
        (11,),
    ),
    *case(
        "sum-decays",
        lambda a, b: (
            ExponentialDecay(a, 9, causal=True)
            + 2.0 * GatedDecay(b, causal=True)
            + Causal(9, dtype=a.dtype)
        ),
        lambda a, b: (
            np.tril(ref.decay(a, 9))
            + 2.0 * ref.gated_decay(b, None)
            + np.tril(np.ones((9, 9)))
        ),
        (),
        (9,),
    ),
    *case(
        "bordered-block-diagonal-decays",
        lambda a, b: Bordered(
            BlockDiagonal([ExponentialDecay(a, 5), GatedDecay(b)]), 2
        ),
        lambda a, b: ref.bordered(
            ref.block_diagonal(ref.decay(a, 5), ref.gated_decay(b, b)), 2
        ),
        (),
        (4,),
    ),
    # Windows, of blocks that do not fit together, whose zeros are zeros.
    *case(
        "windows",
        lambda t, u: (
            BlockDiagonal([windowed(t), windowed(t)])
            + Bordered(windowed(u, 15), 1)
        ),
        lambda t, u: (
            ref.block_diagonal(
                *[ref.toeplitz(t * WINDOW[:8], t * WINDOW[:8])] * 2
            )
            + ref.bordered(ref.toeplitz(u * WINDOW, u * WINDOW), 1)
        ),
        (8,),
        (15,),
    ),
]
