"""Trains a model by a config from `training/configs`.

    python -m training.train --help
    python -m training.train text --out runs/text
    python -m training.train text --variant table --seed 1 --out runs/1
    python -m training.train my_config.py --out runs/mine

`--variant` selects a named set of changes from the config. Every setting is
also an option: `python -m training.train CONFIG --help` lists them. If a run is
interrupted, the same command resumes it from its last finished epoch. The run
folder then holds `model.keras`, `metrics.json`, `metrics.jsonl`, `curves.png`,
TensorBoard logs and the files of the task. `--results FILE` appends the results
to a file of many runs.

`--seeds` repeats a run with several seeds. `--splits` runs cross-validation,
and `--compare` makes a table of settings; see `training.assessment`.
"""

from . import startup  # noqa: F401  isort: skip

import contextlib
import shlex
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_topo.presets import make_trainable
from keras_topo.training import assessment, distribution, report
from keras_topo.training.callbacks import NonFiniteLoss
from keras_topo.training.files import append_line, read_lines
from keras_topo.training.fitting import (
    build_model,
    count_parameters,
    fit_stages,
)
from keras_topo.training.folds import read_runs
from keras_topo.training.machine import use_jit, versions
from keras_topo.training.options import PROGRAM, parse
from keras_topo.training.run import Run
from keras_topo.training.settings import as_arguments, default_arguments


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    with contextlib.ExitStack() as stack:
        try:
            name, options, settings = parse(argv)
            if keras.backend.backend() != "tensorflow":
                # Only tf.data is used then; the other backend gets the GPUs.
                tf.config.set_visible_devices([], "GPU")
            devices = start_devices(options, settings)
            run = stack.enter_context(Run(options.out, devices.is_first))
            job = Job(name, options, settings, devices, run, argv)
        except (ValueError, ImportError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        try:
            job.prepare()
        except (ValueError, ImportError, OSError) as error:
            run.discard_unused()
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            return 130
        try:
            job.do()
        except NonFiniteLoss as error:
            print(
                f"\nerror: {error}. Training stopped; the run folder "
                f"{run.folder} keeps the earlier epochs. Try a lower "
                "--learning-rate, more --warmup-epochs or a smaller "
                "--clip-norm, with another --out, and check the data for NaN.",
                file=sys.stderr,
            )
            return 1
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr)
            return 130
    return 0


def start_devices(options, settings):
    """The devices that `--distribute` asks for."""
    if options.distribute != "none" and not settings.task.shares_batches:
        raise ValueError(
            "--distribute expects a task that can split batches. Received: "
            f"a task of {settings.task.name}"
        )
    return distribution.start(
        {
            "distribute": options.distribute,
            "hosts": list(options.hosts) or None,
            "process": options.process,
            "batch_size": getattr(settings, "batch_size", 1),
        }
    )


class Job:
    """One run of the script, of a single model or of an assessment.

    Args:
        name: str, the config.
        options: `RunOptions`.
        settings: `Settings`.
        devices: `Distribution`.
        run: `Run`.
        argv: list of str, the command line.
    """

    def __init__(self, name, options, settings, devices, run, argv):
        self.name, self.options, self.settings = name, options, settings
        self.devices, self.run = devices, run
        self.command = shlex.join([*PROGRAM.split(), *argv])
        self.results = None
        if options.results:
            self.results = Path(options.results).expanduser()
        self.assessment = None
        if options.splits or options.compare or options.select:
            self.assessment = assessment.Assessment(options, settings)

    def prepare(self):
        """Checks everything that can fail before training starts."""
        options, settings = self.options, self.settings
        report.load_pyplot()  # Fail now, not after the training.
        if self.results and self.devices.is_first:
            check_results(self.results)
        defaults = default_arguments(settings)
        if self.assessment is not None:
            facts = self.assessment.prepare()
            started_with = {
                "task": settings.task.name,
                **as_arguments(settings.used()),
            }
            self.run.open({**started_with, **facts}, options.resume, defaults)
            self.assessment.read(self.run.folder)
            return
        self.task = settings.task(settings)
        assessment.check_next_seed(settings, options.seeds or 1)
        self.run.open(
            {
                "task": self.task.name,
                **as_arguments(settings.used()),
                **self.task.facts,
            },
            options.resume,
            defaults,
        )
        # Other processes wait until the folder belongs to this run.
        self.devices.wait("open")
        # Report damaged lines before anything is appended to them.
        read_runs(self.run.folder / "runs.jsonl")
        self.run.history()
        if self.run.summary() is None:
            with self.devices.scope():
                self.model = build_model(self.task)

    def do(self):
        """Trains the model and reports the results."""
        if self.assessment is not None:
            self.assessment.run(self.run.folder, self.command)
            return
        summary, seeds = self.run.summary(), self.options.seeds or 1
        if summary is None:
            with self.devices.scope():
                best_epoch = self.train()
            if self.devices.is_first:
                summary = self.finish(best_epoch)
        elif summary.get("runs", 1) >= seeds:
            print(f"{self.run.folder} holds this run, finished. ", end="")
            print("Nothing to train.")
        if self.devices.is_first:
            if summary.get("runs", 1) < seeds:
                summary |= assessment.more_seeds(
                    self.settings, seeds, self.run.folder, summary
                )
                self.run.finish(summary)
            self.report(summary)
        self.devices.wait("finish")

    def train(self):
        """Trains from the last finished epoch of the run to its end."""
        model, task = self.model, self.task
        if self.devices.is_first:
            print(task.describe())
            count = count_parameters(model)
            trained = sum(
                int(np.prod(w.shape)) for w in model.trainable_weights
            )
            only = "" if trained == count else f", {trained:,} trained"
            print(f"Model: {task.title}, {count:,} parameters{only}.")
            finished = self.run.finished_epochs()
            if finished:
                print(
                    f"Resuming {self.run.folder} after epoch {finished} of "
                    f"{task.settings.epochs}."
                )
        return fit_stages(
            task,
            model,
            use_jit(self.settings.jit),
            self.run,
            "auto" if self.devices.is_first else 0,
            self.devices.share,
        )

    def finish(self, best_epoch):
        """Saves, tests, exports and draws the trained model.

        Returns:
            The summary, as written to `metrics.json`.
        """
        task, folder, model = self.task, self.run.folder, self.model
        history = self.run.history()
        # Batches per update, if the task has this setting.
        accumulate = getattr(self.settings, "accumulate", 1)
        # The file holds the model without its optimizer.
        with report.presets_in_silence():
            untrained, bare, tested = (build_model(task) for _ in range(3))
        bare.set_weights(task.final_weights(model, lambda: untrained))
        make_trainable(bare)  # Frozen layers become trainable again.
        bare.save(folder / "model.keras", overwrite=True)
        print("Testing ...", flush=True)
        # A separate model: the optimizer of a compiled model would be saved.
        tested.set_weights(bare.get_weights())
        task.compile(tested, use_jit(self.settings.jit))
        results = task.evaluate(tested)
        report.draw_curves(
            history, folder / "curves.png", task.title, task.num_training
        )
        summary = {
            "task": task.name,
            "config": self.name,
            "variant": self.options.variant,
            **results,
            "epoch": best_epoch,
            "epochs": len(history),
            "updates": len(history) * task.count_steps() // accumulate,
            "training_seconds": round(sum(e["seconds"] for e in history), 1),
            "parameters": count_parameters(bare),
            **task.facts,
            **task.finish(folder, bare, untrained),
            "seed": self.settings.seed,
            "arguments": as_arguments(self.settings.used()),
            "command": self.command,
            "versions": versions(),
        }
        self.run.finish(summary)
        return summary

    def report(self, summary):
        """Prints the result and appends it to the results file."""
        run = self.run
        spread = ""
        if summary.get("runs", 1) > 1:
            spread = report.format_spread(summary, self.task.monitor[0])
        print(
            f"\n{self.task.report(summary)}{spread}, after "
            f"{summary['updates']:,} updates "
            f"({summary['training_seconds']:.0f} s of training).\n"
        )
        report.print_contents(run.folder, {**CONTENTS, **self.task.contents})
        print(f"  tensorboard --logdir {run.folder} shows the logs.")
        if self.results is None:
            return
        line = {name: v for name, v in summary.items() if name != "command"}
        # If a run stopped before its line was written, it is started again.
        if line not in read_lines(self.results):
            append_line(self.results, line)


def check_results(file):
    """Raises a ValueError unless lines can be appended to `--results`."""
    try:
        read_lines(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            pass
    except OSError as error:
        raise ValueError(
            "--results expects a file that can be written. Received: "
            f"{file} ({error.strerror})"
        ) from error


CONTENTS = {
    "model.keras": "for keras.saving.load_model, after import keras_topo",
    "metrics.json": "results and settings",
    "metrics.jsonl": "loss and accuracy of every epoch",
    "runs.jsonl": "one line per seed",
    "curves.png": "plots of loss and accuracy",
}

INTERRUPTED = "\ninterrupted: run the same command to resume."


if __name__ == "__main__":
    sys.exit(main())
