"""Trains what a config says: `training/configs` has the configs.

    python -m training.train --config text --out runs/text
    python -m training.train --config text --set mask=table seed=1 --out runs/1
    python -m training.train --config my_config.py --out runs/mine

`--set` changes arguments of the config, and `--variant` takes a set of changes
that the config names. The same command resumes a run that was interrupted, from
its last finished epoch. The run folder then holds `model.keras`,
`metrics.json`, `metrics.jsonl`, `curves.png`, the logs for TensorBoard and what
the task leaves there. `--results FILE` adds a line with the results to a file
of many runs.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import json
import shlex
import sys

import keras
import tensorflow as tf

from keras_topo.training import configs, pictures
from keras_topo.training.command_line import (
    HelpFormatter,
    add_run_arguments,
    choice,
    natural,
    natural_float,
    optional,
    path,
    positive_float,
    positive_int,
    use_jit,
    versions,
)
from keras_topo.training.run import (
    NonFiniteLoss,
    Run,
    adamw,
    print_contents,
    read_lines,
    training_callbacks,
)

#: Arguments of every config. Those of its task come on top of them.
PARSERS = {
    "epochs": positive_int,
    "learning_rate": positive_float,
    "warmup_epochs": natural,
    "weight_decay": natural_float,
    "clip_norm": optional(positive_float),
    "jit": choice("auto", "on", "off"),
    "dtype_policy": choice("float32", "mixed_bfloat16", "mixed_float16"),
    "seed": natural,
}


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse_options(argv)
    if keras.backend.backend() != "tensorflow":
        # Only tf.data is used then; the other backend gets the GPUs.
        tf.config.set_visible_devices([], "GPU")
    run = Run(options.out)
    try:
        config = configs.load(options.config)
        arguments = configs.resolve(
            config,
            {**PARSERS, **config.task.parsers},
            options.variant,
            options.settings,
        )
        pictures.load_pyplot()  # Better missing now than after the training.
        task = config.task(arguments)
        started_with = {"task": task.name, **arguments, **task.facts}
        run.open(started_with, options.resume)
        summary = run.summary()
        if summary is not None:
            print(f"{run.folder} holds this run, finished: nothing to train.")
            report(run, task, summary, options.results)
            return 0
        keras.config.set_dtype_policy(arguments["dtype_policy"])
        model = build_model(task, arguments)
    except (ValueError, ImportError, OSError) as error:
        run.discard_unused()
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        train(run, task, arguments, model)
    except NonFiniteLoss as error:
        print(
            f"\nerror: {error}. Training stopped; the run folder "
            f"{run.folder} keeps the epochs before this one. A lower "
            "learning_rate, more warmup_epochs or a smaller clip_norm, with "
            "another --out, usually helps.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes.", file=sys.stderr)
        return 130
    summary = {
        "task": task.name,
        "config": options.config,
        "variant": options.variant,
        **finish(run, task, arguments, model),
        **task.facts,
        "seed": arguments["seed"],
        "arguments": arguments,
        "command": shlex.join(["python", "-m", "training.train", *argv]),
        "versions": versions(),
    }
    run.finish(summary)
    report(run, task, summary, options.results)
    return 0


def parse_options(argv):
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Train what a config says.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--config",
        required=True,
        help="name in training/configs, or path of a Python file",
    )
    parser.add_argument(
        "--variant", help="name of changes that the config lists"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="change arguments of the config",
    )
    parser.add_argument(
        "--results",
        type=path,
        metavar="FILE",
        help="add the summary of the finished run to this file, as a line of "
        "JSON",
    )
    add_run_arguments(parser)
    return parser.parse_args(argv)


def build_model(task, arguments):
    """Builds the untrained model, the same one for the same arguments."""
    keras.utils.set_random_seed(arguments["seed"])
    return task.build_model()


def train(run, task, arguments, model):
    """Trains the model from the last finished epoch of the run to its end."""
    epochs = arguments["epochs"]
    model.compile(
        optimizer=adamw(
            model,
            arguments["learning_rate"],
            arguments["weight_decay"],
            task.steps_per_epoch,
            epochs,
            # A short trial keeps the shape of the schedule.
            min(arguments["warmup_epochs"], epochs // 3),
            arguments["clip_norm"],
        ),
        jit_compile=use_jit(arguments["jit"]),
        **task.compile_arguments(),
    )
    finished = run.restore(model)
    print(task.describe())
    print(f"Model: {task.title}, {model.count_params():,} parameters.")
    if finished:
        print(f"Resuming {run.folder} after epoch {finished} of {epochs}.")
    if finished == epochs:
        return
    model.fit(
        task.training_data(finished),
        steps_per_epoch=task.steps_per_epoch,
        epochs=epochs,
        initial_epoch=finished,
        shuffle=False,  # The task has done so, by epoch.
        validation_data=task.validation_data(),
        callbacks=training_callbacks(run, arguments["seed"]),
    )


def finish(run, task, arguments, model):
    """Saves, tests and draws the trained model.

    Returns:
        A dict of results.
    """
    # The file holds the model as it is used; the optimizer stays behind.
    bare = build_model(task, arguments)
    bare.set_weights(model.get_weights())
    bare.save(run.folder / "model.keras")
    print("Testing ...", flush=True)
    results = task.evaluate(model)
    history = run.history()
    pictures.draw_curves(history, run.folder / "curves.png", task.title)
    task.finish(run.folder, bare)
    return {
        **results,
        "epochs": arguments["epochs"],
        "updates": int(model.optimizer.iterations),
        "training_seconds": round(sum(e["seconds"] for e in history), 1),
        "parameters": model.count_params(),
    }


def report(run, task, summary, results):
    """Prints the result, and adds it to the file of results."""
    print(
        f"\n{task.report(summary)}, after {summary['updates']:,} updates "
        f"({summary['training_seconds']:.0f} s of training).\n"
    )
    contents = {
        "model.keras": "for keras.saving.load_model, after import keras_topo",
        "metrics.json": "the result and how it came about",
        "metrics.jsonl": "loss and accuracy of every epoch",
        "curves.png": "the same, drawn",
        **task.contents,
        "tensorboard": f"logs: tensorboard --logdir {run.folder}",
    }
    print_contents(run.folder, contents)
    if results is None:
        return
    line = {name: v for name, v in summary.items() if name != "command"}
    # A run that ended before its line was written is started once more.
    if line not in read_lines(results):
        results.parent.mkdir(parents=True, exist_ok=True)
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
