"""BMP files: those of a palette too, which TensorFlow's decoder leaves out."""

from typing import NamedTuple

import tensorflow as tf

from keras_topo.annotations import Tensor
from keras_topo.decoding.octets import (
    equal,
    length,
    little_endian,
    octets,
    part,
    signed,
    where,
)

# Masks of red, green and blue where each pixel is B, G, R and alpha.
USUAL_MASKS = bytes.fromhex("0000ff00 00ff0000 ff000000")
ALPHA_MASK = bytes.fromhex("000000ff")


class Header(NamedTuple):
    """BITMAPFILEHEADER and BITMAPINFOHEADER, int64 () each."""

    offset: tf.Tensor
    palette: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    upside_down: tf.Tensor
    bits: tf.Tensor
    compression: tf.Tensor
    num_colors: tf.Tensor

    @property
    def row_bytes(self) -> Tensor:
        """Rows are padded to a multiple of four bytes."""
        return (self.width * self.bits + 31) // 32 * 4


def header_of(encoded: Tensor) -> Header:
    head = octets(encoded, 0, 54)

    def number(start, count=4):
        return little_endian(head[start : start + count])

    height = signed(number(22))
    bits = number(28, 2)
    used = number(46)
    all_colors = tf.bitwise.left_shift(
        tf.constant(1, tf.int64), tf.minimum(bits, 8)
    )
    return Header(
        offset=number(10),
        palette=14 + number(14),
        width=number(18),
        height=tf.abs(height),
        # The last row comes first, unless the height is negative.
        upside_down=height > 0,
        bits=bits,
        compression=number(30),
        num_colors=where(used == 0, all_colors, tf.minimum(used, 256)),
    )


def problem(encoded: Tensor, head: Header) -> Tensor:
    """Why a BMP cannot be decoded, a string (); empty where it can."""
    has_palette = _is_one_of(head.bits, 1, 4, 8)
    is_plain = (head.compression == 0) & (
        has_palette | _is_one_of(head.bits, 24, 32)
    )
    usual = equal(octets(encoded, 54, 12), USUAL_MASKS)
    is_masked = (head.compression == 3) & (head.bits == 32) & usual
    needed = head.offset + head.height * head.row_bytes
    compression, bits = map(tf.strings.as_string, (head.compression, head.bits))
    found = tf.where(
        length(encoded) < needed,
        tf.strings.join(
            [
                "a BMP of ",
                tf.strings.as_string(length(encoded)),
                " bytes, whose header tells of ",
                tf.strings.as_string(needed),
            ]
        ),
        "",
    )
    found = tf.where(
        is_plain | is_masked,
        found,
        tf.strings.join(
            ["a BMP of ", bits, " bits and compression ", compression]
        ),
    )
    return tf.where(head.palette < 54, "a BMP with a header of OS/2", found)


def pixels(encoded: Tensor, head: Header) -> Tensor:
    """uint8 (height, width, 3 or 4) of a BMP without a problem."""
    return tf.cond(
        head.bits <= 8,
        lambda: _palette_pixels(encoded, head),
        lambda: _direct_pixels(encoded, head),
    )


def _direct_pixels(encoded, head):
    # The decoder takes no byte too many; some programs pad their files.
    whole = part(encoded, 0, head.offset + head.height * head.row_bytes)
    pixels = tf.io.decode_bmp(whole, channels=0)
    # Without a mask of its own, which headers of 40 and 52 bytes lack, the
    # fourth byte means nothing.
    masks = octets(encoded, 14 + 52, 4)
    has_alpha = (head.bits == 32) & (head.compression == 3)
    has_alpha &= (head.palette >= 14 + 56) & equal(masks, ALPHA_MASK)
    return tf.cond(has_alpha, lambda: pixels, lambda: pixels[..., :3])


def _palette_pixels(encoded, head):
    """Colors looked up for indices of 1, 4 or 8 bits each."""
    count = head.height * head.row_bytes
    rows = tf.io.decode_raw(part(encoded, head.offset, count), tf.uint8)
    rows = tf.reshape(rows, tf.stack([head.height, head.row_bytes, 1]))
    # Files of no bits are refused, but maybe after this is computed.
    per_byte = 8 // tf.maximum(head.bits, 1)
    # The first index of a byte stands in its highest bits.
    places = tf.range(per_byte, dtype=tf.int64)
    shifts = tf.cast(8 - head.bits * (places + 1), tf.uint8)
    mask = tf.bitwise.left_shift(tf.constant(1, tf.int64), head.bits) - 1
    indices = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(rows, shifts), tf.cast(mask, tf.uint8)
    )
    indices = tf.reshape(indices, tf.stack([head.height, -1]))
    indices = tf.cast(indices[:, : head.width], tf.int32)
    # Blue, green, red and nothing.
    palette = part(encoded, head.palette, 4 * head.num_colors)
    palette = tf.io.decode_raw(palette, tf.uint8, fixed_length=1024)
    # A color beyond the palette is black.
    palette = tf.reshape(palette, (256, 4))[:, 2::-1]
    pixels = tf.gather(palette, indices)
    return tf.cond(
        head.upside_down,
        lambda: tf.reverse(pixels, [0]),
        lambda: pixels,
    )


def _is_one_of(number, *numbers):
    return tf.reduce_any(number == tf.constant(numbers, tf.int64))
