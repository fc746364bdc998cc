"""`DistanceMask` and `SeparableMask`: few numbers, or one table per axis."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.arguments import one_of, positive
from keras_topo.masks.mask import (
    Mask,
    magnitudes,
    positive_weight,
    require_axes,
    softplus,
)
from keras_topo.masks.resampling import clamp_offsets, resample_offsets
from keras_topo.masks.scales import (
    INITIAL,
    NOMINAL_EXTENT,
    Initial,
    initial_rates,
)
from keras_topo.masks.table import check_reach, offsets_at_build, reach_for
from keras_topo.masks.topology import Sequence, Topology
from keras_topo.operators import ExponentialDecay, Kronecker, Scaled, Sum
from keras_topo.operators.base import MaskOperator

# The logarithm of the range of a mask: beyond it, float32 sums of its entries
# would lose the smaller ones altogether.
MAX_EXPONENT = 30.0


@keras.saving.register_keras_serializable(package="keras_topo")
class DistanceMask(Mask):
    """`exp(a_0 + a_1 x + a_2 x^2)` of the distance, two or three numbers per
    head.

    `x` is the L1 distance of two tokens, divided by the longest one on the
    grid. On a sequence it is divided by the `reach`, so that it means the same
    at any length. The exponent is clipped to `[-30, 30]`.

    Args:
        degree: 1 or 2; of degree 1 the mask is a product over the axes.
        reach: as in `TableMask`; 16 tokens per axis where sizes are not known.
        initial: `"decays"` or `"ones"`, see `TableMask`.
        share_heads: bool, one mask for all heads.

    Raises:
        ValueError: as `TableMask`, except that no `reach` is needed.

    Example:

    >>> mask, grid = DistanceMask(), keras_topo.masks.Grid((1, 4))
    >>> mask.build(num_heads=2, topology=grid)
    >>> print(np.array(mask.operator(grid).to_dense()[:, 0]).round(2))
    [[1.   0.37 0.14 0.05]
     [1.   0.61 0.37 0.22]]
    """

    nonnegative = True

    def __init__(
        self,
        degree: Literal[1, 2] = 2,
        reach: int | tuple[int, ...] | list[int] | None = None,
        initial: Initial = "decays",
        share_heads: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.degree = one_of(degree, "degree", (1, 2))
        self.reach: Any = check_reach(reach)
        self.initial: Initial = one_of(initial, "initial", INITIAL)
        self.share_heads = bool(share_heads)

    def build(self, num_heads: int, topology: Topology) -> None:
        self.reach = reach_for(self, topology) or _nominal(topology)
        heads = 1 if self.share_heads else num_heads
        coefficients = np.zeros((heads, self.degree + 1), "float32")
        if self.initial == "decays":
            longest = max(1, sum(n - 1 for n in self.reach))
            coefficients[:, 1] = -initial_rates(heads, topology) * longest
        self.coefficients = self.add_weight(
            name="coefficients",
            shape=coefficients.shape,
            initializer=keras.initializers.Constant(coefficients),
        )

    def operator(self, topology: Topology) -> MaskOperator:
        coefficients = ops.convert_to_tensor(self.coefficients)
        if isinstance(topology, Sequence):
            longest = float(max(1, self.reach[0] - 1))
        else:
            longest = _longest(topology)
        offsets = [ops.abs(offset) / longest for offset in topology.offsets()]
        if self.degree == 1:
            return topology.toeplitz([self._factors(coefficients, offsets)])
        x = sum(offsets)
        rank = len(offsets)
        parts = [
            ops.reshape(coefficients[:, p], (-1, *[1] * rank)) * x**p
            for p in range(3)
        ]
        return topology.toeplitz(ops.exp(_bounded(sum(parts))))

    def _factors(self, coefficients, offsets):
        """One table per axis. An axis is clipped to its share of the range
        that `a_0` leaves: the exponent as a whole is within the bounds, and as
        it was written where all of it is."""
        constant = _bounded(coefficients[:, :1])
        terms = []
        for k, offset in enumerate(offsets):
            offset = ops.reshape(offset, (-1,))
            share = ops.minimum(ops.max(offset), 1.0)
            exponent = ops.clip(
                coefficients[:, 1:] * offset,
                share * (-MAX_EXPONENT - constant),
                share * (MAX_EXPONENT - constant),
            )
            terms.append(ops.exp(exponent + constant if k == 0 else exponent))
        return terms

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "degree": self.degree,
            "reach": self.reach,
            "initial": self.initial,
            "share_heads": self.share_heads,
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class SeparableMask(Mask):
    """A sum of terms, each the product of one factor per axis.

    Args:
        rank: int, number of terms.
        terms: `"table"`, factors that are absolute values of tables of
            offsets, or `"decay"`, `exp(-softplus(c) |offset| / n)`, weighted
            by the absolute value of a number per term.
        reach: as in `TableMask`, needed by tables alone.
        initial: `"decays"` or `"ones"`, see `TableMask`. Decays of several
            terms start at rates of their own.
        share_heads: bool, one mask for all heads.

    Raises:
        ValueError: as `TableMask`.

    *Complexity*: of tables, `L (n_1 + ... + n_d)` per column and term; of
    decays, attention in tiles in linear time.

    Example:

    >>> mask, grid = SeparableMask(rank=2), keras_topo.masks.Grid((4, 6))
    >>> mask.build(num_heads=8, topology=grid)
    >>> mask.operator(grid).shape
    (8, 24, 24)
    """

    nonnegative = True

    def __init__(
        self,
        rank: int = 1,
        terms: Literal["table", "decay"] = "table",
        reach: int | tuple[int, ...] | list[int] | None = None,
        initial: Initial = "decays",
        share_heads: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.rank = positive(rank, "rank")
        self.terms = one_of(terms, "terms", ("table", "decay"))
        self.reach: Any = check_reach(reach)
        self.initial: Initial = one_of(initial, "initial", INITIAL)
        self.share_heads = bool(share_heads)

    @property
    def needs_reach(self) -> bool:
        return self.terms == "table"

    def build(self, num_heads: int, topology: Topology) -> None:
        heads = 1 if self.share_heads else num_heads
        self.reach = reach_for(self, topology)
        rates = initial_rates(heads * self.rank, topology, self.initial)
        # From term to term, then from head to head.
        rates = rates.reshape(heads, self.rank)
        if self.terms == "table":
            self.tables = self._add_tables(rates, topology)
            return
        self.reach = self.reach or _nominal(topology)
        self.rates = [
            positive_weight(self, f"rate_{k}", rates * n)
            for k, n in enumerate(self.reach)
        ]
        self.scale = self.add_weight(
            name="scale", shape=rates.shape, initializer="ones"
        )

    def _add_tables(self, rates, topology):
        weights = []
        for k, offset in enumerate(offsets_at_build(topology, self.reach)):
            offset = np.abs(offset).reshape(-1)
            table = np.exp(-rates[..., None] * offset)
            if self.initial == "ones":
                table = np.ones_like(table)
            if self.rank > 1:
                # Equal terms would stay equal.
                noise = np.random.default_rng(k).uniform(0.9, 1.1, table.shape)
                table = table * noise
            weights.append(
                self.add_weight(
                    name=f"table_{k}",
                    shape=table.shape,
                    initializer=keras.initializers.Constant(
                        table.astype("float32")
                    ),
                )
            )
        return weights

    def operator(self, topology: Topology) -> MaskOperator:
        require_axes(self, topology, len(self.reach))
        if self.terms == "table":
            tables = [
                self._table_of(topology, k) for k in range(len(self.reach))
            ]
            return topology.toeplitz(
                [[table[:, r] for table in tables] for r in range(self.rank)]
            )
        sizes = topology.extents
        if isinstance(topology, Sequence):
            sizes = tuple(float(n) for n in self.reach)
        rates = [
            softplus(rate) / n
            for rate, n in zip(self.rates, sizes, strict=True)
        ]
        scale = magnitudes(ops.convert_to_tensor(self.scale))
        return decay_products(topology, rates, scale)

    def _table_of(self, topology, k):
        table = magnitudes(ops.convert_to_tensor(self.tables[k]))
        if isinstance(topology, Sequence):
            return clamp_offsets(
                table, self.reach[0], topology.length, topology.causal
            )
        return resample_offsets(
            table,
            self.reach[k : k + 1],
            topology.shape[k : k + 1],
            topology.periodic[k : k + 1],
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rank": self.rank,
            "terms": self.terms,
            "reach": self.reach,
            "initial": self.initial,
            "share_heads": self.share_heads,
        }


def decay_products(
    topology: Topology, rates: list[Tensor], scale: Tensor | None = None
) -> MaskOperator:
    """`sum_r scale_r prod_k exp(-rate_kr |o_k|)`, as fast as may be.

    Decays stay decays along each axis, for the attention in tiles; on a
    sequence, for the attention in chunks, of a length that need not be known.

    Args:
        topology: `Sequence` or `Grid`.
        rates: one tensor `(heads, rank)` per axis, per token.
        scale: `(heads, rank)`, or `None` for ones.
    """
    rank = rates[0].shape[-1]
    if len(topology.shape) == 1 and not any(topology.periodic):
        (rate,), (length,) = rates, topology.shape
        terms = [
            ExponentialDecay(rate[:, r], length, topology.causal)
            for r in range(rank)
        ]
    elif topology.is_known and not any(topology.periodic):
        terms = [
            Kronecker(
                [
                    ExponentialDecay(rate[:, r], n)
                    for rate, n in zip(rates, topology.shape, strict=True)
                ]
            )
            for r in range(rank)
        ]
    else:
        # On rings a decay goes the shorter way round.
        distances = [
            ops.abs(ops.reshape(offset, (1, -1)))
            for offset in topology.offsets()
        ]
        factors = [
            [
                ops.exp(-rate[:, r, None] * distance)
                for rate, distance in zip(rates, distances, strict=True)
            ]
            for r in range(rank)
        ]
        if scale is not None:
            for r, term in enumerate(factors):
                term[0] = term[0] * scale[:, r, None]
        return topology.toeplitz(factors)
    if scale is not None:
        terms = [Scaled(term, scale[:, r]) for r, term in enumerate(terms)]
    operator = terms[0] if len(terms) == 1 else Sum(terms)
    return topology.bordered(operator)


def _longest(topology):
    """The longest L1 distance on a grid, at least 1; rings are as long as
    grids."""
    total = sum(n - 1 for n in topology.shape)
    if topology.is_known:
        return float(max(1, total))
    return ops.maximum(1.0, ops.cast(total, topology.dtype))


def _nominal(topology):
    return tuple(n or NOMINAL_EXTENT for n in topology.shape)


def _bounded(exponent):
    return ops.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT)
