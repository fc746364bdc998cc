"""`LinkPredictor`: which pairs of the nodes of one graph are linked."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_topo._backend import compiles_by_default
from keras_topo.annotations import AnyGraph, StrPath
from keras_topo.arguments import one_of, positive, rate
from keras_topo.callbacks import FollowEpochs
from keras_topo.estimators.options import (
    check_options,
    listed,
    optimizer_options,
    options_of,
    seed_option,
    seeded,
)
from keras_topo.graphs.any_graph import library_of
from keras_topo.graphs.largest import kinds_of, largest_pairs
from keras_topo.graphs.links import (
    check_pairs,
    edges_of,
    is_directed,
    split_edges,
)
from keras_topo.graphs.preprocessor import GraphPreprocessor
from keras_topo.link_batches import (
    LinkBatches,
    ValidateLinks,
    check_edges,
    not_drawn,
    rankings,
)
from keras_topo.models import gkat_link_predictor
from keras_topo.presets import (
    find_preset,
    from_preset,
    read_preprocessor,
    save_preset,
)
from keras_topo.presets.builders import BUILDERS, recipe_of

ENCODERS = ("gkat", "gkat-modern", "gcn")
DECODERS = ("auto", "dot", "hadamard", "concat")
# Folds of a graph that is not too small for them.
FOLDS = 10
# Arguments of training, and their defaults.
TRAINING = {
    "epochs": 100,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "folds": None,
    "negatives": 1,
    "validation_share": 0.05,
    "patience": 20,
    "seed": 0,
}
# What the predictor tells the function that builds the model.
OF_THE_GRAPH = {
    "num_features",
    "graph_kernel",
    "num_kernels",
    "encoder",
    "decoder",
    "feature_statistics",
    "seed",
}
# Kernels without entries beyond edges and the diagonal, all of which are kept.
LOCAL = ("neighbors", "normalized")


class LinkPredictor:
    """Predicts links of one graph from its other links and its features.

    A model is trained to tell edges from random pairs without an edge: as
    many pairs as edges, or `negatives` times as many, drawn anew each epoch.
    An edge must not be in the kernel that it is predicted from, because the
    edges to come are not in it either. So the edges are divided into `folds`,
    and those of one fold are predicted from the kernel and the node features
    of the graph without them. An epoch is one update per fold, and each edge
    is predicted once. The trained model uses all edges.

    A share of the edges is held out, and the epoch with the best average
    precision on them and as many random pairs is kept. None of these pairs is
    among those that training draws, if there are others.

    Args:
        preprocessor: `GraphPreprocessor`, which need not be adapted: features
            of nodes, and the kernel, of which it keeps the largest entries.
            Defaults to what the graph holds, or degrees where it holds
            nothing, and random walks of 2 and 3 nodes, 32 entries per node; for
            `"gcn"` the kernel `"normalized"`.
        encoder: `"gkat"`, `"gkat-modern"` or `"gcn"`: see
            `keras_topo.models.gkat_link_predictor`.
        decoder: `"dot"`, `"hadamard"` or `"concat"`; `"auto"` for
            `"hadamard"`, and `"concat"` where the graph is directed.
        build: function of the arguments of `gkat_link_predictor`, the default,
            that returns a Keras model.
        verbose: of `model.fit`.
        **options: `epochs`, at most; `learning_rate` and `weight_decay` of
            AdamW; `clip_norm`; `folds`, by default 10, or as many as there
            are pairs of edges, and 1 for kernels that hold the edges to
            be predicted; `negatives`; `validation_share`, 0 for no validation;
            `patience`, epochs without a better one; and `seed`. What remains
            goes to `build`, such as `depth` or `dropout`.

    Raises:
        ValueError: if an option is outside its range.

    *Complexity*: `folds + 2` kernels, and `folds` passes of the model over the
    nodes and over `edges / folds * (1 + negatives)` pairs per epoch.

    Example:

    >>> import networkx
    >>> split = keras_topo.graphs.split_edges(networkx.karate_club_graph())
    >>> predictor = LinkPredictor(epochs=2, folds=2, verbose=0)
    >>> predictor = predictor.fit(split.graph)
    >>> found = predictor.evaluate(split.test, split.test_negatives, hits=[2])
    >>> sorted(found)
    ['average_precision', 'hits@2', 'roc_auc']
    """

    task = "links"

    def __init__(
        self,
        preprocessor: GraphPreprocessor | None = None,
        encoder: Literal["gkat", "gkat-modern", "gcn"] = "gkat",
        decoder: Literal["auto", "dot", "hadamard", "concat"] = "auto",
        build: Callable[..., keras.Model] | None = None,
        verbose: bool | int | Literal["auto"] = "auto",
        **options: Any,
    ) -> None:
        self.encoder = one_of(encoder, "encoder", ENCODERS)
        self.decoder = one_of(decoder, "decoder", DECODERS)
        if preprocessor is None:
            preprocessor = GraphPreprocessor(
                return_steps=0,
                kernel_sizes=(2, 3),
                cache=False,  # Kernels of folds are used once.
            )
        wanted = preprocessor.wanted_kernel
        if encoder == "gcn" and wanted not in (None, "normalized"):
            raise ValueError(
                "`preprocessor` expects kernel='normalized' or None with the "
                f"encoder 'gcn'. Received: kernel={wanted!r}"
            )
        self.preprocessor = preprocessor
        self.build = build
        self._builder_is_known = True
        self.verbose = verbose
        self.training = {
            name: options.pop(name, default)
            for name, default in TRAINING.items()
        }
        for name in ("epochs", "folds", "negatives", "patience"):
            self.training[name] = positive(
                self.training[name], name, optional=name == "folds"
            )
        self.training |= optimizer_options(self.training)
        self.training["seed"] = seed_option(self.training["seed"])
        rate(self.training["validation_share"], "validation_share")
        check_options(self._builder(), options, {*TRAINING}, OF_THE_GRAPH)
        self.model_options = options
        self.model: keras.Model | None = None
        self.history: keras.callbacks.History | None = None
        self._nodes: np.ndarray | None = None
        self._names: dict[Any, int] | None = None

    def fit(
        self,
        graph: AnyGraph,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        callbacks: keras.callbacks.Callback
        | Iterable[keras.callbacks.Callback] = (),
    ) -> Self:
        """Trains a new model.

        Random numbers of Keras and its backend follow from `seed`, from then
        on too; those of Python and NumPy go on afterwards as before.

        Args:
            graph: the graph with its known edges: `Graph`, networkx, PyTorch
                Geometric, DGL or an adjacency matrix.
            validation_data: `(positive, negative)`, pairs that are edges of
                the truth but not of `graph`, and pairs that are none; instead
                of a share of the edges.
            callbacks: a Keras callback, or a list of them.

        Returns:
            The estimator itself, with `model`, `preprocessor` (a copy of the
            one that was given, adapted) and `history`.

        Raises:
            ValueError: if the graph cannot be read, has too few edges, or
                pairs are none of its nodes; or if `decoder="concat"` meets a
                graph that is not directed; or of a preset whose model was
                built by a function that is not known.
        """
        self._builder()  # Fail now, if it is not known.
        with seeded(self.training["seed"]):
            self._fit(graph, validation_data, listed(callbacks))
        return self

    def _fit(self, graph, validation_data, callbacks):
        options = self.training
        # Not the former one with other names, if this fails.
        self.model = None
        self._copy_preprocessor()
        self._names = names_of(graph)
        (graph,) = self.preprocessor.read([graph])
        directed = is_directed(graph)
        if self.decoder == "concat" and not directed:
            raise ValueError(
                "`decoder='concat'` expects a directed graph, where the order "
                "of a pair counts. Received: one that is not"
            )
        known, held_out = self._held_out(graph, directed, validation_data)
        kernel = "normalized" if self.encoder == "gcn" else "random_walk"
        self.preprocessor.adapt([known], kernel=kernel)
        folds = options["folds"]
        if folds is None:
            edges = len(edges_of(known, directed))
            folds = max(1, min(FOLDS, edges // 2))
        batches = LinkBatches(
            known,
            self._inputs,
            folds=folds,
            negatives=options["negatives"],
            seed=options["seed"],
            directed=directed,
            excluded=not_drawn(known, directed, held_out),
        )
        trained = self._compiled(directed)
        watching = [FollowEpochs(batches)]
        if held_out is not None:
            watching += [
                ValidateLinks(self._inputs(known), *held_out),
                keras.callbacks.EarlyStopping(
                    "val_average_precision",
                    mode="max",
                    patience=options["patience"],
                    restore_best_weights=True,
                ),
            ]
        self.history = trained.fit(
            batches,
            epochs=options["epochs"],
            shuffle=False,
            callbacks=[*watching, *callbacks],
            verbose=self.verbose,
        )
        self.model = self._build(self._kernel(graph), directed)
        _copy_weights(trained, self.model)
        self._use(graph)

    def predict_raw(self, pairs: ArrayLike) -> np.ndarray:
        """Logits of pairs of nodes.

        Args:
            pairs: `(pairs, 2)`, nodes: their names where the graph is one of
                networkx, and else their numbers; of a directed graph sources
                and targets.

        Returns:
            `(pairs,)`, float32.

        Raises:
            ValueError: before `fit`, or if these are no pairs of nodes.
        """
        if self.model is None or self._nodes is None:
            raise ValueError(
                "LinkPredictor expects fit or from_preset first. Received: a "
                "predictor without a model"
            )
        pairs = self._ids(pairs, len(self._nodes[0]))
        if not len(pairs):
            return np.zeros(0, "float32")
        inputs = {"nodes": self._nodes, "pairs": pairs[None].astype("int32")}
        return np.asarray(self.model.predict_on_batch(inputs))[0]

    def predict(self, pairs: ArrayLike) -> np.ndarray:
        """Whether pairs of nodes are linked: probabilities above 1/2.

        Args:
            pairs: as in `predict_raw`.

        Returns:
            `(pairs,)`, bool.

        Raises:
            ValueError: as `predict_raw`.
        """
        return self.predict_raw(pairs) > 0

    def predict_proba(self, pairs: ArrayLike) -> np.ndarray:
        """Probabilities that pairs of nodes are linked.

        They are those among examples as in training: one edge to `negatives`
        random pairs.

        Args:
            pairs: as in `predict_raw`.

        Returns:
            `(pairs,)`, float32.

        Raises:
            ValueError: as `predict_raw`.
        """
        # Of either sign, without overflow.
        return 0.5 + 0.5 * np.tanh(0.5 * self.predict_raw(pairs))

    def evaluate(
        self,
        positive: ArrayLike,
        negative: ArrayLike,
        hits: Iterable[int] = (20, 50, 100),
    ) -> dict[str, float]:
        """How well pairs that are linked are told from others.

        Args:
            positive, negative: `(pairs, 2)`, pairs that are linked, and not.
            hits: ints, the `k` of Hits@k: see `keras_topo.graphs.hits_at`.

        Returns:
            A dict of floats: `average_precision`, `roc_auc`, `hits@20`, ...

        Raises:
            ValueError: as `predict_raw`, or if one of the two is empty.
        """
        scores = self.predict_raw(positive), self.predict_raw(negative)
        return rankings(*scores, hits)

    def save(
        self,
        folder: StrPath,
        metrics: Mapping[str, Any] | None = None,
        card: str | None = None,
    ) -> Path | str:
        """Saves model and preprocessing as a preset: see `save_preset`.

        The preset holds the kernel of the graph, but not the features of its
        nodes.
        """
        if self.model is None:
            raise ValueError(
                "LinkPredictor expects fit before save. Received: one without "
                "a model"
            )
        described = {
            "task": self.task,
            "graph_preprocessor": self.preprocessor.get_config(),
            "estimator": {
                "name": type(self).__name__,
                "encoder": self.encoder,
                "decoder": self.decoder,
                **self.training,
            },
        }
        return save_preset(self.model, folder, described, metrics, card)

    @classmethod
    def from_preset(
        cls,
        name_or_path: StrPath,
        graph: AnyGraph,
        attributes: Mapping[str, Any] | None = None,
    ) -> Self:
        """An estimator with a trained model: see `keras_topo.from_preset`.

        Args:
            name_or_path: as there.
            graph: the graph that `fit` was given, for the features of its
                nodes. The kernel is that of the preset, whatever edges are in
                this graph, unless features come from edges.
            attributes: dict, what to read of graphs of other libraries, if it
                is not called as in training: see `GraphPreprocessor`.

        Raises:
            ValueError: if the preset is of another task, or the graph has
                other features, or other than as many nodes.
        """
        described = read_preprocessor(find_preset(name_or_path)) or {}
        config = described.get("graph_preprocessor")
        if config is None or described.get("task") != cls.task:
            raise ValueError(
                f"`name_or_path` expects a preset of the task {cls.task!r}, "
                f"with a graph_preprocessor. Received: {str(name_or_path)!r}, "
                f"of the task {described.get('task')!r}"
            )
        saved = described.get("estimator", {})
        preprocessor = GraphPreprocessor.from_config(config)
        preprocessor.cache = False
        if attributes is not None:
            preprocessor.attributes = dict(attributes)
        estimator = cls(
            preprocessor,
            **{k: saved[k] for k in ("encoder", "decoder") if k in saved},
            **{k: saved[k] for k in TRAINING if k in saved},
        )
        estimator.model = from_preset(name_or_path)
        estimator._names = names_of(graph)
        (graph,) = preprocessor.read([graph])
        # A model of a function of one's own need not say which kernel it has.
        recipe = recipe_of(estimator.model)
        kernel = recipe and recipe.arguments.get("graph_kernel")
        if kernel and graph.num_nodes != kernel["num_nodes"]:
            raise ValueError(
                f"`graph` expects the {kernel['num_nodes']} nodes of the graph "
                f"of fit. Received: {graph.num_nodes}"
            )
        # So that `fit` builds this model again.
        estimator.build = recipe and BUILDERS.get(recipe.builder)
        estimator._builder_is_known = estimator.build is not None
        if recipe is not None:
            estimator.model_options = options_of(recipe, OF_THE_GRAPH)
        estimator._use(graph)
        return estimator

    # Parts.

    def _copy_preprocessor(self):
        config = {**self.preprocessor.get_config(), "learned": None}
        cache = self.preprocessor.cache
        self.preprocessor = GraphPreprocessor.from_config(config)
        self.preprocessor.cache = cache

    def _held_out(self, graph, directed, validation_data):
        """The graph to learn from, and pairs, linked and not, for validation;
        `None` without validation."""
        edges = check_edges(graph, directed)
        if validation_data is not None:
            return graph, self._pairs_of(validation_data, graph.num_nodes)
        share = self.training["validation_share"]
        if not share:
            return graph, None
        # At least one edge, of however few, and two for training.
        share = max(share, 1 / edges)
        if edges < 3:
            raise ValueError(
                "`graph` expects at least three edges, one of them for "
                "validation, or validation_share=0. Received: "
                f"{edges} edges"
            )
        split = split_edges(graph, (1 - share, share, 0), self.training["seed"])
        return split.graph, (split.validation, split.validation_negatives)

    def _pairs_of(self, validation_data, num_nodes):
        """`validation_data` as ids of nodes."""
        is_pair = isinstance(validation_data, (tuple, list))
        if not is_pair or len(validation_data) != 2:
            raise ValueError(
                "`validation_data` expects (positive, negative), pairs that "
                "are linked and pairs that are not. Received: "
                f"{type(validation_data).__name__}"
                + (f" of {len(validation_data)}" if is_pair else "")
            )
        found = []
        for pairs, kind in zip(
            validation_data, ("positive", "negative"), strict=True
        ):
            try:
                found.append(self._ids(pairs, num_nodes))
            except ValueError as error:
                raise ValueError(
                    f"`validation_data`, {kind} pairs: {error}"
                ) from error
            if not len(found[-1]):
                raise ValueError(
                    f"`validation_data` expects {kind} pairs. Received: none"
                )
        return tuple(found)

    def _compiled(self, directed):
        """A model that takes kernels as inputs, with its optimizer."""
        options = self.training
        model = self._build(None, directed)
        optimizer = keras.optimizers.AdamW(
            options["learning_rate"],
            weight_decay=options["weight_decay"],
            global_clipnorm=options["clip_norm"],
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        model.compile(
            optimizer,
            keras.losses.BinaryCrossentropy(True),
            jit_compile=compiles_by_default(),
        )
        return model

    def _ids(self, pairs, num_nodes):
        """Pairs of names, or numbers, of nodes as numbers."""
        if self._names is None:
            return check_pairs(pairs, num_nodes)
        if hasattr(pairs, "tolist"):
            pairs = pairs.tolist()
        try:
            pairs = [(self._names[u], self._names[v]) for u, v in pairs]
        except (KeyError, TypeError, ValueError):
            some = ", ".join(map(repr, list(self._names)[:3]))
            raise ValueError(
                f"`pairs` expects pairs of nodes of the graph, such as {some}. "
                f"Received: {pairs!r:.200}"
            ) from None
        return check_pairs(np.array(pairs), num_nodes)

    def _use(self, graph):
        """Takes the features of nodes for predictions."""
        self._nodes = self.preprocessor.node_features([graph])[0][None]

    def _kernel(self, graph):
        """The kernel of a graph as pairs: see `keep_largest`."""
        p = self.preprocessor
        count = p.pairs_per_node
        if p.kernel in LOCAL:
            count = int(np.diff(graph.adjacency.indptr).max()) + 1
        labels = None
        if "labeled_walk" in kinds_of(p.kernel):
            (labels,) = p._kernel_labels([graph])
        found = largest_pairs(graph, p.kernel, p.kernel_sizes, count, labels)
        return {
            "pairs": found[:2].T.astype("int32"),
            "pair_values": found[2:],
            "num_nodes": graph.num_nodes,
        }

    def _inputs(self, graph):
        """What a model without a fixed kernel takes of a graph."""
        kernel = self._kernel(graph)
        return {
            "nodes": self.preprocessor.node_features([graph])[0],
            "kernel_pairs": kernel["pairs"],
            "kernel_values": kernel["pair_values"],
        }

    def _build(self, graph_kernel, directed):
        p = self.preprocessor
        decoder = self.decoder
        if decoder == "auto":
            decoder = "concat" if directed else "hadamard"
        options = {
            "num_features": p.num_features,
            "graph_kernel": graph_kernel,
            "num_kernels": p.num_kernels,
            "encoder": self.encoder,
            "decoder": decoder,
            "feature_statistics": p.feature_statistics,
            "seed": self.training["seed"],
            **self.model_options,
        }
        return self._builder()(**options)

    def _builder(self):
        if not self._builder_is_known:
            raise ValueError(
                "fit expects a `build` that is known here. Received: an "
                "estimator of a preset whose model was built by another "
                "function"
            )
        return gkat_link_predictor if self.build is None else self.build


def names_of(graph: AnyGraph) -> dict[Any, int] | None:
    """Numbers of the nodes of a graph of networkx by their names.

    `None` where these are the numbers, or there are no names.
    """
    if library_of(graph) != "networkx":
        return None
    names = {name: k for k, name in enumerate(graph)}
    return None if all(name == k for name, k in names.items()) else names


def _copy_weights(trained, model):
    """Gives a model with a kernel of its own the weights of one without."""
    for layer in trained.layers:
        # Inputs of the kernel are no layers of the other model, which holds the
        # kernel among the weights of its attention.
        if not layer.weights:
            continue
        known = {w.path: w for w in layer.weights}
        for weight in model.get_layer(layer.name).weights:
            if weight.path in known:
                weight.assign(known.pop(weight.path))
        if known:
            raise RuntimeError(
                "The model with a kernel of its own expects all weights of the "
                f"trained one. Received: {sorted(known)} left over"
            )
