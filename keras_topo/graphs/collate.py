"""Examples of a preprocessor as the arrays of a batch."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from keras_topo.annotations import AnyGraph
from keras_topo.host.adjacency import check_int32

if TYPE_CHECKING:
    from keras_topo.graphs.preprocessor import GraphPreprocessor


def pad_examples(
    examples: Sequence[Mapping[str, np.ndarray]], num_nodes: int, num_edges: int
) -> dict[str, np.ndarray]:
    """Stacks examples with matrices or factors, padded to one number of nodes.

    Args:
        examples: list of dicts: see `GraphPreprocessor`.
        num_nodes, num_edges: ints, after padding.

    Returns:
        A dict of arrays: see `GraphSequence`.
    """
    sizes = [len(example["nodes"]) for example in examples]
    first = examples[0]
    batch = len(examples)
    inputs = {
        "nodes": np.zeros(
            (batch, num_nodes, first["nodes"].shape[1]), "float32"
        ),
        "node_mask": np.zeros((batch, num_nodes), bool),
    }
    if "kernel" in first:
        shape = (batch, len(first["kernel"]), num_nodes, num_nodes)
        inputs["kernel"] = np.zeros(shape, "float32")
    else:
        kernels, _, rank = first["factors"].shape
        inputs["factors"] = np.zeros(
            (batch, kernels, num_nodes, rank), "float32"
        )
    for k, (example, n) in enumerate(zip(examples, sizes, strict=True)):
        inputs["nodes"][k, :n] = example["nodes"]
        if "kernel" in first:
            inputs["kernel"][k, :, :n, :n] = example["kernel"]
        else:
            inputs["factors"][k, :, :n] = example["factors"]
        inputs["node_mask"][k, :n] = True
    if "edges" in first:
        for name, padding in (("edges", -1), ("edge_features", 0)):
            inputs[name] = np.stack(
                [pad_rows(x[name], num_edges, padding) for x in examples]
            )
    return inputs


def join_examples(
    examples: Sequence[Mapping[str, np.ndarray]], num_nodes: int, num_pairs: int
) -> dict[str, np.ndarray]:
    """Joins examples of pairs into one graph without edges between them.

    Args:
        examples: list of dicts: see `GraphPreprocessor`.
        num_nodes, num_pairs: ints, after padding. Padded pairs have value 0.

    Returns:
        A dict of arrays: see `GraphSequence`.
    """
    sizes = np.array([len(example["nodes"]) for example in examples])
    starts = np.cumsum(sizes) - sizes
    pairs = [
        example["pairs"][:2].astype("int32").T + np.int32(start)
        for example, start in zip(examples, starts, strict=True)
    ]
    values = np.concatenate([x["pairs"][2:] for x in examples], axis=1)
    nodes = np.concatenate([example["nodes"] for example in examples])
    inputs = {
        "nodes": pad_rows(nodes, num_nodes)[None],
        "pairs": pad_rows(np.concatenate(pairs), num_pairs)[None],
        "pair_values": pad_rows(values.T, num_pairs).T[None],
        "graph_sizes": sizes.astype("int32"),
    }
    if "pair_features" in examples[0]:
        features = np.concatenate([x["pair_features"] for x in examples])
        inputs["pair_features"] = pad_rows(features, num_pairs)[None]
    return inputs


def pad_rows(x: np.ndarray, count: int, value: float = 0) -> np.ndarray:
    """`(rows, ...)` to `(count, ...)`."""
    width = [(0, count - len(x))] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, width, constant_values=value)


def raw_inputs(
    graphs: Sequence[AnyGraph], preprocessor: "GraphPreprocessor"
) -> dict[str, np.ndarray]:
    """Raw graphs as the arrays of a model that does its own preprocessing.

    Args:
        graphs: list of graphs of any library.
        preprocessor: `GraphPreprocessor`, adapted.

    Returns:
        A dict of arrays, padded to the largest graph: see
        `keras_topo.models.from_graphs`. Padding of labels is the first label
        that is known.

    Raises:
        ValueError: if there are no graphs; or a graph lacks what those of
            `adapt` had, has other features or labels, or directions or weights
            that those had not; or for labels that are no int32.

    Example:

    >>> from keras_topo.graphs import Graph, GraphPreprocessor
    >>> graphs = [Graph.from_edges([[0, 1]], 2, node_labels=["C", "O"])]
    >>> inputs = raw_inputs(graphs, GraphPreprocessor().adapt(graphs))
    >>> sorted(inputs)
    ['edges', 'node_labels', 'node_mask']
    """
    graphs = preprocessor.read(graphs)
    if not graphs:
        raise ValueError("`graphs` expects at least one graph. Received: none")
    preprocessor.check(graphs)
    learned = preprocessor._learned()
    nodes = max(graph.num_nodes for graph in graphs)
    edges = max(graph.adjacency.nnz for graph in graphs)
    ends = [graph.edge_index().T.astype("int32") for graph in graphs]
    found = {
        "node_mask": np.stack(
            [np.arange(nodes) < graph.num_nodes for graph in graphs]
        ),
        "edges": np.stack([pad_rows(x, edges, -1) for x in ends]),
    }
    if learned["weighted"]:
        found["edge_weights"] = np.stack(
            [pad_rows(g.adjacency.data, edges) for g in graphs]
        )
    for name, field, size in (
        ("node_labels", "label_values", nodes),
        ("edge_labels", "edge_label_values", edges),
    ):
        values = learned[field]
        if values:
            found[name] = _pad_labels(
                [getattr(graph, name) for graph in graphs], values, size, name
            )
    for name, field, size in (
        ("features", "num_own_features", nodes),
        ("edge_features", "num_own_edge_features", edges),
    ):
        if learned[field]:
            empty = np.zeros((0, learned[field]), "float32")
            rows = [getattr(graph, name) for graph in graphs]
            found[name] = np.stack(
                [pad_rows(empty if x is None else x, size) for x in rows]
            )
    return found


def _pad_labels(rows, values, size, name):
    """Labels of several graphs as one array, whose padding is a known one.

    Args:
        rows: arrays of labels, or `None`.
        values: the known labels, ints or strings.
        size: int, the second axis.
        name: str, of the field, for errors.
    """
    if isinstance(values[0], str):
        # NumPy would cut longer ones.
        found = np.full((len(rows), size), values[0], object)
    else:
        check_int32(values, name)
        # Labels of more bits are none of the known ones, and stay so.
        other = next(k for k in itertools.count() if k not in values)
        found = np.full((len(rows), size), values[0], "int32")
        rows = [
            x if x is None else np.where(x == x.astype("int32"), x, other)
            for x in rows
        ]
    for row, labels in zip(found, rows, strict=True):
        if labels is not None:
            row[: len(labels)] = labels
    return found.astype(str) if found.dtype == object else found
