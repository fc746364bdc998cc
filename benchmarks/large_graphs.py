"""Node classifiers on generated graphs of up to a million nodes.

    python -m benchmarks.large_graphs --json docs/large-graphs.json

This measures each model of `training.train nodes`, with its default sizes, on
`beacons` graphs of several sizes: the seconds of one prediction for all nodes,
as a TensorFlow graph without XLA; the slope of that time on log-log axes, by
least squares over all sizes; and memory. Up to `--train-to` nodes, it also
measures an epoch of training, one step on all nodes.

Every result comes from its own process. Preparation is the one-time work on the
host for a graph: sampled walks, spectral bounds, a normalized adjacency matrix.
Memory is the largest growth of the resident set (Linux) from before the data to
after the last call. Times are medians of the rounds, after a first call that is
not counted. `benchmarks.harness` describes how an interrupted run resumes.
"""

import os
import statistics
import sys
import time

from benchmarks.harness import (
    Report,
    WorkerError,
    Workers,
    format_seconds,
    format_table,
    make_parser,
    slope,
)
from benchmarks.measure import measure_growth, serve

MODULE = "benchmarks.large_graphs"
SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
# Options of `training.train nodes`.
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
        return serve(measure)
    report = Report(
        arguments.json,
        MODULE,
        {
            key: getattr(arguments, key)
            for key in ("rounds", "threads", "train_to")
        },
        ("tensorflow",),
    )
    report.drop_failed()
    with Workers(MODULE, arguments.threads) as workers:
        for model in MODELS:
            for nodes in SIZES:
                if nodes > arguments.max_nodes:
                    break
                found = report.records(model=model, nodes=nodes)
                if not found:
                    found = [measure_fresh(workers, model, nodes, arguments)]
                    report.add(found)
                    print(format_result(found[0]), flush=True)
                if "failed" in found[0]:
                    break
    print("\n" + format_summary(report.records()))
    return 0


def parse_arguments():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--max-nodes", type=int, default=SIZES[-1])
    parser.add_argument("--train-to", type=int, default=100_000)
    return parser.parse_args()


def measure_fresh(workers, model, nodes, arguments):
    """The record of a model and a size, from a separate process."""
    request = {
        "options": f"--data beacons --nodes {nodes} {MODELS[model]}",
        "rounds": arguments.rounds,
        "train": nodes <= arguments.train_to,
    }
    record = {"model": model, "nodes": nodes}
    try:
        return {**record, **workers.ask_fresh("tensorflow", request)}
    except WorkerError as error:
        return {**record, "failed": str(error)}


# In the process that measures.


def measure(request):
    """Times, in seconds, and megabytes for one model on one graph."""
    from keras_topo.training import node_data, node_settings, options

    command = ["nodes", *request["options"].split(), "--out", os.devnull]
    settings = options.parse(command)[2].filled()
    found = {}

    def work():
        import keras

        data = node_data.load_nodes("beacons", None, settings.nodes).dataset
        began = time.perf_counter()
        kernel = node_settings.make_kernel(data.graph.adjacency, settings)
        model = node_settings.build_classifier(
            settings, data.graph.features.shape[1], data.num_classes, kernel
        )
        found["prepare"] = time.perf_counter() - began
        model.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        x, y = data.graph.features[None], data.graph.node_targets[None]
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
    name = f"{result['model']}, {result['nodes']:,} nodes"
    if "failed" in result:
        return f"{name}: {result['failed'].strip().splitlines()[-1]}"
    train = ""
    if "train" in result:
        train = f", epoch {format_seconds(result['train'])}"
    return (
        f"{name}: prediction {format_seconds(result['predict'])}{train}, "
        f"prepared in {format_seconds(result['prepare'])}, "
        f"{result['megabytes']:,.0f} MB"
    )


def format_summary(results):
    """A row of Markdown for each model, at its largest size."""
    header = ["model", "nodes", "prediction", "slope", "preparation", "memory"]
    lines = []
    for model in MODELS:
        row = sorted(
            (r for r in results if r["model"] == model and "failed" not in r),
            key=lambda r: r["nodes"],
        )
        if not row:
            continue
        last = row[-1]
        growth = slope([(r["nodes"], r["predict"]) for r in row])
        lines.append(
            [
                model,
                f"{last['nodes']:,}",
                format_seconds(last["predict"]),
                "" if growth is None else f"{growth:.2f}",
                format_seconds(last["prepare"]),
                f"{last['megabytes'] / 1e3:.1f} GB",
            ]
        )
    return format_table(header, lines, markdown=True)


if __name__ == "__main__":
    sys.exit(main())
