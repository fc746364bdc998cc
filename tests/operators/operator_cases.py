"""Cases of single operators; more of each kind are in tests of their own."""

import numpy as np
import reference as ref
from case import alone, case
from keras import ops

from keras_topo.operators import (
    BlockToeplitz,
    Causal,
    Dense,
    DenseExp,
    ExponentialDecay,
    ForestDistance,
    ForestExponential,
    GatedDecay,
    GraphDiffusion,
    GridResolvent,
    LowRank,
    Ones,
    Resolvent,
    SparseFactors,
    SparsePairs,
    Toeplitz,
    Torus,
    curve_decay,
    curve_order,
    hypercube,
)


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
            "cylinder",
            lambda t: BlockToeplitz(t, (3, 4), periodic=(False, True)),
            lambda t: ref.block_toeplitz(
                np.concatenate([t[..., 1:], t], -1), (3, 4)
            ),
            (5, 4),
        ),
    ]


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
]
