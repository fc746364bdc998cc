"""The cache of kernels: what its entries are, and what they survive."""

import errno
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from cached_graphs import (
    GRAPHS,
    assert_same,
    check,
    entries,
    path_graph,
    power_of,
    scaled,
    thirds,
)

from keras_topo.graphs import (
    Graph,
    clear_cache,
    compute_kernels,
    random_walk_kernel,
    return_probabilities,
)
from keras_topo.graphs import cache as cache_module
from keras_topo.graphs.cache_files import Entry


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """Notes that are shown once per process are shown once per test."""
    monkeypatch.setattr(cache_module, "_told", set())


def test_an_entry_is_computed_once_and_mapped(tmp_path):
    log = str(tmp_path / "log")

    def logged(adjacency):
        with open(log, "a") as file:
            file.write("x")
        return adjacency.toarray()

    folder = tmp_path / "cache"
    for _ in range(2):
        kernels = compute_kernels(GRAPHS, logged, cache=folder)
        assert not any(k.flags.writeable or k.flags.owndata for k in kernels)
    assert Path(log).read_text() == "xxx"
    assert [p.name[:7] for p in folder.iterdir()] == ["logged-"]
    compute_kernels(GRAPHS, logged, cache=False)
    assert Path(log).read_text() == "xxxxxx"
    assert compute_kernels([], logged, cache=folder) == []


def test_shapes_and_dtypes(tmp_path):
    assert check(tmp_path, random_walk_kernel, length=[1, 3]) == 1
    assert check(tmp_path, return_probabilities, steps=0) == 2
    assert check(tmp_path, lambda a: a.sum()) == 3
    assert check(tmp_path, lambda a: a.toarray().T[:, ::2]) == 4
    for number, dtype in enumerate(("float64", ">f4", "bool", "complex64")):
        assert check(tmp_path, thirds, dtype=dtype) == 5 + number


def test_the_key_has_options_graphs_and_dtype(tmp_path):
    changes = [
        {},
        {"length": [1, 4]},
        {"dtype": "float64"},
        {"dtype": "float16"},
        {"halt": 0.5},
        {"halt": np.float32(0.25)},
        {"graphs": [Graph(2 * GRAPHS[0].adjacency), *GRAPHS[1:]]},
        {"graphs": GRAPHS[:2]},
        {"graphs": [*GRAPHS, GRAPHS[0]]},
        {"graphs": GRAPHS[::-1]},
        # The same targets and edge weights from other sources.
        {"graphs": [Graph.from_edges([[0, 1], [0, 2]], 3, directed=True)]},
        {"graphs": [Graph.from_edges([[0, 1], [1, 2]], 3, directed=True)]},
    ]
    for number, change in enumerate(changes):
        options = {"length": [1, 3], **change}
        assert check(tmp_path, random_walk_kernel, **options) == number + 1


def test_the_key_has_the_dtype_of_weights(tmp_path):
    # Of weights that float32 holds; a kernel may compute in their dtype.
    matrix = scipy.sparse.csr_array([[0.0, 0.5], [0.5, 0.0]])
    for number, dtype in enumerate(("float32", "float64")):
        graph = types.SimpleNamespace(adjacency=matrix.astype(dtype))
        assert check(tmp_path, thirds, [graph], dtype="float64") == number + 1
    # Beyond what float32 holds.
    graph = types.SimpleNamespace(adjacency=matrix + 1e-12 * matrix)
    assert check(tmp_path, thirds, [graph], dtype="float64") == 3


@pytest.fixture
def entry(tmp_path):
    """An entry, and a function that checks that it is computed again."""
    expected = compute_kernels(GRAPHS[:2], thirds, cache=tmp_path)
    expected = [kernel.copy() for kernel in expected]
    (path,) = entries(tmp_path)
    whole = path.read_bytes()

    def check(damaged, capsys):
        path.write_bytes(damaged)
        assert_same(
            compute_kernels(GRAPHS[:2], thirds, cache=tmp_path), expected
        )
        assert capsys.readouterr().err.count("computed again") == 1
        assert path.read_bytes() == whole

    return whole, check


def test_an_entry_with_any_flipped_byte_is_computed_again(
    entry, capsys, monkeypatch
):
    monkeypatch.setattr(os, "fsync", lambda file: None)  # Some milliseconds.
    whole, check = entry
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        check(damaged, capsys)


def test_an_entry_of_another_length_is_computed_again(entry, capsys):
    whole, check = entry
    for length in (0, 1, 30, 50, len(whole) // 2, len(whole) - 1):
        check(whole[:length], capsys)
    check(whole + b"\0", capsys)
    check(whole + whole, capsys)
    check(bytes(len(whole)), capsys)


def test_an_entry_under_another_name_or_layout_is_computed_again(
    tmp_path, capsys, monkeypatch
):
    compute_kernels(GRAPHS, lambda a: a.toarray() + 1, cache=tmp_path)
    (other,) = entries(tmp_path)
    compute_kernels(GRAPHS, thirds, cache=tmp_path)
    (path,) = set(entries(tmp_path)) - {other}
    path.write_bytes(other.read_bytes())
    check(tmp_path, thirds)
    assert "other kernels" in capsys.readouterr().err
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("keras_topo.graphs.cache_files.LAYOUT", b"KTOPO-99")
        check(tmp_path, thirds)
    assert capsys.readouterr().err == ""
    check(tmp_path, thirds)
    assert "another layout" in capsys.readouterr().err


def set_limit(monkeypatch, size):
    monkeypatch.setenv("KERAS_TOPO_CACHE_LIMIT", repr(size / 1e9))


def test_the_least_recently_used_go(tmp_path, monkeypatch):
    graphs = [path_graph(30)]

    def compute(n):
        return compute_kernels(graphs, power_of(n), cache=tmp_path)

    def add(n):
        before = set(entries(tmp_path))
        compute(n)
        (path,) = set(entries(tmp_path)) - before
        os.utime(path, (n, n))
        return path

    one, two = add(1), add(2)
    old = tmp_path / f"<lambda>-{'0' * 32}.values"
    old.write_bytes(bytes(1000))
    os.utime(old, (1.5, 1.5))
    set_limit(monkeypatch, 3.5 * one.stat().st_size)
    mapped = compute(1)  # Used just now.
    three = add(4)
    assert entries(tmp_path) == sorted([one, two, three]) and old.exists()
    four = add(5)
    assert entries(tmp_path) == sorted([one, three, four])
    assert not old.exists()
    # Files that are in use may go.
    set_limit(monkeypatch, 1.5 * one.stat().st_size)
    # The newest file stays, whatever the times of others.
    os.utime(four, (time.time() + 1e6,) * 2)
    five = add(6)
    assert entries(tmp_path) == [five]
    np.testing.assert_array_equal(mapped[0], graphs[0].adjacency.toarray() + 1)


def test_kernels_beyond_the_limit_are_not_kept(tmp_path, capsys, monkeypatch):
    for size in (0, 40, 150, 250):
        set_limit(monkeypatch, size)
        assert check(tmp_path, thirds) == 0
        assert list(tmp_path.iterdir()) == []
        note = capsys.readouterr().err
        assert note.count("note") == 1 and "larger" in note
    set_limit(monkeypatch, 400)
    assert check(tmp_path, thirds) == 1


@pytest.mark.parametrize("limit", ["ten", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch, limit):
    monkeypatch.setenv("KERAS_TOPO_CACHE_LIMIT", limit)
    with pytest.raises(ValueError, match=f"Received: .*{limit}"):
        compute_kernels(GRAPHS, thirds, cache=tmp_path)


def test_what_killed_processes_leave_is_removed(tmp_path):
    key = "a" * 32
    old, new, former = (
        tmp_path / f"thirds-{key}.{name}.partial"
        for name in ("kernels." + "b" * 16, "kernels." + "c" * 16, "4711")
    )
    for path in (old, new, former):
        path.write_bytes(b"x")
    for path in (old, former):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    check(tmp_path, thirds)
    assert list(tmp_path.glob("*.partial")) == [new]


def test_clear(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))
    assert clear_cache() == 0
    kernels = compute_kernels(GRAPHS, thirds)
    folder = tmp_path / "cache"
    (path,) = folder.iterdir()
    key = path.name.removeprefix("thirds-").removesuffix(".kernels")
    freed = path.stat().st_size
    for name in (
        f"random_walk_kernel-{key}.values",
        f"random_walk_kernel-{key}.npy",
        f"<lambda>-{key}.values",
        f"<lambda>-{key}.123.partial",
        f"f-{key}.kernels.{'a' * 16}.partial",
    ):
        (folder / name).write_bytes(b"1234")
        freed += 4
    others = {
        "features.npy",
        "notes.values",
        f"f-{key}.txt",
        f"f-{key[1:]}.npy",
        f"f-{key}.kernels.old",
        f"{key}.kernels",
    }
    for name in others:
        (folder / name).touch()
    (folder / f"folder-{key}.kernels").mkdir()
    assert clear_cache() == freed
    assert {p.name for p in folder.iterdir() if p.is_file()} == others
    assert_same(kernels, compute_kernels(GRAPHS, thirds, cache=False))
    assert clear_cache(str(folder)) == 0


def test_without_a_folder_to_write_to(tmp_path, capsys, monkeypatch):
    def check_note():
        check("no matter", thirds)
        assert capsys.readouterr().err.count("note") == 1

    def check(_, kernel):
        expected = compute_kernels(GRAPHS, kernel, cache=False)
        for _ in range(2):
            assert_same(compute_kernels(GRAPHS, kernel), expected)

    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "{below}"):
        monkeypatch.setenv("KERAS_TOPO_CACHE", str(folder))
        check_note()
        assert clear_cache() == 0
    monkeypatch.setenv("KERAS_TOPO_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:

        def refuse(path, mode, *_, **__):
            if "x" in mode:
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            raise FileNotFoundError

        patch.setattr(Path, "open", refuse)
        check_note()
    compute_kernels(GRAPHS, thirds)
    (path,) = (tmp_path / "cache").iterdir()
    path.unlink()
    path.mkdir()
    check_note()
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [path.name]


def test_without_a_home(capsys, monkeypatch):
    pwd = pytest.importorskip("pwd")

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("KERAS_TOPO_CACHE", raising=False)
    for _ in range(2):
        compute_kernels(GRAPHS, thirds)
    assert clear_cache() == 0
    assert capsys.readouterr().err.count("note") == 1


class FullDisk:
    """A file on a disk with room for only a few more bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: min(7, self.room)])
        self.room -= written
        return written

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("room", [0, 10, 16, 100, 200, "fsync"])
def test_a_full_disk(tmp_path, capsys, monkeypatch, room, lost):
    start = Entry.__init__

    def fill(entry, *arguments):
        start(entry, *arguments)
        entry.file = FullDisk(entry.file, 10**6 if room == "fsync" else room)

    def fail(_):
        if lost:
            for path in tmp_path.glob("*.partial"):
                path.write_bytes(bytes(path.stat().st_size))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Entry, "__init__", fill)
    if room == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif lost:
        monkeypatch.setattr(Entry, "read", lambda entry: None)
    assert check(tmp_path, thirds) == 0
    assert list(tmp_path.iterdir()) == []
    assert "No space left" in capsys.readouterr().err


def test_a_full_disk_does_not_compute_twice(tmp_path, monkeypatch):
    calls = tmp_path / "calls"

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def logged(adjacency, log):
        with open(log, "a") as file:
            file.write("x")
        return adjacency.toarray()

    monkeypatch.setattr(os, "fsync", fail)
    compute_kernels(GRAPHS, logged, cache=tmp_path / "cache", log=str(calls))
    assert calls.read_text() == "xxx"


def test_errors_of_a_kernel_are_its_own(tmp_path):
    def fail(adjacency):
        if adjacency.shape[0] == 5:
            raise OSError("the kernel's")
        return adjacency.toarray()

    with pytest.raises(OSError, match="the kernel's"):
        compute_kernels(GRAPHS, fail, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_entry(tmp_path, capsys):
    """The second begins while the first writes, and is the first to end."""
    expected = compute_kernels(GRAPHS, thirds, cache=tmp_path)
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    clear_cache(tmp_path)
    one, two = (Entry(path, np.dtype("float32"), 1e9) for _ in range(2))
    for kernel in expected[:2]:
        one.add(kernel)
    for kernel in expected:
        two.add(kernel)
    two.complete()
    assert path.read_bytes() == whole
    one.add(expected[2])
    one.complete()
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_threads(tmp_path, capsys, monkeypatch):
    """Even if file names do not distinguish processes."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    graphs = [path_graph(n) for n in range(2, 20)]
    oracles = [
        compute_kernels(graphs, scaled, cache=False, factor=n) for n in range(3)
    ]
    one = len(oracles[0]) and sum(k.nbytes for k in oracles[0])
    set_limit(monkeypatch, 2.5 * one)
    wrong = []

    def work(seed):
        try:
            for n in np.random.default_rng(seed).integers(3, size=20):
                found = compute_kernels(
                    graphs, scaled, cache=tmp_path, factor=int(n)
                )
                assert_same(found, oracles[n])
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and capsys.readouterr().err == ""
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line(tmp_path, capsys):
    """It leaves no entry or a complete one, and rarely a partial file."""
    files = {
        cache_module.__file__,
        sys.modules[Entry.__module__].__file__,
    }
    expected = compute_kernels(GRAPHS, thirds, cache=False)

    def interrupt(line):
        """Whether the code has that many lines."""

        def trace(frame, event, _):
            nonlocal line
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                line -= 1
                if line < 0:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            compute_kernels(GRAPHS, thirds, cache=tmp_path)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    line = left = 0
    while interrupt(line):
        left += len(list(tmp_path.glob("*.partial")))
        assert_same(compute_kernels(GRAPHS, thirds, cache=tmp_path), expected)
        assert capsys.readouterr().err == ""
        assert clear_cache(tmp_path)
        line += 1
    assert line > 100 and left < 5


@pytest.mark.slow
@pytest.mark.tensorflow_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_are_killed():
    """In full: `python -m tests.cache_kills --rounds 100`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cache_kills", "--rounds=3"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
