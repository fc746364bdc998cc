"""Classification of images, by TopViT and baselines."""

import functools
import shutil

import keras
import tensorflow as tf

import keras_topo
from keras_topo import visualize
from keras_topo.presets import from_preset, read_preprocessor, save_preset
from keras_topo.training import fine_tuning
from keras_topo.training.batches import (
    augmentation_layers,
    evaluation_batches,
    mixing_layers,
    training_batches,
)
from keras_topo.training.datasets import load_images
from keras_topo.training.files import digest
from keras_topo.training.graph_files import of_each_class
from keras_topo.training.image_settings import (
    ImageSettings,
    both,
    build_classifier,
    describe,
)
from keras_topo.training.tasks import Task

EVALUATION_BATCH = 250
NUM_SAMPLES = 12


class Images(Task):
    """Predicts a class for each image; see `keras_topo.training.tasks`.

    Args:
        settings: `ImageSettings`.
    """

    name = "images"
    shares_batches = True
    contents = {
        "model.weights.h5": "with config.json: for keras_topo.from_preset",
        "saved_model/1": "for TensorFlow Serving; takes pixels, files",
        "masks.png": "the learned masks of every layer and head",
        "attention.png": "the attention of one token of a test image",
        "samples": "some test images, by class",
    }

    def __init__(self, settings, split=None):
        super().__init__(settings, split)
        fine_tuning.refuse_known_validation(settings)
        self.data = self.load(settings)
        self.num_classes = len(self.data.class_names)
        self.num_training = self.data.sizes()["train"]
        batch_size = min(settings.batch_size, self.num_training)
        self.steps_per_epoch = self.num_training // batch_size
        self.facts = {
            "images": self.data.sizes(),
            "image_shape": list(self.data.image_shape),
            "class_names": list(self.data.class_names),
            "data_remarks": list(self.data.remarks),
            "data_sha256": digest(
                *self.data.train, *self.data.validation, *self.data.test
            ),
        }
        if settings.sizes:
            pixels = {"saved_model/1": "for TensorFlow Serving; takes pixels"}
            self.contents = self.contents | pixels
        name = settings.data.rstrip("/").rpartition("/")[2]
        self.title = f"{self.describe_model()}, on {name}"

    def load(self, settings):
        """The `ImageData` of the settings."""
        return load_data(settings)

    def describe_model(self):
        """A description of the model."""
        return describe(self.settings)

    def describe(self):
        lines = [f"Data: {remark}." for remark in self.data.remarks]
        sizes = self.data.sizes().items()
        sizes = ", ".join(f"{count:,} {name}" for name, count in sizes)
        shape = " x ".join(map(str, self.data.image_shape))
        lines.append(
            f"Data: {sizes} images {shape}, {self.num_classes} classes."
        )
        return "\n".join(lines)

    def build_model(self):
        settings, data = self.settings, self.data
        if settings.preset is None:
            return build_classifier(
                settings, data.image_shape, self.num_classes
            )
        classes = None if self._keeps_last_layer else self.num_classes
        shape = data.image_shape
        if settings.sizes:
            shape = (None, None, shape[-1])
        model = from_preset(settings.preset, classes, shape)
        if settings.average_with:
            others = [
                (name, from_preset(name, classes, shape))
                for name in settings.average_with
            ]
            fine_tuning.average(model, others, self._keeps_last_layer)
        if settings.freeze:
            fine_tuning.freeze_all_but_last(model)
        if settings.freeze_batch_norm:
            fine_tuning.freeze_batch_norm(model)
        elif settings.keep and fine_tuning.batch_norm_layers(model):
            raise ValueError(
                "--keep expects --freeze-batch-norm, or a model without batch "
                "normalization, whose statistics do not match mixed weights. "
                f"Received: --keep {settings.keep:g}"
            )
        return model

    @functools.cached_property
    def _keeps_last_layer(self):
        """The last layer is kept if the classes are the same."""
        return all(
            fine_tuning.class_names(name) == list(self.data.class_names)
            for name in (self.settings.preset, *self.settings.average_with)
        )

    def compile(self, model, jit_compile):
        settings = self.settings
        model.compile(
            optimizer=settings.optimizer(
                model, self.steps_per_epoch, average=settings.average
            ),
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=settings.label_smoothing
            ),
            # Several hosts may pad their batches with rows of weight zero.
            weighted_metrics=["accuracy"],
            jit_compile=jit_compile,
        )

    def callbacks(self):
        # Validation uses the averaged weights, which are kept in the end.
        return [keras.callbacks.SwapEMAWeights()] * (self.settings.average > 0)

    def training_data(self, start_epoch):
        settings = self.settings
        augmentation = augmentation_layers(
            settings.kind if settings.augment else None,
            settings.zoom or 1.0,
            settings.distort,
            self.data.image_shape[-1],
        )
        batches, _ = training_batches(
            self.data.train,
            self.num_classes,
            settings.batch_size,
            settings.seed,
            start_epoch,
            settings.epochs,
            augmentation,
            mixing_layers(settings.cutmix, settings.mixup),
            settings.sizes,
            settings.unmixed_epochs,
        )
        return batches

    def validation_data(self):
        if not self.data.sizes()["validation"]:
            return None
        return self._batches("validation")

    def _batches(self, name, size=None):
        return evaluation_batches(
            getattr(self.data, name), self.num_classes, EVALUATION_BATCH, size
        )

    def evaluate(self, model, parts=("validation", "test")):
        """Metrics at the size of the data, and accuracies at each of
        `settings.sizes`, such as `test_accuracy_at_48`."""
        found = {}
        sizes = self.data.sizes()
        for name in (part for part in parts if sizes[part]):
            results = model.evaluate(
                self._batches(name), verbose=0, return_dict=True
            )
            for metric in ("accuracy", "loss"):
                found[f"{name}_{metric}"] = float(results[metric])
            for size in self.settings.sizes:
                at_size = results
                if (size, size) != self.data.image_shape[:2]:
                    at_size = model.evaluate(
                        self._batches(name, size), verbose=0, return_dict=True
                    )
                accuracy = float(at_size["accuracy"])
                found[f"{name}_accuracy_at_{size}"] = accuracy
        return found

    def final_weights(self, model, build):
        weights, keep = model.get_weights(), self.settings.keep or 0.0
        if not keep:
            return weights
        known = len(weights)
        if not self._keeps_last_layer:
            # A new last layer has no earlier weights.
            known -= len(model.layers[-1].get_weights())
        before = build().get_weights()[:known]
        weights[:known] = [
            keep * old + (1 - keep) * new
            for old, new in zip(before, weights[:known], strict=True)
        ]
        return weights

    def finish(self, folder, model, untrained):
        described = {
            "task": "images",
            "image_shape": list(self.data.image_shape),
            "class_names": list(self.data.class_names),
            **self._reading,
        }
        save_preset(model, folder, described)
        print("Drawing ...", flush=True)
        self._draw(folder, untrained, model)
        self._save_samples(folder / "samples")
        return {"export": self._export(folder, model)}

    @property
    def _reading(self):
        """Decoding options of image files, recorded for the server."""
        return {
            "max_pixels": self.settings.max_pixels,
            "sample_bits": self.settings.sample_bits or 16,
        }

    def _export(self, folder, model):
        if keras.backend.backend() != "tensorflow":
            print(
                "No SavedModel: export needs TensorFlow. Load the preset with "
                "KERAS_BACKEND=tensorflow and call export_saved_model."
            )
            return None
        print("Exporting and verifying the SavedModel ...", flush=True)
        return keras_topo.export_saved_model(
            model,
            folder / "saved_model" / "1",
            class_names=list(self.data.class_names),
            overwrite=True,
            # Files are decoded to a fixed size, which models of any size lack.
            **({} if self.settings.sizes else self._reading),
        )

    def _draw(self, folder, before, after):
        """Plots masks, and the attention of one token of a test image."""
        models = {"before training": before, "after": after}
        # Masks of untrained models are not worth plotting.
        masks = visualize.plot_masks(models if self.settings.preset else after)
        if masks is None:
            print("No plot of masks: this attention has none.")
        else:
            masks.savefig(folder / "masks.png")
        picture = visualize.plot_attention(models, self.data.test.images[0])
        picture.savefig(folder / "attention.png")

    def _save_samples(self, folder):
        """Writes a few test images as PNG files, `<class>/<index>.png`."""
        shutil.rmtree(folder, ignore_errors=True)
        images, labels = self.data.test
        for i in of_each_class(labels)[:NUM_SAMPLES]:
            file = folder / self.data.class_names[labels[i]] / f"{i:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tf.io.encode_png(images[i]).numpy())

    def report(self, summary):
        at = ", ".join(
            f"{summary[f'test_accuracy_at_{size}']:.2%} at {size} x {size}"
            for size in self.settings.sizes
        )
        return (
            f"Test accuracy {summary['test_accuracy']:.2%} on "
            f"{summary['images']['test']:,} images"
            f"{at and f' ({at})'} after epoch {summary['epoch']}"
        )


ImageSettings.task = Images


def load_data(settings):
    """The images, in the size and channels of the model of `--from`, if any."""
    size, channels = settings.image_size, None
    if settings.preset:
        inputs = from_preset(settings.preset).inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ValueError(
                f"--from expects an image model. Received: {settings.preset}"
            )
        *trained, channels = inputs[0].shape[1:]
        if None in trained:
            # Of any size: images of the size that it was trained on.
            known = read_preprocessor(settings.preset).get("image_shape")
            trained = known and known[:2]
        size = size or trained
    classes = settings.classes
    data = load_images(
        settings.data,
        settings.data_dir,
        size and both(size),
        settings.limit,
        classes and list(classes),
        settings.per_class,
        settings.max_pixels,
        settings.sample_bits,
    )
    if settings.train_on_validation:
        data = data.with_validation_in_training()
    return data.as_rgb() if channels == 3 else data
