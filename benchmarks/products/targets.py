"""Target figures of the products of masks, and the measured ones."""

import dataclasses
from collections.abc import Callable

from benchmarks.harness import format_table
from benchmarks.products.report import by_row, slope


@dataclasses.dataclass(frozen=True)
class Target:
    """A target figure; `text` describes it."""

    row: str
    text: str
    measure: Callable  # from the results of the row, by tokens, to a number
    limit: float
    at_least: bool = False


def at(tokens, field):
    """The measure of a target: a field of the result at a size."""
    return lambda row: row[tokens].get(field) if tokens in row else None


def times_expm_multiply(name):
    def measure(row):
        result = row.get(100_000)
        found = result and result["methods"].get(name)
        return found and found["ratio"]

    return measure


TREES = ("random tree", "path")
GRAPH_FEATURES = "SparseFactors, graph random features"
DIFFUSION = "GraphDiffusion, 256 columns"
TARGETS = (
    *(
        Target(f"ForestExponential, {tree}", text, measure, limit)
        for tree in TREES
        for text, measure, limit in (
            ("seconds at 1,000,000", at(10**6, "seconds"), 10),
            (
                "MB of the process at 1,000,000",
                at(10**6, "process_megabytes"),
                6000,
            ),
            ("slope", slope, 1.15),
        )
    ),
    Target(
        "ForestDistance, random tree",
        "seconds to plan at 100,000",
        at(10**5, "prepare"),
        20,
    ),
    Target(
        "ForestDistance, random tree",
        "seconds at 100,000",
        at(10**5, "seconds"),
        5,
    ),
    *(
        Target(f"ForestDistance, {tree}", "slope", slope, 1.35)
        for tree in TREES
    ),
    Target(DIFFUSION, "error at 100,000", at(10**5, "error"), 1e-5),
    Target(
        DIFFUSION,
        "times faster than expm_multiply in float64",
        times_expm_multiply("expm_multiply, float64"),
        3,
        at_least=True,
    ),
    Target(
        DIFFUSION,
        "times faster than expm_multiply in float32",
        times_expm_multiply("expm_multiply"),
        3,
        at_least=True,
    ),
    Target(
        GRAPH_FEATURES,
        "seconds to sample at 1,000,000",
        at(10**6, "prepare"),
        180,
    ),
)


def format_targets(results):
    """A row of Markdown for each target."""
    lines, rows = [], by_row(results)
    for target in TARGETS:
        value = None
        if target.row in rows:
            value = target.measure(rows[target.row])
        sign = ">=" if target.at_least else "<="
        text = f"{target.row}: {target.text} {sign} {target.limit:g}"
        if value is None:
            lines.append([text, "", "not measured"])
            continue
        met = (
            value >= target.limit if target.at_least else value <= target.limit
        )
        lines.append([text, f"{value:.2g}", "met" if met else "missed"])
    return format_table(["promised", "measured", ""], lines, markdown=True)
