"""Small models of every kind, and folders that hold them."""

import json
import sys

import keras
import numpy as np
import reference as ref

import keras_topo
from keras_topo import models
from keras_topo.layers import RandomWalkKernel


def save(model, folder, **metrics):
    return keras_topo.save_preset(model, folder, metrics=metrics)


def save_as_before(model, folder):
    """A preset of version 0.1."""
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    return folder


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


EYE = np.eye(3)

# One block: most of the time goes into building models.
sys.modules["keras_topo.models.topvit"].SIZES["tiny"] = (12, 3, 24, 1)


def dense(*last):
    return keras.Sequential(
        [keras.Input((3,)), *last, keras.layers.Dense(2, name="head")]
    )


def image_model(mask="table"):
    keras.utils.set_random_seed(0)
    model = models.topvit(
        "tiny", image_shape=(16, 16, 3), num_classes=4, mask=mask
    )
    for weight in model.trainable_weights:
        if weight.name.startswith("mask_"):
            value = ref.numpy(weight)
            noise = np.random.default_rng(0).random(value.shape)
            weight.assign(value + noise.astype("float32"))
    return model


def graph_model():
    classifier = models.gkat_graph_classifier(3, 2, depth=1, num_kernels=2)
    return models.with_edge_inputs(classifier, RandomWalkKernel((1, 3)), 3)


def graphs():
    random = np.random.default_rng(0)
    return {
        "nodes": random.random((2, 5, 3), "float32"),
        "edges": np.tile(
            np.array([[0, 1], [1, 2], [3, 4]], "int32"), (2, 1, 1)
        ),
        "node_mask": np.ones((2, 5), bool),
    }


def images(*shape):
    return 255 * np.random.default_rng(1).random((2, *shape), "float32")
