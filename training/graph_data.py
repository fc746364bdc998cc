"""Graph data sets for training: loading, features, kernels, batches."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import scipy.sparse
import tensorflow as tf

from keras_topo.graphs import (
    GraphBatch,
    bucket_sizes,
    compute_kernels,
    diffusion_kernel,
    group_by_size,
    induced_cycle_dataset,
    load_tu_dataset,
    motif_dataset,
    node_features,
    normalized_adjacency,
    random_walk_kernel,
    return_probabilities,
)
from keras_topo.graphs.generators import MOTIFS

GENERATED = ("cycles", *(f"motif-{name.replace('_', '-')}" for name in MOTIFS))
CLASSES = {
    "cycles": ["shorter cycle", "longest cycle"],
    "motif": ["without motif", "with motif"],
}
KERNELS = ("random_walk", "diffusion", "ones")
MAX_DEGREE = 64


@dataclasses.dataclass(frozen=True)
class FeatureRecipe:
    """What a node is described by, from the graph that a client sends.

    Attributes:
        num_node_labels: int; node labels as one-hot vectors of this length.
        attributes: int, features that the graphs have themselves.
        max_degree: int or `None`; degrees as one-hot vectors up to this one.
        return_steps: int, return probabilities of random walks.
        node_label_values: list of the values of node labels in the order of
            these vectors; or `None` where they count from 0.
    """

    num_node_labels: int
    attributes: int
    max_degree: int | None
    return_steps: int
    node_label_values: list | None = None

    @property
    def _labels(self):
        return self.node_label_values or self.num_node_labels

    @property
    def own_features(self):
        """Features that a node has itself: labels and attributes."""
        return self.num_node_labels + self.attributes

    def own(self, graph):
        """The graph with what a client sends: its own features alone."""
        if not self.own_features:
            return graph.with_features(None)
        return graph.with_features(
            node_features(graph, self._labels, self.attributes > 0)
        )

    def __call__(self, graphs):
        """The graphs with all features: a list."""
        # Powers of matrices, kept like kernels.
        returns = compute_kernels(
            graphs, return_probabilities, steps=self.return_steps
        )
        if self.own_features or self.max_degree is not None:
            options = (self._labels, self.attributes > 0)
            returns = [
                np.concatenate(
                    [node_features(g, *options, self.max_degree), r], 1
                )
                for g, r in zip(graphs, returns, strict=True)
            ]
        elif not self.return_steps:
            returns = [node_features(graph) for graph in graphs]
        return [
            graph.with_features(features)
            for graph, features in zip(graphs, returns, strict=True)
        ]


def load_graphs(name, data_dir=None, seed=0):
    """Loads a data set of graphs and what is known of its split.

    Args:
        name: one of `GENERATED`; or a TUDataset zip file or folder; or, with
            `data_dir`, the name of one there.
        data_dir: folder.
        seed: int, of generated graphs.

    Returns:
        A `GraphDataset`, and `(train, validation, test)` ids or `None` where
        the data set has no split of its own.

    Raises:
        ValueError: if there is no such data set, or it cannot be read.
    """
    if name in GENERATED:
        parts = (
            induced_cycle_dataset(seed=seed)
            if name == "cycles"
            else motif_dataset(
                name.removeprefix("motif-").replace("-", "_"), seed=seed
            )
        )
        ends = np.cumsum([len(part) for part in parts])
        split = np.split(np.arange(ends[-1]), ends[:-1])
        graphs = [graph for part in parts for graph in part.graphs]
        classes = CLASSES[name.partition("-")[0]]
        return (
            dataclasses.replace(parts[0], graphs=graphs, classes=classes),
            split,
        )
    path = Path(data_dir or name).expanduser()
    if not path.exists():
        raise ValueError(
            f"--data expects one of {', '.join(GENERATED)}, a TUDataset zip "
            "file or folder, or its name with --data-dir. Received: "
            f"{path}, which does not exist"
        )
    try:
        dataset = load_tu_dataset(path, name if data_dir else None)
    except ValueError as error:
        raise ValueError(f"--data {name}: {error}") from error
    if dataset.classes is None:
        raise ValueError(
            "--data expects graphs with a class each. Received: "
            f"{dataset.name}, with numbers to predict or several labels"
        )
    return dataset, None


def stratified_split(labels, seed, shares=(0.8, 0.1, 0.1)):
    """Ids of a random training, validation and test set, class by class."""
    random = np.random.default_rng(seed)
    parts = [[] for _ in shares]
    for label in np.unique(labels):
        ids = random.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(shares)[:-1] * len(ids)).astype(int)
        for part, piece in zip(parts, np.split(ids, ends), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def make_kernels(graphs, kind, sizes):
    """The kernels of GKAT for every graph, `(kernels, nodes, nodes)` each.

    Args:
        graphs: list of `Graph`s.
        kind: one of `KERNELS`; `"ones"` is the mask that hides nothing.
        sizes: walk lengths, or diffusion times; one kernel each.
    """
    if kind == "ones":
        # One number each, however large the graph.
        one = np.ones((1, 1, 1), "float32")
        sizes = [graph.num_nodes for graph in graphs]
        return [np.broadcast_to(one, (1, n, n)) for n in sizes]
    if kind == "random_walk":
        return compute_kernels(
            graphs, random_walk_kernel, length=[int(n) for n in sizes]
        )
    return compute_kernels(
        graphs,
        diffusion_kernel,
        time=list(sizes),
        generator="normalized_laplacian",
    )


def adjacency_kernels(graphs, model):
    """The kernel of a baseline: `A + I` for GAT, normalised for GCN, SGC.

    Sparse: a batch is dense only while it is used.
    """
    if model == "gat":
        return [
            _ones(g.adjacency + scipy.sparse.eye_array(g.num_nodes))
            for g in graphs
        ]
    return [normalized_adjacency(g.adjacency) for g in graphs]


def _ones(matrix):
    matrix = scipy.sparse.csr_array(matrix)
    matrix.data[:] = 1.0
    return matrix


class GraphBatches:
    """Batches of padded graphs, grouped by size, for `fit` and `evaluate`.

    Args:
        graphs: list of `Graph`s with features.
        kernels: sequence of arrays, one for each graph.
        ids: the graphs to take.
        batch_size: int.
        num_classes: int.
        seed: int; batches are drawn anew each epoch, the same for the same
            seed and epoch. `None` keeps the order.
        num_buckets: int, sizes that graphs are padded to; 4 to 12 by default,
            by the number of batches.
    """

    def __init__(
        self,
        graphs,
        kernels,
        ids,
        batch_size,
        num_classes,
        seed=None,
        num_buckets=None,
    ):
        self.graphs, self.kernels, self.ids = graphs, kernels, np.asarray(ids)
        self.batch_size, self.num_classes = batch_size, num_classes
        self.seed = seed
        self.sizes = np.array([graphs[i].num_nodes for i in self.ids])
        if num_buckets is None:
            num_buckets = np.clip(len(self.ids) // (2 * batch_size), 4, 12)
        self.buckets = bucket_sizes(self.sizes, int(num_buckets))

    def __len__(self):
        """Batches of an epoch."""
        return len(group_by_size(self.sizes, self.batch_size, self.buckets))

    def epoch(self, number=0):
        """Yields inputs, a dict, and one-hot labels, batch by batch."""
        order = None
        if self.seed is not None:
            random = np.random.default_rng([self.seed, number])
            order = random.permutation(len(self.sizes))
        groups = group_by_size(
            self.sizes, self.batch_size, self.buckets, order=order
        )
        if self.seed is not None:
            groups = [groups[k] for k in random.permutation(len(groups))]
        for members, num_nodes in groups:
            ids = self.ids[members]
            batch = GraphBatch.from_graphs(
                [self.graphs[i] for i in ids],
                [self.kernels[i] for i in ids],
                num_nodes,
            )
            targets = np.eye(self.num_classes, dtype="f4")[batch.labels]
            yield batch.inputs(), targets

    def dataset(self, first=0, epochs=1):
        """A `tf.data.Dataset` of the epochs from `first` to before `epochs`."""
        first_kernel = self.kernels[self.ids[0]]
        channels = self.graphs[self.ids[0]].features.shape[1]
        signature = (
            {
                "nodes": tf.TensorSpec((None, None, channels)),
                "kernel": tf.TensorSpec(
                    (None, *first_kernel.shape[:-2], None, None)
                ),
                "node_mask": tf.TensorSpec((None, None), "bool"),
            },
            tf.TensorSpec((None, self.num_classes)),
        )
        dataset = tf.data.Dataset.from_generator(
            lambda: itertools.chain.from_iterable(
                self.epoch(number) for number in range(first, epochs)
            ),
            output_signature=signature,
        )
        # Keras warns of data whose end it cannot foresee.
        count = len(self) * (epochs - first)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
        return dataset.prefetch(tf.data.AUTOTUNE)
