"""Images in memory, and which of them a split takes."""

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_topo.training.image_files import decode

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


class Choice(NamedTuple):
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


def from_arrays(splits, class_names, image_size, choice):
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


def from_files(encoded, image_size, choice, remarks):
    """Makes an `ImageData` of `encoded`, a dict of `EncodedImage` lists."""
    class_names = _class_names(encoded)
    index = {name: label for label, name in enumerate(class_names)}
    labels = {
        name: np.array([index[i.class_name] for i in images], "int32")
        for name, images in encoded.items()
    }
    if image_size is None:
        first = encoded["train"][0]
        image_size = decode(first).shape[:2]
        remarks.append(
            f"image size {_format_size(image_size)}, that of {first.where}"
        )
    taken, resized, total = {}, 0, 0
    for name, (source, indices) in _plan(
        labels, class_names, choice, remarks
    ).items():
        pixels = np.empty((len(indices), *image_size, 3), "uint8")
        for i, position in enumerate(indices):
            decoded = decode(encoded[source][position])
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


def _resize(images, image_size):
    resized = tf.image.resize(images, image_size, antialias=True)
    return np.clip(np.round(resized.numpy()), 0, 255).astype("uint8")


def _plan(labels, class_names, choice, remarks):
    """Chooses the images of every split.

    Args:
        labels: dict from `"train"` and the other splits of the source to
            their labels.
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
