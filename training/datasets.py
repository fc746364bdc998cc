"""Image data sets in memory, as training, validation and test splits.

There are three sources: scikit-learn's `digits`, `cifar10` (tars or folders of
JPEGs, or the Keras download), and any folder of class folders. All images are
decoded into memory before training starts, and must fit into half of it (1 GB
of uint8 holds 350,000 images of 32 x 32 pixels, or 7,000 of 224 x 224). The
error for a broken file names its path. Files are decoded as in exported models;
see `keras_topo.decoding`. Hidden files and folders are skipped.
"""

from pathlib import Path

import numpy as np

from keras_topo.training.image_data import (
    Choice,
    ImageData,
    Split,
    from_arrays,
    from_files,
)
from keras_topo.training.image_files import (
    MAX_PIXELS,
    read_class_folders,
    read_tar,
)

__all__ = ["ImageData", "Split", "load_images"]


def load_images(
    data="digits",
    data_dir=None,
    image_size=None,
    limit=None,
    classes=None,
    per_class=None,
    max_pixels=MAX_PIXELS,
    sample_bits=None,
):
    """Loads a data set by name or by folder.

    The splits do not depend on a seed. If a source has no split, items are held
    out per class, always in the same order.

    Args:
        data: `"digits"`, `"cifar10"`, or the path of a folder: either of
            class folders, or of `train/`, `validation/` and `test/` folders of
            class folders (if `validation/` or `test/` is missing, it is held
            out from `train/`).
        data_dir: for `"cifar10"`: folder with `cifar10-train.tar` and
            `cifar10-test.tar`, or with `train/` and `test/`. Without it,
            `keras.datasets` downloads the data set.
        image_size: `(height, width)`; every image is resized to it, without
            keeping the aspect ratio. Default: 8 x 8 for digits, 32 x 32 for
            cifar10, and for a folder the size of its first image, which may
            have at most 512 x 512 pixels.
        limit: use at most this many images of each split, for trial runs; the
            other files are not decoded.
        classes: names of the classes to use, at least two; default: all.
        per_class: use this many training images of each class (or all, if
            there are fewer), always the same ones. Validation and test images
            do not change.
        max_pixels: the largest height x width of an image file, read from its
            header: a small file may claim billions of pixels.
        sample_bits: int from 8 to 16, number of bits used in the samples of
            16-bit PNGs, such as 12 for a camera that writes 0..4095. Default:
            16, and an error if the images are then nearly black.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: for a missing or empty folder, an unreadable image file
            (named), a truncated or malicious archive, more images than fit
            into half of the memory, or an invalid argument.
    """
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise ValueError(
            "`image_size` must be two positive integers (height, width). "
            f"Received: image_size={image_size}"
        )
    if limit is not None and limit < 1:
        raise ValueError(
            f"`limit` must be a positive integer. Received: limit={limit}"
        )
    if per_class is not None and per_class < 1:
        raise ValueError(
            "`per_class` must be a positive integer. Received: "
            f"per_class={per_class}"
        )
    if max_pixels < 1:
        raise ValueError(
            "`max_pixels` must be a positive integer. Received: "
            f"max_pixels={max_pixels}"
        )
    if sample_bits is not None and sample_bits not in range(8, 17):
        raise ValueError(
            "`sample_bits` must be an integer from 8 to 16. Received: "
            f"sample_bits={sample_bits}"
        )
    choice = Choice(
        limit, classes and tuple(classes), per_class, max_pixels, sample_bits
    )
    if data != "cifar10" and data_dir is not None:
        raise ValueError(
            '`data_dir` is only for data="cifar10"; pass a folder of images '
            f"as `data`. Received: data={data!r}, data_dir={str(data_dir)!r}"
        )
    if data == "digits":
        return _load_digits(image_size, choice)
    if data == "cifar10":
        return _load_cifar10(data_dir, image_size, choice)
    return _load_folder(data, image_size, choice)


def _load_digits(image_size, choice):
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(
            'data="digits" needs scikit-learn: '
            "pip install 'keras-topo[training]'. Received: data='digits'"
        ) from error
    digits = load_digits()
    # Scale the 17 gray levels, 0..16, to 0..255.
    images = np.round(digits.images * (255 / 16)).astype("uint8")[..., None]
    return from_arrays(
        {"train": Split(images, digits.target.astype("int32"))},
        tuple(str(name) for name in digits.target_names),
        image_size,
        choice,
    )


def _load_cifar10(data_dir, image_size, choice):
    if data_dir is None:
        return _download_cifar10(image_size, choice)
    data_dir = Path(data_dir).expanduser()
    tars = {
        name: data_dir / f"cifar10-{name}.tar" for name in ("train", "test")
    }
    if all(tar.is_file() for tar in tars.values()):
        remarks = []
        encoded = {
            name: read_tar(tar, name, remarks) for name, tar in tars.items()
        }
        return from_files(encoded, image_size or (32, 32), choice, remarks)
    if all((data_dir / name).is_dir() for name in tars):
        return _load_folder(data_dir, image_size or (32, 32), choice)
    raise ValueError(
        "`data_dir` must be a folder that holds cifar10-train.tar and "
        "cifar10-test.tar, or the unpacked folders train/ and test/. "
        f"Received: data_dir={str(data_dir)!r}"
    )


def _download_cifar10(image_size, choice):
    import keras

    try:
        (x, y), (test_x, test_y) = keras.datasets.cifar10.load_data()
    except Exception as error:
        raise ValueError(
            "CIFAR-10 could not be downloaded by keras.datasets. Give "
            "`data_dir` (--data-dir), a folder that holds cifar10-train.tar "
            "and cifar10-test.tar or the unpacked folders train/ and test/. "
            "Received: data_dir=None"
        ) from error
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    splits = {
        "train": Split(x, y.ravel().astype("int32")),
        "test": Split(test_x, test_y.ravel().astype("int32")),
    }
    return from_arrays(splits, tuple(names.split()), image_size, choice)


def _load_folder(folder, image_size, choice):
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(
            '`data` (--data) must be "digits", "cifar10" or an existing '
            f"folder. Received: data={str(folder)!r}"
        )
    remarks = []
    if (folder / "train").is_dir():
        names = sorted(
            path.name
            for path in folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )
        if not set(names) <= {"train", "validation", "test"}:
            raise ValueError(
                "Besides train/, a folder may hold only validation/ and test/. "
                f"Received: {str(folder)!r} with {names}"
            )
        encoded = {
            name: read_class_folders(folder / name, remarks) for name in names
        }
    else:
        encoded = {"train": read_class_folders(folder, remarks)}
    return from_files(encoded, image_size, choice, remarks)
