"""Presets: trained models as configuration and weights, in a folder.

A preset is a folder with these files:

| file | what it holds |
|---|---|
| `config.json` | the name of a builder and its arguments, or Keras's own configuration of a model that no builder made |
| `model.weights.h5` | the weights, as `keras.Model.save_weights` writes them |
| `preprocessor.json` | what turns raw inputs into inputs of the model: see `save_preset` |
| `metrics.json` | how the model was trained and how good it is |
| `README.md` | a card for readers |
| `checksums.json` | the SHA-256 of the files that programs read |

Those that are known by name are in a registry: `keras_topo.presets.registry`.
Nothing in a preset can run code: `keras_topo.presets.checks` says what a
configuration may hold.
"""  # noqa: E501

from keras_topo.presets.builders import builder
from keras_topo.presets.folders import read_metrics
from keras_topo.presets.loading import from_preset, make_trainable
from keras_topo.presets.registry import (
    find_preset,
    presets,
    read_preprocessor,
    write_registry,
)
from keras_topo.presets.saving import copied, save_preset

__all__ = [
    "builder",
    "copied",
    "find_preset",
    "from_preset",
    "make_trainable",
    "presets",
    "read_metrics",
    "read_preprocessor",
    "save_preset",
    "write_registry",
]
