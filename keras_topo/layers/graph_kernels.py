"""Graph kernels inside a model: from edges to the masks of attention.

The same kernels as `keras_topo.graphs.kernels`, for a batch of padded graphs
and differentiable, so that a served model takes edges and nothing else.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import (
    GeneratorName,
    Shape,
    Tensor,
    TensorLike,
    TensorOrDict,
)
from keras_topo.arguments import one_of, positive
from keras_topo.graphs.kernels import check_walk
from keras_topo.host.diffusion_generator import GENERATORS
from keras_topo.layers.padding import check_padding
from keras_topo.operators.dense import HIDDEN
from keras_topo.operators.parameters import accumulation_dtype

# Entries of a kernel, relative to the largest of a row, that float32 cannot
# tell from zero.
NOISE = 2e-6

# Of normal float32 numbers.
SMALLEST = 1.2e-38


@keras.saving.register_keras_serializable(package="keras_topo")
class AdjacencyFromEdges(keras.layers.Layer):
    """The dense adjacency matrices of a batch of graphs, from their edges.

    Args:
        directed: bool; otherwise each edge is one in both directions. An edge
            that is listed more than once, or in both directions, counts once.

    Call arguments:
        edges: `(batch, edges, 2)`, int, node ids; pairs with a negative id
            are padding.
        nodes: `(batch, nodes, channels)`, for the number of nodes. An edge
            with an id from there on is left out here; check ids before.
        weights: `(batch, edges)`, positive, or `None` for ones. Of an edge
            that is listed more than once the largest counts.

    Returns:
        `(batch, nodes, nodes)`, float32, weights and zeros.

    *Complexity*: `O(batch nodes^2)`.

    Example:

    >>> edges = np.array([[[0, 1], [1, 2], [-1, -1]]])  # one is padding
    >>> nodes = np.zeros((1, 3, 4))
    >>> print(np.array(AdjacencyFromEdges()(edges, nodes)[0]))
    [[0. 1. 0.]
     [1. 0. 1.]
     [0. 1. 0.]]
    """

    def __init__(self, directed: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.directed = bool(directed)

    def call(
        self, edges: Tensor, nodes: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        batch, count = tuple(ops.shape(nodes))[:2]
        edges = ops.cast(edges, "int32")
        source, target = edges[..., 0], edges[..., 1]
        inside = ops.logical_and(
            ops.logical_and(source >= 0, target >= 0),
            ops.logical_and(source < count, target < count),
        )
        place = ops.where(inside, source * count + target, 0)
        offset = ops.arange(batch, dtype="int32")[:, None] * (count * count)
        values = ops.cast(inside, "float32")
        if weights is not None:
            values = values * ops.cast(weights, "float32")
        adjacency = ops.segment_max(
            ops.reshape(values, (-1,)),
            ops.reshape(place + offset, (-1,)),
            num_segments=batch * count * count,
        )
        # Of places without an edge the largest of nothing.
        adjacency = ops.maximum(adjacency, 0.0)
        adjacency = ops.reshape(adjacency, (batch, count, count))
        if not self.directed:
            other = ops.swapaxes(adjacency, -1, -2)
            adjacency = ops.maximum(adjacency, other)
        return adjacency

    def compute_output_shape(
        self,
        edges_shape: Shape,
        nodes_shape: Shape,
        weights_shape: Shape | None = None,
    ) -> Shape:
        del edges_shape, weights_shape
        return (nodes_shape[0], nodes_shape[1], nodes_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "directed": self.directed}


class KernelLayer(keras.layers.Layer):
    """From adjacency matrices to `num_kernels` kernels, in float32."""

    num_kernels = 1

    def call(self, adjacency: Tensor, mask: TensorLike | None = None) -> Tensor:
        adjacency = ops.cast(adjacency, "float32")
        mask = check_padding(mask, adjacency.shape, self)
        return masked_kernel(self._kernels(adjacency), mask)

    def compute_output_shape(
        self, adjacency_shape: Shape, mask_shape: Shape | None = None
    ) -> Shape:
        del mask_shape
        batch, nodes = adjacency_shape[:2]
        return (batch, self.num_kernels, nodes, nodes)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None


class WalkLayer(KernelLayer):
    """Kernels of walks of so many nodes, one for each of `lengths`."""

    def __init__(
        self,
        lengths: Sequence[int] = (4,),
        halt: float = 0.0,
        discount: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.lengths = tuple(lengths)
        if not self.lengths or None in self.lengths:
            raise ValueError(
                "`lengths` expects walk lengths, at least one. Received: "
                f"lengths={lengths}"
            )
        check_walk(self.lengths, halt, discount)
        self.lengths = tuple(int(n) for n in self.lengths)
        self.num_kernels = len(self.lengths)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lengths": list(self.lengths)}


@keras.saving.register_keras_serializable(package="keras_topo")
class RandomWalkKernel(WalkLayer):
    """Random-walk graph-nodes kernels, exact, one for each walk length.

    `K = F F^T` with `F = sum_l (discount (1 - halt))^l P^l` over the steps of
    a walk, rows of `F` being divided by their norm: see
    `keras_topo.graphs.random_walk_kernel`.

    Args:
        lengths: ints, nodes of the walks, one kernel each.
        halt: float in [0, 1), probability to stop before a step.
        discount: float, positive.
        normalize: bool.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, kernels, nodes, nodes)`, float32; zero at padded nodes.

    *Complexity*: `max(lengths) + kernels` products of `nodes x nodes`
    matrices.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(RandomWalkKernel(lengths=[3])(path)[0, 0]).round(2))
    [[1.   0.76 0.71]
     [0.76 1.   0.76]
     [0.71 0.76 1.  ]]
    """

    def __init__(
        self,
        lengths: Sequence[int] = (4,),
        halt: float = 0.0,
        discount: float = 1.0,
        normalize: bool = True,
        **kwargs: Any,
    ):
        super().__init__(lengths, halt, discount, **kwargs)
        self.halt, self.discount = halt, discount
        self.normalize = bool(normalize)

    def _kernels(self, adjacency):
        transition = transition_matrix(adjacency)
        decay = self.discount * (1 - self.halt)
        nodes = tuple(ops.shape(adjacency))[-1]
        total = ops.broadcast_to(
            ops.eye(nodes, dtype="float32"), ops.shape(adjacency)
        )
        power, found = None, {1: total}
        for step in range(1, max(self.lengths)):
            power = (
                transition if power is None else ops.matmul(power, transition)
            )
            total = total + decay**step * power
            found[step + 1] = total
        features = ops.stack([found[n] for n in self.lengths], axis=1)
        if self.normalize:
            norms = ops.sqrt(ops.sum(features**2, axis=-1, keepdims=True))
            features = features / norms
        return ops.matmul(features, ops.swapaxes(features, -1, -2))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "halt": self.halt,
            "discount": self.discount,
            "normalize": self.normalize,
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class DiffusionKernel(KernelLayer):
    """Graph diffusion kernels `exp(-time T)`, one for each time.

    Args:
        times: floats, one kernel each; positive if they are learned.
        generator: `"laplacian"`, `"adjacency"` or `"normalized_laplacian"`:
            see `keras_topo.graphs.diffusion_kernel`.
        learn_times: bool; the times are weights, kept positive by a softplus
            and starting at `times`.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`, symmetric.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, kernels, nodes, nodes)`, float32; zero at padded nodes, and
        where an entry is below 2e-6 of the largest in its row. There is a
        gradient with respect to the times, but not to the adjacency.

    *Complexity*: one eigendecomposition `O(nodes^3)` per graph, and one
    product per kernel.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(DiffusionKernel(times=[0.5])(path)[0, 0]).round(2))
    [[0.67 0.26 0.07]
     [0.26 0.48 0.26]
     [0.07 0.26 0.67]]
    """

    def __init__(
        self,
        times: Sequence[float] = (1.0,),
        generator: GeneratorName = "laplacian",
        learn_times: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.times = tuple(float(t) for t in times)
        if not self.times or not np.isfinite(self.times).all():
            raise ValueError(
                "`times` expects finite numbers, at least one. Received: "
                f"times={times}"
            )
        if learn_times and min(self.times) <= 0:
            raise ValueError(
                "`times` expects positive numbers where they are learned. "
                f"Received: times={times}"
            )
        self.generator = one_of(generator, "generator", GENERATORS)
        self.learn_times = bool(learn_times)
        self.num_kernels = len(self.times)

    def build(self, input_shape: Shape) -> None:
        if self.learn_times:
            inverse_softplus = np.log(np.expm1(self.times)).astype("float32")
            self.time_weights = self.add_weight(
                name="times",
                shape=(self.num_kernels,),
                initializer=keras.initializers.Constant(inverse_softplus),
                dtype="float32",
                autocast=False,
            )

    def current_times(self) -> Tensor:
        """The times, learned or not, a float32 tensor `(kernels,)`."""
        if self.learn_times:
            return ops.softplus(ops.convert_to_tensor(self.time_weights))
        return ops.convert_to_tensor(self.times, dtype="float32")

    def _kernels(self, adjacency):
        degrees = ops.sum(adjacency, axis=-1)
        if self.generator == "adjacency":
            matrix = -adjacency
        else:
            nodes = tuple(ops.shape(adjacency))[-1]
            eye = ops.eye(nodes, dtype="float32")
            matrix = degrees[..., None] * eye - adjacency
        if self.generator == "normalized_laplacian":
            some = degrees > 0
            safe = ops.where(some, degrees, ops.ones_like(degrees))
            scale = ops.where(some, 1.0 / ops.sqrt(safe), 0.0)
            matrix = scale[..., None] * matrix * scale[..., None, :]
        values, vectors = ops.eigh(ops.stop_gradient(matrix))
        # The gradient of an eigendecomposition divides by the gaps between
        # equal eigenvalues, and is not needed.
        values = ops.stop_gradient(values)[:, None, None, :]
        vectors = ops.stop_gradient(vectors)[:, None]
        times = self.current_times()[:, None, None]
        scaled = vectors * ops.exp(-times * values)
        kernel = ops.matmul(scaled, ops.swapaxes(vectors, -1, -2))
        # Between components, and far away, there is rounding of either sign;
        # a mask hides an entry only if it is zero.
        largest = ops.max(kernel, axis=-1, keepdims=True)
        return ops.where(
            kernel > NOISE * largest, kernel, ops.zeros_like(kernel)
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "times": list(self.times),
            "generator": self.generator,
            "learn_times": self.learn_times,
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class AdjacencyKernel(KernelLayer):
    """The kernels of neighbors, and the mask that hides nothing.

    Args:
        kind: `"normalized"`, `D^-1/2 (A + I) D^-1/2`, as in GCN and SGC;
            `"neighbors"`, `A + I` as ones and zeros, as in GAT; or `"ones"`.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.
        mask: `(batch, nodes)`, `True` for real nodes.

    Returns:
        `(batch, 1, nodes, nodes)`, float32; zero at padded nodes.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(AdjacencyKernel("normalized")(path)[0, 0]).round(2))
    [[0.5  0.41 0.  ]
     [0.41 0.33 0.41]
     [0.   0.41 0.5 ]]
    """

    def __init__(
        self,
        kind: Literal["normalized", "neighbors", "ones"] = "normalized",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kind = one_of(kind, "kind", ("normalized", "neighbors", "ones"))

    def _kernels(self, adjacency):
        if self.kind == "ones":
            return ops.ones_like(adjacency)[:, None]
        eye = ops.eye(tuple(ops.shape(adjacency))[-1], dtype="float32")
        if self.kind == "neighbors":
            return ops.cast(adjacency + eye > 0, "float32")[:, None]
        adjacency = adjacency + eye
        scale = 1.0 / ops.sqrt(ops.sum(adjacency, axis=-1))
        return (scale[..., None] * adjacency * scale[..., None, :])[:, None]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}


@keras.saving.register_keras_serializable(package="keras_topo")
class LogKernel(keras.layers.Layer):
    """The logarithms of kernels, once for all layers that attend by them.

    `GraphKernelAttention` with softmax or additive similarity then adds `N =
    log M` to its logits, where with `M` each layer multiplies its scores.
    The results are the same and come faster.

    Call arguments:
        inputs: kernel, `(batch, nodes, nodes)` or `(batch, kernels, nodes,
            nodes)`, not negative; or a dict with `kernel`, which is returned
            with `log_kernel` instead.
        mask: `(batch, nodes)`, `True` for real nodes; no node sees a padded
            one.

    Returns:
        The shape of the kernel, in float32 at least; -1e30 where an entry is
        zero (or negative, where there is no logarithm).

    Example:

    >>> nodes, kernel = np.random.rand(2, 30, 16), np.random.rand(2, 30, 30)
    >>> layer = keras_topo.layers.GraphKernelAttention(num_heads=4, key_dim=8)
    >>> tuple(layer(nodes, {"log_kernel": LogKernel()(kernel)}).shape)
    (2, 30, 16)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(
        self, inputs: TensorOrDict, mask: TensorLike | None = None
    ) -> TensorOrDict:
        if isinstance(inputs, dict):
            rest = {k: x for k, x in inputs.items() if k != "kernel"}
            if isinstance(mask, dict):
                mask = None
            mask = inputs.get("node_mask", mask)
            return {**rest, "log_kernel": self(inputs["kernel"], mask=mask)}
        kernel = ops.cast(inputs, accumulation_dtype(inputs.dtype))
        visible = kernel > SMALLEST
        nodes = (kernel.shape[0], *kernel.shape[-2:])
        real = check_padding(mask, nodes, self)
        if real is not None:
            real = real[:, None, :]
            if len(kernel.shape) == 4:
                real = real[:, None]
            visible = ops.logical_and(visible, real)
        # Of ones where nothing is seen: the gradient of a logarithm of zero,
        # times zero, is not a number.
        safe = ops.where(visible, kernel, ops.ones_like(kernel))
        return ops.where(visible, ops.log(safe), HIDDEN)

    def compute_output_shape(
        self, inputs_shape: Any, mask_shape: Shape | None = None
    ) -> Any:
        del mask_shape
        if isinstance(inputs_shape, dict):
            rest = {k: x for k, x in inputs_shape.items() if k != "kernel"}
            return {**rest, "log_kernel": inputs_shape["kernel"]}
        return inputs_shape

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None


@keras.saving.register_keras_serializable(package="keras_topo")
class DegreeFeatures(keras.layers.Layer):
    """The number of neighbors of each node, as a one-hot vector.

    Args:
        max_degree: int; larger numbers count as this one.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.

    Returns:
        `(batch, nodes, max_degree + 1)`, float32.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(DegreeFeatures(max_degree=3)(path)[0]))
    [[0. 1. 0. 0.]
     [0. 0. 1. 0.]
     [0. 1. 0. 0.]]
    """

    def __init__(self, max_degree: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_degree = positive(max_degree, "max_degree")

    def call(self, adjacency: Tensor) -> Tensor:
        count = ops.sum(ops.cast(adjacency != 0, "int32"), axis=-1)
        count = ops.minimum(count, self.max_degree)
        return ops.one_hot(count, self.max_degree + 1, dtype="float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], self.max_degree + 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_degree": self.max_degree}


@keras.saving.register_keras_serializable(package="keras_topo")
class ReturnProbabilities(keras.layers.Layer):
    """The probabilities that a random walk is back where it began.

    They are features of a node that say how it is connected: see
    `keras_topo.graphs.return_probabilities`.

    Args:
        steps: int.

    Call arguments:
        adjacency: `(batch, nodes, nodes)`.

    Returns:
        `(batch, nodes, steps)`, float32: the diagonals of `P, P^2, ...`.

    *Complexity*: `steps / 2` products of `nodes x nodes` matrices.

    Example:

    >>> path = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])
    >>> print(np.array(ReturnProbabilities(steps=4)(path)[0]))
    [[0.  0.5 0.  0.5]
     [0.  1.  0.  1. ]
     [0.  0.5 0.  0.5]]
    """

    def __init__(self, steps: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.steps = positive(steps, "steps")

    def call(self, adjacency: Tensor) -> Tensor:
        transition = transition_matrix(ops.cast(adjacency, "float32"))
        # diag(P^(a + b)) needs P^a and P^b only.
        powers = [transition]
        while 2 * len(powers) < self.steps:
            powers.append(ops.matmul(powers[-1], transition))
        columns = []
        for step in range(1, self.steps + 1):
            if step <= len(powers):
                column = ops.diagonal(powers[step - 1], axis1=-2, axis2=-1)
            else:
                other = powers[step - len(powers) - 1]
                other = ops.swapaxes(other, -1, -2)
                column = ops.sum(powers[-1] * other, axis=-1)
            columns.append(column)
        return ops.stack(columns, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], self.steps)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps}


def masked_kernel(kernel: Tensor, mask: TensorLike | None) -> Tensor:
    """`(batch, kernels, nodes, nodes)`, zero at padded nodes."""
    if mask is None:
        return kernel
    real = ops.cast(mask, "float32")
    return kernel * real[:, None, :, None] * real[:, None, None, :]


def transition_matrix(adjacency: Tensor) -> Tensor:
    """`D^-1 A`; a node without edges has a row of zeros."""
    degrees = ops.sum(adjacency, axis=-1, keepdims=True)
    return adjacency / ops.where(degrees > 0, degrees, ops.ones_like(degrees))
