"""`GraphBatch`: graphs padded to one size, and how to group them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from keras_topo.graphs.graph import Graph

# What is below zero by no more, relative to the largest entry, is an error of
# rounding.
ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class GraphBatch:
    """A batch of graphs as dense arrays, padded to the same number of nodes.

    Attributes:
        nodes: `(batch, nodes, features)`, float32; zeros at padded nodes.
        kernel: `(batch, nodes, nodes)`, or `(batch, kernels, nodes, nodes)`,
            float32; zeros at padded nodes.
        node_mask: `(batch, nodes)`, bool; `True` for real nodes.
        labels: `(batch,)`, int32 or (numbers with a fraction) float32, or
            `(batch, values)`; `None` where a graph has none.

    Example:

    >>> from keras_topo.graphs import Graph
    >>> path = Graph.from_edges([(0, 1), (1, 2)], 3, features=np.eye(3))
    >>> edge = Graph.from_edges([(0, 1)], 2, features=np.ones((2, 3)))
    >>> GraphBatch.from_graphs([path, edge]).node_mask
    array([[ True,  True,  True],
           [ True,  True, False]])
    """

    nodes: np.ndarray
    kernel: np.ndarray
    node_mask: np.ndarray
    labels: np.ndarray | None

    @classmethod
    def from_graphs(
        cls,
        graphs: Sequence[Graph],
        kernels: Sequence[Any] | None = None,
        num_nodes: int | None = None,
    ) -> Self:
        """Pads and stacks graphs.

        Args:
            graphs: list of `Graph`s, at least one, with features of the same
                length.
            kernels: list of arrays or sparse arrays `(nodes, nodes)` or
                `(kernels, nodes, nodes)`, not negative, one for each graph;
                defaults to the adjacency matrices. What rounding left just
                below zero becomes zero.
            num_nodes: int, nodes after padding; defaults to the most that a
                graph has.

        Raises:
            ValueError: if there are no graphs, a graph has no features or
                another number of them, is larger than `num_nodes`, or a
                kernel does not fit its graph, or has entries that are negative
                or not finite; or labels are no numbers.
        """
        if not graphs:
            raise ValueError(
                "`graphs` expects at least one graph. Received: an empty list"
            )
        if kernels is None:
            kernels = [graph.adjacency for graph in graphs]
        if len(kernels) != len(graphs):
            raise ValueError(
                f"`kernels` expects one for each of the {len(graphs)} graphs. "
                f"Received: {len(kernels)}"
            )
        sizes = [graph.num_nodes for graph in graphs]
        num_nodes = num_nodes or max(sizes)
        if max(sizes) > num_nodes:
            raise ValueError(
                f"`num_nodes` expects at least {max(sizes)}, the nodes of the "
                f"largest graph. Received: num_nodes={num_nodes}"
            )
        widths = {
            None if g.features is None else g.features.shape[1] for g in graphs
        }
        width, *others = widths
        if others or width is None:
            raise ValueError(
                "`graphs` expects graphs with features, the same number each. "
                f"Received: {widths} features"
            )
        batch = len(graphs)
        nodes = np.zeros((batch, num_nodes, width), "float32")
        lead = tuple(kernels[0].shape[:-2])
        kernel = np.zeros((batch, *lead, num_nodes, num_nodes), "float32")
        node_mask = np.zeros((batch, num_nodes), bool)
        for k, (graph, matrix, n) in enumerate(
            zip(graphs, kernels, sizes, strict=True)
        ):
            if matrix.shape != (*lead, n, n):
                raise ValueError(
                    f"`kernels` expects the shape {(*lead, n, n)} for graph "
                    f"{k}. Received: {matrix.shape}"
                )
            nodes[k, :n] = graph.features
            dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
            kernel[k, ..., :n, :n] = dense
            node_mask[k, :n] = True
        _check_kernel(kernel)
        labels = None
        if all(graph.label is not None for graph in graphs):
            labels = _as_labels([graph.label for graph in graphs])
        return cls(nodes, kernel, node_mask, labels)

    def __len__(self) -> int:
        return len(self.nodes)

    def inputs(self) -> dict[str, np.ndarray]:
        """A dict of `nodes`, `kernel` and `node_mask`: what models take."""
        return {
            "nodes": self.nodes,
            "kernel": self.kernel,
            "node_mask": self.node_mask,
        }


def edge_inputs(
    graphs: Sequence[Graph], num_features: int | None = None
) -> dict[str, np.ndarray]:
    """Graphs as what models that compute their kernels themselves take.

    Such are the trained models of graphs (`keras_topo.from_preset`), what
    `keras_topo.models.with_edge_inputs` builds, and the signature
    `serving_default` of their SavedModels.

    Args:
        graphs: list of `Graph`s, with the features that a client knows.
        num_features: int, the number of them; 0 where nodes have none.
            Defaults to what the first graph has.

    Returns:
        A dict of arrays, padded to the largest graph: `nodes` `(batch, nodes,
        features)`, float32, zeros for padding; `edges` `(batch, edges, 2)`,
        int32, -1 for padding; `node_mask` `(batch, nodes)`, bool.

    Raises:
        ValueError: if a graph has another number of features, or is directed
            or weighted: kernels are computed from undirected edges.

    Example:

    >>> from keras_topo.graphs import Graph
    >>> path = Graph.from_edges([(0, 1), (1, 2)], 3, features=np.eye(3))
    >>> edge_inputs([path])["edges"].shape
    (1, 4, 2)
    """
    if num_features is None:
        first = graphs[0].features if graphs else None
        num_features = 0 if first is None else int(first.shape[1])
    num_nodes = max([graph.num_nodes for graph in graphs], default=0)
    lists = [graph.edge_index().T for graph in graphs]
    num_edges = max(map(len, lists), default=0)
    batch = len(graphs)
    nodes = np.zeros((batch, num_nodes, num_features), "float32")
    edges = np.full((batch, num_edges, 2), -1, "int32")
    node_mask = np.zeros((batch, num_nodes), bool)
    for k, (graph, ends) in enumerate(zip(graphs, lists, strict=True)):
        if num_features:
            found = 0 if graph.features is None else graph.features.shape[1]
            if found != num_features:
                raise ValueError(
                    f"`graphs` expects {num_features} features for each node. "
                    f"Received: graph {k} with {found}"
                )
            nodes[k, : graph.num_nodes] = graph.features
        if (graph.adjacency.data != 1).any() or not graph.is_undirected():
            raise ValueError(
                "`graphs` expects edges in both directions, of weight 1: "
                "kernels are computed from undirected edges. Received: graph "
                f"{k}, which is directed or weighted"
            )
        edges[k, : len(ends)] = ends
        node_mask[k, : graph.num_nodes] = True
    return {"nodes": nodes, "edges": edges, "node_mask": node_mask}


def _as_labels(labels):
    """Labels of graphs as numbers."""
    shapes = {np.shape(label) for label in labels}
    array = np.array(labels) if len(shapes) == 1 else np.array(labels, object)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            "`graphs` expects labels that are numbers, as many for each graph: "
            "`GraphSequence` takes classes of all kinds. Received: labels such "
            f"as {labels[0]!r:.100}"
        )
    return array.astype("float32" if array.dtype.kind == "f" else "int32")


def _check_kernel(kernel):
    """Raises a ValueError unless a batch of masks has numbers from zero on.

    Negative ones that are rounding errors are set to zero.
    """
    # Graph by graph: what is rounding beside one kernel is an entry of another.
    axes = tuple(range(1, kernel.ndim))
    options = {"axis": axes, "initial": 0.0, "keepdims": True}
    lowest, highest = kernel.min(**options), kernel.max(**options)
    if not ((lowest >= -ROUNDING * highest) & (highest < np.inf)).all():
        wrong = ~np.isfinite(kernel)
        if not wrong.any():
            wrong = kernel < -ROUNDING * highest
        place = np.unravel_index(np.argmax(wrong), kernel.shape)
        raise ValueError(
            "`kernels` expects finite entries that are not negative. Received: "
            f"{kernel[place]:g} in the kernel of graph {place[0]}, at "
            f"{tuple(map(int, place[1:]))}"
        )
    if lowest.min(initial=0.0) < 0:
        np.maximum(kernel, 0.0, out=kernel)


def bucket_sizes(
    sizes: ArrayLike, num_buckets: int = 6, power: int = 2
) -> list[int]:
    """Padded sizes that waste least: at most `num_buckets` of them.

    The sum of `size^power` over all graphs after padding is as small as it can
    be, by dynamic programming over the different sizes (every k-th, where
    there are more than a thousand).

    *Complexity*: `O(num_buckets * u^2)` for `u` different sizes, after sorting.

    Args:
        sizes: nodes of each graph.
        num_buckets: int.
        power: int, 1 where work is linear in nodes.

    Returns:
        Ascending list of ints; the last is the largest size.

    Example:

    >>> bucket_sizes([10, 11, 12, 30, 31, 32], num_buckets=2)
    [12, 32]
    """
    sizes, counts = np.unique(np.asarray(sizes, "int64"), return_counts=True)
    # At most a thousand candidates, the largest size among them.
    kept = sizes[:: -len(sizes) // 1000][::-1]
    counts = np.bincount(np.searchsorted(kept, sizes), weights=counts)
    sizes = kept
    # Graphs of the `i` smallest sizes, for each `i`.
    smaller = np.concatenate([[0.0], np.cumsum(counts)])
    work = sizes.astype("float64") ** power
    # Least work for the `i` smallest sizes, and where the last bucket begins.
    least = np.where(np.arange(len(sizes) + 1) > 0, np.inf, 0.0)
    starts = []
    for _ in range(min(num_buckets, len(sizes))):
        options = [
            least[: i + 1] + (smaller[i + 1] - smaller[: i + 1]) * work[i]
            for i in range(len(sizes))
        ]
        starts.append([int(np.argmin(option)) for option in options])
        least = np.array([0.0, *map(np.min, options)])
    buckets, end = [], len(sizes)
    for start in reversed(starts):
        if end:
            buckets.append(int(sizes[end - 1]))
            end = start[end - 1]
    return buckets[::-1]


def group_by_size(
    sizes: ArrayLike,
    batch_size: int,
    buckets: ArrayLike,
    max_elements: int = 2**22,
    order: ArrayLike | None = None,
    power: int = 2,
) -> list[tuple[np.ndarray, int]]:
    """Puts graphs into batches of graphs with the same padded size.

    Args:
        sizes: nodes of each graph.
        batch_size: int, most graphs of a batch.
        buckets: ascending padded sizes, the last at least the largest graph.
        max_elements: int; batches of large graphs are smaller, so that
            `batch * nodes^power` stays below this (a single graph may be
            above).
        order: ids in the order in which they are put into batches; defaults
            to ascending.
        power: int, 1 where memory is linear in nodes.

    Returns:
        A list of `(ids, num_nodes)`; every graph is in one batch.

    Example:

    >>> groups = group_by_size([3, 20, 5, 9], batch_size=2, buckets=[9, 20])
    >>> [(ids.tolist(), num_nodes) for ids, num_nodes in groups]
    [([0, 2], 9), ([3, 1], 20)]
    """
    sizes, buckets = np.asarray(sizes), np.asarray(buckets)
    order = np.arange(len(sizes)) if order is None else np.asarray(order)
    bucket_of = np.searchsorted(buckets, sizes[order])
    steps = [
        max(1, min(batch_size, max_elements // num_nodes**power))
        for num_nodes in buckets.tolist()
    ]
    batches, left = [], order[:0]
    for k, (num_nodes, step) in enumerate(
        zip(buckets.tolist(), steps, strict=True)
    ):
        ids = np.concatenate([left, order[bucket_of == k]])
        count = len(ids)
        if steps[k + 1 : k + 2] == [step]:
            # Too few for a batch of this size wait for the next one: hardly
            # any partial batches, and so about one shape a bucket. Not for
            # graphs so large that fewer of them make a batch.
            count -= len(ids) % step
        batches += [
            (ids[start : min(start + step, count)], num_nodes)
            for start in range(0, count, step)
        ]
        left = ids[count:]
    return batches
