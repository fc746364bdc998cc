"""Processes that measure on request, one for each framework.

Frameworks that share a process share their thread pools and allocators; here
each has its own, with the same number of threads, and the rows of a benchmark
take turns between them.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path


class Worker:
    """A process that measures one thing at a time, on request.

    Args:
        module: str, the benchmark, which is started with `--worker kind` and
            calls `serve`.
        kind: str, `"torch"` or `"keras"`.
        threads: int.
        flags: list of further arguments.
    """

    def __init__(self, module, kind, threads, flags=()):
        command = [sys.executable, "-m", module, "--worker", kind, *flags]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "OMP_NUM_THREADS": str(threads),
                "TF_NUM_INTRAOP_THREADS": str(threads),
            },
        )
        self.versions = self.ask({"versions": True})

    def ask(self, request):
        """Sends a request, a dict, and waits for the answer, another."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(
                "a benchmark process ended early; run it by hand to see why: "
                f"{' '.join(self.process.args)} with {json.dumps(request)}"
            )
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(kind, answer):
    """Answers requests, one JSON line each, until standard input ends.

    Args:
        kind: str, the framework.
        answer: function from a request to an answer.
    """
    # Frameworks may print on import; the answers must stay alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        found = versions(kind) if request.get("versions") else answer(request)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def versions(kind):
    if kind == "torch":
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        return {"torch": torch.__version__}
    import keras

    return {"keras": keras.__version__, "backend": keras.backend.backend()}


def ratio_of(rounds, row, other):
    """The median over rounds of the time of a row over that of another."""
    if other not in rounds[0]:
        return None
    return statistics.median(
        r[row]["seconds"] / r[other]["seconds"] for r in rounds
    )


def measure_growth(call):
    """By how many megabytes the resident set grows at most during a call."""
    gc.collect()
    # Resets the high-water mark.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_status("VmRSS")
    call()
    return (memory_status("VmHWM") - before) / 1e6


def memory_status(field):
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def save(report, path):
    """Row by row: a long run that is cut off leaves what it has measured."""
    if path:
        Path(path).write_text(json.dumps(report, indent=1) + "\n")
