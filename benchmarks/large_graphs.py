"""Whole node classifiers on generated graphs of up to a million nodes.

    python -m benchmarks.large_graphs --json docs/large-graphs.json

For each model of `training.nodes`, with its default sizes, and each number of
nodes of its `beacons`: seconds of one prediction for all nodes, as a TensorFlow
graph without XLA, the slope of that time in doubly logarithmic axes, by least
squares over all sizes, and what it takes in memory. Up to `--train-to` nodes
also an epoch of training: one step on all nodes.

Every result comes from a process of its own. Preparation is what the host does
once for a graph: walks that are sampled, spectral bounds, a normalized
adjacency matrix. Memory is by how much the resident set grows at most (Linux)
from before the data to after the last call. Times are medians of the rounds,
after a first call that is not counted.

A result is written to `--json` as soon as it is known, and the same command
goes on where it was interrupted.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.workers import Worker, measure_growth, save, serve

SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
# Options of `training.nodes`.
MODELS = {
    "GKAT, diffusion": "--model gkat-diffusion --kernel-sizes 4 16",
    "GKAT, graph random features": "--model gkat-features",
    "GKAT, sampled walks": "--model gkat-walks",
    "GCN": "--model gcn",
    "GCN, 6 layers": "--model gcn --depth 6",
    "GAT": "--model gat --heads 4 --key-dim 4",
    "SGC": "--model sgc",
    "SGC, 20 steps": "--model sgc --depth 20",
}


def main():
    arguments = parse_arguments()
    if arguments.worker:
        return serve("keras", measure)
    results = []
    keys = ("rounds", "threads", "train_to")
    settings = {key: getattr(arguments, key) for key in keys}
    if arguments.json and Path(arguments.json).exists():
        earlier = json.loads(Path(arguments.json).read_text())
        if earlier["arguments"] != settings:
            raise SystemExit(
                f"{arguments.json} has results of other arguments. Received: "
                f"{settings}, not {earlier['arguments']}"
            )
        results = earlier["results"]
    report = {
        "command": "python -m benchmarks.large_graphs "
        + " ".join(sys.argv[1:]),
        "arguments": settings,
        "results": results,
    }
    for model, options in MODELS.items():
        for nodes in SIZES:
            if nodes > arguments.max_nodes or any(
                (r["model"], r["nodes"]) == (model, nodes) for r in results
            ):
                continue
            worker = Worker(
                "benchmarks.large_graphs", "keras", arguments.threads
            )
            request = {
                "options": f"--data beacons --nodes {nodes} {options}",
                "rounds": arguments.rounds,
                "train": nodes <= arguments.train_to,
            }
            results.append(
                {"model": model, "nodes": nodes, **worker.ask(request)}
            )
            worker.close()
            save(report, arguments.json)
            print(format_result(results[-1]), flush=True)
    print("\n" + format_summary(results))
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--max-nodes", type=int, default=SIZES[-1])
    parser.add_argument("--train-to", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


# In the process of a result.


def measure(request):
    """Times, in seconds, and megabytes for one model on one graph."""
    from training import nodes

    arguments = nodes.parse_arguments(
        [*request["options"].split(), "--out", os.devnull]
    )
    found = {}

    def work():
        import keras

        data = nodes.load_nodes("beacons", num_nodes=arguments["nodes"])
        began = time.perf_counter()
        kernel = nodes.make_kernel(data.graph.adjacency, arguments)
        model = nodes.build_model(arguments, data, kernel)
        found["prepare"] = time.perf_counter() - began
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        x, y = data.graph.features[None], data.graph.label[None]
        found["predict"] = median_seconds(
            lambda: model.predict_on_batch(x), request["rounds"]
        )
        if request["train"]:
            found["train"] = median_seconds(
                lambda: model.train_on_batch(x, y), request["rounds"]
            )

    found["megabytes"] = measure_growth(work)
    return found


def median_seconds(call, rounds):
    call()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# What it prints.


def format_result(result):
    train = f", epoch {result['train']:.2g} s" if "train" in result else ""
    return (
        f"{result['model']}, {result['nodes']:,} nodes: prediction "
        f"{result['predict']:.2g} s{train}, prepared in "
        f"{result['prepare']:.2g} s, {result['megabytes']:,.0f} MB"
    )


def format_summary(results):
    """A row of Markdown for each model, at its largest size."""
    lines = [
        "| model | nodes | prediction | slope | preparation | memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for model in MODELS:
        row = sorted(
            (r for r in results if r["model"] == model),
            key=lambda r: r["nodes"],
        )
        if not row:
            continue
        last = row[-1]
        lines.append(
            f"| {model} | {last['nodes']:,} | {last['predict']:.2g} s | "
            f"{slope(row)} | {last['prepare']:.2g} s | "
            f"{last['megabytes'] / 1e3:.1f} GB |"
        )
    return "\n".join(lines)


def slope(row):
    if len(row) < 2:
        return ""
    points = [(math.log(r["nodes"]), math.log(r["predict"])) for r in row]
    return f"{np.polyfit(*zip(*points, strict=True), 1)[0]:.2f}"


if __name__ == "__main__":
    sys.exit(main())
