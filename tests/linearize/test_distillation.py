"""`Distillation`: the three stages."""

import keras
import numpy as np
import pytest
import reference as ref

import keras_topo
from keras_topo.layers import TopologicalEncoderBlock
from keras_topo.linearize import STAGES, Distillation
from keras_topo.linearize.blocks import encoder_blocks
from keras_topo.models import topvit

# Backend-neutral: on JAX the contracts and layers of every kind suffice.
pytestmark = pytest.mark.slow_on_jax

SHAPE = (8, 8, 1)


@pytest.fixture
def models():
    keras.utils.set_random_seed(1)
    teacher = topvit(
        (8, 2, 12, 2),
        patch_size=2,
        image_shape=SHAPE,
        num_classes=3,
        attention="softmax",
        pooling="token",
        layer_scale=0.5,
    )
    return teacher, keras_topo.linearize(teacher)


def data(count=16):
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (count, *SHAPE)).astype("float32")
    return x, np.eye(3, dtype="float32")[random.integers(0, 3, count)]


def state(model):
    return {w.path: ref.numpy(w).copy() for w in model.weights}


def changed(model, before):
    return {
        path
        for path, array in state(model).items()
        if not np.array_equal(array, before[path])
    }


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def relative(found, expected):
    found, expected = map(np.float64, map(ref.numpy, (found, expected)))
    return np.mean((found - expected) ** 2) / np.mean(expected**2)


def divergence(teacher, student, t):
    p, q = (softmax(np.float64(ref.numpy(x)) / t) for x in (teacher, student))
    return t * t * np.mean(np.sum(p * np.log(p / q), axis=-1))


def loss(teacher, student, stage, x, y, **options):
    model = Distillation(teacher, student, stage, **options)
    model.compile("sgd")
    found = model.evaluate(x, y, batch_size=len(x), verbose=0, return_dict=True)
    return found["loss"]


def hidden_states(model, x):
    inner = keras.Model(
        model.input, [block.output for block in encoder_blocks(model)]
    )
    return inner(x)


@pytest.mark.usefixtures("eagerly")
@pytest.mark.slow_on_jax
def test_losses_by_the_definition(models):
    teacher, student = models
    x, y = data()
    inner = keras.Model(
        teacher.input, [block.input for block in encoder_blocks(teacher)]
    )
    expected = [
        relative(
            new.attention(old.attention_norm(h), grid=grid),
            old._attend(old.attention_norm(h), grid, None, False, False),
        )
        for old, new, (h, grid) in zip(
            encoder_blocks(teacher),
            encoder_blocks(student),
            inner(x),
            strict=True,
        )
    ]
    found = loss(teacher, student, "attention", x, y)
    assert found == pytest.approx(np.mean(expected), rel=1e-4)
    hidden = [hidden_states(model, x) for model in (student, teacher)]
    expected = np.mean([relative(*pair) for pair in zip(*hidden, strict=True)])
    expected += divergence(teacher(x), student(x), 3.0)
    found = loss(teacher, student, "features", x, y, temperature=3.0)
    assert found == pytest.approx(expected, rel=1e-4)
    target = 0.8 * y + 0.2 / 3
    log_p = np.log(softmax(np.float64(ref.numpy(student(x)))))
    entropy = -np.mean(np.sum(target * log_p, axis=-1))
    other = divergence(teacher(x), student(x), 3.0)
    options = {"temperature": 3.0, "label_smoothing": 0.2}
    for weight in (0.0, 0.25, 1.0):
        expected = (1 - weight) * entropy + weight * other
        found = loss(
            teacher, student, "labels", x, y, teacher_weight=weight, **options
        )
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow_on_jax
@pytest.mark.usefixtures("eagerly")
def test_what_is_trained(models):
    """The attention of the changed blocks first, then all; never the
    teacher."""
    teacher, _ = models
    student = keras_topo.linearize(teacher, blocks=[1])
    x, y = data()
    teachers = state(teacher)
    for stage in STAGES:
        model = Distillation(teacher, student, stage)
        model.compile(keras.optimizers.Adam(1e-2))
        before = state(student)
        history = model.fit(x, y, batch_size=8, epochs=1, verbose=0).history
        found = changed(student, before)
        if stage == "attention":
            attention = encoder_blocks(student)[1].attention
            assert found == {w.path for w in attention.trainable_weights}
            assert set(history) == {"loss"}
        else:
            # Keys alone have a bias that does nothing.
            assert len(found) >= len(student.trainable_weights) - 2
            assert set(history) == {"loss", "accuracy"}
        assert np.isfinite(history["loss"]).all()
        assert not changed(teacher, teachers)


@pytest.mark.slow_on_jax
# XLA compilation takes most of the time.
@pytest.mark.slow
@pytest.mark.parametrize(
    "jit",
    [
        pytest.param("auto", marks=[] if ref.on_jax else pytest.mark.slow),
        *([] if ref.on_jax else [False]),
    ],
)
def test_each_stage_brings_it_nearer(models, jit):
    teacher, student = models
    x, y = data()
    for stage in STAGES[:2]:
        model = Distillation(teacher, student, stage)
        model.compile(keras.optimizers.Adam(1e-2), jit_compile=jit)
        history = model.fit(
            x, y, batch_size=16, epochs=20, verbose=0, validation_data=(x, y)
        ).history
        losses = history["val_loss"]
        assert losses[-1] < 0.7 * losses[0], stage
        assert len(history["val_accuracy"]) == 20
    found = ref.numpy(model.predict(x, verbose=0))
    ref.assert_close(found, ref.numpy(student(x)), 1e-5)


@pytest.mark.usefixtures("eagerly")
def test_integer_labels(models):
    x, y = data()
    labels = y.argmax(1)
    found = [loss(*models, "labels", x, each) for each in (y, labels)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.slow_on_jax
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("stage", STAGES)
def test_padding_counts_in_no_stage(stage):
    ids = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(9, 8, mask_zero=True)(ids)
    x = TopologicalEncoderBlock(2, attention="softmax", name="one")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    teacher = keras.Model(ids, keras.layers.Dense(3)(x))
    student = keras_topo.linearize(teacher)
    model = Distillation(teacher, student, stage)
    model.compile("sgd", run_eagerly=True)
    tokens = np.array([[3, 1, 4, 1, 0, 0], [5, 8, 2, 6, 5, 3]])
    history = model.fit(tokens, np.eye(3)[[0, 2]], verbose=0).history
    assert np.isfinite(history["loss"]).all()
    if stage != "attention":
        return
    embedding = teacher.layers[1]
    mask = tokens != 0
    old, new = (m.get_layer("one") for m in (teacher, student))
    x = embedding(tokens)
    found, expected = (
        ref.numpy(block.attend(x, mask=mask))[mask] for block in (new, old)
    )
    y = np.eye(3)[[0, 2]]
    results = model.evaluate(tokens, y, verbose=0, return_dict=True)
    assert results["loss"] == pytest.approx(relative(found, expected), rel=1e-4)


def test_half_precision_has_its_loss_scaled():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        teacher = topvit(
            (8, 2, 12, 1), 2, SHAPE, num_classes=3, attention="softmax"
        )
    finally:
        keras.config.set_dtype_policy(policy)
    student = keras_topo.linearize(teacher)
    for model in (student, Distillation(teacher, student, "features")):
        model.compile("adam", "mse")
        kind = keras.optimizers.LossScaleOptimizer
        assert isinstance(model.optimizer, kind)


def test_errors(models):
    teacher, student = models
    x, y = data()
    for wrong in ({"label_smoothing": 5.0}, {"temperature": float("inf")}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"`{name}`.*Received"):
            Distillation(teacher, student, "labels", **wrong)
    one = topvit((8, 2, 12, 2), 2, SHAPE, num_classes=1, attention="softmax")
    for pair in ((one, keras_topo.linearize(one)), (one, student)):
        with pytest.raises(ValueError, match="at least two. Received"):
            Distillation(*pair, "features")
    with pytest.raises(ValueError, match="`stage`.*Received"):
        Distillation(teacher, student, "all")
    for options in ({"temperature": 0}, {"teacher_weight": 1.5}):
        with pytest.raises(ValueError, match="`temperature`.*Received"):
            Distillation(teacher, student, "labels", **options)
    with pytest.raises(ValueError, match="`student` expects linear.*Received"):
        Distillation(teacher, teacher, "labels")
    for pair in ((student, student), (student, teacher)):
        with pytest.raises(ValueError, match="`student` expects linear"):
            Distillation(*pair, "labels")
    with pytest.raises(ValueError, match="`student`.*as many.*Received"):
        Distillation(
            teacher,
            topvit((8, 2, 12, 1), image_shape=SHAPE, num_classes=3),
            "labels",
        )
    nested = keras.Sequential([keras.Input(SHAPE), teacher])
    with pytest.raises(ValueError, match="`teacher`.*Received"):
        Distillation(nested, student, "labels")
    model = Distillation(teacher, student, "labels")
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="weights of examples.*Received"):
        model.fit(x, y, sample_weight=np.ones(len(x)), verbose=0)
