"""Rewrites the SavedModels of presets from their weights.

    python -m training.republish saved_models/gkat-mutag
    python -m training.republish saved_models/gkat-cora \\
        --data-dir ../shared/data/planetoid --class-names NAME,NAME,...

This rewrites `1/`, `preprocessor.json`, the export report in `metrics.json`,
the usage and serving sections of the card, the checksums, and the registry
`presets.json` beside the folder. Weights and figures do not change.

A node classifier holds the features of its graph. It needs the data named in
`metrics.json`, in the folder `--data-dir`. The rewritten model takes raw
features and divides them by their sum itself.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys

import keras_topo
from keras_topo.graphs import GraphPreprocessor
from keras_topo.presets import save_preset, write_registry
from keras_topo.presets.cards import limits, replaced, serving, usage
from keras_topo.presets.folders import (
    CARD,
    METRICS,
    PREPROCESSOR,
    read_json,
    read_metrics,
    write_checksums,
    write_json,
)
from keras_topo.presets.registry import REGISTRY
from keras_topo.training.command_line import HelpFormatter, path, program
from keras_topo.training.export import exportable
from keras_topo.training.publish import without_path


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program("republish"),
        description="Rewrite the SavedModels of presets from their weights.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("folders", type=path, nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--data-dir", type=path, help="folder of a node classifier's data"
    )
    parser.add_argument(
        "--class-names",
        type=lambda text: text.split(","),
        help="class names of a node classifier, in the order of its logits",
    )
    arguments = parser.parse_args(argv)
    for folder in arguments.folders:
        try:
            report = republish(
                folder, arguments.data_dir, arguments.class_names
            )
        except (ValueError, RuntimeError, OSError) as error:
            print(f"error: {folder}: {error}", file=sys.stderr)
            return 2
        difference = report["max_abs_difference"]
        print(f"{folder}: exported, largest difference {difference:.1g}")
    return 0


def republish(folder, data_dir=None, class_names=None):
    """Rewrites `1/` of a preset and all files that describe it.

    Args:
        folder: `pathlib.Path` of a preset in the zoo.
        data_dir: folder with the data of a node classifier.
        class_names: list of str, for a node classifier; defaults to those of
            the preset.

    Returns:
        The report of the export.

    Raises:
        ValueError: if the task of the preset cannot be exported, or the data
            of a node classifier are missing.
    """
    described = read_json(folder / PREPROCESSOR)
    metrics, task = read_metrics(folder), described.get("task")
    if class_names and task != "nodes":
        raise ValueError(
            "--class-names is for presets of the task nodes. Received: "
            f"{class_names} for {folder}, of the task {task!r}"
        )
    card = (folder / CARD).read_text(encoding="utf-8")
    model, options = exportable(folder, None, data_dir, class_names)
    # If the export fails, the preset does not change.
    report = keras_topo.export(model, folder / "1", overwrite=True, **options)
    preprocessor, shape = None, None
    if "graph_preprocessor" in described:
        preprocessor = GraphPreprocessor.from_config(
            described["graph_preprocessor"]
        )
    elif task == "nodes":
        shape = options["features"].shape
        described = {
            "task": task,
            "features": {"own": shape[1], "normalization": "l1, in the model"},
            "class_names": options.get("class_names"),
        }
        save_preset(model, folder, described, metrics)
    card = replaced(
        card,
        usage(folder.name, task, preprocessor, shape),
        serving(folder.name, report, preprocessor),
        limits(task),
    )
    metrics["export"] = without_path(report)
    write_json(folder / METRICS, metrics)
    (folder / CARD).write_text(card, encoding="utf-8")
    write_checksums(folder)
    if (folder.parent / REGISTRY).is_file():
        write_registry(folder.parent)
    return report


if __name__ == "__main__":
    sys.exit(main())
