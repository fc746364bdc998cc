"""`LinkPredictor`: one graph in, probabilities of pairs out."""

import keras
import networkx
import numpy as np
import pytest

import keras_topo
from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    labeled_walk_kernel,
    sample_negatives,
    split_edges,
)
from keras_topo.link_predictor import LinkBatches, LinkPredictor
from keras_topo.models import gkat_link_predictor

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

OPTIONS = {
    "num_heads": 2,
    "key_dim": 8,
    "embedding_dim": 16,
    "decoder_dim": 16,
    "depth": 1,
    "dropout": 0.2,
    "epochs": 15,
    "folds": 4,
    "learning_rate": 2e-2,
    "verbose": 0,
}
# Without attention, which takes long to trace.
LIGHT = {**OPTIONS, "encoder": "gcn"}


def blocks(seed=0, blocks=6, size=14, directed=False):
    """A stochastic block model whose features tell blocks with some noise."""
    random = np.random.default_rng(seed)
    block = np.repeat(np.arange(blocks), size)
    inside = block[:, None] == block
    if directed:  # Each block points to the next one.
        inside = (block[:, None] + 1) % blocks == block
    matrix = random.random(inside.shape) < np.where(inside, 0.35, 0.01)
    if not directed:
        matrix = np.triu(matrix, 1)
        matrix = matrix | matrix.T
    np.fill_diagonal(matrix, 0)
    features = np.eye(blocks)[block] + random.normal(
        scale=0.3, size=(len(block), blocks)
    )
    return Graph(matrix, features=features)


@pytest.fixture(scope="module")
def split():
    return split_edges(blocks(), (0.75, 0.1, 0.15))


@pytest.fixture(scope="module")
def predictor(split):
    keras.utils.clear_session()
    return keras_topo.LinkPredictor(**OPTIONS).fit(
        split.graph, (split.validation, split.validation_negatives)
    )


def test_links_are_found(predictor, split):
    found = predictor.evaluate(split.test, split.test_negatives, hits=(5,))
    assert sorted(found) == ["average_precision", "hits@5", "roc_auc"]
    assert found["roc_auc"] > 0.8 and found["average_precision"] > 0.75
    history = predictor.history.history
    assert len(history["loss"]) <= 15
    # The best epoch is kept, with all edges in the kernel.
    best = predictor.evaluate(split.validation, split.validation_negatives, ())
    assert best["average_precision"] == pytest.approx(
        max(history["val_average_precision"]), abs=1e-6
    )


def test_pairs_have_no_order_and_no_neighbors(predictor, split):
    probabilities = predictor.predict_proba(split.test)
    assert probabilities.shape == (len(split.test),)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    np.testing.assert_allclose(
        predictor.predict_proba(split.test[::-1, ::-1]),
        probabilities[::-1],
        atol=1e-6,
    )
    logits = predictor.predict_raw(split.test)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-logits)), probabilities, atol=1e-6
    )
    assert predictor.predict_proba([]).shape == (0,)
    with pytest.raises(ValueError, match="`pairs` expects node ids from 0"):
        predictor.predict_proba([[0, 84]])


def test_presets(predictor, split, tmp_path):
    predictor.save(tmp_path / "links", {"roc_auc": 0.9})
    again = LinkPredictor.from_preset(tmp_path / "links", split.graph)
    np.testing.assert_allclose(
        again.predict_proba(split.test),
        predictor.predict_proba(split.test),
        atol=1e-6,
    )
    assert again.training == predictor.training
    assert again.encoder == "gkat"
    # By the name of its builder, not layer by layer.
    config = (tmp_path / "links" / "config.json").read_text()
    assert '"builder": "gkat_link_predictor"' in config
    with pytest.raises(ValueError, match="'graphs'.*Received.*'links'"):
        keras_topo.GraphClassifier.from_preset(tmp_path / "links")
    with pytest.raises(ValueError, match="84"):
        LinkPredictor.from_preset(tmp_path / "links", blocks(size=13))


@pytest.mark.slow_on_jax
def test_shuffled_pairs_are_not_found(split):
    """If held-out links are random pairs, scores are at chance level."""
    graph = split.graph
    random = np.random.default_rng(1)
    pairs = sample_negatives(graph, 200, random)
    shuffled = Graph.from_edges(
        sample_negatives(blocks(), graph.num_edges, random),
        graph.num_nodes,
        features=graph.features[random.permutation(graph.num_nodes)],
    )
    predictor = LinkPredictor(**LIGHT).fit(shuffled)
    found = predictor.evaluate(pairs[:100], pairs[100:])
    assert abs(found["roc_auc"] - 0.5) < 0.12
    found = predictor.evaluate(split.test, split.test_negatives)
    assert abs(found["roc_auc"] - 0.5) < 0.2


@pytest.mark.slow_on_jax
def test_graph_convolutions_and_graphs_of_networkx():
    graph = networkx.from_scipy_sparse_array(blocks().adjacency)
    features = blocks().features
    for node in graph:
        graph.nodes[node]["x"] = features[node]
    split = split_edges(Graph.from_networkx(graph))
    graph.remove_edges_from(split.test.tolist())
    predictor = LinkPredictor(
        GraphPreprocessor(
            attributes={"features": "x"},
            kernel="normalized",
            return_steps=0,
            cache=False,
        ),
        decoder="dot",
        **LIGHT,
    ).fit(graph)
    found = predictor.evaluate(split.test, split.test_negatives)
    assert found["roc_auc"] > 0.75
    with pytest.raises(ValueError, match="kernel='normalized'.*'random_walk'"):
        LinkPredictor(GraphPreprocessor(kernel="random_walk"), encoder="gcn")


@pytest.mark.slow_on_jax
def test_directed_graphs():
    split = split_edges(blocks(directed=True), (0.8, 0.0, 0.2))
    predictor = LinkPredictor(**{**LIGHT, "epochs": 25}).fit(split.graph)
    assert predictor.model.get_layer("logits").kind == "concat"
    # The right one of two directions.
    right = predictor.predict_raw(split.test)
    wrong = predictor.predict_raw(split.test[:, ::-1])
    assert (right > wrong).mean() > 0.8
    with pytest.raises(ValueError, match="`decoder='concat'` expects a dir"):
        LinkPredictor(decoder="concat", **OPTIONS).fit(blocks())


def normalized(*arguments, **options):
    """A custom builder with untrained statistics."""
    inner = gkat_link_predictor(*arguments, name="inner", **options)
    inputs = {
        name: keras.Input(x.shape[1:], dtype=x.dtype, name=name)
        for name, x in inner.input.items()
    }
    nodes = keras.layers.BatchNormalization(name="statistics")(inputs["nodes"])
    return keras.Model(inputs, inner({**inputs, "nodes": nodes}))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_statistics_of_a_builder_of_ones_own(split, tmp_path):
    graph = split.graph
    shifted = Graph(graph.adjacency, features=graph.features + 3.0)
    options = {**LIGHT, "epochs": 5, "validation_share": 0.0}
    predictor = LinkPredictor(build=normalized, **options).fit(shifted)
    statistics = predictor.model.get_layer("statistics")
    assert (np.asarray(statistics.moving_mean) > 0.3).all()
    # No recipe says which kernel it has; the model itself does.
    predictor.save(tmp_path / "own")
    again = LinkPredictor.from_preset(tmp_path / "own", shifted)
    np.testing.assert_allclose(
        again.predict_raw(split.test),
        predictor.predict_raw(split.test),
        atol=1e-5,
    )


def test_targets_are_not_in_their_kernel():
    """The kernel and the features of a batch do not change with its edges."""
    graph = Graph(blocks().adjacency)  # Degrees as features.
    predictor = LinkPredictor(**OPTIONS)
    predictor.preprocessor.adapt([graph])
    batches = LinkBatches(graph, predictor._inputs, folds=4)
    inputs, targets = batches[1]
    positives = inputs["pairs"][targets == 1]
    assert len(positives) == graph.num_edges // 4
    np.testing.assert_array_equal(positives, batches.positives[1])
    # The same without these edges, and with others in their place.
    dense = graph.adjacency.toarray()
    dense[positives[:, 0], positives[:, 1]] = 0
    dense[positives[:, 1], positives[:, 0]] = 0
    alone = predictor._inputs(Graph(dense))
    count = len(alone["kernel_pairs"])
    for name in ("kernel_pairs", "nodes"):
        np.testing.assert_array_equal(inputs[name][0, :count], alone[name])
    values = inputs["kernel_values"][0]
    np.testing.assert_array_equal(values[:, :count], alone["kernel_values"])
    assert (values[:, count:] == 0).all()
    whole = predictor._inputs(graph)
    assert (whole["nodes"] != alone["nodes"]).any()
    # Negatives are not edges of the training graph, and differ by epoch.
    negatives = inputs["pairs"][targets == 0]
    assert (graph.adjacency.toarray()[tuple(negatives.T)] == 0).all()
    np.testing.assert_array_equal(batches[1][0]["pairs"], inputs["pairs"])
    batches.epoch = 1
    assert (batches[1][0]["pairs"] != inputs["pairs"]).any()
    covered = [tuple(pair) for fold in batches.positives for pair in fold]
    assert len(covered) == len({*covered}) == graph.num_edges


@pytest.mark.parametrize(("edges", "folds"), [(21, 10), (1001, 400), (20, 10)])
def test_each_edge_is_predicted_once(edges, folds):
    graph = Graph(
        networkx.to_numpy_array(networkx.gnm_random_graph(60, edges, seed=0))
    )
    batches = LinkBatches(graph, light_inputs, folds=folds)
    sizes = [len(pairs) for pairs in batches.positives]
    assert sum(sizes) == edges and max(sizes) - min(sizes) == (edges % 10 > 0)
    # By the first two, Keras tells that sizes differ.
    assert sizes[0] == max(sizes) and sizes[1] == min(sizes)
    pairs = np.concatenate(batches.positives)
    assert len(np.unique(pairs, axis=0)) == edges
    for k, size in enumerate(sizes):
        assert (batches[k][1] == 1).sum() == (batches[k][1] == 0).sum() == size


def light_inputs(graph):
    return {
        "nodes": np.ones((graph.num_nodes, 1), "float32"),
        "kernel_pairs": np.zeros((1, 2), "int32"),
        "kernel_values": np.ones((1, 1), "float32"),
    }


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("given", [False, True])
def test_pairs_of_validation_are_not_trained_on(given, monkeypatch):
    """In a dense graph, edges held out would often be drawn as negatives."""
    graph = Graph(
        networkx.to_numpy_array(networkx.gnp_random_graph(20, 0.6, seed=0))
    )
    data = None
    known, split = graph, split_edges(graph, (0.8, 0.2, 0.0), seed=3)
    if given:
        data, known = (
            (split.validation, split.validation_negatives),
            split.graph,
        )
    made = []
    make = LinkBatches.__init__

    def spy(self, *args, **options):
        make(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(LinkBatches, "__init__", spy)
    options = {**LIGHT, "epochs": 1, "validation_share": 0.2, "seed": 3}
    LinkPredictor(**options).fit(known, data)
    (batches,) = made
    truth = graph.adjacency.toarray()
    truth[tuple(split.validation_negatives.T)] = 1
    for epoch in range(5):
        batches.epoch = epoch
        for index in range(len(batches)):
            inputs, targets = batches[index]
            negatives = inputs["pairs"][targets == 0]
            assert len(negatives) and not truth[tuple(negatives.T)].any()


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_validation_edges_are_in_no_kernel_of_training(monkeypatch):
    graph = Graph(blocks().adjacency)  # Degrees as features.
    seen, kernels = [], []
    inputs, kernel = LinkPredictor._inputs, LinkPredictor._kernel

    def spy(self, graph):
        seen.append(graph)
        return inputs(self, graph)

    def spy_of_kernels(self, graph):
        kernels.append(graph)
        return kernel(self, graph)

    monkeypatch.setattr(LinkPredictor, "_inputs", spy)
    monkeypatch.setattr(LinkPredictor, "_kernel", spy_of_kernels)
    options = {**LIGHT, "epochs": 1, "validation_share": 0.2, "seed": 3}
    predictor = LinkPredictor(**options).fit(graph)
    split = split_edges(graph, (0.8, 0.2, 0.0), seed=3)
    held_out = tuple(split.validation.T)
    assert len(seen) == 5
    for other in seen:
        assert (other.adjacency.toarray()[held_out] == 0).all()
    # They are not in the standardization, but in the kernel of predictions.
    statistics = GraphPreprocessor(return_steps=0).adapt([split.graph])
    assert (
        predictor.preprocessor.feature_statistics
        == statistics.feature_statistics
    )
    assert (kernels[-1].adjacency.toarray()[held_out] == 1).all()
    assert "val_roc_auc" in predictor.history.history


@pytest.mark.few_on_jax("hadamard")
@pytest.mark.parametrize("decoder", ["dot", "hadamard", "concat"])
def test_a_kernel_may_come_with_the_inputs(decoder):
    random = np.random.default_rng(0)
    kernel = random.random((2, 9, 9)).astype("float32")
    every = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij"), -1)
    inputs = {
        "nodes": random.normal(size=(1, 9, 3)).astype("float32"),
        "pairs": np.array([[[0, 1], [1, 0], [8, 8]]], "int32"),
    }
    options = {"decoder": decoder, "num_heads": 2, "key_dim": 4, "depth": 1}
    fixed = gkat_link_predictor(3, graph_kernel=kernel, **options)
    called = gkat_link_predictor(3, num_kernels=2, **options)
    for layer in called.layers:
        if layer.trainable_weights:
            weights = fixed.get_layer(layer.name).trainable_weights
            for weight, value in zip(
                layer.trainable_weights, weights, strict=True
            ):
                weight.assign(value)
    expected = keras.ops.convert_to_numpy(fixed(inputs))
    assert expected.shape == (1, 3) and expected.dtype == "float32"
    found = called(
        {
            **inputs,
            "kernel_pairs": every.reshape(1, -1, 2).astype("int32"),
            "kernel_values": kernel.reshape(1, 2, -1),
        }
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    is_symmetric = np.allclose(expected[0, 0], expected[0, 1])
    assert is_symmetric == (decoder != "concat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "gin"}, "`encoder` expects one of"),
        ({"decoder": "sum"}, "`decoder` expects one of"),
        ({"epochs": 0}, "`epochs` expects a positive int"),
        ({"validation_share": 1}, "`validation_share` expects"),
        ({"learning_rate": -1.0}, "`learning_rate` expects a number from zero"),
        ({"clip_norm": np.inf}, "`clip_norm` expects"),
        ({"seed": -1}, "`seed` expects"),
        ({"epochz": 1}, "`options` expects.*epochs.*Received: epochz"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        LinkPredictor(**options)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_a_preset_is_trained_anew_as_it_was_built(split, tmp_path):
    light = {**LIGHT, "epochs": 1, "seed": np.int64(2), "embedding_dim": 8}
    first = LinkPredictor(**light).fit(split.graph)
    first.save(tmp_path / "first")
    again = LinkPredictor.from_preset(tmp_path / "first", split.graph)
    again.verbose = 0
    again.fit(split.graph)
    assert again.model.count_params() == first.model.count_params()
    np.testing.assert_allclose(
        again.predict_raw(split.test),
        first.predict_raw(split.test),
        rtol=1e-4,
        atol=1e-5,
    )


def test_labeled_walks_see_the_labels_of_nodes():
    path = networkx.to_numpy_array(networkx.path_graph(6))
    found = []
    for labels in ("CCCCCC", "CCCNNN"):
        walks = LinkPredictor(
            GraphPreprocessor(
                kernel="labeled_walk", kernel_sizes=(3,), cache=False
            )
        )
        graph = Graph(path, node_labels=list(labels))
        walks.preprocessor.adapt([graph])
        kernel = walks._kernel(graph)
        found.append(np.zeros((6, 6)))
        rows = kernel["pairs"].T
        found[-1][tuple(rows)] = kernel["pair_values"][0]
        expected = labeled_walk_kernel(path, list(labels), 3)
        np.testing.assert_allclose(found[-1], expected, atol=1e-6)
    assert not np.allclose(*found)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_small_graphs_and_names_of_nodes(tmp_path):
    graph = networkx.relabel_nodes(
        networkx.complete_graph(5), dict(enumerate("edcba"))
    )
    graph.remove_edge("a", "e")
    predictor = LinkPredictor(**{**LIGHT, "epochs": 1}).fit(graph)
    raw = predictor.predict_raw([("a", "e"), ("b", "c")])
    np.testing.assert_allclose(
        raw, predictor.predict_raw(np.array([["a", "e"], ["b", "c"]]))
    )
    assert predictor.predict([("a", "e")]).dtype == bool
    with pytest.raises(ValueError, match="such as 'e', 'd', 'c'.*'z'"):
        predictor.predict([("a", "z")])
    predictor.save(tmp_path / "named")
    again = LinkPredictor.from_preset(tmp_path / "named", graph)
    np.testing.assert_allclose(
        again.predict_raw([("a", "e"), ("b", "c")]), raw, atol=1e-6
    )
    with pytest.raises(ValueError, match="`graph` expects the 5 nodes.*: 4"):
        LinkPredictor.from_preset(tmp_path / "named", networkx.path_graph(4))
    split = split_edges(networkx.path_graph(9), (0.5, 0.25, 0.25))
    assert len(split.test) == len(split.validation) == 2
    with pytest.raises(ValueError, match="transpose has it"):
        predictor_ids = np.zeros((2, 7), int)
        LinkPredictor(**{**LIGHT, "epochs": 1}).fit(
            networkx.path_graph(9), (predictor_ids, predictor_ids)
        )


def test_use_before_fit():
    with pytest.raises(ValueError, match="expects fit or from_preset"):
        LinkPredictor().predict_proba([[0, 1]])
    with pytest.raises(ValueError, match="expects fit before save"):
        LinkPredictor().save("nowhere")
    with pytest.raises(ValueError, match="`folds` expects.*folds=400"):
        LinkPredictor(**{**OPTIONS, "folds": 400}).fit(blocks())
    edge = Graph.from_edges([[0, 1]], 4)
    with pytest.raises(ValueError, match="at least two edges.*Received: 1"):
        LinkPredictor().fit(edge)
    two = Graph.from_edges([[0, 1], [1, 2]], 4)
    with pytest.raises(ValueError, match="three edges.*validation_share=0"):
        LinkPredictor().fit(two)
    with pytest.raises(ValueError, match="Received: a complete graph"):
        LinkPredictor().fit(Graph(np.ones((5, 5)) - np.eye(5)))
    data = {
        "graph": (two, "expects .positive, negative.*Received: Graph"),
        "empty": (([[0, 1]], []), "expects negative pairs. Received: none"),
        "ids": (([[0, 99]], [[0, 1]]), "positive pairs: `pairs`.*99"),
    }
    for given, message in data.values():
        with pytest.raises(ValueError, match="`validation_data`.*" + message):
            LinkPredictor(**LIGHT).fit(blocks(), given)
    for option in ("num_features", "seed_of"):
        with pytest.raises(ValueError, match=f"`options`.*: {option}"):
            LinkPredictor(**{option: 3})
    with pytest.raises(ValueError, match="a complete graph"):
        LinkBatches(Graph(np.ones((5, 5))), lambda graph: None, folds=2)
