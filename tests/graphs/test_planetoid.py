"""Readers of Planetoid data: npz files and the public pickles."""

import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import scipy.sparse

from keras_topo.graphs import load_planetoid
from keras_topo.graphs.pickles import read_pickle

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


def test_planetoid_masks_and_directions(tmp_path):
    """One direction, repeated edges, masks, whole numbers as floats."""
    arrays = planetoid_arrays()
    arrays["edge_index"] = np.array([[0.0, 0.0, 2.0], [1.0, 1.0, 1.0]])
    arrays["val_idx"] = np.array([False, True, False, False])
    arrays["y"] = arrays["y"].astype("float32")
    np.savez_compressed(tmp_path / "toy.npz", **arrays)
    data = load_planetoid(tmp_path / "toy.npz")
    assert data.graph.edge_index().tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert data.validation.tolist() == [1]
    assert repr(data) == (
        "NodeDataset('toy', Graph(num_nodes=4, num_edges=2, "
        "features=float32[4, 3], node_targets=int64[4]), num_classes=2, "
        "train=1, validation=1, test=1)"
    )


PLANETOID_ERRORS = {
    "id": ({"edge_index": np.array([[0], [4]])}, "edge_index"),
    "split-id": ({"val_idx": np.array([7])}, "val_idx"),
    "split-class": ({"test_idx": np.array([3])}, "test_idx"),
    "features": ({"x_indices": np.array([0, 2, 9])}, "npz"),
    "overlap": ({"val_idx": np.array([0])}, "overlap"),
    "classes": ({"y": np.zeros(3, "int32")}, "`y`"),
    "class-fraction": ({"y": np.array([0.2, 0.9, 1.5, -1])}, "`y`.*0.2"),
    "class-bool": ({"y": np.array([True] * 4)}, "`y`.*bool"),
    "class-below": ({"y": np.array([0, 1, 1, -2])}, "`y`.*-2"),
    "classes-axes": ({"y": np.zeros((4, 2), "int32")}, "`y`"),
    "id-fraction": ({"test_idx": np.array([1.5])}, "test_idx.*1.5"),
    "mask": ({"train_idx": np.array([True, False])}, "train_idx.*mask"),
    "edge-shape": ({"edge_index": np.zeros((3, 2), "int32")}, "edge_index"),
    "edge-bool": ({"edge_index": np.zeros((2, 2), bool)}, "edge_index.*bool"),
    "indices": ({"x_indices": np.array([0, 0.5, 1])}, "x_indices.*0.5"),
    "shape": ({"x_shape": np.array([4])}, "`x_shape`"),
    "rows": ({"x_shape": np.array([5, 3])}, "x_shape"),
    "nan": ({"x_data": np.array([1, np.nan, 1])}, "finite"),
    "text": ({"x_data": np.array(["a", "b", "c"])}, "x_data"),
    "dense": ({"x_shape": np.array([4, 10**9])}, "max_bytes"),
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


def test_npz_whose_array_says_it_is_large(tmp_path):
    """The size in an array header is checked against the number of bytes."""
    np.savez(tmp_path / "toy.npz", **planetoid_arrays())
    with zipfile.ZipFile(tmp_path / "toy.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["y.npy"] = members["y.npy"].replace(b"(4,)", b"(9999999999999,)")
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="`y`"):
        load_planetoid(tmp_path / "big.npz")


def public_parts(missing=0):
    """A graph in the public layout: 12 nodes and some between the last."""
    random = np.random.default_rng(0)
    known, tested, classes, features = 12, 5, 3, 6
    # Not the last one: it says how many nodes there are.
    test = known + random.permutation(tested + missing)
    test = test[test != known + 1] if missing else test
    dense = (random.random((known + tested, features)) < 0.4) * 1.0
    labels = np.eye(classes, dtype="int32")[
        random.integers(0, classes, known + tested)
    ]
    matrix = scipy.sparse.csr_matrix(dense.astype("float32"))
    graph = collections.defaultdict(list)
    for node in range(known + tested + missing):
        graph[node] = [(node + 1) % known, (node + 3) % known]
    return {
        "x": matrix[:4],
        "y": labels[:4],
        "allx": matrix[:known],
        "ally": labels[:known],
        "tx": matrix[known:],
        "ty": labels[known:],
        "graph": graph,
        "test.index": "".join(f"{node}\n" for node in test),
    }


# What Python 2, and the NumPy and SciPy of its time, call the same.
OLD_NAMES = {
    b"numpy._core.multiarray": b"numpy.core.multiarray",
    b"scipy.sparse._csr": b"scipy.sparse.csr",
}


def write_public(folder, parts, name="toy", protocol=2):
    for part, value in parts.items():
        if isinstance(value, str):
            content = value.encode()
        elif isinstance(value, bytes):
            content = value
        else:
            content = pickle.dumps(value, protocol)
            if protocol <= 2:
                for new, old in OLD_NAMES.items():
                    content = content.replace(new, old)
        (folder / f"ind.{name}.{part}").write_bytes(content)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("missing", [0, 1])
def test_public_files(tmp_path, protocol, missing):
    parts = public_parts(missing)
    write_public(tmp_path, parts, protocol=protocol)
    test = np.array(parts["test.index"].split(), int)
    for arguments in [(tmp_path,), (tmp_path, "Toy")]:
        data = load_planetoid(*arguments)
        assert data.graph.num_nodes == 17 + missing and data.num_classes == 3
        assert data.train.tolist() == [0, 1, 2, 3]
        assert data.validation.tolist() == list(range(4, 12))
        assert data.test.tolist() == sorted(test)
        features, targets = data.graph.features, data.graph.node_targets
        np.testing.assert_array_equal(features[:12], parts["allx"].toarray())
        # Row k of the test features is that of node test[k].
        np.testing.assert_array_equal(features[test], parts["tx"].toarray())
        np.testing.assert_array_equal(targets[:12], parts["ally"].argmax(1))
        np.testing.assert_array_equal(targets[test], parts["ty"].argmax(1))
        alone = np.setdiff1d(np.arange(12, 17 + missing), test)
        assert len(alone) == missing
        assert not features[alone].any() and (targets[alone] == -1).all()
        expected = np.zeros((17 + missing,) * 2)
        for node, neighbors in parts["graph"].items():
            expected[node, neighbors] = expected[neighbors, node] = 1
        np.testing.assert_array_equal(data.graph.adjacency.toarray(), expected)


def test_arrays_of_python_2():
    """Its strings are bytes: latin-1 in all encodings."""
    values = np.array([[1, -2], [300, 2**31 - 1]], "<i4")
    head = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        b"(I0\ntS'b'\ntR(I1\n(I2\nI2\ntcnumpy\ndtype\n(S'i4'\nI0\nI1\ntR"
        b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    )
    content = values.tobytes()
    short = b"U" + struct.pack("<B", len(content)) + content
    escaped = b"S'" + b"".join(b"\\x%02x" % byte for byte in content) + b"'\n"
    for text in (short, escaped):
        found = read_pickle(head + text + b"tb.", "ind.toy.y")
        np.testing.assert_array_equal(found, values)


class Hostile:
    """It runs a program when it is read as a pickle."""

    def __init__(self, folder):
        self.command = f"touch {folder}/done"

    def __reduce__(self):
        return os.system, (self.command,)


def hostile_pickles(folder):
    command = f"touch {folder}/done"
    run = b"cposix\nsystem\n(S'" + command.encode() + b"'\ntR."
    array = pickle.dumps(np.zeros(3, "int32"), 2)
    matrix = scipy.sparse.csr_matrix(np.eye(3, dtype="float32"))
    wrong = matrix.copy()
    wrong.indices = np.array([0, 1, 7], "int32")
    return {
        "system": run,
        "reduce": pickle.dumps(Hostile(folder)),
        "inside": pickle.dumps([Hostile(folder)], 2),
        "in-dict": pickle.dumps({0: [Hostile(folder)]}),
        "eval": b"c__builtin__\neval\n(S'1'\ntR.",
        "dotted": pickle.dumps(os.path.join),
        "builtin": b"cbuiltins\nlist\n(I1\ntR.",
        "instance": b"(S'1'\niposix\nsystem\n.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pname\n.",
        "state-of-a-class": b"cnumpy\ndtype\n}S'value'\nI1\nsb.",
        "attributes": b"ccollections\ndefaultdict\n)R(N}S'x'\nI1\nstb.",
        "objects": pickle.dumps(np.array([{}, []], object), 2),
        "records": pickle.dumps(np.zeros(2, "i4,f4"), 2),
        "dates": pickle.dumps(np.zeros(2, "M8[s]"), 2),
        "size": array.replace(b"K\x03\x85", b"K\x09\x85"),
        "huge": array.replace(b"K\x03\x85", b"\x8a\x06\0\0\0\0\0\x01\x85"),
        "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "length": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0fN.",
        "column": pickle.dumps(wrong, 2),
        "truncated": array[:-20],
        "empty": b"",
        "text": b"no pickle",
        "names": pickle.dumps({"a": [1]}),
        "bools": pickle.dumps({0: [True]}),
        "tuples": pickle.dumps({0: (1,)}),
    }


@pytest.mark.parametrize("name", hostile_pickles("."))
def test_hostile_pickles(tmp_path, name):
    write_public(tmp_path, public_parts())
    for part in ("graph", "x"):
        content = hostile_pickles(tmp_path)[name]
        (tmp_path / f"ind.toy.{part}").write_bytes(content)
        with pytest.raises(ValueError, match=r"ind\.toy\.graph|ind\.toy\.x"):
            load_planetoid(tmp_path, "toy")
        assert not (tmp_path / "done").exists()


def test_bytes_that_are_encoded_often(tmp_path):
    """Each would be a copy of the text if it were decoded before use."""
    text = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6
    encode = (
        b"c_codecs\nencode\nq\x01" + text + b"q\x02X\x06\0\0\0latin1\x86q\x03"
    )
    content = b"\x80\x02]" + encode + b"0" + b"h\x01h\x03R" * 10**5 + b"0."
    with pytest.raises(ValueError, match="ind.toy.x"):
        read_pickle(content, "ind.toy.x")


PUBLIC_ERRORS = {
    "rows": ({"y": np.eye(3, dtype="int32")[:2]}, "ind.toy.y.*4"),
    "other-rows": ({"x": public_parts()["allx"][4:8]}, "ind.toy.x.*first"),
    "one-hot": ({"ty": np.full((5, 3), 2)}, "ind.toy.ty.*one-hot"),
    "two-classes": ({"ty": np.ones((5, 3))}, "ind.toy.ty.*one-hot"),
    "columns": ({"tx": public_parts()["tx"][:, :3]}, "ind.toy.tx.*columns"),
    "kind": ({"tx": np.ones((5, 6))}, "ind.toy.tx.*CSR"),
    "axes": ({"ally": np.ones(12)}, "ind.toy.ally.*two axes"),
    "neighbor": ({"graph": {0: [17]}}, "ind.toy.graph.*17"),
    "node": ({"graph": {2**70: [1]}}, "ind.toy.graph"),
    "few-tests": ({"test.index": "12\n13\n"}, "test.index.*2 lines"),
    "repeated": ({"test.index": "12\n" * 5}, "test.index.*repeated"),
    "known": ({"test.index": "3\n13\n14\n15\n16\n"}, "test.index.*3"),
    "far": ({"test.index": f"{10**12}\n13\n14\n15\n12\n"}, "max_bytes"),
    "no-number": ({"test.index": "12\nx\n"}, "test.index.*line 2"),
    "classes-apart": ({"ally": np.zeros((12, 3))}, "ind.toy.y.*first rows"),
    "unknown-class": (
        {
            "ally": np.where(
                np.arange(12)[:, None] == 6, 0, public_parts()["ally"]
            )
        },
        "known class.*node 6",
    ),
    "mark": ({"test.index": b"\xff\xfe1\0"}, "test.index.*UTF-16"),
}


@pytest.mark.parametrize("name", PUBLIC_ERRORS)
def test_broken_public_files(tmp_path, name):
    parts, message = PUBLIC_ERRORS[name]
    write_public(tmp_path, {**public_parts(), **parts})
    with pytest.raises(ValueError, match=message):
        load_planetoid(tmp_path, "toy")


def test_public_files_that_are_missing(tmp_path):
    parts = public_parts()
    del parts["graph"]
    write_public(tmp_path, parts)
    with pytest.raises(ValueError, match="ind.toy.graph"):
        load_planetoid(tmp_path)
    write_public(tmp_path, public_parts(), "other")
    with pytest.raises(ValueError, match="`name`.*'other', 'toy'"):
        load_planetoid(tmp_path)
    with pytest.raises(ValueError, match="max_bytes=100"):
        load_planetoid(tmp_path, "other", max_bytes=100)


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
