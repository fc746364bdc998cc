"""What sources do with pixels, as one factor and one offset per channel."""

import math
import numbers
import pathlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from keras_topo.presets.folders import read_json

#: A factor and an offset: numbers, or one per channel.
Pixels: TypeAlias = tuple[float | Sequence[float], float | Sequence[float]]

#: Mean and standard deviation of the pixels of ImageNet, of 0 to 1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: From 0..1 to -1..1.
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

#: What the families were published with, where a source says nothing.
PUBLISHED = {
    "vit": HALF,
    "deit": IMAGENET,
    "dinov2": IMAGENET,
    "dinov2_with_registers": IMAGENET,
}


def published(kind: str) -> Pixels:
    """Factor and offset of a family."""
    return from_mean(*PUBLISHED[kind])


def from_mean(
    mean: Sequence[float], deviation: Sequence[float], rescale: float = 1 / 255
) -> Pixels:
    """`(rescale x - mean) / deviation` as a factor and an offset.

    Returns:
        Two lists of floats, or two floats where all channels are alike.
    """
    scale = [rescale / d for d in deviation]
    offset = [-m / d for m, d in zip(mean, deviation, strict=True)]
    if len(set(scale)) == len(set(offset)) == 1:
        return scale[0], offset[0]
    return scale, offset


def of_preprocessor(file: pathlib.Path, kind: str) -> Pixels:
    """The same of a `preprocessor_config.json`.

    Args:
        file: `pathlib.Path`; there may be none, for what is published.
        kind: str, a key of `PUBLISHED`.

    Raises:
        ValueError: if it is damaged.
    """
    if not file.is_file():
        return published(kind)
    config = read_json(file)
    mean, deviation = (0.0,), (1.0,)
    rescale = 1.0
    if config.get("do_rescale", True):
        rescale = config.get("rescale_factor", 1 / 255)
    if config.get("do_normalize", True):
        mean = config.get("image_mean", PUBLISHED[kind][0])
        deviation = config.get("image_std", PUBLISHED[kind][1])
    numbers_of = [mean, deviation, [rescale]]
    if (
        not all(isinstance(x, (list, tuple)) and x for x in numbers_of)
        or len(mean) != len(deviation)
        or not all(is_finite(x) for part in numbers_of for x in part)
        or 0 in deviation
    ):
        raise ValueError(
            f"{file} expects image_mean and image_std, numbers for each "
            f"channel, and rescale_factor. Received: {mean}, {deviation}, "
            f"{rescale}"
        )
    return from_mean(mean, deviation, rescale)


def check_pixels(pixels: Any) -> Pixels:
    """`pixels` as given to `convert`: a factor and an offset.

    Raises:
        ValueError: if it is not two numbers, or two lists of numbers.
    """
    parts = pixels if isinstance(pixels, (tuple, list)) else ()
    flat = [
        x
        for part in parts
        for x in (part if isinstance(part, (tuple, list)) else [part])
    ]
    if len(parts) != 2 or not flat or not all(map(is_finite, flat)):
        raise ValueError(
            "`pixels` expects (scale, offset), each a number or one number "
            f"per channel. Received: pixels={pixels!r}"
        )
    scale, offset = (
        list(part) if isinstance(part, (tuple, list)) else part
        for part in parts
    )
    return scale, offset


def is_finite(x: Any) -> bool:
    """Whether it is a finite number."""
    return (
        isinstance(x, numbers.Real)
        and not isinstance(x, bool)
        and math.isfinite(x)
    )
