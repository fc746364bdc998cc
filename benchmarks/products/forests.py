"""Masks on forests, and their peers without this package.

`random_*` make the data that define a mask, on the host and the same in every
process. `build_*` make the operator from them. `prepare_*` make a peer, a
function without arguments that returns the product with `x`, `(tokens,
columns)`.
"""

import math

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg

from benchmarks.products.convolutions import (
    filter_peer,
    prepare_toeplitz_fft,
)
from benchmarks.products.rows import SIZES, Peer, Row, in_numpy

RATE = 0.5


def random_tree(tokens):
    """Parents of a random recursive tree: nodes attach to earlier nodes."""
    uniform = np.random.default_rng(0).random(tokens)
    parents = (uniform * np.arange(tokens)).astype("int64")
    parents[0] = -1
    return parents


def path_tree(tokens):
    return np.arange(tokens) - 1


def build_forest_exponential(parents):
    from keras_topo.operators import ForestExponential

    return ForestExponential(parents, a=-RATE)


def build_forest_distance(parents):
    from keras_topo.operators import ForestDistance, rational

    return ForestDistance(parents, rational(1.0))


def by_level(parents):
    """Nodes level by level, each level in the order of its parents.

    Returns:
        `order`, the nodes; `parents` in terms of places in it; and `bounds`,
        where levels begin and end.
    """
    order = np.flatnonzero(parents < 0)
    children = np.argsort(parents, kind="stable")
    first = np.searchsorted(parents[children], np.arange(len(parents) + 1))
    levels = [order]
    while len(levels[-1]):
        above = levels[-1]
        counts = first[above + 1] - first[above]
        starts = np.repeat(first[above] - np.cumsum(counts) + counts, counts)
        levels.append(children[starts + np.arange(counts.sum())])
    bounds = np.concatenate([[0], np.cumsum([len(v) for v in levels[:-1]])])
    order = np.concatenate(levels)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    above = parents[order]
    return order, np.where(above < 0, -1, rank[above]), bounds


def prepare_levels(parents, x):
    """Dynamic programming: one sparse product per level, up and then down."""
    order, above, bounds = by_level(parents)
    decay = x.dtype.type(math.exp(-RATE))
    levels = []
    for i, j, k in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
        entries = (np.full(k - j, decay), (above[j:k] - i, np.arange(k - j)))
        sums = scipy.sparse.csr_array(entries, shape=(j - i, k - j))
        levels.append((i, j, k, sums))

    def call():
        s = x[order]
        for i, j, k, sums in reversed(levels):
            s[i:j] += sums @ s[j:k]
        roots = bounds[1]
        s[roots:] *= 1 - decay * decay
        for _, j, k, _ in levels:
            s[j:k] += decay * s[above[j:k]]
        y = np.empty_like(s)
        y[order] = s
        return y

    return call


def prepare_solve(parents, x):
    """The inverse of the mask is as sparse as the tree: a sparse Cholesky
    factorization without fill, by SuperLU, and its triangular solves."""
    order, above, _ = by_level(parents)
    # Leaves first.
    order, nodes = order[::-1], len(order)
    child = np.flatnonzero(above >= 0)
    places = (nodes - 1 - child, nodes - 1 - above[child])
    decay = x.dtype.type(math.exp(-RATE))
    step = scipy.sparse.csc_array(
        (np.full(len(child), decay), places), shape=(nodes, nodes)
    )
    step = scipy.sparse.eye_array(nodes, dtype=x.dtype, format="csc") - step
    scale = np.where(above[::-1] >= 0, 1 / (1 - decay * decay), 1)
    scale = scipy.sparse.diags_array(scale.astype(x.dtype))
    solver = scipy.sparse.linalg.splu(
        (step.T @ scale @ step).tocsc(),
        permc_spec="NATURAL",
        diag_pivot_thresh=0,
        options={"SymmetricMode": True},
    )

    def call():
        y = np.empty_like(x)
        y[order] = solver.solve(np.asfortranarray(x[order]))
        return y

    return call


def rational_table(size, dtype):
    """The function of the `ForestDistance` rows, `1 / (1 + d^2)`."""
    distance = np.arange(size, dtype="float64")
    return (1 / (1 + distance**2)).astype(dtype)


def prepare_spheres(parents, x):
    """`sum_d f(d) A_d x`, where `A_d` marks pairs at distance `d`.

    On a tree `A_d+1 = A A_d - (D - 1) A_d-1` (`D` in place of `D - 1` for `d`
    = 1): one sparse product per distance, which is slow on a path and fast on
    a shallow tree.
    """
    child = np.flatnonzero(parents >= 0)
    shape = (len(parents),) * 2
    half = scipy.sparse.coo_array(
        (np.ones(len(child), x.dtype), (child, parents[child])), shape=shape
    )
    adjacency = (half + half.T).tocsr()
    degree = np.diff(adjacency.indptr).astype(x.dtype)[:, None]
    longest = diameter(adjacency)
    f = rational_table(longest + 1, x.dtype)

    def call():
        before, current = x, adjacency @ x
        y = f[0] * x + (f[1] * current if longest else 0)
        for d in range(2, longest + 1):
            # Neighbors of nearer nodes, except back to where they came from.
            back = degree if d == 2 else degree - 1
            before, current = current, adjacency @ current - back * before
            y += f[d] * current
        return y

    return call


def diameter(adjacency):
    """The longest distance in a tree, from the node farthest from any node."""
    far = 0
    for _ in range(2):
        distance = scipy.sparse.csgraph.shortest_path(
            adjacency, unweighted=True, indices=far
        )
        far = int(np.argmax(distance))
    return int(distance[far])


def prepare_blocks(parents, x, block=256):
    """Blocks of rows of the matrix: distances from a block of nodes to all
    nodes, by level, then a table lookup and a matrix product."""
    order, above, bounds = by_level(parents)
    nodes, num_levels = len(order), len(bounds) - 1
    level = np.repeat(np.arange(num_levels), np.diff(bounds))
    f = rational_table(2 * num_levels, x.dtype)

    def call():
        z, y = x[order], np.empty_like(x)
        for start in range(0, nodes, block):
            rows = np.arange(start, min(start + block, nodes))
            distance = np.empty((nodes, len(rows)), "int32")
            # The root is an ancestor of every node.
            distance[: bounds[1]] = level[rows]
            ancestors = np.full((num_levels, len(rows)), -1)
            ancestor = rows
            for k in range(int(level[rows].max()), -1, -1):
                at = level[ancestor] == k
                ancestors[k, at] = ancestor[at]
                ancestor = np.where(at & (k > 0), above[ancestor], ancestor)
            for k in range(1, num_levels):
                i, j = bounds[k], bounds[k + 1]
                np.add(distance[above[i:j]], 1, out=distance[i:j])
                at = np.flatnonzero(ancestors[k] >= 0)
                distance[ancestors[k, at], at] = level[rows[at]] - k
            y[order[rows]] = f[distance].T @ z
        return y

    return call


def prepare_path_fft(parents, x):
    f = rational_table(len(parents), "float64")
    return prepare_toeplitz_fft((f, f), x)


SOLVE = Peer("SuperLU", prepare_solve)

ROWS = (
    Row(
        "ForestExponential, random tree",
        SIZES,
        random_tree,
        build_forest_exponential,
        (Peer("a sparse product a level", prepare_levels), SOLVE),
    ),
    Row(
        "ForestExponential, path",
        SIZES,
        path_tree,
        build_forest_exponential,
        (filter_peer(RATE), SOLVE),
    ),
    Row(
        "ForestDistance, random tree",
        SIZES,
        random_tree,
        build_forest_distance,
        (
            Peer("a sparse product a distance", prepare_spheres),
            *in_numpy("blocks of rows", prepare_blocks, exponent=2.0),
        ),
    ),
    Row(
        "ForestDistance, path",
        SIZES,
        path_tree,
        build_forest_distance,
        (Peer("scipy.fft", prepare_path_fft),),
    ),
)
