"""Writes the preset, SavedModel, samples and plots of a training on graphs."""

import shutil

import keras
import numpy as np

import keras_topo
from keras_topo import models, visualize
from keras_topo.graphs import GraphSequence
from keras_topo.graphs.largest import kinds_of

NUM_SAMPLES = 12


def save(folder, model, task):
    """Writes the preset of a classifier, with its preprocessor.

    Args:
        folder: `pathlib.Path` of the run.
        model: the trained model.
        task: `keras_topo.training.tasks.graphs.Graphs`.
    """
    settings = task.settings
    estimator = keras_topo.GraphClassifier(
        task.preprocessor,
        settings.model.partition("-")[0],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        label_smoothing=settings.label_smoothing,
        seed=settings.seed,
    )
    estimator.model = model
    estimator.save(folder)


def export(folder, model, task):
    """Writes the SavedModel, and samples for it.

    Args: see `save`.

    Returns:
        The report of the export; `None` if there is no SavedModel.
    """
    if keras.backend.backend() != "tensorflow":
        print(
            "No SavedModel: export needs TensorFlow. Load the preset with "
            "KERAS_BACKEND=tensorflow and call export_graph_saved_model."
        )
        return None
    print("Exporting and verifying the SavedModel ...", flush=True)
    largest = max(graph.num_nodes for graph in task.dataset.graphs)
    path = folder / "saved_model" / "1"
    try:
        report = keras_topo.export_graph_saved_model(
            models.with_preprocessing(model, task.preprocessor),
            path,
            class_names=task.preprocessor.class_names,
            max_nodes=max(4096, largest),
            max_elements=max(2**20, largest**2),
            overwrite=True,
        )
    except ValueError as error:
        # The trained model must not be lost.
        print(f"No SavedModel: {error}")
        return None
    save_samples(folder / "samples", task)
    return report


def save_samples(folder, task):
    """Writes a few test graphs as GraphTensors, `<class>/<id>.example`."""
    from keras_topo.export.graph_tensors import (
        GraphTensorSpec,
        graph_to_example,
    )

    shutil.rmtree(folder, ignore_errors=True)
    spec = GraphTensorSpec.from_preprocessor(task.preprocessor)
    ids = task.split["test"]
    labels = task.dataset.labels[ids]
    for k in of_each_class(labels)[:NUM_SAMPLES]:
        graph = task.dataset.graphs[ids[k]]
        if not spec.num_features:
            graph = graph.with_features(None)
        name = str(labels[k])
        file = folder / name / f"{ids[k]:05d}.example"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(graph_to_example(graph, spec).SerializeToString())


def of_each_class(labels):
    """Positions of items, classes in turn: the first of each, the second, and
    so on."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((labels, rank))


def draw(folder, before, after, task):
    """Plots kernels, and the attention of a node before and after training.

    Args: see `save`.
    """
    if task.preprocessor.form != "dense":
        return
    # Graphs of the median size of their class are good to plot.
    chosen = median_graphs(task)
    draw_kernels(folder, chosen, task)
    if not visualize.attention_layers(after):
        return
    graph = task.graphs["test"][chosen[0]]
    (inputs,) = GraphSequence([graph], task.preprocessor, False)[0]
    (example,) = task.preprocessor([graph])
    figure = visualize.plot_graph_attention(
        {"before": before, "after": after},
        graph.with_features(example["nodes"]),
        inputs,
        max_layers=2,
    )
    figure.savefig(folder / "attention.png")


def median_graphs(task):
    """Positions of one test graph per class, up to three."""
    labels = task.dataset.labels[task.split["test"]]
    sizes = np.array([graph.num_nodes for graph in task.graphs["test"]])
    found = []
    for label in np.unique(labels)[:3]:
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(sizes[members], kind="stable")]
        found.append(int(members[len(members) // 2]))
    return found


def draw_kernels(folder, chosen, task):
    """Plots the kernels of some test graphs."""
    p = task.preprocessor
    units = {
        "random_walk": "walk of {:g} nodes",
        "steps": "end of a walk of {:g} nodes",
        "diffusion": "diffusion time {:g}",
        "labeled_walk": "labels on walks of {:g} nodes",
    }
    titles = []
    for kind in kinds_of(p.kernel):
        sizes = p.kernel_sizes if kind in units else [None]
        for size in sizes:
            # A walk of one node is the identity: not worth plotting.
            begins = size == 1 and kind in ("random_walk", "steps")
            seen = kind in units and not begins
            titles.append(units[kind].format(size) if seen else None)
    drawn = [k for k, title in enumerate(titles) if title]
    if not drawn:
        return
    graphs = [task.graphs["test"][k] for k in chosen]
    classes = task.classes["test"][chosen].tolist()
    figure = visualize.plot_kernels(
        graphs,
        [example["kernel"][drawn] for example in p(graphs)],
        [c if isinstance(c, str) else f"class {c}" for c in classes],
        [titles[k] for k in drawn],
    )
    figure.savefig(folder / "kernels.png")
