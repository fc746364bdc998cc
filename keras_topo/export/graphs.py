"""Models of graphs: as padded tensors, and as serialized GraphTensors.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_topo.annotations import Tensor
from keras_topo.export.answers import Answers
from keras_topo.export.served import Case, Served
from keras_topo.export.served_graphs import one_if_empty

if TYPE_CHECKING:
    from keras_topo.export.graph_tensors import GraphTensorSpec
    from keras_topo.graphs import Graph

SCHEMA_FILE = "assets.extra/graph_schema.pbtxt"
# Nodes of the graphs of each batch that a model is tried with.
SIZES = ([5], [9, 1, 6])


class ServedGraphs(Served):
    """A model of graphs with `serving_default` and `serve_examples`.

    Args:
        model, specs, answers: see `Served`.
        spec: `keras_topo.export.graph_tensors.GraphTensorSpec` of examples.
        max_nodes, max_elements: see `keras_topo.export_graph_saved_model`.
    """

    def __init__(
        self,
        model: keras.Model,
        specs: Mapping[str, Any],
        answers: Answers,
        spec: "GraphTensorSpec",
        max_nodes: int,
        max_elements: int,
    ) -> None:
        super().__init__(model, specs, answers)
        self.spec = spec
        self.max_nodes = max_nodes
        self.max_elements = max_elements

    # What the two kinds of graphs differ in.

    def random_graph(
        self, num_nodes: int, random: np.random.Generator
    ) -> "Graph":
        """A `Graph` that the model takes."""
        raise NotImplementedError

    def inputs_of(self, graphs: "Sequence[Graph]") -> dict[str, np.ndarray]:
        """The arrays of `serving_default` for graphs."""
        raise NotImplementedError

    def checked_examples(self, parsed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of the model from what `parse_graph_examples` gives."""
        raise NotImplementedError

    # What they share.

    def at_least_one(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        return one_if_empty(inputs)

    def real(self, inputs: dict[str, Any]) -> Tensor | None:
        of_nodes = len(self.model.outputs[0].shape) == 3
        return inputs["node_mask"] if of_nodes else None

    def outputs(self, inputs: dict[str, Any]) -> Tensor:
        import tensorflow as tf

        batch, nodes = tf.unstack(tf.shape(inputs["node_mask"]))
        outputs = self.call(self.at_least_one(inputs))[:batch]
        return outputs[:, :nodes] if outputs.shape.rank == 3 else outputs

    def endpoints(self) -> dict[str, Any]:
        import tensorflow as tf

        from keras_topo.export.graph_tensors import parse_graph_examples

        def serve_examples(examples):
            parsed = parse_graph_examples(
                examples, self.spec, self.max_nodes, self.max_elements
            )
            return self.answer(self.checked_examples(parsed))

        examples = tf.TensorSpec((None,), tf.string, "examples")
        return {
            **super().endpoints(),
            "serve_examples": (serve_examples, [examples]),
        }

    def graphs(self) -> "list[list[Graph]]":
        """Lists of random graphs, a batch each, within the limits."""
        random, found = np.random.default_rng(0), []
        for sizes in SIZES:
            sizes = sizes[: self.max_elements]
            most = math.isqrt(self.max_elements // len(sizes))
            most = min(most, self.max_nodes)
            found.append(
                [self.random_graph(min(n, most), random) for n in sizes]
            )
        return found

    def batches(self) -> list[dict[str, np.ndarray]]:
        found = [self.inputs_of(graphs) for graphs in self.graphs()]
        nothing = {key: x[:0] for key, x in found[0].items()}
        return [nothing, *found]

    def cases(self) -> list[Case]:
        from keras_topo.export.graph_tensors import graph_to_example

        found = []
        padded = super().cases()
        for case, graphs in zip(padded, [[], *self.graphs()], strict=True):
            encoded = [
                graph_to_example(graph, self.spec).SerializeToString()
                for graph in graphs
            ]
            expected, real = case.expected, case.real
            if not graphs and real is not None:
                # An empty batch of examples has graphs of no nodes.
                expected, real = expected[:, :0], real[:, :0]
            inputs = {"examples": np.array(encoded, object)}
            found += [case, Case("serve_examples", inputs, expected, real)]
        return found

    def files(self) -> list[tuple[str, str]]:
        return [(SCHEMA_FILE, self.spec.to_schema())]
