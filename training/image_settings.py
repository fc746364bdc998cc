"""Settings of classifiers of images, and the models that they ask for."""

import dataclasses
from typing import Annotated, Literal

import tyro

from keras_topo.models import topvit
from keras_topo.models.topvit import STEMS
from keras_topo.training import fine_tuning
from keras_topo.training.image_files import MAX_PIXELS
from keras_topo.training.masks_by_name import check_mask, has_start, mask_of
from keras_topo.training.settings import (
    Bounds,
    CosineSettings,
    PositiveFloat,
    PositiveInt,
    Rate,
)

# What a trained model has decided already.
DECIDED = (
    "model",
    "patch_size",
    "attention",
    "mask",
    "mask_initial",
    "pooling",
    "stem",
    "dropout",
    "stochastic_depth",
    "dtype_policy",
)


SampleBits = Annotated[
    int, Bounds("an integer from 8 to 16", lambda v: 8 <= v <= 16)
]


@dataclasses.dataclass(frozen=True)
class ImageSettings(CosineSettings):
    """Settings of classifiers of images."""

    data: str = "cifar10"
    """digits, cifar10, or a folder of class folders"""
    data_dir: str | None = None
    """of cifar10: the folder of its tars or of train/ and test/; without it
    Keras downloads the data set"""
    image_size: tuple[PositiveInt, ...] | None = None
    """N, or height and width, all images are resized to, aspect ratio not
    kept (None: that of the trained model, the data set or the first image,
    unless that is a photograph)"""
    max_pixels: PositiveInt = MAX_PIXELS
    """largest height x width of an image file, here and in the SavedModel"""
    sample_bits: SampleBits | None = None
    """8 to 16: how many bits the samples of PNGs of 16 bits fill, here and in
    the SavedModel (None: 16, and an error where all is nearly black)"""
    classes: tuple[str, ...] | None = None
    """use images of these classes only"""
    per_class: PositiveInt | None = None
    """use so many training images of each class, always the same ones"""
    limit: PositiveInt | None = None
    """use at most this many images of each split, for a trial"""
    augment: bool = True
    """random shifts and, but for digits, mirror images"""
    zoom: PositiveFloat | None = None
    """with augment: enlarge by up to this factor, each axis by another; for
    models that will be used at higher resolutions"""
    sizes: tuple[PositiveInt, ...] = ()
    """heights (and widths) of batches: each batch is resized to one of them,
    drawn at random, and the model takes images of any size"""
    cutmix: Rate = 0.0
    """share of the batches in which a part of each image comes from another"""
    mixup: Rate = 0.0
    """share of the batches in which each image is blended with another"""
    average: Rate = 0.0
    """in the end take the moving average of the weights, with this momentum
    per update, such as 0.999 (0: none)"""
    model: str = "mini"
    """mini, Ti, S, B or L, or CHANNELS,HEADS,MLP_UNITS,BLOCKS"""
    patch_size: tuple[PositiveInt, ...] = (4,)
    """N, or height and width"""
    attention: Literal["toeplitz", "linear", "softmax"] = "toeplitz"
    """TopViT, the unmasked Performer or the ordinary ViT"""
    mask: str = "table"
    """of attention toeplitz, by name, none, or MODULE:CLASS or FILE.py:CLASS,
    a registered subclass of keras_topo.masks.Mask"""
    mask_initial: Literal["decays", "ones"] = "decays"
    """how the mask starts: as decays of several scales, or as ones"""
    pooling: Literal["gap", "token"] = "gap"
    """average over the grid, or a class token"""
    stem: Literal[STEMS] = "patches"
    """what makes tokens of pixels"""
    dropout: Rate = 0.0
    """rate"""
    stochastic_depth: Rate = 0.0
    """rate of the last block"""
    label_smoothing: Rate = 0.1
    """rate"""
    preset: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """go on from a trained model: a preset, a run folder, hf://user/name"""
    freeze: bool = False
    """with --from: train the last layer alone"""
    keep: Rate | None = None
    """with --from: in the end take this share of each weight from that model,
    a new last layer's apart, and the rest from what was trained (Wortsman et
    al. 2022)"""

    def __post_init__(self):
        super().__post_init__()
        fine_tuning.check(self)
        check_mask(self.mask)
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            if value is not None and len(value) not in (1, 2):
                raise ValueError(
                    f"`{name}` expects one or two integers. Received: {value}"
                )
        if self.zoom is not None and (self.zoom < 1 or not self.augment):
            raise ValueError(
                "`zoom` expects at least 1, and augment. Received: "
                f"zoom={self.zoom:g}, augment={self.augment}"
            )
        if self.cutmix + self.mixup > 1:
            raise ValueError(
                "`cutmix` and `mixup` expect shares of the batches, at most 1 "
                f"together. Received: cutmix={self.cutmix:g}, "
                f"mixup={self.mixup:g}"
            )
        if self.average and self.stem == "residual":
            raise ValueError(
                "`average` expects a stem without batch normalization, whose "
                "statistics are not those of averaged weights. Received: "
                f"average={self.average:g}, stem='residual'"
            )
        if self.average and self.choose_epoch != "last":
            raise ValueError(
                "`average` expects choose_epoch='last'. Received: average="
                f"{self.average:g}, choose_epoch={self.choose_epoch!r}"
            )
        size_of(self.model)
        if self.keep is not None and self.preset is None:
            raise ValueError(
                f"--keep expects --from. Received: --keep {self.keep:g}"
            )

    def unread(self):
        found = {}
        if self.attention != "toeplitz":
            attention = f"attention={self.attention!r}"
            found |= dict.fromkeys(("mask", "mask_initial"), attention)
        elif not has_start(self.mask):
            found["mask_initial"] = f"mask={self.mask!r}"
        return found

    def resolved(self, given):
        return fine_tuning.resolved(self, given, "images", DECIDED)

    @property
    def kind(self):
        """`"digits"`, which are no mirror images, or `"photos"`."""
        return "digits" if self.data == "digits" else "photos"


def size_of(text):
    """The size of a model: a name, or four ints between commas, a tuple."""
    if "," not in text:
        return text
    try:
        size = tuple(map(int, text.split(",")))
    except ValueError:
        size = ()
    if len(size) != 4:
        raise ValueError(
            "`model` expects a name or CHANNELS,HEADS,MLP_UNITS,BLOCKS. "
            f"Received: model={text!r}"
        )
    return size


def both(size):
    """Height and width of one or two numbers, a list."""
    return [int(size[0]), int(size[-1])]


def describe(settings):
    """The model in words."""
    if settings.preset:
        return fine_tuning.describe(settings)
    height, width = both(settings.patch_size)
    patch = f"{height}" if height == width else f"{height}x{width}"
    attention = f"{settings.attention} attention"
    if settings.attention == "toeplitz":
        attention += f", mask {settings.mask}"
    stem = "" if settings.stem == "patches" else f", stem {settings.stem}"
    return f"TopViT-{settings.model}/{patch}{stem}, {attention}"


def build_classifier(settings, image_shape, num_classes):
    """The untrained model that settings ask for.

    Args:
        settings: `ImageSettings`.
        image_shape: `(height, width, channels)` of the data; with
            `settings.sizes` the model takes any height and width, and its
            masks and positions are held for this one.
        num_classes: int.
    """
    patch_size, grid = tuple(both(settings.patch_size)), None
    if settings.sizes:
        sides = zip(image_shape[:2], patch_size, strict=True)
        grid = tuple(-(-side // patch) for side, patch in sides)
        image_shape = (None, None, image_shape[-1])
    mask = None
    if settings.attention == "toeplitz":
        mask = mask_of(settings.mask, initial=settings.mask_initial)
    return topvit(
        size_of(settings.model),
        patch_size=patch_size,
        image_shape=image_shape,
        reference_grid=grid,
        num_classes=num_classes,
        attention=settings.attention,
        mask=mask,
        pooling=settings.pooling,
        stem=settings.stem,
        dropout=settings.dropout,
        stochastic_depth=settings.stochastic_depth,
    )
