"""Which edges of a graph a prediction rests on."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_topo.annotations import AnyGraph
from keras_topo.figures import new_figure
from keras_topo.graphs.links import edges_of, is_directed, without_edges
from keras_topo.visualize.graphs import places_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_topo.estimators.base import GraphEstimator

# Nodes up to which they are drawn with what is written in them.
MOST_LABELS = 60
# Entries of the matrices of graphs that are predicted together.
MOST_ENTRIES = 2**21


def edge_importance(
    estimator: "GraphEstimator",
    graph: AnyGraph,
    target: Any = None,
    node: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How much a prediction changes when an edge is left out.

    For each edge `e` of the graph `G`, by occlusion,

        importance(e) = s(G) - s(G without e).

    The score `s` is the log-odds of a class, `log(p / (1 - p))`, or the
    predicted number. So an edge of positive importance speaks for the class,
    or raises the number, and one of negative importance does the opposite.
    Only predictions count, not the inside of the model. Features and kernels
    are computed anew without the edge, as for a graph that never had it, and
    nodes that lose their last edge stay. Importances of several edges do not
    add up: of two ways around a ring, each alone may not matter.

    Args:
        estimator: `GraphClassifier` or `GraphRegressor`, or, with `node`,
            `NodeClassifier` or `NodeRegressor`, after `fit` or `from_preset`.
        graph: a graph of any library that the estimator reads.
        target: a value of `estimator.classes`, by default the predicted one;
            of several labels or numbers the place of one of them, by default
            the first.
        node: int, the node whose prediction counts, of estimators of nodes.

    Returns:
        `(edges, importance)`: `(edges, 2)`, int64, node ids, the smaller one
        first in undirected graphs; and `(edges,)`, float64. Self-loops are
        left aside.

    Raises:
        ValueError: if the graph has no edges or cannot be read, `target` is
            no target of the estimator, or `node` is missing or no node.

    *Complexity*: one prediction per edge, in batches of bounded memory.

    Example:

    >>> mutag = keras_topo.GraphClassifier.from_preset("gkat-mutag")
    >>> ring_and_tail = [*[[i, (i + 1) % 6] for i in range(6)], [0, 6]]
    >>> molecule = keras_topo.graphs.Graph.from_edges(
    ...     ring_and_tail, num_nodes=7, node_labels=[0, 0, 0, 0, 0, 0, 1]
    ... )
    >>> edges, importance = edge_importance(mutag, molecule)
    >>> edges[importance.argmax()]
    array([0, 6])
    """
    graph, edges, importance, _ = _importance(estimator, graph, target, node)
    return edges, importance


def plot_edge_importance(
    estimator: "GraphEstimator",
    graph: AnyGraph,
    target: Any = None,
    node: int | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Draws a graph with each edge in the color of its importance.

    Args:
        estimator, graph, target, node: see `edge_importance`.
        names: a str for each node, to be written in it; by default its label,
            where nodes have labels and are not many.
        title: str, above the picture; by default what is predicted.

    Returns:
        A figure. Edges are the wider, the more they count, and a caption says
        what the colors mean. Needs networkx and matplotlib (extras `training`
        and `plots`).

    Raises:
        ValueError: as `edge_importance`, or if there are not as many `names`
            as nodes.

    Example:

    >>> mutag = keras_topo.GraphClassifier.from_preset("gkat-mutag")
    >>> ring = [[i, (i + 1) % 6] for i in range(6)]
    >>> carbons = keras_topo.graphs.Graph.from_edges(
    ...     ring, num_nodes=6, node_labels=[0] * 6
    ... )
    >>> plot_edge_importance(mutag, carbons).savefig("edges.png")
    """
    graph, edges, importance, told = _importance(estimator, graph, target, node)
    if names is None and graph.node_labels is not None:
        if graph.num_nodes <= MOST_LABELS:
            names = [str(label) for label in graph.node_labels.tolist()]
    if names is not None and len(names) != graph.num_nodes:
        raise ValueError(
            f"`names` expects one for each of {graph.num_nodes} nodes. "
            f"Received: {len(names)}"
        )
    figure = new_figure(figsize=(7.2, 4.4))
    axis = figure.subplots()
    places = _layout(graph)
    directed = is_directed(graph)
    drawn = _draw_edges(axis, places, edges, importance, directed)
    _draw_nodes(axis, places, names, node)
    axis.set_title(told.heading if title is None else title, fontsize=11)
    axis.set_axis_off()
    axis.set_aspect("equal", adjustable="datalim")
    axis.margins(0.08)
    figure.colorbar(drawn, ax=axis, shrink=0.8, label=told.label)
    figure.supxlabel(told.caption, fontsize=10)
    return figure


class _Told:
    """What is to be said of the importances of edges."""

    def __init__(self, estimator, outputs, target, node):
        self.columns = outputs.shape[-1]
        classes = getattr(estimator, "classes", None)
        of_node = "" if node is None else f" of node {node}"
        if classes is not None:
            index = _class_index(classes, target, outputs)
            what = f"log-odds of class {classes[index]!r}{of_node}"
            self.score = lambda logits: _log_odds(logits, index)
            odds = float(self.score(outputs[None])[0])
            share = 0.5 + 0.5 * np.tanh(odds / 2)
            self.heading = (
                f"Class {classes[index]!r}{of_node}, probability {share:.2f}"
            )
            without = f"class {classes[index]!r} is less likely"
        else:
            index = _place(target, self.columns)
            labels = getattr(estimator, "multi_label", False)
            kind = "label" if labels else "value"
            name = kind if self.columns == 1 else f"{kind} {index}"
            what = f"{'log-odds of ' * labels}{name}{of_node}"
            self.score = lambda outputs: outputs[..., index]
            value = float(outputs[index])
            self.heading = f"Predicted {what}: {value:.3g}"
            without = f"{what} is lower"
        self.label = f"importance: {what},\nwith the edge minus without it"
        self.caption = (
            f"Red edges: without the edge {without}. Blue edges: it is "
            f"{'more likely' if classes is not None else 'higher'}."
        )


def _importance(estimator, graph, target, node):
    """The `Graph`, edges, their importances, and what to say of them."""
    quiet = copy.copy(estimator)
    quiet.preprocessor = copy.copy(estimator.preprocessor)
    # Each graph is looked at once: nothing is kept on disk.
    quiet.preprocessor.cache = False
    estimator._fitted()
    (graph,) = quiet.preprocessor.read([graph])
    directed = is_directed(graph)
    edges = edges_of(graph, directed)
    if not len(edges):
        raise ValueError(
            "`graph` expects at least one edge that is no self-loop. Received: "
            f"{graph}"
        )
    _check_node(estimator, graph, node)
    # So many at a time that their kernels do not fill the memory.
    size = max(1, MOST_ENTRIES // graph.num_nodes**2)
    outputs = []
    for first in range(0, len(edges) + 1, size):
        graphs = [
            without_edges(graph, edges[k - 1 : k], directed) if k else graph
            for k in range(first, min(first + size, len(edges) + 1))
        ]
        found = quiet.predict_raw(graphs)
        outputs.extend(found if node is None else [x[node] for x in found])
    outputs = np.asarray(outputs, "float64")
    told = _Told(estimator, outputs[0], target, node)
    scores = told.score(outputs)
    return graph, edges, scores[0] - scores[1:], told


def _check_node(estimator, graph, node):
    if estimator.level == "graphs":
        if node is not None:
            raise ValueError(
                "`node` is for estimators of nodes. Received: "
                f"node={node!r} for {type(estimator).__name__}"
            )
    elif (
        not isinstance(node, (int, np.integer))
        or not 0 <= node < graph.num_nodes
    ):
        raise ValueError(
            f"`node` expects one of the {graph.num_nodes} nodes, counted from "
            f"0. Received: node={node!r}"
        )


def _class_index(classes, target, outputs):
    if target is None:
        return int(outputs.argmax())
    if target not in classes:
        raise ValueError(
            f"`target` expects one of the classes {list(classes)}. Received: "
            f"target={target!r}"
        )
    return list(classes).index(target)


def _place(target, count):
    target = 0 if target is None else target
    if not isinstance(target, (int, np.integer)) or not 0 <= target < count:
        raise ValueError(
            f"`target` expects an int from 0 to {count - 1}. Received: "
            f"target={target!r}"
        )
    return int(target)


def _log_odds(logits, index):
    """`log(p / (1 - p))` of one of several classes."""
    others = np.delete(logits, index, axis=-1)
    top = others.max(axis=-1, keepdims=True)
    total = np.exp(others - top).sum(axis=-1, keepdims=True)
    return logits[..., index] - (top + np.log(total))[..., 0]


def _layout(graph):
    """Places of the nodes, `(nodes, 2)`, wider than high."""
    places = places_of(graph)
    places = places - places.mean(axis=0)
    return places @ np.linalg.svd(places, full_matrices=False)[2].T


def _draw_edges(axis, places, edges, importance, directed):
    """Lines, the most important ones on top; returns what has their colors."""
    if directed:
        return _draw_arrows(axis, places, edges, importance)
    from matplotlib.collections import LineCollection

    order = np.argsort(abs(importance), kind="stable")
    most = max(abs(importance).max(), 1e-12)
    share = abs(importance[order]) / most
    ends = places[edges[order]]
    # Thin gray lines below: an edge of no importance is an edge as well.
    axis.add_collection(
        LineCollection(ends, colors="0.75", linewidths=0.8, zorder=1)
    )
    lines = LineCollection(
        ends, linewidths=1.0 + 5.0 * share, cmap="RdBu_r", zorder=2
    )
    lines.set_array(importance[order])
    lines.set_clim(-most, most)
    axis.add_collection(lines)
    return lines


def _draw_arrows(axis, places, edges, importance):
    """The same of directed edges, bent so that none covers its opposite."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import FancyArrowPatch

    most = max(abs(importance).max(), 1e-12)
    colors = ScalarMappable(Normalize(-most, most), cmap="RdBu_r")
    for k in np.argsort(abs(importance), kind="stable"):
        width = 1.0 + 5.0 * abs(importance[k]) / most
        for color, line in (
            ("0.75", 0.0),
            (colors.to_rgba(importance[k]), width),
        ):
            axis.add_patch(
                FancyArrowPatch(
                    *places[edges[k]],
                    connectionstyle="arc3,rad=0.15",
                    arrowstyle="-|>",
                    mutation_scale=10 + 1.5 * width,
                    linewidth=max(line, 0.8),
                    color=color,
                    shrinkA=6,
                    shrinkB=6,
                    zorder=2 if line else 1,
                )
            )
    return colors


def _draw_nodes(axis, places, names, node):
    size = 14 if names is None else 130
    axis.scatter(*places.T, s=size, color="white", edgecolors="0.35", zorder=3)
    for place, name in zip(places, names or (), strict=False):
        axis.annotate(
            name, place, ha="center", va="center", fontsize=7, zorder=4
        )
    if node is not None:
        axis.scatter(
            *places[node],
            s=2.5 * size,
            facecolors="none",
            edgecolors="green",
            linewidths=1.5,
            zorder=4,
        )
