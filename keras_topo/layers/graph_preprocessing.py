"""What `GraphPreprocessor` does, inside a model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo._backend import equal_to_strings
from keras_topo.annotations import Shape, Tensor, TensorLike
from keras_topo.arguments import positive
from keras_topo.graphs.largest import STEPS
from keras_topo.host.adjacency import check_int32
from keras_topo.layers.edges import real_edges
from keras_topo.layers.padding import check_padding


@keras.saving.register_keras_serializable(package="keras_topo")
class OneHotValues(keras.layers.Layer):
    """Labels of known values as one-hot vectors; others are zeros.

    Args:
        values: ints or strings, in the order of the channels.

    Call arguments:
        labels: `(batch, n)`, int or (on TensorFlow) string.

    Returns:
        `(batch, n, values)`, float32.

    Example:

    >>> print(np.array(OneHotValues([6, 7, 8])(np.array([[8, 6, 1]]))[0]))
    [[0. 0. 1.]
     [1. 0. 0.]
     [0. 0. 0.]]
    """

    def __init__(self, values: Sequence[int] | Sequence[str], **kwargs: Any):
        # Of labels that are strings there is nothing to cast.
        super().__init__(autocast=False, **kwargs)
        self.values = list(values)
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(
                "`values` expects different labels, at least one. Received: "
                f"values={values}"
            )
        if not isinstance(self.values[0], str):
            check_int32(self.values, "values")

    def call(self, labels: Tensor) -> Tensor:
        if isinstance(self.values[0], str):
            found = equal_to_strings(labels, self.values)
        else:
            known = np.array(self.values, "int32")
            found = ops.equal(ops.cast(labels, "int32")[..., None], known)
        return ops.cast(found, "float32")

    def compute_output_shape(self, labels_shape: Shape) -> Shape:
        return (*labels_shape, len(self.values))

    def compute_output_spec(self, labels: Any) -> Any:
        shape = self.compute_output_shape(labels.shape)
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "values": self.values}


@keras.saving.register_keras_serializable(package="keras_topo")
class L1Normalization(keras.layers.Layer):
    """Features divided by the sum of their absolute values.

    For bags of words this is the share of each word. Rows of zeros stay zeros,
    and rows that are normalized already stay as they are. No finite feature
    overflows.

    Call arguments:
        inputs: `(..., features)`.

    Returns:
        The same shape, whose rows have an L1 norm of 1 or 0.

    Example:

    >>> print(np.array(L1Normalization()(np.array([[1.0, 0.0, 1.0, 0.0]]))))
    [[0.5 0.  0.5 0. ]]
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Tensor) -> Tensor:
        # By the largest one first, so that the sum is at most their number.
        for reduce in (ops.max, ops.sum):
            norm = reduce(ops.abs(inputs), axis=-1, keepdims=True)
            some = norm > 0
            inputs = inputs / ops.where(some, norm, ops.ones_like(norm))
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@keras.saving.register_keras_serializable(package="keras_topo")
class BothDirections(keras.layers.Layer):
    """Edges of an undirected graph in both directions, each of them once.

    Args:
        directed: bool; `True` drops repeated edges alone.

    Call arguments:
        edges: `(batch, edges, 2)`, int, node ids, -1 for padding.
        features: `(batch, edges, channels)`.
        nodes: `(batch, nodes, channels)`, for the number of nodes.

    Returns:
        Edges `(batch, 2 edges, 2)`, int32, -1 in place of those that repeat
        another, and their features. (`(batch, edges, ...)` if `directed`.)

    *Complexity*: `O(batch nodes^2)`.

    Example:

    >>> edges, features = np.array([[[0, 1], [1, 2]]]), np.ones((1, 2, 4))
    >>> edges, _ = BothDirections()(edges, features, nodes=np.zeros((1, 3, 8)))
    >>> np.array(edges[0]).tolist()
    [[0, 1], [1, 2], [1, 0], [2, 1]]
    """

    def __init__(self, directed: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.directed = bool(directed)

    def call(
        self, edges: Tensor, features: Tensor, nodes: Tensor
    ) -> tuple[Tensor, Tensor]:
        edges = ops.cast(edges, "int32")
        if not self.directed:
            edges = ops.concatenate([edges, edges[..., ::-1]], axis=1)
            features = ops.concatenate([features, features], axis=1)
        batch, count = tuple(ops.shape(edges))[:2]
        size = tuple(ops.shape(nodes))[1]
        real = real_edges(edges)
        place = ops.where(real, edges[..., 0] * size + edges[..., 1], 0)
        offset = ops.arange(batch, dtype="int32")[:, None] * (size * size)
        place = place + offset
        # The first of equal edges has the largest rank.
        rank = ops.where(real, count - ops.arange(count, dtype="int32"), 0)
        largest = ops.segment_max(
            ops.reshape(rank, (-1,)),
            ops.reshape(place, (-1,)),
            num_segments=batch * size * size,
        )
        first = ops.logical_and(real, ops.take(largest, place) == rank)
        edges = ops.where(first[..., None], edges, -ops.ones_like(edges))
        return edges, features

    def compute_output_shape(
        self, edges_shape: Shape, features_shape: Shape, nodes_shape: Shape
    ) -> tuple[Shape, Shape]:
        del nodes_shape
        count = edges_shape[1]
        if count is not None and not self.directed:
            count = 2 * count
        return (edges_shape[0], count, 2), (
            *features_shape[:1],
            count,
            features_shape[-1],
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "directed": self.directed}


@keras.saving.register_keras_serializable(package="keras_topo")
class LaplacianEigenvectors(keras.layers.Layer):
    """The first eigenvectors of the normalized Laplacian, as features.

    See `keras_topo.graphs.laplacian_eigenvectors`. There is no gradient.

    Args:
        count: int.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, nodes, count)`, float32; zeros at padded nodes.

    *Complexity*: one eigendecomposition `O(nodes^3)` per graph.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> tuple(LaplacianEigenvectors(count=2)(path).shape)
    (1, 3, 2)
    """

    def __init__(self, count: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = positive(count, "count")

    def call(
        self,
        adjacency: Tensor,
        mask: TensorLike | None = None,
        adjacency_mask: TensorLike | None = None,
    ) -> Tensor:
        mask = adjacency_mask if mask is None else mask
        adjacency = ops.cast(ops.stop_gradient(adjacency), "float32")
        adjacency = ops.maximum(adjacency, ops.swapaxes(adjacency, -1, -2))
        mask = check_padding(mask, adjacency.shape, self)
        nodes = tuple(ops.shape(adjacency))[1]
        degrees = ops.sum(adjacency, axis=-1)
        some = degrees > 0
        scale = ops.where(
            some, 1 / ops.sqrt(ops.where(some, degrees, 1.0)), 0.0
        )
        matrix = ops.cast(some, "float32")[..., None] * ops.eye(nodes)
        matrix = matrix - scale[..., None] * adjacency * scale[..., None, :]
        if mask is not None:
            # Above all others, which are at most 2, and so they come last.
            padded = 1 - ops.cast(mask, "float32")
            matrix = matrix + 3 * padded[..., None] * ops.eye(nodes)
        _, vectors = ops.eigh(matrix)
        # As many columns as are asked for, also of small graphs.
        vectors = ops.pad(vectors, [[0, 0], [0, 0], [0, self.count]])
        vectors = vectors[:, :, 1 : self.count + 1]
        column = ops.arange(1, self.count + 1, dtype="int32")
        sizes = ops.full_like(column, nodes)[None]
        if mask is not None:
            sizes = ops.sum(ops.cast(mask, "int32"), axis=1)[:, None]
            vectors = vectors * ops.cast(mask, "float32")[..., None]
        there = ops.cast(column[None] < sizes, "float32")
        # The first of the largest entries is positive.
        rounded = ops.round(ops.abs(vectors) * 1e6)
        place = ops.argmax(rounded, axis=1)
        largest = ops.take_along_axis(vectors, place[:, None, :], axis=1)
        return vectors * ops.where(largest < 0, -1.0, 1.0) * there[:, None, :]

    def compute_output_shape(
        self, adjacency_shape: Shape, mask_shape: Shape | None = None
    ) -> Shape:
        del mask_shape
        return (*adjacency_shape[:2], self.count)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable(package="keras_topo")
class LargestEntries(keras.layers.Layer):
    """Keeps the largest entries of each row of kernels, and those at edges.

    The entries are those that `keras_topo.graphs.largest_pairs` keeps, as
    matrices.

    Args:
        count: int, the number of entries of a row.

    Call arguments:
        kernel: `(batch, kernels, nodes, nodes)`.
        adjacency: `(batch, nodes, nodes)`.

    Returns:
        The shape of the kernel; zeros elsewhere.

    Example:

    >>> kernel = np.array([[[[1, 0.5, 0.2], [0.5, 1, 0.5], [0.2, 0.5, 1]]]])
    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(LargestEntries(count=1)(kernel, path)[0, 0]).round(2))
    [[1.  0.5 0. ]
     [0.5 1.  0.5]
     [0.  0.5 1. ]]
    """

    def __init__(self, count: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.count = positive(count, "count")

    def call(self, kernel: Tensor, adjacency: Tensor) -> Tensor:
        # In float16 so many steps overflow.
        wide = keras.backend.result_type(kernel.dtype, "float32")
        largest = ops.max(ops.cast(kernel, wide), axis=1)
        steps = ops.max(largest, axis=-1, keepdims=True)
        steps = STEPS / ops.where(steps > 0, steps, ops.ones_like(steps))
        largest = ops.round(largest * steps)
        # By the place of each entry among those of its row, equal ones in the
        # order of their nodes. (A sort, where `top_k` wants a fixed number.)
        order = ops.argsort(-largest, axis=-1)
        place = ops.argsort(order, axis=-1)
        kept = ops.logical_or(place < self.count, adjacency > 0)
        return kernel * ops.cast(kept, kernel.dtype)[:, None]

    def compute_output_shape(
        self, kernel_shape: Shape, adjacency_shape: Shape
    ) -> Shape:
        del adjacency_shape
        return kernel_shape

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count}
