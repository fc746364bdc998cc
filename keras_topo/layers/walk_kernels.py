"""Kernels of walks inside a model: where they end, and what labels they see."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Shape, Tensor, TensorLike
from keras_topo.arguments import positive
from keras_topo.graphs.labeled_walks import DEGREE_BINS
from keras_topo.layers.graph_kernels import (
    WalkLayer,
    masked_kernel,
    transition_matrix,
)
from keras_topo.layers.padding import check_padding

# The least positive float32 that is not denormal.
SMALLEST = 2.0**-126


@keras.saving.register_keras_serializable(package="keras_topo")
class StepsKernel(WalkLayer):
    """Where random walks of `n` nodes end: `P^(n - 1)`, `P = D^-1 A`.

    For `n = 1` it is the identity. From several of them, `KernelMixture` makes
    the polynomials of `P`, diffusion and PageRank among them.

    Args:
        lengths: ints, nodes of the walks, one kernel each.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, kernels, nodes, nodes)`, float32; zero at padded nodes, and in
        the row of a node from which no walk is that long.

    *Complexity*: `max(lengths) - 2` products of `nodes x nodes` matrices.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(StepsKernel(lengths=[3])(path)[0, 0]))  # two steps
    [[0.5 0.  0.5]
     [0.  1.  0. ]
     [0.5 0.  0.5]]
    """

    def _kernels(self, adjacency):
        transition = transition_matrix(adjacency)
        nodes = tuple(ops.shape(adjacency))[-1]
        power = ops.broadcast_to(
            ops.eye(nodes, dtype="float32"), ops.shape(adjacency)
        )
        found = {1: power}
        for n in range(2, max(self.lengths) + 1):
            power = transition if n == 2 else ops.matmul(power, transition)
            found[n] = power
        return ops.stack([found[n] for n in self.lengths], axis=1)


@keras.saving.register_keras_serializable(package="keras_topo")
class AnchoredWalkKernel(WalkLayer):
    """Random-walk kernels that tell only a few nodes apart, as matrices.

    See `keras_topo.graphs.anchored_walk_factors`.

    Args:
        lengths: ints, nodes of the walks, one kernel each.
        anchors: int, the nodes with the most edges; all others are one place.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, kernels, nodes, nodes)`, float32; zero at padded nodes.

    *Complexity*: `max(lengths) + kernels` products of `nodes x nodes`
    matrices.

    Example:

    >>> graph = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]]
    >>> layer = AnchoredWalkKernel(lengths=[2], anchors=1)
    >>> print(np.array(layer(np.array([graph]))[0, 0]).round(2))
    [[1.   1.   0.89 0.89]
     [1.   1.   0.89 0.89]
     [0.89 0.89 1.   1.  ]
     [0.89 0.89 1.   1.  ]]
    """

    def __init__(
        self, lengths: Sequence[int] = (4,), anchors: int = 8, **kwargs: Any
    ):
        super().__init__(lengths, **kwargs)
        self.anchors = positive(anchors, "anchors")

    def _kernels(self, adjacency):
        degrees = ops.sum(ops.cast(adjacency != 0, "int32"), axis=-1)
        # By the place of each node, equal ones in their order. Padded nodes
        # have no edges and come last.
        place = ops.argsort(ops.argsort(-degrees, axis=-1), axis=-1)
        chosen = ops.cast(place < self.anchors, "float32")[..., None]
        nodes = tuple(ops.shape(adjacency))[-1]
        eye = ops.eye(nodes, dtype="float32")
        # Anchors in their own columns, and all others in one more.
        visits = ops.concatenate([eye * chosen, 1 - chosen], axis=-1)
        transition = transition_matrix(adjacency)
        total, found = visits, {1: visits}
        for n in range(2, max(self.lengths) + 1):
            visits = ops.matmul(transition, visits)
            total = total + visits
            found[n] = total
        factors = ops.stack([found[n] for n in self.lengths], axis=1)
        norms = ops.sqrt(ops.sum(factors**2, axis=-1, keepdims=True))
        factors = factors / norms
        return ops.matmul(factors, ops.swapaxes(factors, -1, -2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "anchors": self.anchors}


@keras.saving.register_keras_serializable(package="keras_topo")
class LabeledWalkKernel(WalkLayer):
    """How likely walks from two nodes see the same labels.

    See `keras_topo.graphs.labeled_walk_kernel`. There is a gradient with
    respect to the adjacency, but not to the labels.

    Args:
        lengths: ints, nodes of the walks, one kernel each.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        labels: `(batch, nodes, values)`, one-hot vectors; those of zeros are
            one more label.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, kernels, nodes, nodes)`, float32; zero at padded nodes.

    *Complexity*: `2 max(lengths)` products of `nodes x nodes` matrices.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> labels = np.array([[[1, 0], [1, 0], [0, 1]]])
    >>> print(np.array(LabeledWalkKernel([2])(path, labels)[0, 0]).round(3))
    [[1.    0.707 0.   ]
     [0.707 1.    0.   ]
     [0.    0.    1.   ]]
    """

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(self, adjacency_shape: Shape, labels_shape: Shape) -> None:
        pass

    # It has one input more than other kernels.
    def call(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        adjacency: Tensor,
        labels: Tensor,
        mask: TensorLike | None = None,
        adjacency_mask: TensorLike | None = None,
    ) -> Tensor:
        mask = adjacency_mask if mask is None else mask
        adjacency = ops.cast(adjacency, "float32")
        mask = check_padding(mask, adjacency.shape, self)
        labels = ops.cast(labels, "float32")
        other = 1 - ops.max(labels, axis=-1, keepdims=True)
        labels = ops.concatenate([labels, other], axis=-1)
        equal = ops.matmul(labels, ops.swapaxes(labels, -1, -2))
        equal = ops.cast(equal > 0.5, "float32")
        degrees = ops.sum(adjacency, axis=-1, keepdims=True)
        nodes = tuple(ops.shape(adjacency))[-1]
        stays = ops.cast(degrees == 0, "float32")
        steps = transition_matrix(adjacency)
        steps = steps + stays * ops.eye(nodes, dtype="float32")
        back = ops.swapaxes(steps, -1, -2)
        kernel, found = equal, {1: equal}
        for n in range(2, max(self.lengths) + 1):
            kernel = equal * ops.matmul(ops.matmul(steps, kernel), back)
            found[n] = kernel
        kernels = ops.stack(
            [_normalized(found[n]) for n in self.lengths], axis=1
        )
        return masked_kernel(kernels, mask)

    def compute_output_shape(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        adjacency_shape: Shape,
        labels_shape: Shape,
        mask_shape: Shape | None = None,
    ) -> Shape:
        del labels_shape
        return super().compute_output_shape(adjacency_shape, mask_shape)


@keras.saving.register_keras_serializable(package="keras_topo")
class DegreeBins(keras.layers.Layer):
    """The bin of the degree of each node, as a one-hot vector.

    Bins are 0, 1, 2 to 3, 4 to 7, and so on: labels for labeled walks on
    graphs that have none.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.

    Returns:
        `(batch, nodes, 32)`, float32.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(DegreeBins()(path)[0, :, :4]))
    [[0. 1. 0. 0.]
     [0. 0. 1. 0.]
     [0. 1. 0. 0.]]
    """

    def call(self, adjacency: Tensor) -> Tensor:
        count = ops.sum(ops.cast(adjacency != 0, "int32"), axis=-1)
        bounds = ops.convert_to_tensor(DEGREE_BINS, dtype="int32")
        reached = ops.cast(count[..., None] >= bounds, "int32")
        return ops.one_hot(
            ops.sum(reached, axis=-1), len(DEGREE_BINS) + 1, dtype="float32"
        )

    def compute_output_shape(self, adjacency_shape: Shape) -> Shape:
        return (*adjacency_shape[:2], len(DEGREE_BINS) + 1)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None


def _normalized(kernel):
    """Ones on the diagonal, which is positive: long walks may underflow."""
    diagonal = ops.diagonal(kernel, axis1=-2, axis2=-1)
    scale = 1 / ops.sqrt(ops.maximum(diagonal, SMALLEST))
    return kernel * scale[..., :, None] * scale[..., None, :]
