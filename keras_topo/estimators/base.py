"""`GraphEstimator`: what the estimators of graphs have in common."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar

import keras
import numpy as np

from keras_topo._backend import compiles_by_default
from keras_topo.annotations import AnyGraph, StrPath
from keras_topo.callbacks import FollowEpochs
from keras_topo.estimators.options import (
    OF_THE_DATA,
    TRAINING,
    check_model,
    check_model_options,
    listed,
    options_of,
    seeded,
    training_options,
)
from keras_topo.graphs import GraphDataset, GraphPreprocessor, GraphSequence
from keras_topo.graphs.targets import own_targets
from keras_topo.models import MODELS, with_preprocessing
from keras_topo.models.graph_inputs import check_takes
from keras_topo.presets import (
    find_preset,
    from_preset,
    read_preprocessor,
    save_preset,
)
from keras_topo.presets.builders import BUILDERS, recipe_of

# Builders of models that preprocess graphs themselves.
WHOLE = ("with_edge_inputs", "from_graphs")
#: Graphs of any library.
Graphs: TypeAlias = Sequence[AnyGraph] | GraphDataset
#: Predictions: an array for graphs, a list of arrays for nodes.
Found = TypeVar("Found")
#: `verbose` of `keras.Model.fit`.
Verbose: TypeAlias = bool | int | Literal["auto"]
# Share of the updates in which the learning rate rises.
WARMUP = 0.05


class GraphEstimator(Generic[Found]):
    """What `GraphClassifier` and its relatives have in common."""

    task: str = ""
    level: Literal["graphs", "nodes"]

    def __init__(
        self,
        preprocessor: GraphPreprocessor | None = None,
        model: str | Callable[..., keras.Model] = "gkat",
        loss: Any = None,
        metrics: Any = None,
        optimizer: Any = None,
        jit_compile: bool | Literal["auto"] = "auto",
        verbose: Verbose = "auto",
        **options: Any,
    ) -> None:
        self.preprocessor = preprocessor or GraphPreprocessor()
        # `self.model` is the Keras model that is made of it.
        self.architecture: str | Callable[..., keras.Model] | None
        self.architecture = check_model(model)
        self.loss, self.metrics = loss, metrics
        self.optimizer, self.jit_compile = optimizer, jit_compile
        self.verbose = verbose
        self.training = training_options(
            {name: options.pop(name) for name in TRAINING if name in options}
        )
        check_model_options(model, options)
        self.model_options = options
        self.model: keras.Model | None = None
        self.history: keras.callbacks.History | None = None

    def __repr__(self) -> str:
        model = self._model_name() or "a function"
        fitted = "" if self.model is None else ", fitted"
        return f"{type(self).__name__}({model!r}{fitted})"

    def fit(
        self,
        graphs: Graphs,
        y: Any = None,
        validation_data: Graphs | tuple[Any, ...] | None = None,
        sample_weight: Any = None,
        callbacks: keras.callbacks.Callback
        | Iterable[keras.callbacks.Callback] = (),
        warm_start: bool = False,
    ) -> Self:
        """Trains a new model, or goes on with the present one.

        Random numbers of Keras and its backend follow from `seed`, from then
        on too; those of Python and NumPy go on afterwards as before.

        Args:
            graphs: list of graphs: `Graph`, networkx, PyTorch Geometric, DGL,
                adjacency matrices; or a `GraphDataset`.
            y: targets: see the class. Defaults to those of the graphs.
            validation_data: graphs that have targets, `(graphs, y)` or
                `(graphs, y, sample_weight)`; or `None`.
            sample_weight: `(graphs,)`; for nodes also a list of arrays
                `(nodes,)`; or `None`.
            callbacks: a Keras callback, or a list of them.
            warm_start: bool, whether to go on from the present weights, such
                as those of a preset, with the preprocessing as it is; classes
                must be among those that the model knows.

        Returns:
            The estimator itself, with `model`, `preprocessor` (a copy of the
            one that was given, adapted) and `history`.

        Raises:
            ValueError: if graphs or targets cannot be read, or do not fit
                together; or, with `warm_start`, without a model.
        """
        _check_listed(y, "y")
        _check_listed(sample_weight, "sample_weight")
        if validation_data is not None:
            validation_data = _validation(validation_data)
        with seeded(self.training["seed"]):
            self._fit(
                graphs,
                y,
                validation_data,
                sample_weight,
                listed(callbacks),
                warm_start,
            )
        return self

    def _fit(
        self, graphs, y, validation_data, sample_weight, callbacks, warm_start
    ):
        if warm_start:
            self._fitted()
        else:
            # Not the former one behind other preprocessing, if this fails.
            self.model = None
            config = {**self.preprocessor.get_config(), "learned": None}
            cache = self.preprocessor.cache
            self.preprocessor = GraphPreprocessor.from_config(config)
            self.preprocessor.cache = cache
        if not hasattr(graphs, "classes"):
            # Once: what is a `Graph` already is not read again.
            graphs = self._read(graphs)
        targets = self._targets(graphs, y)
        if targets is None:
            raise ValueError(
                "`y` expects one target per graph, or graphs that have them. "
                "Received: y=None, and graphs without"
            )
        builder = outputs = None
        if not warm_start:
            builder, kernel = self._builder()
            self.preprocessor.adapt(graphs, targets, kernel, self.level)
        train = self._sequence(graphs, y, sample_weight, shuffle=True)
        if not warm_start:
            outputs = self._prepare(train.targets)
        validation = None
        if validation_data is not None:
            try:
                validation = self._sequence(*validation_data)
            except ValueError as error:
                raise ValueError(f"`validation_data`: {error}") from error
        if not warm_start:
            self.model = self._build(builder, outputs)
        self._check_targets(train, "y")
        self._weigh(train)
        if validation is not None:
            self._check_targets(validation, "validation_data")
        model = self._fitted()
        self._compile(model, len(train))
        self.history = model.fit(
            train,
            epochs=self.training["epochs"],
            shuffle=False,
            validation_data=validation,
            callbacks=[FollowEpochs(train), *callbacks],
            verbose=self.verbose,
        )

    def evaluate(
        self, graphs: Graphs, y: Any = None, sample_weight: Any = None
    ) -> dict[str, float]:
        """Loss and metrics on graphs, a dict of floats."""
        model = self._fitted()
        sequence = self._sequence(graphs, y, sample_weight)
        self._check_targets(sequence, "y")
        if not model.compiled:
            self._compile(model, 1)
        found = model.evaluate(sequence, verbose=0, return_dict=True)
        return {name: float(value) for name, value in found.items()}

    def predict_raw(self, graphs: Graphs) -> Found:
        """The outputs of the model, in the order of the graphs.

        Returns:
            `(graphs, outputs)`, logits of classes and labels; for nodes a list
            of `(nodes, outputs)`.
        """
        model = self._fitted()
        graphs = self._read(graphs)
        found: Any = []
        if not graphs:
            empty: Any = np.zeros((0, model.output_shape[-1]), "float32")
            return empty if self.level == "graphs" else found
        sequence = self._sequence(graphs, False)
        if self.level == "graphs":
            return model.predict(sequence, verbose=0)
        for index in range(len(sequence)):
            (inputs,) = sequence[index]
            outputs = model.predict_on_batch(inputs)
            sizes = sequence.nodes_of(index)
            if sequence.joined:
                found += np.split(outputs[0, : sum(sizes)], np.cumsum(sizes))[
                    :-1
                ]
            else:
                found += [x[:n] for x, n in zip(outputs, sizes, strict=True)]
        return found

    def save(
        self,
        folder: StrPath,
        metrics: Mapping[str, Any] | None = None,
        card: str | None = None,
    ) -> Path | str:
        """Saves model and preprocessing as a preset: see `save_preset`."""
        self._fitted()
        described = {
            "task": self.task,
            "class_names": self.preprocessor.class_names,
            "graph_preprocessor": self.preprocessor.get_config(),
            "estimator": {
                "name": type(self).__name__,
                "model": self._model_name(),
                **self.training,
                **self._state(),
            },
        }
        return save_preset(self.model, folder, described, metrics, card)

    def export(self, path: StrPath, **options: Any) -> dict[str, Any]:
        """Writes a SavedModel that takes raw graphs, for TensorFlow Serving.

        Options, report and errors are those of `keras_topo.export`.
        """
        from keras_topo.export import export

        model, own = self.exportable()
        return export(model, path, **{**own, **options})

    def exportable(self) -> tuple[keras.Model, dict[str, Any]]:
        """The model with its preprocessing inside, and the options, a dict, of
        `keras_topo.export`."""
        self._fitted()
        whole = with_preprocessing(self.model, self.preprocessor)
        return whole, {"task": self._outputs}

    @classmethod
    def from_preset(
        cls,
        name_or_path: StrPath,
        attributes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """An estimator with a trained model: see `keras_topo.from_preset`.

        Args:
            name_or_path: as there.
            attributes: dict, what to read of graphs of other libraries, where
                attributes have other names than in training: see
                `GraphPreprocessor`.
            **options: `unknown` of the preprocessor, and arguments of the
                estimator, except those of the model: for example `epochs`, for
                a `fit` with `warm_start=True`. Without it, `fit` trains a new
                model that is built as this one.

        Raises:
            ValueError: if the preset is of another task, or does not say how
                graphs become inputs; or for an option of the model.

        Example:

        >>> mutag = keras_topo.GraphClassifier.from_preset("gkat-mutag")
        >>> ring = [[i, (i + 1) % 6] for i in range(6)]
        >>> carbons = keras_topo.graphs.Graph.from_edges(
        ...     ring, num_nodes=6, node_labels=[0] * 6
        ... )
        >>> mutag.predict([carbons]).shape
        (1,)
        """
        described = read_preprocessor(find_preset(name_or_path)) or {}
        config = described.get("graph_preprocessor")
        if config is None or described.get("task") != cls.task:
            raise ValueError(
                f"`name_or_path` expects a preset of the task {cls.task!r}, "
                f"with a graph_preprocessor. Received: {str(name_or_path)!r}, "
                f"of the task {described.get('task')!r}"
            )
        if attributes is not None:
            config = {**config, "attributes": dict(attributes)}
        if "unknown" in options:
            config = {**config, "unknown": options.pop("unknown")}
        saved = dict(described.get("estimator", {}))
        training = {name: saved[name] for name in TRAINING if name in saved}
        preprocessor = GraphPreprocessor.from_config(config)
        estimator = cls(preprocessor, **{**training, **options})
        of_the_model = sorted(
            {*estimator.model_options, *({"model"} & {*options})}
        )
        if of_the_model:
            raise ValueError(
                "`options` expects arguments of the estimator, without those "
                "of the model, which the preset has. Received: "
                f"{', '.join(of_the_model)}"
            )
        estimator._restore(saved)
        name = saved.get("model", "gkat")
        # `None` where its builder has no name, or is not imported here.
        estimator.architecture = name if name in MODELS else BUILDERS.get(name)
        model = from_preset(name_or_path)
        recipe = recipe_of(model)
        if recipe is not None and recipe.builder in WHOLE:
            # Of models that take edges, what comes after the preprocessing.
            model = model.layers[-1]
        estimator.model = model
        recipe = recipe_of(model)
        if recipe is not None:
            # So that `fit` builds this model again.
            estimator.model_options = options_of(
                recipe, {*OF_THE_DATA, *preprocessor.model_arguments()}
            )
        return estimator

    # What an estimator says of itself.

    _outputs = None  # What they are: a task of `export_graph_saved_model`.

    def _prepare(self, targets):
        """Learns what it needs of targets; returns the number of outputs."""
        raise NotImplementedError

    def _loss(self):
        raise NotImplementedError

    def _metrics(self):
        raise NotImplementedError

    def _weigh(self, train):
        """Gives examples of training other weights."""

    def _state(self):
        """What is saved beside the model."""
        return {}

    def _restore(self, saved):
        """Reads what `_state` gave."""

    # Parts.

    def _each(self, function, outputs) -> Any:
        """A function of the outputs for graphs, or for the nodes of each."""
        if self.level == "graphs":
            return function(outputs)
        return [function(x) for x in outputs]

    def _read(self, graphs):
        return self.preprocessor.read(graphs, self.level)

    def _targets(self, graphs, y):
        """Targets as a list, one per graph; `None` where there are none."""
        if y is None:
            if not hasattr(graphs, "classes"):
                graphs = self._read(graphs)
            y = own_targets(graphs, self.level)
            return None if all(target is None for target in y) else y
        return list(y)

    def _sequence(self, graphs, y=None, sample_weight=None, **options):
        if y is not False:
            y = self._targets(graphs, y)
        return GraphSequence(
            self._read(graphs),
            self.preprocessor,
            False if y is None else y,
            batch_size=self.training["batch_size"],
            sample_weight=sample_weight,
            seed=self.training["seed"],
            level=self.level,
            **options,
        )

    def _check_targets(self, sequence, name):
        """Raises a ValueError unless targets are as the model has them."""
        targets = sequence.targets
        if targets is None:
            raise ValueError(
                f"`{name}` expects targets, or graphs that have them. "
                "Received: graphs without"
            )
        if self.loss is not None:
            return  # Which knows what it takes.
        values = targets.values[0] if targets.of_nodes else targets.values
        classes = self.preprocessor.classes
        outputs = self._fitted().output_shape
        if classes is None and values.shape[1:] != outputs[-1:]:
            raise ValueError(
                f"`{name}` expects {outputs[-1]} values each, as the model "
                f"has. Received: the shape {values.shape}"
            )
        if classes is not None and values.ndim > 1:
            raise ValueError(
                f"`{name}` expects classes, of {classes}. Received: vectors of "
                f"{values.shape[1]} numbers"
            )

    def _builder(self):
        """The function that makes models, and the kernel that they take."""
        if isinstance(self.architecture, str):
            found = MODELS[self.architecture]
            return found.builder, found.kernel
        if self.architecture is None:
            raise ValueError(
                "fit expects a model of `keras_topo.models.MODELS`, or a "
                "function that builds one. Received: an estimator of a preset "
                "whose model was built by another function, which is not "
                "known here"
            )
        for found in MODELS.values():
            if found.builder is self.architecture:
                return found.builder, found.kernel
        return self.architecture, MODELS["gkat"].kernel

    def _model_name(self):
        """By which a preset knows how to build the model again; or `None`."""
        if isinstance(self.architecture, str):
            return self.architecture
        name = getattr(self.architecture, "__name__", None)
        if name is None or BUILDERS.get(name) is not self.architecture:
            return None
        return name

    def _build(self, builder, outputs):
        options = {
            **self.preprocessor.model_arguments(),
            "num_classes": outputs,
            "level": self.level,
            "seed": self.training["seed"],
            **self._model_options(),
            **self.model_options,
        }
        if builder is MODELS["gkat"].builder:
            options.setdefault("local", bool(options["num_edge_features"]))
        check_takes(builder, options)
        return builder(**options)

    def _model_options(self):
        return {}

    def _compile(self, model, steps_per_epoch):
        loss = self._loss() if self.loss is None else self.loss
        metrics = self._metrics() if self.metrics is None else self.metrics
        # Copies: an optimizer belongs to the variables of one model.
        model.compile(
            self._optimizer(steps_per_epoch),
            copy.deepcopy(loss),
            weighted_metrics=copy.deepcopy(metrics),
            jit_compile=compiles_by_default()
            if self.jit_compile == "auto"
            else self.jit_compile,
        )

    def _optimizer(self, steps_per_epoch):
        if self.optimizer is not None:
            given = keras.optimizers.get(self.optimizer)
            # Not a part of the configuration, and lost in a copy.
            if getattr(given, "_exclude_from_weight_decay_pattern", None):
                raise ValueError(
                    "`optimizer` expects one without "
                    "exclude_from_weight_decay. Received: one with names"
                )
            return type(given).from_config(given.get_config())
        options = self.training
        updates = steps_per_epoch * options["epochs"]
        warmup = int(WARMUP * updates)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else options["learning_rate"],
            max(1, updates - warmup),
            warmup_target=options["learning_rate"] if warmup else None,
            warmup_steps=warmup,
        )
        optimizer = keras.optimizers.AdamW(
            schedule,
            weight_decay=options["weight_decay"],
            global_clipnorm=options["clip_norm"],
        )
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer

    def _fitted(self) -> keras.Model:
        """The model, which there has to be."""
        if self.model is None:
            raise ValueError(
                f"{type(self).__name__} expects fit or from_preset first. "
                "Received: an estimator without a model"
            )
        return self.model


def _check_listed(values, name):
    """Raises a ValueError for one value where there is one per graph."""
    if values is not None and not isinstance(values, Iterable):
        raise ValueError(
            f"`{name}` expects one value per graph. Received: {values!r:.60}"
        )


def _validation(given):
    """`validation_data` as the arguments of `_sequence`."""
    if isinstance(given, tuple):
        if 1 <= len(given) <= 3:
            return given
    elif hasattr(given, "__len__"):
        return (given,)
    raise ValueError(
        "`validation_data` expects a list of graphs, (graphs, y) or (graphs, "
        f"y, sample_weight). Received: {type(given).__name__}"
        + (f" of {len(given)}" if isinstance(given, tuple) else "")
    )
