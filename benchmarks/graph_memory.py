"""Memory of a training epoch on graphs of thousands of nodes.

    python -m benchmarks.graph_memory --graphs DD.zip COLLAB.zip \\
        REDDIT-BINARY.zip --json docs/graph-memory.json

Each data set has its own process, which reads the archive, computes features
and kernels (without the cache on disk), and trains `keras_topo.GraphClassifier`
for one epoch. The peak is that of the whole process; times are those of this
machine.
"""

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time

from benchmarks.harness import existing, path


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_memory")
    parser.add_argument(
        "--graphs", type=existing, nargs="+", required=True, metavar="ZIP"
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--return-steps", type=int, default=8)
    parser.add_argument("--json", type=path)
    parser.add_argument("--one", type=path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return 0
    rows = []
    for file in arguments.graphs:
        found = subprocess.run(
            [sys.executable, "-m", "benchmarks.graph_memory", *argv]
            + ["--one", str(file)],
            capture_output=True,
            text=True,
        )
        if found.returncode:
            print(found.stderr, file=sys.stderr)
            return found.returncode
        row = json.loads(found.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{row['graphs']}: {row['form']}, at most {row['largest']:,} "
            f"nodes; peak {row['peak_gigabytes']:.2f} GB after reading "
            f"{row['read_gigabytes']:.2f}, preprocessing "
            f"{row['preprocessed_gigabytes']:.2f}; one epoch "
            f"{row['epoch_seconds']:.0f} s",
            flush=True,
        )
    if arguments.json:
        command = shlex.join(["python", "-m", "benchmarks.graph_memory", *argv])
        text = json.dumps({"command": command, "results": rows}, indent=1)
        arguments.json.write_text(text + "\n")
    return 0


def measure(arguments):
    """One epoch on one data set; returns a dict of figures."""
    import keras

    from keras_topo import GraphClassifier
    from keras_topo.graphs import GraphPreprocessor, load_tu_dataset

    file = arguments.one
    row = {"graphs": file.stem, "batch_size": arguments.batch_size}
    try:
        dataset = load_tu_dataset(file)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    row["largest"] = max(graph.num_nodes for graph in dataset.graphs)
    row["read_gigabytes"] = peak()
    started = time.perf_counter()
    preprocessor = GraphPreprocessor(
        return_steps=arguments.return_steps, cache=False
    )

    def begin(epoch, logs=None):
        row["preprocessing_seconds"] = time.perf_counter() - started
        row["preprocessed_gigabytes"] = peak()

    classifier = GraphClassifier(
        preprocessor, epochs=1, batch_size=arguments.batch_size, verbose=0
    ).fit(
        dataset,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=begin)],
    )
    row["form"] = classifier.preprocessor.form
    row["epoch_seconds"] = (
        time.perf_counter() - started - row["preprocessing_seconds"]
    )
    row["peak_gigabytes"] = peak()
    return row


def peak():
    """The peak memory of this process, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
