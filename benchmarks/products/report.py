"""Tables and plots of `benchmarks.masks`, from its results."""

import statistics

from benchmarks import harness
from benchmarks.harness import format_ratio, format_seconds, format_table
from benchmarks.products.answers import FRESH_FROM, ROWS
from benchmarks.products.rows import DENSE, OURS, OURS_64, SIZES

SLOPE_FROM = 10_000


def format_result(result):
    if "failed" in result:
        return (
            f"{result['row']}, {result['tokens']:,} x {result['columns']}: "
            f"{result['failed'].strip().splitlines()[-1]}"
        )
    others = [
        f"{name} {format_ratio(found['ratio'])}x"
        for name, found in result["methods"].items()
        if name != OURS
    ]
    memory = ""
    if "megabytes" in result:
        memory = f", {result['megabytes']:,.0f} MB"
    return (
        f"{result['row']}, {result['tokens']:,} x {result['columns']}: "
        f"{format_seconds(result['seconds'])} "
        f"({result['rounds']} rounds; prepared in "
        f"{format_seconds(result['prepare'])}, first call "
        f"{format_seconds(result['first'])}, "
        f"error {result['error']:.0e}{memory})\n    times as long: "
        + (", ".join(others) or "-")
    )


def by_row(results):
    """`{row: {tokens: result}}` in the order of the table; no failures."""
    found = {name: {} for name in ROWS}
    for result in sorted(results, key=lambda r: r["tokens"]):
        if "failed" not in result:
            found[result["row"]][result["tokens"]] = result
    return {name: row for name, row in found.items() if row}


def slope(row, start=SLOPE_FROM):
    """The slope of the time of a product, from `start` tokens on."""
    return harness.slope(
        [(n, result["seconds"]) for n, result in row.items() if n >= start]
    )


def peers_of(result):
    """`{name: ratio}` of the peers in a result."""
    return {
        name: found["ratio"]
        for name, found in result["methods"].items()
        if name not in (OURS, OURS_64, DENSE)
    }


def fastest_peer(row):
    """The largest size at which there is one: tokens, name, ratio."""
    for tokens, result in reversed(row.items()):
        peers = peers_of(result)
        if peers:
            name = min(peers, key=peers.get)
            return tokens, name, peers[name]
    return None


def format_summary(results):
    """A row of Markdown for each operator, at its largest size."""
    header = [
        "mask",
        "tokens",
        "product",
        "rounds",
        "slope",
        "from 100,000",
        "dense",
        "fastest peer",
        "error",
        "preparation",
        "memory",
    ]
    failed = {r["row"]: r["tokens"] for r in results if "failed" in r}
    lines = []
    for name, row in by_row(results).items():
        last = row[max(row)]
        slopes = [slope(row), slope(row, FRESH_FROM)]
        dense = [
            (result["methods"][DENSE]["ratio"], tokens)
            for tokens, result in row.items()
            if DENSE in result["methods"]
        ]
        lines.append(
            [
                name,
                f"{last['tokens']:,}"
                + (f" (not {failed[name]:,})" if name in failed else ""),
                format_seconds(last["seconds"]),
                str(last["rounds"]),
                *("" if k is None else f"{k:.2f}" for k in slopes),
                f"{format_ratio(dense[-1][0])}x ({dense[-1][1]:,})"
                if dense
                else "",
                format_peer(row, last["tokens"]),
                f"{last['error']:.0e}",
                format_seconds(last["prepare"]),
                f"{last['megabytes'] / 1e3:.1f} GB"
                if "megabytes" in last
                else "",
            ]
        )
    return format_table(header, lines, markdown=True)


def format_peer(row, most):
    """The fastest peer, and its size if that is not the largest."""
    peer = fastest_peer(row)
    if peer is None:
        return ""
    tokens, name, ratio = peer
    size = "" if tokens == most else f" ({tokens:,})"
    return f"{format_ratio(ratio)}x {name}{size}"


PANELS = {
    "sequences and grids": (
        "Toeplitz",
        "BlockToeplitz",
        "Torus",
        "ExponentialDecay",
        "Kronecker",
        "hypercube",
        "Causal",
    ),
    "forests": ("ForestExponential", "ForestDistance"),
    "graphs and factors": (
        "GraphDiffusion",
        "SparseFactors",
        "SparsePairs",
        "LowRank",
    ),
}


def dense_seconds(results):
    """Tokens and seconds of the dense product, the median over the rows."""
    found = {}
    for result in results:
        if DENSE in result.get("methods", ()) and result["tokens"] in SIZES:
            seconds = result["methods"][DENSE]["seconds"]
            found.setdefault(result["tokens"], []).append(seconds)
    return sorted((n, statistics.median(s)) for n, s in found.items())


def plot(results, path):
    """Time against tokens; dotted, the fastest peer at each size."""
    figure, axes = harness.open_panels(
        PANELS, "tokens", "seconds per product (dotted: fastest peer)"
    )
    rows, dense = by_row(results), dense_seconds(results)
    for panel, kinds in zip(axes, PANELS.values(), strict=True):
        shown = {
            name: row
            for name, row in rows.items()
            if name.split(",")[0].split()[0] in kinds and len(row) > 1
        }
        for name, row in shown.items():
            points = [(n, result["seconds"]) for n, result in row.items()]
            color = harness.draw_line(panel, points, "ours", name)
            fastest = []
            for tokens, result in row.items():
                found = result["methods"]
                seconds = [found[peer]["seconds"] for peer in peers_of(result)]
                if seconds:
                    fastest.append((tokens, min(seconds)))
            harness.draw_line(panel, fastest, "reference", color=color)
        if shown:
            harness.draw_line(panel, dense, "peer", "dense matrix")
    harness.save_panels(figure, path)
