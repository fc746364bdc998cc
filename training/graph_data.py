"""Graph data sets for training."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import scipy.sparse

from keras_topo.graphs import (
    SharedKernels,
    induced_cycle_dataset,
    load_tu_dataset,
    motif_dataset,
    normalized_adjacency,
)
from keras_topo.graphs.synthetic import MOTIFS
from keras_topo.training.files import digest

GENERATED = ("cycles", *(f"motif-{name.replace('_', '-')}" for name in MOTIFS))
TU_SITE = "https://www.chrsmrrs.com/graphkerneldatasets"
CLASSES = {
    "cycles": ["shorter cycle", "longest cycle"],
    "motif": ["without motif", "with motif"],
}


@functools.lru_cache(maxsize=4)
def load_graphs(name, data_dir=None, seed=0, size=None):
    """Loads a data set of graphs and its split.

    Args:
        name: one of `GENERATED`, or a TUDataset zip file or folder; with
            `data_dir`, the name of one in that folder.
        data_dir: folder.
        seed: int, seed of generated graphs.
        size: int, generated training graphs per class; validation and test
            have a third of that. Defaults to 768.

    Returns:
        A `GraphDataset`; a dict from `train`, `validation` and `test` to ids,
        or `None` if the data set has no split; and a dict of facts about it.

    Raises:
        ValueError: if there is no such data set, it cannot be read, or its
            graphs have no classes.
    """
    if name in GENERATED:
        sizes = (
            (768, 256, 256) if size is None else (size, *[-(-size // 3)] * 2)
        )
        parts = (
            induced_cycle_dataset(sizes=sizes, seed=seed)
            if name == "cycles"
            else motif_dataset(
                name.removeprefix("motif-").replace("-", "_"), sizes, seed
            )
        )
        ends = np.cumsum([len(part) for part in parts])
        split = np.split(np.arange(ends[-1]), ends[:-1])
        graphs = [graph for part in parts for graph in part.graphs]
        classes = CLASSES[name.partition("-")[0]]
        dataset = dataclasses.replace(parts[0], graphs=graphs, classes=classes)
        split = dict(zip(("train", "validation", "test"), split, strict=True))
        return dataset, split, facts_of(graphs)
    path = Path(data_dir or name).expanduser()
    if not path.exists():
        raise ValueError(
            f"--data expects one of {', '.join(GENERATED)}, a TUDataset zip "
            "file or folder, or its name with --data-dir. Received: "
            f"{path}, which does not exist"
        )
    if data_dir and path.is_dir():
        _check_is_there(path, name)
    try:
        dataset = load_tu_dataset(path, name if data_dir else None)
    except ValueError as error:
        raise ValueError(f"--data {name}: {error}") from error
    if dataset.classes is None:
        raise ValueError(
            "--data expects a class for every graph. Received: "
            f"{dataset.name}, with numbers to predict or several labels"
        )
    return dataset, None, facts_of(dataset.graphs)


@functools.lru_cache(maxsize=2)
def shared_kernels(dataset):
    """`SharedKernels` of the graphs of a `GraphDataset`, for all its folds."""
    return SharedKernels(dataset.graphs)


def _check_is_there(folder, name):
    """Raises a ValueError with the download site if the data set is missing."""
    if any(
        (folder / each).exists()
        for each in (f"{name}.zip", name, f"{name}_A.txt")
    ):
        return
    others = sorted({path.stem for path in folder.glob("*.zip")})
    raise ValueError(
        f"--data {name} expects {name}.zip or a folder {name} in --data-dir; "
        f"the TUDataset collection has it at {TU_SITE}/{name}.zip. Received: "
        f"{folder}, which holds {', '.join(others) or 'no archives'}"
    )


def facts_of(graphs):
    """Identifies graphs by a hash of all their contents."""
    fields = ("node_labels", "features", "edge_labels", "edge_features")
    fields += ("node_targets",)
    return {
        "data_sha256": digest(
            *(
                digest(
                    graph.adjacency.indptr,
                    graph.adjacency.indices,
                    graph.adjacency.data,
                    np.asarray(graph.label if graph.label is not None else -1),
                    *(getattr(graph, field) for field in fields),
                )
                for graph in graphs
            )
        )
    }


def stratified_split(labels, seed, shares=(0.8, 0.1, 0.1)):
    """Ids of a random training, validation and test set, class by class.

    Models of earlier versions, such as those of saved_models, used this split.
    Now `training.folds.draw_split` divides graphs.
    """
    random = np.random.default_rng(seed)
    parts = [[] for _ in shares]
    for label in np.unique(labels):
        ids = random.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(shares)[:-1] * len(ids)).astype(int)
        for part, piece in zip(parts, np.split(ids, ends), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def adjacency_kernels(graphs, model):
    """The kernel of a baseline: `A + I` for GAT, normalized for GCN, SGC.

    Kernels are sparse; batches become dense only when they are used.
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
