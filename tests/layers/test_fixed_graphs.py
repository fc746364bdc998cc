"""A layer that is made for one graph answers for that graph alone."""

import keras
import numpy as np
import pytest
import reference as ref
import scipy.sparse

from keras_topo import layers

NODES, CHANNELS = 6, 4
ADJACENCY = np.zeros((NODES, NODES))
for a, b in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3)]:
    ADJACENCY[a, b] = ADJACENCY[b, a] = 1.0
KERNEL = ADJACENCY + np.eye(NODES)
PARENTS = [-1, 0, 0, 1, 1, 2]

GRAPHS = {
    "dense": lambda: KERNEL,
    "kernels": lambda: np.stack([KERNEL, KERNEL**2]),
    "sparse": lambda: scipy.sparse.csr_array(KERNEL),
    "factors": lambda: {"factors": np.random.rand(NODES, 3)},
    "forest": lambda: layers.ForestMask(PARENTS),
    "table": lambda: layers.ForestMask(PARENTS, function="table"),
    "diffusion": lambda: layers.DiffusionMask(ADJACENCY),
    "random-walks": lambda: layers.RandomWalkMask(ADJACENCY),
}

LAYERS = {
    "softmax": lambda graph: layers.GraphKernelAttention(
        2, 3, graph_kernel=graph
    ),
    "relu": lambda graph: layers.GraphKernelAttention(
        2, 3, similarity="relu", graph_kernel=graph
    ),
    "additive": lambda graph: layers.GraphKernelAttention(
        2, 3, similarity="additive", graph_kernel=graph
    ),
    "block": lambda graph: layers.GraphEncoderBlock(2, graph_kernel=graph),
    "propagation": lambda graph: layers.GraphPropagation(graph_kernel=graph),
}

# Every graph in one layer, and every layer on one graph.
CASES = [(graph, "relu") for graph in GRAPHS]
CASES += [("dense", layer) for layer in LAYERS if layer != "relu"]
CASES += [("sparse", "softmax"), ("sparse", "propagation")]


def model_of(graph, layer, size=None):
    """A model whose input allows any number of nodes."""
    return keras.Sequential(
        [
            keras.Input((size, CHANNELS), name="nodes"),
            LAYERS[layer](GRAPHS[graph]()),
        ]
    )


def nodes(count):
    return np.random.default_rng(0).normal(size=(2, count, CHANNELS))


@pytest.mark.few(
    "dense-relu",
    "dense-additive",
    "dense-block",
    "forest-relu",
    "sparse-softmax",
    "sparse-propagation",
    "diffusion-relu",
    "factors-relu",
    "table-relu",
)
@pytest.mark.few_on_jax("dense-relu", "sparse-softmax")
@pytest.mark.parametrize(("graph", "layer"), CASES)
def test_other_numbers_of_nodes_are_refused(graph, layer):
    model = model_of(graph, layer)
    expected = ref.numpy(model(nodes(NODES)))
    assert expected.shape[:2] == (2, NODES)
    # A traced function of any number of nodes.
    found = model.predict(nodes(NODES), verbose=0)
    ref.assert_close(found, expected, 1e-5)
    for count in (9, 12, 4, 1):
        with pytest.raises(ValueError, match=f"of 6 nodes.*2, {count}, 4"):
            model(nodes(count))
    # The last call of the model: it breaks the state of Keras on JAX.
    with pytest.raises(Exception, match="6") as caught:
        model.predict(nodes(9), verbose=0)
    assert "9" in str(caught.value)


def test_forest_attention_refuses_other_numbers_of_nodes():
    layer = layers.ForestAttention(2, 3, PARENTS)
    model = keras.Sequential([keras.Input((None, CHANNELS)), layer])
    assert model.predict(nodes(NODES), verbose=0).shape == (2, NODES, CHANNELS)
    with pytest.raises(Exception, match="6"):
        model.predict(nodes(9), verbose=0)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    ("graph", "layer"),
    [("dense", "softmax"), ("sparse", "relu"), ("forest", "relu")],
)
def test_traced_functions_refuse_them_when_they_run(graph, layer, jit_compile):
    import tensorflow as tf

    model = model_of(graph, layer)
    call = tf.function(
        model,
        input_signature=[tf.TensorSpec((None, None, CHANNELS))],
        jit_compile=jit_compile,
    )
    expected = ref.numpy(model(nodes(NODES)))
    ref.assert_close(call(nodes(NODES)), expected, 1e-5)
    for count in (9, 4):
        with pytest.raises((tf.errors.OpError, ValueError)):
            call(nodes(count))


@pytest.mark.tensorflow_only
def test_the_number_of_nodes_is_known_afterwards():
    import tensorflow as tf

    layer = LAYERS["softmax"](KERNEL)
    seen = []

    @tf.function(input_signature=[tf.TensorSpec((None, None, CHANNELS))])
    def call(x):
        y = layer(x)
        seen.append(y.shape)
        return y

    call(nodes(NODES))
    assert seen[0].as_list() == [None, NODES, CHANNELS]
