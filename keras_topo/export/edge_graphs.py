"""Models of `keras_topo.models.with_edge_inputs`, which compute kernels.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_topo.annotations import Tensor
from keras_topo.export.answers import Answers, task_of
from keras_topo.export.graphs import ServedGraphs
from keras_topo.export.served_graphs import (
    after,
    at_real_nodes,
    of_bounded_size,
    of_one_shape,
)

if TYPE_CHECKING:
    from keras_topo.export.graph_schema import GraphTensorSpec
    from keras_topo.graphs import Graph

INPUTS = ("nodes", "edges", "node_mask")


def takes_graphs(model: keras.Model) -> bool:
    """Whether a model's inputs are those of a graph classifier."""
    structure = getattr(model, "input", None) if model.built else None
    return isinstance(structure, dict) and set(structure) == set(INPUTS)


class ServedEdgeGraphs(ServedGraphs):
    """A model from nodes, edges and a mask, of undirected graphs.

    Args:
        model: one for which `takes_graphs` holds.
        task, class_names, max_nodes, max_elements, spec: see
            `keras_topo.export_graph_saved_model`.

    Raises:
        ValueError: if the model is not of this kind, or the spec, the task or
            the names do not fit it.
    """

    def __init__(
        self,
        model: keras.Model,
        task: str | None,
        class_names: Sequence[str] | None,
        max_nodes: int,
        max_elements: int,
        spec: "GraphTensorSpec | None" = None,
    ) -> None:
        import tensorflow as tf

        features, output = _check_model(model)
        specs = {
            "nodes": tf.TensorSpec((None, None, features), tf.float32, "nodes"),
            "edges": tf.TensorSpec((None, None, 2), tf.int32, "edges"),
            "node_mask": tf.TensorSpec((None, None), tf.bool, "node_mask"),
        }
        spec = _check_spec(spec, features)
        task = task or task_of(model) or "classification"
        answers = Answers(task, output, class_names)
        super().__init__(model, specs, answers, spec, max_nodes, max_elements)

    def checked(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        import tensorflow as tf

        inputs = of_one_shape(inputs)
        inputs = of_bounded_size(inputs, self.max_nodes, self.max_elements)
        inputs = at_real_nodes(inputs, {"edges": "`edges`"})
        nodes = inputs["nodes"]
        real = inputs["node_mask"][..., None]
        inputs["nodes"] = tf.where(real, nodes, tf.zeros_like(nodes))
        finite = tf.debugging.assert_all_finite(
            inputs["nodes"],
            "`nodes` expects finite features of real nodes. Received",
        )
        return after([finite], inputs)

    def checked_examples(self, parsed: dict[str, Tensor]) -> dict[str, Tensor]:
        return parsed

    def random_graph(
        self, num_nodes: int, random: np.random.Generator
    ) -> "Graph":
        from keras_topo.graphs import Graph

        upper = np.triu(random.random((num_nodes, num_nodes)) < 0.4, k=1)
        channels = self.spec.num_features
        features = random.random((num_nodes, channels), "float32")
        return Graph(
            (upper | upper.T).astype("float32"),
            features if channels else None,
        )

    def inputs_of(self, graphs: "Sequence[Graph]") -> dict[str, np.ndarray]:
        from keras_topo.graphs import edge_inputs

        return edge_inputs(graphs, self.spec.num_features)


def _check_spec(spec, num_features) -> "GraphTensorSpec":
    """The spec of examples, by default one feature."""
    from keras_topo.export.graph_schema import GraphTensorSpec

    if spec is None:
        names = {"features": num_features} if num_features else {}
        spec = GraphTensorSpec(names)
    if spec.num_features != num_features:
        raise ValueError(
            f"`spec` expects the {num_features} features of the model. "
            f"Received: {spec}"
        )
    if list(spec.features) != sorted(spec.features):
        raise ValueError(
            "`spec` expects features in alphabetical order, in which a schema "
            f"is read. Received: {list(spec.features)}"
        )
    if spec != GraphTensorSpec(spec.features, spec.node_set, spec.edge_set):
        raise ValueError(
            "`spec` expects features of nodes alone: models of raw graphs, "
            "of keras_topo.models.with_preprocessing, take the rest. "
            f"Received: {spec}"
        )
    return spec


def _check_model(model):
    """Features of a node and the output of a model, or what it lacks."""
    if not isinstance(model, keras.Model) or not takes_graphs(model):
        raise ValueError(
            "`model` expects a functional keras.Model with the inputs "
            f"{INPUTS}; keras_topo.models.with_edge_inputs makes one. "
            f"Received: model={model!r}"
        )
    nodes, outputs = model.input["nodes"], keras.tree.flatten(model.output)
    if (
        len(nodes.shape) != 3
        or nodes.shape[-1] is None
        or len(outputs) != 1
        or len(outputs[0].shape) != 2
        or outputs[0].shape[-1] is None
    ):
        raise ValueError(
            "`model` expects nodes (batch, nodes, features) and one output of "
            "logits (batch, classes). Received: nodes of shape "
            f"{tuple(nodes.shape)}, outputs of shapes "
            f"{[tuple(x.shape) for x in outputs]}"
        )
    return nodes.shape[-1], outputs[0]
