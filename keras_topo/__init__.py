"""keras_topo: topologically masked linear attention for Keras 3."""

from typing import TYPE_CHECKING

from keras_topo import _startup  # noqa: F401  isort: skip
from keras_topo import attention, layers, masks, operators

# Four functions take the names of their packages: `keras_topo.presets()` lists,
# and `from keras_topo.presets import ...` imports as before. Nothing of
# `export` imports TensorFlow before it is called.
from keras_topo.convert import convert
from keras_topo.export import (
    export,
    export_graph_saved_model,
    export_litert,
    export_node_saved_model,
    export_onnx,
    export_saved_model,
)
from keras_topo.linearize import linearize
from keras_topo.presets import from_preset, presets, save_preset

if TYPE_CHECKING:
    # What `__getattr__` below imports when it is asked for.
    from keras_topo.estimators import (
        GraphClassifier,
        GraphRegressor,
        NodeClassifier,
        NodeRegressor,
    )
    from keras_topo.link_predictor import LinkPredictor

    # In this form: `from keras_topo import models` would stand for itself, and
    # the reference of the site would find nothing behind it.
    from . import graphs, models, testing, training, visualize  # noqa: F401

__version__ = "0.2.0"

# Estimators, which need the models.
_ESTIMATORS = (
    "GraphClassifier",
    "GraphRegressor",
    "NodeClassifier",
    "NodeRegressor",
)
_LINKS = ("LinkPredictor",)

__all__ = [
    "GraphClassifier",
    "GraphRegressor",
    "LinkPredictor",
    "NodeClassifier",
    "NodeRegressor",
    "attention",
    "convert",
    "export",
    "export_graph_saved_model",
    "export_litert",
    "export_node_saved_model",
    "export_onnx",
    "export_saved_model",
    "from_preset",
    "layers",
    "linearize",
    "masks",
    "operators",
    "presets",
    "save_preset",
]


def __dir__() -> list[str]:
    return sorted(
        {*globals(), *__all__, "graphs", "models", "testing", "visualize"}
    )


if not TYPE_CHECKING:  # Or any name would be one of the package.

    def __getattr__(name):
        if name in ("graphs", "models", "testing", "training", "visualize"):
            import importlib

            return importlib.import_module(f"keras_topo.{name}")
        if name in _ESTIMATORS:
            from keras_topo import estimators

            return getattr(estimators, name)
        if name in _LINKS:
            from keras_topo import link_predictor

            return getattr(link_predictor, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
