"""What a token attends to, as matrices and as pictures."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo import visualize
from keras_topo.graphs import Graph
from keras_topo.layers import (
    GraphKernelAttention,
    ToeplitzAttention,
    TopologicalEncoderBlock,
)
from keras_topo.models import topvit
from keras_topo.visualize.graphs import places_of

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

pytest.importorskip("matplotlib")


def applied(layer, weights, value):
    """`weights` times the values of each head, side by side."""
    found = np.einsum("bhij,bhjd->bihd", weights, ref.numpy(value))
    return found.reshape(*found.shape[:2], -1)


@pytest.mark.few_on_jax("2-table")
@pytest.mark.parametrize("mask", ["table", "separable", None])
@pytest.mark.parametrize("prefix", [0, 2])
def test_weights_on_a_grid_are_those_that_are_used(mask, prefix):
    layer = ToeplitzAttention(
        2, 3, mask=mask, grid_shape=(3, 5), num_prefix_tokens=prefix
    )
    x = np.random.default_rng(0).normal(size=(2, 15 + prefix, 8))
    x = x.astype("float32")
    padding = np.ones(x.shape[:2], bool)
    padding[1, -3:] = False
    output = ref.numpy(layer(x, mask=padding))
    weights = ref.numpy(layer.attention_weights(x, padding))
    assert weights.shape == (2, 2, 15 + prefix, 15 + prefix)
    ref.assert_close(weights.sum(-1), np.ones(weights.shape[:-1]), 1e-5)
    assert not weights[1, :, :, -3:].any()
    _, _, value = layer._project(ref.tensor(x))
    expected = layer.output_dense(applied(layer, weights, value))
    ref.assert_close(output, ref.numpy(expected), 1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("similarity", ["softmax", "additive", "relu"])
def test_weights_on_a_graph_are_those_that_are_used(similarity):
    layer = GraphKernelAttention(
        2, 3, similarity=similarity, combine="concatenate", use_bias=False
    )
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 7, 4)).astype("float32")
    kernel = random.uniform(0, 1, (2, 7, 7)).astype("float32")
    kernel[0, 3] = 0
    output = ref.numpy(layer(x, kernel))
    weights = ref.numpy(layer.attention_weights(x, kernel))
    sums = np.ones((2, 2, 7))
    sums[0, :, 3] = 0
    ref.assert_close(weights.sum(-1), sums, 1e-5)
    assert (weights >= 0).all()
    _, _, value = layer._project(ref.tensor(x))
    ref.assert_close(output, applied(layer, weights, value), 1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("pooling", ["gap", "token"])
@pytest.mark.parametrize(
    "attention",
    ["toeplitz"] if ref.on_jax else ["toeplitz", "linear", "softmax"],
)
def test_every_block_of_a_model(attention, pooling):
    model = topvit("mini", 4, (8, 12, 1), 3, attention, pooling=pooling)
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 12, 1))
    before = ref.numpy(model(images))
    weights = visualize.attention_weights(model, images)
    assert list(weights) == [f"block_{k}" for k in (1, 2, 3, 4)]
    tokens = 6 + (pooling == "token")
    for found in weights.values():
        assert found.shape == (2, 3, tokens, tokens)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    # The recording leaves no traces.
    assert all("call" not in vars(layer) for layer in model.layers)
    ref.assert_close(ref.numpy(model(images)), before, 1e-6)


@pytest.mark.slow_on_jax
def test_models_within_models():
    inner = keras.Sequential(
        [
            keras.Input((4, 6)),
            TopologicalEncoderBlock(2, attention="linear", name="block"),
        ],
        name="inner",
    )
    inputs = keras.Input((4, 6))
    x = TopologicalEncoderBlock(2, name="block")(inputs)
    model = keras.Model(inputs, inner(x))
    weights = visualize.attention_weights(model, np.ones((1, 4, 6)))
    assert set(weights) == {"block", "inner/block"}


def test_rows_of_masks():
    model = topvit("mini", 4, (8, 12, 1), 3, pooling="token")
    rows = visualize.mask_rows(model, (1, 2))
    operator = model.get_layer("block_2").attention.mask_operator()
    dense = ref.numpy(operator.to_dense())
    np.testing.assert_allclose(
        rows["block_2"], dense[:, 1 + 5, 1:].reshape(3, 2, 3), rtol=1e-6
    )
    assert not visualize.mask_rows(topvit(attention="softmax"), (0, 0))


def titles(figure):
    """The titles of the panels."""
    texts = [text.get_text() for text in figure.texts]
    others = ("head", "layer", figure.get_suptitle())
    return [text for text in texts if text not in others]


def maps(figure):
    """The color images of all panels, by layer and head."""
    axes = [axis for axis in figure.axes if axis.images and axis.lines]
    return [axis.images[0].get_array() for axis in axes]


@pytest.mark.slow_on_jax
def test_pictures_of_images():
    models = {
        "before": topvit("mini", 4, (8, 12, 1), 3),
        "after": topvit("mini", 4, (8, 12, 1), 3),
    }
    image = np.random.default_rng(0).uniform(0, 255, (8, 12, 1))
    figure = visualize.plot_attention(models, image, (1, 0))
    assert titles(figure) == ["before", "after"]
    shares = np.array(maps(figure))
    assert shares.shape == (2 * 4 * 3, 2, 3)
    assert (shares.max((1, 2)) == 1).all()
    weights = visualize.attention_weights(models["after"], image[None])
    row = weights["block_2"][0, 2, 3]  # Second layer, third head.
    np.testing.assert_allclose(
        shares[12 + 3 + 2].ravel(), row / row.max(), rtol=1e-5
    )
    assert visualize.plot_attention(models["after"], image)
    softmax = topvit("mini", 4, (8, 12, 1), 3, "softmax", pooling="token")
    assert visualize.plot_attention(softmax, image)
    assert visualize.plot_masks(softmax) is None
    assert len(titles(visualize.plot_masks(models))) == 4
    # Models without masks are left out, and grids may differ.
    larger = topvit("mini", 4, (16, 20, 1), 3)
    figure = visualize.plot_masks({"none": softmax, **models, "more": larger})
    assert len(titles(figure)) == 6
    assert [m.shape for m in maps(figure)] == [(2, 3)] * 48 + [(4, 5)] * 24
    assert visualize.plot_attention({"a": models["after"], "b": softmax}, image)
    one = visualize.plot_masks(models["after"], [(1, 2)])
    assert titles(one)[0] == "from row 2, column 3"


@pytest.mark.slow_on_jax
def test_pictures_of_graphs():
    """There is one color bar, of shares: factors of kernels do not matter."""
    pytest.importorskip("networkx")
    graph = Graph.from_edges([(0, 1), (1, 2)], 3)
    kernels = np.array([[[1, 2, 0], [2, 4, 2], [0, 2, 1]], np.eye(3) * 1e-3])
    figure = visualize.plot_kernels([graph], [kernels], ["path"], ["a", "b"])
    *panels, bar = figure.axes
    assert [axis.get_title() for axis in panels] == ["path, a", "path, b"]
    colors = [axis.collections[0].get_array() for axis in panels]
    np.testing.assert_allclose(colors, [[0.5, 1, 0.5], [0, 1, 0]])
    assert "largest" in bar.get_ylabel()

    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            GraphKernelAttention(2, 3, graph_kernel=kernels[0], name="hop"),
        ]
    )
    inputs = np.random.default_rng(0).normal(size=(1, 3, 2))
    figure = visualize.plot_graph_attention(
        {"before": model, "after": model}, graph, inputs, node=0
    )
    *panels, bar = figure.axes
    assert [axis.get_title() for axis in panels] == [
        f"{when}: hop, head {head}"
        for when in ("before", "after")
        for head in (1, 2)
    ]
    # Node 0 cannot attend to node 2.
    assert panels[0].collections[0].get_array()[2] == 0


def test_weights_are_no_distances():
    """A strong edge is not drawn longer than a weak one."""
    pytest.importorskip("networkx")
    ends = [[0, 1], [1, 2], [2, 3], [3, 4]]
    graph = Graph.from_edges(ends, 5, weights=[1.0, 1.0, 20.0, 1.0])
    places = places_of(graph)
    lengths = np.linalg.norm(np.diff(places, axis=0), axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=0.05)


def test_the_node_in_the_middle_of_a_directed_graph():
    pytest.importorskip("matplotlib")
    star = Graph.from_edges([[2, 0], [2, 1], [2, 3]], 4, directed=True)
    kernel = np.arange(16.0).reshape(1, 4, 4)
    figure = visualize.plot_kernels([star], [kernel], ["star"], ["a"])
    shares = figure.axes[0].collections[0].get_array()
    np.testing.assert_allclose(shares, np.arange(8, 12) / 11)


@pytest.mark.slow_on_jax
def test_errors():
    model = topvit("mini", 4, (8, 12, 1), 3)
    nodes = keras.Sequential(
        [
            keras.Input((3, 2)),
            GraphKernelAttention(2, 3, graph_kernel=np.eye(3)),
        ]
    )
    assert visualize.plot_masks(nodes) is None
    tokens = keras.Input((4, 4, 4))
    x = ToeplitzAttention(1, 2, mask="table")(
        keras.layers.Reshape((16, 4))(tokens)
    )
    volume = keras.Model(tokens, x)
    places = np.array([[0, 0], [1, 2]])
    assert len(visualize.plot_masks(model, places).axes) > 1
    with pytest.raises(ValueError, match="`models` expects models of images"):
        visualize.plot_attention(volume, np.zeros((4, 4, 4)), (0, 0))
    with pytest.raises(ValueError, match="`token`"):
        visualize.plot_attention(model, np.zeros((8, 12, 1)), 1)
    image = np.zeros((8, 12, 1))
    with pytest.raises(ValueError, match=r"`token`.*\(2, 3\).*\(2, 0\)"):
        visualize.plot_attention(model, image, (2, 0))
    with pytest.raises(ValueError, match="`image`.*height"):
        visualize.plot_attention(model, image[None])
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`model`.*masked attention"):
        visualize.attention_weights(plain, np.zeros((1, 3)))
    graph = Graph.from_edges([(0, 1)], 2)
    with pytest.raises(ValueError, match="`node`.*2 nodes.*5"):
        visualize.plot_graph_attention(model, graph, image, node=5)
    layer = ToeplitzAttention(1, 1, mask=None)
    layer.build((None, 9000, 1))
    with pytest.raises(ValueError, match="8,192.*9,000"):
        layer.attention_weights(np.zeros((1, 9000, 1), "float32"))
