"""Kernels of low rank as factors, and batches of them."""

import networkx
import numpy as np
import pytest
import reference as ref

import keras_topo
from keras_topo.graphs import (
    GraphPreprocessor,
    GraphSequence,
    anchored_walk_factors,
    kernel_factors,
    random_walk_kernel,
)
from keras_topo.layers import AnchoredWalkKernel
from keras_topo.models import gkat_graph_classifier


def adjacency_of(graph):
    return networkx.to_numpy_array(graph)


GRAPH = networkx.disjoint_union(
    networkx.barabasi_albert_graph(14, 2, seed=0), networkx.empty_graph(1)
)


def expected_factors(adjacency, length, anchors):
    """By definition: columns of `F`, and the sum of all other columns."""
    degrees = (adjacency != 0).sum(axis=1)
    step = adjacency / np.maximum(adjacency.sum(axis=1, keepdims=True), 1)
    visits = sum(np.linalg.matrix_power(step, n) for n in range(length))
    order = sorted(range(len(degrees)), key=lambda i: (-degrees[i], i))
    chosen, others = order[:anchors], order[anchors:]
    found = np.zeros((len(degrees), anchors + 1))
    found[:, : len(chosen)] = visits[:, chosen]
    found[:, -1] = visits[:, others].sum(axis=1)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("anchors", [1, 3, 15, 20])
def test_anchored_walks(anchors):
    adjacency = adjacency_of(GRAPH)
    found = anchored_walk_factors(adjacency, [1, 2, 5], anchors)
    for factors, length in zip(found, (1, 2, 5), strict=True):
        expected = expected_factors(adjacency, length, anchors)
        np.testing.assert_allclose(factors, expected, atol=1e-12)
        if anchors >= len(adjacency):
            # Nothing is merged: the exact kernel.
            np.testing.assert_allclose(
                factors @ factors.T,
                random_walk_kernel(adjacency, length),
                atol=1e-12,
            )


def test_kernels_side_by_side():
    adjacency = adjacency_of(GRAPH)
    found = kernel_factors(adjacency, "random_walk+ones", (2, 3), 4)
    assert found.shape == (3, 15, 5) and found.dtype == "float32"
    np.testing.assert_allclose(
        found[:2], anchored_walk_factors(adjacency, [2, 3], 4), atol=1e-6
    )
    np.testing.assert_array_equal(found[2] @ found[2].T, np.ones((15, 15)))
    assert kernel_factors(adjacency, "ones").shape == (1, 15, 1)


def test_in_a_model():
    adjacency = np.zeros((2, 17, 17), "float32")
    graphs = [GRAPH, networkx.star_graph(3)]
    for k, graph in enumerate(graphs):
        adjacency[k, : len(graph), : len(graph)] = adjacency_of(graph)
    mask = np.arange(17)[None] < np.array([[15], [4]])
    layer = AnchoredWalkKernel((1, 4), anchors=5)
    found = ref.numpy(layer(adjacency, mask=mask))
    for k, graph in enumerate(graphs):
        factors = anchored_walk_factors(adjacency_of(graph), [1, 4], 5)
        n = len(graph)
        expected = np.zeros((2, 17, 17))
        expected[:, :n, :n] = factors @ factors.swapaxes(1, 2)
        np.testing.assert_allclose(found[k], expected, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kernel": "diffusion"}, "in the form of factors"),
        ({"kernel": "random_walk+steps"}, "in the form of factors"),
        ({"anchors": 0}, "`anchors` expects an int from 1"),
    ],
)
def test_what_has_no_factors(options, message):
    with pytest.raises(ValueError, match=message):
        GraphPreprocessor(form="factors", cache=False, **options).adapt([GRAPH])


@pytest.mark.parametrize("similarity", ["relu", "softmax"])
def test_linear_attention_is_that_by_matrices(similarity):
    """With padded batches and messages along edges."""
    graphs = [
        networkx.gnp_random_graph(5 + 3 * k, 0.4, seed=k) for k in range(5)
    ]
    preprocessor = GraphPreprocessor(
        kernel="random_walk",
        kernel_sizes=(2, 4),
        form="factors",
        anchors=3,
        edges=True,
        return_steps=2,
        cache=False,
    ).adapt(graphs, range(5))
    sequence = GraphSequence(graphs, preprocessor, False, batch_size=3)
    (inputs,) = sequence[0]
    assert inputs["factors"].shape[:2] == (3, 2)
    assert inputs["factors"].shape[3] == 4
    arguments = {
        **preprocessor.model_arguments(),
        "num_heads": 2,
        "key_dim": 4,
        "depth": 1,
        "similarity": similarity,
        "local": True,
        "edge_gates": False,
    }
    model = gkat_graph_classifier(**arguments)
    twin = gkat_graph_classifier(
        **{**arguments, "batching": "padded", "rank": None}
    )
    twin.set_weights(model.get_weights())
    factors = inputs.pop("factors")
    expected = twin.predict_on_batch(
        {**inputs, "kernel": factors @ np.swapaxes(factors, -1, -2)}
    )
    found = model.predict_on_batch({**inputs, "factors": factors})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # In the order of all graphs.
    whole = model.predict(sequence, verbose=0)
    np.testing.assert_allclose(whole[:3], found, rtol=1e-4, atol=1e-5)


def test_batches_are_bounded_by_nodes():
    graphs = [networkx.path_graph(40)] * 6 + [networkx.path_graph(5)] * 6
    preprocessor = GraphPreprocessor(
        kernel="ones", form="factors", cache=False
    ).adapt(graphs)
    for shuffle in (False, True):
        sequence = GraphSequence(
            graphs, preprocessor, False, max_elements=100, shuffle=shuffle
        )
        # Two large graphs in each: kernels of all pairs would leave room for
        # one.
        assert len(sequence) == 4
        batches = [sequence[k][0]["nodes"] for k in range(4)]
        sizes = [batch.shape[:2] for batch in batches]
        assert all(batch * nodes <= 120 for batch, nodes in sizes)
        assert sorted(batch for batch, _ in sizes) == [2, 2, 2, 6]


def test_other_models_have_no_factors():
    preprocessor = GraphPreprocessor(form="factors", kernel="ones", cache=False)
    graphs = [networkx.path_graph(n) for n in (3, 4, 5, 6)]
    for model in ("gcn", "gat", "gin"):
        with pytest.raises(ValueError, match="form='factors'.*gkat"):
            keras_topo.GraphClassifier(preprocessor, model, epochs=1).fit(
                graphs, [0, 1, 0, 1]
            )


def test_what_factors_do_not_do():
    options = {"batching": "factors", "rank": 3, "num_kernels": 2}
    for wrong in ({"learned_kernel": True}, {"num_edge_features": 2}):
        with pytest.raises(ValueError, match="`batching='factors'` expects"):
            gkat_graph_classifier(4, 2, **{**options, **wrong})
    with pytest.raises(ValueError, match="`rank` expects"):
        gkat_graph_classifier(4, 2, **{**options, "rank": None})
