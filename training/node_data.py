"""Data of node classifiers: one graph with features and a split of nodes."""

import dataclasses
import functools

import numpy as np

from keras_topo.graphs import (
    Graph,
    NodeDataset,
    beacon_dataset,
    load_planetoid,
)
from keras_topo.training.graph_data import facts_of


@dataclasses.dataclass(frozen=True, eq=False)
class Nodes:
    """A `NodeDataset` prepared for training.

    Attributes:
        dataset: `NodeDataset`, with the features that the model gets.
        raw_features: `(nodes, features)`, the original features.
        facts: dict that identifies the data.
    """

    dataset: NodeDataset
    raw_features: np.ndarray
    facts: dict

    @property
    def is_scaled(self):
        """Whether the features of each node are divided by their sum."""
        return self.raw_features is not self.dataset.graph.features


@functools.lru_cache(maxsize=2)
def load_nodes(name, data_dir=None, num_nodes=100_000):
    """The karate club, a generated graph, or one from a file.

    For data from files, the features of each node are divided by their sum.

    Args:
        name: `"karate"`, `"beacons"`, an npz file in the Planetoid layout, or
            the folder of public files `ind.NAME.*`; with `data_dir`, the name
            of one in that folder.
        data_dir: folder.
        num_nodes: int, number of nodes of beacons.

    Returns:
        `Nodes`.

    Raises:
        ValueError: if there is no such file, or it cannot be read.
    """
    if name == "karate":
        data = load_karate()
    elif name == "beacons":
        data = beacon_dataset(num_nodes)
    elif data_dir:
        data = load_planetoid(data_dir, name.removesuffix(".npz"))
    else:
        data = load_planetoid(name)
    raw, facts = data.graph.features, facts_of([data.graph])
    if name not in ("karate", "beacons"):
        total = np.abs(raw).sum(axis=1, keepdims=True)
        scaled = raw / np.where(total == 0, 1, total)
        graph = data.graph.with_features(scaled)
        data = dataclasses.replace(data, graph=graph)
    else:
        raw = data.graph.features
    return Nodes(data, raw, facts)


def load_karate():
    """Zachary's karate club, which split into two groups.

    The two training nodes are the instructor and the president; all others are
    test nodes. The features of a node are its one-hot id.
    """
    import networkx

    club = networkx.karate_club_graph()
    labels = np.array([club.nodes[k]["club"] == "Officer" for k in club])
    graph = Graph.from_networkx(
        club,
        weight=None,
        features=np.eye(len(labels)),
        node_targets=labels.astype("int64"),
    )
    train = np.array([0, 33])
    test = np.setdiff1d(np.arange(34), train)
    none = np.zeros(0, "int64")
    return NodeDataset("karate club", graph, 2, train, none, test)
