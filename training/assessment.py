"""Cross-validation, model selection, repeated seeds and comparison tables.

    python -m training.train graphs --data ENZYMES.zip --splits ENZYMES.json \\
        --select dropout=0.1,0.3 --out runs/enzymes-folds
    python -m training.train graphs --data ENZYMES.zip --splits 10 \\
        --compare model=gkat,gin --seeds 1 --out runs/models

Without `--splits`, the choice is made on the validation data of the data's own
split, such as the public split of a citation graph, and `--seeds` runs follow.

`training.folds` describes the protocol. Each run adds a line to `runs.jsonl`.
After an interruption, the same command continues. A command with more seeds,
folds or values adds to the existing runs. The results are written to
`folds.json` and `folds.md`, and with `--compare` to `table.png`.

Of several folds, `--compare` also gives the differences from the first value,
paired by fold, and the score of what is best on the validation items of each
fold, as if its values were candidates of `--select`.
"""

import dataclasses
import functools
import gc
import time

from keras_topo.training import report
from keras_topo.training.callbacks import NonFiniteLoss
from keras_topo.training.files import (
    digest,
    write_json,
    write_text,
)
from keras_topo.training.fitting import (
    build_model,
    count_parameters,
    fit_stages,
)
from keras_topo.training.folds import (
    assess,
    best_in_each_fold,
    chosen_folds,
    combinations,
    differences,
    read_runs,
    splits_digest,
    summarize,
)
from keras_topo.training.machine import (
    retracing_in_silence,
    use_jit,
    versions,
)
from keras_topo.training.options import parse_choices
from keras_topo.training.settings import as_arguments, with_changes

# Settings that define the items cannot be chosen on validation items.
NEVER_COMPARED = ("seed", "train_on_validation")
NOT_CHOSEN = (
    "data",
    "data_dir",
    *NEVER_COMPARED,
    "classes",
    "limit",
    "nodes",
    "pattern",
    "size",
)


class Assessment:
    """Runs `--splits`, `--select`, `--compare` and `--seeds`.

    Args:
        options: `RunOptions`.
        settings: `Settings`.

    Raises:
        ValueError: for invalid choices.
    """

    def __init__(self, options, settings):
        self.settings = settings
        self.select = parse_choices("--select", options.select, settings)
        self.compare = parse_choices("--compare", options.compare, settings)
        wrong = [
            *{*self.select} & {*NOT_CHOSEN},
            *{*self.compare} & {*NEVER_COMPARED},
        ]
        if wrong:
            names = [name for name in NOT_CHOSEN if hasattr(settings, name)]
            never = [name for name in NEVER_COMPARED if name in names]
            raise ValueError(
                f"--select expects settings other than {', '.join(names)}, "
                f"and --compare other than {' and '.join(never)}. Received: "
                f"{wrong[0]}"
            )
        if getattr(settings, "train_on_validation", False):
            raise ValueError(
                "--select and --compare choose on validation images. "
                "Received: train_on_validation=True"
            )
        both = [name for name in self.compare if name in self.select]
        if both:
            raise ValueError(
                "--compare and --select expect different settings. Received: "
                f"{both[0]} in both"
            )
        self.splits, self.only = options.splits, options.folds
        seeds = options.seeds or (3 if options.splits else 1)
        self.seeds = [settings.seed + k for k in range(seeds)]

    def prepare(self):
        """Reads folds and data, and builds all models.

        Returns:
            A dict of facts that must be equal when a run resumes.

        Raises:
            ValueError: if something cannot be read or built.
        """
        self.cells, facts = [], {}
        everything = [
            with_changes(self.settings, changes)
            for changes in combinations({**self.compare, **self.select})
        ]
        for cell in combinations(self.compare):
            settings = with_changes(self.settings, cell)
            decided = settings.task.decided(settings, everything)
            settings = with_changes(settings, decided)
            if self.splits is None:
                check_next_seed(settings, len(self.seeds))
            folds = self._folds(settings)
            facts = {}
            for choice in combinations(self.select):
                chosen = with_changes(settings, choice)
                task = chosen.task(chosen, next(iter(folds.values())))
                facts = facts or task.facts
                build_model(task)
            if self.splits is not None:
                # Facts of the first fold alone do not matter: `splits` is
                # compared.
                facts = {k: v for k, v in facts.items() if k[:5] == "data_"}
            facts = {**facts, **decided}
            self.cells.append((cell, settings, folds, facts, decided))
        if self.compare:
            # The lines of runs record their data.
            facts = {}
        # A run may be extended by folds, seeds and values, not by other data.
        return {**facts, "splits": splits_digest(self.splits)}

    def _folds(self, settings):
        if self.splits is None:
            return {0: None}
        labels = settings.task.labels(settings)
        return chosen_folds(self.splits, self.only, labels, settings.seed)

    def _are_paired(self):
        """Whether all cells have the same several folds."""
        folds = [folds for _, _, folds, *_ in self.cells]
        if len(folds[0]) == 1 or {*NOT_CHOSEN} & {*self.compare}:
            return False
        identities = {
            digest(
                [*each],
                *(
                    fold[part]
                    for fold in each.values()
                    for part in sorted(fold)
                ),
            )
            for each in folds
        }
        return len(identities) == 1

    def read(self, folder):
        """Raises a ValueError if lines of earlier runs are damaged."""
        read_runs(folder / "runs.jsonl")

    def run(self, folder, command):
        """Trains all missing runs and writes the results."""
        metric, greater = self.settings.task.monitor
        results, finals = [], []
        for cell, settings, folds, facts, decided in self.cells:
            about = {}
            if cell:
                about = {"cell": cell, "data": digest(facts)}
                print(" ".join(f"{k}={v}" for k, v in cell.items()))

            best = BestCandidate()

            def train(choice, fold, seed, parts, settings=settings, best=best):
                settings = with_changes(settings, {**choice, "seed": seed})
                return train_once(settings, fold, parts, best)

            lines = assess(
                train,
                folds,
                combinations(self.select),
                self.seeds,
                folder / "runs.jsonl",
                metric,
                greater,
                about,
                lambda text: print(text, flush=True),
            )
            finals.append((cell, lines))
            parameters = sorted({line["parameters"] for line in lines})
            results.append(
                {
                    "cell": cell,
                    "parameters": parameters,
                    **({"decided": decided} if decided else {}),
                    **summarize(lines, metric),
                }
            )
        summary = {
            "command": command,
            "data": getattr(self.settings, "data", None),
            "metric": metric,
            "seeds": len(self.seeds),
            "grid": self.select,
            "results": results,
            "arguments": as_arguments(self.settings.used()),
            "versions": versions(),
        }
        if len(finals) > 1 and self._are_paired():
            for result, found in zip(
                results, differences(results, metric), strict=True
            ):
                if found:
                    result["difference"] = found
            best = best_in_each_fold(finals, metric, greater)
            summary["chosen"] = summarize(best, metric)
        write_json(folder / "folds.json", summary)
        text = report.format_assessment(summary)
        write_text(folder / "folds.md", text)
        if self.compare:
            report.draw_table(summary, folder / "table.png")
        print(f"\n{text}\n  {folder / 'folds.md'}")


class BestCandidate:
    """The weights of the best candidate of a fold so far.

    The first final run has the same settings and seed as the chosen candidate,
    so it reuses these weights instead of repeating the training.
    """

    def __init__(self):
        self._fold = self._settings = self._score = self._kept = None

    def offer(self, settings, fold, score, weights, found):
        """Keeps a candidate if it is the best of its fold.

        Args:
            settings: `Settings`.
            fold: dict of ids of items.
            score: number, larger is better.
            weights: list of arrays.
            found: dict, facts about the training.
        """
        if self._has(fold) and score <= self._score:
            return
        self._fold, self._settings, self._score = fold, settings, score
        self._kept = weights, dict(found)

    def take(self, settings, fold):
        """Weights and facts about the training; `None` for other settings."""
        if not self._has(fold) or self._settings != settings:
            return None
        return self._kept

    def _has(self, fold):
        # `None` is a valid fold: the split of the data.
        return self._kept is not None and self._fold is fold


@retracing_in_silence()
def train_once(settings, fold=None, parts=("validation", "test"), best=None):
    """Trains one model.

    Args:
        settings: `Settings`.
        fold: dict of ids of items, or `None`.
        parts: names of the data to evaluate the model on.
        best: `BestCandidate` that collects candidates and returns the weights
            for a final run; or `None`.

    Returns:
        A dict of the metrics of `Task.evaluate` and facts about the training.
    """
    started = time.perf_counter()
    task = settings.task(settings, fold)
    metric, greater = task.monitor
    model = build_model(task)
    jit_compile = use_jit(settings.jit)
    found = {"parameters": count_parameters(model)}
    is_candidate = "test" not in parts
    kept = None
    if best is not None and not is_candidate:
        kept = best.take(settings, fold)
    fit_started = time.perf_counter()
    try:
        if kept is not None:
            weights, trained = kept
            model.set_weights(weights)
            found |= {**trained, "trained_as": "choice"}
        else:
            try:
                found["best_epoch"] = fit_stages(
                    task, model, jit_compile, verbose=0
                )
            finally:
                seconds = time.perf_counter() - fit_started
                found["training_seconds"] = round(seconds, 1)
            build = functools.partial(build_model, task)
            model.set_weights(task.final_weights(model, build))
        if not model.compiled:
            # A model around it was trained.
            task.compile(model, jit_compile)
        trained = dict(found)
        found |= task.evaluate(model, parts)
        if best is not None and is_candidate:
            score = found[f"validation_{metric}"]
            score = score if greater else -score
            best.offer(settings, fold, score, model.get_weights(), trained)
    except NonFiniteLoss as error:
        if not greater:
            raise
        # This is a result too: a candidate that diverges is not chosen, and a
        # final run that diverges counts as accuracy 0.
        found |= {f"{part}_{metric}": 0.0 for part in parts}
        found["failed"] = str(error)
    found["seconds"] = round(time.perf_counter() - started, 1)
    del model, task
    gc.collect()
    return found


def check_next_seed(settings, count):
    """Checks the second seed before the first one is trained.

    If the split of the data depends on the seed, another seed has test items
    that the model of `--from` was trained on.

    Args:
        settings: `Settings` of the first seed.
        count: int, number of seeds.

    Raises:
        ValueError: if the task refuses the second seed.
    """
    if count < 2 or getattr(settings, "preset", None) is None:
        return
    settings = dataclasses.replace(settings, seed=settings.seed + 1)
    try:
        settings.task(settings)
    except ValueError as error:
        raise ValueError(f"--seeds {count}: {error}") from error


def more_seeds(settings, count, folder, first):
    """Repeats a training with more seeds.

    Args:
        settings: `Settings` of the first seed.
        count: int, number of seeds.
        folder: `pathlib.Path` of the run.
        first: dict, the summary of the first run.

    Returns:
        A dict for the summary: `runs`, mean and deviation, the seconds of all
        runs, and `failed`, a dict from seeds to reasons. The metric is the
        mean; the metric of the saved file has a separate name.
    """
    metric, greater = settings.task.monitor
    score = f"test_{metric}"
    own = first.get(f"{score}_of_the_file", first[score])

    def train(choice, fold, seed, parts):
        if seed != settings.seed:
            return train_once(
                dataclasses.replace(settings, seed=seed), fold, parts
            )
        found = {"parameters": first["parameters"], score: own}
        found["training_seconds"] = first["training_seconds"]
        other = f"validation_{metric}"
        return {**found, other: first.get(other)}

    lines = assess(
        train,
        {0: None},
        seeds=range(settings.seed, settings.seed + count),
        file=folder / "runs.jsonl",
        monitor=metric,
        greater=greater,
        told=lambda text: print(text.partition("final ")[2], flush=True),
    )
    found = summarize(lines, metric)
    seconds = sum(line["training_seconds"] for line in lines)
    failed = {
        str(line["seed"]): line["failed"] for line in lines if "failed" in line
    }
    return {
        score: found["mean"],
        f"{score}_of_the_file": own,
        "test_deviation": found["deviation"],
        "runs": len(lines),
        "training_seconds": round(seconds, 1),
        **({"failed": failed} if failed else {}),
    }
