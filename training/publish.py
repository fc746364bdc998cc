"""Puts a finished run into the zoo, with a model card.

    python -m training.publish runs/cifar saved_models/topvit-cifar10
    python -m training.publish --convert saved_models/*

The folder then holds a preset (`config.json`, `model.weights.h5`,
`preprocessor.json`, `metrics.json`, `checksums.json`), `1/` (the SavedModel)
and `README.md`, a card with the header that model hubs read. Figures, command,
seed, versions and training time are those of the run; nothing is computed here.
`--note` adds a paragraph to the card, such as what twins of the model reach.
`--convert` turns folders of earlier versions, with a `model.keras`, into
presets, and compares the weights.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from keras_topo.graphs import GraphPreprocessor
from keras_topo.presets import from_preset, save_preset
from keras_topo.presets.cards import limits, serving, usage
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
from keras_topo.training.command_line import HelpFormatter, path
from keras_topo.training.convert import built_again
from keras_topo.training.run import (
    preprocessor_of,
    read_lines,
    write_json,
    write_text,
)

# Of the run, what a card and `keras_topo.presets()` need.
KEPT = (
    "task",
    "data_name",
    "test_accuracy",
    "test_deviation",
    "test_standard_error",
    "runs",
    "test_loss",
    "validation_accuracy",
    "epoch",
    "training_seconds",
    "parameters",
    "images",
    "graphs",
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
PIPELINES = {
    "images": "image-classification",
    "graphs": "graph-ml",
    "nodes": "graph-ml",
}
LAYERS = {
    "images": "topologically masked linear attention (TopViT)",
    "graphs": "graph kernel attention (GKAT)",
    "nodes": "graph kernel attention (GKAT)",
}


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.publish",
        description="Put a finished run into the zoo, with a model card.",
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
        help="turn the folders, of an earlier version, into presets",
    )
    parser.add_argument("--title", help="of the card; default: the name")
    parser.add_argument(
        "--note", action="append", default=[], help="a paragraph of the card"
    )
    arguments = parser.parse_args(argv)
    if not arguments.convert and len(arguments.folders) != 2:
        parser.error("a run and a folder of the zoo are expected")
    try:
        if arguments.convert:
            for folder in arguments.folders:
                print(f"{folder}: {convert_folder(folder)}")
        else:
            run, folder = arguments.folders
            publish(run, folder, arguments.title, arguments.note)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def publish(run, folder, title=None, notes=()):
    """Copies what was trained and writes the card.

    Raises:
        ValueError: if the run is not finished, or has no SavedModel.
    """
    for name in (METRICS, CONFIG, WEIGHTS, PREPROCESSOR, "saved_model/1"):
        if not (run / name).exists():
            raise ValueError(
                f"`run` expects a finished run with {name}. Received: {run}"
            )
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {name: metrics[name] for name in KEPT if name in metrics}
    kept |= standard_error(kept)
    lines = read_lines(run / "runs.jsonl")
    if lines:
        # The file holds the model of the first of several seeds.
        kept["test_accuracy_of_the_file"] = lines[0]["test_accuracy"]
    # Where it was exported to is nobody's business.
    kept["export"] = {
        key: value for key, value in kept["export"].items() if key != "path"
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS, PREPROCESSOR):
        shutil.copy(run / name, folder / name)
    (folder / MODEL).unlink(missing_ok=True)
    shutil.rmtree(folder / "1", ignore_errors=True)
    shutil.copytree(run / "saved_model" / "1", folder / "1")
    for picture in ("curves.png", "masks.png", "kernels.png", "attention.png"):
        # One of an earlier model is not to stay.
        (folder / picture).unlink(missing_ok=True)
        if (run / picture).exists():
            shutil.copy(run / picture, folder / picture)
    write_json(folder / METRICS, kept)
    write_text(
        folder / "README.md", card(folder, kept, title or folder.name, notes)
    )
    write_checksums(folder)


def convert_folder(folder):
    """Turns a folder with a `model.keras` into a preset, in place.

    Args:
        folder: `pathlib.Path`, of the zoo or of a finished run.

    Returns:
        str, what the configuration of the preset is.

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
    again = built_again(model, metrics) if metrics else None
    weights = model.get_weights()
    if again is not None:
        again.set_weights(weights)
    save_preset(
        model if again is None else again,
        folder,
        preprocessor_of(metrics),
        metrics or None,
    )
    same = zip(from_preset(folder).get_weights(), weights, strict=True)
    if not all(np.array_equal(a, b) for a, b in same):
        raise ValueError(f"the weights of {folder} have changed")
    (folder / MODEL).unlink()
    builder = read_json(folder / CONFIG).get("builder")
    return f"builder {builder}" if builder else "a configuration of Keras"


def standard_error(metrics):
    """How far a test of so many, of one split and one seed, may be off."""
    counts = metrics.get("images") or metrics.get("graphs")
    if not counts:
        return {}
    p, n = metrics["test_accuracy"], counts["test"]
    return {"test_standard_error": (p * (1 - p) / n) ** 0.5}


def card(folder, metrics, title, notes):
    """The model card, Markdown with a YAML header."""
    task, name = metrics["task"], folder.name
    data = Path(metrics["arguments"]["data"]).stem
    accuracy = metrics["test_accuracy"]
    header = f"""---
library_name: keras
license: apache-2.0
pipeline_tag: {PIPELINES[task]}
tags:
- keras
- tensorflow
- keras_topo
- linear-attention
datasets:
- {data}
metrics:
- accuracy
model-index:
- name: {name}
  results:
  - task:
      type: {PIPELINES[task]}
    dataset:
      name: {data}
      type: {data}
    metrics:
    - type: accuracy
      value: {accuracy:.4f}
---
"""
    paragraphs = [f"# {title}", describe(metrics, data)]
    paragraphs += list(notes)
    preprocessor = read_json(folder / PREPROCESSOR).get("graph_preprocessor")
    if preprocessor is not None:
        preprocessor = GraphPreprocessor.from_config(preprocessor)
    paragraphs += [
        usage(name, task, preprocessor),
        serving(name, metrics["export"], preprocessor),
    ]
    paragraphs += [origin(metrics), limits(task)]
    pictures = [
        f"![{text}]({file})"
        for file, text in (
            ("masks.png", "Learned masks by layer and head"),
            ("kernels.png", "Kernels of a test graph of each class"),
            ("attention.png", "What a token attends to, by layer and head"),
            ("curves.png", "Loss and accuracy by epoch"),
        )
        if (folder / file).exists()
    ]
    return header + "\n" + "\n\n".join([*paragraphs, *pictures]) + "\n"


def describe(metrics, data):
    counts = metrics.get("images") or metrics.get("graphs") or {}
    tested = f"of test {metrics['task']}"
    if counts:
        tested = f"of {counts['test']:,} test {metrics['task']}"
    text = (
        f"A classifier of {metrics['task']} by {LAYERS[metrics['task']]}, "
        f"{metrics['parameters']:,} parameters, trained on {data}: "
        f"**{metrics['test_accuracy']:.2%}** {tested} are right."
    )
    if metrics.get("runs", 1) > 1:
        text += (
            f" That is the mean over {metrics['runs']} seeds, with a deviation "
            f"of {metrics['test_deviation']:.2%}; the file holds the first, "
            f"with {metrics['test_accuracy_of_the_file']:.2%}."
        )
    if counts:
        text += (
            f" Trained on {counts['train']:,}, epochs watched on "
            f"{counts['validation']:,}, tested once. The standard error of "
            f"a share of so many {metrics['task']} is "
            f"{metrics['test_standard_error']:.1%}."
        )
    for remark in metrics.get("data_remarks", ()):
        text += f" {remark[0].upper()}{remark[1:]}."
    return text


def origin(metrics):
    versions = ", ".join(f"{k} {v}" for k, v in metrics["versions"].items())
    seconds = metrics["training_seconds"]
    return (
        f"Made by `{metrics['command']}`, in {seconds:,.0f} seconds of "
        f"training ({versions}). `metrics.json` has all arguments."
    )


if __name__ == "__main__":
    sys.exit(main())
