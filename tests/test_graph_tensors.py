"""GraphTensors, read without TF-GNN and compared with it where it is there."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_topo import export_graph_saved_model
from keras_topo.export.graph_tensors import (
    GraphTensorSpec,
    graph_to_example,
    load_graph_schema,
    parse_graph_examples,
)
from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    node_features,
    random_walk_kernel,
)
from keras_topo.layers import AdjacencyKernel, RandomWalkKernel
from keras_topo.models import gcn, gkat_graph_classifier, with_edge_inputs

pytestmark = pytest.mark.tensorflow_only

SPEC = GraphTensorSpec({"labels": 2, "size": 1}, "atoms", "bonds")
InvalidArgument = tf.errors.InvalidArgumentError


def graphs():
    random = np.random.default_rng(0)
    lists = [[(0, 1), (1, 2), (2, 0), (2, 3)], [], [(0, 1)]]
    return [
        Graph.from_edges(edges, n, features=random.random((n, 3)))
        for n, edges in zip((4, 1, 2), lists, strict=True)
    ]


def serialized(graphs, spec=SPEC):
    return [graph_to_example(g, spec).SerializeToString() for g in graphs]


@pytest.mark.parametrize("traced", [False, True])
def test_round_trip(traced):
    parse = parse_graph_examples
    if traced:
        parse = tf.function(
            lambda examples: parse_graph_examples(examples, SPEC)
        )
        parsed = parse(tf.constant(serialized(graphs())))
    else:
        parsed = parse(serialized(graphs()), SPEC)
    assert parsed["nodes"].shape == (3, 4, 3)
    assert parsed["edges"].shape == (3, 8, 2)
    assert parsed["node_mask"].numpy().sum(1).tolist() == [4, 1, 2]
    for k, graph in enumerate(graphs()):
        n = graph.num_nodes
        np.testing.assert_array_equal(parsed["nodes"][k, :n], graph.features)
        edges = parsed["edges"][k].numpy()
        edges = edges[edges[:, 0] >= 0]
        np.testing.assert_array_equal(edges.T, graph.edge_index())


def test_an_empty_batch_and_no_features():
    parsed = parse_graph_examples(tf.zeros((0,), tf.string), SPEC)
    assert parsed["nodes"].shape == (0, 0, 3)
    bare = GraphTensorSpec({})
    plain = [g.with_features(None) for g in graphs()]
    parsed = parse_graph_examples(serialized(plain, bare), bare)
    assert parsed["nodes"].shape == (3, 4, 0)


def test_schema_round_trip(tmp_path):
    path = tmp_path / "graph_schema.pbtxt"
    path.write_text(SPEC.to_schema())
    assert load_graph_schema(path) == SPEC
    one = load_graph_schema(path, features=["size"])
    assert one.features == {"size": 1} and one.num_features == 1
    for name in ('a"b', "a\\n", "a\nb", "größe", "\x01"):
        spec = GraphTensorSpec({name: 2}, node_set=name, edge_set="e" + name)
        path.write_text(spec.to_schema(), encoding="utf-8")
        assert load_graph_schema(path) == spec


SCHEMA_ERRORS = {
    "text": ("node_sets {", {}, "graph_schema.pbtxt"),
    "sets": ("", {}, "`node_set`"),
    "name": (SPEC.to_schema(), {"edge_set": "roads"}, "`edge_set`.*bonds"),
    "feature": (SPEC.to_schema(), {"features": ["mass"]}, "'mass'"),
    "dtype": (
        SPEC.to_schema().replace("DT_FLOAT", "DT_INT64"),
        {"features": ["size"]},
        "int64",
    ),
    "ends": (
        SPEC.to_schema().replace('target: "atoms"', 'target: "bonds"'),
        {},
        "'atoms' to 'bonds'",
    ),
}


@pytest.mark.parametrize("name", SCHEMA_ERRORS)
def test_schema_errors(tmp_path, name):
    text, options, message = SCHEMA_ERRORS[name]
    path = tmp_path / "graph_schema.pbtxt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_graph_schema(path, **options)
    with pytest.raises(ValueError, match="graph_schema"):
        load_graph_schema(tmp_path / "missing.pbtxt")


def changed(**fields):
    """An example of the first graph with other fields; `None` deletes."""
    example = graph_to_example(graphs()[0], SPEC)
    for key, value in fields.items():
        key = {
            "size": "nodes/atoms.#size",
            "labels": "nodes/atoms.labels",
            "source": "edges/bonds.#source",
            "target": "edges/bonds.#target",
            "extra": "nodes/atoms.extra",
        }[key]
        example.features.feature[key].Clear()
        if value is None:
            del example.features.feature[key]
        elif key.endswith(("labels", "extra")):
            example.features.feature[key].float_list.value.extend(value)
        else:
            example.features.feature[key].int64_list.value.extend(value)
    return example.SerializeToString()


BROKEN = {
    "bytes": (lambda: b"no example", "serialized.*bytes 10"),
    # Not text, which an error could quote.
    "picture": (lambda: b"\xff\xd8\xff\xe0" * 9, "serialized.*bytes 36"),
    "damaged": (lambda: b"\n\x09no exampl", "parse"),
    "cut": (lambda: changed()[:-1], "serialized.*bytes"),
    "longer": (lambda: changed() + b"\xff", "serialized.*bytes"),
    "cut in its length": (lambda: b"\n\xff\xff", "serialized.*bytes 3"),
    "missing-feature": (lambda: changed(labels=None), "atoms.labels"),
    "short-feature": (lambda: changed(labels=[1.0, 2.0]), "atoms.labels"),
    "nan": (lambda: changed(labels=[np.nan] * 8), "atoms.labels"),
    "no-nodes": (lambda: changed(size=[0]), "#size"),
    "missing-size": (lambda: changed(size=None), "#size"),
    "negative-size": (lambda: changed(size=[-4]), "#size"),
    "components": (lambda: changed(size=[2, 1]), "#size.*one number.* 2"),
    "range": (lambda: changed(source=[0, 1, 1, 2, 2, 0, 2, 4]), "#source"),
    "negative": (lambda: changed(source=[0, 1, 1, 2, 2, 0, 2, -1]), "#source"),
    "ends": (lambda: changed(source=[0, 1]), "#source.*same number.* 2"),
    "no-targets": (lambda: changed(target=None), "#target.*same number.* 8"),
}


@pytest.fixture(scope="module")
def parse():
    return tf.function(
        lambda examples: parse_graph_examples(examples, SPEC),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )


UNSERVED = {
    "weighted": (
        {"edges": [(0, 1), (1, 2)], "weights": [1, 2.5]},
        "unweighted.*2.5",
    ),
    "directed": ({"edges": [(0, 1)], "directed": True}, "undirected"),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_graphs_that_are_not_served(name):
    """Kernels written in Python may need fields that a GraphTensor lacks."""
    fields, message = UNSERVED[name]
    graph = Graph.from_edges(num_nodes=3, features=np.ones((3, 3)), **fields)
    with pytest.raises(ValueError, match=message):
        graph_to_example(graph, SPEC)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_examples(name):
    make, message = BROKEN[name]
    examples = [*serialized(graphs()), make()]
    with pytest.raises(InvalidArgument, match=message):
        parse_graph_examples(examples, SPEC)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_examples_traced(parse, name):
    """The clear error comes first, although operations run in parallel."""
    make, message = BROKEN[name]
    examples = tf.constant([*serialized(graphs()), make()])
    for _ in range(20):
        with pytest.raises(InvalidArgument, match=message):
            parse(examples)


def test_what_is_not_asked_for_is_not_read():
    parsed = parse_graph_examples([changed(extra=[1.0])], SPEC)
    assert parsed["nodes"].shape == (1, 4, 3)


# Serving.


def classifier(kind):
    """A classifier, the layer for its kernel, and how to compute its inputs."""
    keras.utils.set_random_seed(0)
    if kind == "gkat":
        return (
            gkat_graph_classifier(
                3 + 3 + 4, 2, num_kernels=2, depth=1, num_heads=2, key_dim=4
            ),
            RandomWalkKernel((2, 3)),
            lambda a: random_walk_kernel(a, [2, 3]),
        )
    from keras_topo.graphs import normalized_adjacency

    return (
        gcn(3 + 3 + 4, 2, channels=4),
        AdjacencyKernel("normalized"),
        lambda a: normalized_adjacency(a).toarray(),
    )


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.few("gkat")
@pytest.mark.parametrize("kind", ["gkat", "gcn"])
def test_served_graphs(tmp_path, kind):
    """From an example to an answer, against the model fed from the host."""
    inner, layer, kernel = classifier(kind)
    model = with_edge_inputs(inner, layer, 3, max_degree=2, return_steps=4)
    report = export_graph_saved_model(model, tmp_path / "1", spec=SPEC)
    assert report["verified"] and report["max_abs_difference"] < 1e-5
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    serve = loaded.signatures["serve_examples"]
    answer = serve(examples=tf.constant(serialized(graphs())))
    for k, graph in enumerate(graphs()):
        features = node_features(graph, max_degree=2, return_steps=4)
        expected = inner(
            {
                "nodes": features[None],
                "kernel": kernel(graph.adjacency)[None].astype("float32"),
                "node_mask": np.ones((1, graph.num_nodes), bool),
            }
        )
        np.testing.assert_allclose(
            answer["logits"][k], expected[0], rtol=1e-4, atol=1e-5
        )
    schema = load_graph_schema(
        tmp_path / "1/assets.extra/graph_schema.pbtxt", ["labels", "size"]
    )
    assert schema == SPEC
    # After a refused request, the next valid one gets the same answer.
    with pytest.raises(InvalidArgument, match="#source"):
        serve(examples=tf.constant([changed(source=[9] * 8)]))
    again = serve(examples=tf.constant(serialized(graphs())))
    np.testing.assert_array_equal(again["logits"], answer["logits"])


BAD_TENSORS = {
    "range": ({"edges": [[[0, 4]]]}, "`edges`"),
    "padding-node": ({"edges": [[[0, 3]]]}, "`edges`"),
    "half-padding": ({"edges": [[[0, -1]]]}, "`edges`"),
    "nan": ({"nodes": np.full((1, 4, 3), np.nan)}, "`nodes`"),
    "no-nodes": (
        {"node_mask": np.zeros((1, 4), bool), "edges": [[[-1, -1]]]},
        "`node_mask`",
    ),
    "batch": ({"edges": np.zeros((2, 1, 2))}, "batch"),
    "large": (
        {
            "nodes": np.zeros((1, 9, 3)),
            "node_mask": np.ones((1, 9), bool),
        },
        "at most 8 nodes",
    ),
    "too-much": (
        {
            "nodes": np.zeros((3, 7, 3)),
            "edges": -np.ones((3, 1, 2)),
            "node_mask": np.ones((3, 7), bool),
        },
        "at most 128 entries",
    ),
}


def test_what_a_short_request_may_ask_for():
    """`batch x nodes^2` is checked before padding (G13)."""

    def parse(sizes, limit):
        examples = [changed(size=[int(n)], labels=None) for n in sizes]
        spec = GraphTensorSpec({}, "atoms", SPEC.edge_set)
        return parse_graph_examples(examples, spec, None, limit)

    with pytest.raises(InvalidArgument, match=r"(?s)500000.*2.*512"):
        parse([100, 512], 500000)
    with pytest.raises(InvalidArgument, match="500000"):
        parse([2**31 - 1], 500000)
    assert parse([100, 512], 2 * 512**2)["node_mask"].shape == (2, 512)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    inner, layer, _ = classifier("gcn")
    model = with_edge_inputs(inner, layer, 3, max_degree=2, return_steps=4)
    path = tmp_path_factory.mktemp("served") / "1"
    export_graph_saved_model(
        model, path, spec=SPEC, max_nodes=8, max_elements=128, verify=False
    )
    return tf.saved_model.load(str(path)).signatures


def tensors(**fields):
    mask = np.array([[True, True, True, False]])
    graph = {
        "nodes": np.zeros((1, 4, 3)),
        "edges": [[[0, 1]]],
        "node_mask": mask,
    }
    graph = {**graph, **fields}
    return {
        "nodes": tf.constant(graph["nodes"], tf.float32),
        "edges": tf.constant(graph["edges"], tf.int32),
        "node_mask": tf.constant(graph["node_mask"]),
    }


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensors(served, name):
    fields, message = BAD_TENSORS[name]
    served = served["serving_default"]
    for _ in range(20):
        with pytest.raises(InvalidArgument, match=message):
            served(**tensors(**fields))
    assert served(**tensors())["logits"].shape == (1, 2)
    # NaN at padding has no effect.
    nodes = np.zeros((1, 4, 3))
    nodes[0, 3] = np.nan
    assert np.isfinite(served(**tensors(nodes=nodes))["logits"]).all()


@pytest.mark.parametrize("name", BROKEN)
def test_bad_examples(served, name):
    make, message = BROKEN[name]
    examples = tf.constant([*serialized(graphs()), make()])
    for _ in range(20):
        with pytest.raises(InvalidArgument, match=message):
            served["serve_examples"](examples=examples)


def ends_in_softmax():
    model = with_edge_inputs(*classifier("gcn")[:2], 3, 2, 4)
    return keras.Model(model.input, keras.layers.Softmax()(model.output))


def test_probabilities_are_served_as_they_are(tmp_path):
    model = ends_in_softmax()
    names = ["a", "b"]
    report = export_graph_saved_model(
        model, tmp_path / "1", spec=SPEC, class_names=names, verify=False
    )
    outputs = {"probabilities", "class"}
    assert set(report["signatures"]["serve_examples"]["outputs"]) == outputs
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    answer = signatures["serving_default"](**tensors())
    expected = model(tensors())
    np.testing.assert_allclose(
        answer["probabilities"], expected, rtol=1e-4, atol=1e-6
    )


def test_the_former_path():
    from keras_topo import graph_tensors

    assert graph_tensors.graph_to_example is graph_to_example
    assert graph_tensors.GraphTensorSpec is GraphTensorSpec


EXPORT_ERRORS = {
    "model": (lambda: (classifier("gcn")[0], {}), "`model`"),
    "spec": (
        lambda: (
            with_edge_inputs(*classifier("gcn")[:2], 3, 2, 4),
            {"spec": GraphTensorSpec({"x": 5})},
        ),
        "`spec`",
    ),
    "names": (
        lambda: (
            with_edge_inputs(*classifier("gcn")[:2], 3, 2, 4),
            {"class_names": ["a"]},
        ),
        "`class_names`",
    ),
}


@pytest.mark.parametrize("name", EXPORT_ERRORS)
def test_export_errors(tmp_path, name):
    make, message = EXPORT_ERRORS[name]
    model, options = make()
    with pytest.raises(ValueError, match=message):
        export_graph_saved_model(model, tmp_path / "1", **options)
    assert not (tmp_path / "1").exists()
    inner, layer, _ = classifier("gcn")
    with pytest.raises(ValueError, match="together 9"):
        with_edge_inputs(inner, layer, 2, 2, 4)


# TF-GNN needs the older Keras, so it has a separate process.

WITH_TFGNN = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf, tensorflow_gnn as tfgnn
folder = sys.argv[1]
schema = tfgnn.read_schema(folder + "/ours.pbtxt")
spec = tfgnn.create_graph_spec_from_schema_pb(schema)
ours = tfgnn.parse_single_example(
    spec, open(folder + "/ours.example", "rb").read())
assert ours.node_sets["atoms"]["labels"].shape == (4, 2)
adjacency = ours.edge_sets["bonds"].adjacency
assert adjacency.source.numpy().tolist() == [0, 0, 1, 1, 2, 2, 2, 3]
assert adjacency.target.numpy().tolist() == [1, 2, 0, 2, 0, 1, 3, 2]
open(folder + "/back.example", "wb").write(
    tfgnn.write_example(ours).SerializeToString())
theirs = tfgnn.GraphTensor.from_pieces(
    context=tfgnn.Context.from_fields(features={"y": tf.constant([1])}),
    node_sets={"atoms": tfgnn.NodeSet.from_fields(sizes=[2], features={
        "labels": tf.constant([[1., 2.], [3., 4.]]),
        "size": tf.constant([5., 6.]), "id": tf.constant([7, 8])})},
    edge_sets={"bonds": tfgnn.EdgeSet.from_fields(
        sizes=[1], features={"weight": tf.constant([0.5])},
        adjacency=tfgnn.Adjacency.from_indices(
            ("atoms", tf.constant([1])), ("atoms", tf.constant([0]))))})
tfgnn.write_schema(tfgnn.create_schema_pb_from_graph_spec(theirs.spec),
                   folder + "/theirs.pbtxt")
open(folder + "/theirs.example", "wb").write(
    tfgnn.write_example(theirs).SerializeToString())
"""


def test_against_tensorflow_gnn(tmp_path):
    pytest.importorskip("tf_keras", reason="extra gnn is not installed")
    (tmp_path / "ours.pbtxt").write_text(SPEC.to_schema())
    first = graphs()[0]
    (tmp_path / "ours.example").write_bytes(serialized([first])[0])
    process = subprocess.run(
        [sys.executable, "-c", WITH_TFGNN, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-3000:]

    def read(name):
        return (tmp_path / name).read_bytes()

    ours = parse_graph_examples([read("ours.example")], SPEC)
    back = parse_graph_examples([read("back.example")], SPEC)
    for key in ours:
        np.testing.assert_array_equal(ours[key], back[key])
    spec = load_graph_schema(tmp_path / "theirs.pbtxt")
    assert spec == SPEC
    theirs = parse_graph_examples([read("theirs.example")], spec)
    np.testing.assert_array_equal(theirs["nodes"], [[[1, 2, 5], [3, 4, 6]]])
    np.testing.assert_array_equal(theirs["edges"], [[[1, 0]]])


def test_a_spec_is_that_of_an_adapted_preprocessor():
    with pytest.raises(ValueError, match="expects adapt.graphs. first"):
        GraphTensorSpec.from_preprocessor(GraphPreprocessor())
