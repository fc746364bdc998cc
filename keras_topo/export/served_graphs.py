"""Raw graphs in a signature: checked before anything large is made of them.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_topo.annotations import Tensor
from keras_topo.export.endpoints import require

if TYPE_CHECKING:
    from keras_topo.graphs import GraphPreprocessor

# Inputs by what they are of; all have the batch first.
OF_NODES = ("node_mask", "nodes", "node_labels", "features")
OF_EDGES = ("edges", "edge_weights", "edge_labels", "edge_features")


def input_specs(model: keras.Model) -> dict[str, Any]:
    """The `tf.TensorSpec`s of a model of raw graphs, by name."""
    import tensorflow as tf

    return {
        name: tf.TensorSpec(x.shape, x.dtype, name)
        for name, x in model.input.items()
    }


def checked_graphs(
    inputs: dict[str, Tensor],
    preprocessor: "GraphPreprocessor",
    names: Mapping[str, str],
    max_nodes: int,
    max_elements: int,
) -> dict[str, Tensor]:
    """Padded graphs, from which nothing follows unless all of them are good.

    Args:
        inputs: dict of tensors: those of `keras_topo.models.from_graphs`;
            labels that are ints may be int64.
        preprocessor: the `GraphPreprocessor` of the model.
        names: dict from inputs to what errors call them.
        max_nodes, max_elements: see `export_graph_saved_model`.

    Returns:
        The same, with zeros or known labels at padding, and labels as the
        model takes them.

    Raises:
        tf.errors.InvalidArgumentError: when the signature is called, naming
            the input.
    """
    inputs = of_one_shape(inputs)
    inputs = of_bounded_size(inputs, max_nodes, max_elements)
    inputs = at_real_nodes(inputs, names)
    learned = preprocessor._learned()
    inputs, checks = _without_padding(inputs, learned), []
    for key, field in (
        ("node_labels", "label_values"),
        ("edge_labels", "edge_label_values"),
    ):
        if key in inputs:
            inputs[key], known = _known_labels(inputs[key], learned[field])
            if preprocessor.unknown == "error":
                checks.append(
                    require(
                        known,
                        f"{names[key]} expect values that are known, "
                        f"{_shown(learned[field])}. Received:",
                        inputs[key],
                    )
                )
            if inputs[key].dtype.is_integer:
                inputs[key] = _as_int32(inputs[key], known, learned[field])
    checks += _number_checks(inputs, names)
    return after(checks, inputs)


def of_one_shape(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, of one batch size and one number of nodes and of edges."""
    import tensorflow as tf

    batch = tf.shape(inputs["node_mask"])[0]
    checks = []
    for members, axis in ((OF_NODES, "nodes"), (OF_EDGES, "edges")):
        members = [key for key in members if key in inputs]
        size = tf.shape(inputs[members[0]])[1]
        for key in members:
            same = tf.reduce_all(tf.shape(inputs[key])[:2] == [batch, size])
            checks.append(
                tf.debugging.Assert(
                    same,
                    [
                        f"`{key}` expects the shape (batch, {axis}, ...), of "
                        "one batch size for all inputs and one number of "
                        f"{axis}, {' and '.join(members)}. Received: shape",
                        tf.shape(inputs[key]),
                    ],
                )
            )
    return after(checks, inputs)


def of_bounded_size(
    inputs: dict[str, Tensor], max_nodes: int, max_elements: int
) -> dict[str, Tensor]:
    """The same, unless they would take too much memory."""
    import tensorflow as tf

    from keras_topo.export.graph_tensors import within, within_edges

    batch, nodes = tf.unstack(tf.shape(inputs["node_mask"]))
    edges = tf.shape(inputs["edges"])[1]
    bounded = tf.debugging.Assert(
        nodes <= max_nodes,
        [f"a graph expects at most {max_nodes} nodes. Received:", nodes],
    )
    return after(
        [
            bounded,
            within(tf.repeat(nodes, batch), max_elements),
            within_edges(tf.repeat(edges, batch), max_elements),
        ],
        inputs,
    )


def at_real_nodes(
    inputs: dict[str, Tensor], names: Mapping[str, str]
) -> dict[str, Tensor]:
    """Ids of edges are those of nodes that the mask has."""
    import tensorflow as tf

    edges, mask = inputs["edges"], inputs["node_mask"]
    count = tf.shape(mask)[1]
    padding = tf.reduce_all(edges == -1, axis=-1)
    inside = tf.reduce_all((edges >= 0) & (edges < count), axis=-1)
    safe = tf.where(inside[..., None], edges, tf.zeros_like(edges))
    # A graph without nodes has nothing to look up.
    there = tf.pad(mask, [[0, 0], [0, 1]])
    real = tf.reduce_all(tf.gather(there, safe, batch_dims=1), axis=-1)
    good = padding | (inside & real)
    wrong = tf.where(good, 0, tf.reduce_max(edges, axis=-1))
    return after(
        [
            tf.debugging.Assert(
                tf.reduce_all(tf.reduce_any(mask, axis=1)),
                ["`node_mask` expects at least one node in each graph"],
            ),
            require(
                good,
                f"{names['edges']} expect ids of real nodes, or -1 and -1 for "
                "padding. Received: an edge with the larger id",
                wrong,
            ),
        ],
        inputs,
    )


def _without_padding(inputs, learned):
    """What stands at padding does not matter."""
    import tensorflow as tf

    real: dict[str, Any] = {
        **dict.fromkeys(OF_NODES, inputs["node_mask"]),
        **dict.fromkeys(OF_EDGES, inputs["edges"][..., 0] >= 0),
    }
    empty = {
        "node_labels": learned["label_values"],
        "edge_labels": learned["edge_label_values"],
    }
    found = dict(inputs)
    for key, x in inputs.items():
        if key in empty:
            first = tf.constant(empty[key][0], x.dtype)
            found[key] = tf.where(real[key], x, first)
        elif x.dtype.is_floating:
            mask = real[key] if x.shape.rank == 2 else real[key][..., None]
            found[key] = tf.where(mask, x, tf.zeros_like(x))
    return found


def _known_labels(labels, values):
    """Labels, ints as int64, and whether each is one of the values."""
    import tensorflow as tf

    if labels.dtype != tf.string:
        labels = tf.cast(labels, tf.int64)
    known = tf.constant(values, labels.dtype)
    return labels, tf.reduce_any(labels[..., None] == known, axis=-1)


def _as_int32(labels, known, values):
    """Ints that the model takes, of which no unknown one equals a known."""
    import tensorflow as tf

    other = next(k for k in itertools.count() if k not in values)
    labels = tf.where(known, labels, tf.constant(other, labels.dtype))
    return tf.cast(labels, tf.int32)


def _number_checks(inputs, names):
    import tensorflow as tf

    checks = []
    for key in ("features", "edge_features", "edge_weights"):
        if key in inputs:
            checks.append(
                tf.debugging.assert_all_finite(
                    inputs[key],
                    f"{names[key]} expect finite numbers. Received",
                )
            )
    if "edge_weights" in inputs:
        weights = inputs["edge_weights"]
        padding = inputs["edges"][..., 0] < 0
        total = tf.reduce_sum(weights, axis=1)
        checks += [
            require(
                padding | (weights > 0),
                f"{names['edge_weights']} expect positive numbers. Received:",
                weights,
            ),
            # Nodes of infinite degree would have no neighbors.
            require(
                tf.math.is_finite(total),
                f"{names['edge_weights']} expect a finite sum in each graph. "
                "Received:",
                total,
            ),
        ]
    return checks


def _shown(values, most=20):
    """Values for an error, not all of a long list."""
    shown = ", ".join(map(str, values[:most]))
    return f"[{shown}{', ...' if len(values) > most else ''}]"


def one_if_empty(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of at least one graph: of none, one of one node."""
    import tensorflow as tf

    missing = tf.cast(tf.shape(inputs["node_mask"])[0] == 0, tf.int32)
    found = {}
    for key, x in inputs.items():
        width = [[0, missing], [0, missing if key in OF_NODES else 0]]
        width += [[0, 0]] * (x.shape.rank - 2)
        value = {"edges": -1, "node_mask": True}.get(key)
        if value is None:
            value = "" if x.dtype == tf.string else 0
        found[key] = tf.pad(x, width, constant_values=value)
        found[key].set_shape((None, None, *x.shape[2:]))
    return found


def after(
    checks: Sequence[Any], tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The same tensors, once the checks have passed."""
    import tensorflow as tf

    with tf.control_dependencies(checks):
        return {name: tf.identity(x) for name, x in tensors.items()}
