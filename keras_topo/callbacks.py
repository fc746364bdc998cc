"""Callbacks for training."""

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from keras_topo.graphs import GraphSequence


class Resample(keras.callbacks.Callback):
    """Draws other random walks between epochs.

    Calls `resample()` of every layer of the model that has it, in parts of
    layers too: `RandomFeaturesMask` and `RandomWalkMask`. Otherwise walks stay
    as they are.

    Args:
        every: int, epochs between samples. The first epoch of a training
            trains on what the model holds; one that resumes with
            `initial_epoch` draws in the same epochs as without a break.

    Raises:
        ValueError: if no layer of the model is sampled.

    Example:

    >>> model.fit(x, y, epochs=10, callbacks=[Resample(every=2)])
    """

    def __init__(self, every: int = 1):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"`every` expects a positive int. Received: every={every!r}"
            )
        self.every = every

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._sampled = [
            layer
            for layer in self.model._flatten_layers()
            if hasattr(layer, "resample")
        ]
        if not self._sampled:
            raise ValueError(
                "Resample expects a model with a layer that has `resample`. "
                f"Received: the model {self.model.name!r} without one"
            )

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # By the number of the epoch: a training that resumes, as one goes on.
        if epoch and epoch % self.every == 0:
            for layer in self._sampled:
                layer.resample()


class FollowEpochs(keras.callbacks.Callback):
    """Tells a `GraphSequence` which epoch it is.

    The order of its batches depends on the seed and the epoch. With this a
    training that resumes sees the batches that it would have seen.

    Args:
        sequence: `keras_topo.graphs.GraphSequence`, of the training graphs.

    Example:

    >>> model.fit(train, epochs=10, initial_epoch=5, shuffle=False,
    ...           callbacks=[FollowEpochs(train)])
    """

    def __init__(self, sequence: "GraphSequence"):
        super().__init__()
        self.sequence = sequence

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self.sequence.epoch = epoch
