"""Trains TopViT on images and exports it as a SavedModel.

    python -m training.images --data digits --out runs/digits
    python -m training.images --data cifar10 --data-dir FOLDER --out runs/cifar
    python -m training.images --data FOLDER_OF_CLASS_FOLDERS --out runs/mine
    python -m training.images --data FOLDER --from PRESET --out runs/fine

The same command resumes a run that was interrupted, from its last finished
epoch. Digits take one to two minutes on two cores and end at a test accuracy
of 97.5 to 99.2% (of 359 images, with seeds 0, 1 and 2). The run folder then
holds a preset for `keras_topo.from_preset` (`config.json`,
`model.weights.h5`, `preprocessor.json`, `checksums.json`), `model.keras`,
`saved_model/1/`, `metrics.json`, `metrics.jsonl`, `curves.png`, `masks.png`,
`attention.png`, a few test images in `samples/` and the logs for TensorBoard.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import shlex
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_topo import visualize
from keras_topo.presets import (
    copied,
    find_preset,
    from_preset,
    make_trainable,
    read_metrics,
    save_preset,
)
from keras_topo.training import distribution, pictures
from keras_topo.training.batches import (
    augmentation_layers,
    evaluation_batches,
    training_batches,
)
from keras_topo.training.command_line import (
    HelpFormatter,
    add_fine_tuning_arguments,
    add_run_arguments,
    check_fine_tuning,
    freeze_all_but_last,
    natural,
    natural_float,
    positive_float,
    positive_int,
    rate,
    use_jit,
    versions,
)
from keras_topo.training.datasets import load_images
from keras_topo.training.distribution import add_distribution_arguments
from keras_topo.training.masks_by_name import EXPECTED, mask_name, mask_of
from keras_topo.training.run import (
    NonFiniteLoss,
    Run,
    adamw,
    preprocessor_of,
    presets_in_silence,
    print_contents,
    training_callbacks,
)

# What is not given on the command line. Every other data set is trained like
# the photographs of CIFAR-10.
RECIPES = {
    "digits": {
        "patch_size": [4, 4],
        "epochs": 60,
        "batch_size": 32,
        "learning_rate": 2e-3,
        "warmup_epochs": 3,
        "dropout": 0.1,
    },
    "photos": {
        "patch_size": [4, 4],
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "warmup_epochs": 2,
        "dropout": 0.0,
    },
}
POLICIES = {
    "none": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# What a trained model has decided already.
ARCHITECTURE = (
    "model",
    "patch-size",
    "attention",
    "mask",
    "mask-initial",
    "pooling",
    "stem",
    "dropout",
    "stochastic-depth",
    "mixed-precision",
)
# Arguments that say where and how to run, not what comes out.
NOT_COMPARED = ("out", "resume", *distribution.NOT_COMPARED)
EVALUATION_BATCH = 250
SAMPLES = 12


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_arguments(argv)
    if keras.backend.backend() != "tensorflow":
        # Only tf.data is used then; the other backend gets the GPUs.
        tf.config.set_visible_devices([], "GPU")
    try:
        devices = distribution.start(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run = Run(arguments["out"], writes=devices.is_first)
    try:
        run.open(arguments, arguments["resume"], NOT_COMPARED)
        # Of the others none looks before the folder is this run's.
        devices.wait("open")
        summary = run.summary()
        if summary is not None:
            print(f"{run.folder} holds this run, finished: nothing to train.")
            report(run, summary)
            return 0
        pictures.load_pyplot()  # Better missing now than after the training.
        data = load_data(arguments)
        with devices.scope():
            model = build_model(arguments, data)
    except (ValueError, ImportError) as error:
        run.discard_unused()
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        with devices.scope():
            train(run, arguments, data, model, devices)
    except NonFiniteLoss as error:
        print(
            f"\nerror: {error}. Training stopped; the run folder "
            f"{run.folder} keeps the epochs before this one. A lower "
            "--learning-rate, more --warmup-epochs, a smaller --clip-norm or "
            "another --mixed-precision, with another --out, usually helps; "
            "so does looking for NaN in the data.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes.", file=sys.stderr)
        return 130
    command = shlex.join(["python", "-m", "training.images", *argv])
    if devices.is_first:
        report(run, finish(run, arguments, data, model, command))
    devices.wait("finish")
    return 0


def parse_arguments(argv):
    """Parses the command line into a dict, the recipe filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m training.images",
        description="Train TopViT on images and export it as a SavedModel.",
        formatter_class=HelpFormatter,
        # What is refused beside --from is known by whole names.
        allow_abbrev=False,
    )

    def recipe(name):
        digits, photos = [RECIPES[kind][name] for kind in ("digits", "photos")]
        return f"default: {digits} for digits, else {photos}"

    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default="digits",
        help="digits, cifar10, or a folder of class folders",
    )
    group.add_argument(
        "--data-dir",
        help="with --data cifar10: the folder of its tars or of train/ and "
        "test/; without it Keras downloads the data set",
    )
    group.add_argument(
        "--image-size",
        type=_size,
        metavar="N or HxW",
        help="size all images are resized to, aspect ratio not kept (with "
        "--from that of the trained model; else 8 for digits, 32 for cifar10, "
        "or that of the first image)",
    )
    group.add_argument(
        "--classes",
        type=lambda text: text.split(","),
        metavar="NAME,NAME...",
        help="use images of these classes only",
    )
    group.add_argument(
        "--per-class",
        type=positive_int,
        metavar="N",
        help="use N training images of each class, always the same ones",
    )
    group.add_argument(
        "--limit",
        type=positive_int,
        help="use at most this many images of each split, for a trial",
    )
    group.add_argument(
        "--augment",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="random shifts and, but for digits, mirror images",
    )
    group.add_argument(
        "--zoom",
        type=positive_float,
        help="with --augment: enlarge by up to this factor, each axis by "
        "another; for models that will be used at higher resolutions",
    )

    group = parser.add_argument_group("model")
    group.add_argument("--model", default="mini", help="mini, Ti, S, B or L")
    group.add_argument(
        "--patch-size",
        type=_size,
        metavar="N or HxW",
        help=recipe("patch_size"),
    )
    group.add_argument(
        "--attention",
        default="toeplitz",
        choices=["toeplitz", "linear", "softmax"],
        help="TopViT, the unmasked Performer or the ordinary ViT",
    )
    group.add_argument(
        "--mask",
        default="table",
        type=mask_name,
        help=f"the mask of --attention toeplitz: {EXPECTED}",
    )
    group.add_argument(
        "--mask-initial",
        default="decays",
        choices=["decays", "ones"],
        help="how the mask starts: as decays of several scales, or as ones",
    )
    group.add_argument(
        "--pooling",
        default="gap",
        choices=["gap", "token"],
        help="average over the grid, or a class token",
    )
    group.add_argument(
        "--stem",
        default="patches",
        choices=["patches", "convolutions"],
        help="what makes tokens of pixels",
    )
    group.add_argument("--dropout", type=rate, help=recipe("dropout"))
    group.add_argument(
        "--stochastic-depth",
        type=rate,
        default=0.0,
        help="rate of the last block",
    )

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive_int, help=recipe("epochs"))
    group.add_argument(
        "--batch-size", type=positive_int, help=recipe("batch_size")
    )
    group.add_argument(
        "--learning-rate",
        type=positive_float,
        help="peak; " + recipe("learning_rate"),
    )
    group.add_argument(
        "--warmup-epochs", type=natural, help=recipe("warmup_epochs")
    )
    group.add_argument(
        "--weight-decay", type=natural_float, default=0.05, help="of kernels"
    )
    group.add_argument(
        "--clip-norm",
        type=positive_float,
        default=1.0,
        help="bound on the global norm of the gradients",
    )
    group.add_argument("--label-smoothing", type=rate, default=0.1, help="rate")
    group.add_argument(
        "--jit",
        default="auto",
        choices=["auto", "on", "off"],
        help="compile with XLA; auto: where there is an accelerator",
    )
    group.add_argument(
        "--mixed-precision",
        default="none",
        choices=sorted(POLICIES),
        help="compute dtype",
    )
    group.add_argument(
        "--seed", type=natural, default=0, help="of everything random"
    )

    group = add_fine_tuning_arguments(parser, ARCHITECTURE)
    group.add_argument(
        "--keep",
        type=rate,
        default=None,
        metavar="SHARE",
        help="in the end take this share of each weight from the model of "
        "--from, a new last layer's apart, and the rest from what was trained: "
        "what was learned anew, and what was known (Wortsman et al. 2022)",
    )
    add_distribution_arguments(parser)
    add_run_arguments(parser)
    arguments = vars(parser.parse_args(argv))
    zoom = arguments["zoom"]
    if zoom is not None and (zoom < 1 or not arguments["augment"]):
        parser.error(
            "--zoom expects at least 1, and --augment. Received: --zoom "
            f"{zoom:g}"
        )
    check_fine_tuning(parser, argv, arguments, ARCHITECTURE)
    if arguments["keep"] is not None and arguments["preset"] is None:
        parser.error(
            f"--keep is for --from. Received: --keep {arguments['keep']:g}"
        )
    kind = "digits" if arguments["data"] == "digits" else "photos"
    for name, value in RECIPES[kind].items():
        if arguments[name] is None:
            arguments[name] = value
    if arguments["preset"]:
        arguments |= trained_architecture(arguments["preset"])
    if arguments["warmup_epochs"] >= arguments["epochs"]:
        # A short trial keeps the shape of the schedule.
        arguments["warmup_epochs"] = arguments["epochs"] // 3
    return arguments


def trained_architecture(preset):
    """What a preset has decided, as far as it is known; `None` otherwise."""
    try:
        trained = read_metrics(find_preset(preset)).get("arguments", {})
    except (ValueError, ImportError):
        trained = {}  # Loading the model says what is wrong.
    names = {name.replace("-", "_") for name in ARCHITECTURE}
    # The precision of a loaded model is that of the file.
    return {name: trained.get(name) for name in names - {"mixed_precision"}}


def load_data(arguments):
    """The images, as the model of `--from` expects them if there is one."""
    image_size, channels = arguments["image_size"], None
    if arguments["preset"]:
        inputs = from_preset(arguments["preset"]).inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ValueError(
                "--from expects a model of images. Received: "
                f"{arguments['preset']}"
            )
        *size, channels = inputs[0].shape[1:]
        image_size = image_size or (size if None not in size else None)
    data = load_images(
        arguments["data"],
        arguments["data_dir"],
        image_size,
        arguments["limit"],
        arguments["classes"],
        arguments["per_class"],
    )
    return data.as_rgb() if channels == 3 else data


def build_model(arguments, data):
    """Builds the untrained model, the same one for the same arguments."""
    from keras_topo.models import topvit

    keras.config.set_dtype_policy(POLICIES[arguments["mixed_precision"]])
    keras.utils.set_random_seed(arguments["seed"])
    if arguments["preset"]:
        classes = len(data.class_names)
        if keeps_last_layer(arguments, data):
            classes = None
        model = from_preset(arguments["preset"], classes, data.image_shape)
        if arguments["freeze"]:
            freeze_all_but_last(model)
        return model
    mask = None
    if arguments["attention"] == "toeplitz":
        mask = mask_of(arguments["mask"], initial=arguments["mask_initial"])
    return topvit(
        arguments["model"],
        patch_size=tuple(arguments["patch_size"]),
        image_shape=data.image_shape,
        num_classes=len(data.class_names),
        attention=arguments["attention"],
        mask=mask,
        pooling=arguments["pooling"],
        stem=arguments["stem"],
        dropout=arguments["dropout"],
        stochastic_depth=arguments["stochastic_depth"],
    )


def keeps_last_layer(arguments, data):
    """For the very same classes it is as good as the others."""
    metrics = read_metrics(find_preset(arguments["preset"]))
    return metrics.get("class_names") == list(data.class_names)


def train(run, arguments, data, model, devices):
    """Trains the model from the last finished epoch of the run to its end."""
    epochs = arguments["epochs"]
    kind = "digits" if arguments["data"] == "digits" else "photos"
    augmentation = augmentation_layers(
        kind if arguments["augment"] else None, arguments["zoom"] or 1.0
    )
    num_classes = len(data.class_names)

    def batches(start_epoch):
        return training_batches(
            data.train,
            num_classes,
            arguments["batch_size"],
            arguments["seed"],
            start_epoch,
            epochs,
            augmentation,
        )

    _, steps = batches(0)
    compile_model(model, arguments, steps)
    finished = run.restore(model)

    if devices.is_first:
        describe(run, arguments, data, model, finished)
    if finished == epochs:
        return
    validation = evaluation_batches(
        data.validation, num_classes, EVALUATION_BATCH
    )
    model.fit(
        devices.share(batches(finished)[0]),
        steps_per_epoch=steps,
        epochs=epochs,
        initial_epoch=finished,
        shuffle=False,  # Shuffled already, by epoch.
        validation_data=devices.share(validation),
        callbacks=training_callbacks(run, arguments["seed"]),
        verbose="auto" if devices.is_first else 0,
    )


def describe(run, arguments, data, model, finished):
    """Prints what is about to be trained."""
    for remark in data.remarks:
        print(f"Data: {remark}.")
    sizes = ", ".join(f"{n:,} {name}" for name, n in data.sizes().items())
    print(
        f"Data: {sizes} images {format_shape(data.image_shape)}, "
        f"{len(data.class_names)} classes."
    )
    trained = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    only = "" if trained == model.count_params() else f", {trained:,} trained"
    print(
        f"Model: {describe_model(arguments)}, {model.count_params():,} "
        f"parameters{only}."
    )
    if finished:
        print(
            f"Resuming {run.folder} after epoch {finished} of "
            f"{arguments['epochs']}."
        )


def compile_model(model, arguments, steps_per_epoch):
    model.compile(
        optimizer=adamw(
            model,
            arguments["learning_rate"],
            arguments["weight_decay"],
            steps_per_epoch,
            arguments["epochs"],
            arguments["warmup_epochs"],
            arguments["clip_norm"],
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=arguments["label_smoothing"]
        ),
        # Of rows with weights, which several hosts may feed, too.
        weighted_metrics=["accuracy"],
        jit_compile=use_jit(arguments["jit"]),
    )


def describe_model(arguments):
    if arguments["preset"]:
        frozen = ", last layer" if arguments["freeze"] else ""
        return f"{Path(arguments['preset']).name}, fine-tuned{frozen}"
    height, width = arguments["patch_size"]
    patch = f"{height}" if height == width else f"{height}x{width}"
    attention = f"{arguments['attention']} attention"
    if arguments["attention"] == "toeplitz":
        attention += f", mask {arguments['mask']}"
    stem = ", stem of convolutions" if arguments["stem"] != "patches" else ""
    return f"TopViT-{arguments['model']}/{patch}{stem}, {attention}"


def finish(run, arguments, data, model, command):
    """Saves, tests, draws and exports the trained model.

    Returns:
        The summary, as written to `metrics.json`.
    """
    history = run.history()
    # The file holds the model as it is used; the optimizer stays behind.
    with presets_in_silence():
        before = build_model(arguments, data)
    bare = copied(before)
    weights, keep = model.get_weights(), arguments["keep"] or 0.0
    if keep:
        last = 0
        if not keeps_last_layer(arguments, data):
            # A new last layer has no weights from before.
            last = len(model.layers[-1].get_weights())
        known = len(weights) - last
        weights[:known] = [
            keep * old + (1 - keep) * new
            for old, new in zip(
                before.get_weights()[:known], weights[:known], strict=True
            )
        ]
    bare.set_weights(weights)
    make_trainable(bare)  # What was frozen need not stay so.
    bare.save(run.folder / "model.keras", overwrite=True)
    described = {
        "task": "images",
        "image_shape": list(data.image_shape),
        "class_names": list(data.class_names),
    }
    save_preset(bare, run.folder, preprocessor_of(described))
    # From here on everything is said of what lies in the folder.
    model = from_preset(run.folder)

    print("Testing ...", flush=True)
    compile_model(model, arguments, steps_per_epoch=1)
    test = model.evaluate(
        evaluation_batches(data.test, len(data.class_names), EVALUATION_BATCH),
        return_dict=True,
        verbose=0,
    )
    validation_accuracy = history[-1]["val_accuracy"]
    if keep:
        # The history is that of other weights.
        validation_accuracy = model.evaluate(
            evaluation_batches(
                data.validation, len(data.class_names), EVALUATION_BATCH
            ),
            return_dict=True,
            verbose=0,
        )["accuracy"]
    summary = {
        "task": "images",
        "epoch": history[-1]["epoch"],
        "test_accuracy": float(test["accuracy"]),
        "test_loss": float(test["loss"]),
        "validation_accuracy": float(validation_accuracy),
        "training_seconds": round(sum(e["seconds"] for e in history), 1),
        "parameters": model.count_params(),
        "images": data.sizes(),
        "image_shape": list(data.image_shape),
        "class_names": list(data.class_names),
        "data_remarks": list(data.remarks),
        "command": command,
        "seed": arguments["seed"],
        "arguments": arguments,
        "versions": versions(),
    }

    print("Drawing ...", flush=True)
    title = f"{describe_model(arguments)}, on {Path(arguments['data']).name}"
    pictures.draw_curves(
        history,
        run.folder / "curves.png",
        title,
        num_training=data.sizes()["train"],
    )
    draw_inside(run, arguments, data, before, model)
    save_samples(run.folder / "samples", data)

    if keras.backend.backend() == "tensorflow":
        from keras_topo import export_saved_model

        print("Exporting and checking the SavedModel ...", flush=True)
        saved_model = run.folder / "saved_model" / "1"
        summary["export"] = export_saved_model(
            model,
            saved_model,
            class_names=list(data.class_names),
            overwrite=True,
        )
    else:
        print(
            "No SavedModel: TensorFlow exports it. Load model.keras with "
            "KERAS_BACKEND=tensorflow and call keras_topo.export_saved_model."
        )
    run.finish(summary)
    return summary


def draw_inside(run, arguments, data, before, after):
    """Draws masks, and what a token of a test image attends to."""
    models = {"before training": before, "after": after}
    # Masks of untrained models hide nothing, and there is nothing to see.
    masks = visualize.plot_masks(models if arguments["preset"] else after)
    if masks is None:
        print("No masks to draw: this attention has none.")
    else:
        masks.savefig(run.folder / "masks.png")
    picture = visualize.plot_attention(models, data.test.images[0])
    picture.savefig(run.folder / "attention.png")


def save_samples(folder, data):
    """Writes a few test images as PNG files, `<class>/<index>.png`."""
    shutil.rmtree(folder, ignore_errors=True)
    labels = data.test.labels
    # As many classes as there are, then the next image of each.
    rank = np.zeros(len(labels), int)
    for label in range(len(data.class_names)):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    for i in np.lexsort((labels, rank))[:SAMPLES]:
        file = folder / data.class_names[labels[i]] / f"{i:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(data.test.images[i]).numpy())


def report(run, summary):
    """Prints the result and what lies in the run folder."""
    seconds = summary["training_seconds"]
    print(
        f"\nTest accuracy {summary['test_accuracy']:.2%} on "
        f"{summary['images']['test']:,} images after "
        f"{summary['epoch']} epochs ({seconds:.0f} s of training).\n"
    )
    contents = {
        "model.weights.h5": "with config.json: for keras_topo.from_preset",
        "model.keras": "for keras.saving.load_model, after import keras_topo",
        "saved_model/1": "the same for TensorFlow Serving, pixels or files in",
        "metrics.json": "the result and how it came about",
        "metrics.jsonl": "loss and accuracy of every epoch",
        "curves.png": "the same, drawn",
        "masks.png": "the learned masks of every layer and head",
        "attention.png": "what a token of a test image attends to",
        "samples": "some test images, by class",
        "tensorboard": f"logs: tensorboard --logdir {run.folder}",
    }
    print_contents(run.folder, contents)


def format_shape(shape):
    return " x ".join(str(size) for size in shape)


def _size(text):
    height, times, width = text.partition("x")
    return [positive_int(height), positive_int(width if times else height)]


if __name__ == "__main__":
    sys.exit(main())
