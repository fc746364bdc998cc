"""`ResolventMask`: all paths through a grid, weighted by their steps."""

import itertools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.arguments import one_of
from keras_topo.masks.mask import Mask, refuse_periodic, require_axes
from keras_topo.masks.scales import INITIAL, Initial, initial_rates
from keras_topo.masks.topology import Topology
from keras_topo.operators import Dense, ExponentialDecay, grid_resolvent
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.unsized import grid_coordinates


@keras.saving.register_keras_serializable(package="keras_topo")
class ResolventMask(Mask):
    """The resolvent of the grid from each of its corners, added up.

    `M = sum over corners (I - A_corner)^-1`: an entry sums over all monotone
    paths between two tokens the products of the weights of their steps, see
    `keras_topo.operators.grid_resolvent`. A step along axis `k` weighs
    `sigmoid(c_k) / d` on a grid of `d` axes, with a weight `c` per head and
    axis. A causal sequence has the one corner that is its start: a decay.
    Weights are per step, whatever the size of the grid.

    Args:
        initial: `"decays"`, steps of `exp(-r)` at the rates of `TableMask`; or
            `"ones"`, paths that hardly lose weight.

    *Complexity*: linear in the tokens; on grids whose size a traced function
    does not know, the inverse of a matrix of `L x L`.

    Example:

    >>> mask, grid = ResolventMask(), keras_topo.masks.Grid((2, 2))
    >>> mask.build(num_heads=1, topology=grid)
    >>> print(np.array(mask.operator(grid).to_dense()[0]).round(2))
    [[4.   0.37 0.37 0.07]
     [0.37 4.   0.07 0.37]
     [0.37 0.07 4.   0.37]
     [0.07 0.37 0.37 4.  ]]
    """

    nonnegative = True

    def __init__(self, initial: Initial = "decays", **kwargs: Any):
        super().__init__(**kwargs)
        self.initial: Initial = one_of(initial, "initial", INITIAL)

    def build(self, num_heads: int, topology: Topology) -> None:
        weight = np.exp(-initial_rates(num_heads, topology, self.initial))
        logit = np.log(weight / (1 - weight)).astype("float32")
        logit = np.repeat(logit[:, None], len(topology.shape), axis=1)
        self.step_logits = self.add_weight(
            name="step_logits",
            shape=logit.shape,
            initializer=keras.initializers.Constant(logit),
        )

    def operator(self, topology: Topology) -> MaskOperator:
        require_axes(self, topology, self.step_logits.shape[-1])
        refuse_periodic(self, topology)
        axes = len(topology.shape)
        logits = ops.convert_to_tensor(self.step_logits)
        if topology.causal:
            # The product of equal steps is a decay, which carries state.
            rate = ops.softplus(-logits[:, 0])
            return ExponentialDecay(rate, topology.shape[0], causal=True)
        weights = ops.sigmoid(logits) / axes
        if topology.is_known:
            operator = grid_resolvent(topology.shape, weights)
        else:
            operator = _dense_resolvent(topology, weights)
        return topology.bordered(operator)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


def _dense_resolvent(topology, weights):
    """The same as a matrix, for sizes that are traced."""
    axes = len(topology.shape)
    length = topology.num_cells
    cells = ops.arange(length, dtype="int32")
    coordinates = grid_coordinates(cells, topology.shape)
    offsets = [c[:, None] - c[None, :] for c in coordinates]
    total = 0
    identity = ops.eye(length, dtype=weights.dtype)
    for ends in itertools.product((0, 1), repeat=axes):
        steps = 0
        for k, end in enumerate(ends):
            is_step = offsets[k] == (-1 if end else 1)
            for other in range(axes):
                if other != k:
                    is_step = ops.logical_and(is_step, offsets[other] == 0)
            steps = steps + (
                weights[:, k, None, None] * ops.cast(is_step, weights.dtype)
            )
        total = total + ops.linalg.inv(identity - steps)
    return Dense(total)
