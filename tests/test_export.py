"""SavedModels: their signatures, and the requests that they refuse."""

import functools
import io
import json
import os
import stat
import struct
import types
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import encode, load_unverified, small_cnn, smooth_pixels
from PIL import Image

from keras_topo.decoding import images_from_bytes
from keras_topo.export import export_saved_model
from keras_topo.export.images import SIGNATURES

pytestmark = pytest.mark.tensorflow_only

NAMES = ["zero", "one", "two", "drei", "vier", "fünf", "six"]
InvalidArgument = tf.errors.InvalidArgumentError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One model, its folder, its report, and its signatures."""
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
    return smooth_pixels()


def classify(exported, *images):
    images = tf.constant(list(images), tf.string, (len(images),))
    return exported.classify_bytes(image_bytes=images)


def softmax(logits):
    return keras.ops.convert_to_numpy(
        keras.ops.softmax(keras.ops.cast(logits, "float32"))
    )


# ------------------------------------------------------------ the signatures


def test_signatures_have_exactly_the_documented_names(exported):
    assert set(exported.loaded.signatures) == set(SIGNATURES)

    images = tf.TensorSpec((None, 8, 10, 3), tf.float32, "images")
    answer = exported.serving_default.structured_outputs
    assert exported.serving_default.structured_input_signature == (
        (),
        {"images": images},
    )
    assert set(answer) == {"logits", "probabilities", "class"}
    assert answer["class"].dtype == tf.string
    assert answer.pop("class").shape.as_list() == [None]
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
                "class": "string (None,)",
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
    assert report["format"] == "saved_model"
    assert report["task"] == "classification"
    assert report["classes"] == report["outputs"] == 7
    assert report["class_names"] == NAMES
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
    names = [name.decode() for name in answer["class"].numpy()]
    assert names == [NAMES[k] for k in np.argmax(logits, axis=-1)]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_classify_bytes_repeats_the_keras_model(exported, pixels, file_format):
    encoded = encode(pixels, file_format)
    answer = classify(exported, encoded, encoded)

    decoded = tf.io.decode_image(encoded, channels=3)
    resized = tf.image.resize(decoded, (8, 10), antialias=True)
    probabilities = softmax(exported.model(tf.round(resized)[None]))[0]
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
    shape = (40, 50, channels)
    decoder = tf.function(
        lambda image_bytes: images_from_bytes(image_bytes, shape, 10**6),
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
        export_saved_model(model, tmp_path / "1", signatures=SIGNATURES)
    loaded = load_unverified(model, tmp_path / "1")
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
    """A PNG whose header has another size and a matching checksum."""
    chunk = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def with_jpeg_size(jpeg, height, width):
    start = jpeg.index(b"\xff\xc0") + 5
    size = struct.pack(">HH", height, width)
    return jpeg[:start] + size + jpeg[start + 4 :]


def animation(pixels, file_format, count=2):
    """An animated image, each frame the negative of the one before."""
    frames = [Image.fromarray(p) for p in (pixels, 255 - pixels)] * count
    stream = io.BytesIO()
    options = {"save_all": True, "append_images": frames[1:]}
    frames[0].save(stream, file_format, **options)
    return stream.getvalue()


@functools.cache
def bad_images():
    pixels = smooth_pixels()
    png, jpeg = encode(pixels, "PNG"), encode(pixels, "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    webp, bmp, gif = (encode(pixels, f) for f in ("WEBP", "BMP", "GIF"))
    kind = r"image_bytes\[1\] must be a JPEG, a PNG, a BMP, a GIF or a WebP"
    size = r"image_bytes\[1\] must have 1 to 2000 pixels. Received: "
    data = "image_bytes_must_be_whole_images"
    cannot = r"image_bytes\[1\] must be an image that can be decoded. Rec.*: "
    ancillary = b"\0\0\0\0teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    return {
        "nothing": (b"", kind),
        "text": (b"GET / HTTP/1.1", kind),
        "webp, half of it": (webp[: len(webp) // 2], data),
        "webp, its header": (webp[:12], size + "0 x 0"),
        "webp, large": (webp[:26] + b"\xff\x0f" + webp[28:], size),
        "webp, animated": (animation(pixels, "WEBP"), cannot + "an animated"),
        "gif, half of it": (gif[: len(gif) // 2], cannot + "a GIF of .* first"),
        "gif, large": (gif[:6] + b"\xff\xff" + gif[8:], size + "40 x 65535"),
        "bmp, half of it": (bmp[: len(bmp) // 2], cannot + "a BMP of .* bytes"),
        "bmp, its header": (bmp[:30], cannot + "a BMP of 30 bytes"),
        "bmp, compressed": (
            bmp[:30] + b"\1" + bmp[31:],
            cannot + "a BMP of 24 bits and compression 1",
        ),
        "bmp, of OS/2": (bmp[:14] + b"\x0c" + bmp[15:], cannot + ".*OS/2"),
        "bmp, huge": (bmp[:18] + b"\xff" * 4 + bmp[22:], cannot),
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


@pytest.mark.parametrize("kind", bad_images())
def test_bytes_that_are_no_image_are_refused_by_name(exported, pixels, kind):
    good = encode(pixels, "JPEG")  # 2,000 pixels: the largest allowed
    bad, message = bad_images()[kind]
    before = classify(exported, good)
    with pytest.raises(InvalidArgument, match=message):
        classify(exported, good, bad, good)
    after = classify(exported, good)
    np.testing.assert_array_equal(before["scores"], after["scores"])


def test_only_the_finished_model_is_left_and_everyone_may_read_it(exported):
    assert [entry.name for entry in exported.path.parent.iterdir()] == ["1"]
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE(exported.path.stat().st_mode)
    assert mode == 0o777 & ~umask
