"""Trains GKAT, or a baseline, to classify the nodes of one graph.

    python -m training.nodes --data karate --out runs/karate
    python -m training.nodes --data cora.npz --out runs/cora --seeds 10
    python -m training.nodes --data beacons --model gkat-diffusion \\
        --out runs/beacons

`beacons` is a generated graph of 100,000 nodes (`--nodes`) whose classes have
to be learned from several hops away. The models `gkat-diffusion`,
`gkat-features` and `gkat-walks` never form a matrix between all nodes: they are
for graphs of that size.

The public split of the file is used: training nodes for the loss, validation
nodes to choose the epoch, and test nodes once, at the end. Each seed is a run
and a line of `runs.jsonl`; the same command goes on where it was interrupted.
The run folder holds a preset for `keras_topo.from_preset`, `model.keras` and a
SavedModel (of the first seed), `metrics.json` and `curves.png` besides.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import dataclasses
import json
import shlex
import sys
import time

import keras
import numpy as np

from keras_topo.callbacks import Resample
from keras_topo.graphs import (
    Graph,
    NodeDataset,
    beacon_dataset,
    compute_kernels,
    diffusion_kernel,
    keep_largest,
    load_planetoid,
    pagerank_kernel,
    random_walk_kernel,
)
from keras_topo.layers import DiffusionMask, RandomFeaturesMask, RandomWalkMask
from keras_topo.presets import from_preset, save_preset
from keras_topo.training import pictures
from keras_topo.training.command_line import (
    HelpFormatter,
    add_run_arguments,
    check_walk_lengths,
    natural,
    natural_float,
    positive_float,
    positive_int,
    rate,
    use_jit,
    versions,
)
from keras_topo.training.graph_data import adjacency_kernels
from keras_topo.training.run import (
    NonFiniteLoss,
    Run,
    StopOnNonFiniteLoss,
    preprocessor_of,
    print_contents,
    read_lines,
)

# What `--kernel-sizes` are, and their default.
KERNELS = {"random_walk": 3.0, "diffusion": 3.0, "pagerank": 0.1}
# The same for masks that are learned, and known through their products.
MASKS = {"gkat-diffusion": 8.0, "gkat-features": 8.0, "gkat-walks": 8.0}
MODELS = (
    "gkat",
    "gkat-modern",
    "gkat-propagation",
    *MASKS,
    "gat",
    "gcn",
    "sgc",
)
# Seconds between lines about the epochs of a long run.
REPORT_EVERY = 20
# Arguments that say where and how to run, not what comes out.
NOT_COMPARED = ("out", "resume", "seeds")
# The ones that differ between models: for the baselines what they were
# published with (whose L2 is half the sum of squares, and Keras' the sum); for
# GKAT in the published form those of GAT, whose form it has.
GAT = {
    "kernel": "random_walk",
    "heads": 8,
    "key_dim": 8,
    "dropout": 0.6,
    "attention_dropout": 0.6,
    "learning_rate": 5e-3,
    "weight_decay": 2.5e-4,
}
MASKED = {
    "kernel": "diffusion",
    "heads": 4,
    "key_dim": 4,
    "depth": 1,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "learning_rate": 5e-2,
    "weight_decay": 0.0,
    "similarity": "relu",
}
RECIPES = {
    **dict.fromkeys(MASKS, MASKED),
    "gkat": GAT,
    "gkat-modern": GAT,
    "gkat-propagation": {
        "kernel": "pagerank",
        "heads": 1,
        "key_dim": 64,
        "dropout": 0.6,
        "attention_dropout": 0.5,
        "learning_rate": 1e-2,
        "weight_decay": 5e-4,
    },
    "gat": GAT,
    "gcn": {
        **GAT,
        "heads": 1,
        "key_dim": 16,
        "dropout": 0.5,
        "learning_rate": 1e-2,
    },
    "sgc": {**GAT, "dropout": 0.0, "learning_rate": 0.2, "weight_decay": 5e-6},
}


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(argv)
    run = Run(arguments["out"])
    command = shlex.join(["python", "-m", "training.nodes", *argv])
    try:
        run.open(arguments, arguments["resume"], NOT_COMPARED)
        pictures.load_pyplot()  # Better missing now than after the training.
        data = load_nodes(
            arguments["data"], arguments["data_dir"], arguments["nodes"]
        )
        kernel = make_kernel(data.graph.adjacency, arguments)
        # What cannot be built is better known before the training.
        build_model(arguments, data, kernel)
    except (ValueError, ImportError, OSError) as error:
        run.discard_unused()
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"Data: {data.name}, {data.graph.num_nodes:,} nodes, "
        f"{data.graph.num_edges:,} edges, {data.num_classes} classes; "
        f"{len(data.train):,} training, {len(data.validation):,} validation "
        f"and {len(data.test):,} test nodes."
    )
    file = run.folder / "runs.jsonl"
    finished = read_lines(file)
    try:
        for seed in range(
            arguments["seed"], arguments["seed"] + arguments["seeds"]
        ):
            if any(line["seed"] == seed for line in finished):
                continue
            line, history = train(run, arguments, data, kernel, seed)
            if seed == arguments["seed"]:
                title = f"{describe_model(arguments)}, on {data.name}"
                pictures.draw_curves(
                    history, run.folder / "curves.png", title, len(data.train)
                )
            with file.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            finished.append(line)
            validation = ""
            if line["validation_accuracy"] is not None:
                validation = f"validation {line['validation_accuracy']:.2%}, "
            print(
                f"seed {seed}: test accuracy {line['test_accuracy']:.2%} ("
                f"{validation}epoch {line['best_epoch']} of {line['epochs']}, "
                f"{line['seconds']:.0f} s)",
                flush=True,
            )
    except NonFiniteLoss as error:
        print(f"\nerror: {error}. Training stopped.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes.", file=sys.stderr)
        return 130
    seeds = range(arguments["seed"], arguments["seed"] + arguments["seeds"])
    finished = [line for line in finished if line["seed"] in seeds]
    scores = [line["test_accuracy"] for line in finished]
    export = export_first(run, data)
    summary = {
        "task": "nodes",
        "test_accuracy": float(np.mean(scores)),
        "test_deviation": float(np.std(scores)),
        "runs": len(scores),
        "parameters": finished[0]["parameters"],
        "training_seconds": round(sum(x["seconds"] for x in finished), 1),
        "command": command,
        "export": export,
        "arguments": arguments,
        "versions": versions(),
    }
    run.finish(summary)
    spread = ""
    if len(scores) > 1:
        spread = f" +- {summary['test_deviation']:.2%} over {len(scores)} seeds"
    print(
        f"\nTest accuracy {summary['test_accuracy']:.2%}{spread}, "
        f"{describe_model(arguments)}.\n"
    )
    contents = {
        "model.weights.h5": "with config.json: the model of the first seed, "
        "for keras_topo.from_preset",
        "model.keras": "the same, for keras.saving.load_model",
        "saved_model/1": "the same for TensorFlow Serving, node ids in",
        "metrics.json": "the result and how it came about",
        "runs.jsonl": "a line for each seed",
        "curves.png": "loss and accuracy of the first seed",
    }
    print_contents(run.folder, contents)
    return 0


def export_first(run, data):
    """Exports the model of the first seed; returns the report of it."""
    if keras.backend.backend() != "tensorflow":
        print(
            "No SavedModel: TensorFlow exports it. Load model.keras with "
            "KERAS_BACKEND=tensorflow and call export_node_saved_model."
        )
        return None
    from keras_topo import export_node_saved_model

    print("Exporting and checking the SavedModel ...", flush=True)
    return export_node_saved_model(
        from_preset(run.folder),
        run.folder / "saved_model" / "1",
        data.graph.features,
        overwrite=True,
    )


def parse_arguments(argv):
    """Parses the command line into a dict, the recipe filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m training.nodes",
        description="Train GKAT, or a baseline, on the nodes of one graph.",
        formatter_class=HelpFormatter,
    )
    recipe = "default by model"
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default="karate",
        help="karate, beacons, an npz file in the Planetoid layout, or the "
        "folder of public files ind.NAME.*",
    )
    group.add_argument(
        "--data-dir", help="the folder in which --data is a name"
    )
    group.add_argument(
        "--nodes", type=positive_int, default=100_000, help="of beacons"
    )
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="gkat", choices=MODELS)
    group.add_argument("--kernel", choices=KERNELS, help=recipe)
    group.add_argument(
        "--kernel-sizes",
        type=positive_float,
        nargs="+",
        help="nodes of the walks, diffusion times, or the probabilities with "
        "which walks of pagerank halt: one kernel each (default by kernel: "
        + ", ".join(f"{name} {size:g}" for name, size in KERNELS.items())
        + "; of learned masks times, from which they start, or nodes of walks)",
    )
    group.add_argument(
        "--walks",
        type=positive_int,
        default=16,
        help="from each node, of gkat-features and gkat-walks",
    )
    group.add_argument(
        "--resample",
        type=natural,
        default=0,
        help="epochs between samples of these walks; 0 for one sample",
    )
    group.add_argument(
        "--halt",
        type=rate,
        default=0.0,
        help="of random_walk, before each step",
    )
    group.add_argument(
        "--kernel-top",
        type=positive_int,
        default=64,
        help="entries of the kernel that are kept for a node",
    )
    group.add_argument("--similarity", help=recipe)
    group.add_argument("--depth", type=positive_int, help=recipe)
    group.add_argument("--heads", type=positive_int, help=recipe)
    group.add_argument("--key-dim", type=positive_int, help=recipe)
    group.add_argument("--dropout", type=rate, help=recipe)
    group.add_argument("--attention-dropout", type=rate, help=recipe)

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive_int, default=500, help="most")
    group.add_argument(
        "--patience",
        type=positive_int,
        default=100,
        help="epochs without a better one on validation nodes",
    )
    group.add_argument("--learning-rate", type=positive_float, help=recipe)
    group.add_argument(
        "--weight-decay", type=natural_float, help="L2; " + recipe
    )
    group.add_argument("--jit", default="auto", choices=["auto", "on", "off"])
    group.add_argument("--seed", type=natural, default=0, help="the first")
    group.add_argument("--seeds", type=positive_int, default=1, help="how many")
    add_run_arguments(parser)
    arguments = vars(parser.parse_args(argv))
    for name, value in RECIPES[arguments["model"]].items():
        if arguments[name] is None:
            arguments[name] = value
    for name, value in (("similarity", "additive"), ("depth", 2)):
        if arguments[name] is None:
            arguments[name] = value
    model = arguments["model"]
    if arguments["kernel_sizes"] is None:
        default = MASKS.get(model, KERNELS[arguments["kernel"]])
        arguments["kernel_sizes"] = [default]
    if model in ("gkat-features", "gkat-walks"):
        check_walk_lengths(parser, arguments["kernel_sizes"])
        if len(arguments["kernel_sizes"]) > 1:
            parser.error(
                f"--kernel-sizes of {model} expects one number. Received: "
                f"{arguments['kernel_sizes']}"
            )
    elif arguments["resample"]:
        parser.error(
            "--resample is for gkat-features and gkat-walks. Received: "
            f"--model {model}"
        )
    if arguments["kernel"] == "random_walk":
        check_walk_lengths(parser, arguments["kernel_sizes"])
    elif arguments["halt"]:
        parser.error(
            "--halt is for --kernel random_walk; what pagerank halts with are "
            f"its --kernel-sizes. Received: --kernel {arguments['kernel']}"
        )
    if arguments["kernel"] == "pagerank" and any(
        size > 1 for size in arguments["kernel_sizes"]
    ):
        parser.error(
            "--kernel-sizes of pagerank expects probabilities, up to 1. "
            f"Received: {arguments['kernel_sizes']}"
        )
    return arguments


def load_nodes(name, data_dir=None, num_nodes=100_000):
    """The karate club, a generated graph, or one with its public split from a
    file.

    Features are divided by their sum, node by node.
    """
    if name == "karate":
        return load_karate()
    if name == "beacons":
        return beacon_dataset(num_nodes)
    if data_dir:
        data = load_planetoid(data_dir, name.removesuffix(".npz"))
    else:
        data = load_planetoid(name)
    features = data.graph.features
    total = np.abs(features).sum(axis=1, keepdims=True)
    scaled = features / np.where(total == 0, 1, total)
    return dataclasses.replace(data, graph=data.graph.with_features(scaled))


def load_karate():
    """Zachary's karate club, which split in two.

    The two nodes with known classes are the instructor and the president; all
    others are test nodes. A node is described by nothing but which it is.
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


def make_kernel(adjacency, arguments):
    """The fixed kernel of a model: sparse, or a mask that is learned."""
    model = arguments["model"]
    graph, sizes = Graph(adjacency), arguments["kernel_sizes"]
    if model == "gkat-diffusion":
        # Times may grow to four times the longest.
        return DiffusionMask(graph, "normalized_laplacian", sizes)
    if model in MASKS:
        kind = {"gkat-features": RandomFeaturesMask}.get(model, RandomWalkMask)
        return kind(
            graph, arguments["walks"], int(sizes[0]), seed=arguments["seed"]
        )
    if not model.startswith("gkat"):
        return adjacency_kernels([graph], model)[0]
    if arguments["kernel"] == "random_walk":
        (kernels,) = compute_kernels(
            [graph],
            random_walk_kernel,
            length=[int(n) for n in sizes],
            halt=arguments["halt"],
        )
    elif arguments["kernel"] == "pagerank":
        (kernels,) = compute_kernels([graph], pagerank_kernel, halt=list(sizes))
    else:
        (kernels,) = compute_kernels(
            [graph],
            diffusion_kernel,
            time=list(sizes),
            generator="normalized_laplacian",
        )
    return keep_largest(kernels, arguments["kernel_top"])


def build_model(arguments, data, kernel):
    """Builds the untrained model, the same one for the same arguments."""
    from keras_topo import models

    kind = arguments["model"]
    options = {
        "num_features": data.graph.features.shape[1],
        "num_classes": data.num_classes,
        "fixed_kernel": kernel,
        "dropout": arguments["dropout"],
        "weight_decay": arguments["weight_decay"],
    }
    heads = {
        "num_heads": arguments["heads"],
        "key_dim": arguments["key_dim"],
        "attention_dropout": arguments["attention_dropout"],
    }
    if kind.startswith("gkat"):
        form = kind.removeprefix("gkat").lstrip("-") or "published"
        return models.gkat_node_classifier(
            form="published" if kind in MASKS else form,
            depth=arguments["depth"],
            similarity=arguments["similarity"],
            **heads,
            **options,
        )
    if kind == "gat":
        return models.gat(depth=arguments["depth"], **heads, **options)
    if kind == "gcn":
        channels = arguments["heads"] * arguments["key_dim"]
        return models.gcn(
            depth=arguments["depth"], channels=channels, **options
        )
    return models.sgc(steps=arguments["depth"], **options)


def describe_model(arguments):
    text = f"{arguments['model']}, {arguments['depth']} layers"
    sizes = " ".join(f"{size:g}" for size in arguments["kernel_sizes"])
    if arguments["model"] in MASKS:
        text += f", mask {sizes}"
    elif arguments["model"].startswith("gkat"):
        text += f", kernel {arguments['kernel']} {sizes}"
    return text


class Progress(keras.callbacks.Callback):
    """A line now and then, where epochs take long."""

    def __init__(self, seed, epochs):
        super().__init__()
        self.seed, self.epochs = seed, epochs
        self.last = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        if now - self.last < REPORT_EVERY:
            return
        self.last = now
        values = ", ".join(
            f"{name.replace('val_', 'validation ')} {logs[name]:.4f}"
            for name in ("loss", "val_loss", "val_accuracy")
            if name in logs
        )
        print(
            f"seed {self.seed}, epoch {epoch + 1} of {self.epochs}: {values}",
            flush=True,
        )


def train(run, arguments, data, kernel, seed):
    """One run; returns its line and its history, one dict an epoch."""
    started = time.perf_counter()
    keras.utils.set_random_seed(seed)
    if isinstance(kernel, (RandomFeaturesMask, RandomWalkMask)):
        # Walks are part of what seeds differ by.
        with_seed = {**arguments, "seed": seed}
        kernel = make_kernel(data.graph.adjacency, with_seed)
    model = build_model(arguments, data, kernel)
    model.compile(
        keras.optimizers.Adam(arguments["learning_rate"]),
        # The mean over the nodes that count, whatever their number.
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=["accuracy"],
        jit_compile=use_jit(arguments["jit"]),
    )
    nodes = data.graph.features[None]
    labels = np.maximum(data.graph.node_targets, 0)[None]

    def examples(ids):
        weights = np.zeros(labels.shape, "float32")
        weights[0, ids] = 1.0
        return nodes, labels, weights

    chosen = len(data.validation) > 0
    callbacks = [StopOnNonFiniteLoss(), Progress(seed, arguments["epochs"])]
    if arguments["resample"]:
        callbacks.append(Resample(arguments["resample"]))
    stop = keras.callbacks.EarlyStopping(
        "val_accuracy",
        patience=arguments["patience"],
        mode="max",
        restore_best_weights=True,
    )
    if chosen:
        callbacks.append(stop)
    x, y, weights = examples(data.train)
    history = model.fit(
        x,
        y,
        sample_weight=weights,
        batch_size=1,
        epochs=arguments["epochs"],
        validation_data=examples(data.validation) if chosen else None,
        callbacks=callbacks,
        verbose=0,
    ).history
    # Not eagerly, where every step of a long product is kept waiting.
    logits = model.predict(x, batch_size=1, verbose=0)[0]
    right = logits.argmax(-1) == data.graph.node_targets
    epochs = len(history["loss"])
    line = {
        "seed": seed,
        "test_accuracy": float(right[data.test].mean()),
        "validation_accuracy": (
            float(right[data.validation].mean()) if chosen else None
        ),
        "best_epoch": stop.best_epoch + 1 if chosen else epochs,
        "epochs": epochs,
        "parameters": sum(
            int(np.prod(w.shape)) for w in model.trainable_weights
        ),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if seed == arguments["seed"]:
        model.save(run.folder / "model.keras", overwrite=True)
        save_preset(model, run.folder, preprocessor_of({"task": "nodes"}))
    rows = [
        {
            "epoch": k + 1,
            **{name: values[k] for name, values in history.items()},
            "learning_rate": arguments["learning_rate"],
        }
        for k in range(epochs)
    ]
    return line, rows


if __name__ == "__main__":
    sys.exit(main())
