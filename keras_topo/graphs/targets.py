"""Targets of graphs and of their nodes, as the numbers of a loss."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from keras_topo.annotations import Level
from keras_topo.graphs.datasets import GraphDataset
from keras_topo.graphs.graph import Graph

LEVELS = ("auto", "graphs", "nodes")


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Targets of a list of graphs.

    Attributes:
        values: `(graphs,)` or `(graphs, values)`; or a list of arrays
            `(nodes,)` or `(nodes, values)`, one for each graph. Values that
            are not known are zero where none of a row is, and else NaN.
        known: `(graphs,)`, or a list of arrays `(nodes,)`, float32: which
            share of the values is known.
    """

    values: Any
    known: Any

    @property
    def of_nodes(self) -> bool:
        return isinstance(self.values, list)


def own_targets(
    graphs: Sequence[Graph] | GraphDataset, level: Level = "auto"
) -> list[Any]:
    """The targets that graphs have: a list of one per graph.

    Args:
        graphs: list of `Graph`s, or a `GraphDataset`.
        level: `"graphs"`, `"nodes"`, or `"auto"`, those of nodes where graphs
            have none.
    """
    graphs = getattr(graphs, "graphs", graphs)
    found = [graph.label for graph in graphs]
    missing = all(target is None for target in found)
    if level == "nodes" or (level == "auto" and missing):
        return [graph.node_targets for graph in graphs]
    return found


def encode_targets(
    graphs: Sequence[Graph],
    y: Iterable[Any] | Literal[False] | None = None,
    classes: Sequence[Any] | None = None,
    level: Level = "auto",
) -> Targets | None:
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
        positions = _positions(arrays, classes, name)
        return Targets(positions, np.ones(len(positions), "float32"))
    for k, array in enumerate(arrays):
        if array.dtype.kind not in "biuf":
            hint = ""
            if classes is None and array.dtype.kind == "U":
                hint = "; classes are learned by `adapt(graphs, y)`"
            raise ValueError(
                f"`{name}` expects classes, or numbers of one shape{hint}. "
                f"Received: {name}[{k}] of dtype {array.dtype}"
            )
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"`{name}` expects classes, or numbers of one shape. Received: "
                f"the shape {array.shape} of {name}[{k}], and "
                f"{arrays[0].shape} of {name}[0]"
            )
    values, known = _with_unknown(np.stack(arrays))
    if not known.all():
        raise ValueError(
            f"`{name}` expects a known value for each graph. Received: NaN for "
            f"graph {int(np.argmin(known > 0))}"
        )
    return Targets(values, known)


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
        return _any_known(values, [x.astype("float32") for x in known], name)
    pairs = [_with_unknown(array) for array in arrays]
    return _any_known([v for v, _ in pairs], [k for _, k in pairs], name)


def _with_unknown(values):
    """Numbers, float32, and which share of each row is no NaN."""
    values = values.astype("float32")
    known = ~np.isnan(values).reshape(len(values), -1)
    share = known.mean(axis=1, dtype="float32")
    values[share == 0] = 0.0
    return values, share


def _any_known(values, known, name):
    if not any(share.any() for share in known):
        raise ValueError(
            f"`{name}` expects at least one node whose target is known. "
            "Received: none"
        )
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
