"""The EXIF orientation of an image file, and pixels turned by it.

Cameras write the rows of their sensor, whichever way they are held, and the
number of one of eight turns (EXIF 2.32, tag 274). It stands in a TIFF directory
of its own: in a segment APP1 of a JPEG, the chunk `eXIf` of a PNG, the chunk
`EXIF` of a WebP. An orientation that is absent or damaged is 1, upright.
"""

import tensorflow as tf

from keras_topo.annotations import Tensor
from keras_topo.decoding.octets import (
    big_endian,
    equal,
    length,
    little_endian,
    octets,
    part,
    where,
)

# The block of EXIF is looked for in so many segments or chunks and read if it
# has so many entries: a file of nothing else would keep a server busy.
MAX_SEGMENTS = 256
MAX_CHUNKS = 4096
MAX_ENTRIES = 1024

ORIENTATION = 274
SHORT, LONG = 3, 4


def exif_of_jpeg(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Where the block of EXIF of a JPEG begins and ends."""

    def look(step, position, start, end):
        head = octets(encoded, position, 10)
        marker, size = head[1], big_endian(head[2:4])
        is_exif = (marker == 0xE1) & equal(head[4:], b"Exif\0\0")
        # Bytes 0xFF before a marker fill; the image begins at SOS; TEM and
        # restarts are markers alone.
        is_filler = marker == 0xFF
        is_alone = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD7))
        forward = where(is_filler, 1, where(is_alone, 2, 2 + size))
        ends = (
            (head[0] != 0xFF)
            | is_exif
            | (marker == 0xDA)
            | (marker == 0xD9)
            | ((size < 2) & ~is_filler & ~is_alone)
            | (step >= MAX_SEGMENTS)
        )
        start = where(is_exif, position + 10, start)
        end = where(is_exif, position + 2 + size, end)
        return step + 1, where(ends, -1, position + forward), start, end

    return _found(encoded, r"Exif\x00\x00", 2, look)


def exif_of_png(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Where the block of EXIF of a PNG begins and ends."""

    def look(step, position, start, end):
        head = octets(encoded, position, 8)
        size = big_endian(head[:4])
        is_exif = equal(head[4:], b"eXIf")
        ends = (
            is_exif
            | equal(head[4:], b"IEND")
            | (position >= length(encoded))
            | (step >= MAX_CHUNKS)
        )
        start = where(is_exif, position + 8, start)
        end = where(is_exif, position + 8 + size, end)
        # A length, a name and a checksum of four bytes each.
        return step + 1, where(ends, -1, position + 12 + size), start, end

    return _found(encoded, "eXIf", 8, look)


def exif_of_webp(encoded: Tensor) -> tuple[Tensor, Tensor]:
    """Where the block of EXIF of a WebP begins and ends."""

    def look(step, position, start, end):
        head = octets(encoded, position, 14)
        size = little_endian(head[4:8])
        is_exif = equal(head[:4], b"EXIF")
        ends = is_exif | (position >= length(encoded)) | (step >= MAX_CHUNKS)
        # Some programs begin the chunk as they begin the segment of a JPEG.
        prefix = where(equal(head[8:], b"Exif\0\0"), 6, 0)
        start = where(is_exif, position + 8 + prefix, start)
        end = where(is_exif, position + 8 + size, end)
        # Chunks are padded to even lengths.
        forward = 8 + size + size % 2
        return step + 1, where(ends, -1, position + forward), start, end

    return _found(encoded, "EXIF", 12, look)


def _found(encoded, text, first, look):
    """Where a walk through a file finds the block of EXIF.

    Args:
        encoded: string ().
        text: str, a pattern of what stands in every file with a block: most
            files have none, and no walk is needed.
        first: int, where the walk begins.
        look: function of the number of the step, the position, and the start
            and the end of the block, 0 and 0 while there is none; to the next
            of all four, the position negative where the walk ends.

    Returns:
        Two int64 (), 0 where there is none.
    """
    zero = tf.constant(0, tf.int64)

    def walk():
        return tf.while_loop(
            lambda step, position, start, end: position >= 0,
            look,
            (zero, tf.constant(first, tf.int64), zero, zero),
            parallel_iterations=1,
        )[2:]

    # `.` would be a character, of UTF-8; `\C` is a byte.
    may_have = tf.strings.regex_full_match(encoded, rf"\C*{text}\C*")
    return tf.cond(may_have, walk, lambda: (zero, zero))


def orientation_of(encoded: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The orientation in the first directory of a TIFF block, int64 ().

    Args:
        encoded: string (), a file.
        start, end: int64 (), the places of the block in it.
    """
    head = octets(encoded, start, 8)
    little = equal(head[:4], b"II*\0")
    known = little | equal(head[:4], b"MM\0*")

    def number(digits):
        return tf.where(little, little_endian(digits), big_endian(digits))

    directory = start + number(head[4:])
    end = tf.minimum(end, length(encoded))
    room = tf.maximum(end - directory - 2, 0) // 12
    count = number(octets(encoded, directory, 2))
    count = tf.minimum(tf.minimum(count, room), MAX_ENTRIES)
    count = where(known, count, 0)
    # Twelve bytes each: tag, type, count of values, and the value, at its left.
    entries = part(encoded, directory + 2, 12 * count)
    entries = tf.reshape(tf.io.decode_raw(entries, tf.uint8), (-1, 12))
    entries = tf.cast(entries, tf.int64)
    tags, types = number(entries[:, :2]), number(entries[:, 2:4])
    values = tf.where(
        types == LONG, number(entries[:, 8:]), number(entries[:, 8:10])
    )
    good = (
        (tags == ORIENTATION)
        & ((types == SHORT) | (types == LONG))
        & (number(entries[:, 4:8]) == 1)
        & (values >= 1)
        & (values <= 8)
    )
    found = tf.concat([tf.boolean_mask(values, good), [1]], axis=0)
    return found[0]


def upright(pixels: Tensor, orientation: Tensor) -> Tensor:
    """Turns pixels so that the top of the scene is up.

    Args:
        pixels: (height, width, channels).
        orientation: int64 (), 1 to 8.

    Returns:
        The pixels, of the same dtype; (width, height, channels) for 5 to 8.
    """

    def is_one_of(*numbers):
        return tf.reduce_any(orientation == tf.constant(numbers, tf.int64))

    def turned():
        found = tf.cond(
            orientation >= 5,
            lambda: tf.transpose(pixels, (1, 0, 2)),
            lambda: pixels,
        )
        mirrored = tf.stack([is_one_of(3, 4, 7, 8), is_one_of(2, 3, 6, 7)])
        axes = tf.boolean_mask(tf.constant([0, 1]), mirrored)
        return tf.reverse(found, axes)

    return tf.cond(orientation > 1, turned, lambda: pixels)
