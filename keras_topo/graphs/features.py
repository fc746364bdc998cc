"""Node features that a graph without any can be given."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_topo.graphs.graph import Graph
from keras_topo.graphs.kernels import return_probabilities


def node_features(
    graph: Graph,
    num_node_labels: int | Sequence[Any] = 0,
    attributes: bool = True,
    max_degree: int | None = None,
    return_steps: int = 0,
) -> np.ndarray:
    """Puts together the features of the nodes of a graph.

    Args:
        graph: `Graph`.
        num_node_labels: the node labels as one-hot vectors. Either the list
            of the values that they may have, in the order of the vector, such
            as `GraphDataset.node_label_values`; or an int `n` for labels from
            0 to `n - 1`. 0 for none.
        attributes: bool, the features that the graph has.
        max_degree: int; the degree as a one-hot vector, larger degrees
            counting as this one; or `None`.
        return_steps: int, probabilities that a random walk is back after 1 to
            this many steps.

    Returns:
        float32 array `(nodes, features)`. Where nothing was asked for, or
        nothing is there, a single feature of ones.

    Raises:
        ValueError: if node labels are asked for and the graph has none, or
            one that is not among the values.

    Example:

    >>> from keras_topo.graphs import Graph
    >>> graph = Graph.from_edges([[0, 1], [1, 2]], 3, node_labels=list("CCO"))
    >>> node_features(graph, num_node_labels=["C", "N", "O"])
    array([[1., 0., 0.],
           [1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    parts = []
    values = num_node_labels
    if isinstance(values, int | np.integer):
        values = range(values)
    if len(values):
        if graph.node_labels is None:
            raise ValueError(
                "`num_node_labels` expects graphs with node labels. Received: "
                f"num_node_labels={num_node_labels} and a graph without"
            )
        parts.append(one_hot(_places(graph.node_labels, values), len(values)))
    if attributes and graph.features is not None:
        parts.append(graph.features)
    if max_degree is not None:
        degrees = np.minimum(np.diff(graph.adjacency.indptr), max_degree)
        parts.append(one_hot(degrees, max_degree + 1))
    if return_steps:
        parts.append(return_probabilities(graph.adjacency, return_steps))
    if not parts:
        return np.ones((graph.num_nodes, 1), "float32")
    return np.concatenate(parts, axis=1).astype("float32")


def _places(labels, values):
    """Where each label is among the values."""
    places = {value: place for place, value in enumerate(values)}
    if len(places) != len(values):
        raise ValueError(
            "`num_node_labels` expects different values. Received: "
            f"num_node_labels={values}"
        )
    found = np.array([places.get(label, -1) for label in labels.tolist()])
    if found.min() < 0:
        node = int(np.argmin(found))
        raise ValueError(
            "`num_node_labels` expects all values that node labels have, or "
            "their number where they count from 0. Received: "
            f"num_node_labels={values} and a graph with the label "
            f"{labels[node].item()!r} at node {node}"
        )
    return found


def one_hot(ids: np.ndarray, size: int) -> np.ndarray:
    """`(nodes,)` ids to `(nodes, size)`, float32."""
    if len(ids) and (ids.min() < 0 or ids.max() >= size):
        raise ValueError(
            f"`ids` expects values from 0 to {size - 1}. Received: "
            f"{int(ids.min())} to {int(ids.max())}"
        )
    return np.eye(size, dtype="float32")[ids]


def largest_neighbor_degrees(graph: Graph, count: int = 5) -> np.ndarray:
    """The `count` largest degrees of the neighbors of each node.

    The features of the motif tasks of Choromanski et al. (2022).

    Returns:
        float32 array `(nodes, count)`, in decreasing order, padded with zeros.

    Example:

    >>> from keras_topo.graphs import Graph
    >>> graph = Graph.from_edges([[0, 1], [1, 2]], num_nodes=3)
    >>> largest_neighbor_degrees(graph, count=2)
    array([[2., 0.],
           [1., 1.],
           [2., 0.]], dtype=float32)
    """
    adjacency = graph.adjacency
    degrees = np.diff(adjacency.indptr)
    rows = np.repeat(np.arange(graph.num_nodes), degrees)
    values = degrees[adjacency.indices]
    # By node, and in decreasing order within a node.
    order = np.lexsort((-values, rows))
    place = np.arange(len(rows)) - adjacency.indptr[rows]
    features = np.zeros((graph.num_nodes, count), "float32")
    kept = place < count
    features[rows[kept], place[kept]] = values[order][kept]
    return features
