"""Which method sees a motif? GKAT, GAT, GCN and SGC on generated tasks.

    python -m training.motifs --out runs/motifs
    python -m training.motifs --tasks cycles --walk-lengths 2 4 6 8 10 \\
        --methods gkat --out runs/cycles

The experiment of Choromanski et al. (2022): two layers, as many
parameters in every method (within 5%), the epoch chosen on validation graphs,
and accuracies of test graphs that nothing was chosen by. The method `ones` is
GKAT without its kernel: every node sees every other alike. Each task, method
and seed is a run and a line of `runs.jsonl`; the same command goes on where it
was interrupted. The run folder holds `motifs.json`, `motifs.md` and
`motifs.png` at the end.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import bisect
import functools
import itertools
import json
import shlex
import sys

import numpy as np

from keras_topo.training import graphs, pictures
from keras_topo.training.command_line import (
    HelpFormatter,
    add_run_arguments,
    natural,
    positive_float,
    positive_int,
    rate,
    versions,
)
from keras_topo.training.graph_data import GENERATED
from keras_topo.training.run import Run, read_lines, write_json, write_text

# "ones": GKAT with a mask that hides nothing, all else equal.
METHODS = ("gkat", "ones", "gat", "gcn", "sgc")
MOTIF_TASKS = tuple(name for name in GENERATED if name != "cycles")
# Arguments that say where and how much to run, not what a run gives.
NOT_COMPARED = ("out", "resume", "tasks", "methods", "seeds", "walk_lengths")


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(argv)
    run = Run(arguments["out"])
    try:
        run.open(arguments, arguments["resume"], NOT_COMPARED)
        pictures.load_pyplot()  # Better missing now than after the training.
    except (ValueError, ImportError) as error:
        run.discard_unused()
        print(f"error: {error}", file=sys.stderr)
        return 2
    file = run.folder / "runs.jsonl"
    finished = read_lines(file)
    tasks = functools.lru_cache(maxsize=1)(load_task)
    try:
        for key in plan(arguments):
            if any({k: line[k] for k in key} == key for line in finished):
                continue
            data = tasks(key["task"], key["seed"])
            line = {**key, **run_once(arguments, data, **key)}
            with file.open("a") as lines:
                lines.write(json.dumps(line) + "\n")
            finished.append(line)
            print(
                f"{describe(key)}, seed {key['seed']}: test accuracy "
                f"{line['test_accuracy']:.2%} ({line['parameters']:,} "
                f"parameters, epoch {line['best_epoch']}, "
                f"{line['seconds']:.0f} s)"
                + (f" FAILED: {line['failed']}" if "failed" in line else ""),
                flush=True,
            )
    except (ValueError, OSError) as error:
        run.discard_unused()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes.", file=sys.stderr)
        return 130
    command = shlex.join(["python", "-m", "training.motifs", *argv])
    # The file may hold more, of a command with more tasks or seeds.
    keys = list(plan(arguments))
    finished = [
        line for line in finished if {k: line[k] for k in keys[0]} in keys
    ]
    summary = summarise(finished, arguments, command)
    write_json(run.folder / "motifs.json", summary)
    write_text(run.folder / "motifs.md", format_table(summary))
    draw(summary, run.folder / "motifs.png")
    print()
    print(format_table(summary))
    for name in ("motifs.md", "motifs.png", "motifs.json", "runs.jsonl"):
        print(f"  {run.folder / name}")
    return 0


def parse_arguments(argv):
    """Parses the command line into a dict."""
    parser = argparse.ArgumentParser(
        prog="python -m training.motifs",
        description="Compare GKAT, with and without its kernel, GAT, GCN and "
        "SGC on generated tasks.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=GENERATED, default=list(MOTIF_TASKS)
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS)
    )
    parser.add_argument("--seeds", type=positive_int, default=5)
    parser.add_argument(
        "--walk-lengths",
        type=positive_int,
        nargs="+",
        default=[4],
        help="nodes of the walks of GKAT; each is a method of its own",
    )
    parser.add_argument("--depth", type=positive_int, default=2)
    parser.add_argument("--heads", type=positive_int, default=4)
    parser.add_argument("--key-dim", type=positive_int, default=4)
    parser.add_argument("--epochs", type=positive_int, default=60)
    parser.add_argument("--batch-size", type=positive_int, default=64)
    parser.add_argument("--learning-rate", type=positive_float, default=5e-3)
    parser.add_argument("--warmup-epochs", type=natural, default=2)
    parser.add_argument("--dropout", type=rate, default=0.0)
    parser.add_argument("--pooling", default="mean+max")
    parser.add_argument(
        "--size",
        type=positive_int,
        help="graphs of a class in training, a third in the other sets; for a "
        "trial (default: 768)",
    )
    add_run_arguments(parser)
    return vars(parser.parse_args(argv))


def plan(arguments):
    """Yields the key of each run: task, method, walk length, seed."""
    for seed in range(arguments["seeds"]):
        for task in arguments["tasks"]:
            for method in arguments["methods"]:
                lengths = (
                    arguments["walk_lengths"] if method == "gkat" else [None]
                )
                for length in lengths:
                    yield {
                        "task": task,
                        "method": method,
                        "walk_length": length,
                        "seed": seed,
                    }


def load_task(task, seed):
    """The graphs of a task and a seed."""
    options = ["--data", task, "--seed", str(seed), "--return-steps", "0"]
    return graphs.Task(graphs.parse_arguments([*options, "--out", "-"]))


def run_once(arguments, data, task, method, walk_length, seed):
    """Trains one model on the graphs of one seed."""
    options = graph_arguments(arguments, task, method, walk_length, seed)
    split = [ids.copy() for ids in data.split]
    if arguments["size"]:
        most = 2 * arguments["size"]
        split = [split[0][:most], split[1][: most // 3], split[2][: most // 3]]
    fold = dict(zip(("train", "validation", "test"), split, strict=True))
    target = parameters(graph_arguments(arguments, task, "gkat", 4, seed), data)
    if method not in ("gkat", "ones"):
        options.update(match_width(options, data, target))
    line = graphs.run_once(options, data, fold, seed)
    failed = {"failed": line["failed"]} if "failed" in line else {}
    return {
        **failed,
        "test_accuracy": line["test_accuracy_validation"],
        "validation_accuracy": line["validation_accuracy_validation"],
        "best_epoch": line["best_epoch"],
        "parameters": parameters(options, data),
        "seconds": line["seconds"],
    }


def graph_arguments(arguments, task, method, walk_length, seed):
    """The arguments of `training.graphs` for a run."""
    options = graphs.parse_arguments(["--data", task, "--out", "-"])
    shared = ("depth", "heads", "key_dim", "epochs", "batch_size", "pooling")
    shared += ("learning_rate", "warmup_epochs", "dropout")
    options.update({name: arguments[name] for name in shared})
    options.update(
        model="gkat-published" if method in ("gkat", "ones") else method,
        kernel="ones" if method == "ones" else "random_walk",
        kernel_sizes=[float(walk_length or 4)],
        return_steps=0,
        label_smoothing=0.0,
        weight_decay=1e-4,
        seed=seed,
    )
    return options


def parameters(options, data):
    """Trainable parameters of the model."""
    model = graphs.build_model(options, data, None)
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def match_width(options, data, target):
    """Heads and their size that come closest to a number of parameters.

    Raises:
        ValueError: if no width comes within 5%.
    """
    best = None
    for count in range(1, 9) if options["model"] == "gat" else [1]:

        def size(key_dim, count=count):
            choice = {"heads": count, "key_dim": key_dim}
            return parameters({**options, **choice}, data)

        # Parameters grow with the width: the last one below, and the next.
        below = bisect.bisect_left(range(1, 257), target, key=size)
        for key_dim in {max(1, below), min(256, below + 1)}:
            error = abs(size(key_dim) - target) / target
            if best is None or error < best[0]:
                best = (error, {"heads": count, "key_dim": key_dim})
    if best[0] > 0.05:
        raise ValueError(
            f"no width of {options['model']} has {target} parameters within "
            f"5%: {best[1]} comes closest, {best[0]:.1%} off"
        )
    return best[1]


def describe(key):
    text = f"{key['task']}, {key['method']}"
    return text + (f" {key['walk_length']}" if key["walk_length"] else "")


def summarise(lines, arguments, command):
    """Mean and deviation over seeds of every task and method."""
    cells = {}
    for line in lines:
        method = line["method"]
        if line["walk_length"]:
            method += f", walks of {line['walk_length']}"
        key = (line["task"], method, line["walk_length"])
        cells.setdefault(key, []).append(line)
    return {
        "command": command,
        "cells": [
            {
                "task": task,
                "method": method,
                "walk_length": length,
                "mean": float(np.mean([x["test_accuracy"] for x in runs])),
                "deviation": float(np.std([x["test_accuracy"] for x in runs])),
                "seeds": len(runs),
                "failed": sum("failed" in x for x in runs),
                "parameters": sorted({x["parameters"] for x in runs}),
            }
            for (task, method, length), runs in cells.items()
        ],
        "arguments": arguments,
        "versions": versions(),
    }


def format_table(summary):
    """The table in Markdown, the longer of tasks and methods downwards."""
    cells = {(c["task"], c["method"]): c for c in summary["cells"]}
    tasks, methods = tasks_and_methods(summary)
    down = len(methods) > len(tasks)
    across = tasks if down else methods
    lines = [
        f"Test accuracy in percent, `{summary['command']}`:",
        "",
        f"| {'method' if down else 'task'} | " + " | ".join(across) + " |",
        "|---|" + "---:|" * len(across),
    ]
    for name in methods if down else tasks:
        keys = [(x, name) if down else (name, x) for x in across]
        row = [format_cell(cells.get(key)) for key in keys]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    counts = sorted({n for c in summary["cells"] for n in c["parameters"]})
    seeds = sorted({c["seeds"] for c in summary["cells"]})
    lines += [
        "",
        " to ".join(f"{n:,}" for n in sorted({counts[0], counts[-1]}))
        + f" parameters; seeds a cell: {', '.join(map(str, seeds))}.",
    ]
    return "\n".join(lines) + "\n"


def format_cell(cell):
    if cell is None:
        return ""
    text = f"{100 * cell['mean']:.1f}"
    if cell["seeds"] > 1:
        text += f" ± {100 * cell['deviation']:.1f}"
    return text + f" ({cell['failed']} failed)" * bool(cell["failed"])


def deviations(cells):
    """In percent; not a number, which is not drawn, of a single run."""
    return [
        100 * c["deviation"] if c["seeds"] > 1 else float("nan") for c in cells
    ]


def tasks_and_methods(summary):
    """Their names, in the order in which they ran."""
    tasks = dict.fromkeys(cell["task"] for cell in summary["cells"])
    methods = dict.fromkeys(cell["method"] for cell in summary["cells"])
    return list(tasks), list(methods)


def draw(summary, path):
    """Bars for methods; curves for walks of three lengths or more."""
    plt = pictures.load_pyplot()
    lengths = {c["walk_length"] for c in summary["cells"]} - {None}
    tasks, _ = tasks_and_methods(summary)
    curves = len(lengths) > 2
    width = 5.5 if curves else max(5, 1.8 * len(tasks))
    figure, axis = plt.subplots(figsize=(width, 3.6), layout="constrained")
    if curves:
        draw_curves(summary, axis)
    else:
        draw_bars(summary, axis)
    lowest = min(c["mean"] - c["deviation"] for c in summary["cells"])
    axis.set_ylim(max(0, min(50, 100 * lowest - 5)), 101)
    axis.set_ylabel("test accuracy, %")
    axis.grid(axis="y", alpha=0.3)
    # Above the axis, in its width.
    _, labels = axis.get_legend_handles_labels()
    axis.legend(
        frameon=False,
        ncols=min(len(labels), int(width)),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_bars(summary, axis):
    """Tasks side by side, with deviations over seeds."""
    cells = {(c["task"], c["method"]): c for c in summary["cells"]}
    tasks, methods = tasks_and_methods(summary)
    width = 0.8 / len(methods)
    for k, method in enumerate(methods):
        found = [
            (i, cells[task, method])
            for i, task in enumerate(tasks)
            if (task, method) in cells
        ]
        axis.bar(
            [i + (k - (len(methods) - 1) / 2) * width for i, _ in found],
            [100 * c["mean"] for _, c in found],
            width,
            yerr=deviations(c for _, c in found),
            label=method,
            capsize=2,
        )
    axis.set_xticks(
        range(len(tasks)), [t.removeprefix("motif-") for t in tasks]
    )


def draw_curves(summary, axis):
    """Accuracy against the length of walks, and the other methods as lines."""
    tasks, _ = tasks_and_methods(summary)
    for k, task in enumerate(tasks):
        found = [c for c in summary["cells"] if c["task"] == task]
        walks = [c for c in found if c["walk_length"]]
        walks.sort(key=lambda c: c["walk_length"])
        axis.errorbar(
            [c["walk_length"] for c in walks],
            [100 * c["mean"] for c in walks],
            deviations(walks),
            label=f"{task}, gkat",
            color=f"C{k}",
            marker="o",
            capsize=2,
        )
        styles = itertools.cycle(["--", ":", "-.", (0, (1, 4))])
        others = (c for c in found if not c["walk_length"])
        for style, cell in zip(styles, others, strict=False):
            axis.axhline(
                100 * cell["mean"],
                label=f"{task}, {cell['method']}",
                color=f"C{k}",
                linestyle=style,
            )
    lengths = {c["walk_length"] for c in summary["cells"]} - {None}
    axis.set_xticks(sorted(lengths))
    axis.set_xlabel("nodes of the walks")


if __name__ == "__main__":
    sys.exit(main())
