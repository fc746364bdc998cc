"""Links of one graph: splits of its edges, and pairs that are no edges."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import AnyGraph
from keras_topo.graphs.any_graph import as_graph
from keras_topo.graphs.graph import Graph
from keras_topo.host.adjacency import as_array, as_integers, check_node_ids

# Random pairs drawn at once for each that is still missing.
OVERSAMPLING = 1.2


@dataclasses.dataclass(frozen=True, eq=False)
class EdgeSplit:
    """The edges of one graph, divided into three sets.

    All pairs are `(pairs, 2)`, int64, sources and targets; of an undirected
    edge the smaller id comes first.

    Attributes:
        graph: `Graph`, the nodes and their fields with only the training
            edges: kernels, degrees and features must be computed from it.
        training: the training edges as pairs, without self-loops.
        validation, test: the edges held out.
        validation_negatives, test_negatives: pairs that are no edge of the
            whole graph, as many as edges; no pair is in both.
        directed: bool, whether the order of a pair counts.

    Example:

    >>> import networkx
    >>> split = keras_topo.graphs.split_edges(networkx.karate_club_graph())
    >>> split.graph.num_edges, split.test.shape, split.test_negatives.shape
    (66, (8, 2), (8, 2))
    """

    graph: Graph
    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    validation_negatives: np.ndarray
    test_negatives: np.ndarray
    directed: bool

    def __repr__(self) -> str:
        return (
            f"EdgeSplit(nodes={self.graph.num_nodes}, "
            f"training={len(self.training)}, "
            f"validation={len(self.validation)}, test={len(self.test)}, "
            f"directed={self.directed})"
        )


def split_edges(
    graph: AnyGraph,
    shares: Sequence[float] = (0.85, 0.05, 0.1),
    seed: int = 0,
    directed: bool | None = None,
) -> EdgeSplit:
    """Divides the edges of a graph at random, for link prediction.

    Held-out edges are taken out of the training graph with their weights,
    features and labels, both directions of an undirected one. Features of
    nodes are kept as they are: any that were computed from edges, such as
    degrees, have to be computed again from the training graph. Self-loops are
    not predicted; the training graph keeps them.

    Args:
        graph: `Graph`, or one of networkx, PyTorch Geometric or DGL, or an
            adjacency matrix. Pairs count nodes in its order.
        shares: three numbers that sum to 1, of the training, validation and
            test edges. The last two are rounded.
        seed: int.
        directed: bool; `None` for whether the adjacency matrix is not
            symmetric.

    Returns:
        An `EdgeSplit`.

    Raises:
        ValueError: if `shares` are not three or do not sum to 1, no training
            edge is left, `directed=False` is said of a graph that is
            directed, or the graph has too few pairs that are no edges.

    *Complexity*: `O(edges log edges)`.

    Example:

    >>> import networkx
    >>> split_edges(networkx.karate_club_graph())
    EdgeSplit(nodes=34, training=66, validation=4, test=8, directed=False)
    """
    graph = as_graph(graph, name="graph")
    parts = np.asarray(shares, "float64")
    if (
        parts.shape != (3,)
        or not (parts >= 0).all()
        or abs(parts.sum() - 1) > 1e-6
    ):
        raise ValueError(
            "`shares` expects three numbers that are not negative and sum to "
            f"1. Received: shares={parts.tolist()}"
        )
    directed = is_directed(graph, directed)
    edges = edges_of(graph, directed)
    validation, test = np.round(parts[1:] * len(edges)).astype(int)
    if validation + test >= len(edges):
        raise ValueError(
            "`shares` expects at least one training edge. Received: shares="
            f"{parts.tolist()}, and a graph of {len(edges)} edges without "
            "self-loops"
        )
    random = np.random.default_rng(seed)
    order = random.permutation(len(edges))
    order = np.split(order, [validation, validation + test])
    validation, test, training = (edges[np.sort(part)] for part in order)
    negatives = sample_negatives(
        graph, len(validation) + len(test), random, directed
    )
    return EdgeSplit(
        without_edges(graph, np.concatenate([validation, test]), directed),
        training,
        validation,
        test,
        negatives[: len(validation)],
        negatives[len(validation) :],
        directed,
    )


def sample_negatives(
    graph: AnyGraph,
    count: int,
    random: np.random.Generator,
    directed: bool | None = None,
    excluded: ArrayLike = (),
) -> np.ndarray:
    """Pairs of different nodes without an edge, uniformly at random.

    No pair comes twice.

    Args:
        graph: `Graph`.
        count: int.
        random: `numpy.random.Generator`. For negatives that depend on the
            epoch of a training, `numpy.random.default_rng([seed, epoch])`.
        directed: as in `split_edges`. An edge in one direction alone leaves
            the other one a negative.
        excluded: `(pairs, 2)`, ints, further pairs that are not drawn.

    Returns:
        `(count, 2)`, int64, in random order; of undirected pairs the smaller
        id comes first.

    Raises:
        ValueError: if there are fewer such pairs.

    *Complexity*: `O((edges + count) log(edges + count))`.

    Example:

    >>> graph = Graph.from_edges([[0, 1], [1, 2]], num_nodes=3)
    >>> sample_negatives(graph, 1, np.random.default_rng(0))
    array([[0, 2]])
    """
    graph = as_graph(graph, name="graph")
    directed = is_directed(graph, directed)
    nodes = graph.num_nodes
    edges = _taken(graph, directed, excluded)
    available = _num_pairs(nodes, directed) - len(edges)
    if not 0 <= count <= available:
        raise ValueError(
            f"`count` expects an int from 0 to {available}, the pairs without "
            f"an edge. Received: count={count}"
        )
    if 2 * count > available:
        # Nearly all of them, for which drawing at random takes long.
        keys = np.arange(nodes**2)
        first, second = np.divmod(keys, nodes)
        allowed = first != second if directed else first < second
        keys = np.setdiff1d(keys[allowed], edges, assume_unique=True)
        keys = random.permutation(keys)[:count]
        return np.stack(np.divmod(keys, nodes), axis=1)
    found = np.zeros(0, "int64")
    while len(found) < count:
        missing = count - len(found)
        pairs = random.integers(0, nodes, (int(OVERSAMPLING * missing) + 8, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        keys = pair_keys(pairs if directed else np.sort(pairs, axis=1), nodes)
        keys = np.concatenate([found, keys[~np.isin(keys, edges)]])
        # The first of equal ones, in the order in which they were drawn.
        _, first = np.unique(keys, return_index=True)
        found = keys[np.sort(first)][:count]
    return np.stack(np.divmod(found, nodes), axis=1)


def without_edges(
    graph: Graph, pairs: ArrayLike, directed: bool | None = None
) -> Graph:
    """The graph without some of its edges, all else as it was.

    Args:
        graph: `Graph`.
        pairs: `(pairs, 2)`, ints. Pairs that are no edges do not matter.
        directed: as in `split_edges`; otherwise both directions go.

    Returns:
        A `Graph` whose weights, features and labels of edges are those of the
        edges that are left.

    Raises:
        ValueError: if `pairs` are not pairs of node ids.
    """
    pairs = check_pairs(pairs, graph.num_nodes)
    if not is_directed(graph, directed):
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
    ends = graph.edge_index()
    keys = pair_keys(ends.T, graph.num_nodes)
    kept = ~np.isin(keys, pair_keys(pairs, graph.num_nodes))
    adjacency = scipy.sparse.csr_array(
        (graph.adjacency.data[kept], tuple(ends[:, kept])),
        shape=graph.adjacency.shape,
    )
    fields = {
        name: None if value is None else value[kept]
        for name in ("edge_features", "edge_labels")
        for value in [getattr(graph, name)]
    }
    return dataclasses.replace(graph, adjacency=adjacency, **fields)


def edges_of(graph: Graph, directed: bool | None = None) -> np.ndarray:
    """`(edges, 2)`, int64: edges but for self-loops, undirected ones once."""
    ends = graph.edge_index()
    if is_directed(graph, directed):
        return ends[:, ends[0] != ends[1]].T
    return ends[:, ends[0] < ends[1]].T


def count_negatives(
    graph: Graph, directed: bool | None = None, excluded: ArrayLike = ()
) -> int:
    """How many pairs of different nodes have no edge and are not excluded."""
    directed = is_directed(graph, directed)
    taken = len(_taken(graph, directed, excluded))
    return _num_pairs(graph.num_nodes, directed) - taken


def _num_pairs(nodes, directed):
    """How many pairs of different nodes there are."""
    return nodes * (nodes - 1) // (1 if directed else 2)


def _taken(graph, directed, excluded):
    """Keys of pairs that are edges or excluded, each once."""
    others = check_pairs(excluded, graph.num_nodes, "excluded")
    others = others[others[:, 0] != others[:, 1]]
    if not directed:
        others = np.sort(others, axis=1)
    pairs = np.concatenate([edges_of(graph, directed), others])
    return np.unique(pair_keys(pairs, graph.num_nodes))


def is_directed(graph: Graph, directed: bool | None = None) -> bool:
    """Whether the order of pairs counts: what was said, if it can be so."""
    if directed:
        return True
    undirected = graph.is_undirected()
    if directed is not None and not undirected:
        raise ValueError(
            "`directed=False` expects a symmetric adjacency matrix. Received: "
            "one that is not"
        )
    return not undirected


def pair_keys(pairs: ArrayLike, num_nodes: int) -> np.ndarray:
    """`(pairs,)`, int64: a number for each ordered pair of nodes."""
    pairs = np.asarray(pairs, "int64")
    return pairs[:, 0] * num_nodes + pairs[:, 1]


def check_pairs(
    pairs: ArrayLike, num_nodes: int, name: str = "pairs"
) -> np.ndarray:
    """`pairs` as `(pairs, 2)`, int64, ids of nodes."""
    pairs = as_array(pairs, name)
    if pairs.size == 0:
        return np.zeros((0, 2), "int64")
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(
            f"`{name}` expects pairs of node ids, the shape (pairs, 2). "
            f"Received: {name} of shape {pairs.shape}"
            + "; its transpose has it"
            * (pairs.ndim == 2 and len(pairs) == 2)
        )
    pairs = as_integers(pairs, name)
    check_node_ids(pairs, num_nodes, name)
    return pairs
