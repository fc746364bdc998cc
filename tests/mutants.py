"""Puts one error at a time into the code, and checks that tests notice it.

    python -m tests.mutants
    python -m tests.mutants --only noise --only "links:" --jobs 2

A mutant is a small edit that makes results wrong without an exception: a sum
along the wrong axis, statistics of the wrong graphs, an order that is lost.
First the tests have to pass as they are, in a copy of the tree. Then every
mutant is put into a copy of its own, where one of its tests has to fail. Exits
with 1 if a mutant survives, cannot be imported, or no longer applies. The
backend is that of `KERAS_BACKEND`; on JAX, most tests of graphs do not run.
`tests/mutant_table.py` has the mutants. Needs `fork`.
"""

import argparse
import concurrent.futures
import configparser
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutant_table import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
# An endless loop counts as an error that was detected.
LONGEST = 900
# Fork from a process that has already imported the slow packages.
PROCESSES = multiprocessing.get_context("forkserver")
IMPORTED = ["keras", "pytest", "scipy.sparse.csgraph"]


def main(arguments=None, root=ROOT, mutants=MUTANTS):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="mutants whose name contains this; may be repeated",
    )
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="and do nothing")
    options = parser.parse_args(arguments)
    chosen = [
        mutant
        for mutant in mutants
        if not options.only or any(n in mutant.name for n in options.only)
    ]
    if not chosen:
        parser.error(f"`--only` expects a part of a name; {options.only}")
    if options.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    for mutant in chosen:
        mutated(mutant, root)  # Check this first, before slow steps.

    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ.setdefault(name, "1")
    PROCESSES.set_forkserver_preload(IMPORTED)
    tests = sorted({path for mutant in chosen for path in mutant.tests})
    print(f"without mutants: {len(tests)} files of tests ...", flush=True)
    status, output = run(tests, root)
    if status:
        print(output, f"without mutants: exit status {status}", sep="\n")
        return 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        found = pool.map(lambda mutant: judge(mutant, root), chosen)
        wrong = 0
        for mutant, (killed, about) in zip(chosen, found, strict=True):
            wrong += not killed
            print(f"{mutant.name}: {about}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} mutants killed")
    return int(wrong > 0)


def judge(mutant, root):
    """Whether tests detect a mutant, and a line about it."""
    status, output = run(mutant.tests, root, mutant)
    if status == 0:
        return False, "SURVIVED " + " ".join(mutant.tests)
    if status is None:
        return True, f"killed (no end within {LONGEST} s)"
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if status == 1 and failed:
        return True, f"killed by {failed[0]}"
    # If tests cannot be collected, they prove nothing.
    return False, f"NO MUTANT, pytest ended with {status}\n{output}"


def run(tests, root, mutant=None):
    """Runs tests in a copy of the tree: pytest's exit status and output."""
    with tempfile.TemporaryDirectory() as name:
        copy, log = Path(name).resolve() / "tree", Path(name) / "log"
        copy_tree(root, copy)
        if mutant is not None:
            (copy / mutant.file).write_text(mutated(mutant, root))
        process = PROCESSES.Process(
            target=run_pytest, args=(tests, copy, root, log)
        )
        process.start()
        process.join(LONGEST)
        process.kill()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        return None if killed else process.exitcode, log.read_text()


def run_pytest(tests, copy, root, log):
    """In a process of its own, in which nothing of the tree is imported."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    places = [p for p in sys.path if Path(p or ".").resolve() != root]
    sys.path[:] = [str(copy), *places]
    # Kernels of a mutant must not be shared.
    os.environ["KERAS_TOPO_CACHE"] = str(copy.parent / "cache")
    os.environ.setdefault("KERAS_TOPO_DATA", str(root.parent / "shared/data"))
    # A mutant may have the size and time of the original file.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    options = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    if os.environ.get("KERAS_BACKEND") == "jax":
        options += ["-m", "not tensorflow_only"]
    import pytest

    sys.exit(int(pytest.main([*options, *tests])))


def copy_tree(root, copy):
    """Copies the files of a checkout that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in set(listed.stdout.split("\0")):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    # Packages that stand elsewhere than where they are imported from, which
    # would be those of the installed checkout otherwise.
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    places = setup.get("options", "package_dir", fallback="").strip()
    for line in places.splitlines():
        package, folder = (part.strip() for part in line.split("="))
        (copy / package.replace(".", "/")).symlink_to(copy / folder)


def mutated(mutant, root):
    """The text of a file with the mutant in it."""
    text = (root / mutant.file).read_text()
    count = text.count(mutant.source)
    if count != 1:
        raise ValueError(
            f"the mutant {mutant.name!r} expects its source once in "
            f"{mutant.file}. Received: {count} times\n{mutant.source}"
        )
    return text.replace(mutant.source, mutant.replacement)


if __name__ == "__main__":
    sys.exit(main())
