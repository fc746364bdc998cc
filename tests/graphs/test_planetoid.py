"""Readers of Planetoid data: npz files and the public pickles."""

import numpy as np
import pytest

from keras_topo.graphs import load_planetoid

pytestmark = pytest.mark.tensorflow_only  # NumPy: once is enough


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
    "id": ({"edge_index": np.array([[0], [4]])}, "edge_index"),
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
