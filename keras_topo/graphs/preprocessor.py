"""`GraphPreprocessor`: from graphs of any library to inputs of a model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import keras
import numpy as np

from keras_topo.annotations import AnyGraph, Choice, Level, StrPath
from keras_topo.graphs.any_graph import as_graphs, check_attributes
from keras_topo.graphs.cache import SharedKernels, compute_kernels
from keras_topo.graphs.common import (
    channels,
    classes_of,
    label_values,
    statistics_of,
)
from keras_topo.graphs.datasets import GraphDataset
from keras_topo.graphs.encodings import laplacian_eigenvectors
from keras_topo.graphs.factors import count_columns, kernel_factors
from keras_topo.graphs.fields import (
    CHOICE,
    at_pairs,
    check_choice,
    check_natural,
    degrees_of,
    field_of,
    field_of_width,
    one_hot,
)
from keras_topo.graphs.graph import Graph
from keras_topo.graphs.kernels import return_probabilities
from keras_topo.graphs.labeled_walks import degree_bins
from keras_topo.graphs.largest import (
    count_kernels,
    dense_kernels,
    form_of_large_graphs,
    kinds_of,
    largest_pairs,
)
from keras_topo.graphs.profiles import clustering_coefficients, degree_profile
from keras_topo.graphs.targets import own_targets

FORMS = ("auto", "dense", "pairs", "factors")
# What an example has in each form, and what makes it.
KERNELS_IN_FORM = {
    "dense": ("kernel", dense_kernels),
    "pairs": ("pairs", largest_pairs),
    "factors": ("factors", kernel_factors),
}
# `batching` of models.
BATCHING = {"dense": "padded", "pairs": "joined", "factors": "factors"}
# Nodes of the largest graph up to which kernels are dense matrices.
DENSE_NODES = 512
# What `adapt` learns.
LEARNED = (
    "form",
    "kernel",
    "directed",
    "weighted",
    "num_own_features",
    "label_values",
    "max_degree",
    "num_own_edge_features",
    "edge_label_values",
    "classes",
    "class_names",
    "feature_statistics",
)


@keras.saving.register_keras_serializable(package="keras_topo")
class GraphPreprocessor:
    """Turns graphs into inputs of a model, the same ones wherever it goes.

    `adapt` learns from the training graphs what the data are: which values
    node labels have, how large degrees get, the mean and the variance of each
    feature, the names of the classes. What was learned is a part of the
    configuration (`get_config`), and travels with every preset and SavedModel.

    The features of a node are, in this order: its label as a one-hot vector,
    its own features, its number of edges as a one-hot vector (in directed
    graphs those that leave it, and then those that reach it), the profile of
    its degree, its clustering coefficient, return probabilities of random
    walks, and eigenvectors of the Laplacian.

    Args:
        attributes: dict, what to read of graphs of other libraries: the
            arguments of `Graph.from_networkx`, `from_pyg` or `from_dgl`, such
            as `{"node_labels": "atom", "label": "toxic"}`.
        node_labels, features: bool, or `"auto"`, whether to use those of the
            nodes; `"auto"` where the graphs have them.
        degrees: bool, or `"auto"`, where nodes have nothing of their own.
        largest_degree: int; larger degrees count as this one.
        degree_profile: bool, the degree and those of the neighbors as numbers:
            see `keras_topo.graphs.degree_profile`.
        clustering: bool, the clustering coefficient: see
            `keras_topo.graphs.clustering_coefficients`.
        return_steps: int, probabilities that a walk is back after 1 to this
            many steps.
        eigenvectors: int, of the Laplacian: see `laplacian_eigenvectors`.
        edges: bool, or `"auto"`, where they have any, whether to use labels
            and features of edges. With `True` edges that have none get a one.
        kernel: `"random_walk"`, `"diffusion"`, `"steps"`, `"labeled_walk"`,
            `"neighbors"`, `"normalized"` or `"ones"`, or several of them
            joined by `"+"`: see `keras_topo.graphs.dense_kernels`; or `None`
            for that which the model takes: see `adapt`. Labels of labeled
            walks are those of the nodes, if they are used (those that `adapt`
            has not seen count as one), and else bins of degrees.
        kernel_sizes: nodes of the walks, or times of diffusion: one kernel
            each.
        form: `"dense"`, matrices of all pairs of nodes, batches padded; or
            `"pairs"`, the largest entries of each row alone, batches of joined
            graphs, whose memory is linear in nodes; or `"factors"`, kernels of
            low rank for linear attention (see `kernel_factors`); or `"auto"`,
            pairs where the largest graph has more than 512 nodes.
        pairs_per_node: int, entries that are kept of a row, beside those at
            edges.
        anchors: int, nodes that walks tell apart in the form of factors.
        unknown: `"error"`, or `"zeros"` for labels of nodes and edges that
            `adapt` has not seen.
        cache: whether kernels are kept: see `compute_kernels`.

    Raises:
        ValueError: for unknown values.

    Example:

    >>> import networkx
    >>> molecule = networkx.path_graph(3)
    >>> networkx.set_node_attributes(molecule, dict(enumerate("CNO")), "atom")
    >>> preprocessor = GraphPreprocessor(attributes={"node_labels": "atom"})
    >>> preprocessor = preprocessor.adapt([molecule])
    >>> preprocessor.num_features, preprocessor.num_kernels
    (19, 4)
    >>> preprocessor([molecule])[0]["nodes"].shape
    (3, 19)
    """

    def __init__(
        self,
        attributes: Mapping[str, Any] | None = None,
        node_labels: Choice = "auto",
        features: Choice = "auto",
        degrees: Choice = "auto",
        largest_degree: int = 64,
        return_steps: int = 16,
        eigenvectors: int = 0,
        edges: Choice = "auto",
        kernel: str | None = None,
        kernel_sizes: Iterable[float] = (1, 2, 3, 4),
        form: Literal["auto", "dense", "pairs", "factors"] = "auto",
        pairs_per_node: int = 32,
        unknown: Literal["error", "zeros"] = "error",
        cache: bool | StrPath = True,
        degree_profile: bool = False,
        clustering: bool = False,
        anchors: int = 8,
    ) -> None:
        self.attributes = check_attributes(attributes)
        self.node_labels = check_choice("node_labels", node_labels, CHOICE)
        self.features = check_choice("features", features, CHOICE)
        self.degrees = check_choice("degrees", degrees, CHOICE)
        self.largest_degree = check_natural("largest_degree", largest_degree, 1)
        self.return_steps = check_natural("return_steps", return_steps)
        self.eigenvectors = check_natural("eigenvectors", eigenvectors)
        self.degree_profile = check_choice(
            "degree_profile", degree_profile, (True, False)
        )
        self.clustering = check_choice("clustering", clustering, (True, False))
        self.edges = check_choice("edges", edges, CHOICE)
        self.wanted_kernel = kernel
        if kernel is not None:
            kinds_of(kernel, "kernel")
        self.kernel_sizes = [float(size) for size in kernel_sizes]
        if not self.kernel_sizes or min(self.kernel_sizes) <= 0:
            raise ValueError(
                "`kernel_sizes` expects positive numbers, at least one. "
                f"Received: kernel_sizes={kernel_sizes}"
            )
        self.wanted_form = check_choice("form", form, FORMS)
        self.pairs_per_node = check_natural("pairs_per_node", pairs_per_node, 1)
        self.anchors = check_natural("anchors", anchors, 1)
        self.unknown = check_choice("unknown", unknown, ("error", "zeros"))
        self.cache = cache
        #: `SharedKernels` of the data set whose graphs come, or `None`. It has
        #: a `cache` of its own.
        self.shared: SharedKernels | None = None
        self.learned: dict[str, Any] | None = None

    def adapt(
        self,
        graphs: Sequence[AnyGraph] | GraphDataset,
        y: Iterable[Any] | None = None,
        kernel: str = "random_walk",
        level: Level = "auto",
    ) -> Self:
        """Learns from graphs what they are.

        Args:
            graphs: list of graphs of any library, or a `GraphDataset`.
            y: targets, one per graph; defaults to the labels of the graphs.
                Where they are ints or strings, their values are the classes.
            kernel: the kernel for a preprocessor that was made with
                `kernel=None`, such as `keras_topo.models.MODELS["gin"].kernel`.
            level: `"graphs"` or `"nodes"`, what `y` belongs to where its shape
                may be either.

        Returns:
            The preprocessor itself.

        Raises:
            ValueError: if there are no graphs, one cannot be read, or they do
                not have the same fields; or if `kernel` is unknown.
        """
        kernel = self.wanted_kernel or kernel
        kinds_of(kernel, "kernel")
        known = getattr(graphs, "classes", None)
        graphs = self.read(graphs)
        if not graphs:
            raise ValueError(
                "`graphs` expects at least one graph. Received: none"
            )
        largest = max(graph.num_nodes for graph in graphs)
        form = self.wanted_form
        if form == "auto":
            form = "dense"
            if largest > DENSE_NODES:
                form = form_of_large_graphs(kernel)
        if form == "factors":
            count_columns(kernel, self.anchors)  # Are there any?
        learned: dict[str, Any] = dict.fromkeys(LEARNED)
        learned["form"], learned["kernel"] = form, kernel
        learned["directed"] = not all(g.is_undirected() for g in graphs)
        learned["weighted"] = any((g.adjacency.data != 1).any() for g in graphs)
        learned["label_values"] = label_values(graphs, "node_labels", self)
        learned["num_own_features"] = channels(graphs, "features", self)
        degrees = self.degrees
        if degrees == "auto":
            degrees = not (
                learned["num_own_features"] or learned["label_values"]
            )
        if degrees:
            most = max(
                degrees.max()
                for graph in graphs
                for degrees in degrees_of(graph, learned["directed"])
            )
            learned["max_degree"] = max(1, min(int(most), self.largest_degree))
        with_edges = [g for g in graphs if g.adjacency.nnz]
        learned["edge_label_values"] = label_values(
            with_edges, "edge_labels", self
        )
        learned["num_own_edge_features"] = channels(
            with_edges, "edge_features", self
        )
        learned["classes"], learned["class_names"] = classes_of(
            graphs, own_targets(graphs) if y is None else y, known, level
        )
        self.learned = learned
        learned["feature_statistics"] = statistics_of(
            self.node_features(graphs)
        )
        return self

    def read(
        self,
        graphs: Iterable[AnyGraph] | GraphDataset,
        level: Literal["graphs", "nodes"] | None = None,
    ) -> list[Graph]:
        """A list of `Graph`s, by `attributes`, from graphs of any library.

        Args:
            graphs: list of graphs.
            level: `"graphs"` or `"nodes"`, what the targets of a PyTorch
                Geometric `Data` belong to; `None` for what their shape shows.
        """
        values: Any = getattr(graphs, "graphs", graphs)
        return as_graphs(values, self.attributes, level=level)

    def __call__(
        self, graphs: Iterable[AnyGraph] | GraphDataset
    ) -> list[dict[str, np.ndarray]]:
        """What a model takes of each graph.

        Args:
            graphs: list of graphs of any library.

        Returns:
            A list of dicts of arrays: `nodes` `(nodes, num_features)`; in the
            dense form `kernel` `(kernels, nodes, nodes)` and, where edges have
            features, `edges` `(edges, 2)` and `edge_features` `(edges,
            num_edge_features)`; in that of pairs `pairs` `(2 + kernels,
            pairs)`, see `largest_pairs`, and `pair_features` `(pairs,
            num_edge_features + 1)`, zeros where there is no edge, and else 1
            at the end; in that of factors `factors` `(kernels, nodes, rank)`,
            and edges as in the dense form.

        Raises:
            ValueError: before `adapt`, or if a graph lacks what those of
                `adapt` had, has values that are not known, or directions or
                weights that those had not.
        """
        graphs = self.read(graphs)
        self.check(graphs)
        examples = [{"nodes": x} for x in self.node_features(graphs)]
        pairs = self.form == "pairs"
        key, function = KERNELS_IN_FORM[self.form]
        options = {"kind": self.kernel, "sizes": self.kernel_sizes}
        if pairs:
            options["count"] = self.pairs_per_node
        elif self.form == "factors":
            options["anchors"] = self.anchors
        labeled = "labeled_walk" in kinds_of(self.kernel)
        kernels = self._computed(
            graphs,
            function,
            self._kernel_labels if labeled else None,
            **options,
        )
        for k, (graph, example) in enumerate(
            zip(graphs, examples, strict=True)
        ):
            example[key] = kernels[k]
            if self.num_edge_features:
                features = self.edge_features(graph, f"graphs[{k}]")
                if pairs:
                    example["pair_features"] = at_pairs(
                        graph, features, kernels[k]
                    )
                else:
                    example["edges"] = graph.edge_index().T.astype("int32")
                    example["edge_features"] = features
        return examples

    def check(self, graphs: Sequence[Graph]) -> None:
        """Raises a ValueError unless `Graph`s are such as `adapt` has seen."""
        learned = self._learned()
        for k, graph in enumerate(graphs):
            name = f"graphs[{k}]"
            if not learned["directed"] and not graph.is_undirected():
                raise ValueError(
                    f"{name} expects edges in both directions, of one weight, "
                    "as the graphs of `adapt` have. Received: a directed graph"
                )
            if not learned["weighted"] and (graph.adjacency.data != 1).any():
                raise ValueError(
                    f"{name} expects edges of weight 1, as the graphs of "
                    "`adapt` have. Received: other weights"
                )
            self._own_features(graph, name)
            if self.num_edge_features:
                self.edge_features(graph, name)

    def node_features(self, graphs: Sequence[Graph]) -> list[np.ndarray]:
        """`(nodes, num_features)`, float32, of each of a list of `Graph`s."""
        learned = self._learned()
        parts = [[] for _ in graphs]
        for k, graph in enumerate(graphs):
            name = f"graphs[{k}]"
            parts[k] += self._own_features(graph, name)
            if learned["max_degree"] is not None:
                most = learned["max_degree"]
                for degrees in degrees_of(graph, learned["directed"]):
                    degrees = np.minimum(degrees, most)
                    parts[k].append(np.eye(most + 1, dtype="float32")[degrees])
        for wanted, function, options in (
            (self.degree_profile, degree_profile, {}),
            (self.clustering, clustering_coefficients, {}),
            (
                self.return_steps,
                return_probabilities,
                {"steps": self.return_steps},
            ),
            (
                self.eigenvectors,
                laplacian_eigenvectors,
                {"count": self.eigenvectors},
            ),
        ):
            if wanted:
                found = self._computed(graphs, function, **options)
                for part, columns in zip(parts, found, strict=True):
                    part.append(columns)
        return [
            np.concatenate(part, axis=1).astype("float32")
            if part
            else np.ones((graph.num_nodes, 1), "float32")
            for part, graph in zip(parts, graphs, strict=True)
        ]

    def _computed(self, graphs, function, labels_of=None, **options):
        """`compute_kernels`, of all graphs of a data set where it is known."""
        if self.shared is not None and self.shared.has(graphs):
            return self.shared.compute(graphs, function, labels_of, **options)
        labels = None if labels_of is None else labels_of(graphs)
        return compute_kernels(
            graphs, function, cache=self.cache, labels=labels, **options
        )

    def _kernel_labels(self, graphs):
        """What labeled walks compare, an int per node."""
        known = self._learned()["label_values"]
        if not known:
            return [degree_bins(graph.adjacency) for graph in graphs]
        places = {value: place for place, value in enumerate(known)}
        return [
            np.array(
                [places.get(label, -1) for label in graph.node_labels.tolist()]
            )
            for graph in graphs
        ]

    def _own_features(self, graph, name):
        """What a graph says of its nodes, a list of `(nodes, channels)`."""
        learned, parts = self._learned(), []
        if learned["label_values"]:
            parts.append(
                one_hot(
                    field_of(graph, "node_labels", name),
                    learned["label_values"],
                    self.unknown,
                    f"{name}: node_labels",
                )
            )
        if learned["num_own_features"]:
            width = learned["num_own_features"]
            parts.append(field_of_width(graph, "features", width, name))
        return parts

    def edge_features(self, graph: Graph, name: str = "graph") -> np.ndarray:
        """`(stored edges, num_edge_features)`, float32, of a `Graph`."""
        learned = self._learned()
        edges = graph.adjacency.nnz
        if not edges:
            return np.zeros((0, self.num_edge_features), "float32")
        parts = []
        if learned["edge_label_values"]:
            parts.append(
                one_hot(
                    field_of(graph, "edge_labels", name),
                    learned["edge_label_values"],
                    self.unknown,
                    f"{name}: edge_labels",
                )
            )
        if learned["num_own_edge_features"]:
            parts.append(
                field_of_width(
                    graph,
                    "edge_features",
                    learned["num_own_edge_features"],
                    name,
                )
            )
        if not parts:
            return np.ones((edges, 1), "float32")
        return np.concatenate(parts, axis=1)

    @property
    def form(self) -> Literal["dense", "pairs", "factors"]:
        """`"dense"`, `"pairs"` or `"factors"`."""
        return self._learned()["form"]

    @property
    def kernel(self) -> str:
        """The kind of the kernels."""
        return self.wanted_kernel or self._learned()["kernel"]

    @property
    def directed(self) -> bool:
        """Whether edges have directions."""
        return self._learned()["directed"]

    @property
    def weighted(self) -> bool:
        """Whether edges have weights."""
        return self._learned()["weighted"]

    @property
    def classes(self) -> list[Any] | None:
        """The values of the classes, in the order of the logits; or `None`."""
        return self._learned()["classes"]

    @property
    def class_names(self) -> list[str] | None:
        """The classes as strings; or `None`."""
        return self._learned()["class_names"]

    @property
    def feature_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and variance of each feature, two lists."""
        return self._learned()["feature_statistics"]

    @property
    def num_features(self) -> int:
        """Features of a node."""
        return len(self.feature_statistics[0])

    @property
    def num_edge_features(self) -> int:
        """Features of an edge; 0 where they have none."""
        learned = self._learned()
        values = learned["edge_label_values"] or []
        count = len(values) + (learned["num_own_edge_features"] or 0)
        return count or int(self.edges is True)

    @property
    def num_kernels(self) -> int:
        """Kernels of a graph."""
        return count_kernels(self.kernel, self.kernel_sizes)

    def model_arguments(self) -> dict[str, Any]:
        """Arguments of the functions of `keras_topo.models`, as learned.

        Returns:
            A dict: `num_features`, `num_kernels`, `num_edge_features`,
            `feature_statistics`, `batching`, and `num_classes` where targets
            are classes.

        Example:

        >>> from keras_topo.models import gkat_graph_classifier
        >>> train, _, _ = keras_topo.graphs.motif_dataset("cycle", (4, 1, 1))
        >>> preprocessor = GraphPreprocessor().adapt(train)
        >>> model = gkat_graph_classifier(**preprocessor.model_arguments())
        >>> model.output_shape
        (None, 2)
        """
        arguments = {
            "num_features": self.num_features,
            "num_kernels": self.num_kernels,
            "num_edge_features": self.num_edge_features,
            "feature_statistics": self.feature_statistics,
            "batching": BATCHING[self.form],
        }
        if self.form == "factors":
            arguments["rank"] = count_columns(self.kernel, self.anchors)
        if self.classes is not None:
            arguments["num_classes"] = len(self.classes)
        return arguments

    def get_config(self) -> dict[str, Any]:
        """Arguments and what was learned, values of JSON."""
        return {
            "attributes": self.attributes,
            "node_labels": self.node_labels,
            "features": self.features,
            "degrees": self.degrees,
            "largest_degree": self.largest_degree,
            "return_steps": self.return_steps,
            "eigenvectors": self.eigenvectors,
            "edges": self.edges,
            "kernel": self.wanted_kernel,
            "kernel_sizes": self.kernel_sizes,
            "form": self.wanted_form,
            "pairs_per_node": self.pairs_per_node,
            "unknown": self.unknown,
            "degree_profile": self.degree_profile,
            "clustering": self.clustering,
            "anchors": self.anchors,
            "learned": self.learned,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The preprocessor of a configuration, with what it has learned."""
        config = dict(config)
        learned = config.pop("learned", None)
        preprocessor = cls(**config)
        if learned is not None:
            # Where it was not to be learned, it may not be there.
            learned = {"kernel": preprocessor.wanted_kernel, **learned}
            if set(learned) != set(LEARNED):
                raise ValueError(
                    f"`config` expects {sorted(LEARNED)} as learned. Received: "
                    f"{sorted(learned)}"
                )
            preprocessor.learned = learned
        return preprocessor

    def __repr__(self) -> str:
        config = {k: v for k, v in self.get_config().items() if k != "learned"}
        text = ", ".join(f"{k}={v!r}" for k, v in config.items())
        state = "not adapted"
        if self.learned is not None:
            state = (
                f"{self.num_features} features, {self.num_kernels} kernels, "
                f"{self.form}"
            )
        return f"<GraphPreprocessor({text}): {state}>"

    def _learned(self) -> dict[str, Any]:
        if self.learned is None:
            raise ValueError(
                "GraphPreprocessor expects adapt(graphs) first. Received: one "
                "that is not adapted"
            )
        return self.learned
