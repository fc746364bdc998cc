"""Largest differences between converted models and their sources.

    python -m tests.convert_table

For each source and each of the published sizes Ti, S and B, random weights of
the library's own class, the same pixels through the source (its processor's
arithmetic, float32) and through the converted model: the largest difference of
any logit or feature, at the size of the model and at another, and the largest
output beside it. Of Flax parameters the source is NumPy in float64. Exits with
1 where a difference exceeds 1e-5. Needs `pip install
keras-topo[convert-tests]`; what is not installed is named.
"""

import argparse
import pathlib
import sys
import tempfile

import numpy as np

from keras_topo.convert import convert
from tests.convert import library_models, vit_oracles

LIMIT = 1e-5
IMAGE = {16: 224, 14: 224}
SQUARE = {16: (160, 160), 14: (168, 168)}
OTHER = {16: (160, 272), 14: (154, 280)}


def pixels(shape):
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (1, *shape, 3)).astype("float32")


def flax_case(toeplitz):
    """Random parameters of Flax, and the oracle."""

    def make(size, folder, patch, image):
        side = image // patch
        shapes = vit_oracles.flax_shapes(
            channels=size.channels,
            heads=size.heads,
            units=size.units,
            depth=size.depth,
            patch=(patch, patch),
            grid=(side, side),
            classes=100,
            toeplitz=toeplitz,
        )
        tree = vit_oracles.random_arrays(shapes)

        def run(images):
            x = images / 127.5 - 1
            return vit_oracles.flax_logits(tree, x, (side, side))

        return tree, run

    return library_models.Case("numpy", make)


def rows(sizes, only):
    """Lines of the table, as they are computed."""
    cases = {
        **library_models.CASES,
        "npz of ViT, from transformers": library_models.Case(
            "transformers", library_models.vit_npz
        ),
        "Flax parameters of ViT": flax_case(False),
        "Flax parameters of TopViT": flax_case(True),
    }
    for size in sizes:
        for name, case in cases.items():
            if only and only.lower() not in name.lower():
                continue
            if not case.installed:
                yield name, f"{case.library} is not installed", None
            else:
                yield name, size, differences(name, case, size)


def differences(name, case, size):
    """The largest difference and the largest output, over both image sizes."""
    image = IMAGE[case.patch]
    other = (SQUARE if case.square else OTHER)[case.patch]
    shapes = [(image, image), other]
    if name.startswith("npz"):
        shapes = shapes[:1]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        source, run = case.make(
            library_models.SIZES[size], pathlib.Path(folder), case.patch, image
        )
        for shape in shapes:
            model = convert(source, image_shape=shape, **case.options)
            images = pixels(shape)
            got, expected = np.array(model(images)), run(images)
            assert got.shape == expected.shape, (got.shape, expected.shape)
            difference = float(np.abs(got - expected).max())
            found.append((shape, difference, float(np.abs(expected).max())))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["Ti", "S", "B"])
    parser.add_argument("--only", help="a part of the names of the sources")
    arguments = parser.parse_args()
    worst = 0.0
    print("| source | size | images | largest difference | largest output |")
    print("|---|---|---|---:|---:|")
    for name, size, found in rows(arguments.sizes, arguments.only):
        if found is None:
            print(f"| {name} | {size} | | | |", flush=True)
            continue
        for shape, difference, largest in found:
            worst = max(worst, difference)
            print(
                f"| {name} | {size} | {shape[0]} x {shape[1]} | "
                f"{difference:.1e} | {largest:.1f} |",
                flush=True,
            )
    print(f"\nLargest of all: {worst:.1e}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
