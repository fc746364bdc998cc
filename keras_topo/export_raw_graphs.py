"""SavedModels of models of raw graphs, which hold their preprocessing."""

import json

import keras
import numpy as np

from keras_topo.export_tasks import Answers
from keras_topo.graphs import Graph, GraphPreprocessor, raw_inputs
from keras_topo.presets.builders import recipe_of
from keras_topo.saved_models import (
    Comparison,
    add_endpoints,
    answers_of_a_clean_process,
    check_path,
    check_tolerance,
    write_verified,
)
from keras_topo.served_graphs import (
    checked_graphs,
    input_specs,
    one_if_empty,
)

SCHEMA_FILE = "assets.extra/graph_schema.pbtxt"
PREPROCESSOR_FILE = "assets.extra/preprocessor.json"


def takes_raw_graphs(model):
    """Whether a model is one of `keras_topo.models.from_graphs`."""
    recipe = recipe_of(model) if isinstance(model, keras.Model) else None
    return recipe is not None and recipe.builder == "from_graphs"


def export_raw_graphs(
    model,
    path,
    task,
    class_names,
    max_nodes,
    max_elements,
    overwrite,
    verify,
    tolerance,
):
    """What `export_graph_saved_model` does of models of raw graphs."""
    from keras_topo.graph_tensors import GraphTensorSpec

    arguments = recipe_of(model).arguments
    preprocessor = GraphPreprocessor.from_config(arguments["preprocessor"])
    output = _output(model)
    if task is None:
        task = _task_of(preprocessor, arguments["model"])
    if class_names is None and task == "classification":
        class_names = preprocessor.class_names
    answers = Answers(task, output, class_names)
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, model)
    spec = GraphTensorSpec.from_preprocessor(preprocessor)

    archive = keras.export.ExportArchive()
    archive.track(model)
    described = _add_signatures(
        archive, model, preprocessor, spec, answers, max_nodes, max_elements
    )
    batches = _batches(preprocessor)
    requests = _requests(batches, preprocessor, spec)

    inputs = [x for name, x in requests if name == "serving_default"]

    def check(folder):
        # First: what is not finite, the other process would not answer.
        references = _references(model, inputs, answers, tolerance)
        served = answers_of_a_clean_process(folder, requests)
        return _compare(served, inputs, references, answers, tolerance)

    kept = {
        "task": task,
        "class_names": answers.names,
        "graph_preprocessor": preprocessor.get_config(),
    }
    return write_verified(
        archive,
        path,
        {"signatures": described, **answers.report()},
        check if verify else None,
        tolerance,
        files=[
            (SCHEMA_FILE, spec.to_schema()),
            (PREPROCESSOR_FILE, json.dumps(kept, indent=2) + "\n"),
        ],
        warmup=requests,
    )


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
    raise ValueError(
        "`task` expects 'multilabel' or 'regression' where the preprocessor "
        "has seen no classes. Received: task=None"
    )


def _add_signatures(
    archive, model, preprocessor, spec, answers, max_nodes, max_elements
):
    """Adds the endpoints; returns {signature: its inputs and outputs}."""
    import tensorflow as tf

    from keras_topo.graph_tensors import names_in_examples, parse_graph_examples

    specs = input_specs(model)

    # One function of both signatures, which the artefact holds once.
    @tf.function(input_signature=[specs])
    def outputs_of(inputs):
        batch = tf.shape(inputs["node_mask"])[0]
        outputs = model(one_if_empty(inputs), training=False)
        outputs = keras.tree.flatten(outputs)[0][:batch]
        if outputs.shape.rank == 3:
            outputs = outputs[:, : tf.shape(inputs["node_mask"])[1]]
        return tf.cast(outputs, tf.float32)

    def answer(inputs, names):
        inputs = checked_graphs(
            inputs, preprocessor, names, max_nodes, max_elements
        )
        outputs = outputs_of(inputs)
        mask = inputs["node_mask"] if outputs.shape.rank == 3 else None
        return answers(outputs, mask)

    def serving_default(inputs):
        return answer(inputs, {name: f"`{name}`" for name in specs})

    def serve_examples(examples):
        parsed = parse_graph_examples(examples, spec, max_nodes, max_elements)
        parsed["features"] = parsed.pop("nodes")
        inputs = {name: parsed[name] for name in specs}
        names = names_in_examples(spec)
        names["features"] = names.pop("nodes", None)
        return answer(inputs, names)

    endpoints = {
        "serving_default": (serving_default, [specs]),
        "serve_examples": (
            serve_examples,
            [tf.TensorSpec((None,), tf.string, "examples")],
        ),
    }
    return add_endpoints(archive, endpoints)


def _batches(preprocessor):
    """Batches of one and three random graphs that the preprocessor takes."""
    random = np.random.default_rng(0)
    return [
        [_random_graph(n, preprocessor, random) for n in sizes]
        for sizes in ([5], [9, 1, 6])
    ]


def _random_graph(num_nodes, preprocessor, random):
    learned = preprocessor.learned
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


def _requests(batches, preprocessor, spec):
    """A request to each signature for every batch, the first one empty."""
    from keras_topo.graph_tensors import graph_to_example

    requests = []
    for graphs in batches:
        encoded = [
            graph_to_example(graph, spec).SerializeToString()
            for graph in graphs
        ]
        requests.append(("serving_default", raw_inputs(graphs, preprocessor)))
        requests.append(
            ("serve_examples", {"examples": np.array(encoded, object)})
        )
    nothing = [
        (name, {key: x[:0] for key, x in inputs.items()})
        for name, inputs in requests[:2]
    ]
    return nothing + requests


def _references(model, inputs, answers, tolerance):
    """What the model in memory gives, a list of arrays."""
    import tensorflow as tf

    of_nodes = len(_output(model).shape) == 3
    references = []
    for values in inputs:
        mask = values["node_mask"]
        shape = mask.shape if of_nodes else mask.shape[:1]
        outputs = np.zeros((*shape, answers.count), "float32")
        if len(mask):
            # On the CPU, as in the other process.
            with tf.device("CPU:0"):
                tensors = {k: tf.constant(x) for k, x in values.items()}
                found = model(tensors, training=False)
            outputs = np.asarray(keras.tree.flatten(found)[0], "float32")
        real = outputs[mask] if of_nodes else outputs
        answers.check_reference(real, tolerance)
        references.append(outputs)
    return references


def _compare(served, inputs, references, answers, tolerance):
    """Compares the answers of the written model with the one in memory.

    Args:
        served: answers to requests of both signatures in turn.
        inputs, references: what each pair of requests is, and its answer.
    """
    scale = max(float(np.abs(x).max(initial=1.0)) for x in references)
    comparison = Comparison(tolerance * scale)
    for k, answer in enumerate(served):
        mask, expected = inputs[k // 2]["node_mask"], references[k // 2]
        if expected.ndim == 2:
            mask = None
        elif k % 2 and not len(mask):
            # An empty batch of examples has graphs of no nodes.
            mask, expected = mask[:, :0], expected[:, :0]
        answers.compare(comparison, answer, expected, mask)
    return comparison.differences
