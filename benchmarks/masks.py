"""Products of every mask against what else there is, up to a million tokens.

    python -m benchmarks.masks --json docs/masks.json --plot docs/masks.png

One row an operator: the time of its product with 64 columns, float32, as a
TensorFlow graph without XLA, from 1,000 to 1,000,000 tokens, and the slope of
that time in doubly logarithmic axes, by least squares over the sizes from
10,000 tokens on. In the same rounds, taking turns:

- the dense product, a matrix that was computed before, in a graph as well, up
  to `--dense-to` tokens (its entries are random numbers: they do not matter to
  its time);
- what one would call or write without this package, from SciPy and NumPy, each
  in the best form found: sparse triangular solves, a sparse product a level of
  a tree, recursive filters, FFTs with several workers, `expm_multiply` in
  float64 and in float32 (to full precision in both), the Chebyshev series.
  They are in float32 but where their name says float64. Everything that a peer
  can prepare (factorizations, transposes, spectra) is prepared and not timed.
  Sparse products, solves and filters of SciPy use one thread; FFTs as many as
  `--threads` says, like TensorFlow; BLAS both, in rows of their own.

Everything takes and returns arrays of shape (tokens, columns), each method is
called once before it is timed, and the median of the rounds is reported. The
error is that of the first eight columns against a peer in float64, relative to
the norm of each column, at its largest; of sampled masks the peer has the same
sample. Slopes that begin at 10,000 tokens include what a call takes whatever
its size; those from 100,000 on do not.

Preparation is what the host does once for a tree or a graph: a plan, sampled
walks, spectral bounds. The first call traces and then runs. From 100,000 tokens
on each result of an operator comes from a fresh process, and memory is by how
much its resident set grows at most (Linux) in preparation and first call, input
and output included.

A result is written to `--json` as soon as it is known, and the same command
goes on where it was interrupted. What would take longer than `--limit` seconds
a call is left out.
"""

import argparse
import ctypes
import dataclasses
import functools
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.signal
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
import scipy.special

from benchmarks.workers import (
    Worker,
    measure_growth,
    memory_status,
    ratio_of,
    serve,
)

SIZES = (1_000, 10_000, 100_000, 1_000_000)
GRIDS = (32**2, 100**2, 320**2, 1000**2)
CUBES = (2**10, 2**14, 2**17, 2**20)
SLOPE_FROM = 10_000
FRESH_FROM = 100_000  # a process for each result, which tells its memory
CHECKED_COLUMNS = 8
OURS, OURS_64, DENSE = "product", "product, float64", "dense"

RATE = 0.5  # of exponential masks on forests
DECAY = 0.05  # a token of a sequence
TIME = 1.0  # of diffusion
WALKS, LENGTH, ANCHORS = 16, 4, 64
RANK = 16


@dataclasses.dataclass(frozen=True)
class Peer:
    """What computes the same product without this package.

    Args:
        name: str.
        prepare: function from the inputs of a row and `x` `(tokens, columns)`
            to a function without arguments, which returns the product in the
            dtype of `x` at least.
        dtype: str, of `x`.
        exponent: float, with which its time grows, for `--limit`.
        process: `"peers"`, or `"single"` for that with one thread.
    """

    name: str
    prepare: Callable
    dtype: str = "float32"
    exponent: float = 1.2
    process: str = "peers"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        name: str.
        sizes: tokens.
        inputs: function from the tokens to what defines the mask, on the host;
            the same in every process.
        build: function from the inputs to the operator; what it takes is
            preparation.
        peers: tuple of `Peer`; the first gives the reference, in float64.
        share: function from the inputs to what peers prepare from, or `None`
            for the inputs: what takes long and is common to them.
        columns: int, or `None` for those that are asked for.
        also_float64: bool, whether the product is timed in float64 too.
    """

    name: str
    sizes: tuple
    inputs: Callable
    build: Callable
    peers: tuple
    share: Callable | None = None
    columns: int | None = None
    also_float64: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that was promised: `text` says how much of what."""

    row: str
    text: str
    measure: Callable  # from the results of the row, by tokens, to a number
    limit: float
    at_least: bool = False


def main():
    arguments = parse_arguments()
    if arguments.worker:
        is_keras = arguments.worker == "keras"
        answer = answer_keras() if is_keras else answer_peers()
        return serve(arguments.worker, answer)
    report = open_report(arguments)
    workers = {
        kind: start(kind, arguments) for kind in ("keras", "peers", "single")
    }
    for row in arguments.operators:
        for result in measure_row(row, workers, arguments, report["results"]):
            report["results"].append(result)
            save_lines(report, arguments.json)
            print(format_result(result), flush=True)
    for worker in workers.values():
        worker.close()
    print("\n" + format_summary(report["results"]))
    print("\n" + format_targets(report["results"]))
    if arguments.json:
        print(f"\nfigures: {arguments.json}")
    if arguments.plot:
        plot(report["results"], arguments.plot)
        print(f"plot: {arguments.plot}")
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--operators",
        nargs="*",
        default=[""],
        metavar="NAME",
        help="rows whose names begin so; all by default",
    )
    parser.add_argument("--max-tokens", type=int, default=2**20)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--limit",
        type=float,
        default=90.0,
        help="seconds that one call may take",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=30.0,
        help="seconds for the rounds of one result, at least one round",
    )
    parser.add_argument(
        "--dense-to",
        type=int,
        default=2**14,
        help="tokens up to which the dense product is measured",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the results that --json has of the same arguments",
    )
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = []
    for name in arguments.operators:
        found = [
            row
            for row in ROWS.values()
            if row.name.lower().startswith(name.lower())
        ]
        if not found:
            parser.error(
                f"--operators expects beginnings of {', '.join(ROWS)}. "
                f"Received: {name}"
            )
        chosen += [row for row in found if row not in chosen]
    arguments.operators = chosen
    return arguments


# What it reads and writes.


def open_report(arguments):
    """The report of an interrupted run of the same arguments, or a new one."""
    keys = ("columns", "rounds", "limit", "budget", "dense_to", "threads")
    report = {
        "command": "python -m benchmarks.masks " + " ".join(sys.argv[1:]),
        "arguments": {key: getattr(arguments, key) for key in keys},
        "versions": {
            name: metadata.version(name)
            for name in ("tensorflow", "keras", "numpy", "scipy")
        },
        "results": [],
    }
    path = arguments.json and Path(arguments.json)
    if not path or not arguments.resume or not path.exists():
        return report
    earlier = json.loads(path.read_text())
    for key in ("arguments", "versions"):
        if earlier.get(key) != report[key]:
            raise SystemExit(
                f"{path} has results of other {key}; --no-resume replaces "
                f"them. Received: {report[key]}, not {earlier.get(key)}"
            )
    # What failed is tried again.
    report["results"] = [
        r for r in earlier["results"] if r["row"] in ROWS and "failed" not in r
    ]
    return report


def save_lines(report, path):
    """JSON with a line a result; the file is whole at every moment."""
    if not path:
        return
    head = {key: value for key, value in report.items() if key != "results"}
    lines = ",\n".join(json.dumps(result) for result in report["results"])
    text = json.dumps(head, indent=1)[:-2] + f',\n "results": [\n{lines}\n]}}\n'
    unfinished = Path(str(path) + ".part")
    unfinished.write_text(text)
    unfinished.replace(path)


# The side that asks.


def start(kind, arguments):
    threads = 1 if kind == "single" else arguments.threads
    return Worker("benchmarks.masks", kind, threads)


def measure_row(row, workers, arguments, known):
    """Yields the results of a row that are not known yet."""
    columns = row.columns or arguments.columns
    finished = {r["tokens"]: r for r in known if r["row"] == row.name}
    sizes = [n for n in row.sizes if n <= arguments.max_tokens]
    # How long methods take, by the largest size before.
    previous = {}
    for tokens in sizes:
        result = finished.get(tokens)
        if result is None:
            methods = {
                method: kind
                for method, kind in methods_of(row).items()
                if expected_seconds(row, method, tokens, previous)
                <= arguments.limit
                and (method != DENSE or tokens <= arguments.dense_to)
            }
            if OURS not in methods:
                break
            request = {"row": row.name, "tokens": tokens, "columns": columns}
            if tokens < FRESH_FROM:
                result = measure_size(workers, methods, request, arguments)
            else:
                result = measure_fresh(workers, methods, request, arguments)
            yield result
        if "failed" in result:
            break
        for method, found in result["methods"].items():
            previous[method] = (tokens, found["seconds"])


def measure_fresh(workers, methods, request, arguments):
    """As `measure_size`, with masks in a process of their own."""
    fresh = start("keras", arguments)
    workers = {**workers, "keras": fresh}
    try:
        result = measure_size(workers, methods, request, arguments)
    except RuntimeError:
        # The system ends a process that needs more memory than there is; one
        # that is well ends by itself.
        fresh.process.stdin.close()
        if fresh.process.wait() == 0:
            raise
        return {**request, "failed": "the process ended early"}
    fresh.close()
    return result


def methods_of(row):
    """The methods of a row, and the process of each."""
    methods = {OURS: "keras"}
    if row.also_float64:
        methods[OURS_64] = "keras"
    methods[DENSE] = "keras"
    return methods | {peer.name: peer.process for peer in row.peers}


def expected_seconds(row, method, tokens, previous):
    """What a call will take, from what it took at the size before."""
    if method not in previous:
        # What was too slow there is too slow here.
        return math.inf if previous else 0.0
    exponents = {peer.name: peer.exponent for peer in row.peers}
    exponents |= {OURS: 1.2, OURS_64: 1.2, DENSE: 2.0}
    earlier, seconds = previous[method]
    return seconds * (tokens / earlier) ** exponents[method]


def measure_size(workers, methods, request, arguments):
    """One result: preparation, error, then rounds in which methods take
    turns."""

    def ask(method, **options):
        return workers[methods[method]].ask(
            {**request, "method": method, **options}
        )

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "product.npy")
        first = ask(OURS, prepare=path)
        error = workers["peers"].ask({**request, "check": path})["error"]
    for method in methods:  # compiles, and warms up
        if method != OURS:
            ask(method)
    rounds, began = [], time.perf_counter()
    for _ in range(arguments.rounds):
        rounds.append({method: ask(method) for method in methods})
        spent = time.perf_counter() - began
        if spent * (1 + 1 / len(rounds)) > arguments.budget:
            break
    return {
        **request,
        "seconds": statistics.median(r[OURS]["seconds"] for r in rounds),
        "rounds": len(rounds),
        "error": error,
        **first,
        "methods": {
            method: {
                "seconds": statistics.median(
                    r[method]["seconds"] for r in rounds
                ),
                "ratio": ratio_of(rounds, method, OURS),
            }
            for method in methods
        },
    }


# What it prints.


def format_result(result):
    if "failed" in result:
        return (
            f"{result['row']}, {result['tokens']:,} x {result['columns']}: "
            "the process ended early, probably for lack of memory"
        )
    others = [
        f"{name} {format_ratio(found['ratio'])}"
        for name, found in result["methods"].items()
        if name != OURS
    ]
    memory = ""
    if "megabytes" in result:
        memory = f", {result['megabytes']:,.0f} MB"
    return (
        f"{result['row']}, {result['tokens']:,} x {result['columns']}: "
        f"{format_seconds(result['seconds'])} "
        f"({result['rounds']} rounds; prepared in "
        f"{format_seconds(result['prepare'])}, first call "
        f"{format_seconds(result['first'])}, "
        f"error {result['error']:.0e}{memory})\n    times as long: "
        + (", ".join(others) or "-")
    )


def by_row(results):
    """`{row: {tokens: result}}` in the order of the table; no failures."""
    found = {name: {} for name in ROWS}
    for result in sorted(results, key=lambda r: r["tokens"]):
        if "failed" not in result:
            found[result["row"]][result["tokens"]] = result
    return {name: row for name, row in found.items() if row}


def slope(row, start=SLOPE_FROM):
    """Of the time of a product, in doubly logarithmic axes; `None` with fewer
    than two sizes from `start` tokens on."""
    points = [
        (math.log(tokens), math.log(result["seconds"]))
        for tokens, result in row.items()
        if tokens >= start
    ]
    if len(points) < 2:
        return None
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def peers_of(result):
    """`{name: ratio}` of the peers in a result."""
    return {
        name: found["ratio"]
        for name, found in result["methods"].items()
        if name not in (OURS, OURS_64, DENSE)
    }


def fastest_peer(row):
    """The largest size at which there is one: tokens, name, ratio."""
    for tokens, result in reversed(row.items()):
        peers = peers_of(result)
        if peers:
            name = min(peers, key=peers.get)
            return tokens, name, peers[name]
    return None


def format_summary(results):
    """A row of Markdown for each operator, at its largest size."""
    lines = [
        "| mask | tokens | product | rounds | slope | from 100,000 | dense | "
        "fastest peer | error | preparation | memory |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    failed = {r["row"]: r["tokens"] for r in results if "failed" in r}
    for name, row in by_row(results).items():
        last = row[max(row)]
        slopes = [slope(row), slope(row, FRESH_FROM)]
        dense = [
            (tokens, result["methods"][DENSE]["ratio"])
            for tokens, result in row.items()
            if DENSE in result["methods"]
        ]
        peer = fastest_peer(row)
        cells = [
            name,
            f"{last['tokens']:,}"
            + (f" (not {failed[name]:,})" if name in failed else ""),
            format_seconds(last["seconds"]),
            str(last["rounds"]),
            *("" if k is None else f"{k:.2f}" for k in slopes),
            f"{format_ratio(dense[-1][1])} ({dense[-1][0]:,})" if dense else "",
            "" if peer is None else f"{format_ratio(peer[2])} {peer[1]}",
            f"{last['error']:.0e}",
            format_seconds(last["prepare"]),
            f"{last['megabytes'] / 1e3:.1f} GB" if "megabytes" in last else "",
        ]
        if peer is not None and peer[0] != last["tokens"]:
            cells[7] += f" ({peer[0]:,})"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def format_targets(results):
    """What was promised and what was measured."""
    lines = ["| promised | measured | |", "|---|---:|---|"]
    rows = by_row(results)
    for target in TARGETS:
        value = None
        if target.row in rows:
            value = target.measure(rows[target.row])
        sign = ">=" if target.at_least else "<="
        text = f"{target.row}: {target.text} {sign} {target.limit:g}"
        if value is None:
            lines.append(f"| {text} | | not measured |")
            continue
        met = (
            value >= target.limit if target.at_least else value <= target.limit
        )
        lines.append(f"| {text} | {value:.2g} | {'met' if met else 'missed'} |")
    return "\n".join(lines)


def format_seconds(seconds):
    if seconds < 0.1:
        return f"{1e3 * seconds:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def format_ratio(ratio):
    return f"{ratio:.2g}x" if ratio < 100 else f"{ratio:,.0f}x"


PANELS = {
    "sequences and grids": (
        "Toeplitz",
        "BlockToeplitz",
        "Torus",
        "ExponentialDecay",
        "Kronecker",
        "hypercube",
        "Causal",
    ),
    "forests": ("ForestExponential", "ForestDistance"),
    "graphs and factors": (
        "GraphDiffusion",
        "SparseFactors",
        "SparsePairs",
        "LowRank",
    ),
}


def dense_seconds(results):
    """Tokens and seconds of the dense product, the median over the rows."""
    found = {}
    for result in results:
        if DENSE in result.get("methods", ()) and result["tokens"] in SIZES:
            seconds = result["methods"][DENSE]["seconds"]
            found.setdefault(result["tokens"], []).append(seconds)
    return sorted((n, statistics.median(s)) for n, s in found.items())


def plot(results, path):
    """Time against tokens; dotted, the fastest peer at each size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, 3, figsize=(12, 4.4), layout="constrained", sharey=True
    )
    rows = by_row(results)
    dense = dense_seconds(results)
    for panel, (title, kinds) in zip(axes, PANELS.items(), strict=True):
        panel.set_title(title)
        shown = [
            row
            for name, row in rows.items()
            if name.split(",")[0].split()[0] in kinds and len(row) > 1
        ]
        for row in shown:
            points = [(n, result["seconds"]) for n, result in row.items()]
            (line,) = panel.loglog(
                *zip(*points, strict=True),
                marker="o",
                markersize=3,
                linewidth=1.4,
                label=row[max(row)]["row"],
            )
            points = []
            for tokens, result in row.items():
                found = result["methods"]
                seconds = [found[name]["seconds"] for name in peers_of(result)]
                if seconds:
                    points.append((tokens, min(seconds)))
            if points:
                panel.loglog(
                    *zip(*points, strict=True),
                    ":",
                    linewidth=1.2,
                    color=line.get_color(),
                )
        if shown and dense:
            panel.loglog(
                *zip(*dense, strict=True),
                color="black",
                linewidth=2,
                label="dense matrix",
            )
        panel.set_xlabel("tokens")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7, loc="upper left", frameon=False)
    axes[0].set_ylabel("seconds a product (dotted: fastest peer)")
    figure.savefig(path, dpi=130)


# The side that measures: masks and dense matrices.


def answer_keras():
    """A function from requests to answers, which keeps one size at a time."""
    prepared = {}

    def answer(request):
        key = (request["row"], request["tokens"])
        if prepared.get("key") != key:
            prepared.clear()
            release_memory()
            prepared["key"] = key
        row, method = ROWS[request["row"]], request["method"]
        if method not in prepared:
            prepared[method], found = prepare_keras(row, request, prepared)
            if request.get("prepare"):
                return found
        return {"seconds": measure_seconds(prepared[method])}

    return answer


def prepare_keras(row, request, prepared):
    """A call of a method, and what preparing it and calling it first took."""
    import keras

    # Importing it is no part of preparation.
    import keras_topo.operators  # noqa: F401

    tokens, method = request["tokens"], request["method"]
    if method == DENSE:
        matrix = np.random.default_rng(2).random((tokens, tokens), "float32")
        arrays = [random_columns(request), matrix]
        tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
        return compile_call(lambda x, matrix: matrix @ x, tensors), {}
    dtype = "float64" if method == OURS_64 else "float32"
    inputs = row.inputs(tokens)
    found = {}

    def prepare():
        began = time.perf_counter()
        operator = prepared.get("operator")
        if operator is None:
            operator = prepared["operator"] = row.build(inputs)
        found["prepare"] = time.perf_counter() - began
        began = time.perf_counter()
        x = keras.ops.convert_to_tensor(random_columns(request, dtype))
        tensors = [x, *operator.tensors()]
        call = compile_call(
            lambda x, *tensors: operator.with_tensors(tensors) @ x, tensors
        )
        y = call()
        found["first"] = time.perf_counter() - began
        if request.get("prepare"):
            np.save(request["prepare"], y[:, :CHECKED_COLUMNS])
        prepared["call"] = call

    if tokens < FRESH_FROM:
        prepare()
    else:
        found["megabytes"] = measure_growth(prepare)
        # Of the whole process, interpreter and frameworks included.
        found["process_megabytes"] = memory_status("VmHWM") / 1e6
    return prepared.pop("call"), found


def compile_call(function, tensors):
    """A call of `function` as a graph, which waits for the result."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(function)
    else:
        import tensorflow as tf

        compiled = tf.function(function, autograph=False)
    return lambda: np.asarray(compiled(*tensors))


def random_columns(request, dtype="float32"):
    """The input of the product, the same in every process."""
    shape = (request["tokens"], request["columns"])
    x = np.random.default_rng(1).standard_normal(shape, "float32")
    return x.astype(dtype, copy=False)


def measure_seconds(call):
    """Seconds of one call; the median of several, if it is short."""
    seconds, began = [], time.perf_counter()
    while not seconds or (
        len(seconds) < 200 and time.perf_counter() - began < 0.1
    ):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def release_memory():
    """Gives back what the allocator keeps: others measure meanwhile."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


# The side that measures: peers.


def answer_peers():
    prepared = {}

    def answer(request):
        key = (request["row"], request["tokens"])
        if prepared.get("key") != key:
            prepared.clear()
            release_memory()
            row = ROWS[request["row"]]
            inputs = row.inputs(key[1])
            if row.share is not None:
                inputs = row.share(inputs)
            prepared.update(key=key, row=row, inputs=inputs)
        row, inputs = prepared["row"], prepared["inputs"]
        if "check" in request:
            x = random_columns(request, "float64")[:, :CHECKED_COLUMNS]
            y, reference = np.load(request["check"]), row.peers[0]
            reference = reference.prepare(inputs, np.ascontiguousarray(x))()
            return {"error": relative_error(y, reference)}
        name = request["method"]
        if name not in prepared:
            peer = next(peer for peer in row.peers if peer.name == name)
            x = random_columns(request, peer.dtype)
            prepared[name] = peer.prepare(inputs, x)
        return {"seconds": measure_seconds(prepared[name])}

    return answer


def relative_error(y, reference):
    """Of the column for which it is largest."""
    error = np.linalg.norm(y.astype("float64") - reference, axis=0)
    return float((error / np.linalg.norm(reference, axis=0)).max())


def num_threads():
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


# Forests.


def random_tree(tokens):
    """Parents of a random recursive tree: each node hangs on an earlier one."""
    uniform = np.random.default_rng(0).random(tokens)
    parents = (uniform * np.arange(tokens)).astype("int64")
    parents[0] = -1
    return parents


def path_tree(tokens):
    return np.arange(tokens) - 1


def build_forest_exponential(parents):
    from keras_topo.operators import ForestExponential

    return ForestExponential(parents, a=-RATE)


def build_forest_distance(parents):
    from keras_topo.operators import ForestDistance, rational

    return ForestDistance(parents, rational(1.0))


def by_level(parents):
    """Nodes level by level, each level in the order of its parents.

    Returns:
        `order`, the nodes; `parents` in terms of places in it; and `bounds`,
        where levels begin and end.
    """
    order = np.flatnonzero(parents < 0)
    children = np.argsort(parents, kind="stable")
    first = np.searchsorted(parents[children], np.arange(len(parents) + 1))
    levels = [order]
    while len(levels[-1]):
        above = levels[-1]
        counts = first[above + 1] - first[above]
        starts = np.repeat(first[above] - np.cumsum(counts) + counts, counts)
        levels.append(children[starts + np.arange(counts.sum())])
    bounds = np.concatenate([[0], np.cumsum([len(v) for v in levels[:-1]])])
    order = np.concatenate(levels)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    above = parents[order]
    return order, np.where(above < 0, -1, rank[above]), bounds


def prepare_levels(parents, x):
    """Dynamic programming: a sparse product a level, up, and then down."""
    order, above, bounds = by_level(parents)
    decay = x.dtype.type(math.exp(-RATE))
    levels = []
    for i, j, k in zip(bounds[:-2], bounds[1:-1], bounds[2:], strict=True):
        entries = (np.full(k - j, decay), (above[j:k] - i, np.arange(k - j)))
        sums = scipy.sparse.csr_array(entries, shape=(j - i, k - j))
        levels.append((i, j, k, sums))

    def call():
        s = x[order]
        for i, j, k, sums in reversed(levels):
            s[i:j] += sums @ s[j:k]
        roots = bounds[1]
        s[roots:] *= 1 - decay * decay
        for _, j, k, _ in levels:
            s[j:k] += decay * s[above[j:k]]
        y = np.empty_like(s)
        y[order] = s
        return y

    return call


def prepare_solve(parents, x):
    """The inverse of the mask is as sparse as the tree: a sparse Cholesky
    factorization without fill, by SuperLU, and its triangular solves."""
    order, above, _ = by_level(parents)
    # Leaves first.
    order, nodes = order[::-1], len(order)
    child = np.flatnonzero(above >= 0)
    places = (nodes - 1 - child, nodes - 1 - above[child])
    decay = x.dtype.type(math.exp(-RATE))
    step = scipy.sparse.csc_array(
        (np.full(len(child), decay), places), shape=(nodes, nodes)
    )
    step = scipy.sparse.eye_array(nodes, dtype=x.dtype, format="csc") - step
    scale = np.where(above[::-1] >= 0, 1 / (1 - decay * decay), 1)
    scale = scipy.sparse.diags_array(scale.astype(x.dtype))
    solver = scipy.sparse.linalg.splu(
        (step.T @ scale @ step).tocsc(),
        permc_spec="NATURAL",
        diag_pivot_thresh=0,
        options={"SymmetricMode": True},
    )

    def call():
        y = np.empty_like(x)
        y[order] = solver.solve(np.asfortranarray(x[order]))
        return y

    return call


def prepare_filter(rate, inputs, x):
    """A recursive filter in both directions, along contiguous columns."""
    one = np.ones(1, x.dtype)
    recursion = np.array([1, -math.exp(-rate)], x.dtype)

    def call():
        z = np.ascontiguousarray(x.T)
        y = scipy.signal.lfilter(one, recursion, z)
        y += scipy.signal.lfilter(one, recursion, z[:, ::-1])[:, ::-1]
        y -= z
        return np.ascontiguousarray(y.T)

    return call


def rational_table(size, dtype):
    """What the masks of any function have as theirs, `1 / (1 + d^2)`."""
    distance = np.arange(size, dtype="float64")
    return (1 / (1 + distance**2)).astype(dtype)


def prepare_spheres(parents, x):
    """`sum_d f(d) A_d x`, where `A_d` tells nodes at the distance `d`.

    On a tree `A_d+1 = A A_d - (D - 1) A_d-1` (`D` in place of `D - 1` for `d`
    = 1): one sparse product a distance, which is much on a path and little on
    a shallow tree.
    """
    child = np.flatnonzero(parents >= 0)
    shape = (len(parents),) * 2
    half = scipy.sparse.coo_array(
        (np.ones(len(child), x.dtype), (child, parents[child])), shape=shape
    )
    adjacency = (half + half.T).tocsr()
    degree = np.diff(adjacency.indptr).astype(x.dtype)[:, None]
    longest = diameter(adjacency)
    f = rational_table(longest + 1, x.dtype)

    def call():
        before, current = x, adjacency @ x
        y = f[0] * x + (f[1] * current if longest else 0)
        for d in range(2, longest + 1):
            # Neighbors of what is nearer, but for the way back.
            back = degree if d == 2 else degree - 1
            before, current = current, adjacency @ current - back * before
            y += f[d] * current
        return y

    return call


def diameter(adjacency):
    """The longest distance in a tree: from the node farthest from any."""
    far = 0
    for _ in range(2):
        distance = scipy.sparse.csgraph.shortest_path(
            adjacency, unweighted=True, indices=far
        )
        far = int(np.argmax(distance))
    return int(distance[far])


def prepare_blocks(parents, x, block=256):
    """Blocks of rows of the matrix: distances from a block of nodes to all,
    level by level, then a table and a matrix product."""
    order, above, bounds = by_level(parents)
    nodes, num_levels = len(order), len(bounds) - 1
    level = np.repeat(np.arange(num_levels), np.diff(bounds))
    f = rational_table(2 * num_levels, x.dtype)

    def call():
        z, y = x[order], np.empty_like(x)
        for start in range(0, nodes, block):
            rows = np.arange(start, min(start + block, nodes))
            distance = np.empty((nodes, len(rows)), "int32")
            # The root is everybody's ancestor.
            distance[: bounds[1]] = level[rows]
            ancestors = np.full((num_levels, len(rows)), -1)
            ancestor = rows
            for k in range(int(level[rows].max()), -1, -1):
                at = level[ancestor] == k
                ancestors[k, at] = ancestor[at]
                ancestor = np.where(at & (k > 0), above[ancestor], ancestor)
            for k in range(1, num_levels):
                i, j = bounds[k], bounds[k + 1]
                np.add(distance[above[i:j]], 1, out=distance[i:j])
                at = np.flatnonzero(ancestors[k] >= 0)
                distance[ancestors[k, at], at] = level[rows[at]] - k
            y[order[rows]] = f[distance].T @ z
        return y

    return call


# Sequences and grids.


def random_toeplitz(tokens):
    """First column and row."""
    column, row = np.random.default_rng(0).random((2, tokens), "float32")
    row[0] = column[0]
    return column, row


def build_toeplitz(inputs):
    from keras_topo.operators import Toeplitz

    return Toeplitz(*inputs)


def prepare_matmul_toeplitz(inputs, x):
    # It computes in float64 whatever it is given.
    column_and_row = tuple(v.astype(x.dtype) for v in inputs)
    return lambda: scipy.linalg.matmul_toeplitz(
        column_and_row, x, check_finite=False, workers=num_threads()
    )


def prepare_toeplitz_fft(inputs, x):
    column, row = inputs
    table = np.concatenate([row[:0:-1], column])
    return prepare_fft(table, (len(column),), x)


def prepare_path_fft(parents, x):
    f = rational_table(len(parents), "float64")
    return prepare_toeplitz_fft((f, f), x)


def random_table(tokens):
    side = math.isqrt(tokens)
    return np.random.default_rng(0).random((2 * side - 1,) * 2, "float32")


def build_block_toeplitz(table):
    from keras_topo.operators import BlockToeplitz

    return BlockToeplitz(table, [(n + 1) // 2 for n in table.shape])


def prepare_grid_fft(table, x):
    return prepare_fft(table, tuple((n + 1) // 2 for n in table.shape), x)


def prepare_fft(table, grid, x):
    """Circular convolution of padded columns; the table was transformed."""
    padded = tuple(scipy.fft.next_fast_len(n, real=True) for n in table.shape)
    # The offset 0 first; negative ones wrap around.
    kernel = np.zeros(padded, x.dtype)
    kernel[tuple(slice(n) for n in table.shape)] = table
    kernel = np.roll(kernel, [1 - n for n in grid], range(len(grid)))
    return _prepare_convolution(kernel, grid, x)


def random_ring_table(tokens):
    side = math.isqrt(tokens)
    return np.random.default_rng(0).random((side, side), "float32")


def build_torus(table):
    from keras_topo.operators import Torus

    return Torus(table, table.shape)


def prepare_torus_fft(table, x):
    return _prepare_convolution(table.astype(x.dtype), table.shape, x)


def _prepare_convolution(kernel, grid, x):
    axes, workers = range(-len(grid), 0), num_threads()
    spectrum = scipy.fft.rfftn(kernel)
    inside = (slice(None), *(slice(n) for n in grid))

    def call():
        z = np.ascontiguousarray(x.T).reshape(-1, *grid)
        z = scipy.fft.rfftn(z, kernel.shape, axes, workers=workers)
        z *= spectrum
        z = scipy.fft.irfftn(
            z, kernel.shape, axes, workers=workers, overwrite_x=True
        )[inside]
        return np.ascontiguousarray(z.reshape(len(z), -1).T)

    return call


def build_decay(tokens):
    from keras_topo.operators import ExponentialDecay

    return ExponentialDecay(DECAY, tokens)


def random_factors(tokens):
    side = math.isqrt(tokens)
    return np.random.default_rng(0).random((2, side, side), "float32")


def build_kronecker(factors):
    from keras_topo.operators import Kronecker

    return Kronecker(list(factors))


def prepare_kronecker(factors, x):
    first, second = factors.astype(x.dtype)
    side = len(first)

    def call():
        z = first @ x.reshape(side, -1)
        return np.matmul(second, z.reshape(side, side, -1)).reshape(x.shape)

    return call


def num_dimensions(tokens):
    return tokens.bit_length() - 1


def build_hypercube(dimensions):
    from keras_topo.operators import hypercube

    return hypercube(0.5, dimensions)


def prepare_hypercube(dimensions, x, most=3):
    """A product with an 8 x 8 matrix for three dimensions at a time."""
    edge = np.array([[1, 0.5], [0.5, 1]], x.dtype)
    cube = functools.reduce(np.kron, [edge] * most)

    def call():
        y, after = x, x.shape[1]
        for start in range(0, dimensions, most):
            size = 2 ** min(most, dimensions - start)
            y = np.matmul(cube[:size, :size], y.reshape(-1, size, after))
            after *= size
        return y.reshape(x.shape)

    return call


def build_causal(tokens):
    from keras_topo.operators import Causal

    return Causal(tokens)


def prepare_cumsum(tokens, x):
    return lambda: np.cumsum(x, axis=0)


# Graphs and factors.


def random_graph(tokens):
    """A random graph of mean degree 10, CSR, float32."""
    ends = np.random.default_rng(0).integers(0, tokens, (2, 5 * tokens))
    ends = ends[:, ends[0] != ends[1]]
    half = scipy.sparse.coo_array(
        (np.ones(ends.shape[1], "float32"), ends), shape=(tokens, tokens)
    )
    adjacency = (half + half.T).tocsr()
    adjacency.data[:] = 1
    return adjacency


def build_diffusion(adjacency):
    from keras_topo.operators import GraphDiffusion

    return GraphDiffusion(adjacency, "normalized_laplacian", time=TIME)


def prepare_expm_multiply(adjacency, x):
    degrees = np.asarray(adjacency.sum(axis=1, dtype="float64")).ravel()
    connected = degrees > 0
    scale = np.zeros_like(degrees)
    scale[connected] = degrees[connected] ** -0.5
    scale = scipy.sparse.diags_array(scale)
    laplacian = scipy.sparse.diags_array(connected.astype("float64"))
    laplacian = laplacian - scale @ adjacency.astype("float64") @ scale
    generator = (-TIME * laplacian).tocsr().astype(x.dtype)
    return lambda: scipy.sparse.linalg.expm_multiply(generator, x)


def prepare_chebyshev(adjacency, x):
    """The series of `GraphDiffusion`, written down with SciPy."""
    degrees = np.asarray(adjacency.sum(axis=1, dtype="float64")).ravel()
    connected = degrees > 0
    scale = np.zeros_like(degrees)
    scale[connected] = degrees[connected] ** -0.5
    scale = scipy.sparse.diags_array(scale)
    # The Laplacian less one, with eigenvalues from -1 to 1.
    shifted = scipy.sparse.diags_array(connected.astype("float64") - 1)
    shifted = (shifted - scale @ adjacency.astype("float64") @ scale).tocsr()
    shifted = shifted.astype(x.dtype)
    factors = 2 * scipy.special.ive(np.arange(100), TIME)
    factors[0] /= 2
    factors[1::2] *= -1
    factors = factors[: int((np.abs(factors) > 1e-8).sum())].tolist()

    def product():
        before, current = x, shifted @ x
        total = factors[0] * x + factors[1] * current
        for factor in factors[2:]:
            following = shifted @ current
            following *= 2
            following -= before
            before, current = current, following
            total += factor * current
        return total

    return product


def sample_graph_features(adjacency):
    from keras_topo.graphs import graph_random_features

    return graph_random_features(
        adjacency, num_walks=WALKS, length=LENGTH, seed=0
    )


def build_graph_features(adjacency):
    from keras_topo.graphs import diffusion_modulation
    from keras_topo.operators import SparseFactors

    features = sample_graph_features(adjacency)
    values = diffusion_modulation(TIME, LENGTH).astype("float32")
    values = values @ features.values
    return SparseFactors(features.pairs, values, features.num_nodes)


def graph_feature_matrix(adjacency):
    from keras_topo.graphs import diffusion_modulation

    modulation = diffusion_modulation(TIME, LENGTH)
    return sample_graph_features(adjacency).matrix(modulation)


def walk_feature_matrix(adjacency, anchors=None):
    from keras_topo.graphs import random_walk_features

    return random_walk_features(
        adjacency, num_walks=WALKS, length=LENGTH, anchors=anchors, seed=0
    )


def anchor_feature_matrix(adjacency):
    return walk_feature_matrix(adjacency, min(ANCHORS, adjacency.shape[0]))


def build_walk_features(adjacency):
    from keras_topo.operators import SparseFactors

    features = walk_feature_matrix(adjacency).tocoo()
    pairs = np.stack(features.coords, axis=1)
    return SparseFactors(pairs, features.data, features.shape[0])


def build_anchors(adjacency):
    from keras_topo.operators import LowRank

    return LowRank(anchor_feature_matrix(adjacency).toarray())


def prepare_factors(features, x):
    features = features.astype(x.dtype)
    transposed = features.T.tocsr()
    return lambda: features @ (transposed @ x)


def prepare_anchors(features, x):
    u = features.toarray().astype(x.dtype)
    return lambda: u @ (u.T @ x)


def random_rank(tokens):
    shape = (2, tokens, RANK)
    return np.random.default_rng(0).standard_normal(shape, "float32")


def build_low_rank(inputs):
    from keras_topo.operators import LowRank

    return LowRank(*inputs)


def prepare_low_rank(inputs, x):
    u, w = inputs.astype(x.dtype)
    return lambda: u @ (w.T @ x)


def weighted_graph(tokens):
    adjacency = random_graph(tokens)
    adjacency.data = np.random.default_rng(1).random(adjacency.nnz, "float32")
    return adjacency


def build_pairs(adjacency):
    from keras_topo.operators import SparsePairs

    entries = adjacency.tocoo()
    pairs = np.stack(entries.coords, axis=1)
    return SparsePairs(pairs, entries.data, entries.shape[0])


def prepare_sparse(adjacency, x):
    adjacency = adjacency.astype(x.dtype)
    return lambda: adjacency @ x


# The table.


SOLVE = Peer("SuperLU", prepare_solve)
DIFFUSION_PEERS = (
    Peer("expm_multiply, float64", prepare_expm_multiply, "float64"),
    Peer("expm_multiply", prepare_expm_multiply),
    Peer("Chebyshev series in SciPy", prepare_chebyshev),
)
SPARSE_FACTORS = Peer("two sparse products", prepare_factors)


def in_numpy(name, prepare, **options):
    """Two peers: BLAS with all threads, and with one, which is faster for
    small matrices and wherever a core is busy with something else."""
    return (
        Peer(name, prepare, **options),
        Peer(f"{name}, one thread", prepare, process="single", **options),
    )


def filter_peer(rate):
    return Peer("lfilter", functools.partial(prepare_filter, rate))


ROWS = (
    Row(
        "ForestExponential, random tree",
        SIZES,
        random_tree,
        build_forest_exponential,
        (Peer("a sparse product a level", prepare_levels), SOLVE),
    ),
    Row(
        "ForestExponential, path",
        SIZES,
        path_tree,
        build_forest_exponential,
        (filter_peer(RATE), SOLVE),
    ),
    Row(
        "ForestDistance, random tree",
        SIZES,
        random_tree,
        build_forest_distance,
        (
            Peer("a sparse product a distance", prepare_spheres),
            *in_numpy("blocks of rows", prepare_blocks, exponent=2.0),
        ),
    ),
    Row(
        "ForestDistance, path",
        SIZES,
        path_tree,
        build_forest_distance,
        (Peer("scipy.fft", prepare_path_fft),),
    ),
    Row(
        "GraphDiffusion",
        SIZES,
        random_graph,
        build_diffusion,
        DIFFUSION_PEERS,
    ),
    Row(
        "GraphDiffusion, 256 columns",
        (100_000,),
        random_graph,
        build_diffusion,
        DIFFUSION_PEERS,
        columns=256,
        also_float64=True,
    ),
    Row(
        "SparseFactors, graph random features",
        SIZES,
        random_graph,
        build_graph_features,
        (SPARSE_FACTORS,),
        share=graph_feature_matrix,
    ),
    Row(
        "SparseFactors, random walks",
        SIZES,
        random_graph,
        build_walk_features,
        (SPARSE_FACTORS,),
        share=walk_feature_matrix,
    ),
    Row(
        f"LowRank, random walks, {ANCHORS} anchors",
        SIZES,
        random_graph,
        build_anchors,
        (*in_numpy("two NumPy products", prepare_anchors), SPARSE_FACTORS),
        share=anchor_feature_matrix,
    ),
    Row(
        "SparsePairs, adjacency",
        SIZES,
        weighted_graph,
        build_pairs,
        (Peer("a sparse product", prepare_sparse),),
    ),
    Row(
        f"LowRank, rank {RANK}",
        SIZES,
        random_rank,
        build_low_rank,
        in_numpy("two NumPy products", prepare_low_rank),
    ),
    Row(
        "Toeplitz",
        SIZES,
        random_toeplitz,
        build_toeplitz,
        (
            Peer("scipy.fft", prepare_toeplitz_fft),
            Peer("matmul_toeplitz, float64", prepare_matmul_toeplitz),
        ),
    ),
    Row(
        "BlockToeplitz, square grid",
        GRIDS,
        random_table,
        build_block_toeplitz,
        (Peer("scipy.fft", prepare_grid_fft),),
    ),
    Row(
        "Torus, square grid",
        GRIDS,
        random_ring_table,
        build_torus,
        (Peer("scipy.fft", prepare_torus_fft),),
    ),
    Row(
        "Kronecker, two dense factors",
        GRIDS,
        random_factors,
        build_kronecker,
        in_numpy("two NumPy products", prepare_kronecker),
    ),
    Row(
        "hypercube",
        CUBES,
        num_dimensions,
        build_hypercube,
        in_numpy("NumPy, axis by axis", prepare_hypercube),
    ),
    Row("ExponentialDecay", SIZES, int, build_decay, (filter_peer(DECAY),)),
    Row("Causal", SIZES, int, build_causal, (Peer("cumsum", prepare_cumsum),)),
)
ROWS = {row.name: row for row in ROWS}


def at(tokens, field):
    """A target's measure: a field of the result at a size."""
    return lambda row: row[tokens].get(field) if tokens in row else None


def times_expm_multiply(name):
    def measure(row):
        result = row.get(100_000)
        found = result and result["methods"].get(name)
        return found and found["ratio"]

    return measure


TREES = ("random tree", "path")
GRAPH_FEATURES = "SparseFactors, graph random features"
DIFFUSION = "GraphDiffusion, 256 columns"
TARGETS = (
    *(
        Target(f"ForestExponential, {tree}", text, measure, limit)
        for tree in TREES
        for text, measure, limit in (
            ("seconds at 1,000,000", at(10**6, "seconds"), 10),
            (
                "MB of the process at 1,000,000",
                at(10**6, "process_megabytes"),
                6000,
            ),
            ("slope", slope, 1.15),
        )
    ),
    Target(
        "ForestDistance, random tree",
        "seconds to plan at 100,000",
        at(10**5, "prepare"),
        20,
    ),
    Target(
        "ForestDistance, random tree",
        "seconds at 100,000",
        at(10**5, "seconds"),
        5,
    ),
    *(
        Target(f"ForestDistance, {tree}", "slope", slope, 1.35)
        for tree in TREES
    ),
    Target(DIFFUSION, "error at 100,000", at(10**5, "error"), 1e-5),
    Target(
        DIFFUSION,
        "times faster than expm_multiply in float64",
        times_expm_multiply("expm_multiply, float64"),
        3,
        at_least=True,
    ),
    Target(
        DIFFUSION,
        "times faster than expm_multiply in float32",
        times_expm_multiply("expm_multiply"),
        3,
        at_least=True,
    ),
    Target(
        GRAPH_FEATURES,
        "seconds to sample at 1,000,000",
        at(10**6, "prepare"),
        180,
    ),
)


if __name__ == "__main__":
    sys.exit(main())
