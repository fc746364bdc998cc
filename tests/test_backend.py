"""What `keras_topo._backend` adds to `keras.ops`."""

import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo._backend import divide


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
    """As a Hessian times a vector is computed on JAX."""
    jax = pytest.importorskip("jax")
    if not ref.on_jax:
        pytest.skip("forward mode is for JAX")
    x, total = quotient(4, 0)
    _, tangent = jax.jvp(divide, (x, total), (0 * x, np.ones_like(total)))
    ref.assert_close(tangent, -x / total**2, 1e-10)
    assert ops.shape(tangent) == x.shape
