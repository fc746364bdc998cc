"""`GraphClassifier` and its relatives: lists of graphs in, predictions out."""

import random

import keras
import networkx
import numpy as np
import pytest
from linear_model import linear

import keras_topo
from keras_topo.graphs import Graph, GraphPreprocessor, raw_inputs
from keras_topo.models import with_preprocessing
from keras_topo.presets import read_preprocessor

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

OPTIONS = {
    "epochs": 25,
    "batch_size": 6,
    "learning_rate": 1e-2,
    "depth": 1,
    "dropout": 0.0,
    "verbose": 0,
}


def rings_and_paths(count=24):
    """Cycles and paths; atoms alternate in half of them.

    They have 6, 9 and 12 nodes, because every batch shape is compiled.
    """
    graphs = []
    for k in range(count):
        make = networkx.cycle_graph if k % 2 else networkx.path_graph
        graph = make(6 + 3 * (k // 2 % 3))
        for node in graph:
            graph.nodes[node]["atom"] = "CN"[(node * (k // 2 % 2)) % 2]
        for edge in graph.edges:
            graph.edges[edge]["length"] = 1.0 + k % 3
        graphs.append(graph)
    return graphs


def preprocessor(form="dense", **attributes):
    return GraphPreprocessor(
        attributes={"node_labels": "atom", **attributes},
        form=form,
        return_steps=4,
        kernel_sizes=(1, 3),
        cache=False,
    )


@pytest.fixture(scope="module")
def graphs():
    return rings_and_paths()


@pytest.fixture(scope="module")
def classifier(graphs):
    keras.utils.clear_session()
    return keras_topo.GraphClassifier(
        preprocessor(), num_heads=2, key_dim=4, **OPTIONS
    ).fit(graphs, ["path", "ring"] * 12)


def test_classes_have_their_values(classifier, graphs):
    assert classifier.classes == ["path", "ring"]
    predicted = classifier.predict(graphs)
    assert (predicted == np.array(["path", "ring"] * 12)).mean() > 0.9
    probabilities = classifier.predict_proba(graphs)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    found = classifier.evaluate(graphs, ["path", "ring"] * 12)
    truth = np.array(["path", "ring"] * 12)
    assert found["accuracy"] == pytest.approx((predicted == truth).mean())


def test_the_order_of_predictions(classifier, graphs):
    """Row k belongs to graph k, for any batches (G5)."""
    together = classifier.predict_proba(graphs)
    order = np.random.default_rng(0).permutation(len(graphs))
    again = classifier.predict_proba([graphs[k] for k in order])
    np.testing.assert_allclose(again, together[order], atol=1e-6)
    alone = classifier.predict_proba(graphs[5:6])
    np.testing.assert_allclose(alone, together[5:6], atol=1e-6)


def test_presets(classifier, graphs, tmp_path):
    classifier.save(tmp_path / "rings", {"accuracy": 1.0})
    again = keras_topo.GraphClassifier.from_preset(tmp_path / "rings")
    np.testing.assert_allclose(
        again.predict_proba(graphs), classifier.predict_proba(graphs), atol=1e-6
    )
    assert again.predict(graphs[:2]).tolist() == ["path", "ring"]
    assert again.training["epochs"] == 25
    with pytest.raises(ValueError, match="'regression of graphs'.*'graphs'"):
        keras_topo.GraphRegressor.from_preset(tmp_path / "rings")


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_export(classifier, graphs, tmp_path):
    """In one line; `tests/test_export_raw_graphs.py` has more tests."""
    import tensorflow as tf

    report = classifier.export(tmp_path / "1", verify=False, max_nodes=12)
    assert report["task"] == "classification"
    assert report["class_names"] == ["path", "ring"]
    inputs = raw_inputs(graphs[:4], classifier.preprocessor)
    answer = tf.saved_model.load(str(tmp_path / "1")).signatures[
        "serving_default"
    ](**{key: tf.constant(x) for key, x in inputs.items()})
    np.testing.assert_allclose(
        answer["probabilities"],
        classifier.predict_proba(graphs[:4]),
        rtol=1e-4,
        atol=1e-6,
    )
    names = [x.decode() for x in answer["class"].numpy()]
    assert names == classifier.predict(graphs[:4]).tolist()
    # A preset of the model that preprocesses itself is one of the classifier.
    classifier.save(tmp_path / "rings")
    keras_topo.save_preset(
        with_preprocessing(classifier.model, classifier.preprocessor),
        tmp_path / "whole",
        read_preprocessor(tmp_path / "rings"),
    )
    again = keras_topo.GraphClassifier.from_preset(tmp_path / "whole")
    np.testing.assert_allclose(
        again.predict_proba(graphs[:4]), answer["probabilities"], atol=1e-5
    )
    for estimator, task in (
        (keras_topo.GraphRegressor(), "regression"),
        (keras_topo.NodeRegressor(), "regression"),
        (keras_topo.NodeClassifier(), "classification"),
    ):
        assert estimator._outputs == task
        with pytest.raises(ValueError, match="fit or from_preset"):
            estimator.export(tmp_path / "2")


# Without updates, training losses are those of the final model.
STILL = {"learning_rate": 0.0, "epochs": 1, "batch_size": 6, "verbose": 0}


@pytest.mark.slow_on_jax
@pytest.mark.usefixtures("eagerly")
def test_several_labels(graphs):
    labels = [[k % 2, k // 2 % 2] for k in range(24)]
    # A model that has learned nothing can also tell whether one half is passed.
    model = keras_topo.GraphClassifier(preprocessor(), linear, **STILL)
    model.fit(graphs, labels)
    assert model._outputs == "multilabel"
    probabilities = model.predict_proba(graphs)
    assert (probabilities <= 1).all()
    assert ((probabilities > 0.5) & (probabilities < 0.6)).any()
    found = model.predict(graphs)
    np.testing.assert_array_equal(found, probabilities > 0.5)
    accuracy = model.evaluate(graphs, labels)["accuracy"]
    assert accuracy == pytest.approx((found == labels).mean())


@pytest.mark.slow
def test_several_labels_are_learned(graphs):
    labels = [[k % 2, k // 2 % 2] for k in range(24)]
    model = keras_topo.GraphClassifier(
        preprocessor(), num_heads=2, key_dim=4, **OPTIONS
    ).fit(graphs, labels)
    assert (model.predict(graphs) == labels).mean() > 0.9


def check_units(model, y, folder):
    """Predictions, metrics and saved values of a regression are like `y`."""
    graphs = rings_and_paths()
    found = model.predict(graphs)
    error = np.abs(found - y).mean()
    assert abs(found.mean() - np.mean(y)) < 2 * np.std(y)
    assert model.evaluate(graphs, y)["mean_absolute_error"] == pytest.approx(
        error, rel=1e-4
    )
    model.save(folder)
    again = keras_topo.GraphRegressor.from_preset(folder)
    np.testing.assert_allclose(again.predict(graphs), found, rtol=1e-5)
    return error


@pytest.mark.slow_on_jax
@pytest.mark.usefixtures("eagerly")
def test_regression_is_in_its_own_units(graphs, tmp_path):
    y = [1000.0 + 50 * graph.number_of_edges() for graph in graphs]
    model = keras_topo.GraphRegressor(
        preprocessor(), linear, epochs=2, verbose=0
    )
    check_units(model.fit(graphs, y), y, tmp_path / "sizes")
    # Integers are numbers too, also as targets stored in graphs.
    model = keras_topo.GraphRegressor(
        preprocessor(label="edges"), linear, epochs=1, verbose=0
    )
    for graph in graphs:
        graph.graph["edges"] = graph.number_of_edges()
    assert model.fit(graphs).predict(graphs).shape == (24,)


@pytest.mark.slow
@pytest.mark.slow_on_jax
def test_regression_is_learned(graphs, tmp_path):
    y = [1000.0 + 50 * graph.number_of_edges() for graph in graphs]
    model = keras_topo.GraphRegressor(
        preprocessor(edge_features="length"),
        num_heads=2,
        key_dim=4,
        pooling="sum",
        **{**OPTIONS, "epochs": 40},
    ).fit(graphs, y)
    assert check_units(model, y, tmp_path / "sizes") < 0.6 * np.std(y)


def check_nodes(model, graphs, known, ends):
    """Fits a classifier; returns its accuracy on nodes."""
    model.fit(graphs, known)
    found = model.predict(graphs)
    assert [len(x) for x in found] == [len(graph) for graph in graphs]
    right = np.concatenate(found) == np.concatenate(ends)
    counted = np.concatenate(known) >= 0
    assert model.evaluate(graphs, known)["accuracy"] == pytest.approx(
        right[counted].mean(), rel=1e-4
    )
    return right.mean()


@pytest.fixture(scope="module")
def ends(graphs):
    """Marks the ends of paths in each graph; some labels are unknown."""
    ends = [
        np.array([int(graph.degree[n] == 1) for n in graph]) for graph in graphs
    ]
    return ends, [np.where(np.arange(len(y)) == 2, -1, y) for y in ends]


@pytest.mark.slow_on_jax
@pytest.mark.usefixtures("eagerly")
def test_nodes_of_many_graphs(graphs, ends):
    ends, known = ends
    model = keras_topo.NodeClassifier(
        preprocessor("pairs"), num_heads=2, key_dim=4, depth=1, **STILL
    )
    check_nodes(model, graphs, known, ends)
    numbers = keras_topo.NodeRegressor(
        preprocessor(), linear, epochs=2, verbose=0
    ).fit(graphs, [y.astype("float32") for y in ends])
    assert [len(x) for x in numbers.predict(graphs)] == [
        len(graph) for graph in graphs
    ]


@pytest.mark.slow
def test_nodes_of_many_graphs_are_learned(graphs, ends):
    ends, known = ends
    model = keras_topo.NodeClassifier(
        preprocessor("pairs"), num_heads=2, key_dim=4, **OPTIONS
    )
    assert check_nodes(model, graphs, known, ends) > 0.95


def test_validation_graphs_are_no_training_graphs(graphs):
    train, others = graphs[:12], graphs[12:15]
    y, validation_y = ["path", "ring"] * 6, ["ring"] * 3
    model = keras_topo.GraphClassifier(preprocessor(), linear, **STILL)
    model.fit(train, y, (others, validation_y))
    history = {name: x[-1] for name, x in model.history.history.items()}
    for name, value in model.evaluate(train, y).items():
        assert history[name] == pytest.approx(value, rel=1e-5), name
    for name, value in model.evaluate(others, validation_y).items():
        assert history[f"val_{name}"] == pytest.approx(value, rel=1e-5), name
    assert history["loss"] != pytest.approx(history["val_loss"], rel=1e-3)
    # Nor do they change the standardization.
    assert (
        model.preprocessor.feature_statistics
        == preprocessor().adapt(train, y).feature_statistics
        != preprocessor().adapt(graphs[:15]).feature_statistics
    )


@pytest.mark.slow_on_jax
def test_targets_are_standardised_by_those_that_are_known(graphs):
    """Also those of validation graphs, by the statistics of training."""
    random = np.random.default_rng(0)
    y = [1e3 + 50 * random.normal(size=len(graph)) for graph in graphs]
    for values in y:
        values[1] = np.nan
    model = keras_topo.NodeRegressor(preprocessor(), linear, **STILL)
    model.fit(graphs[:12], y[:12], (graphs[12:], y[12:]))
    known = np.concatenate(y[:12])
    known = known[np.isfinite(known)]
    (mean,), (deviation,) = model.statistics
    assert mean == pytest.approx(known.mean(), rel=1e-5)
    assert deviation == pytest.approx(known.std(), rel=1e-4)
    for name, part in (("loss", slice(12)), ("val_loss", slice(12, None))):
        wrong = np.concatenate(model.predict(graphs[part]))
        wrong = np.square((wrong - np.concatenate(y[part])) / deviation)
        assert model.history.history[name][-1] == pytest.approx(
            np.nanmean(wrong), rel=1e-3
        )


def test_errors(graphs):
    model = keras_topo.GraphClassifier(preprocessor())
    with pytest.raises(ValueError, match="fit or from_preset"):
        model.predict(graphs)
    with pytest.raises(ValueError, match="`y` expects one target"):
        model.fit(graphs)
    with pytest.raises(ValueError, match="at least two classes.*'ring'"):
        model.fit(graphs, ["ring"] * 24)
    with pytest.raises(ValueError, match="zeros and ones"):
        model.fit(graphs, np.random.rand(24, 2))
    with pytest.raises(ValueError, match=r"graphs\[0\].*'bond'"):
        keras_topo.GraphClassifier(preprocessor(edge_labels="bond")).fit(
            graphs, [0, 1] * 12
        )
    with pytest.raises(ValueError, match="`targets`|label_smoothing|heads"):
        keras_topo.GraphClassifier(preprocessor(), num_heads=3).fit(
            graphs, [0, 1] * 12
        )


@pytest.mark.usefixtures("eagerly")
def test_random_numbers_of_a_caller_go_on(graphs):
    """Splits that are drawn between trainings are not always the same."""
    model = keras_topo.GraphClassifier(
        preprocessor(), linear, epochs=1, verbose=0, seed=5
    )
    drawn, scores = [], []
    for _ in range(3):
        model.fit(graphs, [0, 1] * 12)
        drawn.append((np.random.random(), random.random()))
        scores.append(model.predict_raw(graphs))
    assert len({*drawn}) == 3
    np.testing.assert_array_equal(scores[0], scores[2])


def test_what_follows_from_the_data_is_no_option(graphs):
    for option in ({"num_classes": 3}, {"level": "nodes"}):
        (name,) = option
        for build in ("gkat", linear):
            with pytest.raises(ValueError, match=f"`options`.*: {name}"):
                keras_topo.GraphClassifier(preprocessor(), build, **option)


@pytest.mark.usefixtures("eagerly")
def test_arguments_are_named(graphs):
    estimator = keras_topo.GraphClassifier
    for options, name in (
        ({"class_weight": "balanced"}, "class_weight"),
        ({"label_smoothing": "x"}, "label_smoothing"),
        ({"label_smoothing": None}, "label_smoothing"),
        ({"seed": 2**40}, "seed"),
        ({"seed": True}, "seed"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` expects.*Received: "):
            estimator(preprocessor(), **options)
    y = [0, 1] * 12
    model = estimator(preprocessor(), linear, epochs=1, verbose=0)
    for arguments, name in (
        ({"y": 3}, "y"),
        ({"y": y, "sample_weight": 1.0}, "sample_weight"),
        ({"y": y, "validation_data": (graphs[:2], [0, 5])}, "validation_data"),
        ({"y": y, "validation_data": (graphs[:2], [0])}, "validation_data"),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            model.fit(graphs, **arguments)


def test_a_model_of_ones_own(graphs):
    def build(num_features, num_classes, **options):
        assert options["num_kernels"] == 2 and options["level"] == "graphs"
        inputs = {"nodes": keras.Input((None, num_features), name="nodes")}
        for name, shape, dtype in (
            ("kernel", (2, None, None), "float32"),
            ("node_mask", (None,), "bool"),
        ):
            inputs[name] = keras.Input(shape, dtype=dtype, name=name)
        x = keras_topo.layers.GraphPooling("mean")(
            inputs["nodes"], mask=inputs["node_mask"]
        )
        logits = keras.layers.Dense(num_classes, name="logits")(x)
        return keras.Model(inputs, logits)

    model = keras_topo.GraphClassifier(
        preprocessor(), build, epochs=1, verbose=0
    ).fit([Graph(np.ones((2, 2)), node_labels=["C", "N"])] * 2, ["a", "b"])
    assert model.predict_proba(graphs).shape == (24, 2)


def test_a_published_model_in_one_line():
    molecule = networkx.cycle_graph(6)
    networkx.set_node_attributes(molecule, 0, "atom")
    model = keras_topo.GraphClassifier.from_preset(
        "gkat-mutag", {"node_labels": "atom"}
    )
    assert model.predict([molecule]).tolist() in ([-1], [1])
    networkx.set_node_attributes(molecule, 9, "atom")
    with pytest.raises(ValueError, match="node_labels.*9"):
        model.predict([molecule])
    with pytest.raises(ValueError, match="gkat-cora"):
        keras_topo.GraphClassifier.from_preset("gkat-cora")


@pytest.mark.usefixtures("eagerly")
def test_a_preset_is_trained_anew_as_it_was_built(graphs, tmp_path):
    options = {**OPTIONS, "epochs": 1, "num_heads": 2, "key_dim": 4}
    # Numbers of NumPy are numbers.
    options |= {"seed": np.int64(3), "learning_rate": np.float32(1e-2)}
    first = keras_topo.GraphClassifier(preprocessor(), **options)
    first.fit(graphs[:6], list("ab" * 3)).save(tmp_path / "first")
    again = keras_topo.GraphClassifier.from_preset(
        tmp_path / "first", verbose=0
    )
    np.testing.assert_allclose(
        again.predict_raw(graphs[:2]), first.predict_raw(graphs[:2]), rtol=1e-5
    )
    again.fit(graphs[:6], list("ab" * 3))
    assert again.model.count_params() == first.model.count_params()
    np.testing.assert_allclose(
        again.predict_raw(graphs[:2]),
        first.predict_raw(graphs[:2]),
        rtol=1e-4,
        atol=1e-5,
    )
    for wrong in ({"depth": 3}, {"model": "gin"}):
        with pytest.raises(ValueError, match="of the model, which the preset"):
            keras_topo.GraphClassifier.from_preset(tmp_path / "first", **wrong)
