"""Generated tasks that a model solves only by looking at structure.

The motif and the cycle tasks of Choromanski et al. (2022), a number to predict
from the features of edges, and one on a graph of any size.
"""

from typing import Literal

import numpy as np
import scipy.sparse
import scipy.spatial
from scipy.sparse import csgraph

from keras_topo.graphs.datasets import GraphDataset, NodeDataset
from keras_topo.graphs.features import largest_neighbor_degrees
from keras_topo.graphs.graph import Graph

BASE_NODES = 100
JOIN_PROBABILITY = 0.004

#: name -> (density of the base graph, networkx generator and its arguments)
MOTIFS = {
    "caveman": (0.027, ("connected_caveman_graph", 3, 4)),
    "cycle": (0.018, ("cycle_graph", 10)),
    "grid": (0.0267, ("grid_2d_graph", 3, 4)),
    "ladder": (0.026, ("ladder_graph", 5)),
    "circular_ladder": (0.03, ("circular_ladder_graph", 5)),
}

#: Kinds of bonds, and what they weigh.
BONDS = {"single": 1.0, "double": 2.0, "triple": 3.0}


def motif_dataset(
    name: Literal["caveman", "cycle", "grid", "ladder", "circular_ladder"],
    sizes: tuple[int, int, int] = (768, 256, 256),
    seed: int = 0,
) -> tuple[GraphDataset, GraphDataset, GraphDataset]:
    """Graphs that contain a motif or do not.

    A base graph `G(100, p)` without its isolated nodes is joined by
    Bernoulli(0.004) edges, at least one, to the motif (class 1) or to a random
    graph with as many nodes and edges (class 0): one of each to the same base.
    No node is isolated, in either class.
    The features of a node are the five largest degrees among its neighbors.
    The motifs are networkx' connected caveman graph (3 cliques of 4), cycle
    (10 nodes), grid (3 x 4), ladder and circular ladder (5 rungs each).

    Args:
        name: `"caveman"`, `"cycle"`, `"grid"`, `"ladder"` or
            `"circular_ladder"`.
        sizes: graphs of each class in the training, validation and test set.
        seed: int.

    Returns:
        Three `GraphDataset`s: training, validation and test, drawn
        independently of one another.

    Raises:
        ValueError: if `name` is unknown.

    Example:

    >>> train, validation, test = motif_dataset("cycle", sizes=(8, 4, 4))
    >>> len(train), len(test), train.graphs[0].features.shape[1]
    (16, 8, 5)
    """
    if name not in MOTIFS:
        raise ValueError(
            f"`name` expects one of {tuple(MOTIFS)}. Received: name={name!r}"
        )
    density, (generator, *sizes_of_motif) = MOTIFS[name]
    networkx = _import_networkx()
    motif = networkx.to_scipy_sparse_array(
        getattr(networkx, generator)(*sizes_of_motif), dtype="float32"
    )

    def pair(random):
        base = _without_isolated(_random_graph(BASE_NODES, density, random))
        while True:
            other = _random_graph_of(motif.shape[0], motif.nnz // 2, random)
            joined = _join(base, other, random)
            # Neither the base nor a motif has isolated nodes: one of them
            # would give the class away.
            if np.diff(joined.indptr).min() > 0:
                break
        return [
            _with_neighbor_degrees(joined, 0),
            _with_neighbor_degrees(_join(base, motif, random), 1),
        ]

    return _datasets(f"motif-{name}", pair, sizes, seed)


def induced_cycle_dataset(
    num_nodes: int = 50,
    sizes: tuple[int, int, int] = (768, 256, 256),
    seed: int = 0,
) -> tuple[GraphDataset, GraphDataset, GraphDataset]:
    """Trees with one more edge: does it close a longest path, or another?

    A random tree on `num_nodes` nodes, from a uniform Pruefer sequence. In
    class 1 the ends of a longest path are joined; in class 0 a random pair
    of nodes at a distance from 2 to less than the diameter. A node's features
    are as in `motif_dataset`.

    Args:
        num_nodes: int, at least 5.
        sizes: graphs of each class in the training, validation and test set.
        seed: int.

    Returns:
        Three `GraphDataset`s: training, validation and test.

    Raises:
        ValueError: if `num_nodes` is less than 5.

    Example:

    >>> train, _, _ = induced_cycle_dataset(num_nodes=10, sizes=(4, 1, 1))
    >>> train.graphs[0].num_nodes, train.graphs[0].num_edges  # one cycle
    (10, 10)
    """
    if num_nodes < 5:
        raise ValueError(
            f"`num_nodes` expects at least 5. Received: num_nodes={num_nodes}"
        )

    def pair(random):
        while True:
            tree = _random_tree(num_nodes, random)
            distance = csgraph.shortest_path(tree, unweighted=True)
            diameter = int(distance.max())
            # A star has no pair for class 0.
            if diameter > 2:
                break
        graphs = []
        for label, pairs in (
            (0, (distance >= 2) & (distance < diameter)),
            (1, distance == diameter),
        ):
            ends = np.argwhere(np.triu(pairs))
            i, j = ends[random.integers(len(ends))]
            closed = tree.tolil()
            closed[i, j] = closed[j, i] = 1.0
            graphs.append(_with_neighbor_degrees(closed.tocsr(), label))
        return graphs

    return _datasets("induced-cycles", pair, sizes, seed)


def spectral_radius_dataset(
    sizes: tuple[int, int, int] = (1200, 200, 400),
    num_nodes: tuple[int, int] = (12, 24),
    seed: int = 0,
) -> tuple[GraphDataset, GraphDataset, GraphDataset]:
    """Graphs whose edges decide what number is to be predicted.

    A graph is a uniformly random tree with a few more edges, half as many as
    nodes at most. Each edge has a kind of bond, `"single"`, `"double"` or
    `"triple"` (`edge_labels`), and a strength `s` between -1/2 and 1/2
    (`edge_features`), all drawn independently. The target is the largest
    eigenvalue of the symmetric matrix of weights

        W_ij = bond_ij + s_ij at edges, 0 elsewhere;  bond = 1, 2 or 3,

    the growth rate of the number of weighted walks. It depends on where heavy
    edges meet, and no sum over edges gives it. The adjacency matrix holds ones
    and zeros: a model that ignores the fields of edges does not know the
    weights.

    Args:
        sizes: graphs in the training, validation and test set.
        num_nodes: `(least, most)`, nodes of a graph, each as likely.
        seed: int.

    Returns:
        Three `GraphDataset`s without classes, whose `label`s are floats.

    Raises:
        ValueError: if `num_nodes` is not a range of at least 3 nodes.

    *Complexity*: `O(nodes^3)` per graph.

    Example:

    >>> train, validation, test = spectral_radius_dataset((8, 2, 4))
    >>> train.graphs[0].edge_labels.dtype.kind, train.labels.dtype
    ('U', dtype('float64'))
    """
    least, most = num_nodes
    if not 3 <= least <= most:
        raise ValueError(
            "`num_nodes` expects the least and the most, at least 3. Received: "
            f"num_nodes={num_nodes}"
        )

    def graph(random):
        size = int(random.integers(least, most + 1))
        tree = scipy.sparse.triu(_random_tree(size, random)).tocoo()
        others = random.integers(size, size=(random.integers(size // 2 + 1), 2))
        others = others[others[:, 0] != others[:, 1]]
        edges = np.concatenate([np.stack([tree.row, tree.col], 1), others])
        edges = np.unique(np.sort(edges, axis=1), axis=0)
        bonds = random.choice(list(BONDS), len(edges))
        strengths = random.uniform(-0.5, 0.5, len(edges)).astype("float32")
        weights = strengths + [BONDS[bond] for bond in bonds]
        matrix = np.zeros((size, size))
        matrix[edges[:, 0], edges[:, 1]] = weights
        matrix[edges[:, 1], edges[:, 0]] = weights
        return [
            Graph.from_edges(
                edges,
                size,
                edge_labels=bonds,
                edge_features=strengths[:, None],
                label=float(np.linalg.eigvalsh(matrix)[-1]),
            )
        ]

    return _datasets("spectral-radius", graph, sizes, seed, classes=None)


def beacon_dataset(
    num_nodes: int = 100_000,
    num_classes: int = 4,
    beacons: float = 0.01,
    seed: int = 0,
) -> NodeDataset:
    """One large graph whose nodes are told their class from several hops away.

    Nodes are points in the unit square, each joined to its eight nearest. They
    lie in regions (the Voronoi cells of one point for every 2,000 nodes), each
    of one class. The features of a node are zeros, except for the beacons: one
    node in a hundred shows a class, in one case out of four a wrong one. To
    find its class, a node has to weigh the beacons around it, of which hardly
    one is within two hops. Nodes near the border of a region stay uncertain:
    no model is right everywhere.

    Args:
        num_nodes: int, at least 100.
        num_classes: int.
        beacons: float, share of nodes that are beacons.
        seed: int.

    Returns:
        A `NodeDataset`. Of the nodes that are no beacons, a tenth are for
        training, a tenth for validation, and all others for test.

    Raises:
        ValueError: if `num_nodes` is less than 100 or `beacons` is not between
            0 and 1.

    *Complexity*: `O(nodes log nodes)`.

    Example:

    >>> dataset = beacon_dataset(num_nodes=1000)
    >>> dataset.graph.num_nodes, dataset.graph.features.shape
    (1000, (1000, 4))
    """
    if num_nodes < 100 or not 0 < beacons < 1 or num_classes < 2:
        raise ValueError(
            "`num_nodes` expects at least 100, `num_classes` at least 2 and "
            "`beacons` a number between 0 and 1. Received: num_nodes="
            f"{num_nodes}, num_classes={num_classes}, beacons={beacons}"
        )
    if round(beacons * num_nodes) > num_nodes - 10:
        raise ValueError(
            "`beacons` expects to leave at least ten nodes that are none. "
            f"Received: beacons={beacons} of {num_nodes} nodes"
        )
    random = np.random.default_rng(seed)
    points = random.random((num_nodes, 2))
    nearest = scipy.spatial.cKDTree(points).query(points, k=9)[1][:, 1:]
    edges = np.stack([np.repeat(np.arange(num_nodes), 8), nearest.ravel()], 1)
    centers = random.random((max(2 * num_classes, num_nodes // 2000), 2))
    region_class = random.permutation(np.arange(len(centers)) % num_classes)
    region = scipy.spatial.cKDTree(centers).query(points)[1]
    labels = region_class[region]
    order = random.permutation(num_nodes)
    shown, others = np.split(order, [max(1, round(beacons * num_nodes))])
    wrong = random.random(len(shown)) < 0.25
    shift = np.where(wrong, random.integers(1, num_classes, len(shown)), 0)
    features = np.zeros((num_nodes, num_classes), "float32")
    features[shown, (labels[shown] + shift) % num_classes] = 1.0
    graph = Graph.from_edges(
        edges,
        num_nodes,
        features=features,
        node_targets=labels.astype("int64"),
    )
    tenth = len(others) // 10
    train, validation, test = np.split(others, [tenth, 2 * tenth])
    return NodeDataset(
        "beacons",
        graph,
        num_classes,
        np.sort(train),
        np.sort(validation),
        np.sort(test),
    )


def _datasets(name, draw, sizes, seed, classes=(0, 1)):
    """Training, validation and test set, of `size` lists of graphs each."""
    streams = np.random.default_rng(seed).spawn(len(sizes))
    training, validation, test = (
        GraphDataset(
            name,
            [g for _ in range(size) for g in draw(stream)],
            None if classes is None else list(classes),
        )
        for size, stream in zip(sizes, streams, strict=True)
    )
    return training, validation, test


def _with_neighbor_degrees(adjacency, label):
    graph = Graph(adjacency, label=label)
    return graph.with_features(largest_neighbor_degrees(graph))


def _random_graph(num_nodes, density, random):
    """Erdos-Renyi `G(n, p)`."""
    upper = np.triu(random.random((num_nodes, num_nodes)) < density, k=1)
    return scipy.sparse.csr_array((upper | upper.T).astype("float32"))


def _random_graph_of(num_nodes, num_edges, random):
    """A random graph with exactly `num_edges` edges."""
    rows, columns = np.triu_indices(num_nodes, k=1)
    chosen = random.choice(len(rows), num_edges, replace=False)
    adjacency = np.zeros((num_nodes, num_nodes), "float32")
    adjacency[rows[chosen], columns[chosen]] = 1.0
    return scipy.sparse.csr_array(adjacency + adjacency.T)


def _without_isolated(adjacency):
    kept = np.flatnonzero(np.diff(adjacency.indptr))
    return adjacency[kept][:, kept]


def _join(base, part, random):
    """The two graphs with at least one random edge between them."""
    shape = (base.shape[0], part.shape[0])
    while True:
        between = random.random(shape) < JOIN_PROBABILITY
        if between.any():
            break
    between = scipy.sparse.csr_array(between.astype("float32"))
    return scipy.sparse.block_array(
        [[base, between], [between.T, part]], format="csr"
    )


def _random_tree(num_nodes, random):
    """A uniformly random labeled tree."""
    networkx = _import_networkx()
    sequence = random.integers(num_nodes, size=num_nodes - 2).tolist()
    tree = networkx.from_prufer_sequence(sequence)
    return networkx.to_scipy_sparse_array(
        tree, nodelist=range(num_nodes), dtype="float32", format="csr"
    )


def _import_networkx():
    try:
        import networkx
    except ImportError as error:
        raise ImportError(
            "Generated graphs need networkx: pip install 'keras-topo[training]'"
        ) from error
    return networkx
