"""Exports a preset: a SavedModel for TensorFlow Serving, LiteRT or ONNX.

    python -m training.export topvit-cifar10 flowers/1
    python -m training.export topvit-cifar10 flowers/2 --image-size 48 64
    python -m training.export runs/mine model.onnx --format onnx
    python -m training.export gkat-cora cora/1 \\
        --data-dir ../shared/data/planetoid

The preset defines the class names, how files are decoded, and how graphs become
inputs. A node classifier holds the features of its graph. To export it, give
the folder of the data named in `metrics.json` as `--data-dir`. The export is
run outside of Keras and its outputs are compared before it is put in place.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys

import keras_topo
from keras_topo.export import FORMATS
from keras_topo.graphs import load_planetoid
from keras_topo.models import l1_normalized
from keras_topo.presets import find_preset, from_preset
from keras_topo.presets.builders import recipe_of
from keras_topo.presets.folders import (
    METRICS,
    PREPROCESSOR,
    read_json,
    read_metrics,
)
from keras_topo.training.command_line import (
    HEIGHT_AND_WIDTH,
    HelpFormatter,
    path,
    program,
)

# Decoding options of image files, the same as in training.
READING = ("max_pixels", "sample_bits")

ESTIMATORS = {
    estimator.task: estimator
    for estimator in (
        keras_topo.GraphClassifier,
        keras_topo.GraphRegressor,
        keras_topo.NodeClassifier,
        keras_topo.NodeRegressor,
    )
}


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program("export"),
        description="Export a preset for serving.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "preset", help="a preset name, a run folder, or hf://user/name"
    )
    parser.add_argument(
        "path", type=path, help="the output: a SavedModel folder, or a file"
    )
    parser.add_argument("--format", choices=FORMATS, default="saved_model")
    parser.add_argument(
        "--image-size",
        **HEIGHT_AND_WIDTH,
        help="image size of an image model; default: that of the preset",
    )
    parser.add_argument(
        "--data-dir", type=path, help="folder of a node classifier's data"
    )
    parser.add_argument(
        "--class-names",
        type=lambda text: text.split(","),
        help="class names in the order of the outputs; default: those of the "
        "preset",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing PATH"
    )
    arguments = parser.parse_args(argv)
    try:
        model, options = exportable(
            arguments.preset,
            arguments.image_size,
            arguments.data_dir,
            arguments.class_names,
            arguments.format,
        )
        if arguments.data_dir and "features" not in options:
            raise ValueError(
                "--data-dir is only for node classifiers. Received: "
                f"{arguments.data_dir} for {arguments.preset}"
            )
        report = keras_topo.export(
            model,
            arguments.path,
            arguments.format,
            overwrite=arguments.overwrite,
            **options,
        )
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{arguments.path}: {', '.join(report['signatures'])}; largest "
        f"difference {report['max_abs_difference']:.1g}"
    )
    return 0


def exportable(
    name_or_path,
    image_size=None,
    data_dir=None,
    class_names=None,
    format="saved_model",
):
    """The model of a preset and its options for `keras_topo.export`.

    Args:
        name_or_path: see `keras_topo.from_preset`.
        image_size: height and width for an image model, or `None`.
        data_dir: folder with the data of a node classifier.
        class_names: list of str; defaults to those of the preset.
        format: see `keras_topo.export`. SavedModels alone decode files.

    Returns:
        The model and a dict of options of `keras_topo.export`.

    Raises:
        ValueError: if the task of the preset cannot be exported, the data of a
            node classifier are missing, or `image_size` is given for a model
            of another kind.
    """
    folder = find_preset(name_or_path)
    file = folder / PREPROCESSOR
    described = read_json(file) if file.is_file() else {}
    task = described.get("task")
    if class_names is None and task not in ESTIMATORS:
        class_names = described.get("class_names")
    options = {"class_names": class_names} if class_names else {}
    if task != "images" and image_size:
        raise ValueError(
            f"--image-size is only for image models. Received: {image_size} "
            f"for a preset of the task {task!r}"
        )
    if task == "images":
        model = from_preset(name_or_path, image_shape=image_size)
        if format == "saved_model" and None not in model.input_shape[1:]:
            options |= {k: described[k] for k in READING if k in described}
    elif task in ESTIMATORS:
        model, own = ESTIMATORS[task].from_preset(name_or_path).exportable()
        options |= own
    elif task == "nodes":
        if data_dir is None:
            raise ValueError(
                "--data-dir expects the folder with the data of the node "
                "classifier. Received: no --data-dir"
            )
        data = read_metrics(folder).get("arguments", {}).get("data")
        if data is None:
            raise ValueError(
                "`preset` of a node classifier expects the name of its data "
                f"in {folder / METRICS}. Received: none"
            )
        options["features"] = load_planetoid(data_dir, data).graph.features
        model = from_preset(name_or_path)
        if recipe_of(model).builder != "l1_normalized":
            model = l1_normalized(model)
    else:
        raise ValueError(
            "`preset` expects a task that can be exported. Received: "
            f"task={task!r}"
        )
    return model, options


if __name__ == "__main__":
    sys.exit(main())
