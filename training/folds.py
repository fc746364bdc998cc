"""Assessment in folds, with a model selection inside of each.

The protocol is that of Errica et al. (2020): in every fold each choice is
trained once on the training items, the best one on the validation items is
taken, and trained with several seeds for its scores on the test items, by which
nothing is chosen. What is trained on what items is no business of this file.
"""

import itertools
import json
from pathlib import Path

import numpy as np

from keras_topo.training.files import append_line, digest, read_lines

PARTS = ("train", "validation", "test")
# The items that each kind of run is scored on.
SCORED = {
    "choice": ("validation",),
    "final": ("validation", "test"),
}


# The assessment.


def assess(
    train,
    folds,
    grid=({},),
    seeds=(0,),
    file=None,
    monitor="accuracy",
    greater=True,
    about=None,
    told=print,
):
    """Chooses in each fold on its validation items, and tests what was chosen.

    Args:
        train: function of a choice, a fold, a seed and names of parts to a
            dict of values of JSON, among them `validation_M` and `test_M` for
            the metric M and those parts: a run of which a choice is made is
            scored on validation items alone.
        folds: dict from numbers to folds, whatever `train` takes.
        grid: list of choices, dicts of values of JSON.
        seeds: list of ints, of the final runs; selection has the first one.
        file: `pathlib.Path` of a line of JSON for each run. Runs whose line is
            there are not repeated. `None` for none.
        monitor: str, the metric M.
        greater: bool, whether more of it is better.
        about: dict, kept in each line and part of what tells runs apart.
        told: function that is given a line of text for each run.

    Returns:
        A list of the lines of all final runs, fold after fold: dicts with
        `kind` (`"final"`; that of other lines of `file` is `"choice"`),
        `fold`, `choice`, `seed`, what `about` has, and what `train` gave.

    Raises:
        ValueError: if `file` has a damaged line, or one without `kind`.
    """
    known = [] if file is None else read_runs(file)

    def run(kind, fold, choice, seed):
        key = {"kind": kind, "fold": fold, "choice": choice, "seed": seed}
        key = {**(about or {}), **key}
        for line in known:
            if {name: line.get(name) for name in key} == key:
                return line
        line = {**key, **train(choice, folds[fold], seed, SCORED[kind])}
        if file is not None:
            append_line(file, line)
        known.append(line)
        return line

    finals = []
    for fold in folds:
        chosen = grid[0]
        if len(grid) > 1:
            tried = []
            for choice in grid:
                line = run("choice", fold, choice, seeds[0])
                told(describe(line, monitor, "choice"))
                tried.append(line)
            chosen = best_of(tried, f"validation_{monitor}", greater)["choice"]
        for seed in seeds:
            line = run("final", fold, chosen, seed)
            told(describe(line, monitor, "final"))
            finals.append(line)
    return finals


def read_runs(file):
    """The lines of a file of runs.

    Raises:
        ValueError: as `read_lines`, and for a line without `kind`: of a
            version in which a choice was scored on test items, too.
    """
    lines = read_lines(file)
    for number, line in enumerate(lines, 1):
        if line.get("kind") not in SCORED:
            raise ValueError(
                f"{file}, line {number} expects a `kind`, choice or final. "
                "Lines of earlier versions lack it and cannot be resumed: "
                "choose another --out, or --no-resume to replace the run. "
                f"Received: kind={line.get('kind')!r}"
            )
    return lines


def best_of(lines, score, greater=True):
    """The line with the best score, the first of equals; one that failed only
    if all did."""
    whole = [line for line in lines if "failed" not in line]
    if not whole:
        return lines[0]
    return (max if greater else min)(whole, key=lambda line: line[score])


def combinations(choices):
    """All choices of a dict from names to lists of values, a list of dicts."""
    return [
        dict(zip(choices, values, strict=True))
        for values in itertools.product(*choices.values())
    ]


def describe(line, monitor, kind):
    """A run in a line of text, with the scores that it has: a choice has none
    of test items."""
    scores = ", ".join(
        f"{part} {line[f'{part}_{monitor}']:.2%}"
        if monitor == "accuracy"
        else f"{part} {line[f'{part}_{monitor}']:.4f}"
        for part in SCORED[kind]
        if line.get(f"{part}_{monitor}") is not None
    )
    choice = " ".join(f"{k}={v}" for k, v in line["choice"].items())
    failed = f" FAILED: {line['failed']}" if "failed" in line else ""
    seconds = f" {line['seconds']:.0f} s" if "seconds" in line else ""
    return (
        f"fold {line['fold']} {kind} {choice + ' ' * bool(choice)}"
        f"seed {line['seed']}: {scores}{seconds}{failed}"
    )


def summarise(lines, monitor="accuracy"):
    """Mean and deviation over folds of the mean over their final runs.

    Args:
        lines: as `assess` returns them.
        monitor: as there.

    Returns:
        A dict with `mean`, `deviation`, `folds`, `by_fold`. Of a single fold
        the deviation is that over its runs.
    """
    score = f"test_{monitor}"
    by_fold = []
    for k in sorted({line["fold"] for line in lines}):
        runs = [line for line in lines if line["fold"] == k]
        by_fold.append(
            {
                "fold": k,
                "choice": runs[0]["choice"],
                "runs": len(runs),
                "failed": sum("failed" in line for line in runs),
                score: float(np.mean([line[score] for line in runs])),
            }
        )
    scores = [fold[score] for fold in by_fold]
    if len(by_fold) == 1:
        scores = [line[score] for line in lines]
    return {
        "mean": float(np.mean(scores)),
        "deviation": float(np.std(scores)),
        "folds": len(by_fold),
        "by_fold": by_fold,
    }


# Folds.


def chosen_folds(splits, only, labels, seed):
    """The folds that `--splits` and `--folds` ask for.

    Args:
        splits: str, a JSON file of folds, or how many to draw.
        only: numbers of folds; empty or `None` for all.
        labels: `(items,)`, classes of the items.
        seed: int, of folds that are drawn.

    Returns:
        A dict from numbers to folds: see `load_folds`.

    Raises:
        ValueError: if there are no such folds.
    """
    if splits.isdigit():
        folds = draw_folds(labels, int(splits), seed)
    else:
        folds = load_folds(splits, len(labels))
    chosen = only or range(len(folds))
    if not set(chosen) <= set(range(len(folds))):
        raise ValueError(
            f"--folds expects numbers from 0 to {len(folds) - 1}. Received: "
            f"{' '.join(map(str, chosen))}"
        )
    return {k: folds[k] for k in chosen}


def splits_digest(splits):
    """What `--splits` is compared by when a run resumes: a file by what is in
    it, for another one may have its name."""
    if splits is None or splits.isdigit():
        return splits
    return digest(Path(splits).expanduser().read_text())


def load_folds(path, count):
    """Reads folds from a file.

    Args:
        path: of a JSON file with a list `folds` of dicts from `train`,
            `validation` and `test` to ids of items.
        count: int, of all items.

    Returns:
        A list of dicts from `train`, `validation` and `test` to arrays.

    Raises:
        ValueError: if the file cannot be read, a fold does not have each item
            once, or two folds test the same item.
    """
    try:
        folds = json.loads(Path(path).expanduser().read_text())["folds"]
        folds = [
            {name: np.asarray(fold[name], "int64") for name in PARTS}
            for fold in folds
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "--splits expects a number of folds, or a JSON file with the "
            f"folds' train, validation and test ids. Received: {path} "
            f"({error!r})"
        ) from error
    tested = {}
    for k, fold in enumerate(folds):
        ids = np.concatenate(list(fold.values()))
        if not np.array_equal(np.sort(ids), np.arange(count)):
            raise ValueError(
                f"--splits expects each of the {count} items once in a fold. "
                f"Received: {len(ids)} ids in fold {k} of {path}"
            )
        if not all(map(len, fold.values())):
            raise ValueError(
                "--splits expects training, validation and test items in each "
                f"fold. Received: none of a kind in fold {k} of {path}"
            )
        for i in fold["test"].tolist():
            if i in tested:
                raise ValueError(
                    "--splits expects folds that test different items. "
                    f"Received: item {i} in folds {tested[i]} and {k} of {path}"
                )
            tested[i] = k
    return folds


def draw_folds(labels, count, seed=0):
    """Stratified folds; of what is left a tenth is for validation.

    Args:
        labels: `(items,)`, the class of each item.
        count: int, of folds.
        seed: int.

    Returns:
        A list as that of `load_folds`.

    Raises:
        ValueError: if a class has fewer items than there are folds, or fewer
            than three; with two folds, fewer than four.
    """
    from sklearn.model_selection import StratifiedKFold

    if count < 2:
        raise ValueError(
            f"--splits expects at least 2 folds. Received: {count}"
        )
    # So that what is left has two of each class beside the items of a fold.
    check_classes(labels, max(count, 4 if count == 2 else 3), f"{count} folds")
    labels = np.asarray(labels)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    folds = []
    for rest, test in splitter.split(labels, labels):
        train, validation = _divide(labels, rest, 1 / 10, seed)
        folds.append({"train": train, "validation": validation, "test": test})
    return folds


def draw_split(labels, seed=0):
    """One stratified split: eight tenths, and one tenth each for validation
    and test, or as many as there are classes. Each part has all classes.

    Args: see `draw_folds`.

    Raises:
        ValueError: if a class has fewer than three items.

    Returns:
        A dict from `train`, `validation` and `test` to sorted ids.
    """
    check_classes(labels, 3, "training, validation and test")
    labels = np.asarray(labels)
    ids = np.arange(len(labels))
    # Of each class two are left, for training and for validation.
    rest, test = _divide(labels, ids, 1 / 10, seed, kept=2)
    train, validation = _divide(labels, rest, 1 / 9, seed)
    return {"train": train, "validation": validation, "test": test}


def _divide(labels, ids, share, seed, kept=1):
    """Splits ids in two, by classes: the second part is a share of all, and
    has an item of each class at least, the first part `kept` of them."""
    classes, counts = np.unique(labels[ids], return_counts=True)
    size = max(len(classes), round(share * len(ids)))
    exact, most = size * counts / len(ids), counts - kept
    taken = np.clip(exact.astype(int), 1, most)
    # The largest remainders make the size up, or down after rare classes.
    while step := np.sign(size - taken.sum()):
        room = taken < most if step > 0 else taken > 1
        missing = np.where(room, step * (exact - taken), -np.inf)
        taken[missing.argmax()] += step
    ids = np.random.default_rng(seed).permutation(ids)
    second = [
        ids[labels[ids] == value][:count]
        for value, count in zip(classes, taken, strict=True)
    ]
    second = np.sort(np.concatenate(second))
    return np.setdiff1d(ids, second), second


def check_classes(labels, least, purpose):
    """Raises a ValueError unless there are classes, of enough items each."""
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise ValueError(
            "`data` expects items of at least two classes. Received: "
            f"{len(labels)} of the class {classes[0]!s}"
            if len(classes)
            else "`data` expects items. Received: none"
        )
    few = int(counts.argmin())
    if counts[few] < least:
        raise ValueError(
            f"`data` expects at least {least} items of each class for "
            f"{purpose}. Received: {counts[few]} of the class {classes[few]!s}"
        )
