"""`Plan`: what attention knows of an operator when it divides its work."""

import dataclasses
from collections.abc import Sequence

from keras_topo.annotations import Size


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an operator likes its work divided.

    Composites take the plans of their parts and change what differs.

    Attributes:
        layouts: values of `A` that `_apply` handles, best first: see
            `MaskOperator` on layouts.
        held_per_column: numbers that a product holds at a time for each of its
            columns; `None` where a traced function does not know it.
        fewest_columns: columns below which a product takes hardly less time.
        row_step: blocks of rows are cheapest where they start at multiples of
            this and are multiples of it long.
        rows_cost: work of all rows, beyond that of writing them.
        exact: whether a product keeps what is small beside what is large. An
            FFT does not: its errors are relative to the largest entry of a
            column.
    """

    layouts: tuple = (1,)
    held_per_column: Size = None
    fewest_columns: int = 1
    row_step: int = 1
    rows_cost: float = 0.0
    exact: bool = True

    @staticmethod
    def joint(plans: Sequence["Plan"]) -> "Plan":
        """The plan of operators that are applied one after another."""
        # A layout that all share, so that x is laid out once.
        first, *others = plans
        shared = [
            split
            for split in first.layouts
            if all(split in plan.layouts for plan in others)
        ]
        held = [plan.held_per_column for plan in plans]
        return Plan(
            layouts=tuple(shared) or (1,),
            held_per_column=None if None in held else max(held),
            fewest_columns=max(plan.fewest_columns for plan in plans),
            row_step=max(plan.row_step for plan in plans),
            rows_cost=sum(plan.rows_cost for plan in plans),
            exact=all(plan.exact for plan in plans),
        )
