"""Inputs and weights of layers that are compared with an oracle."""

import numpy as np
import reference as ref


def inputs(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x.astype("float32")


def randomise(layer):
    random = np.random.default_rng(2)
    for weight in layer.trainable_weights:
        noise = random.normal(size=weight.shape) / 2
        weight.assign(ref.numpy(weight) + noise)
