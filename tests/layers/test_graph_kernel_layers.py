"""Kernels of graphs inside a model, against those made on the host."""

import keras
import networkx
import numpy as np
import pytest
import reference as ref
from keras import ops

from keras_topo.graphs import (
    diffusion_kernel,
    random_walk_kernel,
    return_probabilities,
)
from keras_topo.layers import (
    AdjacencyFromEdges,
    AdjacencyKernel,
    DiffusionKernel,
    RandomWalkKernel,
    ReturnProbabilities,
)


def adjacency_batch():
    graphs = [
        networkx.path_graph(4),
        networkx.star_graph(5),
        networkx.empty_graph(1),
        networkx.disjoint_union(
            networkx.cycle_graph(4), networkx.empty_graph(2)
        ),
    ]
    sizes = [g.number_of_nodes() for g in graphs]
    adjacency = np.zeros((4, 6, 6), "float32")
    edges = np.full((4, 7, 2), -1)
    for k, (graph, n) in enumerate(zip(graphs, sizes, strict=True)):
        adjacency[k, :n, :n] = networkx.to_numpy_array(graph)
        for i, edge in enumerate(graph.edges):
            edges[k, i] = edge
    # One edge twice, in both directions.
    edges[0, 5] = edges[0, 0, ::-1]
    mask = np.arange(6)[None] < np.array(sizes)[:, None]
    return adjacency, edges, mask, sizes


def test_adjacency_from_edges():
    adjacency, edges, _, _ = adjacency_batch()
    layer = AdjacencyFromEdges()
    nodes = np.zeros((4, 6, 1))
    np.testing.assert_array_equal(ref.numpy(layer(edges, nodes)), adjacency)
    directed = ref.numpy(AdjacencyFromEdges(directed=True)(edges, nodes))
    np.testing.assert_array_equal(
        np.maximum(directed, np.swapaxes(directed, 1, 2)), adjacency
    )
    assert directed[1].sum() == 5


@pytest.mark.few_on_jax(
    "RandomWalkKernel-random_walk_kernel-options0-True",
    "DiffusionKernel-diffusion_kernel-options2-True",
)
@pytest.mark.parametrize("jit", [False, True][ref.on_jax :])
@pytest.mark.parametrize(
    "layer, host, options",
    [
        (RandomWalkKernel, random_walk_kernel, {}),
        (
            RandomWalkKernel,
            random_walk_kernel,
            {"halt": 0.2, "discount": 0.7, "normalize": False},
        ),
        (DiffusionKernel, diffusion_kernel, {}),
        (DiffusionKernel, diffusion_kernel, {"generator": "adjacency"}),
        (
            DiffusionKernel,
            diffusion_kernel,
            {"generator": "normalized_laplacian", "learn_times": True},
        ),
    ],
)
def test_kernels_in_a_model(layer, host, options, jit):
    adjacency, _, mask, sizes = adjacency_batch()
    if layer is RandomWalkKernel:
        made = layer(lengths=(1, 2, 4), **options)
        options = {**options, "length": [1, 2, 4]}
    else:
        made = layer(times=(0.5, 2.0), **options)
        options = {**options, "time": [0.5, 2.0]}
        options.pop("learn_times", None)
    made.build(adjacency.shape)
    call = ref.compiled(lambda a, m: made(a, mask=m)) if jit else made
    kernel = ref.numpy(call(ref.tensor(adjacency), ref.tensor(mask)))
    assert kernel.shape == made.compute_output_shape(adjacency.shape)
    for k, n in enumerate(sizes):
        expected = np.zeros((len(kernel[k]), 6, 6))
        expected[:, :n, :n] = host(adjacency[k, :n, :n], **options)
        # XLA's eigendecomposition is the less exact one.
        np.testing.assert_allclose(kernel[k], expected, 5e-6, 3e-6)
    clone = layer.from_config(made.get_config())
    np.testing.assert_allclose(
        ref.numpy(clone(adjacency, mask=mask)), kernel, 5e-6, 3e-6
    )


def test_zeros_between_components_and_at_padding():
    """Exactly: a mask hides an entry only if it is zero."""
    random = np.random.default_rng(0)
    component = random.permutation(np.repeat([0, 1], 6))
    weights = np.triu(random.uniform(0.5, 1, (12, 12)), 1)
    weights = (weights + weights.T) * (component[:, None] == component)
    adjacency = weights[None].astype("float32")
    for generator in ("laplacian", "normalized_laplacian"):
        kernel = DiffusionKernel(times=(0.5,), generator=generator)
        found = ref.numpy(kernel(adjacency))[0, 0]
        together = component[:, None] == component
        np.testing.assert_array_equal(found > 0, together)
        np.testing.assert_array_equal(found != 0, together)
    mask = np.arange(12)[None] < 9
    found = ref.numpy(AdjacencyKernel("ones")(adjacency, mask=mask))[0, 0]
    real = mask[0]
    np.testing.assert_array_equal(found, real[:, None] & real)


def test_return_probabilities_in_a_model():
    adjacency, _, _, sizes = adjacency_batch()
    output = ref.numpy(ReturnProbabilities(5)(adjacency))
    for k, n in enumerate(sizes):
        expected = return_probabilities(adjacency[k, :n, :n], 5)
        np.testing.assert_allclose(output[k, :n], expected, atol=1e-6)


def test_learned_times():
    """The gradient with respect to a time, against finite differences."""
    adjacency, _, mask, _ = adjacency_batch()
    layer = DiffusionKernel(times=(0.5, 2.0), learn_times=True)
    layer.build(adjacency.shape)
    np.testing.assert_allclose(
        ref.numpy(layer.current_times()), [0.5, 2.0], rtol=1e-6
    )
    upstream = np.random.default_rng(0).normal(size=(4, 2, 6, 6))

    def total(raw):
        layer.time_weights.assign(raw)
        kernel = ref.numpy(layer(adjacency, mask=mask)).astype("float64")
        return (kernel * upstream).sum()

    raw = ref.numpy(layer.time_weights)
    step = 1e-2
    expected = [
        (total(raw + step * unit) - total(raw - step * unit)) / (2 * step)
        for unit in np.eye(2, dtype="float32")
    ]
    layer.time_weights.assign(raw)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = ops.sum(layer(adjacency, mask=mask) * upstream)
        gradient = tape.gradient(value, layer.time_weights.value)
    else:
        import jax

        def value(weights):
            outputs, _ = layer.stateless_call(
                [weights], [], adjacency, mask=mask
            )
            return ops.sum(outputs * upstream)

        gradient = jax.grad(value)(layer.time_weights.value)
    np.testing.assert_allclose(ref.numpy(gradient), expected, rtol=5e-3)
