"""SavedModels that carry their preprocessing and were tried before use.

The page reads in the order of the work: the public function, the checks on
what it was given, the image signatures, the writing, the verification.

TensorFlow is imported inside the functions, so that importing this module
under another backend costs nothing and the error about the backend is ours.
"""

import functools
import typing

import keras
import numpy as np

from keras_topo.export_tensors import export_tensors, is_plain
from keras_topo.saved_models import (
    Comparison,
    add_endpoints,
    answers_of_a_clean_process,
    are_probabilities,
    check_backend,
    check_class_names,
    check_logits,
    check_path,
    check_tolerance,
    softmax,
    write_verified,
)

IMAGE_SIGNATURES = ("serving_default", "classify_bytes")


def export_saved_model(
    model,
    path,
    *,
    class_names=None,
    top_k=5,
    max_pixels=25_000_000,
    sample_bits=16,
    signatures=IMAGE_SIGNATURES,
    overwrite=False,
    verify=True,
    tolerance=None,
):
    """Writes an image classifier as a TensorFlow SavedModel for serving.

    The folder holds everything that an answer needs: the weights, the decoding
    and resizing of images, and the class names. It is loaded by TensorFlow
    Serving or `tf.saved_model.load` where neither Keras nor this package is
    installed. It appears under `path` complete or not at all: it is written
    and verified in a hidden folder beside `path` and then renamed, so a server
    that polls the parent folder never loads half a model.

    Signatures (every input and output is named, the batch size is free, and an
    empty batch gives an empty answer):

    - `serving_default`
        - `images`: float32 `(batch, height, width, channels)`, pixels in
          0..255. NaN or infinite pixels are an `InvalidArgumentError`.
        - returns `logits` and `probabilities`: float32 `(batch, classes)`,
          whatever the model's compute dtype; the softmax runs in float32.
    - `classify_bytes`
        - `image_bytes`: string `(batch,)`, each an encoded JPEG, PNG, BMP, GIF
          or WebP of any size, turned upright, and stretched to the model's
          height and width (bilinear, antialiased, rounded).
        - returns `classes`: string `(batch, k)`, and `scores`: float32
          `(batch, k)`, the k most probable classes, best first, with
          `k = min(top_k, classes)`.

    `classify_bytes` reads files as `python -m training.train images` does. It
    decodes to the model's channels: for 1 channel, colors become luma; for 3,
    gray is repeated and alpha is dropped (as
    `keras.utils.image_dataset_from_directory` does); for 4, an image without
    alpha is opaque. The EXIF orientation of JPEG, PNG and WebP is applied; a
    damaged one counts as upright. Of an animated PNG or GIF the first frame
    counts. BMPs may have a palette of 2 to 256 colors, 24 or 32 bits per pixel;
    those that are compressed, of 16 bits or of OS/2, and animated WebPs are
    refused. A server older than TensorFlow 2.19 refuses every WebP. Anything
    else, an image of more than `max_pixels` (told from its header, before it is
    decoded) and corrupt or truncated data are an `InvalidArgumentError` that
    names `image_bytes`; the whole batch is refused. The server then answers the
    next request as before.

    A model that ends in a softmax, wherever it stands, is recognized by its
    answers to random images (no number is negative, rows sum to one); its
    outputs are served as `probabilities` and `scores` as they are, without
    `logits`.

    A model of something else, float `(batch, *grid, channels)` such as a
    sequence, a volume or a video, or images of any size, or one with outputs
    per pixel, gets `serving_default` alone: from `inputs` (`images` where there
    are two axes) to `logits` and `probabilities`, or to `outputs` where there
    is not one row per example.

    The class names are constants of the graph and not an asset file: a second
    copy could be edited apart from the weights it belongs to.

    Args:
        model: A functional or Sequential `keras.Model` with one float input
            `(batch, height, width, channels)`, channels last, of pixels in
            0..255 (the rescaling is a layer of the model), and one output of
            logits `(batch, classes)`; or of the other kinds above.
        path: The folder to write. TensorFlow Serving wants a number for its
            name, the model's version, as in `"run/saved_model/1"`; whoever
            loads it otherwise may call it anything. Its parents are created.
        class_names: One string per class, in the order of the logits, or a
            dict from names to indices such as Keras's `class_indices`. `None`
            serves the indices as strings.
        top_k: How many classes `classify_bytes` answers with, at most.
        max_pixels: The largest height x width that `classify_bytes` decodes.
        sample_bits: How many bits, 8 to 16, the samples of PNGs of 16 bits
            fill: 12 for a camera that writes 0..4095, which is nearly black
            where 16 bits are expected. Samples become 8 bits; those beyond the
            range become white.
        signatures: The signatures to write; `("serving_default",)` for images
            that no such file can hold.
        overwrite: Whether an earlier SavedModel at `path` is replaced. (It is
            renamed away first; new versions under new numbers leave no gap.)
        verify: Whether to load the result in a new process in which neither
            Keras nor keras_topo can be imported, on the CPU, and to compare
            its answers to random images, in batches of 0, 1 and 3, with
            `model(...)`.
        tolerance: The greatest difference that passes, relative to the largest
            logit (or to 1). `None` takes 1e-5, or for a model that computes
            in float16 1e-2 and in bfloat16 5e-2.

    Returns:
        A dictionary that `json.dumps` takes: `path`; `signatures`, the dtypes
        and shapes of each one's `inputs` and `outputs`; `classes`; `verified`;
        `tolerance`; `max_abs_difference`, over all outputs; and `differences`,
        the same for each output (the last three are `None` without `verify`).

    Raises:
        ValueError: If the model is not of the kind above or another argument
            does not fit it.
        FileExistsError: If `path` exists and `overwrite` is false, or if it
            holds something other than a SavedModel.
        RuntimeError: If the Keras backend is not TensorFlow, or if the written
            model does not load by itself or does not repeat the answers of
            `model`; nothing is left at `path` then, and what `overwrite` would
            have replaced is untouched.

    Example:

    ```python
    model = keras.Sequential([
        keras.Input((32, 32, 3), name="images"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ])
    report = keras_topo.export_saved_model(
        model, "flowers/1", class_names=["daisy", "rose"]
    )
    loaded = tf.saved_model.load("flowers/1")
    png = tf.io.encode_png(tf.zeros((50, 40, 3), "uint8"))
    answer = loaded.signatures["classify_bytes"](image_bytes=png[None])
    answer["classes"], answer["scores"]  # both of shape (1, 2)
    ```

    The same request to TensorFlow Serving (bytes travel as base64):

    ```shell
    curl http://localhost:8501/v1/models/flowers:predict -d '{"signature_name":
      "classify_bytes", "instances": [{"image_bytes": {"b64": "iVBORw0..."}}]}'
    ```
    """
    check_backend()
    _check_signatures(signatures)
    top_k = _check_positive("top_k", top_k)
    max_pixels = _check_positive("max_pixels", max_pixels)
    sample_bits = _check_sample_bits(sample_bits)
    if is_plain(model):
        return export_tensors(
            model, path, class_names, overwrite, verify, tolerance
        )
    spec = _image_spec(model)
    if "classify_bytes" in signatures and spec.channels not in (1, 3, 4):
        raise ValueError(
            "`model` must take images of 1, 3 or 4 channels to serve "
            '`classify_bytes`; pass `signatures=("serving_default",)` for '
            f"others. Received: model with {spec.channels} channels"
        )
    class_names = check_class_names(class_names, spec.classes) or [
        str(index) for index in range(spec.classes)
    ]
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, model)

    batches = _random_batches(spec)
    shares = are_probabilities(_answers(model, batches[-1]), tolerance)
    archive = keras.export.ExportArchive()
    archive.track(model)
    top_k = min(top_k, spec.classes)
    read = functools.partial(_images_from_bytes, spec, max_pixels, sample_bits)
    described = _add_image_signatures(
        archive, model, spec, signatures, class_names, top_k, read, shares
    )
    requests = _requests(batches, signatures)

    def check(folder):
        # First: what is not finite, the other process would not answer.
        logits = [_reference_logits(model, batch) for batch in batches]
        answers = answers_of_a_clean_process(folder, requests)
        return _compare(answers, logits, class_names, top_k, tolerance, shares)

    return write_verified(
        archive,
        path,
        {"signatures": described, "classes": spec.classes},
        check if verify else None,
        tolerance,
        files=(),
        warmup=requests,
    )


# ---------------------------------------------------------------- the checks


class _ImageSpec(typing.NamedTuple):
    height: int
    width: int
    channels: int
    classes: int


def _check_signatures(signatures):
    known = isinstance(signatures, (tuple, list)) and set(signatures) <= set(
        IMAGE_SIGNATURES
    )
    if not known or "serving_default" not in signatures:
        raise ValueError(
            "`signatures` must be a tuple of `serving_default` and, if wanted, "
            f"`classify_bytes`. Received: signatures={signatures!r}"
        )


def _check_positive(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        value_is_good = False
    else:
        value_is_good = value >= 1
    if not value_is_good:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def _check_sample_bits(value):
    if _check_positive("sample_bits", value) not in range(8, 17):
        raise ValueError(
            "`sample_bits` must be an integer from 8 to 16. Received: "
            f"sample_bits={value!r}"
        )
    return int(value)


def _image_spec(model):
    """The image and class sizes of a model, or the reason it has none."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a keras.Model. "
            f"Received: model of type {type(model).__name__}"
        )
    try:
        inputs, outputs = model.inputs, model.outputs
    except AttributeError:  # a subclassed or an unbuilt model
        inputs = outputs = None
    if not inputs or not outputs:
        raise ValueError(
            "`model` must be a built functional or Sequential model, whose "
            "input shape is known (give a Sequential model a `keras.Input`). "
            f"Received: model={model!r}"
        )

    if len(inputs) != 1:
        raise ValueError(
            "`model` must have one input, the images. "
            f"Received: model with {len(inputs)} inputs"
        )
    shape, dtype = tuple(inputs[0].shape), inputs[0].dtype
    if len(shape) != 4 or shape[0] is not None or None in shape[1:]:
        raise ValueError(
            "`model` must take images (None, height, width, channels): four "
            "axes, an undefined batch size and everything else defined. "
            f"Received: model with input shape {shape}"
        )
    if "float" not in dtype:
        raise ValueError(
            "`model` must take floating-point pixels in 0..255. "
            f"Received: model with input dtype {dtype!r}"
        )

    if len(outputs) != 1:
        raise ValueError(
            "`model` must have one output, the logits. "
            f"Received: model with {len(outputs)} outputs"
        )
    logits = tuple(outputs[0].shape)
    if len(logits) != 2 or logits[1] is None or logits[1] < 2:
        raise ValueError(
            "`model` must return logits (None, classes) of at least 2 classes. "
            f"Received: model with output shape {logits}"
        )
    check_logits(outputs[0], refused=("sigmoid",))
    return _ImageSpec(*shape[1:], logits[1])


# ------------------------------------------------------ the image signatures


def _add_image_signatures(
    archive, model, spec, signatures, class_names, top_k, read, shares
):
    """Adds the endpoints; returns {signature: its inputs and outputs}."""
    import tensorflow as tf

    def answer(images):
        logits = _logits(model, images)
        if shares:  # Of a model that ends in a softmax.
            return {"probabilities": logits}
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def serving_default(images):
        return answer(_finite(images))

    def classify_bytes(image_bytes):
        probabilities = answer(read(image_bytes))["probabilities"]
        scores, indices = tf.math.top_k(probabilities, top_k)
        classes = tf.gather(tf.constant(class_names, tf.string), indices)
        return {"classes": classes, "scores": scores}

    image_shape = (None, spec.height, spec.width, spec.channels)
    endpoints = {
        "serving_default": (
            serving_default,
            [tf.TensorSpec(image_shape, tf.float32, name="images")],
        ),
        "classify_bytes": (
            classify_bytes,
            [tf.TensorSpec((None,), tf.string, name="image_bytes")],
        ),
    }
    return add_endpoints(
        archive, {name: endpoints[name] for name in signatures}
    )


def _images_from_bytes(spec, max_pixels, sample_bits, image_bytes):
    # It imports TensorFlow.
    from keras_topo.decoding import images_from_bytes

    shape = (spec.height, spec.width, spec.channels)
    return images_from_bytes(image_bytes, shape, max_pixels, sample_bits)


def _finite(images):
    """The images, from which nothing follows unless they are finite."""
    import tensorflow as tf

    return tf.debugging.assert_all_finite(
        images, "`images` must be finite pixels in 0..255. Received"
    )


def _logits(model, images):
    """float32 logits (batch, classes), for an empty batch as well."""
    import tensorflow as tf

    # Some layers, such as Conv2D (eagerly) and LSTM, fail on an empty batch.
    # It goes through the model as one black image instead.
    batch = tf.shape(images)[0]
    missing = tf.cast(batch == 0, tf.int32)
    black = tf.zeros((missing, *images.shape[1:]), images.dtype)
    logits = _call(model, tf.concat([images, black], axis=0))
    return tf.cast(logits, tf.float32)[:batch]


def _call(model, images):
    """The model's one output, also where its input or output is a dict."""
    structure = getattr(model, "input", None)  # Sequential models have none
    if isinstance(structure, dict):
        images = dict.fromkeys(structure, images)
    return keras.tree.flatten(model(images, training=False))[0]


# ----------------------------------------------------------- the verification


def _random_batches(spec):
    """Batches of 0, 1 and 3 images of noise, uint8."""
    rng = np.random.default_rng(0)
    shape = (spec.height, spec.width, spec.channels)
    return [
        rng.integers(0, 256, (size, *shape), dtype=np.uint8)
        for size in (0, 1, 3)
    ]


def _requests(batches, signatures):
    """A request for each signature and batch, signature by signature."""
    requests = [
        ("serving_default", {"images": batch.astype(np.float32)})
        for batch in batches
    ]
    if "classify_bytes" in signatures:
        requests += [
            ("classify_bytes", {"image_bytes": _encode_png(batch)})
            for batch in batches
        ]
    return requests


def _compare(answers, logits, class_names, top_k, tolerance, shares=False):
    """Compares the answers of the written model with the one in memory.

    Returns:
        {output name: largest absolute difference}.
    """
    probabilities = logits if shares else [softmax(rows) for rows in logits]
    # What rounds the logits moves the probabilities by as much at most.
    scale = max(float(np.abs(rows).max(initial=1.0)) for rows in logits)
    comparison = Comparison(tolerance * scale)
    for answer, rows, expected in zip(
        answers[: len(logits)], logits, probabilities, strict=True
    ):
        if not shares:
            comparison.add("logits", answer["logits"], rows)
        comparison.add("probabilities", answer["probabilities"], expected)
    for answer, expected in zip(
        answers[len(logits) :], probabilities, strict=False
    ):
        best = -np.sort(-expected, axis=-1)[:, :top_k]
        comparison.add("scores", answer["scores"], best)
        _check_served_classes(answer, expected, class_names, comparison.limit)
    return comparison.differences


def _encode_png(batch):
    import tensorflow as tf

    encoded = [tf.io.encode_png(image).numpy() for image in batch]
    return np.array(encoded, dtype=object)


def _answers(model, batch):
    import tensorflow as tf

    # On the CPU, as in the other process: an accelerator multiplies in lower
    # precision, which is no fault of the export.
    with tf.device("CPU:0"):
        images = tf.constant(batch, tf.float32)
        return np.asarray(_logits(model, images))


def _reference_logits(model, batch):
    logits = _answers(model, batch)
    if not np.isfinite(logits).all():
        raise RuntimeError(
            "`model` gives logits that are not finite for random images; it "
            "was not exported. Train it again."
        )
    return logits


def _check_served_classes(answer, probabilities, class_names, limit):
    """Each served name is a class of that score; near ties may swap."""
    names = np.array(class_names, dtype=object)
    for row, classes, scores in zip(
        probabilities, answer["classes"], answer["scores"], strict=True
    ):
        for served, score in zip(classes, scores, strict=True):
            near = names[np.abs(row - score) <= 2 * limit]
            if served.decode() not in near:
                raise RuntimeError(
                    f"The exported model's `classes` name {served.decode()!r} "
                    f"at score {score:.6g}, which the Keras model gives to "
                    f"{list(near)}."
                )
