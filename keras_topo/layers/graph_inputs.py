"""How a graph comes into a layer: dense, as pairs, or as factors.

A graph is a dict of tensors. `nodes` are the features of its nodes, and its
kernel (masks between nodes, up to one per head) takes one of these forms:

| keys | shapes | mask |
|---|---|---|
| `kernel` | `(batch, nodes, nodes)` or `(batch, kernels, nodes, nodes)` | the matrix |
| `log_kernel` | as `kernel` | its exponential: see `LogKernel` |
| `pairs`, `pair_values` | `(batch, pairs, 2)`, `(batch, pairs)` or `(batch, kernels, pairs)` | `values` at the pairs, 0 elsewhere |
| `factors` | `(batch, nodes, rank)` or `(batch, kernels, nodes, rank)` | `factors factors^T` |

`node_mask`, `(batch, nodes)`, bool, is `True` for real nodes. Layers that take
such a dict return it with other `nodes`, so that they follow one another in a
`keras.Sequential`.
"""  # noqa: E501

import math
from typing import Any, Self, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_topo._backend import ensure_size
from keras_topo.annotations import Tensor
from keras_topo.arguments import with_names_of
from keras_topo.layers.floats import as_floats
from keras_topo.layers.padding import check_padding
from keras_topo.masks.fixed_arrays import (
    add_fixed_weights,
    recall,
    remember,
    remember_weights,
)
from keras_topo.masks.graph_masks import GraphMask
from keras_topo.masks.registry import get as get_mask
from keras_topo.operators import Dense, DenseExp, LowRank, SparsePairs

FORMS = {
    "kernel": ("kernel",),
    "log_kernel": ("log_kernel",),
    "pairs": ("pairs", "pair_values"),
    "factors": ("factors",),
}


#: The kernel of one graph: a SciPy sparse array, an array `(nodes, nodes)` or
#: `(kernels, nodes, nodes)`, `{"factors": array}`, a `GraphMask`, or `None`.
GraphKernel: TypeAlias = Any


class GraphKernelLayer(keras.layers.Layer):
    """A layer on nodes and a kernel, which may be fixed: that of one graph.

    Args:
        graph_kernel: a SciPy sparse array (kept as pairs), an array `(nodes,
            nodes)` or `(kernels, nodes, nodes)`, `{"factors": array}`, or
            `None`. Kept as non-trainable weights. Or a `GraphMask`, of which
            the layer makes itself a copy.
    """

    def __init__(self, graph_kernel: GraphKernel = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self._fixed_shapes = self._fixed_arrays = self._fixed_nodes = None
        self.graph_mask = None
        if _is_mask_config(graph_kernel):
            self.graph_mask = get_mask(graph_kernel)
        elif isinstance(graph_kernel, GraphMask):
            # Its own, so that one mask may be given to many layers.
            self.graph_mask = graph_kernel.clone()
        elif graph_kernel is not None:
            self._fixed_shapes, self._fixed_arrays, self._fixed_nodes = _fixed(
                graph_kernel
            )
        self.fixed = {}

    def get_config(self) -> dict[str, Any]:
        if self._fixed_arrays is None and self.fixed:
            self._fixed_arrays = remember_weights(self.fixed)
        config = self._fixed_shapes and {
            "shapes": self._fixed_shapes,
            "num_nodes": self._fixed_nodes,
            "digest": self._fixed_arrays and self._fixed_arrays.digest,
        }
        if self.graph_mask is not None:
            config = self.graph_mask
        return {
            **super().get_config(),
            "graph_kernel": graph_kernel_config(config),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return super().from_config(with_names_of(cls.__init__, config))

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return previous_mask

    def _build_graph_kernel(self, num_heads=1):
        if self.graph_mask is not None:
            if not self.graph_mask.built:
                self.graph_mask.build(num_heads)
            return
        self.fixed = add_fixed_weights(
            self, "fixed", self._fixed_shapes or {}, self._fixed_arrays
        )

    def _check_heads(self, num_heads):
        """Whether the kernels of a fixed graph can be shared out to heads."""
        kernels = 1
        if self.graph_mask is not None:
            kernels = self.graph_mask.num_kernels
        elif self._fixed_shapes:
            kernels = _count(self._fixed_shapes)
        if num_heads % kernels:
            raise ValueError(
                f"`num_heads` expects a multiple of the {kernels} kernels of "
                f"`graph_kernel`. Received: num_heads={num_heads}"
            )

    def _graph(self, inputs, kernel, mask, num_heads):
        """Nodes, the mask between them, and which of them are real."""
        nodes, kernel, mask = split_graph(inputs, kernel, mask)
        nodes = as_floats(nodes, self)
        mask = check_padding(mask, nodes.shape, self)
        if self.fixed or self.graph_mask is not None:
            if kernel:
                raise ValueError(
                    f"{type(self).__name__} was made for one graph and expects "
                    f"no kernel in a call. Received: {sorted(kernel)}"
                )
            nodes = self._check_size(nodes)
            if self.graph_mask is not None:
                return nodes, self.graph_mask.operator(), mask
            kernel = {
                key: ops.convert_to_tensor(weight)[None]
                for key, weight in self.fixed.items()
            }
        if not kernel:
            raise ValueError(
                f"{type(self).__name__} expects a kernel in each call, or "
                "graph_kernel. Received: neither"
            )
        operator = kernel_operator(kernel, nodes.shape[1], num_heads)
        return nodes, operator, mask

    def _check_size(self, nodes):
        """Nodes, as many as the graph of the layer has.

        Where a traced function does not know how many come, they are counted
        when it runs.
        """
        num_nodes = self._fixed_nodes
        if self.graph_mask is not None:
            num_nodes = self.graph_mask.num_nodes
        if num_nodes is None:
            return nodes
        if nodes.shape[1] not in (None, num_nodes):
            raise ValueError(
                f"{type(self).__name__} was made for a graph of {num_nodes} "
                f"nodes. Received: nodes of shape {tuple(nodes.shape)}"
            )
        return ensure_size(nodes, num_nodes, 1)


def nodes_shape(input_shape, layer):
    """`(batch, nodes, channels)`, from it or from a dict of shapes."""
    if isinstance(input_shape, dict):
        _check_keys(input_shape)
        input_shape = input_shape["nodes"]
    if len(input_shape) != 3 or input_shape[-1] is None:
        raise ValueError(
            f"{type(layer).__name__} expects nodes of shape (batch, nodes, "
            "channels) with a known number of channels. Received: "
            f"input_shape={input_shape}"
        )
    return tuple(input_shape)


def _check_keys(graph):
    if "nodes" not in graph:
        raise ValueError(
            "a graph expects the key 'nodes'. Received: a dict with the keys "
            f"{sorted(graph)}"
        )


def split_graph(inputs, kernel, mask):
    """`(nodes, kernel, mask)` of a layer's arguments.

    Args:
        inputs: nodes, or a dict with `nodes` and the kernel.
        kernel: a tensor (the dense form), a dict, or `None`.
        mask: node mask, or `None` (a dict of masks of inputs counts as none).

    Returns:
        Nodes, the kernel as a dict without other keys (empty where there is
        none), and the node mask or `None`.
    """
    if isinstance(mask, dict):
        mask = mask.get("nodes")
    if isinstance(inputs, dict):
        _check_keys(inputs)
        if kernel is None:
            kernel = {key: x for key, x in inputs.items() if key != "nodes"}
        mask = inputs.get("node_mask", mask)
        inputs = inputs["nodes"]
    if kernel is None:
        kernel = {}
    elif not isinstance(kernel, dict):
        kernel = {"kernel": kernel}
    keys = {key for form in FORMS.values() for key in form}
    return inputs, {k: x for k, x in kernel.items() if k in keys}, mask


def with_nodes(inputs, nodes):
    """What a layer returns: nodes, or the dict that came with others."""
    return {**inputs, "nodes": nodes} if isinstance(inputs, dict) else nodes


def kernel_operator(kernel, num_nodes, num_heads):
    """The mask of a graph, with batch axes that broadcast to (batch, heads).

    Args:
        kernel: dict in one of the forms.
        num_nodes: int, or `None` in a traced function.
        num_heads: int; `kernels` divides it, and each kernel serves
            `num_heads / kernels` consecutive heads.

    Raises:
        ValueError: if the form is incomplete, or shapes do not fit.
    """
    form = kernel_form(kernel)
    tensors = {key: ops.convert_to_tensor(kernel[key]) for key in FORMS[form]}
    if form in ("kernel", "log_kernel"):
        matrix = _per_head(tensors[form], form, 2, num_heads)
        _check_nodes(form, matrix, num_nodes, (-1, -2))
        return Dense(matrix) if form == "kernel" else DenseExp(matrix)
    if form == "factors":
        factors = _per_head(tensors["factors"], "factors", 2, num_heads)
        _check_nodes("factors", factors, num_nodes, (-2,))
        return LowRank(factors)
    values = _per_head(tensors["pair_values"], "pair_values", 1, num_heads)
    pairs = tensors["pairs"]
    if len(pairs.shape) == 3:
        # One graph for all examples keeps no batch axis.
        pairs = pairs[0] if pairs.shape[0] == 1 else pairs[:, None]
    return SparsePairs(pairs, values, num_nodes)


def kernel_shape_per_head(kernel_shape, num_heads):
    """The shapes of a kernel, a dict, with one matrix for each head."""
    return {
        key: shape if key == "pairs" else (shape[0], num_heads, *shape[2:])
        for key, shape in kernel_shape.items()
    }


def kernel_form(kernel):
    """The name of the form of a kernel that is a dict."""
    forms = [name for name, keys in FORMS.items() if set(keys) <= set(kernel)]
    used = sum(len(FORMS[name]) for name in forms)
    if len(forms) != 1 or used != len(kernel):
        raise ValueError(
            "a graph expects its kernel in exactly one form: 'kernel', "
            "'log_kernel', 'pairs' with 'pair_values', or 'factors'. Received: "
            f"the keys {sorted(kernel)}"
        )
    return forms[0]


def _per_head(x, name, rank, num_heads):
    """`(batch, [kernels,] ...)` to `(batch, 1 or heads, ...)`."""
    if len(x.shape) == rank + 1:
        return ops.expand_dims(x, 1)
    kernels = x.shape[1] if len(x.shape) == rank + 2 else None
    if not kernels or num_heads % kernels:
        raise ValueError(
            f"`{name}` expects {rank + 1} axes, or one more after the first "
            f"for several kernels, of which {num_heads} heads can be a "
            f"multiple. Received: {name} of shape {tuple(x.shape)}"
        )
    if kernels in (1, num_heads):
        return x
    return ops.repeat(x, num_heads // kernels, axis=1)


def _check_nodes(name, x, num_nodes, axes):
    if any(
        None not in (x.shape[axis], num_nodes) and x.shape[axis] != num_nodes
        for axis in axes
    ):
        raise ValueError(
            f"`{name}` expects the {num_nodes} nodes of the graph. Received: "
            f"{name} of shape {tuple(x.shape)}"
        )


def graph_kernel_config(graph_kernel):
    """What a config holds of a fixed kernel: shapes and a digest; numbers are
    weights."""
    if isinstance(graph_kernel, GraphMask):
        return keras.saving.serialize_keras_object(graph_kernel)
    if graph_kernel is None or _is_mask_config(graph_kernel):
        return graph_kernel
    shapes, arrays, num_nodes = _fixed(graph_kernel)
    return {
        "shapes": {key: list(shape) for key, shape in shapes.items()},
        "num_nodes": num_nodes,
        "digest": arrays and arrays.digest,
    }


# The former name, for builders of one's own, until version 0.3.
fixed_kernel_config = graph_kernel_config


def check_not_negative(arrays):
    """Raises where a fixed kernel has negative entries, beyond rounding:
    attention divides by sums of them."""
    for name in ("kernel", "pair_values"):
        array = (arrays or {}).get(name)
        if array is not None and array.min() < -1e-6 * abs(array).max():
            raise ValueError(
                "`graph_kernel` expects no negative numbers. Received: "
                f"{array.min():g}"
            )


def _is_mask_config(graph_kernel):
    return isinstance(graph_kernel, dict) and "class_name" in graph_kernel


def count_kernels(graph_kernel):
    """How many kernels a fixed kernel holds: heads are a multiple of it."""
    if isinstance(graph_kernel, GraphMask):
        return graph_kernel.num_kernels
    return _count(_fixed(graph_kernel)[0])


def _count(shapes):
    (shape,) = (shape for key, shape in shapes.items() if key != "pairs")
    rank = 1 if "pairs" in shapes else 2
    return shape[0] if len(shape) > rank else 1


def _fixed(kernel):
    """Shapes and arrays of a fixed kernel, by the keys of its form.

    And the number of nodes, which pairs without a matrix do not tell.
    """
    if isinstance(kernel, dict) and "shapes" in kernel:
        shapes = {k: tuple(shape) for k, shape in kernel["shapes"].items()}
        return shapes, recall(kernel.get("digest")), kernel.get("num_nodes")
    num_nodes = None
    if not isinstance(kernel, dict) and hasattr(kernel, "tocoo"):
        num_nodes = kernel.shape[0]
        matrix = kernel.tocoo()
        # By rows, which keeps what is summed together.
        order = np.lexsort((matrix.col, matrix.row))
        kernel = {
            "pairs": np.stack([matrix.row, matrix.col], axis=1)[order],
            "pair_values": matrix.data[order],
        }
    elif not isinstance(kernel, dict):
        kernel = {"kernel": kernel}
    elif "num_nodes" in kernel:
        kernel = dict(kernel)
        num_nodes = kernel.pop("num_nodes")
    form = kernel_form(kernel)
    if form == "pairs" and np.min(kernel["pairs"], initial=0) < 0:
        raise ValueError(
            "`graph_kernel` expects pairs of node ids from 0. Received: "
            f"{np.min(kernel['pairs'])}"
        )
    arrays = {
        key: np.asarray(kernel[key], "int32" if key == "pairs" else "float32")
        for key in FORMS[form]
    }
    for key, array in arrays.items():
        if not np.isfinite(array).all() or math.prod(array.shape) == 0:
            raise ValueError(
                "`graph_kernel` expects finite numbers, at least one. "
                f"Received: {key} of shape {array.shape}"
            )
    if form != "pairs":
        num_nodes = arrays[form].shape[-2]
    shapes = {key: array.shape for key, array in arrays.items()}
    return shapes, remember(arrays), num_nodes
