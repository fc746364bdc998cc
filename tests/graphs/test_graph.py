"""Graphs, features, generated tasks, batches and the cache of kernels."""

import itertools

import networkx
import numpy as np
import pytest
import scipy.sparse

from keras_topo.graphs import (
    Graph,
    GraphBatch,
    bucket_sizes,
    edge_inputs,
    group_by_size,
    induced_cycle_dataset,
    largest_neighbor_degrees,
    motif_dataset,
    node_features,
)
from keras_topo.graphs.synthetic import MOTIFS

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough


def path_graph(n, **fields):
    return Graph.from_edges([(i, i + 1) for i in range(n - 1)], n, **fields)


def test_graph_from_edges():
    graph = Graph.from_edges([[0, 1], [1, 2], [0, 1]], 4, weights=[1, 2, 5])
    assert graph.num_edges == 2 and graph.is_undirected()
    np.testing.assert_allclose(graph.degrees(), [5, 7, 2, 0])
    directed = Graph.from_edges([[0, 1], [1, 2]], 3, directed=True)
    assert not directed.is_undirected() and directed.num_edges == 2
    np.testing.assert_array_equal(directed.edge_index(), [[0, 1], [1, 2]])
    single = Graph.from_edges([], 1)
    assert single.num_nodes == 1 and single.num_edges == 0
    twice = Graph.from_edges([[0, 1], [1, 0]], 2, weights=[1, 2])
    np.testing.assert_array_equal(twice.adjacency.toarray(), [[0, 2], [2, 0]])
    loops = Graph.from_edges([[0, 0], [0, 1]], 2)
    assert loops.num_edges == 2


def test_graph_from_networkx_and_permuted():
    graph = Graph.from_networkx(
        networkx.path_graph(3), features=np.arange(6).reshape(3, 2), label=1
    )
    order = [2, 0, 1]
    other = graph.permuted(order)
    np.testing.assert_array_equal(other.features, graph.features[order])
    np.testing.assert_array_equal(
        other.adjacency.toarray(), [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    )
    assert other.label == 1


def test_forms_of_edges():
    expected = Graph.from_edges([[0, 1], [1, 2]], 3).adjacency.toarray()
    edge_index = np.array([[0, 1], [1, 2]]).T
    for edges in (
        edge_index.T,
        [(0.0, 1.0), (1.0, 2.0)],
        networkx.path_graph(3).edges,
        np.array([[0, 1], [1, 2]], "uint8"),
    ):
        found = Graph.from_edges(edges, 3).adjacency.toarray()
        np.testing.assert_array_equal(found, expected)
    for empty in ([], np.zeros((0, 2)), np.zeros((2, 0), int)):
        assert Graph.from_edges(empty, 3).num_edges == 0


def test_weights_of_networkx():
    network = networkx.path_graph(3)
    network[0][1]["weight"] = np.float32(2)
    found = Graph.from_networkx(network).adjacency.toarray()
    np.testing.assert_array_equal(found, [[0, 2, 0], [2, 0, 1], [0, 1, 0]])
    network[0][1]["weight"] = "thick"
    ones = Graph.from_networkx(network, weight=None)
    np.testing.assert_array_equal(ones.degrees(), [1, 2, 1])
    with pytest.raises(ValueError, match=r"'thick' at the edge \(0, 1\)"):
        Graph.from_networkx(network)


def test_labels():
    assert Graph([[1.0]], label=np.int32(2)).label == 2
    assert Graph([[1.0]], label=2.0).label == 2
    assert Graph([[1.0]], label="mutagenic").label == "mutagenic"
    assert Graph([[1.0]], label=0.5).label == 0.5
    # Three labels, of a graph of three nodes: not those of the nodes.
    graph = path_graph(3, label=[0, 1, 1], node_targets=[0, -1, 1])
    other = graph.permuted([2, 0, 1])
    assert other.label.tolist() == [0, 1, 1]
    assert other.node_targets.tolist() == [1, 0, -1]


def one_feature(kernel):
    """A batch of two graphs, the second with this kernel."""
    graph = path_graph(3, features=np.ones((3, 1)))
    return GraphBatch.from_graphs([graph, graph], [np.eye(3), np.array(kernel)])


GRAPH_ERRORS = {
    "edge-index": (
        lambda: Graph.from_edges(np.zeros((2, 4), int), 4),
        r"`edges`.*\(2, 4\).*`.T`",
    ),
    "triples": (
        lambda: Graph.from_edges([(0, 1, 0.5)] * 4, 4),
        r"`edges`.*\(4, 3\).*`weights=`",
    ),
    "ragged": (lambda: Graph.from_edges([(0, 1), (1,)], 4), "`edges`"),
    "fraction": (lambda: Graph.from_edges([[0.5, 1]], 4), "`edges`.*0.5"),
    "nan-id": (lambda: Graph.from_edges([[np.nan, 1]], 4), "`edges`.*nan"),
    "strings": (lambda: Graph.from_edges([["a", "b"]], 4), "`edges`.*'a'"),
    "string-weights": (
        lambda: Graph.from_edges([[0, 1]], 4, weights=["x"]),
        "`weights`.*'x'",
    ),
    "string-matrix": (lambda: Graph([["x"]]), "`adjacency`.*numbers"),
    "negative": (lambda: Graph([[0, 1], [-2, 0]]), r"weight -2 .*\(1, 0\)"),
    "nan-weight": (lambda: Graph([[0, np.nan]] * 2), r"nan .*\(0, 1\)"),
    "complex": (lambda: Graph(scipy.sparse.eye(2) * 1j), "complex"),
    "networkx": (lambda: Graph.from_networkx([[0, 1]]), "`graph`.*list"),
    "no-nodes": (
        lambda: Graph.from_networkx(networkx.Graph()),
        "`graph`.*one node",
    ),
    "label": (lambda: Graph([[1.0]], label={}), "`label`.*{}"),
    "label-nan": (lambda: path_graph(3, label=[1, np.nan]), "`label`.*nan"),
    "label-text": (lambda: path_graph(3, label=["a", "b"]), "`label`.*vector"),
    "node-targets": (
        lambda: path_graph(3, node_targets=[0, 1]),
        "`node_targets`.*3 nodes",
    ),
    "edge-features": (
        lambda: Graph(np.ones((2, 2)), edge_features=np.ones((3, 1))),
        "`edge_features`.*4 stored edges",
    ),
    "string-features": (
        lambda: Graph([[1.0]], [["x"]]),
        "`features` expects numbers",
    ),
    "nan-kernel": (
        lambda: one_feature(np.full((3, 3), np.nan)),
        r"`kernels`.*nan .*graph 1, at \(0, 0\)",
    ),
    "negative-kernel": (
        lambda: one_feature([[1, 0, 0], [0, 1, -0.5], [0, 0, 1]]),
        r"`kernels`.*-0.5 .*graph 1, at \(1, 2\)",
    ),
    "id": (lambda: Graph.from_edges([[0, 3]], 3), "`edges`.*3"),
    "weights": (lambda: Graph.from_edges([[0, 1]], 2, [1, 2]), "`weights`"),
    "empty": (lambda: Graph.from_edges([], 0), "one node"),
    "oblong": (lambda: Graph(np.ones((2, 3))), "`adjacency`"),
    "infinite": (lambda: Graph([[np.inf]]), "finite"),
    "features": (lambda: Graph([[1.0]], np.ones((2, 1))), "`features`"),
    "nan": (lambda: Graph([[1.0]], [[np.nan]]), "node 0"),
    "labels": (lambda: Graph([[1.0]], node_labels=[1, 2]), "`node_labels`"),
    "no-labels": (lambda: node_features(Graph([[1.0]]), 3), "num_node_labels"),
    "motif": (lambda: motif_dataset("wheel"), "`name`"),
    "cycle": (lambda: induced_cycle_dataset(4), "`num_nodes`"),
    "no-graphs": (lambda: GraphBatch.from_graphs([]), "at least one graph"),
    "no-features": (
        lambda: GraphBatch.from_graphs([Graph([[1.0]])]),
        "features",
    ),
    "batch-nodes": (
        lambda: GraphBatch.from_graphs(
            [path_graph(3, features=np.ones((3, 1)))], num_nodes=2
        ),
        "`num_nodes`",
    ),
    "batch-kernel": (
        lambda: GraphBatch.from_graphs(
            [path_graph(3, features=np.ones((3, 1)))], [np.ones((2, 2))]
        ),
        "`kernels`",
    ),
}


@pytest.mark.parametrize("name", GRAPH_ERRORS)
def test_graph_errors(name):
    call, message = GRAPH_ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_features():
    graph = path_graph(3, node_labels=[1, 0, 1], features=[[5], [6], [7]])
    np.testing.assert_array_equal(
        node_features(graph, 2, max_degree=1),
        [[0, 1, 5, 0, 1], [1, 0, 6, 0, 1], [0, 1, 7, 0, 1]],
    )
    assert node_features(path_graph(2)).tolist() == [[1], [1]]
    # Neighbors, whatever the weights of their edges.
    weighted = path_graph(3, weights=[2.0, 0.5])
    np.testing.assert_array_equal(
        node_features(weighted, max_degree=3), np.eye(4)[[1, 2, 1]]
    )
    star = Graph.from_networkx(networkx.star_graph(7))
    np.testing.assert_array_equal(
        largest_neighbor_degrees(star)[:2], [[1] * 5, [7, 0, 0, 0, 0]]
    )
    ragged = Graph.from_edges([[0, 1], [0, 2], [2, 3]], 4)
    np.testing.assert_array_equal(
        largest_neighbor_degrees(ragged, 2), [[2, 1], [2, 0], [2, 1], [2, 0]]
    )


@pytest.mark.parametrize("name", MOTIFS)
def test_motifs(name):
    train, validation, test = motif_dataset(name, (6, 3, 3), seed=1)
    assert [len(d) for d in (train, validation, test)] == [12, 6, 6]
    assert np.bincount(train.labels).tolist() == [6, 6]
    _, (generator, *arguments) = MOTIFS[name]
    motif = getattr(networkx, generator)(*arguments)
    n, e = motif.number_of_nodes(), motif.number_of_edges()
    for k in range(0, 12, 2):
        negative, positive = train.graphs[k], train.graphs[k + 1]
        # The motif comes last, with the same number of edges in both classes.
        for graph in (negative, positive):
            inside = graph.adjacency[-n:][:, -n:]
            assert inside.nnz == 2 * e
            assert graph.adjacency[:-n][:, -n:].nnz >= 1
            assert (graph.degrees() > 0).all()
        np.testing.assert_array_equal(
            positive.adjacency[-n:][:, -n:].toarray(),
            networkx.to_numpy_array(motif),
        )
        base = [
            g.adjacency[:-n][:, :-n].toarray() for g in (negative, positive)
        ]
        np.testing.assert_array_equal(*base)
    again = motif_dataset(name, (6, 3, 3), seed=1)[2]
    other = motif_dataset(name, (6, 3, 3), seed=2)[2]

    def edges(dataset):
        return [g.adjacency.toarray().tolist() for g in dataset.graphs]

    assert edges(again) == edges(test) != edges(other)


def test_induced_cycles():
    train, _, test = induced_cycle_dataset(20, (8, 2, 4), seed=3)
    assert len(train) == 16 and len(test) == 8
    for graph in train.graphs:
        nx = networkx.from_scipy_sparse_array(graph.adjacency)
        assert nx.number_of_edges() == 20 and networkx.is_connected(nx)
        (cycle,) = networkx.cycle_basis(nx)
        # The tree is what is left without the right edge of the cycle; in
        # class 1 the cycle is one node more than the tree's diameter.
        diameters = []
        for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            tree = nx.copy()
            tree.remove_edge(a, b)
            diameters.append(networkx.diameter(tree))
        longest = len(cycle) - 1
        if graph.label:
            assert longest in diameters
        else:
            assert longest < max(diameters)


def test_batch():
    graphs = [
        path_graph(n, features=np.full((n, 2), n), label=n % 2)
        for n in (2, 3, 1)
    ]
    kernels = [np.full((4, n, n), n) for n in (2, 3, 1)]
    batch = GraphBatch.from_graphs(graphs, kernels, num_nodes=5)
    assert batch.nodes.shape == (3, 5, 2) and len(batch) == 3
    assert batch.kernel.shape == (3, 4, 5, 5)
    assert batch.node_mask.sum(1).tolist() == [2, 3, 1]
    assert batch.labels.tolist() == [0, 1, 1]
    for k, n in enumerate((2, 3, 1)):
        assert (batch.kernel[k, :, :n, :n] == n).all()
        assert batch.kernel[k].sum() == 4 * n**3
        assert batch.nodes[k].sum() == 2 * n * n
    inputs = batch.inputs()
    assert list(inputs) == ["nodes", "kernel", "node_mask"]
    assert inputs["kernel"] is batch.kernel
    # Rounding errors do not hide as negative entries.
    assert one_feature(np.eye(3) - 1e-9).kernel.min() == 0
    plain = GraphBatch.from_graphs(graphs)
    np.testing.assert_array_equal(
        plain.kernel[1], graphs[1].adjacency.toarray()
    )


def test_groups():
    sizes = np.random.default_rng(0).integers(2, 130, 300)
    buckets = bucket_sizes(sizes, 5)
    assert len(buckets) <= 5 and buckets[-1] == sizes.max()
    batches = group_by_size(sizes, 16, buckets, max_elements=60_000)
    ids = np.concatenate([ids for ids, _ in batches])
    assert sorted(ids) == list(range(300))
    for ids, nodes in batches:
        assert len(ids) <= 16 and sizes[ids].max() <= nodes
        assert len(ids) == 1 or len(ids) * nodes**2 <= 60_000
    # Graphs that do not fill a batch join the batches of the next size.
    full = {nodes: min(16, 60_000 // nodes**2) for nodes in buckets}
    for (ids, nodes), (_, other) in itertools.pairwise(batches):
        assert len(ids) == full[nodes] or full[other] < full[nodes]
    shuffled = group_by_size(
        sizes, 16, buckets, order=np.random.default_rng(1).permutation(300)
    )
    assert sorted(np.concatenate([i for i, _ in shuffled])) == list(range(300))
    assert bucket_sizes([7]) == [7]


@pytest.mark.parametrize("power", [1, 2])
def test_padded_sizes_waste_least(power):
    def padded(sizes, buckets):
        return (
            np.array(buckets)[np.searchsorted(buckets, sizes)] ** power
        ).sum()

    random = np.random.default_rng(power)
    for _ in range(30):
        sizes = random.integers(1, 15, random.integers(1, 12))
        others = np.unique(sizes)[:-1].tolist()
        for k in (1, 2, 4):
            found = bucket_sizes(sizes, k, power)
            choices = [
                [*choice, sizes.max()]
                for m in range(min(k, len(others) + 1))
                for choice in itertools.combinations(others, m)
            ]
            assert found in choices
            least = min(padded(sizes, choice) for choice in choices)
            assert padded(sizes, found) == least
    many = np.arange(1, 5003)
    found = bucket_sizes(many, 3, power)
    assert len(found) == 3 and found[-1] == 5002
    best = padded(many, bucket_sizes(many[1::5], 3, power))
    assert padded(many, found) <= 1.01 * best


def test_what_a_graph_holds_is_its_own():
    features, labels = np.ones((2, 1), "float32"), np.array([5, 6])
    targets = np.array(["a", "b"])
    graph = Graph(
        [[0, 1], [1, 0]],
        features=features,
        node_labels=labels,
        node_targets=targets,
    )
    features[:], labels[:], targets[:] = np.nan, 0, "c"
    assert graph.features.tolist() == [[1], [1]]
    assert graph.node_labels.tolist() == [5, 6]
    assert graph.node_targets.tolist() == ["a", "b"]
    assert graph.permuted([1.0, 0.0]).node_labels.tolist() == [6, 5]
    for wrong in ([1, 1], [0], [0, 2], [0, 1, 1]):
        with pytest.raises(ValueError, match="`order` expects each of the 2"):
            graph.permuted(wrong)


def test_labels_of_batches():
    def labels(*values):
        graphs = [
            Graph([[0, 1], [1, 0]], features=np.ones((2, 1)), label=value)
            for value in values
        ]
        return GraphBatch.from_graphs(graphs).labels

    assert labels(1, 0).dtype == "int32"
    np.testing.assert_array_equal(labels(0.75, 2.0), np.float32([0.75, 2]))
    np.testing.assert_array_equal(
        labels(np.array([0.5, 1.0]), np.array([2.0, 3.0])),
        np.float32([[0.5, 1], [2, 3]]),
    )
    for wrong in (("ring", "path"), (1.0, np.array([1.0, 2.0]))):
        with pytest.raises(ValueError, match="`graphs` expects labels that"):
            labels(*wrong)


def test_edges_alone_have_no_weights():
    for wrong in (
        Graph.from_edges([[0, 1]], 2, weights=[3.0]),
        Graph.from_edges([[0, 1]], 2, directed=True),
    ):
        with pytest.raises(ValueError, match="graph 0, which is directed or"):
            edge_inputs([wrong])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32", "bool"])
def test_duplicates_do_not_overflow(dtype):
    """Weights of an edge that comes twice are added; a bool is there or not."""
    values = np.array([100, 100]).astype(dtype)
    ends = ([0, 0], [1, 1])
    matrix = scipy.sparse.coo_matrix((values, ends), shape=(2, 2))
    expected = 1 if dtype == "bool" else 200
    assert Graph(matrix).adjacency.toarray().tolist() == [[0, expected], [0, 0]]
