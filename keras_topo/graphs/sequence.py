"""`GraphSequence`: lists of graphs for `fit`, `evaluate` and `predict`."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import ArrayLike

from keras_topo.annotations import AnyGraph, Level
from keras_topo.graphs.batch import bucket_sizes, group_by_size
from keras_topo.graphs.collate import join_examples, pad_examples, pad_rows
from keras_topo.graphs.datasets import GraphDataset
from keras_topo.graphs.preprocessor import GraphPreprocessor
from keras_topo.graphs.targets import encode_targets

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# Sizes that joined batches are padded to grow by this factor.
GROWTH = 1.25


class GraphSequence(keras.utils.PyDataset):
    """Batches of graphs for `model.fit`, `model.evaluate` and `model.predict`.

    In the dense form of the preprocessor, and in that of factors, graphs are
    padded to one of a few sizes; in that of pairs they are joined into one
    large graph without edges between them, whose memory is linear in nodes and
    edges.

    Without `shuffle`, batches hold the graphs in their order, so that row `k`
    of `model.predict` is graph `k`. With it, graphs of about the same size
    come together, in an order that depends only on `seed` and the epoch. Keras
    itself shuffles batches unless `fit` is called with `shuffle=False`.

    Args:
        graphs: list of graphs of any library, or a `GraphDataset`.
        preprocessor: `GraphPreprocessor`, adapted.
        y: targets: one per graph, a class (a value of
            `preprocessor.classes`), a number, or a vector of numbers; or per
            graph an array of its nodes, `(nodes,)` or `(nodes, values)`,
            classes (-1 where unknown) or numbers. NaN in numbers is unknown:
            such values get no weight, and the loss has to leave them out
            where others of the same row are known. Defaults to `label`, or
            `node_targets`, of the graphs. `False` for none.
        batch_size: int, graphs of a batch at most.
        sample_weight: `(graphs,)`; for targets of nodes also a list of arrays
            `(nodes,)`; or `None`.
        shuffle: bool.
        seed: int.
        epoch: int, the first epoch. The sequence counts epochs itself; where
            a training resumes, and to be exact with one or two batches,
            `keras_topo.callbacks.FollowEpochs(sequence)` sets them.
        max_elements: int; batches are smaller where padded kernels would hold
            more entries, or joined ones more pairs; with factors, more nodes.
            A single graph may.
        num_buckets: int, sizes that dense graphs are padded to.
        level: `"graphs"` or `"nodes"`, what `y` belongs to where its shape
            may be either.
        **kwargs: `workers`, `use_multiprocessing`, `max_queue_size`.

    Raises:
        ValueError: if there are no graphs, some have a target and some have
            none, or targets or weights do not fit the graphs.

    Example:

    >>> train, _, _ = keras_topo.graphs.motif_dataset("cycle", (4, 1, 1))
    >>> preprocessor = keras_topo.graphs.GraphPreprocessor().adapt(train)
    >>> batches = GraphSequence(train, preprocessor, batch_size=4)
    >>> inputs, targets = batches[0]
    >>> inputs["nodes"].shape, targets
    ((4, 95, 21), array([0, 1, 0, 1], dtype=int32))
    >>> from keras_topo.models import gkat_graph_classifier
    >>> model = gkat_graph_classifier(**preprocessor.model_arguments())
    >>> model.predict(batches, verbose=0).shape
    (8, 2)
    """

    def __init__(
        self,
        graphs: Sequence[AnyGraph] | GraphDataset,
        preprocessor: GraphPreprocessor,
        y: Sequence[Any] | np.ndarray | Literal[False] | None = None,
        batch_size: int = 32,
        sample_weight: ArrayLike | Sequence[ArrayLike] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        max_elements: int | None = None,
        num_buckets: int = 6,
        level: Level = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.preprocessor = preprocessor
        self.graphs = preprocessor.read(graphs)
        if not self.graphs:
            raise ValueError(
                "`graphs` expects at least one graph. Received: none"
            )
        if int(batch_size) != batch_size or batch_size < 1:
            raise ValueError(
                "`batch_size` expects a positive int. Received: "
                f"batch_size={batch_size!r}"
            )
        self.batch_size = int(batch_size)
        self.shuffle, self.seed, self.epoch = bool(shuffle), seed, epoch
        self.targets = encode_targets(
            self.graphs, y, preprocessor.classes, level
        )
        self.weights: Any = None
        self.weigh(sample_weight)
        self.examples = preprocessor(self.graphs)
        self.joined = preprocessor.form == "pairs"
        self.sizes = np.array([graph.num_nodes for graph in self.graphs])
        if self.joined:
            self._loads = np.array([x["pairs"].shape[1] for x in self.examples])
            self.max_elements = max_elements or 2**18
        else:
            self._edges = np.array([g.adjacency.nnz for g in self.graphs])
            # Work and memory of a graph grow so with its nodes.
            self._power = 1 if preprocessor.form == "factors" else 2
            self.buckets = bucket_sizes(self.sizes, num_buckets, self._power)
            default = 2**14 if preprocessor.form == "factors" else 2**22
            self.max_elements = max_elements or default
        self._drawn_for, self._last_drawn = None, False
        self._draw()

    def __len__(self) -> int:
        """Batches of an epoch."""
        self._draw()
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """A batch: inputs, a dict; targets and weights, where there are any.

        Returns:
            A tuple of one to three: the inputs of a model; targets `(graphs,
            ...)`, or of nodes, padded like these; weights, of the same leading
            axes. Inputs are a dict of arrays. Dense: `nodes` `(batch, nodes,
            features)`, `kernel` `(batch, kernels, nodes, nodes)`, `node_mask`
            `(batch, nodes)`, and with features of edges `edges` `(batch,
            edges, 2)`, -1 for padding, and `edge_features` `(batch, edges,
            channels)`. Joined: `nodes` `(1, all nodes, features)`, `pairs`
            `(1, pairs, 2)`, `pair_values` `(1, kernels, pairs)`,
            `pair_features` `(1, pairs, channels + 1)`, and `graph_sizes`
            `(batch,)`, int32, nodes of each graph. Of factors: `factors`
            `(batch, kernels, nodes, rank)` in place of `kernel`.
        """
        self._draw()
        ids = self._batches[index]
        self._last_drawn |= index == len(self._batches) - 1
        sizes = self._sizes(index)
        if index == 0 and len(self._batches) > 1 and ON_TENSORFLOW:
            # Keras takes what the first two batches have in common for the
            # shape of all.
            equal = np.equal(sizes, self._sizes(1))
            sizes = [n + 8 * same for n, same in zip(sizes, equal, strict=True)]
        inputs = self._inputs(ids, sizes, index)
        found = self.targets
        if found is None:
            return (inputs,)
        if found.of_nodes:
            return inputs, *self._node_targets(found, ids, sizes[0])
        targets, known = found.values[ids], found.known
        if self.weights is None and known.all() and (known == 1).all():
            return inputs, targets
        weights = known[ids] / known.mean()
        if self.weights is not None:
            weights *= self.weights[ids]
        return inputs, targets, weights.astype("float32")

    def weigh(
        self, sample_weight: ArrayLike | Sequence[ArrayLike] | None
    ) -> None:
        """Multiplies the weights of examples.

        Args:
            sample_weight: see the class; `None` for ones.

        Raises:
            ValueError: as the class.
        """
        if sample_weight is None:
            return
        of_nodes = self.targets is not None and self.targets.of_nodes
        weights = _weights(sample_weight, self.graphs, of_nodes)
        if self.weights is None:
            self.weights = weights
        elif of_nodes:
            pairs = zip(self.weights, weights, strict=True)
            self.weights = [x * y for x, y in pairs]
        else:
            self.weights = self.weights * weights

    def _node_targets(self, targets, ids, num_nodes):
        """Targets of nodes, padded, and weights: zero where unknown."""
        values = [targets.values[i] for i in ids]
        weights = [targets.known[i] for i in ids]
        if self.weights is not None:
            own = [self.weights[i] for i in ids]
            weights = [w * x for w, x in zip(weights, own, strict=True)]
        if self.joined:
            values, weights = (
                [np.concatenate(values)],
                [np.concatenate(weights)],
            )
        # Keras takes means over padded nodes. With this factor those of
        # batches of different sizes add up to that of all known nodes.
        known = sum(float(share.sum()) for share in targets.known)
        share = num_nodes * len(self.graphs) / known
        if self.joined:
            # Keras weighs batches by their graphs. One factor for all keeps
            # metrics exact, and losses where batches have as many graphs.
            counts = np.array([len(batch) for batch in self._batches])
            share *= counts.sum() / np.square(counts).sum()
        return (
            np.stack([pad_rows(x, num_nodes) for x in values]),
            share * np.stack([pad_rows(w, num_nodes) for w in weights]),
        )

    def nodes_of(self, index: int) -> np.ndarray:
        """How many nodes the graphs of a batch have, `(graphs,)`."""
        self._draw()
        return self.sizes[self._batches[index]]

    def _inputs(self, ids, sizes, index):
        examples = [self.examples[i] for i in ids]
        if self.shuffle and self.preprocessor.eigenvectors:
            examples = self._flipped(examples, index)
        collate = join_examples if self.joined else pad_examples
        return collate(examples, *sizes)

    def _sizes(self, index):
        """Nodes, and edges or pairs, of a batch after padding: a few sizes,
        each of which is compiled once."""
        ids = self._batches[index]
        if self.joined:
            return _step_up(self.sizes[ids].sum()), _step_up(
                self._loads[ids].sum()
            )
        nodes = self.buckets[
            np.searchsorted(self.buckets, self.sizes[ids].max())
        ]
        return nodes, _step_up(self._edges[ids].max(), 32)

    def on_epoch_end(self) -> None:
        # Keras looks at the first batches before it begins.
        if self._last_drawn:
            self.epoch += 1
        self._last_drawn = False

    def _draw(self):
        """The batches of the present epoch."""
        epoch = self.epoch if self.shuffle else 0
        if self._drawn_for == epoch:
            return
        order = np.arange(len(self.graphs))
        seed = [self.seed, self.epoch] if self.shuffle else 0
        random = np.random.default_rng(seed)
        if self.shuffle:
            order = random.permutation(order)
        if self.joined:
            batches = self._in_order(order, self._loads)
        elif self.shuffle:
            batches = group_by_size(
                self.sizes,
                self.batch_size,
                self.buckets,
                self.max_elements,
                order,
                self._power,
            )
            batches = [batches[k][0] for k in random.permutation(len(batches))]
        else:
            padded = np.array(self.buckets)[
                np.searchsorted(self.buckets, self.sizes)
            ]
            batches = self._in_order(order, padded**self._power)
        self._batches = batches
        self._drawn_for = epoch

    def _in_order(self, order, loads):
        """Batches of neighbors in an order, none too large."""
        batches, members = [], []
        for i in order.tolist():
            together = [*members, i]
            load = loads[together]
            # Padded ones are all as large as the largest.
            total = load.sum() if self.joined else load.max() * len(load)
            full = len(members) == self.batch_size
            if members and (full or total > self.max_elements):
                batches.append(members)
                together = [i]
            members = together
        batches.append(members)
        return [np.array(ids) for ids in batches]

    def _flipped(self, examples, index):
        """Eigenvectors with signs at random: theirs mean nothing."""
        count = self.preprocessor.eigenvectors
        random = np.random.default_rng([self.seed, self.epoch, index])
        flipped = []
        for example in examples:
            nodes = example["nodes"].copy()
            nodes[:, -count:] *= random.choice([-1.0, 1.0], count)
            flipped.append({**example, "nodes": nodes})
        return flipped


def _weights(sample_weight, graphs, of_nodes):
    """`(graphs,)`, or a list of arrays `(nodes,)` where targets are theirs."""
    rows = [np.asarray(weight, "float32") for weight in sample_weight]
    shapes = [row.shape for row in rows]
    fits = shapes == [()] * len(graphs)
    if of_nodes and not fits:
        fits = shapes == [(graph.num_nodes,) for graph in graphs]
    finite = all(np.isfinite(row).all() and (row >= 0).all() for row in rows)
    if not fits or not finite:
        also = ", or an array of its nodes," if of_nodes else ""
        raise ValueError(
            "`sample_weight` expects a finite number that is not negative"
            f"{also} for each of the {len(graphs)} graphs. Received: "
            f"{len(shapes)} of shapes {sorted(set(shapes))[:3]}"
        )
    if of_nodes:
        return [
            np.broadcast_to(row, (graph.num_nodes,))
            for row, graph in zip(rows, graphs, strict=True)
        ]
    return np.array(rows, "float32")


def _step_up(size, step=64):
    """The next of a few sizes."""
    while step < size:
        step = int(np.ceil(step * GROWTH / 8) * 8)
    return step
