"""Classifiers of images of one size, which take files as well.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_topo.arguments import positive
from keras_topo.export.answers import softmax
from keras_topo.export.served import Case
from keras_topo.export.tensors import ServedTensors, check_model
from keras_topo.export.verification import Comparison

SIGNATURES = ("serving_default", "classify_bytes")
# Channels that files of images hold.
CHANNELS = (1, 3, 4)
# Options of `classify_bytes`, and their defaults.
OF_FILES = {"top_k": 5, "max_pixels": 25_000_000, "sample_bits": 16}


def served_tensors(
    model: keras.Model,
    task: str | None = None,
    class_names: Sequence[str] | None = None,
    signatures: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    **of_files: int | None,
) -> ServedTensors:
    """What a model of images or other tensors is served as.

    Args: see `keras_topo.export`.

    Returns:
        `ServedTensors`, or `ServedImages` with `classify_bytes`.
    """
    given = {name: x for name, x in of_files.items() if x is not None}
    limits = {
        name: positive(given.get(name, default), name)
        for name, default in OF_FILES.items()
    }
    if limits["sample_bits"] not in range(8, 17):
        raise ValueError(
            "`sample_bits` must be an integer from 8 to 16. Received: "
            f"sample_bits={limits['sample_bits']!r}"
        )
    _check_signatures(signatures)
    check_model(model)
    served = ServedTensors(model, task, class_names, input_shape)
    wanted = signatures is not None and "classify_bytes" in signatures
    classifies = (
        served.name == "images"
        and None not in served.shape
        and len(model.outputs[0].shape) == 2
        and served.answers.task == "classification"
    )
    if wanted and not classifies:
        raise ValueError(
            "`signatures` has `classify_bytes` for classifiers of images of "
            f"one size. Received: signatures={signatures!r} for a model from "
            f"{served.shape} to {tuple(model.outputs[0].shape[1:])}, "
            f"task={served.answers.task!r}"
        )
    if wanted and served.shape[-1] not in CHANNELS:
        raise ValueError(
            "`model` must take images of 1, 3 or 4 channels to serve "
            '`classify_bytes`; pass `signatures=("serving_default",)` for '
            f"others. Received: model with {served.shape[-1]} channels"
        )
    bytes_too = classifies and served.shape[-1] in CHANNELS
    if bytes_too and (wanted or signatures is None):
        own = served.shape[0] * served.shape[1]
        if limits["max_pixels"] < own:
            raise ValueError(
                f"`max_pixels` must be at least {own}, the pixels of the "
                "model's own images. Received: max_pixels="
                f"{limits['max_pixels']}"
            )
        return ServedImages(model, task, class_names, input_shape, **limits)
    if given:
        name = next(iter(given))
        raise ValueError(
            f"`{name}` is an option of `classify_bytes`, which this model is "
            f"served without. Received: {name}={given[name]!r}"
        )
    return served


class ServedImages(ServedTensors):
    """A classifier of images of one size, with `classify_bytes`.

    Args:
        model, task, class_names, input_shape: see `ServedTensors`.
        top_k: int, how many classes it answers with, at most.
        max_pixels: int, of an image in a file.
        sample_bits: int, that samples of 16 bits fill.
    """

    def __init__(
        self,
        model: keras.Model,
        task: str | None,
        class_names: Sequence[str] | None,
        input_shape: Sequence[int] | None,
        top_k: int,
        max_pixels: int,
        sample_bits: int,
    ) -> None:
        super().__init__(model, task, class_names, input_shape)
        count = self.answers.count
        self.top_k = min(top_k, count)
        self.limits = max_pixels, sample_bits
        self.names = self.answers.names or [str(k) for k in range(count)]

    def endpoints(self) -> dict[str, Any]:
        import tensorflow as tf

        from keras_topo.decoding import images_from_bytes

        def classify_bytes(image_bytes):
            images = images_from_bytes(image_bytes, self.shape, *self.limits)
            answer = self.answer({self.name: images})
            scores, indices = tf.math.top_k(answer["probabilities"], self.top_k)
            names = tf.constant(self.names, tf.string)
            return {"classes": tf.gather(names, indices), "scores": scores}

        spec = tf.TensorSpec((None,), tf.string, "image_bytes")
        return {
            **super().endpoints(),
            "classify_bytes": (classify_bytes, [spec]),
        }

    def cases(self) -> list[Case]:
        pixels = super().cases()
        files = [
            Case(
                "classify_bytes",
                {"image_bytes": _encode_png(case.inputs[self.name])},
                case.expected,
            )
            for case in pixels
        ]
        return pixels + files

    def compare(
        self,
        comparison: Comparison,
        case: Case,
        answer: Mapping[str, np.ndarray],
    ) -> None:
        if case.signature == "serving_default":
            return super().compare(comparison, case, answer)
        shares = self.answers.shares
        rows = case.expected if shares else softmax(case.expected)
        best = -np.sort(-rows, axis=-1)[:, : self.top_k]
        comparison.add("scores", answer["scores"], best)
        self._check_classes(answer, rows, comparison.limit)

    def _check_classes(self, answer, probabilities, limit):
        """Each served name is a class of that score; near ties may swap."""
        names = np.array(self.names, dtype=object)
        for row, classes, scores in zip(
            probabilities, answer["classes"], answer["scores"], strict=True
        ):
            for served, score in zip(classes, scores, strict=True):
                near = names[np.abs(row - score) <= 2 * limit]
                if served.decode() not in near:
                    raise RuntimeError(
                        "The exported model's `classes` name "
                        f"{served.decode()!r} at score {score:.6g}, which the "
                        f"Keras model gives to {list(near)}."
                    )


def _encode_png(batch):
    import tensorflow as tf

    images = batch.astype("uint8")
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    return np.array(encoded, dtype=object)


def _check_signatures(signatures):
    if signatures is None:
        return
    known = isinstance(signatures, (tuple, list)) and set(signatures) <= set(
        SIGNATURES
    )
    if not known or "serving_default" not in signatures:
        raise ValueError(
            "`signatures` must be a tuple of `serving_default` and, if wanted, "
            f"`classify_bytes`. Received: signatures={signatures!r}"
        )
