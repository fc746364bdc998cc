"""What attention must not do with unusual masks, rates and padding."""

import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.attention import (
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.operators import (
    BlockDiagonal,
    BlockToeplitz,
    Bordered,
    Causal,
    ExponentialDecay,
    GatedDecay,
    Hadamard,
    Kronecker,
    Permuted,
    Toeplitz,
    curve_decay,
    hypercube,
)
from keras_topo.operators.forms import Problem, choose

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax


def qkv(length, features=3, width=4, batch=1, heads=1):
    random = np.random.default_rng(0)
    shape = (batch, heads, length)
    query, key = random.uniform(0.1, 1, (2, *shape, features))
    return query, key, random.normal(size=(*shape, width))


@pytest.mark.parametrize("width", [3, 4])
@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_compiled_functions_do_not_hide_negative_masks(attention, width):
    """Compiled functions cannot raise, so they return NaN."""
    function = {
        "linear": masked_linear_attention,
        "softmax": masked_softmax_attention,
    }[attention]
    arrays = [x.astype("float32") for x in qkv(3, width=width)]
    columns = [np.float32([1, -2, 0.5]), np.float32([1, 2, 0.5])]
    ones = np.ones(3, "float32")

    def kronecker(column):
        return Kronecker([Toeplitz(column), ExponentialDecay(0.1, 1)])

    def separable(column):
        return BlockToeplitz(
            [[ops.concatenate([column[:0:-1], column]), np.ones(1, "float32")]],
            (3, 1),
            method="kronecker",
        )

    def product(column):
        return Hadamard([Toeplitz(column), Causal(3)])

    def curves(column):
        return curve_decay((3, 1), np.float32([0.1]), ["rows"], column[1])

    # Not the class itself: compiled functions would treat it as an operator.
    made = (lambda column: Toeplitz(column), kronecker, separable, product)
    for make in (*made, curves)[:: 2 if ref.on_jax else 1]:
        with pytest.raises(ValueError, match="negative"):
            function(*arrays, make(columns[0]))
        run = ref.compiled(lambda c, m=make: function(*arrays, m(c)))
        assert np.isnan(ref.numpy(run(ref.tensor(columns[0])))).all()
        assert np.isfinite(ref.numpy(run(ref.tensor(columns[1])))).all()
        assert np.isfinite(ref.numpy(run(ref.tensor(ones)))).all()


def test_infinite_rates():
    """An infinite rate cuts off the past in rows, chunks, tiles, streams."""
    rates = np.array([0.1, np.inf, 0.2, 0.3])
    gated = GatedDecay(rates)
    masks = [
        gated,
        Kronecker([gated, gated]),
        ExponentialDecay(np.float64(np.inf), 4),
    ]
    # Each form of each compiles for seconds on JAX.
    for mask in masks[: 1 if ref.on_jax else 3]:
        dense = ref.dense(mask)
        assert np.isfinite(dense).all()
        arrays = qkv(mask.num_tokens)
        for form in mask.explain(3, 4).forms:
            y = masked_linear_attention(*arrays, mask, None, form.name)
            ref.assert_close(
                y, ref.linear_attention(*arrays, dense), 1e-12, form.name
            )
    one = GatedDecay(np.array([np.inf]), causal=True)
    for part in one.attend(*qkv(1), return_state=True):
        assert np.isfinite(ref.numpy(part)).all()


def test_half_precision_rates_of_long_sequences():
    decay = ExponentialDecay(ref.tensor(0.0, "float16"), 70000)
    assert (ref.numpy(decay.rows(0, 1)) == 1).all()


def test_padding_masks_of_numbers():
    """All numbers other than zero mean the same."""
    arrays = qkv(4, width=3)
    for function in (masked_linear_attention, masked_softmax_attention):
        wanted = function(*arrays, None, np.array([[True, True, True, False]]))
        found = function(*arrays, None, np.array([[2, 1, 7, 0]]))
        ref.assert_close(found, ref.numpy(wanted), 1e-12)
        for wrong in (np.ones((1, 1), bool), np.ones((1, 3), bool)):
            with pytest.raises(ValueError, match="padding_mask"):
                function(*arrays, None, wrong)


def test_tokens_that_see_nothing_get_zeros_by_fft():
    """They get exact zeros, not a quotient of rounding errors."""
    length = 512
    window = np.float32([1, 1, 1, 1] + [0] * (length - 4))
    mask = Toeplitz(window, method="fft")
    arrays = [x.astype("float32") for x in qkv(length)]
    padding = (np.arange(length) < 100)[None]
    for form in ("explicit", "columns"):
        y = masked_linear_attention(*arrays, mask, padding, form)
        assert (ref.numpy(y)[0, 0, 110:] == 0).all()


def test_fast_is_not_explicit_within_composites():
    for mask in (
        2.0 * Toeplitz(np.ones(5)),
        Bordered(Toeplitz(np.ones(5)), 1),
        BlockDiagonal([Toeplitz(np.ones(5))] * 2),
    ):
        problem = Problem(1, 1, mask.num_tokens, 3, 4)
        assert "explicit" not in choose(mask.forms(problem), "fast").name


def test_a_state_has_one_form():
    with pytest.raises(ValueError, match='`implementation` expects "auto"'):
        Causal(4).attend(*qkv(4), "explicit", return_state=True)


def attending(mask):
    return lambda query, key, value: masked_linear_attention(
        query, key, value, mask
    )


@pytest.mark.tensorflow_only
def test_queries_of_unknown_length():
    """The number of queries comes from the mask."""
    import tensorflow as tf

    order = np.array([2, 0, 1, 3])
    spec = tf.TensorSpec((1, 1, None, 3), "float64")
    arrays = qkv(4, width=3)
    for mask in (
        Permuted(Causal(4), order, np.argsort(order)),
        Bordered(Causal(3), 1),
        Toeplitz(np.ones(4)),
    ):
        run = tf.function(attending(mask), input_signature=[spec] * 3)
        expected = ref.linear_attention(*arrays, ref.dense(mask))
        ref.assert_close(run(*arrays), expected, 1e-12)


@pytest.mark.tensorflow_only
def test_operators_on_batches_of_unknown_size():
    import tensorflow as tf

    column = np.random.default_rng(1).uniform(size=(2, 1, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, 1, 3), "float64")])
    def rows(column):
        return BlockDiagonal([Toeplitz(column), Toeplitz(column)]).rows(3, 6)

    wanted = BlockDiagonal([Toeplitz(column), Toeplitz(column)]).rows(3, 6)
    ref.assert_close(rows(column), ref.numpy(wanted), 0)

    @tf.function(input_signature=[tf.TensorSpec((None, 1), "float64")])
    def cube(decay):
        return hypercube(decay, 2).to_dense()

    decay = np.array([[0.5], [0.2]])
    ref.assert_close(cube(decay), ref.numpy(hypercube(decay, 2).to_dense()), 0)
