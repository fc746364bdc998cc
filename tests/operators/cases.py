"""Every operator with its matrix, for the contract suites.

**A new operator joins with one `case`** in `operator_cases.py`, or in
`composite_cases.py` if it is made of others: how to build it from parameters,
the matrix that it should be, and the shapes of the parameters.
"""

import re

import composite_cases
import operator_cases
import pytest

CASES = [*operator_cases.CASES, *composite_cases.CASES]


def representatives():
    """Compilation takes seconds a case: of twins the one with a batch axis,
    of a size the general one."""
    names = {c.name for c in CASES}
    skipped = r"1x5|5x1|1x1x1|1x4|4x1|-1-batch|-1$|decay-(1|5|32)-|-0-"
    skipped += r"|separable.*(dense|fft)|separable1|decay-33|kronecker-mat"
    skipped += r"|broadcast|low_rank-batch|twice|bordered-fft|sum-grids"
    skipped += r"|scaled-low|block_toeplitz-7-|block_diagonal-low"
    skipped += r"|torus-5|torus-.*-dense|hypercube-3"
    # Of one class, what has the same code under a compiler.
    skipped += r"|caterpillar|causal-reverse-70|auto|symmetric-|1-token"
    skipped += r"|separable2-3|torus-2|diffusion-(adj|norm)|2x3x4-dense"
    return [
        c
        for c in CASES
        if c.name + "-batch2" not in names and not re.search(skipped, c.name)
    ]


def without_batch(cases):
    """The twins of cases that have no batch axis."""
    names = {c.name.removesuffix("-batch2") for c in cases}
    return [c for c in CASES if c.name in names]


def one_of_each_kind():
    """Of the representatives, the first of each class, method and direction,
    and products and sums of several kinds."""
    kinds = {}
    for case in representatives():
        if re.match("kronecker-(3|decays)|sum-decays", case.name):
            kinds[case.name] = case
            continue
        operator = case.operator()
        method, causal = (
            getattr(operator, name, None) for name in ("method", "causal")
        )
        kinds.setdefault((type(operator), method, causal), case)
    return list(kinds.values())


def parametrize(cases, every_time=None, on_jax=""):
    """Of cases that take long, those outside of `every_time` are slow ones, and
    on JAX those whose names do not start with `on_jax`, a regular expression.
    """
    names = {c.name for c in (cases if every_time is None else every_time)}
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(
                c,
                marks=[pytest.mark.slow] * (c.name not in names)
                + [pytest.mark.slow_on_jax] * (not re.match(on_jax, c.name)),
            )
            for c in cases
        ],
        ids=lambda c: c.name,
    )
