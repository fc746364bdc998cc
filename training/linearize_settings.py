"""Settings for linearizing an image model."""

import dataclasses
import math
from typing import Annotated, Literal

import tyro

from keras_topo.linearize import STAGES
from keras_topo.training.image_settings import FEATURE_MAPS, SampleBits
from keras_topo.training.masks_by_name import check_mask, has_start
from keras_topo.training.settings import (
    Natural,
    NaturalFloat,
    PositiveFloat,
    PositiveInt,
    Rate,
    Settings,
)


@dataclasses.dataclass(frozen=True)
class LinearizeSettings(Settings):
    """Settings for linearizing an image model."""

    preset: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """the teacher, with softmax attention: a run folder, a .keras file, a
    preset, hf://user/name"""
    data: str = "cifar10"
    """digits, cifar10, or a folder of class folders"""
    data_dir: str | None = None
    """with cifar10: folder with its tars, or with train/ and test/; without
    it, Keras downloads the data set"""
    max_pixels: PositiveInt | None = None
    """largest height x width of an image file, here and in the SavedModel
    (None: as for the teacher)"""
    sample_bits: SampleBits | None = None
    """8 to 16: number of bits used in the samples of 16-bit PNGs, here and in
    the SavedModel (None: as for the teacher)"""
    limit: PositiveInt | None = None
    """use at most this many images of each split, for a trial"""
    augment: bool = True
    """random shifts and mirror images (no mirror images of digits)"""
    mask: str = "table"
    """the name of a mask, none, MODULE:CLASS or FILE.py:CLASS (a registered
    subclass of keras_topo.masks.Mask), or a product of these, such as
    'table*gated'"""
    mask_initial: Literal["decays", "ones"] = "ones"
    """initial mask: decays of several scales, or ones, as in the teacher"""
    feature_map: Literal[FEATURE_MAPS] = "hedgehog"
    """feature map of linear attention"""
    features: PositiveInt | None = None
    """with hedgehog: rows of its projection (None: the size of a head)"""
    activation: Literal["exp", "softmax"] = "exp"
    """with hedgehog: function applied to the projections"""
    magnitude_aware: bool = False
    """with relu and elu: attention that depends on the magnitude of queries"""
    budget: PositiveFloat = 0.1
    """updates of all stages together, as a share of the teacher's"""
    split: tuple[NaturalFloat, NaturalFloat, NaturalFloat] = (1.0, 1.0, 1.0)
    """shares of the budget for the stages attention, features and labels"""
    updates: tuple[Natural, Natural, Natural] | None = None
    """updates of the stages attention, features and labels, instead of
    --budget and --split"""
    epochs: PositiveInt = 1
    """computed from the updates; do not set"""
    every: PositiveInt = 100
    """at most this many updates between progress lines, each with a
    checkpoint"""
    batch_size: PositiveInt = 128
    """examples per batch"""
    learning_rate: PositiveFloat = 1e-3
    """peak learning rate of the last stage, labels"""
    attention_learning_rate: PositiveFloat = 1e-2
    """peak learning rate of the first stage, attention"""
    feature_learning_rate: PositiveFloat = 2e-3
    """peak learning rate of the second stage, features"""
    clip_norm: PositiveFloat | None = 1.0
    """maximum global norm of the gradients"""
    temperature: PositiveFloat = 2.0
    """softmax temperature of both models when their logits are compared"""
    teacher_weight: Annotated[float, "from 0 to 1"] = 0.5
    """in the last stage: weight of the teacher's logits in the loss; the rest
    is the weight of the labels"""
    label_smoothing: Rate = 0.1
    """label smoothing rate"""

    def __post_init__(self):
        super().__post_init__()
        check_mask(self.mask)
        if not 0 <= self.teacher_weight <= 1:
            raise ValueError(
                "`teacher_weight` expects a number from 0 to 1. Received: "
                f"teacher_weight={self.teacher_weight}"
            )
        if not sum(self.split) > 0:
            raise ValueError(
                "`split` expects three shares, not all zero. Received: "
                f"split={self.split}"
            )
        if self.updates is not None and not sum(self.updates):
            raise ValueError(
                "`updates` expects at least one update. Received: "
                f"updates={self.updates}"
            )
        if self.choose_epoch != "last":
            raise ValueError(
                "`choose_epoch` expects 'last', because the losses of the "
                "stages cannot be compared. Received: "
                f"choose_epoch={self.choose_epoch!r}"
            )
        if self.feature_map != "hedgehog" and self.activation != "exp":
            raise ValueError(
                "`activation` expects feature_map='hedgehog'. Received: "
                f"activation={self.activation!r}, "
                f"feature_map={self.feature_map!r}"
            )
        if self.magnitude_aware and self.feature_map not in ("relu", "elu"):
            raise ValueError(
                "`magnitude_aware` expects feature_map='relu' or 'elu'. "
                f"Received: feature_map={self.feature_map!r}"
            )
        if self.features is not None and self.feature_map != "hedgehog":
            raise ValueError(
                "`features` expects feature_map='hedgehog'. Received: "
                f"features={self.features}, feature_map={self.feature_map!r}"
            )

    def unread(self):
        found = {}
        if not has_start(self.mask):
            found["mask_initial"] = f"mask={self.mask!r}"
        if self.updates is not None:
            updates = f"updates={self.updates}"
            found |= dict.fromkeys(("budget", "split"), updates)
        if self.teacher_weight == 1:
            found["label_smoothing"] = "teacher_weight=1"
        return found

    def resolved(self, given):
        wrong = sorted({"epochs", "dtype_policy"} & set(given))
        if wrong:
            names = ", ".join("--" + name.replace("_", "-") for name in wrong)
            raise ValueError(
                "linearize expects --budget or --updates to set its length, "
                f"and uses the dtype policy of the teacher. Received: {names}"
            )
        if self.preset is None:
            raise ValueError(
                "linearize expects --from, the teacher. Received: no --from"
            )
        return self

    # Images have the teacher's size only.
    sizes = ()

    @property
    def kind(self):
        """`"digits"`, which must not be mirrored, or `"photos"`."""
        return "digits" if self.data == "digits" else "photos"

    def updates_by_stage(self, teacher_updates):
        """Updates of each stage.

        Args:
            teacher_updates: int, number of updates of the teacher, or `None`.

        Returns:
            A dict from names of stages to ints, without stages of 0 updates.

        Raises:
            ValueError: if neither `updates` nor `teacher_updates` is given, or
                the budget is less than one update.
        """
        updates = self.updates
        if updates is None:
            if teacher_updates is None:
                raise ValueError(
                    "--updates A F L expects the updates of the three stages, "
                    "because the teacher has no metrics.json with its number "
                    f"of updates. Received: {self.preset}"
                )
            # Rounded down: the budget is an upper bound.
            total = math.floor(self.budget * teacher_updates + 1e-9)
            ends = [
                round(total * sum(self.split[: k + 1]) / sum(self.split))
                for k in range(3)
            ]
            updates = [ends[0], ends[1] - ends[0], ends[2] - ends[1]]
        found = dict(zip(STAGES, updates, strict=True))
        found = {name: int(count) for name, count in found.items() if count}
        if not found:
            raise ValueError(
                "--budget expects at least one of the teacher's "
                f"{teacher_updates} updates. Received: {self.budget:g}"
            )
        return found
