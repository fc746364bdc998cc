"""`Graph`: a sparse adjacency matrix and what is known about its nodes."""

import dataclasses
import numbers

import numpy as np
import scipy.sparse

from keras_topo.host.adjacency import (
    as_adjacency,
    as_array,
    as_integers,
    as_numbers,
    check_node_ids,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A graph on the host.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; `adjacency[i, j]`
            is the weight of the edge from `i` to `j`, positive. Kept as a
            float32 CSR array without explicit zeros.
        features: `(nodes, features)`, float32, or `None`.
        node_labels: `(nodes,)`, int, a category for each node, or `None`.
        label: int, the class of the graph; or `(nodes,)`, int, the classes of
            its nodes, -1 where unknown; or `None`.

    Raises:
        ValueError: if the graph has no nodes, the adjacency is not square, a
            weight is negative or not finite, a feature is not finite, a label
            is no integer, or the numbers of nodes differ.

    Example:

    >>> graph = Graph.from_edges([[0, 1], [1, 2]], num_nodes=4)
    >>> graph.num_nodes, graph.num_edges, graph.degrees()
    (4, 2, array([1., 2., 1., 0.]))
    """

    adjacency: scipy.sparse.csr_array
    features: np.ndarray | None = None
    node_labels: np.ndarray | None = None
    label: int | np.ndarray | None = None

    def __post_init__(self):
        adjacency = as_adjacency(self.adjacency)
        object.__setattr__(self, "adjacency", adjacency)
        for name, read, rank in (
            ("features", as_numbers, 2),
            ("node_labels", as_integers, 1),
        ):
            value = getattr(self, name)
            if value is not None:
                value = read(value, name)
                if value.ndim != rank or len(value) != self.num_nodes:
                    raise ValueError(
                        f"`{name}` expects {rank} axes, the first of "
                        f"{self.num_nodes} nodes. Received: {name} of shape "
                        f"{value.shape}"
                    )
                object.__setattr__(self, name, value)
        if self.label is not None:
            label = as_integers(self.label, "label")
            if label.shape not in ((), (self.num_nodes,)):
                raise ValueError(
                    "`label` expects the class of the graph, an int, or a "
                    f"class for each of its {self.num_nodes} nodes. Received: "
                    f"label of shape {label.shape}"
                )
            object.__setattr__(
                self, "label", label if label.ndim else int(label)
            )
        if self.features is not None:
            finite = np.isfinite(self.features).all(axis=1)
            if not finite.all():
                raise ValueError(
                    "`features` expects finite numbers. Received: NaN or "
                    f"infinity at node {int(np.argmin(finite))}"
                )

    @classmethod
    def from_edges(
        cls, edges, num_nodes, weights=None, directed=False, **fields
    ):
        """A graph from a list of edges.

        Args:
            edges: `(edges, 2)`, integers (or floats without a fraction), node
                ids from 0: the transpose of an `edge_index`. Repeated edges
                count once, with the weight of the last, in either direction
                unless `directed`. May be empty.
            num_nodes: int.
            weights: `(edges,)`, positive, or `None` for ones. An edge of
                weight 0 is none.
            directed: bool; otherwise each edge is one in both directions.
            **fields: `features`, `node_labels`, `label`.

        Raises:
            ValueError: if `edges` has another shape or holds something else
                than integers, an id is not one of a node, or weights are no
                numbers or not as many as edges.
        """
        edges = _as_edges(edges)
        check_node_ids(edges, num_nodes, "edges")
        if weights is None:
            weights = np.ones(len(edges), "float32")
        weights = as_numbers(weights, "weights")
        if weights.shape != (len(edges),):
            raise ValueError(
                f"`weights` expects one number an edge, {len(edges)}. "
                f"Received: weights of shape {weights.shape}"
            )
        if not directed:
            edges = np.sort(edges, axis=1)
        # The last of equal edges: first in the reversed list.
        keys = edges[:, 0] * num_nodes + edges[:, 1]
        _, last = np.unique(keys[::-1], return_index=True)
        last = len(keys) - 1 - last
        edges, weights = edges[last], weights[last]
        if not directed:
            other = edges[edges[:, 0] != edges[:, 1]]
            weights = np.concatenate(
                [weights, weights[edges[:, 0] != edges[:, 1]]]
            )
            edges = np.concatenate([edges, other[:, ::-1]])
        adjacency = scipy.sparse.csr_array(
            (weights, (edges[:, 0], edges[:, 1])),
            shape=(num_nodes, num_nodes),
        )
        return cls(adjacency, **fields)

    @classmethod
    def from_networkx(cls, graph, weight="weight", **fields):
        """A graph from one of networkx, nodes in its order.

        Args:
            graph: `networkx.Graph`, or one of its directed and multiple kinds;
                parallel edges count as one with the sum of their weights.
                Attributes of nodes are not read: see `features`.
            weight: str, the attribute of edges that holds their weights, read
                by default; edges without it weigh 1. `None` for ones.
            **fields: `features`, `node_labels`, `label`.

        Raises:
            ValueError: if `graph` is no graph of networkx or has no nodes, or
                a weight is no number, negative or not finite.
        """
        import networkx

        if not isinstance(graph, networkx.Graph):
            raise ValueError(
                "`graph` expects a networkx.Graph. Received: "
                f"{type(graph).__name__}"
            )
        if not len(graph):
            raise ValueError(
                "`graph` expects at least one node. Received: a graph without "
                "nodes"
            )
        if weight is not None:
            for i, j, value in graph.edges(data=weight, default=1):
                if not isinstance(value, (numbers.Real, np.bool_)):
                    raise ValueError(
                        f"`weight={weight!r}` expects numbers at edges, or "
                        f"`weight=None`. Received: {value!r} at the edge "
                        f"({i!r}, {j!r})"
                    )
        adjacency = networkx.to_scipy_sparse_array(
            graph, weight=weight, dtype="float32", format="csr"
        )
        return cls(adjacency, **fields)

    @property
    def num_nodes(self):
        return self.adjacency.shape[0]

    @property
    def num_edges(self):
        """Edges, an undirected one (both directions) counting once."""
        loops = int(np.count_nonzero(self.adjacency.diagonal()))
        stored = self.adjacency.nnz - loops
        return loops + (stored // 2 if self.is_undirected() else stored)

    def is_undirected(self):
        """Whether the adjacency matrix is symmetric."""
        difference = self.adjacency - self.adjacency.T
        return difference.nnz == 0 or not np.any(difference.data)

    def edge_index(self):
        """`(2, stored edges)`, int64: sources and targets, in row order."""
        coordinates = self.adjacency.tocoo()
        return np.stack([coordinates.row, coordinates.col]).astype("int64")

    def degrees(self):
        """`(nodes,)`, float64: the sum of the weights of outgoing edges."""
        return np.asarray(self.adjacency.sum(axis=1, dtype="float64")).ravel()

    def with_features(self, features):
        """The same graph with other features."""
        return dataclasses.replace(self, features=features)

    def permuted(self, order):
        """The same graph with its nodes in another order.

        Args:
            order: `(nodes,)`, the present ids in their new order.
        """
        order = np.asarray(order)

        def take(x):
            return None if x is None else x[order]

        per_node = isinstance(self.label, np.ndarray)
        return Graph(
            self.adjacency[order][:, order],
            take(self.features),
            take(self.node_labels),
            take(self.label) if per_node else self.label,
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
