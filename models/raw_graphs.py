"""From raw graphs to the outputs of a model."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_topo.graphs import GraphPreprocessor
from keras_topo.graphs.largest import LOCAL_KERNELS, kinds_of
from keras_topo.layers import (
    AdjacencyFromEdges,
    AdjacencyKernel,
    AnchoredWalkKernel,
    BothDirections,
    ClusteringCoefficients,
    DegreeBins,
    DegreeFeatures,
    DegreeProfile,
    DiffusionKernel,
    L1Normalization,
    LabeledWalkKernel,
    LaplacianEigenvectors,
    LargestEntries,
    OneHotValues,
    RandomWalkKernel,
    ReturnProbabilities,
    StepsKernel,
)
from keras_topo.presets.builders import BUILDERS, builder, recipe_of


def with_preprocessing(
    model: keras.Model, preprocessor: GraphPreprocessor
) -> keras.Model:
    """Puts a model behind its `GraphPreprocessor`: raw graphs in.

    For a model of joined graphs, or of factors, this takes its padded twin
    with the same weights: inside, kernels are matrices.

    Args:
        model: of a builder such as `gkat_graph_classifier`, from what
            `GraphSequence` gives.
        preprocessor: the `GraphPreprocessor` that it was trained with.

    Returns:
        A functional `keras.Model`: see `from_graphs`.

    Example:

    >>> from keras_topo.graphs import Graph, GraphPreprocessor, raw_inputs
    >>> graphs = [Graph.from_edges([[0, 1]], 2, node_labels=[6, 8], label=0)]
    >>> preprocessor = GraphPreprocessor().adapt(graphs)
    >>> model = keras_topo.models.gkat_graph_classifier(
    ...     **preprocessor.model_arguments()
    ... )
    >>> served = with_preprocessing(model, preprocessor)
    >>> tuple(served(raw_inputs(graphs, preprocessor)).shape)
    (1, 1)
    """
    recipe = recipe_of(model)
    joined = "joined", "factors"
    if recipe is not None and recipe.arguments.get("batching") in joined:
        arguments = {**recipe.arguments, "batching": "padded"}
        arguments.pop("rank", None)
        padded = BUILDERS[recipe.builder](**arguments)
        padded.set_weights(model.get_weights())
        model = padded
    return from_graphs(model, preprocessor.get_config())


@builder
def from_graphs(
    model: keras.Model, preprocessor: Mapping[str, Any], name: str | None = None
) -> keras.Model:
    """A model of raw graphs: what `GraphPreprocessor` does, inside.

    Args:
        model: from what `GraphSequence` gives of padded graphs.
        preprocessor: `get_config()` of an adapted `GraphPreprocessor`.
        name: name of the model.

    Returns:
        A functional `keras.Model` to the outputs of `model` from a dict, of
        which those are there that the graphs have:

        - `node_labels` `(batch, nodes)`, int32 or string;
        - `features` `(batch, nodes, features)`, float32;
        - `node_mask` `(batch, nodes)`, bool;
        - `edges` `(batch, edges, 2)`, int32, node ids, -1 for padding, in one
          direction or both, unless they are directed;
        - `edge_weights` `(batch, edges)`, float32;
        - `edge_labels` `(batch, edges)`, int32 or string;
        - `edge_features` `(batch, edges, channels)`, float32.

    Raises:
        ValueError: if the features do not add up to those of the model, or
            graphs are directed and the kernel is diffusion.
    """
    p = GraphPreprocessor.from_config(preprocessor)
    if p.directed and "diffusion" in kinds_of(p.kernel):
        raise ValueError(
            "`preprocessor` expects undirected graphs where diffusion is "
            "computed inside a model. Received: one of directed graphs"
        )
    inputs = _inputs(p)
    edges, mask = inputs["edges"], inputs["node_mask"]
    # One channel of each node, where nothing else tells how many there are.
    nodes = keras.ops.cast(mask, "float32")[..., None]
    adjacency = AdjacencyFromEdges(p.directed, name="adjacency")(
        edges, nodes, inputs.get("edge_weights")
    )
    labels = None
    label_values = p._learned()["label_values"]
    if label_values:
        labels = OneHotValues(label_values, name="labels")(
            inputs["node_labels"]
        )
    x = _node_features(p, inputs, labels, adjacency, mask)
    if x is None:
        x = nodes
    expected = model.input["nodes"].shape[-1]
    if x.shape[-1] != expected:
        raise ValueError(
            f"`model` expects {expected} features. Received: a preprocessor "
            f"of {x.shape[-1]}"
        )
    kernel = _kernels(p, labels, adjacency, mask)
    if p.form == "pairs" and p.kernel not in LOCAL_KERNELS:
        kernel = LargestEntries(p.pairs_per_node, name="largest")(
            kernel, adjacency
        )
    if len(model.input["kernel"].shape) == 3:
        kernel = keras.ops.squeeze(kernel, 1)
    taken = {"nodes": x, "kernel": kernel, "node_mask": mask}
    if p.num_edge_features:
        features = _edge_features(p, inputs)
        taken["edges"], taken["edge_features"] = BothDirections(
            p.directed, name="directions"
        )(edges, features, nodes)
    return keras.Model(inputs, model(taken), name=name or model.name)


@builder
def l1_normalized(model: keras.Model, name: str | None = None) -> keras.Model:
    """Puts a model of nodes behind `L1Normalization`: raw features in.

    Args:
        model: from features `(batch, nodes, features)`, such as that of
            `gkat_node_classifier`, trained on rows that sum to one.
        name: name of the model.

    Returns:
        A functional `keras.Model` of the same input and output. Rows that
        sum to one already are taken as they are.

    Example:

    >>> model = keras_topo.models.gkat_node_classifier(4, 2, np.eye(5))
    >>> tuple(l1_normalized(model)(np.ones((1, 5, 4))).shape)
    (1, 5, 2)
    """
    (x,) = model.inputs
    inputs = keras.Input(x.shape[1:], dtype=x.dtype, name="nodes")
    outputs = model(L1Normalization(name="l1_normalization")(inputs))
    return keras.Model(inputs, outputs, name=name or model.name)


def _inputs(p):
    learned = p._learned()
    shapes = {
        "node_mask": ((None,), "bool"),
        "edges": ((None, 2), "int32"),
    }
    if p.weighted:
        shapes["edge_weights"] = ((None,), "float32")
    for name, values, own in (
        ("node_labels", learned["label_values"], None),
        ("features", None, learned["num_own_features"]),
        ("edge_labels", learned["edge_label_values"], None),
        ("edge_features", None, learned["num_own_edge_features"]),
    ):
        if values:
            is_text = isinstance(values[0], str)
            shapes[name] = (None,), "string" if is_text else "int32"
        elif own:
            shapes[name] = (None, own), "float32"
    return {
        name: keras.Input(shape, dtype=dtype, name=name)
        for name, (shape, dtype) in shapes.items()
    }


def _node_features(p, inputs, labels, adjacency, mask):
    """In the order of `GraphPreprocessor`; `None` without any."""
    learned, parts = p._learned(), []
    if labels is not None:
        parts.append(labels)
    if learned["num_own_features"]:
        parts.append(inputs["features"])
    if learned["max_degree"] is not None:
        most = learned["max_degree"]
        parts.append(DegreeFeatures(most, name="degrees")(adjacency))
        if p.directed:
            # Edges that reach a node, after those that leave it.
            reverse = keras.ops.swapaxes(adjacency, 1, 2)
            parts.append(DegreeFeatures(most, name="in_degrees")(reverse))
    if p.degree_profile:
        parts.append(DegreeProfile(name="profile")(adjacency, mask=mask))
    if p.clustering:
        parts.append(ClusteringCoefficients(name="clustering")(adjacency))
    if p.return_steps:
        parts.append(
            ReturnProbabilities(p.return_steps, name="returns")(adjacency)
        )
    if p.eigenvectors:
        parts.append(
            LaplacianEigenvectors(p.eigenvectors, name="eigenvectors")(
                adjacency, mask=mask
            )
        )
    return _side_by_side(parts, "node_features")


def _edge_features(p, inputs):
    learned, parts = p._learned(), []
    if learned["edge_label_values"]:
        parts.append(
            OneHotValues(learned["edge_label_values"], name="bonds")(
                inputs["edge_labels"]
            )
        )
    if learned["num_own_edge_features"]:
        parts.append(inputs["edge_features"])
    if not parts:
        ones = keras.ops.ones_like(inputs["edges"][..., :1])
        return keras.ops.cast(ones, "float32")
    return _side_by_side(parts, "edge_parts")


def _side_by_side(parts, name):
    """One tensor of several, or the only one; `None` without any."""
    if len(parts) > 1:
        return keras.layers.Concatenate(name=name)(parts)
    return parts[0] if parts else None


def _kernels(p, labels, adjacency, mask):
    """`(batch, kernels, nodes, nodes)`, in the order of their kinds."""
    parts = []
    for kind in kinds_of(p.kernel):
        walks = [int(n) for n in p.kernel_sizes]
        # One of several has its kind in its name.
        name = "kernel_of" if kind == p.kernel else f"kernel_of_{kind}"
        if kind == "labeled_walk":
            if labels is None:
                labels = DegreeBins(name="bins")(adjacency)
            layer = LabeledWalkKernel(walks, name=name)
            parts.append(layer(adjacency, labels, mask=mask))
            continue
        if kind == "random_walk" and p.form == "factors":
            layer = AnchoredWalkKernel(walks, p.anchors, name=name)
        elif kind == "random_walk":
            layer = RandomWalkKernel(walks, name=name)
        elif kind == "steps":
            layer = StepsKernel(walks, name=name)
        elif kind == "diffusion":
            layer = DiffusionKernel(
                p.kernel_sizes, "normalized_laplacian", name=name
            )
        else:
            layer = AdjacencyKernel(kind, name=name)
        parts.append(layer(adjacency, mask=mask))
    if len(parts) == 1:
        return parts[0]
    return keras.layers.Concatenate(axis=1, name="kernels")(parts)
