"""GraphTensors by their former path: see `keras_topo.export.graph_tensors`."""

from keras_topo.export.graph_tensors import (
    GraphTensorSpec,
    graph_to_example,
    load_graph_schema,
    parse_graph_examples,
)

__all__ = [
    "GraphTensorSpec",
    "graph_to_example",
    "load_graph_schema",
    "parse_graph_examples",
]
