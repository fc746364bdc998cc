"""Samples text from a language model of `training.train`.

    python -m training.sample runs/text --prompt "import os" --bytes 1000

The prompt is the start of a file. The model continues it until the file ends or
`--bytes` is reached.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys

import keras

import keras_topo  # noqa: F401  registers the layers
from keras_topo.training.command_line import (
    HelpFormatter,
    natural,
    path,
    positive_float,
    positive_int,
    program,
)
from keras_topo.training.tasks.text import sample


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program("sample"),
        description="Sample text from a trained language model.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("run", type=path, help="the folder of a finished run")
    parser.add_argument("--prompt", default="", help="the start of the file")
    parser.add_argument(
        "--bytes",
        type=positive_int,
        default=500,
        metavar="N",
        help="write at most N bytes",
    )
    parser.add_argument(
        "--temperature",
        type=positive_float,
        default=0.8,
        help="lower values make likely bytes more likely",
    )
    parser.add_argument(
        "--top-k",
        type=positive_int,
        metavar="K",
        help="sample from the K most probable bytes",
    )
    parser.add_argument("--seed", type=natural, help="seed of the sampling")
    arguments = parser.parse_args(argv)
    file = arguments.run / "model.keras"
    if not file.is_file():
        print(
            "error: expected the folder of a finished run, with model.keras. "
            f"Received: {arguments.run}",
            file=sys.stderr,
        )
        return 2
    model = keras.saving.load_model(file)
    if not hasattr(model, "generate"):
        print(
            "error: expected a run of a language model. Received: "
            f"{arguments.run}, whose model has no `generate`",
            file=sys.stderr,
        )
        return 2
    print(
        sample(
            model,
            arguments.prompt,
            arguments.bytes,
            arguments.temperature,
            arguments.top_k,
            arguments.seed,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
