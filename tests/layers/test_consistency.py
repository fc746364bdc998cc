"""Consistency training: dropped nodes, agreement of copies, the model."""

import keras
import numpy as np
import pytest
import reference as ref

from keras_topo import export_node_saved_model, from_preset, save_preset
from keras_topo.layers import ConsistencyRegularization, NodeDropout
from keras_topo.models import SequentialOfCopies, gkat_node_classifier

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

RNG = np.random.default_rng(0)
KERNEL = RNG.random((9, 9)) * (RNG.random((9, 9)) < 0.5) + np.eye(9)


def classifier(**options):
    options = {
        "form": "propagation",
        "num_heads": 1,
        "key_dim": 4,
        "similarity": "constant",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "node_dropout": 0.5,
        "copies": 4,
        "consistency": 1.0,
        "weight_decay": 0.0,
        **options,
    }
    return gkat_node_classifier(5, 3, KERNEL, **options)


def graph():
    nodes = RNG.random((1, 9, 5)).astype("float32")
    labels = np.arange(9)[None] % 3
    weights = np.zeros((1, 9), "float32")
    weights[0, [0, 4, 8]] = 1
    return nodes, labels, weights


def test_whole_nodes_are_dropped_and_their_expectation_stays():
    nodes = RNG.random((2, 50, 3)).astype("float32") + 1
    layer = NodeDropout(0.3, copies=500, seed=1)
    found = ref.numpy(layer(nodes, training=True)).reshape(2, 500, 50, 3)
    scale = found / nodes[:, None]
    # All channels of a node together, and independently for each copy.
    np.testing.assert_allclose(scale, scale[..., :1] * np.ones(3), 1e-5)
    kept = scale[..., 0] > 0
    np.testing.assert_allclose(scale[kept], 1 / 0.7, 1e-5)
    assert len(np.unique(kept.reshape(1000, 50), axis=0)) > 990
    # Six standard errors of the mean over 500 copies.
    bound = 6 * (0.3 / 0.7 / 500) ** 0.5
    assert abs(scale.mean(axis=1) - 1).max() < bound
    assert abs(kept.mean() - 0.7) < 6 * (0.3 * 0.7 / 50_000) ** 0.5
    # Outside training, nothing is dropped.
    np.testing.assert_array_equal(ref.numpy(layer(nodes)), nodes)


def oracle(logits, copies, temperature):
    """The loss in float64, node by node."""
    batch, nodes, classes = logits.shape
    logits = logits.reshape(batch // copies, copies, nodes, classes)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = 0.0
    for example in p:
        for i in range(nodes):
            mean = example[:, i].mean(axis=0)
            target = mean ** (1 / temperature)
            target /= target.sum()
            for row in example[:, i]:
                total += ((row - target) ** 2).sum()
    return total / (batch * nodes)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_loss_of_disagreement(temperature):
    logits = RNG.normal(size=(6, 4, 5), scale=2)
    layer = ConsistencyRegularization(0.7, temperature, 3, dtype="float64")
    y = layer(ref.tensor(logits), training=True)
    np.testing.assert_array_equal(ref.numpy(y), logits)
    (loss,) = layer.losses
    expected = 0.7 * oracle(logits, 3, temperature)
    np.testing.assert_allclose(float(loss), expected, 1e-12)
    layer(ref.tensor(logits), training=False)
    assert layer.losses == []


def test_the_target_counts_as_a_constant():
    logits = RNG.normal(size=(2, 3, 4))

    def loss(x):
        layer = ConsistencyRegularization(1.0, 0.5, 2, dtype="float64")
        layer(x, training=True)
        return layer.losses[0]

    _, (gradient,) = ref.with_gradients(loss)(
        ref.tensor(np.array(1.0)), ref.tensor(logits)
    )
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    target = p.mean(0, keepdims=True) ** 2
    target /= target.sum(-1, keepdims=True)
    upstream = 2 * (p - target) / 6
    expected = p * (upstream - (upstream * p).sum(-1, keepdims=True))
    np.testing.assert_allclose(ref.numpy(gradient), expected, 1e-8, 1e-12)


def test_sharpening_stays_finite():
    """A power of small numbers would be zero, and the sum over them too."""
    layer = ConsistencyRegularization(1.0, 0.01, 2)
    layer(np.zeros((2, 3, 7), "float32"), training=True)
    np.testing.assert_allclose(float(layer.losses[0]), 0, atol=1e-6)


def test_only_the_kernel_propagates():
    """Inference is the average by the kernel, without random numbers."""
    model = classifier()
    nodes, *_ = graph()
    hidden, logits = model.get_layer("hidden_1"), model.get_layer("logits")
    x = np.maximum(nodes @ ref.numpy(hidden.kernel), 0)
    _, _, value = np.split(ref.numpy(logits.projection_dense.kernel), 3, axis=1)
    expected = KERNEL / KERNEL.sum(1, keepdims=True) @ (x @ value)
    for _ in range(2):
        ref.assert_close(model(nodes), expected, 1e-5)


def test_trains_on_copies_with_the_targets_of_one():
    """The loss is the mean over copies, on labeled nodes, plus disagreement."""
    model = classifier(node_dropout=0.0)
    assert isinstance(model, SequentialOfCopies)
    nodes, labels, weights = graph()
    model.compile(
        keras.optimizers.SGD(0.0),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=["accuracy"],
    )
    logits = ref.numpy(model(nodes, training=True)).astype("float64")
    assert logits.shape == (4, 9, 3)
    found = model.train_on_batch(nodes, labels, weights, return_dict=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids = [0, 4, 8]
    entropy = -log_p[:, ids, labels[0, ids]].mean()
    expected = entropy + oracle(logits, 4, 0.5)
    np.testing.assert_allclose(found["loss"], expected, 1e-5)
    right = (logits[0].argmax(-1) == labels[0])[ids].mean()
    np.testing.assert_allclose(found["accuracy"], right, 1e-6)


def test_learns_saves_and_loads(tmp_path):
    model = classifier(temperature=0.4, consistency=0.1, node_dropout=0.1)
    nodes, _, weights = graph()
    labels = nodes[..., :3].argmax(-1)
    model.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(
        nodes, labels, sample_weight=weights, epochs=30, verbose=0
    )
    losses = history.history["loss"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    before = ref.numpy(model(nodes))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    save_preset(model, tmp_path / "preset", {"task": "nodes"})
    for other in (loaded, from_preset(tmp_path / "preset")):
        assert isinstance(other, SequentialOfCopies)
        assert other.get_layer("consistency").temperature == 0.4
        assert other.get_layer("node_dropout").copies == 4
        ref.assert_close(other(nodes), before, 1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NodeDropout(1.0), "`rate` expects"),
        (lambda: NodeDropout(0.5, copies=0), "`copies` expects"),
        (lambda: NodeDropout(0.5)(np.zeros((3, 4))), "expects nodes"),
        (lambda: ConsistencyRegularization(-1.0), "`weight` expects"),
        (lambda: ConsistencyRegularization(1, 0), "`temperature` expects"),
        (lambda: ConsistencyRegularization(1, 1, 0), "`copies` expects"),
        (lambda: classifier(form="modern"), "`form` expects 'propagation'"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "Received: " in str(error.value)


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_exports(tmp_path):
    """The exported model copies and drops nothing; export compares outputs."""
    model = classifier()
    nodes, *_ = graph()
    report = export_node_saved_model(model, tmp_path / "1", nodes[0])
    outputs = report["signatures"]["serving_default"]["outputs"]
    assert "probabilities" in outputs
