"""Writes the SavedModels of presets again, from the weights that they have.

    python -m training.republish saved_models/gkat-mutag
    python -m training.republish saved_models/gkat-cora \\
        --data-dir ../shared/data/planetoid --class-names NAME,NAME,...

`1/`, `preprocessor.json`, the report in `metrics.json`, the card's sections of
use and serving, the checksums and the registry `presets.json` beside the folder
are new; weights and figures stay. A model of
nodes holds the features of its graph, and needs the data that `metrics.json`
names, in the folder `--data-dir`. What it was trained on, features divided by
their sum, it computes itself afterwards.
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


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program("republish"),
        description="Write the SavedModels of presets again.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("folders", type=path, nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--data-dir", type=path, help="where the data of models of nodes are"
    )
    parser.add_argument(
        "--class-names",
        type=lambda text: text.split(","),
        help="of a model of nodes, in the order of its logits",
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
        print(f"{folder}: exported, differences at most {difference:.1g}")
    return 0


def republish(folder, data_dir=None, class_names=None):
    """Writes `1/` of a preset and all that speaks of it.

    Args:
        folder: `pathlib.Path`, of the zoo.
        data_dir: folder of the data of a model of nodes.
        class_names: list of str of a model of nodes; defaults to those that
            the preset has.

    Returns:
        The report of the export.

    Raises:
        ValueError: if the preset has no task that is exported, or a model of
            nodes comes without its data.
    """
    described = read_json(folder / PREPROCESSOR)
    metrics, task = read_metrics(folder), described.get("task")
    model, options = exportable(folder, None, data_dir, class_names)
    # What it refuses leaves the preset as it was.
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
        (folder / CARD).read_text(encoding="utf-8"),
        usage(folder.name, task, preprocessor, shape),
        serving(folder.name, report, preprocessor),
        limits(task),
    )
    # Where it was exported to is nobody's business.
    metrics["export"] = {k: x for k, x in report.items() if k != "path"}
    write_json(folder / METRICS, metrics)
    (folder / CARD).write_text(card, encoding="utf-8")
    write_checksums(folder)
    if (folder.parent / REGISTRY).is_file():
        write_registry(folder.parent)
    return report


if __name__ == "__main__":
    sys.exit(main())
