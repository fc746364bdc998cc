"""Sums and products of masks."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_topo.masks.mask import Mask, operator_for
from keras_topo.masks.registry import MaskLike, get
from keras_topo.masks.topology import Topology
from keras_topo.operators import Sum
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.hadamard import hadamard


class _Combination(Mask):
    """A mask made of masks.

    Args:
        masks: non-empty list of masks or names of masks; each is copied.
    """

    def __init__(self, masks: Sequence[MaskLike], **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(masks, (list, tuple)) or not masks:
            raise ValueError(
                "`masks` expects a non-empty list of masks. Received: "
                f"masks={masks!r}"
            )
        found = [get(mask) for mask in masks]
        self.masks = [mask for mask in found if mask is not None]
        if len(self.masks) < len(found):
            raise ValueError(
                "`masks` expects masks or their names. Received: "
                f"masks={masks!r}"
            )
        for k, mask in enumerate(self.masks):
            # Paths of weights tell them apart.
            mask.name = f"mask_{k + 1}"

    @property
    def nonnegative(self) -> bool:
        return all(mask.nonnegative for mask in self.masks)

    def set_reach(self, sizes: Iterable[int]) -> None:
        for mask in self.masks:
            mask.set_reach(sizes)

    @property
    def needs_reach(self) -> bool:
        return any(mask.needs_reach for mask in self.masks)

    @property
    def lacks_reach(self) -> bool:
        return any(mask.lacks_reach for mask in self.masks)

    @property
    def uses_inputs(self) -> bool:
        return any(mask.uses_inputs for mask in self.masks)

    def build(self, num_heads: int, topology: Topology) -> None:
        for mask in self.masks:
            if self.dtype_policy.name == "float64":
                mask.dtype_policy = self.dtype_policy
            if not mask.built:
                mask.build(num_heads, topology.cells)

    def _operators(self, topology: Topology) -> list[MaskOperator]:
        return [operator_for(mask, topology.cells) for mask in self.masks]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "masks": [
                keras.saving.serialize_keras_object(mask) for mask in self.masks
            ],
        }


@keras.saving.register_keras_serializable(package="keras_topo")
class SumMask(_Combination):
    """The sum of masks, also written `a + b`: lets through what any of them
    lets through.

    Args:
        masks: non-empty list of masks or names of masks.

    *Complexity*: that of the terms, one after the other. It carries state
    where all of them do.

    Example:

    >>> from keras_topo.masks import CausalMask, DecayMask, Sequence
    >>> mask, tokens = CausalMask() + DecayMask(), Sequence(3)
    >>> mask.build(num_heads=1, topology=tokens)
    >>> print(np.array(mask.operator(tokens).to_dense()[0]).round(2))
    [[2.   1.   0.99]
     [2.   2.   1.  ]
     [1.99 2.   2.  ]]
    """

    @property
    def is_causal(self) -> bool:
        return all(mask.is_causal for mask in self.masks)

    def operator(self, topology: Topology) -> MaskOperator:
        return topology.bordered(Sum(self._operators(topology)))


@keras.saving.register_keras_serializable(package="keras_topo")
class ProductMask(_Combination):
    """The elementwise product of masks, also written `a * b`: lets through
    what all of them let through.

    Args:
        masks: non-empty list of masks or names of masks.

    *Complexity*: decays of one sequence are one decay, whose rates add, and
    a sum of decays times a decay is a sum of decays; otherwise attention is
    explicit, on products of rows.

    Example:

    >>> from keras_topo.masks import CausalMask, DecayMask, Sequence
    >>> mask, tokens = CausalMask() * DecayMask(), Sequence(3)
    >>> mask.build(num_heads=1, topology=tokens)
    >>> print(np.array(mask.operator(tokens).to_dense()[0]).round(2))
    [[1.   0.   0.  ]
     [1.   1.   0.  ]
     [0.99 1.   1.  ]]
    """

    @property
    def is_causal(self) -> bool:
        return any(mask.is_causal for mask in self.masks)

    def operator(self, topology: Topology) -> MaskOperator:
        first, *others = self._operators(topology)
        for operator in others:
            first = hadamard(first, operator)
        return topology.bordered(first)


# What `a + b` and `a * b` make: their module imports that of their base.
Mask._sum_of, Mask._product_of = SumMask, ProductMask
