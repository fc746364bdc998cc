"""A model of graphs that is quick to train: one dense layer."""

import keras
import numpy as np

from keras_topo.layers import GraphPooling


def linear(num_features, num_classes, level, target_statistics=None, **_):
    """A builder: a dense layer of the mean of the nodes, or of each node."""
    inputs = {
        "nodes": keras.Input((None, num_features), name="nodes"),
        "kernel": keras.Input((None, None, None), name="kernel"),
        "node_mask": keras.Input((None,), dtype="bool", name="node_mask"),
    }
    x = inputs["nodes"]
    if level == "graphs":
        x = GraphPooling()(x, mask=inputs["node_mask"])
    x = keras.layers.Dense(num_classes, name="logits")(x)
    if target_statistics:
        mean, deviation = map(np.array, target_statistics)
        x = keras.layers.Rescaling(deviation, mean)(x)
    return keras.Model(inputs, x)
