"""`GraphPreprocessor` and `GraphSequence`: from lists of graphs to batches."""

import json

import keras
import networkx
import numpy as np
import pytest

from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    GraphSequence,
    dense_kernels,
    diffusion_kernel,
    laplacian_eigenvectors,
    largest_pairs,
    normalized_adjacency,
    random_walk_kernel,
    return_probabilities,
)

ATTRIBUTES = {"node_labels": "atom", "edge_labels": "bond"}


def molecules(count=10, seed=0):
    """Random graphs of 5 to 14 nodes with atoms and bonds."""
    random = np.random.default_rng(seed)
    graphs = []
    for k in range(count):
        graph = networkx.gnp_random_graph(5 + 3 * k % 10, 0.4, seed=k)
        for node in graph:
            graph.nodes[node]["atom"] = "CNO"[random.integers(3)]
        for edge in graph.edges:
            graph.edges[edge]["bond"] = int(random.integers(1, 3))
        graph.graph["y"] = k
        graphs.append(graph)
    return graphs


def preprocessor(form="dense", **options):
    options = {"attributes": ATTRIBUTES, "return_steps": 3, **options}
    return GraphPreprocessor(
        form=form, cache=False, kernel_sizes=(1, 3), **options
    )


def test_features():
    found = preprocessor(eigenvectors=2, degrees=True).adapt(molecules())
    graph = Graph.from_networkx(molecules()[3], **ATTRIBUTES)
    example = found([molecules()[3]])[0]
    atoms = np.array(graph.node_labels)[:, None] == np.array(["C", "N", "O"])
    degrees = graph.degrees()[:, None] == np.arange(
        found.learned["max_degree"] + 1
    )
    expected = [
        atoms,
        degrees,
        return_probabilities(graph, 3),
        laplacian_eigenvectors(graph, 2),
    ]
    np.testing.assert_allclose(
        example["nodes"], np.concatenate(expected, 1), rtol=1e-6
    )
    assert found.num_features == example["nodes"].shape[1]
    np.testing.assert_allclose(
        example["kernel"],
        random_walk_kernel(graph, length=[1, 3]),
        rtol=1e-5,
        atol=1e-7,
    )
    assert example["edges"].tolist() == graph.edge_index().T.tolist()
    bonds = np.array(graph.edge_labels)[:, None] == np.array([1, 2])
    np.testing.assert_array_equal(example["edge_features"], bonds)


def test_statistics_are_those_of_all_nodes():
    found = preprocessor().adapt(molecules())
    nodes = np.concatenate([x["nodes"] for x in found(molecules())])
    mean, variance = found.feature_statistics
    np.testing.assert_allclose(mean, nodes.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        variance, np.maximum(nodes.var(0), 0.01), rtol=1e-4
    )


@pytest.mark.parametrize(
    "kind, oracle",
    [
        ("random_walk", lambda g: random_walk_kernel(g, length=[2, 4])),
        (
            "diffusion",
            lambda g: diffusion_kernel(g, [2, 4], "normalized_laplacian"),
        ),
        ("neighbors", lambda g: ((g + np.eye(len(g))) > 0)[None]),
        ("normalized", lambda g: normalized_adjacency(g).toarray()[None]),
        ("ones", lambda g: np.ones((1, len(g), len(g)))),
    ],
)
def test_kernels(kind, oracle):
    graph = networkx.gnp_random_graph(30, 0.06, seed=1)  # Several components.
    adjacency = networkx.to_numpy_array(graph)
    expected = oracle(adjacency)
    found = dense_kernels(adjacency, kind, (2, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    if kind == "ones":
        with pytest.raises(ValueError, match="hides something"):
            largest_pairs(adjacency, kind, (2, 4))
        return
    pairs = largest_pairs(adjacency, kind, (2, 4), count=4)
    rows, columns = pairs[:2].astype(int)
    assert (np.diff(rows * 30 + columns) > 0).all()
    np.testing.assert_allclose(
        pairs[2:], expected[:, rows, columns], rtol=1e-5, atol=1e-6
    )
    # The four largest of each row that are not zero, and all edges.
    kept = np.zeros((30, 30), bool)
    kept[rows, columns] = True
    assert kept[(adjacency > 0) & (expected.max(0) > 1e-7)].all()
    largest = found.max(0)
    bound = np.sort(largest, axis=1)[:, -4, None]
    assert kept[(largest > bound) & (largest > 0)].all()
    assert (kept.sum(1) <= 4 + adjacency.sum(1)).all()


def test_the_largest_of_any_kernel_count():
    """The first kernel, of walks of one node, has only the diagonal."""
    adjacency = networkx.to_numpy_array(networkx.path_graph(6))
    pairs = largest_pairs(adjacency, "random_walk", (1, 3), 4)
    (matrix,) = dense_kernels(adjacency, "random_walk", (3,))
    kept = adjacency > 0
    for row, values in enumerate(matrix):
        kept[row, np.argsort(-values, kind="stable")[:4]] = True
    assert kept.sum() > 6 + adjacency.sum()
    np.testing.assert_array_equal(pairs[:2].T, np.argwhere(kept & (matrix > 0)))


def test_equal_entries_in_the_order_of_their_nodes():
    """Leaves of a star are equally near, so the first ones are kept."""
    star = networkx.to_numpy_array(networkx.star_graph(6))
    (matrix,) = dense_kernels(star, "random_walk", (3,))
    assert len(np.unique(matrix[1, 2:])) == 1
    for count in (2, 3, 4):
        pairs = largest_pairs(star, "random_walk", (3,), count)
        kept = star > 0
        for row, values in enumerate(matrix):
            kept[row, np.argsort(-values, kind="stable")[:count]] = True
        np.testing.assert_array_equal(pairs[:2].T, np.argwhere(kept))


def test_blocks_of_rows(monkeypatch):
    adjacency = networkx.to_numpy_array(networkx.path_graph(9))
    whole = largest_pairs(adjacency, "random_walk", (3,), 2)
    monkeypatch.setattr("keras_topo.graphs.largest.BLOCK", 20)
    np.testing.assert_array_equal(
        largest_pairs(adjacency, "random_walk", (3,), 2), whole
    )


def test_eigenvectors(monkeypatch):
    ring = networkx.to_numpy_array(networkx.path_graph(6))
    found = laplacian_eigenvectors(ring, 3)
    laplacian = np.eye(6) - normalized_adjacency(ring, False).toarray()
    values = np.linalg.eigvalsh(laplacian)
    np.testing.assert_allclose(
        laplacian @ found, found * values[1:4], atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-6)
    monkeypatch.setattr("keras_topo.graphs.encodings.DENSE_NODES", 2)
    np.testing.assert_allclose(
        laplacian_eigenvectors(ring, 3), found, atol=1e-5
    )
    few = laplacian_eigenvectors(np.ones((2, 2)), 3)
    assert few.shape == (2, 3) and (few[:, 1:] == 0).all()


@pytest.mark.parametrize(
    "graph",
    [
        networkx.disjoint_union_all([networkx.balanced_tree(2, 3)] * 3),
        networkx.disjoint_union_all([networkx.complete_graph(20)] * 3),
        networkx.cycle_graph(60),
        networkx.star_graph(40),
        networkx.empty_graph(30),
    ],
)
def test_eigenvectors_of_repeated_eigenvalues(monkeypatch, graph):
    """Lanczos iterations alone miss some of them."""
    adjacency = networkx.to_numpy_array(graph)
    laplacian = np.diag((adjacency.sum(1) > 0).astype(float))
    laplacian -= normalized_adjacency(adjacency, False).toarray()
    expected = np.linalg.eigvalsh(laplacian)[1:8]
    monkeypatch.setattr("keras_topo.graphs.encodings.DENSE_NODES", 10)
    found = laplacian_eigenvectors(adjacency, 7)
    np.testing.assert_array_equal(laplacian_eigenvectors(adjacency, 7), found)
    np.testing.assert_allclose(found.T @ found, np.eye(7), atol=1e-5)
    np.testing.assert_allclose(laplacian @ found, found * expected, atol=1e-5)


def test_configuration():
    found = preprocessor(eigenvectors=1).adapt(molecules())
    config = json.loads(json.dumps(found.get_config()))
    again = GraphPreprocessor.from_config({**config, "cache": False})
    for a, b in zip(found(molecules()), again(molecules()), strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert again.classes == list(range(10)) or again.classes is None
    assert "adapted" in repr(preprocessor())
    fresh = GraphPreprocessor.from_config(preprocessor().get_config())
    with pytest.raises(ValueError, match="adapt"):
        fresh(molecules())


def test_values_not_ranks():
    """Labels listed in another order mean the same (G4)."""
    path = np.eye(3, k=1) + np.eye(3, k=-1)
    found = GraphPreprocessor(cache=False, return_steps=0).adapt(
        [Graph(path, node_labels=[6, 7, 8])]
    )
    (example,) = found([Graph(path, node_labels=[8, 8, 6])])
    assert example["nodes"].argmax(1).tolist() == [2, 2, 0]
    with pytest.raises(ValueError, match=r"graphs\[0\]: node_labels.*9"):
        found([Graph(path, node_labels=[9, 8, 6])])
    found.unknown = "zeros"
    (example,) = found([Graph(path, node_labels=[9, 8, 6])])
    assert example["nodes"][0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"graphs\[0\].*node_labels"):
        found([Graph(path)])


def test_dense_batches_keep_the_order():
    graphs = molecules()
    y = list("abababbabb")
    found = preprocessor().adapt(graphs, y)
    sequence = GraphSequence(graphs, found, y, batch_size=3)
    examples = sequence.examples
    seen = 0
    for index in range(len(sequence)):
        inputs, targets = sequence[index]
        for k in range(len(targets)):
            example, n = examples[seen], graphs[seen].number_of_nodes()
            np.testing.assert_array_equal(
                inputs["nodes"][k, :n], example["nodes"]
            )
            np.testing.assert_array_equal(
                inputs["kernel"][k, :, :n, :n], example["kernel"]
            )
            assert inputs["node_mask"][k].sum() == n
            assert (inputs["kernel"][k, :, n:] == 0).all()
            edges = inputs["edges"][k]
            assert (edges[:, 0] >= 0).sum() == 2 * graphs[
                seen
            ].number_of_edges()
            assert targets[k] == "ab".index(y[seen])
            seen += 1
    assert seen == len(graphs)


def test_joined_batches():
    graphs = molecules()
    found = preprocessor("pairs", pairs_per_node=5).adapt(graphs)
    sequence = GraphSequence(graphs, found, [0.5] * 10, batch_size=4)
    start = 0
    for index in range(len(sequence)):
        inputs, targets = sequence[index]
        sizes = inputs["graph_sizes"]
        assert len(targets) == len(sizes)
        assert sizes.tolist() == [
            g.number_of_nodes() for g in graphs[start : start + len(sizes)]
        ]
        pairs, values = inputs["pairs"][0], inputs["pair_values"][0]
        graph_of = np.repeat(np.arange(len(sizes)), sizes)
        real = values.max(0) > 0
        ends = graph_of[pairs[real]]
        assert (ends[:, 0] == ends[:, 1]).all()
        for k, (n, offset) in enumerate(
            zip(sizes, np.cumsum(sizes) - sizes, strict=True)
        ):
            own = sequence.examples[start + k]
            of_graph = pairs[real][ends[:, 0] == k] - offset
            np.testing.assert_array_equal(of_graph.T, own["pairs"][:2])
            features = inputs["pair_features"][0][real][ends[:, 0] == k]
            # Both directions of each edge, at their pairs.
            is_edge = features[:, -1] == 1
            edges = {tuple(e) for e in of_graph[is_edge].tolist()}
            network = networkx.Graph(graphs[start + k])
            assert edges == {e for e in network.to_directed().edges}
            bonds = features[is_edge, :2].argmax(1) + 1
            assert bonds.tolist() == [
                network.edges[e]["bond"] for e in of_graph[is_edge].tolist()
            ]
            assert (features[~is_edge] == 0).all()
            np.testing.assert_array_equal(
                inputs["nodes"][0, offset : offset + n], own["nodes"]
            )
        start += len(sizes)
    assert start == len(graphs)


@pytest.mark.parametrize("form", ["dense", "pairs"])
def test_epochs_depend_on_the_seed_and_the_epoch(form):
    graphs = molecules(20)
    found = preprocessor(form).adapt(graphs)

    def epoch(number, seed=3):
        sequence = GraphSequence(
            graphs, found, range(20), 4, shuffle=True, seed=seed, epoch=number
        )
        return [sequence[k][1].tolist() for k in range(len(sequence))]

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2) and epoch(1) != epoch(1, seed=4)
    assert sorted(sum(epoch(1), [])) == list(range(20))
    sequence = GraphSequence(graphs, found, range(20), 4, shuffle=True, seed=3)
    # Keras looks at the first batches before it begins.
    sequence[0], sequence[1]
    sequence.on_epoch_end()
    assert sequence.epoch == 0
    list(sequence)
    sequence.on_epoch_end()
    assert [sequence[k][1].tolist() for k in range(len(sequence))] == epoch(1)


@pytest.mark.parametrize("form", ["dense", "pairs"])
def test_targets_and_weights_go_with_their_graphs(form):
    graphs = molecules()
    sizes = [float(graph.number_of_nodes()) for graph in graphs]
    found = preprocessor(form).adapt(graphs, sizes)
    sequence = GraphSequence(
        graphs, found, sizes, 3, np.square(sizes), shuffle=True, seed=1
    )
    seen = []
    for index in range(len(sequence)):
        inputs, targets, weights = sequence[index]
        counted = inputs.get("graph_sizes")
        if counted is None:
            counted = inputs["node_mask"].sum(1)
        np.testing.assert_array_equal(targets, counted)
        np.testing.assert_array_equal(weights, targets**2)
        seen += targets.tolist()
    assert seen != sizes and sorted(seen) == sorted(sizes)


def test_weights_and_directions_of_edges():
    """Degrees count edges; features are those of a direction."""
    graph = Graph.from_edges(
        [[0, 1], [1, 0], [1, 2], [2, 0]],
        3,
        weights=[1.0, 2.0, 3.0, 0.5],
        directed=True,
        edge_features=[[1.0], [2.0], [3.0], [4.0]],
    )
    found = GraphPreprocessor(form="pairs", return_steps=0, cache=False)
    (example,) = found.adapt([graph])([graph])
    np.testing.assert_array_equal(
        example["nodes"],
        np.hstack([np.eye(3)[[1, 2, 1]], np.eye(3)[[2, 1, 1]]]),
    )
    ids = example["pairs"][:2].astype(int).T.tolist()
    at = dict(zip(map(tuple, ids), example["pair_features"][:, 0], strict=True))
    edges = {(0, 1): 1.0, (1, 0): 2.0, (1, 2): 3.0, (2, 0): 4.0}
    assert at == {**dict.fromkeys(at, 0.0), **edges}


def test_signs_are_random_in_training():
    graphs = molecules()
    found = preprocessor(eigenvectors=2).adapt(graphs)
    plain = np.concatenate([x["nodes"] for x in found(graphs)])[:, -2:]
    seen = set()
    train = GraphSequence(graphs, found, range(10), 10, shuffle=True)
    for epoch in range(4):
        train.epoch = epoch
        inputs, targets = train[0]
        for k, target in enumerate(targets):
            example = train.examples[int(target)]["nodes"]
            n = len(example)
            flipped = inputs["nodes"][k, :n]
            np.testing.assert_array_equal(flipped[:, :-2], example[:, :-2])
            signs = np.sign((flipped * example)[:, -2:].sum(0))
            seen.add(tuple(signs))
    assert len(seen) > 2
    still = GraphSequence(graphs, found, range(10), 10)[0][0]
    np.testing.assert_array_equal(
        still["nodes"][still["node_mask"]][:, -2:], plain
    )


def test_batches_are_bounded():
    graphs = molecules()
    for form, elements in (("dense", 2 * 14**2), ("pairs", 150)):
        found = preprocessor(form).adapt(graphs)
        sequence = GraphSequence(
            graphs, found, False, 10, max_elements=elements
        )
        sizes = [len(sequence.nodes_of(k)) for k in range(len(sequence))]
        assert sum(sizes) == 10 and max(sizes) < 10
        for k in range(len(sequence)):
            if form == "dense" and sizes[k] > 1:
                largest = sequence.nodes_of(k).max()
                assert sizes[k] * largest**2 <= elements


def test_targets():
    graphs = molecules(4)
    found = preprocessor().adapt(graphs)
    by_node = [[0, -1] * 20, [1] * 40, [0, 1] * 20, [2] * 40]
    by_node = [
        np.array(x[: len(g)]) for x, g in zip(by_node, graphs, strict=True)
    ]
    found.adapt(graphs, by_node)
    assert found.classes == [0, 1, 2]
    sequence = GraphSequence(graphs, found, by_node, 4)
    _, targets, weights = sequence[0]
    for k, y in enumerate(by_node):
        known = y >= 0
        assert (targets[k, : len(y)][known] == y[known]).all()
        assert ((weights[k, : len(y)] > 0) == known).all()
        assert (weights[k, len(y) :] == 0).all()
    # Half of the targets are unknown, and weights of graphs count.
    doubled = GraphSequence(graphs, found, by_node, 4, [1, 1, 2, 1])[0][2]
    np.testing.assert_allclose(doubled[2], 2 * weights[2])
    several = GraphSequence(graphs, found, np.eye(4), 4)[0][1]
    np.testing.assert_array_equal(several, np.eye(4))


def test_metrics_of_nodes_are_exact():
    """Batches of other sizes count by their nodes."""
    graphs = molecules(9)
    truth = [np.arange(len(g)) % 2 for g in graphs]
    truth[0][:2] = -1
    found = preprocessor("dense").adapt(graphs, truth)
    joined = preprocessor("pairs").adapt(graphs, truth)
    right = np.concatenate([t[t >= 0] for t in truth])
    for form in (found, joined):
        inputs = keras.Input((None, form.num_features), name="nodes")
        logits = keras.ops.concatenate(
            [inputs[..., :1] * 0, inputs[..., :1]], -1
        )
        model = keras.Model({"nodes": inputs}, logits)
        model.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        )
        sequence = GraphSequence(graphs, form, truth, 4)

        class Nodes(keras.utils.PyDataset):
            def __len__(self):
                return len(sequence)  # noqa: B023

            def __getitem__(self, k):
                x, *rest = sequence[k]  # noqa: B023
                return {"nodes": x["nodes"]}, *rest

        found_accuracy = model.evaluate(Nodes(), verbose=0)[1]
        chosen = np.concatenate(
            [
                (x["nodes"][:, 0] > 0)[t >= 0]
                for x, t in zip(sequence.examples, truth, strict=True)
            ]
        )
        assert found_accuracy == pytest.approx((chosen == right).mean(), 1e-5)


PATH = np.eye(3, k=1) + np.eye(3, k=-1)
BAD = {
    "labels": (
        lambda: GraphPreprocessor(cache=False).adapt(
            [Graph(PATH, node_labels=[0, 1, 1]), Graph(PATH)]
        ),
        r"node_labels in all.*graphs\[0\] with, and graphs\[1\]",
    ),
    "widths": (
        lambda: GraphPreprocessor(cache=False).adapt(
            [Graph(PATH, np.ones((3, k))) for k in (1, 2)]
        ),
        r"1 in graphs\[0\] and 2 in graphs\[1\]",
    ),
    "none": (lambda: GraphPreprocessor().adapt([]), "at least one"),
    "kernel": (lambda: GraphPreprocessor(kernel="heat"), "`kernel`.*'heat'"),
    "steps": (lambda: GraphPreprocessor(return_steps=-1), "`return_steps`"),
    "choice": (lambda: GraphPreprocessor(degrees=1), "`degrees`.*1"),
    "sizes": (lambda: GraphPreprocessor(kernel_sizes=()), "`kernel_sizes`"),
    "half": (
        lambda: GraphSequence([Graph(PATH, label=1), Graph(PATH)], ADAPTED),
        "none for graph 1, one for graph 0",
    ),
    "class": (
        lambda: GraphSequence([Graph(PATH)], ADAPTED, [7]),
        r"`y` expects classes.*\[0, 1\].*7",
    ),
    "count": (
        lambda: GraphSequence([Graph(PATH)], ADAPTED, [0, 1]),
        "`y` expects one target for each of the 1",
    ),
    "either": (
        lambda: GraphSequence([Graph(PATH)] * 2, ADAPTED, np.eye(3)[:2]),
        "`level`",
    ),
    "weights": (
        lambda: GraphSequence([Graph(PATH)], ADAPTED, sample_weight=[1, 2]),
        "`sample_weight`",
    ),
    "empty": (lambda: GraphSequence([], ADAPTED), "at least one graph"),
    "which": (
        lambda: ADAPTED([Graph(PATH), "graph"]),
        r"graphs\[1\]",
    ),
}
ADAPTED = GraphPreprocessor(cache=False).adapt(
    [Graph(PATH, label=0), Graph(PATH, label=1)]
)


@pytest.mark.parametrize("name", BAD)
def test_errors(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
