"""Trains GKAT, or a baseline, to classify graphs.

    python -m training.graphs --data motif-cycle --out runs/cycle
    python -m training.graphs --data ENZYMES.zip --out runs/enzymes
    python -m training.graphs --data ENZYMES.zip --protocol folds \\
        --splits ENZYMES.json --out runs/enzymes-folds

A single split trains one model and leaves in the run folder a preset for
`keras_topo.from_preset` (`config.json`, `model.weights.h5` and so on),
`model.keras`, a SavedModel, `metrics.json`, `metrics.jsonl`, `curves.png`,
`kernels.png` and logs for TensorBoard. The protocol `folds` is the assessment
of Errica et al. (2020): for every fold a model selection on its validation
graphs, over the choices of `--select`, and final runs on its test graphs; each
run is a line of `runs.jsonl`. The same command resumes what was interrupted.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import dataclasses
import hashlib
import itertools
import json
import shlex
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_topo import visualize
from keras_topo.presets import (
    copied,
    find_preset,
    from_preset,
    make_trainable,
    read_metrics,
    save_preset,
)
from keras_topo.training import pictures
from keras_topo.training.command_line import (
    HelpFormatter,
    add_fine_tuning_arguments,
    add_run_arguments,
    check_fine_tuning,
    check_walk_lengths,
    compiles_shapes,
    freeze_all_but_last,
    natural,
    natural_float,
    positive_float,
    positive_int,
    rate,
    use_jit,
    versions,
)
from keras_topo.training.graph_data import (
    GENERATED,
    KERNELS,
    MAX_DEGREE,
    FeatureRecipe,
    GraphBatches,
    adjacency_kernels,
    load_graphs,
    make_kernels,
    stratified_split,
)
from keras_topo.training.run import (
    NonFiniteLoss,
    Run,
    SeedEpochs,
    StopOnNonFiniteLoss,
    adamw,
    preprocessor_of,
    presets_in_silence,
    print_contents,
    read_lines,
    training_callbacks,
    write_json,
    write_text,
)

MODELS = ("gkat", "gkat-published", "gat", "gcn", "sgc")
# What can be chosen on validation graphs: nothing that the features, the data
# or the machine depend on.
SELECTABLE = {
    "model": str,
    "kernel": str,
    "similarity": str,
    "depth": positive_int,
    "heads": positive_int,
    "key_dim": positive_int,
    "pooling": str,
    "dropout": rate,
    "attention_dropout": rate,
    "batch_size": positive_int,
    "accumulate": positive_int,
    "learning_rate": positive_float,
    "weight_decay": natural_float,
    "label_smoothing": rate,
}
# What a trained model has decided already: the model, and what its inputs are.
ARCHITECTURE = (
    "model",
    "kernel",
    "kernel-sizes",
    "similarity",
    "depth",
    "heads",
    "key-dim",
    "pooling",
    "dropout",
    "attention-dropout",
    "return-steps",
    "degrees",
    "no-degrees",
)
# Arguments that say where, how and how much to run, not what a run gives.
NOT_COMPARED = ("out", "resume", "folds", "final_runs")


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(argv)
    run = Run(arguments["out"])
    command = shlex.join(["python", "-m", "training.graphs", *argv])
    try:
        compared = dict(arguments)
        compared["shapes_compiled"] = compiles_shapes(arguments["jit"])
        if arguments["splits"]:
            # By what is in it: a file of the same name may be another.
            compared["splits"] = digest_of(arguments["splits"])
        run.open(compared, arguments["resume"], NOT_COMPARED)
        task = Task(arguments)
        # What cannot be built is better known before the training.
        whole_model(arguments, task, build_model(arguments, task, None))
        if arguments["protocol"] == "folds":
            return assess(run, arguments, task, command)
        summary = run.summary()
        if summary is not None:
            print(f"{run.folder} holds this run, finished: nothing to train.")
            report(run, summary)
            return 0
        pictures.load_pyplot()  # Better missing now than after the training.
        split = task.split or stratified_split(task.labels, arguments["seed"])
    except (ValueError, ImportError, OSError) as error:
        run.discard_unused()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes.", file=sys.stderr)
        return 130
    try:
        model, statistics = train(run, arguments, task, split)
    except NonFiniteLoss as error:
        print(
            f"\nerror: {error}. Training stopped; the run folder "
            f"{run.folder} keeps the epochs before this one. A lower "
            "--learning-rate, more --warmup-epochs or a smaller --clip-norm, "
            "with another --out, usually helps.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes.", file=sys.stderr)
        return 130
    summary = finish(run, arguments, task, split, model, statistics, command)
    report(run, summary)
    return 0


def parse_arguments(argv):
    """Parses the command line into a dict."""
    parser = argparse.ArgumentParser(
        prog="python -m training.graphs",
        description="Train GKAT, or a baseline, to classify graphs.",
        formatter_class=HelpFormatter,
        # What is refused beside --from is known by whole names.
        allow_abbrev=False,
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default="motif-cycle",
        help=f"{', '.join(GENERATED)}; or a TUDataset zip file or folder",
    )
    group.add_argument(
        "--data-dir", help="the folder in which --data is a name"
    )
    group.add_argument(
        "--return-steps",
        type=natural,
        default=16,
        help="features: return probabilities of walks up to this many steps",
    )
    group.add_argument(
        "--degrees",
        action=argparse.BooleanOptionalAction,
        help="features: degrees as one-hot vectors (default: where nodes have "
        "no others)",
    )

    group = parser.add_argument_group("model")
    group.add_argument("--model", default="gkat", choices=MODELS)
    group.add_argument("--kernel", default="random_walk", choices=KERNELS)
    group.add_argument(
        "--kernel-sizes",
        type=positive_float,
        nargs="+",
        default=[1.0, 2.0, 3.0, 4.0],
        help="nodes of the walks, or diffusion times: one kernel each",
    )
    group.add_argument("--similarity", default="softmax")
    group.add_argument("--depth", type=positive_int, default=3)
    group.add_argument("--heads", type=positive_int, default=4)
    group.add_argument("--key-dim", type=positive_int, default=16)
    group.add_argument("--pooling", default="mean+max")
    group.add_argument("--dropout", type=rate, default=0.1)
    group.add_argument("--attention-dropout", type=rate, default=0.0)

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive_int, default=150)
    group.add_argument("--batch-size", type=positive_int, default=32)
    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        help="batches whose gradients make one update: a batch has graphs of "
        "about one size, several of them a mixture",
    )
    group.add_argument("--learning-rate", type=positive_float, default=1e-3)
    group.add_argument("--warmup-epochs", type=natural, default=10)
    group.add_argument("--weight-decay", type=natural_float, default=0.05)
    group.add_argument("--clip-norm", type=positive_float, default=1.0)
    group.add_argument("--label-smoothing", type=rate, default=0.1)
    group.add_argument("--jit", default="auto", choices=["auto", "on", "off"])
    group.add_argument("--seed", type=natural, default=0)

    group = parser.add_argument_group("protocol")
    group.add_argument(
        "--protocol", default="split", choices=["split", "folds"]
    )
    group.add_argument("--splits", help="JSON file of folds")
    group.add_argument(
        "--folds",
        type=natural,
        nargs="+",
        help="only these folds, counted from 0",
    )
    group.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="NAME=V1,V2,...",
        help="choices of an argument, made on the validation graphs of a fold",
    )
    group.add_argument(
        "--final-runs", type=positive_int, default=3, help="a fold"
    )
    group.add_argument(
        "--choose-epoch",
        default="last",
        choices=["last", "validation"],
        help="which epoch counts: the last, or the best on validation graphs",
    )
    add_fine_tuning_arguments(parser, ARCHITECTURE)
    add_run_arguments(parser)
    arguments = vars(parser.parse_args(argv))
    check_fine_tuning(parser, argv, arguments, (*ARCHITECTURE, "select"))
    if arguments["preset"]:
        try:
            arguments |= trained_arguments(arguments["preset"])
            check_split(arguments)
        except (ValueError, ImportError) as error:
            parser.error(str(error))
    if arguments["warmup_epochs"] >= arguments["epochs"]:
        arguments["warmup_epochs"] = arguments["epochs"] // 3
    try:
        arguments["select"] = dict(
            parse_choice(text) for text in arguments["select"]
        )
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    kernels = arguments["select"].get("kernel", [arguments["kernel"]])
    if "random_walk" in kernels:
        check_walk_lengths(parser, arguments["kernel_sizes"])
    only = ("splits", "folds", "select")
    given = [name for name in only if arguments[name]]
    if arguments["protocol"] == "split" and (
        given or arguments["choose_epoch"] != "last"
    ):
        parser.error(
            "--splits, --folds, --select and --choose-epoch are for --protocol "
            "folds; a single split keeps the last epoch"
        )
    if arguments["protocol"] == "folds" and not arguments["splits"]:
        parser.error("--protocol folds expects --splits, a JSON file of folds")
    return arguments


def trained_arguments(preset):
    """What a preset was trained with, of what it has decided."""
    metrics = read_metrics(find_preset(preset))
    if metrics.get("task") != "graphs":
        raise ValueError(
            "--from expects a classifier of graphs with a metrics.json. "
            f"Received: {preset}"
        )
    trained = metrics.get("arguments", {})
    names = {name.replace("-", "_") for name in ARCHITECTURE} - {"no_degrees"}
    missing = sorted(names - set(trained))
    if missing or "features" not in metrics:
        raise ValueError(
            "--from expects a metrics.json with `features` and all `arguments`"
            f", of this version. Received: {preset}, without "
            + ", ".join(missing or ["features"])
        )
    found = {name: trained[name] for name in names}
    # One that was not given depends on the data.
    if found["degrees"] is None:
        found["degrees"] = metrics["features"]["max_degree"] is not None
    return found


def check_split(arguments):
    """Keeps what a preset was trained on out of the graphs it is tested on."""
    metrics = read_metrics(find_preset(arguments["preset"]))
    trained = metrics["arguments"]
    name = Path(arguments["data"]).stem
    if name in GENERATED or name != Path(trained["data"]).stem:
        return
    if arguments["protocol"] == "folds":
        raise ValueError(
            "--from with --protocol folds expects other data than the model "
            f"was trained on: test graphs were among them. Received: {name}"
        )
    if arguments["seed"] != trained["seed"]:
        raise ValueError(
            f"--from expects --seed {trained['seed']} on the data that the "
            "model was trained on: by another split it would be tested on "
            f"graphs that it knows. Received: --seed {arguments['seed']} on "
            f"{name}"
        )


def parse_choice(text):
    """`NAME=V1,V2` to the name and its values, of the argument's own type."""
    name, equals, values = text.partition("=")
    name = name.strip().lstrip("-").replace("-", "_")
    if not equals or name not in SELECTABLE or not values:
        raise ValueError(
            "--select expects NAME=V1,V2,... with a name of "
            f"{', '.join(SELECTABLE)}. Received: {text}"
        )
    parse, allowed = SELECTABLE[name], {"model": MODELS, "kernel": KERNELS}
    choices = [parse(value) for value in values.split(",")]
    for choice in choices:
        if choice not in allowed.get(name, choices):
            raise ValueError(
                f"--select {name} expects {', '.join(allowed[name])}. "
                f"Received: {choice}"
            )
    return name, choices


class Task:
    """A data set, ready to be trained on: features and kernels of all graphs.

    Attributes:
        dataset: the `GraphDataset`, as loaded.
        recipe: the `FeatureRecipe`.
        graphs: list of `Graph`s with features.
        labels: `(graphs,)`.
        split: ids of training, validation and test graphs, or `None`.
    """

    def __init__(self, arguments):
        self.dataset, self.split = load_graphs(
            arguments["data"], arguments["data_dir"], arguments["seed"]
        )
        first = self.dataset.graphs[0]
        attributes = 0 if first.features is None else first.features.shape[1]
        degrees = arguments["degrees"]
        if degrees is None:
            degrees = not (attributes or self.dataset.num_node_labels)
        most = max(
            int(np.diff(g.adjacency.indptr).max()) for g in self.dataset.graphs
        )
        max_degree = min(MAX_DEGREE, most) if degrees else None
        values = self.dataset.node_label_values
        if arguments.get("preset"):
            trained = read_metrics(find_preset(arguments["preset"]))
            trained = trained["features"]
            if degrees:
                max_degree = trained["max_degree"]
            # Presets of earlier versions do not say which labels they know.
            values = trained.get("node_label_values") or values
        self.recipe = FeatureRecipe(
            len(values),
            attributes,
            max_degree,
            arguments["return_steps"],
            values or None,
        )
        self.graphs = self.recipe(self.dataset.graphs)
        self.labels = self.dataset.labels
        self._kernels = {}

    @property
    def num_features(self):
        return self.graphs[0].features.shape[1]

    def kernels(self, arguments):
        """The kernels that a model needs, computed once."""
        model = arguments["model"]
        if model.startswith("gkat"):
            key = (arguments["kernel"], *arguments["kernel_sizes"])
        else:
            key = ("gat" if model == "gat" else "gcn",)
        if key not in self._kernels:
            self._kernels[key] = (
                make_kernels(self.graphs, *key[:1], key[1:])
                if model.startswith("gkat")
                else adjacency_kernels(self.graphs, model)
            )
        return self._kernels[key]

    def batches(self, arguments, ids, seed=None):
        return GraphBatches(
            self.graphs,
            self.kernels(arguments),
            ids,
            arguments["batch_size"],
            self.dataset.num_classes,
            seed,
            # Where every shape is compiled.
            num_buckets=4 if compiles_shapes(arguments["jit"]) else None,
        )

    def statistics(self, ids):
        """Mean and variance of each feature over the nodes of some graphs."""
        features = np.concatenate([self.graphs[i].features for i in ids])
        features = features.astype("float64")
        # A label that is rare, or never seen in training, is not to become a
        # huge number: a standard deviation counts as 0.1 at least, unless the
        # feature is a small real number throughout.
        floor = np.minimum(0.01, np.square(features).max(0).clip(1e-6))
        return features.mean(0), np.maximum(features.var(0), floor)


def build_model(arguments, task, statistics):
    """Builds the untrained model, the same one for the same arguments."""
    from keras_topo import models

    keras.utils.set_random_seed(arguments["seed"])
    if arguments.get("preset"):
        # What nodes are described by is decided, so the data must have it.
        recipe = read_metrics(find_preset(arguments["preset"]))["features"]
        found = dataclasses.asdict(task.recipe)
        names = [name for name in recipe if recipe[name] != found[name]]
        if names:
            raise ValueError(
                f"--from {arguments['preset']} expects graphs with "
                f"{', '.join(f'{name}={recipe[name]}' for name in names)}. "
                f"Received: {task.dataset.name}, with "
                f"{', '.join(f'{name}={found[name]}' for name in names)}"
            )
        whole = from_preset(arguments["preset"], task.dataset.num_classes)
        model = whole.layers[-1]
        if arguments["freeze"]:
            freeze_all_but_last(model)
        return model
    options = {
        "num_features": task.num_features,
        "num_classes": task.dataset.num_classes,
        "feature_statistics": statistics,
        "depth": arguments["depth"],
        "pooling": arguments["pooling"],
        "dropout": arguments["dropout"],
        "seed": arguments["seed"],
    }
    heads = {"num_heads": arguments["heads"], "key_dim": arguments["key_dim"]}
    channels = arguments["heads"] * arguments["key_dim"]
    attention_dropout = {"attention_dropout": arguments["attention_dropout"]}
    kind = arguments["model"]
    if kind.startswith("gkat"):
        return models.gkat_graph_classifier(
            num_kernels=(
                1
                if arguments["kernel"] == "ones"
                else len(arguments["kernel_sizes"])
            ),
            form="published" if kind == "gkat-published" else "modern",
            similarity=arguments["similarity"],
            **heads,
            **attention_dropout,
            **options,
        )
    if kind == "gat":
        return models.gat(**heads, **attention_dropout, **options)
    if kind == "gcn":
        return models.gcn(channels=channels, **options)
    options["steps"] = options.pop("depth")
    return models.sgc(channels=channels, **options)


def compile_model(model, arguments, steps_per_epoch):
    model.compile(
        optimizer=adamw(
            model,
            arguments["learning_rate"],
            arguments["weight_decay"],
            steps_per_epoch,
            arguments["epochs"],
            arguments["warmup_epochs"],
            arguments["clip_norm"],
            arguments["accumulate"],
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=arguments["label_smoothing"]
        ),
        metrics=["accuracy"],
        jit_compile=use_jit(arguments["jit"]),
    )


def train(run, arguments, task, split):
    """Trains from the last finished epoch of the run to its end."""
    train_ids, validation_ids, test_ids = split
    statistics = task.statistics(train_ids)
    model = build_model(arguments, task, statistics)
    seed, epochs = arguments["seed"], arguments["epochs"]
    batches = task.batches(arguments, train_ids, seed)
    compile_model(model, arguments, len(batches))
    finished = run.restore(model)
    print(
        f"Data: {task.dataset.name}, {len(train_ids):,} training, "
        f"{len(validation_ids):,} validation and {len(test_ids):,} test "
        f"graphs, {task.num_features} features, "
        f"{task.dataset.num_classes} classes."
    )
    print(
        f"Model: {describe_model(arguments)}, {model.count_params():,} "
        "parameters."
    )
    if finished:
        print(f"Resuming {run.folder} after epoch {finished} of {epochs}.")
    if finished < epochs:
        model.fit(
            batches.dataset(finished, epochs),
            epochs=epochs,
            initial_epoch=finished,
            steps_per_epoch=len(batches),
            shuffle=False,
            validation_data=task.batches(arguments, validation_ids).dataset(),
            callbacks=training_callbacks(run, seed),
        )
    return model, statistics


def describe_model(arguments):
    if arguments["preset"]:
        frozen = ", last layer" if arguments["freeze"] else ""
        return f"{Path(arguments['preset']).name}, fine-tuned{frozen}"
    depth = arguments["depth"]
    text = f"{arguments['model']}, {depth} layer{'s' * (depth > 1)}"
    if arguments["model"].startswith("gkat"):
        sizes = " ".join(f"{size:g}" for size in arguments["kernel_sizes"])
        text += f", {arguments['similarity']}, kernel {arguments['kernel']}"
        if arguments["kernel"] != "ones":
            text += f" {sizes}"
    return text


def finish(run, arguments, task, split, model, statistics, command):
    """Saves, tests and draws the trained model; returns the summary."""
    history = run.history()
    # Without an optimizer: the file holds the model as it is used.
    with presets_in_silence():
        before = build_model(arguments, task, statistics)
    classifier = copied(before)
    classifier.set_weights(model.get_weights())
    make_trainable(classifier)  # What was frozen need not stay so.
    whole = whole_model(arguments, task, classifier)
    whole.save(run.folder / "model.keras", overwrite=True)
    described = {
        "task": "graphs",
        "features": dataclasses.asdict(task.recipe),
        "class_names": [str(name) for name in task.dataset.classes],
    }
    save_preset(whole, run.folder, preprocessor_of(described))
    # From here on everything is said of what lies in the folder.
    whole = from_preset(run.folder)
    print("Testing ...", flush=True)
    classifier = whole.get_layer(classifier.name)
    compile_model(classifier, arguments, 1)
    test = classifier.evaluate(
        task.batches(arguments, split[2]).dataset(),
        return_dict=True,
        verbose=0,
    )
    summary = {
        "task": "graphs",
        "epoch": history[-1]["epoch"],
        "test_accuracy": float(test["accuracy"]),
        "test_loss": float(test["loss"]),
        "validation_accuracy": history[-1]["val_accuracy"],
        "training_seconds": round(sum(e["seconds"] for e in history), 1),
        "parameters": classifier.count_params(),
        "features": dataclasses.asdict(task.recipe),
        "graphs": dict(
            zip(("train", "validation", "test"), map(len, split), strict=True)
        ),
        "command": command,
        "seed": arguments["seed"],
        "arguments": arguments,
        "versions": versions(),
    }
    title = f"{describe_model(arguments)}, on {task.dataset.name}"
    pictures.draw_curves(
        history, run.folder / "curves.png", title, num_training=len(split[0])
    )
    # Graphs of which something can be seen: the median size of the class.
    chosen = median_graphs(task, split[2])
    draw_kernels(run, arguments, task, chosen)
    draw_attention(run, arguments, task, before, classifier, chosen[0])
    if keras.backend.backend() == "tensorflow":
        from keras_topo import export_graph_saved_model

        print("Exporting and checking the SavedModel ...", flush=True)
        summary["export"] = export_graph_saved_model(
            whole,
            run.folder / "saved_model" / "1",
            class_names=[str(name) for name in task.dataset.classes],
            max_nodes=max(4096, *(g.num_nodes for g in task.graphs)),
            max_elements=max(2**20, *(g.num_nodes**2 for g in task.graphs)),
            overwrite=True,
        )
        save_samples(run.folder / "samples", task, split[2])
    else:
        print(
            "No SavedModel: TensorFlow exports it. Load model.keras with "
            "KERAS_BACKEND=tensorflow and call export_graph_saved_model."
        )
    run.finish(summary)
    return summary


def whole_model(arguments, task, classifier):
    """From nodes and edges to logits: what a client's graph goes through."""
    from keras_topo import layers, models

    sizes = arguments["kernel_sizes"]
    kind = (
        arguments["kernel"]
        if arguments["model"].startswith("gkat")
        else ("neighbors" if arguments["model"] == "gat" else "normalized")
    )
    if kind == "random_walk":
        kernel = layers.RandomWalkKernel([int(n) for n in sizes], name="kernel")
    elif kind == "diffusion":
        kernel = layers.DiffusionKernel(
            sizes, "normalized_laplacian", name="kernel"
        )
    else:
        kernel = layers.AdjacencyKernel(kind, name="kernel")
    recipe = task.recipe
    return models.from_edges(
        classifier,
        kernel,
        recipe.own_features,
        recipe.max_degree,
        recipe.return_steps,
        name=f"{classifier.name}_from_edges",
    )


def median_graphs(task, ids):
    """A graph of each class, up to three."""
    chosen = []
    for label in np.unique(task.labels[ids])[:3]:
        members = [i for i in ids if task.labels[i] == label]
        members.sort(key=lambda i: task.graphs[i].num_nodes)
        chosen.append(members[len(members) // 2])
    return chosen


def draw_attention(run, arguments, task, before, after, chosen):
    """Draws what a node attends to, before and after training."""
    if not visualize.attention_layers(after):
        return
    batches = task.batches(arguments, [chosen]).dataset()
    inputs, _ = next(iter(batches))
    figure = visualize.plot_graph_attention(
        {"before": before, "after": after},
        task.graphs[chosen],
        inputs,
        max_layers=2,
    )
    figure.savefig(run.folder / "attention.png")


def draw_kernels(run, arguments, task, chosen):
    """Draws the kernels of some graphs."""
    if not arguments["model"].startswith("gkat"):
        return
    if arguments["kernel"] == "ones":
        return
    sizes = arguments["kernel_sizes"]
    drawn = list(range(len(sizes)))
    unit = "diffusion time {:g}"
    if arguments["kernel"] == "random_walk":
        unit = "walk of {:g} nodes"
        # A walk of one node is where it began, and that is nothing to see.
        drawn = [k for k in drawn if sizes[k] > 1]
    if not drawn:
        return
    kernels = task.kernels(arguments)
    classes = [task.dataset.classes[task.labels[i]] for i in chosen]
    figure = visualize.plot_kernels(
        [task.graphs[i] for i in chosen],
        [kernels[i][drawn] for i in chosen],
        [c if isinstance(c, str) else f"class {c}" for c in classes],
        [unit.format(sizes[k]) for k in drawn],
    )
    figure.savefig(run.folder / "kernels.png")


def save_samples(folder, task, ids, count=12):
    """Writes a few test graphs as GraphTensors, `<class>/<index>.example`."""
    from keras_topo.graph_tensors import GraphTensorSpec, graph_to_example

    shutil.rmtree(folder, ignore_errors=True)
    channels = task.recipe.own_features
    spec = GraphTensorSpec({"features": channels} if channels else {})
    # As many classes as there are, then the next graph of each.
    labels = task.labels[ids]
    rank = np.zeros(len(ids), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    for k in np.lexsort((labels, rank))[:count]:
        name = str(task.dataset.classes[labels[k]])
        graph = task.recipe.own(task.dataset.graphs[ids[k]])
        file = folder / name / f"{ids[k]:05d}.example"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(graph_to_example(graph, spec).SerializeToString())


def report(run, summary):
    """Prints the result and what lies in the run folder."""
    print(
        f"\nTest accuracy {summary['test_accuracy']:.2%} on "
        f"{summary['graphs']['test']:,} graphs after {summary['epoch']} epochs "
        f"({summary['training_seconds']:.0f} s of training).\n"
    )
    contents = {
        "model.weights.h5": "with config.json: for keras_topo.from_preset",
        "model.keras": "for keras.saving.load_model, after import keras_topo",
        "saved_model/1": "the same for TensorFlow Serving, graphs in",
        "metrics.json": "the result and how it came about",
        "metrics.jsonl": "loss and accuracy of every epoch",
        "curves.png": "the same, drawn",
        "kernels.png": "the kernels of a test graph of each class",
        "attention.png": "what a node of a test graph attends to",
        "samples": "some test graphs, by class, as serialized GraphTensors",
        "tensorboard": f"logs: tensorboard --logdir {run.folder}",
    }
    print_contents(run.folder, contents)


# The protocol of folds.


def assess(run, arguments, task, command):
    """Selection and final runs of every fold, a line for each run."""
    folds = load_folds(arguments["splits"], len(task.graphs))
    file = run.folder / "runs.jsonl"
    finished = read_lines(file)
    used = []
    names = list(arguments["select"])
    grid = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*arguments["select"].values())
    ]
    chosen_folds = arguments["folds"] or range(len(folds))
    if max(chosen_folds) >= len(folds):
        raise ValueError(
            f"--folds expects numbers from 0 to {len(folds) - 1}. "
            f"Received: {max(chosen_folds)}"
        )
    # What cannot be built is better known before hours of training.
    for choice in grid:
        build_model({**arguments, **choice}, task, None)
    for k in chosen_folds:
        fold = folds[k]

        # A final run of the seed that selection ran with is that very run.
        def result(choice, seed, k=k, fold=fold):
            key = {"fold": k, "choice": choice, "seed": seed}
            for line in finished:
                if {name: line[name] for name in key} == key:
                    return line
            line = {
                **key,
                **run_once({**arguments, **choice}, task, fold, seed),
            }
            with file.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            finished.append(line)
            return line

        chosen = grid[0]
        if len(grid) > 1:
            scores = []
            for choice in grid:
                line = result(choice, arguments["seed"])
                # Accuracies of test graphs are for what has been chosen.
                print(format_run(line, "choice", ["validation"]), flush=True)
                scores.append(chosen_accuracy(line, "validation", arguments))
            chosen = grid[int(np.argmax(scores))]
        for seed in range(arguments["final_runs"]):
            line = result(chosen, arguments["seed"] + seed)
            print(format_run(line, "final", ["validation", "test"]), flush=True)
            used.append(line)
    runs = arguments["final_runs"]
    # Final runs of a choice that is no longer made do not count.
    summary = summarise(used, arguments, command)
    write_json(run.folder / "folds.json", summary)
    write_text(run.folder / "folds.md", format_folds(summary))
    print(
        f"\nTest accuracy {format_mean(summary, '+-')} over "
        f"{count_folds(summary)} "
        f"({'mean of ' * (runs > 1)}{runs} run{'s' * (runs > 1)} each): "
        f"{run.folder / 'folds.json'}"
    )
    return 0


def run_once(arguments, task, fold, seed):
    """Trains one model and says what it does on validation and test graphs."""
    arguments = {**arguments, "seed": seed}
    started = time.perf_counter()
    statistics = task.statistics(fold["train"])
    model = build_model(arguments, task, statistics)
    batches = task.batches(arguments, fold["train"], seed)
    compile_model(model, arguments, len(batches))
    both = {
        name: task.batches(arguments, fold[name]).dataset()
        for name in ("validation", "test")
    }
    keeper = KeepBest()
    try:
        model.fit(
            batches.dataset(epochs=arguments["epochs"]),
            epochs=arguments["epochs"],
            steps_per_epoch=len(batches),
            shuffle=False,
            validation_data=both["validation"],
            callbacks=[StopOnNonFiniteLoss(), SeedEpochs(seed), keeper],
            verbose=0,
        )
    except NonFiniteLoss as error:
        # A result too: a choice that diverges is not to be chosen, and a
        # final run that does counts as one that gets nothing right.
        failed = dict.fromkeys(
            (
                f"{name}_accuracy_{when}"
                for name in both
                for when in ("last", "validation")
            ),
            0.0,
        )
        return {
            "failed": str(error),
            "best_epoch": 0,
            "parameters": model.count_params(),
            **failed,
            "seconds": round(time.perf_counter() - started, 1),
        }
    line = {"best_epoch": keeper.epoch, "parameters": model.count_params()}
    for when in ("last", "validation"):
        if when == "validation":
            model.set_weights(keeper.weights)
        for name, data in both.items():
            found = model.evaluate(data, return_dict=True, verbose=0)
            line[f"{name}_accuracy_{when}"] = round(found["accuracy"], 5)
            line[f"{name}_loss_{when}"] = round(found["loss"], 5)
    return {**line, "seconds": round(time.perf_counter() - started, 1)}


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation accuracy.

    Among equals the one of the lowest validation loss.
    """

    def on_train_begin(self, logs=None):
        self.best, self.epoch, self.weights = (-1.0, 0.0), 0, None

    def on_epoch_end(self, epoch, logs=None):
        score = (logs["val_accuracy"], -logs["val_loss"])
        if score > self.best:
            self.best, self.epoch = score, epoch + 1
            self.weights = self.model.get_weights()


def chosen_accuracy(line, name, arguments):
    return line[f"{name}_accuracy_{arguments['choose_epoch']}"]


def format_run(line, kind, sets):
    """What a run gave on some sets, at its last and at its best epoch."""

    def accuracies(when):
        return ", ".join(
            f"{name} {line[f'{name}_accuracy_{when}']:.2%}" for name in sets
        )

    choice = " ".join(f"{k}={v}" for k, v in line["choice"].items())
    return (
        f"fold {line['fold']} {kind} {choice + ' ' * bool(choice)}"
        f"seed {line['seed']}: {accuracies('last')} (best epoch "
        f"{line['best_epoch']}: {accuracies('validation')}) "
        f"{line['seconds']:.0f} s"
        + (f" FAILED: {line['failed']}" if "failed" in line else "")
    )


def format_mean(summary, sign):
    """In percent, with the deviation over folds if there are several."""
    text = f"{100 * summary['mean']:.2f}"
    if summary["folds"] > 1:
        text += f" {sign} {100 * summary['deviation']:.2f}"
    return text + "%"


def count_folds(summary):
    return f"{summary['folds']} fold{'s' * (summary['folds'] > 1)}"


def summarise(lines, arguments, command):
    """Mean and deviation over folds of the mean over their final runs."""
    by_fold = {
        k: [line for line in lines if line["fold"] == k]
        for k in sorted({line["fold"] for line in lines})
    }
    folds = [
        {
            "fold": k,
            "choice": runs[0]["choice"],
            "runs": len(runs),
            "failed": sum("failed" in line for line in runs),
            **{
                f"test_accuracy_{when}": float(
                    np.mean([r[f"test_accuracy_{when}"] for r in runs])
                )
                for when in ("last", "validation")
            },
        }
        for k, runs in by_fold.items()
    ]
    scores = [chosen_accuracy(fold, "test", arguments) for fold in folds]
    return {
        "command": command,
        "data": arguments["data"],
        "mean": float(np.mean(scores)),
        "deviation": float(np.std(scores)),
        "folds": len(folds),
        "choose_epoch": arguments["choose_epoch"],
        "grid": arguments["select"],
        "by_fold": folds,
        "arguments": arguments,
        "versions": versions(),
    }


def format_folds(summary):
    """The summary as Markdown: the command, the grid and every fold."""
    other = {"last": "validation", "validation": "last"}
    names = {"last": "at the last epoch", "validation": "at the best epoch"}
    counted = summary["choose_epoch"]
    grid = summary["grid"] or "no choices"
    if summary["grid"]:
        grid = "; ".join(
            f"{name} of {', '.join(map(str, values))}"
            for name, values in summary["grid"].items()
        )
    lines = [
        f"`{summary['command']}`",
        "",
        f"{summary['data']}: {format_mean(summary, '±')} of test graphs, over "
        f"{count_folds(summary)}. Chosen on validation graphs, in each fold: "
        f"{grid}. The best epoch is the one with the highest validation "
        "accuracy.",
        "",
        f"| fold | chosen | runs | test accuracy, {names[counted]}, % | "
        f"{names[other[counted]]}, % |",
        "|---:|---|---:|---:|---:|",
    ]
    for fold in summary["by_fold"]:
        chosen = ", ".join(f"{k} {v}" for k, v in fold["choice"].items())
        scores = [
            f"{100 * fold[f'test_accuracy_{when}']:.2f}"
            for when in (counted, other[counted])
        ]
        runs = str(fold["runs"])
        if fold["failed"]:
            runs += f", {fold['failed']} of them failed and count as 0"
        cells = [str(fold["fold"]), chosen, runs, *scores]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def digest_of(path):
    """A hash of a file; its path where there is none, which is told later."""
    path = Path(path)
    if not path.is_file():
        return str(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def load_folds(path, num_graphs):
    """Reads folds, each with `train`, `validation` and `test` ids."""
    try:
        folds = json.loads(Path(path).read_text())["folds"]
        folds = [
            {
                name: np.asarray(fold[name], "int64")
                for name in ("train", "validation", "test")
            }
            for fold in folds
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "--splits expects a JSON file with the folds' train, validation "
            f"and test ids. Received: {path} ({error!r})"
        ) from error
    for k, fold in enumerate(folds):
        ids = np.concatenate(list(fold.values()))
        if not np.array_equal(np.sort(ids), np.arange(num_graphs)):
            raise ValueError(
                f"--splits expects each of the {num_graphs} graphs once in a "
                f"fold. Received: {len(ids)} ids in fold {k} of {path}"
            )
    return folds


if __name__ == "__main__":
    sys.exit(main())
