"""Regression that needs features of edges: GKAT against GINE and GIN.

    python -m benchmarks.edge_features --json results/edge-features/runs.jsonl

The task is `keras_topo.graphs.spectral_radius_dataset`: the largest eigenvalue
of a matrix whose entries are the kinds and strengths of the edges. Each seed
draws new graphs and initial weights. All methods of a seed have the same
graphs, node features, batches, epochs and updates, three layers, and parameter
counts within 10% of one another. Only the learning rate is chosen: for each
method from the same three, by the mean absolute error on the validation graphs
of seed 0. The last epoch is tested. The file also has the test errors of the
other two rates; the table leaves them out.

`gkat-edges` is the default of `keras_topo.GraphRegressor` for graphs with
features of edges: gates of the kernel, and messages along edges in addition to
attention. `gkat` does not use features of edges. `gine` and `gin` are
`model="gin"` with and without them. `gkat-gates`, with gates only, runs only if
it is named.

Each finished run appends a line of JSON to the file. After an interruption, the
same command continues, and prints the table of all lines with its numbers of
graphs and of epochs.
"""

import argparse
import json
import sys
import time

import numpy as np

from benchmarks.harness import path
from benchmarks.links import read_lines

DEPTH = 3
COMMON = {"depth": DEPTH, "dropout": 0.0, "pooling": "mean+max"}
# Whether edges have features, and arguments of the estimator.
METHODS = {
    "gkat-edges": (True, {"model": "gkat", "num_heads": 4, "key_dim": 6}),
    "gine": (True, {"model": "gin", "channels": 60}),
    "gkat": (False, {"model": "gkat", "num_heads": 4, "key_dim": 7}),
    "gin": (False, {"model": "gin", "channels": 60}),
    "gkat-gates": (
        True,
        {"model": "gkat", "num_heads": 4, "key_dim": 7, "local": False},
    ),
}
# The methods that run by default.
DEFAULT = list(METHODS)[:-1]
LEARNING_RATES = (3e-3, 1e-3, 1e-2)
TRAINING = {"epochs": 40, "batch_size": 32, "weight_decay": 0.05}
SIZES = (1200, 200, 400)


def main(argv=None):
    """Runs the script; returns its exit status."""
    arguments = parse_arguments(argv)
    lines = [
        line
        for line in read_lines(arguments.json)
        if line["graphs"] == list(arguments.sizes)
        and line["options"]["epochs"] == arguments.epochs
    ]
    for rate in LEARNING_RATES:
        for method in arguments.methods:
            run(method, 0, rate, arguments, lines)
    for seed in range(1, arguments.seeds):
        for method in arguments.methods:
            run(method, seed, chosen_rate(method, lines), arguments, lines)
    print(format_table(lines))
    return 0


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.edge_features",
        description="Regression on graphs with and without edge features.",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of seeds, from 0"
    )
    parser.add_argument(
        "--methods", nargs="+", default=DEFAULT, choices=METHODS
    )
    parser.add_argument(
        "--sizes",
        nargs=3,
        type=int,
        default=SIZES,
        help="numbers of graphs for training, validation and test",
    )
    parser.add_argument("--epochs", type=int, default=TRAINING["epochs"])
    parser.add_argument("--json", type=path, help="file of finished runs")
    return parser.parse_args(argv)


def run(method, seed, rate, arguments, lines):
    """Runs and adds a line, unless the run is among the lines."""
    done = {
        (line["method"], line["seed"], line["learning_rate"]) for line in lines
    }
    if (method, seed, rate) in done:
        return
    line = measure(method, seed, rate, arguments.sizes, arguments.epochs)
    lines.append(line)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        with arguments.json.open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(
        f"{method}, seed {seed}, learning rate {rate}: validation "
        f"{line['validation']:.4f}, test {line['test']:.4f} "
        f"({line['seconds']:.0f} s)",
        flush=True,
    )


def measure(method, seed, rate, sizes, epochs):
    """Trains and tests once: a line of the file."""
    import keras

    from keras_topo import GraphRegressor
    from keras_topo.graphs import GraphPreprocessor, spectral_radius_dataset

    keras.backend.clear_session()
    train, validation, test = spectral_radius_dataset(sizes, seed=seed)
    with_edges, options = METHODS[method]
    options = {**COMMON, **TRAINING, **options, "epochs": epochs}
    started = time.perf_counter()
    regressor = GraphRegressor(
        GraphPreprocessor(edges=with_edges),
        verbose=0,
        learning_rate=rate,
        seed=seed,
        **options,
    ).fit(train)

    def error(data):
        difference = regressor.predict(data) - data.labels
        return float(np.abs(difference).mean())

    model = regressor.model
    return {
        "method": method,
        "seed": seed,
        "learning_rate": rate,
        "validation": error(validation),
        "test": error(test),
        "mean": float(np.abs(test.labels - train.labels.mean()).mean()),
        "train_loss": regressor.history.history["loss"][-1],
        "parameters": sum(
            int(np.prod(w.shape)) for w in model.trainable_weights
        ),
        "graphs": list(sizes),
        "updates": int(regressor.history.params["steps"]) * epochs,
        "options": options,
        "keras": keras.version(),
        "backend": keras.backend.backend(),
        "seconds": round(time.perf_counter() - started, 1),
    }


def chosen_rate(method, lines):
    """The learning rate with the smallest validation error for seed 0."""
    found = [x for x in lines if x["method"] == method and x["seed"] == 0]
    return min(found, key=lambda line: line["validation"])["learning_rate"]


def format_table(lines):
    """Mean and deviation of test errors over seeds, as Markdown."""
    rows = [
        "| method | parameters | learning rate | seeds | test error |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in METHODS:
        if not any(x["method"] == method and x["seed"] == 0 for x in lines):
            continue
        rate = chosen_rate(method, lines)
        counted = [
            line
            for line in lines
            if (line["method"], line["learning_rate"]) == (method, rate)
        ]
        errors = np.array([line["test"] for line in counted])
        rows.append(
            f"| {method} | {counted[0]['parameters']:,} | {rate} | "
            f"{len(errors)} | {errors.mean():.3f} ± {errors.std():.3f} |"
        )
    means = {line["seed"]: line["mean"] for line in lines}
    errors = np.array(list(means.values()))
    rows.append(
        f"| the mean of the training targets | | | {len(errors)} | "
        f"{errors.mean():.3f} ± {errors.std():.3f} |"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
