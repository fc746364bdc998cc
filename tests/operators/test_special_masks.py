"""Closed forms, functions of distances, and what masks know of their signs."""

import keras
import networkx
import numpy as np
import pytest
import reference as ref
import scipy.linalg
from keras import ops

from keras_topo import attention
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
    GraphDiffusion,
    Kronecker,
    LowRank,
    MaskOperator,
    Ones,
    Scaled,
    SparsePairs,
    Toeplitz,
    Torus,
    cartesian_product,
    damped_cosine,
    exponentiated_polynomial,
    hypercube,
    hypercube_diffusion,
    rational,
    torus_diffusion,
)

# On TensorFlow; the contracts of operators and layers run on JAX, too.
pytestmark = pytest.mark.slow_on_jax

GENERATORS = ("laplacian", "adjacency", "normalized_laplacian")
TIMES = np.array([0.0, 0.3, 1.0])


def double(x):
    return ref.tensor(np.asarray(x, float))


def matrix_of(build, *parameters):
    """Of the mask that is built from tensors."""
    function = ref.staged(lambda *tensors: build(*tensors).to_dense())
    return ref.numpy(function(*map(double, parameters)))


def gradients_of(build, upstream, *parameters):
    """Of the sum of `upstream` times a function of tensors."""
    function = ref.staged(ref.with_gradients(build))
    gradients = function(double(upstream), *map(double, parameters))[1]
    return [ref.numpy(gradient) for gradient in gradients]


def ring(nodes):
    """Without loops or double edges, which networkx draws on small rings."""
    if nodes < 3:
        return networkx.path_graph(nodes)
    return networkx.cycle_graph(nodes)


def adjacency_of_product(graphs):
    """Of the Cartesian product, nodes in row-major order."""
    total = np.zeros((1, 1))
    for graph in graphs:
        matrix = networkx.to_numpy_array(graph)
        total = np.kron(total, np.eye(len(matrix))) + np.kron(
            np.eye(len(total)), matrix
        )
    return total


# Closed forms.


def test_a_ring_is_a_circulant():
    table = np.random.default_rng(0).normal(size=7)
    matrix = scipy.linalg.circulant(table)
    for method in ("dense", "fft"):
        mask = Torus(table, 7, method)
        ref.assert_close(mask @ np.eye(7), matrix, 1e-12)
        ref.assert_close(mask.T @ np.eye(7), matrix.T, 1e-12)
    # Rows are exact whatever the product does.
    zeros = Torus(np.append(1.0, np.zeros(6)), 7, "fft")
    np.testing.assert_array_equal(ref.numpy(zeros.to_dense()), np.eye(7))


def test_the_cheapest_product_of_a_torus():
    assert Torus(np.ones((3, 4)), (3, 4)).chosen_method == "dense"
    large = Torus(np.ones((64, 64)), (64, 64))
    assert large.chosen_method == "fft"
    # No padding.
    padded = BlockToeplitz(np.ones((127, 127)), (64, 64), "fft")
    assert large.cost(64) < 0.5 * padded.cost(64)


@pytest.mark.parametrize("dimensions", [0, 1, 3, 6])
def test_hypercube(dimensions):
    decay = np.array([0.0, 0.4, 1.0, -0.5])
    dense = matrix_of(lambda t: hypercube(t, dimensions), decay)
    ref.assert_close(dense, ref.hypercube(decay, dimensions), 1e-14)


def test_gradient_of_a_hypercube_at_zero():
    """Where powers of the decay have none."""
    (gradient,) = gradients_of(
        lambda t: hypercube(t, 3).to_dense(), np.ones((8, 8)), 0.0
    )
    assert gradient == 8 * 3


def test_a_large_hypercube():
    """2^16 tokens against the sums over distances from one corner."""
    mask = hypercube(double(0.5), 16)
    assert max(mask.grid_shape) <= 16
    corner = np.zeros((2**16, 1))
    corner[0] = 1
    y = ref.numpy(mask @ corner)[:, 0]
    ones = np.array([bin(k).count("1") for k in range(2**16)])
    ref.assert_close(y, 0.5**ones, 1e-14)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("dimensions", [0, 1, 5])
def test_hypercube_diffusion(dimensions, generator):
    adjacency = adjacency_of_product([ring(2)] * dimensions)
    expected = ref.diffusion(adjacency, generator, TIMES)
    dense = matrix_of(
        lambda t: hypercube_diffusion(t, dimensions, generator), TIMES
    )
    ref.assert_close(dense, expected, 1e-13)
    if not dimensions:
        return
    # As written in the docstring.
    time = TIMES / (dimensions if generator[0] == "n" else 1)
    scale = ((1 + np.exp(-2 * time)) / 2) ** dimensions
    if generator == "adjacency":
        scale = np.cosh(time) ** dimensions
    form = scale[:, None, None] * ref.hypercube(np.tanh(time), dimensions)
    ref.assert_close(form, expected, 1e-13)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("grid", [(1,), (2,), (7,), (1, 3), (2, 4, 5)], ids=str)
def test_torus_diffusion(grid, generator):
    adjacency = adjacency_of_product([ring(n) for n in grid])
    expected = ref.diffusion(adjacency, generator, TIMES)
    dense = matrix_of(lambda t: torus_diffusion(t, grid, generator), TIMES)
    ref.assert_close(dense, expected, 1e-12)


def test_kernels_are_computed_in_float32_at_least():
    time = ops.cast(0.5, "float16")
    assert torus_diffusion(time, (3, 4)).dtype == "float32"
    assert hypercube_diffusion(time, 3).dtype == "float32"


@pytest.mark.parametrize(
    "build",
    [
        lambda t: torus_diffusion(t, (3, 4)),
        lambda t: hypercube_diffusion(t, 3, "adjacency"),
        lambda t: hypercube_diffusion(t, 3),
    ],
)
def test_gradient_with_respect_to_time(build):
    upstream = np.random.default_rng(0).normal(size=build(0.3).shape)
    (gradient,) = gradients_of(lambda t: build(t).to_dense(), upstream, 0.3)
    step = 1e-5
    above, below = [matrix_of(build, t) for t in (0.3 + step, 0.3 - step)]
    difference = (upstream * (above - below)).sum() / (2 * step)
    ref.assert_close(gradient, difference, 1e-8)


@pytest.mark.parametrize("generator", ["laplacian", "adjacency"])
def test_diffusion_on_a_product_of_graphs(generator):
    graphs = [networkx.star_graph(4), networkx.path_graph(3)]
    expected = ref.diffusion(adjacency_of_product(graphs), generator, 0.4)
    kernels = [
        ref.diffusion(networkx.to_numpy_array(g), generator, 0.4)
        for g in graphs
    ]
    mask = cartesian_product([Dense(kernels[0]), kernels[1]])
    ref.assert_close(mask.to_dense(), expected, 1e-13)


def test_normalized_diffusion_on_a_product_of_regular_graphs():
    graphs = [networkx.complete_graph(4), networkx.cycle_graph(5)]
    name = "normalized_laplacian"
    expected = ref.diffusion(adjacency_of_product(graphs), name, 0.4)
    kernels = [
        ref.diffusion(networkx.to_numpy_array(g), name, 0.4 * degree / 5)
        for g, degree in zip(graphs, (3, 2), strict=True)
    ]
    mask = cartesian_product(kernels)
    ref.assert_close(mask.to_dense(), expected, 1e-13)


# Functions of distances.

FAMILIES = {
    "polynomial": (
        exponentiated_polynomial,
        lambda c: (
            lambda d: np.exp(
                sum(c[..., k, None] * d**k for k in range(c.shape[-1]))
            )
        ),
        [np.array([[0.3, -0.5], [0.1, -0.2], [-0.2, 0.3]])],
    ),
    "polynomial-cubic": (
        exponentiated_polynomial,
        lambda c: lambda d: np.exp(c[0] + c[1] * d + c[2] * d**2 + c[3] * d**3),
        [np.array([0.1, -0.3, 0.2, -0.05])],
    ),
    "rational": (
        rational,
        lambda a: lambda d: 1 / (1 + a[..., None] * d**2),
        [np.array([0.0, 0.5, 3.0])],
    ),
    "cosine": (
        damped_cosine,
        lambda r, w: (
            lambda d: (
                np.exp(-r[..., None] * d) * (1 + np.cos(w[..., None] * d)) / 2
            )
        ),
        [np.array([0.0, 0.5]), np.array([np.pi, 1.0])],
    ),
}
CATERPILLAR = np.concatenate([np.arange(-1, 19), np.arange(20)])


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_gradients(name):
    build, definition, parameters = FAMILIES[name]
    distances = np.linspace(0, 7, 15)
    expected = definition(*parameters)(distances)
    upstream = np.random.default_rng(0).normal(size=expected.shape)

    def function(*tensors):
        return build(*tensors)(double(distances))

    y, gradients = ref.staged(ref.with_gradients(function))(
        double(upstream), *map(double, parameters)
    )
    # Keras has no cosine in float64 on JAX.
    coarse = ref.on_jax and name == "cosine"
    assert keras.backend.standardize_dtype(y.dtype) == "float64"
    ref.assert_close(y, expected, 1e-6 if coarse else 1e-14)
    wanted = ref.complex_step_gradients(
        lambda *p: (upstream * definition(*p)(distances)).sum(), parameters
    )
    for gradient, other in zip(gradients, wanted, strict=True):
        ref.assert_close(gradient, other, 1e-5 if coarse else 1e-12)


@pytest.mark.few_on_jax("polynomial-cubic", "rational")
@pytest.mark.parametrize("name", FAMILIES)
def test_masks_of_these_functions(name):
    build, definition, parameters = FAMILIES[name]
    distances, reached = ref.forest_distances(
        CATERPILLAR, *2 * (np.ones((40, 1)),)
    )
    index = distances[..., 0].astype(int)
    table = definition(*parameters)(np.arange(index.max() + 1.0))
    expected = np.where(reached, table[..., index], 0)
    mask = ForestDistance(CATERPILLAR, build(*map(double, parameters)))
    coarse = ref.on_jax and name == "cosine"
    ref.assert_close(ref.dense(mask), expected, 1e-6 if coarse else 1e-12)
    assert mask.nonnegative


def test_values_stay_finite_in_float32():
    distances = ops.cast(np.array([0.0, 1.0, 1e3, 1e6, 1e9]), "float32")
    for build, parameters in (
        (exponentiated_polynomial, [[0.0, 1.0, 5.0], [0.0, 9.0, -5.0]]),
        (exponentiated_polynomial, [[100.0, 0.0, 0.0, 1.0]]),
        (lambda a: rational(a[:, 0]), [[0.0], [1e9]]),
        (lambda r: damped_cosine(r[:, 0], 1.0), [[0.0], [1e9]]),
    ):
        parameters = ops.cast(np.array(parameters), "float32")

        def function(p, build=build):
            return build(p)(distances)

        upstream = ops.ones((*parameters.shape[:-1], 5), "float32")
        y, gradients = ref.staged(ref.with_gradients(function))(
            upstream, parameters
        )
        assert np.isfinite(ref.numpy(y)).all()
        assert np.isfinite(ref.numpy(gradients[0])).all()
        assert (ref.numpy(y) >= 0).all() and (ref.numpy(y) < 2e13).all()


# Signs.

SIGNED = np.array([[1.0, -0.5], [0.2, 1.0]])
PAIR = [[0, 1], [1, 0]]
SIGNS = {
    "ones": (lambda: Ones(3), True),
    "causal": (lambda: Causal(3, reverse=True), True),
    "decay": (lambda: ExponentialDecay(0.5, 3), True),
    "dense": (lambda: Dense(np.eye(3)), True),
    "dense-signed": (lambda: Dense(SIGNED), False),
    "dense-rounded": (lambda: Dense(np.eye(3) - 1e-9), True),
    "dense-negative": (lambda: Dense(-np.ones((2, 2))), False),
    "dense-nan": (lambda: Dense(np.full((2, 2), np.nan)), None),
    "dense-large": (lambda: Dense(-ops.ones((1001, 1001))), None),
    "dense-exp": (lambda: DenseExp(-np.ones((2, 2))), True),
    "toeplitz": (lambda: Toeplitz([1.0, 0.5], [1.0, 0.0]), True),
    "toeplitz-signed": (lambda: Toeplitz([1.0, 0.5], [1.0, -0.1]), False),
    "separable": (lambda: BlockToeplitz([[np.ones(3)] * 2], (2, 2)), True),
    "separable-signed": (
        lambda: BlockToeplitz([[np.ones(3), -np.ones(3)]], (2, 2)),
        False,
    ),
    "separable-twice": (
        lambda: BlockToeplitz([[-np.ones(3), -np.ones(3)]], (2, 2)),
        True,
    ),
    "torus": (lambda: Torus(np.eye(3), (3, 3)), True),
    "torus-signed": (lambda: Torus(-np.eye(3), (3, 3)), False),
    "low-rank": (lambda: LowRank(np.eye(3)), True),
    "low-rank-signed": (lambda: LowRank(SIGNED), None),
    "pairs": (lambda: SparsePairs(PAIR, [1.0, 0.0], 2), True),
    "pairs-signed": (lambda: SparsePairs(PAIR, [1.0, -1.0], 2), False),
    "pairs-twice": (
        lambda: SparsePairs(PAIR + PAIR, [2.0, 1.0, -1.0, 1.0], 2),
        None,
    ),
    "pairs-padded": (
        lambda: SparsePairs(PAIR + PAIR, [2.0, -1.0, 0.0, 0.0], 2),
        False,
    ),
    "no-pairs": (lambda: SparsePairs(np.zeros((0, 2)), np.zeros(0), 2), None),
    "forest-exponential": (lambda: ForestExponential([-1, 0, 1]), True),
    "forest": (lambda: ForestDistance([-1, 0, 1], rational(1.0)), True),
    "forest-signed": (
        lambda: ForestDistance([-1, 0], lambda d: 1 - 2 * d),
        False,
    ),
    # Three nodes in a row have no distance 3, and with these weights none of 1.
    "forest-beyond": (
        lambda: ForestDistance([-1, 0, 1], np.array([1.0, 1.0, 1.0, -1.0])),
        True,
    ),
    "forest-between": (
        lambda: ForestDistance(
            [-1, 0, 1], [1.0, -1.0, 1.0, 1.0, -1.0, 1.0], [0, 2.0, 3.0]
        ),
        True,
    ),
    "forest-reached": (
        lambda: ForestDistance(
            [-1, 0, 1], [1.0, 1.0, -1.0, 1.0, 1.0, 1.0], [0, 2.0, 3.0]
        ),
        False,
    ),
    # Asked for beyond the longest path, where it is negative.
    "forest-triangle": (
        lambda: ForestDistance(
            [-1, 0, 1], lambda d: 1 - d / 4, [0, 2**0.5, 1.0]
        ),
        True,
    ),
    "diffusion": (lambda: GraphDiffusion(np.ones((2, 2))), True),
    "sum": (lambda: Ones(2) + Dense(np.eye(2)), True),
    "sum-signed": (lambda: Ones(2) + Dense(SIGNED), None),
    "scaled": (lambda: 0.5 * Ones(2), True),
    "scaled-signed": (lambda: Scaled(Ones(2), np.array([1.0, -1.0])), False),
    "scaled-twice": (lambda: -1.0 * Dense(SIGNED), None),
    "scaled-positive": (lambda: 2.0 * Dense(SIGNED), False),
    "scaled-zero": (lambda: 0.0 * Dense(SIGNED), None),
    "kronecker": (lambda: Kronecker([Ones(2), np.eye(2)]), True),
    "kronecker-signed": (lambda: Kronecker([Ones(2), SIGNED]), False),
    "kronecker-twice": (lambda: Kronecker([SIGNED, SIGNED]), None),
    "blocks": (lambda: BlockDiagonal([Ones(2), Dense(np.eye(2))]), True),
    "blocks-signed": (
        lambda: BlockDiagonal([LowRank(SIGNED), Dense(SIGNED)]),
        False,
    ),
    "bordered": (lambda: Bordered(Dense(SIGNED), 2), False),
    "hypercube": (lambda: hypercube(0.5, 5), True),
    "hypercube-signed": (lambda: hypercube(-0.5, 3), False),
    "torus-diffusion": (lambda: torus_diffusion(0.0, (64, 3)), True),
    "unknown": (lambda: MaskOperator((2, 2), "float32"), None),
}


@pytest.mark.parametrize("name", SIGNS)
def test_nonnegative(name):
    build, expected = SIGNS[name]
    assert build().nonnegative is expected


def test_nothing_is_known_of_traced_masks():
    found = {}

    def program(x):
        masks = {
            "dense": Dense(x),
            "forest": ForestDistance([-1, 0], x[0]),
            "separable": BlockToeplitz([[x[0], x[0]]], (2, 2)),
            "torus": Torus(x, (3, 3)),
            "sum": Dense(x) + Ones(3),
            "scaled": x[0, 0] * Ones(3),
            "exp": DenseExp(x),
        }
        found.update({name: m.nonnegative for name, m in masks.items()})
        return x

    ref.compiled(program)(ops.cast(-np.eye(3), "float32"))
    assert found.pop("exp") is True
    assert set(found.values()) == {None}


def attentions(mask, **options):
    """Each attention with a mask."""
    random = np.random.default_rng(0)
    features = random.uniform(size=(3, 1, 1, mask.num_tokens, 4))
    scores = features[:2, ..., :1]
    return {
        "linear": lambda: attention.masked_linear_attention(
            *features, mask, **options
        ),
        "softmax": lambda: attention.masked_softmax_attention(
            *features, mask, **options
        ),
        "additive": lambda: attention.masked_additive_attention(
            *scores, features[2], mask, **options
        ),
    }


@pytest.mark.few_on_jax("linear", "additive")
@pytest.mark.parametrize("name", ["linear", "softmax", "additive"])
def test_attention_refuses_masks_with_negative_entries(name):
    mask = Toeplitz([1.0, 0.5, 0.2, -0.1])
    with pytest.raises(ValueError, match="`mask` expects entries") as caught:
        attentions(mask)[name]()
    assert "Received: mask=Toeplitz" in str(caught.value)
    allowed = attentions(mask, allow_negative=True)[name]()
    # Unknown, in a sum, and the same.
    unknown = attentions(mask + 0.0 * Ones(4))[name]()
    ref.assert_close(allowed, ref.numpy(unknown), 1e-6)


# Errors.

ERRORS = {
    "torus-sizes": (
        lambda: Torus(np.ones((3, 4)), (4, 3)),
        r"`table` for the torus \(4, 3\)",
    ),
    "torus-rank": (lambda: Torus(np.ones(3), (3, 3)), "`table` expects"),
    "torus-grid": (lambda: Torus(np.ones(3), ()), "`grid_shape` expects"),
    "torus-method": (
        lambda: Torus(np.ones(3), (3,), "kronecker"),
        "`method` expects",
    ),
    "dimensions": (lambda: hypercube(0.5, -1), "`dimensions` expects"),
    "dimensions-float": (
        lambda: hypercube_diffusion(0.5, 2.0),
        "`dimensions` expects",
    ),
    "generator": (
        lambda: hypercube_diffusion(0.5, 2, "heat"),
        "`generator` expects one of",
    ),
    "time": (
        lambda: torus_diffusion([0.1, -1.0], 3),
        "`time` expects finite numbers that are not negative",
    ),
    "growth": (
        lambda: hypercube_diffusion(9.0, 10, "adjacency"),
        "`time` expects at most 8 on this graph",
    ),
    "growth-torus": (
        lambda: torus_diffusion(41.0, (5,), "adjacency"),
        "`time` expects at most 40 on this graph",
    ),
    "product": (lambda: cartesian_product([]), "`operators` expects"),
    "coefficients": (
        lambda: exponentiated_polynomial(1.0),
        "`coefficients` expects",
    ),
    "no-coefficients": (
        lambda: exponentiated_polynomial(np.zeros((2, 0))),
        "`coefficients` expects",
    ),
    "rational": (lambda: rational([1.0, -1.0]), "`a` expects"),
    "cosine": (lambda: damped_cosine(-1.0, 1.0), "`rate` expects"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    build, message = ERRORS[name]
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "Received: " in str(caught.value)
