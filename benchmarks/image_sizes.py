"""Accuracy of image models at several sizes of the same test images.

    python -m benchmarks.image_sizes --data-dir ../shared/data/cifar10

The test images of CIFAR-10 are enlarged to each size, without keeping their
aspect ratio, as in training. Each preset is loaded with this `image_shape`:
its positions and tables of offsets are resampled.
"""

from training import startup  # noqa: F401  isort: skip

import argparse
import json
import sys

from benchmarks.harness import existing, path
from keras_topo.presets import from_preset
from keras_topo.training.command_line import positive_int
from keras_topo.training.datasets import load_images


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=existing, required=True)
    parser.add_argument(
        "--presets",
        nargs="+",
        default=["topvit-cifar10", "topvit-cifar10-sizes"],
    )
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", default=[32, 40, 48]
    )
    parser.add_argument(
        "--limit", type=positive_int, help="use at most this many images"
    )
    parser.add_argument("--json", type=path, help="add the rows to this file")
    arguments = parser.parse_args(argv)
    rows = []
    for size in arguments.sizes:
        images, labels = load_images(
            "cifar10",
            arguments.data_dir,
            image_size=(size, size),
            limit=arguments.limit,
        ).test
        for preset in arguments.presets:
            model = from_preset(preset, image_shape=(size, size))
            logits = model.predict(images, batch_size=250, verbose=0)
            right = float((logits.argmax(-1) == labels).mean())
            print(f"{preset:24} {size:3} x {size:<3} {right:7.2%}", flush=True)
            rows.append({"preset": preset, "size": size, "right": right})
    if arguments.json:
        with arguments.json.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
