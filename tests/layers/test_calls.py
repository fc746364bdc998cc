"""What layers make of calls and arguments that are easily got wrong."""

import inspect
import re

import numpy as np
import pytest
import reference as ref

from keras_topo import layers, models

B, N, C = 2, 6, 8
KERNEL = np.ones((N, N), "float32")
PARENTS = [-1, 0, 0, 1, 1, 2]


def inputs(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x.astype("float32")


# Every layer with `attention_weights`, and the shape of an example.
ATTENTION = {
    "toeplitz": (lambda: layers.ToeplitzAttention(2, 4), (2, 3, C)),
    "prefix": (
        lambda: layers.ToeplitzAttention(2, 4, num_prefix_tokens=1),
        (N, C),
    ),
    "masked": (lambda: layers.MaskedAttention(2, 4, mask="decay"), (2, 3, C)),
    "block": (lambda: layers.TopologicalEncoderBlock(2), (2, 3, C)),
    "linear": (
        lambda: layers.TopologicalEncoderBlock(2, attention="linear"),
        (N, C),
    ),
    "softmax": (
        lambda: layers.TopologicalEncoderBlock(2, attention="softmax"),
        (2, 3, C),
    ),
    "graph": (
        lambda: layers.GraphKernelAttention(2, 4, graph_kernel=KERNEL),
        (N, C),
    ),
    "forest": (lambda: layers.ForestAttention(2, 4, PARENTS), (N, C)),
    "graph-block": (
        lambda: layers.GraphEncoderBlock(2, graph_kernel=KERNEL),
        (N, C),
    ),
}


def test_every_layer_with_weights_is_here():
    made = {type(make()) for make, _ in ATTENTION.values()}
    found = map(vars(layers).get, layers.__all__)
    assert {x for x in found if hasattr(x, "attention_weights")} == made


@pytest.mark.few_on_jax("toeplitz", "graph")
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_weights_build_the_layer(name):
    make, shape = ATTENTION[name]
    x = inputs(B, *shape)
    layer = make()
    weights = ref.numpy(layer.attention_weights(x))
    tokens = int(np.prod(shape[:-1]))
    assert layer.built and weights.shape == (B, 2, tokens, tokens)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
    again = make()
    again(x)
    # Keras counts the masks.
    paths = [
        [re.sub(r"_\d+/", "/", w.path.split("/", 1)[1]) for w in x.weights]
        for x in (again, layer)
    ]
    assert paths[0] == paths[1]
    again.set_weights(layer.get_weights())
    ref.assert_close(again.attention_weights(x), weights, 1e-5)


MASKED = {
    **ATTENTION,
    "pooling": (lambda: layers.GraphPooling(), (N, C)),
    "propagation": (
        lambda: layers.GraphPropagation(graph_kernel=KERNEL),
        (N, C),
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_second_input_is_no_padding_mask(name):
    """As in `MultiHeadAttention()(query, value)`."""
    make, shape = MASKED[name]
    x = inputs(B, *shape)
    wrong = [x, x[..., 0].T, np.ones((B, N + 1)), np.ones((B + 1, N))]
    if len(shape) > 2:
        # As many elements as there are tokens.
        wrong += [np.ones((B, 3, 2)), np.ones((3, 4))]
    for mask in wrong:
        with pytest.raises(ValueError, match="`mask`.*Received: mask of shape"):
            make()(x, mask=mask)
    # By position; in graph layers that is the place of a kernel, and in
    # others of a second sequence.
    where = list(inspect.signature(make().call).parameters)[1]
    if where != "grid":
        with pytest.raises(ValueError, match=f"`?{where}.*Received: "):
            make()(x, x)


@pytest.mark.few_on_jax(
    "toeplitz", "prefix", "softmax", "graph", "forest", "pooling"
)
@pytest.mark.parametrize("name", MASKED)
def test_padding_masks_of_the_right_shape(name):
    make, shape = MASKED[name]
    layer, x = make(), inputs(B, *shape)
    visible = np.random.default_rng(1).uniform(size=(B, *shape[:-1])) < 0.7
    visible[..., 0] = True
    expected = ref.numpy(layer(x, mask=visible))
    same = [visible.astype("int32"), visible.astype("float32")]
    same.append(visible.reshape(B, -1))
    for mask in same:
        ref.assert_close(layer(x, mask=mask), expected, 1e-6)


@pytest.mark.parametrize(
    "name", ["toeplitz", "block", "softmax", "graph", "pooling"]
)
def test_a_second_input_is_refused_in_traced_functions(name):
    make, shape = MASKED[name]
    layer, x = make(), inputs(B, *shape)
    layer(x)
    call = ref.compiled(lambda x: layer(x, mask=x))
    with pytest.raises(ValueError, match="`mask`.*Received: mask of shape"):
        call(ref.tensor(x))


MASKED_KERNELS = {
    "random-walks": layers.RandomWalkKernel,
    "diffusion": layers.DiffusionKernel,
    "adjacency": layers.AdjacencyKernel,
    "log": layers.LogKernel,
}


@pytest.mark.few_on_jax("random-walks", "log")
@pytest.mark.parametrize("name", MASKED_KERNELS)
def test_masks_of_kernels(name):
    adjacency = np.ones((B, N, N), "float32")
    layer = MASKED_KERNELS[name]()
    layer(adjacency, mask=np.ones((B, N), bool))
    with pytest.raises(ValueError, match="`mask`.*Received: mask of shape"):
        layer(adjacency, mask=adjacency)


OPTIONAL = [
    (layers.ToeplitzAttention, "value_dim"),
    (layers.ToeplitzAttention, "num_features"),
    (layers.ToeplitzAttention, "output_shape"),
    (layers.ToeplitzAttention, "grid_shape"),
    (layers.ToeplitzAttention, "mask_grid_shape"),
    (layers.TopologicalEncoderBlock, "key_dim"),
    (layers.TopologicalEncoderBlock, "mlp_dim"),
    (layers.GraphEncoderBlock, "key_dim"),
    (layers.GraphEncoderBlock, "mlp_dim"),
    (layers.GraphKernelAttention, "value_dim"),
    (layers.GraphKernelAttention, "num_features"),
    (layers.GraphKernelAttention, "output_shape"),
    (layers.PositionEmbedding, "grid_shape"),
]


@pytest.mark.parametrize(
    ("layer", "name"), OPTIONAL, ids=lambda x: getattr(x, "__name__", x)
)
@pytest.mark.parametrize("value", [0, -1, 1.5, ()], ids=str)
def test_zero_is_not_the_default(layer, name, value):
    options = {"num_heads": 2, "key_dim": 4, "similarity": "favor"}
    known = inspect.signature(layer).parameters
    options = {k: v for k, v in options.items() if k in known}
    with pytest.raises(ValueError, match=f"`{name}`.*Received: "):
        layer(**{**options, name: value})


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (layers.TopologicalEncoderBlock, "num_heads"),
        (layers.GraphEncoderBlock, "num_heads"),
        (layers.TopologicalEncoderBlock, "dropout"),
        (layers.TopologicalEncoderBlock, "attention_dropout"),
        (layers.GraphEncoderBlock, "attention_dropout"),
    ],
)
def test_blocks_check_what_they_are_made_with(layer, name):
    value = 0 if name == "num_heads" else 1.0
    with pytest.raises(ValueError, match=f"`{name}`.*Received: "):
        layer(**{"num_heads": 2, name: value})


def test_other_arguments_of_zero():
    with pytest.raises(ValueError, match="`embed_dim`.*Received: "):
        layers.PatchEmbedding(0, 4)
    with pytest.raises(ValueError, match="`implementation`.*Received: "):
        layers.GraphKernelAttention(2, 4, implementation="slow")
    with pytest.raises(ValueError, match="`channels`.*Received: "):
        models.sgc(3, 2, KERNEL, channels=0)
    with pytest.raises(ValueError, match="`num_kernels`.*Received: "):
        models.gkat_graph_classifier(3, 2, num_kernels=0)
