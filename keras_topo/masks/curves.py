"""Curves through grids of any size, and `CurvesMask`: decays along them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.arguments import one_of
from keras_topo.masks.mask import (
    Mask,
    positive_weight,
    refuse_periodic,
    softplus,
)
from keras_topo.masks.scales import (
    INITIAL,
    Initial,
    initial_rates,
    mean_unit,
    units_at_build,
)
from keras_topo.masks.topology import Topology
from keras_topo.operators import (
    ExponentialDecay,
    Permuted,
    Scaled,
    Sum,
    curve_decay,
    curve_order,
)
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.curves import CURVES
from keras_topo.operators.unsized import grid_coordinates


@keras.saving.register_keras_serializable(package="keras_topo")
class CurvesMask(Mask):
    """The mean of decays along curves that visit every cell of the grid.

    `M = mean_k P_k^T E(r_k) P_k`, see `keras_topo.operators.curve_decay`.
    There is one rate per head and curve, the softplus of a weight, relative to
    the geometric mean of the extents of the grid.

    Args:
        curves: names of curves, see `keras_topo.operators.curve_order`.
        initial: `"decays"` or `"ones"`, see `TableMask`.

    Raises:
        ValueError: if a curve is not known; for causal sequences; or, on a
            grid whose size a traced function does not know, for other curves
            than `"rows"`, `"columns"`, and the diagonals of two axes.

    *Complexity*: linear in the tokens.

    Example:

    >>> mask = CurvesMask(curves=("rows", "columns", "hilbert"))
    >>> layer = keras_topo.layers.MaskedAttention(2, 4, mask=mask)
    >>> tuple(layer(np.random.rand(1, 6, 8, 16)).shape)  # 6 x 8 tokens
    (1, 6, 8, 16)
    """

    nonnegative = True

    def __init__(
        self,
        curves: Sequence[str] = ("rows", "columns"),
        initial: Initial = "decays",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(curves, str) or not curves:
            raise ValueError(
                "`curves` expects a non-empty list of names. Received: "
                f"curves={curves!r}"
            )
        self.curves = tuple(one_of(c, "curves", CURVES) for c in curves)
        self.initial: Initial = one_of(initial, "initial", INITIAL)

    def build(self, num_heads: int, topology: Topology) -> None:
        unit = mean_unit(units_at_build(topology))
        rates = initial_rates(num_heads, topology, self.initial) * unit
        self.rates = positive_weight(
            self, "rates", np.repeat(rates[:, None], len(self.curves), axis=1)
        )

    def operator(self, topology: Topology) -> MaskOperator:
        if topology.causal:
            raise ValueError(
                "CurvesMask expects tokens without an order, `causal=False`. "
                f"Received: {topology}"
            )
        refuse_periodic(self, topology)
        rates = softplus(self.rates) / mean_unit(topology.units)
        if topology.is_known:
            operator = curve_decay(topology.shape, rates, self.curves)
            return topology.bordered(operator)
        length = topology.num_cells
        terms = [
            Permuted(
                ExponentialDecay(rates[:, k], length),
                *traced_order(topology, curve),
            )
            for k, curve in enumerate(self.curves)
        ]
        return topology.bordered(Scaled(Sum(terms), 1 / len(terms)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "curves": self.curves,
            "initial": self.initial,
        }


def order_of(topology: Topology, curve: str) -> tuple[Tensor, Tensor]:
    """The order of the cells along a curve and its inverse, `(L,)`, int32."""
    if not topology.is_known:
        return traced_order(topology, curve)
    order = curve_order(topology.shape, curve)
    return order, np.argsort(order).astype("int32")


def traced_order(topology: Topology, curve: str) -> tuple[Tensor, Tensor]:
    """The same for sizes that are traced."""
    shape = topology.shape
    cells = ops.arange(math.prod(shape), dtype="int32")
    if curve == "rows":
        return _cells_at(cells, shape), _positions_of(cells, shape)
    if curve == "columns":
        turned = tuple(reversed(shape))
        order = _transposed(_cells_at(cells, turned), turned)
        return order, _positions_of(_transposed(cells, shape), turned)
    if curve.startswith("diagonal") and len(shape) == 2:
        row, column = grid_coordinates(cells, shape)
        if curve == "diagonal_transposed":
            row, column = column, row
        total = row + column
        # As on grids of known size: every second diagonal the other way.
        key = ops.where(total % 2 == 1, -row, row)
        order = ops.argsort(total * (2 * math.prod(shape)) + key)
        order = ops.cast(order, "int32")
        return order, ops.cast(ops.argsort(order), "int32")
    raise ValueError(
        "`curves` expects 'rows', 'columns', or the diagonals of two axes on a "
        "grid whose size is not known before the call. Received: "
        f"{curve!r} on {topology}"
    )


def _cells_at(positions, shape):
    """The cell at each position of the snake by rows, in row-major order."""
    if len(shape) == 1:
        return positions
    inner = math.prod(shape[1:])
    k, rest = positions // inner, positions % inner
    rest = ops.where(k % 2 == 1, inner - 1 - rest, rest)
    return k * inner + _cells_at(rest, shape[1:])


def _positions_of(cells, shape):
    """The position along the snake by rows of each cell."""
    if len(shape) == 1:
        return cells
    inner = math.prod(shape[1:])
    k = cells // inner
    rest = _positions_of(cells % inner, shape[1:])
    return k * inner + ops.where(k % 2 == 1, inner - 1 - rest, rest)


def _transposed(cells, shape):
    """Row-major numbers of cells on the grid with its axes reversed."""
    coordinates = grid_coordinates(cells, shape)
    number = 0
    for coordinate, n in zip(
        reversed(coordinates), reversed(shape), strict=True
    ):
        number = number * n + coordinate
    return number
