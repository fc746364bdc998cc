"""JPEG and PNG files inside a signature: checked, decoded, resized.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def images_from_bytes(image_bytes, shape, max_pixels):
    """Encoded images to pixels.

    Args:
        image_bytes: string `(batch,)`, JPEG or PNG.
        shape: `(height, width, channels)`.
        max_pixels: int, of an image before it is resized.

    Returns:
        float32 `(batch, height, width, channels)`, 0 to 255.

    Raises:
        tf.errors.InvalidArgumentError: naming `image_bytes`, if one is of
            another kind, too large, or damaged.
    """
    import tensorflow as tf

    def one_image(item):
        index, encoded = item
        # The scope puts `image_bytes` into the messages of the decoders, too,
        # for a server reports the name of the operation that failed.
        with tf.name_scope("image_bytes_must_be_whole_JPEG_or_PNG"):
            name = tf.strings.join(["image_bytes[", _as_text(index), "]"])
            is_jpeg, encoded = _check_header(encoded, name, max_pixels)
            pixels = _decode(encoded, is_jpeg, shape[-1])
            return tf.image.resize(
                pixels, shape[:-1], "bilinear", antialias=True
            )

    return tf.map_fn(
        one_image,
        (tf.range(tf.size(image_bytes)), image_bytes),
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def _check_header(encoded, name, max_pixels):
    """Whether it is a JPEG (or else a PNG), and the bytes, now checked."""
    import tensorflow as tf

    is_jpeg = tf.strings.substr(encoded, 0, 3) == _JPEG_MAGIC
    # IHDR has to be the first chunk of a PNG, and the size is read from it.
    # The padding lets the header of a file of a few bytes be looked at.
    head = tf.strings.join([tf.strings.substr(encoded, 0, 24), b"\0" * 24])
    is_png = (tf.strings.substr(head, 0, 8) == _PNG_MAGIC) & (
        tf.strings.substr(head, 12, 4) == b"IHDR"
    )
    message = [name, " must be a JPEG or a PNG. Received: "]
    message += [
        _as_text(tf.strings.length(encoded)),
        " bytes of something else",
    ]
    known = tf.debugging.Assert(is_jpeg | is_png, [tf.strings.join(message)])

    with tf.control_dependencies([known]):
        height, width = tf.cond(
            is_jpeg, lambda: _jpeg_size(encoded), lambda: _png_size(head)
        )
    message = [name, f" must have 1 to {max_pixels} pixels. Received: "]
    message += [_as_text(height), " x ", _as_text(width)]
    pixels = height * width
    bounded = tf.debugging.Assert(
        (pixels >= 1) & (pixels <= max_pixels), [tf.strings.join(message)]
    )
    with tf.control_dependencies([bounded]):
        return is_jpeg, tf.identity(encoded)


def _jpeg_size(encoded):
    import tensorflow as tf

    shape = tf.io.extract_jpeg_shape(encoded, output_type=tf.int32)
    return tf.cast(shape[0], tf.int64), tf.cast(shape[1], tf.int64)


def _png_size(head):
    """Height and width from IHDR: two big-endian unsigned integers."""
    import tensorflow as tf

    octets = tf.io.decode_raw(tf.strings.substr(head, 16, 8), tf.uint8)
    octets = tf.cast(tf.ensure_shape(octets, (8,)), tf.int64)
    place_values = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    width = tf.reduce_sum(octets[:4] * place_values)
    height = tf.reduce_sum(octets[4:] * place_values)
    # Beyond 2^31 - 1 no PNG is valid, and the product could overflow.
    limit = tf.constant((1 << 31) - 1, tf.int64)
    return tf.minimum(height, limit), tf.minimum(width, limit)


def _decode(encoded, is_jpeg, channels):
    """uint8 pixels (height, width, channels) of a JPEG or PNG."""
    import tensorflow as tf

    def jpeg():
        if channels == 3:
            return tf.io.decode_jpeg(encoded, channels=3)
        if channels == 4:
            pixels = tf.io.decode_jpeg(encoded, channels=3)
            opaque = tf.fill(tf.concat([tf.shape(pixels)[:2], [1]], 0), 255)
            return tf.concat([pixels, tf.cast(opaque, tf.uint8)], axis=-1)
        # The decoder turns four inks into colors but not into gray.
        has_four_inks = tf.io.extract_jpeg_shape(encoded)[2] == 4
        return tf.cond(
            has_four_inks,
            lambda: tf.image.rgb_to_grayscale(
                tf.io.decode_jpeg(encoded, channels=3)
            ),
            lambda: tf.io.decode_jpeg(encoded, channels=1),
        )

    def png():
        pixels = tf.io.decode_png(encoded, channels=channels)
        if channels != 4:
            return pixels
        # Where an image of fewer than 8 bits per channel has no alpha, the
        # decoder writes the largest value of those bits, and means opaque.
        bits = tf.io.decode_raw(tf.strings.substr(encoded, 24, 1), tf.uint8)
        filler = tf.bitwise.left_shift(1, tf.cast(bits[0], tf.int32)) - 1
        colors, alpha = pixels[..., :3], tf.cast(pixels[..., 3:], tf.int32)
        alpha = tf.where(tf.reduce_all(alpha == filler), 255, alpha)
        return tf.concat([colors, tf.cast(alpha, tf.uint8)], axis=-1)

    pixels = tf.cond(is_jpeg, jpeg, png)
    return tf.ensure_shape(pixels, (None, None, channels))


def _as_text(number):
    import tensorflow as tf

    return tf.strings.as_string(number)
