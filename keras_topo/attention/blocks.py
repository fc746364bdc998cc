"""Moved to `keras_topo.operators.blocks`."""

from keras_topo.operators.blocks import (
    BLOCK_ELEMENTS,
    NOMINAL_BATCH,
    map_blocks,
    static_size,
)

__all__ = ["BLOCK_ELEMENTS", "NOMINAL_BATCH", "map_blocks", "static_size"]
