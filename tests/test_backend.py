"""What `keras_topo._backend` adds to `keras.ops`."""

import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo._backend import divide, update_axis
from keras_topo.attention import (
    get_feature_map,
    masked_linear_attention,
    masked_softmax_attention,
)
from keras_topo.layers import ToeplitzAttention
from keras_topo.operators import Toeplitz


def quotient(seed, exponent):
    """Rows and totals around `10^exponent`, as attention divides them."""
    random = np.random.default_rng(seed)
    total = 10.0**exponent * random.uniform(1, 10, (3, 4, 1))
    return total * random.normal(size=(3, 4, 5)), total


@pytest.mark.parametrize("compile_it", [False, True], ids=["eager", "xla"])
@pytest.mark.parametrize("exponent", [-30, -22, 0, 22, 30])
def test_divide_over_the_range_of_float32(exponent, compile_it):
    x, total = quotient(0, exponent)
    upstream = np.random.default_rng(1).normal(size=x.shape)
    compute = ref.with_gradients(divide)
    if compile_it:
        compute = ref.compiled(compute)
    arrays = [ref.tensor(a.astype("float32")) for a in (upstream, x, total)]
    y, (dx, dtotal) = compute(*arrays)
    ref.assert_close(y, x / total, 1e-6)
    ref.assert_close(dx, upstream / total, 1e-6)
    expected = -(upstream * x / total**2).sum(-1, keepdims=True)
    ref.assert_close(dtotal, expected, 1e-5)


def test_second_derivatives_of_divide():
    x, total = quotient(2, 0)
    weights = np.random.default_rng(3).normal(size=x.shape)

    def gradient(x, total):
        compute = ref.with_gradients(divide)
        _, (_, dtotal) = compute(ref.tensor(weights), x, total)
        return dtotal

    compute = ref.with_gradients(gradient)
    ones = ref.tensor(np.ones(total.shape))
    _, (dx, dtotal) = compute(ones, ref.tensor(x), ref.tensor(total))
    # Of -sum(w x) / t^2 in each row.
    ref.assert_close(dx, -weights / total**2, 1e-10)
    expected = 2 * (weights * x).sum(-1, keepdims=True) / total**3
    ref.assert_close(dtotal, expected, 1e-10)


def test_divide_in_forward_mode():
    """The way JAX computes a Hessian-vector product."""
    jax = pytest.importorskip("jax")
    if not ref.on_jax:
        pytest.skip("forward mode is for JAX")
    x, total = quotient(4, 0)
    _, tangent = jax.jvp(divide, (x, total), (0 * x, np.ones_like(total)))
    ref.assert_close(tangent, -x / total**2, 1e-10)
    assert ops.shape(tangent) == x.shape


@pytest.mark.parametrize("compile_it", [False, True], ids=["eager", "xla"])
def test_updates_have_gradients(compile_it):
    random = np.random.default_rng(0)
    x, update = random.normal(size=(2, 5, 3)), random.normal(size=(2, 2, 3))
    upstream = random.normal(size=x.shape)

    def write(x, update, start):
        return update_axis(x, update, start, 1)

    for start, place in ((1, 1), (4, 3)):
        expected, kept = x.copy(), upstream.copy()
        expected[:, place : place + 2] = update
        kept[:, place : place + 2] = 0
        compute = ref.with_gradients(lambda x, u, s=start: write(x, u, s))
        if compile_it:
            compute = ref.compiled(compute)
        y, (dx, dupdate) = compute(*map(ref.tensor, (upstream, x, update)))
        ref.assert_close(y, expected, 0)
        ref.assert_close(dx, kept, 0)
        ref.assert_close(dupdate, upstream[:, place : place + 2], 0)


def library_calls():
    """Calls of the library from a function of a user, by name."""
    x = np.random.default_rng(0).random((1, 6, 4)).astype("float32")
    layer = ToeplitzAttention(2, 2, mask="distance")
    layer(x)
    toeplitz = Toeplitz(np.ones(6, "float32"))
    q = ref.tensor(x[:, None])
    return {
        "layer": lambda: layer(x),
        "weights": lambda: layer.attention_weights(x),
        "mask": lambda: layer.mask_operator().to_dense(),
        "explicit": lambda: masked_linear_attention(
            q, q, q, toeplitz, implementation="explicit"
        ),
        "fast": lambda: masked_linear_attention(
            q, q, q, toeplitz, implementation="fast"
        ),
        "softmax": lambda: masked_softmax_attention(q, q, q, toeplitz),
        "product": lambda: toeplitz.matmul(q),
        "sum": lambda: (toeplitz + toeplitz).rows(0, 2),
        "features": lambda: get_feature_map("relu")(q),
    }


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "name",
    [
        "layer",
        "weights",
        "mask",
        "explicit",
        "fast",
        "softmax",
        "product",
        "sum",
        "features",
    ],
)
def test_autograph_leaves_the_library_as_it_is(name, monkeypatch):
    """Converting it would make the first trace a hundred times as long."""
    import tensorflow as tf
    from tensorflow.python.autograph.impl import api

    converted = []
    convert = api._convert_actual

    def watched(entity, context):
        converted.append(getattr(entity, "__module__", ""))
        return convert(entity, context)

    monkeypatch.setattr(api, "_convert_actual", watched)
    call = library_calls()[name]
    expected = ref.numpy(call())

    @tf.function
    def users_function(twice):
        y = call()
        if twice:
            y = 2.0 * y
        return y

    y = users_function(tf.constant(True))
    # User code is converted: the branch is part of the graph.
    assert __name__ in converted
    assert not [m for m in converted if m.startswith("keras_topo")]
    ref.assert_close(y, 2 * expected, 1e-5)


@pytest.mark.tensorflow_only
def test_errors_in_a_traced_function_are_those_of_the_library():
    import tensorflow as tf

    q = ref.tensor(np.ones((1, 1, 6, 4), "float32"))

    @tf.function
    def users_function(q):
        return masked_linear_attention(q, q, q[:, :, :3])

    with pytest.raises(ValueError, match="`query_features` and.*Received: "):
        users_function(q)
