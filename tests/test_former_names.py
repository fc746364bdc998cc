"""Names of earlier versions are taken, with a warning; files without one."""

import keras
import numpy as np
import pytest
import scipy.sparse

import keras_topo
from keras_topo import layers, models
from keras_topo.presets import builders
from keras_topo.presets.builders import BUILDERS

KERNEL = np.ones((3, 3), "float32")
LAYERS = {
    "GraphKernelAttention": (2, 4),
    "GraphEncoderBlock": (2,),
    "GraphIsomorphism": (4,),
    "GraphPropagation": (1,),
}


@pytest.mark.parametrize("name", LAYERS)
def test_graph_kernel_of_layers(name):
    layer_class, arguments = getattr(layers, name), LAYERS[name]
    with pytest.warns(DeprecationWarning, match="graph_kernel"):
        old = layer_class(*arguments, fixed_kernel=KERNEL, name="layer")
    new = layer_class(*arguments, graph_kernel=KERNEL, name="layer")
    nodes = keras.random.normal((1, 3, 8), seed=0)
    assert old(nodes).shape == new(nodes).shape

    config = new.get_config()
    config["fixed_kernel"] = config.pop("graph_kernel")
    again = layer_class.from_config(config)
    assert again(nodes).shape == new(nodes).shape
    assert "graph_kernel" in again.get_config()
    with pytest.raises(ValueError, match="Received: both"):
        layer_class(*arguments, fixed_kernel=KERNEL, graph_kernel=KERNEL)


class Mine(layers.GraphPropagation):
    def __init__(self, steps=1, fixed_kernel=None, **kwargs):
        super().__init__(steps, fixed_kernel, **kwargs)


def test_a_subclass_keeps_its_names():
    again = Mine.from_config(Mine(1, KERNEL).get_config())
    nodes = keras.random.normal((1, 3, 8), seed=0)
    assert again(nodes).shape == (1, 3, 8)


def test_no_kernel_by_the_former_name():
    kernel = scipy.sparse.csr_array(KERNEL)
    layer = layers.GraphPropagation(graph_kernel=kernel, fixed_kernel=None)
    assert layer.get_config()["graph_kernel"]["num_nodes"] == 3


def test_graph_kernel_of_builders():
    for build in (models.gcn, models.gkat_node_classifier):
        with pytest.warns(DeprecationWarning, match="graph_kernel"):
            model = build(4, 2, fixed_kernel=KERNEL)
        assert model(np.zeros((1, 3, 4), "float32")).shape == (1, 3, 2)
    with pytest.raises(ValueError, match="Received: both"):
        models.gcn(4, 2, KERNEL, fixed_kernel=KERNEL)


def test_from_edges():
    classifier = models.gcn(3, 2, num_kernels=1)
    kernel = layers.RandomWalkKernel((1,))
    with pytest.warns(DeprecationWarning, match="with_edge_inputs"):
        model = models.from_edges(classifier, kernel, 3)
    assert sorted(model.input) == ["edges", "node_mask", "nodes"]


def test_builders_are_known_by_themselves():
    for name in ("gcn", "gat", "sgc", "appnp", "gkat_node_classifier"):
        assert BUILDERS[name] is getattr(models, name)


def test_a_builder_of_ones_own_keeps_its_names(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "BUILDERS", dict(BUILDERS))

    @builders.builder
    def mine(num_features, fixed_kernel=None):
        kernel = layers.GraphPropagation(graph_kernel=fixed_kernel)
        return keras.Sequential([keras.Input((3, num_features)), kernel])

    keras_topo.save_preset(mine(4, fixed_kernel=KERNEL), tmp_path / "mine")
    again = keras_topo.from_preset(tmp_path / "mine")
    x = np.eye(3, 4, dtype="float32")[None]
    np.testing.assert_allclose(again.predict(x, verbose=0), KERNEL[None] @ x)
