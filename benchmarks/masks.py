"""Products of every mask against SciPy and NumPy, up to a million tokens.

    python -m benchmarks.masks --json docs/masks.json --plot docs/masks.png

Each operator has one row: the time of its product with 64 columns, float32, as
a TensorFlow graph without XLA, from 1,000 to 1,000,000 tokens, and the slope of
that time on log-log axes, by least squares over the sizes from 10,000 tokens
on. Two peers take turns with it in the same rounds:

- The dense product with a precomputed matrix, also in a graph, up to
  `--dense-to` tokens. Its entries are random, since they do not affect time.
- An implementation with SciPy and NumPy, in the best form found: sparse
  triangular solves, one sparse product per level of a tree, recursive filters,
  FFTs with several workers, `expm_multiply` in float64 and in float32 (to full
  precision in both), the Chebyshev series. They use float32 unless their name
  says float64. Everything that a peer can prepare (factorizations, transposes,
  spectra) is prepared and not timed. Sparse products, solves and filters of
  SciPy use one thread. FFTs use `--threads` threads, like TensorFlow. BLAS is
  measured with both, in separate rows.

All methods take and return arrays of shape (tokens, columns). Each is called
once before it is timed, and the median of the rounds is reported. The error is
the largest over the first eight columns, against a peer in float64 and relative
to the norm of the column; for sampled masks the peer has the same sample.
Slopes from 10,000 tokens on include the fixed cost of a call; those from
100,000 on do not.

Preparation is the one-time work on the host for a tree or a graph: a plan,
sampled walks, spectral bounds. The first call traces and then runs. From
100,000 tokens on, each result of an operator comes from a fresh process, and
memory is the largest growth of its resident set (Linux) in preparation and
first call, including input and output.

Rows that would take longer than `--limit` seconds per call are left out, and
rows that failed are not tried at larger sizes. `benchmarks.products` has the
rows, and `benchmarks.harness` describes processes and rounds.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.harness import (
    Forecast,
    Report,
    Worker,
    WorkerError,
    Workers,
    make_parser,
    ratio_of,
    seconds_of,
    take_turns,
)
from benchmarks.measure import serve
from benchmarks.products import report as tables
from benchmarks.products.answers import (
    FRESH_FROM,
    ROWS,
    answer_keras,
    answer_peers,
)
from benchmarks.products.rows import DENSE, OURS
from benchmarks.products.targets import format_targets

MODULE = "benchmarks.masks"


def main():
    arguments = parse_arguments()
    if arguments.worker:
        is_keras = arguments.worker == "tensorflow"
        return serve(answer_keras() if is_keras else answer_peers())
    keys = ("columns", "rounds", "limit", "budget", "dense_to", "threads")
    report = Report(
        arguments.json,
        MODULE,
        {key: getattr(arguments, key) for key in keys},
        ("tensorflow", "numpy"),
    )
    report.drop_failed()
    with Workers(MODULE, arguments.threads) as workers:
        for row in arguments.operators:
            for result in measure_row(row, workers, arguments, report):
                print(tables.format_result(result), flush=True)
    results = report.records()
    print("\n" + tables.format_summary(results))
    print("\n" + format_targets(results))
    if arguments.json:
        print(f"\nfigures: {arguments.json}")
    if arguments.plot:
        tables.plot(results, arguments.plot)
    return 0


def parse_arguments():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument(
        "--operators",
        nargs="*",
        default=[""],
        metavar="NAME",
        help="prefixes of row names; default: all",
    )
    parser.add_argument("--max-tokens", type=int, default=2**20)
    parser.add_argument("--columns", type=int, default=64)
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


def measure_row(row, workers, arguments, report):
    """Yields the results of a row that the report lacks, which it adds."""
    forecast = Forecast(arguments.limit)
    for tokens in row.sizes:
        if tokens > arguments.max_tokens:
            return
        known = report.records(row=row.name, tokens=tokens)
        if known:
            result = known[-1]
        else:
            methods = {
                method: kind
                for method, kind in row.methods().items()
                if (method != DENSE or tokens <= arguments.dense_to)
                and forecast.allows(method, tokens, row.exponent(method))
            }
            if OURS not in methods:
                return
            result = measure_size(
                workers,
                methods,
                {
                    "row": row.name,
                    "tokens": tokens,
                    "columns": row.columns or arguments.columns,
                },
                arguments,
            )
            report.add([result])
            yield result
        if "failed" in result:
            return
        for method, found in result["methods"].items():
            forecast.learn(method, tokens, found["seconds"])


def measure_size(workers, methods, request, arguments):
    """One result: preparation, error, then rounds in which methods take
    turns. Large masks have a process of their own."""
    fresh = None
    if request["tokens"] >= FRESH_FROM:
        fresh = Worker(MODULE, "tensorflow", arguments.threads)

    def ask(method, **options):
        full = {**request, "method": method, **options}
        if fresh is not None and methods[method] == "tensorflow":
            return fresh.ask(full)
        return workers.ask(methods[method], full)

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "product.npy")
            first = ask(OURS, prepare=path)
            error = workers.ask("numpy", {**request, "check": path})["error"]
        for method in methods:  # Compiles, and warms up.
            if method != OURS:
                ask(method)
        rounds = take_turns(
            ask, list(methods), arguments.rounds, arguments.budget
        )
    except WorkerError as reason:
        return {**request, "failed": str(reason)}
    finally:
        if fresh is not None:
            fresh.close()
    return {
        **request,
        "seconds": seconds_of(rounds, OURS),
        "rounds": len(rounds),
        "error": error,
        **first,
        "methods": {
            method: {
                "seconds": seconds_of(rounds, method),
                "ratio": ratio_of(rounds, method, OURS),
            }
            for method in methods
        },
    }


if __name__ == "__main__":
    sys.exit(main())
