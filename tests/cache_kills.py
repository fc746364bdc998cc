"""Kills processes that share the cache of kernels, and checks what they leave.

    python -m tests.cache_kills --rounds 100

Two processes ask for the same few kernels again and again, and compare every
answer with one that was computed without the cache. The folder has room for
some of the entries only, so that they are written and removed all the time.
In each round one of the two is killed at a random moment and another one takes
its place. Exits with 1 after a wrong kernel, an exception, or an entry that is
found to be damaged. Needs `fork`.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_topo.graphs import Graph, cache, compute_kernels

POWERS = range(1, 7)
NODES, GRAPHS = 96, 12
# Room for two of the six entries.
LIMIT = 2.5 * GRAPHS * NODES**2 * 4


def waves(adjacency, power):
    """Without a matrix product, whose threads a fork would not have."""
    matrix = adjacency.toarray()
    return np.cos(power * (matrix + matrix.sum(axis=0) + 0.1))


def compute(folder, power):
    return compute_kernels(
        graphs(), waves, cache=folder, progress=False, power=power
    )


def graphs():
    uniform = np.random.default_rng(0).random((GRAPHS, NODES, NODES))
    return [Graph(matrix < 0.05) for matrix in uniform]


def same(kernels, oracle):
    return len(kernels) == len(oracle) and all(
        map(np.array_equal, kernels, oracle)
    )


def work(folder, log, oracles):
    """Asks for kernels until there is a file `stop`; reports errors."""
    sys.stderr = log.open("a", buffering=1)
    load, loads = cache.load_entry, []

    def counted(*arguments):
        found = load(*arguments)
        loads.append(found is not None)
        return found

    cache.load_entry = counted
    with (folder / "answers").open("ab", buffering=0) as answers:
        while not (folder / "stop").exists():
            power = random.choice(POWERS)
            loads.clear()
            if not same(compute(folder, power), oracles[power]):
                raise AssertionError(f"wrong kernels of power {power}")
            answers.write(b"r" if loads[0] else b"c")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--longest", type=float, default=0.3, metavar="SECONDS")
    options = parser.parse_args(arguments)
    os.environ["KERAS_TOPO_CACHE_LIMIT"] = str(LIMIT / 1e9)
    oracles = {power: compute(False, power) for power in POWERS}
    processes = multiprocessing.get_context("fork")
    wrong = []

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log"

        def start():
            process = processes.Process(
                target=work, args=(folder, log, oracles)
            )
            process.start()
            return process

        workers = [start(), start()]
        for _ in range(options.rounds):
            time.sleep(random.uniform(0, options.longest))
            victim = random.randrange(2)
            if workers[victim].exitcode is not None:
                wrong.append("a process ended by itself")
            workers[victim].kill()
            workers[victim].join()
            workers[victim] = start()
        (folder / "stop").touch()
        for worker in workers:
            worker.join(60)
            if worker.exitcode != 0:
                wrong.append(f"a process ended with {worker.exitcode}")
                worker.kill()
        wrong += log.read_text().splitlines()

        # Each process that was killed during a write has left a file.
        inside = list(folder.glob("*.partial"))
        answers = (folder / "answers").read_bytes()
        with contextlib.redirect_stderr(io.StringIO()) as notes:
            for power in POWERS:
                if not same(compute(folder, power), oracles[power]):
                    wrong.append(f"wrong kernels of power {power} are left")
            for path in inside:
                os.utime(path, (0, 0))
            compute(folder, 0)
        wrong += notes.getvalue().splitlines()
        if list(folder.glob("*.partial")):
            wrong.append("files of killed processes have not been removed")

    print(
        f"{options.rounds} kills, {len(inside)} of them inside a write; "
        f"{len(answers):,} answers, {answers.count(b'r'):,} read from the "
        f"cache; {len(wrong)} failures"
    )
    print(*wrong[:20], sep="\n", end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
