"""What GKAT is compared with, of the same size: GCN, GAT and SGC.

Each builder makes a classifier of graphs, or, given the kernel of one graph,
of its nodes; what `kernel` has to be is said for each.
"""

import keras

from keras_topo.arguments import positive
from keras_topo.layers import (
    GraphKernelAttention,
    GraphPooling,
    GraphPropagation,
)
from keras_topo.models.gkat import layer_seed
from keras_topo.models.graph_inputs import (
    real_nodes,
    shared_kernel,
    standardised,
)
from keras_topo.presets.builders import builder


@builder
def gcn(
    num_features,
    num_classes,
    fixed_kernel=None,
    depth=2,
    channels=64,
    pooling="mean",
    feature_statistics=None,
    dropout=0.5,
    weight_decay=0.0,
    seed=None,
    name="gcn",
):
    """Graph convolutional network (Kipf and Welling, 2017).

    `X <- relu(S X W)` with `S = D^-1/2 (A + I) D^-1/2`: see
    `keras_topo.graphs.normalized_adjacency`.

    Args:
        num_features, num_classes: ints.
        fixed_kernel: `S` of the one graph whose nodes are classified; `None`
            for a classifier of graphs.
        depth: int, convolutions. A classifier of nodes ends with the last.
        channels: int.
        pooling: see `GraphPooling`; for graphs.
        feature_statistics: see `gkat_graph_classifier`; for graphs.
        dropout: float.
        weight_decay: float, L2 regularisation of kernels.
        seed: int, of dropout.
        name: name of the model.

    Returns:
        For nodes a `keras.Sequential` from `(batch, nodes, num_features)` to
        logits `(batch, nodes, num_classes)`; for graphs a functional model
        from a dict with `nodes`, `kernel` `(batch, nodes, nodes)` and
        `node_mask` to logits `(batch, num_classes)`.
    """
    layers = []
    for k in range(depth):
        last = fixed_kernel is not None and k == depth - 1
        layers += [
            _dropout(dropout, seed, k),
            _dense(num_classes if last else channels, k, weight_decay),
            GraphPropagation(
                fixed_kernel=fixed_kernel, name=f"propagation_{k + 1}"
            ),
        ]
        if not last:
            layers.append(keras.layers.ReLU(name=f"relu_{k + 1}"))
    return _model(
        layers,
        num_features,
        num_classes,
        fixed_kernel,
        pooling,
        feature_statistics,
        name,
    )


@builder
def gat(
    num_features,
    num_classes,
    fixed_kernel=None,
    depth=2,
    num_heads=8,
    key_dim=8,
    pooling="mean",
    feature_statistics=None,
    dropout=0.6,
    attention_dropout=0.6,
    weight_decay=0.0,
    seed=None,
    name="gat",
):
    """Graph attention network (Velickovic et al., 2018).

    Additive attention over the neighbors and the node itself: the kernel is
    `A + I`.

    Args:
        num_features, num_classes: ints.
        fixed_kernel: `A + I` of the one graph whose nodes are classified;
            `None` for a classifier of graphs.
        depth: int, attention layers. A classifier of nodes ends with the last,
            one head of logits.
        num_heads, key_dim: ints.
        dropout: float, of features.
        attention_dropout: float, of scores.
        pooling, feature_statistics, weight_decay, seed, name: as in `gcn`.

    Returns:
        As `gcn`.
    """
    regularizer = keras.regularizers.L2(weight_decay) if weight_decay else None
    layers = []
    for k in range(depth):
        last = fixed_kernel is not None and k == depth - 1
        layers += [
            _dropout(dropout, seed, k),
            GraphKernelAttention(
                1 if last else num_heads,
                num_classes if last else key_dim,
                similarity="additive",
                combine="average" if last else "concatenate",
                fixed_kernel=fixed_kernel,
                dropout=attention_dropout,
                kernel_regularizer=regularizer,
                seed=layer_seed(seed, k),
                name=f"attention_{k + 1}",
            ),
        ]
        if not last:
            layers.append(keras.layers.ELU(name=f"elu_{k + 1}"))
    return _model(
        layers,
        num_features,
        num_classes,
        fixed_kernel,
        pooling,
        feature_statistics,
        name,
    )


@builder
def sgc(
    num_features,
    num_classes,
    fixed_kernel=None,
    steps=2,
    channels=None,
    pooling="mean",
    feature_statistics=None,
    dropout=0.0,
    weight_decay=0.0,
    seed=None,
    name="sgc",
):
    """Simple graph convolution (Wu et al., 2019): `S^steps X W`.

    The kernel is that of `gcn`.

    Args:
        num_features, num_classes: ints.
        fixed_kernel: as in `gcn`.
        steps: int.
        channels: int; where given, a hidden layer with ReLU comes between
            propagation and classifier, for models of equal size.
        pooling, feature_statistics, dropout, weight_decay, seed, name: as in
            `gcn`.

    Returns:
        As `gcn`.
    """
    positive(channels, "channels", optional=True)
    layers = [
        GraphPropagation(steps, fixed_kernel=fixed_kernel, name="propagation"),
        _dropout(dropout, seed, 0),
    ]
    if channels is not None:
        layers += [
            _dense(channels, 0, weight_decay),
            keras.layers.ReLU(name="relu"),
        ]
    if fixed_kernel is not None:
        layers.append(_dense(num_classes, 1, weight_decay))
    return _model(
        layers,
        num_features,
        num_classes,
        fixed_kernel,
        pooling,
        feature_statistics,
        name,
    )


def _model(
    layers,
    num_features,
    num_classes,
    fixed_kernel,
    pooling,
    feature_statistics,
    name,
):
    """A Sequential for the nodes of one graph, or a classifier of graphs."""
    nodes = keras.Input((None, num_features), name="nodes")
    if fixed_kernel is not None:
        return keras.Sequential([nodes, *layers], name=name)
    inputs = {
        "nodes": nodes,
        "kernel": keras.Input((None, None), name="kernel"),
        "node_mask": keras.Input((None,), dtype="bool", name="node_mask"),
    }
    mask = inputs["node_mask"]
    kernels = {GraphPropagation: (inputs["kernel"], mask)}
    if any(isinstance(layer, GraphKernelAttention) for layer in layers):
        kernels[GraphKernelAttention] = shared_kernel(
            inputs["kernel"], mask, "additive"
        )
    x = standardised(real_nodes(nodes, mask), feature_statistics)
    for layer in layers:
        if type(layer) in kernels:
            x = layer(x, *kernels[type(layer)])
        else:
            x = layer(x)
    x = GraphPooling(pooling, name="pooling")(x, mask=mask)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def _dense(units, k, weight_decay):
    return keras.layers.Dense(
        units,
        kernel_regularizer=(
            keras.regularizers.L2(weight_decay) if weight_decay else None
        ),
        name=f"dense_{k + 1}",
    )


def _dropout(rate, seed, k):
    return keras.layers.Dropout(
        rate,
        # Not those of the attention layers, which would drop the same units.
        seed=layer_seed(seed, 100 + k),
        name=f"dropout_{k + 1}",
    )
