"""Readers of the Planetoid data sets (Yang et al., 2016)."""

import io
from pathlib import Path

import numpy as np
import scipy.sparse

from keras_topo.annotations import StrPath
from keras_topo.graphs.archives import MAX_BYTES, open_files
from keras_topo.graphs.datasets import NodeDataset
from keras_topo.graphs.graph import Graph
from keras_topo.graphs.pickles import read_pickle
from keras_topo.graphs.tables import collect_table
from keras_topo.host.adjacency import as_integers, as_numbers, check_node_ids

ARRAYS = ("x_data", "x_indices", "x_indptr", "x_shape", "edge_index", "y")
SPLITS = ("train_idx", "val_idx", "test_idx")
PICKLES = ("x", "y", "tx", "ty", "allx", "ally", "graph")
# Of the public split.
VALIDATION = 500


def load_planetoid(
    path: StrPath, name: str | None = None, max_bytes: int = MAX_BYTES
) -> NodeDataset:
    """Reads a graph with the public split of its nodes.

    The graph is undirected, however its edges are listed, and edges that are
    listed twice count once. Self-loops are kept: the public files of Citeseer
    have 124, which other readers may drop.

    Two layouts are read.

    - An npz file with the arrays `x_data`, `x_indices`, `x_indptr`, `x_shape`
      (CSR features), `edge_index` `(2, edges)`, `y` `(nodes,)`, whole numbers,
      -1 where unknown, and `train_idx`, `val_idx`, `test_idx`, which are node
      ids, or masks, bools `(nodes,)`.
    - The public files `ind.NAME.x`, `.y`, `.tx`, `.ty`, `.allx`, `.ally`,
      `.graph` and `.test.index` in a folder. They are pickles, which can run
      any program: here, nothing that they name is called, and those that name
      anything but arrays, CSR matrices, dicts and lists are refused. The split
      is the public one: the nodes of `y` for training, the next 500 (or as
      many as there are before the test nodes) for validation, and those of
      `test.index`, in ascending order, for the test. Nodes between the test
      nodes that are not in `test.index` (Citeseer has 15) have features of
      zero and no class.

    Args:
        path: an npz file; or the folder of `name`.npz or `ind.name.x`.
        name: str; defaults to that of the file, or of the only data set in the
            folder. Its files are in lower case.
        max_bytes: int; larger files are refused, and so are features that
            would be larger as a dense array.

    Returns:
        A `NodeDataset`.

    Raises:
        ValueError: if a file or array is missing, damaged or of another type,
            an id is out of range, or a node of the split has no class; the
            message names the file or array.

    Example (needs the file):

    >>> dataset = load_planetoid("cora.npz")  # doctest: +SKIP
    >>> dataset.num_classes, len(dataset.train)  # doctest: +SKIP
    (7, 140)
    """
    path = Path(path).expanduser()
    if path.is_dir():
        name = name or _only_name(path)
        in_folder = path / f"{name.lower()}.npz"
        raw = path / f"ind.{name.lower()}.x"
        if raw.is_file() and not in_folder.is_file():
            return _read_public(path, name, max_bytes)
        path = in_folder
    if not path.is_file():
        raise ValueError(
            "`path` expects an npz file, or the folder of one or of ind.NAME.x."
            f" Received: {path}, which does not exist"
        )
    return _read_npz(path, name or path.stem, max_bytes)


def _only_name(folder):
    names = {file.stem for file in folder.glob("*.npz")}
    names |= {file.name[4:-2] for file in folder.glob("ind.*.x")}
    if len(names) != 1:
        raise ValueError(
            "`name` expects the name of a data set unless the folder has just "
            f"one. Received: name=None and {folder}, with {sorted(names)}"
        )
    return names.pop()


def _read_npz(path, name, max_bytes):
    with open_files(path, max_bytes) as files:
        missing = [k for k in ARRAYS + SPLITS if f"{k}.npy" not in files]
        if missing:
            raise ValueError(
                "`path` expects an npz file with the arrays "
                f"{', '.join(ARRAYS + SPLITS)}. Received: {path} without "
                f"{', '.join(missing)}"
            )
        arrays = {
            key: _parse_npy(b"".join(files.pieces(f"{key}.npy")), key, path)
            for key in ARRAYS + SPLITS
        }
    for key in ("x_indices", "x_indptr", "x_shape", "edge_index", "y"):
        arrays[key] = _as_ids(arrays[key], key, path)
    if arrays["edge_index"].ndim != 2 or len(arrays["edge_index"]) != 2:
        raise ValueError(
            "`edge_index` expects the shape (2, edges). Received: edge_index "
            f"of shape {arrays['edge_index'].shape} in {path}"
        )
    if arrays["x_shape"].shape != (2,):
        raise ValueError(
            "`x_shape` expects two integers. Received: x_shape of shape "
            f"{arrays['x_shape'].shape} in {path}"
        )
    try:
        features = scipy.sparse.csr_array(
            (
                as_numbers(arrays["x_data"], "x_data"),
                arrays["x_indices"],
                arrays["x_indptr"],
            ),
            shape=tuple(arrays["x_shape"].tolist()),
        )
        features.check_format(full_check=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(
            "`x_data`, `x_indices`, `x_indptr` and `x_shape` expect a CSR "
            f"matrix. Received: those of {path} ({error})"
        ) from error
    _check_size(features.shape, max_bytes, path)
    splits = {}
    for key in SPLITS:
        ids = arrays[key]
        if ids.dtype == bool:
            if ids.shape != (features.shape[0],):
                raise ValueError(
                    f"`{key}` expects node ids, or a mask with a bool for each "
                    f"of the {features.shape[0]} nodes. Received: {key} of "
                    f"shape {ids.shape} and dtype bool in {path}"
                )
            ids = np.flatnonzero(ids)
        splits[key] = _as_ids(ids, key, path)
    edges, labels = arrays["edge_index"].T, arrays["y"]
    names = {"edges": "edge_index", "labels": "y"}
    return _dataset(name, path, features, edges, labels, splits, names)


def _parse_npy(content, key, path):
    """An array of numbers from an npy file."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read_header(stream)
        if dtype.kind not in "biuf":
            raise ValueError(f"its dtype is {dtype}")
        # Too few bytes, or too many, for the shape are an error here.
        array = np.frombuffer(content, dtype, offset=stream.tell())
        array = array.reshape(shape, order="F" if is_fortran else "C")
    except Exception as error:
        # Of which kind depends on where the header is damaged.
        raise ValueError(
            f"`{key}` expects an array of numbers. Received: {key} in the npz "
            f"file {path}, which cannot be read ({error})"
        ) from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _as_ids(values, key, path):
    """Whole numbers, int64, but no bools."""
    if values.dtype == bool:
        raise ValueError(
            f"`{key}` expects integers. Received: {key} of dtype bool in {path}"
        )
    try:
        return as_integers(values, key)
    except ValueError as error:
        raise ValueError(f"{error}, in {path}") from error


def _read_public(folder, name, max_bytes):
    """The files `ind.NAME.*`."""
    files_of = {
        part: f"ind.{name.lower()}.{part}" for part in (*PICKLES, "test.index")
    }
    with open_files(folder, max_bytes) as files:
        missing = [file for file in files_of.values() if file not in files]
        if missing:
            raise ValueError(
                f"the folder {folder} expects {', '.join(files_of.values())}. "
                f"Received: no {', '.join(missing)}"
            )
        parts = {
            part: read_pickle(
                b"".join(files.pieces(files_of[part])), files_of[part]
            )
            for part in PICKLES
        }
        file = files_of["test.index"]
        test = collect_table(files.pieces(file), file, "int64", 1)[:, 0]
    known, ids = _check_parts(parts, test, files_of)
    num_nodes = max(known + len(ids), int(test.max(initial=-1)) + 1)
    rows = np.concatenate([np.arange(known), ids])
    stacked = scipy.sparse.vstack([parts["allx"], parts["tx"]]).tocoo()
    _check_size((num_nodes, stacked.shape[1]), max_bytes, folder)
    features = scipy.sparse.csr_array(
        (stacked.data, (rows[stacked.row], stacked.col)),
        shape=(num_nodes, stacked.shape[1]),
    )
    labels = np.full(num_nodes, -1)
    labels[rows] = np.concatenate(
        [_classes(parts[key], files_of[key]) for key in ("ally", "ty")]
    )
    edges = np.array(
        [
            (node, neighbor)
            for node, neighbors in parts["graph"].items()
            for neighbor in neighbors
        ],
        # Those that int64 does not hold are out of range as well.
        dtype=object,
    ).reshape(-1, 2)
    if len(edges) and not (edges.min() >= 0 and edges.max() < num_nodes):
        raise ValueError(
            f"{files_of['graph']} expects node ids from 0 to {num_nodes - 1}. "
            f"Received: {edges.min()} to {edges.max()}"
        )
    train = len(parts["y"])
    validation = np.arange(train, min(train + VALIDATION, known))
    splits = {
        files_of["y"]: np.arange(train),
        f"the {VALIDATION} nodes after {files_of['y']}": validation,
        files_of["test.index"]: np.sort(test),
    }
    names = {"edges": files_of["graph"], "labels": files_of["ally"]}
    edges = edges.astype("int64")
    return _dataset(name, folder, features, edges, labels, splits, names)


def _check_parts(parts, test, files_of):
    """Raises a ValueError unless the parts fit together.

    Returns:
        The number of nodes that are no test nodes, and the ids of these.
    """
    for keys, kind, shown in (
        (("x", "tx", "allx"), scipy.sparse.csr_array, "a CSR matrix"),
        (("y", "ty", "ally"), np.ndarray, "an array"),
        (("graph",), dict, "a dict"),
    ):
        for key in keys:
            found = parts[key]
            if not isinstance(found, kind) or getattr(found, "ndim", 2) != 2:
                raise ValueError(
                    f"{files_of[key]} expects {shown}"
                    f"{' with two axes' * (kind is not dict)}. Received: "
                    f"{type(found).__name__} of shape "
                    f"{getattr(found, 'shape', (len(found),))}"
                )
    for features, classes in (("x", "y"), ("tx", "ty"), ("allx", "ally")):
        rows = parts[features].shape[0], len(parts[classes])
        if rows[0] != rows[1]:
            raise ValueError(
                f"{files_of[classes]} expects a row for each of the {rows[0]} "
                f"nodes of {files_of[features]}. Received: {rows[1]} rows"
            )
    for part, whole in (("tx", "allx"), ("ty", "ally")):
        if parts[part].shape[1] != parts[whole].shape[1]:
            raise ValueError(
                f"{files_of[part]} expects {parts[whole].shape[1]} columns, as "
                f"{files_of[whole]} has. Received: {parts[part].shape[1]}"
            )
    for part, whole in (("x", "allx"), ("y", "ally")):
        first = parts[whole][: parts[part].shape[0]]
        same = first.shape == parts[part].shape
        if same:
            differ = first != parts[part]
            same = not (differ.nnz if part == "x" else differ.any())
        if not same:
            raise ValueError(
                f"{files_of[part]} expects the first rows of "
                f"{files_of[whole]}. Received: other ones"
            )
    known, file = parts["allx"].shape[0], files_of["test.index"]
    if len(test) != parts["tx"].shape[0]:
        raise ValueError(
            f"{file} expects a line for each of the {parts['tx'].shape[0]} "
            f"nodes of {files_of['tx']}. Received: {len(test)} lines"
        )
    if len(test) and test.min() < known:
        raise ValueError(
            f"{file} expects ids from {known}, the nodes of "
            f"{files_of['allx']}. Received: {test.min()}"
        )
    if len(np.unique(test)) != len(test):
        raise ValueError(f"{file} expects different ids. Received: repeated")
    return known, test


def _classes(one_hot, file):
    """The class of each row, -1 where all are zero."""
    if not np.isin(one_hot, (0, 1)).all() or (one_hot.sum(axis=1) > 1).any():
        raise ValueError(
            f"{file} expects one-hot rows: one 1 or none, and zeros. Received: "
            "other ones"
        )
    found = one_hot.sum(axis=1) > 0
    return np.where(found, one_hot.argmax(axis=1), -1)


def _check_size(shape, max_bytes, path):
    """Raises a ValueError for more features than `max_bytes` hold."""
    size = 4 * shape[0] * max(shape[1], 1)
    if size > max_bytes:
        raise ValueError(
            f"{path} expects features of at most max_bytes={max_bytes} bytes "
            f"as a dense array. Received: the shape {shape}, {size} bytes"
        )


def _dataset(name, path, features, edges, labels, splits, names):
    """The `NodeDataset`, after what both layouts have in common is checked.

    Args:
        splits: dict of three arrays of ids, by what they are called.
        names: dict, what `edges` and `labels` are called.
    """
    num_nodes = features.shape[0]
    if labels.shape != (num_nodes,) or labels.min(initial=0) < -1:
        raise ValueError(
            f"`{names['labels']}` expects a class for each of the {num_nodes} "
            f"nodes, or -1. Received: the shape {labels.shape} and the "
            f"lowest {labels.min(initial=0)} in {path}"
        )
    check_node_ids(edges, num_nodes, names["edges"])
    graph = Graph.from_edges(
        edges,
        num_nodes,
        features=features.astype("float32"),
        node_targets=labels,
    )
    for key, ids in splits.items():
        check_node_ids(ids, num_nodes, key)
        if (labels[ids] < 0).any():
            raise ValueError(
                f"`{key}` expects nodes of known class. Received: node "
                f"{int(ids[np.argmax(labels[ids] < 0)])} of {path}"
            )
    together = np.concatenate(list(splits.values()))
    if len(np.unique(together)) != len(together):
        raise ValueError(
            f"{', '.join(splits)} expect different nodes. Received: {path}, "
            "where they overlap"
        )
    return NodeDataset(
        name, graph, int(labels.max(initial=-1)) + 1, *splits.values()
    )
