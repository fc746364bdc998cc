"""Graphs for the tests of the cache, and what it is held against."""

import numpy as np

from keras_topo.graphs import (
    Graph,
    compute_kernels,
)


def path_graph(n):
    edges = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    return Graph.from_edges(edges, n)


GRAPHS = [path_graph(n) for n in (2, 5, 3)]


def entries(folder):
    return sorted(folder.glob("*.kernels"))


def assert_same(found, expected):
    assert [k.shape for k in found] == [k.shape for k in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def check(folder, kernel, graphs=GRAPHS, **options):
    """Checks that the cache changes nothing; returns its number of entries."""
    expected = compute_kernels(graphs, kernel, cache=False, **options)
    for _ in range(2):
        found = compute_kernels(graphs, kernel, cache=folder, **options)
        assert_same(found, expected)
    return len(entries(folder))


def thirds(adjacency):
    return adjacency.toarray() / 3


def define(source, name="kernel", **scope):
    scope["__name__"] = "edited"
    exec(source, scope)
    return scope[name]


def power_of(n):
    return lambda a: a.toarray() ** n + n


def scaled(adjacency, factor=1.0, *, shift=0.0):
    return factor * adjacency.toarray() + shift
