"""Images in memory, and the choice of images for each split."""

import dataclasses
from typing import NamedTuple

import numpy as np

from keras_topo.decoding import resized
from keras_topo.training.image_files import MAX_PIXELS, Reader
from keras_topo.training.machine import memory

VALIDATION_FRACTION = 0.1
TEST_FRACTION = 0.2

# By default all images get the size of the first one, unless it is larger than
# this, as photographs are.
LARGEST_UNASKED = 512 * 512


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
        remarks: tuple of str, changes to the data (images resized, files left
            out, splits held out).
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

    def with_validation_in_training(self):
        """The same data, with the validation images among the training images
        and none left for validation."""
        parts = (self.train, self.validation)
        train = Split(*map(np.concatenate, zip(*parts, strict=True)))
        empty = Split(*(values[:0] for values in self.validation))
        count = len(self.validation.labels)
        remark = f"trained on the {count:,} validation images, too"
        return dataclasses.replace(
            self,
            train=train,
            validation=empty,
            remarks=(*self.remarks, remark),
        )

    def as_rgb(self):
        """The same data, with gray images repeated over three channels."""
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


class Choice(NamedTuple):
    """Options of `load_images` that select and decode images."""

    limit: int | None = None
    classes: tuple | None = None
    per_class: int | None = None
    max_pixels: int = MAX_PIXELS
    sample_bits: int | None = None

    def class_names(self, found):
        """The chosen classes among those found, in the order found."""
        if self.classes is None:
            return found
        unknown = sorted(set(self.classes) - set(found))
        if unknown or len(set(self.classes)) < 2:
            raise ValueError(
                f"`classes` expects at least two of {list(found)}. Received: "
                f"{list(self.classes)}"
            )
        return tuple(name for name in found if name in self.classes)


def from_arrays(splits, class_names, image_size, choice):
    """Makes an `ImageData` of decoded `splits`, a dict of `Split`s."""
    remarks = []
    labels = {name: split.labels for name, split in splits.items()}
    taken = {}
    plan = _plan(labels, class_names, choice, remarks)
    _check_memory(plan, image_size or splits["train"].images.shape[1:3])
    for name, (source, indices) in plan.items():
        images = splits[source].images[indices]
        if image_size is not None and tuple(image_size) != images.shape[1:3]:
            images = _resize(images, image_size)
        taken[name] = Split(images, labels[source][indices])
    size = splits["train"].images.shape[1:3]
    if taken["train"].images.shape[1:3] != size:
        remarks.append(f"resized all images to {_format_size(image_size)}")
    return _image_data(taken, class_names, choice, remarks)


def from_files(encoded, image_size, choice, remarks):
    """Makes an `ImageData` of `encoded`, a dict of `EncodedImage` lists."""
    class_names = _class_names(encoded)
    index = {name: label for label, name in enumerate(class_names)}
    labels = {
        name: np.array([index[i.class_name] for i in images], "int32")
        for name, images in encoded.items()
    }
    reader = Reader(choice.max_pixels, choice.sample_bits or 16)
    if image_size is None:
        image_size = _size_of_first(encoded["train"][0], reader, remarks)
    plan = _plan(labels, class_names, choice, remarks)
    _check_memory(plan, image_size)
    taken, changed, total = {}, 0, 0
    for name, (source, indices) in plan.items():
        pixels = np.empty((len(indices), *image_size, 3), "uint8")
        size = tuple(image_size)
        for i, position in enumerate(indices):
            pixels[i], before = reader.read(encoded[source][position], size)
            changed += before != size
        taken[name] = Split(pixels, labels[source][indices])
        total += len(indices)
    if changed:
        remarks.append(
            f"resized {changed:,} of {total:,} images to "
            f"{_format_size(image_size)}"
        )
    _check_depth(reader, choice.sample_bits, remarks)
    return _image_data(taken, class_names, choice, remarks)


def _size_of_first(image, reader, remarks):
    """The size of an image, unless it is too large as the size of all."""
    _, size = Reader(reader.max_pixels).read(image)
    if size[0] * size[1] > LARGEST_UNASKED:
        raise ValueError(
            "`image_size` (--image-size) expects the height and width for "
            "resizing photographs, such as 224 224. The default is the size of "
            f"the first image, up to {LARGEST_UNASKED:,} pixels. Received: "
            f"image_size=None, and {_format_size(size)} pixels in "
            f"{image.where}"
        )
    remarks.append(f"image size {_format_size(size)}, that of {image.where}")
    return size


def _check_memory(plan, image_size):
    """Raises a ValueError if the images do not fit into half of the memory."""
    count = sum(len(indices) for _, indices in plan.values())
    needed = count * image_size[0] * image_size[1] * 3
    if needed > memory() // 2:
        raise ValueError(
            "The images must fit into half of the memory, "
            f"{memory() // 2 >> 20:,} MiB; use a smaller `image_size` "
            "(--image-size) or `limit` (--limit). Received: "
            f"{count:,} images of {_format_size(image_size)} pixels, "
            f"{needed >> 20:,} MiB"
        )


def _check_depth(reader, sample_bits, remarks):
    """Adds a remark about 16-bit images; raises if they would be black."""
    if not reader.num_deep:
        return
    # Decoding keeps the upper 8 of 16 bits.
    used = 8 + reader.brightest.bit_length()
    if sample_bits is None and used <= 14:
        raise ValueError(
            "`sample_bits` (--sample-bits) expects the number of bits used in "
            "the samples of 16-bit PNGs. These images use no more than "
            f"{used} and would be nearly black: pass the bits of the camera, "
            "such as 12 (0 to 4095), or 16 to keep the images dark. Received: "
            f"sample_bits=None and {reader.num_deep:,} images of 16 bits per "
            "sample"
        )
    remarks.append(
        f"read {reader.num_deep:,} images of 16 bits per sample as "
        f"0 to {2 ** (sample_bits or 16) - 1}, black to white"
    )


def _image_data(taken, class_names, choice, remarks):
    """Makes an `ImageData` of `Split`s, with labels of the chosen classes."""
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


def _resize(images, image_size):
    return resized(images, image_size).numpy().astype("uint8")


def _plan(labels, class_names, choice, remarks):
    """Chooses the images of every split.

    Args:
        labels: dict from the splits of the source, such as `"train"`, to their
            labels.
        choice: `Choice`.

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
        # After holding out, so that images stay in the same split.
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
    """Marks a fixed fraction of every class, at least one image per class."""
    rng = np.random.default_rng(0)
    held = np.zeros(len(labels), bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(
                "Every class needs an image for each of training, validation "
                "and test, unless the data are split already. Received: too "
                f"few images of class {name!r}"
            )
        count = max(1, round(fraction * len(members)))
        held[rng.permutation(members)[:count]] = True
    return held


def _format_size(image_size):
    return f"{image_size[0]} x {image_size[1]}"
