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
    folder = os.environ.get("KERAS_TOPO_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "keras_topo"


def compute_kernels(
    graphs, kernel, cache=True, progress=True, dtype="float32", **options
):
    """A dense kernel, or features, for every graph of a list.

    Results are kept in a file named by a hash of all adjacency matrices, the
    kernel and its options, and found again by it.

    Args:
        graphs: list of `Graph`s.
        kernel: a function of this package from an adjacency matrix and
            options to an array, such as `random_walk_kernel`.
        cache: `True` for `cache_folder()`, a folder, or `False`.
        progress: bool, whether a progress bar is shown (on a terminal).
        dtype: of the results.
        **options: of the kernel, values that JSON can hold.

    Returns:
        A list of arrays, one for each graph.

    Example:

    >>> kernels = compute_kernels(graphs, random_walk_kernel, length=3)
    """
    path = None
    if cache:
        folder = cache_folder() if cache is True else Path(cache)
        key = _key(graphs, kernel.__name__, {**options, "dtype": str(dtype)})
        path = folder / f"{kernel.__name__}-{key}.npz"
        found = _load(path)
        if found is not None:
            return found
    kernels = [
        np.asarray(kernel(graph.adjacency, **options), dtype)
        for graph in progress_bar(graphs, f"{kernel.__name__}", progress)
    ]
    if path is not None:
        _save(path, kernels)
    return kernels


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
    """One flat array and the shapes: thousands of members would be slow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            values=np.concatenate([k.ravel() for k in kernels]),
            shapes=np.array([k.shape for k in kernels]),
        )
    os.replace(partial, path)


def _load(path):
    """The kernels of a file; `None` where there is none that can be read."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            values, shapes = file["values"], file["shapes"]
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001
        # Whatever is wrong with it, the file can be computed again.
        print(
            f"note: the cached kernels in {path} cannot be read and are "
            f"computed again ({error})",
            file=sys.stderr,
        )
        return None
    ends = np.cumsum(shapes.prod(axis=1))
    pieces = np.split(values, ends[:-1])
    return [p.reshape(s) for p, s in zip(pieces, shapes, strict=True)]
