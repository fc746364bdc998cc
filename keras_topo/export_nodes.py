"""SavedModels of node classifiers, whose graph is inside."""

import json

import keras
import numpy as np

from keras_topo.export_tasks import Answers
from keras_topo.saved_models import (
    Comparison,
    add_endpoints,
    answers_of_a_clean_process,
    check_backend,
    check_path,
    check_tolerance,
    require,
    write_verified,
)


def export_node_saved_model(
    model,
    path,
    features,
    *,
    task="classification",
    class_names=None,
    overwrite=False,
    verify=True,
    tolerance=None,
):
    """Writes a classifier of the nodes of one graph for serving.

    The graph is in the model, as a fixed kernel, and the features of its nodes
    go into the artefact: a client sends node ids. Signatures:

    - `serving_default`
        - `ids`: int32 `(batch,)`, nodes of the graph, in any order, repeated
          or not; an empty batch has an empty answer.
        - returns `logits` and `probabilities`, float32 `(batch, classes)`,
          and `class`, string `(batch,)`, where classes have names; or what
          else follows from the task: see `export_graph_saved_model`.
    - `classify_features`
        - `nodes`: float32 `(1, nodes, features)`, other features for all of
          the graph's nodes.
        - returns the same for all nodes, `(1, nodes, classes)`.

    Features are those that the model takes: raw ones of models of
    `keras_topo.models.l1_normalized`. An id that no node has, and features that
    are not finite, so large that an answer would not be, or not as many as
    there are nodes, are `InvalidArgumentError`s that name the input. The
    folder appears under `path` complete or not at all.

    Args:
        model: a Keras model from nodes `(batch, nodes, features)` to logits
            `(batch, nodes, classes)`: see
            `keras_topo.models.gkat_node_classifier`.
        path: the folder to write; as in `export_saved_model`.
        features: `(nodes, features)`, those of the model's graph.
        task: `"classification"`, `"multilabel"` or `"regression"`.
        class_names: one string per class or label, or `None`. They are in
            `assets.extra/preprocessor.json` as well.
        overwrite, verify, tolerance: as in `export_saved_model`.

    Returns:
        A dictionary that `json.dumps` takes, as `export_saved_model`.

    Raises:
        ValueError: if the model is not of the kind above, or the features are
            not what it takes.
        FileExistsError, RuntimeError: as `export_saved_model`.
    """
    check_backend()
    features = np.asarray(features, "float32")
    answers = Answers(task, _check_model(model, features), class_names)
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, model)

    archive = keras.export.ExportArchive()
    archive.track(model)
    held = _Held(features)
    archive.track(held)
    described = _add_signatures(archive, model, held, features.shape, answers)

    def check(folder):
        return _verify(folder, model, features, answers, tolerance)

    return write_verified(
        archive,
        path,
        {"signatures": described, **answers.report()},
        check if verify else None,
        tolerance,
        files=[
            (
                "assets.extra/preprocessor.json",
                json.dumps({"task": task, "class_names": answers.names}) + "\n",
            )
        ],
        # Not features of all nodes: they may take a lot of space.
        warmup=[("serving_default", {"ids": np.zeros(1, "int32")})],
    )


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
    shapes = [None, None]
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


def _add_signatures(archive, model, held, shape, answers):
    """Adds the endpoints; returns {signature: its inputs and outputs}."""
    import tensorflow as tf

    num_nodes, channels = shape

    def logits_of(nodes):
        return tf.cast(model(nodes, training=False), tf.float32)

    def serving_default(ids):
        check = require(
            (ids >= 0) & (ids < num_nodes),
            f"`ids` expects nodes from 0 to {num_nodes - 1}. Received:",
            ids,
        )
        with tf.control_dependencies([check]):
            ids = tf.identity(ids)
        logits = logits_of(held.features()[None])
        return answers(tf.gather(logits[0], ids))

    def classify_features(nodes):
        # The signature declares no shape: a loaded one does not hold what it
        # gets against its spec, and TensorFlow would take the check below for
        # known to pass, and answer to two sets of features with one.
        expected = (1, num_nodes, channels)
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
        # Known now; an operation that ensured it could run before the checks.
        nodes.set_shape(expected)
        return answers(logits_of(nodes))

    endpoints = {
        "serving_default": (
            serving_default,
            [tf.TensorSpec((None,), tf.int32, "ids")],
        ),
        "classify_features": (
            classify_features,
            [tf.TensorSpec((None, None, None), tf.float32, "nodes")],
        ),
    }
    return add_endpoints(archive, endpoints)


def _verify(folder, model, features, answers, tolerance):
    """Compares the written model with the one in memory."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    num_nodes = len(features)
    other = random.permutation(features)[None]
    with tf.device("CPU:0"):
        outputs, others = [
            np.asarray(model(x, training=False), "float32")
            for x in (features[None], other)
        ]
    answers.check_reference(outputs[0], tolerance)
    requests = [("classify_features", {"nodes": other})]
    references = [others]
    for ids in ([], [0], random.integers(0, num_nodes, 50)):
        ids = np.asarray(ids, "int32")
        requests.append(("serving_default", {"ids": ids}))
        references.append(outputs[0, ids])
    served = answers_of_a_clean_process(folder, requests)
    scale = max(float(np.abs(x).max(initial=1.0)) for x in references)
    comparison = Comparison(tolerance * scale)
    for answer, expected in zip(served, references, strict=True):
        answers.compare(comparison, answer, expected)
    return comparison.differences
