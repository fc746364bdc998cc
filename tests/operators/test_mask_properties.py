"""Laws that masks obey, on random forests, graphs, tori and hypercubes.

Examples are drawn by hypothesis, the same ones in every run. Each is compared
in float64 with a dense matrix from `tests/reference.py`.
"""

import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_topo.operators import (
    ForestDistance,
    ForestExponential,
    GraphDiffusion,
    Torus,
    hypercube,
    hypercube_diffusion,
    torus_diffusion,
)

pytestmark = pytest.mark.skipif(
    ref.on_jax, reason="JAX compiles every step of every new shape by itself"
)

few = settings(max_examples=20, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**31)

# Forests.


def path(nodes, random):
    return np.arange(-1, nodes - 1)


def star(nodes, random):
    return np.append(-1, np.zeros(nodes - 1, int))


def caterpillar(nodes, random):
    spine = (nodes + 1) // 2
    return np.concatenate([np.arange(-1, spine - 1), np.arange(nodes - spine)])


def recursive_tree(nodes, random):
    parents = (random.random(nodes) * np.arange(nodes)).astype(int)
    parents[0] = -1
    return parents


def forest(nodes, random):
    """Some trees, some of them single nodes."""
    parents = recursive_tree(nodes, random)
    parents[random.random(nodes) < 0.3] = -1
    return parents


def single_nodes(nodes, random):
    return np.full(nodes, -1)


SHAPES = (path, star, caterpillar, recursive_tree, forest, single_nodes)


@st.composite
def forests(draw):
    """Parents, with shuffled labels, and a generator of random numbers."""
    random = np.random.default_rng(draw(seeds))
    nodes = draw(st.integers(1, 70))
    parents = draw(st.sampled_from(SHAPES))(nodes, random)
    new = random.permutation(nodes)
    relabeled = np.empty(nodes, int)
    relabeled[new] = np.where(parents < 0, -1, new[parents])
    return relabeled, random


def no_weights(nodes, random):
    return None


def zero_weights(nodes, random):
    return np.zeros(nodes)


def steps(nodes, random):
    return random.integers(0, 4, nodes) * 0.25


def two_lengths(nodes, random):
    """Without a common step, and few distances."""
    return np.where(random.random(nodes) < 0.5, 1.0, 2**0.5)


def arbitrary(nodes, random):
    return random.uniform(0, 2, nodes)


def check_products(mask, matrix, random, tolerance=1e-10):
    """Products, those of the transpose, rows and linearity."""
    length = matrix.shape[-1]
    assert mask.shape == matrix.shape
    x, y = random.normal(size=(2, length, 2))
    product = ref.numpy(mask @ x)
    ref.assert_close(product, matrix @ x, tolerance)
    transposed = np.swapaxes(matrix, -1, -2)
    ref.assert_close(ref.numpy(mask.T @ y), transposed @ y, tolerance)
    combined = ref.numpy(mask @ (2 * x - 3 * y))
    parts = 2 * product - 3 * ref.numpy(mask @ y)
    scale = max(1, np.abs(product).max(initial=0))
    assert np.abs(combined - parts).max() <= 10 * tolerance * scale
    start = int(random.integers(length))
    rows = ref.numpy(mask.rows(start, length))
    ref.assert_close(rows, matrix[..., start:, :], tolerance)
    return rows, start


@few
@given(
    forests(),
    st.sampled_from((no_weights, zero_weights, steps, arbitrary, "directed")),
    st.booleans(),
)
def test_exponentials_on_forests(drawn, kind, heads):
    parents, random = drawn
    nodes = len(parents)
    a = random.uniform(-1.5, 0.3, 2 if heads else ())
    b = random.uniform(-0.5, 0.5)
    if kind == "directed":
        weights = tuple(random.uniform(-0.5, 1, (2, nodes)))
        up, down = weights
    else:
        weights = kind(nodes, random)
        up = down = np.ones(nodes) if weights is None else weights
    matrix = ref.forest_exponential(
        parents, up[:, None], down[:, None], a[..., None], np.asarray(b)
    )
    mask = ForestExponential(parents, weights, ref.tensor(a), ref.tensor(b))
    rows, start = check_products(mask, matrix, random)
    assert mask.nonnegative and (rows >= 0).all()
    hidden = np.broadcast_to(matrix[..., start:, :] == 0, rows.shape)
    assert (rows[hidden] == 0).all()
    if kind != "directed":
        dense = ref.numpy(mask.to_dense())
        ref.assert_close(np.swapaxes(dense, -1, -2), dense, 1e-12)


@pytest.mark.slow
@few
@given(forests(), st.sampled_from((no_weights, zero_weights, steps)))
def test_tables_on_forests(drawn, kind):
    parents, random = drawn
    nodes = len(parents)
    weights = kind(nodes, random)
    w = np.ones(nodes) if weights is None else weights
    distances, reached = ref.forest_distances(parents, *2 * (w[:, None],))
    positive = w[(parents >= 0) & (w > 0)]
    # Quarters: the greatest common divisor, in quarters.
    step = np.gcd.reduce((4 * positive).astype(int)) / 4 if len(positive) else 1
    index = np.rint(distances[..., 0] / step).astype(int)
    table = random.normal(size=(2, index.max() + 1))
    mask = ForestDistance(parents, ref.tensor(table), weights)
    matrix = np.where(reached, table[:, index], 0)
    rows, start = check_products(mask, matrix, random)
    hidden = np.broadcast_to(~reached[start:], rows.shape)
    assert (rows[hidden] == 0).all()
    signs = mask.nonnegative
    assert signs is None or signs == bool((matrix >= 0).all())


@few
@given(forests(), st.sampled_from((no_weights, steps, two_lengths, arbitrary)))
def test_functions_on_forests(drawn, kind):
    parents, random = drawn
    nodes = len(parents)
    weights = kind(nodes, random)
    w = np.ones(nodes) if weights is None else weights
    distances, reached = ref.forest_distances(parents, *2 * (w[:, None],))

    def f(distance):
        return np.cos(distance) / (1 + distance)

    mask = ForestDistance(
        parents, lambda d: f(ref.numpy(d).astype("float64")), weights
    )
    matrix = np.where(reached, f(distances[..., 0]), 0)
    # `f` gets distances in float32.
    check_products(mask, matrix, random, 1e-5)


@few
@given(forests())
def test_the_two_masks_of_forests_agree(drawn):
    parents, random = drawn
    nodes = len(parents)
    weights = steps(nodes, random)
    rate = random.uniform(0, 2)
    first = ForestExponential(parents, weights, a=ref.tensor(-rate))
    second = ForestDistance(
        parents, lambda d: np.exp(-rate * ref.numpy(d).astype(float)), weights
    )
    x = random.normal(size=(nodes, 2))
    ref.assert_close(first @ x, ref.numpy(second @ x), 1e-6)


# Graphs.

GENERATORS = ("laplacian", "adjacency", "normalized_laplacian")


@st.composite
def graphs(draw):
    """An adjacency matrix, its connected pairs, and random numbers."""
    random = np.random.default_rng(draw(seeds))
    nodes = draw(st.integers(1, 25))
    density = draw(st.sampled_from((0.0, 0.05, 0.15, 0.6)))
    weighted = draw(st.booleans())
    edges = np.triu(random.random((nodes, nodes)) < density, 1)
    weights = random.uniform(0.1, 2, edges.shape) if weighted else 1.0
    adjacency = np.where(edges, weights, 0.0)
    adjacency = adjacency + adjacency.T
    linked = np.eye(nodes) + (adjacency > 0)
    connected = np.linalg.matrix_power(linked, nodes) > 0
    return adjacency, connected, random


@few
@given(graphs(), st.sampled_from(GENERATORS), st.sampled_from((0.0, 0.2, 1.0)))
def test_diffusion(drawn, generator, time):
    adjacency, connected, random = drawn
    times = np.array([time, time / 3])
    matrix = ref.diffusion(adjacency, generator, times)
    mask = GraphDiffusion(adjacency, generator, ref.tensor(times))
    rows, start = check_products(mask, matrix, random)
    # Rounding aside.
    scale = matrix.max()
    assert mask.nonnegative and rows.min() >= -1e-12 * scale
    hidden = np.broadcast_to(~connected[start:], rows.shape)
    assert np.abs(rows[hidden]).max(initial=0) == 0
    if generator == "laplacian":
        # Heat is neither made nor lost.
        ones = np.ones((len(adjacency), 1))
        ref.assert_close(mask @ ones, np.stack([ones] * 2), 1e-11)


@few
@given(
    graphs(),
    st.sampled_from(GENERATORS),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_diffusion_is_a_semigroup(drawn, generator, first, second):
    adjacency, _, random = drawn

    def kernel(time):
        return GraphDiffusion(adjacency, generator, ref.tensor(np.array(time)))

    x = random.normal(size=(len(adjacency), 2))
    ref.assert_close(
        kernel(first) @ (kernel(second) @ x),
        ref.numpy(kernel(first + second) @ x),
        1e-10,
    )


# Tori and hypercubes.

grids = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@few
@given(grids, st.sampled_from(("dense", "fft", "auto")), seeds)
def test_tori(grid, method, seed):
    random = np.random.default_rng(seed)
    table = random.normal(size=(2, *grid))
    mask = Torus(ref.tensor(table), grid, method)
    matrix = ref.torus(table, grid)
    check_products(mask, matrix, random)
    # Circulants commute, and their product is one.
    other = ref.torus(random.normal(size=grid), grid)
    x = random.normal(size=(matrix.shape[-1], 2))
    ref.assert_close(mask @ (other @ x), other @ ref.numpy(mask @ x), 1e-10)


@few
@given(
    grids,
    st.sampled_from(GENERATORS),
    st.floats(0, 1),
    st.floats(0, 1),
    seeds,
)
def test_diffusion_on_tori(grid, generator, first, second, seed):
    x = np.random.default_rng(seed).normal(size=(np.prod(grid), 2))

    def kernel(time):
        return torus_diffusion(ref.tensor(np.array(time)), grid, generator)

    one = kernel(first)
    dense = ref.numpy(one.to_dense())
    ref.assert_close(one @ x, dense @ x, 1e-11)
    ref.assert_close(dense.T, dense, 1e-11)
    assert one.nonnegative
    ref.assert_close(
        one @ (kernel(second) @ x),
        ref.numpy(kernel(first + second) @ x),
        1e-10,
    )


@few
@given(st.integers(0, 7), st.floats(-1, 1), st.floats(-1, 1), seeds)
def test_hypercubes(dimensions, first, second, seed):
    random = np.random.default_rng(seed)
    decay = np.array([first, second])
    mask = hypercube(ref.tensor(decay), dimensions)
    matrix = ref.hypercube(decay, dimensions)
    check_products(mask, matrix, random)
    # Eigenvalues are (1 + t)^(m - k) (1 - t)^k, so that products are known:
    # (1 + s t)^m times the mask of (s + t) / (1 + s t).
    x = random.normal(size=(2**dimensions, 2))
    if abs(1 + first * second) > 0.1:
        ratio = (first + second) / (1 + first * second)
        both = hypercube(ref.tensor(np.array(ratio)), dimensions)
        one, two = [
            hypercube(ref.tensor(np.array(t)), dimensions) for t in decay
        ]
        scale = (1 + first * second) ** dimensions
        ref.assert_close(one @ (two @ x), scale * ref.numpy(both @ x), 1e-10)


@few
@given(
    st.integers(0, 6),
    st.sampled_from(GENERATORS),
    st.floats(0, 1),
    st.floats(0, 1),
    seeds,
)
def test_diffusion_on_hypercubes(dimensions, generator, first, second, seed):
    x = np.random.default_rng(seed).normal(size=(2**dimensions, 2))

    def kernel(time):
        time = ref.tensor(np.array(time))
        return hypercube_diffusion(time, dimensions, generator)

    assert kernel(first).nonnegative
    ref.assert_close(
        kernel(first) @ (kernel(second) @ x),
        ref.numpy(kernel(first + second) @ x),
        1e-10,
    )
