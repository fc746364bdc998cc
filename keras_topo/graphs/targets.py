"""Targets of graphs and of their nodes, as the numbers of a loss."""

import dataclasses

import numpy as np

LEVELS = ("auto", "graphs", "nodes")


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Targets of a list of graphs.

    Attributes:
        values: `(graphs,)` or `(graphs, values)`; or a list of arrays
            `(nodes,)` or `(nodes, values)`, one for each graph.
        known: a list of bool arrays `(nodes,)`; `None` for targets of graphs.
    """

    values: np.ndarray | list
    known: list | None = None

    @property
    def of_nodes(self):
        return self.known is not None


def own_targets(graphs, level="auto"):
    """The targets that graphs have: a list of one per graph.

    Args:
        graphs: list of `Graph`s, or a `GraphDataset`, whose graphs count
            classes from zero; the targets are their values.
        level: `"graphs"`, `"nodes"`, or `"auto"`, those of nodes where graphs
            have none.
    """
    classes = getattr(graphs, "classes", None)
    graphs = getattr(graphs, "graphs", graphs)
    found = [graph.label for graph in graphs]
    if classes:
        found = [None if k is None else classes[k] for k in found]
    missing = all(target is None for target in found)
    if level == "nodes" or (level == "auto" and missing):
        return [graph.node_targets for graph in graphs]
    return found


def encode_targets(graphs, y=None, classes=None, level="auto"):
    """The `Targets` of graphs.

    Args:
        graphs: list of `Graph`s.
        y: see `GraphSequence`; `None` for those of the graphs.
        classes: values of classes, in the order of the logits; or `None`.
        level: `"graphs"`, `"nodes"` or `"auto"`, what `y` belongs to.

    Returns:
        `Targets`, of classes their positions, int32; of other targets float32
        numbers. `None` where the graphs have none, or `y` is `False`.

    Raises:
        ValueError: if some graphs have a target and some have none, a class is
            not one of `classes`, or targets do not fit the graphs.
    """
    if level not in LEVELS:
        raise ValueError(
            f"`level` expects one of {LEVELS}. Received: level={level!r}"
        )
    if y is False:
        return None
    if y is None:
        y = own_targets(graphs, level)
        if all(target is None for target in y):
            return None
        name = "graphs"
    else:
        name = "y"
        y = list(y)
        if len(y) != len(graphs):
            raise ValueError(
                f"`y` expects one target for each of the {len(graphs)} "
                f"graphs. Received: {len(y)}"
            )
    missing = [target is None for target in y]
    if any(missing):
        raise ValueError(
            f"`{name}` expects a target for each graph, or for none. Received: "
            f"none for graph {missing.index(True)}, one for graph "
            f"{missing.index(False)}"
        )
    arrays = [np.asarray(target) for target in y]
    if level == "auto":
        level = _level(arrays, graphs, name)
    if level == "nodes":
        return _of_nodes(arrays, graphs, classes, name)
    if classes is not None and all(a.ndim == 0 for a in arrays):
        return Targets(_positions(arrays, classes, name))
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1 or any(a.dtype.kind not in "biuf" for a in arrays):
        raise ValueError(
            f"`{name}` expects targets that are all classes, or numbers of one "
            f"shape. Received: shapes {sorted(shapes)}"
        )
    return Targets(np.stack(arrays).astype("float32"))


def _level(arrays, graphs, name):
    """Whether targets are those of graphs or of nodes."""
    if name == "graphs":
        return "nodes" if graphs[0].label is None else "graphs"
    fits = all(
        a.ndim and len(a) == graph.num_nodes
        for a, graph in zip(arrays, graphs, strict=True)
    )
    if fits and len({a.shape for a in arrays}) == 1:
        raise ValueError(
            "`level` expects 'graphs' or 'nodes' where `y` may be either: all "
            f"graphs have {len(arrays[0])} nodes and as many numbers. "
            "Received: level='auto'"
        )
    return "nodes" if fits else "graphs"


def _of_nodes(arrays, graphs, classes, name):
    for k, (array, graph) in enumerate(zip(arrays, graphs, strict=True)):
        if not array.ndim or len(array) != graph.num_nodes:
            raise ValueError(
                f"`{name}` expects a target for each of the {graph.num_nodes} "
                f"nodes of graph {k}. Received: the shape {array.shape}"
            )
    if classes is not None:
        known = [a >= 0 if a.dtype.kind in "iu" else a == a for a in arrays]
        values = []
        for k, (array, where) in enumerate(zip(arrays, known, strict=True)):
            found = np.zeros(len(array), "int32")
            found[where] = _positions(array[where], classes, f"y[{k}]")
            values.append(found)
        return Targets(values, known)
    known, values = [], []
    for array in arrays:
        array = array.astype("float32")
        missing = np.isnan(array)
        if array.ndim == 2:
            missing = missing.any(axis=1)
        known.append(~missing)
        values.append(np.where(np.isnan(array), 0.0, array))
    return Targets(values, known)


def _positions(values, classes, name):
    """Where values of classes stand among them, int32."""
    places = {value: k for k, value in enumerate(classes)}
    found = []
    for value in values:
        value = value.item()
        if value not in places:
            raise ValueError(
                f"`{name}` expects classes that `adapt` has seen, {classes}. "
                f"Received: {value!r}"
            )
        found.append(places[value])
    return np.array(found, "int32")
