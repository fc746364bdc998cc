"""Fine-tuning a trained model against training from scratch, on few labels.

    python -m benchmarks.fine_tuning --from topvit-cifar10 --data digits \\
        --per-class 10 --json docs/fine-tuning.json

Three ways are compared with the same model, images, batches and epochs: all
weights from scratch, all weights from the trained ones, and the last layer
alone. Each uses the learning rate, out of four, with the best mean validation
accuracy over the seeds. Seeds set initial weights, batches and augmentation.
Test accuracy is measured after the last epoch. Nothing is timed, so nothing
takes turns. After an interruption, the same command continues after the last
finished learning rate.
"""

from training import startup  # noqa: F401  isort: skip

import argparse
import sys

import keras
import numpy as np

import keras_topo
from benchmarks.harness import Report, path
from keras_topo.training.batches import (
    augmentation_layers,
    evaluation_batches,
    training_batches,
)
from keras_topo.training.datasets import load_images
from keras_topo.training.fine_tuning import (
    batch_norm_layers,
    freeze_all_but_last,
    freeze_batch_norm,
)
from keras_topo.training.fitting import adamw

ALL_WEIGHTS = (1.25e-4, 5e-4, 2e-3, 8e-3)
LEARNING_RATES = {
    "from scratch": ALL_WEIGHTS,
    "fine-tuned": ALL_WEIGHTS,
    "last layer": (8e-3, 3.2e-2, 0.128, 0.512),
}
BATCH_SIZE = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="preset", default="topvit-cifar10")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--classes", type=lambda text: text.split(","))
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=path)
    arguments = parser.parse_args()
    model = keras_topo.from_preset(arguments.preset)
    *image_size, channels = model.input_shape[1:]
    data = load_images(
        arguments.data,
        arguments.data_dir,
        image_size,
        classes=arguments.classes,
        per_class=arguments.per_class,
    )
    data = data.as_rgb() if channels == 3 else data
    report = Report(
        arguments.json,
        "benchmarks.fine_tuning",
        {key: value for key, value in vars(arguments).items() if key != "json"},
        ("tensorflow",),
        ("images", "rows"),
    )
    if not report.records("images"):
        report.add([data.sizes()], "images")
    for way, learning_rates in LEARNING_RATES.items():
        for learning_rate in learning_rates:
            key = {"way": way, "learning_rate": learning_rate}
            if not report.records("rows", **key):
                found = train(arguments, data, way, learning_rate)
                report.add([{**key, **found}], "rows")
        best = max(
            report.records("rows", way=way),
            key=lambda row: np.mean(row["validation"]),
        )
        print(
            f"{way}: {spread(best['test'])}, learning rate "
            f"{best['learning_rate']:g}",
            flush=True,
        )
    return 0


def train(arguments, data, way, learning_rate):
    """Validation and test accuracy of every seed."""
    classes = len(data.class_names)
    augmentation = augmentation_layers(
        "digits" if arguments.data == "digits" else "photos"
    )

    def initial(seed):
        keras.utils.set_random_seed(seed)
        model = keras_topo.from_preset(arguments.preset, classes)
        # A clone has the weights of a new model.
        return (
            keras.models.clone_model(model) if way == "from scratch" else model
        )

    def batches(seed):
        return training_batches(
            data.train,
            classes,
            BATCH_SIZE,
            seed,
            0,
            arguments.epochs,
            augmentation,
        )

    model = initial(0)
    if way == "last layer":
        freeze_all_but_last(model)
    elif way == "fine-tuned" and batch_norm_layers(model):
        # In so few updates, its statistics are neither the old nor the new.
        freeze_batch_norm(model)
    steps = batches(0)[1]
    model.compile(
        adamw(
            model,
            learning_rate,
            weight_decay=0.05,
            steps_per_epoch=steps,
            epochs=arguments.epochs,
            warmup_epochs=1,
            clip_norm=1.0,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.1
        ),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    start = [keras.ops.copy(v) for v in model.optimizer.variables]
    found = {"validation": [], "test": []}
    for seed in range(arguments.seeds):
        # One compiled model for all seeds; weights and moments are reset.
        model.set_weights(initial(seed).get_weights())
        for variable, value in zip(
            model.optimizer.variables, start, strict=True
        ):
            variable.assign(value)
        model.fit(
            batches(seed)[0],
            steps_per_epoch=steps,
            epochs=arguments.epochs,
            shuffle=False,
            verbose=0,
        )
        for name, split in (
            ("validation", data.validation),
            ("test", data.test),
        ):
            _, accuracy = model.evaluate(
                evaluation_batches(split, classes, 250), verbose=0
            )
            found[name].append(accuracy)
    print(
        f"{way}, learning rate {learning_rate:g}: validation "
        f"{spread(found['validation'])}",
        file=sys.stderr,
        flush=True,
    )
    return found


def spread(values):
    return f"{np.mean(values):.1%} ± {np.std(values, ddof=1):.1%}"


if __name__ == "__main__":
    sys.exit(main())
