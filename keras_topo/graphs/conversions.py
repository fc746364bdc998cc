"""Graphs of other libraries: networkx, PyTorch Geometric, DGL, SciPy.

None of them is a dependency: what looks like one of their graphs is one. Their
fields become the arguments of `Graph.from_edges`.
"""

import numbers
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

# What a `Graph` may hold, but for its edges.
FIELDS = (
    "features",
    "node_labels",
    "label",
    "node_targets",
    "edge_features",
    "edge_labels",
    "weights",
)
# What is read where nothing else is asked for: the conventions of the library.
PYG_ATTRIBUTES = {
    "features": "x",
    "edge_features": "edge_attr",
    "weights": "edge_weight",
}
DGL_ATTRIBUTES = {
    "features": "feat",
    "edge_features": "feat",
    "node_targets": "label",
}


def fields_of_networkx(
    graph: Any,
    features: str | Sequence[str] | ArrayLike | None = None,
    node_labels: str | ArrayLike | None = None,
    weight: str | None = "weight",
    edge_features: str | Sequence[str] | None = None,
    edge_labels: str | None = None,
    label: Any = None,
    node_targets: str | ArrayLike | None = None,
) -> dict[str, Any]:
    """A graph from one of networkx, nodes in its order.

    Arguments other than `graph` are names of attributes, or arrays of values
    in the order of the nodes; edges have values by name only. What is not
    named is not read.

    Args:
        graph: `networkx.Graph`, or one of its directed and multiple kinds.
            Parallel edges count as one with the sum of their weights, and
            must agree in all else.
        features: name of a node attribute, numbers or vectors of numbers, or
            a list of names, whose values are joined; or an array `(nodes,
            features)`.
        node_labels: name of a node attribute, ints or strings; or an array.
        weight: name of the edge attribute that holds their weights, read by
            default; edges without it weigh 1. `None` for ones.
        edge_features: name, or list of names, of edge attributes.
        edge_labels: name of an edge attribute, ints or strings.
        label: name of a graph attribute (`graph.graph[label]`); or the
            target itself, if it is no string.
        node_targets: name of a node attribute, classes (ints) or numbers; or
            an array.

    Returns:
        The arguments of `Graph.from_edges`, a dict.

    Raises:
        ValueError: if `graph` is no graph of networkx or has no nodes, an
            attribute is missing, or a value has the wrong type; the message
            names the attribute, and the node or edge.
    """
    networkx = sys.modules.get("networkx")
    if networkx is None or not isinstance(graph, networkx.Graph):
        raise ValueError(
            "`graph` expects a networkx.Graph. Received: "
            f"{type(graph).__name__}"
        )
    if not len(graph):
        raise ValueError(
            "`graph` expects at least one node. Received: a graph without nodes"
        )
    nodes = [
        (f"the node {n!r}", values) for n, values in graph.nodes(data=True)
    ]
    place = {node: k for k, node in enumerate(graph)}
    ends, edges, weights = [], [], {}
    for i, j, values in graph.edges(data=True):
        pair = place[i], place[j]
        if not graph.is_directed():
            pair = min(pair), max(pair)
        where = f"the edge ({i!r}, {j!r})"
        ends.append(pair)
        edges.append((where, values))
        value = values.get(weight, 1) if weight is not None else 1
        if not isinstance(value, (numbers.Real, np.bool_)):
            raise ValueError(
                f"`weight={weight!r}` expects numbers at edges, or "
                f"`weight=None`. Received: {value!r} at {where}"
            )
        # Parallel edges add up.
        weights[pair] = weights.get(pair, 0) + value
    if isinstance(label, str):
        if label not in graph.graph:
            raise ValueError(
                f"`label={label!r}` expects an attribute of the graph, one of "
                f"{sorted(map(str, graph.graph))}. Received: a graph without "
                "it"
            )
        label = graph.graph[label]
    return dict(
        edges=np.array(ends, "int64").reshape(-1, 2),
        num_nodes=len(graph),
        weights=[weights[pair] for pair in ends],
        directed=graph.is_directed(),
        features=_features(features, nodes, "features"),
        node_labels=_values(node_labels, nodes, "node_labels"),
        edge_features=_features(edge_features, edges, "edge_features"),
        edge_labels=_values(edge_labels, edges, "edge_labels"),
        node_targets=_values(node_targets, nodes, "node_targets"),
        label=label,
    )


def fields_of_pyg(
    data: Any,
    targets: Literal["auto", "graph", "nodes"] = "auto",
    mask: str | ArrayLike | None = "auto",
    **attributes: Any,
) -> dict[str, Any]:
    """A graph from a `Data` of PyTorch Geometric, or what looks like one.

    Edges keep the direction that `edge_index` gives them. `x`, `edge_attr` and
    `edge_weight` are read where they are there, and `y` is the target: of the
    nodes if its first axis has as many as the graph has nodes, else of the
    graph, `(1,)` or `(1, values)`.

    Args:
        data: object with `edge_index` `(2, edges)`, and `num_nodes` or `x`.
        targets: `"graph"`, `"nodes"`, or `"auto"`, what `y` belongs to.
        mask: name of a field, or a bool array `(nodes,)`: the nodes whose
            targets are known, such as `"train_mask"`. `None` for all of them;
            so does `"auto"`, with a warning where `data` has a `train_mask`.
        **attributes: names of fields of `data` for `features`,
            `node_labels`, `edge_features`, `edge_labels`, `weights`, `label`
            and `node_targets`; `None` for not to be read. `label` may be the
            target itself, if it is no string.

    Returns:
        The arguments of `Graph.from_edges`, a dict.

    Raises:
        ValueError: if `data` has no `edge_index`, a named field is missing, or
            fields do not fit together.
    """
    if getattr(data, "edge_index", None) is None:
        raise ValueError(
            "`data` expects edge_index, as the Data of PyTorch Geometric "
            f"has. Received: {type(data).__name__} without it"
        )
    if getattr(data, "ptr", None) is not None and hasattr(data, "batch"):
        raise ValueError(
            "`data` expects one graph. Received: a batch; "
            "`data.to_data_list()` gives its graphs"
        )
    _one_of("targets", targets, ("auto", "graph", "nodes"))
    edges = _array(data.edge_index).T
    fields = _fields(
        {**PYG_ATTRIBUTES, **attributes},
        attributes,
        lambda kind, name: getattr(data, name, None),
        "data",
    )
    num_nodes = getattr(data, "num_nodes", None)
    if num_nodes is None and "features" in fields:
        num_nodes = len(fields["features"])
    if num_nodes is None:
        raise ValueError(
            "`data` expects num_nodes or x, which say how many nodes there "
            "are. Received: neither"
        )
    y = getattr(data, "y", None)
    if y is not None and not {"label", "node_targets"} & set(attributes):
        y = _array(y)
        if targets == "auto":
            per_node = y.ndim and len(y) == num_nodes and num_nodes > 1
            targets = "nodes" if per_node else "graph"
        if targets == "nodes":
            fields["node_targets"] = y
        else:
            fields["label"] = _squeezed(y)
    if fields.get("node_targets") is not None:
        fields["node_targets"] = _masked(fields["node_targets"], data, mask)
    return dict(edges=edges, num_nodes=int(num_nodes), directed=True, **fields)


def _masked(targets, data, mask):
    """Targets of nodes, -1 or NaN outside of a mask."""
    if isinstance(mask, str) and mask == "auto":
        if getattr(data, "train_mask", None) is not None:
            warnings.warn(
                "The targets of all nodes are read, those outside of "
                "`train_mask` too. `mask='train_mask'` leaves the others "
                "unknown, and `mask=None` says that all are meant.",
                stacklevel=5,
            )
        return targets
    if mask is None:
        return targets
    found = getattr(data, mask, None) if isinstance(mask, str) else mask
    if found is None:
        raise ValueError(
            f"`mask={mask!r}` expects a field of `data`. Received: one without "
            "it"
        )
    found = _array(found)
    if found.dtype != bool or found.shape != targets.shape[:1]:
        raise ValueError(
            f"`mask` expects bools, one for each of {len(targets)} nodes. "
            f"Received: the shape {found.shape} and dtype {found.dtype}"
        )
    # Of several values NaN is unknown, and -1 of classes.
    classes = targets.dtype.kind in "biu" and targets.ndim == 1
    targets = targets.astype("int64" if classes else "float32")
    targets[~found] = -1 if classes else np.nan
    return targets


def fields_of_dgl(graph: Any, **attributes: Any) -> dict[str, Any]:
    """A graph from a homogeneous one of DGL, or what looks like one.

    `ndata["feat"]`, `edata["feat"]` and, as targets of nodes,
    `ndata["label"]` are read where they are there. DGL keeps targets of graphs
    beside them: give it as `label`.

    Args:
        graph: object with `edges()`, `num_nodes()`, `ndata` and `edata`.
        **attributes: names in `ndata` for `features`, `node_labels` and
            `node_targets`, and in `edata` for `edge_features`, `edge_labels`
            and `weights`; `None` for not to be read. `label` is the target
            itself.

    Returns:
        The arguments of `Graph.from_edges`, a dict.

    Raises:
        ValueError: if `graph` is not homogeneous, a named field is missing, or
            fields do not fit together.
    """
    if not all(hasattr(graph, name) for name in ("ndata", "edata", "edges")):
        raise ValueError(
            f"`graph` expects a graph of DGL. Received: {type(graph).__name__}"
        )
    if not getattr(graph, "is_homogeneous", True):
        raise ValueError(
            "`graph` expects nodes and edges of one type. Received: a "
            "heterogeneous graph"
        )
    attributes = dict(attributes)
    label = attributes.pop("label", None)

    def read(kind, name):
        of_edges = kind in ("edge_features", "edge_labels", "weights")
        data = graph.edata if of_edges else graph.ndata
        return data[name] if name in data else None

    fields = _fields(
        {**DGL_ATTRIBUTES, **attributes}, attributes, read, "graph"
    )
    source, target = graph.edges()
    return dict(
        edges=np.stack([_array(source), _array(target)], axis=1),
        num_nodes=int(graph.num_nodes()),
        directed=True,
        label=None if label is None else _squeezed(_array(label)),
        **fields,
    )


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(
            f"`{name}` expects one of {allowed}. Received: {name}={value!r}"
        )


# Values of attributes, by name.


def _features(names, items, argument):
    """`(items, channels)` from names of attributes, or what was given."""
    if isinstance(names, str):
        names = [names]
    is_names = isinstance(names, (list, tuple)) and all(
        isinstance(name, str) for name in names
    )
    if not is_names:
        return names
    columns = []
    for name in names:
        rows = [
            np.asarray(_value(name, values, where, argument))
            for where, values in items
        ]
        for (where, _), row in zip(items, rows, strict=True):
            if row.dtype.kind not in "biuf" or row.ndim > 1:
                raise ValueError(
                    f"`{argument}` expects numbers, or vectors of numbers, as "
                    f"{name!r}. Received: {row.tolist()!r} at {where}; "
                    "categories are labels"
                )
            if row.shape != rows[0].shape:
                raise ValueError(
                    f"`{argument}` expects vectors of one length as {name!r}. "
                    f"Received: {row.shape} at {where} and {rows[0].shape} "
                    f"at {items[0][0]}"
                )
        if not rows:
            # A graph without edges does not say how many channels they have.
            return None
        columns.append(np.stack(rows).reshape(len(rows), -1))
    return np.concatenate(columns, axis=1) if columns else None


def _values(name, items, argument):
    """One value per item from the name of an attribute, or what was given."""
    if not isinstance(name, str):
        return name
    values = [_value(name, found, where, argument) for where, found in items]
    kinds = {isinstance(value, str) for value in values}
    if len(kinds) > 1:
        odd = next(
            k for k, v in enumerate(values) if type(v) is not type(values[0])
        )
        raise ValueError(
            f"`{argument}` expects all strings or all numbers as {name!r}. "
            f"Received: {values[0]!r} and {values[odd]!r}, the latter at "
            f"{items[odd][0]}"
        )
    return np.array(values) if values else None


def _value(name, values, where, argument):
    if name not in values:
        raise ValueError(
            f"`{argument}` expects the attribute {name!r} everywhere. "
            f"Received: {where} with {sorted(map(str, values)) or 'none'}"
        )
    return values[name]


# Tensors of fields.


def _array(tensor):
    """A NumPy array of what may be a tensor, on any device."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none.
            tensor = tensor.float()
    return np.asarray(tensor)


def _fields(names, asked, read, owner):
    """Arrays of the named fields; those asked for have to be there."""
    fields = {}
    for kind, name in names.items():
        if kind not in FIELDS:
            raise ValueError(
                f"`{owner}` has fields for {sorted(FIELDS)}. Received: {kind!r}"
            )
        if name is None:
            continue
        if not isinstance(name, str):
            fields[kind] = name if kind == "label" else _array(name)
            continue
        value = read(kind, name)
        if value is None:
            if kind in asked:
                raise ValueError(
                    f"`{kind}={name!r}` expects a field of `{owner}`. "
                    "Received: one without it"
                )
            continue
        value = _array(value)
        if kind in ("features", "edge_features") and value.ndim == 1:
            value = value[:, None]
        elif kind in ("node_labels", "edge_labels", "weights"):
            value = value.reshape(len(value), -1)
            if value.shape[1] > 1:
                raise ValueError(
                    f"`{kind}={name!r}` expects one value each. Received: the "
                    f"shape {value.shape}"
                )
            value = value[:, 0]
        elif kind == "label":
            value = _squeezed(value)
        fields[kind] = value
    return fields


def _squeezed(y):
    """The target of a graph: `(1,)` is a number, `(1, values)` a vector."""
    if y.ndim == 2 and len(y) == 1:
        y = y[0]
    return y[0] if y.shape == (1,) else y
