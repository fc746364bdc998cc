"""SavedModels: signatures, refused requests, publication, verification."""

import functools
import io
import json
import os
import re
import stat
import struct
import subprocess
import sys
import textwrap
import types
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_topo import export, export_tensors, saved_models
from keras_topo.export import export_saved_model
from keras_topo.models import topvit

pytestmark = pytest.mark.tensorflow_only

NAMES = ["zero", "one", "two", "drei", "vier", "fünf", "six"]
InvalidArgument = tf.errors.InvalidArgumentError


def small_cnn(channels=3, classes=7, **options):
    return keras.Sequential(
        [
            keras.Input((8, 10, channels), name="pixels", **options),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One model, its folder, its report, and what serves it."""
    path = tmp_path_factory.mktemp("run") / "saved_model" / "1"
    model = small_cnn()
    report = export_saved_model(
        model, path, class_names=NAMES, max_pixels=2_000
    )
    loaded = tf.saved_model.load(str(path))
    return types.SimpleNamespace(
        model=model,
        path=path,
        report=report,
        serving_default=loaded.signatures["serving_default"],
        classify_bytes=loaded.signatures["classify_bytes"],
        loaded=loaded,
    )


@pytest.fixture
def pixels():
    """A smooth random image of 40 x 50 RGB pixels."""
    coarse = np.random.default_rng(0).uniform(0, 255, (1, 4, 5, 3))
    return tf.cast(tf.image.resize(coarse, (40, 50)), tf.uint8)[0].numpy()


def encode(pixels, file_format, mode="RGB", **options):
    stream = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    image.save(stream, file_format, **options)
    return stream.getvalue()


def classify(exported, *images):
    images = tf.constant(list(images), tf.string, (len(images),))
    return exported.classify_bytes(image_bytes=images)


def softmax(logits):
    return keras.ops.convert_to_numpy(
        keras.ops.softmax(keras.ops.cast(logits, "float32"))
    )


def load_unverified(model, path, **options):
    export_saved_model(model, path, verify=False, **options)
    return tf.saved_model.load(str(path))


# ------------------------------------------------------------ the signatures


def test_signatures_have_exactly_the_documented_names(exported):
    assert set(exported.loaded.signatures) == set(export.IMAGE_SIGNATURES)

    images = tf.TensorSpec((None, 8, 10, 3), tf.float32, "images")
    answer = exported.serving_default.structured_outputs
    assert exported.serving_default.structured_input_signature == (
        (),
        {"images": images},
    )
    assert set(answer) == {"logits", "probabilities"}
    for spec in answer.values():
        assert spec.dtype == tf.float32
        assert spec.shape.as_list() == [None, 7]

    image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
    answer = exported.classify_bytes.structured_outputs
    assert exported.classify_bytes.structured_input_signature == (
        (),
        {"image_bytes": image_bytes},
    )
    assert set(answer) == {"classes", "scores"}
    assert answer["classes"].dtype == tf.string
    assert answer["scores"].dtype == tf.float32
    for spec in answer.values():
        assert spec.shape.as_list() == [None, 5]


def test_report(exported):
    report = json.loads(json.dumps(exported.report))
    assert report["path"] == str(exported.path)
    assert report["signatures"] == {
        "serving_default": {
            "inputs": {"images": "float32 (None, 8, 10, 3)"},
            "outputs": {
                "logits": "float32 (None, 7)",
                "probabilities": "float32 (None, 7)",
            },
        },
        "classify_bytes": {
            "inputs": {"image_bytes": "string (None,)"},
            "outputs": {
                "classes": "string (None, 5)",
                "scores": "float32 (None, 5)",
            },
        },
    }
    assert report["classes"] == 7
    assert report["verified"] is True
    assert report["tolerance"] == 1e-5
    assert set(report["differences"]) == {"logits", "probabilities", "scores"}
    assert report["max_abs_difference"] <= 1e-5


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_serving_default_repeats_the_keras_model(exported, batch):
    images = np.random.default_rng(1).uniform(0, 255, (batch, 8, 10, 3))
    images = images.astype("float32")
    answer = exported.serving_default(images=tf.constant(images))
    logits = exported.model(images)
    np.testing.assert_allclose(answer["logits"], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        answer["probabilities"], softmax(logits), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_classify_bytes_repeats_the_keras_model(exported, pixels, file_format):
    encoded = encode(pixels, file_format)
    answer = classify(exported, encoded, encoded)

    decoded = tf.io.decode_image(encoded, channels=3)
    resized = tf.image.resize(decoded, (8, 10), antialias=True)
    probabilities = softmax(exported.model(resized[None]))[0]
    best = np.argsort(-probabilities)[:5]
    for row in range(2):
        names = [name.decode() for name in answer["classes"][row].numpy()]
        assert names == [NAMES[index] for index in best]
        np.testing.assert_allclose(
            answer["scores"][row], probabilities[best], rtol=1e-5
        )


def test_indices_are_the_default_names_and_top_k_is_capped(tmp_path, pixels):
    model = small_cnn(channels=1, classes=3)
    loaded = load_unverified(model, tmp_path / "1", top_k=10)
    answer = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant([encode(pixels, "PNG", "L")])
    )
    assert sorted(answer["classes"].numpy()[0]) == [b"0", b"1", b"2"]
    np.testing.assert_allclose(np.sum(answer["scores"]), 1, rtol=1e-6)


ENCODINGS = [
    ("PNG", "L"),
    ("PNG", "LA"),
    ("PNG", "RGB"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("PNG", "1"),
    ("JPEG", "L"),
    ("JPEG", "RGB"),
    ("JPEG", "CMYK"),
]


def decode(image_bytes, channels):
    spec = export._ImageSpec(40, 50, channels, 7)
    decoder = tf.function(
        lambda image_bytes: export._images_from_bytes(image_bytes, spec, 10**6),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )
    return decoder(image_bytes).numpy()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_kind_of_image_decodes_to_the_models_channels(channels, pixels):
    encoded = [encode(pixels, *encoding) for encoding in ENCODINGS]
    decoded = decode(encoded, channels)
    assert decoded.shape == (len(ENCODINGS), 40, 50, channels)

    target = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    for image, data, encoding in zip(decoded, encoded, ENCODINGS, strict=True):
        reference = Image.open(io.BytesIO(data)).convert(target)
        reference = np.array(reference, "float32").reshape(image.shape)
        # Luma weights and the conversion of inks are rounded differently.
        limit = 8 if "CMYK" in encoding else 4
        assert np.abs(image - reference).max() <= limit, encoding


def test_alpha_of_a_png_is_kept(pixels):
    rgba = np.dstack([pixels, np.full((40, 50), 7, "uint8")])
    (image,) = decode([encode(rgba, "PNG", "RGBA")], 4)
    np.testing.assert_array_equal(image, rgba)


def test_images_that_no_file_holds_are_served_as_pixels_only(tmp_path):
    model = small_cnn(channels=2)
    with pytest.raises(ValueError, match="1, 3 or 4 channels.*Received"):
        export_saved_model(model, tmp_path / "1")
    loaded = load_unverified(
        model, tmp_path / "1", signatures=("serving_default",)
    )
    assert list(loaded.signatures) == ["serving_default"]


# -------------------------------------------- requests refused, and the empty


def test_an_empty_batch_gets_an_empty_answer(exported):
    answer = exported.serving_default(images=tf.zeros((0, 8, 10, 3)))
    assert answer["logits"].shape == (0, 7)
    assert answer["probabilities"].shape == (0, 7)
    answer = classify(exported)
    assert answer["classes"].shape == (0, 5)
    assert answer["scores"].shape == (0, 5)


def test_an_empty_batch_passes_layers_that_cannot_take_it(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 10, 3)),
            keras.layers.Reshape((8, 30)),
            keras.layers.LSTM(3),
        ]
    )
    with pytest.raises(InvalidArgument):
        model(tf.zeros((0, 8, 10, 3)))
    loaded = load_unverified(model, tmp_path / "1")
    answer = loaded.signatures["serving_default"](
        images=tf.zeros((0, 8, 10, 3))
    )
    assert answer["logits"].shape == (0, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_refused(exported, value):
    images = np.zeros((2, 8, 10, 3), "float32")
    images[1, 2, 3, 0] = value
    with pytest.raises(InvalidArgument, match="`images` must be finite"):
        exported.serving_default(images=tf.constant(images))
    images[1, 2, 3, 0] = 0
    assert np.isfinite(exported.serving_default(images=images)["logits"]).all()


def with_png_size(png, height, width):
    """A PNG whose header, checksum included, tells another size."""
    chunk = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def with_jpeg_size(jpeg, height, width):
    start = jpeg.index(b"\xff\xc0") + 5
    size = struct.pack(">HH", height, width)
    return jpeg[:start] + size + jpeg[start + 4 :]


def bad_images(pixels):
    png, jpeg = encode(pixels, "PNG"), encode(pixels, "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    frame = Image.fromarray(pixels)
    animation = io.BytesIO()
    frame.save(
        animation,
        "GIF",
        save_all=True,
        append_images=[Image.fromarray(255 - pixels)],
    )
    kind = r"image_bytes\[1\] must be a JPEG or a PNG"
    size = r"image_bytes\[1\] must have 1 to 2000 pixels. Received: "
    data = "image_bytes_must_be_whole_JPEG_or_PNG"
    ancillary = b"\0\0\0\0teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    return {
        "nothing": (b"", kind),
        "text": (b"GET / HTTP/1.1", kind),
        "gif": (encode(pixels, "GIF", "P"), kind),
        "animated gif": (animation.getvalue(), kind),
        "bmp": (encode(pixels, "BMP"), kind),
        "jpeg, half of it": (jpeg[: len(jpeg) // 2], data),
        "jpeg, all but its end": (jpeg[:-2], data),
        "jpeg, its first bytes": (jpeg[:3], data),
        "jpeg of zeros": (jpeg[:3] + bytes(50), data),
        "png, half of it": (png[: len(png) // 2], data),
        "png, a flipped byte": (bytes(flipped), data),
        "png, its signature": (png[:8], kind),
        "png, half its header": (png[:20], size + "0 x 50"),
        "png, header not first": (png[:8] + ancillary + png[8:], kind),
        "png, no pixels": (with_png_size(png, 0, 50), size + "0 x 50"),
        "png, large": (with_png_size(png, 41, 50), size + "41 x 50"),
        "png, huge": (
            with_png_size(png, 2**31 - 1, 2**31 - 1),
            size + "2147483647 x 2147483647",
        ),
        "png, impossible": (with_png_size(png, 2**32 - 1, 2**32 - 1), size),
        "jpeg, huge": (
            with_jpeg_size(jpeg, 65_000, 65_000),
            size + "65000 x 65000",
        ),
    }


@pytest.mark.parametrize("kind", bad_images(np.zeros((40, 50, 3), "uint8")))
def test_bytes_that_are_no_image_are_refused_by_name(exported, pixels, kind):
    good = encode(pixels, "JPEG")  # 2,000 pixels: just allowed
    bad, message = bad_images(pixels)[kind]
    before = classify(exported, good)
    with pytest.raises(InvalidArgument, match=message):
        classify(exported, good, bad, good)
    after = classify(exported, good)
    np.testing.assert_array_equal(before["scores"], after["scores"])


# --------------------------------------------------------- kinds of the model


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_models_answer_in_float32(tmp_path, policy, capfd):
    dtype = keras.dtype_policies.get(policy)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255, dtype=dtype),
            keras.layers.Flatten(dtype=dtype),
            keras.layers.Dense(4, dtype=dtype),
        ]
    )
    assert model.outputs[0].dtype == dtype.compute_dtype
    logger = tf.get_logger()
    logger.setLevel("INFO")  # as TensorFlow itself does in a notebook
    try:
        # The clean process is slow to start: once is enough.
        verify = policy == "mixed_bfloat16"
        report = export_saved_model(model, tmp_path / "1", verify=verify)
        assert logger.level == 20
    finally:
        logger.setLevel("WARNING")
    assert capfd.readouterr() == ("", "")
    if verify:
        assert report["tolerance"] == saved_models.TOLERANCES["bfloat16"]

    loaded = tf.saved_model.load(str(tmp_path / "1"))
    images = 255 * tf.random.uniform((3, 8, 8, 1))
    answer = loaded.signatures["serving_default"](images=images)
    assert answer["logits"].dtype == tf.float32
    assert answer["probabilities"].dtype == tf.float32
    # A softmax of bfloat16 would miss 1 by up to 2^-8.
    np.testing.assert_allclose(
        np.sum(answer["probabilities"], -1), 1, rtol=1e-6
    )
    logits = tf.cast(model(images), tf.float32)
    np.testing.assert_allclose(answer["logits"], logits, atol=5e-2)


def test_a_model_trained_with_jit_compile_serves(tmp_path):
    model = small_cnn(channels=1)
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 8, 10, 1))
    model.fit(images, np.arange(4), verbose=0)
    loaded = load_unverified(model, tmp_path / "1")
    answer = loaded.signatures["serving_default"](
        images=tf.constant(images, tf.float32)
    )
    np.testing.assert_allclose(answer["logits"], model(images), atol=1e-5)


def test_dropout_and_named_inputs_and_outputs(tmp_path):
    images = keras.Input((8, 8, 3), name="images")
    hidden = keras.layers.Flatten()(images)
    hidden = keras.layers.Dropout(0.5)(hidden)
    logits = keras.layers.Dense(3)(hidden)
    model = keras.Model({"images": images}, {"logits": logits})
    loaded = load_unverified(model, tmp_path / "1")
    data = tf.random.uniform((2, 8, 8, 3))
    answer = loaded.signatures["serving_default"](images=data)
    expected = model({"images": data})["logits"]
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-5)


def test_topvit(tmp_path, pixels):
    model = topvit(
        size="mini", patch_size=2, image_shape=(8, 8, 1), num_classes=10
    )
    report = export_saved_model(model, tmp_path / "1")
    assert report["max_abs_difference"] <= 1e-5
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    answer = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant([encode(pixels, "JPEG")] * 2)
    )
    assert answer["classes"].shape == (2, 5)


def dense_model(shape=(8, 8, 3), units=3, last=(), **options):
    return keras.Sequential(
        [
            keras.Input(shape, **options),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(units),
            *last,
        ]
    )


def two_inputs():
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, dense_model()(keras.layers.Add()(inputs)))


def two_outputs():
    model = dense_model()
    return keras.Model(model.inputs, model.outputs * 2)


def nested_softmax():
    inputs = keras.Input((8, 8, 3))
    model = dense_model(last=[keras.layers.Activation("softmax")])
    return keras.Model(inputs, model(inputs))


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def ends_in_softmax(kind):
    last = {
        "layer": [keras.layers.Softmax()],
        "dense": [keras.layers.Dense(3, "softmax")],
        # In float32 after a computation in half precision, as Keras advises.
        "before a linear one": [
            keras.layers.Dense(3, "softmax"),
            keras.layers.Activation("linear", dtype="float32"),
        ],
    }
    return (
        nested_softmax() if kind == "inside" else dense_model(last=last[kind])
    )


@pytest.mark.parametrize(
    "kind", ["layer", "dense", "before a linear one", "inside"]
)
def test_probabilities_do_not_go_through_a_second_softmax(
    tmp_path, monkeypatch, kind
):
    monkeypatch.setattr(
        export, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    model = ends_in_softmax(kind)
    report = export_saved_model(model, tmp_path / "1")
    assert set(report["differences"]) == {"probabilities", "scores"}
    images = 255 * np.random.default_rng(1).random((4, 8, 8, 3), "float32")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    answer = signatures["serving_default"](images=tf.constant(images))
    assert set(answer) == {"probabilities"}
    np.testing.assert_allclose(
        answer["probabilities"], model(images), atol=1e-6
    )


def test_class_indices_of_keras_are_put_in_order(tmp_path, pixels):
    model = dense_model()
    names = {"cat": 2, "dog": 0, "eel": 1}
    loaded = load_unverified(model, tmp_path / "1", class_names=names)
    encoded = encode(pixels, "PNG")
    answer = loaded.signatures["classify_bytes"](
        image_bytes=tf.constant([encoded])
    )
    resized = tf.image.resize(pixels, (8, 8), antialias=True)
    best = int(np.argmax(model(resized[None])))
    assert (
        answer["classes"].numpy()[0, 0].decode() == ["dog", "eel", "cat"][best]
    )


def per_pixel():
    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])


def of_any_size():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


def of_video():
    return dense_model((2, 4, 4, 3))


def of_sequences():
    return dense_model((6, 3), last=[keras.layers.Softmax()])


@pytest.mark.parametrize(
    "build, name, outputs",
    [
        (per_pixel, "images", {"outputs"}),
        (of_any_size, "images", {"logits", "probabilities"}),
        (of_video, "inputs", {"logits", "probabilities"}),
        (of_sequences, "inputs", {"probabilities"}),
    ],
)
def test_other_tensors_than_images_of_one_size(
    tmp_path, monkeypatch, build, name, outputs
):
    monkeypatch.setattr(
        export_tensors,
        "answers_of_a_clean_process",
        answers_with(lambda _: None),
    )
    model = build()
    report = export_saved_model(model, tmp_path / "1")
    assert report["verified"] and set(report["differences"]) == outputs
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    assert list(signatures) == ["serving_default"]
    shape = [12 if n is None else n for n in model.inputs[0].shape[1:]]
    x = 255 * np.random.default_rng(0).random((2, *shape), "float32")
    answer = signatures["serving_default"](**{name: tf.constant(x)})
    key = next(iter(outputs - {"probabilities"}), "probabilities")
    np.testing.assert_allclose(answer[key], model(x), rtol=1e-5, atol=1e-4)
    answer = signatures["serving_default"](**{name: tf.zeros((0, *shape))})
    assert answer[key].shape[0] == 0
    x[0] = np.nan
    with pytest.raises(InvalidArgument, match=f"`{name}` must be finite"):
        signatures["serving_default"](**{name: tf.constant(x)})


def test_names_are_for_classifiers(tmp_path):
    with pytest.raises(ValueError, match="`class_names` is for models with"):
        export_saved_model(per_pixel(), tmp_path / "1", class_names=["a", "b"])


WRONG_MODELS = {
    "no model": (lambda: "model.keras", "must be a keras.Model.*type str"),
    "subclassed": (Subclassed, "must be a built functional or Sequential"),
    "unbuilt": (keras.Sequential, "must be a built functional or Sequential"),
    "two inputs": (two_inputs, "one input.*with 2 inputs"),
    "two outputs": (two_outputs, "one output.*with 2 outputs"),
    "vectors": (
        lambda: dense_model((12,)),
        r"must take images.*input shape \(None, 12\)",
    ),
    "fixed batch": (
        lambda: dense_model(None, batch_shape=(2, 8, 8, 3)),
        r"undefined batch size.*input shape \(2, 8, 8, 3\)",
    ),
    "integers": (lambda: dense_model(dtype="uint8"), "input dtype 'uint8'"),
    "one logit": (lambda: dense_model(units=1), "at least 2 classes"),
    "sigmoid": (
        lambda: dense_model(last=[keras.layers.Activation("sigmoid")]),
        "ends in 'sigmoid'",
    ),
}


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_a_wrong_model_is_named(tmp_path, kind):
    build, message = WRONG_MODELS[kind]
    with pytest.raises(ValueError, match=f"`model`.*{message}") as error:
        export_saved_model(build(), tmp_path / "1")
    assert "Received: " in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        {"class_names": ["one", "two"]},
        {"class_names": "abc"},
        {"class_names": {"one": 1, "two": 2, "three": 3}},
        {"class_names": {"one": 0, "two": 1, "three": 1}},
        {"class_names": [1, 2, 3]},
        {"top_k": 0},
        {"top_k": 2.5},
        {"max_pixels": -1},
        {"signatures": ("predict",)},
        {"signatures": "serving_default"},
        {"signatures": ("classify_bytes",)},
        {"tolerance": 0},
        {"tolerance": float("nan")},
        {"path": "gs://bucket/model/1"},
    ],
    ids=repr,
)
def test_a_wrong_argument_is_named(tmp_path, arguments):
    (name,) = arguments
    arguments = {"path": tmp_path / "1", **arguments}
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        export_saved_model(dense_model(), **arguments)
    assert not list(tmp_path.iterdir())


def test_another_backend_is_told_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    message = r"save\(\"model.keras\"\).*KERAS_BACKEND=tensorflow.*'jax'"
    with pytest.raises(RuntimeError, match=message):
        export_saved_model(dense_model(), tmp_path / "1")


def test_the_module_imports_without_tensorflow():
    pytest.importorskip("jax")
    code = """
        import sys
        import keras_topo.export
        sys.exit("tensorflow" in sys.modules)
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        check=True,
    )


# --------------------------------------------------------------- publication


def test_only_the_finished_model_is_left_and_everyone_may_read_it(exported):
    assert [entry.name for entry in exported.path.parent.iterdir()] == ["1"]
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE(exported.path.stat().st_mode)
    assert mode == 0o777 & ~umask


def test_the_version_appears_whole(tmp_path, monkeypatch):
    path = tmp_path / "model" / "1"
    seen = []

    def ask(folder, requests):
        assert (folder / "saved_model.pb").is_file()
        seen.extend(entry.name for entry in path.parent.iterdir())

    monkeypatch.setattr(export, "answers_of_a_clean_process", ask)
    monkeypatch.setattr(export, "_compare", lambda *_: {"logits": 0.0})
    export_saved_model(dense_model(), path)
    (name,) = seen
    assert name.startswith(".1.")
    assert [entry.name for entry in path.parent.iterdir()] == ["1"]


def test_an_existing_model_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "1"
    load_unverified(dense_model(units=3), path)
    with pytest.raises(FileExistsError, match="`path`.*Received: path="):
        export_saved_model(dense_model(units=4), path, verify=False)
    loaded = load_unverified(dense_model(units=4), path, overwrite=True)
    output = loaded.signatures["serving_default"].structured_outputs["logits"]
    assert output.shape[1] == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_only_a_saved_model_is_ever_deleted(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="must be a SavedModel folder"):
        export_saved_model(dense_model(), folder, overwrite=True)
    assert (folder / "chapter.tex").exists()


def test_a_failed_export_leaves_the_earlier_model(tmp_path, monkeypatch):
    path = tmp_path / "1"
    load_unverified(dense_model(units=3), path)

    def disk_is_full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(saved_models.os, "rename", disk_is_full)
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(
            dense_model(units=4), path, overwrite=True, verify=False
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    signatures = tf.saved_model.load(str(path)).signatures
    output = signatures["serving_default"].structured_outputs["logits"]
    assert output.shape[1] == 3


# -------------------------------------------------------------- verification


def answers_with(change):
    """In place of the clean process: this one, and then a change."""

    def answers(folder, requests):
        signatures = tf.saved_model.load(str(folder)).signatures
        results = []
        for name, inputs in requests:
            inputs = {key: tf.constant(inputs[key]) for key in inputs}
            if "image_bytes" in inputs and not len(inputs["image_bytes"]):
                inputs = {"image_bytes": tf.zeros((0,), tf.string)}
            outputs = signatures[name](**inputs)
            results.append({key: outputs[key].numpy() for key in outputs})
        change(results)
        return results

    return answers


def change_logits(results):
    results[2]["logits"][1, 2] *= 1.001


def make_nan(results):
    results[1]["probabilities"][0, 0] = np.nan


def change_scores(results):
    results[5]["scores"][2, 0] *= 0.9


def swap_classes(results):
    results[4]["classes"] = results[4]["classes"][:, ::-1]


def drop_a_row(results):
    results[2]["logits"] = results[2]["logits"][:2]


@pytest.mark.parametrize(
    "change, message",
    [
        (change_logits, "`logits` differ from the Keras model's by "),
        (make_nan, "`probabilities` differ .* by nan"),
        (change_scores, "`scores` differ .* by "),
        (swap_classes, "`classes` name .* which the Keras model gives to"),
        (drop_a_row, r"answers `logits` as float32 \(2, 3\)"),
    ],
)
def test_a_difference_is_named_and_nothing_is_published(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr(
        export, "answers_of_a_clean_process", answers_with(change)
    )
    with pytest.raises(RuntimeError, match=message):
        export_saved_model(dense_model(), tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_a_model_of_nan_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        export, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    model = dense_model()
    model.layers[-1].bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(RuntimeError, match="`model` gives logits that are not"):
        export_saved_model(model, tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_the_clean_process_has_no_keras_and_tells_what_failed(tmp_path):
    # What the process blocks is the point, so it says so itself.
    code = saved_models.CLEAN_PROCESS.partition("import pickle")[0]
    for module in ("keras", "keras_topo", "keras_topo.export"):
        job = json.dumps(["", "", "", sys.path])
        finished = subprocess.run(
            [sys.executable, "-I", "-c", f"{code}\nimport {module}", job],
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 1
        assert "is out of bounds in this process" in finished.stderr

    message = "does not serve in a process of its own.*exit status 1"
    with pytest.raises(RuntimeError, match=f"(?s){message}.*saved_model"):
        saved_models.answers_of_a_clean_process(tmp_path, [])


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = re.search("```python\n(.*?)```", export_saved_model.__doc__, re.S)
    unverified = functools.partial(export_saved_model, verify=False)
    names = {
        "keras": keras,
        "tf": tf,
        "keras_topo": types.SimpleNamespace(export_saved_model=unverified),
    }
    exec(textwrap.dedent(example.group(1)), names)
    assert names["answer"]["classes"].shape == (1, 2)
    assert names["answer"]["scores"].shape == (1, 2)
