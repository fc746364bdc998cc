"""Link prediction on one graph: GKAT against GCN and neighbor scores.

    python -m benchmarks.links --data cora.npz --seeds 5 \\
        --json results/links/cora.jsonl

Each seed has its own random split of the edges: 85% for training, 5% for
validation and 10% for test. Validation and test add as many random pairs
without an edge. All methods of a seed have the same split. Node features are
divided by their sums. GKAT and GCN are `keras_topo.LinkPredictor`s with the
same channels, embeddings, decoder, epochs and patience. Their other settings
(`MODELS`) were chosen by average precision on the validation pairs of seed 0.
The validation pairs of each seed choose the epoch. Test pairs are scored once,
at the end.

`gcn-whole` and `gkat-whole` leave the edges to be predicted in the kernel
during training, as graph auto-encoders do. Their epochs have a single update,
so they have more epochs, for the same number of updates.

Each finished method and seed appends a line of JSON to the file. After an
interruption, the same command continues, and prints the table of all lines of
its data.
"""

import argparse
import json
import os
import sys
import time

import numpy as np

from benchmarks.harness import existing, path

METHODS = (
    "common-neighbors",
    "adamic-adar",
    "resource-allocation",
    "katz",
    "gcn",
    "gkat",
    "gcn-whole",
    "gkat-whole",
)
# The methods that run by default.
DEFAULT = METHODS[:-2]
FOLDS = 10
# Settings of both models.
COMMON = {
    "num_heads": 4,
    "key_dim": 16,
    "embedding_dim": 64,
    "decoder": "hadamard",
    "epochs": 25,
    "patience": 10,
    "folds": FOLDS,
}
MODELS = {
    "gcn": {
        "encoder": "gcn",
        "depth": 2,
        "dropout": 0.5,
        "learning_rate": 1e-2,
    },
    "gkat": {
        "encoder": "gkat",
        "depth": 1,
        "dropout": 0.2,
        "learning_rate": 2e-2,
    },
}
HITS = (20, 50, 100)
COLUMNS = ("average_precision", "roc_auc", *(f"hits@{k}" for k in HITS))


def main(argv=None):
    """Runs the script; returns its exit status."""
    arguments = parse_arguments(argv)
    graph, data = load_graph(arguments.data), arguments.data.stem
    lines = [x for x in read_lines(arguments.json) if x["data"] == data]
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            done = {(line["method"], line["seed"]) for line in lines}
            if (method, seed) in done:
                continue
            line = measure(graph, method, seed, data)
            lines.append(line)
            if arguments.json:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                with arguments.json.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            scores = line["test"]
            print(
                f"{method}, seed {seed}: "
                + ", ".join(f"{name} {scores[name]:.4f}" for name in COLUMNS)
                + f" ({line['seconds']:.0f} s)",
                flush=True,
            )
    print(format_table(lines))
    return 0


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.links",
        description="Link prediction: GKAT, GCN and scores by neighbors.",
    )
    parser.add_argument(
        "--data",
        type=existing,
        required=True,
        help="an npz file in the Planetoid layout",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, from 0"
    )
    parser.add_argument(
        "--methods", nargs="+", default=DEFAULT, choices=METHODS
    )
    parser.add_argument("--json", type=path, help="file of finished runs")
    return parser.parse_args(argv)


def load_graph(path):
    """The graph of a file, with the features of each node divided by their
    sum."""
    from keras_topo.graphs import load_planetoid

    try:
        graph = load_planetoid(path).graph
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    total = np.abs(graph.features).sum(axis=1, keepdims=True)
    return graph.with_features(graph.features / np.where(total == 0, 1, total))


def measure(graph, method, seed, data):
    """One run: a line of the file."""
    from keras_topo.graphs import split_edges
    from keras_topo.link_predictor import rankings

    split = split_edges(graph, (0.85, 0.05, 0.1), seed=seed)
    started = time.perf_counter()
    facts, score = {}, None
    if method in SCORES:
        score = heuristic(method, split)
    else:
        facts, score = trained(method, split, seed)
    found = {
        name: rankings(score(positive), score(negative), HITS)
        for name, positive, negative in (
            ("validation", split.validation, split.validation_negatives),
            ("test", split.test, split.test_negatives),
        )
    }
    return {
        "data": data,
        "method": method,
        "seed": seed,
        **found,
        **facts,
        "seconds": round(time.perf_counter() - started, 1),
    }


SCORES = {
    "common-neighbors": "common_neighbors",
    "adamic-adar": "adamic_adar",
    "resource-allocation": "resource_allocation",
    "katz": "katz",
}


def heuristic(method, split):
    from keras_topo import graphs

    function = getattr(graphs, SCORES[method])
    return lambda pairs: function(split.graph, pairs)


def trained(method, split, seed):
    """Facts about a trained model, and its function of scores."""
    import keras

    from keras_topo import LinkPredictor

    name, _, whole = method.partition("-")
    options = {**COMMON, **MODELS[name], "seed": seed}
    if whole:
        options["folds"] = 1
        for argument in ("epochs", "patience"):
            options[argument] *= FOLDS
    predictor = LinkPredictor(verbose=0, **options).fit(
        split.graph, (split.validation, split.validation_negatives)
    )
    found = predictor.history.history["val_average_precision"]
    facts = {
        "best_epoch": int(np.argmax(found)) + 1,
        "epochs": len(found),
        "parameters": sum(
            int(np.prod(w.shape)) for w in predictor.model.trainable_weights
        ),
        "options": options,
        "keras": keras.version(),
        "backend": keras.backend.backend(),
    }
    return facts, predictor.predict_raw


def read_lines(file):
    """Finished runs; an incomplete last line is removed."""
    if file is None or not file.exists():
        return []
    lines = []
    for text in file.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    partial = file.with_name(file.name + ".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(partial, file)
    return lines


def format_table(lines):
    """Mean and deviation over seeds, in percent, as Markdown."""
    rows = [
        "| method | seeds | " + " | ".join(COLUMNS) + " |",
        "|---|---:|" + "---:|" * len(COLUMNS),
    ]
    for method in METHODS:
        tests = [line["test"] for line in lines if line["method"] == method]
        if not tests:
            continue
        cells = []
        for name in COLUMNS:
            values = 100 * np.array([test[name] for test in tests])
            cells.append(f"{values.mean():.1f} ± {values.std():.1f}")
        rows.append(f"| {method} | {len(tests)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
