"""Readers: archives as the public site serves them, and broken ones."""

import json
import zipfile

import numpy as np
import pytest

from keras_topo.graphs import (
    Graph,
    GraphDataset,
    beacon_dataset,
    load_tu_dataset,
    node_features,
    spectral_radius_dataset,
)

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough

# Two graphs: a triangle with a tail that has a repeated line and a self-loop,
# and two nodes of which one is isolated ... in public files all of it occurs.
FILES = {
    "A": "1, 2\n2, 1\n1, 2\n2, 3\n3, 2\n1, 3\n3, 1\n4, 4\n5, 6\n6, 5\n",
    "graph_indicator": "1\n1\n1\n1\n2\n2\n2\n",
    "graph_labels": "-1\n5\n",
    "node_labels": "7\n7\n9\n7\n9\n12\n9\n",
    "node_attributes": "".join(f"{k}.5, {k}e-1\n" for k in range(7)),
}


def write_zip(folder, files=FILES, name="TOY", prefix="TOY/"):
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for suffix, text in files.items():
            archive.writestr(f"{prefix}{name}_{suffix}.txt", text)
    return path


def write_folder(folder, files=FILES, name="TOY"):
    path = folder / name
    path.mkdir()
    for suffix, text in files.items():
        (path / f"{name}_{suffix}.txt").write_text(text)
    return path


@pytest.mark.parametrize("write", [write_zip, write_folder])
@pytest.mark.parametrize("by_name", [False, True])
def test_reads(tmp_path, write, by_name):
    path = write(tmp_path)
    dataset = (
        load_tu_dataset(tmp_path, "TOY") if by_name else load_tu_dataset(path)
    )
    assert dataset.name == "TOY" and len(dataset) == 2
    assert dataset.classes == [-1, 5] and dataset.labels.tolist() == [-1, 5]
    assert dataset.class_ids.tolist() == [0, 1]
    assert dataset.num_node_labels == 3
    assert dataset.node_label_values == [7, 9, 12]
    first, second = dataset.graphs
    np.testing.assert_array_equal(
        first.adjacency.toarray(),
        [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]],
    )
    np.testing.assert_array_equal(
        second.adjacency.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    )
    assert first.node_labels.tolist() == [7, 7, 9, 7]
    assert second.node_labels.tolist() == [9, 12, 9]
    np.testing.assert_allclose(second.features[1], [5.5, 0.5])
    assert first.num_edges == 4 and second.num_edges == 1


def test_without_node_labels(tmp_path):
    files = {k: v for k, v in FILES.items() if not k.startswith("node")}
    dataset = load_tu_dataset(write_zip(tmp_path, files))
    assert dataset.num_node_labels == 0
    assert dataset.graphs[0].features is None


EDGE_FILES = {
    # As FILES has edges: an edge in one direction only, one twice.
    "A": "1, 2\n2, 1\n3, 2\n4, 4\n4, 4\n5, 6\n",
    "graph_indicator": "1\n1\n1\n1\n2\n2\n2\n",
    "graph_labels": "-1\n5\n",
    "edge_labels": "4\n4\n8\n6\n6\n-1\n",
    "edge_attributes": ".5,1\n.5,1\n2,3\n4,5\n4,5\n6,7\n",
}


def test_edge_labels_and_attributes(tmp_path):
    """In the order of the edges, in both directions."""
    dataset = load_tu_dataset(write_zip(tmp_path, EDGE_FILES))
    first, second = dataset.graphs
    assert first.edge_index().tolist() == [[0, 1, 1, 2, 3], [1, 0, 2, 1, 3]]
    assert first.edge_labels.tolist() == [4, 4, 8, 8, 6]
    np.testing.assert_array_equal(
        first.edge_features, [[0.5, 1], [0.5, 1], [2, 3], [2, 3], [4, 5]]
    )
    assert second.edge_labels.tolist() == [-1, -1]
    assert dataset.edge_label_values == [-1, 4, 6, 8]


def test_directed(tmp_path):
    files = {**EDGE_FILES, "edge_labels": "1\n2\n3\n4\n4\n5\n"}
    del files["edge_attributes"]
    path = write_zip(tmp_path, files)
    first, second = load_tu_dataset(path, directed=True).graphs
    assert first.edge_index().tolist() == [[0, 1, 2, 3], [1, 0, 1, 3]]
    assert first.edge_labels.tolist() == [1, 2, 3, 4]
    assert second.edge_labels.tolist() == [5]
    with pytest.raises(ValueError, match="edge_labels.*line 1, 1, and line 2"):
        load_tu_dataset(path)


def test_edges_of_graphs_that_are_not_sorted(tmp_path):
    """The result equals `Graph.from_edges`, for many graphs or single ones."""
    random = np.random.default_rng(0)
    graph_of = random.permutation(np.repeat(np.arange(9), 5))
    pairs = random.integers(0, 45, (900, 2))
    pairs = pairs[graph_of[pairs[:, 0]] == graph_of[pairs[:, 1]]]
    labels = pairs.sum(axis=1) % 7
    files = {
        "A": "".join(f"{i + 1},{j + 1}\n" for i, j in pairs),
        "graph_indicator": "".join(f"{k + 1}\n" for k in graph_of),
        "graph_labels": "1\n" * 9,
        "edge_labels": "".join(f"{label}\n" for label in labels),
        "node_labels": "".join(f"{k}\n" for k in range(45)),
    }
    dataset = load_tu_dataset(write_zip(tmp_path, files))
    for k, graph in enumerate(dataset.graphs):
        nodes = np.flatnonzero(graph_of == k)
        own = graph_of[pairs[:, 0]] == k
        expected = Graph.from_edges(
            np.searchsorted(nodes, pairs[own]), 5, edge_labels=labels[own]
        )
        np.testing.assert_array_equal(graph.node_labels, nodes)
        np.testing.assert_array_equal(
            graph.adjacency.toarray(), expected.adjacency.toarray()
        )
        np.testing.assert_array_equal(graph.edge_labels, expected.edge_labels)


def test_one_chunk_or_many(tmp_path, monkeypatch):
    whole = load_tu_dataset(write_zip(tmp_path, EDGE_FILES)).graphs
    monkeypatch.setattr("keras_topo.graphs.tu_dataset.LINES", 1)
    monkeypatch.setattr("keras_topo.graphs.tables.BLOCK", 6)
    parts = load_tu_dataset(write_zip(tmp_path, EDGE_FILES)).graphs
    for one, other in zip(whole, parts, strict=True):
        assert one.edge_index().tolist() == other.edge_index().tolist()
        assert one.edge_labels.tolist() == other.edge_labels.tolist()


def with_targets(**targets):
    files = {k: v for k, v in FILES.items() if k != "graph_labels"}
    return {**files, **targets}


TARGETS = {
    # The contents of the files, and the targets of two graphs.
    "classes": ({"graph_labels": "7\n3\n"}, [7, 3], [3, 7]),
    "whole": ({"graph_labels": "7.0\n3.0\n"}, [7, 3], [3, 7]),
    "real": ({"graph_labels": "7\n3.5\n"}, [7.0, 3.5], None),
    "several": (
        {"graph_labels": "1,0,1\n0,0,1\n"},
        [[1, 0, 1], [0, 0, 1]],
        None,
    ),
    "attribute": ({"graph_attributes": "2\n-3\n"}, [2.0, -3.0], None),
    "attributes": (
        {"graph_attributes": "1,.5\n3,4\n"},
        [[1, 0.5], [3, 4]],
        None,
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(tmp_path, name):
    files, labels, classes = TARGETS[name]
    dataset = load_tu_dataset(write_zip(tmp_path, with_targets(**files)))
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.classes == classes
    assert dataset.num_classes == (2 if classes else 0)
    kind = type(dataset.graphs[0].label)
    expected = np.ndarray if np.ndim(labels) == 2 else type(labels[0])
    assert kind is expected


def test_two_files_of_targets(tmp_path):
    both = {"graph_labels": "1\n2\n", "graph_attributes": "0.5\n1.5\n"}
    path = write_zip(tmp_path, with_targets(**both))
    with pytest.raises(ValueError, match="`target`.*target=None"):
        load_tu_dataset(path)
    assert load_tu_dataset(path, target="labels").labels.tolist() == [1, 2]
    dataset = load_tu_dataset(path, target="attributes")
    assert dataset.labels.tolist() == [0.5, 1.5]
    with pytest.raises(ValueError, match="`target`.*'classes'"):
        load_tu_dataset(path, target="classes")


def test_several_columns_of_labels(tmp_path):
    files = {**EDGE_FILES, "node_labels": "1,2\n" * 6 + "3,4\n"}
    files["edge_labels"] = "7,8\n" * 6
    path = write_zip(tmp_path, files)
    with pytest.raises(ValueError, match="`node_label_column`.*from 0 to 1"):
        load_tu_dataset(path)
    with pytest.raises(ValueError, match="`edge_label_column`.*=2"):
        load_tu_dataset(path, node_label_column=1, edge_label_column=2)
    dataset = load_tu_dataset(path, node_label_column=1, edge_label_column=0)
    assert dataset.node_label_values == [2, 4]
    assert dataset.edge_label_values == [7]


def test_data_set():
    graphs = [Graph([[1.0]], label=k) for k in "abc"]
    dataset = GraphDataset("loops", graphs, list("abc"), list(range(12)))
    assert repr(dataset) == (
        "GraphDataset('loops', graphs=3, classes=['a', 'b', 'c'], "
        "node_label_values=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (12)])"
    )
    assert dataset.num_node_labels == 12
    with pytest.raises(ValueError, match="graph 1 has none"):
        _ = dataset.map(
            lambda g: g if g.label != "b" else Graph([[1.0]])
        ).labels
    assert dataset[1].label == "b"
    assert dataset[1:].labels.tolist() == ["b", "c"]
    assert dataset[np.array([True, False, True])].class_ids.tolist() == [0, 2]
    assert dataset[[2, 0]].classes == list("abc")


def test_features_by_value():
    """One-hot vectors follow the values of all graphs, not of one graph."""
    graph = Graph(np.ones((2, 2)), node_labels=[9, 7])
    features = node_features(graph, [7, 8, 9])
    np.testing.assert_array_equal(features, [[0, 0, 1], [1, 0, 0]])
    words = Graph(np.ones((2, 2)), node_labels=["N", "C"])
    features = node_features(words, ("C", "N"))
    np.testing.assert_array_equal(features, [[0, 1], [1, 0]])
    with pytest.raises(
        ValueError, match="`num_node_labels`.*label 9 at node 0"
    ):
        node_features(graph, 9)
    with pytest.raises(ValueError, match="different values"):
        node_features(graph, [7, 9, 7])


def test_nodes_out_of_order(tmp_path):
    """Graph ids that are not sorted: nodes stay with their graph."""
    files = {
        "A": "1, 3\n3, 1\n2, 4\n4, 2\n",
        "graph_indicator": "2\n1\n2\n1\n",
        "graph_labels": "0\n1\n",
        "node_labels": "0\n1\n2\n3\n",
    }
    first, second = load_tu_dataset(write_zip(tmp_path, files)).graphs
    assert first.node_labels.tolist() == [1, 3]
    assert second.node_labels.tolist() == [0, 2]
    for graph in (first, second):
        np.testing.assert_array_equal(graph.adjacency.toarray(), 1 - np.eye(2))


BROKEN = {
    "id-too-large": ({"A": "1, 99\n"}, "ids"),
    "id-zero": ({"A": "0, 1\n"}, "ids"),
    "between-graphs": ({"A": "1, 2\n2, 5\n"}, "line 2"),
    "no-number": ({"A": "1, 2\n1, x\n"}, "TOY_A.txt.*line 2"),
    "three-columns": ({"A": "1, 2\n1, 2, 3\n"}, "TOY_A.txt.*line 2"),
    "weights": ({"A": "1, 2, 3\n"}, "TOY_A.txt.*line 1.*edge_attributes.txt"),
    "two-ids": ({"graph_indicator": "1, 1\n" * 7}, "graph_indicator.*line 1"),
    "edge-labels": ({"edge_labels": "1\n" * 9}, "edge_labels.*10 lines"),
    "edge-conflict": (
        {"edge_attributes": "1\n1\n2\n" + "1\n" * 7},
        "edge_attributes.*line 1, 1.0, and line 3, 2.0",
    ),
    "infinite": (
        {"graph_attributes": "1e99,1\n1,1\n", "graph_labels": None},
        "graph_attributes.*line 1",
    ),
    "many-nodes": ({"node_labels": "1\n" * 8}, "node_labels.*7 lines"),
    "jagged": ({"A": "1, 2\n3\n1, 2, 3\n"}, "TOY_A.txt.*line 2"),
    "fraction": ({"A": "1, 2.5\n"}, "whole"),
    "nan": ({"node_attributes": "nan, 1\n" * 7}, "node_attributes.*line 1"),
    "few-labels": ({"node_labels": "1\n2\n"}, "node_labels"),
    "few-classes": ({"graph_labels": "1\n"}, "graph_labels"),
    "empty-graph": ({"graph_labels": "1\n1\n1\n"}, "graph 3"),
    "no-nodes": ({"graph_indicator": ""}, "graph_indicator"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    changed, message = BROKEN[name]
    files = {**FILES, **changed}
    files = {k: text for k, text in files.items() if text is not None}
    path = write_zip(tmp_path, files)
    with pytest.raises(ValueError, match=message):
        load_tu_dataset(path)


def test_missing_file_and_path(tmp_path):
    files = {k: v for k, v in FILES.items() if k != "A"}
    with pytest.raises(ValueError, match="TOY_A.txt"):
        load_tu_dataset(write_zip(tmp_path, files))
    with pytest.raises(ValueError, match="does not exist"):
        load_tu_dataset(tmp_path / "NONE.zip")


def test_broken_archives(tmp_path):
    path = write_zip(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="zip"):
        load_tu_dataset(path)
    # The directory at the end is complete, but a member is not.
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(ValueError, match="corrupt|truncated"):
        load_tu_dataset(path)


@pytest.mark.parametrize("prefix", ["../", "/", "TOY/../../", "C:\\"])
def test_members_outside(tmp_path, prefix):
    with pytest.raises(ValueError, match="inside its own folder"):
        load_tu_dataset(write_zip(tmp_path, prefix=prefix))


STATISTICS = {
    # graphs, nodes, lines of A, classes, node labels, isolated, self-loops
    "MUTAG": (188, 3371, 7442, 2, 7, 0, 0),
    "ENZYMES": (600, 19580, 74564, 6, 3, 106, 0),
    "PROTEINS": (1113, 43471, 162088, 2, 3, 5, 0),
    "NCI1": (4110, 122747, 265506, 2, 37, 428, 0),
    "IMDB-BINARY": (1000, 19773, 193062, 2, 0, 0, 0),
    "IMDB-MULTI": (1500, 19502, 197806, 3, 0, 0, 0),
}


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("name", STATISTICS)
def test_public_archives(shared_data, name):
    dataset = load_tu_dataset(shared_data / "tu", name)
    graphs = dataset.graphs
    found = (
        len(graphs),
        sum(g.num_nodes for g in graphs),
        sum(g.adjacency.nnz for g in graphs),
        dataset.num_classes,
        dataset.num_node_labels,
        sum(int((g.degrees() == 0).sum()) for g in graphs),
        sum(int(g.adjacency.diagonal().sum()) for g in graphs),
    )
    assert found == STATISTICS[name]
    edge_values = [0, 1, 2, 3] if name == "MUTAG" else []
    assert dataset.edge_label_values == edge_values
    splits = shared_data / "tu_splits" / f"{name}.json"
    if splits.exists():
        for fold in json.loads(splits.read_text())["folds"]:
            counts = np.bincount(dataset.class_ids[fold["test"]])
            assert counts.max() - counts.min() <= (
                np.ptp(np.bincount(dataset.class_ids)) / 10 + 2
            )


def test_beacons():
    data = beacon_dataset(2000, num_classes=3, seed=1)
    again = beacon_dataset(2000, num_classes=3, seed=1)
    np.testing.assert_array_equal(data.graph.features, again.graph.features)
    assert data.graph.is_undirected() and data.graph.degrees().min() >= 8
    shown = data.graph.features[:, :3].sum(axis=1) > 0
    assert shown.sum() == 20
    parts = [data.train, data.validation, data.test]
    everything = np.sort(np.concatenate([*parts, np.flatnonzero(shown)]))
    np.testing.assert_array_equal(everything, np.arange(2000))
    # Some of the beacons are wrong, and most are correct.
    right = data.graph.features[:, :3].argmax(1) == data.graph.node_targets
    assert 0.5 < right[shown].mean() < 1
    with pytest.raises(ValueError, match="`num_nodes`"):
        beacon_dataset(50)


def test_spectral_radius():
    """The target is the largest eigenvalue of the weights at the edges."""
    sizes, nodes = (20, 5, 5), (4, 9)
    train, validation, test = spectral_radius_dataset(sizes, nodes, seed=1)
    assert [len(train), len(validation), len(test)] == [20, 5, 5]
    assert train.classes is None
    bonds = {"single": 1.0, "double": 2.0, "triple": 3.0}
    seen = set()
    for graph in train.graphs + validation.graphs + test.graphs:
        assert 4 <= graph.num_nodes <= 9 and graph.is_undirected()
        # At least a tree, without self-loops, and with unit weights.
        assert graph.num_edges >= graph.num_nodes - 1
        assert not graph.adjacency.diagonal().any()
        assert set(graph.adjacency.data) == {1.0}
        strengths = graph.edge_features[:, 0].astype("float64")
        assert abs(strengths).max() <= 0.5
        weights = np.zeros((graph.num_nodes, graph.num_nodes))
        weights[tuple(graph.edge_index())] = strengths + [
            bonds[bond] for bond in graph.edge_labels
        ]
        np.testing.assert_array_equal(weights, weights.T)
        radius = abs(np.linalg.eigvals(weights)).max()
        np.testing.assert_allclose(graph.label, radius, rtol=1e-6)
        seen |= set(graph.edge_labels.tolist())
    assert seen == set(bonds)
    again = spectral_radius_dataset(sizes, nodes, seed=1)[2]
    other = spectral_radius_dataset(sizes, nodes, seed=2)[2]
    np.testing.assert_array_equal(again.labels, test.labels)
    assert (other.labels != test.labels).any()
    # Sets are drawn independently: none repeats another.
    assert not set(train.labels) & set(test.labels)
    with pytest.raises(ValueError, match="`num_nodes`"):
        spectral_radius_dataset(sizes, (2, 5))
