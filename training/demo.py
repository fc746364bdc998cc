"""Classifies image files with an exported model, with TensorFlow alone.

    python -m training.demo RUN [IMAGE ...]

RUN is a run folder of `python -m training.images`. Without IMAGE the test
images in RUN/samples are classified. Nothing of keras_topo is loaded: the
SavedModel is all that a server needs.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys
from pathlib import Path

import tensorflow as tf


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.demo")
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("image", type=Path, nargs="*", help="image files")
    arguments = parser.parse_args(argv)
    saved_model = arguments.run / "saved_model" / "1"
    if not saved_model.is_dir():
        print(
            "error: expected the folder of a finished run, with a SavedModel "
            f"in saved_model/1. Received: {arguments.run}",
            file=sys.stderr,
        )
        return 2
    samples = not arguments.image
    files = arguments.image or sorted(
        (arguments.run / "samples").glob("*/*.png")
    )
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        print(
            f"error: expected image files. Received: {', '.join(missing)}",
            file=sys.stderr,
        )
        return 2

    print(f"Loading {saved_model} with TensorFlow {tf.__version__} ...")
    model = tf.saved_model.load(str(saved_model))
    classify = model.signatures["classify_bytes"]

    def answer_for(files):
        encoded = [file.read_bytes() for file in files]
        return classify(image_bytes=tf.constant(encoded))

    try:
        answer = answer_for(files)
    except tf.errors.InvalidArgumentError:
        # The model refuses the batch; asked one at a time, it names the file.
        for file in files:
            try:
                answer_for([file])
            except tf.errors.InvalidArgumentError as error:
                print(f"error: {file}: {error.message}", file=sys.stderr)
                return 2
        raise
    if "keras_topo" not in sys.modules:
        print("Classified from encoded bytes, without keras_topo:")

    right = 0
    for file, classes, scores in zip(
        files,
        answer["classes"].numpy(),
        answer["scores"].numpy(),
        strict=True,
    ):
        names = [name.decode() for name in classes]
        guesses = ", ".join(
            f"{name} {score:.1%}"
            for name, score in list(zip(names, scores, strict=True))[:3]
        )
        verdict = ""
        if samples:
            correct = names[0] == file.parent.name
            right += correct
            verdict = "right: " if correct else "WRONG: "
        print(f"  {file}  {verdict}{guesses}")
    if samples:
        print(f"{right} of {len(files)} held-out images right.")
    drawn = [
        str(path)
        for path in (arguments.run / "curves.png", arguments.run / "masks.png")
        if path.exists()
    ]
    if drawn:
        print(f"Pictures of the training: {', '.join(drawn)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
