"""Every operator with its matrix, for the contract suites.

**A new operator joins with one `case` in `CASES`**: how to build it from
parameters, the matrix that it should be, and the shapes of the parameters.
"""

import dataclasses
import re
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.operators import (
    BlockDiagonal,
    BlockToeplitz,
    Bordered,
    Causal,
    Dense,
    DenseExp,
    ExponentialDecay,
    ForestDistance,
    ForestExponential,
    GatedDecay,
    GraphDiffusion,
    GridResolvent,
    Kronecker,
    LowRank,
    Ones,
    Permuted,
    Resolvent,
    Scaled,
    SparseFactors,
    SparsePairs,
    Sum,
    Toeplitz,
    Torus,
    curve_decay,
    curve_order,
    hypercube,
)


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    #: From tensors to the operator; where there are none, from its dtype.
    build: Callable
    #: From arrays to the matrix. Analytic: it is differentiated by complex
    #: steps.
    dense: Callable
    #: Of the parameters, batch axes included.
    shapes: tuple
    #: Whether `factors` exist.
    low_rank: bool = False

    def parameters(self):
        """Arrays in float64, the same in every run."""
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [random.uniform(0.2, 1.2, shape) for shape in self.shapes]

    def operator(self, dtype="float64", parameters=None):
        if not self.shapes:
            return self.build(dtype)
        parameters = parameters or self.parameters()
        return self.build(*[ref.tensor(p, dtype) for p in parameters])

    def matrix(self):
        return self.dense(*self.parameters())


# Of the tokens of a permuted mask.
ORDER = np.array([2, 0, 5, 1, 4, 3], "int32")


def case(name, build, dense, *shapes, low_rank=False, batches=((), (2,))):
    """The case once without and once with a batch axis."""
    return [
        Case(
            name + "".join(f"-batch{n}" for n in batch),
            build,
            dense,
            tuple((*batch, *shape) for shape in shapes),
            low_rank,
        )
        for batch in batches
    ]


def alone(*args, **kwargs):
    """A case whose shapes hold their batch axes, or that has none."""
    return case(*args, **kwargs, batches=((),))


def grid_cases(grid):
    """BlockToeplitz on a grid, by each method, from a free table."""
    table = tuple(2 * n - 1 for n in grid)
    name = "x".join(map(str, grid))
    return [
        c
        for method in ("dense", "fft")
        for c in case(
            f"block_toeplitz-{name}-{method}",
            lambda t, method=method: BlockToeplitz(t, grid, method),
            lambda t: ref.block_toeplitz(t, grid),
            table,
        )
    ]


def torus_cases(grid):
    """Torus by each method."""
    name = "x".join(map(str, grid))
    return [
        c
        for method in ("dense", "fft")
        for c in case(
            f"torus-{name}-{method}",
            lambda t, method=method: Torus(t, grid, method),
            lambda t: ref.torus(t, grid),
            grid,
        )
    ]


def separable_cases(grid, rank, methods=("kronecker", "dense", "fft")):
    """The same from a table in separable terms."""
    axes = tuple((2 * n - 1,) for n in grid) * rank
    d = len(grid)

    def terms(tables):
        return [list(tables[k : k + d]) for k in range(0, rank * d, d)]

    name = "x".join(map(str, grid))
    return [
        c
        for method in methods
        for c in case(
            f"separable{rank}-{name}-{method}",
            lambda *t, method=method: BlockToeplitz(terms(t), grid, method),
            lambda *t: ref.block_toeplitz(
                sum(ref.outer(*term) for term in terms(t)), grid
            ),
            *axes,
        )
    ]


def decay_cases(*lengths):
    return [
        c
        for length in lengths
        for c in case(
            f"decay-{length}",
            lambda rate, n=length: ExponentialDecay(rate, n),
            lambda rate, n=length: ref.decay(rate, n),
            (),
        )
    ]


def ordered_cases():
    """Decays of one direction, and gated ones; more in `test_chunked.py`."""
    found = []
    for reverse in (False, True):
        side = np.triu if reverse else np.tril
        name = "-reverse" if reverse else ""
        found += case(
            f"decay-causal{name}-70",
            lambda rate, r=reverse: ExponentialDecay(rate, 70, True, r),
            lambda rate, side=side: side(ref.decay(rate, 70)),
            (),
        )
        found += case(
            f"gated-causal{name}-70",
            lambda rates, r=reverse: GatedDecay(rates, True, reverse=r),
            lambda rates, r=reverse: ref.gated_decay(
                *((None, rates) if r else (rates, None))
            ),
            (70,),
        )
    found += case(
        "gated-70", GatedDecay, lambda r: ref.gated_decay(r, r), (70,)
    )
    found += case("gated-1", GatedDecay, lambda r: ref.gated_decay(r, r), (1,))
    found += alone(
        "gated-broadcast",
        lambda r, s: GatedDecay(r, backward_rates=s),
        ref.gated_decay,
        (2, 1, 6),
        (3, 6),
    )
    return found


def grid_decay_cases():
    """Decays along axes and curves of grids; more in `test_tiled.py` and
    `test_curves.py`."""

    def curves(rates):
        decays = ref.decay(rates, 15)
        total = 0
        for k, curve in enumerate(("rows", "hilbert")):
            order = curve_order((3, 5), curve)
            position = np.argsort(order)
            total = total + decays[..., k, position[:, None], position]
        return total / 2

    return [
        *case(
            "curves-3x5",
            lambda rates: curve_decay((3, 5), rates, ("rows", "hilbert")),
            curves,
            (2,),
        ),
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
        *case(
            "cylinder",
            lambda t: BlockToeplitz(t, (3, 4), periodic=(False, True)),
            lambda t: ref.block_toeplitz(
                np.concatenate([t[..., 1:], t], -1), (3, 4)
            ),
            (5, 4),
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


WINDOW = np.array([1.0, 1.0, 1.0] + [0.0] * 12)


def windowed(column, length=8):
    """A Toeplitz mask that is zero beyond three tokens, by FFT."""
    window = ref.tensor(WINDOW[:length], column.dtype)
    return Toeplitz(column * window, method="fft")


def forest_cases():
    """More of them in `test_forest_masks.py`."""
    random = np.random.default_rng(0)
    found = []
    for name, parents in FORESTS.items():
        up, down = random.uniform(-1, 1, (2, len(parents), 2))
        found += alone(
            f"forest-{name}",
            lambda a, b, p=parents, w=(up, down): ForestExponential(p, w, a, b),
            lambda a, b, p=parents, w=(up, down): ref.forest_exponential(
                p, *w, a, b
            ),
            (2, 2),
            (),
        )
        distances, reached = ref.forest_distances(
            parents, *2 * (np.ones((len(parents), 1)),)
        )
        index = distances[..., 0].astype(int)
        found += alone(
            f"forest-distance-{name}",
            lambda t, p=parents: ForestDistance(p, t),
            lambda t, d=index, r=reached: np.where(r, t[..., d], 0),
            (2, 80),
        )
    return found


# The caterpillar's path is longer than a block of the scan, and than what the
# centroids leave whole.
FORESTS = {
    "trees": np.array([3, 6, -1, -1, 3, 0, -1]),
    "caterpillar": np.concatenate([np.arange(-1, 39), np.arange(40)]),
    "1": np.array([-1]),
}


def diffusion_cases():
    """On a weighted graph of two parts; more in `test_diffusion.py`."""
    adjacency = np.zeros((7, 7))
    for i, j, weight in [(0, 1, 1), (1, 2, 0.5), (0, 2, 2), (4, 5, 1)]:
        adjacency[i, j] = adjacency[j, i] = weight
    return [
        c
        for generator in ("laplacian", "adjacency", "normalized_laplacian")
        for c in alone(
            f"diffusion-{generator}",
            lambda t, g=generator: GraphDiffusion(adjacency, g, t, max_time=2),
            lambda t, g=generator: ref.diffusion(adjacency, g, t),
            (2,),
        )
    ]


def resolvent_cases():
    """More of them in `test_resolvent.py`."""

    def series(symmetric, edges):
        return lambda w: Resolvent(
            edges, 0.1 * w, 5, max_row_sum=0.4, symmetric=symmetric
        )

    both = np.concatenate([CHORDS, CHORDS[:, ::-1]])
    return [
        *case(
            "resolvent-acyclic",
            lambda w: Resolvent(DESCENDING, w, 6),
            lambda w: ref.resolvent(DESCENDING, w, 6),
            (len(DESCENDING),),
        ),
        *case(
            "resolvent-series",
            series(None, CHORDS),
            lambda w: ref.resolvent(CHORDS, 0.1 * w, 5),
            (len(CHORDS),),
        ),
        *alone(
            "resolvent-symmetric",
            lambda w: series(True, both)(ops.concatenate([w, w], -1)),
            lambda w: ref.resolvent(both, 0.1 * np.concatenate([w, w], -1), 5),
            (2, len(CHORDS)),
        ),
        *case(
            "resolvent-3x4",
            lambda w: GridResolvent(w, (3, 4), (0, 1)),
            lambda w: ref.grid_resolvent(w, (3, 4), (0, 1)),
            (2,),
        ),
        *alone(
            "resolvent-2x3x2-edges",
            lambda w: GridResolvent(w, (2, 3, 2), (1, 0, 1), per_edge=True),
            lambda w: ref.grid_resolvent(w, (2, 3, 2), (1, 0, 1), True),
            (2, 3, 2, 3, 2),
        ),
        *alone(
            "resolvent-5-edges",
            lambda w: GridResolvent(w, (5,), per_edge=True),
            lambda w: ref.grid_resolvent(w, (5,), (0,), True),
            (1, 5),
        ),
    ]


# Without cycles: two ways between nodes, a repeated edge, a node alone.
DESCENDING = np.array([(1, 0), (3, 1), (3, 0), (3, 1), (4, 3), (2, 4), (2, 0)])
# With cycles, and a loop.
CHORDS = np.array([(0, 1), (1, 2), (2, 0), (3, 0), (3, 3)])

# A repeated pair, a token that sees none and one that none sees.
PAIRS = np.array([(0, 1), (1, 0), (3, 3), (0, 1), (4, 2), (1, 4)])
OTHER_PAIRS = np.stack([PAIRS, (PAIRS + 2) % 5])

# A repeated entry, a token and a feature without any.
ENTRIES = np.array([(0, 1), (1, 0), (3, 2), (0, 1), (4, 2), (1, 3)])
OTHER_ENTRIES = np.array([(2, 1), (0, 2), (3, 0), (4, 3)])

CASES = [
    *case(
        "factors",
        lambda v: SparseFactors(ENTRIES, v, 5),
        lambda v: ref.sparse_factors(ENTRIES, v, ENTRIES, v, 5),
        (6,),
    ),
    *case(
        "factors-two",
        lambda v, w: SparseFactors(ENTRIES, v, 5, 4, OTHER_ENTRIES, w),
        lambda v, w: ref.sparse_factors(ENTRIES, v, OTHER_ENTRIES, w, 5),
        (6,),
        (4,),
    ),
    *alone(
        "factors-broadcast",
        lambda v, w: SparseFactors(ENTRIES, v, 5, 4, OTHER_ENTRIES, w),
        lambda v, w: ref.sparse_factors(ENTRIES, v, OTHER_ENTRIES, w, 5),
        (3, 1, 6),
        (2, 4),
    ),
    *alone(
        "factors-1",
        lambda v: SparseFactors([[0, 0]], v, 1),
        lambda v: (v**2)[None],
        (1,),
    ),
    *case(
        "pairs",
        lambda v: SparsePairs(PAIRS, v, 5),
        lambda v: ref.sparse_pairs(PAIRS, v, 5),
        (6,),
    ),
    *alone(
        "pairs-each",
        lambda v: SparsePairs(OTHER_PAIRS, v, 5),
        lambda v: ref.sparse_pairs(OTHER_PAIRS, v, 5),
        (2, 6),
    ),
    *alone(
        "pairs-broadcast",
        lambda v: SparsePairs(OTHER_PAIRS[:, None], v, 5),
        lambda v: ref.sparse_pairs(OTHER_PAIRS[:, None], v, 5),
        (2, 3, 6),
    ),
    *alone(
        "pairs-shared-values",
        lambda v: SparsePairs(OTHER_PAIRS, v, 5),
        lambda v: ref.sparse_pairs(OTHER_PAIRS, v, 5),
        (6,),
    ),
    *alone(
        "pairs-1",
        lambda v: SparsePairs([[0, 0]], v, 1),
        lambda v: ref.sparse_pairs(np.array([[0, 0]]), v, 1),
        (1,),
    ),
    *case("dense", Dense, lambda m: m, (5, 5)),
    *case("dense-1", Dense, lambda m: m, (1, 1)),
    *case("dense-exp", DenseExp, np.exp, (5, 5)),
    *alone(
        "ones",
        lambda dtype: Ones(6, dtype),
        lambda: np.ones((6, 6)),
        low_rank=True,
    ),
    *alone(
        "ones-1",
        lambda dtype: Ones(1, dtype),
        lambda: np.ones((1, 1)),
        low_rank=True,
    ),
    *alone(
        "causal",
        lambda dtype: Causal(6, dtype=dtype),
        lambda: np.tril(np.ones((6, 6))),
    ),
    *alone(
        "causal-reverse",
        lambda dtype: Causal(6, reverse=True, dtype=dtype),
        lambda: np.triu(np.ones((6, 6))),
    ),
    *alone(
        "causal-1",
        lambda dtype: Causal(1, dtype=dtype),
        lambda: np.ones((1, 1)),
    ),
    # Sequences.
    *case("toeplitz-symmetric", Toeplitz, lambda c: ref.toeplitz(c, c), (7,)),
    *case("toeplitz", Toeplitz, ref.toeplitz, (6,), (6,)),
    *case(
        "toeplitz-fft",
        lambda c, r: Toeplitz(c, r, method="fft"),
        ref.toeplitz,
        (6,),
        (6,),
    ),
    *case("toeplitz-1", Toeplitz, ref.toeplitz, (1,), (1,)),
    *alone("toeplitz-broadcast", Toeplitz, ref.toeplitz, (3, 1, 4), (2, 4)),
    # Grids.
    *grid_cases((7,)),
    *grid_cases((3, 4)),
    *grid_cases((2, 3, 4)),
    *grid_cases((1, 5)),
    *grid_cases((5, 1)),
    *grid_cases((1, 1, 1)),
    *case(
        "block_toeplitz-auto",
        lambda t: BlockToeplitz(t, (4, 3)),
        lambda t: ref.block_toeplitz(t, (4, 3)),
        (7, 5),
    ),
    *separable_cases((5,), 1, ("kronecker",)),
    *separable_cases((3, 4), 1),
    *separable_cases((3, 4), 2),
    *separable_cases((2, 3, 2), 2, ("kronecker",)),
    *separable_cases((1, 4), 1, ("kronecker",)),
    *separable_cases((4, 1), 1, ("kronecker",)),
    # Axes of odd and even length, of one and of two.
    *torus_cases((5,)),
    *torus_cases((3, 4)),
    *torus_cases((2, 1, 3)),
    *alone(
        "torus-1",
        lambda t: Torus(t, (1,), "fft"),
        lambda t: ref.torus(t, (1,)),
        (1,),
    ),
    # One factor, and two of different size.
    *case(
        "hypercube-3",
        lambda t: hypercube(t, 3),
        lambda t: ref.hypercube(t, 3),
        (),
    ),
    *case(
        "hypercube-5",
        lambda t: hypercube(t, 5),
        lambda t: ref.hypercube(t, 5),
        (),
    ),
    # Shorter than a chunk, one, one and a bit, several.
    *decay_cases(1, 5, 32, 33, 70),
    *ordered_cases(),
    *grid_decay_cases(),
    *forest_cases(),
    *diffusion_cases(),
    *resolvent_cases(),
    # Operators of operators.
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
        "low_rank",
        LowRank,
        lambda u: ref.low_rank(u, u),
        (6, 2),
        low_rank=True,
    ),
    *case(
        "low_rank-two-factors",
        LowRank,
        ref.low_rank,
        (5, 3),
        (5, 3),
        low_rank=True,
    ),
    *alone(
        "low_rank-broadcast",
        LowRank,
        ref.low_rank,
        (2, 1, 4, 2),
        (3, 4, 2),
        low_rank=True,
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
]


def representatives():
    """Compilation takes seconds a case: of twins the one with a batch axis,
    of a size the general one."""
    names = {c.name for c in CASES}
    skipped = r"1x5|5x1|1x1x1|1x4|4x1|-1-batch|-1$|decay-(1|5|32)-|-0-"
    skipped += r"|separable.*(dense|fft)|separable1|decay-33|kronecker-mat"
    skipped += r"|broadcast|low_rank-batch|twice|bordered-fft|sum-grids"
    skipped += r"|scaled-low|block_toeplitz-7-|block_diagonal-low"
    skipped += r"|torus-5|torus-.*-dense|hypercube-3"
    return [
        c
        for c in CASES
        if c.name + "-batch2" not in names and not re.search(skipped, c.name)
    ]


def parametrize(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda c: c.name)
