"""From a graph as a client sends it to the classes of a classifier."""

import functools
import warnings
from typing import Any

import keras

from keras_topo.layers import (
    AdjacencyFromEdges,
    DegreeFeatures,
    ReturnProbabilities,
)
from keras_topo.presets.builders import builder


@builder
def with_edge_inputs(
    classifier: keras.Model,
    kernel_layer: keras.layers.Layer,
    num_features: int,
    max_degree: int | None = None,
    return_steps: int = 0,
    name: str | None = None,
) -> keras.Model:
    """Puts a classifier of graphs behind what computes its inputs.

    The model takes the features that nodes have themselves, and edges; degrees,
    return probabilities and the kernel are computed inside, in the order of
    `keras_topo.graphs.node_features`.

    Args:
        classifier: a model from a dict with `nodes`, `kernel` and `node_mask`
            to logits, such as that of `gkat_graph_classifier`.
        kernel_layer: from adjacency matrices to the classifier's kernels:
            `RandomWalkKernel`, `DiffusionKernel` or `AdjacencyKernel`.
        num_features: int, features that nodes have themselves; 0 for none,
            and then there is no input for them.
        max_degree: int or `None`, for `DegreeFeatures`.
        return_steps: int, for `ReturnProbabilities`.
        name: name of the model.

    Returns:
        A functional `keras.Model` from a dict with `nodes` `(batch, nodes,
        num_features)`, float32, `edges` `(batch, edges, 2)`, int32, -1 for
        padding, and `node_mask` `(batch, nodes)`, bool, to logits `(batch,
        classes)`. Edges are undirected.

    Raises:
        ValueError: if the features do not add up to those of the classifier.

    Example:

    >>> from keras_topo.graphs import Graph, edge_inputs
    >>> classifier = keras_topo.models.gkat_graph_classifier(3, 2)
    >>> kernel_layer = keras_topo.layers.RandomWalkKernel([2, 3, 4, 5])
    >>> model = from_edges(classifier, kernel_layer, num_features=3)
    >>> path = Graph.from_edges([[0, 1], [1, 2]], 3, features=np.eye(3))
    >>> tuple(model(edge_inputs([path])).shape)
    (1, 2)
    """
    inputs = {
        "nodes": keras.Input((None, num_features), name="nodes"),
        "edges": keras.Input((None, 2), dtype="int32", name="edges"),
        "node_mask": keras.Input((None,), dtype="bool", name="node_mask"),
    }
    adjacency = AdjacencyFromEdges(name="adjacency")(
        inputs["edges"], inputs["nodes"]
    )
    features = [inputs["nodes"]] if num_features else []
    if max_degree is not None:
        features.append(DegreeFeatures(max_degree, name="degrees")(adjacency))
    if return_steps:
        features.append(
            ReturnProbabilities(return_steps, name="returns")(adjacency)
        )
    if not features:
        raise ValueError(
            "a graph classifier expects features of nodes. Received: "
            "num_features=0, max_degree=None, return_steps=0"
        )
    nodes = features[0]
    if len(features) > 1:
        nodes = keras.layers.Concatenate(name="features")(features)
    kernel = kernel_layer(adjacency, mask=inputs["node_mask"])
    expected = classifier.input["nodes"].shape[-1]
    if nodes.shape[-1] != expected:
        raise ValueError(
            f"the classifier expects {expected} features. Received: "
            f"num_features={num_features}, max_degree={max_degree}, "
            f"return_steps={return_steps}, together {nodes.shape[-1]}"
        )
    if len(classifier.input["kernel"].shape) == 3:
        kernel = keras.ops.squeeze(kernel, 1)
    logits = classifier(
        {"nodes": nodes, "kernel": kernel, "node_mask": inputs["node_mask"]}
    )
    return keras.Model(inputs, logits, name=name or classifier.name)


@functools.wraps(with_edge_inputs)
def from_edges(*args: Any, **kwargs: Any) -> keras.Model:
    """The former name of `with_edge_inputs`."""
    warnings.warn(
        "`models.from_edges` is now called `models.with_edge_inputs`; the "
        "former name goes with version 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return with_edge_inputs(*args, **kwargs)
