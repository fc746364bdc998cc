"""Learned masks of one large graph, and layers with them."""

import keras
import numpy as np
import pytest
import reference as ref
import scipy.linalg
import scipy.sparse
from keras import ops

from keras_topo.callbacks import Resample
from keras_topo.graphs import (
    Forest,
    breadth_first_forest,
    minimum_spanning_forest,
    random_walk_features,
)
from keras_topo.host import local_order
from keras_topo.layers import (
    DiffusionMask,
    ForestAttention,
    ForestMask,
    GraphKernelAttention,
    GraphMask,
    GraphPropagation,
    RandomFeaturesMask,
    RandomWalkMask,
)
from keras_topo.operators import Dense

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

NODES, CHANNELS, HEADS = 40, 6, 2

# On JAX what is eager is compiled step by step, for a minute.
eager = pytest.mark.skipif(ref.on_jax, reason="slow to run eagerly on JAX")
FUNCTIONS = (
    "exponential",
    "exponentiated_polynomial",
    "rational",
    "damped_cosine",
    "table",
)


def graph(nodes=NODES):
    """A weighted graph with two components and a node without edges."""
    random = np.random.default_rng(0)
    upper = np.triu(random.random((nodes, nodes)) < 0.15, 1)
    upper[: nodes // 2, nodes // 2 :] = False
    upper[:, -1] = False
    weights = np.where(upper, random.uniform(0.5, 2, upper.shape), 0)
    return scipy.sparse.csr_array(weights + weights.T)


def parents():
    random = np.random.default_rng(1)
    found = (random.random(NODES) * np.arange(NODES)).astype(int)
    found[[0, 25]] = -1
    return found


def in_order(kind, **options):
    """A mask that puts its nodes in order, which small graphs do not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_order, "REORDER_FROM", 2)
        patch.setattr(local_order, "REORDER_GAIN", 1)
        return kind(graph(), **options)


#: One of each, by name.
MASKS = {
    **{
        f"forest-{name}": lambda name=name: ForestMask(parents(), function=name)
        for name in FUNCTIONS
    },
    "diffusion": lambda: DiffusionMask(graph(), times=(0.5, 2.0)),
    "diffusion-ordered": lambda: in_order(DiffusionMask, times=(0.5, 2.0)),
    "features-ordered": lambda: in_order(RandomFeaturesMask, num_walks=4),
    "features": lambda: RandomFeaturesMask(graph(), num_walks=4),
    "walks": lambda: RandomWalkMask(graph(), num_walks=4),
    "anchors": lambda: RandomWalkMask(graph(), num_walks=4, anchors=7),
}


def layer(mask, similarity="relu", **options):
    keras.utils.set_random_seed(1)
    return GraphKernelAttention(
        HEADS, 4, similarity=similarity, graph_kernel=mask, **options
    )


def nodes(batch=2, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, NODES, CHANNELS)).astype("float32")


def perturb(model):
    """Changes the weights from their initial values."""
    random = np.random.default_rng(2)
    for weight in model.trainable_weights:
        value = ops.convert_to_numpy(weight)
        weight.assign(value + 0.1 * random.normal(size=value.shape))


@pytest.mark.few(
    "diffusion-ordered",
    "features-ordered",
    "anchors",
    "walks",
    "forest-exponential",
    "forest-table",
)
@eager
@pytest.mark.parametrize("name", MASKS)
def test_a_layer_with_a_mask_is_one_with_its_matrix(name):
    x = nodes()
    found = layer(MASKS[name]())
    found(x)
    perturb(found)
    matrix = ref.numpy(found.graph_mask.operator().to_dense())
    assert (matrix >= 0).all()
    matrix = np.broadcast_to(matrix, (2, HEADS, NODES, NODES))
    for similarity in ("relu", "softmax")[: 1 if ref.on_jax else 2]:
        with_mask = layer(MASKS[name](), similarity)
        with_mask(x)
        for mine, weight in zip(
            with_mask.graph_mask.weights, found.graph_mask.weights, strict=True
        ):
            mine.assign(weight)
        plain = layer(None, similarity)
        expected = plain(x, matrix)
        ref.assert_close(with_mask(x), expected, 1e-4)


UNDER_XLA = ("diffusion-ordered", "forest-table", "features", "anchors")


@pytest.mark.few_on_jax("forest-table", "features")
@pytest.mark.few("diffusion-ordered", "forest-table", "features")
@pytest.mark.parametrize("name", MASKS)
def test_gradients_and_files(name, tmp_path):
    """Everything learned has a gradient; a file brings everything back."""
    x = nodes()
    model = keras.Sequential(
        [keras.Input((NODES, CHANNELS)), layer(MASKS[name]())]
    )
    before = [ops.convert_to_numpy(w) for w in model.trainable_weights]
    # XLA takes most of the time: one of each kind on TensorFlow.
    jit_compile = "auto" if ref.on_jax or name in UNDER_XLA else False
    model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit_compile)
    y = np.random.default_rng(3).normal(size=x.shape)
    model.fit(x, y, epochs=1, batch_size=2, verbose=0)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        new = ops.convert_to_numpy(weight)
        assert np.isfinite(new).all()
        # Biases of keys aside, of which relu leaves little.
        assert (new != old).any(), weight.path
    expected = ref.numpy(model(x))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ref.numpy(again(x)), expected, atol=1e-6)
    # And as a copy, which shares no weights with the first, but is of the
    # same graph.
    for original in (model, again):
        clone = keras.models.clone_model(original)
        for mine, weight in zip(
            clone.non_trainable_weights,
            original.non_trainable_weights,
            strict=True,
        ):
            np.testing.assert_array_equal(ref.numpy(mine), ref.numpy(weight))
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(ref.numpy(clone(x)), expected, atol=1e-6)


@eager
def test_forest_functions():
    """Against distances along the edges, and their names."""
    forest = Forest.from_parents(parents())
    weights = np.random.default_rng(0).integers(1, 4, NODES) * 0.5
    d, reached = ref.forest_distances(parents(), *2 * (weights[:, None],))
    d = d[..., 0]

    def matrix(function, **options):
        mask = ForestMask(forest, weights, function, **options)
        mask.build(HEADS)
        perturb(mask)
        return mask, ref.numpy(mask.operator().to_dense())

    def value(weight):
        return np.log1p(np.exp(ref.numpy(weight)))[:, None, None]

    mask, found = matrix("exponential")
    expected = np.exp(-value(mask.rate_weight) * d)
    ref.assert_close(found, expected * reached, 1e-5)
    mask, found = matrix("exponentiated_polynomial", degree=3)
    x = d / d[reached].max()
    c = ref.numpy(mask.coefficients_weight)[..., None, None]
    expected = np.exp(c[:, 0] * x + c[:, 1] * x**2 + c[:, 2] * x**3)
    ref.assert_close(found, expected * reached, 1e-5)
    mask, found = matrix("rational")
    expected = 1 / (1 + value(mask.rate_weight) * d**2)
    ref.assert_close(found, expected * reached, 1e-5)
    mask, found = matrix("damped_cosine")
    expected = np.exp(-value(mask.rate_weight) * d)
    expected *= (1 + np.cos(value(mask.frequency_weight) * d)) / 2
    ref.assert_close(found, expected * reached, 1e-5)
    mask, found = matrix("table")
    table = np.abs(ref.numpy(mask.table_weight))
    index = np.rint(d / 0.5).astype(int)
    ref.assert_close(found, table[:, index] * reached, 1e-5)


@keras.saving.register_keras_serializable(package="tests")
def inverse_square(distance):
    return 1 / (1 + distance**2)


@keras.saving.register_keras_serializable(package="tests")
def cosine(distance):
    return ops.cos(distance)


@pytest.mark.slow_on_jax
def test_forest_attention(tmp_path):
    """From a tree, two directions of vectors, a callable; saved and loaded."""
    random = np.random.default_rng(0)
    x = nodes()
    both = tuple(random.uniform(0.1, 1, (2, NODES, 3)))
    for options in (
        {},
        {"edge_weights": both},
        {"edge_weights": random.random(NODES), "function": "rational"},
        {"function": inverse_square, "similarity": "softmax"},
    ):
        if ref.on_jax and options.get("function") == "rational":
            continue
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((NODES, CHANNELS)),
                ForestAttention(2, 4, parents(), **options),
            ]
        )
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert isinstance(again.layers[0], ForestAttention)
        np.testing.assert_allclose(
            ref.numpy(again(x)), ref.numpy(model(x)), atol=1e-6
        )
        config = model.layers[0].get_config()
        assert "graph_kernel" not in config and len(config["parents"]) == NODES


@eager
def test_a_batch_of_trees_is_a_forest():
    chain, star = np.array([-1, 0, 1, 2]), np.array([1, -1, 1])
    forest = Forest.from_trees([chain, Forest.from_parents(star)])
    np.testing.assert_array_equal(forest.parents, [-1, 0, 1, 2, 5, -1, 5])
    keras.utils.set_random_seed(0)
    together = ForestAttention(2, 4, forest)
    x = nodes()[:1, :7]
    expected = ref.numpy(together(x))
    for tree, part in ((chain, x[:, :4]), (star, x[:, 4:])):
        alone = ForestAttention(2, 4, tree)
        alone(part)
        alone.set_weights(together.get_weights())
        first = 0 if tree is chain else 4
        ref.assert_close(
            alone(part), expected[:, first : first + len(tree)], 1e-5
        )


@eager
def test_forests_of_a_graph():
    for make in (minimum_spanning_forest, breadth_first_forest):
        forest, weights = make(graph())
        mask = ForestMask(forest, weights, "exponential")
        mask.build(HEADS)
        matrix = ref.numpy(mask.operator().to_dense())
        # Nodes attend to their own component only, and to all of it.
        _, component = scipy.sparse.csgraph.connected_components(graph())
        same = component[:, None] == component
        assert ((matrix > 0) == same).all()


@pytest.mark.parametrize("name", ["diffusion", "diffusion-ordered"])
def test_diffusion_times(name):
    mask = MASKS[name]()
    assert ("order" in mask._spec["shapes"]) == (name == "diffusion-ordered")
    mask.build(4)
    np.testing.assert_allclose(
        ref.numpy(mask.current_times()), [0.5, 0.5, 2, 2], rtol=1e-5
    )
    matrix = graph().toarray()
    degree = matrix.sum(1)
    scale = np.where(degree > 0, np.maximum(degree, 1e-9) ** -0.5, 0)
    laplacian = np.diag(degree > 0) - scale[:, None] * matrix * scale
    dense = ref.numpy(mask.operator().to_dense())
    ref.assert_close(dense[3], scipy.linalg.expm(-2 * laplacian), 2e-5)
    fixed = DiffusionMask(graph(), times=(0.5, 2.0), learn_times=False)
    fixed.build(4)
    assert fixed.max_time == 2 and not fixed.trainable_weights
    ref.assert_close(fixed.operator().to_dense(), dense, 1e-5)


@eager
def test_sampled_masks():
    mask = RandomWalkMask(graph(), num_walks=4, seed=3)
    mask.build(HEADS)
    features = random_walk_features(graph(), 4, seed=3)
    first = ref.numpy(mask.operator().to_dense())
    ref.assert_close(first, (features @ features.T).toarray(), 1e-5)
    mask.resample()
    features = random_walk_features(graph(), 4, seed=[3, 1])
    second = ref.numpy(mask.operator().to_dense())
    ref.assert_close(second, (features @ features.T).toarray(), 1e-5)
    # The features of many walks: the diffusion kernel they start as.
    mask = RandomFeaturesMask(graph(), num_walks=2000, length=8, time=1.0)
    mask.build(HEADS)
    matrix = graph().toarray()
    degree = matrix.sum(1)
    scale = np.where(degree > 0, np.maximum(degree, 1e-9) ** -0.5, 0)
    kernel = scipy.linalg.expm(scale[:, None] * matrix * scale)
    found = ref.numpy(mask.operator().to_dense())
    ref.assert_close(found, np.broadcast_to(kernel, found.shape), 0.03)


def test_resampling_callback():
    x = nodes()
    model = keras.Sequential(
        [
            keras.Input((NODES, CHANNELS)),
            layer(RandomFeaturesMask(graph(), num_walks=4)),
        ]
    )
    model.compile("sgd", "mse")
    mask = model.layers[0].graph_mask
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            pairs = mask.sample_weights["pairs"]
            seen.append(ops.convert_to_numpy(pairs).copy())

    model.fit(x, x, epochs=4, callbacks=[Resample(2), Watch()], verbose=0)
    same = [(a == b).all() for a, b in zip(seen, seen[1:], strict=False)]
    assert same == [True, False, True]
    # Resumed: another sample in epoch 4, counted from 0, and not in epoch 5.
    held = ops.convert_to_numpy(mask.sample_weights["pairs"]).copy()
    options = {"callbacks": [Resample(2), Watch()], "verbose": 0}
    model.fit(x, x, initial_epoch=4, epochs=6, **options)
    seen[:4] = [held]
    same = [(a == b).all() for a, b in zip(seen, seen[1:], strict=False)]
    assert same == [False, True]
    with pytest.raises(ValueError, match="without one"):
        plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        plain.compile("sgd", "mse")
        plain.fit(np.ones((2, 2)), np.ones(2), callbacks=[Resample()])


@pytest.mark.slow_on_jax
def test_one_mask_for_many_layers():
    """Each makes itself a copy; a layer without heads has one."""
    mask = DiffusionMask(graph())
    first, second = layer(mask), layer(mask)
    x = nodes()
    second(first(x))
    assert first.graph_mask is not second.graph_mask
    propagation = GraphPropagation(graph_kernel=mask)
    matrix = propagation.graph_mask
    found = propagation(x)
    ref.assert_close(found, ref.numpy(matrix.operator().to_dense()) @ x, 1e-5)


@pytest.mark.few_on_jax("forest-rational", "walks")
@pytest.mark.few("forest-rational", "walks", "pairs")
@pytest.mark.parametrize("name", [*MASKS, "pairs", "dense", "low-rank"])
def test_a_model_that_fit_builds_has_its_graph(name):
    """Keras builds it in a context where weights cannot be assigned."""
    kernels = {
        "pairs": lambda: graph(),
        "dense": lambda: graph().toarray(),
        "low-rank": lambda: {"factors": np.ones((NODES, 2))},
    }
    x = nodes()
    make = {**MASKS, **kernels}[name]
    built, unbuilt = [keras.Sequential([layer(make())]) for _ in range(2)]
    built(x)
    jit_compile = "auto" if ref.on_jax else False
    unbuilt.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit_compile)
    unbuilt.fit(x, x, batch_size=2, verbose=0)
    for mine, other in zip(
        built.layers[0].non_trainable_weights,
        unbuilt.layers[0].non_trainable_weights,
        strict=True,
    ):
        np.testing.assert_array_equal(ref.numpy(mine), ref.numpy(other))


@pytest.mark.parametrize("name", ["diffusion", "features", "walks"])
def test_a_mask_of_a_loaded_model(name, tmp_path):
    """It can be passed to other layers and continues its random numbers."""
    x = nodes()
    model = keras.Sequential([keras.Input((NODES, CHANNELS))])
    model.add(layer(MASKS[name]()))
    mask = model.layers[0].graph_mask
    if name != "diffusion":
        mask.resample()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    other = loaded.layers[0].graph_mask
    again = layer(other)
    again(x)
    ref.assert_close(
        again.graph_mask.operator().to_dense(),
        ref.numpy(mask.operator().to_dense()),
        1e-6,
    )
    if name != "diffusion":
        for one in (mask, other):
            one.resample()
        for key, weight in mask.sample_weights.items():
            np.testing.assert_array_equal(
                ref.numpy(weight), ref.numpy(other.sample_weights[key])
            )


def test_a_frozen_mask_stays_frozen():
    mask = DiffusionMask(graph(), name="heat", trainable=False)
    found = layer(mask)
    found(nodes())
    assert found.graph_mask.name == "heat"
    assert not found.graph_mask.trainable_weights


@pytest.mark.slow
def test_degenerate_graphs():
    x = nodes()
    empty = np.zeros((NODES, NODES))
    for mask in (
        DiffusionMask(empty, "laplacian"),
        DiffusionMask(empty),
        RandomFeaturesMask(empty),
        RandomWalkMask(empty, anchors=1),
        ForestMask(np.full(NODES, -1), function="rational"),
    ):
        model = keras.Sequential([layer(mask, implementation="fast")])
        # Compilation takes longer than all else.
        model.compile("sgd", "mse", jit_compile=ref.on_jax)
        model.fit(x, x, batch_size=2, verbose=0)
        assert np.isfinite(ref.numpy(model(x))).all()
    # Opposite weights do not cancel in where rates start.
    mask = ForestMask(np.arange(-1, 9), (np.ones(10), -np.ones(10)))
    mask.build(2)
    assert ref.numpy(mask.rate_weight).max() < 10
    # exp(time A) of a star leaves float32 early.
    star = np.zeros((600, 600))
    star[0, 1:] = star[1:, 0] = 1
    assert 1 < DiffusionMask(star, "adjacency", 1.0).max_time < 4


@keras.saving.register_keras_serializable(package="tests")
class SameParity(GraphMask):
    """A custom mask: even nodes attend to even nodes, odd to odd."""

    num_nodes = NODES

    def __init__(self, parity=None, **kwargs):
        super().__init__(**kwargs)
        given = np.arange(NODES) % 2 if parity is None else parity
        self.parity = np.asarray(given)

    def operator(self):
        same = self.parity[:, None] == self.parity
        return Dense(same.astype("float32"))

    def arguments(self):
        return {"parity": self.parity}


def test_a_mask_of_ones_own(tmp_path):
    model = keras.Sequential(
        [keras.Input((NODES, CHANNELS)), layer(SameParity())]
    )
    x = nodes()
    other = x.copy()
    other[:, 1::2] = 0
    ref.assert_close(model(x)[:, ::2], ref.numpy(model(other))[:, ::2], 1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    ref.assert_close(again(x), ref.numpy(model(x)), 1e-6)


def test_negative_entries_of_a_mask_of_ones_own_are_refused(monkeypatch):
    def negative(self):
        return Dense(-np.ones((NODES, NODES), "float32"))

    monkeypatch.setattr(SameParity, "operator", negative)
    with pytest.raises(ValueError, match="not negative"):
        layer(SameParity())(nodes())


@eager
@pytest.mark.parametrize("similarity", ["relu", "softmax"])
@pytest.mark.parametrize("name", ["forest-rational", "features"])
def test_no_call_looks_for_negative_entries(name, similarity, monkeypatch):
    """The masks of the library have none."""

    def look(x):
        raise AssertionError("a mask was searched for negative entries")

    found = layer(MASKS[name](), similarity)
    for module in ("forest_distance", "sparse_factors"):
        target = f"keras_topo.operators.{module}.nonnegative_values"
        monkeypatch.setattr(target, look)
    found(nodes())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ForestMask([0, -1]), "cycle"),
        (lambda: ForestMask([-1, 0], [0, -1.0], "rational"), "not negative"),
        (lambda: ForestMask([-1, 0], function="cosine"), "`function`"),
        (lambda: ForestMask([-1, 0], function=lambda d: d - 1), "-1"),
        (
            lambda: ForestMask(
                np.arange(-1, 9), 2.0 ** (np.arange(10) / 3), "table"
            ),
            "common step",
        ),
        (lambda: DiffusionMask(graph(), times=(-1.0,)), "`times`"),
        (lambda: DiffusionMask(graph(), times=2.0, max_time=1.0), "max_time=1"),
        (lambda: DiffusionMask(graph(), "heat"), "`generator`"),
        (lambda: RandomFeaturesMask(graph(), time=0.0), "`time`"),
        (lambda: RandomWalkMask(graph(), anchors=100), "`anchors`"),
        (lambda: RandomWalkMask(graph()).resample(), "built"),
        (lambda: layer(DiffusionMask(graph(), times=(1, 2, 3))), "3 kernels"),
        (
            lambda: GraphPropagation(
                graph_kernel=DiffusionMask(graph(), times=(1, 2))
            )(nodes()),
            "2 kernels",
        ),
        (lambda: layer(np.eye(NODES) - 0.1), "no negative numbers"),
        (lambda: Forest.from_trees([]), "at least one forest"),
        (lambda: layer(DiffusionMask(graph()))(nodes()[:, :5]), "40 nodes"),
        (lambda: Resample(0), "`every`"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        found = make()
        if isinstance(found, GraphKernelAttention):
            found(nodes())
