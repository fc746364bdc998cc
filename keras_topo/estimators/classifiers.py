"""`GraphClassifier` and `NodeClassifier`."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_topo.estimators.base import Found, GraphEstimator, Graphs
from keras_topo.estimators.losses import (
    KnownBinaryAccuracy,
    KnownBinaryCrossentropy,
    SmoothedCrossentropy,
)
from keras_topo.estimators.options import non_negative


class _Classifier(GraphEstimator[Found]):
    def __init__(
        self,
        *args: Any,
        multi_label: bool | None = None,
        class_weight: Mapping[Any, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # What was asked for, and what the targets are.
        self._wanted_multi_label = multi_label
        self.multi_label = bool(multi_label)
        self.class_weight = None
        if class_weight is not None:
            if not isinstance(class_weight, Mapping):
                raise ValueError(
                    "`class_weight` expects a dict from classes to numbers. "
                    f"Received: class_weight={class_weight!r}"
                )
            self.class_weight = dict(class_weight)
            for name, weight in self.class_weight.items():
                non_negative(weight, f"class_weight[{name!r}]")

    @property
    def _outputs(self):
        return "multilabel" if self.multi_label else "classification"

    def _targets(self, graphs, y):
        targets = super()._targets(graphs, y)
        if targets is None or self.level == "nodes":
            return targets
        # One class each in an array of its own, as in PyTorch Geometric.
        arrays = [None if t is None else np.asarray(t) for t in targets]
        if all(a is not None and a.shape == (1,) for a in arrays):
            return [a[0] for a in arrays if a is not None]
        return targets

    def _weigh(self, train):
        """By the classes of targets."""
        if self.class_weight is None:
            return
        if self.multi_label:
            raise ValueError(
                "`class_weight` expects one class per graph or node. Received: "
                "several labels each"
            )
        classes = self.classes or []
        unknown = sorted(set(self.class_weight) - set(classes), key=str)
        if unknown:
            raise ValueError(
                f"`class_weight` expects a dict from classes, {classes}, "
                f"to numbers. Received: {unknown} among its keys"
            )
        weights = np.array(
            [self.class_weight.get(c, 1.0) for c in classes], "float32"
        )
        values = train.targets.values
        if train.targets.of_nodes:
            train.weigh([weights[ids] for ids in values])
        else:
            train.weigh(weights[values])

    def _prepare(self, targets):
        classes = self.preprocessor.classes
        if classes is not None and self._wanted_multi_label:
            raise ValueError(
                "`y` expects vectors of zeros and ones with multi_label=True. "
                f"Received: classes, {classes}"
            )
        if classes is not None:
            if len(classes) < 2:
                hint = " (-1 is unknown)" if targets.of_nodes else ""
                found = repr(classes[0]) if classes else "none"
                raise ValueError(
                    "`y` expects at least two classes. Received: only "
                    f"{found}{hint}"
                )
            self.multi_label = False
            return len(classes)
        values = targets.values
        values = np.concatenate(values) if targets.of_nodes else values
        known = values == values
        if values.ndim != 2 or not np.isin(values[known], (0, 1)).all():
            raise ValueError(
                "`y` expects classes, ints or strings, or vectors of zeros "
                "and ones, one for each of several labels. Received: other "
                f"numbers, such as {values.reshape(-1)[0]}"
            )
        one_each = known.all() and (values.sum(axis=1) == 1).all()
        wanted = self._wanted_multi_label
        if wanted is False:
            raise ValueError(
                "`y` expects classes with multi_label=False. Received: vectors "
                "of numbers"
            )
        if wanted is None and one_each and values.shape[1] > 1:
            raise ValueError(
                "`y` expects the indices of classes, such as `y.argmax(-1)`, "
                "or `multi_label=True` where a graph may have several labels. "
                "Received: vectors with a single one each"
            )
        self.multi_label = True
        return values.shape[1]

    def predict(self, graphs: Graphs) -> Found:
        """The class of each graph or node, or its labels.

        Returns:
            `(graphs,)`, values of the classes, or `(graphs, labels)`, zeros
            and ones, int; for nodes a list of `(nodes,)` or `(nodes, labels)`.
        """
        return self._each(self._decided, self.predict_raw(graphs))

    def predict_proba(self, graphs: Graphs) -> Found:
        """Probabilities of classes, or of labels, as `predict`."""
        return self._each(self._probabilities, self.predict_raw(graphs))

    @property
    def classes(self) -> list[Any] | None:
        """Values of the classes, in the order of probabilities."""
        return self.preprocessor.classes

    def _decided(self, logits):
        if self.multi_label:
            return (logits > 0).astype("int32")
        return np.array(self.classes)[logits.argmax(-1)]

    def _probabilities(self, logits):
        if self.multi_label:
            return keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))
        return keras.ops.convert_to_numpy(keras.ops.softmax(logits))

    def _loss(self):
        smoothing = self.training["label_smoothing"]
        if self.multi_label:
            return KnownBinaryCrossentropy(smoothing)
        if smoothing:
            return SmoothedCrossentropy(len(self.classes or ()), smoothing)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def _metrics(self):
        if self.multi_label:
            return [KnownBinaryAccuracy("accuracy")]
        return [keras.metrics.SparseCategoricalAccuracy("accuracy")]

    def _state(self):
        return {"multi_label": bool(self.multi_label)}

    def _restore(self, saved):
        self.multi_label = saved.get("multi_label", False)


class GraphClassifier(_Classifier[np.ndarray]):
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
        loss, metrics, optimizer, jit_compile: of `model.compile`, in place of
            cross-entropy, accuracy and AdamW. They are not saved in presets.
            The optimizer brings a learning rate of its own.
        verbose: of `model.fit`.
        multi_label: bool, whether `y` holds vectors of labels that do not
            exclude each other; `None` for what `y` shows.
        class_weight: dict from classes to factors of their loss in training,
            1 for others; or `None`.
        **options: `epochs`, `batch_size`, `learning_rate` (which rises over 5%
            of the updates and falls along a cosine), `weight_decay`,
            `clip_norm`, `label_smoothing` and `seed`; what remains goes to
            the function that builds the model, such as `depth` or `dropout`.

    `y` is a class per graph, an int or a string, or a vector of zeros and ones
    (NaN where unknown), one for each label.

    Raises:
        ValueError: if `model` or an option is unknown, or outside its range.

    Example:

    >>> import networkx
    >>> rings = [networkx.cycle_graph(n) for n in range(3, 11)]
    >>> paths = [networkx.path_graph(n) for n in range(3, 11)]
    >>> classifier = GraphClassifier(model="gin", epochs=20, verbose=0, depth=1)
    >>> classifier = classifier.fit(rings + paths, ["ring"] * 8 + ["path"] * 8)
    >>> classifier.predict([networkx.cycle_graph(12), networkx.path_graph(12)])
    array(['ring', 'path'], dtype='<U4')
    """

    task, level = "graphs", "graphs"


class NodeClassifier(_Classifier[list[np.ndarray]]):
    """Classifies the nodes of many graphs: see `GraphClassifier`.

    `y` is an array per graph: classes `(nodes,)`, -1 where unknown, or zeros
    and ones `(nodes, labels)`, NaN where unknown. What is unknown does not
    count.

    Example:

    >>> import networkx
    >>> paths = [networkx.path_graph(n) for n in (4, 5, 6)]
    >>> at_ends = [[1, *[0] * (len(path) - 2), 1] for path in paths]
    >>> classifier = NodeClassifier(model="gin", epochs=2, depth=1, verbose=0)
    >>> predicted = classifier.fit(paths, at_ends).predict(paths)
    >>> [classes.shape for classes in predicted]
    [(4,), (5,), (6,)]
    """

    task, level = "nodes of graphs", "nodes"
