"""`keras_topo.testing` finds what is wrong, and says which check did."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.operators import Causal, Dense, ExponentialDecay, MaskOperator
from keras_topo.testing import run_layer_test, run_operator_test
from keras_topo.testing.layers import CHECKS


@keras.saving.register_keras_serializable(package="tests")
class Gate(keras.layers.Layer):
    """A correct layer with a weight, a `Dense` layer and a padding mask. Wrong
    layers derive from it."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = units

    def build(self, input_shape):
        self.dense = keras.layers.Dense(self.units, dtype=self.dtype_policy)
        self.dense.build(input_shape)
        self.gate = self.add_weight(name="gate", shape=(self.units,))

    def call(self, inputs, mask=None):
        x = self.dense(inputs)
        visible = ops.ones_like(x[..., :1])
        if mask is not None:
            visible = ops.cast(mask, x.dtype)[..., None]
        mean = ops.sum(x * visible, axis=1, keepdims=True)
        mean = mean / ops.sum(visible, axis=1, keepdims=True)
        return (x + mean) * self.gate

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def registered(layer):
    return keras.saving.register_keras_serializable(package="tests")(layer)


@registered
class ArrayInConfig(Gate):
    def get_config(self):
        return {**super().get_config(), "units": np.float32(self.units)}


@registered
class ForgottenInConfig(Gate):
    def __init__(self, units=4, extra=0, **kwargs):
        super().__init__(units, **kwargs)
        self.extra = extra

    def get_config(self):
        return {**super().get_config(), "extra": self.extra + 1}


@registered
class WrongShape(Gate):
    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


@registered
class MixesExamples(Gate):
    def call(self, inputs, mask=None):
        return super().call(inputs - ops.mean(inputs, axis=0), mask)


@registered
class IgnoresMask(Gate):
    def call(self, inputs, mask=None):
        return super().call(inputs)


@registered
class DropsPropagatedMask(Gate):
    def call(self, inputs, *, mask=None, inputs_mask=None):
        if (
            mask is not None
            and getattr(inputs, "_keras_mask", None) is not None
        ):
            mask = None
        return super().call(inputs, mask)


@registered
class Overflows(Gate):
    def call(self, inputs, mask=None):
        big = 1e5 * ops.ones_like(inputs)
        return super().call(inputs + (big - big), mask)


@registered
class NoGradient(Gate):
    def call(self, inputs, mask=None):
        return super().call(inputs, mask) + ops.stop_gradient(self.gate)

    def build(self, input_shape):
        super().build(input_shape)
        self.idle = self.add_weight(name="idle", shape=(1,))


@registered
class KeepsNumbers(Gate):
    """It keeps numbers outside of weights and config."""

    def build(self, input_shape):
        super().build(input_shape)
        self.noise = np.random.default_rng().normal(size=self.units)

    def call(self, inputs, mask=None):
        return super().call(inputs, mask) + self.noise.astype("float32")


OPTIONS = {
    "input_shape": (2, 5, 3),
    "unknown_axes": (1,),
    "padding_mask": np.arange(5) < np.array([[5], [3]]),
    "policies": ("float32", "mixed_float16"),
}


@pytest.mark.slow_on_jax
def test_a_layer_as_it_should_be():
    # Its `Dense` layer is made in `build`, where it forgets quantization.
    run_layer_test(Gate, {"units": 4}, skip=("quantized_file",), **OPTIONS)


@pytest.mark.few_on_jax("MixesExamples-batch", "NoGradient-gradients")
@pytest.mark.parametrize(
    "layer, check",
    [
        (ArrayInConfig, "config"),
        (ForgottenInConfig, "config"),
        (WrongShape, "shapes"),
        (MixesExamples, "batch"),
        (IgnoresMask, "padding"),
        (DropsPropagatedMask, "propagated_mask"),
        (Overflows, "policies"),
        (NoGradient, "gradients"),
        (KeepsNumbers, "unknown_axes"),
        (Gate, "quantized_file"),
    ],
)
def test_what_is_wrong_with_a_layer(layer, check):
    message = f"{layer.__name__}, check of {check}"
    with pytest.raises(AssertionError, match=message):
        run_layer_test(layer, {"units": 4}, **OPTIONS)


EYES = np.eye(2, dtype=bool)


@pytest.mark.parametrize("axes", [(-2,), range(1, 2), [np.int64(1)]])
def test_ways_to_name_axes(axes):
    shape = (np.int64(2), 3, 4)
    layer, options = keras.layers.Dense, {"units": 2}
    most = [name for name in CHECKS if name != "unknown_axes"]
    run_layer_test(layer, options, shape, unknown_axes=axes, skip=most)


@registered
class OfKnownSize(keras.layers.Layer):
    """It fails where it does not know how many tokens there are."""

    def build(self, input_shape):
        self.places = self.add_weight(name="places", shape=input_shape[1:])

    def call(self, inputs):
        return inputs + self.places


@pytest.mark.parametrize("axes", [(1,), (-2,)])
def test_axes_of_several_inputs_are_hidden(axes):
    x = np.ones((2, 3, 4), "float32")
    most = [name for name in CHECKS if name != "unknown_axes"]
    for inputs, hidden in ((x, axes), ((x,), (axes,))):
        with pytest.raises(AssertionError, match="check of unknown_axes"):
            run_layer_test(
                OfKnownSize, {}, inputs=inputs, unknown_axes=hidden, skip=most
            )


@registered
class NotAlone(Gate):
    def call(self, inputs, mask=None):
        if inputs.shape[0] == 1:
            raise ValueError("two are company")
        return super().call(inputs, mask)


def test_an_error_names_the_check():
    most = [name for name in CHECKS if name != "batch"]
    with pytest.raises(
        AssertionError, match="(?s)batch.*ValueError: .*company"
    ):
        run_layer_test(NotAlone, {}, (2, 5, 3), skip=most)


def test_failures_are_raised_by_optimized_python_too():
    program = (
        "import numpy as np\n"
        "from keras_topo.testing.comparison import assert_close\n"
        "assert_close(np.ones(3), np.zeros(3), 0.1)"
    )
    found = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, text=True
    )
    assert found.returncode == 1 and "relative error" in found.stderr


def test_one_name_instead_of_several():
    names = {"policies": "float32", "skip": "jit"}
    run_layer_test(keras.layers.Dense, {"units": 2}, (2, 3), **names)


def test_arguments_of_layer_tests():
    for wrong, name in (
        ({}, "input_shape"),
        ({"input_shape": (2, 3), "inputs": np.ones((2, 3))}, "input_shape"),
        ({"input_shape": (2, 3), "skip": ("speed",)}, "skip"),
        ({"input_shape": (2, 3), "policies": ("int8",)}, "policies"),
        ({"input_shape": (None, 3)}, "input_shape"),
        ({"input_shape": (2, 3), "unknown_axes": 1}, "unknown_axes"),
        ({"input_shape": (2, 3), "unknown_axes": (2,)}, "unknown_axes"),
        ({"inputs": (np.ones((2, 3)),), "unknown_axes": (1,)}, "unknown_axes"),
        (
            {"inputs": (np.ones((2, 3)),), "unknown_axes": ((7,),)},
            "unknown_axes",
        ),
        (
            {"inputs": {"x": np.ones((2, 3))}, "unknown_axes": (1,)},
            "unknown_axes",
        ),
        (
            {"inputs": {"x": np.ones((2, 3))}, "unknown_axes": {"x": (2,)}},
            "unknown_axes",
        ),
        ({"inputs": np.ones((2, 3, 4)), "padding_mask": EYES}, "padding_mask"),
    ):
        with pytest.raises(ValueError, match=f"`{name}`.*Received: "):
            run_layer_test(keras.layers.Dense, {"units": 2}, **wrong)


def decay(rate):
    steps = abs(np.arange(5)[:, None] - np.arange(5))
    return np.exp(-rate[..., None, None] * steps)


RATE = [np.array([0.3, 0.7])]


@pytest.mark.slow_on_jax
def test_operators_as_they_should_be():
    def constant(dtype):
        assert isinstance(dtype, str)
        return Causal(4, dtype=dtype)

    run_operator_test(
        constant,
        lambda: np.tril(np.ones((4, 4))),
        make_piece=lambda start, stop, dtype: Causal(stop - start, dtype=dtype),
    )
    run_operator_test(lambda rate: ExponentialDecay(rate, 5), decay, RATE)
    run_operator_test(
        lambda rate: ExponentialDecay(rate, 5, causal=True),
        lambda rate: np.tril(decay(rate)),
        RATE,
        make_piece=lambda start, stop, rate: ExponentialDecay(
            rate, stop - start, causal=True
        ),
    )


class Wrong(MaskOperator):
    """A dense mask, with a mistake."""

    _fields = ("matrix",)

    def __init__(self, matrix):
        self.matrix = ops.convert_to_tensor(matrix)
        super().__init__(self.matrix.shape, self.matrix.dtype)

    def _apply(self, x):
        return Dense(self.matrix).apply(x)

    def _transpose(self):
        return type(self)(ops.swapaxes(self.matrix, -1, -2))


class NotTransposed(Wrong):
    def _transpose(self):
        return self


class NoGradientOfIt(Wrong):
    def _apply(self, x):
        return Dense(ops.stop_gradient(self.matrix)).apply(x)


class AlmostZero(Wrong):
    def _rows(self, start, size):
        return super()._rows(start, size) + 1e-13


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    "kind, message",
    [
        (NotTransposed, "methods in float64.*transposed product"),
        (NoGradientOfIt, "methods in float64.*gradient 0"),
        (AlmostZero, "zeros"),
    ],
)
def test_what_is_wrong_with_an_operator(kind, message):
    matrix = np.tril(np.random.default_rng(0).uniform(0.5, 1, (4, 4)))
    triangle = np.tril(np.ones((4, 4)))
    with pytest.raises(AssertionError, match=f"{kind.__name__}.*{message}"):
        run_operator_test(
            lambda m: kind(m * ref.tensor(triangle, m.dtype)),
            lambda m: m * triangle,
            [matrix],
        )


@pytest.mark.slow_on_jax
def test_state_without_pieces():
    with pytest.raises(ValueError, match="`make_piece`.*Received: None"):
        run_operator_test(
            lambda dtype: Causal(3, dtype=dtype),
            lambda: np.tril(np.ones((3, 3))),
        )
