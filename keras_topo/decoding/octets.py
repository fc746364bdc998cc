"""Bytes of a file as numbers."""

import tensorflow as tf

from keras_topo.annotations import Tensor


def octets(encoded: Tensor, start: Tensor, count: int) -> Tensor:
    """Bytes of a scalar string, from a place that need not be there.

    Args:
        encoded: string ().
        start: int64 (), not negative.
        count: int.

    Returns:
        int64 (count,), zeros beyond the end of the file.
    """
    start = tf.minimum(tf.cast(start, tf.int64), length(encoded))
    part = tf.strings.substr(encoded, start, tf.constant(count, tf.int64))
    found = tf.io.decode_raw(part, tf.uint8, fixed_length=count)
    return tf.cast(tf.ensure_shape(found, (count,)), tf.int64)


def length(encoded: Tensor) -> Tensor:
    """Number of bytes of a scalar string, int64 ()."""
    return tf.cast(tf.strings.length(encoded), tf.int64)


def part(encoded: Tensor, start: Tensor, count: Tensor) -> Tensor:
    """`count` bytes of a scalar string, a string; fewer where it ends."""
    start = tf.minimum(tf.cast(start, tf.int64), length(encoded))
    return tf.strings.substr(encoded, start, tf.cast(count, tf.int64))


def big_endian(digits: Tensor) -> Tensor:
    """An unsigned integer of bytes (..., n), the first one largest."""
    return tf.reduce_sum(digits * _places(digits)[::-1], axis=-1)


def little_endian(digits: Tensor) -> Tensor:
    """An unsigned integer of bytes (..., n), the first one smallest."""
    return tf.reduce_sum(digits * _places(digits), axis=-1)


def signed(number: Tensor) -> Tensor:
    """What an unsigned number of 32 bits says as a signed one."""
    return number - where(number >= 1 << 31, 1 << 32, 0)


def where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """One of two integers, int64 (); `tf.where` makes int32 of Python's."""
    return tf.where(condition, tf.cast(yes, tf.int64), tf.cast(no, tf.int64))


def equal(digits: Tensor, text: bytes) -> Tensor:
    """Whether bytes (n,) are those of `text`, of n bytes; bool ()."""
    return tf.reduce_all(digits == tf.constant(list(text), tf.int64))


def _places(digits):
    return tf.constant([1 << 8 * k for k in range(digits.shape[-1])], tf.int64)
