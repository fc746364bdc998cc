"""`Graph`: a sparse adjacency matrix and what is known about its nodes."""

import dataclasses

import numpy as np
import scipy.sparse


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A graph on the host.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or anything that
            `scipy.sparse.csr_array` takes; `adjacency[i, j]` is the weight of
            the edge from `i` to `j`, positive. Kept as a float32 CSR array
            without explicit zeros.
        features: `(nodes, features)`, float32, or `None`.
        node_labels: `(nodes,)`, int, a category for each node, or `None`.
        label: int, the class of the graph; or `(nodes,)`, int, the classes of
            its nodes, -1 where unknown; or `None`.

    Raises:
        ValueError: if the graph has no nodes, the adjacency is not square, a
            weight is negative or not finite, a feature is not finite, or the
            numbers of nodes differ.

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
        for name, dtype, rank in (
            ("features", "float32", 2),
            ("node_labels", "int64", 1),
        ):
            value = getattr(self, name)
            if value is not None:
                value = np.asarray(value, dtype)
                if value.ndim != rank or len(value) != self.num_nodes:
                    raise ValueError(
                        f"`{name}` expects {rank} axes, the first of "
                        f"{self.num_nodes} nodes. Received: {name} of shape "
                        f"{value.shape}"
                    )
                object.__setattr__(self, name, value)
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
            edges: `(edges, 2)`, int, node ids from 0. Repeated edges count
                once, with the weight of the last, in either direction unless
                `directed`.
            num_nodes: int.
            weights: `(edges,)`, or `None` for ones.
            directed: bool; otherwise each edge is one in both directions.
            **fields: `features`, `node_labels`, `label`.

        Raises:
            ValueError: if an id is not one of a node.
        """
        edges = np.asarray(edges, "int64").reshape(-1, 2)
        check_node_ids(edges, num_nodes, "edges")
        if weights is None:
            weights = np.ones(len(edges), "float32")
        weights = np.asarray(weights, "float32")
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
        """A graph from a `networkx.Graph`, nodes in its order."""
        import networkx

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
        loops = np.count_nonzero(self.adjacency.diagonal())
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


def as_adjacency(adjacency, dtype="float32"):
    """`adjacency`, checked, as a CSR array without stored zeros."""
    if not scipy.sparse.issparse(adjacency):
        adjacency = np.asarray(adjacency)
        if adjacency.ndim != 2 or adjacency.dtype.kind not in "biuf":
            raise ValueError(
                "`adjacency` expects a scipy sparse matrix or an array of "
                "numbers with two axes. Received: adjacency of shape "
                f"{adjacency.shape} and dtype {adjacency.dtype}"
            )
    adjacency = scipy.sparse.csr_array(adjacency, dtype=dtype, copy=True)
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(
            "`adjacency` expects a square matrix. Received: adjacency of "
            f"shape {adjacency.shape}"
        )
    if adjacency.shape[0] == 0:
        raise ValueError(
            "a graph needs at least one node. Received: adjacency of shape "
            f"{adjacency.shape}"
        )
    if not (np.isfinite(adjacency.data) & (adjacency.data >= 0)).all():
        raise ValueError(
            "`adjacency` expects finite weights that are not negative. "
            f"Received: weights from {adjacency.data.min()} to "
            f"{adjacency.data.max()}"
        )
    adjacency.sum_duplicates()
    adjacency.eliminate_zeros()
    return adjacency


def check_node_ids(ids, num_nodes, name):
    """Raises a ValueError unless all of `ids` are from 0 to below num_nodes."""
    outside = (ids < 0) | (ids >= num_nodes)
    if outside.any():
        raise ValueError(
            f"`{name}` expects node ids from 0 to {num_nodes - 1}. Received: "
            f"{int(ids[outside][0])}"
        )
