"""Adds a finished run to the zoo, with a model card.

    python -m training.publish runs/cifar saved_models/topvit-cifar10
    python -m training.publish --registry saved_models
    python -m training.publish --convert FOLDER

The folder then holds a preset (`config.json`, `model.weights.h5`,
`preprocessor.json`, `metrics.json`, `checksums.json`), `1/` (the SavedModel)
and `README.md`, a card with the header that model hubs read. Figures, command,
seed, versions and training time come from the run. `--data-license` states the
license of the data; the default is the license in the existing folder. `--note`
adds a paragraph to the card. `--image-size` exports the model of a run with
`--sizes` at one size, for files.

Publishing rewrites `saved_models/presets.json`, the registry behind
`keras_topo.presets()`. `--registry` does only that. `--convert` turns folders
of earlier versions, with a `model.keras`, into presets and compares the
weights.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import json
import shutil
import sys

import numpy as np

import keras_topo
from keras_topo.presets import from_preset, save_preset, write_registry
from keras_topo.presets.folders import (
    CONFIG,
    METRICS,
    MODEL,
    PREPROCESSOR,
    WEIGHTS,
    read_json,
    read_metrics,
    write_checksums,
)
from keras_topo.presets.registry import REGISTRY
from keras_topo.training.command_line import (
    HEIGHT_AND_WIDTH,
    HelpFormatter,
    path,
    program,
)
from keras_topo.training.export import exportable
from keras_topo.training.files import write_json, write_text
from keras_topo.training.model_card import card

# Metrics of the run that a card and `keras_topo.presets()` need.
KEPT = (
    "task",
    "data_name",
    "test_accuracy",
    "test_accuracy_of_the_file",
    "test_deviation",
    "test_standard_error",
    "runs",
    "failed",
    "test_loss",
    "validation_accuracy",
    "validation_loss",
    "epoch",
    "training_seconds",
    "updates",
    "stages",
    "teacher",
    "share_of_teacher_updates",
    "parameters",
    "images",
    "graphs",
    "nodes",
    "recipe",
    "split_sha256",
    "features",
    "image_shape",
    "class_names",
    "data_remarks",
    "command",
    "seed",
    "arguments",
    "versions",
    "export",
)


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program("publish"),
        description="Add a finished run to the zoo, with a model card.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "folders",
        type=path,
        nargs="+",
        metavar="FOLDER",
        help="the folder of a finished run, and saved_models/NAME",
    )
    parser.add_argument(
        "--convert",
        action="store_true",
        help="turn folders of an earlier version into presets",
    )
    parser.add_argument(
        "--registry",
        action="store_true",
        help="only rewrite presets.json of the folder",
    )
    parser.add_argument(
        "--data-license",
        metavar="TEXT",
        help="license of the data; default: that of the existing folder",
    )
    parser.add_argument("--title", help="title of the card; default: the name")
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        help="add a paragraph to the card",
    )
    parser.add_argument(
        "--image-size",
        **HEIGHT_AND_WIDTH,
        help="for a run with --sizes: the size that files are resized to",
    )
    arguments = parser.parse_args(argv)
    alone = arguments.convert or arguments.registry
    if not alone and len(arguments.folders) != 2:
        parser.error("expected a run and a folder of the zoo")
    try:
        if arguments.registry:
            for folder in arguments.folders:
                names = ", ".join(write_registry(folder))
                print(f"{folder / REGISTRY}: {names}")
        elif arguments.convert:
            for folder in arguments.folders:
                convert_folder(folder)
                print(f"{folder}: converted to a preset")
        else:
            run, folder = arguments.folders
            publish(
                run,
                folder,
                arguments.title,
                arguments.note,
                arguments.data_license,
                arguments.image_size,
            )
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def publish(
    run, folder, title=None, notes=(), data_license=None, image_size=None
):
    """Copies a trained model and writes its card.

    With `image_size`, height and width, the model is exported again at this
    size, and its SavedModel takes files, which the model of any size of a run
    with `--sizes` does not.

    Raises:
        ValueError: if the run is not finished or has no SavedModel, or if
            there is a registry beside the folder and no license of the data,
            or the run was not tested at `image_size`.
    """
    for name in (METRICS, CONFIG, WEIGHTS, PREPROCESSOR, "saved_model/1"):
        if not (run / name).exists():
            raise ValueError(
                f"`run` expects a finished run with {name}. Received: {run}"
            )
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {
        name: value
        for name, value in metrics.items()
        if name in KEPT or "_accuracy_at_" in name
    }
    kept |= standard_error(kept)
    if not kept.get("export"):
        raise ValueError(
            f"`run` expects {METRICS} with the signatures of an exported "
            "model, which trainings with TensorFlow write. Received: "
            f"export={kept.get('export')!r}"
        )
    kept["export"] = without_path(kept["export"])
    data_license = data_license or read_metrics(folder).get("data_license")
    registered = (folder.parent / REGISTRY).is_file()
    if data_license:
        kept["data_license"] = data_license
    elif registered:
        raise ValueError(
            "--data-license expects the license of the data, because "
            f"{folder.parent / REGISTRY} lists it. Received: no --data-license"
        )
    if image_size and (figures := figures_at(image_size, run, metrics)):
        for part in ("test", "validation"):
            kept.pop(f"{part}_loss", None)  # Known at the other size alone.
        kept |= figures
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).unlink(missing_ok=True)
    if image_size:
        kept |= export_at(run, folder, image_size)
    else:
        for name in (CONFIG, WEIGHTS, PREPROCESSOR):
            shutil.copy(run / name, folder / name)
        shutil.rmtree(folder / "1", ignore_errors=True)
        shutil.copytree(run / "saved_model" / "1", folder / "1")
    for picture in ("curves.png", "masks.png", "kernels.png", "attention.png"):
        # Plots of an earlier model must not remain.
        (folder / picture).unlink(missing_ok=True)
        if (run / picture).exists():
            shutil.copy(run / picture, folder / picture)
    write_json(folder / METRICS, kept)
    write_text(
        folder / "README.md", card(folder, kept, title or folder.name, notes)
    )
    write_checksums(folder)
    if registered:
        write_registry(folder.parent)


def figures_at(image_size, run, metrics):
    """Figures of a run that are others at another size than that of its data.

    Returns:
        A dict of accuracies and the standard error; empty at that size.

    Raises:
        ValueError: if the run was not tested at the size, or has several seeds.
    """
    height, width = image_size
    if [height, width] == metrics.get("image_shape", [])[:2]:
        return {}
    name = f"accuracy_at_{height}"
    if height != width or f"test_{name}" not in metrics:
        known = [key for key in metrics if "test_accuracy_at_" in key]
        raise ValueError(
            "--image-size expects a size that the run was tested at. Received: "
            f"{height} {width} for {run}, with {known or 'no size'}"
        )
    if metrics.get("runs", 1) > 1:
        raise ValueError(
            "--image-size expects a run of one seed, or the size of its data, "
            f"whose accuracy is the mean over the seeds. Received: {height} "
            f"{width} for {run}, with {metrics['runs']} seeds"
        )
    found = {
        f"{part}_accuracy": metrics[f"{part}_{name}"]
        for part in ("test", "validation")
        if f"{part}_{name}" in metrics
    }
    return found | standard_error({**metrics, **found})


def export_at(run, folder, image_size):
    """Saves the image model of a run at one size, and exports it.

    Returns:
        A dict for the metrics: the shape of the images, and the export.
    """
    model, options = exportable(run, image_size)
    report = keras_topo.export(model, folder / "1", overwrite=True, **options)
    described = read_json(run / PREPROCESSOR)
    described["image_shape"] = list(model.input_shape[1:])
    save_preset(model, folder, described)
    return {
        "image_shape": described["image_shape"],
        "export": without_path(report),
    }


def without_path(report):
    """A report of an export without its local path, which is private."""
    return {key: value for key, value in report.items() if key != "path"}


def convert_folder(folder):
    """Turns a folder with a `model.keras` into a preset, in place.

    Args:
        folder: `pathlib.Path`, of the zoo or of a finished run.

    Raises:
        ValueError: if there is no `model.keras`, or the preset does not hold
            the same weights.
    """
    if not (folder / MODEL).is_file():
        raise ValueError(
            f"`folder` expects a folder with {MODEL}. Received: {folder}"
        )
    metrics = read_metrics(folder)
    model = from_preset(folder / MODEL)
    save_preset(model, folder, preprocessor_of(metrics), metrics or None)
    same = zip(
        from_preset(folder).get_weights(), model.get_weights(), strict=True
    )
    if not all(np.array_equal(a, b) for a, b in same):
        raise ValueError(f"The weights of {folder} have changed.")
    (folder / MODEL).unlink()


def preprocessor_of(metrics):
    """The content of `preprocessor.json`; see `keras_topo.save_preset`.

    Args:
        metrics: dict, the summary of a run, with `task` and possibly
            `image_shape`, `features` and `class_names`.

    Returns:
        A dict, or `None` if there are no metrics.
    """
    if "task" not in metrics:
        return None
    names = metrics.get("class_names")
    if names is None:
        names = (metrics.get("export") or {}).get("class_names")
    found = {
        "task": metrics["task"],
        "image_shape": metrics.get("image_shape"),
        "features": metrics.get("features"),
        "class_names": names,
    }
    return {key: value for key, value in found.items() if value is not None}


def standard_error(metrics):
    """The standard error of a test accuracy, of one split and one seed."""
    counts = metrics.get("images") or metrics.get("graphs")
    if not counts:
        return {}
    p, n = metrics["test_accuracy"], counts["test"]
    return {"test_standard_error": (p * (1 - p) / n) ** 0.5}


if __name__ == "__main__":
    sys.exit(main())
