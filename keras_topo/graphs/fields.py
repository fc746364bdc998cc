"""Fields of graphs, as features of nodes, edges and pairs; checks of options.

What `GraphPreprocessor` reads of a graph, one field at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from keras_topo.graphs.graph import Graph

CHOICE = ("auto", True, False)
_Value = TypeVar("_Value")


def one_hot(
    values: np.ndarray, vocabulary: Sequence[Any], unknown: str, name: str
) -> np.ndarray:
    """`(n,)` values to `(n, len(vocabulary))`, float32."""
    known = np.asarray(vocabulary)
    if (known.dtype.kind == "U") != (values.dtype.kind == "U"):
        raise ValueError(
            f"{name} expects values such as {vocabulary[0]!r}. Received: "
            f"{values[:1].tolist()}"
        )
    found = values[:, None] == known
    missing = ~found.any(axis=1)
    if missing.any() and unknown == "error":
        raise ValueError(
            f"{name} expects values that `adapt` has seen, {vocabulary}. "
            f"Received: {values[missing][0].item()!r}; unknown='zeros' lets "
            "others pass"
        )
    return found.astype("float32")


def check_choice(name: str, value: _Value, allowed: Sequence[Any]) -> _Value:
    # Not by equality alone: 1 is no True.
    if not any(value == a and type(value) is type(a) for a in allowed):
        raise ValueError(
            f"`{name}` expects one of {allowed}. Received: {name}={value!r}"
        )
    return value


def check_natural(name: str, value: int, least: int = 0) -> int:
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(
            f"`{name}` expects an int from {least} on. Received: "
            f"{name}={value!r}"
        )
    return int(value)


def degrees_of(graph: Graph, directed: bool) -> Iterator[np.ndarray]:
    """Edges of each node, `(nodes,)`; of directed graphs out and in, two."""
    yield np.diff(graph.adjacency.indptr)
    if directed:
        yield np.bincount(graph.adjacency.indices, minlength=graph.num_nodes)


def field_of(graph: Graph, field: str, name: str) -> np.ndarray:
    value = getattr(graph, field)
    if value is None:
        raise ValueError(
            f"{name} expects {field}, which the graphs of `adapt` have. "
            "Received: a graph without"
        )
    return value


def field_of_width(
    graph: Graph, field: str, width: int, name: str
) -> np.ndarray:
    value = field_of(graph, field, name)
    if value.shape[1] != width:
        raise ValueError(
            f"{name} expects {width} {field}. Received: {value.shape[1]}"
        )
    return value


def at_pairs(
    graph: Graph, features: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """Features of edges at the pairs of a kernel, and a one for each edge;
    zeros elsewhere."""
    found = np.zeros((pairs.shape[1], features.shape[1] + 1), "float32")
    nodes = graph.num_nodes
    source, target = graph.edge_index()
    ids = pairs[:2].astype("int64")
    # Both are in row order, and pairs hold all edges.
    place = np.searchsorted(ids[0] * nodes + ids[1], source * nodes + target)
    found[place, :-1] = features
    found[place, -1] = 1.0
    return found
