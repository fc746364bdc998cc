"""Replaces softmax by masked linear attention in a trained image model.

Training has three stages, attention, features and labels; see
`keras_topo.linearize.Distillation`. An epoch of the run is a part of a stage,
after which progress is recorded.
"""

import dataclasses
import math
from pathlib import Path

import keras

import keras_topo
from keras_topo.layers import HedgehogFeatureMap
from keras_topo.linearize import Distillation
from keras_topo.presets import (
    find_preset,
    from_preset,
    read_metrics,
    read_preprocessor,
)
from keras_topo.training.batches import augmentation_layers, training_batches
from keras_topo.training.datasets import load_images
from keras_topo.training.files import read_lines
from keras_topo.training.fitting import adamw
from keras_topo.training.image_settings import MAX_PIXELS
from keras_topo.training.linearize_settings import LinearizeSettings
from keras_topo.training.masks_by_name import mask_of
from keras_topo.training.tasks import Task
from keras_topo.training.tasks.images import Images


class Linearize(Images):
    """`Images` whose model is made from a teacher and learns from it.

    Args:
        settings: `LinearizeSettings`.
        split: as in `Images`.
    """

    shares_batches = False

    def __init__(self, settings, split=None):
        self.teacher = from_preset(settings.preset)
        super().__init__(settings, split)
        self.teacher_metrics = read_metrics(find_preset(settings.preset))
        self.teacher_updates = updates_of(self.teacher_metrics)
        self.updates = settings.updates_by_stage(self.teacher_updates)
        # Fail now, not after the first stage.
        Distillation(self.teacher, self.build_model(), "attention")
        self.plan, first = [], 0
        for name, count in self.updates.items():
            epochs = math.ceil(count / settings.every)
            stage = Stage(self, name, first, epochs, count)
            self.plan.append(stage)
            first += epochs
        self.settings = dataclasses.replace(
            settings, epochs=first, **reading(settings)
        )

    def load(self, settings):
        return load_data(settings, self.teacher)

    def describe_model(self):
        settings = self.settings
        return (
            f"{Path(settings.preset).name}, linearized: {settings.feature_map} "
            f"features, mask {settings.mask}"
        )

    def describe(self):
        stages = ", ".join(
            f"{stage.name} {stage.updates:,} (epochs {stage.first_epoch + 1} "
            f"to {stage.settings.epochs})"
            for stage in self.plan
        )
        share = ""
        if self.teacher_updates:
            count = sum(stage.updates for stage in self.plan)
            share = f", {count / self.teacher_updates:.1%} of the teacher's"
        return f"{super().describe()}\nUpdates: {stages}{share}."

    def build_model(self):
        settings = self.settings
        feature_map = settings.feature_map
        if feature_map == "hedgehog":
            feature_map = HedgehogFeatureMap(
                settings.features, settings.activation, settings.seed
            )
        return keras_topo.linearize(
            self.teacher,
            mask=mask_of(settings.mask, initial=settings.mask_initial),
            feature_map=feature_map,
            magnitude_aware=settings.magnitude_aware,
        )

    def stages(self, model, finished):
        for stage in self.plan:
            if stage.settings.epochs < finished:
                continue
            print(f"Stage {stage.name}: {stage.updates:,} updates.", flush=True)
            yield stage, stage.distillation(model)

    def final_weights(self, model, build):
        return model.get_weights()

    def finish(self, folder, model, untrained):
        found = super().finish(folder, model, untrained)
        lines = {
            line["epoch"]: line for line in read_lines(folder / "metrics.jsonl")
        }
        stages = [{"stage": "linearized", "updates": 0}]
        stages[0] |= self._scores(untrained, ("validation",))
        for stage in self.plan:
            last = lines[stage.settings.epochs]
            stages.append(
                {
                    "stage": stage.name,
                    "updates": stage.updates,
                    "loss": last["loss"],
                    "validation_loss": last["val_loss"],
                    "validation_accuracy": last["val_accuracy"],
                }
            )
        updates = sum(stage.updates for stage in self.plan)
        found |= {"updates": updates, "stages": stages}
        if self.teacher_updates:
            found["share_of_teacher_updates"] = updates / self.teacher_updates
        found["teacher"] = {
            "from": self.settings.preset,
            "updates": self.teacher_updates,
            **self._scores(self.teacher, ("validation", "test")),
        }
        return found

    def _scores(self, model, parts):
        self.compile(model, False)
        found = self.evaluate(model, parts)
        return {k: v for k, v in found.items() if k.endswith("accuracy")}

    def compile(self, model, jit_compile):
        model.compile(
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
            jit_compile=jit_compile,
        )

    def report(self, summary):
        teacher = summary["teacher"]
        after = ""
        if teacher["updates"]:
            after = f" after {teacher['updates']:,} updates"
        return (
            f"Test accuracy {summary['test_accuracy']:.2%} on "
            f"{summary['images']['test']:,} images (the teacher: "
            f"{teacher['test_accuracy']:.2%}{after})"
        )


LinearizeSettings.task = Linearize


class Stage(Task):
    """One stage, as a task of `keras_topo.training.fitting.fit`.

    Args:
        task: `Linearize`.
        name: str, one of `keras_topo.linearize.STAGES`.
        first_epoch: int, number of epochs of the earlier stages.
        epochs: int, number of epochs of this stage.
        updates: int, a maximum; all epochs have the same number of updates.
    """

    def __init__(self, task, name, first_epoch, epochs, updates):
        settings = dataclasses.replace(
            task.settings, epochs=first_epoch + epochs
        )
        super().__init__(settings)
        self.task, self.name, self.first_epoch = task, name, first_epoch
        self.steps_per_epoch = updates // epochs
        self.updates = self.steps_per_epoch * epochs
        self.title = f"{task.title}, {name}"
        self.earlier = sum(stage.updates for stage in task.plan)

    def distillation(self, student):
        settings = self.settings
        return Distillation(
            self.task.teacher,
            student,
            self.name,
            settings.temperature,
            settings.teacher_weight,
            settings.label_smoothing,
        )

    def compile(self, model, jit_compile):
        settings = self.settings
        rate = {
            "attention": settings.attention_learning_rate,
            "features": settings.feature_learning_rate,
            "labels": settings.learning_rate,
        }[self.name]
        optimizer = adamw(
            model,
            rate,
            settings.weight_decay,
            1,
            self.updates,
            self.updates // 10,
            settings.clip_norm,
        )
        model.compile(optimizer=optimizer, jit_compile=jit_compile)

    def training_data(self, start_epoch):
        """Batches continue where the previous stage ended in the data."""
        settings, task = self.settings, self.task
        steps = task.steps_per_epoch
        done = (start_epoch - self.first_epoch) * self.steps_per_epoch
        before = self.earlier + done
        augmentation = augmentation_layers(
            settings.kind if settings.augment else None
        )
        batches, _ = training_batches(
            task.data.train,
            task.num_classes,
            settings.batch_size,
            settings.seed,
            before // steps,
            math.ceil((self.earlier + self.updates) / steps),
            augmentation,
        )
        return batches.skip(before % steps)

    def validation_data(self):
        return self.task.validation_data()


def updates_of(metrics):
    """The number of updates in a `metrics.json`, or `None`."""
    if metrics.get("updates"):
        return int(metrics["updates"])
    arguments = metrics.get("arguments", {})
    images = metrics.get("images", {}).get("train")
    batch, epochs = arguments.get("batch_size"), arguments.get("epochs")
    if not (images and batch and epochs):
        return None
    return max(1, images // batch) * epochs


def reading(settings):
    """Decoding options of image files: the settings, or the teacher's."""
    known = read_preprocessor(settings.preset)
    found = {"max_pixels": MAX_PIXELS, "sample_bits": None}
    for name in found:
        value = getattr(settings, name)
        found[name] = known.get(name, found[name]) if value is None else value
    return found


def load_data(settings, teacher):
    """The images, in the size and channels of the teacher.

    Raises:
        ValueError: if the teacher takes no images, or has other classes.
    """
    inputs = teacher.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ValueError(
            f"--from expects an image model. Received: {settings.preset}"
        )
    *size, channels = inputs[0].shape[1:]
    data = load_images(
        settings.data,
        settings.data_dir,
        None if None in size else size,
        settings.limit,
        **reading(settings),
    )
    known = read_preprocessor(settings.preset).get("class_names")
    if known is not None and list(known) != list(data.class_names):
        raise ValueError(
            f"--data expects the classes of the teacher, {list(known)}. "
            f"Received: {list(data.class_names)}"
        )
    if teacher.output_shape[-1] != len(data.class_names):
        raise ValueError(
            f"--data expects {teacher.output_shape[-1]} classes, the number "
            f"of the teacher. Received: {len(data.class_names)}"
        )
    return data.as_rgb() if channels == 3 else data
