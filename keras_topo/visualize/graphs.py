"""Pictures of graphs: kernels, and what a node attends to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_topo.figures import COLORS, by_title, new_figure
from keras_topo.graphs.graph import Graph
from keras_topo.visualize.weights import attention_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_graph_attention(
    models: keras.Model | dict[str, keras.Model],
    graph: Graph,
    inputs: Any,
    node: int | None = None,
    max_layers: int = 4,
) -> "Figure":
    """Draws what a node of a graph attends to, in every layer and head.

    Args:
        models: Keras model of graphs; or a dict from titles to such models.
        graph: `keras_topo.graphs.Graph`, whose edges are drawn.
        inputs: what the models take, a batch of one graph.
        node: int, the query node; defaults to one of the highest degree.
        max_layers: int, how many layers to draw, the last ones.

    Returns:
        A figure: a row for each layer, a panel for each head, colors relative
        to the largest weight of each.

    Raises:
        ValueError: if the node is not in the graph.

    Example:

    >>> graph = keras_topo.graphs.Graph.from_edges([[0, 1], [1, 2]], 3)
    >>> model = keras_topo.models.gkat_graph_classifier(4, 2, depth=1)
    >>> inputs = {
    ...     "nodes": np.ones((1, 3, 4)),
    ...     "kernel": np.ones((1, 4, 3, 3)),
    ...     "node_mask": np.ones((1, 3), bool),
    ... }
    >>> plot_graph_attention(model, graph, inputs).savefig("attention.png")
    """
    models = by_title(models)
    node, layout = _node(graph, node), _layout(graph)
    columns, layers = [], 0
    for title, model in models.items():
        found = list(attention_weights(model, inputs).items())[-max_layers:]
        layers = max(layers, len(found))
        columns.append((title, found))
    heads = [max(len(w[0]) for _, w in found) for _, found in columns]
    figure, axes = _axes(layers, sum(heads), 2.1, 2.1)
    first = 0
    marks: Any = None
    for (title, found), width in zip(columns, heads, strict=True):
        for i, (name, weights) in enumerate(found):
            for head, matrix in enumerate(weights[0]):
                axis = axes[i, first + head]
                values = matrix[node, : graph.num_nodes]
                marks = _draw_nodes(axis, layout, values, node)
                text = f"{name}, head {head + 1}"
                axis.set_title(
                    f"{title}: {text}" if title else text, fontsize=8
                )
        first += width
    figure.colorbar(
        marks, ax=axes, shrink=0.8, label="share of the largest weight"
    )
    figure.suptitle("What the node in the red circle attends to", fontsize=11)
    return figure


def plot_kernels(
    graphs: Sequence[Graph],
    kernels: Sequence[np.ndarray],
    names: Sequence[str],
    titles: Sequence[str],
) -> "Figure":
    """Draws kernels of graphs, as seen from one node of each.

    Colors show shares of the largest value of a panel: attention is normalized,
    so that a factor of a kernel changes nothing.

    Args:
        graphs: list of `keras_topo.graphs.Graph`s, a row each.
        kernels: list of arrays `(kernels, nodes, nodes)`, a column each.
        names: a str for each graph.
        titles: a str for each kernel.

    Returns:
        A figure.

    Example:

    >>> graph = keras_topo.graphs.Graph.from_edges([[0, 1], [1, 2]], 3)
    >>> kernels = keras_topo.graphs.diffusion_kernel(graph, time=[0.5, 2.0])
    >>> figure = plot_kernels([graph], [kernels], ["path"], ["0.5", "2"])
    >>> figure.savefig("kernels.png")
    """
    figure, axes = _axes(len(graphs), len(titles), 2.6, 2.5)
    marks: Any = None
    for row, graph, kernel, name in zip(
        axes, graphs, kernels, names, strict=True
    ):
        # The node in the middle, as far as there is one.
        query, layout = _node(graph, None), _layout(graph)
        for axis, matrix, title in zip(row, kernel, titles, strict=True):
            marks = _draw_nodes(axis, layout, matrix[query], query)
            axis.set_title(f"{name}, {title}", fontsize=9)
    figure.colorbar(
        marks, ax=axes, shrink=0.8, label="share of the largest value"
    )
    figure.suptitle(
        "Kernels, which multiply the attention of a node (red circle) to "
        "others",
        fontsize=11,
        wrap=True,
    )
    return figure


def _node(graph, node):
    if node is None:
        return int(np.argmax(graph.degrees()))
    if not 0 <= node < graph.num_nodes:
        raise ValueError(
            f"`node` expects one of the {graph.num_nodes} nodes, counted from "
            f"0. Received: node={node}"
        )
    return node


def _axes(rows, columns, width, height):
    figure = new_figure(figsize=(width * columns + 1.2, height * rows + 0.8))
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def places_of(graph: "Graph") -> np.ndarray:
    """Places of the nodes of a graph in a picture, `(nodes, 2)`."""
    import networkx

    network = networkx.from_scipy_sparse_array(
        # Not `weight`, which a layout would take for a distance.
        graph.adjacency != 0,
        edge_attribute="entry",
    )
    parts = list(networkx.connected_components(network))
    if graph.num_nodes > 300 or len(parts) > 1:
        layout = networkx.spring_layout(network, seed=0)
    else:
        layout = networkx.kamada_kawai_layout(network)
    return np.array([layout[k] for k in range(graph.num_nodes)]).reshape(-1, 2)


def _layout(graph):
    """Places of nodes, `(nodes, 2)`, and of the ends of edges."""
    places = places_of(graph)
    ends = np.stack(graph.adjacency.nonzero(), axis=1)
    return places, places[ends]


def _draw_nodes(axis, layout, values, query):
    """Edges, and nodes in the colors of their values; returns the latter."""
    places, ends = layout
    axis.plot(*ends.transpose(2, 1, 0), color="0.75", linewidth=0.6, zorder=0)
    marks = axis.scatter(
        *places.T,
        c=values / max(values.max(), 1e-30),
        s=16,
        vmin=0,
        vmax=1,
        cmap=COLORS,
    )
    axis.plot(
        *places[query],
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor="red",
    )
    axis.set_axis_off()
    return marks
