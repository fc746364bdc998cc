"""Models of graphs with `fit(graphs, y)` and `predict(graphs)`.

Each estimator holds a `GraphPreprocessor` and a Keras model, and takes lists
of graphs of any library.
"""

import keras
import numpy as np

from keras_topo.callbacks import FollowEpochs
from keras_topo.graphs import GraphPreprocessor, GraphSequence
from keras_topo.graphs.targets import own_targets
from keras_topo.models import MODELS, with_preprocessing
from keras_topo.presets import (
    find_preset,
    from_preset,
    read_preprocessor,
    save_preset,
)
from keras_topo.presets.builders import BUILDERS, recipe_of

# Arguments of training, and their defaults.
TRAINING = {
    "epochs": 100,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "clip_norm": 1.0,
    "label_smoothing": 0.0,
    "seed": 0,
}
# Builders of models that preprocess graphs themselves.
WHOLE = ("from_edges", "from_graphs")
# Share of the updates in which the learning rate rises.
WARMUP = 0.05


class GraphEstimator:
    """What `GraphClassifier` and its relatives have in common."""

    task = level = None

    def __init__(
        self, preprocessor=None, model="gkat", verbose="auto", **options
    ):
        self.preprocessor = preprocessor or GraphPreprocessor()
        # `self.model` is the Keras model that is made of it.
        self.architecture = _check_model(model)
        self.verbose = verbose
        self.training = {
            name: options.pop(name, default)
            for name, default in TRAINING.items()
        }
        self.model_options = options
        self.model = None
        self.history = None

    def fit(
        self,
        graphs,
        y=None,
        validation_data=None,
        sample_weight=None,
        callbacks=(),
    ):
        """Trains a new model.

        Args:
            graphs: list of graphs: `Graph`, networkx, PyTorch Geometric, DGL,
                adjacency matrices; or a `GraphDataset`.
            y: targets: see the class. Defaults to those of the graphs.
            validation_data: `(graphs, y)` or `(graphs,)`, or `None`.
            sample_weight: `(graphs,)`, or `None`.
            callbacks: Keras callbacks.

        Returns:
            The estimator itself, with `model`, `preprocessor` (a copy of the
            one that was given, adapted) and `history`.

        Raises:
            ValueError: if graphs or targets cannot be read, or do not fit
                together.
        """
        options = self.training
        keras.utils.set_random_seed(options["seed"])
        config = {**self.preprocessor.get_config(), "learned": None}
        cache = self.preprocessor.cache
        self.preprocessor = GraphPreprocessor.from_config(config)
        self.preprocessor.cache = cache
        if not hasattr(graphs, "classes"):
            # Once: what is a `Graph` already is not read again.
            graphs = self.preprocessor.read(graphs)
        targets = self._targets(graphs, y)
        if targets is None:
            raise ValueError(
                "`y` expects targets, or graphs that have them. Received: "
                "y=None, and graphs without"
            )
        builder, kernel = self._builder()
        self.preprocessor.adapt(graphs, targets, kernel)
        train = self._sequence(
            graphs, y, shuffle=True, sample_weight=sample_weight
        )
        outputs = self._prepare(train.targets)
        self.model = self._build(builder, outputs)
        trained = self._trained()
        self._compile(trained, len(train))
        validation = None
        if validation_data is not None:
            validation = self._sequence(*validation_data)
        for sequence in filter(None, (train, validation)):
            self._scale(sequence)
        self.history = trained.fit(
            train,
            epochs=options["epochs"],
            shuffle=False,
            validation_data=validation,
            callbacks=[FollowEpochs(train), *callbacks],
            verbose=self.verbose,
        )
        return self

    def evaluate(self, graphs, y=None):
        """Loss and metrics on graphs, a dict of floats, in units of `y`."""
        self._fitted()
        if not self.model.compiled:
            self._compile(self.model, 1)
        found = self.model.evaluate(
            self._sequence(graphs, y), verbose=0, return_dict=True
        )
        return {name: float(value) for name, value in found.items()}

    def predict_raw(self, graphs):
        """What the model gives for each graph, in their order.

        Returns:
            `(graphs, outputs)`; for nodes a list of `(nodes, outputs)`.
        """
        self._fitted()
        sequence = self._sequence(graphs, False)
        if self.level == "graphs":
            return self.model.predict(sequence, verbose=0)
        found = []
        for index in range(len(sequence)):
            (inputs,) = sequence[index]
            outputs = self.model.predict_on_batch(inputs)
            sizes = sequence.nodes_of(index)
            if sequence.joined:
                found += np.split(outputs[0, : sum(sizes)], np.cumsum(sizes))[
                    :-1
                ]
            else:
                found += [x[:n] for x, n in zip(outputs, sizes, strict=True)]
        return found

    def save(self, folder, metrics=None, card=None):
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

    def export(self, path, **options):
        """Writes a SavedModel that takes raw graphs, for TensorFlow Serving.

        Options, report and errors are those of
        `keras_topo.export_graph_saved_model`.
        """
        self._fitted()
        from keras_topo.export_graphs import export_graph_saved_model

        whole = with_preprocessing(self.model, self.preprocessor)
        options = {"task": self._outputs, **options}
        return export_graph_saved_model(whole, path, **options)

    @classmethod
    def from_preset(cls, name_or_path, attributes=None):
        """An estimator with a trained model: see `keras_topo.from_preset`.

        Args:
            name_or_path: as there.
            attributes: dict, what to read of graphs of other libraries, if it
                is not called as in training: see `GraphPreprocessor`.

        Raises:
            ValueError: if the preset is of another task, or does not say how
                graphs become inputs.
        """
        described = read_preprocessor(find_preset(name_or_path)) or {}
        config = described.get("graph_preprocessor")
        if config is None or described.get("task") != cls.task:
            raise ValueError(
                f"`name_or_path` expects a preset of the task {cls.task!r}, "
                f"with a graph_preprocessor. Received: {str(name_or_path)!r}, "
                f"of the task {described.get('task')!r}"
            )
        estimator = cls(GraphPreprocessor.from_config(config))
        if attributes is not None:
            estimator.preprocessor.attributes = dict(attributes)
        saved = dict(described.get("estimator", {}))
        for name in TRAINING:
            estimator.training[name] = saved.get(name, TRAINING[name])
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

    def _state(self):
        """What is saved beside the model."""
        return {}

    def _restore(self, saved):
        """Reads what `_state` gave."""

    def _scale(self, sequence):
        """Targets as the model that is trained has them."""

    def _trained(self):
        """The model that is trained."""
        return self.model

    # Parts.

    def _targets(self, graphs, y):
        """Targets as a list, one per graph; `None` where there are none."""
        if y is None:
            if not hasattr(graphs, "classes"):
                graphs = self.preprocessor.read(graphs)
            y = own_targets(graphs, self.level)
            return None if all(target is None for target in y) else y
        return list(y)

    def _sequence(self, graphs, y=None, **options):
        if y is not False:
            y = self._targets(graphs, y)
        return GraphSequence(
            graphs,
            self.preprocessor,
            False if y is None else y,
            batch_size=self.training["batch_size"],
            seed=self.training["seed"],
            level=self.level,
            **options,
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
        return name if BUILDERS.get(name) is self.architecture else None

    def _build(self, builder, outputs):
        p = self.preprocessor
        options = {
            "num_features": p.num_features,
            "num_classes": outputs,
            "num_kernels": p.num_kernels,
            "num_edge_features": p.num_edge_features,
            "feature_statistics": p.feature_statistics,
            "level": self.level,
            "batching": "joined" if p.form == "pairs" else "padded",
            "seed": self.training["seed"],
            **self._model_options(),
            **self.model_options,
        }
        if builder is MODELS["gkat"].builder:
            options.setdefault("local", bool(options["num_edge_features"]))
        return builder(**options)

    def _model_options(self):
        return {}

    def _compile(self, model, steps_per_epoch):
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
        model.compile(optimizer, self._loss(), weighted_metrics=self._metrics())

    def _fitted(self):
        if self.model is None:
            raise ValueError(
                f"{type(self).__name__} expects fit or from_preset before its "
                "use. Received: one without a model"
            )


def _check_model(model):
    if not callable(model) and (
        not isinstance(model, str) or model not in MODELS
    ):
        raise ValueError(
            f"`model` expects one of {tuple(MODELS)}, or a function that "
            f"builds one. Received: model={model!r}"
        )
    return model


class _Classifier(GraphEstimator):
    several_labels = False

    @property
    def _outputs(self):
        return "multilabel" if self.several_labels else "classification"

    def _prepare(self, targets):
        if self.preprocessor.classes is not None:
            if len(self.preprocessor.classes) < 2:
                raise ValueError(
                    "`y` expects at least two classes. Received: only "
                    f"{self.preprocessor.classes[0]!r}"
                )
            return len(self.preprocessor.classes)
        values = targets.values
        values = np.concatenate(values) if targets.of_nodes else values
        if values.ndim != 2 or not np.isin(values, (0, 1)).all():
            raise ValueError(
                "`y` expects classes, ints or strings, or vectors of zeros "
                "and ones for several labels. Received: other numbers"
            )
        self.several_labels = True
        return values.shape[1]

    def predict(self, graphs):
        """The class of each graph, or node; of several labels zeros and ones.

        Returns:
            `(graphs,)`, values of the classes, or `(graphs, labels)`, int; for
            nodes a list of `(nodes,)` or `(nodes, labels)`.
        """
        outputs = self.predict_raw(graphs)
        if self.level == "graphs":
            return self._decided(outputs)
        return [self._decided(x) for x in outputs]

    def predict_proba(self, graphs):
        """Probabilities of classes, or of labels, as `predict`."""
        outputs = self.predict_raw(graphs)
        if self.level == "graphs":
            return self._probabilities(outputs)
        return [self._probabilities(x) for x in outputs]

    @property
    def classes(self):
        """Values of the classes, in the order of probabilities."""
        return self.preprocessor.classes

    def _decided(self, logits):
        if self.several_labels:
            return (logits > 0).astype("int32")
        return np.array(self.classes)[logits.argmax(-1)]

    def _probabilities(self, logits):
        if self.several_labels:
            return keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    def _loss(self):
        smoothing = self.training["label_smoothing"]
        if self.several_labels:
            return keras.losses.BinaryCrossentropy(
                from_logits=True, label_smoothing=smoothing
            )
        if smoothing:
            return SmoothedCrossentropy(len(self.classes), smoothing)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def _metrics(self):
        if self.several_labels:
            return [keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)]
        return [keras.metrics.SparseCategoricalAccuracy("accuracy")]

    def _state(self):
        return {"several_labels": self.several_labels}

    def _restore(self, saved):
        self.several_labels = saved.get("several_labels", False)


class _Regressor(GraphEstimator):
    statistics = None
    _outputs = "regression"

    def _targets(self, graphs, y):
        targets = super()._targets(graphs, y)
        if targets is None:
            return None
        # Whole numbers are numbers, not classes; a single one is a vector.
        shape = (-1,) if self.level == "graphs" else (-1, 1)
        arrays = [
            None if t is None else np.asarray(t, "float32") for t in targets
        ]
        return [
            a.reshape(shape) if a is not None and a.ndim < len(shape) else a
            for a in arrays
        ]

    def _prepare(self, targets):
        values, known = targets.values, slice(None)
        if targets.of_nodes:
            values = np.concatenate(values)
            known = np.concatenate(targets.known)
        values = values[known]
        deviation = values.std(axis=0, dtype="float64")
        self.statistics = (
            values.mean(axis=0, dtype="float64").tolist(),
            np.where(deviation > 0, deviation, 1.0).tolist(),
        )
        return values.shape[1]

    def predict(self, graphs):
        """Numbers, `(graphs,)` or `(graphs, values)`; for nodes a list."""
        outputs = self.predict_raw(graphs)
        squeeze = len(self.statistics[0]) == 1
        if self.level == "graphs":
            return outputs[:, 0] if squeeze else outputs
        return [x[:, 0] if squeeze else x for x in outputs]

    def _scale(self, sequence):
        mean, deviation = map(np.array, self.statistics)

        def scaled(values):
            return ((values - mean) / deviation).astype("float32")

        targets = sequence.targets
        values = (
            [scaled(x) for x in targets.values]
            if targets.of_nodes
            else scaled(targets.values)
        )
        sequence.targets = type(targets)(values, targets.known)

    def _trained(self):
        return keras.Model(
            self.model.inputs, self.model.get_layer("logits").output
        )

    def _model_options(self):
        return {"target_statistics": self.statistics}

    def _loss(self):
        return keras.losses.MeanSquaredError()

    def _metrics(self):
        return [keras.metrics.MeanAbsoluteError("mean_absolute_error")]

    def _state(self):
        return {"statistics": self.statistics}

    def _restore(self, saved):
        self.statistics = saved.get("statistics")


class GraphClassifier(_Classifier):
    """Classifies graphs, into classes or by several labels each.

    Args:
        preprocessor: `GraphPreprocessor`, which need not be adapted; defaults
            to one that reads what `Graph`s hold.
        model: str, a key of `keras_topo.models.MODELS`, such as `"gkat"` or
            `"gin"`; or a function of `num_features`, `num_classes` and the
            other arguments of `keras_topo.models.gkat_graph_classifier` that
            returns a Keras model. Unless the preprocessor has a `kernel` of
            its own, it takes that of the model, or `"random_walk"` for other
            functions.
        verbose: of `model.fit`.
        **options: `epochs`, `batch_size`, `learning_rate` (which rises over 5%
            of the updates and falls along a cosine), `weight_decay`,
            `clip_norm`, `label_smoothing` and `seed`; what remains goes to
            the function that builds the model, such as `depth` or `dropout`.

    `y` is a class per graph, ints or strings, or a vector of zeros and ones.

    Example:

    >>> classifier = GraphClassifier(
    ...     GraphPreprocessor(attributes={"node_labels": "atom"}), epochs=50
    ... )
    >>> classifier.fit(molecules, toxic).predict([another])
    array([1])
    >>> baseline = GraphClassifier(model="gin", epochs=50, channels=32)

    Raises:
        ValueError: if `model` is unknown.
    """

    task, level = "graphs", "graphs"


class NodeClassifier(_Classifier):
    """Classifies the nodes of many graphs: see `GraphClassifier`.

    `y` is an array per graph: classes `(nodes,)`, -1 where unknown, or zeros
    and ones `(nodes, labels)`. Unknown ones do not count.
    """

    task, level = "nodes of graphs", "nodes"


class GraphRegressor(_Regressor):
    """Predicts numbers of graphs: see `GraphClassifier`.

    `y` is a number per graph or a vector of them. Training has them
    standardised; what is saved, served and predicted is in their own units.
    """

    task, level = "regression of graphs", "graphs"


class NodeRegressor(_Regressor):
    """Predicts numbers of the nodes of many graphs: see `GraphRegressor`.

    `y` is an array per graph, `(nodes,)` or `(nodes, values)`, NaN where
    unknown.
    """

    task, level = "regression of nodes", "nodes"


@keras.saving.register_keras_serializable(package="keras_topo")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits with classes, ints, and label smoothing."""

    def __init__(self, num_classes, smoothing, name="crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.num_classes, self.smoothing = num_classes, smoothing

    def call(self, y_true, y_pred):
        classes = keras.ops.one_hot(
            keras.ops.cast(y_true, "int32"), self.num_classes
        )
        return keras.losses.categorical_crossentropy(
            classes, y_pred, from_logits=True, label_smoothing=self.smoothing
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "smoothing": self.smoothing,
        }
