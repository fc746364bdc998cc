"""Lists of graphs of any library, as `Graph`s."""

import sys

import numpy as np
import scipy.sparse

from keras_topo.graphs.graph import Graph


def as_graph(value, attributes=None, name="graphs"):
    """A `Graph` from what is one in some library.

    Args:
        value: `Graph`; a graph of networkx, PyTorch Geometric or DGL; or an
            adjacency matrix, scipy sparse or array.
        attributes: dict, what to read of the former: the arguments of
            `Graph.from_networkx`, `from_pyg` or `from_dgl`.
        name: str, for errors.

    Raises:
        ValueError: if it is none of these, or cannot be read.
    """
    attributes = attributes or {}
    if isinstance(value, Graph):
        return value
    networkx = sys.modules.get("networkx")
    if networkx is not None and isinstance(value, networkx.Graph):
        return Graph.from_networkx(value, **attributes)
    if getattr(value, "edge_index", None) is not None:
        return Graph.from_pyg(value, **attributes)
    if hasattr(value, "ndata") and hasattr(value, "edata"):
        return Graph.from_dgl(value, **attributes)
    is_matrix = scipy.sparse.issparse(value) or (
        isinstance(value, np.ndarray) and value.ndim == 2
    )
    if is_matrix:
        return Graph(value)
    raise ValueError(
        f"`{name}` expects graphs: Graph, networkx, PyTorch Geometric, DGL, or "
        f"adjacency matrices. Received: {type(value).__name__}"
    )


def as_graphs(values, attributes=None, name="graphs"):
    """A list of `Graph`s: see `as_graph`. An error says which is none."""
    single = isinstance(values, Graph)
    if single or not hasattr(values, "__iter__"):
        raise ValueError(
            f"`{name}` expects a list of graphs. Received: "
            f"{type(values).__name__}"
        )
    graphs = []
    for k, value in enumerate(values):
        try:
            graphs.append(as_graph(value, attributes, name))
        except ValueError as error:
            raise ValueError(f"{name}[{k}]: {error}") from error
    return graphs
