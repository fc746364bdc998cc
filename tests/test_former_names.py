"""Names of earlier versions are taken, with a warning; files without one."""

import keras
import numpy as np
import pytest

from keras_topo import layers, models

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


def test_graph_kernel_of_builders():
    for build in (models.gcn, models.gkat_node_classifier):
        with pytest.warns(DeprecationWarning, match="graph_kernel"):
            model = build(4, 2, fixed_kernel=KERNEL)
        assert model(np.zeros((1, 3, 4), "float32")).shape == (1, 3, 2)


def test_from_edges():
    classifier = models.gcn(3, 2, num_kernels=1)
    kernel = layers.RandomWalkKernel((1,))
    with pytest.warns(DeprecationWarning, match="with_edge_inputs"):
        model = models.from_edges(classifier, kernel, 3)
    assert sorted(model.input) == ["edges", "node_mask", "nodes"]
