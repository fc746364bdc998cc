"""What the baselines of graphs have in common: inputs, pooling, logits."""

from collections.abc import Sequence
from typing import Literal

import keras

from keras_topo.annotations import Batching, GraphKernel, Statistics
from keras_topo.arguments import one_of
from keras_topo.layers import (
    GraphKernelAttention,
    GraphPooling,
    GraphPropagation,
)
from keras_topo.models.gkat import LEVELS, layer_seed
from keras_topo.models.graph_inputs import (
    GraphInputs,
    graph_inputs,
    in_units,
    logits_of,
)


def baseline(
    layers: Sequence[keras.layers.Layer],
    num_features: int,
    num_classes: int,
    graph_kernel: GraphKernel | None,
    pooling: str,
    feature_statistics: Statistics | None,
    name: str | None,
    num_kernels: int | None,
    num_edge_features: int,
    level: Literal["graphs", "nodes"],
    batching: Batching,
    target_statistics: Statistics | None,
    num_heads: int | None = None,
    gives_logits: bool = False,
) -> keras.Model:
    """A Sequential for the nodes of one graph, or a model of many graphs.

    Args:
        layers: list of Keras layers, in their order.
        num_heads: int, heads whose kernels features of edges gate, of
            attention; `None` where they have no part in it.
        gives_logits: bool, whether the last of `layers`, for nodes, does.
    """
    one_of(level, "level", LEVELS)
    if graph_kernel is not None:
        many = batching != "padded" or target_statistics is not None
        if many or num_edge_features or num_kernels not in (None, 1):
            raise ValueError(
                "`graph_kernel`, of the nodes of one graph, expects none of "
                "the arguments for many graphs. Received: "
                f"num_kernels={num_kernels!r}, "
                f"num_edge_features={num_edge_features}, "
                f"batching={batching!r}, target_statistics={target_statistics}"
            )
        nodes = keras.Input((None, num_features), name="nodes")
        return keras.Sequential([nodes, *layers], name=name)
    graph = one_kernel_graph(
        num_features,
        feature_statistics,
        num_kernels,
        num_edge_features,
        level,
        batching,
        num_heads,
    )
    x = graph.nodes
    for layer in layers:
        if isinstance(layer, (GraphPropagation, GraphKernelAttention)):
            x = layer(x, graph.kernel, graph.mask)
        else:
            x = layer(x)
    if not gives_logits:
        if level == "graphs":
            x = GraphPooling(pooling, name="pooling")(x, **graph.pooling)
        x = logits_of(x, num_classes)
    return keras.Model(graph.inputs, in_units(x, target_statistics), name=name)


def one_kernel_graph(
    num_features: int,
    feature_statistics: Statistics | None,
    num_kernels: int | None,
    num_edge_features: int,
    level: Literal["graphs", "nodes"],
    batching: Batching,
    num_heads: int | None = None,
) -> GraphInputs:
    """The inputs of a model of many graphs, of which each has one kernel."""
    one_of(level, "level", LEVELS)
    if num_kernels not in (None, 1):
        raise ValueError(
            "`num_kernels` expects 1, or None for kernels without an axis for "
            "their number: this model takes one kernel, such as kernel="
            "'normalized' or 'neighbors' of GraphPreprocessor. Received: "
            f"num_kernels={num_kernels!r}"
        )
    attends = num_heads is not None
    return graph_inputs(
        num_features,
        num_kernels,
        "additive" if attends else None,
        num_heads,
        num_edge_features,
        batching,
        gates=attends,
        statistics=feature_statistics,
    )


def dense(units: int, k: int, weight_decay: float) -> keras.layers.Dense:
    return keras.layers.Dense(
        units,
        kernel_regularizer=regularizer(weight_decay),
        name=f"dense_{k + 1}",
    )


def regularizer(weight_decay: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(weight_decay) if weight_decay else None


def dropout_layer(
    rate: float, seed: int | None, k: int
) -> keras.layers.Dropout:
    return keras.layers.Dropout(
        rate,
        # Not those of the attention layers, which would drop the same units.
        seed=layer_seed(seed, 100 + k),
        name=f"dropout_{k + 1}",
    )
