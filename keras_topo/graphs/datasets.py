"""Data sets of graphs as the public sites serve them.

TUDataset archives (Morris et al., 2020) for graph classification and the
Planetoid splits (Yang et al., 2016) as npz files for node classification.
"""

import dataclasses
import io
import warnings
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.sparse

from keras_topo.graphs.graph import Graph
from keras_topo.host.adjacency import check_node_ids


@dataclasses.dataclass(frozen=True, eq=False)
class GraphDataset:
    """Graphs with a class each.

    Attributes:
        name: str.
        graphs: list of `Graph`, whose `label` is a class from 0.
        classes: list of the values that the classes have in the files.
        num_node_labels: int, categories of nodes; 0 without node labels.
    """

    name: str
    graphs: list
    classes: list
    num_node_labels: int = 0

    def __len__(self):
        return len(self.graphs)

    @property
    def num_classes(self):
        return len(self.classes)

    @property
    def labels(self):
        """`(graphs,)`, int."""
        return np.array([graph.label for graph in self.graphs])

    def map(self, function):
        """The data set with `function(graph)` in place of each graph."""
        graphs = [function(graph) for graph in self.graphs]
        return dataclasses.replace(self, graphs=graphs)


@dataclasses.dataclass(frozen=True, eq=False)
class NodeDataset:
    """One graph whose nodes have classes, and a split of them.

    Attributes:
        name: str.
        graph: `Graph`, whose `node_targets` are `(nodes,)`, -1 where unknown.
        num_classes: int.
        train, validation, test: node ids, int arrays.
    """

    name: str
    graph: Graph
    num_classes: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load_tu_dataset(path, name=None):
    """Reads a TUDataset archive.

    Edges are undirected, and lines of the edge list that repeat one another
    count once; self-loops and nodes without edges are kept. Node labels of any
    values become 0 to `num_node_labels - 1` in order, and so do classes. Node
    attributes, where there are any, are the features.

    Args:
        path: a zip file, or the folder with the `NAME_*.txt` files, or a
            folder that holds one of these under `name`.
        name: str, name of the data set; defaults to that of the file or
            folder.

    Returns:
        A `GraphDataset`.

    Raises:
        ValueError: if the archive cannot be read, has members outside its own
            folder, lacks a file, or its files do not fit together; the message
            names the file and, where there is one, the line.

    Example:

    >>> dataset = load_tu_dataset("MUTAG.zip")
    >>> len(dataset), dataset.num_classes, dataset.num_node_labels
    (188, 2, 7)
    """
    path = Path(path).expanduser()
    if name and not path.name.startswith(name):
        inside = [path / f"{name}.zip", path / name]
        path = next((p for p in inside if p.exists()), path)
    name = name or path.name.removesuffix(".zip")
    if path.is_dir():
        read = _folder_reader(path, name)
    elif path.is_file():
        read = _zip_reader(path, name)
    else:
        raise ValueError(
            "`path` expects a TUDataset zip file or folder. Received: "
            f"{path}, which does not exist"
        )

    indicator = read("graph_indicator", "int64")
    if len(indicator) == 0 or indicator.min() < 1:
        raise ValueError(
            f"{name}_graph_indicator.txt expects a graph id from 1 for each "
            f"node. Received: {len(indicator)} lines"
        )
    # Ids need neither be sorted nor without gaps.
    graph_ids = read("graph_labels", "int64")
    num_nodes, num_graphs = len(indicator), len(graph_ids)
    if indicator.max() > num_graphs:
        raise ValueError(
            f"{name}_graph_labels.txt expects a line for each graph, "
            f"{indicator.max()}. Received: {num_graphs} lines"
        )
    counts = np.bincount(indicator - 1, minlength=num_graphs)
    if counts.min() == 0:
        raise ValueError(
            "a graph needs at least one node. Received: none for graph "
            f"{int(np.argmin(counts)) + 1} in {name}_graph_indicator.txt"
        )
    classes, labels = np.unique(graph_ids, return_inverse=True)

    edges = read("A", "int64").reshape(-1, 2) - 1
    check_node_ids(edges, num_nodes, f"{name}_A.txt (ids from 1, less one)")
    between = indicator[edges[:, 0]] != indicator[edges[:, 1]]
    if between.any():
        line = int(np.argmax(between)) + 1
        raise ValueError(
            f"{name}_A.txt expects edges within a graph. Received: line "
            f"{line}, from graph {indicator[edges[line - 1, 0]]} to graph "
            f"{indicator[edges[line - 1, 1]]}"
        )
    node_labels = read("node_labels", "int64", required=False)
    num_node_labels = 0
    if node_labels is not None:
        # Some archives have several labels a node: the first is meant.
        node_labels = node_labels.reshape(len(node_labels), -1)[:, 0]
        values, node_labels = np.unique(node_labels, return_inverse=True)
        num_node_labels = len(values)
    attributes = read("node_attributes", "float32", required=False)
    if attributes is not None:
        attributes = attributes.reshape(len(attributes), -1)
    for file, rows in (
        ("node_labels", node_labels),
        ("node_attributes", attributes),
    ):
        if rows is not None and len(rows) != num_nodes:
            raise ValueError(
                f"{name}_{file}.txt expects a line for each of the {num_nodes} "
                f"nodes. Received: {len(rows)} lines"
            )

    # Nodes by graph, in their order; one adjacency matrix, cut into blocks.
    order = np.argsort(indicator, kind="stable")
    place = np.empty(num_nodes, "int64")
    place[order] = np.arange(num_nodes)
    whole = scipy.sparse.csr_array(
        (
            np.ones(len(edges), "float32"),
            (place[edges[:, 0]], place[edges[:, 1]]),
        ),
        shape=(num_nodes, num_nodes),
    )
    # Undirected, also where an edge is listed in one direction only: a graph
    # is served as it was trained.
    whole = scipy.sparse.csr_array(whole + whole.T)
    whole.sum_duplicates()
    whole.data[:] = 1.0
    ends = np.cumsum(counts)
    graphs = []
    for k, (start, end) in enumerate(zip(ends - counts, ends, strict=True)):
        nodes = order[start:end]
        first, last = whole.indptr[start], whole.indptr[end]
        adjacency = scipy.sparse.csr_array(
            (
                whole.data[first:last],
                whole.indices[first:last] - start,
                whole.indptr[start : end + 1] - first,
            ),
            shape=(end - start, end - start),
        )
        graphs.append(
            Graph(
                adjacency,
                None if attributes is None else attributes[nodes],
                None if node_labels is None else node_labels[nodes],
                int(labels[k]),
            )
        )
    return GraphDataset(name, graphs, classes.tolist(), num_node_labels)


def load_planetoid(path, name=None):
    """Reads a graph with the public split of its nodes from an npz file.

    Args:
        path: npz file with the arrays `x_data`, `x_indices`, `x_indptr`,
            `x_shape` (CSR features), `edge_index` `(2, edges)`, both
            directions, `y` `(nodes,)`, -1 where unknown, and `train_idx`,
            `val_idx`, `test_idx`. Or the folder of `name`.npz.
        name: str; defaults to that of the file.

    Returns:
        A `NodeDataset`.

    Raises:
        ValueError: if an array is missing, an id is out of range, or a node of
            the split has no class.
    """
    path = Path(path).expanduser()
    if name and path.is_dir():
        path = path / f"{name.lower()}.npz"
    if not path.is_file():
        raise ValueError(
            f"`path` expects an npz file. Received: {path}, which does not "
            "exist"
        )
    expected = ("x_data", "x_indices", "x_indptr", "x_shape", "edge_index")
    expected += ("y", "train_idx", "val_idx", "test_idx")
    try:
        # Opened here: NumPy leaves a file that is no archive open.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            missing = [key for key in expected if key not in file.files]
            if missing:
                raise ValueError(f"arrays {missing} are missing")
            arrays = {key: file[key] for key in expected}
        shape = tuple(int(n) for n in arrays["x_shape"])
        features = scipy.sparse.csr_array(
            (arrays["x_data"], arrays["x_indices"], arrays["x_indptr"]),
            shape=shape,
        )
        features.check_format(full_check=True)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            "`path` expects an npz file with the arrays "
            f"{', '.join(expected)}. Received: {path} ({error})"
        ) from error
    labels = arrays["y"].astype("int64")
    if len(labels) != shape[0]:
        raise ValueError(
            f"`y` expects a class for each of the {shape[0]} nodes. Received: "
            f"{len(labels)} in {path}"
        )
    graph = Graph.from_edges(
        arrays["edge_index"].T,
        shape[0],
        directed=True,
        features=features.toarray(),
        node_targets=labels,
    )
    splits = {}
    for key in ("train_idx", "val_idx", "test_idx"):
        ids = arrays[key].astype("int64")
        check_node_ids(ids, shape[0], key)
        if (labels[ids] < 0).any():
            raise ValueError(
                f"`{key}` expects nodes of known class. Received: node "
                f"{int(ids[np.argmax(labels[ids] < 0)])} of {path}"
            )
        splits[key] = ids
    together = np.concatenate(list(splits.values()))
    if len(np.unique(together)) != len(together):
        raise ValueError(
            "train_idx, val_idx and test_idx expect different nodes. Received: "
            f"{path}, where they overlap"
        )
    return NodeDataset(
        name or path.stem, graph, int(labels.max()) + 1, *splits.values()
    )


def _folder_reader(folder, name):
    def read_bytes(file):
        path = folder / file
        return path.read_bytes() if path.is_file() else None

    return _table_reader(read_bytes, name, folder)


def _zip_reader(path, name):
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"`path` expects a zip file. Received: {path} ({error})"
        ) from error
    members = {}
    for member in archive.namelist():
        parts = PurePosixPath(member.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in member:
            # Nothing is unpacked, but such an archive is not what it seems.
            raise ValueError(
                "an archive expects members inside its own folder. Received: "
                f"{member!r} in {path}"
            )
        members[parts.name] = member

    def read_bytes(file):
        if file not in members:
            return None
        try:
            return archive.read(members[file])
        except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
            raise ValueError(
                f"{file} of the archive {path} cannot be read: it is "
                f"truncated or corrupt ({error})"
            ) from error

    return _table_reader(read_bytes, name, path)


def _table_reader(read_bytes, name, path):
    """`read(suffix, dtype, required)`: numbers of NAME_suffix.txt."""

    def read(suffix, dtype, required=True):
        file = f"{name}_{suffix}.txt"
        content = read_bytes(file)
        if content is None:
            if required:
                raise ValueError(
                    f"a TUDataset expects the file {file}. Received: {path}, "
                    "which does not hold it"
                )
            return None
        return parse_numbers(content, dtype, file)

    return read


def parse_numbers(content, dtype, file):
    """Lines of comma-separated numbers, `(lines,)` or `(lines, columns)`."""
    text = content.strip()
    if not text:
        return np.zeros(0, dtype)
    columns = text.split(b"\n", 1)[0].count(b",") + 1
    separated = text.replace(b",", b" ")
    values = np.zeros(0)
    # As integers first, which is quicker; reals, of which some are whole too.
    for kind in ("int64", "float64") if dtype == "int64" else ("float64",):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                values = np.fromstring(separated, dtype=kind, sep=" ")
            break
        except (ValueError, DeprecationWarning):
            continue
    lines = text.count(b"\n") + 1
    if columns > 1 and not _as_many_commas(text, lines, columns - 1):
        raise ValueError(_bad_line(text, columns, file))
    if len(values) != lines * columns or not np.isfinite(values).all():
        raise ValueError(_bad_line(text, columns, file))
    if dtype == "int64" and np.any(values != np.round(values)):
        raise ValueError(_bad_line(text, columns, file))
    values = values.astype(dtype)
    return values.reshape(lines, columns) if columns > 1 else values


def _as_many_commas(text, lines, count):
    """Whether each line has `count` commas; one archive has 24 million."""
    characters = np.frombuffer(text, "uint8")
    commas = np.flatnonzero(characters == ord(","))
    if len(commas) != lines * count:
        return False
    ends = np.flatnonzero(characters == ord("\n"))
    commas = commas.reshape(lines, count)
    return bool((commas[1:, 0] > ends).all() and (commas[:-1, -1] < ends).all())


def _bad_line(text, columns, file):
    """Which line of a table is not one of finite numbers."""
    for number, line in enumerate(io.BytesIO(text), start=1):
        fields = line.strip().split(b",")
        try:
            finite = all(np.isfinite(float(field)) for field in fields)
        except ValueError:
            finite = False
        if len(fields) != columns or not finite:
            shown = line.strip().decode(errors="replace")[:60]
            return (
                f"{file} expects {columns} finite numbers a line. Received: "
                f"line {number}, {shown!r}"
            )
    return f"{file} expects whole numbers"
