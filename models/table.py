"""`MODELS`: models of graphs by name, and the kernels that they take."""

import dataclasses
from collections.abc import Callable

import keras

from keras_topo.models.gkat import gkat_graph_classifier
from keras_topo.models.graph_baselines import appnp, gat, gcn, gin, sgc


@dataclasses.dataclass(frozen=True)
class GraphModel:
    """A model of graphs.

    Attributes:
        builder: function with the arguments of `gkat_graph_classifier` that
            returns a Keras model.
        kernel: str, `kernel` of the `GraphPreprocessor` before it.

    Example:

    >>> keras_topo.models.MODELS["gin"].kernel
    'neighbors'
    """

    builder: Callable[..., keras.Model]
    kernel: str


#: What `keras_topo.GraphClassifier(model=...)` and its relatives know.
MODELS = {
    "appnp": GraphModel(appnp, "normalized"),
    "gat": GraphModel(gat, "neighbors"),
    "gcn": GraphModel(gcn, "normalized"),
    "gin": GraphModel(gin, "neighbors"),
    "gkat": GraphModel(gkat_graph_classifier, "random_walk"),
    "sgc": GraphModel(sgc, "normalized"),
}
