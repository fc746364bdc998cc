"""Importance of edges: by definition, on a known motif, as a picture."""

import sys

import networkx
import numpy as np
import pytest

from keras_topo import GraphClassifier
from keras_topo.graphs import Graph, GraphPreprocessor
from keras_topo.visualize import edge_importance, plot_edge_importance

PATH = Graph.from_edges(
    [[0, 1], [1, 2], [2, 3], [3, 3]], 4, weights=[1.0, 2.0, 3.0, 9.0]
)


class Stub:
    """An estimator whose outputs are simple functions of the edges."""

    level = "graphs"

    def __init__(self, outputs, **attributes):
        self.outputs = outputs
        self.preprocessor = GraphPreprocessor()
        for name, value in attributes.items():
            setattr(self, name, value)

    def _fitted(self):
        pass

    def predict_raw(self, graphs):
        assert self.preprocessor.cache is False
        found = [np.float32(self.outputs(graph)) for graph in graphs]
        return np.stack(found) if self.level == "graphs" else found


def total(graph):
    return graph.adjacency.sum()


def test_a_number_is_compared_without_each_edge():
    estimator = Stub(lambda graph: [total(graph), -total(graph)])
    edges, importance = edge_importance(estimator, PATH)
    # Self-loops are ignored; both directions of an edge are removed.
    np.testing.assert_array_equal(edges, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_allclose(importance, [2, 4, 6])
    _, importance = edge_importance(estimator, PATH, target=1)
    np.testing.assert_allclose(importance, [-2, -4, -6])
    assert estimator.preprocessor.cache is True  # as it was


def test_directed_edges_go_one_by_one():
    graph = Graph.from_edges([[0, 1], [1, 0], [1, 2]], 3, directed=True)
    edges, importance = edge_importance(
        Stub(lambda graph: [total(graph)]), graph
    )
    np.testing.assert_array_equal(edges, [[0, 1], [1, 0], [1, 2]])
    np.testing.assert_allclose(importance, [1, 1, 1])


def test_log_odds_of_a_class():
    def logits(graph):
        return [0.1 * total(graph), 1.0, 0.5 * total(graph)]

    def log_odds(graph, index):
        odds = np.exp(logits(graph))
        p = odds[index] / odds.sum()
        return np.log(p / (1 - p))

    estimator = Stub(logits, classes=["a", "b", "c"])
    without = [
        Graph.from_edges(
            np.delete([[0, 1], [1, 2], [2, 3], [3, 3]], k, axis=0),
            4,
            weights=np.delete([1.0, 2.0, 3.0, 9.0], k),
        )
        for k in range(3)
    ]
    # The predicted class by default.
    for target, index in ((None, 2), ("a", 0), ("b", 1)):
        _, importance = edge_importance(estimator, PATH, target)
        expected = [
            log_odds(PATH, index) - log_odds(other, index) for other in without
        ]
        np.testing.assert_allclose(importance, expected, rtol=1e-4, atol=1e-5)


def test_the_prediction_of_a_node():
    estimator = Stub(
        lambda graph: graph.adjacency.sum(axis=1)[:, None], level="nodes"
    )
    _, importance = edge_importance(estimator, PATH, node=2)
    np.testing.assert_allclose(importance, [0, 2, 3])


@pytest.mark.parametrize(
    ("attributes", "arguments", "message"),
    [
        ({"classes": [0, 1]}, {"target": 2}, "`target`.*classes.*2"),
        ({}, {"target": 2}, "`target`.*0 to 1"),
        ({}, {"node": 0}, "`node` is for estimators of nodes"),
        ({"level": "nodes"}, {}, "`node`.*4 nodes.*None"),
        ({"level": "nodes"}, {"node": 4}, "`node`.*4 nodes.*4"),
    ],
)
def test_errors(attributes, arguments, message):
    estimator = Stub(lambda graph: [total(graph), 1.0], **attributes)
    with pytest.raises(ValueError, match=message):
        edge_importance(estimator, PATH, **arguments)


def test_more_errors():
    estimator = Stub(lambda graph: [total(graph)])
    with pytest.raises(ValueError, match="at least one edge"):
        edge_importance(estimator, Graph(np.eye(3)))
    with pytest.raises(ValueError, match="fit or from_preset first"):
        edge_importance(GraphClassifier(), PATH)
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="`names`.*4 nodes"):
        plot_edge_importance(estimator, PATH, names="ab")


def tree_with_motif(seed, motif):
    """A random tree, joined by an edge to a ring or a path of five nodes. The
    nodes of the ring or path come last."""
    tree = networkx.random_labeled_tree(12, seed=seed)
    part = networkx.cycle_graph(5) if motif else networkx.path_graph(5)
    graph = networkx.disjoint_union(tree, part)
    graph.add_edge(seed % 12, 12)
    return graph


@pytest.mark.slow
def test_the_edges_of_a_motif_matter():
    """Trained to tell graphs with a ring from graphs without one."""
    graphs = [tree_with_motif(seed, seed % 2) for seed in range(120)]
    y = [seed % 2 for seed in range(120)]
    model = GraphClassifier(
        GraphPreprocessor(cache=False), epochs=10, depth=1, verbose=0
    ).fit(graphs[:90], y[:90])
    assert (model.predict(graphs[90:]) == y[90:]).mean() > 0.9
    shares = []
    for graph in graphs[91:111:4]:
        edges, importance = edge_importance(model, graph, target=1)
        inside = (edges >= 12).all(axis=1)
        assert inside.sum() == 5 and len(edges) == 11 + 5 + 1
        shares.append(importance[inside].mean() - importance[~inside].mean())
    # Without one of its edges there is no ring.
    assert np.mean(shares) > 1 and min(shares) > 0


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.collections import LineCollection

    estimator = Stub(
        lambda graph: [total(graph), 10.0, 5.0 - total(graph)],
        classes=["a", "b", "c"],
    )
    graph = Graph.from_edges([[0, 1], [1, 2], [2, 0]], 4, node_labels=[*"CNOC"])
    figure = plot_edge_importance(estimator, graph)
    axis, bar = figure.axes
    assert axis.get_title().startswith("Class 'b', probability 0.9")
    assert "log-odds of class 'b'" in bar.get_ylabel()
    assert figure.get_supxlabel() == (
        "Red edges: without the edge class 'b' is less likely. Blue edges: it "
        "is more likely."
    )
    assert [text.get_text() for text in axis.texts] == ["C", "N", "O", "C"]
    lines = [x for x in axis.collections if isinstance(x, LineCollection)]
    assert len(lines[1].get_segments()) == 3
    figure.savefig(tmp_path / "edges.png")
    assert (tmp_path / "edges.png").stat().st_size > 10_000
    figure = plot_edge_importance(
        Stub(lambda graph: graph.adjacency.sum(axis=1)[:, None], level="nodes"),
        graph,
        node=1,
        title="Degrees",
    )
    assert figure.axes[0].get_title() == "Degrees"
    assert "value of node 1 is lower" in figure.get_supxlabel()


def test_kernels_of_a_few_graphs_at_a_time(monkeypatch):
    sizes = []

    class Counting(Stub):
        def predict_raw(self, graphs):
            sizes.append(len(graphs))
            return super().predict_raw(graphs)

    module = sys.modules["keras_topo.visualize.edge_importance"]
    monkeypatch.setattr(module, "MOST_ENTRIES", 2 * PATH.num_nodes**2)
    found = edge_importance(Counting(lambda graph: [total(graph)]), PATH)
    np.testing.assert_allclose(found[1], [2, 4, 6])
    assert sizes == [2, 2]
    of_node = Counting(lambda graph: np.ones((4, 1)), level="nodes")
    assert (edge_importance(of_node, PATH, node=1)[1] == 0).all()


def test_a_picture_of_directed_edges(tmp_path):
    """None covers its opposite, and each has an arrow."""
    pytest.importorskip("matplotlib")
    from matplotlib.patches import FancyArrowPatch

    graph = Graph.from_edges(
        [[0, 1], [1, 0], [1, 2]], 3, directed=True, weights=[5.0, 2.0, 1.0]
    )
    estimator = Stub(lambda graph: [total(graph)])
    figure = plot_edge_importance(estimator, graph)
    arrows = [
        patch
        for patch in figure.axes[0].patches
        if isinstance(patch, FancyArrowPatch) and patch.get_zorder() == 2
    ]
    ends = [patch.get_path().vertices[[0, -1]].round(3) for patch in arrows]
    assert len(arrows) == 3
    # The most important one is drawn last, and the widest.
    widths = [patch.get_linewidth() for patch in arrows]
    assert widths == sorted(widths) and len({*map(str, ends)}) == 3
    figure.savefig(tmp_path / "edges.png")


def test_a_picture_says_what_labels_are():
    pytest.importorskip("matplotlib")
    estimator = Stub(lambda graph: [0.0, total(graph)], multi_label=True)
    figure = plot_edge_importance(estimator, PATH, target=1)
    axis, bar = figure.axes
    assert axis.get_title().startswith("Predicted log-odds of label 1: ")
    assert "log-odds of label 1" in bar.get_ylabel()
