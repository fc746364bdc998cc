"""What the header of an image file says: its kind and its size."""

from typing import NamedTuple

import tensorflow as tf

from keras_topo.annotations import Tensor
from keras_topo.decoding.octets import (
    big_endian,
    equal,
    length,
    little_endian,
    octets,
    signed,
    where,
)

# Kinds of files, as branches of `tf.switch_case`.
JPEG, PNG, BMP, GIF, WEBP, OTHER = range(6)
NAMES = "a JPEG, a PNG, a BMP, a GIF or a WebP"

# A GIF of more blocks is refused, for they are walked one by one: so many, and
# one for each 128 bytes. Blocks hold up to 255 bytes, and most hold as many.
MAX_GIF_BLOCKS = 1 << 12
# A JPEG of more scans is refused, for each of them goes over the whole image
# and may be a few bytes long: so many, and one for each 16 KiB. Programs write
# about ten.
MAX_JPEG_SCANS = 1 << 7


def kind_of(encoded: Tensor) -> Tensor:
    """The kind of a file by its first bytes, int32 (): one of the above."""
    # What is shorter has none of these places.
    head = tf.strings.join([tf.strings.substr(encoded, 0, 16), b"\0" * 16])

    def has(start, text):
        return tf.strings.substr(head, start, len(text)) == text

    def others():
        found = {
            # IHDR has to be the first chunk: the size is read from it.
            PNG: has(0, b"\x89PNG\r\n\x1a\n") & has(12, b"IHDR"),
            BMP: has(0, b"BM"),
            GIF: has(0, b"GIF8"),
            WEBP: has(0, b"RIFF") & has(8, b"WEBP"),
        }
        kind = tf.constant(OTHER)
        for number, is_it in found.items():
            kind = tf.where(is_it, number, kind)
        return kind

    return tf.cond(has(0, b"\xff\xd8\xff"), lambda: tf.constant(JPEG), others)


def jpeg_size(encoded: Tensor) -> tuple[Tensor, Tensor]:
    shape = tf.io.extract_jpeg_shape(encoded, output_type=tf.int32)
    return tf.cast(shape[0], tf.int64), tf.cast(shape[1], tf.int64)


def jpeg_scans(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """How many scans a JPEG has, at most, and how many it may have.

    Markers are counted, which compressed data do not hold, but thumbnails and
    other segments may.
    """
    found = tf.io.decode_raw(encoded, tf.uint8)
    markers = (found[:-1] == 0xFF) & (found[1:] == 0xDA)
    most = MAX_JPEG_SCANS + length(encoded) // (1 << 14)
    return tf.math.count_nonzero(markers), most


def png_size(encoded: Tensor) -> tuple[Tensor, Tensor]:
    head = octets(encoded, 16, 8)
    return big_endian(head[4:]), big_endian(head[:4])


def bmp_size(encoded: Tensor) -> tuple[Tensor, Tensor]:
    head = octets(encoded, 18, 8)
    return tf.abs(signed(little_endian(head[4:]))), little_endian(head[:4])


class GifSize(NamedTuple):
    """The screen of a GIF, and the frame that is shown on it, int64 ()."""

    height: Tensor
    width: Tensor
    top: Tensor
    left: Tensor


def gif_size(encoded: Tensor, frame: Tensor) -> GifSize:
    """The size of the screen, and where the frame is whose descriptor stands
    at a place. Where the frame is not inside, the screen is larger."""
    screen, described = octets(encoded, 6, 4), octets(encoded, frame + 1, 8)
    left, top, width, height = (
        little_endian(described[k : k + 2]) for k in (0, 2, 4, 6)
    )
    return GifSize(
        height=tf.maximum(little_endian(screen[2:]), top + height),
        width=tf.maximum(little_endian(screen[:2]), left + width),
        top=top,
        left=left,
    )


def webp_size(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """From the first chunk, of one of three kinds."""
    head = octets(encoded, 12, 18)
    name, content = head[:4], head[8:]

    def lossy():
        # A tag of three bytes, a start code of three, and 14 bits for each.
        return (
            little_endian(content[8:10]) % (1 << 14),
            little_endian(content[6:8]) % (1 << 14),
        )

    def lossless():
        # After a signature, 14 bits of each less one.
        bits = little_endian(content[1:5])
        return bits // (1 << 14) % (1 << 14) + 1, bits % (1 << 14) + 1

    def extended():
        return (
            little_endian(content[7:10]) + 1,
            little_endian(content[4:7]) + 1,
        )

    zero = tf.constant(0, tf.int64)
    return tf.case(
        [
            (equal(name, b"VP8 "), lossy),
            (equal(name, b"VP8L"), lossless),
            (equal(name, b"VP8X"), extended),
        ],
        default=lambda: (zero, zero),
    )


def is_animated_webp(encoded: Tensor) -> Tensor:
    head = octets(encoded, 12, 9)
    return equal(head[:4], b"VP8X") & (head[8] // 2 % 2 == 1)


def first_frame(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Where the first frame of a GIF begins, and where it ends.

    Returns:
        Two int64 (): the place of its descriptor, and the place after its last
        block; 0 where there is none.
    """
    flags = octets(encoded, 10, 1)[0]
    zero = tf.constant(0, tf.int64)
    most = MAX_GIF_BLOCKS + length(encoded) // 128

    # In a GIF, an extension or an image is followed by blocks of a length and
    # so many bytes, the last of length 0.
    def look(step, position, in_blocks, frame, end):
        head = octets(encoded, position, 10)
        size = head[0]
        is_extension = ~in_blocks & (size == 0x21)
        is_image = ~in_blocks & (size == 0x2C)
        forward = where(in_blocks, 1 + size, 2)
        # The descriptor, its colors, and the width of the first codes.
        described = 10 + _color_table(head[9]) + 1
        forward = where(is_image, described, forward)
        frame = where(is_image, position, frame)
        is_there = position < length(encoded)
        is_last = in_blocks & (size == 0) & is_there
        done = is_last & (frame > 0)
        end = where(done, position + 1, end)
        ends = (
            done
            | ~(in_blocks | is_extension | is_image)
            | ~is_there
            | (step >= most)
        )
        return (
            step + 1,
            where(ends, -1, position + forward),
            (in_blocks & ~is_last) | is_extension | is_image,
            frame,
            end,
        )

    found = tf.while_loop(
        lambda step, position, in_blocks, frame, end: position >= 0,
        look,
        (zero, 13 + _color_table(flags), tf.constant(False), zero, zero),
        parallel_iterations=1,
    )
    return found[3], found[4]


def _color_table(flags):
    """Bytes of the table that a byte of flags of a GIF announces."""
    size = 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return where(flags >= 128, size, 0)
