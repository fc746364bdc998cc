"""SparseFactors: what it refuses, traced entries, attention, memory.

Products, rows and gradients are in `test_contract.py`.
"""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.attention import masked_linear_attention
from keras_topo.graphs import diffusion_modulation, graph_random_features
from keras_topo.operators import LowRank, SparseFactors

PAIRS = np.array([[0, 0], [1, 0], [1, 1], [2, 2]], "int32")
VALUES = np.array([1.0, 2.0, 1.0, -3.0], "float32")

ERRORS = {
    "triples": (
        lambda: SparseFactors(np.zeros((4, 3), int), VALUES, 3),
        r"`pairs` expects the shape.*Received: pairs of shape \(4, 3\)",
    ),
    "batch of pairs": (
        lambda: SparseFactors(PAIRS[None], VALUES, 3),
        r"`pairs` expects the shape \(entries, 2\).*Received",
    ),
    "counts": (
        lambda: SparseFactors(PAIRS, VALUES[:3], 3),
        r"`pairs` expects.*values of shape \(3,\)",
    ),
    "right counts": (
        lambda: SparseFactors(PAIRS, VALUES, 3, 3, PAIRS, VALUES[:3]),
        r"`right_pairs` expects.*right_values of shape \(3,\)",
    ),
    "right alone": (
        lambda: SparseFactors(PAIRS, VALUES, 3, right_pairs=PAIRS),
        "come together. Received: right_pairs alone",
    ),
    "right values alone": (
        lambda: SparseFactors(PAIRS, VALUES, 3, right_values=VALUES),
        "come together. Received: right_values alone",
    ),
    "token": (
        lambda: SparseFactors(PAIRS, VALUES, 2, 3),
        "`pairs` expects ids of tokens from 0 to 1. Received: 2",
    ),
    "feature": (
        lambda: SparseFactors(PAIRS, VALUES, 3, 2),
        "`pairs` expects ids of features from 0 to 1. Received: 2",
    ),
    "negative": (
        lambda: SparseFactors(PAIRS, VALUES, 3, 3, -PAIRS, VALUES),
        "`right_pairs` expects ids of tokens from 0 to 2. Received: -2",
    ),
    "floats": (
        lambda: SparseFactors(PAIRS + 0.5, VALUES, 4),
        "`pairs` expects integers. Received: pairs of dtype float64",
    ),
    "tokens": (
        lambda: SparseFactors(PAIRS, VALUES, 0),
        "`num_nodes` expects a positive int. Received: num_nodes=0",
    ),
    "features": (
        lambda: SparseFactors(PAIRS, VALUES, 3, 0),
        "`num_features` expects a positive int. Received: num_features=0",
    ),
    "batch": (
        lambda: SparseFactors(
            PAIRS, ops.ones((2, 4)), 3, 3, PAIRS, ops.ones((3, 4))
        ),
        "Batch axes of operators must broadcast",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    build, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        build()


def dense(pairs, values, tokens, features):
    matrix = np.zeros((tokens, features))
    np.add.at(matrix, tuple(np.asarray(pairs).T), values)
    return matrix


def test_no_entries():
    mask = SparseFactors(np.zeros((0, 2), "int32"), np.zeros(0, "float32"), 3)
    ref.assert_close(mask.to_dense(), np.zeros((3, 3)), 0)
    assert mask.cost(1) < SparseFactors(PAIRS, VALUES, 3).cost(1)


def test_dtype_is_the_wider_one():
    mask = SparseFactors(
        PAIRS, ops.cast(VALUES, "bfloat16"), 3, 3, PAIRS, VALUES
    )
    factor = dense(PAIRS, VALUES, 3, 3)
    assert mask.dtype == mask.T.dtype == "float32"
    ref.assert_close(mask.to_dense(), factor @ factor.T, 1e-6)


def test_entries_are_inputs_of_a_compiled_function():
    """Other walks without another compilation; the pairs may be a variable."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2)).astype("float32")

    def product(pairs, values, x):
        return SparseFactors(pairs, values, 5) @ x

    function = ref.compiled(product)
    for _ in range(2):
        pairs = rng.integers(0, 5, (9, 2)).astype("int32")
        values = rng.normal(size=9).astype("float32")
        factor = dense(pairs, values, 5, 5)
        ref.assert_close(
            function(*map(ops.convert_to_tensor, (pairs, values, x))),
            factor @ (factor.T @ x),
            1e-5,
        )
        variable = keras.Variable(pairs, dtype="int32", trainable=False)
        ref.assert_close(
            product(variable, values, x), factor @ (factor.T @ x), 1e-5
        )


@pytest.mark.tensorflow_only
def test_unknown_numbers_of_entries_and_examples():
    """What a function that is traced once for all sizes sees."""
    import tensorflow as tf

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 2), tf.int32),
            tf.TensorSpec((1, 2, None)),
            tf.TensorSpec((None, 2, 3, 4)),
        ]
    )
    def product(pairs, values, x):
        mask = SparseFactors(pairs, values, 3)
        assert 0 < mask.cost(1) < np.inf
        return mask @ x, mask.rows(1, 3)

    values = np.stack([VALUES, 2 * VALUES])[None]
    x = np.random.default_rng(0).normal(size=(5, 2, 3, 4))
    y, rows = product(PAIRS, values, x.astype("float32"))
    factor = dense(PAIRS, VALUES, 3, 3)
    matrix = np.stack([factor @ factor.T, 4 * factor @ factor.T])
    ref.assert_close(y, matrix @ x, 1e-5)
    ref.assert_close(rows, matrix[None, :, 1:], 1e-5)

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def batch_of_values(values):
        return SparseFactors(PAIRS, values, 3) @ tf.ones((3, 1))

    with pytest.raises(
        ValueError, match="`values` expects batch axes of known"
    ):
        batch_of_values(values[0])


def ring(nodes):
    matrix = np.eye(nodes, k=1) + np.eye(nodes, k=1 - nodes)
    return matrix + matrix.T


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("implementation", ["explicit", "fast"])
def test_attention_with_sampled_walks(implementation):
    """The modulation of the walks is learned a head, through `values`."""
    nodes, heads = 40, 2
    found = graph_random_features(ring(nodes), 8, 3)
    found = found.padded(found.capacity)
    modulation = np.stack([diffusion_modulation(t, 3) for t in (0.5, 2.0)])
    rng = np.random.default_rng(0)
    query, key = rng.uniform(0.1, 1, (2, 1, heads, nodes, 4))
    value = rng.normal(size=(1, heads, nodes, 3))
    upstream = rng.normal(size=value.shape)

    def attend(modulation, query, key, value, factors):
        if factors is None:
            values = ops.matmul(modulation, ref.tensor(found.values))
            mask = SparseFactors(found.pairs, values, nodes)
        else:
            mask = LowRank(ops.einsum("hl,lij->hij", modulation, factors))
        return masked_linear_attention(
            query, key, value, mask, implementation=implementation
        )

    tensors = [ref.tensor(t) for t in (modulation, query, key, value)]
    powers = ref.tensor([found.matrix(f).toarray() for f in np.eye(3)])

    def run(factors):
        def function(*tensors):
            return attend(*tensors, factors)

        return ref.with_gradients(function)(ref.tensor(upstream), *tensors)

    y, gradients = run(None)
    expected, expected_gradients = run(powers)
    ref.assert_close(y, expected, 1e-4)
    for found_gradient, gradient in zip(
        gradients, expected_gradients, strict=True
    ):
        ref.assert_close(found_gradient, gradient, 1e-3)


@pytest.mark.tensorflow_only
def test_gradients_in_blocks_of_entries(monkeypatch):
    """Those with respect to values gather a block of entries at a time."""
    from keras_topo._backend import tensorflow_sparse as backend

    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 6, (50, 2)).astype("int32")
    values, x, upstream = rng.normal(size=50), *rng.normal(size=(2, 6, 3))

    def gradients():
        return ref.with_gradients(
            lambda v, x: SparseFactors(pairs, v, 6, 6, pairs[::-1], 2 * v) @ x
        )(*(ref.tensor(t, "float64") for t in (upstream, values, x)))[1]

    whole = gradients()
    monkeypatch.setattr(backend, "ENTRY_BLOCK", 3 * 7)
    for one, other in zip(whole, gradients(), strict=True):
        ref.assert_close(other, one, 1e-12)


@pytest.mark.slow_on_jax
def test_large_products_hold_no_square():
    """200,000 tokens: a dense matrix would have 4e10 entries."""
    tokens, entries = 200_000, 1_000_000
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, tokens, (entries, 2)).astype("int32")
    values = rng.random(entries, "float32")
    x = rng.random((tokens, 2), "float32")
    y, (gradient, _) = ref.with_gradients(
        lambda v, x: SparseFactors(pairs, v, tokens) @ x
    )(ops.ones((tokens, 2)), *map(ops.convert_to_tensor, (values, x)))
    import scipy.sparse

    factor = scipy.sparse.csr_array((values, tuple(pairs.T)), (tokens,) * 2)
    inner = factor.T @ x
    ref.assert_close(y, factor @ inner, 1e-4)
    ones = np.ones_like(x)
    rows, columns = pairs.T
    wanted = inner[columns].sum(-1) + (
        (factor.T @ ones)[columns] * x[rows]
    ).sum(-1)
    ref.assert_close(gradient, wanted, 1e-4)
