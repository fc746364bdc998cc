"""Callbacks for training."""

from typing import TYPE_CHECKING, Any

import keras

from keras_topo.arguments import positive

if TYPE_CHECKING:
    from keras_topo.graphs import GraphSequence


class Resample(keras.callbacks.Callback):
    """Draws other random walks between epochs.

    It calls `resample()` of every layer that has it, parts of layers included:
    `RandomFeaturesMask` and `RandomWalkMask`. Without it, walks stay as they
    are.

    Args:
        every: int, epochs between samples. The first epoch of a training
            trains on what the model holds; one that resumes with
            `initial_epoch` draws in the same epochs as without a break.

    Raises:
        ValueError: if no layer of the model is sampled.

    Example:

    >>> path = np.eye(5, k=1) + np.eye(5, k=-1)
    >>> mask = keras_topo.masks.RandomWalkMask(path)
    >>> model = keras_topo.models.gkat_node_classifier(
    ...     4, 2, mask, similarity="relu"
    ... )
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    >>> x, y = np.ones((1, 5, 4)), np.zeros((1, 5))
    >>> callbacks = [Resample(every=2)]
    >>> history = model.fit(x, y, epochs=3, callbacks=callbacks, verbose=0)
    """

    def __init__(self, every: int = 1):
        super().__init__()
        self.every = positive(every, "every")

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

    >>> from keras_topo.graphs import GraphPreprocessor, GraphSequence
    >>> graphs, _, _ = keras_topo.graphs.induced_cycle_dataset(10, (8, 1, 1))
    >>> preprocessor = GraphPreprocessor(kernel="neighbors").adapt(graphs)
    >>> train = GraphSequence(graphs, preprocessor, shuffle=True)
    >>> model = keras_topo.models.sgc(**preprocessor.model_arguments())
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    >>> history = model.fit(
    ...     train, epochs=6, initial_epoch=5, shuffle=False, verbose=0,
    ...     callbacks=[FollowEpochs(train)],
    ... )
    >>> train.epoch
    6
    """

    def __init__(self, sequence: "GraphSequence"):
        super().__init__()
        self.sequence = sequence

    def on_epoch_begin(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self.sequence.epoch = epoch
