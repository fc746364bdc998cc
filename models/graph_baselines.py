"""What GKAT is compared with, of the same size: GCN, GAT, SGC, APPNP and GIN.

Each builder makes a model of graphs, or of the nodes of many graphs, with the
arguments of `gkat_graph_classifier`; or, given the kernel of one graph, a
classifier of its nodes. `keras_topo.models.MODELS` says which kernel each of
them takes.
"""

from typing import Literal

import keras

from keras_topo.annotations import Batching, GraphKernel, Statistics
from keras_topo.arguments import positive
from keras_topo.layers import (
    GraphIsomorphism,
    GraphKernelAttention,
    GraphPooling,
    GraphPropagation,
)
from keras_topo.models.baseline_parts import (
    baseline,
    dense,
    dropout_layer,
    one_kernel_graph,
    regularizer,
)
from keras_topo.models.gkat import layer_seed, local_messages
from keras_topo.models.graph_inputs import in_units, logits_of
from keras_topo.presets.builders import builder


@builder
def gcn(
    num_features: int,
    num_classes: int,
    graph_kernel: GraphKernel | None = None,
    depth: int = 2,
    channels: int = 64,
    pooling: str = "mean",
    feature_statistics: Statistics | None = None,
    dropout: float = 0.5,
    weight_decay: float = 0.0,
    seed: int | None = None,
    name: str | None = "gcn",
    num_kernels: int | None = None,
    num_edge_features: int = 0,
    level: Literal["graphs", "nodes"] = "graphs",
    batching: Batching = "padded",
    target_statistics: Statistics | None = None,
) -> keras.Model:
    """Graph convolutional network (Kipf and Welling, 2017).

    `X <- relu(S X W)` with `S = D^-1/2 (A + I) D^-1/2`: see
    `keras_topo.graphs.normalized_adjacency`. Kernels are `"normalized"` ones
    of `GraphPreprocessor`.

    Args:
        num_features, num_classes: ints.
        graph_kernel: `S` of the one graph whose nodes are classified; `None`
            for a model of many graphs, to which alone the arguments from
            `num_kernels` on apply.
        depth: int, convolutions. A classifier of the nodes of one graph ends
            with the last.
        channels: int.
        pooling: see `GraphPooling`; for graphs.
        feature_statistics: see `gkat_graph_classifier`; for many graphs.
        dropout: float.
        weight_decay: float, L2 regularization of kernels.
        seed: int, of dropout.
        name: name of the model.
        num_kernels: 1, as `GraphSequence` has it, for kernels `(batch, 1,
            nodes, nodes)`; `None` for `(batch, nodes, nodes)`.
        num_edge_features: int. The model has inputs for features of edges, so
            that it takes the same batches as others, but makes no use of them.
        level, batching, target_statistics: see `gkat_graph_classifier`.

    Returns:
        For the nodes of one graph a `keras.Sequential` from `(batch, nodes,
        num_features)` to logits `(batch, nodes, num_classes)`. Otherwise a
        functional model from a dict with `nodes`, `kernel` and `node_mask`
        `(batch, nodes)` to logits `(batch, num_classes)`, float32; or from and
        to what `GraphSequence` says of features of edges, joined graphs and
        targets of nodes.

    Raises:
        ValueError: if `num_kernels`, `level` or `batching` is another, or
            `graph_kernel` comes with what is for many graphs.

    *Complexity*: `depth` products with the kernel, `O(nodes^2 channels)` each,
    or `O(pairs channels)` of joined graphs; and `O(nodes channels^2)`.

    Example:

    >>> model = gcn(num_features=7, num_classes=2, num_kernels=1)
    >>> batch = {
    ...     "nodes": np.zeros((2, 30, 7)),
    ...     "kernel": np.ones((2, 1, 30, 30)),
    ...     "node_mask": np.ones((2, 30), bool),
    ... }
    >>> tuple(model(batch).shape)
    (2, 2)
    """
    layers = []
    for k in range(depth):
        last = graph_kernel is not None and k == depth - 1
        layers += [
            dropout_layer(dropout, seed, k),
            dense(num_classes if last else channels, k, weight_decay),
            GraphPropagation(
                graph_kernel=graph_kernel, name=f"propagation_{k + 1}"
            ),
        ]
        if not last:
            layers.append(keras.layers.ReLU(name=f"relu_{k + 1}"))
    return baseline(
        layers,
        num_features,
        num_classes,
        graph_kernel,
        pooling,
        feature_statistics,
        name,
        num_kernels,
        num_edge_features,
        level,
        batching,
        target_statistics,
    )


@builder
def gat(
    num_features: int,
    num_classes: int,
    graph_kernel: GraphKernel | None = None,
    depth: int = 2,
    num_heads: int = 8,
    key_dim: int = 8,
    pooling: str = "mean",
    feature_statistics: Statistics | None = None,
    dropout: float = 0.6,
    attention_dropout: float = 0.6,
    weight_decay: float = 0.0,
    seed: int | None = None,
    name: str | None = "gat",
    num_kernels: int | None = None,
    num_edge_features: int = 0,
    level: Literal["graphs", "nodes"] = "graphs",
    batching: Batching = "padded",
    target_statistics: Statistics | None = None,
) -> keras.Model:
    """Graph attention network (Velickovic et al., 2018).

    Additive attention over the neighbors and the node itself: the kernel is
    `A + I`, `"neighbors"` of `GraphPreprocessor`. With `M = A + I`,

        x_i <- elu(sum_j M[i, j] s_ij W x_j / sum_j M[i, j] s_ij),
        s_ij = exp(leaky_relu(a . W x_i + b . W x_j)),

    per head.

    Args:
        num_features, num_classes: ints.
        graph_kernel: `A + I` of the one graph whose nodes are classified;
            `None` for a model of many graphs.
        depth: int, attention layers. A classifier of the nodes of one graph
            ends with the last, one head of logits.
        num_heads, key_dim: ints; `num_heads * key_dim` channels.
        dropout: float, of features.
        attention_dropout: float, of scores.
        num_edge_features: int, features of an edge, which gate the kernel (see
            `EdgeGates`) and so add a number to the score of each edge; needs
            `num_kernels=1`. 0 for none.
        pooling, feature_statistics, weight_decay, seed, name, num_kernels,
        level, batching, target_statistics: as in `gcn`.

    Returns:
        As `gcn`.

    Raises:
        ValueError: as `gcn`, and if features of edges come without
            `num_kernels=1`.

    *Complexity*: `depth` attention layers, `O(nodes^2 channels)` each, or
    `O(pairs channels)` of joined graphs; and `O(nodes channels^2)`.

    Example:

    >>> model = gat(num_features=7, num_classes=2, num_kernels=1)
    >>> batch = {
    ...     "nodes": np.zeros((2, 30, 7)),
    ...     "kernel": np.ones((2, 1, 30, 30)),
    ...     "node_mask": np.ones((2, 30), bool),
    ... }
    >>> tuple(model(batch).shape)
    (2, 2)
    """
    if num_edge_features and graph_kernel is None and num_kernels is None:
        raise ValueError(
            "`num_kernels` expects 1, an axis for the kernels of all heads, "
            "where features of edges gate them. Received: num_kernels=None, "
            f"num_edge_features={num_edge_features}"
        )
    penalty = regularizer(weight_decay)
    layers = []
    for k in range(depth):
        last = graph_kernel is not None and k == depth - 1
        layers += [
            dropout_layer(dropout, seed, k),
            GraphKernelAttention(
                1 if last else num_heads,
                num_classes if last else key_dim,
                similarity="additive",
                combine="average" if last else "concatenate",
                graph_kernel=graph_kernel,
                dropout=attention_dropout,
                kernel_regularizer=penalty,
                seed=layer_seed(seed, k),
                name=f"attention_{k + 1}",
            ),
        ]
        if not last:
            layers.append(keras.layers.ELU(name=f"elu_{k + 1}"))
    return baseline(
        layers,
        num_features,
        num_classes,
        graph_kernel,
        pooling,
        feature_statistics,
        name,
        num_kernels,
        num_edge_features,
        level,
        batching,
        target_statistics,
        num_heads=num_heads,
    )


@builder
def sgc(
    num_features: int,
    num_classes: int,
    graph_kernel: GraphKernel | None = None,
    steps: int = 2,
    channels: int | None = None,
    pooling: str = "mean",
    feature_statistics: Statistics | None = None,
    dropout: float = 0.0,
    weight_decay: float = 0.0,
    seed: int | None = None,
    name: str | None = "sgc",
    num_kernels: int | None = None,
    num_edge_features: int = 0,
    level: Literal["graphs", "nodes"] = "graphs",
    batching: Batching = "padded",
    target_statistics: Statistics | None = None,
) -> keras.Model:
    """Simple graph convolution (Wu et al., 2019): `S^steps X W`.

    The kernel is that of `gcn`.

    Args:
        num_features, num_classes: ints.
        graph_kernel: as in `gcn`.
        steps: int.
        channels: int; where given, a hidden layer with ReLU comes between
            propagation and classifier, for models of equal size.
        pooling, feature_statistics, dropout, weight_decay, seed, name,
        num_kernels, num_edge_features, level, batching, target_statistics: as
            in `gcn`.

    Returns:
        As `gcn`.

    Raises:
        ValueError: as `gcn`.

    *Complexity*: `steps` products with the kernel, `O(nodes^2 num_features)`
    each, or `O(pairs num_features)` of joined graphs.

    Example:

    >>> model = sgc(num_features=7, num_classes=2, num_kernels=1)
    >>> batch = {
    ...     "nodes": np.zeros((2, 30, 7)),
    ...     "kernel": np.ones((2, 1, 30, 30)),
    ...     "node_mask": np.ones((2, 30), bool),
    ... }
    >>> tuple(model(batch).shape)
    (2, 2)
    """
    positive(channels, "channels", optional=True)
    layers = [
        GraphPropagation(steps, graph_kernel=graph_kernel, name="propagation"),
        dropout_layer(dropout, seed, 0),
    ]
    if channels is not None:
        layers += [
            dense(channels, 0, weight_decay),
            keras.layers.ReLU(name="relu"),
        ]
    if graph_kernel is not None:
        layers.append(dense(num_classes, 1, weight_decay))
    return baseline(
        layers,
        num_features,
        num_classes,
        graph_kernel,
        pooling,
        feature_statistics,
        name,
        num_kernels,
        num_edge_features,
        level,
        batching,
        target_statistics,
    )


@builder
def appnp(
    num_features: int,
    num_classes: int,
    graph_kernel: GraphKernel | None = None,
    depth: int = 2,
    channels: int = 64,
    steps: int = 10,
    alpha: float = 0.1,
    pooling: str = "mean",
    feature_statistics: Statistics | None = None,
    dropout: float = 0.5,
    weight_decay: float = 0.0,
    seed: int | None = None,
    name: str | None = "appnp",
    num_kernels: int | None = None,
    num_edge_features: int = 0,
    level: Literal["graphs", "nodes"] = "graphs",
    batching: Batching = "padded",
    target_statistics: Statistics | None = None,
) -> keras.Model:
    """Predict, then propagate: APPNP (Klicpera et al., 2019).

    A network predicts each node for itself, `H`, and `steps` times

        Z <- (1 - alpha) S Z + alpha H, beginning with Z = H,

    spreads the predictions, with the kernel of `gcn`. Of graphs, which have
    one prediction each, features are spread instead, then pooled and
    classified. Dropout is that between layers; the one that the authors apply
    to `S` in each step is left out.

    Args:
        num_features, num_classes: ints.
        graph_kernel: as in `gcn`.
        depth: int, dense layers, with ReLU between them; for nodes the last
            one gives logits.
        channels: int, of the dense layers.
        steps: int, propagations.
        alpha: float from 0 to below 1, share of what the network predicted.
        pooling, feature_statistics, dropout, weight_decay, seed, name,
        num_kernels, num_edge_features, level, batching, target_statistics: as
            in `gcn`.

    Returns:
        As `gcn`.

    Raises:
        ValueError: as `gcn`, and if `depth` or `steps` is no positive int, or
            `alpha` not from 0 to below 1.

    *Complexity*: `steps` products with the kernel, `O(nodes^2 num_classes)`
    each for nodes, `O(nodes^2 channels)` for graphs, or with `pairs` in place
    of `nodes^2` for joined graphs; and `O(nodes channels^2)`.

    Example:

    >>> model = appnp(num_features=7, num_classes=2, num_kernels=1)
    >>> batch = {
    ...     "nodes": np.zeros((2, 30, 7)),
    ...     "kernel": np.ones((2, 1, 30, 30)),
    ...     "node_mask": np.ones((2, 30), bool),
    ... }
    >>> tuple(model(batch).shape)
    (2, 2)
    """
    positive(depth, "depth")
    of_nodes = graph_kernel is not None or level == "nodes"
    layers = []
    for k in range(depth):
        last = of_nodes and k == depth - 1
        layers += [
            dropout_layer(dropout, seed, k),
            dense(num_classes if last else channels, k, weight_decay),
        ]
        if not last:
            layers.append(keras.layers.ReLU(name=f"relu_{k + 1}"))
    layers.append(
        GraphPropagation(
            steps,
            graph_kernel=graph_kernel,
            teleport=alpha,
            dtype="float32" if of_nodes else None,
            name="logits" if of_nodes else "propagation",
        )
    )
    return baseline(
        layers,
        num_features,
        num_classes,
        graph_kernel,
        pooling,
        feature_statistics,
        name,
        num_kernels,
        num_edge_features,
        level,
        batching,
        target_statistics,
        gives_logits=of_nodes,
    )


@builder
def gin(
    num_features: int,
    num_classes: int,
    depth: int = 3,
    channels: int = 64,
    pooling: str = "sum",
    feature_statistics: Statistics | None = None,
    dropout: float = 0.5,
    weight_decay: float = 0.0,
    seed: int | None = None,
    name: str | None = "gin",
    num_kernels: int | None = None,
    num_edge_features: int = 0,
    level: Literal["graphs", "nodes"] = "graphs",
    batching: Batching = "padded",
    target_statistics: Statistics | None = None,
) -> keras.Model:
    """Graph isomorphism network (Xu et al., 2019).

    Each layer sums over neighbors, with a learned `eps` and a network of two
    layers,

        x_i <- relu(norm(mlp((1 + eps) x_i + sum over neighbors j of x_j))),

    and the classifier takes the features and the outputs of all layers, each
    pooled, side by side. The kernel is `A + I`, `"neighbors"` of
    `GraphPreprocessor`. With features of edges it is GINE (Hu et al., 2020):
    messages are those of `LocalMessages`, and the kernel is not used.

    The batch normalization of the paper, within and after its networks, is
    replaced by one layer normalization after each: means over a batch would
    depend on its padding.

    Args:
        num_features, num_classes: ints.
        depth: int, layers.
        channels: int.
        pooling: see `GraphPooling`; `"sum"` as in the paper.
        dropout: float, rate before the classifier.
        weight_decay: float, L2 regularization of the classifier.
        num_edge_features: int, features of an edge; 0 for none.
        feature_statistics, seed, name, num_kernels, level, batching,
        target_statistics: as in `gcn`.

    Returns:
        A model of many graphs, as `gcn`.

    Raises:
        ValueError: if `num_kernels`, `level` or `batching` is another, or
            `depth` or `channels` no positive int.

    *Complexity*: `depth` products with the kernel, `O(nodes^2 channels)` each,
    or `O(pairs channels)` of joined graphs; with features of edges `O(edges
    channels)` instead, or of joined graphs `O(pairs channels)`; and `O(nodes
    channels^2)`.

    Example:

    >>> model = gin(num_features=7, num_classes=2, num_kernels=1)
    >>> batch = {
    ...     "nodes": np.zeros((2, 30, 7)),
    ...     "kernel": np.ones((2, 1, 30, 30)),
    ...     "node_mask": np.ones((2, 30), bool),
    ... }
    >>> tuple(model(batch).shape)
    (2, 2)
    """
    positive(depth, "depth")
    graph = one_kernel_graph(
        num_features,
        feature_statistics,
        num_kernels,
        num_edge_features,
        level,
        batching,
    )
    x, parts = graph.nodes, [graph.nodes]
    for k in range(1, depth + 1):
        if graph.edges is not None:
            x = local_messages(x, graph.edges, channels, f"messages_{k}")
        else:
            x = GraphIsomorphism(channels, name=f"isomorphism_{k}")(
                x, graph.kernel, graph.mask
            )
        x = keras.layers.LayerNormalization(epsilon=1e-6, name=f"norm_{k}")(x)
        x = keras.layers.ReLU(name=f"relu_{k}")(x)
        parts.append(x)
    # Pooled side by side: the same as each for itself.
    x = keras.layers.Concatenate(name="all_layers")(parts)
    if level == "graphs":
        x = GraphPooling(pooling, name="pooling")(x, **graph.pooling)
    x = dropout_layer(dropout, seed, 0)(x)
    outputs = logits_of(x, num_classes, regularizer(weight_decay))
    return keras.Model(
        graph.inputs, in_units(outputs, target_statistics), name=name
    )
