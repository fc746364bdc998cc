"""`DecayMask`, `GaussianMask` and `CausalMask`: functions of the distance."""

from typing import Any

import keras
from keras import ops

from keras_topo.arguments import one_of, positive
from keras_topo.masks.distance import decay_products
from keras_topo.masks.mask import (
    Mask,
    positive_weight,
    require_axes,
    softplus,
)
from keras_topo.masks.scales import (
    INITIAL,
    Initial,
    initial_rates,
    units_at_build,
)
from keras_topo.masks.topology import Nodes, Topology
from keras_topo.operators import Causal
from keras_topo.operators.base import MaskOperator


@keras.saving.register_keras_serializable(package="keras_topo")
class DecayMask(Mask):
    """Exponential decays with the distance, learned, of several scales.

    `M[i, j] = prod_k exp(-r_k |i_k - j_k|)`, with a rate per head and axis,
    the softplus of a weight. Rates are per token on a sequence, and relative
    to the extent on a grid. Heads start at different scales.

    Args:
        num_scales: int; with more than one, a mask is the weighted sum of
            that many decays, whose positive weights are learned and add up to
            one.
        initial: `"decays"` or `"ones"`, see `TableMask`.

    *Complexity*: linear in the tokens: attention in chunks on sequences, in
    tiles on grids. Causal sequences carry a state of constant size.

    Example:

    >>> mask, grid = DecayMask(), keras_topo.masks.Grid((2, 2))
    >>> mask.build(num_heads=1, topology=grid)
    >>> print(np.array(mask.operator(grid).to_dense()[0]).round(2))
    [[1.   0.37 0.37 0.14]
     [0.37 1.   0.14 0.37]
     [0.37 0.14 1.   0.37]
     [0.14 0.37 0.37 1.  ]]
    """

    nonnegative = True

    def __init__(
        self, num_scales: int = 1, initial: Initial = "decays", **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.num_scales = positive(num_scales, "num_scales")
        self.initial: Initial = one_of(initial, "initial", INITIAL)

    def build(self, num_heads: int, topology: Topology) -> None:
        rates = initial_rates(
            num_heads * self.num_scales, topology, self.initial
        )
        rates = rates.reshape(num_heads, self.num_scales)
        self.rates = [
            positive_weight(self, f"rate_{k}", rates * unit)
            for k, unit in enumerate(units_at_build(topology))
        ]
        self.scale_logits = None
        if self.num_scales > 1:
            self.scale_logits = self.add_weight(
                name="scale_logits", shape=rates.shape, initializer="zeros"
            )

    def operator(self, topology: Topology) -> MaskOperator:
        require_axes(self, topology, len(self.rates))
        rates = [
            softplus(rate) / unit
            for rate, unit in zip(self.rates, topology.units, strict=True)
        ]
        scale = None
        if self.scale_logits is not None:
            scale = ops.softmax(ops.convert_to_tensor(self.scale_logits), -1)
        return decay_products(topology, rates, scale)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_scales": self.num_scales,
            "initial": self.initial,
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class GaussianMask(Mask):
    """`exp(-d^2 / (2 w^2))` of the Euclidean distance, a width per head.

    The width `w` is the softplus of a weight, in tokens on a sequence and
    relative to the extent of each axis on a grid.

    Args:
        initial: `"decays"`, widths of one token, two, four and so on, from
            head to head; or `"ones"`, so wide that entries are almost one.

    *Complexity*: as a separable `BlockToeplitz`: `L (n_1 + ... + n_d)` per
    column.

    Example:

    >>> mask, grid = GaussianMask(), keras_topo.masks.Grid((1, 4))
    >>> mask.build(num_heads=2, topology=grid)
    >>> print(np.array(mask.operator(grid).to_dense()[:, 0]).round(2))
    [[1.   0.61 0.14 0.01]
     [1.   0.88 0.61 0.32]]
    """

    nonnegative = True

    def __init__(self, initial: Initial = "decays", **kwargs: Any):
        super().__init__(**kwargs)
        self.initial: Initial = one_of(initial, "initial", INITIAL)

    def build(self, num_heads: int, topology: Topology) -> None:
        widths = 1.0 / initial_rates(num_heads, topology, self.initial)
        self.widths = [
            positive_weight(self, f"width_{k}", widths / unit)
            for k, unit in enumerate(units_at_build(topology))
        ]

    def operator(self, topology: Topology) -> MaskOperator:
        require_axes(self, topology, len(self.widths))
        factors = []
        for width, unit, offset in zip(
            self.widths, topology.units, topology.offsets(), strict=True
        ):
            width = ops.maximum(softplus(width)[:, None], 1e-6)
            distance = ops.reshape(offset, (1, -1)) / unit
            factors.append(ops.exp(-0.5 * (distance / width) ** 2))
        return topology.toeplitz([factors])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable(package="keras_topo")
class CausalMask(Mask):
    """Ones for the tokens so far, in their order, and zeros for later ones.

    The mask of autoregression; it has no weights. Times another mask it makes
    that one causal. It is meant for sequences; on a grid the order is
    row-major.

    Raises:
        ValueError: for the nodes of a graph, which have no order.

    Example:

    >>> mask = CausalMask() * DecayMask()
    >>> layer = keras_topo.layers.MaskedAttention(2, 4, mask=mask)
    >>> x, y = np.random.rand(2, 1, 5, 16)
    >>> y[:, :3] = x[:, :3]  # later tokens differ
    >>> print(np.allclose(layer(x)[:, :3], layer(y)[:, :3], atol=1e-5))
    True
    """

    nonnegative = True
    is_causal = True

    def operator(self, topology: Topology) -> MaskOperator:
        if isinstance(topology, Nodes):
            raise ValueError(
                "CausalMask expects tokens in an order, a Sequence or a Grid. "
                f"Received: {topology}"
            )
        length = topology.num_cells
        return topology.bordered(Causal(length))
