"""SavedModels of models from a tensor to a tensor, whatever they mean.

What `keras_topo.export_saved_model` writes for models that are no classifiers
of images of one size. TensorFlow is imported inside the functions.
"""

import keras
import numpy as np

from keras_topo.saved_models import (
    Comparison,
    add_endpoints,
    answers_of_a_clean_process,
    are_probabilities,
    check_class_names,
    check_logits,
    check_path,
    check_tolerance,
    softmax,
    write_verified,
)

# The extent of axes that a model leaves open, in what it is tried with.
SIZE = 32


def is_plain(model):
    """Whether a model takes tokens on a grid, and is no classifier of images
    of one size."""
    inputs = getattr(model, "inputs", None) if _is_built(model) else None
    outputs = model.outputs if inputs else None
    if not inputs or not outputs or len(inputs) != 1 or len(outputs) != 1:
        return False
    shape, dtype = tuple(inputs[0].shape), inputs[0].dtype
    if len(shape) < 3 or shape[0] is not None or shape[-1] is None:
        return False
    images = len(shape) == 4 and None not in shape[1:]
    return "float" in dtype and not (images and _is_classifier(model))


def _is_built(model):
    return isinstance(model, keras.Model) and model.built


def _is_classifier(model):
    return len(model.outputs[0].shape) == 2


def export_tensors(model, path, class_names, overwrite, verify, tolerance):
    """Writes a model with the signature `serving_default` alone.

    Args:
        model: one for which `is_plain` holds.
        path, class_names, overwrite, verify, tolerance: as those of
            `keras_topo.export_saved_model`; names are for models of one row
            per example, and go into the report.

    Returns:
        The report of `keras_topo.export_saved_model`.
    """
    import tensorflow as tf

    classes = model.outputs[0].shape[-1]
    if _is_classifier(model):
        check_logits(model.outputs[0], refused=("sigmoid",))
        class_names = check_class_names(class_names, classes)
    elif class_names is not None:
        raise ValueError(
            "`class_names` is for models with one row of logits per example. "
            f"Received: class_names={class_names!r} for outputs of shape "
            f"{tuple(model.outputs[0].shape)}"
        )
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, model)
    shape = tuple(model.inputs[0].shape[1:])
    name = "images" if len(shape) == 3 else "inputs"
    batches = _random_batches(shape)

    def outputs_of(x):
        # Some layers fail on an empty batch: it goes through as one of zeros.
        missing = tf.cast(tf.shape(x)[0] == 0, tf.int32)
        padded = tf.pad(x, [[0, missing]] + [[0, 0]] * len(shape))
        padded.set_shape((None, *shape))
        structure = getattr(model, "input", None)
        if isinstance(structure, dict):
            padded = dict.fromkeys(structure, padded)
        y = keras.tree.flatten(model(padded, training=False))[0]
        return tf.cast(y, tf.float32)[: tf.shape(x)[0]]

    with tf.device("CPU:0"):
        references = [np.asarray(outputs_of(tf.constant(x))) for x in batches]
    shares = are_probabilities(references[-1], tolerance)

    def answer(y, to_shares):
        # One output is a number, or a logit for yes or no: who knows.
        if not _is_classifier(model) or classes == 1:
            return {"outputs": y}
        if shares:
            return {"probabilities": y}
        return {"logits": y, "probabilities": to_shares(y)}

    def serving_default(x):
        x = tf.debugging.assert_all_finite(
            x, f"`{name}` must be finite. Received"
        )
        return answer(outputs_of(x), tf.nn.softmax)

    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = tf.TensorSpec((None, *shape), tf.float32, name)
    described = add_endpoints(
        archive, {"serving_default": (serving_default, [spec])}
    )
    requests = [("serving_default", {name: x}) for x in batches]

    def check(folder):
        if not all(np.isfinite(y).all() for y in references):
            raise RuntimeError(
                "`model` gives outputs that are not finite for random inputs; "
                "it was not exported. Train it again."
            )
        scale = max(float(np.abs(y).max(initial=1.0)) for y in references)
        comparison = Comparison(tolerance * scale)
        answers = answers_of_a_clean_process(folder, requests)
        for served, y in zip(answers, references, strict=True):
            for key, expected in answer(y, softmax).items():
                comparison.add(key, served[key], expected)
        return comparison.differences

    return write_verified(
        archive,
        path,
        {
            "signatures": described,
            "classes": classes,
            "class_names": class_names,
        },
        check if verify else None,
        tolerance,
        files=(),
        warmup=requests,
    )


def _random_batches(shape):
    """Batches of 0, 1 and 3 examples, as pixels from 0 to 255."""
    random = np.random.default_rng(0)
    shape = tuple(SIZE if n is None else n for n in shape)
    return [
        random.integers(0, 256, (size, *shape)).astype("float32")
        for size in (0, 1, 3)
    ]
