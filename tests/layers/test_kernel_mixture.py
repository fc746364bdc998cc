"""`KernelMixture`: learned sums of kernels, dense and of pairs."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo.graphs import (
    Graph,
    GraphPreprocessor,
    GraphSequence,
    labeled_walk_kernel,
)
from keras_topo.layers import KernelMixture, LabeledWalkKernel, StepsKernel
from keras_topo.models import gkat_graph_classifier


def kernels():
    values = np.random.default_rng(0).uniform(size=(2, 3, 6, 6))
    values[values < 0.4] = 0
    values[0, 1, 2] = 0  # A row of zeros.
    return values.astype("float32")


def randomized(layer, shape):
    layer.build(shape)
    layer.mixture.assign(
        np.random.default_rng(1).normal(size=layer.mixture.shape)
    )
    return layer


def expected_mixture(layer, values):
    """In float64, by the definition."""
    weights = np.logaddexp(0, ref.numpy(layer.mixture).astype("float64"))
    total = values.astype("float64").sum(axis=-1, keepdims=True)
    shares = values / np.where(total > 0, total, 1)
    return np.einsum("bkij,hk->bhij", shares, weights)


def test_dense():
    values = kernels()
    mask = np.ones((2, 6), bool)
    mask[1, 4:] = False
    layer = randomized(KernelMixture(4), {"kernel": values.shape})
    found = ref.numpy(layer({"kernel": values}, mask=mask)["kernel"])
    visible = np.where(mask[:, None, None], values, 0)
    ref.assert_close(found, expected_mixture(layer, visible), 1e-6)
    assert not found[1, :, :, 4:].any()


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("count", [1, 3])
def test_any_numbers_of_graphs_heads_and_kernels(batch, heads, count):
    random = np.random.default_rng(0)
    values = random.random((batch, count, 7, 7), "float32")
    layer = randomized(KernelMixture(heads), {"kernel": values.shape})
    found = ref.numpy(layer({"kernel": values})["kernel"])
    assert found.shape == (batch, heads, 7, 7)
    ref.assert_close(found, expected_mixture(layer, values), 1e-6)


def test_of_pairs():
    """The result equals that of matrices at the pairs."""
    values = kernels()
    layer = randomized(KernelMixture(4), {"kernel": values.shape})
    dense = expected_mixture(layer, values)
    some = values.max(axis=1) > 0
    count = some.sum(axis=(1, 2)).max() + 2
    pairs = np.zeros((2, count, 2), "int32")
    pair_values = np.zeros((2, 3, count), "float32")
    for k in range(2):
        i, j = np.nonzero(some[k])
        pairs[k, : len(i)] = np.stack([i, j], axis=1)
        pair_values[k, :, : len(i)] = values[k][:, i, j]
    found = layer(
        {"pairs": pairs, "pair_values": pair_values}, nodes=np.zeros((2, 6, 1))
    )
    np.testing.assert_array_equal(ref.numpy(found["pairs"]), pairs)
    matrix = np.zeros((2, 4, 6, 6))
    mixed = ref.numpy(found["pair_values"])
    for k in range(2):
        np.add.at(
            matrix[k], (slice(None), pairs[k, :, 0], pairs[k, :, 1]), mixed[k]
        )
    ref.assert_close(matrix, dense, 1e-6)


def test_starts_near_one_kernel_in_turn():
    layer = KernelMixture(4)
    layer.build({"kernel": (None, 3, None, None)})
    weights = ref.numpy(layer.weights_of_kernels())
    expected = np.full((4, 3), 0.1)
    expected[range(4), [0, 0, 1, 2]] = 1
    ref.assert_close(weights, expected, 1e-6)


@pytest.mark.parametrize("jit", [False, True][ref.on_jax :])
def test_kernels_of_walks_in_a_model(jit):
    """Those of the host, for padded graphs with dead ends."""
    random = np.random.default_rng(0)
    sizes = [1, 4, 6]
    adjacency = np.zeros((3, 6, 6), "float32")
    for k, n in enumerate(sizes):
        matrix = np.triu(random.uniform(size=(n, n)) < 0.5, 1)
        weights = np.triu(random.uniform(0.5, 2, (n, n))) * matrix
        adjacency[k, :n, :n] = weights + weights.T
    adjacency[2, 0] = adjacency[2, :, 0] = 0
    ids = random.integers(0, 3, (3, 6))
    # The last value is unknown to the vectors.
    labels = np.concatenate([np.eye(2), np.zeros((1, 2))])[ids]
    mask = np.arange(6)[None] < np.array(sizes)[:, None]
    layer = LabeledWalkKernel((1, 2, 4))
    steps = StepsKernel((1, 2, 4))
    layer.build(adjacency.shape, labels.shape)
    steps.build(adjacency.shape)

    def call(a, b, m):
        return layer(a, b, mask=m), steps(a, mask=m)

    call = ref.compiled(call) if jit else call
    arguments = [ref.tensor(x) for x in (adjacency, labels, mask)]
    walks, ends = (ref.numpy(x) for x in call(*arguments))
    assert walks.shape == (3, 3, 6, 6)
    for k, n in enumerate(sizes):
        own = adjacency[k, :n, :n].astype("float64")
        expected = np.zeros((3, 6, 6))
        expected[:, :n, :n] = labeled_walk_kernel(own, ids[k, :n], [1, 2, 4])
        np.testing.assert_allclose(walks[k], expected, 1e-5, 1e-6)
        degrees = own.sum(axis=1, keepdims=True)
        step = own / np.where(degrees > 0, degrees, 1)
        expected[:, :n, :n] = [
            np.linalg.matrix_power(step, m) for m in (0, 1, 3)
        ]
        np.testing.assert_allclose(ends[k], expected, 1e-5, 1e-6)


@pytest.mark.slow_on_jax
@pytest.mark.parametrize("form", ["dense", "pairs"])
def test_learns_which_kernel_matters(form):
    """Where neighbors agree or differ, of graphs otherwise alike: the mean of
    a neighbor tells, that of all nodes does not."""
    random = np.random.default_rng(0)
    graphs, classes = [], []
    for k in range(48):
        signs = random.permutation(np.repeat([-1.0, 1.0], 4))
        signs = np.sort(signs) if k % 2 else np.tile([-1.0, 1.0], 4)
        edges = [(i, (i + 1) % 8) for i in range(8)]
        noise = random.normal(0, 0.1, 8)
        features = (signs + noise)[:, None]
        graphs.append(Graph.from_edges(edges, 8, features=features))
        classes.append(k % 2)
    preprocessor = GraphPreprocessor(
        kernel="steps+ones" if form == "dense" else "steps+random_walk",
        kernel_sizes=(2, 3),
        form=form,
        return_steps=0,
        cache=False,
    ).adapt(graphs, classes)
    keras.utils.set_random_seed(0)
    model = gkat_graph_classifier(
        **preprocessor.model_arguments(),
        depth=1,
        num_heads=2,
        key_dim=4,
        learned_kernel=True,
        dropout=0.0,
    )
    model.compile(
        keras.optimizers.Adam(0.03),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    data = GraphSequence(graphs, preprocessor, classes, batch_size=48)
    mixture = model.get_layer("kernel_mixture")
    before = ref.numpy(mixture.mixture)
    model.fit(data, epochs=30, verbose=0)
    assert model.evaluate(data, verbose=0)[1] == 1.0
    assert np.abs(ref.numpy(mixture.mixture) - before).max() > 0.05


def test_more_kernels_than_heads_want_a_mixture():
    with pytest.raises(ValueError, match="num_kernels=5, or learned_kernel"):
        gkat_graph_classifier(3, 2, num_kernels=5, num_heads=4)
    model = gkat_graph_classifier(
        3, 2, num_kernels=5, num_heads=4, key_dim=2, learned_kernel=True
    )
    clone = keras.models.clone_model(model)
    assert clone.get_layer("kernel_mixture").mixture.shape == (4, 5)
