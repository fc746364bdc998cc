"""Every kind of model that a tensor goes into: exported, answers, by task."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import answers_with, dense_model
from keras import layers as kl

import keras_topo
from keras_topo import layers
from keras_topo.export import runtimes, saved_models
from keras_topo.export.answers import Answers, last_activation, task_of
from keras_topo.models import causal_lm

pytestmark = pytest.mark.tensorflow_only

InvalidArgument = tf.errors.InvalidArgumentError
NAMES = ["sky", "sea", "sand"]


def block(shape, patch, mask="decay"):
    """Input and tokens on a grid, behind one block of masked attention."""
    inputs = keras.Input(shape)
    x = kl.Rescaling(1 / 127.5, offset=-1)(inputs)
    if patch is not None:
        x = layers.PatchEmbedding(8, patch)(x)
    return inputs, layers.TopologicalEncoderBlock(2, mask=mask)(x)


def video():
    inputs, x = block((4, 8, 8, 3), (2, 4, 4))
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling3D()(x)))


def volume():
    """A head of two layers, whose outputs are not logits."""
    inputs, x = block((8, 8, 8, 1), (4, 4, 4), mask="table")
    x = kl.Dense(3)(kl.GlobalAveragePooling3D()(x))
    return keras.Model(inputs, kl.Activation("softmax", dtype="float32")(x))


def sequence():
    inputs, x = block((None, 4), None)
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling1D()(x)))


def sequence_of_tokens():
    """One class per token of each sequence."""
    inputs, x = block((6, 4), None)
    return keras.Model(inputs, kl.Dense(3, activation="softmax")(x))


def ids():
    tokens = keras.Input((None,), dtype="int32")
    model = causal_lm(11, channels=8, num_heads=2, depth=1)
    return keras.Model(tokens, model(tokens))


def segmentation():
    inputs, x = block((8, 12, 3), 4)
    return keras.Model(inputs, kl.Conv2DTranspose(3, 4, 4)(x))


def augmented():
    """Keras's own pattern: augmentation, and a model inside."""
    inputs = keras.Input((8, 8, 3))
    x = keras.Sequential([kl.RandomFlip(), kl.RandomRotation(0.1)])(inputs)
    return keras.Model(inputs, dense_model()(x))


def of_any_size():
    inputs, x = block((None, None, 3), 4)
    return keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))


def numbers():
    model = dense_model(units=1)
    model.compile("adam", "mse")
    return model


def yes_or_no():
    model = dense_model(last=[kl.Activation("sigmoid"), kl.Identity()])
    model.compile("adam", "binary_crossentropy")
    return model


def half():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return of_any_size()
    finally:
        keras.config.set_dtype_policy("float32")


# kind -> model, name of the input, detected task
KINDS = {
    "video": (video, "inputs", "classification"),
    "volume": (volume, "inputs", "classification"),
    "sequence": (sequence, "inputs", "classification"),
    "sequence_of_tokens": (sequence_of_tokens, "inputs", "classification"),
    "ids": (ids, "tokens", None),
    "segmentation": (segmentation, "images", None),
    "augmented": (augmented, "images", "classification"),
    "of_any_size": (of_any_size, "images", "classification"),
    "numbers": (numbers, "images", "regression"),
    "yes_or_no": (yes_or_no, "images", "multilabel"),
    "half": (half, "images", "classification"),
}
# Models that end in probabilities, and their activations.
SHARES = ("volume", "sequence_of_tokens", "yes_or_no")


# Other tests cover the same path as fast.
SLOW = ("sequence", "augmented", "half", "segmentation", "volume")


def named(kinds):
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in kinds
    ]


def inputs_of(model, name, batch):
    random = np.random.default_rng(1)
    shape = [12 if n is None else n for n in model.inputs[0].shape[1:]]
    if name == "tokens":
        return random.integers(0, 11, (batch, *shape)).astype("int32")
    return 255 * random.random((batch, *shape), "float32")


def check_answer(answer, outputs, task, shares):
    outputs = np.asarray(tf.cast(outputs, tf.float32))
    expected = {"probabilities": outputs} if shares else {}
    if task is None:
        expected = {"outputs": outputs}
    elif task == "regression":
        expected = {"predictions": outputs}
    elif not shares:
        expected = {
            "logits": outputs,
            "probabilities": np.asarray(tf.nn.softmax(outputs)),
        }
    assert set(answer) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(
            answer[key], values, rtol=1e-4, atol=1e-4, err_msg=key
        )


@pytest.mark.parametrize("kind", named(KINDS))
def test_saved_models_of_every_kind(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    build, name, task = KINDS[kind]
    model = build()
    report = keras_topo.export(model, tmp_path / "1")
    assert report["verified"] and report["task"] == task
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures[
        "serving_default"
    ]
    x = inputs_of(model, name, 2)
    outputs = model(x, training=False)
    answer = {k: v.numpy() for k, v in serve(**{name: tf.constant(x)}).items()}
    if kind != "half":  # Graphs round differently.
        check_answer(answer, outputs, task, kind in SHARES)
    key = next(iter(answer))
    empty = serve(**{name: tf.constant(x[:0])})
    assert empty[key].shape[0] == 0
    if model.inputs[0].shape[1] is not None:
        # Also where the model could take it.
        longer = np.concatenate([x, x], axis=1)
        with pytest.raises(InvalidArgument, match=f"{name}.*expected shape"):
            serve(**{name: tf.constant(longer)})
    if name == "tokens":
        with pytest.raises(InvalidArgument, match="`tokens` expects ids from"):
            serve(tokens=tf.constant(x + 11))
    else:
        x[0] = np.nan
        with pytest.raises(InvalidArgument, match=f"`{name}` must be finite"):
            serve(**{name: tf.constant(x)})


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["litert", "onnx"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_every_kind(tmp_path, kind, runtime):
    for package in runtimes.PACKAGES[runtime]:
        pytest.importorskip(package)
    build, name, task = KINDS[kind]
    model = build()
    options = {}
    if runtime == "onnx" and kind in ("sequence", "ids"):
        with pytest.raises(RuntimeError, match="`input_shape` gives sizes"):
            keras_topo.export(model, tmp_path / "model", runtime)
        options = {"input_shape": (12,)}
    report = keras_topo.export(model, tmp_path / "model", runtime, **options)
    assert report["verified"] and report["task"] == task
    assert report["max_abs_difference"] < 1e-4
    x = inputs_of(model, name, 2)
    run = getattr(runtimes, f"_run_{runtime}")
    answer = run(tmp_path / "model", {name: x})
    if kind != "half":
        outputs = model(x, training=False)
        check_answer(answer, outputs, task, kind in SHARES)


@pytest.mark.usefixtures("in_this_process")
def test_a_segmentation_names_every_pixel(tmp_path):
    model = segmentation()
    report = keras_topo.export(model, tmp_path / "1", class_names=NAMES)
    assert report["verified"] and report["task"] == "classification"
    assert set(report["differences"]) == {"logits", "probabilities"}
    outputs = report["signatures"]["serving_default"]["outputs"]
    assert outputs["class"] == "string (None, 8, 12)"
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures[
        "serving_default"
    ]
    x = inputs_of(model, "images", 2)
    answer = serve(images=tf.constant(x))
    best = np.argmax(model(x), axis=-1)
    found = np.char.decode(answer["class"].numpy().astype("S"))
    assert (found == np.array(NAMES)[best]).all()
    np.testing.assert_allclose(
        np.sum(answer["probabilities"], -1), 1, atol=1e-5
    )


def test_labels_are_named_one_by_one(tmp_path):
    model = yes_or_no()
    keras_topo.export(model, tmp_path / "1", class_names=NAMES, verify=False)
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures[
        "serving_default"
    ]
    x = inputs_of(model, "images", 8)
    answer = serve(images=tf.constant(x))
    assert set(answer) == {"probabilities", "labels"}
    here = np.asarray(model(x)) >= 0.5
    found = np.char.decode(answer["labels"].numpy().astype("S"))
    assert (found == np.where(here, NAMES, "")).all()
    assert here.any() and not here.all()


def test_sizes_that_are_given_take_files_too(tmp_path):
    report = keras_topo.export(
        of_any_size(), tmp_path / "1", input_shape=(8, 16), verify=False
    )
    inputs = report["signatures"]["serving_default"]["inputs"]
    assert inputs == {"images": "float32 (None, 8, 16, 3)"}
    assert "classify_bytes" in report["signatures"]
    for wrong in ((8,), (8, 16, 1), (0, 8), "8x8", 8):
        with pytest.raises(ValueError, match="`input_shape` expects"):
            keras_topo.export(
                of_any_size(), tmp_path / "2", input_shape=wrong, verify=False
            )


def test_a_model_that_is_not_for_any_size_is_told_to_say_its_own(tmp_path):
    def shifted(x):
        return x + keras.ops.slice(table, (0, 0), (keras.ops.shape(x)[1], 4))

    table = keras.ops.ones((48, 4))
    tokens = keras.Input((None,), dtype="int32")
    x = kl.Lambda(shifted)(kl.Embedding(5, 4)(tokens))
    model = keras.Model(tokens, kl.Dense(2)(kl.GlobalAveragePooling1D()(x)))
    with pytest.raises(InvalidArgument) as caught:
        keras_topo.export(model, tmp_path / "1", verify=False)
    (note,) = caught.value.__notes__
    assert "(64,)" in note and "`input_shape`" in note
    keras_topo.export(model, tmp_path / "1", input_shape=(40,), verify=False)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("change", ["int8", "lora"])
def test_changed_layers_inside(tmp_path, change, monkeypatch):
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    model = video()
    plain = np.asarray(model(inputs_of(model, "inputs", 2)))
    if change == "int8":
        model.quantize("int8")
    else:
        for layer in model._flatten_layers():
            if isinstance(layer, kl.Dense):
                layer.enable_lora(2)
                layer.lora_kernel_b.assign(
                    tf.ones_like(layer.lora_kernel_b.value)
                )
    report = keras_topo.export(model, tmp_path / "1")
    assert report["max_abs_difference"] < 1e-5
    x = inputs_of(model, "inputs", 2)
    serve = tf.saved_model.load(str(tmp_path / "1")).signatures
    logits = serve["serving_default"](inputs=tf.constant(x))["logits"]
    np.testing.assert_allclose(logits, model(x), rtol=1e-4, atol=1e-5)
    assert np.abs(logits - plain).max() > 1e-4


# -------------------------------------------------------------------- the task


@pytest.mark.parametrize(
    ("loss", "task"),
    [
        ("sparse_categorical_crossentropy", "classification"),
        (keras.losses.CategoricalCrossentropy(), "classification"),
        (keras.losses.BinaryCrossentropy(from_logits=True), "multilabel"),
        ("mae", "regression"),
        (["mse"], "regression"),
        ({"logits": keras.losses.MeanSquaredError()}, "regression"),
        (keras.losses.Huber(), "regression"),
        (lambda y, z: z - y, None),
        (None, None),
    ],
)
def test_the_task_of_a_loss(loss, task):
    model = dense_model()
    assert task_of(model) is None
    model.compile("adam", loss)
    assert task_of(model) == task


def test_the_last_activation_wherever_it_stands():
    softmax = kl.Activation("softmax")
    for last, expected in (
        ([], None),
        ([kl.Softmax()], "softmax"),
        ([softmax, kl.Activation("linear", dtype="float32")], "softmax"),
        (
            [kl.Dense(2, "sigmoid"), kl.Dropout(0.5), kl.Reshape((2, 1))],
            "sigmoid",
        ),
        ([kl.Dense(2, "sigmoid"), kl.Dense(2)], None),
        ([kl.Dense(2, "relu")], None),
    ):
        model = dense_model(last=last)
        assert last_activation(model.outputs[0]) == expected
        inputs = keras.Input((8, 8, 3))
        twice = keras.Model(inputs, keras.Model(inputs, model(inputs))(inputs))
        assert last_activation(twice.outputs[0]) == expected


def test_what_activations_do_not_fit(tmp_path):
    halves = [kl.Softmax(), kl.Reshape((1, 1, 2, 2))]
    for last, task, message in (
        ([kl.Activation("sigmoid")], None, "pass task='multilabel'"),
        ([kl.Softmax()], "multilabel", "of task='classification'"),
        (halves, "classification", "ends in 'softmax', whose outputs do not"),
    ):
        with pytest.raises(ValueError, match=message):
            model = dense_model(units=4, last=last)
            keras_topo.export(model, tmp_path / "1", task=task)
    with pytest.raises(ValueError, match="at least 2 classes"):
        keras_topo.export(
            dense_model(units=1), tmp_path / "1", task="classification"
        )
    with pytest.raises(ValueError, match="`class_names` is for classes"):
        keras_topo.export(numbers(), tmp_path / "1", class_names=["a"])
    assert not list(tmp_path.iterdir())


def test_logits_are_no_probabilities_by_chance():
    """None is negative but rows sum to two; or one is negative."""
    output = dense_model().outputs[0]
    for rows, shares in (
        ([[0.2, 0.3, 0.5]] * 3, True),
        ([[0.2, 0.3, 0.5], [0.2, 0.3, 0.6]], False),
        ([[-0.2, 0.7, 0.5]] * 3, False),
        (np.zeros((0, 3)), False),
    ):
        answers = Answers("classification", output)
        answers.settle(np.array(rows), 1e-5)
        assert answers.shares == shares


@pytest.mark.parametrize(
    "option", [{"top_k": 3}, {"max_pixels": 100}, {"sample_bits": 12}]
)
def test_options_of_files_without_files(tmp_path, option):
    model = keras.Sequential(
        [keras.Input((8, 8, 3), name="images"), keras.layers.Conv2D(2, 1)]
    )
    with pytest.raises(ValueError, match="option of `classify_bytes`"):
        keras_topo.export(model, tmp_path / "1", **option)
    with pytest.raises(ValueError, match="option of SavedModels"):
        keras_topo.export(model, tmp_path / "m.onnx", "onnx", **option)
