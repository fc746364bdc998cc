"""`KernelMixture`: kernels that heads learn, as sums of given ones."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Shape, Tensor, TensorLike
from keras_topo.arguments import positive
from keras_topo.layers.edges import at_sources, sum_at_sources
from keras_topo.layers.graph_inputs import kernel_shape_per_head
from keras_topo.layers.padding import check_padding

# Where weights start: of the kernel that a head would have without, and of
# the others.
OWN, OTHERS = 1.0, 0.1


@keras.saving.register_keras_serializable(package="keras_topo")
class KernelMixture(keras.layers.Layer):
    """Learned kernels, one per head: sums of given kernels with weights >= 0.

        M_h = sum_k softplus(w_hk) D_k^-1 M_k,    D_k = diag(M_k 1)

    Rows of each given kernel are divided by their sums, so that weights are
    shares of what the kernels let through; a row of zeros stays zero. From
    powers of the matrix `P = D^-1 A` (`"steps"` of `GraphPreprocessor`) a head
    learns a polynomial with coefficients that are not negative, `sum_l f_l
    P^l`: the modulation function of graph random features (Reid et al., 2024),
    with diffusion and PageRank as special cases. From diffusions at several
    times it learns a time, and from kernels with `"ones"` among them, how
    global or local its attention is. Heads start near one of the kernels each,
    in turn.

    Args:
        num_heads: int, kernels of the result.

    Call arguments:
        kernel: dict with `kernel`, `(batch, kernels, nodes, nodes)`; or with
            `pairs` `(batch, pairs, 2)` and `pair_values` `(batch, kernels,
            pairs)`. Entries are not negative.
        nodes: `(batch, nodes, channels)`, for the number of nodes of pairs.
        mask: `(batch, nodes)`, `True` for real nodes; padded ones are seen by
            none. Not for pairs, whose padding has values of 0.

    Returns:
        The dict with `num_heads` kernels, float32.

    *Complexity*: `O(heads kernels nodes^2)`, or with `pairs` in place of
    `nodes^2`.

    Example:

    >>> mixture = KernelMixture(4)({"kernel": np.ones((2, 3, 5, 5))})
    >>> tuple(mixture["kernel"].shape)
    (2, 4, 5, 5)
    """

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.num_heads = positive(num_heads, "num_heads")

    # Keras passes these shapes on to `compute_output_shape`, by name.
    def build(
        self, kernel_shape: Any, nodes_shape: Shape | None = None
    ) -> None:
        del nodes_shape
        kernels = _values_of(kernel_shape)[1]
        initial = np.full((self.num_heads, kernels), OTHERS, "float32")
        own = np.arange(self.num_heads) * kernels // self.num_heads
        initial[np.arange(self.num_heads), own] = OWN
        self.mixture = self.add_weight(
            name="mixture",
            shape=initial.shape,
            initializer=keras.initializers.Constant(
                np.log(np.expm1(initial)).tolist()
            ),
            dtype="float32",
            autocast=False,
        )

    def weights_of_kernels(self) -> Tensor:
        """`(heads, kernels)`, float32, positive."""
        return ops.softplus(ops.convert_to_tensor(self.mixture))

    def call(
        self,
        kernel: dict[str, Tensor],
        nodes: Tensor | None = None,
        mask: TensorLike | None = None,
    ) -> dict[str, Tensor]:
        weights = self.weights_of_kernels()
        if "pairs" in kernel:
            values = ops.swapaxes(
                ops.cast(kernel["pair_values"], "float32"), 1, 2
            )
            pairs = ops.cast(kernel["pairs"], "int32")
            rows = tuple(ops.shape(nodes))[1]
            totals = sum_at_sources(values, pairs, rows)
            totals = ops.where(totals > 0, totals, ops.ones_like(totals))
            shares = values / at_sources(totals, pairs)
            mixed = ops.matmul(shares, ops.transpose(weights))
            return {**kernel, "pair_values": ops.swapaxes(mixed, 1, 2)}
        values = ops.cast(kernel["kernel"], "float32")
        mask = check_padding(
            None if isinstance(mask, dict) else mask,
            (values.shape[0], *values.shape[-2:]),
            self,
        )
        if mask is not None:
            visible = mask[:, None, None, :]
            values = ops.where(visible, values, ops.zeros_like(values))
        totals = ops.sum(values, axis=-1, keepdims=True)
        totals = ops.where(totals > 0, totals, ops.ones_like(totals))
        batch, kernels, rows, columns = tuple(ops.shape(values))
        # As an einsum of `bkij` and `hk`, it takes four times as long.
        shares = ops.reshape(values / totals, (batch, kernels, rows * columns))
        mixed = ops.matmul(weights, shares)
        mixed = ops.reshape(mixed, (batch, self.num_heads, rows, columns))
        return {**kernel, "kernel": mixed}

    def compute_output_shape(
        self, kernel_shape: Any, nodes_shape: Shape | None = None
    ) -> Any:
        del nodes_shape
        return kernel_shape_per_head(kernel_shape, self.num_heads)

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        return None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads}


def _values_of(kernel):
    """`kernel` or `pair_values` of a dict."""
    (key,) = set(kernel) - {"pairs"}
    return kernel[key]
