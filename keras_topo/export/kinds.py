"""Which kind of model it is: what `export` serves it as."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_topo.arguments import positive
from keras_topo.export.edge_graphs import ServedEdgeGraphs, takes_graphs
from keras_topo.export.images import served_tensors
from keras_topo.export.nodes import ServedNodes
from keras_topo.export.raw_graphs import ServedRawGraphs, takes_raw_graphs
from keras_topo.export.served import Served

# Options by kinds of models, beside those of all.
OPTIONS = {
    "nodes of one graph": ("features",),
    "raw graphs": ("max_nodes", "max_elements"),
    "graphs": ("max_nodes", "max_elements", "spec"),
    "tensors": (
        "top_k",
        "max_pixels",
        "sample_bits",
        "signatures",
        "input_shape",
    ),
}


def served(
    model: keras.Model,
    task: str | None,
    class_names: Sequence[str] | None,
    **options: Any,
) -> Served:
    """What a model is served as.

    Args:
        model, task, class_names, options: see `keras_topo.export`.

    Returns:
        A `keras_topo.export.served.Served`.

    Raises:
        ValueError: if the model is of no kind that is served, or an argument
            does not fit it.
    """
    kind = kind_of(model, options)
    unknown = sorted(set(options) - set(OPTIONS[kind]))
    if unknown:
        name = unknown[0]
        raise ValueError(
            f"`{name}` is no option of models of {kind}, which have "
            f"{', '.join(OPTIONS[kind])}. Received: {name}={options[name]!r}"
        )
    if kind == "nodes of one graph":
        return ServedNodes(model, options["features"], task, class_names)
    if kind == "tensors":
        return served_tensors(model, task, class_names, **options)
    limits = (
        positive(options.pop("max_nodes", 4096), "max_nodes"),
        positive(options.pop("max_elements", 2**20), "max_elements"),
    )
    if kind == "raw graphs":
        return ServedRawGraphs(model, task, class_names, *limits)
    return ServedEdgeGraphs(model, task, class_names, *limits, **options)


def kind_of(model: keras.Model, options: Mapping[str, Any]) -> str:
    """A key of `OPTIONS`."""
    if "features" in options:
        return "nodes of one graph"
    if takes_raw_graphs(model):
        return "raw graphs"
    if isinstance(model, keras.Model) and takes_graphs(model):
        return "graphs"
    return "tensors"


def check_graphs(model: keras.Model) -> None:
    """Raises unless a model is one of graphs."""
    if kind_of(model, {}) not in ("raw graphs", "graphs"):
        raise ValueError(
            "`model` expects a functional keras.Model of raw graphs, of "
            "keras_topo.models.with_preprocessing, or with the inputs nodes, "
            "edges and node_mask, of keras_topo.models.with_edge_inputs. "
            f"Received: model={model!r}"
        )
