"""Tables and plots of `benchmarks.attention`, from its records."""

import math

from benchmarks.attention_rows import (
    CAUSAL_PEER,
    KINDS,
    LINEAR,
    PEER,
    PLAIN_SOFTMAX,
    split_row,
)
from benchmarks.harness import (
    draw_line,
    format_ratio,
    format_table,
    open_panels,
    save_panels,
)

TARGET_KINDS = (
    "decay",
    "causal decay",
    "gated decay",
    "two snakes",
    "decay product",
    "table",
    "causal ones",
)
#: Rows of the summary: kind, backward, and the target ratio.
SUMMARY_ROWS = (
    *((kind, False, "ratio") for kind in TARGET_KINDS[:3]),
    *((kind, True, "ratio") for kind in TARGET_KINDS[:3]),
    *((kind, False, "ratio") for kind in TARGET_KINDS[3:]),
    ("causal decay", False, "causal_ratio"),
    ("causal decay", True, "causal_ratio"),
    ("causal ones", False, "causal_ratio"),
)
SUMMARY_SHAPES = (
    (8, 12, 196),
    (1, 1, 1024),
    (1, 1, 4096),
    (1, 1, 16384),
    (8, 6, 1024),
    (2, 8, 4096),
)
# Ratios between two commits that rounds do not tell apart. A row is slower if
# both its median and its shortest time are.
NOISE = 1.05


def format_everything(records, arguments):
    """All tables after the last group."""
    parts = {
        f"Times faster than {PEER}, in the fastest mode": format_summary(
            records
        ),
        "The same for one head, forward": format_lengths(records, False),
        "The same for one head, forward + backward": format_lengths(
            records, True
        ),
        "The time of auto over that of the better of explicit and fast, "
        "forward": format_auto(records),
    }
    if arguments.against:
        title = f"Against {arguments.against}"
        parts[title] = format_against(records, arguments.against)
    return "\n" + "\n\n".join(
        f"{title}:\n\n{text}" for title, text in parts.items() if text
    )


def direction(backward):
    return "forward + backward" if backward else "forward"


def format_shape(shape):
    batch, heads, tokens = shape
    lead = "" if batch * heads == 1 else f"{batch} x {heads} x "
    return f"{lead}{tokens:,}"


def format_group(records, arguments):
    """The rows of one shape and direction, with one column per mode."""
    done = [r for r in records if "failed" not in r]
    lines = []
    if done:
        shape = format_shape(done[0]["shape"])
        lines.append(
            f"\n{shape} tokens, {direction(done[0]['backward'])}, "
            f"{done[0]['rounds']} rounds: milliseconds (times faster than "
            f"{PEER})"
        )
    ours = [r for r in done if not r["commit"]]
    extras = {
        "auto_over_best": "auto / best",
        "over_commit": f"/ {arguments.against}",
        "megabytes": "MB",
    }
    extras = {k: v for k, v in extras.items() if any(k in r for r in ours)}
    rows = []
    for name in dict.fromkeys(r["row"] for r in ours):
        by_mode = {r["mode"]: r for r in ours if r["row"] == name}
        if "torch" in by_mode:
            by_mode = {arguments.modes[0]: by_mode["torch"]}
        cells = [
            format_time(by_mode[mode]) if mode in by_mode else ""
            for mode in arguments.modes
        ]
        # The slowest mode.
        for key in extras:
            known = [r[key] for r in by_mode.values() if r.get(key)]
            cells.append(format_ratio(max(known, default=None)))
        chosen = {r["chosen"] for r in by_mode.values() if "chosen" in r}
        rows.append([name, *cells, ", ".join(sorted(chosen))])
    header = ["", *arguments.modes, *extras.values(), "auto takes"]
    if rows:
        lines.append(format_table(header, rows))
    skipped = {}
    for r in records:
        if "failed" in r:
            reason = r["failed"].strip().splitlines()[-1]
            where = f"{r['mode']}, {r['commit']}" if r["commit"] else r["mode"]
            skipped.setdefault((reason, where), []).append(r["row"])
    lines += [
        f"  {where}, {reason}: {', '.join(names)}"
        for (reason, where), names in skipped.items()
    ]
    return "\n".join(lines)


def format_time(record):
    text = f"{record['milliseconds']:.3g}"
    if record["ratio"]:
        text += f" ({format_ratio(1 / record['ratio'])})"
    return text


def best_ratio(records, row, shape, backward, key="ratio"):
    """The least ratio over the modes, of this package."""
    return min(
        (
            r[key]
            for r in records
            if r["row"] == row
            and r["shape"] == list(shape)
            and r["backward"] == backward
            and not r["commit"]
            and r.get(key)
        ),
        default=None,
    )


def format_speedup(ratio):
    return format_ratio(1 / ratio) if ratio else ""


def format_summary(records):
    """A row for each target, in Markdown."""
    shapes = [
        s for s in SUMMARY_SHAPES if any(r["shape"] == list(s) for r in records)
    ]
    rows = []
    for kind, backward, key in SUMMARY_ROWS:
        ratios = [
            best_ratio(records, f"{kind} auto", shape, backward, key)
            for shape in shapes
        ]
        if any(ratios):
            than = ", against causal softmax" if key == "causal_ratio" else ""
            name = f"{kind}, {direction(backward)}{than}"
            rows.append([name, *map(format_speedup, ratios)])
    header = ["", *map(format_shape, shapes)]
    return rows and format_table(header, rows, markdown=True)


def format_lengths(records, backward):
    """All kinds by tokens, one head, in Markdown."""
    shapes = sorted(
        {
            tuple(r["shape"])
            for r in records
            if r["backward"] == backward and r["shape"][:2] == [1, 1]
        }
    )
    rows = []
    names = [PLAIN_SOFTMAX, LINEAR, *(f"{kind} auto" for kind in KINDS)]
    for name in names:
        ratios = [best_ratio(records, name, s, backward) for s in shapes]
        if any(ratios):
            row = name.removesuffix(" auto")
            rows.append([row, *map(format_speedup, ratios)])
    header = ["", *map(format_shape, shapes)]
    return rows and format_table(header, rows, markdown=True)


def format_auto(records):
    """The comparisons of `auto`, and the worst case."""
    compared = [
        r
        for r in records
        if r.get("auto_over_best") and not (r["backward"] or r["commit"])
    ]
    if not compared:
        return ""
    shapes = sorted({tuple(r["shape"]) for r in compared})
    rows = []
    for kind in KINDS:
        cells = [
            max(
                (
                    r["auto_over_best"]
                    for r in compared
                    if r["row"] == f"{kind} auto" and r["shape"] == list(shape)
                ),
                default=None,
            )
            for shape in shapes
        ]
        if any(cells):
            rows.append([kind, *(f"{c:.2f}" if c else "" for c in cells)])
    worst = max(compared, key=lambda r: r["auto_over_best"])
    header = ["", *map(format_shape, shapes)]
    return (
        format_table(header, rows, markdown=True)
        + f"\n\nAt most {worst['auto_over_best']:.2f}: {worst['row']} at "
        f"{format_shape(worst['shape'])} tokens, {worst['mode']}"
    )


def format_against(records, commit):
    """The rows that have become slower since a commit."""
    compared = [r for r in records if r.get("over_commit")]
    if not compared:
        return "no row was measured"
    slower = [
        r
        for r in compared
        if min(r["over_commit"], r["least_over_commit"]) > NOISE
    ]
    middle = math.exp(
        sum(math.log(r["over_commit"]) for r in compared) / len(compared)
    )
    text = (
        f"{len(compared)} rows, {middle:.2f} times the time (geometric mean); "
        f"{len(slower)} above {NOISE}"
    )
    rows = [
        [
            r["row"],
            r["mode"],
            f"{format_shape(r['shape'])}, {direction(r['backward'])}",
            f"{r['over_commit']:.2f}",
        ]
        for r in sorted(slower, key=lambda r: -r["over_commit"])
    ]
    if rows:
        header = ["slower", "mode", "tokens", f"time / {commit}"]
        text += "\n\n" + format_table(header, rows, markdown=True, left=3)
    return text


def plot(records, path):
    """Time against tokens for one head, in the fastest mode."""
    titles = [direction(backward) for backward in (False, True)]
    figure, axes = open_panels(
        titles, "tokens", "milliseconds (one head, m = d = 64)"
    )
    names = [PEER, CAUSAL_PEER, PLAIN_SOFTMAX, LINEAR]
    names += [f"{kind} auto" for kind in KINDS] + ["table explicit"]
    for panel, backward in zip(axes, (False, True), strict=True):
        for name in names:
            best = {}
            for r in records:
                if (
                    r["row"] == name
                    and r["backward"] == backward
                    and r["shape"][:2] == [1, 1]
                    and not r["commit"]
                    and "failed" not in r
                ):
                    known = best.get(r["tokens"], math.inf)
                    best[r["tokens"]] = min(known, r["milliseconds"])
            kind, implementation = split_row(name)
            if implementation == "auto":
                draw_line(panel, best.items(), "ours", kind)
            elif name == PEER:
                draw_line(panel, best.items(), "peer", name)
            else:
                label = "explicit, any mask" if implementation else name
                draw_line(panel, best.items(), "reference", label)
    save_panels(figure, path)
