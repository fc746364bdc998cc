"""Losses and metrics of targets of which some are unknown: NaN.

They give one number per example, the mean over its known values. Weighted by
how many of them are known, as `GraphSequence` does, they add up to the mean
over all known values.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Tensor

register = keras.saving.register_keras_serializable(package="keras_topo")


def mean_of_known(values: Tensor, y_true: Tensor) -> Tensor:
    """`(..., values)` to `(...)`: the mean of those whose target is no NaN."""
    known = ops.cast(ops.equal(y_true, y_true), values.dtype)
    # Before the product: NaN times zero is NaN.
    values = ops.where(known > 0, values, ops.zeros_like(values))
    return ops.sum(values, -1) / ops.maximum(ops.sum(known, -1), 1.0)


def _pair(y_true, y_pred):
    """Targets and predictions of one dtype; unknown targets, and zeros there.

    A gradient through NaN would be NaN even where it is masked afterwards.
    """
    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    filled = ops.where(ops.equal(y_true, y_true), y_true, 0.0)
    return y_true, filled, y_pred


def squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """`(..., values)` to `(...)`, the mean over known values."""
    y_true, filled, y_pred = _pair(y_true, y_pred)
    return mean_of_known(ops.square(filled - y_pred), y_true)


def absolute_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """`(..., values)` to `(...)`, the mean over known values."""
    y_true, filled, y_pred = _pair(y_true, y_pred)
    return mean_of_known(ops.abs(filled - y_pred), y_true)


def binary_accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """The share of known labels that logits get right."""
    y_true, filled, y_pred = _pair(y_true, y_pred)
    right = ops.equal(y_pred > 0, filled > 0.5)
    return mean_of_known(ops.cast(right, y_pred.dtype), y_true)


@register
class StandardizedSquaredError(keras.losses.Loss):
    """`mean(((y - prediction) / deviation)^2)` over known values.

    The model is trained, saved and watched in the units of `y`, while no unit
    is too large or too small to learn.

    Args:
        deviation: list of floats, one per value: the standard deviation of
            the targets of training.
    """

    def __init__(
        self,
        deviation: Sequence[float],
        name: str = "standardized_squared_error",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.deviation = [float(value) for value in deviation]

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        scale = ops.convert_to_tensor(self.deviation, dtype=y_pred.dtype)
        y_true = ops.cast(y_true, y_pred.dtype)
        return squared_error(y_true / scale, y_pred / scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "deviation": self.deviation}


@register
class KnownBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of logits, over known labels."""

    def __init__(
        self,
        label_smoothing: float = 0.0,
        name: str = "binary_crossentropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, filled, y_pred = _pair(y_true, y_pred)
        smoothing = self.label_smoothing
        filled = filled * (1.0 - smoothing) + 0.5 * smoothing
        return mean_of_known(
            ops.binary_crossentropy(filled, y_pred, from_logits=True), y_true
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@register
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits with classes, ints, and label smoothing."""

    def __init__(
        self,
        num_classes: int,
        smoothing: float,
        name: str = "crossentropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.num_classes, self.smoothing = num_classes, smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        classes = ops.one_hot(ops.cast(y_true, "int32"), self.num_classes)
        return keras.losses.categorical_crossentropy(
            classes, y_pred, from_logits=True, label_smoothing=self.smoothing
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "smoothing": self.smoothing,
        }


class _OfKnown(keras.metrics.MeanMetricWrapper):
    function = None

    def __init__(self, name: str, dtype: Any = None) -> None:
        super().__init__(type(self).function, name=name, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


@register
class KnownSquaredError(_OfKnown):
    """The mean of the squared errors of known values."""

    function = staticmethod(squared_error)


@register
class KnownAbsoluteError(_OfKnown):
    """The mean of the absolute errors of known values."""

    function = staticmethod(absolute_error)


@register
class KnownBinaryAccuracy(_OfKnown):
    """The share of known labels whose logit has the right sign."""

    function = staticmethod(binary_accuracy)
