"""Models of raw graphs, which hold their preprocessing.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import json
from collections.abc import Sequence

import keras
import numpy as np

from keras_topo.annotations import Tensor
from keras_topo.export.answers import Answers, task_of
from keras_topo.export.graphs import ServedGraphs
from keras_topo.export.served_graphs import checked_graphs, input_specs
from keras_topo.graphs import Graph, GraphPreprocessor, raw_inputs
from keras_topo.presets.builders import recipe_of

PREPROCESSOR_FILE = "assets.extra/preprocessor.json"


def takes_raw_graphs(model: keras.Model) -> bool:
    """Whether a model is one of `keras_topo.models.from_graphs`."""
    recipe = recipe_of(model) if isinstance(model, keras.Model) else None
    return recipe is not None and recipe.builder == "from_graphs"


class ServedRawGraphs(ServedGraphs):
    """A model of `keras_topo.models.from_graphs`.

    Args:
        model: one for which `takes_raw_graphs` holds.
        task, class_names, max_nodes, max_elements: see
            `keras_topo.export_graph_saved_model`.

    Raises:
        ValueError: if the task is unknown, or does not fit the model or follow
            from it.
    """

    def __init__(
        self,
        model: keras.Model,
        task: str | None,
        class_names: Sequence[str] | None,
        max_nodes: int,
        max_elements: int,
    ) -> None:
        from keras_topo.export.graph_tensors import GraphTensorSpec

        recipe = recipe_of(model)
        if recipe is None:
            raise ValueError(
                "`model` expects one of keras_topo.models.from_graphs. "
                f"Received: model={model!r}"
            )
        arguments = recipe.arguments
        preprocessor = GraphPreprocessor.from_config(arguments["preprocessor"])
        output = _output(model)
        if task is None:
            task = _task_of(preprocessor, arguments["model"])
        if class_names is None and task == "classification":
            class_names = preprocessor.class_names
        super().__init__(
            model,
            input_specs(model),
            Answers(task, output, class_names),
            GraphTensorSpec.from_preprocessor(preprocessor),
            max_nodes,
            max_elements,
        )
        self.preprocessor = preprocessor

    def checked(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return self._checked(inputs, {name: f"`{name}`" for name in self.specs})

    def checked_examples(self, parsed: dict[str, Tensor]) -> dict[str, Tensor]:
        from keras_topo.export.graph_tensors import names_in_examples

        parsed["features"] = parsed.pop("nodes")
        names = names_in_examples(self.spec)
        if "nodes" in names:
            names["features"] = names.pop("nodes")
        return self._checked({key: parsed[key] for key in self.specs}, names)

    def _checked(self, inputs, names):
        return checked_graphs(
            inputs,
            self.preprocessor,
            names,
            self.max_nodes,
            self.max_elements,
        )

    def random_graph(
        self, num_nodes: int, random: np.random.Generator
    ) -> Graph:
        return _random_graph(num_nodes, self.preprocessor, random)

    def inputs_of(self, graphs: Sequence[Graph]) -> dict[str, np.ndarray]:
        return raw_inputs(graphs, self.preprocessor)

    def files(self) -> list[tuple[str, str]]:
        kept = {
            "task": self.answers.task,
            "class_names": self.answers.names,
            "graph_preprocessor": self.preprocessor.get_config(),
        }
        text = json.dumps(kept, indent=2) + "\n"
        return [*super().files(), (PREPROCESSOR_FILE, text)]


def _output(model):
    outputs = keras.tree.flatten(model.output)
    shapes = [tuple(x.shape) for x in outputs]
    if len(shapes) != 1 or len(shapes[0]) not in (2, 3) or not shapes[0][-1]:
        raise ValueError(
            "`model` expects one output, (batch, outputs) of graphs or "
            f"(batch, nodes, outputs). Received: outputs of shapes {shapes}"
        )
    return outputs[0]


def _task_of(preprocessor, model):
    """What the preprocessor and the builder of a model say of its outputs."""
    if preprocessor.classes is not None:
        return "classification"
    recipe = recipe_of(model)
    if recipe is not None and recipe.arguments.get("target_statistics"):
        return "regression"
    if task_of(model) is not None:
        return task_of(model)
    raise ValueError(
        "`task` expects 'multilabel' or 'regression' where the preprocessor "
        "has seen no classes. Received: task=None"
    )


def _random_graph(num_nodes, preprocessor, random):
    learned = preprocessor._learned()
    directed = learned["directed"]
    adjacent = random.random((num_nodes, num_nodes)) < 0.4
    edges = np.argwhere(np.triu(adjacent, k=1))
    if directed:
        backwards = random.random(len(edges)) < 0.5
        edges[backwards] = edges[backwards][:, ::-1]
    fields = {}
    if learned["weighted"]:
        fields["weights"] = random.uniform(0.5, 2.0, len(edges))
    for key, field, count in (
        ("node_labels", "label_values", num_nodes),
        ("edge_labels", "edge_label_values", len(edges)),
    ):
        if learned[field]:
            fields[key] = random.choice(np.array(learned[field]), count)
    if learned["num_own_features"]:
        fields["features"] = _random_features(num_nodes, learned, random)
    if learned["num_own_edge_features"]:
        shape = len(edges), learned["num_own_edge_features"]
        fields["edge_features"] = random.normal(size=shape)
    return Graph.from_edges(edges, num_nodes, directed=directed, **fields)


def _random_features(num_nodes, learned, random):
    """Features as large as those that the model was trained on."""
    first = len(learned["label_values"] or ())
    own = slice(first, first + learned["num_own_features"])
    mean, variance = (np.array(x)[own] for x in learned["feature_statistics"])
    return random.normal(mean, np.sqrt(variance), (num_nodes, len(mean)))
