"""Degrees around a node and triangles, as features inside a model."""

from typing import Any

import keras
from keras import ops

from keras_topo.annotations import Shape, Tensor, TensorLike
from keras_topo.layers.padding import check_padding


@keras.saving.register_keras_serializable(package="keras_topo")
class DegreeProfile(keras.layers.Layer):
    """The degree of each node, and a summary of the degrees of its neighbors.

    See `keras_topo.graphs.degree_profile`.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        mask: `(batch, nodes)`, `True` for real nodes, of which the share of
            neighbors is taken.

    Returns:
        `(batch, nodes, 6)`, float32; zeros for a node without edges.

    *Complexity*: `O(nodes^2)`.

    Example:

    >>> star = np.array([[[0, 1, 1], [1, 0, 0], [1, 0, 0]]])
    >>> features = DegreeProfile()(star)
    >>> print(np.array(features[0, :, 0]).round(2))  # log(1 + degree)
    [1.1  0.69 0.69]
    """

    def call(self, adjacency: Tensor, mask: TensorLike | None = None) -> Tensor:
        mask = check_padding(mask, adjacency.shape, self)
        edges = ops.cast(adjacency != 0, "float32")
        degrees = ops.sum(edges, axis=-1)
        counts = ops.maximum(degrees, 1.0)
        around = degrees[..., None, :]
        mean = ops.sum(edges * around, axis=-1) / counts
        apart = edges * ops.square(around - mean[..., None])
        largest = ops.max(edges * around, axis=-1)
        nodes = tuple(ops.shape(adjacency))[-1]
        # Above all degrees where there is no edge.
        least = ops.min(
            ops.where(edges > 0, around, ops.cast(nodes + 1, "float32")),
            axis=-1,
        )
        least = ops.where(degrees > 0, least, ops.zeros_like(least))
        deviation = ops.sqrt(ops.sum(apart, axis=-1) / counts)
        columns = ops.stack([degrees, least, largest, mean, deviation], axis=-1)
        if mask is None:
            others = ops.cast(nodes, "float32") - 1
        else:
            others = ops.sum(ops.cast(mask, "float32"), axis=1)[:, None] - 1
        share = degrees / ops.maximum(others, 1.0)
        return ops.concatenate([ops.log1p(columns), share[..., None]], axis=-1)

    def compute_output_shape(
        self, adjacency_shape: Shape, mask_shape: Shape | None = None
    ) -> Shape:
        del mask_shape
        return (*adjacency_shape[:2], 6)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None


@keras.saving.register_keras_serializable(package="keras_topo")
class ClusteringCoefficients(keras.layers.Layer):
    """The share of the pairs of neighbors of a node that are neighbors.

    See `keras_topo.graphs.clustering_coefficients`.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.

    Returns:
        `(batch, nodes, 1)`, float32; 0 with fewer than two neighbors.

    *Complexity*: one product of `nodes x nodes` matrices.

    Example:

    >>> graph = [[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]]
    >>> shares = ClusteringCoefficients()(np.array([graph]))
    >>> print(np.array(shares[0, :, 0]).round(2))
    [1.   1.   0.33 0.  ]
    """

    def call(self, adjacency: Tensor) -> Tensor:
        either = adjacency + ops.swapaxes(adjacency, -1, -2)
        nodes = tuple(ops.shape(adjacency))[-1]
        edges = ops.cast(either != 0, "float32")
        edges = edges * (1 - ops.eye(nodes, dtype="float32"))
        degrees = ops.sum(edges, axis=-1)
        closed = ops.sum(ops.matmul(edges, edges) * edges, axis=-1)
        pairs = ops.maximum(degrees * (degrees - 1), 1.0)
        return (closed / pairs)[..., None]

    def compute_output_shape(self, adjacency_shape: Shape) -> Shape:
        return (*adjacency_shape[:2], 1)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None
