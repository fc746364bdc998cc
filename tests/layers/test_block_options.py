"""MLPs and factors of branches that published models have."""

import math

import keras
import numpy as np
import pytest
import scipy.special
from keras import ops

from keras_topo.layers import TopologicalEncoderBlock
from keras_topo.testing import run_layer_test

MLPS = {
    "gelu": lambda x: x * (1 + scipy.special.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: (
        x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    ),
    "quick_gelu": lambda x: x * scipy.special.expit(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "swiglu": lambda x: (
        x[..., :12] * scipy.special.expit(x[..., :12]) * x[..., 12:]
    ),
}


def numbers(x):
    return ops.convert_to_numpy(x).astype("float64")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", MLPS)
@pytest.mark.few_on_jax("swiglu-False")
def test_mlp(activation, bias):
    block = TopologicalEncoderBlock(
        2,
        mlp_dim=12,
        attention="softmax",
        activation=activation,
        mlp_bias=bias,
        layer_scale=0.5,
    )
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    block(x)
    for weight in block.weights:
        noise = np.random.default_rng(1).normal(size=weight.shape)
        weight.assign(weight + 0.3 * noise)
    assert (block.mlp_hidden.bias is not None) == bias
    assert (block.mlp_output.bias is not None) == bias

    def dense(x, layer):
        y = x @ numbers(layer.kernel)
        return y if layer.bias is None else y + numbers(layer.bias)

    y = numbers(block.attention(*2 * [block.attention_norm(x)]))
    middle = x + numbers(block.attention_scale) * y
    y = numbers(block.mlp_norm(middle.astype("float32")))
    y = dense(MLPS[activation](dense(y, block.mlp_hidden)), block.mlp_output)
    expected = middle + numbers(block.mlp_scale) * y
    np.testing.assert_allclose(block(x), expected, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_the_contract():
    run_layer_test(
        TopologicalEncoderBlock,
        {
            "num_heads": 2,
            "mlp_dim": 12,
            "mask": "decay",
            "activation": "swiglu",
            "mlp_bias": False,
            "layer_scale": 0.1,
        },
        input_shape=(2, 4, 4, 8),
    )


@pytest.mark.slow_on_jax
def test_streams_have_the_factors_too():
    block = TopologicalEncoderBlock(
        2, mask="decay", causal=True, layer_scale=0.3, activation="swiglu"
    )
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype("float32")
    whole = block(x)
    state = block.initial_state(1)
    _, state = block.extend(x[:, :5], state)
    last, _ = block.step(x[:, 5], state)
    np.testing.assert_allclose(last, whole[:, 5], rtol=0, atol=1e-5)


@pytest.mark.slow_on_jax
def test_defaults_are_as_before():
    block = TopologicalEncoderBlock(2, mask="decay")
    block.build((None, 4, 4, 8))
    assert block.attention_scale is None and block.mlp_scale is None
    config = block.get_config()
    for name in ("activation", "mlp_bias", "layer_scale"):
        # Configurations of earlier versions do not have them.
        config.pop(name)
    old = TopologicalEncoderBlock.from_config(config)
    old.build((None, 4, 4, 8))
    assert [w.path for w in old.weights] == [w.path for w in block.weights]
    assert old.activation == "gelu"


@pytest.mark.parametrize("activation", ["geglu", None, np.tanh])
def test_refusals(activation):
    with pytest.raises(ValueError, match="`activation` expects"):
        TopologicalEncoderBlock(2, activation=activation)


@pytest.mark.slow_on_jax
def test_a_file_of_it(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((4, 4, 8)),
            TopologicalEncoderBlock(
                2, activation="gelu_tanh", layer_scale=0.1, mlp_bias=False
            ),
        ]
    )
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.random.rand(1, 4, 4, 8)
    np.testing.assert_array_equal(model(x), again(x))
