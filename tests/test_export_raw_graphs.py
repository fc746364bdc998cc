"""SavedModels that take raw graphs: equal to the model fed from the host."""

import json

import keras
import networkx
import numpy as np
import pytest
import tensorflow as tf

from keras_topo import export_graph_saved_model
from keras_topo.export import saved_models
from keras_topo.export.graph_tensors import (
    GraphTensorSpec,
    graph_to_example,
    load_graph_schema,
)
from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    GraphSequence,
    raw_inputs,
)
from keras_topo.models import gkat_graph_classifier, with_preprocessing

pytestmark = pytest.mark.tensorflow_only

InvalidArgument = tf.errors.InvalidArgumentError
ATTRIBUTES = {
    "node_labels": "atom",
    "features": "charge",
    "edge_labels": "bond",
    "edge_features": "length",
}


def molecules(count=4, directed=False, weighted=False, text=True):
    random = np.random.default_rng(1)
    graphs = []
    for k in range(count):
        graph = networkx.gnp_random_graph(
            4 + 3 * k, 0.35, seed=k, directed=directed
        )
        for node in graph:
            label = int(random.integers(3))
            graph.nodes[node]["atom"] = "CNO"[label] if text else label - 1
            graph.nodes[node]["charge"] = float(random.normal())
        for edge in graph.edges:
            bond = int(random.integers(2))
            graph.edges[edge]["bond"] = ["single", "ring"][bond]
            graph.edges[edge]["length"] = float(random.normal())
            if weighted:
                graph.edges[edge]["weight"] = float(random.uniform(0.5, 2))
        graphs.append(graph)
    return graphs


def built(graphs, y, outputs, level="graphs", statistics=None, **options):
    """A model in its training form, and its adapted preprocessor."""
    options = {
        "kernel_sizes": (1, 3),
        "return_steps": 3,
        "cache": False,
        **options,
    }
    found = GraphPreprocessor(**options).adapt(graphs, y)
    keras.utils.set_random_seed(0)
    model = gkat_graph_classifier(
        found.num_features,
        outputs,
        found.num_kernels,
        num_heads=2,
        key_dim=4,
        depth=1,
        num_edge_features=found.num_edge_features,
        local=found.num_edge_features > 0,
        feature_statistics=found.feature_statistics,
        batching="joined" if found.form == "pairs" else "padded",
        level=level,
        target_statistics=statistics,
    )
    # Gates start without effect.
    for weight in model.weights:
        if "gates" in weight.path:
            weight.assign(np.random.normal(size=weight.shape))
    return model, found


def labeled(**options):
    """Weighted molecules with all fields of nodes and edges."""
    graphs = molecules(weighted=True, **options)
    y = ["toxic", "harmless"] * 2
    return graphs, *built(graphs, y, 2, attributes=ATTRIBUTES)


def directed():
    graphs = molecules(directed=True, weighted=True)
    return graphs, *built(graphs, [0, 1, 2, 0], 3, edges=True)


def several_labels():
    graphs = molecules(text=False)
    attributes = {"node_labels": "atom"}
    y = np.eye(4)[:, :3]
    return graphs, *built(graphs, y, 3, attributes=attributes)


def numbers():
    graphs = molecules()
    options = {"attributes": {"features": "charge"}, "form": "pairs"}
    statistics = [1000.0, 5.0], [50.0, 1.0]
    y = np.random.rand(4, 2)
    return graphs, *built(graphs, y, 2, statistics=statistics, **options)


def of_nodes():
    graphs = molecules()
    y = [np.arange(len(graph)) % 2 for graph in graphs]
    return graphs, *built(graphs, y, 2, level="nodes")


CASES = {
    "labeled": (labeled, None, {"logits", "probabilities", "class"}),
    "directed": (directed, None, {"logits", "probabilities", "class"}),
    "multilabel": (
        several_labels,
        "multilabel",
        {"logits", "probabilities"},
    ),
    "regression": (numbers, None, {"predictions"}),
    "nodes": (of_nodes, None, {"logits", "probabilities", "class"}),
}


def host_outputs(model, preprocessor, graphs):
    """The outputs of the model with inputs from the host, by graph."""
    sequence = GraphSequence(
        graphs,
        preprocessor,
        False,
        level="nodes" if len(model.output_shape) == 3 else "graphs",
    )
    (inputs,) = sequence[0]
    return np.asarray(model(inputs, training=False))


def serialized(graphs, preprocessor, spec=None):
    spec = spec or GraphTensorSpec.from_preprocessor(preprocessor)
    return [
        graph_to_example(graph, spec).SerializeToString()
        for graph in preprocessor.read(graphs)
    ]


def tensors(inputs):
    return {key: tf.constant(value) for key, value in inputs.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of the first case, the report, and the exported model."""
    graphs, model, found = labeled()
    path = tmp_path_factory.mktemp("served") / "1"
    report = export_graph_saved_model(
        with_preprocessing(model, found),
        path,
        max_nodes=64,
        max_elements=4 * 16**2,
    )
    assert report["verified"] and report["max_abs_difference"] < 1e-4
    return path, report, graphs, model, found


@pytest.mark.few("labeled", "directed")
@pytest.mark.parametrize("name", CASES)
def test_the_same_from_the_host_and_served(tmp_path, name, request):
    build, task, outputs = CASES[name]
    path = tmp_path / "1"
    if name == "labeled":
        path, report, graphs, model, found = request.getfixturevalue("exported")
    else:
        graphs, model, found = build()
        report = export_graph_saved_model(
            with_preprocessing(model, found), path, task=task, verify=False
        )
    described = report["signatures"]["serving_default"]
    assert set(described["outputs"]) == outputs
    signatures = tf.saved_model.load(str(path)).signatures
    inputs = raw_inputs(graphs, found)
    assert set(described["inputs"]) == set(inputs)
    expected = host_outputs(model, found, graphs)
    answer = signatures["serving_default"](**tensors(inputs))
    examples = tf.constant(serialized(graphs, found))
    parsed = signatures["serve_examples"](examples=examples)
    mask = inputs["node_mask"]
    if name != "nodes":
        mask = np.ones(len(graphs), bool)
    key = "predictions" if name == "regression" else "logits"
    for served in (answer, parsed):
        assert set(served) == outputs
        np.testing.assert_allclose(
            served[key][mask], expected[mask], rtol=1e-4, atol=1e-5
        )
        # Values at padded nodes have no effect.
        assert all(
            x.dtype == tf.string or not x[~mask].numpy().any()
            for x in served.values()
        )
    if name == "regression":
        assert report["classes"] is None and report["task"] == "regression"
        return
    shares = answer["probabilities"].numpy()[mask]
    if name == "multilabel":
        np.testing.assert_allclose(
            shares, 1 / (1 + np.exp(-expected)), rtol=1e-4, atol=1e-6
        )
        return
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    assert report["class_names"] == found.class_names
    names = np.array(found.class_names)[expected.argmax(-1)]
    assert [x.decode() for x in answer["class"].numpy()[mask]] == list(
        names[mask]
    )
    if name == "nodes":
        assert not any(answer["class"].numpy()[~mask])
    kept = json.loads((path / "assets.extra/preprocessor.json").read_text())
    config = json.loads(json.dumps(found.get_config()))
    assert kept["graph_preprocessor"] == config
    assert kept["class_names"] == found.class_names


# Invalid requests.


@pytest.fixture(scope="module")
def served(exported):
    """Signatures of the first case, with matching requests and preprocessor."""
    path, _, graphs, _, found = exported
    signatures = tf.saved_model.load(str(path)).signatures
    return path, signatures, raw_inputs(graphs, found), found, graphs


def with_value(inputs, key, place, value):
    changed = inputs[key].copy()
    if changed.dtype.kind == "U":
        changed = changed.astype(object)
    changed[place] = value
    return {**inputs, key: changed}


def padded_to(inputs, num_nodes):
    """The same inputs with more padded nodes."""
    more = num_nodes - inputs["node_mask"].shape[1]
    return {
        key: np.pad(x, [(0, 0), (0, more)] + [(0, 0)] * (x.ndim - 2))
        if key in ("node_mask", "node_labels", "features")
        else x
        for key, x in inputs.items()
    }


BAD = {
    "label": (("node_labels", (0, 1), "Xe"), "`node_labels`.*C, N, O.*Xe"),
    "label-bytes": (
        ("node_labels", (0, 1), b"\xff\xd8" * 500),
        "`node_labels`",
    ),
    "bond": (("edge_labels", (1, 0), "triple"), "`edge_labels`.*triple"),
    "nan": (("features", (0, 1, 0), np.nan), "`features`.*finite"),
    "infinity": (("edge_features", (1, 0, 0), np.inf), "`edge_features`"),
    "weight": (("edge_weights", (1, 0), -2.0), "`edge_weights`.*-2"),
    "weight-zero": (("edge_weights", (1, 0), 0.0), "`edge_weights`.*: 0"),
    "weight-nan": (("edge_weights", (1, 0), np.nan), "`edge_weights`.*finite"),
    "id": (("edges", (1, 0, 1), 99), "`edges`.*99"),
    "padded-id": (("edges", (0, 0, 1), 4), "`edges`.*4"),
    "half-padding": (("edges", (0, 0, 1), -1), "`edges`"),
    "no-nodes": (("node_mask", 0, False), "`node_mask`|`edges`"),
    "overflow": (("features", (0, 1, 0), 3e38), "`features`.*finite logits"),
    "overflow-weight": (
        ("edge_weights", (1, slice(None)), 3e38),
        "`edge_weights`.*finite sum.*inf",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_inputs(served, name):
    _, signatures, inputs, *_ = served
    change, message = BAD[name]
    bad = tensors(with_value(inputs, *change))
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=f"(?s){message}"):
            signatures["serving_default"](**bad)
    answer = signatures["serving_default"](**tensors(inputs))
    assert np.isfinite(answer["logits"]).all()


def test_inputs_that_do_not_fit_one_another(served):
    _, signatures, inputs, *_ = served
    for key in inputs:
        for cut in (slice(1, None), (slice(None), slice(1, None))):
            bad = {**inputs, key: inputs[key][cut]}
            with pytest.raises(InvalidArgument, match="expects the shape"):
                signatures["serving_default"](**tensors(bad))


def test_sizes_of_requests(served):
    _, signatures, inputs, *_ = served
    for size, message in ((65, "at most 64 nodes"), (17, "1024 entries")):
        with pytest.raises(InvalidArgument, match=message):
            signatures["serving_default"](**tensors(padded_to(inputs, size)))
    answer = signatures["serving_default"](**tensors(padded_to(inputs, 16)))
    again = signatures["serving_default"](**tensors(inputs))
    np.testing.assert_allclose(answer["logits"], again["logits"], atol=1e-5)
    many = {
        key: np.repeat(x, 100, axis=1) if "edge" in key else x
        for key, x in inputs.items()
    }
    assert many["edges"].size > 2 * 1024
    with pytest.raises(InvalidArgument, match="1024 padded edges"):
        signatures["serving_default"](**tensors(many))


def test_small_limits_are_kept_by_what_a_model_is_tried_with(
    tmp_path, monkeypatch
):
    requests = []
    monkeypatch.setattr(
        saved_models,
        "write_warmup",
        lambda folder, found: requests.extend(found),
    )
    _, model, found = labeled()
    whole = with_preprocessing(model, found)
    for k, limits in enumerate(((3, 2**20), (64, 27), (64, 2), (1, 1))):
        options = dict(zip(("max_nodes", "max_elements"), limits, strict=True))
        path = tmp_path / str(k)
        export_graph_saved_model(whole, path, verify=False, **options)
        signatures = tf.saved_model.load(str(path)).signatures
        for name, inputs in requests:
            inputs = {key: tf.constant(x) for key, x in inputs.items()}
            signatures[name](**inputs)
        assert len(requests) == 6
        requests.clear()
    for wrong in ({"max_nodes": 0}, {"max_elements": "8"}, {"max_nodes": 1e6}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"`{name}` .*positive int"):
            export_graph_saved_model(whole, tmp_path / "x", **wrong)


def test_padding_does_not_matter(served):
    _, signatures, inputs, *_ = served
    expected = signatures["serving_default"](**tensors(inputs))
    spoiled = {k: x.copy() for k, x in inputs.items()}
    nodes, edges = ~inputs["node_mask"], inputs["edges"][..., 0] < 0
    assert nodes.any() and edges.any()
    spoiled["features"][nodes] = np.nan
    spoiled["edge_features"][edges] = np.inf
    spoiled["edge_weights"][edges] = -1
    for key, padding in (("node_labels", nodes), ("edge_labels", edges)):
        spoiled[key] = np.where(padding, "", spoiled[key])
    answer = signatures["serving_default"](**tensors(spoiled))
    np.testing.assert_array_equal(answer["logits"], expected["logits"])


def changed_example(served, key, values):
    """The last graph's example with another field; `None` deletes it."""
    *_, found, graphs = served
    example = tf.train.Example.FromString(serialized(graphs, found)[-1])
    feature = example.features.feature
    if values is None:
        del feature[key]
        return example.SerializeToString()
    kind = feature[key].WhichOneof("kind")
    getattr(feature[key], kind).value[: len(values)] = values
    return example.SerializeToString()


BAD_EXAMPLES = {
    "picture": (lambda s: b"\xff\xd8\xff\xe0" * 9, "`examples`.*bytes 36"),
    "label": (
        lambda s: changed_example(s, "nodes/nodes.label", [b"Xe"]),
        "nodes/nodes.label.*Xe",
    ),
    "label-missing": (
        lambda s: changed_example(s, "nodes/nodes.label", None),
        "nodes/nodes.label.*1 labels.*0",
    ),
    "bond": (
        lambda s: changed_example(s, "edges/edges.label", [b"triple"]),
        "edges/edges.label.*triple",
    ),
    "weight": (
        lambda s: changed_example(s, "edges/edges.weight", [-1.0]),
        "edges/edges.weight.*-1",
    ),
    "weight-nan": (
        lambda s: changed_example(s, "edges/edges.weight", [np.nan]),
        "edges/edges.weight.*finite",
    ),
    "length": (
        lambda s: changed_example(s, "edges/edges.features", [np.inf]),
        "edges/edges.features.*finite",
    ),
    "id": (
        lambda s: changed_example(s, "edges/edges.#target", [13]),
        "#target.*13",
    ),
    "overflow": (
        lambda s: changed_example(s, "nodes/nodes.features", [3e38]),
        "`examples`.*finite logits",
    ),
}


@pytest.mark.parametrize("name", BAD_EXAMPLES)
def test_bad_examples(served, name):
    _, signatures, _, found, graphs = served
    make, message = BAD_EXAMPLES[name]
    good = serialized(graphs, found)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=f"(?s){message}"):
            signatures["serve_examples"](
                examples=tf.constant([good[0], make(served)])
            )
    answer = signatures["serve_examples"](examples=tf.constant(good))
    assert answer["class"].shape == (4,)


def test_schema_round_trip(served):
    path, _, _, found, _ = served
    spec = GraphTensorSpec.from_preprocessor(found)
    file = path / "assets.extra" / "graph_schema.pbtxt"
    again = load_graph_schema(
        file,
        node_label="label",
        edge_weight="weight",
        edge_label="label",
        edge_features=["features"],
    )
    assert again == spec and not again.directed
    file = path.parent / "directed.pbtxt"
    file.write_text(GraphTensorSpec({}, directed=True).to_schema())
    assert load_graph_schema(file) == GraphTensorSpec({}, directed=True)
    with pytest.raises(ValueError, match="`node_label`.*'features', float32"):
        load_graph_schema(
            path / "assets.extra/graph_schema.pbtxt", node_label="features"
        )
    with pytest.raises(ValueError, match="`edge_weight`.*'label'.*'mass'"):
        load_graph_schema(
            path / "assets.extra/graph_schema.pbtxt", edge_weight="mass"
        )


def test_examples_that_graphs_cannot_fill(served):
    *_, found, graphs = served
    spec = GraphTensorSpec.from_preprocessor(found)
    graph = found.read(graphs)[1]
    for fields, message in (
        ({"node_labels": None}, "expects node_labels. .*without"),
        ({"node_labels": np.zeros(7, int)}, "node_labels of dtype string"),
        ({"edge_features": None}, "1 edge_features.*with 0"),
    ):
        wrong = Graph(**{**vars(graph), **fields})
        with pytest.raises(ValueError, match=message):
            graph_to_example(wrong, spec)
    with pytest.raises(ValueError, match="`node_label`.*'float32'"):
        GraphTensorSpec({}, node_label=("label", "float32"))


def test_what_unknown_labels_count_as(tmp_path):
    """They become zeros, and no int64 is confused with another number."""
    graphs = molecules(text=False)
    attributes = {"node_labels": "atom"}
    model, found = built(
        graphs, [0, 1, 0, 1], 2, attributes=attributes, unknown="zeros"
    )
    export_graph_saved_model(
        with_preprocessing(model, found), tmp_path / "1", verify=False
    )
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    inputs = raw_inputs(graphs, found)
    inputs["node_labels"][0, 0] = 9
    nothing = signatures["serving_default"](**tensors(inputs))["logits"]
    graph = found.read(graphs)[0]
    for label in (9, 2**32 - 1, -(2**40)):
        labels = graph.node_labels.copy()
        labels[0] = label
        changed = [Graph(graph.adjacency, node_labels=labels), *graphs[1:]]
        answer = signatures["serve_examples"](
            examples=tf.constant(serialized(changed, found))
        )
        np.testing.assert_allclose(answer["logits"], nothing, atol=1e-5)


def test_graphs_without_edges(served):
    _, signatures, inputs, found, graphs = served
    lone = Graph(
        np.zeros((2, 2)), node_labels=["C", "N"], features=np.ones((2, 1))
    )
    raw = raw_inputs([lone], found)
    assert raw["edges"].shape == (1, 0, 2)
    answer = signatures["serving_default"](**tensors(raw))
    examples = tf.constant(serialized([lone], found))
    again = signatures["serve_examples"](examples=examples)
    np.testing.assert_allclose(answer["logits"], again["logits"], atol=1e-6)


# Models that are refused.


def test_tasks_that_do_not_fit(tmp_path):
    graphs, model, found = several_labels()
    whole = with_preprocessing(model, found)
    for options, message in (
        ({}, "`task` expects 'multilabel' or 'regression'"),
        ({"task": "nodes"}, "`task`.*'nodes'"),
        ({"task": "regression", "class_names": ["a"] * 3}, "`class_names`"),
        ({"task": "multilabel", "class_names": ["a"]}, "`class_names`"),
        ({"task": "multilabel", "spec": GraphTensorSpec({})}, "`spec`"),
    ):
        with pytest.raises(ValueError, match=message):
            export_graph_saved_model(whole, tmp_path / "1", **options)
    one, found = built(
        graphs, np.ones((4, 1)), 1, attributes={"node_labels": "atom"}
    )
    with pytest.raises(ValueError, match="'multilabel'.*one output"):
        export_graph_saved_model(
            with_preprocessing(one, found),
            tmp_path / "1",
            task="classification",
        )
    assert not list(tmp_path.iterdir())
