"""Where masks start: decays of several scales, from head to head."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np

from keras_topo.masks.topology import Sequence, Topology

# The extent along an axis that masks are made for when it is not known.
NOMINAL_EXTENT = 16
# The rate of decay that stands for none.
FLAT = 1e-3

Initial: TypeAlias = Literal["decays", "ones"]
INITIAL: tuple[Initial, ...] = ("decays", "ones")


def initial_rates(
    num_heads: int, topology: Topology, initial: Initial = "decays"
) -> np.ndarray:
    """Rates of decay per token, `(num_heads,)`.

    On grids 1, 1/2, 1/4 and so on, per cell; with more than eight heads
    equally spaced in the exponent down to 1/128. On sequences `2^(-8 h / H)`
    for head `h = 1..H`, the slopes of ALiBi (Press et al., 2022).

    Example:

    >>> print(initial_rates(4, keras_topo.masks.Grid((14, 14))))
    [1.    0.5   0.25  0.125]
    """
    heads = np.arange(num_heads)
    if initial == "ones":
        return np.full(num_heads, FLAT)
    if isinstance(topology, Sequence):
        return np.exp2(-8.0 * (heads + 1) / num_heads)
    return np.exp2(-heads * min(1.0, 7.0 / max(1, num_heads - 1)))


def units_at_build(topology: Topology) -> tuple[float, ...]:
    """The units of a topology when a mask is built, floats."""
    if isinstance(topology, Sequence):
        return (1.0,)
    return tuple(float(n or NOMINAL_EXTENT) for n in topology.shape)


def mean_unit(units: tuple[Any, ...]) -> Any:
    """The geometric mean of units, for what runs along all axes."""
    return math.prod(units) ** (1 / len(units))
