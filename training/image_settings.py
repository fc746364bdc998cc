"""Settings of image classifiers, and the models they build."""

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
    Natural,
    PositiveFloat,
    PositiveInt,
    Rate,
)

FEATURE_MAPS = ("hedgehog", "relu", "elu", "square", "exp", "favor")
# Settings that a trained model has fixed already.
DECIDED = (
    "model",
    "patch_size",
    "attention",
    "mask",
    "mask_initial",
    "feature_map",
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
    """Settings of image classifiers."""

    data: str = "cifar10"
    """digits, cifar10, or a folder of class folders"""
    data_dir: str | None = None
    """with cifar10: folder with its tars, or with train/ and test/; without
    it, Keras downloads the data set"""
    image_size: tuple[PositiveInt, ...] | None = None
    """N, or height and width: resize all images to this size, without keeping
    the aspect ratio (None: the size of the trained model, of the data set, or
    of the first image unless it is a photograph)"""
    max_pixels: PositiveInt = MAX_PIXELS
    """largest height x width of an image file, here and in the SavedModel"""
    sample_bits: SampleBits | None = None
    """8 to 16: number of bits used in the samples of 16-bit PNGs, here and in
    the SavedModel (None: 16, and an error if all images are nearly black)"""
    classes: tuple[str, ...] | None = None
    """use images of these classes only"""
    per_class: PositiveInt | None = None
    """use this many training images of each class, always the same ones"""
    limit: PositiveInt | None = None
    """use at most this many images of each split, for a trial"""
    train_on_validation: bool = False
    """train on the validation images, too, and validate on none: for the last
    run, when all settings are chosen"""
    augment: bool = True
    """random shifts and mirror images (no mirror images of digits)"""
    zoom: PositiveFloat | None = None
    """with augment: enlarge each axis at random by up to this factor, for
    models that will be used at higher resolutions"""
    distort: Rate = 0.0
    """with augment: strength of random rotations, shears, changes of
    brightness and contrast, fading of colors, and erased parts"""
    sizes: tuple[PositiveInt, ...] = ()
    """heights (and widths) of batches: each batch is resized to one of them,
    drawn at random, and the model takes images of any size"""
    cutmix: Rate = 0.0
    """share of batches in which a part of each image comes from another"""
    mixup: Rate = 0.0
    """share of batches in which each image is blended with another"""
    unmixed_epochs: Natural = 0
    """with cutmix or mixup: number of last epochs in which no image is mixed"""
    average: Rate = 0.0
    """keep the moving average of the weights, with this momentum per update,
    such as 0.999 (0: no average)"""
    model: str = "mini"
    """mini, Ti, S, B or L, or CHANNELS,HEADS,MLP_UNITS,BLOCKS"""
    patch_size: tuple[PositiveInt, ...] = (4,)
    """N, or height and width"""
    attention: Literal["toeplitz", "linear", "softmax"] = "toeplitz"
    """TopViT, the unmasked Performer or the ordinary ViT"""
    mask: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = "default"
    """with attention toeplitz and softmax: the name of a mask, none,
    MODULE:CLASS or FILE.py:CLASS (a registered subclass of
    keras_topo.masks.Mask), or a product of these, such as 'table*gated'
    (default: table with toeplitz, none with softmax)"""
    mask_initial: Literal["decays", "ones"] = "decays"
    """initial mask: decays of several scales, or ones"""
    feature_map: Literal[FEATURE_MAPS] = "relu"
    """with attention toeplitz and linear: features of queries and keys"""
    pooling: Literal["gap", "token"] = "gap"
    """average over the grid, or a class token"""
    stem: Literal[STEMS] = "patches"
    """layers that turn pixels into tokens"""
    dropout: Rate = 0.0
    """dropout rate"""
    stochastic_depth: Rate = 0.0
    """stochastic depth rate of the last block"""
    label_smoothing: Rate = 0.1
    """label smoothing rate"""
    preset: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """start from a trained model: a preset, a run folder, hf://user/name"""
    average_with: tuple[str, ...] = ()
    """with --from: start from the mean of its weights and those of these
    models, which were trained from the same weights (Wortsman et al. 2022)"""
    freeze: bool = False
    """with --from: train the last layer only"""
    freeze_batch_norm: bool = False
    """with --from: batch normalization keeps its statistics and weights. With
    --sizes, statistics of one size then serve all of them."""
    keep: Rate | None = None
    """with --from: the final weights are this share of the original weights
    plus the rest of the trained ones, except in a new last layer (Wortsman et
    al. 2022)"""

    def __post_init__(self):
        super().__post_init__()
        fine_tuning.check(self)
        if self.mask != "default":
            check_mask(self.mask)
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            if value is not None and len(value) not in (1, 2):
                raise ValueError(
                    f"`{name}` expects one or two integers. Received: {value}"
                )
        if self.zoom is not None and (self.zoom < 1 or not self.augment):
            raise ValueError(
                "`zoom` expects a number of at least 1, and augment=True. "
                "Received: "
                f"zoom={self.zoom:g}, augment={self.augment}"
            )
        if self.distort and not self.augment:
            raise ValueError(
                "`distort` expects augment=True. Received: "
                f"distort={self.distort:g}, augment={self.augment}"
            )
        if self.train_on_validation and (
            self.choose_epoch != "last" or self.per_class
        ):
            raise ValueError(
                "`train_on_validation` expects choose_epoch='last' and no "
                f"per_class. Received: choose_epoch={self.choose_epoch!r}, "
                f"per_class={self.per_class}"
            )
        if self.cutmix + self.mixup > 1:
            raise ValueError(
                "`cutmix` and `mixup` expect shares of the batches, at most 1 "
                f"together. Received: cutmix={self.cutmix:g}, "
                f"mixup={self.mixup:g}"
            )
        if self.unmixed_epochs and not (
            self.cutmix + self.mixup and self.unmixed_epochs < self.epochs
        ):
            raise ValueError(
                "`unmixed_epochs` expects cutmix or mixup, and fewer than "
                f"`epochs`. Received: unmixed_epochs={self.unmixed_epochs}, "
                f"cutmix={self.cutmix:g}, mixup={self.mixup:g}, "
                f"epochs={self.epochs}"
            )
        if self.average and self.stem == "residual":
            raise ValueError(
                "`average` expects a stem without batch normalization, because "
                "its statistics do not match averaged weights. Received: "
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
        if self.attention == "linear":
            attention = "attention='linear'"
            found |= dict.fromkeys(("mask", "mask_initial"), attention)
        elif not has_start(self.mask_name):
            found["mask_initial"] = f"mask={self.mask_name!r}"
        if self.attention == "softmax":
            found["feature_map"] = "attention='softmax'"
        return found

    def resolved(self, given):
        return fine_tuning.resolved(self, given, "images", DECIDED)

    @property
    def mask_name(self):
        """The mask, where the default depends on the attention."""
        if self.attention == "linear":
            return "none"
        if self.mask != "default":
            return self.mask
        return "table" if self.attention == "toeplitz" else "none"

    def used(self):
        return dataclasses.replace(super().used(), mask=self.mask_name)

    @property
    def kind(self):
        """`"digits"`, which must not be mirrored, or `"photos"`."""
        return "digits" if self.data == "digits" else "photos"


def size_of(text):
    """The size of a model: a name, or a tuple of four comma-separated ints."""
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
    """Height and width from one or two numbers, a list."""
    return [int(size[0]), int(size[-1])]


def describe(settings):
    """A description of the model."""
    if settings.preset:
        return fine_tuning.describe(settings)
    height, width = both(settings.patch_size)
    patch = f"{height}" if height == width else f"{height}x{width}"
    attention = f"{settings.attention} attention"
    if settings.attention == "toeplitz" or settings.mask_name != "none":
        attention += f", mask {settings.mask_name}"
    if settings.attention != "softmax" and settings.feature_map != "relu":
        attention += f", features {settings.feature_map}"
    stem = "" if settings.stem == "patches" else f", stem {settings.stem}"
    return f"TopViT-{settings.model}/{patch}{stem}, {attention}"


def build_classifier(settings, image_shape, num_classes):
    """The untrained model of the settings.

    Args:
        settings: `ImageSettings`.
        image_shape: `(height, width, channels)` of the data. With
            `settings.sizes` the model takes any height and width, and its
            masks and positions are stored for this one.
        num_classes: int.
    """
    patch_size, grid = tuple(both(settings.patch_size)), None
    if settings.sizes:
        sides = zip(image_shape[:2], patch_size, strict=True)
        grid = tuple(-(-side // patch) for side, patch in sides)
        image_shape = (None, None, image_shape[-1])
    mask = mask_of(settings.mask_name, initial=settings.mask_initial)
    return topvit(
        size_of(settings.model),
        patch_size=patch_size,
        image_shape=image_shape,
        reference_grid=grid,
        num_classes=num_classes,
        attention=settings.attention,
        mask=mask,
        feature_map=settings.feature_map,
        pooling=settings.pooling,
        stem=settings.stem,
        dropout=settings.dropout,
        stochastic_depth=settings.stochastic_depth,
    )
