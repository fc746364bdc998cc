"""Reader of TUDataset archives (Morris et al., 2020)."""

import collections
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse

from keras_topo.annotations import StrPath
from keras_topo.graphs.archives import MAX_BYTES, open_files
from keras_topo.graphs.datasets import GraphDataset
from keras_topo.graphs.graph import Graph
from keras_topo.graphs.tables import collect_table, read_table

# Lines of the edge list that are made graphs of at once.
LINES = 2**19


def load_tu_dataset(
    path: StrPath,
    name: str | None = None,
    target: Literal["labels", "attributes"] | None = None,
    node_label_column: int | None = None,
    edge_label_column: int | None = None,
    directed: bool = False,
    max_bytes: int = MAX_BYTES,
) -> GraphDataset:
    """Reads a TUDataset archive.

    It reads the files `NAME_A.txt`, `_graph_indicator`, `_graph_labels`,
    `_graph_attributes`, `_node_labels`, `_node_attributes`, `_edge_labels` and
    `_edge_attributes`, and no others.

    Lines of the edge list that repeat one another count once; self-loops and
    nodes without edges are kept. Attributes of nodes and edges are `features`
    and `edge_features` of the graphs. Labels of nodes and edges keep the
    values that they have in the files. The target of a graph, its `label`, is

    - its class, an int, one of `classes`, where `graph_labels` is a column of
      whole numbers;
    - a float where it is a column of reals, or a vector where it has several
      columns: several values, or several labels;
    - a float or a vector from `graph_attributes`.

    Args:
        path: a zip file, or the folder with the `NAME_*.txt` files, or a
            folder that holds one of these under `name`.
        name: str, name of the data set; defaults to that of the file or
            folder.
        target: "labels" or "attributes", the file with the targets of the
            graphs; needed where there are both.
        node_label_column: int, from 0, the column that holds `node_labels`;
            needed where their file has several.
        edge_label_column: int, the same for `edge_labels`.
        directed: bool; `False` makes each edge one in both directions, however
            it is listed. Its labels and attributes have to be the same in
            both, then.
        max_bytes: int; archives whose files have more bytes than this,
            unpacked, are refused. Reading takes up to 16 times as much memory
            (an archive of nodes without edges), and 1 kB per graph; COLLAB
            takes as much as its text has.

    Returns:
        A `GraphDataset`.

    Raises:
        ValueError: if the archive cannot be read, is larger than `max_bytes`,
            has members outside its own folder or two of one name, lacks a
            file, or its files do not fit together; the message names the file
            and, where there is one, the line.

    Example (needs the archive):

    >>> dataset = load_tu_dataset("MUTAG.zip")  # doctest: +SKIP
    >>> len(dataset), dataset.num_classes  # doctest: +SKIP
    (188, 2)
    >>> dataset.graphs[0]  # doctest: +SKIP
    Graph(num_nodes=17, num_edges=19, node_labels=int64[17], label=1,
    edge_labels=int64[38])
    """
    path, name = _find(Path(path).expanduser(), name)
    with open_files(path, max_bytes) as files:
        tables = _Tables(files, name)
        graph_of = np.concatenate(
            [np.zeros(0, "int32")]
            + [ids[:, 0] - 1 for _, ids in tables.ids("graph_indicator", 1)]
        )
        num_nodes = len(graph_of)
        if not num_nodes:
            raise ValueError(
                f"{tables.file('graph_indicator')} expects a graph id from 1 "
                "for each node. Received: no lines"
            )
        labels, classes = _read_targets(tables, target, most=num_nodes)
        counts = _count_nodes(graph_of, len(labels), tables)
        node_labels = tables.labels("node", num_nodes, node_label_column)
        features = tables.attributes("node", num_nodes)
        # Nodes by graph, in their order.
        order = np.argsort(graph_of, kind="stable")
        blocks, lines, stops = _read_edges(tables, graph_of, order, len(counts))
        num_lines = int(stops[-1])
        of_edges = {
            "edge_labels": tables.labels("edge", num_lines, edge_label_column),
            "edge_attributes": tables.attributes("edge", num_lines),
        }
        edge_labels = of_edges["edge_labels"]
        of_edges = {k: v for k, v in of_edges.items() if v is not None}
        edges = _edges_of_graphs(
            blocks, lines, stops, of_edges, counts, directed, tables
        )
    graphs, stop = [], 0
    for (adjacency, found), label in zip(edges, labels, strict=True):
        start, stop = stop, stop + adjacency.shape[0]
        nodes = order[start:stop]
        graphs.append(
            Graph(
                adjacency,
                features=None if features is None else features[nodes],
                node_labels=None if node_labels is None else node_labels[nodes],
                label=label,
                edge_features=found.get("edge_attributes"),
                edge_labels=found.get("edge_labels"),
            )
        )
    return GraphDataset(
        name, graphs, classes, _values(node_labels), _values(edge_labels)
    )


def _find(path, name):
    """The zip file or folder, and the name that its files begin with."""
    if name is None:
        return path, path.resolve().name.removesuffix(".zip")
    if path.is_dir() and not (path / f"{name}_A.txt").exists():
        for inside in (path / f"{name}.zip", path / name):
            if inside.exists():
                return inside, name
    return path, name


class _Tables:
    """The files of one data set, by what follows its name in theirs."""

    def __init__(self, files, name):
        self.files, self.name = files, name

    def __contains__(self, suffix):
        return self.file(suffix) in self.files

    def file(self, suffix):
        return f"{self.name}_{suffix}.txt"

    def pieces(self, suffix):
        if suffix not in self:
            raise ValueError(
                f"a TUDataset expects the file {self.file(suffix)}. Received: "
                f"{self.files.path}, which does not hold it (`name` is what "
                "its files begin with)"
            )
        return self.files.pieces(self.file(suffix))

    def read(self, suffix, dtype, most):
        """`(lines, columns)`, at most so many lines."""
        return collect_table(
            self.pieces(suffix), self.file(suffix), dtype, most=most
        )

    def ids(self, suffix, columns, most=2**31 - 1, hint=""):
        """Yields the first line and the ids of a block, int32, from 1."""
        file = self.file(suffix)
        blocks = read_table(self.pieces(suffix), file, "int64", columns, hint)
        for line, ids in blocks:
            wrong = ((ids < 1) | (ids > most)).any(axis=1)
            if wrong.any():
                place = int(np.argmax(wrong))
                raise ValueError(
                    f"{file} expects ids from 1 to {most}. Received: line "
                    f"{line + place}, {_shown(ids[place])}"
                )
            yield line, ids.astype("int32")

    def attributes(self, of, count):
        """`(count, columns)`, float32, or `None` without such a file."""
        suffix = f"{of}_attributes"
        if suffix not in self:
            return None
        values = self.read(suffix, "float32", count)
        self._check_length(suffix, values, of, count)
        return values

    def labels(self, of, count, column):
        """`(count,)`, ints, or `None` without such a file."""
        suffix, argument = f"{of}_labels", f"{of}_label_column"
        if suffix not in self:
            return None
        values = self.read(suffix, "int64", count)
        self._check_length(suffix, values, of, count)
        columns = values.shape[1]
        if column is None and columns > 1:
            raise ValueError(
                f"`{argument}` expects the column of {self.file(suffix)} that "
                f"holds the labels, from 0 to {columns - 1}. Received: "
                f"{argument}=None"
            )
        if column is not None and not 0 <= column < columns:
            raise ValueError(
                f"`{argument}` expects a column of {self.file(suffix)}, from 0 "
                f"to {columns - 1}. Received: {argument}={column}"
            )
        return values[:, column or 0]

    def _check_length(self, suffix, values, of, count):
        if len(values) != count:
            of = "nodes" if of == "node" else "lines of the edge list"
            raise ValueError(
                f"{self.file(suffix)} expects a line for each of the {count} "
                f"{of}. Received: {len(values)} lines"
            )


def _read_targets(tables, target, most):
    """The labels of the graphs, a list, and the values of classes if any."""
    there = [t for t in ("labels", "attributes") if f"graph_{t}" in tables]
    if target not in (None, "labels", "attributes"):
        raise ValueError(
            '`target` expects "labels", "attributes" or None. Received: '
            f"target={target!r}"
        )
    if target is None and len(there) == 2:
        raise ValueError(
            '`target` expects "labels" or "attributes" for an archive with '
            f"both {tables.file('graph_labels')} and "
            f"{tables.file('graph_attributes')}. Received: target=None"
        )
    suffix = f"graph_{target or (there or ['labels'])[0]}"
    # As each graph has a node.
    values = tables.read(suffix, "float64", most)
    if values.shape[1] == 1:
        values = values[:, 0]
        if suffix == "graph_labels" and values.dtype == "int64":
            return values.tolist(), np.unique(values).tolist()
        return values.astype("float64").tolist(), None
    with np.errstate(over="ignore"):
        values = values.astype("float32")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{tables.file(suffix)} expects numbers that float32 holds. "
            f"Received: larger ones, line {int(np.argmin(finite)) + 1}"
        )
    return list(values), None


def _count_nodes(graph_of, num_graphs, tables):
    """Nodes of each graph, from 1."""
    if graph_of.max() >= num_graphs:
        raise ValueError(
            f"{tables.file('graph_labels')}, or graph_attributes, expects a "
            f"line for each graph, {graph_of.max() + 1}. Received: "
            f"{num_graphs} lines"
        )
    counts = np.bincount(graph_of, minlength=num_graphs)
    if counts.min() == 0:
        raise ValueError(
            "a graph needs at least one node. Received: none for graph "
            f"{int(np.argmin(counts)) + 1} in "
            f"{tables.file('graph_indicator')}"
        )
    return counts


def _read_edges(tables, graph_of, order, num_graphs):
    """The edge list, sorted by graph.

    Returns:
        A deque of blocks `(lines, 2)`, int32, places of nodes in `order`; the
        number of each line in the file, from 0, or `None` where they are in
        order; and where the lines of each graph stop.
    """
    file = tables.file("A")
    hint = (
        ", which is not `row, col`. Weights and other values of edges go into "
        f"{tables.file('edge_attributes')}, with one line for each of {file}"
    )
    place = np.empty(len(order), "int32")
    place[order] = np.arange(len(order))
    counts = np.zeros(num_graphs, "int64")
    blocks, is_sorted, latest = collections.deque(), True, 0
    for line, ids in tables.ids("A", 2, len(graph_of), hint):
        graphs = graph_of[ids - 1]
        between = graphs[:, 0] != graphs[:, 1]
        if between.any():
            wrong = int(np.argmax(between))
            first, second = graphs[wrong] + 1
            raise ValueError(
                f"{file} expects edges within a graph. Received: line "
                f"{line + wrong}, from graph {first} to graph {second}"
            )
        graphs = graphs[:, 0]
        is_sorted &= latest <= graphs[0] and (graphs[:-1] <= graphs[1:]).all()
        latest = graphs[-1]
        counts += np.bincount(graphs, minlength=num_graphs)
        blocks.append(place[ids - 1])
    lines = None
    if not is_sorted:
        ends = np.concatenate(blocks)
        lines = np.argsort(graph_of[order[ends[:, 0]]], kind="stable")
        blocks = collections.deque([ends[lines]])
    return blocks, lines, np.cumsum(counts)


def _edges_of_graphs(blocks, lines, stops, of_edges, counts, directed, tables):
    """Yields the adjacency matrix of each graph, and what its edges have.

    Many graphs at once, for speed; not all of them, for memory. The lines of
    a graph that has very many are merged piece by piece.

    Args:
        blocks, lines, stops: see `_read_edges`; the blocks are used up.
        of_edges: dict of arrays, a row for each line of the file.
        counts: nodes of each graph.
    """
    node_stops = np.cumsum(counts)
    first = line = node = 0
    while first < len(counts):
        last = int(np.searchsorted(stops, line + LINES, side="right"))
        last = max(last, first + 1)
        num_nodes = int(node_stops[last - 1]) - node
        keys = kept = np.zeros(0, "int64")
        while line < stops[last - 1]:
            # Ever larger pieces, as each is merged with all edges before.
            size = min(stops[last - 1] - line, max(LINES, len(keys)))
            ends = _take(blocks, size).astype("int64") - node
            found = [ends[:, 0] * num_nodes + ends[:, 1]]
            if not directed:
                found.append(ends[:, 1] * num_nodes + ends[:, 0])
            numbers = np.arange(line, line + size)
            if lines is not None:
                numbers = lines[line : line + size]
            keys, kept = _merged(
                np.concatenate([keys, *found]),
                [kept, *[numbers] * len(found)],
                of_edges,
                directed,
                tables,
            )
            line += size
        indptr = np.searchsorted(keys, np.arange(num_nodes + 1) * num_nodes)
        columns = (keys % num_nodes).astype("int32")
        start = 0
        for count in counts[first:last].tolist():
            rows = indptr[start : start + count + 1]
            own = slice(rows[0], rows[-1])
            adjacency = scipy.sparse.csr_array(
                (
                    np.ones(rows[-1] - rows[0], "float32"),
                    columns[own] - start,
                    (rows - rows[0]).astype("int32"),
                ),
                shape=(count, count),
            )
            yield adjacency, {k: v[kept[own]] for k, v in of_edges.items()}
            start += count
        first, node = last, node + num_nodes


def _take(blocks, count):
    """Removes the first `count` lines from a deque of blocks."""
    taken = []
    while count:
        block = blocks.popleft()
        if len(block) > count:
            blocks.appendleft(block[count:])
        taken.append(block[:count])
        count -= len(taken[-1])
    return np.concatenate(taken)


def _merged(keys, numbers, of_edges, directed, tables):
    """Edges in row order, each once.

    Args:
        keys: `row * num_nodes + column` of each, int64.
        numbers: list of arrays, together the lines that they are from.

    Returns:
        The keys, ascending, and the line that each is from (if edges have
        labels or attributes).

    Raises:
        ValueError: if lines of one edge have different labels or attributes.
    """
    if not of_edges:
        # Quicker than np.unique, which makes a table of hashes first.
        keys.sort()
        return keys[np.diff(keys, prepend=-1) != 0], numbers[0][:0]
    order = np.argsort(keys, kind="stable")
    keys, numbers = keys[order], np.concatenate(numbers)[order]
    is_first = np.diff(keys, prepend=-1) != 0
    kept = numbers[is_first]
    same = kept[np.cumsum(is_first) - 1]
    for suffix, values in of_edges.items():
        differ = values[numbers] != values[same]
        differ = differ.reshape(len(numbers), -1).any(axis=1)
        if differ.any():
            place = int(np.argmax(differ))
            one, other = sorted((same[place], numbers[place]))
            directions = "" if directed else " or in both directions"
            raise ValueError(
                f"{tables.file(suffix)} expects the same for an edge that is "
                f"listed twice{directions}. Received: line {one + 1}, "
                f"{_shown(values[one])}, and line {other + 1}, "
                f"{_shown(values[other])}"
            )
    return keys[is_first], kept


def _values(labels):
    """The different values, in order."""
    return [] if labels is None else np.unique(labels).tolist()


def _shown(row):
    """Numbers as they are in a line of a file."""
    return ", ".join(map(str, np.atleast_1d(row)[:4].tolist()))
