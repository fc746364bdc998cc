"""What the graphs of a list have in common, as a preprocessor learns it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_topo.annotations import Level
from keras_topo.graphs.graph import Graph

if TYPE_CHECKING:
    from keras_topo.graphs.preprocessor import GraphPreprocessor


def present(
    graphs: Sequence[Graph], field: str, preprocessor: "GraphPreprocessor"
) -> bool:
    """Whether a field is used: all graphs have it, or none does."""
    argument = "edges" if field.startswith("edge") else field
    wanted = getattr(preprocessor, argument)
    if wanted is False or not graphs:
        return False
    has = [getattr(graph, field) is not None for graph in graphs]
    if any(has) and not all(has):
        raise ValueError(
            f"`graphs` expects {field} in all of them, or in none. Received: "
            f"graphs[{has.index(True)}] with, and graphs[{has.index(False)}] "
            "without"
        )
    # Edges have labels, or features, or both.
    if wanted is True and argument != "edges" and not any(has):
        raise ValueError(
            f"`{argument}=True` expects graphs with {field}. Received: graphs "
            "without"
        )
    return all(has)


def label_values(
    graphs: Sequence[Graph], field: str, preprocessor: "GraphPreprocessor"
) -> list[Any] | None:
    """The values of labels, in order; or `None`."""
    if not present(graphs, field, preprocessor):
        return None
    kinds = {getattr(graph, field).dtype.kind == "U" for graph in graphs}
    if len(kinds) > 1:
        raise ValueError(
            f"`graphs` expects {field} that are all strings, or all ints. "
            "Received: both"
        )
    values = np.concatenate([getattr(graph, field) for graph in graphs])
    return np.unique(values).tolist()


def channels(
    graphs: Sequence[Graph], field: str, preprocessor: "GraphPreprocessor"
) -> int | None:
    """How many features there are; `None` without."""
    if not present(graphs, field, preprocessor):
        return None
    widths = [getattr(graph, field).shape[1] for graph in graphs]
    if len(set(widths)) > 1:
        odd = next(k for k, w in enumerate(widths) if w != widths[0])
        raise ValueError(
            f"`graphs` expects the same number of {field}. Received: "
            f"{widths[0]} in graphs[0] and {widths[odd]} in graphs[{odd}]"
        )
    return widths[0] or None


def classes_of(
    graphs: Sequence[Graph],
    y: Iterable[Any],
    known: Sequence[Any] | None,
    level: Level = "auto",
) -> tuple[list[Any] | None, list[str] | None]:
    """The values that classes have in targets, and their names.

    Both are `None` where the targets are no classes.
    """
    targets = [np.asarray(target) for target in y if target is not None]
    whole = [target.dtype.kind in "biuU" for target in targets]
    several = any(
        target.ndim > 1
        or target.ndim
        and (level == "graphs" or len(target) != graph.num_nodes)
        for target, graph in zip(targets, graphs, strict=False)
    )
    if not targets or not all(whole) or several:
        return None, None
    if len({target.dtype.kind == "U" for target in targets}) > 1:
        raise ValueError(
            "`y` expects classes that are all strings, or all ints. Received: "
            "both"
        )
    values = np.unique(np.concatenate([t.reshape(-1) for t in targets]))
    if values.dtype.kind != "U" and targets[0].ndim:
        values = values[values >= 0]  # Unknown ones of nodes.
    if known and set(values.tolist()) <= set(known):
        values = np.array(known)  # Those of a data set, seen or not.
    return values.tolist(), [str(value) for value in values.tolist()]


def statistics_of(
    features: Sequence[np.ndarray],
) -> tuple[list[float], list[float]]:
    """Mean and variance of each feature, over the nodes of all graphs."""
    count = sum(map(len, features))
    total: Any = sum(x.sum(axis=0, dtype="float64") for x in features)
    mean = total / count
    variance = sum(np.square(x - mean).sum(axis=0) for x in features) / count
    largest = np.max([np.square(x).max(axis=0) for x in features], axis=0)
    # A label that is rare, or never seen in training, is not to become a huge
    # number: a standard deviation counts as 0.1 at least, unless the feature
    # is a small real number throughout. What is zero in training may be one.
    floor = np.where(largest > 0, np.minimum(0.01, largest.clip(1e-6)), 0.01)
    return mean.tolist(), np.maximum(variance, floor).tolist()
