"""`TableMask`: an entry of its own for each offset."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.arguments import one_of
from keras_topo.masks.mask import Mask, magnitudes, require_axes
from keras_topo.masks.resampling import clamp_offsets, resample_offsets
from keras_topo.masks.scales import INITIAL, Initial, initial_rates
from keras_topo.masks.topology import Sequence, Topology
from keras_topo.operators.base import MaskOperator


@keras.saving.register_keras_serializable(package="keras_topo")
class TableMask(Mask):
    """A free number for each offset of two tokens: the mask of TopViT.

    `M[i, j] = |table[i - j]|`, per head (Choromanski et al., 2022); on a
    sequence this is linear attention with relative positions (Luo et al.,
    2021). On a grid of another size than the table was made for, it is
    resampled, linearly and relative to the extent; on a longer sequence the
    entries at its ends go on.

    Args:
        reach: int, or one int per axis, the size of the grid or the length of
            the sequence that the table is made for; defaults to those that the
            mask is built for.
        initial: `"decays"`, `exp(-r d)` of the L1 distance `d` in tokens at a
            rate per head (see `keras_topo.masks.initial_rates`), or `"ones"`,
            the published start.
        share_heads: bool, one table for all heads.

    Raises:
        ValueError: if sizes are not known when it is built and `reach` is not
            given, or `reach` does not fit the number of axes.

    *Complexity*: that of `BlockToeplitz`: `O(L log L)` per column of a
    product, or explicit attention where that is cheaper.

    Example:

    >>> mask, grid = TableMask(), keras_topo.masks.Grid((14, 28))
    >>> mask.build(num_heads=8, topology=grid)
    >>> mask.operator(grid).shape
    (8, 392, 392)
    >>> mask.operator(keras_topo.masks.Grid((7, 7))).shape  # resampled
    (8, 49, 49)
    """

    nonnegative = True
    needs_reach = True

    def __init__(
        self,
        reach: int | tuple[int, ...] | list[int] | None = None,
        initial: Initial = "decays",
        share_heads: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.reach: Any = check_reach(reach)
        self.initial: Initial = one_of(initial, "initial", INITIAL)
        self.share_heads = bool(share_heads)

    def build(self, num_heads: int, topology: Topology) -> None:
        self.reach = reach_for(self, topology)
        heads = 1 if self.share_heads else num_heads
        start = offsets_at_build(topology, self.reach)
        distance = np.asarray(sum(abs(offset) for offset in start))
        table = np.ones((heads, *distance.shape))
        if self.initial == "decays":
            rates = initial_rates(heads, topology)
            rates = rates.reshape(-1, *[1] * distance.ndim)
            table = np.exp(-rates * distance)
        self.table = self.add_weight(
            name="table",
            shape=table.shape,
            initializer=keras.initializers.Constant(table.astype("float32")),
        )

    def operator(self, topology: Topology) -> MaskOperator:
        require_axes(self, topology, len(self.reach))
        table = magnitudes(ops.convert_to_tensor(self.table))
        if isinstance(topology, Sequence):
            # The entries of a causal table are those of the offsets from 0.
            table = clamp_offsets(
                table, self.reach[0], topology.length, topology.causal
            )
        else:
            table = resample_offsets(
                table, self.reach, topology.shape, topology.periodic
            )
        return topology.toeplitz(table)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "reach": self.reach,
            "initial": self.initial,
            "share_heads": self.share_heads,
        }


def check_reach(reach: Any) -> tuple[int, ...] | None:
    """`reach` as a tuple of ints, or `None`."""
    if reach is None:
        return None
    sizes = (reach,) if isinstance(reach, (int, np.integer)) else reach
    if not isinstance(sizes, (tuple, list)) or not all(
        isinstance(n, (int, np.integer)) and n >= 1 for n in sizes
    ):
        raise ValueError(
            "`reach` expects a positive int, or one per axis. Received: "
            f"reach={reach!r}"
        )
    return tuple(int(n) for n in sizes)


def reach_for(mask: Any, topology: Topology) -> Any:
    """The sizes that a mask is made for, one per axis."""
    shape = topology.shape
    if mask.reach is None:
        if None in shape and mask.needs_reach:
            raise ValueError(
                f"{type(mask).__name__} expects `reach`, the size of the grid "
                "or the length of the sequence that it is made for, where the "
                "inputs are of any size. Received: reach=None and tokens of "
                f"shape {shape}"
            )
        return None if None in shape else tuple(shape)
    if len(mask.reach) == 1 and len(shape) > 1:
        return mask.reach * len(shape)
    if len(mask.reach) != len(shape):
        raise ValueError(
            f"`reach` expects one size for each of {len(shape)} axes. "
            f"Received: reach={mask.reach} for tokens of shape {shape}"
        )
    return mask.reach


def offsets_at_build(
    topology: Topology, reach: tuple[int, ...]
) -> list[np.ndarray]:
    """Offsets of a table, in tokens, as arrays that broadcast."""
    if isinstance(topology, Sequence):
        (n,) = reach
        first = 0 if topology.causal else 1 - n
        return [np.arange(first, n, dtype="float64")]
    offsets = []
    for n, wraps in zip(reach, topology.periodic, strict=True):
        if wraps:
            around = np.arange(n)
            offsets.append(np.minimum(around, n - around).astype("float64"))
        else:
            offsets.append(np.arange(1 - n, n, dtype="float64"))
    return list(np.meshgrid(*offsets, indexing="ij", sparse=True))
