"""`GatedMask`: decays whose rates the tokens set themselves."""

from typing import Any

import keras
from keras import ops

from keras_topo.arguments import one_of
from keras_topo.masks.curves import order_of
from keras_topo.masks.mask import Mask, inverse_softplus, refuse_periodic
from keras_topo.masks.scales import (
    INITIAL,
    Initial,
    initial_rates,
    mean_unit,
    units_at_build,
)
from keras_topo.masks.topology import Topology
from keras_topo.operators import GatedDecay, Permuted, Scaled, Sum
from keras_topo.operators.base import MaskOperator


@keras.saving.register_keras_serializable(package="keras_topo")
class GatedMask(Mask):
    """Decays at rates from the data: `exp(-|c_i - c_j|)`, `c` the cumulative
    sum of a rate per token.

    `r = softplus(x W + b)` per head, with `W` zero at the start, so that the
    mask starts as decays. A token with a large rate hides what came before it;
    one with a rate of zero lets everything pass. On a sequence this is the
    gate of gated linear attention and of state space models with a scalar
    transition. On a grid it is the mean over the snakes by rows and by
    columns, each with gates of its own.

    Args:
        initial: `"decays"` or `"ones"`, see `TableMask`.

    Raises:
        ValueError: if the topology of a call has no `inputs`, or they have
            another number of channels than the mask was built for.

    *Complexity*: linear in the tokens. Causal sequences carry a state of
    constant size.

    Example:

    >>> layer = keras_topo.layers.MaskedAttention(2, 4, mask=GatedMask())
    >>> tuple(layer(np.random.rand(1, 6, 16)).shape)
    (1, 6, 16)
    """

    nonnegative = True
    uses_inputs = True

    def __init__(self, initial: Initial = "decays", **kwargs: Any):
        super().__init__(**kwargs)
        self.initial: Initial = one_of(initial, "initial", INITIAL)

    def build(self, num_heads: int, topology: Topology) -> None:
        channels = _inputs(topology).shape[-1]
        unit = mean_unit(units_at_build(topology))
        rates = initial_rates(num_heads, topology, self.initial) * unit
        self.num_curves = min(2, len(topology.shape))
        bias = inverse_softplus(rates).repeat(self.num_curves)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(channels, num_heads * self.num_curves),
            initializer="zeros",
        )
        self.bias = self.add_weight(
            name="bias",
            shape=bias.shape,
            initializer=keras.initializers.Constant(bias),
        )

    def operator(self, topology: Topology) -> MaskOperator:
        refuse_periodic(self, topology)
        rates = self._rates(topology) / mean_unit(topology.units)
        if self.num_curves == 1:
            return topology.bordered(
                GatedDecay(rates[:, :, 0], topology.causal)
            )
        terms = []
        for k, curve in enumerate(("rows", "columns")):
            order, inverse = order_of(topology, curve)
            along = ops.take(rates[:, :, k], order, axis=-1)
            terms.append(Permuted(GatedDecay(along), order, inverse))
        return topology.bordered(Scaled(Sum(terms), 1 / len(terms)))

    def _rates(self, topology):
        """`(batch, heads, curves, L)`."""
        kernel = ops.convert_to_tensor(self.kernel)
        inputs = ops.cast(_inputs(topology), kernel.dtype)
        shape = tuple(ops.shape(inputs))
        rates = ops.softplus(ops.matmul(inputs, kernel) + self.bias)
        rates = ops.reshape(rates, (shape[0], -1, kernel.shape[-1]))
        rates = ops.swapaxes(rates, -1, -2)
        if topology.padding_mask is not None:
            # Padded tokens let everything pass.
            visible = topology.padding_mask[:, None, :]
            rates = ops.where(visible, rates, ops.zeros_like(rates))
        heads = kernel.shape[-1] // self.num_curves
        length = topology.num_cells
        return ops.reshape(rates, (shape[0], heads, self.num_curves, length))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


def _inputs(topology):
    """The tokens that set the rates."""
    if topology.inputs is None:
        raise ValueError(
            "GatedMask expects a topology with `inputs`, the tokens that set "
            f"the rates. Received: {topology}"
        )
    return topology.inputs
