"""A model that makes copies of what it learns from."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Tensor


@keras.saving.register_keras_serializable(package="keras_topo")
class SequentialOfCopies(keras.Sequential):
    """A `keras.Sequential` whose layers copy each example in training.

    Where the outputs of a training step are `copies` times as many as the
    targets, as behind `NodeDropout`, each copy has the targets and sample
    weights of its example: the loss is the mean of their losses, metrics
    likewise. In all else this is a `keras.Sequential`.

    Call arguments, returns:
        As those of the layers.

    Example:

    >>> dropout = keras_topo.layers.NodeDropout(0.5, copies=4)
    >>> model = SequentialOfCopies(
    ...     [keras.Input((None, 5)), dropout, keras.layers.Dense(3)]
    ... )
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    >>> history = model.fit(np.ones((1, 30, 5)), np.zeros((1, 30)), verbose=0)
    """

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor | None:
        return super().compute_loss(
            x,
            _for_each_copy(y, y_pred),
            y_pred,
            _for_each_copy(sample_weight, y_pred),
            training,
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        return super().compute_metrics(
            x,
            _for_each_copy(y, y_pred),
            y_pred,
            _for_each_copy(sample_weight, y_pred),
        )


def _for_each_copy(values, outputs):
    """`(batch, ...)` as `(batch * copies, ...)`, as many as there are outputs;
    copies follow one another."""
    if values is None or outputs is None:
        return values
    values = ops.convert_to_tensor(values)
    batch, *rest = tuple(ops.shape(values))
    copies = tuple(ops.shape(outputs))[0] // batch
    x = ops.broadcast_to(ops.expand_dims(values, 1), (batch, copies, *rest))
    return ops.reshape(x, (batch * copies, *rest))
