"""Presets under their earlier name: see `keras_topo.presets`."""

from keras_topo.presets.folders import (
    find_preset,
    presets,
    read_metrics,
)
from keras_topo.presets.loading import from_preset, make_trainable

__all__ = [
    "find_preset",
    "from_preset",
    "make_trainable",
    "presets",
    "read_metrics",
]
