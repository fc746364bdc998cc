"""Consistency training on randomly propagated features of nodes.

`NodeDropout` makes copies of a graph that lack different nodes, and
`ConsistencyRegularization` asks a model for equal predictions on all of them.
"""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Shape, Tensor
from keras_topo.arguments import positive, rate
from keras_topo.layers.floats import as_floats
from keras_topo.layers.graph_inputs import nodes_shape
from keras_topo.masks.mask import wide_dtype


@keras.saving.register_keras_serializable(package="keras_topo")
class NodeDropout(keras.layers.Layer):
    """Drops whole nodes in training, different ones in each copy of a graph.

    DropNode (Feng et al., 2020): with `b_i` 0 with probability `rate` and 1
    otherwise,

        x_i' = b_i x_i / (1 - rate)

    so that the expectation is `x_i`. A layer behind it that takes from
    neighbors, such as `GraphKernelAttention`, then takes from a random part
    of them. With `copies`, that many copies of a graph are drawn; only the
    layers behind this one cost more. Without training the layer changes
    nothing.

    Args:
        rate: float from 0 to below 1, share of nodes that are dropped.
        copies: int, the number of copies of each graph.
        seed: int.

    Call arguments:
        inputs: `(batch, nodes, channels)`.
        training: bool.

    Returns:
        The shape of the inputs; in training `(batch * copies, nodes,
        channels)`, where copies of a graph follow one another:
        `keras_topo.models.SequentialOfCopies` has a loss for such outputs.

    Raises:
        ValueError: if `rate` is not from 0 to below 1, `copies` no positive
            int, or the inputs do not have three axes.

    *Complexity*: `O(copies nodes channels)`.

    Example:

    >>> layer = NodeDropout(0.5, copies=4)
    >>> nodes = np.ones((1, 30, 16))
    >>> tuple(layer(nodes).shape)
    (1, 30, 16)
    >>> tuple(layer(nodes, training=True).shape)
    (4, 30, 16)

    Reference: Feng et al., Graph Random Neural Networks for Semi-Supervised
    Learning on Graphs, 2020, section 3.1.
    """

    def __init__(
        self,
        rate: float,
        copies: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.rate = _rate(rate)
        self.copies = positive(copies, "copies")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed) if rate else None

    def build(self, inputs_shape: Shape) -> None:
        nodes_shape(inputs_shape, self)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        inputs = as_floats(inputs, self)
        if not training or not (self.rate or self.copies > 1):
            return inputs
        batch, nodes, channels = tuple(ops.shape(inputs))
        kept = ops.ones((batch, self.copies, nodes, 1), inputs.dtype)
        if self.rate:
            kept = keras.random.dropout(
                kept, self.rate, seed=self.seed_generator
            )
        x = ops.expand_dims(inputs, 1) * kept
        return ops.reshape(x, (batch * self.copies, nodes, channels))

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        shape = nodes_shape(inputs_shape, self)
        # As many in training only.
        return shape if self.copies == 1 else (None, *shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rate": self.rate,
            "copies": self.copies,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class ConsistencyRegularization(keras.layers.Layer):
    """A loss for predictions that differ between copies of a graph.

    The copies of `NodeDropout` are of one graph, whose nodes have one class
    each, known or not. With the probabilities `p_s` of copy `s`, their mean
    `m` and its sharpened form

        t_c = m_c^(1 / temperature) / sum over d of m_d^(1 / temperature)

    which counts as a constant, the model gets the loss

        weight * mean over nodes and copies of |p_s - t|^2

    in training. The layer returns its inputs unchanged. With one copy the loss
    asks for confident predictions.

    Args:
        weight: float, not negative.
        temperature: float, positive; below 1 the mean is sharpened.
        copies: int, those of `NodeDropout`.

    Call arguments:
        inputs: logits `(batch * copies, nodes, classes)`, copies of a graph
            one after the other.
        training: bool.

    Returns:
        The inputs.

    Raises:
        ValueError: if an argument is outside its range.

    *Complexity*: `O(batch copies nodes classes)`.

    Example:

    >>> layer = ConsistencyRegularization(1.0, 0.5, copies=2)
    >>> logits = np.array([[[0.0, 0.0]], [[0.0, np.log(3)]]])
    >>> tuple(layer(logits, training=True).shape)
    (2, 1, 2)
    >>> round(float(layer.losses[0]), 4)
    0.0556

    Reference: Feng et al. (2020), section 3.2: see `NodeDropout`.
    """

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.5,
        copies: int = 2,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= weight < float("inf"):
            raise ValueError(
                "`weight` expects a finite number that is not negative. "
                f"Received: weight={weight!r}"
            )
        if not 0 < temperature < float("inf"):
            raise ValueError(
                "`temperature` expects a finite positive number. Received: "
                f"temperature={temperature!r}"
            )
        self.weight, self.temperature = float(weight), float(temperature)
        self.copies = positive(copies, "copies")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if training and self.weight:
            self.add_loss(self.weight * self._disagreement(inputs))
        return inputs

    def _disagreement(self, logits):
        p = ops.softmax(ops.cast(logits, wide_dtype(self)), axis=-1)
        batch, nodes, classes = tuple(ops.shape(p))
        p = ops.reshape(p, (-1, self.copies, nodes, classes))
        mean = ops.stop_gradient(ops.sum(p, axis=1, keepdims=True))
        # Relative to the largest: the power of small numbers may be zero.
        mean = mean / ops.max(mean, axis=-1, keepdims=True)
        target = mean ** (1 / self.temperature)
        target = target / ops.sum(target, axis=-1, keepdims=True)
        return ops.sum(ops.square(p - target)) / ops.cast(
            batch * nodes, p.dtype
        )

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "weight": self.weight,
            "temperature": self.temperature,
            "copies": self.copies,
        }


def _rate(value):
    # The argument has the name of the function that checks it.
    return rate(value, "rate")
