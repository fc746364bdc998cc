"""Forms of masked attention: what they cost, and which one is taken."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from keras_topo.annotations import FormName, Tensor
from keras_topo.operators.shapes import static_size

# How much slower an exact form may be than one whose products lose what is
# small beside what is large (`Plan.exact`): regions without strong activations
# have errors of 1e-4 to 1e-3 there. More would be a price that nobody asked to
# pay; `implementation="explicit"` is exact at any.
PREFERENCE_FOR_EXACT = 1.1

IMPLEMENTATIONS = ("auto", "explicit", "fast")


@dataclasses.dataclass(frozen=True)
class Problem:
    """The sizes of an attention; unknown ones are nominal."""

    batch: int
    heads: int
    length: int
    num_features: int
    value_dim: int

    @property
    def pairs(self) -> int:
        """Heads of all examples."""
        return self.batch * self.heads

    @staticmethod
    def of(query: Tensor, value: Tensor) -> "Problem":
        """That of queries `(batch, heads, L, m)` and values `(..., d)`."""
        # An empty batch is divided as one example is.
        batch, heads, length, num_features = (
            max(1, static_size((n,))) for n in query.shape
        )
        return Problem(batch, heads, length, num_features, value.shape[-1])


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to compute attention with an operator.

    Attributes:
        name: str.
        cost: float, in the unit of `keras_topo.operators.cost`.
        attend: from queries, keys and values to numerators and denominators.
        exact: bool, see `Plan`.
    """

    name: str
    cost: float
    attend: Callable
    exact: bool = True

    @property
    def weight(self) -> float:
        """The cost, an inexact form being taken for more expensive."""
        return self.cost * (1.0 if self.exact else PREFERENCE_FOR_EXACT)


def choose(forms: Sequence[Form], implementation: FormName = "auto") -> Form:
    """The form that `implementation` stands for.

    Args:
        forms: non-empty list of forms.
        implementation: `"auto"`, the cheapest; `"fast"`, the cheapest that is
            not `"explicit"`; or the name of a form.

    Raises:
        ValueError: if there is no such form.
    """
    if implementation == "auto":
        found = forms
    elif implementation == "fast":
        # Of composites too, whose forms name those of their parts.
        found = [form for form in forms if "explicit" not in form.name] or forms
    else:
        found = [form for form in forms if form.name == implementation]
    if not found:
        names = tuple(form.name for form in forms)
        raise ValueError(
            f"`implementation` expects one of {IMPLEMENTATIONS}, or a form of "
            f"this mask, {names}. Received: implementation={implementation!r}"
        )
    return min(found, key=lambda form: form.weight)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which form attention takes, and why; `str` is for readers.

    Attributes:
        operator: str, the operator.
        problem: the sizes.
        forms: all forms, cheapest first.
    """

    operator: str
    problem: Problem
    forms: tuple

    @property
    def form(self) -> str:
        """The name of the form that is taken."""
        return self.forms[0].name

    def __str__(self) -> str:
        sizes = dataclasses.asdict(self.problem)
        lines = [
            f"{self.operator}: {self.form}",
            "  for " + ", ".join(f"{k}={n:,}" for k, n in sizes.items()),
        ]
        least = self.forms[0].cost
        for form in self.forms:
            share = form.cost / least if least else math.inf
            line = f"  {form.name:<24} {share:8.2f} x the cost"
            if not form.exact:
                line += (
                    "; loses what is small beside what is large, so it must "
                    f"be {PREFERENCE_FOR_EXACT:g} times as cheap"
                )
            lines.append(line)
        return "\n".join(lines)
