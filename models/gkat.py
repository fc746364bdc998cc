"""GKAT: graph kernel attention Transformers, for nodes and for graphs."""

from typing import Literal

import keras

from keras_topo.annotations import (
    Batching,
    GraphKernel,
    Similarity,
    Statistics,
    Tensor,
)
from keras_topo.arguments import one_of, positive
from keras_topo.layers import (
    ConsistencyRegularization,
    GraphEncoderBlock,
    GraphKernelAttention,
    GraphPooling,
    LocalMessages,
    NodeDropout,
)
from keras_topo.layers.graph_inputs import count_kernels
from keras_topo.models.copies import SequentialOfCopies
from keras_topo.models.graph_inputs import graph_inputs, in_units, logits_of
from keras_topo.presets.builders import builder

FORMS = ("modern", "published")
LEVELS = ("graphs", "nodes")
NODE_FORMS = (*FORMS, "propagation")
# L2 of additive scores after which a model is not to hang on 20 labels a class.
SCORE_DECAY = 1e-2


@builder
def gkat_graph_classifier(
    num_features: int,
    num_classes: int,
    num_kernels: int = 4,
    form: Literal["modern", "published"] = "modern",
    depth: int = 3,
    num_heads: int = 4,
    key_dim: int = 16,
    similarity: Similarity = "softmax",
    pooling: str = "mean+max",
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    feature_statistics: Statistics | None = None,
    num_edge_features: int = 0,
    local: bool = False,
    level: Literal["graphs", "nodes"] = "graphs",
    batching: Batching = "padded",
    target_statistics: Statistics | None = None,
    seed: int | None = None,
    name: str | None = None,
    learned_kernel: bool = False,
    edge_gates: bool = True,
    rank: int | None = None,
) -> keras.Model:
    """Classifies graphs by attention between nodes, masked by graph kernels.

    The published form is a stack of attention layers with ELU between them and
    a sum or mean over nodes (Choromanski et al., 2022); the
    modern one has an embedding, pre-norm residual blocks with feed-forward
    parts, and a hidden layer before the classifier.

    Args:
        num_features: int, features of a node.
        num_classes: int.
        num_kernels: int, kernels of each graph; divides `num_heads`, unless
            heads learn theirs.
        form: `"modern"` or `"published"`.
        depth: int, attention layers.
        num_heads, key_dim: ints; `num_heads * key_dim` channels.
        similarity: see `GraphKernelAttention`.
        pooling: see `GraphPooling`.
        dropout: float, rate after the branches, or between layers.
        attention_dropout: float, rate of scores.
        feature_statistics: `(mean, variance)` of each feature, by which the
            first layer standardizes them; or `None`.
        num_edge_features: int, features of an edge, which gate the kernels
            (see `EdgeGates`); 0 for none.
        local: bool, whether blocks of the modern form have messages along
            edges beside attention (see `LocalMessages`), as in GPS; needs
            features of edges. Where edges have none, `edges=True` of
            `GraphPreprocessor` gives each a one.
        level: `"graphs"`, or `"nodes"` for logits of each node.
        batching: `"padded"`; `"joined"` for graphs joined into one, with
            pairs; or `"factors"`, padded, with kernels of low rank, whose time
            is linear in nodes with a feature map as `similarity`: see
            `GraphSequence`.
        target_statistics: `(mean, deviation)` of each of `num_classes` real
            targets: where given, the outputs are these, not logits, and the
            layer before, named `logits`, has them standardized.
        seed: int, of all dropouts. Initial weights come from the global seed.
        name: name of the model.
        learned_kernel: bool, whether each head learns its kernel, the same in
            all layers, as a sum of those of the inputs: see `KernelMixture`.
        edge_gates: bool, whether features of edges gate the kernels; `False`
            leaves them to local messages.
        rank: int, columns of factors.

    Returns:
        A functional `keras.Model` from a dict with `nodes` `(batch, nodes,
        num_features)`, `kernel` `(batch, num_kernels, nodes, nodes)`, not
        negative, and `node_mask` `(batch, nodes)`, bool, to logits `(batch,
        num_classes)`, float32; or from and to what `GraphSequence` says of
        features of edges, joined graphs and targets of nodes.

    Raises:
        ValueError: if `form`, `level` or `batching` is unknown,
            `num_kernels` does not divide `num_heads`, or `local` comes
            without features of edges.

    Example:

    >>> model = gkat_graph_classifier(num_features=7, num_classes=2)
    >>> batch = {
    ...     "nodes": np.zeros((2, 30, 7)),
    ...     "kernel": np.ones((2, 4, 30, 30)),
    ...     "node_mask": np.ones((2, 30), bool),
    ... }
    >>> tuple(model(batch).shape)
    (2, 2)
    """
    _check_form(form, FORMS)
    positive(num_kernels, "num_kernels")
    if num_heads % num_kernels and not learned_kernel:
        raise ValueError(
            f"`num_heads` expects a multiple of num_kernels={num_kernels}, or "
            f"learned_kernel=True. Received: num_heads={num_heads}"
        )
    one_of(level, "level", LEVELS)
    if local and (form != "modern" or not num_edge_features):
        raise ValueError(
            "`local=True` expects form='modern' and features of edges. "
            f"Received: form={form!r}, num_edge_features={num_edge_features}"
        )
    graph = graph_inputs(
        num_features,
        num_kernels,
        similarity,
        num_heads,
        num_edge_features,
        batching,
        gates=edge_gates,
        statistics=feature_statistics,
        learned_kernel=learned_kernel,
        rank=rank,
    )
    attention = {
        "num_heads": num_heads,
        "key_dim": key_dim,
        "similarity": similarity,
    }
    rates = {"dropout": dropout, "attention_dropout": attention_dropout}
    if form == "modern":
        x = _modern_nodes(graph, attention, depth, local, seed, **rates)
    else:
        x = _published_nodes(graph, attention, depth, seed, **rates)
    if level == "graphs":
        x = GraphPooling(pooling, name="pooling")(x, **graph.pooling)
    if form == "modern":
        x = keras.layers.Dense(
            num_heads * key_dim, activation="gelu", name="hidden"
        )(x)
        x = keras.layers.Dropout(
            dropout, seed=layer_seed(seed, 100 + depth), name="dropout"
        )(x)
    outputs = in_units(logits_of(x, num_classes), target_statistics)
    return keras.Model(graph.inputs, outputs, name=name or f"gkat_{form}")


def _modern_nodes(
    graph, attention, depth, local, seed, dropout, attention_dropout
):
    """Nodes behind an embedding and pre-norm residual blocks."""
    x, kernel, seen = graph.nodes, graph.kernel, graph.mask
    channels = attention["num_heads"] * attention["key_dim"]
    x = keras.layers.Dense(channels, name="embedding")(x)
    for k in range(depth):
        x = GraphEncoderBlock(
            **attention,
            dropout=dropout,
            attention_dropout=attention_dropout,
            seed=layer_seed(seed, k),
            name=f"block_{k + 1}",
        )(with_messages(x, graph.edges, k) if local else x, kernel, seen)
    return keras.layers.LayerNormalization(epsilon=1e-6, name="norm")(x)


def _published_nodes(graph, attention, depth, seed, dropout, attention_dropout):
    """Nodes behind layers of attention, with ELU between them."""
    x, kernel, seen = graph.nodes, graph.kernel, graph.mask
    for k in range(depth):
        x = GraphKernelAttention(
            **attention,
            combine="concatenate",
            dropout=attention_dropout,
            seed=layer_seed(seed, k),
            name=f"attention_{k + 1}",
        )(x, kernel, seen)
        x = keras.layers.ELU(name=f"elu_{k + 1}")(x)
        x = keras.layers.Dropout(
            dropout, seed=layer_seed(seed, 100 + k), name=f"dropout_{k + 1}"
        )(x)
    return x


@builder
def gkat_node_classifier(
    num_features: int,
    num_classes: int,
    graph_kernel: GraphKernel,
    form: Literal["modern", "published", "propagation"] = "published",
    depth: int = 2,
    num_heads: int = 8,
    key_dim: int = 8,
    similarity: Similarity = "additive",
    dropout: float = 0.6,
    attention_dropout: float = 0.6,
    weight_decay: float = 5e-4,
    seed: int | None = None,
    name: str | None = None,
    input_dropout: float | None = None,
    feature_dropout: float = 0.0,
    node_dropout: float = 0.0,
    copies: int = 1,
    consistency: float = 0.0,
    temperature: float = 0.5,
) -> keras.Sequential:
    """Classifies the nodes of one graph, whose kernel the model holds.

    The published form is that of GAT with a graph kernel in place of the
    adjacency matrix: attention layers with ELU and dropout between them, the
    last one averaging heads into logits. The modern one is as in
    `gkat_graph_classifier`, with a classifier of nodes. The propagation form
    predicts each node for itself and then propagates the predictions
    (Klicpera et al., 2019): dense layers, and one layer of kernel attention
    between logits at the end. Additive scores start at zero there, where the
    layer is the average that the kernel gives, and a strong L2 keeps them
    from fitting the few labeled nodes. A kernel that reaches far suits it, such
    as `pagerank_kernel`.

    With `copies` the propagation form learns from as many copies of the graph
    at once, each of which lacks other nodes, and from how far its predictions
    for them agree, on labeled nodes and on all others (Feng et al., 2020): see
    `NodeDropout`, which stands before the first ReLU, and
    `ConsistencyRegularization`. The kernel is what propagates.

    Args:
        num_features: int, features of a node.
        num_classes: int.
        graph_kernel: see `GraphKernelAttention`; a SciPy sparse array keeps
            the model small.
        form: `"published"`, `"modern"` or `"propagation"`.
        depth: int, attention layers; in the propagation form those before the
            last one are dense, with `num_heads * key_dim` channels.
        num_heads, key_dim, similarity, dropout, attention_dropout, seed, name:
            as in `gkat_graph_classifier`. With the similarity `"constant"`
            only the kernel propagates, and attention learns nothing.
        weight_decay: float, L2 regularization of kernels; in the modern form
            those of embedding and classifier, in the propagation form those
            of the dense layers.
        input_dropout: float, rate of the features that come in; defaults to
            `dropout`.
        feature_dropout: float, rate of whole features, of all nodes at once.
        node_dropout, copies: `rate` and `copies` of `NodeDropout`; for the
            propagation form.
        consistency, temperature: `weight` and `temperature` of
            `ConsistencyRegularization`; for the propagation form.

    Returns:
        A `keras.Sequential` (with copies a `SequentialOfCopies`) from nodes
        `(batch, nodes, num_features)` to logits `(batch, nodes, num_classes)`,
        float32.

    Raises:
        ValueError: if `form` is unknown, or an argument of the propagation
            form is given for another form.

    Example:

    >>> path = np.eye(5, k=1) + np.eye(5, k=-1)
    >>> kernel = keras_topo.graphs.pagerank_kernel(path)
    >>> model = gkat_node_classifier(4, 2, kernel)
    >>> tuple(model(np.ones((1, 5, 4))).shape)
    (1, 5, 2)
    """
    _check_form(form, NODE_FORMS)
    drawn = (node_dropout, copies, consistency) != (0, 1, 0)
    if drawn and form != "propagation":
        raise ValueError(
            "`form` expects 'propagation' with node_dropout, copies or "
            f"consistency. Received: form={form!r}"
        )
    if input_dropout is None:
        input_dropout = dropout
    regularizer = keras.regularizers.L2(weight_decay) if weight_decay else None
    layers = [
        keras.Input((None, num_features), name="nodes"),
        keras.layers.Dropout(
            input_dropout, seed=layer_seed(seed, 100), name="dropout_0"
        ),
    ]
    if feature_dropout:
        layers.append(
            keras.layers.SpatialDropout1D(
                feature_dropout,
                seed=layer_seed(seed, 300),
                name="feature_dropout",
            )
        )
    heads = {"num_heads": num_heads, "key_dim": key_dim}
    attention = {"similarity": similarity, "graph_kernel": graph_kernel}
    sizes = num_classes, depth, heads, attention
    others = dropout, attention_dropout, regularizer, seed
    if form == "modern":
        layers += _modern_layers(*sizes, *others)
    elif form == "published":
        layers += _published_layers(*sizes, *others)
    else:
        drawing = _drawing_layers(node_dropout, copies, seed)
        layers += _propagation_layers(*sizes, *others, drawing)
    if consistency:
        layers.append(
            ConsistencyRegularization(
                consistency,
                temperature,
                copies,
                dtype="float32",
                name="consistency",
            )
        )
    kind = SequentialOfCopies if copies > 1 else keras.Sequential
    return kind(layers, name=name or f"gkat_{form}")


def _modern_layers(
    num_classes,
    depth,
    heads,
    attention,
    dropout,
    attention_dropout,
    regularizer,
    seed,
):
    """An embedding, pre-norm residual blocks and a classifier of nodes."""
    channels = heads["num_heads"] * heads["key_dim"]
    return [
        keras.layers.Dense(
            channels, kernel_regularizer=regularizer, name="embedding"
        ),
        *(
            GraphEncoderBlock(
                **heads,
                **attention,
                dropout=dropout,
                attention_dropout=attention_dropout,
                seed=layer_seed(seed, k),
                name=f"block_{k + 1}",
            )
            for k in range(depth)
        ),
        keras.layers.LayerNormalization(epsilon=1e-6, name="norm"),
        keras.layers.Dense(
            num_classes,
            kernel_regularizer=regularizer,
            dtype="float32",
            name="logits",
        ),
    ]


def _published_layers(
    num_classes,
    depth,
    heads,
    attention,
    dropout,
    attention_dropout,
    regularizer,
    seed,
):
    """Layers of attention, of which the last one averages its heads."""
    layers = []
    for k in range(depth):
        last = k == depth - 1
        layers.append(
            GraphKernelAttention(
                # The last layer: one head of logits for each kernel at least.
                heads["num_heads"],
                num_classes if last else heads["key_dim"],
                **attention,
                combine="average" if last else "concatenate",
                dropout=attention_dropout,
                kernel_regularizer=regularizer,
                seed=layer_seed(seed, k),
                dtype="float32" if last else None,
                name="logits" if last else f"attention_{k + 1}",
            )
        )
        if not last:
            layers += [
                keras.layers.ELU(name=f"elu_{k + 1}"),
                keras.layers.Dropout(
                    dropout,
                    seed=layer_seed(seed, 101 + k),
                    name=f"dropout_{k + 1}",
                ),
            ]
    return layers


def _drawing_layers(node_dropout, copies, seed):
    """What draws nodes, and copies, in a training: one layer, or none."""
    if not node_dropout and copies <= 1:
        return []
    return [
        NodeDropout(
            node_dropout,
            copies,
            seed=layer_seed(seed, 200),
            name="node_dropout",
        )
    ]


def _propagation_layers(
    num_classes,
    depth,
    heads,
    attention,
    dropout,
    attention_dropout,
    regularizer,
    seed,
    drawing,
):
    """Dense layers, which predict each node for itself, and kernel attention
    between logits.

    Args:
        drawing: list of what drops nodes, one layer or none.
    """
    layers = []
    for k in range(1, depth):
        # Behind the first layer, before which there are many more channels to
        # copy. A node that is dropped loses the bias of that layer, too.
        first = drawing if k == 1 else []
        layers += [
            keras.layers.Dense(
                heads["num_heads"] * heads["key_dim"],
                activation=None if first else "relu",
                kernel_regularizer=regularizer,
                name=f"hidden_{k}",
            ),
            *first,
            *([keras.layers.ReLU(name=f"relu_{k}")] if first else []),
            keras.layers.Dropout(
                dropout, seed=layer_seed(seed, 100 + k), name=f"dropout_{k}"
            ),
        ]
    if depth == 1:
        layers += drawing
    additive = attention["similarity"] == "additive"
    layers.append(
        GraphKernelAttention(
            count_kernels(attention["graph_kernel"]),
            num_classes,
            **attention,
            combine="average",
            dropout=attention_dropout,
            attention_initializer="zeros" if additive else None,
            attention_regularizer=(
                keras.regularizers.L2(SCORE_DECAY) if additive else None
            ),
            # Its own matrix is the only one where nothing comes before.
            kernel_regularizer=regularizer if depth == 1 else None,
            seed=layer_seed(seed, 0),
            dtype="float32",
            name="logits",
        )
    )
    return layers


def with_messages(x: Tensor, edges: tuple[Tensor, Tensor], k: int) -> Tensor:
    """`x` and a round of messages along edges, before the attention."""
    norm = keras.layers.LayerNormalization(
        epsilon=1e-6, name=f"messages_norm_{k + 1}"
    )
    messages = local_messages(norm(x), edges, x.shape[-1], f"messages_{k + 1}")
    return keras.layers.Add(name=f"local_{k + 1}")([x, messages])


def local_messages(
    x: Tensor, edges: tuple[Tensor, Tensor], units: int, name: str
) -> Tensor:
    """`LocalMessages` along the `edges` of `GraphInputs`."""
    ends, features = edges
    of_pairs = ends.name == "pairs"
    return LocalMessages(units, of_pairs=of_pairs, name=name)(x, ends, features)


def _check_form(form, forms):
    if form not in forms:
        raise ValueError(
            f"`form` expects one of {forms}. Received: form={form!r}"
        )


def layer_seed(seed: int | None, k: int) -> int | None:
    """Another seed for each layer: equal ones drop the same units."""
    return None if seed is None else 1000 * seed + k
