"""What graph models take: padded batches of graphs, or joined ones."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_topo.annotations import Batching, Similarity, Statistics, Tensor
from keras_topo.arguments import one_of, positive
from keras_topo.layers import EdgeGates, KernelMixture, LogKernel

BATCHING = ("padded", "joined", "factors")


def check_takes(
    builder: Callable[..., Any], arguments: Mapping[str, Any]
) -> None:
    """Refuses kernels as factors for a model that has none.

    Raises:
        ValueError: if `arguments` have a `rank`, and the builder takes none.
    """
    parameters = inspect.signature(builder).parameters.values()
    takes = any(p.name == "rank" or p.kind is p.VAR_KEYWORD for p in parameters)
    if "rank" in arguments and not takes:
        raise ValueError(
            "form='factors' expects model='gkat', whose attention is linear. "
            f"Received: {getattr(builder, '__name__', builder)}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class GraphInputs:
    """The inputs of a model, and what its layers take of them.

    Attributes:
        inputs: dict of `keras.Input`s.
        nodes: `(batch, nodes, features)`.
        kernel: dict, a kernel for all attention layers.
        mask: `(batch, nodes)`, of nodes for attention; or `None`.
        pooling: dict, what `GraphPooling` takes beside nodes.
        edges: tuple of edges and their features; `None` without.
    """

    inputs: dict[str, Tensor]
    nodes: Tensor
    kernel: dict[str, Tensor]
    mask: Tensor | None
    pooling: dict[str, Tensor]
    edges: tuple[Tensor, Tensor] | None


def graph_inputs(
    num_features: int,
    num_kernels: int | None,
    similarity: Similarity | None,
    num_heads: int | None = None,
    num_edge_features: int = 0,
    batching: Batching = "padded",
    gates: bool = True,
    statistics: Statistics | None = None,
    learned_kernel: bool = False,
    rank: int | None = None,
) -> GraphInputs:
    """Inputs of a model of graphs: see `GraphSequence`.

    Args:
        num_features: int, features of a node.
        num_kernels: int, or `None` for one without an axis of its own.
        similarity: see `GraphKernelAttention`; `None` without attention.
        num_heads: int, of attention, for gates.
        num_edge_features: int; 0 for none, and no inputs for them.
        batching: `"padded"`, `"joined"` or `"factors"`.
        gates: bool, whether edges gate the kernel.
        statistics: `(mean, variance)` of node features, or `None`.
        learned_kernel: bool, whether heads learn sums of the kernels.
        rank: int, columns of factors.

    Returns:
        `GraphInputs`.

    Raises:
        ValueError: if `batching` is unknown, or wants what factors do not do.
    """
    one_of(batching, "batching", BATCHING)
    if batching == "factors":
        gates = gates and bool(num_edge_features)
        _check_factors(rank, similarity, gates, learned_kernel)
    inputs = {"nodes": keras.Input((None, num_features), name="nodes")}
    lead = () if num_kernels is None else (num_kernels,)
    edges = None
    # Without attention there are none, and nothing below asks for them.
    heads: Any = num_heads
    if batching == "joined":
        inputs["pairs"] = keras.Input((None, 2), dtype="int32", name="pairs")
        inputs["pair_values"] = keras.Input((*lead, None), name="pair_values")
        inputs["graph_sizes"] = keras.Input(
            (), dtype="int32", name="graph_sizes"
        )
        if num_edge_features:
            inputs["pair_features"] = keras.Input(
                (None, num_edge_features + 1), name="pair_features"
            )
            edges = inputs["pairs"], inputs["pair_features"]
        kernel = {k: inputs[k] for k in ("pairs", "pair_values")}
        nodes, mask = inputs["nodes"], None
        if learned_kernel:
            kernel = KernelMixture(heads, name="kernel_mixture")(
                kernel, nodes=nodes
            )
        pooling = {"graph_sizes": inputs["graph_sizes"]}
    else:
        if batching == "factors":
            inputs["factors"] = keras.Input((*lead, None, rank), name="factors")
        else:
            inputs["kernel"] = keras.Input((*lead, None, None), name="kernel")
        inputs["node_mask"] = keras.Input(
            (None,), dtype="bool", name="node_mask"
        )
        if num_edge_features:
            inputs["edges"] = keras.Input(
                (None, 2), dtype="int32", name="edges"
            )
            inputs["edge_features"] = keras.Input(
                (None, num_edge_features), name="edge_features"
            )
            edges = inputs["edges"], inputs["edge_features"]
        mask = inputs["node_mask"]
        nodes = real_nodes(inputs["nodes"], mask)
        kernel = inputs.get("kernel")
        if learned_kernel:
            kernel = KernelMixture(heads, name="kernel_mixture")(
                {"kernel": kernel}, mask=mask
            )["kernel"]
        if batching == "factors":
            kernel = {"factors": inputs["factors"]}
        else:
            kernel, mask = shared_kernel(kernel, mask, similarity)
        pooling = {"mask": inputs["node_mask"]}
    nodes = standardised(nodes, statistics)
    if edges is not None and gates:
        ends = {} if batching == "joined" else {"edges": edges[0]}
        kernel = EdgeGates(heads, name="edge_gates")(
            kernel, edge_features=edges[1], **ends
        )
    return GraphInputs(inputs, nodes, kernel, mask, pooling, edges)


def _check_factors(rank, similarity, gates, learned_kernel):
    """Refuses what kernels of low rank do not do."""
    positive(rank, "rank")
    if similarity is None or gates or learned_kernel:
        raise ValueError(
            "`batching='factors'` expects a model of attention whose "
            "kernels are as they come: edge_gates=False, learned_kernel="
            f"False. Received: similarity={similarity!r}, edge_gates="
            f"{gates}, learned_kernel={learned_kernel}"
        )


def shared_kernel(
    kernel: Tensor, mask: Tensor | None, similarity: Similarity | None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The kernel for all attention layers of a model, and their node mask.

    Where it is made once for all of them, the mask is in it.
    """
    if similarity in ("softmax", "additive"):
        log_kernel = LogKernel(name="log_kernel")(kernel, mask=mask)
        return {"log_kernel": log_kernel}, None
    return {"kernel": kernel}, mask


def real_nodes(nodes: Tensor, mask: Tensor) -> Tensor:
    """Zeros at padded nodes, once for all layers: zero times what else may
    stand there need not be zero."""
    mask = keras.ops.expand_dims(mask, -1)
    return keras.ops.where(mask, nodes, keras.ops.zeros_like(nodes))


def standardised(nodes: Tensor, statistics: Statistics | None) -> Tensor:
    """Features of mean 0 and variance 1, or as they are without statistics."""
    if statistics is None:
        return nodes
    mean, variance = statistics
    return keras.layers.Normalization(
        mean=mean, variance=variance, name="standardisation"
    )(nodes)


def logits_of(
    x: Tensor,
    count: int,
    regularizer: keras.regularizers.Regularizer | None = None,
) -> Tensor:
    """The last layer of a model."""
    return keras.layers.Dense(
        count, kernel_regularizer=regularizer, dtype="float32", name="logits"
    )(x)


def in_units(outputs: Tensor, statistics: Statistics | None) -> Tensor:
    """Standardized outputs as real targets, or as they are without
    statistics, `(mean, deviation)` of each."""
    if statistics is None:
        return outputs
    mean, deviation = ([float(x) for x in part] for part in statistics)
    return keras.layers.Rescaling(
        deviation, mean, dtype="float32", name="targets"
    )(outputs)
