"""Reports of trainings: curves, tables, and the content of the run folder."""

import contextlib
import logging

import numpy as np


def load_pyplot():
    """Imports matplotlib for plotting into files.

    Raises:
        ImportError: if matplotlib is missing; the message names the extra.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Plotting needs matplotlib: pip install 'keras-topo[plots]'"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


# With fewer training examples than this, training accuracy means little.
FEW = 20
# Longer curves are drawn as running means over the single epochs, which stay
# visible behind them: dropout makes single epochs noisy.
LONG = 100


def running_mean(values, window):
    """The mean of each value and those before it, `window` at most."""
    counts = np.minimum(np.arange(len(values)) + 1, window)
    values = np.asarray(values, "float64")
    return np.convolve(values, np.ones(window))[: len(values)] / counts


def draw_curves(history, path, title, num_training=None):
    """Plots loss and accuracy of training and validation over the epochs.

    The learning rate is plotted if it changes, and the training accuracy if
    there are at least `FEW` training examples. After more than `LONG` epochs,
    the curves of loss and accuracy are running means.

    Args:
        history: list of dicts with `epoch`, `loss`, `accuracy`, `val_loss`,
            `val_accuracy` (if there was validation) and `learning_rate`.
        path: PNG file to write.
        title: str.
        num_training: int, training examples; `None` if there are many.
    """
    plt = load_pyplot()
    epochs = [line["epoch"] for line in history]
    few = num_training is not None and num_training < FEW
    training = ("training", "C0")
    validation = ("validation", "C1")
    panels = [
        ("Loss", {"loss": training, "val_loss": validation}),
        ("Accuracy", {"accuracy": training, "val_accuracy": validation}),
    ]
    if few:
        panels[1] = ("Accuracy", {"val_accuracy": validation})
        if "val_accuracy" not in history[0]:
            panels.pop()
    if len({line["learning_rate"] for line in history}) > 1:
        panels.append(("Learning rate", {"learning_rate": (None, "C0")}))
    widths = (3, 3, 2)[: len(panels)]
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(max(6.5, 11 * sum(widths) / 8), 3.7),
        layout="constrained",
        width_ratios=widths,
        squeeze=False,
    )
    for axis, (name, curves) in zip(axes[0], panels, strict=True):
        is_noisy = name != "Learning rate" and len(epochs) > LONG
        window = len(epochs) // 25 if is_noisy else 1
        for key, (label, color) in curves.items():
            if key not in history[0]:
                continue  # Without validation.
            values = [line[key] for line in history]
            if is_noisy:
                axis.plot(epochs, values, color=color, alpha=0.25, linewidth=1)
                values = running_mean(values, window)
            axis.plot(
                epochs,
                values,
                color=color,
                label=label,
                marker="o" if len(epochs) <= 20 else None,
                markersize=3,
            )
        axis.set_title(name)
        means = f" (curves: means of the last {window})" if is_noisy else ""
        axis.set_xlabel(f"epoch{means}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if name == "Learning rate":
            axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    # Below the panels, where it hides no curves.
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def print_contents(folder, contents):
    """Prints a line for each existing file of a run folder.

    Args:
        folder: `pathlib.Path`.
        contents: dict from names to descriptions.
    """
    for name, meaning in contents.items():
        path = folder / name
        if path.exists():
            print(f"  {str(path):<34} {meaning}")


@contextlib.contextmanager
def presets_in_silence():
    """Silences the messages of `from_preset` that were logged before."""
    logger = logging.getLogger("keras_topo.presets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def format_assessment(summary):
    """The results of an assessment, in Markdown.

    Args:
        summary: dict, as in `folds.json`: see `training.assessment`.
    """
    lines = [f"`{summary['command']}`", ""]
    metric, results = summary["metric"], summary["results"]
    name = metric.replace("_", " ")
    if not results[0]["cell"]:
        (result,) = results
        lines += [
            f"{summary['data']}: {format_mean(result, metric)} ({name} of test "
            f"items, {_over(result, summary)}). {_chosen(summary)}",
            "",
            f"| fold | chosen | runs | test {name} |",
            "|---:|---|---:|---:|",
            *(_fold_row(fold, metric) for fold in result["by_fold"]),
        ]
        return "\n".join(lines) + "\n"
    names = list(results[0]["cell"])
    paired = any("difference" in result for result in results)
    lines += [
        f"Test {name}, {_over(results[0], summary)}. {_chosen(summary)}",
        "",
        f"| {' | '.join(names)} | test {name} | "
        + "difference | " * paired
        + "parameters |",
        "|---|" + "---|" * (len(names) - 1) + "---:|" * (2 + paired),
    ]
    for result in results:
        cells = [_text(value) for value in result["cell"].values()]
        counts = " to ".join(
            f"{n:,}"
            for n in sorted({result["parameters"][0], result["parameters"][-1]})
        )
        failed = sum(fold["failed"] for fold in result["by_fold"])
        mean = format_mean(result, metric)
        mean += f" ({failed} failed)" * bool(failed)
        gain = [_difference(result, metric)] if paired else []
        lines.append(f"| {' | '.join([*cells, mean, *gain, counts])} |")
    if paired:
        first = ", ".join(_text(value) for value in results[0]["cell"].values())
        lines += [
            "",
            f"Differences are from {first}: mean over folds and its standard "
            "error.",
        ]
    if chosen := summary.get("chosen"):
        which = " and ".join(names)
        lines += [
            "",
            f"With {which} chosen on validation items, in each fold, too: "
            f"{format_mean(chosen, metric)}.",
            "",
            f"| fold | chosen | runs | test {name} |",
            "|---:|---|---:|---:|",
            *(_fold_row(fold, metric) for fold in chosen["by_fold"]),
        ]
    return "\n".join(lines) + "\n"


def format_mean(result, metric="accuracy"):
    """The mean and, for several runs, deviation; accuracies in percent."""
    mean, deviation = result["mean"], result["deviation"]
    several = sum(fold["runs"] for fold in result["by_fold"]) > 1
    if metric == "accuracy":
        spread = f" ± {100 * deviation:.2f}" if several else ""
        return f"{100 * mean:.2f}{spread}%"
    return f"{mean:.4f}" + (f" ± {deviation:.4f}" if several else "")


def _difference(result, metric):
    """A paired difference and its standard error."""
    found = result.get("difference")
    if found is None:
        return ""
    mean, error = found["mean"], found["standard_error"]
    if metric == "accuracy":
        return f"{100 * mean:+.2f} ± {100 * error:.2f}"
    return f"{mean:+.4f} ± {error:.4f}"


def format_spread(summary, metric="accuracy"):
    """Text to append to the mean of a summary over seeds."""
    deviation, failed = summary["test_deviation"], summary.get("failed", {})
    deviation = (
        f"{100 * deviation:.2f} points"
        if metric == "accuracy"
        else f"{deviation:.4f}"
    )
    text = f", the mean over {summary['runs']} seeds with a deviation of "
    text += deviation
    if failed:
        text += f" ({len(failed)} of them failed and count as 0: "
        text += "; ".join(f"seed {k}, {why}" for k, why in failed.items())
        text += ")"
    return text


def _over(result, summary):
    folds, seeds = result["folds"], summary["seeds"]
    if folds == seeds == 1:
        return "one run"
    runs = f"{seeds} seed{'s' * (seeds > 1)}"
    if folds == 1:
        return f"mean and deviation over {runs}"
    return f"mean and deviation over {folds} folds of the mean over {runs}"


def _chosen(summary):
    """The choices made on validation items."""
    choices = [
        f"{name} of {', '.join(map(_text, values))}"
        for name, values in summary["grid"].items()
    ]
    arguments = summary.get("arguments", {})
    if arguments.get("choose_epoch") == "validation":
        choices.append(f"the epoch of each run, up to {arguments['epochs']}")
    if not choices:
        return "Nothing was chosen."
    where = ", in each fold" * (summary["results"][0]["folds"] > 1)
    return f"Chosen on validation items{where}: {'; '.join(choices)}."


def _fold_row(fold, metric):
    chosen = ", ".join(f"{k} {_text(v)}" for k, v in fold["choice"].items())
    score = fold[f"test_{metric}"]
    text = f"{100 * score:.2f}%" if metric == "accuracy" else f"{score:.4f}"
    runs = str(fold["runs"])
    if fold["failed"]:
        runs += f", {fold['failed']} of them failed and count as 0"
    return f"| {fold['fold']} | {chosen} | {runs} | {text} |"


def _text(value):
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def draw_table(summary, path):
    """Plots the cells of an assessment as bars, grouped by the first setting,
    with deviations if there are several runs."""
    plt = load_pyplot()
    results = summary["results"]
    names = list(results[0]["cell"])
    percent = 100 if summary["metric"] == "accuracy" else 1
    groups = list(dict.fromkeys(_text(r["cell"][names[0]]) for r in results))
    series = {}
    for result in results:
        values = [_text(result["cell"][name]) for name in names]
        label = ", ".join(values[1:]) or summary["metric"]
        series.setdefault(label, {})[values[0]] = result
    width = 0.8 / len(series)
    figure, axis = plt.subplots(
        figsize=(max(5, 1.8 * len(groups)), 3.6), layout="constrained"
    )
    for k, (label, found) in enumerate(series.items()):
        where = [g for g in groups if g in found]
        axis.bar(
            [
                groups.index(g) + (k - (len(series) - 1) / 2) * width
                for g in where
            ],
            [percent * found[g]["mean"] for g in where],
            width,
            yerr=[
                percent * found[g]["deviation"]
                if summary["seeds"] > 1 or found[g]["folds"] > 1
                else float("nan")
                for g in where
            ],
            label=label,
            capsize=2,
        )
    axis.set_xticks(range(len(groups)), groups)
    axis.set_xlabel(names[0])
    if percent == 100:
        lowest = min(100 * (r["mean"] - r["deviation"]) for r in results)
        axis.set_ylim(max(0, min(50, lowest - 5)), 101)
    axis.set_ylabel(
        f"test {summary['metric'].replace('_', ' ')}" + ", %" * (percent == 100)
    )
    axis.grid(axis="y", alpha=0.3)
    if len(series) > 1:
        # Above the axis, as wide as the axis.
        axis.legend(
            frameon=False,
            ncols=min(len(series), 5),
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
        )
    figure.savefig(path, dpi=130)
    plt.close(figure)
