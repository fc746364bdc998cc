"""Masked attention against softmax attention, from 64 to 262,144 tokens.

    python -m benchmarks.attention --json FILE --plot FILE

Shapes are those of typical models (batch x heads x tokens: 8 x 12 x 196, 8 x 6
x 1,024 and 2 x 8 x 4,096) and one head of 64 to 262,144 tokens; m = d = 64,
float32, tokens on a square grid. All ratios compare with PyTorch's
`scaled_dot_product_attention`, and causal rows also with its causal form.
Softmax attention written out by its equation is measured in every mode.

Modes are TensorFlow graphs, TensorFlow graphs compiled by XLA, and JAX. The
summary takes the fastest mode for each figure; the JSON file has all modes.
Explicit and fast implementations are measured beside `auto` in the first mode,
forward, with one head. "Forward and backward" computes the gradients of the sum
of the output with respect to queries, keys, values and mask parameters.

A row stops when one call would take longer than `--limit` seconds, and explicit
rows stop after `--explicit-to` tokens. The run takes about 20 minutes on two
quiet cores, three with `--quick`, and hours with `--all`, which measures every
row in every mode.

    --against COMMIT    also measure the package of that commit, in the same
                        rounds, and list the rows that have become slower
    --step              measure a training step of TopViT-Ti/16 instead
    --memory-training   measure memory instead

`python -m benchmarks.attention --shapes 4096 --kinds decay --modes xla` selects
rows. `benchmarks.harness` describes processes and rounds.
"""

import argparse
import contextlib
import dataclasses
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import attention_tables as tables
from benchmarks.attention_rows import (
    CAUSAL_PEER,
    IMPLEMENTATIONS,
    KINDS,
    LINEAR,
    PEER,
    PLAIN_SOFTMAX,
    make_call,
    split_row,
)
from benchmarks.harness import (
    MODES,
    ROOT,
    Forecast,
    Report,
    RowError,
    WorkerError,
    Workers,
    make_parser,
    parse_names,
    ratio_of,
    ratio_of_least,
    seconds_of,
    take_turns,
)
from benchmarks.measure import answer_calls, serve

MODULE = "benchmarks.attention"
LENGTHS = tuple((1, 1, 4**k) for k in range(3, 10))
BATCHED = ((8, 12, 196), (8, 6, 1024), (2, 8, 4096))
# Shapes for which the default run measures all modes.
SUMMARY = (*BATCHED, (1, 1, 1024), (1, 1, 4096), (1, 1, 16384))
QUICK = ((8, 12, 196), (1, 1, 1024), (1, 1, 4096))
TRAINED_KINDS = ("decay", "causal decay", "gated decay")
# Largest number of tokens for backward passes in the default run.
BACKWARD_TO = 16384
# The softmax written by its equation holds all scores; gradients hold several
# such arrays.
MOST_SCORES = {False: 2**28, True: 2**26}


@dataclasses.dataclass(frozen=True)
class Subject:
    """One thing that is timed: a row, in a mode, of this package or, with a
    commit, of that one."""

    row: str
    mode: str
    commit: str = ""

    @property
    def quadratic(self):
        return (
            self.mode == "torch"
            or self.row == PLAIN_SOFTMAX
            or split_row(self.row)[1] == "explicit"
        )

    def work(self, shape):
        """What its time is about proportional to."""
        batch, heads, tokens = shape
        return batch * heads * tokens ** (2.0 if self.quadratic else 1.1)


def main():
    arguments = parse_arguments()
    if arguments.worker:
        kind = arguments.worker
        return serve(
            answer_calls(
                lambda request: make_call(kind, request), ("shape", "backward")
            )
        )
    report = Report(
        arguments.json,
        MODULE,
        {
            key: value
            for key, value in vars(arguments).items()
            if key not in ("json", "plot", "worker", "step", "memory_training")
        },
        ("torch", *arguments.modes),
        ("results", "training_step", "training_memory"),
    )
    if arguments.step:
        from benchmarks.training_step import measure_steps

        measure_steps(report, arguments)
    if arguments.memory_training:
        from benchmarks.training_memory import measure_memory

        measure_memory(report, arguments)
    if not (arguments.step or arguments.memory_training):
        began = time.perf_counter()
        measure_all(report, arguments)
        print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes")
        print(tables.format_everything(report.records(), arguments))
        if arguments.plot:
            tables.plot(report.records(), arguments.plot)
    if arguments.json:
        print(f"figures: {arguments.json}")
    return 0


def parse_arguments():
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument(
        "--shapes",
        type=parse_shapes,
        help="batch x heads x tokens, or tokens: 8x12x196,4096",
    )
    parser.add_argument(
        "--kinds", type=parse_names(KINDS), help=f"of {', '.join(KINDS)}"
    )
    parser.add_argument("--modes", type=parse_names(MODES), default=list(MODES))
    parser.add_argument(
        "--limit",
        type=float,
        default=10.0,
        help="seconds that one call may take",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=45.0,
        help="seconds for the rounds of a shape, at least one round",
    )
    parser.add_argument(
        "--explicit-to",
        type=int,
        default=16384,
        help="tokens up to which the explicit implementation is measured",
    )
    parser.add_argument(
        "--memory-from",
        type=int,
        default=2**30,
        metavar="TOKENS",
        help="from this number of tokens on, also measure the memory of the "
        "first call of each row, in a separate process",
    )
    parser.add_argument("--against", metavar="COMMIT", default="")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true")
    size.add_argument("--all", action="store_true")
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--memory-training", action="store_true")
    arguments = parser.parse_args()
    if arguments.against:
        arguments.against = resolve_commit(arguments.against)
    if arguments.quick:
        arguments.rounds = min(arguments.rounds, 3)
    shapes = arguments.shapes or (
        QUICK if arguments.quick else {*LENGTHS, *BATCHED}
    )
    arguments.shapes = sorted(
        shapes, key=lambda s: (s[0] * s[1] * s[2] ** 2, s)
    )
    if arguments.kinds is None:
        arguments.kinds = [
            kind
            for kind in KINDS
            if not arguments.quick or kind in tables.TARGET_KINDS
        ]
    return arguments


def parse_shapes(text):
    shapes = []
    for part in text.split(","):
        shape = tuple(int(size) for size in part.split("x"))
        shape = (1, 1, *shape) if len(shape) == 1 else shape
        if len(shape) != 3 or math.isqrt(shape[-1]) ** 2 != shape[-1]:
            raise argparse.ArgumentTypeError(
                "expected batch x heads x tokens, the tokens a square. "
                f"Received: {part}"
            )
        shapes.append(shape)
    return shapes


# What is measured.


def measure_all(report, arguments):
    """Measures the groups (shapes and directions) that the report lacks."""
    forecast = Forecast(arguments.limit)
    with (
        open_commit(arguments.against) as old,
        Workers(MODULE, arguments.threads) as workers,
    ):
        for backward in (False, True):
            for shape in arguments.shapes:
                found = report.records(shape=list(shape), backward=backward)
                if not found:
                    group = Group(shape, backward, workers, old, arguments)
                    found = group.measure(forecast)
                    report.add(found)
                for record in found:
                    learn(forecast, record)
                print(tables.format_group(found, arguments), flush=True)


def learn(forecast, record):
    """What a record says about larger shapes."""
    subject = Subject(record["row"], record["mode"], record["commit"])
    failed = "failed" in record
    seconds = math.inf if failed else record["milliseconds"] / 1e3
    size = subject.work(record["shape"])
    forecast.learn((subject, record["backward"]), size, seconds)


class Group:
    """The rows of one shape, forward or forward and backward.

    Args:
        shape: `(batch, heads, tokens)`.
        backward: bool.
        workers: `Workers`.
        old: the folder of `--against`, or `None`.
        arguments: those of the command.
    """

    def __init__(self, shape, backward, workers, old, arguments):
        self.shape, self.backward = shape, backward
        self.workers, self.old = workers, old
        self.arguments = arguments

    def measure(self, forecast):
        """The records of the group; those of rows that fail say why."""
        subjects = [
            subject
            for subject in self.select()
            if forecast.allows(
                (subject, self.backward), subject.work(self.shape), 1.0
            )
        ]
        facts, failures = {}, {}
        for subject in subjects:
            try:
                facts[subject] = self.ask(subject, prepare=True)
                missing = facts[subject].get("missing")
                if missing:
                    failures[subject] = f"there is no {missing}"
            except WorkerError as error:
                failures[subject] = str(error)
        rounds, subjects = [], [s for s in subjects if s not in failures]
        while subjects and not rounds:
            try:
                rounds = take_turns(
                    self.ask,
                    subjects,
                    self.arguments.rounds,
                    self.arguments.budget,
                )
            except RowError as error:
                failures[error.row] = str(error)
                subjects.remove(error.row)
        again = self.measure_slower(rounds, subjects)
        records = [
            self.record(subject, rounds, again, facts[subject])
            for subject in subjects
        ]
        return records + [
            {**self.label(subject), "failed": why}
            for subject, why in failures.items()
        ]

    def before(self, subject):
        """The same of the other commit."""
        return dataclasses.replace(subject, commit=self.arguments.against)

    def measure_slower(self, rounds, subjects):
        """More rounds of what seems slower than at the other commit: of many
        rows, some seem so by chance."""
        slower = []
        for subject in subjects:
            before = self.before(subject)
            if subject != before and before in subjects:
                if ratio_of(rounds, subject, before) > tables.NOISE:
                    slower += [subject, before]
        if not slower:
            return []
        try:
            return take_turns(
                self.ask, slower, self.arguments.rounds, self.arguments.budget
            )
        except RowError:
            return []

    def select(self):
        """The subjects of the group, peers first."""
        yield Subject(PEER, "torch")
        if {"causal decay", "causal ones"} & set(self.arguments.kinds):
            yield Subject(CAUSAL_PEER, "torch")
        batch, heads, tokens = self.shape
        for mode in self.arguments.modes:
            scores = batch * heads * tokens**2
            if scores <= MOST_SCORES[self.backward]:
                if self.wants(mode, None):
                    yield Subject(PLAIN_SOFTMAX, mode)
            for row in self.rows_of(mode):
                yield Subject(row, mode)
                if self.arguments.against:
                    yield Subject(row, mode, self.arguments.against)

    def rows_of(self, mode):
        if self.wants(mode, None) and not self.arguments.quick:
            yield LINEAR
        compared = self.arguments.all or (
            not self.arguments.quick
            and not self.backward
            and mode == self.arguments.modes[0]
            and self.shape[:2] == (1, 1)
        )
        for kind in self.arguments.kinds:
            if not self.wants(mode, kind):
                continue
            for implementation in IMPLEMENTATIONS if compared else ("auto",):
                if (
                    implementation != "explicit"
                    or self.shape[-1] <= self.arguments.explicit_to
                ):
                    yield f"{kind} {implementation}"

    def wants(self, mode, kind):
        """Whether a run of this size has a kind, or `None` for rows without
        a mask, in a mode."""
        if self.arguments.all:
            return True
        if mode != self.arguments.modes[0] and self.shape not in SUMMARY:
            return False
        if not self.backward:
            return True
        if self.shape[-1] > BACKWARD_TO:
            return False
        if mode == self.arguments.modes[0] and not self.arguments.quick:
            return True
        return kind is None or kind in TRAINED_KINDS

    def ask(self, subject, **flags):
        root = self.old if subject.commit else ROOT
        request = {
            "row": subject.row,
            "shape": self.shape,
            "backward": self.backward,
            **flags,
        }
        ask = self.workers.ask
        if flags.get("memory"):
            ask = self.workers.ask_fresh
        # Compilation may take a minute.
        return ask(subject.mode, request, 120 + 10 * self.arguments.limit, root)

    def label(self, subject):
        return {
            **dataclasses.asdict(subject),
            "shape": list(self.shape),
            "tokens": self.shape[-1],
            "backward": self.backward,
        }

    def record(self, subject, rounds, again, facts):
        """What the rounds, and those of `measure_slower`, say about a
        subject."""
        kind, implementation = split_row(subject.row)
        record = {
            **self.label(subject),
            "rounds": len(rounds),
            "ratio": ratio_of(rounds, subject, Subject(PEER, "torch")),
            "milliseconds": 1e3 * seconds_of(rounds, subject),
            "first": facts["first"],
        }
        if kind.startswith("causal"):
            record["causal_ratio"] = ratio_of(
                rounds, subject, Subject(CAUSAL_PEER, "torch")
            )
        if implementation == "auto":
            record["chosen"] = facts["chosen"]
            others = [
                dataclasses.replace(subject, row=f"{kind} {other}")
                for other in IMPLEMENTATIONS
                if other != "auto"
            ]
            others = [other for other in others if other in rounds[0]]
            if others:
                best = min(others, key=lambda s: seconds_of(rounds, s))
                record["auto_over_best"] = ratio_of(rounds, subject, best)
        if self.arguments.against and not subject.commit:
            before = self.before(subject)
            pairs = rounds + [r for r in again if subject in r]
            record["over_commit"] = ratio_of(pairs, subject, before)
            record["least_over_commit"] = ratio_of_least(pairs, subject, before)
        if self.shape[-1] >= self.arguments.memory_from:
            found = self.ask(subject, memory=True)
            record["megabytes"] = found["megabytes"]
        return record


# Another commit.


def resolve_commit(name):
    """The short hash of a commit."""
    return _git("rev-parse", "--short", f"{name}^{{commit}}").decode().strip()


@contextlib.contextmanager
def open_commit(commit):
    """A temporary folder with the package of a commit and these benchmarks;
    `None` without a commit."""
    if not commit:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        folders = ("keras_topo", "models", "training")
        archive = _git("archive", commit, *folders)
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        (Path(folder) / "benchmarks").symlink_to(ROOT / "benchmarks")
        # Before those of an installed package.
        for name in ("models", "training"):
            (Path(folder) / "keras_topo" / name).symlink_to(f"../{name}")
        yield Path(folder)


def _git(*arguments):
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
