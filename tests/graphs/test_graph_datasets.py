"""Readers: archives as the public site serves them, and broken ones."""

import json
import zipfile

import numpy as np
import pytest

from keras_topo.graphs import (
    beacon_dataset,
    load_planetoid,
    load_tu_dataset,
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
    assert dataset.classes == [-1, 5] and dataset.labels.tolist() == [0, 1]
    assert dataset.num_node_labels == 3
    first, second = dataset.graphs
    np.testing.assert_array_equal(
        first.adjacency.toarray(),
        [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]],
    )
    np.testing.assert_array_equal(
        second.adjacency.toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    )
    assert first.node_labels.tolist() == [0, 0, 1, 0]
    assert second.node_labels.tolist() == [1, 2, 1]
    np.testing.assert_allclose(second.features[1], [5.5, 0.5])
    assert first.num_edges == 4 and second.num_edges == 1


def test_without_node_labels(tmp_path):
    files = {k: v for k, v in FILES.items() if not k.startswith("node")}
    dataset = load_tu_dataset(write_zip(tmp_path, files))
    assert dataset.num_node_labels == 0
    assert dataset.graphs[0].features is None


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
    path = write_zip(tmp_path, {**FILES, **changed})
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
    # The directory at the end is whole, a member is not.
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(ValueError, match="corrupt|truncated"):
        load_tu_dataset(path)


@pytest.mark.parametrize("prefix", ["../", "/", "TOY/../../", "C:\\"])
def test_members_outside(tmp_path, prefix):
    with pytest.raises(ValueError, match="inside its own folder"):
        load_tu_dataset(write_zip(tmp_path, prefix=prefix))


def planetoid_arrays():
    return {
        "x_data": np.ones(3, "float32"),
        "x_indices": np.array([0, 2, 1], "int32"),
        "x_indptr": np.array([0, 1, 2, 3, 3], "int32"),
        "x_shape": np.array([4, 3], "int32"),
        "edge_index": np.array([[0, 1, 1, 2], [1, 0, 2, 1]], "int32"),
        "y": np.array([0, 1, 1, -1], "int32"),
        "train_idx": np.array([0], "int32"),
        "val_idx": np.array([1], "int32"),
        "test_idx": np.array([2], "int32"),
    }


def test_planetoid(tmp_path):
    np.savez(tmp_path / "toy.npz", **planetoid_arrays())
    for arguments in [(tmp_path / "toy.npz",), (tmp_path, "Toy")]:
        data = load_planetoid(*arguments)
        assert data.num_classes == 2 and data.graph.num_edges == 2
        np.testing.assert_array_equal(
            data.graph.features, [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]
        )
        assert data.train.tolist() == [0] and data.test.tolist() == [2]


PLANETOID_ERRORS = {
    "id": ({"edge_index": np.array([[0], [4]])}, "edges"),
    "split-id": ({"val_idx": np.array([7])}, "val_idx"),
    "split-class": ({"test_idx": np.array([3])}, "test_idx"),
    "features": ({"x_indices": np.array([0, 2, 9])}, "npz"),
    "overlap": ({"val_idx": np.array([0])}, "overlap"),
    "classes": ({"y": np.zeros(3, "int32")}, "`y`"),
    "pickle": ({"y": np.array([{}], object)}, "npz"),
}


@pytest.mark.parametrize("name", PLANETOID_ERRORS)
def test_broken_planetoid(tmp_path, name):
    changed, message = PLANETOID_ERRORS[name]
    path = tmp_path / "toy.npz"
    np.savez(path, **{**planetoid_arrays(), **changed})
    with pytest.raises(ValueError, match=message):
        load_planetoid(path)


def test_planetoid_without_an_array(tmp_path):
    arrays = planetoid_arrays()
    del arrays["val_idx"]
    path = tmp_path / "toy.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="val_idx"):
        load_planetoid(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="npz"):
        load_planetoid(path)


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
    splits = shared_data / "tu_splits" / f"{name}.json"
    if splits.exists():
        for fold in json.loads(splits.read_text())["folds"]:
            counts = np.bincount(dataset.labels[fold["test"]])
            assert counts.max() - counts.min() <= (
                np.ptp(np.bincount(dataset.labels)) / 10 + 2
            )


@pytest.mark.needs_shared_data
@pytest.mark.parametrize(
    "name, nodes, features, edges, classes",
    [("cora", 2708, 1433, 5278, 7), ("citeseer", 3327, 3703, 4552, 6)],
)
def test_public_planetoid(shared_data, name, nodes, features, edges, classes):
    data = load_planetoid(shared_data / "planetoid", name)
    assert data.graph.features.shape == (nodes, features)
    assert data.graph.num_edges == edges and data.num_classes == classes
    assert len(data.train) == 20 * classes
    assert (len(data.validation), len(data.test)) == (500, 1000)


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
    # Some of the beacons are wrong, and most are right.
    right = data.graph.features[:, :3].argmax(1) == data.graph.node_targets
    assert 0.5 < right[shown].mean() < 1
    with pytest.raises(ValueError, match="`num_nodes`"):
        beacon_dataset(50)
