"""Classifies files with an exported model, using only TensorFlow.

    python -m training.demo RUN [FILE ...]

RUN is a run folder of `python -m training.train images` (files are images) or
`graphs` (files are serialized GraphTensors). Without FILE, the test examples in
RUN/samples are classified. keras_topo is not imported: a server needs only the
SavedModel.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import json
import re
import sys
from pathlib import Path

import tensorflow as tf


def _path(text):
    return Path(text).expanduser()


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name}",
        description="Classify files with the SavedModel of a run.",
    )
    parser.add_argument("run", type=_path, help="the run folder")
    parser.add_argument(
        "file",
        type=_path,
        nargs="*",
        default=[],
        help="images or serialized GraphTensors; default: the test examples "
        "in RUN/samples",
    )
    arguments = parser.parse_args(argv)
    run = arguments.run
    saved_model = run / "saved_model" / "1"
    if not saved_model.is_dir():
        print(
            "error: expected the folder of a finished run, with a SavedModel "
            f"in saved_model/1. Received: {run}",
            file=sys.stderr,
        )
        return 2
    samples = not arguments.file
    files = arguments.file or sorted((run / "samples").glob("*/*.*"))
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        print(
            "error: expected files to classify. Received: "
            + (", ".join(missing) or f"none in {run / 'samples'}"),
            file=sys.stderr,
        )
        return 2

    print(f"Loading {saved_model} with TensorFlow {tf.__version__} ...")
    model = tf.saved_model.load(str(saved_model))
    try:
        names, scores = classify(model, files, run)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except tf.errors.InvalidArgumentError:
        # The model refuses the whole batch: find the file one by one.
        for file in files:
            try:
                classify(model, [file], run)
            except tf.errors.InvalidArgumentError as error:
                print(f"error: {file} {reason(error)}", file=sys.stderr)
                return 2
        raise
    if "keras_topo" not in sys.modules:
        images = "classify_bytes" in model.signatures
        kind = "encoded images" if images else "serialized graphs"
        print(f"Classified from {kind}, without keras_topo:")

    right = 0
    for file, row, shares in zip(files, names, scores, strict=True):
        guesses = ", ".join(
            f"{name} {share:.1%}"
            for name, share in list(zip(row, shares, strict=True))[:3]
        )
        verdict = ""
        if samples:
            correct = row[0] == file.parent.name
            right += correct
            verdict = "correct: " if correct else "WRONG: "
        print(f"  {file}  {verdict}{guesses}")
    if samples:
        print(f"{right} of {len(files)} held-out examples correct.")
        drawn = [
            str(run / name)
            for name in (
                "curves.png",
                "masks.png",
                "kernels.png",
                "attention.png",
            )
            if (run / name).exists()
        ]
        if drawn:
            print(f"Plots: {', '.join(drawn)}")
    return 0


def classify(model, files, run):
    """Class names and scores of each file, best first, two lists."""
    encoded = tf.constant([file.read_bytes() for file in files])
    if "classify_bytes" in model.signatures:
        answer = model.signatures["classify_bytes"](image_bytes=encoded)
        names = [
            [name.decode() for name in row] for row in answer["classes"].numpy()
        ]
        return names, answer["scores"].numpy()
    if "serve_examples" not in model.signatures:
        raise ValueError(
            "`run` expects a SavedModel that takes files. Received: one with "
            f"the signatures {', '.join(model.signatures)}; `keras-topo export "
            "RUN PATH --image-size HEIGHT WIDTH` makes one that does"
        )
    answer = model.signatures["serve_examples"](examples=encoded)
    shares = answer["probabilities"].numpy()
    export = json.loads((run / "metrics.json").read_text())["export"]
    classes = export["class_names"] or [str(k) for k in range(shares.shape[1])]
    order = (-shares).argsort(axis=1)
    names = [[classes[k] for k in row] for row in order]
    return names, [row[k] for row, k in zip(shares, order, strict=True)]


def reason(error):
    """The model's own error text in a message of TensorFlow."""
    for pattern in (r"image_bytes\[\d+\] ([^\]]*)", r"\[(`[^\]]*)\]"):
        words = re.search(pattern, error.message)
        if words:
            return words[1]
    return f"cannot be read ({error.message.splitlines()[0]})"


if __name__ == "__main__":
    sys.exit(main())
