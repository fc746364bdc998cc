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

What would take longer than `--limit` seconds per call is left out, and what
failed is not tried at larger sizes. The rows are in `benchmarks.products`,
processes and rounds in `benchmarks.harness`.
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
        help="rows whose names begin so; all by default",
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
