"""Kernels of many graphs, kept on disk under a hash of what they come from."""

import hashlib
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from keras_topo.annotations import StrPath
from keras_topo.graphs.cache_files import (
    Entry,
    NotKept,
    find_files,
    load_entry,
    make_room,
    remove,
)
from keras_topo.graphs.code_keys import UnknownState, as_bytes, code_key
from keras_topo.graphs.graph import Graph

_told = set()
_Item = TypeVar("_Item")


def cache_folder() -> Path:
    """`$KERAS_TOPO_CACHE`, or `~/.cache/keras_topo`."""
    folder = os.environ.get("KERAS_TOPO_CACHE") or "~/.cache/keras_topo"
    return Path(folder).expanduser()


def compute_kernels(
    graphs: Sequence[Graph],
    kernel: Callable[..., Any],
    cache: bool | StrPath = True,
    progress: bool = True,
    dtype: DTypeLike = "float32",
    labels: Sequence[ArrayLike] | None = None,
    **options: Any,
) -> list[np.ndarray]:
    """A dense kernel, or features, for every graph of a list.

    Results are kept in a file named by a hash of all adjacency matrices, of
    the labels, of the options and of what the kernel computes: its code,
    defaults, closure, and the functions and globals that it names. A later
    call with the same hash reads them from there as they are used
    (memory-mapped), so that they may be larger than memory. What a kernel
    reads from files or the environment is not part of the hash.

    After each new file, those used least recently are removed until all
    together are below `$KERAS_TOPO_CACHE_LIMIT`, in gigabytes (10 by default);
    kernels that alone are larger are computed each time. Kernels whose file is
    removed while they are in use stay usable. (On Windows such a file cannot
    be removed, and stays.)

    Where nothing can be kept (in a folder that is read-only or full, or for a
    kernel of unknown state, such as one that holds a generator of random
    numbers), the results are the same, in memory, with one note or warning.

    Args:
        graphs: list of `Graph`s.
        kernel: a callable from an adjacency matrix and options to an array,
            such as `random_walk_kernel`.
        cache: `True` for `cache_folder()`, a folder, or `False`.
        progress: bool, whether a progress bar is shown (on a terminal).
        dtype: of the results.
        labels: list of arrays, one per graph, such as the labels of its nodes,
            which the kernel gets as `labels`. A kernel takes nothing else of
            a graph beside its adjacency matrix. `None` for none.
        **options: of the kernel.

    Returns:
        A list of arrays, one for each graph; from the cache, read-only ones.

    Raises:
        ValueError: if `KERAS_TOPO_CACHE_LIMIT` is not a number of gigabytes, or
            `labels` are not as many as the graphs.

    Example:

    >>> from keras_topo.graphs import Graph, random_walk_kernel
    >>> graphs = [Graph.from_edges([[0, 1], [1, 2]], num_nodes=3)]
    >>> (kernel,) = compute_kernels(graphs, random_walk_kernel, length=3)
    >>> kernel.shape
    (3, 3)
    """
    dtype = np.dtype(dtype)
    if labels is not None:
        labels = [np.asarray(each) for each in labels]
        if len(labels) != len(graphs):
            raise ValueError(
                f"`labels` expects an array for each of {len(graphs)} graphs. "
                f"Received: {len(labels)}"
            )
    name = getattr(kernel, "func", kernel)
    name = str(getattr(name, "__name__", type(name).__name__))

    def compute():
        for k, graph in enumerate(progress_bar(graphs, name, progress)):
            own = {} if labels is None else {"labels": labels[k]}
            found = kernel(graph.adjacency, **own, **options)
            yield np.asarray(found, dtype)

    folder = None
    if cache and graphs and not dtype.hasobject:
        folder = _folder(cache)
    if folder is None:
        return list(compute())
    limit = cache_limit()
    try:
        key = _key(graphs, labels, kernel, options, dtype)
    except UnknownState as error:
        _tell_once(
            f"kernels of {name} are not kept on disk: no hash tells whether it "
            f"has changed, since it refers to {error}",
            warn=True,
        )
        return list(compute())
    title = re.sub(r"\W", "", name)[:40] or "kernel"
    path = folder / f"{title}-{key}.kernels"
    found = load_entry(path, dtype)
    if found is None:
        found = _compute_and_keep(path, compute, dtype, limit)
    return found


class SharedKernels:
    """Kernels of the graphs of a data set, computed together once.

    `compute_kernels` keeps the kernels of whole lists. Folds of a data set
    divide the same graphs in different ways, so that it would compute them
    again for each fold.

    Args:
        graphs: list of `Graph`s, all that there are.
        cache: as that of `compute_kernels`.

    Example:

    >>> train, _, _ = keras_topo.graphs.induced_cycle_dataset(10, (4, 1, 1))
    >>> preprocessor = keras_topo.graphs.GraphPreprocessor()
    >>> preprocessor.shared = SharedKernels(train.graphs)
    >>> for fold in (train.graphs[:6], train.graphs[2:]):
    ...     _ = preprocessor.adapt(fold)
    """

    # Results that are kept open; of files the system keeps what is used.
    OPEN = 8

    def __init__(
        self, graphs: Sequence[Graph], cache: bool | StrPath = True
    ) -> None:
        self.graphs, self.cache = list(graphs), cache
        self._places = {id(graph): k for k, graph in enumerate(self.graphs)}
        self._found = {}

    def has(self, graphs: Sequence[Graph]) -> bool:
        """Whether all of a list are among the graphs of the data set."""
        return all(id(graph) in self._places for graph in graphs)

    def compute(
        self,
        graphs: Sequence[Graph],
        kernel: Callable[..., Any],
        labels_of: Callable[[list[Graph]], Sequence[ArrayLike]] | None = None,
        **options: Any,
    ) -> list[np.ndarray]:
        """As `compute_kernels`.

        Args:
            graphs: list of `Graph`s, among those of the data set.
            kernel, **options: as in `compute_kernels`.
            labels_of: function from a list of graphs to the labels of each, or
                `None`.
        """
        labels = None if labels_of is None else labels_of(self.graphs)
        values = labels and [np.asarray(x).tolist() for x in labels]
        key = kernel, repr((sorted(options.items()), values))
        if key not in self._found:
            while len(self._found) >= self.OPEN:
                del self._found[next(iter(self._found))]
            self._found[key] = compute_kernels(
                self.graphs, kernel, self.cache, labels=labels, **options
            )
        found = self._found[key]
        return [found[self._places[id(graph)]] for graph in graphs]


def clear_cache(folder: StrPath | None = None) -> int:
    """Removes all kernels that `compute_kernels` has kept.

    It also removes what killed processes have left, and files of earlier
    versions of this package. Other files are left alone. Kernels in use stay
    usable. (On Windows their files cannot be removed, and stay.)

    Args:
        folder: as `cache` of `compute_kernels`; `None` for `cache_folder()`.

    Returns:
        int, the bytes that have been freed.

    Example:

    >>> from keras_topo.graphs import Graph, compute_kernels, diffusion_kernel
    >>> graphs = [Graph.from_edges([[0, 1], [1, 2]], num_nodes=3)]
    >>> kernels = compute_kernels(graphs, diffusion_kernel, cache="kernels")
    >>> clear_cache("kernels") > 0
    True
    """
    folder = _folder(True if folder is None else folder)
    files = [] if folder is None else find_files(folder)
    return sum(size for _, _, size, path in files if remove(path))


def cache_limit() -> float:
    """`$KERAS_TOPO_CACHE_LIMIT`, 10 gigabytes unless it is set, in bytes."""
    text = os.environ.get("KERAS_TOPO_CACHE_LIMIT") or "10"
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise ValueError(
            "`KERAS_TOPO_CACHE_LIMIT` expects a number of gigabytes, not "
            f"negative. Received: KERAS_TOPO_CACHE_LIMIT={text!r}"
        )
    return 1e9 * limit


def progress_bar(
    items: Sequence[_Item],
    title: str,
    enabled: bool = True,
    interval: float = 0.5,
) -> Iterator[_Item]:
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


def _folder(cache: Literal[True] | StrPath) -> Path | None:
    """The folder that an argument stands for; `None` where there is no home."""
    try:
        return cache_folder() if cache is True else Path(cache).expanduser()
    except RuntimeError as error:
        _tell_once(f"note: kernels are not kept on disk ({error})")
        return None


def _key(graphs, labels, kernel, options, dtype):
    digest = hashlib.sha256()
    digest.update(code_key(kernel, options, dtype, len(graphs)).encode())
    values = labels and [x.tolist() for x in labels]
    digest.update(repr(values).encode())
    for graph in graphs:
        adjacency = graph.adjacency
        arrays = (
            np.asarray(adjacency.indptr, "int64"),
            np.asarray(adjacency.indices, "int64"),
            adjacency.data,
        )
        head = adjacency.format, adjacency.shape, [len(a) for a in arrays]
        digest.update(repr((*head, adjacency.data.dtype)).encode())
        for array in arrays:
            digest.update(as_bytes(array))
    return digest.hexdigest()[:32]


def _compute_and_keep(path, compute, dtype, limit):
    """Kernels from a new entry; from memory, if there can be none."""
    note = f"note: kernels are not kept in {path.parent}"
    try:
        entry = Entry(path, dtype, limit)
    except NotKept as reason:
        _tell_once(f"{note} ({reason})")
        return list(compute())
    kernels, held = compute(), []
    try:
        for kernel in kernels:
            held = [kernel]
            entry.add(kernel)
        held = []
        entry.complete()
    except NotKept as reason:
        _tell_once(f"{note} ({reason})")
        kept = entry.read()
        entry.discard()
        return list(compute()) if kept is None else [*kept, *held, *kernels]
    finally:
        entry.discard()
    make_room(path, limit)
    found = load_entry(path, dtype)
    # Another process may have removed it already.
    return list(compute()) if found is None else found


def _tell_once(message, warn=False):
    """Prints a message, or warns of it, once in a process."""
    if message in _told:
        return
    _told.add(message)
    if warn:
        warnings.warn(message, stacklevel=3)
    else:
        print(message, file=sys.stderr)
