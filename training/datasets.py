"""Image data sets in memory, as training, validation and test splits.

Three sources: scikit-learn's `digits`, `cifar10` (tars or folders of JPEGs, or
the Keras download), and any folder of class folders. All images are decoded
into memory before training starts: a broken file is refused by its path, and
the data set must fit (uint8: 1 GB holds 350,000 images of 32 x 32 pixels, or
7,000 of 224 x 224).
"""

import dataclasses
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import tensorflow as tf

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")
VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2


class Split(NamedTuple):
    """`images` (n, height, width, channels) uint8 and `labels` (n,) int32."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Three splits, the class names in label order, and remarks to print.

    Attributes:
        train, validation, test: `Split`s; pixels on the scale 0..255.
        class_names: tuple of str, `class_names[label]`.
        remarks: tuple of str, what was done to the data (images resized,
            files left out, splits held out).
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple
    remarks: tuple = ()

    @property
    def image_shape(self):
        return tuple(self.train.images.shape[1:])

    def sizes(self):
        return {
            name: len(getattr(self, name).labels)
            for name in ("train", "validation", "test")
        }

    def as_rgb(self):
        """The same, gray images repeated over three channels."""
        if self.image_shape[-1] == 3:
            return self
        splits = {
            name: Split(np.repeat(split.images, 3, axis=-1), split.labels)
            for name, split in (
                ("train", self.train),
                ("validation", self.validation),
                ("test", self.test),
            )
        }
        remarks = (*self.remarks, "gray images repeated over three channels")
        return dataclasses.replace(self, **splits, remarks=remarks)


class _Choice(NamedTuple):
    """Which images to take, by three arguments of `load_images`."""

    limit: int | None
    classes: tuple | None
    per_class: int | None

    def class_names(self, found):
        """Those of the classes found that are chosen, in their order."""
        if self.classes is None:
            return found
        unknown = sorted(set(self.classes) - set(found))
        if unknown or len(set(self.classes)) < 2:
            raise ValueError(
                f"`classes` expects at least two of {list(found)}. Received: "
                f"{list(self.classes)}"
            )
        return tuple(name for name in found if name in self.classes)


class _EncodedImage(NamedTuple):
    """An image file not yet decoded; `where` names it in errors."""

    where: str
    class_name: str
    data: object  # bytes, or a path to read


def load_images(
    data="digits",
    data_dir=None,
    image_size=None,
    limit=None,
    classes=None,
    per_class=None,
):
    """Loads a data set by name or by folder.

    The splits do not depend on any seed: what a source does not split itself
    is held out per class in an order that is always the same.

    Args:
        data: `"digits"`, `"cifar10"`, or the path of a folder: either of
            class folders, or of `train/`, `validation/` and `test/` folders of
            class folders (`validation/` and `test/` are held out from
            `train/` where missing).
        data_dir: for `"cifar10"`: the folder that holds `cifar10-train.tar`
            and `cifar10-test.tar`, or `train/` and `test/`. Without it the
            data set is downloaded by `keras.datasets`.
        image_size: `(height, width)` that every image is resized to, the
            aspect ratio not kept. Default: 8 x 8 for digits, 32 x 32 for
            cifar10, for a folder the size of its first image.
        limit: take at most this many images of each split, for trial runs;
            files beyond it are not decoded.
        classes: names of the classes to take, at least two; default: all.
        per_class: take this many training images of each class (or all, where
            there are fewer), always the same ones. Validation and test images
            are not touched.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: a missing or empty folder, a file that is no readable
            image (named), a truncated or malicious archive, a bad argument.
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
    choice = _Choice(limit, classes and tuple(classes), per_class)
    if data != "cifar10" and data_dir is not None:
        raise ValueError(
            '`data_dir` belongs to data="cifar10"; a folder of images is '
            f"given as `data` itself. Received: data={data!r}, "
            f"data_dir={str(data_dir)!r}"
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
    # 17 grey levels, 0..16, spread over the scale of any other image.
    images = np.round(digits.images * (255 / 16)).astype("uint8")[..., None]
    return _from_arrays(
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
        encoded = {name: _read_tar(tar, name) for name, tar in tars.items()}
        return _from_files(encoded, image_size or (32, 32), choice, [])
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
    return _from_arrays(splits, tuple(names.split()), image_size, choice)


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
                "Beside train/ a folder may hold validation/ and test/, and "
                f"no other folder. Received: {str(folder)!r} with {names}"
            )
        encoded = {
            name: _read_class_folders(folder / name, remarks) for name in names
        }
    else:
        encoded = {"train": _read_class_folders(folder, remarks)}
    return _from_files(encoded, image_size, choice, remarks)


def _read_class_folders(folder, remarks):
    """Lists the image files of a folder of class folders, in sorted order."""
    classes = sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    if not classes:
        raise ValueError(
            "A folder of images must hold one folder per class. "
            f"Received: {str(folder)!r}, which holds none"
        )
    encoded = []
    others = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    )
    for class_folder in classes:
        files = sorted(
            path
            for path in class_folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )
        images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
        others += [f for f in files if f.suffix.lower() not in IMAGE_SUFFIXES]
        if not images:
            raise ValueError(
                "Every class folder must hold images "
                f"({', '.join(IMAGE_SUFFIXES)}). "
                f"Received: {str(class_folder)!r}, which holds none"
            )
        encoded += [_EncodedImage(str(f), class_folder.name, f) for f in images]
    if others:
        remarks.append(
            f"left out {len(others)} files that are no images by their name or "
            f"in no class folder, e.g. {others[0]}"
        )
    return encoded


def _read_tar(path, split):
    """Reads `<split>/<class>/<file>` members into memory, unpacking nothing."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        # A complete archive ends in two empty blocks of 512 bytes.
        file.seek(max(size - 1024, 0))
        if file.read() != bytes(1024):
            raise ValueError(
                "The archive is truncated or not an uncompressed tar. "
                f"Received: {str(path)!r} of {size} bytes"
            )
    encoded = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                _check_member(path, member)
                if member.isdir():
                    continue
                parts = PurePosixPath(member.name).parts
                if len(parts) != 3 or parts[0] != split:
                    raise ValueError(
                        f"{path} must hold members {split}/<class>/<file>. "
                        f"Received: {member.name!r}"
                    )
                encoded.append(
                    _EncodedImage(
                        f"{path}: {member.name}",
                        parts[1],
                        tar.extractfile(member).read(),
                    )
                )
    except tarfile.TarError as error:
        raise ValueError(
            f"The archive is damaged ({error}). Received: {str(path)!r}"
        ) from error
    if not encoded:
        raise ValueError(
            f"The archive must hold images. Received: {str(path)!r}, an "
            "empty one"
        )
    # The order of an archive is an accident; that of the names is not.
    return sorted(encoded, key=lambda image: image.where)


def _check_member(path, member):
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        problem = "a path that leads outside the archive"
    elif not (member.isfile() or member.isdir()):
        problem = "a link or a device"
    else:
        return
    raise ValueError(
        "An archive of images must hold plain files with relative paths. "
        f"Received: {member.name!r} in {str(path)!r}, {problem}"
    )


def _from_arrays(splits, class_names, image_size, choice):
    """Makes an `ImageData` of decoded `splits`, a dict of `Split`s."""
    remarks = []
    labels = {name: split.labels for name, split in splits.items()}
    taken = {}
    for name, (source, indices) in _plan(
        labels, class_names, choice, remarks
    ).items():
        images = splits[source].images[indices]
        if image_size is not None and tuple(image_size) != images.shape[1:3]:
            images = _resize(images, image_size)
        taken[name] = Split(images, labels[source][indices])
    size = splits["train"].images.shape[1:3]
    if taken["train"].images.shape[1:3] != size:
        remarks.append(f"resized all images to {_format_size(image_size)}")
    return _image_data(taken, class_names, choice, remarks)


def _from_files(encoded, image_size, choice, remarks):
    """Makes an `ImageData` of `encoded`, a dict of `_EncodedImage` lists."""
    class_names = _class_names(encoded)
    index = {name: label for label, name in enumerate(class_names)}
    labels = {
        name: np.array([index[i.class_name] for i in images], "int32")
        for name, images in encoded.items()
    }
    if image_size is None:
        first = encoded["train"][0]
        image_size = _decode(first).shape[:2]
        remarks.append(
            f"image size {_format_size(image_size)}, that of {first.where}"
        )
    taken, resized, total = {}, 0, 0
    for name, (source, indices) in _plan(
        labels, class_names, choice, remarks
    ).items():
        pixels = np.empty((len(indices), *image_size, 3), "uint8")
        for i, position in enumerate(indices):
            decoded = _decode(encoded[source][position])
            if decoded.shape[:2] != tuple(image_size):
                decoded = _resize(decoded[None], image_size)[0]
                resized += 1
            pixels[i] = decoded
        taken[name] = Split(pixels, labels[source][indices])
        total += len(indices)
    if resized:
        remarks.append(
            f"resized {resized:,} of {total:,} images to "
            f"{_format_size(image_size)}"
        )
    return _image_data(taken, class_names, choice, remarks)


def _image_data(taken, class_names, choice, remarks):
    """Makes an `ImageData` of `Split`s, labels of the chosen classes alone."""
    kept = choice.class_names(class_names)
    new = np.array([kept.index(n) if n in kept else -1 for n in class_names])
    taken = {
        name: Split(split.images, new[split.labels].astype("int32"))
        for name, split in taken.items()
    }
    return ImageData(**taken, class_names=kept, remarks=tuple(remarks))


def _class_names(encoded):
    names = {
        split: sorted({image.class_name for image in images})
        for split, images in encoded.items()
    }
    for split, found in names.items():
        if found != names["train"]:
            difference = sorted(set(found) ^ set(names["train"]))
            raise ValueError(
                "Every split must have the same classes as train. "
                f"Received: {split} and train differ in {difference}"
            )
    if len(names["train"]) < 2:
        raise ValueError(
            "Classification needs at least two classes. "
            f"Received: classes {names['train']}"
        )
    return tuple(names["train"])


def _decode(image):
    """Decodes one image to (height, width, 3) uint8, or names the culprit."""
    data = image.data
    if isinstance(data, Path):
        data = data.read_bytes()
    try:
        return tf.io.decode_image(
            data, channels=3, expand_animations=False
        ).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            "Every image file must be a complete JPEG, PNG, BMP or GIF. "
            f"Received: {image.where} ({len(data)} bytes), which does not "
            "decode"
        ) from error


def _resize(images, image_size):
    resized = tf.image.resize(images, image_size, antialias=True)
    return np.clip(np.round(resized.numpy()), 0, 255).astype("uint8")


def _plan(labels, class_names, choice, remarks):
    """Chooses the images of every split.

    Args:
        labels: dict from `"train"` and the other splits of the source to
            their labels.
        choice: `_Choice`.

    Returns:
        A dict from each of the three splits to `(split of the source, sorted
        indices into it)`.
    """
    plan = {
        name: (name, np.arange(len(values))) for name, values in labels.items()
    }
    for name, fraction in (
        ("test", TEST_FRACTION),
        ("validation", VALIDATION_FRACTION),
    ):
        if name not in plan:
            _, rest = plan["train"]
            held = _hold_out(labels["train"][rest], fraction, class_names)
            plan["train"] = ("train", rest[~held])
            plan[name] = ("train", rest[held])
            remarks.append(
                f"held out {held.sum():,} of {len(rest):,} images as {name} set"
            )
    if choice.classes is not None:
        # After holding out: an image is in the same split with and without.
        kept = choice.class_names(class_names)
        chosen = np.array([name in kept for name in class_names])
        plan = {
            name: (source, indices[chosen[labels[source][indices]]])
            for name, (source, indices) in plan.items()
        }
        remarks.append(f"kept {len(kept)} of {len(class_names)} classes")
    if choice.per_class is not None:
        remarks.append(f"kept {choice.per_class:,} training images of a class")
        source, indices = plan["train"]
        order = np.random.default_rng(0).permutation(indices)
        kept = [
            order[labels[source][order] == label][: choice.per_class]
            for label in range(len(class_names))
        ]
        plan["train"] = (source, np.sort(np.concatenate(kept)))
    if choice.limit is not None:
        remarks.append(f"kept at most {choice.limit:,} images of a split")
        for name, (source, indices) in plan.items():
            order = np.random.default_rng(0).permutation(len(indices))
            plan[name] = (source, indices[np.sort(order[: choice.limit])])
    return plan


def _hold_out(labels, fraction, class_names):
    """Marks a fixed fraction of every class, at least one image of each."""
    rng = np.random.default_rng(0)
    held = np.zeros(len(labels), bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(
                "a class needs an image each for training, validation and "
                "test, where these are not split already. Received: too few "
                f"of class {name!r}"
            )
        count = max(1, round(fraction * len(members)))
        held[rng.permutation(members)[:count]] = True
    return held


def _format_size(image_size):
    return f"{image_size[0]} x {image_size[1]}"
