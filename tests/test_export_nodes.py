"""SavedModels of node classifiers: what they refuse, and how they say so."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_topo import export_node_saved_model

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    model = keras.Sequential(
        [keras.Input((None, 3), name="nodes"), keras.layers.Dense(2)]
    )
    path = tmp_path_factory.mktemp("served") / "any name"
    export_node_saved_model(model, path, np.eye(5, 3), verify=False)
    return tf.saved_model.load(str(path)).signatures


@pytest.mark.parametrize("wrong", [5, -1])
def test_an_id_that_is_no_node(served, wrong):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=f"`ids` expects nodes from 0 to 4. Received: {wrong}",
    ):
        served["serving_default"](ids=tf.constant([0, wrong, 9]))


@pytest.mark.parametrize("shape", [(1, 6, 3), (2, 5, 3), (1, 5, 4)])
def test_features_of_another_shape(served, shape):
    """Two sets of features would get one answer."""
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="`nodes` expects the shape"
    ):
        served["classify_features"](nodes=tf.zeros(shape))


@pytest.mark.parametrize(
    "share", [0.05, pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_features_are_held_as_they_are(tmp_path, share):
    """Sparse features are stored by their entries, so the file is small."""
    random = np.random.default_rng(0)
    features = random.random((200, 300)) * (random.random((200, 300)) < share)
    model = keras.Sequential(
        [keras.Input((None, 300), name="nodes"), keras.layers.Dense(2)]
    )
    path = tmp_path / "1"
    report = export_node_saved_model(model, path, features)
    assert report["max_abs_difference"] < 1e-5
    size = (path / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert (size < 100_000) == (share < 0.1)
