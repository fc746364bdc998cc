"""Lists of graphs of any library, as `Graph`s."""

import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import scipy.sparse

from keras_topo.annotations import AnyGraph
from keras_topo.graphs import conversions
from keras_topo.graphs.graph import Graph

# What each library's graphs can be asked for.
NAMES = {
    "networkx": set(
        inspect.signature(conversions.fields_of_networkx).parameters
    )
    - {"graph"},
    "PyTorch Geometric": {*conversions.FIELDS, "targets", "mask"},
    "DGL": set(conversions.FIELDS),
}


def check_attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    """`attributes` as a dict, whose names some library knows."""
    attributes = dict(attributes or {})
    known = set().union(*NAMES.values())
    unknown = sorted(set(attributes) - known)
    if unknown:
        raise ValueError(
            f"`attributes` expects names of {', '.join(sorted(known))}. "
            f"Received: {', '.join(map(str, unknown))}"
        )
    return attributes


def as_graph(
    value: AnyGraph,
    attributes: Mapping[str, Any] | None = None,
    name: str = "graphs",
    level: Literal["graphs", "nodes"] | None = None,
) -> Graph:
    """A `Graph` from what is one in some library.

    Args:
        value: `Graph`; a graph of networkx, PyTorch Geometric or DGL; or an
            adjacency matrix, scipy sparse or array, or a pair of it and
            features of nodes.
        attributes: dict, what to read of the former: the arguments of
            `Graph.from_networkx`, `from_pyg` or `from_dgl`.
        name: str, for errors.
        level: `"graphs"` or `"nodes"`, what the targets of a `Data` of PyTorch
            Geometric belong to, unless `attributes` say so; or `None`.

    Raises:
        ValueError: if it is none of these, or cannot be read.
    """
    attributes = attributes or {}
    if isinstance(value, Graph):
        return value
    library = library_of(value)
    if library is not None:
        unknown = sorted(set(attributes) - NAMES[library])
        if unknown:
            raise ValueError(
                f"`attributes` expects names of {sorted(NAMES[library])} for "
                f"graphs of {library}. Received: {', '.join(unknown)}"
            )
    if library == "networkx":
        return Graph.from_networkx(value, **attributes)
    if library == "PyTorch Geometric":
        if level is not None:
            targets = {"graphs": "graph", "nodes": "nodes"}[level]
            attributes = {"targets": targets, **attributes}
        return Graph.from_pyg(value, **attributes)
    if library == "DGL":
        return Graph.from_dgl(value, **attributes)
    if _is_matrix(value):
        return Graph(value)
    if isinstance(value, tuple) and len(value) == 2 and _is_matrix(value[0]):
        return Graph(value[0], features=value[1])
    raise ValueError(
        f"`{name}` expects graphs: Graph, networkx, PyTorch Geometric, DGL, or "
        "adjacency matrices, alone or in pairs with features. Received: "
        f"{type(value).__name__}"
    )


def as_graphs(
    values: Iterable[AnyGraph],
    attributes: Mapping[str, Any] | None = None,
    name: str = "graphs",
    level: Literal["graphs", "nodes"] | None = None,
) -> list[Graph]:
    """A list of `Graph`s: see `as_graph`. An error says which is none."""
    single = (
        isinstance(values, Graph) or library_of(values) or _is_matrix(values)
    )
    if single or not hasattr(values, "__iter__"):
        hint = "; put a single graph into a list" if single else ""
        raise ValueError(
            f"`{name}` expects a list of graphs{hint}. Received: "
            f"{type(values).__name__}"
        )
    graphs = []
    for k, value in enumerate(values):
        try:
            graphs.append(as_graph(value, attributes, name, level))
        except ValueError as error:
            raise ValueError(f"{name}[{k}]: {error}") from error
    return graphs


def library_of(value: AnyGraph) -> str | None:
    """The library whose graph a value is, or looks like; or `None`."""
    networkx = sys.modules.get("networkx")
    if networkx is not None and isinstance(value, networkx.Graph):
        return "networkx"
    if getattr(value, "edge_index", None) is not None:
        return "PyTorch Geometric"
    if hasattr(value, "ndata") and hasattr(value, "edata"):
        return "DGL"
    return None


def _is_matrix(value: Any) -> bool:
    return scipy.sparse.issparse(value) or (
        isinstance(value, np.ndarray)
        and value.ndim == 2
        and value.dtype != object
    )
