"""GCN, GAT, SGC, APPNP and GIN: against NumPy, padded, joined and alone."""

import functools
import json

import keras
import numpy as np
import pytest

import keras_topo
from keras_topo import models
from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    GraphSequence,
    dense_kernels,
    pooled_features,
    raw_inputs,
)

NAMES = ("gcn", "gat", "sgc", "appnp", "gin")
SMALL = {
    "gcn": {"channels": 5},
    "gat": {"num_heads": 2, "key_dim": 3},
    "sgc": {"channels": 5},
    "appnp": {"channels": 5, "steps": 3, "alpha": 0.2},
    "gin": {"channels": 5, "depth": 2},
}
LEVELS = ("graphs", "nodes")


@functools.cache
def graphs():
    """A star, whose hub has many neighbors, and two random graphs."""
    random = np.random.default_rng(0)
    star = np.zeros((7, 7))
    star[6, :6] = star[:6, 6] = 1
    found = [star]
    for size in (4, 5):
        upper = np.triu(random.uniform(size=(size, size)) < 0.5, 1)
        found.append((upper | upper.T).astype(float))
    return [
        Graph(
            adjacency,
            random.normal(size=(len(adjacency), 3)),
            edge_features=random.normal(size=(int(adjacency.sum()), 2)),
        )
        for adjacency in found
    ]


def adapted(name, form="dense", edges=False):
    # Of the largest entries one alone, which hides no neighbor.
    return GraphPreprocessor(
        form=form, edges=edges, return_steps=0, pairs_per_node=1, cache=False
    ).adapt(graphs(), kernel=models.MODELS[name].kernel)


def build(name, p, **options):
    return models.MODELS[name].builder(
        num_features=p.num_features,
        num_classes=2,
        num_kernels=p.num_kernels,
        num_edge_features=p.num_edge_features,
        feature_statistics=p.feature_statistics,
        batching="joined" if p.form == "pairs" else "padded",
        **{**SMALL[name], **options},
    )


def randomize(model, scale=0.5):
    """Weights such that no bias and no `eps` is zero."""
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(scale * random.normal(size=weight.shape))
    return model


def outputs(model, p, some, level="graphs"):
    """The outputs of each graph, without padding."""
    sequence = GraphSequence(some, p, False, batch_size=len(some))
    (inputs,) = sequence[0]
    found = keras.ops.convert_to_numpy(model(inputs))
    if level == "graphs":
        return list(found)
    sizes = [graph.num_nodes for graph in some]
    if p.form == "pairs":
        return np.split(found[0, : sum(sizes)], np.cumsum(sizes)[:-1])
    return [x[:n] for x, n in zip(found, sizes, strict=True)]


class Oracle:
    """A model of one graph in float64, written out."""

    def __init__(self, model, p, level):
        self.weights = {
            weight.path.removeprefix(f"{model.name}/"): value.astype("float64")
            for weight, value in zip(
                model.weights, model.get_weights(), strict=True
            )
        }
        self.statistics = [np.array(x) for x in p.feature_statistics]
        self.kind, self.level = p.kernel, level
        self.edges = p.num_edge_features

    def __call__(self, name, graph):
        mean, variance = self.statistics
        x = (graph.features - mean) / np.sqrt(variance)
        kernel = dense_kernels(graph.adjacency, self.kind)[0].astype("float64")
        return getattr(self, name)(x, kernel, graph)

    def dense(self, x, name):
        w = self.weights
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    def end(self, x, pool=np.mean):
        if self.level == "graphs":
            x = pool(x, axis=0)
        return self.dense(x, "logits")

    def gcn(self, x, s, _):
        for k in (1, 2):
            x = relu(s @ self.dense(x, f"dense_{k}"))
        return self.end(x)

    def sgc(self, x, s, _):
        return self.end(relu(self.dense(s @ s @ x, "dense_1")))

    def appnp(self, x, s, _):
        h = self.dense(relu(self.dense(x, "dense_1")), "dense_2")
        if self.level == "graphs":
            h = relu(h)
        z = h
        for _ in range(3):
            z = 0.8 * s @ z + 0.2 * h
        return self.end(z) if self.level == "graphs" else z

    def gin(self, x, neighbors, graph):
        parts = [x]
        for k in (1, 2):
            if self.edges:
                name, total = f"messages_{k}", np.zeros_like(x)
                edges = self.dense(graph.edge_features, f"{name}/edges")
                for (i, j), e in zip(graph.edge_index().T, edges, strict=True):
                    total[i] += relu(x[j] + e)
            else:
                name, total = f"isomorphism_{k}", neighbors @ x - x
            x = (1 + self.weights[f"{name}/eps"]) * x + total
            x = self.dense(
                relu(self.dense(x, f"{name}/hidden")), f"{name}/output"
            )
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(
                x.var(1, keepdims=True) + 1e-6
            )
            norm = f"norm_{k}"
            x = x * self.weights[f"{norm}/gamma"] + self.weights[f"{norm}/beta"]
            x = relu(x)
            parts.append(x)
        return self.end(np.concatenate(parts, axis=1), np.sum)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.few_on_jax(
    "gcn-False-graphs",
    "sgc-False-nodes",
    "appnp-False-nodes",
    "gin-True-graphs",
)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("name", "edges"),
    [
        *((name, False) for name in ("gcn", "sgc", "appnp", "gin")),
        ("gin", True),
        ("gcn", True),
    ],
)
def test_oracles(name, edges, level):
    p = adapted(name, edges="auto" if edges else False)
    assert p.num_edge_features == 2 * edges
    model = randomize(build(name, p, level=level))
    oracle = Oracle(model, p, level)
    for graph, found in zip(
        graphs(), outputs(model, p, graphs(), level), strict=True
    ):
        expected = oracle(name, graph)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize(
    ("name", "level", "edges"),
    [
        *((name, "graphs", False) for name in NAMES),
        *((name, "nodes", True) for name in NAMES),
    ],
)
def test_padded_joined_and_alone(name, level, edges):
    edges = "auto" if edges else False
    dense, pairs = (adapted(name, form, edges) for form in ("dense", "pairs"))
    padded = randomize(build(name, dense, level=level))
    joined = build(name, pairs, level=level)
    joined.set_weights(padded.get_weights())
    together = outputs(padded, dense, graphs(), level)
    for other in (
        outputs(joined, pairs, graphs(), level),
        [outputs(padded, dense, [g], level)[0] for g in graphs()],
    ):
        for a, b in zip(together, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_nodes(name):
    p = adapted(name)
    order = [2, 0, 4, 3, 1]
    graph = graphs()[2]
    other = Graph(
        graph.adjacency.toarray()[np.ix_(order, order)], graph.features[order]
    )
    for level in LEVELS:
        model = randomize(build(name, p, level=level))
        a, b = outputs(model, p, [graph, other], level)
        a = a if level == "graphs" else a[order]
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("name", NAMES)
def test_presets(name, tmp_path):
    p = adapted(name, "pairs", "auto")
    model = randomize(
        build(name, p, level="nodes", target_statistics=([3, 4], [1, 2]))
    )
    keras_topo.save_preset(model, tmp_path / name)
    again = keras_topo.from_preset(tmp_path / name)
    (inputs,) = GraphSequence(graphs(), p, False)[0]
    np.testing.assert_array_equal(model(inputs), again(inputs))
    np.testing.assert_allclose(
        model(inputs),
        np.array([3, 4], "float32")
        + keras.Model(model.inputs, model.get_layer("logits").output)(inputs)
        * np.array([1.0, 2.0], "float32"),
        rtol=1e-5,
        atol=1e-5,
    )


def test_appnp_of_one_graph(tmp_path):
    graph = graphs()[2]
    kernel = dense_kernels(graph.adjacency, "normalized")[0]
    model = randomize(models.appnp(3, 2, kernel, **SMALL["appnp"]))
    p = adapted("appnp")
    p.learned["feature_statistics"] = [[0.0] * 3, [1.0] * 3]
    expected = Oracle(model, p, "nodes")("appnp", graph)
    nodes = graph.features[None].astype("float32")
    found = keras.ops.convert_to_numpy(model(nodes))
    np.testing.assert_allclose(found[0], expected, rtol=2e-5, atol=2e-5)
    keras_topo.save_preset(model, tmp_path / "appnp")
    again = keras_topo.from_preset(tmp_path / "appnp")
    np.testing.assert_array_equal(again(nodes), found)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("form", ["dense", "pairs"])
def test_preprocessing_inside(form):
    """A hub also keeps its self-loop (`pairs_per_node` is 1)."""
    p = adapted("gin", form)
    model = randomize(build("gin", p))
    whole = models.with_preprocessing(model, p)
    np.testing.assert_allclose(
        whole(raw_inputs(graphs(), p)),
        outputs(model, p, graphs()),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", ["neighbors", "normalized"])
def test_hubs_keep_their_own_entry(kind):
    p = GraphPreprocessor(
        form="pairs", kernel=kind, pairs_per_node=1, cache=False
    ).adapt(graphs())
    for graph, example in zip(graphs(), p(graphs()), strict=True):
        i, j = example["pairs"][:2].astype(int)
        matrix = np.zeros((graph.num_nodes,) * 2)
        matrix[i, j] = example["pairs"][2]
        np.testing.assert_array_equal(
            matrix, dense_kernels(graph.adjacency, kind)[0]
        )


# Estimators.

# One batch of each, of one shape.
TRAINING = {"epochs": 1, "verbose": 0, "batch_size": 3}


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    "name",
    [
        "gin",
        *(
            pytest.param(name, marks=pytest.mark.slow_on_jax)
            for name in ("gat", "gcn", "sgc")
        ),
    ],
)
def test_the_model_picks_its_kernel(name, tmp_path):
    own = GraphPreprocessor(return_steps=2, edges=name == "gat", cache=False)
    estimator = keras_topo.GraphClassifier(own, name, **SMALL[name], **TRAINING)
    estimator.fit(graphs(), ["a", "b", "a"])
    assert estimator.preprocessor.kernel == models.MODELS[name].kernel
    assert own.learned is None
    estimator.save(tmp_path / "saved")
    again = keras_topo.GraphClassifier.from_preset(tmp_path / "saved")
    assert again.architecture == name
    assert again.preprocessor.kernel == models.MODELS[name].kernel
    np.testing.assert_allclose(
        again.predict_proba(graphs()),
        estimator.predict_proba(graphs()),
        rtol=1e-5,
        atol=1e-6,
    )
    # It is still the default of the model, not a chosen kernel.
    config = json.loads(json.dumps(again.preprocessor.get_config()))
    assert config["kernel"] is None
    assert config["learned"]["kernel"] == models.MODELS[name].kernel


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_a_kernel_that_is_chosen_stays():
    chosen = GraphPreprocessor(kernel="neighbors", cache=False)
    estimator = keras_topo.GraphClassifier(chosen, "gcn", **TRAINING)
    estimator.fit(graphs(), [0, 1, 0])
    assert estimator.preprocessor.kernel == "neighbors"
    with pytest.raises(ValueError, match="`num_kernels`.*num_kernels=4"):
        keras_topo.GraphClassifier(
            GraphPreprocessor(kernel="random_walk", cache=False), "gcn"
        ).fit(graphs(), [0, 1, 0])


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_numbers_of_nodes():
    """By a builder itself, which has the kernel of its name."""
    estimator = keras_topo.NodeRegressor(
        GraphPreprocessor(form="pairs", edges=False, cache=False),
        models.appnp,
        channels=4,
        **TRAINING,
    )
    y = [100 + g.degrees().astype("float32") for g in graphs()]
    found = estimator.fit(graphs(), y).predict(graphs())
    assert estimator.preprocessor.kernel == "normalized"
    assert [len(x) for x in found] == [7, 4, 5]
    assert all(50 < x.mean() < 150 for x in found)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_presets_of_other_functions(tmp_path):
    def build(**options):
        return models.sgc(**options)

    own = GraphPreprocessor(kernel_sizes=[2], edges=False, cache=False)
    estimator = keras_topo.GraphClassifier(own, build, **TRAINING)
    estimator.fit(graphs(), [0, 1, 0])
    assert estimator.preprocessor.kernel == "random_walk"
    estimator.save(tmp_path / "own")
    again = keras_topo.GraphClassifier.from_preset(tmp_path / "own")
    assert again.predict(graphs()).shape == (3,)
    with pytest.raises(ValueError, match="fit expects a model"):
        again.fit(graphs(), [0, 1, 0])
    estimator = keras_topo.GraphClassifier(model=models.gin)
    assert estimator._model_name() == "gin"


def test_pooled_features():
    p = GraphPreprocessor(return_steps=0, degrees=False, cache=False)
    found = pooled_features(graphs(), p.adapt(graphs()))
    x = graphs()[1].features
    np.testing.assert_allclose(
        found[1],
        [*x.mean(0), *x.std(0), *x.max(0), np.log(4)],
        rtol=1e-6,
    )
    assert found.shape == (3, 10) and found.dtype == "float32"
    assert pooled_features([], p).shape == (0, 10)
    # Without node features, only the size remains.
    bare = [Graph(graph.adjacency) for graph in graphs()]
    found = pooled_features(bare, p.adapt(bare))
    np.testing.assert_allclose(found[:, :3], [[1, 0, 1]] * 3)
    np.testing.assert_allclose(found[:, 3], np.log([7, 4, 5]), rtol=1e-6)


BAD = {
    "kernels": (lambda: models.gin(3, 2, num_kernels=4), "`num_kernels`.*=4"),
    "level": (lambda: models.gcn(3, 2, level="edges"), "`level`.*'edges'"),
    "batching": (lambda: models.sgc(3, 2, batching="x"), "`batching`.*'x'"),
    "alpha": (lambda: models.appnp(3, 2, alpha=1.0), "`teleport`.*1.0"),
    "steps": (lambda: models.appnp(3, 2, steps=0), "`steps`.*0"),
    "depth": (lambda: models.gin(3, 2, depth=0), "`depth`.*0"),
    "gates": (lambda: models.gat(3, 2, num_edge_features=2), "`num_kernels`"),
    "fixed": (
        lambda: models.gcn(3, 2, np.eye(4), batching="joined"),
        "`graph_kernel`.*'joined'",
    ),
    "model": (
        lambda: keras_topo.GraphClassifier(model="gnn"),
        "`model` expects one of.*'appnp'.*'gnn'",
    ),
    "adapt": (
        lambda: GraphPreprocessor().adapt(graphs(), kernel="gin"),
        "`kernel`.*'gin'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
