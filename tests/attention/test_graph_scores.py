"""Softmax and additive attention: dense masks, pairs, dropout, padding."""

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.attention import (
    masked_additive_attention,
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.operators import Dense, DenseExp, SparsePairs, blocks

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

B, H, L, D = 2, 3, 7, 4
FUNCTIONS = {
    "softmax": (masked_softmax_attention, D),
    "additive": (masked_additive_attention, 1),
}
PLACES = {"shared": (), "per-example": (B, 1), "per-head": (B, H)}


def arrays(width, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(B, H, L, n)) for n in (width, width, D)]


def make_pairs(places, seed=0):
    """Pairs, one of them listed twice; row 5 has none."""
    random = np.random.default_rng(seed)
    pairs = random.integers(0, L, (*places, 20, 2))
    pairs[..., 0] = np.where(pairs[..., 0] == 5, 4, pairs[..., 0])
    pairs[..., 1, :] = pairs[..., 0, :]
    return pairs, random.uniform(0.1, 2.0, (B, H, 20))


def definition(name, q, k, v, mask):
    """In NumPy, row by row."""
    if name == "softmax":
        logits = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    else:
        logits = q + np.swapaxes(k, -1, -2)
        logits = np.where(logits > 0, logits, 0.2 * logits)
    scores = mask * np.exp(logits)
    total = scores.sum(-1, keepdims=True)
    return scores @ v / np.where(total == 0, 1, total)


def run(name, tensors, operator, jit=False, **options):
    function = FUNCTIONS[name][0]

    def program(tensors, mask_tensors):
        return function(
            *tensors, operator.with_tensors(mask_tensors), **options
        )

    program = ref.compiled(program) if jit else ref.staged(program)
    return program([ref.tensor(x) for x in tensors], operator.tensors())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize(
    "jit", [False, True][keras.backend.backend() == "jax" :]
)
def test_pairs_and_dense(name, places, jit):
    qkv = arrays(FUNCTIONS[name][1])
    pairs, values = make_pairs(PLACES[places])
    matrix = ref.sparse_pairs(np.broadcast_to(pairs, (B, H, 20, 2)), values, L)
    expected = definition(name, *qkv, matrix)
    assert (expected[:, :, 5] == 0).all()
    sparse = SparsePairs(pairs, ref.tensor(values), L)
    ref.assert_close(run(name, qkv, sparse, jit), expected, 1e-12, "pairs")
    dense = Dense(ref.tensor(matrix))
    ref.assert_close(run(name, qkv, dense, jit), expected, 1e-12, "dense")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("form", ["pairs", "dense"])
def test_padding_removes_keys(name, form):
    qkv = arrays(FUNCTIONS[name][1])
    pairs, values = make_pairs(())
    matrix = ref.sparse_pairs(np.broadcast_to(pairs, (B, H, 20, 2)), values, L)
    padding = np.ones((B, L), bool)
    padding[1, [2, 6]] = False
    visible = padding[:, None, None, :]
    expected = definition(name, *qkv, matrix * visible)
    operator = (
        SparsePairs(pairs, ref.tensor(values), L)
        if form == "pairs"
        else Dense(ref.tensor(matrix))
    )
    # Values at padded nodes have no effect.
    for x in qkv[1:]:
        x[1, :, [2, 6]] = np.inf
    actual = run(name, qkv, operator, padding_mask=ref.tensor(padding))
    ref.assert_close(actual, expected, 1e-12)


@pytest.mark.few_on_jax("softmax")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_pairs(name):
    """Gradients of all inputs equal those of the dense form."""
    qkv = arrays(FUNCTIONS[name][1])
    pairs, values = make_pairs(())
    upstream = np.random.default_rng(5).normal(size=(B, H, L, D))

    def gradients(operator_of):
        compute = ref.with_gradients(
            lambda q, k, v, w: FUNCTIONS[name][0](q, k, v, operator_of(w))
        )
        compute = ref.staged(compute)
        tensors = [ref.tensor(x) for x in (upstream, *qkv, values)]
        return compute(*tensors)[1]

    one_hot = np.zeros((20, L * L))
    one_hot[np.arange(20), pairs[:, 0] * L + pairs[:, 1]] = 1

    def dense(w):
        matrix = ops.matmul(w, ref.tensor(one_hot))
        return Dense(ops.reshape(matrix, (B, H, L, L)))

    found = gradients(lambda w: SparsePairs(pairs, w, L))
    for actual, expected in zip(found, gradients(dense), strict=True):
        ref.assert_close(actual, ref.numpy(expected), 1e-11)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_rows_do_not_underflow(scale):
    """The maximum is taken over the pairs of each row, not over all pairs."""
    q, k, v = arrays(D)
    pairs = np.stack([np.arange(L), np.arange(L)], 1)
    operator = SparsePairs(pairs, np.ones(L), L)
    out = run("softmax", [scale * q, scale * k, v], operator)
    ref.assert_close(out, v, 1e-12)


@pytest.mark.few_on_jax("pairs-additive", "dense-softmax")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("form", ["pairs", "dense"])
def test_dropout_of_scores(name, form):
    """Dropout is unbiased and removes a share of the scores."""
    q, k, _ = arrays(FUNCTIONS[name][1])
    value = np.broadcast_to(np.eye(L), (B, H, L, L))
    full = np.stack(np.divmod(np.arange(L * L), L), 1)
    operator = (
        SparsePairs(full, np.ones(L * L), L)
        if form == "pairs"
        else Dense(np.ones((L, L)))
    )
    expected = definition(name, q, k, value, np.ones((L, L)))
    seed = keras.random.SeedGenerator(3)
    tensors = [ref.tensor(x) for x in (q, k, value)]
    draws = [
        ref.numpy(
            FUNCTIONS[name][0](*tensors, operator, dropout=0.4, seed=seed)
        )
        for _ in range(60)
    ]
    share = np.mean([np.mean(d == 0) for d in draws])
    assert 0.37 < share < 0.43
    kept = draws[0] != 0
    np.testing.assert_allclose(
        draws[0][kept], (expected / 0.6)[kept], rtol=1e-5
    )


def test_blocks_of_rows(monkeypatch):
    """Additive scores do not depend on the blocks."""
    monkeypatch.setattr(blocks, "WHOLE_TOKENS", 2)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 3 * L * B * H)
    qkv = arrays(1)
    mask = np.random.default_rng(1).random((H, L, L))
    for operator in (
        Dense(ref.tensor(mask)),
        DenseExp(ref.tensor(np.log(mask))),
    ):
        ref.assert_close(
            run("additive", qkv, operator),
            definition("additive", *qkv, mask),
            1e-12,
        )


def test_linear_attention_with_pairs():
    """The same operator serves linear attention, fast and explicit."""
    q, k, v = [np.abs(x) for x in arrays(D)]
    for places in PLACES.values():
        pairs, values = make_pairs(places)
        matrix = ref.sparse_pairs(
            np.broadcast_to(pairs, (B, H, 20, 2)), values, L
        )
        scores = matrix * (q @ np.swapaxes(k, -1, -2))
        total = scores.sum(-1, keepdims=True)
        expected = scores @ v / np.where(total == 0, 1, total)
        for implementation in ("fast", "explicit"):
            actual = masked_linear_attention(
                *[ref.tensor(x) for x in (q, k, v)],
                SparsePairs(pairs, ref.tensor(values), L),
                implementation=implementation,
            )
            ref.assert_close(actual, expected, 1e-12)


ERRORS = {
    "scores": (
        lambda: masked_additive_attention(*[np.ones((1, 1, 3, 2))] * 3),
        "`query_scores`",
    ),
    "pairs": (lambda: SparsePairs([[0, 1, 2]], [1.0], 3), "`pairs`"),
    "values": (lambda: SparsePairs([[0, 1]], [1.0, 2.0], 3), "`values`"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    function, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        function()
