"""Kernels of many graphs, kept on disk under a hash of what they come from."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

# Part of every key: raised when a kernel's definition changes.
VERSION = 1


def cache_folder():
    """`$KERAS_TOPO_CACHE`, or `~/.cache/keras_topo`."""
    folder = os.environ.get("KERAS_TOPO_CACHE") or "~/.cache/keras_topo"
    return Path(folder).expanduser()


def compute_kernels(
    graphs, kernel, cache=True, progress=True, dtype="float32", **options
):
    """A dense kernel, or features, for every graph of a list.

    Results are kept in files named by a hash of all adjacency matrices, the
    kernel and its options, and found again by it. They are read from there
    when they are used (memory-mapped), so that they may be larger than memory.

    Args:
        graphs: list of `Graph`s.
        kernel: a function of this package from an adjacency matrix and
            options to an array, such as `random_walk_kernel`.
        cache: `True` for `cache_folder()`, a folder, or `False`.
        progress: bool, whether a progress bar is shown (on a terminal).
        dtype: of the results.
        **options: of the kernel, values that JSON can hold.

    Returns:
        A list of arrays, one for each graph; from the cache, read-only ones.

    Example:

    >>> kernels = compute_kernels(graphs, random_walk_kernel, length=3)
    """
    results = (
        np.asarray(kernel(graph.adjacency, **options), dtype)
        for graph in progress_bar(graphs, f"{kernel.__name__}", progress)
    )
    if not cache or not graphs:
        return list(results)
    folder = cache_folder() if cache is True else Path(cache).expanduser()
    key = _key(graphs, kernel.__name__, {**options, "dtype": str(dtype)})
    path = folder / f"{kernel.__name__}-{key}"
    found = _load(path, dtype)
    if found is None:
        _save(path, results)
        found = _load(path, dtype)
    return found


def progress_bar(items, title, enabled=True, interval=0.5):
    """Yields `items` and shows how far they are, on a terminal."""
    started = shown = time.monotonic()
    enabled = enabled and sys.stderr.isatty()
    for count, item in enumerate(items):
        now = time.monotonic()
        if enabled and now - shown > interval:
            shown = now
            left = (now - started) / count * (len(items) - count)
            print(
                f"\r{title}: {count:,} of {len(items):,} graphs, about "
                f"{left:.0f} s left ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        yield item
    if enabled and shown != started:
        print(f"\r{title}: {len(items):,} graphs.{'':24}", file=sys.stderr)


def _key(graphs, name, options):
    digest = hashlib.sha256()
    digest.update(json.dumps([VERSION, name, options], sort_keys=True).encode())
    for graph in graphs:
        adjacency = graph.adjacency
        adjacency.sort_indices()
        for array, dtype in (
            (adjacency.indptr, "int64"),
            (adjacency.indices, "int64"),
            (adjacency.data, "float32"),
        ):
            digest.update(np.int64(len(array)).tobytes())
            digest.update(np.ascontiguousarray(array, dtype).tobytes())
    return digest.hexdigest()[:32]


def _save(path, kernels):
    """One flat file of numbers; then one of shapes, which completes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    shapes = []
    try:
        with partial.open("wb") as file:
            for kernel in kernels:
                shapes.append(kernel.shape)
                file.write(np.ascontiguousarray(kernel).data)
        os.replace(partial, path.with_suffix(".values"))
        with partial.open("wb") as file:
            np.save(file, np.array(shapes))
        os.replace(partial, path.with_suffix(".npy"))
    except OSError as error:
        raise OSError(
            f"the kernels cannot be kept in {path.parent} ({error}); "
            "KERAS_TOPO_CACHE names another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _load(path, dtype):
    """The kernels of a file; `None` where there is none that can be read."""
    try:
        with path.with_suffix(".npy").open("rb") as stream:
            shapes = np.load(stream, allow_pickle=False)
        ends = np.cumsum(shapes.prod(axis=1))
        file = path.with_suffix(".values")
        values = np.zeros(0, dtype)
        if ends[-1] or file.stat().st_size:  # Nothing cannot be mapped.
            values = np.memmap(file, dtype, mode="r")
        if len(values) != ends[-1]:
            raise ValueError(f"{len(values)} numbers instead of {ends[-1]}")
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001
        # Whatever is wrong with it, the file can be computed again.
        print(
            f"note: the cached kernels in {path.parent} cannot be read and "
            f"are computed again ({error})",
            file=sys.stderr,
        )
        return None
    # As plain arrays: a view of the type memmap costs more than its numbers.
    pieces = np.split(np.asarray(values), ends[:-1])
    return [p.reshape(s) for p, s in zip(pieces, shapes, strict=True)]
