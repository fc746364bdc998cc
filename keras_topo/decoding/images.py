"""Encoded images to pixels: checked, decoded, turned upright, resized."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_topo.annotations import Tensor
from keras_topo.decoding import bitmaps, headers
from keras_topo.decoding.octets import octets, part, where
from keras_topo.decoding.orientation import (
    exif_of_jpeg,
    exif_of_png,
    exif_of_webp,
    orientation_of,
    upright,
)

# In the messages of decoders, too: a server reports the name of the operation
# that failed.
SCOPE = "image_bytes_must_be_whole_images"
CANNOT = " must be an image that can be decoded. Received: "


def images_from_bytes(
    image_bytes: Tensor,
    image_shape: Sequence[int],
    max_pixels: int,
    sample_bits: int = 16,
) -> Tensor:
    """Encoded images to pixels of one size.

    Args:
        image_bytes: string (batch,).
        image_shape: height, width and channels, 1, 3 or 4.
        max_pixels, sample_bits: see `decode`.

    Returns:
        float32 (batch, height, width, channels), whole numbers in 0..255.
    """
    *size, channels = image_shape

    def one_image(item):
        index, encoded = item
        name = ["image_bytes[", tf.strings.as_string(index), "]"]
        name = tf.strings.join(name)
        pixels = decode(encoded, name, channels, max_pixels, sample_bits)
        return resized(pixels, size)

    return tf.map_fn(
        one_image,
        (tf.range(tf.size(image_bytes)), image_bytes),
        fn_output_signature=tf.TensorSpec(tuple(image_shape), tf.float32),
    )


def resized(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Pixels stretched to a size, bilinear and antialiased.

    They are rounded, so that training, which keeps its images as uint8, and a
    server see the same.

    Args:
        pixels: uint8 (..., height, width, channels).
        size: height and width.

    Returns:
        float32 (..., *size, channels), whole numbers in 0..255.
    """
    found = tf.image.resize(pixels, size, "bilinear", antialias=True)
    return tf.clip_by_value(tf.round(found), 0.0, 255.0)


def decode(
    encoded: Tensor,
    name: Tensor,
    channels: int,
    max_pixels: int,
    sample_bits: int = 16,
) -> Tensor:
    """Decodes an image file of any kind that is known, and turns it upright.

    Args:
        encoded: string (), the file.
        name: string (), what errors call it.
        channels: 1, 3 or 4. For 1, colors become luma; for 3, gray is repeated
            and alpha is dropped; for 4, an image without alpha is opaque.
        max_pixels: int64 (), the largest height x width that is decoded, told
            from the header.
        sample_bits: uint16 (), how many bits the samples of 16 fill, 8 to 16.
            A camera of 12 bits writes 0..4095, which is black where 16 bits
            are expected. The first 8 of these bits are kept.

    Returns:
        uint8 (height, width, channels).

    Raises:
        InvalidArgumentError: for anything else, when it is executed.
    """
    return _decoder(channels)(encoded, name, max_pixels, sample_bits)


@functools.cache
def _decoder(channels):
    """A function that is traced once, for however many models."""
    readers = {
        headers.JPEG: _jpeg,
        headers.PNG: _png,
        headers.BMP: _bmp,
        headers.GIF: _gif,
        headers.WEBP: _webp,
        headers.OTHER: _other,
    }

    def decoder(encoded, name, max_pixels, sample_bits):
        file = _File(encoded, name, channels, max_pixels, sample_bits)

        def read(kind):
            pixels, (start, end) = readers[kind](file)
            shape = (None, None, channels)
            return tf.ensure_shape(pixels, shape), start, end

        with tf.name_scope(SCOPE):
            pixels, start, end = tf.switch_case(
                headers.kind_of(encoded),
                [lambda kind=kind: read(kind) for kind in sorted(readers)],
            )
            pixels = tf.cond(
                start > 0,
                lambda: upright(pixels, orientation_of(encoded, start, end)),
                lambda: pixels,
            )
            return tf.ensure_shape(pixels, (None, None, channels))

    dtypes = tf.string, tf.string, tf.int64, tf.uint16
    signature = [tf.TensorSpec((), dtype) for dtype in dtypes]
    return tf.function(decoder, signature, autograph=False)


def _without_exif(pixels):
    zero = tf.constant(0, tf.int64)
    return pixels, (zero, zero)


class _File(NamedTuple):
    encoded: tf.Tensor
    name: tf.Tensor
    channels: int
    max_pixels: tf.Tensor
    sample_bits: tf.Tensor

    def bounded(self, height, width):
        """The file, once its size is known to be good."""
        # Beyond 2^31 - 1 no image is valid, and the product could overflow.
        height, width = (tf.minimum(n, (1 << 31) - 1) for n in (height, width))

        def words():
            return [
                " must have 1 to ",
                tf.strings.as_string(self.max_pixels),
                " pixels. Received: ",
                *(tf.strings.as_string(height), " x "),
                tf.strings.as_string(width),
            ]

        good = (height >= 1) & (width >= 1)
        good &= height * width <= self.max_pixels
        return self.where(good, words)

    def where(self, condition, words):
        """The file, where a condition holds; else an error."""

        def fail():
            # Put together here: of good files, no message is needed.
            message = tf.strings.join([self.name, *words()])
            with tf.control_dependencies(
                [tf.debugging.Assert(False, [message])]
            ):
                return tf.identity(self.encoded)

        encoded = tf.cond(condition, lambda: self.encoded, fail)
        return self._replace(encoded=encoded)


def _other(file):
    file = file.where(
        tf.constant(False),
        lambda: [
            f" must be {headers.NAMES}. Received: ",
            tf.strings.as_string(tf.strings.length(file.encoded)),
            " bytes of something else",
        ],
    )
    return _without_exif(tf.io.decode_png(file.encoded, file.channels))


def _jpeg(file):
    file = file.bounded(*headers.jpeg_size(file.encoded))
    scans, most = headers.jpeg_scans(file.encoded)
    file = file.where(
        scans <= most,
        lambda: [CANNOT, "a JPEG of ", tf.strings.as_string(scans), " scans"],
    )
    encoded = file.encoded
    if file.channels != 1:
        pixels = tf.io.decode_jpeg(encoded, channels=3)
        pixels = _opaque(pixels) if file.channels == 4 else pixels
    else:
        # The decoder turns four inks into colors but not into gray.
        pixels = tf.cond(
            tf.io.extract_jpeg_shape(encoded)[2] == 4,
            lambda: tf.image.rgb_to_grayscale(
                tf.io.decode_jpeg(encoded, channels=3)
            ),
            lambda: tf.io.decode_jpeg(encoded, channels=1),
        )
    return pixels, exif_of_jpeg(encoded)


def _png(file):
    file = file.bounded(*headers.png_size(file.encoded))
    encoded, channels = file.encoded, file.channels
    bits = octets(encoded, 24, 1)[0]

    def eight():
        return tf.io.decode_png(encoded, channels)

    def sixteen():
        return _first_bits(
            tf.io.decode_png(encoded, channels, tf.uint16), file.sample_bits
        )

    # Of all 16, the decoder takes the first 8 itself, in half the memory.
    takes_part = (bits == 16) & (file.sample_bits < 16)
    pixels = tf.cond(takes_part, sixteen, eight)
    if channels == 4:
        # Where an image of fewer than 8 bits per channel has no alpha, the
        # decoder writes the largest value of those bits, and means opaque.
        filler = tf.bitwise.left_shift(tf.constant(1, tf.int64), bits) - 1
        colors, alpha = pixels[..., :3], tf.cast(pixels[..., 3:], tf.int64)
        alpha = where(tf.reduce_all(alpha == filler), 255, alpha)
        pixels = tf.concat([colors, tf.cast(alpha, tf.uint8)], axis=-1)
    return pixels, exif_of_png(encoded)


def _first_bits(samples, sample_bits):
    """uint16 samples of so many bits as uint8; alpha fills 16 bits anyway."""

    def first(values, bits):
        shift = tf.cast(bits, tf.uint16) - 8
        values = tf.bitwise.right_shift(values, shift)
        # What lies above the range is white.
        return tf.cast(tf.minimum(values, 255), tf.uint8)

    if samples.shape[-1] != 4:
        return first(samples, sample_bits)
    return tf.concat(
        [first(samples[..., :3], sample_bits), first(samples[..., 3:], 16)],
        axis=-1,
    )


def _bmp(file):
    head = bitmaps.header_of(file.encoded)
    problem = bitmaps.problem(file.encoded, head)
    file = file.where(problem == "", lambda: [CANNOT, problem])
    file = file.bounded(head.height, head.width)
    pixels = _converted(bitmaps.pixels(file.encoded, head), file.channels)
    return _without_exif(pixels)


def _gif(file):
    start, end = headers.first_frame(file.encoded)
    file = file.where(
        end > 0,
        lambda: [
            CANNOT,
            "a GIF of ",
            tf.strings.as_string(tf.strings.length(file.encoded)),
            " bytes without a whole first frame",
        ],
    )
    size = headers.gif_size(file.encoded, start)
    file = file.bounded(size.height, size.width)
    # The decoder would decode all frames, however many, and return the first,
    # as large as the largest and not as the screen.
    first = tf.strings.join(
        [
            part(file.encoded, 0, start + 1),
            b"\0\0\0\0",  # Left and top.
            part(file.encoded, start + 5, end - start - 5),
            b";",
        ]
    )
    frame = tf.io.decode_gif(first)[0]
    pixels = tf.image.pad_to_bounding_box(
        frame,
        *(
            tf.cast(n, tf.int32)
            for n in (size.top, size.left, size.height, size.width)
        ),
    )
    return _without_exif(_converted(pixels, file.channels))


def _webp(file):
    animated = headers.is_animated_webp(file.encoded)
    file = file.where(~animated, lambda: [CANNOT, "an animated WebP"])
    file = file.bounded(*headers.webp_size(file.encoded))
    # `tf.io.decode_webp` would do, but a server older than that operation
    # could not load the model.
    pixels = tf.io.decode_image(
        file.encoded, channels=0, expand_animations=False
    )
    pixels = _converted(pixels, file.channels)
    return pixels, exif_of_webp(file.encoded)


def _converted(pixels, channels):
    """Colors, or colors and alpha, as the channels that are asked for."""
    pixels = tf.ensure_shape(pixels, (None, None, None))
    colors = tf.ensure_shape(pixels[..., :3], (None, None, 3))
    if channels == 3:
        return colors
    if channels == 1:
        return tf.image.rgb_to_grayscale(colors)
    return tf.cond(
        tf.shape(pixels)[-1] == 4, lambda: pixels, lambda: _opaque(colors)
    )


def _opaque(colors):
    shape = tf.concat([tf.shape(colors)[:2], [1]], axis=0)
    alpha = tf.cast(tf.fill(shape, 255), tf.uint8)
    return tf.concat([colors, alpha], axis=-1)
