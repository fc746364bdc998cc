"""Accuracy on photographs in the eight EXIF orientations.

    python -m benchmarks.orientations --data-dir ../shared/data/cifar10

Each test image of CIFAR-10 is stored eight times, with its pixels transformed
for one EXIF orientation and the tag for it, as PNG, JPEG and lossless WebP. The
preset topvit-cifar10 then classifies the files twice: as decoded by the
training reader, and with the SavedModel of the preset, in a process with
TensorFlow and without Keras. For PNG and WebP the results must equal those of
the upright images. JPEG loses a little, and a little more if the pixels are
transformed.
"""

from training import startup  # noqa: F401  isort: skip

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import existing, path
from keras_topo.export.verification import answers_of_a_clean_process
from keras_topo.presets import find_preset, from_preset, read_preprocessor
from keras_topo.training.command_line import positive_int
from keras_topo.training.datasets import load_images
from keras_topo.training.image_files import EncodedImage, Reader

# The stored pixels of an upright image, for each orientation.
TURNS = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}
FORMATS = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}


def main(argv=None):
    """Runs the script; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=existing, required=True)
    parser.add_argument("--preset", default="topvit-cifar10")
    parser.add_argument("--images", type=positive_int, default=500)
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=list(FORMATS)
    )
    parser.add_argument("--json", type=path, help="add the rows to this file")
    arguments = parser.parse_args(argv)
    images, labels = load_images(
        "cifar10", arguments.data_dir, limit=arguments.images
    ).test
    classes = read_preprocessor(arguments.preset)["class_names"]
    model = from_preset(arguments.preset)
    folder = find_preset(arguments.preset) / "1"
    rows = []
    for file_format in arguments.formats:
        files = [
            stored(pixels, orientation, file_format)
            for orientation in TURNS
            for pixels in images
        ]
        read = by_the_model(model, files)
        served = by_the_server(folder, files, classes)
        shape = (len(TURNS), len(images))
        for way, found in (("training reader", read), ("SavedModel", served)):
            right = (found.reshape(shape) == labels).mean(axis=1)
            rows += [
                {
                    "format": file_format,
                    "way": way,
                    "orientation": k,
                    "right": x,
                }
                for k, x in zip(TURNS, right.tolist(), strict=True)
            ]
            print(
                f"{file_format:5} {way:16}"
                + "".join(f" {x:7.1%}" for x in right),
                flush=True,
            )
        print(f"{file_format:5} the two agree {np.mean(read == served):9.2%}")
    if arguments.json:
        with arguments.json.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    exact = [row for row in rows if row["format"] != "JPEG"]
    return int(len({row["right"] for row in exact}) > 1)


def stored(pixels, orientation, file_format):
    """The bytes of a file with pixels as a camera stores them."""
    exif = Image.Exif()
    exif[274] = orientation
    turned = np.ascontiguousarray(TURNS[orientation](pixels))
    stream = io.BytesIO()
    options = FORMATS[file_format]
    Image.fromarray(turned).save(stream, file_format, exif=exif, **options)
    return stream.getvalue()


def by_the_model(model, files):
    """Classes from the preset's model, with files read as in training."""
    reader, pixels, size = Reader(), [], model.input_shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image")
        for content in files:
            file.write_bytes(content)
            encoded = EncodedImage(str(file), "", file)
            pixels.append(reader.read(encoded, size)[0])
    return model.predict(np.array(pixels), verbose=0).argmax(-1)


def by_the_server(folder, files, classes):
    """Classes from the SavedModel, which decodes the files itself."""
    requests = [
        (
            "classify_bytes",
            {"image_bytes": np.array(files[k : k + 500], object)},
        )
        for k in range(0, len(files), 500)
    ]
    answers = answers_of_a_clean_process(folder, requests)
    names = np.concatenate([answer["classes"][:, 0] for answer in answers])
    return np.array([classes.index(name.decode()) for name in names])


if __name__ == "__main__":
    sys.exit(main())
