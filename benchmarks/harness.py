"""Shared code of all benchmarks: processes, rounds, resuming, tables, plots.

Every figure is a ratio to a peer in the same round. The rows of a group take
turns in each round, so that other load on the machine affects all of them
alike, and the median over the rounds is reported.

Frameworks in one process share its threads and allocators, so each kind of
`KINDS` has its own process, which measures on request. All processes are
confined to the same cores. Requests and answers are dicts, one JSON line each.

This file sends requests; `benchmarks.measure` answers them.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import select
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


# Processes.


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of process.

    Args:
        packages: names of the distributions whose versions matter.
        environment: dict of variables.
        one_thread: bool, always use one thread.
    """

    packages: tuple
    environment: dict = dataclasses.field(default_factory=dict)
    one_thread: bool = False


_TENSORFLOW = Kind(("tensorflow", "keras"), {"KERAS_BACKEND": "tensorflow"})

#: `"tensorflow"` is for graphs, `"xla"` for graphs compiled by XLA: two
#: processes, for what one compiles takes memory from the other.
KINDS = {
    "torch": Kind(("torch",)),
    "tensorflow": _TENSORFLOW,
    "xla": _TENSORFLOW,
    "jax": Kind(
        ("jax", "keras"), {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    ),
    "numpy": Kind(("numpy", "scipy")),
    "numpy, one thread": Kind(("numpy", "scipy"), one_thread=True),
}


#: Kinds that compile functions written in `keras.ops`.
MODES = ("tensorflow", "xla", "jax")


class WorkerError(RuntimeError):
    """A process could not answer a request; the text says why."""


class RowError(WorkerError):
    """A `WorkerError` in a round; `row` is the row of the request."""

    def __init__(self, row, reason):
        super().__init__(reason)
        self.row = row


class Worker:
    """A process that measures one thing at a time, on request.

    Args:
        module: str, the benchmark. It is started with `--worker kind` and
            calls `benchmarks.measure.serve`.
        kind: str, a key of `KINDS`.
        threads: int.
        root: folder with the `keras_topo` that is measured.
    """

    def __init__(self, module, kind, threads, root=ROOT):
        threads = str(1 if KINDS[kind].one_thread else threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--worker", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "BENCHMARK_THREADS": threads,
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "TF_NUM_INTRAOP_THREADS": threads,
                "TF_NUM_INTEROP_THREADS": threads,
                **KINDS[kind].environment,
            },
        )

    def ask(self, request, timeout=None):
        """Sends a request, a dict, and waits for the answer, a dict.

        Raises:
            WorkerError: if the process failed, ended (the system ends one that
                needs more memory than there is), or took longer than `timeout`
                seconds, after which it is ended.
        """
        pipe = self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError("the process had ended") from None
        ready, _, _ = select.select([pipe], [], [], timeout)
        if not ready:
            self._end()
            raise WorkerError(f"no answer after {timeout:.0f} s")
        line = pipe.readline()
        if not line:
            self._end()
            raise WorkerError(
                "the process ended early, perhaps because memory ran out"
            )
        answer = json.loads(line)
        if "exception" in answer:
            raise WorkerError(answer["exception"])
        return answer

    @property
    def alive(self):
        return self._process.poll() is None

    def close(self):
        """Ends the process and waits for its end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._end()
        self._process.stdout.close()

    def _end(self):
        self._process.kill()
        self._process.wait()


class Workers:
    """Processes of a benchmark. Each starts at its first request, and starts
    again if it has ended.

    Args:
        module, threads: as in `Worker`.
    """

    def __init__(self, module, threads):
        self._module, self._threads = module, threads
        self._running = {}
        load = os.getloadavg()[0]
        if load > 0.5:
            print(
                f"The load of this machine is {load:.1f}. Other load slows "
                "rows down unequally, multi-threaded rows most."
            )

    def ask(self, kind, request, timeout=None, root=ROOT):
        """The answer of the process of a kind and folder; see `Worker.ask`."""
        worker = self._running.get((kind, root))
        if worker is not None and not worker.alive:
            worker.close()
            worker = None
        if worker is None:
            worker = Worker(self._module, kind, self._threads, root)
            self._running[kind, root] = worker
        return worker.ask(request, timeout)

    def ask_fresh(self, kind, request, timeout=None, root=ROOT):
        """The answer of a new process, which then ends.

        Memory needs new processes, because allocators do not return memory.
        """
        worker = Worker(self._module, kind, self._threads, root)
        try:
            return worker.ask(request, timeout)
        finally:
            worker.close()

    def replace(self, kind, root=ROOT):
        """Ends the process of a kind; the next request starts another."""
        worker = self._running.pop((kind, root), None)
        if worker is not None:
            worker.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for kind, root in list(self._running):
            self.replace(kind, root)


# Rounds.


def take_turns(ask, rows, rounds, budget=math.inf):
    """Runs rounds in which all rows take turns. Every other round runs
    backwards, so that no row always follows the same other row.

    Args:
        ask: function from a row to its answer, with `"seconds"`.
        rows: list of keys. Rows must be compiled before.
        rounds: int, largest number of rounds.
        budget: float, seconds. After the first round, no round starts that
            would probably exceed it.

    Returns:
        A list of dicts from rows to answers.

    Raises:
        RowError: if a process could not answer.
    """
    rows, found, began = list(rows), [], time.perf_counter()
    for k in range(rounds):
        answers = {}
        for row in rows[::-1] if k % 2 else rows:
            try:
                answers[row] = ask(row)
            except WorkerError as error:
                raise RowError(row, str(error)) from error
        found.append({row: answers[row] for row in rows})
        spent = time.perf_counter() - began
        if spent * (1 + 1 / len(found)) > budget:
            break
    return found


def prepare_and_take_turns(ask, rows, rounds):
    """Prepares rows and calls `take_turns`; rows that fail are left out.

    Args:
        ask: as in `take_turns`; with `prepare=True` it prepares a row.
        rows: list of keys.
        rounds: int.

    Returns:
        The answers to the preparations, a dict from rows; the rounds of the
        rows that did not fail; and a dict from failed rows to errors.
    """
    first, found, failures = {}, [], {}
    for row in rows:
        try:
            first[row] = ask(row, prepare=True)
        except WorkerError as error:
            failures[row] = str(error)
    while len(failures) < len(rows) and not found:
        rest = [row for row in rows if row not in failures]
        try:
            found = take_turns(ask, rest, rounds)
        except RowError as error:
            failures[error.row] = str(error)
    return first, found, failures


def seconds_of(rounds, row):
    """The median time of a row."""
    return statistics.median(r[row]["seconds"] for r in rounds)


def ratio_of(rounds, row, other):
    """The median over rounds of the time of a row over that of another, or
    `None` if the other was not measured."""
    if not rounds or other not in rounds[0]:
        return None
    return statistics.median(
        r[row]["seconds"] / r[other]["seconds"] for r in rounds
    )


def ratio_of_least(rounds, row, other):
    """The ratio of the shortest times, which interruptions do not affect."""
    if not rounds or other not in rounds[0]:
        return None
    least, least_other = (
        min(r[key]["seconds"] for r in rounds) for key in (row, other)
    )
    return least / least_other


class Forecast:
    """Predicts the times of calls from those at smaller sizes.

    A row whose call would exceed `limit` seconds is left out, and so is one
    that was left out or failed at a smaller size.
    """

    def __init__(self, limit):
        self._limit = limit
        self._known = {}

    def learn(self, row, size, seconds):
        """Remembers a time; `math.inf` for a row that failed."""
        self._known[row] = (size, seconds)

    def allows(self, row, size, exponent):
        """Whether a call is within the limit, if times grow as
        `size ** exponent`."""
        if row not in self._known:
            return True
        earlier, seconds = self._known[row]
        if seconds * (size / earlier) ** exponent <= self._limit:
            return True
        self._known[row] = (size, math.inf)
        return False


def slope(points):
    """The slope of times against sizes on log-log axes, by least squares;
    `None` for fewer than two points."""
    if len(points) < 2:
        return None
    x, y = zip(*[(math.log(a), math.log(b)) for a, b in points], strict=True)
    return statistics.linear_regression(x, y).slope


# Arguments and reports.


def path(text):
    """A path; `~` is the home folder, even if no shell has expanded it."""
    return Path(text).expanduser()


def existing(text):
    """The path of a file or folder that exists."""
    found = path(text)
    if not found.exists():
        raise argparse.ArgumentTypeError(
            f"expected a file that exists. Received: {text}"
        )
    return found


def make_parser(description, rounds):
    """A parser with the arguments of all benchmarks."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=count_cores())
    parser.add_argument(
        "--json",
        type=path,
        help="file of results; the same command resumes an interrupted run",
    )
    parser.add_argument("--plot", type=path, help="file of a plot")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def add_modes(parser):
    """The argument of benchmarks that compile in several ways."""
    parser.add_argument("--modes", type=parse_names(MODES), default=list(MODES))


def parse_names(known):
    """A type of arguments: names of `known`, with commas between them."""

    def parse(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"expected names of {', '.join(known)}. Received: {name}"
                )
        return names

    return parse


def count_cores():
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


class Report:
    """Records of measurements, in a file that is always complete.

    A report with the same arguments and versions is continued. Otherwise the
    file is kept as FILE.old, and a new one starts.

    Args:
        path: str, or `None` for a report without a file.
        module: str, the benchmark.
        arguments: dict of the settings that records depend on.
        kinds: kinds of processes, whose packages are the versions.
        sections: names of the lists of records.
    """

    def __init__(self, path, module, arguments, kinds, sections=("results",)):
        self._path = path and Path(path).expanduser()
        self._head = {
            "command": f"python -m {module} {' '.join(sys.argv[1:])}".strip(),
            # As read back from the file.
            "arguments": json.loads(json.dumps(arguments)),
            "versions": versions_of(kinds),
        }
        self._sections = {name: [] for name in sections}
        if self._path and self._path.exists():
            self._continue(json.loads(self._path.read_text()))

    def _continue(self, earlier):
        for key in ("arguments", "versions"):
            if earlier.get(key) != self._head[key]:
                kept = Path(f"{self._path}.old")
                self._path.replace(kept)
                print(f"{self._path} had other {key}; it is kept as {kept}")
                return
        for name in self._sections:
            self._sections[name] = earlier.get(name, [])

    def records(self, section="results", **fields):
        """The records of a section with these values of fields."""
        return [
            record
            for record in self._sections[section]
            if all(record.get(key) == value for key, value in fields.items())
        ]

    def drop_failed(self, section="results"):
        """Drops failed records, so that they are tried again."""
        self._sections[section] = [
            record
            for record in self._sections[section]
            if "failed" not in record
        ]

    def add(self, records, section="results"):
        """Adds a list of records and writes the file."""
        self._sections[section] += records
        if not self._path:
            return
        parts = [
            json.dumps(key) + ": " + json.dumps(value, indent=1)
            for key, value in self._head.items()
        ]
        for name, found in self._sections.items():
            lines = ",\n".join(json.dumps(record) for record in found)
            parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
        unfinished = Path(f"{self._path}.part")
        unfinished.write_text("{" + ",\n".join(parts) + "}\n")
        unfinished.replace(self._path)


def versions_of(kinds):
    """Versions of packages, and a hash of the measured source code."""
    names = sorted({name for kind in kinds for name in KINDS[kind].packages})
    found = {name: metadata.version(name) for name in names}
    sources = hashlib.sha256()
    for folder in ("keras_topo", "models", "training", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            sources.update(path.read_bytes())
    return {**found, "sources": sources.hexdigest()[:12]}


# Tables.


def format_seconds(seconds):
    if seconds < 0.995e-4:
        return f"{1e6 * seconds:.2g} us"
    if seconds < 0.0995:
        return f"{1e3 * seconds:.2g} ms"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def format_ratio(ratio):
    """Two digits, without exponent."""
    if ratio is None:
        return ""
    if ratio >= 10:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 0.995 else f"{ratio:.2g}"


def format_table(header, rows, markdown=False, left=1):
    """A table of strings.

    Args:
        header: list of strings.
        rows: lists of strings of the same length.
        markdown: bool; columns are aligned by spaces otherwise.
        left: int, the number of first columns that are aligned left.
    """
    if markdown:
        rule = "|".join(["---"] * left + ["---:"] * (len(header) - left))
        lines = ["| " + " | ".join(line) + " |" for line in [header, *rows]]
        return "\n".join([lines[0], f"|{rule}|", *lines[1:]])
    widths = [
        max(len(cell) for cell in column)
        for column in zip(header, *rows, strict=True)
    ]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *rows]
    )


# Pictures.

#: Line styles by meaning.
STYLES = {
    "peer": {"color": "black", "linewidth": 2.2, "marker": "o"},
    "ours": {"linewidth": 1.4, "marker": "o"},
    "reference": {"linewidth": 1.2, "linestyle": ":"},
}


def open_panels(titles, xlabel, ylabel):
    """A figure with one panel per title, side by side, on the same scale."""
    from training.report import load_pyplot

    figure, axes = load_pyplot().subplots(
        1,
        len(titles),
        figsize=(1.5 + 4.2 * len(titles), 4.4),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title)
        panel.set_xlabel(xlabel)
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel(ylabel)
    return figure, list(axes[0])


def draw_line(panel, points, style, label=None, **options):
    """Plots points `(size, time)` on log-log axes; returns the color."""
    if not points:
        return None
    (line,) = panel.loglog(
        *zip(*sorted(points), strict=True),
        label=label,
        markersize=3,
        **{**STYLES[style], **options},
    )
    return line.get_color()


def save_panels(figure, path):
    """Adds legends where there are labels and writes the file."""
    for panel in figure.axes:
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7, loc="upper left", frameon=False)
    figure.savefig(path, dpi=130)
    print(f"plot: {path}")
