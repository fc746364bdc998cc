"""SavedModels of models of graphs, which compute kernels themselves."""

import keras
import numpy as np

from keras_topo.export_raw_graphs import (
    SCHEMA_FILE,
    export_raw_graphs,
    takes_raw_graphs,
)
from keras_topo.export_tasks import Answers
from keras_topo.saved_models import (
    Comparison,
    add_endpoints,
    answers_of_a_clean_process,
    check_backend,
    check_path,
    check_tolerance,
    write_verified,
)
from keras_topo.served_graphs import (
    after,
    at_real_nodes,
    of_bounded_size,
    of_one_shape,
    one_if_empty,
)

INPUTS = ("nodes", "edges", "node_mask")


def export_graph_saved_model(
    model,
    path,
    *,
    task=None,
    spec=None,
    class_names=None,
    max_nodes=4096,
    max_elements=2**20,
    overwrite=False,
    verify=True,
    tolerance=None,
):
    """Writes a model of graphs as a TensorFlow SavedModel for serving.

    A client sends graphs as they are: values of labels, features, edges. What
    the `GraphPreprocessor` does is computed inside, kernels included; the
    model is that of `keras_topo.models.with_preprocessing(model,
    preprocessor)`, or an estimator writes itself:
    `keras_topo.GraphClassifier.export`. Signatures, all of a free batch size,
    an empty batch having an empty answer:

    - `serving_default` takes, of these, what the preprocessor uses:
        - `node_mask`: bool `(batch, nodes)`, `True` for real nodes;
        - `node_labels`: int32 or string `(batch, nodes)`, values of labels;
        - `features`: float32 `(batch, nodes, features)`;
        - `edges`: int32 `(batch, edges, 2)`, node ids, -1 and -1 for padding.
          Unless graphs are directed, an edge counts in both directions, and
          once: of several weights the largest, of several features or labels
          the first;
        - `edge_weights`: float32 `(batch, edges)`, positive;
        - `edge_labels`: int32 or string `(batch, edges)`;
        - `edge_features`: float32 `(batch, edges, channels)`.

      What stands at padding does not matter.
    - `serve_examples`
        - `examples`: string `(batch,)`, serialised GraphTensors as TF-GNN
          writes them, of one component each; `assets.extra/
          graph_schema.pbtxt` in the folder says what they hold: of nodes
          `label` and `features`, of edges `weight`, `label` and `features`.
          See `keras_topo.graph_tensors.graph_to_example`.

    Both answer by the task, float32:

    - classification: `logits` and `probabilities` `(batch, classes)`, and,
      where classes have names, `class`, string `(batch,)`, the name of the
      most probable one;
    - several labels, or one logit for yes or no (`"multilabel"`): `logits`
      and `probabilities` `(batch, labels)`, each by itself;
    - regression: `predictions` `(batch, values)`, in their own units.

    Models of nodes answer with `(batch, nodes, ...)`; zeros, and empty names,
    stand at padding. All names of classes, in the order of `logits`, and the
    preprocessor are in `assets.extra/preprocessor.json`.

    Refused by an `InvalidArgumentError` that names the input are edges
    between nodes that are not there, graphs without nodes or of more than
    `max_nodes`, requests of more than `max_elements` (before anything of that
    size is made), labels that are not known (unless the preprocessor has
    `unknown="zeros"`), weights that are not positive, numbers that are not
    finite or so large that an answer would not be, bytes that are no example,
    and examples that lack something. The whole batch is refused. The folder
    appears under `path` complete or not at all.

    Args:
        model: a functional `keras.Model` of raw graphs:
            `keras_topo.models.with_preprocessing`. Or one from a dict with
            `nodes` (float32, all that is known of nodes), `edges` and
            `node_mask` to outputs `(batch, outputs)`, of undirected graphs
            without weights: `keras_topo.models.from_edges`. These three are
            then the inputs of `serving_default`.
        path: the folder to write; as in `export_saved_model`.
        task: `"classification"`, `"multilabel"` or `"regression"`. Defaults
            to the first where the preprocessor has classes, or there is none
            and several outputs, and to the last where the model was built
            with `target_statistics`.
        spec: for models of `from_edges`, the
            `keras_topo.graph_tensors.GraphTensorSpec` of the examples;
            defaults to one node feature, `features`.
        class_names: one string per class or label, or a dict from them to
            indices; defaults to those of the preprocessor.
        max_nodes: int, nodes of a graph at most (padding included).
        max_elements: int, `batch * nodes^2` of a request at most, padding
            included, since memory grows with it: about 200 bytes each. A graph
            of more than 1,024 nodes needs more than the default. Also
            `batch * edges` at most.
        overwrite, verify, tolerance: as in `export_saved_model`.

    Returns:
        A dictionary that `json.dumps` takes, as `export_saved_model`, with
        `task`, `outputs` (how many), `classes` (`None` unless it is a
        classifier) and `class_names`.

    Raises:
        ValueError: if the model is not of the kinds above, the spec has
            another number of features, or the task is unknown, does not fit
            the model or does not follow from it.
        FileExistsError, RuntimeError: as `export_saved_model`.

    Example:

    >>> classifier = keras_topo.GraphClassifier(epochs=20).fit(graphs, y)
    >>> report = classifier.export("exported/1")
    >>> loaded = tf.saved_model.load("exported/1")
    >>> edge = loaded.signatures["serving_default"](
    ...     edges=tf.constant([[[0, 1]]]), node_mask=tf.constant([[True] * 2]))
    >>> edge["probabilities"].shape
    TensorShape([1, 2])
    """
    check_backend()
    if takes_raw_graphs(model):
        if spec is not None:
            raise ValueError(
                "`spec` is for models of keras_topo.models.from_edges: that of "
                "raw graphs follows from their preprocessor. Received: "
                f"spec={spec}"
            )
        return export_raw_graphs(
            model,
            path,
            task,
            class_names,
            max_nodes,
            max_elements,
            overwrite,
            verify,
            tolerance,
        )
    num_features, output = _check_model(model)
    from keras_topo.graph_tensors import GraphTensorSpec

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
    answers = Answers(task or "classification", output, class_names)
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, model)

    archive = keras.export.ExportArchive()
    archive.track(model)
    described = _add_signatures(
        archive, model, spec, answers, max_nodes, max_elements
    )

    batches = _random_batches(spec)
    requests = _requests(batches, spec)

    def check(folder):
        # First: what is not finite, the other process would not answer.
        references = _references(model, batches, spec, answers, tolerance)
        served = answers_of_a_clean_process(folder, requests)
        scale = max(float(np.abs(x).max(initial=1.0)) for x in references)
        comparison = Comparison(tolerance * scale)
        for answer, expected in zip(served, references, strict=True):
            answers.compare(comparison, answer, expected)
        return comparison.differences

    return write_verified(
        archive,
        path,
        {"signatures": described, **answers.report()},
        check if verify else None,
        tolerance,
        files=[(SCHEMA_FILE, spec.to_schema())],
        warmup=requests,
    )


def takes_graphs(model):
    """Whether a model's inputs are those of a graph classifier."""
    structure = getattr(model, "input", None) if model.built else None
    return isinstance(structure, dict) and set(structure) == set(INPUTS)


def _check_model(model):
    """Features of a node and the output of a model, or what it lacks."""
    if not isinstance(model, keras.Model) or not takes_graphs(model):
        raise ValueError(
            "`model` expects a functional keras.Model with the inputs "
            f"{INPUTS}; keras_topo.models.from_edges makes one. Received: "
            f"model={model!r}"
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


def _add_signatures(archive, model, spec, answers, max_nodes, max_elements):
    """Adds the endpoints; returns {signature: its inputs and outputs}."""
    import tensorflow as tf

    from keras_topo.graph_tensors import parse_graph_examples

    def answer(graph):
        return answers(_logits(model, graph))

    def serving_default(nodes, edges, node_mask):
        graph = {"nodes": nodes, "edges": edges, "node_mask": node_mask}
        return answer(_checked_graph(graph, max_nodes, max_elements))

    def serve_examples(examples):
        return answer(
            parse_graph_examples(examples, spec, max_nodes, max_elements)
        )

    features = spec.num_features
    endpoints = {
        "serving_default": (
            serving_default,
            [
                tf.TensorSpec((None, None, features), tf.float32, "nodes"),
                tf.TensorSpec((None, None, 2), tf.int32, "edges"),
                tf.TensorSpec((None, None), tf.bool, "node_mask"),
            ],
        ),
        "serve_examples": (
            serve_examples,
            [tf.TensorSpec((None,), tf.string, "examples")],
        ),
    }
    return add_endpoints(archive, endpoints)


def _checked_graph(graph, max_nodes, max_elements):
    """The inputs of `serving_default`, from which nothing follows unless they
    fit one another."""
    import tensorflow as tf

    graph = of_bounded_size(of_one_shape(graph), max_nodes, max_elements)
    graph = at_real_nodes(graph, {"edges": "`edges`"})
    nodes = graph["nodes"]
    real = graph["node_mask"][..., None]
    graph["nodes"] = tf.where(real, nodes, tf.zeros_like(nodes))
    finite = tf.debugging.assert_all_finite(
        graph["nodes"],
        "`nodes` expects finite features of real nodes. Received",
    )
    return after([finite], graph)


def _logits(model, graph):
    """float32 logits (batch, classes), for an empty batch as well."""
    import tensorflow as tf

    batch = tf.shape(graph["nodes"])[0]
    logits = model(one_if_empty(graph), training=False)
    logits = keras.tree.flatten(logits)[0]
    return tf.cast(logits, tf.float32)[:batch]


def _random_batches(spec):
    """Batches of no, one and three random graphs."""
    random = np.random.default_rng(0)
    return [
        [_random_graph(n, spec.num_features, random) for n in sizes]
        for sizes in ([], [5], [9, 1, 6])
    ]


def _requests(batches, spec):
    """A request to each signature for every batch, batch by batch."""
    from keras_topo.graph_tensors import graph_to_example
    from keras_topo.graphs import edge_inputs

    requests = []
    for graphs in batches:
        encoded = [
            graph_to_example(graph, spec).SerializeToString()
            for graph in graphs
        ]
        inputs = edge_inputs(graphs, spec.num_features)
        requests.append(("serving_default", inputs))
        requests.append(
            ("serve_examples", {"examples": np.array(encoded, object)})
        )
    return requests


def _references(model, batches, spec, answers, tolerance):
    """What the model in memory gives, twice for two signatures."""
    import tensorflow as tf

    from keras_topo.graphs import edge_inputs

    references = []
    for graphs in batches:
        outputs = np.zeros((0, answers.count), "float32")
        if graphs:
            # On the CPU, as in the other process.
            with tf.device("CPU:0"):
                inputs = edge_inputs(graphs, spec.num_features)
                found = model(inputs, training=False)
            outputs = np.asarray(keras.tree.flatten(found)[0], "float32")
        answers.check_reference(outputs, tolerance)
        references += [outputs, outputs]
    return references


def _random_graph(num_nodes, num_features, random):
    from keras_topo.graphs import Graph

    upper = np.triu(random.random((num_nodes, num_nodes)) < 0.4, k=1)
    features = random.random((num_nodes, num_features), "float32")
    return Graph(
        (upper | upper.T).astype("float32"),
        features if num_features else None,
    )
