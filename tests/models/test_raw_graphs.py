"""What `GraphPreprocessor` does, inside a model."""

import dataclasses

import keras
import networkx
import numpy as np
import pytest

import keras_topo
from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    GraphSequence,
    laplacian_eigenvectors,
    raw_inputs,
)
from keras_topo.layers import LaplacianEigenvectors, OneHotValues
from keras_topo.models import (
    gkat_graph_classifier,
    gkat_node_classifier,
    l1_normalized,
    with_preprocessing,
)

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

on_jax = keras.backend.backend() == "jax"


def molecules(count=5, directed=False, weighted=False, text=True):
    random = np.random.default_rng(1)
    graphs = []
    for k in range(count):
        graph = networkx.gnp_random_graph(
            4 + 3 * k, 0.35, seed=k, directed=directed
        )
        for node in graph:
            label = int(random.integers(3))
            graph.nodes[node]["atom"] = "CNO"[label] if text else label + 6
            graph.nodes[node]["charge"] = float(random.normal())
        for edge in graph.edges:
            graph.edges[edge]["bond"] = int(random.integers(1, 3))
            graph.edges[edge]["length"] = float(random.normal())
            if weighted:
                graph.edges[edge]["weight"] = float(random.uniform(0.5, 2))
        graphs.append(graph)
    return graphs


ALL = {
    "node_labels": "atom",
    "features": "charge",
    "edge_labels": "bond",
    "edge_features": "length",
}
CASES = {
    "molecules": ({"text": not on_jax}, {"attributes": ALL, "degrees": True}),
    "plain": ({}, {}),
    "weighted": (
        {"weighted": True},
        {"kernel": "diffusion", "kernel_sizes": (0.5, 2.0)},
    ),
    "directed": ({"directed": True, "weighted": True}, {"edges": True}),
    "positions": ({}, {"eigenvectors": 2, "kernel": "normalized"}),
    "pairs": (
        {},
        {
            "form": "pairs",
            "pairs_per_node": 3,
            "attributes": {"edge_features": "length"},
        },
    ),
    # The walk that stays: a kernel of zeros at the edges.
    "edges-only": (
        {},
        {
            "form": "pairs",
            "kernel_sizes": (1,),
            "attributes": {"edge_features": "length"},
        },
    ),
    "labeled": (
        {},
        {
            "attributes": {"node_labels": "atom"},
            "kernel": "labeled_walk",
            "degree_profile": True,
            "clustering": True,
        },
    ),
    "mixed": (
        {"weighted": True},
        {"kernel": "steps+labeled_walk+diffusion+ones"},
    ),
    "mixed-directed": (
        {"directed": True, "text": False},
        {
            "attributes": {"node_labels": "atom"},
            "kernel": "steps+labeled_walk",
            "degree_profile": True,
            "clustering": True,
        },
    ),
    "mixed-pairs": (
        {},
        {
            "form": "pairs",
            "kernel": "random_walk+labeled_walk",
            "pairs_per_node": 4,
            "edges": True,
        },
    ),
    "factors": (
        {"weighted": True},
        {
            "form": "factors",
            "anchors": 3,
            "kernel_sizes": (2, 4),
            "edges": True,
        },
    ),
    "nothing": ({}, {"degrees": False, "return_steps": 0, "kernel": "ones"}),
}


@pytest.mark.few(
    *("pairs", "molecules", "positions", "mixed-directed", "factors")
)
@pytest.mark.few_on_jax("molecules")
@pytest.mark.parametrize("name", CASES)
def test_the_same_inside_and_outside(name):
    data, options = CASES[name]
    if on_jax and name not in ("molecules", "pairs", "mixed-directed"):
        pytest.skip("slow on JAX; the layers are tested there")
    graphs = molecules(**data)
    if name == "positions":
        # Of the first graph eigenvalues repeat, and vectors are any of many.
        graphs = graphs[1:]
    options = {"kernel_sizes": (1, 3), "return_steps": 3, **options}
    found = GraphPreprocessor(cache=False, **options).adapt(
        graphs, range(len(graphs))
    )
    built = found.model_arguments()
    similarity = "relu" if found.form == "factors" else "softmax"
    model = gkat_graph_classifier(
        found.num_features,
        2,
        found.num_kernels,
        num_heads=2,
        key_dim=4,
        depth=1,
        num_edge_features=found.num_edge_features,
        local=found.num_edge_features > 0,
        feature_statistics=found.feature_statistics,
        similarity=similarity,
        batching=built["batching"],
        rank=built.get("rank"),
        learned_kernel="+" in found.kernel,
        edge_gates=name not in ("mixed-pairs", "factors"),
    )
    # Gates start without effect.
    for weight in model.weights:
        if "gates" in weight.path or "mixture" in weight.path:
            weight.assign(np.random.normal(size=weight.shape))
    whole = with_preprocessing(model, found)
    expected = model.predict_on_batch(GraphSequence(graphs, found, False)[0][0])
    inputs = raw_inputs(graphs, found)
    assert set(inputs) == set(whole.input)
    outputs = whole.predict_on_batch(inputs)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    if not data.get("directed"):
        # An edge in one direction, and listed twice, is the same.
        once = dict(inputs)
        ends = inputs["edges"]
        gone = (ends[..., 0] > ends[..., 1])[..., None]
        once["edges"] = np.where(gone, -1, ends)
        twice = {
            key: np.concatenate([x, x], axis=1) if "edge" in key else x
            for key, x in once.items()
        }
        np.testing.assert_allclose(
            whole.predict_on_batch(twice), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.few_on_jax("diffusion")
@pytest.mark.parametrize("kernel", ["random_walk", "diffusion"])
def test_equal_entries_are_the_same_ones_inside_and_outside(kernel):
    """In symmetric graphs, rounding must not decide between equal entries."""
    graphs = [
        networkx.star_graph(40),
        networkx.cycle_graph(31),
        networkx.complete_bipartite_graph(6, 9),
        networkx.hypercube_graph(5),
    ]
    random = np.random.default_rng(0)
    for graph in graphs:
        for node in graph:
            graph.nodes[node]["charge"] = random.normal()
    found = GraphPreprocessor(
        {"features": "charge"},
        cache=False,
        form="pairs",
        pairs_per_node=7,
        kernel=kernel,
        kernel_sizes=(2, 3),
        return_steps=0,
    ).adapt(graphs)
    model = gkat_graph_classifier(
        found.num_features,
        2,
        found.num_kernels,
        num_heads=2,
        key_dim=4,
        depth=1,
        batching="joined",
    )
    expected = model.predict_on_batch(GraphSequence(graphs, found, False)[0][0])
    outputs = with_preprocessing(model, found).predict_on_batch(
        raw_inputs(graphs, found)
    )
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow_on_jax
def test_presets(tmp_path):
    graphs = molecules(text=not on_jax)
    found = GraphPreprocessor(
        ALL, cache=False, edges=False, kernel_sizes=(1, 2), return_steps=2
    ).adapt(graphs)
    model = gkat_graph_classifier(
        found.num_features, 2, 2, num_heads=2, key_dim=4, depth=1
    )
    whole = with_preprocessing(model, found)
    keras_topo.save_preset(whole, tmp_path / "whole")
    again = keras_topo.from_preset(tmp_path / "whole")
    inputs = raw_inputs(graphs, found)
    np.testing.assert_allclose(
        again.predict_on_batch(inputs),
        whole.predict_on_batch(inputs),
        atol=1e-6,
    )


def test_eigenvectors_of_padded_graphs():
    graphs = [
        networkx.to_numpy_array(graph)
        for graph in (
            networkx.path_graph(7),
            networkx.path_graph(2),
            networkx.lollipop_graph(3, 2),
        )
    ]
    padded = np.zeros((3, 7, 7), "float32")
    mask = np.zeros((3, 7), bool)
    for k, adjacency in enumerate(graphs):
        n = len(adjacency)
        padded[k, :n, :n], mask[k, :n] = adjacency, True
    found = np.asarray(LaplacianEigenvectors(3)(padded, mask=mask))
    assert found.shape == (3, 7, 3)
    for k, adjacency in enumerate(graphs):
        n = len(adjacency)
        np.testing.assert_allclose(
            found[k, :n], laplacian_eigenvectors(adjacency, 3), atol=1e-4
        )
        assert (found[k, n:] == 0).all()


def test_what_adapt_has_not_seen():
    path = np.eye(3, k=1) + np.eye(3, k=-1)
    found = GraphPreprocessor(cache=False).adapt([Graph(path)])
    with pytest.raises(ValueError, match=r"graphs\[1\].*directed"):
        found([Graph(path), Graph(np.eye(3, k=1))])
    with pytest.raises(ValueError, match=r"graphs\[0\].*weight 1"):
        found([Graph(2 * path)])


def test_features_divided_by_their_sum(tmp_path):
    keras.utils.set_random_seed(0)
    ring = np.roll(np.eye(5), 1, 0) + np.roll(np.eye(5), -1, 0)
    model = gkat_node_classifier(
        6, 3, ring.astype("float32"), depth=1, num_heads=1, key_dim=2
    )
    whole = l1_normalized(model)
    words = (np.random.default_rng(0).random((1, 5, 6)) < 0.6) * 1.0
    words[0, 2] = 0.0  # No word at all.
    shares = words / np.maximum(words.sum(-1, keepdims=True), 1)
    expected = model.predict_on_batch(shares)
    for x in (words, shares, 1e30 * words):
        np.testing.assert_allclose(
            whole.predict_on_batch(x.astype("float32")),
            expected,
            rtol=1e-5,
            atol=1e-6,
        )
    keras_topo.save_preset(whole, tmp_path / "whole")
    again = keras_topo.from_preset(tmp_path / "whole")
    np.testing.assert_allclose(
        again.predict_on_batch(words), expected, rtol=1e-5, atol=1e-6
    )
    other = keras_topo.from_preset(tmp_path / "whole", num_classes=2)
    assert other.output_shape == (None, None, 2)


def test_graphs_that_lack_something_are_no_inputs():
    ring = Graph.from_edges(
        [(0, 1), (1, 2), (2, 0)],
        3,
        node_labels=[6, 8, 6],
        features=np.ones((3, 2)),
    )
    p = GraphPreprocessor(cache=False).adapt([ring])
    raw_inputs([ring], p)
    for change, match in (
        ({"node_labels": None}, r"graphs\[1\] expects node_labels"),
        ({"node_labels": [6, 6, 2**32 + 8]}, r"graphs\[1\]: node_labels"),
        ({"features": None}, r"graphs\[1\] expects features"),
        ({"features": np.ones((3, 3))}, r"graphs\[1\] expects 2 features"),
    ):
        other = dataclasses.replace(ring, **change)
        with pytest.raises(ValueError, match=match):
            raw_inputs([ring, other], p)


def test_labels_of_more_than_32_bits():
    edge = [[0, 1]]
    known = Graph.from_edges(edge, 2, node_labels=[6, 1])
    p = GraphPreprocessor(cache=False, unknown="zeros").adapt([known])
    other = Graph.from_edges(edge, 2, node_labels=[2**32 + 6, -(2**40)])
    labels = raw_inputs([known, other], p)["node_labels"]
    assert labels[0].tolist() == [6, 1]
    assert not set(labels[1].tolist()) & {1, 6}
    # On the host they are labels like all others.
    p = GraphPreprocessor(cache=False).adapt([other])
    assert p([other])[0]["nodes"].shape[0] == 2
    for call in (lambda: raw_inputs([other], p), lambda: OneHotValues([2**31])):
        with pytest.raises(ValueError, match="labels of 32 bits"):
            call()
    with pytest.raises(ValueError, match="at least one graph"):
        raw_inputs([], p)
