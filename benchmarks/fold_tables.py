"""The tables of graph classification over ten folds, from their runs.

    python -m benchmarks.fold_tables

Reads `folds.json` of the folders `results/tables/DATA-ROW` and writes
`results/graphs.md` and the pictures `results/tables/differences*.png`. Folders
that are missing leave empty cells.
"""

import json
import pathlib

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.harness import format_table

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
TABLES = RESULTS / "tables"
PAGE = RESULTS / "graphs.md"

#: Data, the target (see `TEXT`), and published rows: GKAT of Choromanski et al.
#: (2022), GIN and the baseline without edges of Errica et al. (2020).
DATA = {
    "IMDB-BINARY": (74.5, 71.4, 71.2, 70.8),
    "IMDB-MULTI": (50.8, 47.5, 48.5, 49.1),
    "ENZYMES": (74.1, 69.7, 59.6, 65.2),
    "PROTEINS": (75.8, 75.8, 73.3, 75.8),
    "NCI1": (82.3, 75.2, 80.0, 69.8),
    "DD": (78.6, 78.6, 75.3, 78.4),
    "REDDIT-BINARY": (90.4, 89.3, 89.9, 82.2),
    "COLLAB": (79.4, 73.1, 75.6, 70.2),
}
KERNELS = {
    "ones": "ones",
    "random_walk": "walks",
    "steps+labeled_walk+ones": "learned",
}
# The row of folders with runs of the kernel alone.
PLAIN = "plain"
LAYERS = {"gin": "GIN", "gcn": "GCN", "gat": "GAT"}

TEXT = """\
# Graph classification in ten folds

<!-- Written by `python -m benchmarks.fold_tables`. -->

Test accuracy in percent: mean and deviation over the ten folds of Errica et al.
(2020). The epoch, and what a row names, are chosen on the validation graphs of
each fold; no choice sees a test graph. There is one final run per fold. All
models but the pooled ones have the settings of `--variant gkat`, the same for
all data sets, with the number of epochs that the command of a page gives.

{accuracies}

- *Target*: the bar that this project set itself. It is the highest published
  accuracy that we know of for these folds, or for ENZYMES our own earlier 74.1.
- *GKAT*: the kernel (ones, walks or learned), and messages along edges or none,
  are chosen in each fold. The test figures of each kernel are below.
- *GIN, GCN, GAT*: the rate of dropout is chosen, 0 or 0.3.
- *Pooled*: scikit-learn's classifiers of mean, deviation and maximum of node
  features. Features, classifier and its regularization are chosen
  (`python -m training.pooled`).
- *Published*: GKAT of Choromanski et al. (2022); GIN, and the baseline that
  knows no edges, of Errica et al. (2020).
{kernels}"""

KERNEL_TEXT = """\

## What the kernel is worth

GKAT with one kind of kernel in all folds; messages along edges, or none, are
chosen in each fold. *Ones* is attention without a mask. *Walks* are walks of 1,
2, 3 and 4 nodes, a kernel per head. *Learned* kernels are sums of steps of
walks, of walks that see equal labels, and of ones, whose weights each head
learns. Differences from ones are paired by fold: mean and its standard error.

{kernels}

![Differences from a mask of ones](tables/differences.png)
"""

PLAIN_TEXT = """\

## The kernel alone

The same without messages along edges and without features that tell of them:
no return probabilities, clustering or degrees of neighbors. Nodes have the
labels and features of the data and, where it has none, their degree. What else
the model knows of the edges comes from the kernel.

{kernels}

![Differences from a mask of ones](tables/differences-plain.png)
"""


def read(folder=TABLES):
    """What the folders hold, a dict from `(data, row)` to `folds.json` and
    from there to the folder."""
    found = {}
    for file in sorted(folder.glob("*/folds.json")):
        summary = json.loads(file.read_text(encoding="utf-8"))
        row = file.parent.name.rpartition("-")[2]
        found[summary["data"], row] = (file.parent.name, summary)
    return found


def cells_of(found, data, plain=False):
    """The results of a data set, a dict from row to `(folder, result)`: those
    of the kernel alone, or all others."""
    cells = {}
    for (other, row), (folder, summary) in found.items():
        if other != data or (row == PLAIN) != plain:
            continue
        if "chosen" in summary and row == "gkat":
            cells["GKAT"] = folder, summary["chosen"]
        for result in summary["results"]:
            (value,) = result["cell"].values() if result["cell"] else (row,)
            name = {**KERNELS, **LAYERS}.get(value, value)
            cells[name] = folder, result
    return cells


def title(data):
    return "D&D" if data == "DD" else data


def accuracies(found):
    rows = []
    for data, (target, gkat, gin, pooled) in DATA.items():
        cells = cells_of(found, data)
        names = ("GKAT", *LAYERS.values(), "pooled")
        rows.append(
            [
                title(data),
                f"{target:.1f}",
                *(_accuracy(cells.get(name)) for name in names),
                f"{gkat:.1f}, {gin:.1f}, {pooled:.1f}",
            ]
        )
    header = ["data", "target", "GKAT", *LAYERS.values(), "pooled"]
    return format_table(
        [*header, "published: GKAT, GIN, no edges"], rows, markdown=True
    )


def kernels(found, plain):
    rows = []
    for data in with_ones(found, plain):
        cells = cells_of(found, data, plain)
        row = [title(data), _accuracy(cells["ones"])]
        for name in ("walks", "learned"):
            row.append(_accuracy(cells.get(name)))
            row.append(_difference(cells.get(name)))
        rows.append(row)
    header = ["data", "ones", "walks", "difference", "learned", "difference"]
    return format_table(header, rows, markdown=True)


def _accuracy(cell):
    if cell is None:
        return ""
    folder, result = cell
    mean, deviation = 100 * result["mean"], 100 * result["deviation"]
    return f"[{mean:.1f} ± {deviation:.1f}](tables/{folder}/folds.md)"


def _difference(cell):
    if cell is None or "difference" not in cell[1]:
        return ""
    found = cell[1]["difference"]
    mean, error = 100 * found["mean"], 100 * found["standard_error"]
    return f"{mean:+.1f} ± {error:.1f}"


def draw(found, path, plain=False):
    """Differences from ones as points, with two standard errors."""
    matplotlib.use("Agg")
    data = with_ones(found, plain)
    rows = [cells_of(found, each, plain) for each in data]
    figure, axis = plt.subplots(
        figsize=(6.5, 1.2 + 0.6 * len(data)), layout="constrained"
    )
    axis.axvline(0, color="gray", linewidth=1)
    for k, name in enumerate(("walks", "learned")):
        points = [
            (y + 0.15 * (2 * k - 1), cells[name][1])
            for y, cells in enumerate(rows)
            if name in cells
        ]
        differences = [result["difference"] for _, result in points]
        axis.errorbar(
            [100 * d["mean"] for d in differences],
            [y for y, _ in points],
            xerr=[200 * d["standard_error"] for d in differences],
            fmt="o",
            capsize=3,
            label=name,
        )
    axis.set_yticks(range(len(data)), [title(name) for name in data])
    axis.set_ylim(len(data) - 0.5, -0.5)
    axis.set_xlabel("points of accuracy above ones, ± two standard errors")
    axis.legend(
        frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def page(found):
    """The text of `results/graphs.md`."""
    sections = [
        text.format(kernels=kernels(found, plain))
        for plain, text in ((False, KERNEL_TEXT), (True, PLAIN_TEXT))
        if with_ones(found, plain)
    ]
    return TEXT.format(accuracies=accuracies(found), kernels="".join(sections))


def with_ones(found, plain):
    """The data sets whose kernels are compared with ones."""
    return [data for data in DATA if "ones" in cells_of(found, data, plain)]


def main():
    found = read()
    PAGE.write_text(page(found), encoding="utf-8")
    for plain, name in ((False, "differences"), (True, "differences-plain")):
        if with_ones(found, plain):
            draw(found, TABLES / f"{name}.png", plain)


if __name__ == "__main__":
    main()
