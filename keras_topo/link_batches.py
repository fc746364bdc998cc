"""What `LinkPredictor` learns from, and how it is watched."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_topo.graphs.graph import Graph
from keras_topo.graphs.links import (
    count_negatives,
    edges_of,
    is_directed,
    sample_negatives,
    without_edges,
)
from keras_topo.graphs.ranking import average_precision, hits_at, roc_auc


class LinkBatches(keras.utils.PyDataset):
    """Edges of a graph and random pairs, with kernels that lack the edges.

    Args:
        graph: `Graph`.
        inputs: function of a `Graph` to a dict of arrays: `nodes`,
            `kernel_pairs` and `kernel_values`.
        folds: int, batches. Each has as many edges, or one fewer where
            `folds` does not divide them.
        negatives: int, pairs without an edge for each edge, as far as there
            are so many. They depend on `seed`, `epoch` and the batch alone.
        seed: int.
        directed: see `split_edges`.
        excluded: `(pairs, 2)`, ints, pairs that are no negatives either, such
            as those of validation.

    Raises:
        ValueError: if there are fewer than two edges a fold, or all pairs are
            edges.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Callable[[Graph], dict[str, np.ndarray]],
        folds: int = 10,
        negatives: int = 1,
        seed: int = 0,
        directed: bool | None = None,
        excluded: ArrayLike = (),
    ) -> None:
        super().__init__()
        self.graph, self.seed, self.epoch = graph, seed, 0
        self.directed = is_directed(graph, directed)
        edges = edges_of(graph, self.directed)
        if not 1 <= folds <= len(edges) // 2:
            raise ValueError(
                "`folds` expects an int from 1 to half the training edges, "
                f"{len(edges)}. Received: folds={folds}"
            )
        order = np.random.default_rng(seed).permutation(len(edges))
        parts = np.array_split(order, folds)
        # Keras takes an axis for open if the first two batches differ in it;
        # the last part is the smallest.
        self.positives = [edges[part] for part in (parts[:1] + parts[:0:-1])]
        self.excluded = excluded
        available = count_negatives(graph, self.directed, excluded)
        self.num_negatives = [
            min(negatives * len(pairs), available) for pairs in self.positives
        ]
        if not available:
            raise ValueError(
                "`graph` expects pairs of nodes without an edge, beside those "
                "of validation. Received: a complete graph, or nearly"
            )
        graphs = [graph]
        if folds > 1:
            graphs = [
                without_edges(graph, pairs, self.directed)
                for pairs in self.positives
            ]
        self.inputs = [inputs(graph) for graph in graphs]
        most = max(len(x["kernel_pairs"]) for x in self.inputs)
        for x in self.inputs:
            _pad_kernel(x, most)

    def __len__(self) -> int:
        return len(self.positives)

    def __getitem__(
        self, index: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs, a dict, and targets `(1, pairs)`, float32."""
        random = np.random.default_rng([self.seed, self.epoch, index])
        edges = self.positives[index]
        others = sample_negatives(
            self.graph,
            self.num_negatives[index],
            random,
            self.directed,
            self.excluded,
        )
        pairs = np.concatenate([edges, others]).astype("int32")
        targets = np.zeros(len(pairs), "float32")
        targets[: len(edges)] = 1.0
        inputs = {**self.inputs[index], "pairs": pairs}
        return {name: x[None] for name, x in inputs.items()}, targets[None]


def check_edges(graph: Graph, directed: bool) -> int:
    """The number of edges of a graph in which pairs can be told apart."""
    edges = len(edges_of(graph, directed))
    if edges < 2:
        raise ValueError(
            "`graph` expects at least two edges between different nodes. "
            f"Received: {edges}"
        )
    if not count_negatives(graph, directed):
        raise ValueError(
            "`graph` expects pairs of nodes without an edge. Received: a "
            "complete graph"
        )
    return edges


def not_drawn(
    graph: Graph,
    directed: bool,
    held_out: tuple[np.ndarray, np.ndarray] | None,
) -> ArrayLike:
    """Pairs of validation that are no negatives of training."""
    if held_out is None:
        return ()
    pairs = np.concatenate(held_out)
    # In a graph that is nearly complete there may be no others.
    return pairs if count_negatives(graph, directed, pairs) else held_out[0]


class ValidateLinks(keras.callbacks.Callback):
    """Adds exact measures of held-out pairs to the logs of each epoch.

    Has to come before what reads them. They are `val_average_precision` and
    `val_roc_auc`, which Keras computes by thresholds.

    Args:
        inputs: dict of arrays without a batch axis, see `LinkBatches`.
        positive, negative: `(pairs, 2)`, int64.
    """

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        positive: np.ndarray,
        negative: np.ndarray,
    ) -> None:
        super().__init__()
        pairs = np.concatenate([positive, negative]).astype("int32")
        inputs = {**inputs, "pairs": pairs}
        self.inputs = {name: x[None] for name, x in inputs.items()}
        self.count = len(positive)

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        scores = np.asarray(self.model.predict_on_batch(self.inputs))[0]
        found = rankings(scores[: self.count], scores[self.count :])
        if logs is not None:
            logs.update({f"val_{name}": x for name, x in found.items()})


def rankings(
    positive_scores: ArrayLike,
    negative_scores: ArrayLike,
    hits: Iterable[int] = (),
) -> dict[str, float]:
    """Average precision, ROC AUC and Hits@k, a dict of floats."""
    scores = positive_scores, negative_scores
    return {
        "average_precision": average_precision(*scores),
        "roc_auc": roc_auc(*scores),
        **{f"hits@{k}": hits_at(k, *scores) for k in hits},
    }


def _pad_kernel(inputs, count):
    """Entries of value 0 at the last pair, which keeps pairs sorted."""
    missing = count - len(inputs["kernel_pairs"])
    last = len(inputs["nodes"]) - 1
    inputs["kernel_pairs"] = np.pad(
        inputs["kernel_pairs"], ((0, missing), (0, 0)), constant_values=last
    )
    inputs["kernel_values"] = np.pad(
        inputs["kernel_values"], ((0, 0), (0, missing))
    )
