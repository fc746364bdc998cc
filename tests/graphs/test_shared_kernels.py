"""`SharedKernels`: once for all folds of a data set."""

import networkx
import numpy as np

from keras_topo.graphs import (
    GraphPreprocessor,
    SharedKernels,
    compute_kernels,
    dense_kernels,
)


def test_once_for_all_lists(tmp_path):
    preprocessor = GraphPreprocessor()
    graphs = preprocessor.read(
        [networkx.gnp_random_graph(4 + k, 0.5, seed=k) for k in range(6)]
    )
    calls = []

    def kernel(adjacency, scale, labels=None):
        calls.append(1)
        found = scale * adjacency.toarray()
        return found if labels is None else found + labels

    shared = SharedKernels(graphs, cache=tmp_path)
    for ids in ([0, 3], [5, 1, 1], range(6)):
        some = [graphs[k] for k in ids]
        found = shared.compute(some, kernel, scale=2)
        expected = compute_kernels(some, kernel, cache=False, scale=2)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (
        len(calls) == 6 + 2 + 3 + 6
    )  # All kernels once, and the expected values.
    # Other options or labels are other kernels.
    for labels_of in (lambda g: [7] * len(g), lambda g: [8] * len(g)):
        (found,) = shared.compute(graphs[2:3], kernel, labels_of, scale=1)
        (expected,) = compute_kernels(
            graphs[2:3],
            kernel,
            cache=False,
            labels=labels_of(graphs[2:3]),
            scale=1,
        )
        np.testing.assert_array_equal(found, expected)
    assert len(list(tmp_path.glob("*.kernels"))) == 3
    assert shared.has(graphs[:2])
    assert not shared.has(preprocessor.read([networkx.path_graph(3)]))


def test_a_preprocessor_gives_the_same():
    """Also for graphs that are not in the data set."""
    options = {
        "kernel": "random_walk+labeled_walk",
        "return_steps": 3,
        "clustering": True,
        "cache": False,
    }
    plain, shared = GraphPreprocessor(**options), GraphPreprocessor(**options)
    graphs = plain.read(
        [networkx.gnp_random_graph(4 + k, 0.5, seed=k) for k in range(6)]
    )
    shared.shared = SharedKernels(graphs, cache=False)
    plain.adapt(graphs[:4])
    shared.adapt(graphs[:4])
    assert shared.get_config() == plain.get_config()
    others = plain.read([networkx.path_graph(5)])
    for some in (graphs[3:], [graphs[0], *others]):
        for a, b in zip(shared(some), plain(some), strict=True):
            for name in ("nodes", "kernel"):
                np.testing.assert_array_equal(a[name], b[name])


def test_results_are_not_kept_without_end():
    graphs = GraphPreprocessor().read([networkx.path_graph(3)])
    shared = SharedKernels(graphs, cache=False)
    for n in range(1, 12):
        (found,) = shared.compute(
            graphs, dense_kernels, kind="steps", sizes=(n,)
        )
        assert found.shape == (1, 3, 3)
    assert len(shared._found) == shared.OPEN
