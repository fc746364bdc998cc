"""SavedModels of graph classifiers, which compute kernels themselves."""

import keras
import numpy as np

from keras_topo.saved_models import (
    Comparison,
    add_endpoints,
    answers_of_a_clean_process,
    check_backend,
    check_class_names,
    check_logits,
    check_path,
    check_tolerance,
    refuse_probabilities,
    softmax,
    write_verified,
)

INPUTS = ("nodes", "edges", "node_mask")
SCHEMA_FILE = "assets.extra/graph_schema.pbtxt"


def export_graph_saved_model(
    model,
    path,
    *,
    spec=None,
    class_names=None,
    max_nodes=4096,
    max_elements=2**20,
    overwrite=False,
    verify=True,
    tolerance=None,
):
    """Writes a graph classifier as a TensorFlow SavedModel for serving.

    A client sends a graph and nothing else: kernels, degrees and whatever else
    the model makes of edges are computed inside. They are those of unweighted,
    undirected graphs, and so should those be that the model was trained with:
    weights and directions of edges are not sent. Signatures, all of a free
    batch size, an empty batch having an empty answer:

    - `serving_default`
        - `nodes`: float32 `(batch, nodes, features)`, anything at padding;
        - `edges`: int32 `(batch, edges, 2)`, node ids, -1 and -1 for padding;
          an edge counts in both directions, and once;
        - `node_mask`: bool `(batch, nodes)`, `True` for real nodes.
        - returns `logits` and `probabilities`, float32 `(batch, classes)`.
    - `serve_examples`
        - `examples`: string `(batch,)`, serialised GraphTensors as TF-GNN
          writes them, of one component each; `assets.extra/
          graph_schema.pbtxt` in the folder says what they hold.
        - returns the same.

    Edges between nodes that are not there, graphs without nodes, or of more
    than `max_nodes`, requests of more than `max_elements`, numbers that are
    not finite and examples that lack
    something are `InvalidArgumentError`s that name the input; the whole batch
    is refused. The folder appears under `path` complete or not at all.

    Args:
        model: a functional `keras.Model` from a dict with `nodes`, `edges` and
            `node_mask` to logits `(batch, classes)`: see
            `keras_topo.models.from_edges`.
        path: the folder to write; as in `export_saved_model`.
        spec: `keras_topo.graph_tensors.GraphTensorSpec` of the examples;
            defaults to one node feature, `features`.
        class_names: one string per class, kept in the answer's report; or
            `None`.
        max_nodes: int, nodes of a graph at most (padding included).
        max_elements: int, `batch * nodes^2` of a request at most, padding
            included, since memory grows with it: about 200 bytes each. A graph
            of more than 1,024 nodes needs more than the default.
        overwrite, verify, tolerance: as in `export_saved_model`.

    Returns:
        A dictionary that `json.dumps` takes, as `export_saved_model`.

    Raises:
        ValueError: if the model is not of the kind above, or the spec has
            another number of features.
        FileExistsError, RuntimeError: as `export_saved_model`.
    """
    check_backend()
    num_features, classes = _check_model(model)
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
    class_names = check_class_names(class_names, classes)
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, model)

    archive = keras.export.ExportArchive()
    archive.track(model)
    described = _add_signatures(archive, model, spec, max_nodes, max_elements)

    batches = _random_batches(spec)
    requests = _requests(batches, spec)

    def check(folder):
        answers = answers_of_a_clean_process(folder, requests)
        return _compare(answers, model, batches, spec, tolerance)

    return write_verified(
        archive,
        path,
        {
            "signatures": described,
            "classes": classes,
            "class_names": class_names,
        },
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
    """Features of a node and classes of a model, or the reason it has none."""
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
    check_logits(outputs[0])
    return nodes.shape[-1], outputs[0].shape[-1]


def _add_signatures(archive, model, spec, max_nodes, max_elements):
    """Adds the endpoints; returns {signature: its inputs and outputs}."""
    import tensorflow as tf

    from keras_topo.graph_tensors import parse_graph_examples

    def answer(graph):
        logits = _logits(model, graph, max_nodes, max_elements)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def serving_default(nodes, edges, node_mask):
        return answer(_checked_graph(nodes, edges, node_mask))

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


def _checked_graph(nodes, edges, node_mask):
    """The inputs of `serving_default`, from which nothing follows unless they
    fit one another."""
    import tensorflow as tf

    same = tf.reduce_all(tf.shape(nodes)[:2] == tf.shape(node_mask))
    same &= tf.shape(nodes)[0] == tf.shape(edges)[0]
    checks = [
        tf.debugging.Assert(
            same,
            [
                "`nodes`, `edges` and `node_mask` expect one batch size, and "
                "`nodes` and `node_mask` one number of nodes"
            ],
        )
    ]
    with tf.control_dependencies(checks):
        edges, node_mask = tf.identity(edges), tf.identity(node_mask)
        nodes = tf.where(node_mask[..., None], nodes, tf.zeros_like(nodes))
        # A prefix or not, real nodes are told by the mask: ids of edges are
        # looked up in it.
        padding = tf.reduce_all(edges == -1, axis=-1)
        count = tf.shape(nodes)[1]
        inside = tf.reduce_all((edges >= 0) & (edges < count), axis=-1)
        safe = tf.where(inside[..., None], edges, tf.zeros_like(edges))
        # A graph without nodes has nothing to look up.
        padded = tf.pad(node_mask, [[0, 0], [0, 1]])
        real = tf.reduce_all(tf.gather(padded, safe, batch_dims=1), axis=-1)
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(padding | (inside & real)),
            ["`edges` expects ids of real nodes, or -1 and -1 for padding"],
        ),
        tf.debugging.Assert(
            tf.reduce_all(tf.reduce_any(node_mask, axis=1)),
            ["`node_mask` expects at least one node in each graph"],
        ),
        tf.debugging.assert_all_finite(
            nodes, "`nodes` expects finite features of real nodes. Received"
        ),
    ]
    graph = {"nodes": nodes, "edges": edges, "node_mask": node_mask}
    with tf.control_dependencies(checks):
        return {name: tf.identity(x) for name, x in graph.items()}


def _logits(model, graph, max_nodes, max_elements):
    """float32 logits (batch, classes), for an empty batch as well."""
    import tensorflow as tf

    from keras_topo.graph_tensors import within

    bounded = tf.debugging.Assert(
        tf.shape(graph["nodes"])[1] <= max_nodes,
        [
            f"a graph expects at most {max_nodes} nodes. Received:",
            tf.shape(graph["nodes"])[1],
        ],
    )
    batch, nodes = tf.unstack(tf.shape(graph["nodes"])[:2])
    small = within(tf.repeat(nodes, batch), max_elements)
    with tf.control_dependencies([bounded, small]):
        graph = {name: tf.identity(x) for name, x in graph.items()}
    batch = tf.shape(graph["nodes"])[0]
    # An empty batch goes through the model as one graph of one node.
    missing = tf.cast(batch == 0, tf.int32)
    nodes = tf.pad(graph["nodes"], [[0, missing], [0, missing], [0, 0]])
    edges = tf.pad(
        graph["edges"], [[0, missing], [0, 0], [0, 0]], constant_values=-1
    )
    mask = tf.pad(
        graph["node_mask"], [[0, missing], [0, missing]], constant_values=True
    )
    logits = model(
        {"nodes": nodes, "edges": edges, "node_mask": mask}, training=False
    )
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


def _compare(answers, model, batches, spec, tolerance):
    """Compares the answers of the written model with the one in memory."""
    import tensorflow as tf

    from keras_topo.graphs import edge_inputs

    references = []
    for graphs in batches:
        logits = np.zeros((0, model.output_shape[-1]), "float32")
        if graphs:
            # On the CPU, as in the other process.
            with tf.device("CPU:0"):
                inputs = edge_inputs(graphs, spec.num_features)
                outputs = model(inputs, training=False)
            logits = np.asarray(keras.tree.flatten(outputs)[0], "float32")
        if not np.isfinite(logits).all():
            raise RuntimeError(
                "`model` gives logits that are not finite for random graphs; "
                "it was not exported."
            )
        refuse_probabilities(logits, tolerance)
        references += [logits, logits]
    scale = max(float(np.abs(x).max(initial=1.0)) for x in references)
    comparison = Comparison(tolerance * scale)
    for answer, logits in zip(answers, references, strict=True):
        comparison.add("logits", answer["logits"], logits)
        comparison.add(
            "probabilities", answer["probabilities"], softmax(logits)
        )
    return comparison.differences


def _random_graph(num_nodes, num_features, random):
    from keras_topo.graphs import Graph

    upper = np.triu(random.random((num_nodes, num_nodes)) < 0.4, k=1)
    features = random.random((num_nodes, num_features), "float32")
    return Graph(
        (upper | upper.T).astype("float32"),
        features if num_features else None,
    )
