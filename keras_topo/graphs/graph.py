"""`Graph`: a sparse adjacency matrix and what is known about it."""

import dataclasses
from typing import Any, Self

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.graphs import conversions
from keras_topo.host.adjacency import (
    as_adjacency,
    as_array,
    as_integers,
    as_numbers,
    check_node_ids,
    is_symmetric,
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """A graph on the host, directed or not, weighted or not.

    The inputs of a model are the fields `features`, `node_labels`,
    `edge_features` and `edge_labels`; its targets are `label` and
    `node_targets`.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; `adjacency[i, j]`
            is the weight of the edge from `i` to `j`, positive. Kept as a
            float32 CSR array without explicit zeros.
        features: `(nodes, features)`, numbers, an array or scipy sparse; kept
            as float32. Or `None`.
        node_labels: `(nodes,)`, ints or strings, a category for each node, or
            `None`. Their values count, not their order.
        label: the target of the graph: its class, an int or a string; a
            float; or a vector of numbers, several values or several labels.
            Or `None`.
        edge_features: `(stored edges, channels)`, numbers, in the order of
            `edge_index()`; kept as float32. Or `None`.
        edge_labels: `(stored edges,)`, ints or strings, in the same order, or
            `None`.
        node_targets: the targets of the nodes: `(nodes,)`, their classes,
            ints, -1 where unknown, or strings; or `(nodes,)` or `(nodes,
            values)`, floats, NaN where unknown. Or `None`.

    Raises:
        ValueError: if the graph has no nodes, the adjacency is not square, a
            weight is negative or not finite, a feature or label is not
            finite, or a field has another length than nodes or edges; the
            message names the field and the place.

    Example:

    >>> graph = Graph.from_edges([[0, 1], [1, 2]], num_nodes=4)
    >>> graph.num_nodes, graph.num_edges, graph.degrees()
    (4, 2, array([1., 2., 1., 0.]))
    """

    adjacency: scipy.sparse.csr_array
    features: np.ndarray | None = None
    node_labels: np.ndarray | None = None
    label: int | float | str | np.ndarray | None = None
    edge_features: np.ndarray | None = None
    edge_labels: np.ndarray | None = None
    node_targets: np.ndarray | None = None

    def __post_init__(self) -> None:
        adjacency = as_adjacency(self.adjacency)
        nodes = "nodes", adjacency.shape[0]
        edges = "stored edges", adjacency.nnz
        checked = {
            "adjacency": adjacency,
            "features": _as_features(self.features, "features", *nodes),
            "node_labels": _as_labels(self.node_labels, "node_labels", *nodes),
            "label": _as_target(self.label),
            "edge_features": _as_features(
                self.edge_features, "edge_features", *edges
            ),
            "edge_labels": _as_labels(self.edge_labels, "edge_labels", *edges),
            "node_targets": _as_node_targets(self.node_targets, *nodes),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        fields = [f"num_nodes={self.num_nodes}", f"num_edges={self.num_edges}"]
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                fields.append(f"{field.name}={value.dtype}{list(value.shape)}")
            elif value is not None:
                fields.append(f"{field.name}={value!r}")
        return f"Graph({', '.join(fields)})"

    @classmethod
    def from_edges(
        cls,
        edges: ArrayLike,
        num_nodes: int,
        weights: ArrayLike | None = None,
        directed: bool = False,
        edge_features: ArrayLike | None = None,
        edge_labels: ArrayLike | None = None,
        **fields: Any,
    ) -> Self:
        """A graph from a list of edges.

        Args:
            edges: `(edges, 2)`, integers (or floats without a fraction), node
                ids from 0: the transpose of an `edge_index`. Repeated edges
                count once, with the weight of the last one, in either direction
                unless `directed`. May be empty.
            num_nodes: int.
            weights: `(edges,)`, positive, or `None` for ones. Edges of weight
                0 are left out.
            directed: bool; otherwise each edge is one in both directions.
            edge_features: `(edges, channels)`, numbers, or `None`.
            edge_labels: `(edges,)`, ints or strings, or `None`.
            **fields: `features`, `node_labels`, `label`, `node_targets`.

        Raises:
            ValueError: if `edges` has another shape or holds something else
                than integers, an id is not one of a node, weights, features or
                labels are not as many as edges, or a repeated edge has other
                features or another label.
        """
        edges = _as_edges(edges)
        check_node_ids(edges, num_nodes, "edges")
        count = "edges", len(edges)
        if weights is None:
            weights = np.ones(len(edges), "float32")
        weights = as_numbers(weights, "weights")
        if weights.shape != (len(edges),):
            raise ValueError(
                f"`weights` expects one number per edge, {len(edges)}. "
                f"Received: weights of shape {weights.shape}"
            )
        of_edges = {
            "edge_features": _as_features(
                edge_features, "edge_features", *count
            ),
            "edge_labels": _as_labels(edge_labels, "edge_labels", *count),
        }
        ends = edges if directed else np.sort(edges, axis=1)
        keys = ends[:, 0] * num_nodes + ends[:, 1]
        # The last of equal edges: first in the reversed list.
        _, last, which = np.unique(
            keys[::-1], return_index=True, return_inverse=True
        )
        last, which = len(keys) - 1 - last, which[::-1]
        for name, values in of_edges.items():
            _check_repeated(name, values, edges, last[which])
        kept = last[weights[last] != 0]
        ends = ends[kept]
        if not directed:
            other = ends[:, 0] != ends[:, 1]
            ends = np.concatenate([ends, ends[other][:, ::-1]])
            kept = np.concatenate([kept, kept[other]])
        # Row order, that of the edges of a graph.
        order = np.lexsort((ends[:, 1], ends[:, 0]))
        ends, kept = ends[order], kept[order]
        adjacency = scipy.sparse.csr_array(
            (weights[kept], (ends[:, 0], ends[:, 1])),
            shape=(num_nodes, num_nodes),
        )
        of_edges = {
            name: None if values is None else values[kept]
            for name, values in of_edges.items()
        }
        return cls(adjacency, **of_edges, **fields)

    @classmethod
    def from_networkx(cls, graph: Any, **attributes: Any) -> Self:
        """A graph from one of networkx.

        See `keras_topo.graphs.conversions.fields_of_networkx`, which has the
        arguments: names of attributes, or arrays.

        Example:

        >>> import networkx
        >>> graph = networkx.path_graph(3)
        >>> networkx.set_node_attributes(graph, dict(enumerate("CNO")), "atom")
        >>> Graph.from_networkx(graph, node_labels="atom", label=1)
        Graph(num_nodes=3, num_edges=2, node_labels=<U1[3], label=1)
        """
        return cls.from_edges(
            **conversions.fields_of_networkx(graph, **attributes)
        )

    @classmethod
    def from_pyg(cls, data: Any, **attributes: Any) -> Self:
        """A graph from a `Data` of PyTorch Geometric, or what looks like one.

        See `keras_topo.graphs.conversions.fields_of_pyg`.

        Example (needs PyTorch Geometric):

        >>> import torch, torch_geometric  # doctest: +SKIP
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # doctest: +SKIP
        >>> data = torch_geometric.data.Data(
        ...     x=torch.eye(3), edge_index=edges
        ... )  # doctest: +SKIP
        >>> Graph.from_pyg(data)  # doctest: +SKIP
        Graph(num_nodes=3, num_edges=2, features=float32[3, 3])
        """
        return cls.from_edges(**conversions.fields_of_pyg(data, **attributes))

    @classmethod
    def from_dgl(cls, graph: Any, **attributes: Any) -> Self:
        """A graph from a homogeneous one of DGL, or what looks like one.

        See `keras_topo.graphs.conversions.fields_of_dgl`.

        Example (needs DGL):

        >>> graph = dgl.graph(([0, 1, 1, 2], [1, 0, 2, 1]))  # doctest: +SKIP
        >>> Graph.from_dgl(graph, label=1)  # doctest: +SKIP
        Graph(num_nodes=3, num_edges=2, label=1)
        """
        return cls.from_edges(**conversions.fields_of_dgl(graph, **attributes))

    @property
    def num_nodes(self) -> int:
        return self.adjacency.shape[0]

    @property
    def num_edges(self) -> int:
        """Edges, an undirected one (both directions) counting once."""
        loops = int(np.count_nonzero(self.adjacency.diagonal()))
        stored = self.adjacency.nnz - loops
        return loops + (stored // 2 if self.is_undirected() else stored)

    def is_undirected(self) -> bool:
        """Whether the adjacency matrix is symmetric, but for rounding."""
        return is_symmetric(self.adjacency)

    def edge_index(self) -> np.ndarray:
        """`(2, stored edges)`, int64: sources and targets, in row order."""
        coordinates = self.adjacency.tocoo()
        return np.stack([coordinates.row, coordinates.col]).astype("int64")

    def degrees(self) -> np.ndarray:
        """`(nodes,)`, float64: the sum of the weights of outgoing edges."""
        return np.asarray(self.adjacency.sum(axis=1, dtype="float64")).ravel()

    def with_features(self, features: Any) -> Self:
        """The same graph with other features."""
        return dataclasses.replace(self, features=features)

    def permuted(self, order: ArrayLike) -> Self:
        """The same graph with its nodes in another order.

        Args:
            order: `(nodes,)`, the present ids in their new order.

        Raises:
            ValueError: if it is not a permutation.
        """
        order = as_integers(as_array(order, "order"), "order")
        if not np.array_equal(np.sort(order), np.arange(self.num_nodes)):
            raise ValueError(
                f"`order` expects each of the {self.num_nodes} node ids once. "
                f"Received: order={order.tolist()!r:.200}"
            )
        fields = {}
        for name in ("features", "node_labels", "node_targets"):
            value = getattr(self, name)
            fields[name] = None if value is None else value[order]
        # Where each stored edge of the new matrix was: the matrix of their
        # numbers, permuted. From one, for what is zero would not be stored.
        numbers = self.adjacency.copy().astype("int64")
        numbers.data = np.arange(1, numbers.nnz + 1)
        numbers = scipy.sparse.csr_array(numbers[order][:, order])
        numbers.sort_indices()
        for name in ("edge_features", "edge_labels"):
            value = getattr(self, name)
            fields[name] = None if value is None else value[numbers.data - 1]
        return dataclasses.replace(
            self, adjacency=self.adjacency[order][:, order], **fields
        )


def _as_edges(edges):
    """`edges` as an int64 array `(edges, 2)`."""
    edges = as_array(edges, "edges")
    if edges.size == 0:
        return np.zeros((0, 2), "int64")
    if edges.ndim != 2 or edges.shape[1] != 2:
        hint = ""
        if edges.ndim == 2 and edges.shape[0] == 2:
            hint += ". The pairs of an edge_index are its transpose, `.T`"
        if edges.ndim == 2 and edges.shape[1] == 3:
            hint += ". The third numbers of triples go into `weights=`"
        raise ValueError(
            "`edges` expects pairs of node ids, the shape (edges, 2). "
            f"Received: edges of shape {edges.shape} and dtype {edges.dtype}"
            + hint
        )
    return as_integers(edges, "edges")


def _as_features(values, name, of, count):
    """`(count, channels)`, float32, or `None`."""
    if values is None:
        return None
    if scipy.sparse.issparse(values):
        values = values.toarray()
    values = as_numbers(values, name)
    if values.ndim != 2 or len(values) != count:
        raise ValueError(
            f"`{name}` expects 2 axes, the first of {count} {of}. Received: "
            f"{name} of shape {values.shape}"
        )
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"`{name}` expects finite numbers. Received: NaN or infinity at "
            f"{of[:-1]} {int(np.argmin(finite))}"
        )
    return values


def _as_labels(values, name, of, count):
    """`(count,)`, int64 or str, or `None`."""
    if values is None:
        return None
    values = as_array(values, name)
    if values.dtype.kind == "S":
        values = np.char.decode(values)
    is_text = values.dtype.kind == "U" or (
        values.dtype == object and all(isinstance(v, str) for v in values.flat)
    )
    values = values.astype(str) if is_text else as_integers(values, name)
    if values.shape != (count,):
        raise ValueError(
            f"`{name}` expects 1 axis of {count} {of}. Received: {name} of "
            f"shape {values.shape}"
        )
    return values


def _as_target(label):
    """The class, the number or the vector of numbers of a graph."""
    if label is None or isinstance(label, str):
        return label
    values = as_array(label, "label")
    if values.ndim > 1 or values.dtype.kind not in "biufU":
        raise ValueError(
            "`label` expects an int, a float, a string, or a vector of "
            f"numbers. Received: label={label!r}"
        )
    if values.dtype.kind == "U":
        if values.ndim:
            raise ValueError(
                "`label` expects a vector of numbers: one, or zero, for each "
                f"label that a graph may have. Received: label={label!r}"
            )
        return str(values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(
            f"`label` expects finite numbers. Received: label={label!r}"
        )
    if values.ndim:
        return values.astype("float32")
    return float(values) if values.dtype.kind == "f" else int(values)


def _as_node_targets(values, of, count):
    """Classes, `(nodes,)` int64, or numbers, float32; or `None`."""
    if values is None:
        return None
    values = as_array(values, "node_targets")
    is_text = values.dtype.kind == "U" and values.ndim == 1
    if not is_text and (
        values.dtype.kind not in "biuf" or values.ndim not in (1, 2)
    ):
        raise ValueError(
            "`node_targets` expects numbers, with one axis or two, or strings, "
            f"with one. Received: node_targets of shape {values.shape} and "
            f"dtype {values.dtype}"
        )
    if len(values) != count:
        raise ValueError(
            f"`node_targets` expects one for each of the {count} {of}. "
            f"Received: node_targets of shape {values.shape}"
        )
    if is_text:
        return values.copy()
    if values.dtype.kind != "f":
        return values.astype("int64")
    if np.isinf(values).any():
        raise ValueError(
            "`node_targets` expects finite numbers, or NaN where unknown. "
            "Received: infinity"
        )
    return values.astype("float32")


def _check_repeated(name, values, edges, kept):
    """Raises where a repeated edge has other features than the one kept."""
    if values is None:
        return
    differ = values != values[kept]
    differ = differ.any(axis=tuple(range(1, differ.ndim)))
    if differ.any():
        place = int(np.argmax(differ))
        i, j = edges[place].tolist()
        other = edges[kept[place]].tolist() != [i, j]
        hint = "; `directed=True` tells directions apart" if other else ""
        raise ValueError(
            f"`{name}` expects the same for an edge that is listed more than "
            f"once{hint}. Received: two different ones for ({i}, {j})"
        )
