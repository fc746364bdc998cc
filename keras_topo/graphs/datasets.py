"""Data sets of graphs, and graphs whose nodes are the data set."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self, overload

import numpy as np

from keras_topo.graphs.graph import Graph


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GraphDataset:
    """Graphs with a target each.

    Attributes:
        name: str.
        graphs: list of `Graph`, whose `label` is a class, one of `classes`; or,
            with `classes=None`, a number to predict or a vector of several
            numbers or labels.
        classes: list of the values that the classes have in the files, in
            order; or `None`.
        node_label_values: list of the values of `node_labels`, in order; empty
            without node labels.
        edge_label_values: list, the same for `edge_labels`.

    Example:

    >>> train, _, _ = keras_topo.graphs.motif_dataset("cycle", (4, 1, 1))
    >>> train
    GraphDataset('motif-cycle', graphs=8, classes=[0, 1])
    >>> train.labels
    array([0, 1, 0, 1, 0, 1, 0, 1])
    """

    name: str
    graphs: list[Graph]
    classes: list[Any] | None = None
    node_label_values: list[Any] = dataclasses.field(default_factory=list)
    edge_label_values: list[Any] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.graphs)

    @overload
    def __getitem__(self, index: int | np.integer) -> Graph: ...

    @overload
    def __getitem__(
        self, index: slice | np.ndarray | Sequence[int]
    ) -> Self: ...

    def __getitem__(self, index: Any) -> Graph | Self:
        """A graph; or, of a slice or an array of ids or bools, a data set."""
        if isinstance(index, (int, np.integer)):
            return self.graphs[index]
        ids = np.arange(len(self))[index].tolist()
        return dataclasses.replace(self, graphs=[self.graphs[i] for i in ids])

    def __repr__(self) -> str:
        fields = [repr(self.name), f"graphs={len(self)}"]
        for name in ("classes", "node_label_values", "edge_label_values"):
            values = getattr(self, name)
            if values:
                more = f", ... ({len(values)})" * (len(values) > 10)
                shown = ", ".join(map(repr, values[:10])) + more
                fields.append(f"{name}=[{shown}]")
        return f"GraphDataset({', '.join(fields)})"

    @property
    def num_classes(self) -> int:
        """Classes of graphs; 0 where `label` is no class."""
        return 0 if self.classes is None else len(self.classes)

    @property
    def num_node_labels(self) -> int:
        """Categories of nodes; 0 without node labels."""
        return len(self.node_label_values)

    @property
    def labels(self) -> np.ndarray:
        """Targets: `(graphs,)`, classes or floats, or `(graphs, targets)`.

        Raises:
            ValueError: if a graph has none.
        """
        missing = [k for k, g in enumerate(self.graphs) if g.label is None]
        if missing:
            raise ValueError(
                "`labels` expects graphs with a label each. Received: "
                f"{self.name}, where graph {missing[0]} has none"
            )
        return np.array([graph.label for graph in self.graphs])

    @property
    def class_ids(self) -> np.ndarray:
        """`(graphs,)`, int64: the places of their classes in `classes`.

        Raises:
            ValueError: if a graph has no label, or the labels are no classes.
        """
        if self.classes is None:
            raise ValueError(
                "`class_ids` expects graphs with classes. Received: "
                f"{self.name}, whose labels are numbers"
            )
        places = {value: k for k, value in enumerate(self.classes)}
        return np.array([places[k] for k in self.labels.tolist()], "int64")

    def map(self, function: Callable[[Graph], Graph]) -> Self:
        """The data set with `function(graph)` in place of each graph."""
        graphs = [function(graph) for graph in self.graphs]
        return dataclasses.replace(self, graphs=graphs)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NodeDataset:
    """One graph whose nodes have classes, and a split of them.

    Attributes:
        name: str.
        graph: `Graph`, whose `node_targets` are `(nodes,)`, -1 where unknown.
        num_classes: int.
        train, validation, test: node ids, int arrays.

    Example:

    >>> dataset = keras_topo.graphs.beacon_dataset(num_nodes=1000)
    >>> dataset.num_classes, len(dataset.train), len(dataset.test)
    (4, 99, 792)
    """

    name: str
    graph: Graph
    num_classes: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def __repr__(self) -> str:
        return (
            f"NodeDataset({self.name!r}, {self.graph!r}, "
            f"num_classes={self.num_classes}, train={len(self.train)}, "
            f"validation={len(self.validation)}, test={len(self.test)})"
        )
