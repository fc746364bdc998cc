"""What estimators make of targets: unknown, weighted, of every form."""

import keras
import networkx
import numpy as np
import pytest
from linear_model import linear

import keras_topo
from keras_topo.estimators.losses import (
    KnownAbsoluteError,
    KnownBinaryAccuracy,
    KnownBinaryCrossentropy,
    StandardizedSquaredError,
)
from keras_topo.graphs import Graph, GraphPreprocessor, GraphSequence

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

SIZES = (3, 5, 4, 6)


def graphs(sizes=SIZES):
    return [networkx.cycle_graph(size) for size in sizes]


def preprocessor(form="dense", **attributes):
    return GraphPreprocessor(
        attributes, form=form, return_steps=2, kernel_sizes=(2,), cache=False
    )


def options(**more):
    given = {"model": linear, "epochs": 1, "batch_size": 2, "verbose": 0}
    return {**given, **more}


SMALL = {"model": "gkat", "depth": 1, "num_heads": 1, "key_dim": 2}


def test_losses_and_metrics_of_known_values():
    y = np.array([[1.0, np.nan], [2.0, 4.0]], "float32")
    p = np.array([[3.0, 7.0], [2.0, 1.0]], "float32")
    loss = StandardizedSquaredError([2.0, 3.0], reduction=None)
    np.testing.assert_allclose(loss(y, p), [1.0, 0.5])
    metric = KnownAbsoluteError("mae")
    # The mean over all known labels, weighted by their shares.
    metric.update_state(y, p, sample_weight=np.array([0.5, 1.0]))
    assert float(metric.result()) == pytest.approx((2 + 0 + 3) / 3)
    labels = np.array([[1.0, np.nan], [0.0, 1.0]], "float32")
    accuracy = KnownBinaryAccuracy("accuracy")
    accuracy.update_state(labels, p - 1.5, sample_weight=np.array([0.5, 1.0]))
    assert float(accuracy.result()) == pytest.approx(1 / 3)
    loss = KnownBinaryCrossentropy(0.2, reduction=None)
    found = np.asarray(loss(labels, p))
    logits, smooth = p.astype("float64"), labels * 0.8 + 0.1
    terms = np.log1p(np.exp(logits)) - smooth * logits
    np.testing.assert_allclose(found, np.nanmean(terms, axis=1), rtol=1e-5)


@pytest.mark.few_on_jax("3")
@pytest.mark.parametrize("batch_size", [2, 3, 9])
def test_the_loss_of_nodes_counts_known_ones(batch_size):
    y = [np.arange(n) % 2 for n in SIZES]
    for values, unknown in zip(y, (2, 3, 0, 1), strict=True):
        values[:unknown] = -1
    model = keras_topo.NodeClassifier(
        preprocessor(), **options(batch_size=batch_size)
    ).fit(graphs(), y)
    found = model.evaluate(graphs(), y)
    probabilities = np.concatenate(model.predict_proba(graphs()))
    flat = np.concatenate(y)
    known = flat >= 0
    right = probabilities[known, flat[known]].astype("float64")
    assert found["accuracy"] == pytest.approx((right > 0.5).mean())
    assert found["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-4)


@pytest.mark.slow
def test_the_loss_of_nodes_of_joined_graphs():
    """Also if a batch has fewer graphs than the batch size."""
    y = [np.arange(n) / 2.0 for n in SIZES]
    model = keras_topo.NodeRegressor(
        preprocessor("pairs"), **options(**SMALL)
    ).fit(graphs(), y)
    for size in (2, 9):
        model.training["batch_size"] = size
        found = model.evaluate(graphs(), y)
        errors = np.concatenate(model.predict(graphs())) - np.concatenate(y)
        scaled = np.square(errors / model.statistics[1][0])
        assert found["loss"] == pytest.approx(scaled.mean(), rel=1e-3)


@pytest.mark.usefixtures("eagerly")
def test_a_fit_that_fails_leaves_no_model():
    model = keras_topo.GraphClassifier(preprocessor(), **options())
    model.fit(graphs(), ["a", "b", "a", "b"])
    with pytest.raises(ValueError, match="`sample_weight`"):
        model.fit(graphs(), ["x", "y", "x", "y"], sample_weight=[1.0])
    with pytest.raises(ValueError, match="fit or from_preset"):
        model.predict(graphs())


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_targets_of_another_width_are_refused():
    model = keras_topo.GraphRegressor(preprocessor(), **options())
    y = [1.0, 2.0, 3.0, 5.0]
    two = np.ones((4, 2))
    model.fit(graphs(), y)
    with pytest.raises(ValueError, match="`y` expects 1 values"):
        model.evaluate(graphs(), two)
    with pytest.raises(ValueError, match="`validation_data` expects 1 values"):
        model.fit(graphs(), y, validation_data=(graphs(), two))
    with pytest.raises(ValueError, match="`validation_data` expects targets"):
        model.fit(graphs(), y, validation_data=graphs())
    for wrong, match in (
        ([1.0, np.inf, 2.0, 3.0], "infinity"),
        (np.full((4, 2), np.nan) * [1, 0] + [0, 1], "known"),
        (np.array([[1, np.nan]] * 4), "column 1"),
        (np.ones((4, 2, 3)), "shape"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(graphs(), wrong)
    assert model.fit(graphs(), np.ones((4, 1, 2))).statistics[0] == [1, 1]
    classifier = keras_topo.GraphClassifier(preprocessor(), **options())
    classifier.fit(graphs(), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="classes, of .0, 1."):
        classifier.evaluate(graphs(), np.ones((4, 3)))
    with pytest.raises(ValueError, match="vectors of zeros and ones"):
        keras_topo.GraphClassifier(
            preprocessor(), multi_label=True, **options()
        ).fit(graphs(), [0, 1, 0, 1])
    # Three labels of graphs of three nodes.
    triangles = graphs((3, 3, 3, 3))
    several = keras_topo.GraphClassifier(preprocessor(), **options())
    several.fit(triangles, [[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]])
    assert several.multi_label and several.predict(triangles).shape == (4, 3)


@pytest.mark.slow_on_jax
@pytest.mark.usefixtures("eagerly")
def test_unknown_values_beside_known_ones():
    random = np.random.default_rng(0)
    y = [random.normal(size=(n, 2)).astype("float32") for n in SIZES]
    y[0][:, 1] = np.nan
    y[1][2] = np.nan
    model = keras_topo.NodeRegressor(preprocessor(), **options()).fit(
        graphs(), y
    )
    found = model.evaluate(graphs(), y)["mean_absolute_error"]
    errors = np.abs(np.concatenate(model.predict(graphs())) - np.concatenate(y))
    assert found == pytest.approx(np.nanmean(errors), rel=1e-4)
    # The same of graphs.
    y = np.array([[1.0, 5.0], [np.nan, 7.0], [3.0, np.nan], [4.0, 8.0]])
    model = keras_topo.GraphRegressor(preprocessor(), **options()).fit(
        graphs(), y
    )
    found = model.evaluate(graphs(), y)
    errors = model.predict(graphs()) - y
    assert found["mean_absolute_error"] == pytest.approx(
        np.nanmean(abs(errors)), rel=1e-4
    )
    scaled = errors / np.nanstd(y, axis=0)
    assert found["loss"] == pytest.approx(np.nanmean(scaled**2), rel=1e-4)
    labels = np.array([[1, 0], [np.nan, 1], [0, 0], [1, np.nan]])
    model = keras_topo.GraphClassifier(preprocessor(), **options()).fit(
        graphs(), labels
    )
    assert (
        model.multi_label and np.isfinite(model.predict_proba(graphs())).all()
    )
    with pytest.raises(ValueError, match="known value for each graph.*graph 2"):
        keras_topo.GraphRegressor(preprocessor(), **options()).fit(
            graphs(), [1.0, 2.0, np.nan, 3.0]
        )
    with pytest.raises(ValueError, match="at least one node"):
        keras_topo.NodeClassifier(preprocessor(), **options()).fit(
            graphs(), [np.full(n, -1) for n in SIZES]
        )


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_what_is_watched_and_kept_is_in_the_units_of_y(tmp_path):
    y = [1000.0, 5000.0, 3000.0, 9000.0]
    file = tmp_path / "best.keras"
    model = keras_topo.GraphRegressor(preprocessor(), **options()).fit(
        graphs(),
        y,
        validation_data=(graphs(), y),
        callbacks=keras.callbacks.ModelCheckpoint(file),
    )
    error = np.abs(model.predict(graphs()) - y).mean()
    assert model.history.history["val_mean_absolute_error"][-1] == (
        pytest.approx(error, rel=1e-4)
    )
    kept = keras.saving.load_model(file)
    sequence = GraphSequence(graphs(), model.preprocessor, False, 2)
    np.testing.assert_allclose(
        kept.predict(sequence, verbose=0)[:, 0],
        model.predict(graphs()),
        rtol=1e-5,
    )


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_classes_of_every_form():
    model = keras_topo.GraphClassifier(preprocessor(), **options())
    model.fit(graphs(), np.array([[3], [5], [3], [5]]))  # as in PyG
    assert model.classes == [3, 5] and not model.multi_label
    with pytest.raises(ValueError, match="argmax.*multi_label=True"):
        model.fit(graphs(), np.eye(2)[[0, 1, 0, 1]])
    several = keras_topo.GraphClassifier(
        preprocessor(), multi_label=True, **options()
    ).fit(graphs(), np.eye(2)[[0, 1, 0, 1]])
    assert several.predict(graphs()).shape == (4, 2)
    with pytest.raises(ValueError, match="ints or strings.*such as 1.0"):
        model.fit(graphs(), [1.0, 0.0, 1.0, 0.0])
    # Of nodes, ints.
    labels = [np.stack([np.arange(n) % 2, np.ones(n, int)], 1) for n in SIZES]
    nodes = keras_topo.NodeClassifier(preprocessor(), **options()).fit(
        graphs(), labels
    )
    assert nodes.predict(graphs())[1].shape == (5, 2)
    # Strings of an attribute.
    named = graphs()
    for graph in named:
        for node in graph:
            graph.nodes[node]["role"] = "ab"[node % 2]
    nodes = keras_topo.NodeClassifier(
        preprocessor(node_targets="role"), **options()
    ).fit(named)
    assert nodes.classes == ["a", "b"]


@pytest.mark.slow_on_jax
def test_weights_of_classes_and_examples():
    y = ["a", "b", "b", "b"]
    losses = []
    for given, weights in (({"a": 3.0}, None), (None, [3, 1, 1, 1])):
        model = keras_topo.GraphClassifier(
            preprocessor(), class_weight=given, **options(learning_rate=0.0)
        ).fit(graphs(), y, sample_weight=weights)
        losses += model.history.history["loss"]
        # Not the weights of evaluations.
        found = model.evaluate(graphs(), y)
        right = model.predict(graphs()) == np.array(y)
        assert found["accuracy"] == pytest.approx(right.mean())
    assert losses[0] == pytest.approx(losses[1])
    nodes = [np.arange(n) % 2 for n in SIZES]
    ones = [(1 - values).astype(float) for values in nodes]
    losses = []
    for given, weights in (({1: 0.0}, None), (None, ones)):
        model = keras_topo.NodeClassifier(
            preprocessor(), class_weight=given, **options(learning_rate=0.0)
        ).fit(graphs(), nodes, sample_weight=weights)
        losses += model.history.history["loss"]
    assert losses[0] == pytest.approx(losses[1])
    for weights in ([1, 1, 1], [1, 1, -1, 1], [1, 1, np.nan, 1], [ones[0]] * 4):
        with pytest.raises(ValueError, match="`sample_weight` expects"):
            model.fit(graphs(), nodes, sample_weight=weights)
    with pytest.raises(ValueError, match="`class_weight`.*'z'"):
        keras_topo.GraphClassifier(
            preprocessor(), class_weight={"z": 1.0}, **options()
        ).fit(graphs(), y)
    with pytest.raises(ValueError, match=r"`class_weight\['a'\]`.*-2"):
        keras_topo.GraphClassifier(class_weight={"a": -2})
    with pytest.raises(ValueError, match="`class_weight`.*several labels"):
        keras_topo.GraphClassifier(
            preprocessor(), class_weight={0: 1.0}, **options()
        ).fit(graphs(), [[1, 0], [1, 1], [0, 0], [0, 1]])


@pytest.mark.slow_on_jax
def test_losses_metrics_and_weights_of_ones_own():
    y = [1.0, 2.0, 3.0, 4.0]
    model = keras_topo.GraphRegressor(
        preprocessor(),
        loss="mean_absolute_error",
        metrics=[keras.metrics.RootMeanSquaredError("rmse")],
        optimizer=keras.optimizers.SGD(0.01),
        **options(),
    ).fit(graphs(), y, validation_data=(graphs(), y, [1, 1, 1, 1]))
    found = model.evaluate(graphs(), y)
    errors = model.predict(graphs()) - y
    assert found["loss"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert found["rmse"] == pytest.approx(
        np.sqrt(np.square(errors).mean()), rel=1e-4
    )
    before = model.predict(graphs())
    model.optimizer = keras.optimizers.SGD(0.0)
    model.fit(graphs(), y, warm_start=True)
    np.testing.assert_array_equal(model.predict(graphs()), before)
    assert model.predict([]).shape == (0,)


def test_errors_name_the_argument():
    make = keras_topo.GraphClassifier
    for given, match in (
        ({"epoch": 3}, "`options`.*epochs.*Received: epoch"),
        ({"epochs": 0}, "`epochs`"),
        ({"learning_rate": "x"}, "`learning_rate`"),
        ({"weight_decay": -1}, "`weight_decay`"),
    ):
        with pytest.raises(ValueError, match=match):
            make(**given)
    with pytest.raises(ValueError, match="`attributes`.*Received: node_label"):
        GraphPreprocessor({"node_label": "atom"})
    with pytest.raises(ValueError, match="networkx.*Received: targets"):
        make(preprocessor(targets="graph")).fit(graphs(), [0, 1, 0, 1])
    model = make(preprocessor(), **options())
    with pytest.raises(ValueError, match="put a single graph into a list"):
        model.fit(networkx.path_graph(3), [1])
    for given in (0.2, (), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="`validation_data`"):
            model.fit(graphs(), [0, 1, 0, 1], validation_data=given)
    with pytest.raises(ValueError, match="fit or from_preset"):
        model.fit(graphs(), [0, 1, 0, 1], warm_start=True)
    with pytest.raises(ValueError, match=r"numbers.*y\[0\]='a'"):
        keras_topo.GraphRegressor(preprocessor()).fit(graphs(), list("abcd"))
    with pytest.raises(ValueError, match=r"adapt\(graphs, y\)"):
        GraphSequence(graphs(), preprocessor().adapt(graphs()), list("abcd"))


@pytest.mark.slow_on_jax
def test_models_of_what_a_preprocessor_has_learned():
    p = preprocessor().adapt(graphs(), ["a", "b", "a", "b"])
    model = keras_topo.models.gkat_graph_classifier(**p.model_arguments())
    assert model.output_shape == (None, 2)
    matrix = networkx.to_scipy_sparse_array(graphs()[0])
    (graph,) = p.read([(matrix, np.ones((3, 2)))])
    assert isinstance(graph, Graph) and graph.features.shape == (3, 2)
