"""Models of the nodes of one graph, which is inside.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_topo.annotations import Tensor
from keras_topo.export.answers import Answers, task_of
from keras_topo.export.endpoints import require
from keras_topo.export.served import Case, Served


class ServedNodes(Served):
    """A model of the nodes of one graph: `serving_default` takes ids,
    `classify_features` other features of all nodes.

    Args:
        model, features, task, class_names: see
            `keras_topo.export_node_saved_model`.

    Raises:
        ValueError: if the model is not of this kind, or something else does
            not fit it.
    """

    def __init__(
        self,
        model: keras.Model,
        features: ArrayLike,
        task: str | None,
        class_names: Sequence[str] | None,
    ) -> None:
        import tensorflow as tf

        features = np.asarray(features, "float32")
        output = _check_model(model, features)
        task = task or task_of(model) or "classification"
        specs = {"ids": tf.TensorSpec((None,), tf.int32, "ids")}
        super().__init__(model, specs, Answers(task, output, class_names))
        self.features = features
        self.held = _Held(features)
        self.tracked = (self.held,)

    def checked(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        import tensorflow as tf

        ids, count = inputs["ids"], len(self.features)
        check = require(
            (ids >= 0) & (ids < count),
            f"`ids` expects nodes from 0 to {count - 1}. Received:",
            ids,
        )
        with tf.control_dependencies([check]):
            return {"ids": tf.identity(ids)}

    def at_least_one(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        return inputs  # No id is no reason to fail.

    def call(self, inputs: dict[str, Any]) -> Tensor:
        import tensorflow as tf

        return tf.gather(
            self._all(self.held.features()[None])[0], inputs["ids"]
        )

    def _all(self, nodes):
        """Outputs of all nodes of graphs."""
        return super().call(nodes)

    def endpoints(self) -> dict[str, Any]:
        import tensorflow as tf

        expected = (1, *self.features.shape)

        def classify_features(nodes):
            # The signature declares no shape: a loaded one does not hold what
            # it gets against its spec, and TensorFlow would take the check
            # below for known to pass, and answer to two sets of features with
            # one.
            checks = [
                tf.debugging.Assert(
                    tf.reduce_all(tf.shape(nodes) == expected),
                    [f"`nodes` expects the shape {expected}. Received:"]
                    + [tf.shape(nodes)],
                ),
                tf.debugging.assert_all_finite(
                    nodes, "`nodes` expects finite features. Received"
                ),
            ]
            with tf.control_dependencies(checks):
                nodes = tf.identity(nodes)
            # Known now; an operation that ensured it could run before the
            # checks.
            nodes.set_shape(expected)
            return self.answers(self._all(nodes))

        nodes = tf.TensorSpec((None, None, None), tf.float32, "nodes")
        return {
            **super().endpoints(),
            "classify_features": (classify_features, [nodes]),
        }

    def batches(self) -> list[dict[str, np.ndarray]]:
        random = np.random.default_rng(0)
        ids = [], [0], random.integers(0, len(self.features), 50)
        return [{"ids": np.asarray(x, "int32")} for x in ids]

    def cases(self) -> list[Case]:
        import tensorflow as tf

        with tf.device("CPU:0"):
            own = np.asarray(self._all(self.features[None]))[0]
            random = np.random.default_rng(0)
            other = random.permutation(self.features)[None]
            others = np.asarray(self._all(other))
        found = [
            Case("serving_default", inputs, own[inputs["ids"]])
            for inputs in self.batches()
        ]
        return [*found, Case("classify_features", {"nodes": other}, others)]

    def warmup(
        self, cases: Sequence[Case]
    ) -> list[tuple[str, dict[str, np.ndarray]]]:
        # Not features of all nodes: they may take a lot of space.
        return [("serving_default", {"ids": np.zeros(1, "int32")})]

    def files(self) -> list[tuple[str, str]]:
        kept = {"task": self.answers.task, "class_names": self.answers.names}
        return [("assets.extra/preprocessor.json", json.dumps(kept) + "\n")]


class _Held(keras.layers.Layer):
    """Features that belong to an artefact, as weights: no constant of a graph
    may have more than 2 GB. Of bags of words only what is not zero is kept."""

    def __init__(self, array):
        super().__init__(name="graph")
        self.shape = array.shape
        places = np.argwhere(array)
        self.is_sparse = 4 * len(places) < array.size
        if self.is_sparse:
            self.places = self._weight("places", places.astype("int32"))
            array = array[tuple(places.T)]
        self.values = self._weight("features", array)
        self.built = True

    def _weight(self, name, array):
        weight = self.add_weight(
            name=name,
            shape=array.shape,
            dtype=str(array.dtype),
            trainable=False,
        )
        weight.assign(array)
        return weight

    def features(self):
        """`(nodes, features)`, dense."""
        import tensorflow as tf

        values = tf.convert_to_tensor(self.values)
        if not self.is_sparse:
            return values
        return tf.scatter_nd(
            tf.convert_to_tensor(self.places), values, self.shape
        )

    def call(self, inputs):
        return inputs


def _check_model(model, features):
    """The output of a model, or the reason it is not one of nodes."""
    shapes: list[Any] = [None, None]
    if isinstance(model, keras.Model) and getattr(model, "outputs", None):
        shapes = [model.input_shape, model.output_shape]
    if not all(isinstance(s, tuple) and len(s) == 3 and s[-1] for s in shapes):
        raise ValueError(
            "`model` expects a built keras.Model from nodes (batch, nodes, "
            "features) to logits (batch, nodes, classes). Received: "
            f"model={model!r}"
        )
    channels = shapes[0][-1]
    if features.ndim != 2 or features.shape[1] != channels:
        raise ValueError(
            f"`features` expects the shape (nodes, {channels}). Received: "
            f"features of shape {features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError(
            "`features` expects finite numbers. Received: NaN or infinity"
        )
    return model.outputs[0]
