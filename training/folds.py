"""Cross-validation with model selection inside each fold.

The protocol is that of Errica et al. (2020). In every fold, each candidate is
trained once on the training items. The best candidate on the validation items
is then trained with several seeds and evaluated on the test items. Nothing is
chosen by test scores.
"""

import itertools
import json
from pathlib import Path

import numpy as np

from keras_topo.training.files import append_line, digest, read_lines

PARTS = ("train", "validation", "test")
# The items on which each kind of run is evaluated.
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
    """Selects a candidate in each fold on validation items, and tests it.

    Args:
        train: function of a choice, a fold, a seed and names of parts. It
            returns a dict of JSON values, with `validation_M` and `test_M` of
            the metric M for the given parts. Candidates are evaluated on
            validation items only.
        folds: dict from numbers to folds, in the form that `train` takes.
        grid: list of choices, dicts of JSON values.
        seeds: list of ints for the final runs; selection uses the first one.
        file: `pathlib.Path` with a line of JSON for each run. Runs that have a
            line are not repeated. `None` for no file.
        monitor: str, the metric M.
        greater: bool, whether larger is better.
        about: dict that is stored in each line and helps to identify runs.
        told: function that receives a line of text for each run.

    Returns:
        A list of the lines of all final runs, by fold: dicts with `kind`
        (`"final"`; other lines of `file` have `"choice"`), `fold`, `choice`,
        `seed`, the items of `about`, and the result of `train`.

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
        ValueError: as `read_lines`, and for a line without `kind`. It comes
            from a version that evaluated candidates on test items too.
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
    """The line with the best score, the first of equals. A failed line is
    returned only if all failed."""
    whole = [line for line in lines if "failed" not in line]
    if not whole:
        return lines[0]
    return (max if greater else min)(whole, key=lambda line: line[score])


def combinations(choices):
    """All combinations of a dict from names to lists of values, as dicts."""
    return [
        dict(zip(choices, values, strict=True))
        for values in itertools.product(*choices.values())
    ]


def describe(line, monitor, kind):
    """A line of text about a run, with its scores. Candidates have no test
    scores."""
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


def summarize(lines, monitor="accuracy"):
    """Mean and deviation over folds of the mean over their final runs.

    Args:
        lines: as `assess` returns them.
        monitor: as there.

    Returns:
        A dict with `mean`, `deviation`, `folds`, `by_fold`. With a single
        fold, the deviation is over its runs.
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


def differences(summaries, monitor="accuracy"):
    """Paired differences from the first of several summaries.

    Args:
        summaries: list of what `summarize` returns, for the same folds.
        monitor: as there.

    Returns:
        A list: `None`, and for each of the others a dict with `mean`, that of
        the differences of test scores over folds, and `standard_error`, the
        standard error of this mean.
    """
    score = f"test_{monitor}"
    first, *others = (
        np.array([fold[score] for fold in summary["by_fold"]])
        for summary in summaries
    )
    found = []
    for scores in others:
        paired = scores - first
        error = np.std(paired, ddof=1) / np.sqrt(len(paired))
        found.append(
            {
                "mean": float(np.mean(paired)),
                "standard_error": float(error),
            }
        )
    return [None, *found]


def best_in_each_fold(cells, monitor="accuracy", greater=True):
    """The final runs of the cell that is best on the validation items, in each
    fold.

    Args:
        cells: list of pairs of a cell, a dict, and its lines, as `assess`
            returns them, for the same folds.
        monitor, greater: as there.

    Returns:
        A list of lines, whose `choice` names the cell too.
    """
    found = []
    for fold in sorted({line["fold"] for _, lines in cells for line in lines}):
        # The first final run of each cell, as candidates have one run each.
        firsts = [
            {**next(x for x in lines if x["fold"] == fold), "cell": k}
            for k, (_, lines) in enumerate(cells)
        ]
        best = best_of(firsts, f"validation_{monitor}", greater)
        cell, lines = cells[best["cell"]]
        found += [
            {**line, "choice": {**cell, **line["choice"]}}
            for line in lines
            if line["fold"] == fold
        ]
    return found


# Folds.


def chosen_folds(splits, only, labels, seed):
    """The folds of `--splits` and `--folds`.

    Args:
        splits: str, a JSON file of folds, or the number of folds to draw.
        only: numbers of folds; empty or `None` for all.
        labels: `(items,)`, classes of the items.
        seed: int, seed of drawn folds.

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
    """Identifies `--splits` when a run resumes. A file is identified by its
    content, because another file may have the same name."""
    if splits is None or splits.isdigit():
        return splits
    return digest(Path(splits).expanduser().read_text())


def load_folds(path, count):
    """Reads folds from a file.

    Args:
        path: JSON file with a list `folds` of dicts from `train`,
            `validation` and `test` to ids of items.
        count: int, number of all items.

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
                f"--splits expects each of the {count} items once per fold. "
                f"Received: {len(ids)} ids in fold {k} of {path}"
            )
        if not all(map(len, fold.values())):
            raise ValueError(
                "--splits expects training, validation and test items in each "
                f"fold. Received: an empty part in fold {k} of {path}"
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
    """Stratified folds. A tenth of the items outside a fold is for validation.

    Args:
        labels: `(items,)`, the class of each item.
        count: int, number of folds.
        seed: int.

    Returns:
        A list like that of `load_folds`.

    Raises:
        ValueError: if a class has fewer items than there are folds, or fewer
            than three; with two folds, fewer than four.
    """
    from sklearn.model_selection import StratifiedKFold

    if count < 2:
        raise ValueError(
            f"--splits expects at least 2 folds. Received: {count}"
        )
    # At least two items of each class must remain outside each fold.
    check_classes(labels, max(count, 4 if count == 2 else 3), f"{count} folds")
    labels = np.asarray(labels)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    folds = []
    for rest, test in splitter.split(labels, labels):
        train, validation = _divide(labels, rest, 1 / 10, seed)
        folds.append({"train": train, "validation": validation, "test": test})
    return folds


def draw_split(labels, seed=0):
    """One stratified split: eight tenths for training, and one tenth each for
    validation and test, but at least one item per class in each part.

    Args: see `draw_folds`.

    Raises:
        ValueError: if a class has fewer than three items.

    Returns:
        A dict from `train`, `validation` and `test` to sorted ids.
    """
    check_classes(labels, 3, "training, validation and test")
    labels = np.asarray(labels)
    ids = np.arange(len(labels))
    # Two items of each class remain, for training and for validation.
    rest, test = _divide(labels, ids, 1 / 10, seed, kept=2)
    train, validation = _divide(labels, rest, 1 / 9, seed)
    return {"train": train, "validation": validation, "test": test}


def _divide(labels, ids, share, seed, kept=1):
    """Splits ids in two, stratified by class. The second part is a share of
    all and has at least one item of each class; the first part has at least
    `kept`."""
    classes, counts = np.unique(labels[ids], return_counts=True)
    size = max(len(classes), round(share * len(ids)))
    exact, most = size * counts / len(ids), counts - kept
    taken = np.clip(exact.astype(int), 1, most)
    # Adjust by the largest remainders until the size is right.
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
    """Raises a ValueError unless there are two classes, with enough items."""
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
