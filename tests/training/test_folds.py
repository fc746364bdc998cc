"""The protocol of folds: what is chosen by what, and what is tested once."""

import json

import numpy as np
import pytest

from keras_topo.training.files import append_line, read_lines
from keras_topo.training.folds import (
    assess,
    best_in_each_fold,
    best_of,
    combinations,
    differences,
    draw_folds,
    draw_split,
    load_folds,
    summarize,
)

LABELS = np.repeat([0, 1, 2], [20, 12, 10])
GRID = combinations({"depth": [1, 2, 3]})
# By depth: the second is best on validation items, the third on test items.
VALIDATION = {1: 0.5, 2: 0.9, 3: 0.7}
TEST = {1: 0.2, 2: 0.4, 3: 1.0}
CANDIDATE, FINAL = ("validation",), ("validation", "test")


class Trainer:
    """Stands for a training: gives scores, and keeps what it was asked."""

    def __init__(self, fails=()):
        self.calls, self.fails = [], fails

    def __call__(self, choice, fold, seed, parts):
        self.calls.append((choice["depth"], fold, seed, *parts))
        scores = {
            "validation": VALIDATION[choice["depth"]],
            "test": TEST[choice["depth"]] + seed / 1000,
        }
        line = {f"{part}_accuracy": scores[part] for part in parts}
        if choice["depth"] in self.fails:
            line = {**dict.fromkeys(line, 0.0), "failed": "NaN"}
        return line


def run(trainer=None, folds=("a", "b"), seeds=(0, 1), **options):
    trainer = trainer or Trainer()
    told = []
    lines = assess(
        trainer,
        dict(enumerate(folds)),
        GRID,
        seeds,
        told=told.append,
        **options,
    )
    return lines, trainer.calls, told


def test_the_choice_is_that_of_the_validation_items():
    lines, calls, _ = run()
    assert [line["choice"] for line in lines] == [{"depth": 2}] * 4
    assert [line["fold"] for line in lines] == [0, 0, 1, 1]
    assert [line["seed"] for line in lines] == [0, 1, 0, 1]
    # Each choice once, and what was chosen with each seed.
    assert calls == [
        (depth, fold, seed, *parts)
        for fold in ("a", "b")
        for depth, seed, parts in (
            *((depth, 0, CANDIDATE) for depth in (1, 2, 3)),
            *((2, seed, FINAL) for seed in (0, 1)),
        )
    ]
    lower, _, _ = run(greater=False)
    assert [line["choice"] for line in lower] == [{"depth": 1}] * 4


def test_a_choice_that_fails_is_not_made():
    lines, _, _ = run(Trainer(fails=[2]))
    assert lines[0]["choice"] == {"depth": 3}
    lines, _, told = run(Trainer(fails=[1, 2, 3]), seeds=[0])
    assert lines[0]["choice"] == {"depth": 1}
    assert summarize(lines)["mean"] == 0
    assert "FAILED: NaN" in told[0]
    # Also where less is better, and it has a zero.
    failed = {"score": 0.0, "failed": "NaN"}
    assert best_of([failed, {"score": 1.0}], "score", False)["score"] == 1.0


def test_test_scores_are_told_only_when_all_is_chosen():
    _, _, told = run(folds=["a"])
    assert [" choice " in text for text in told] == [True] * 3 + [False] * 2
    for text in told:
        assert "validation" in text and ("test" in text) == (" final " in text)


def test_the_mean_is_that_of_the_folds():
    lines = [
        {"fold": k, "choice": {}, "seed": seed, "test_accuracy": score}
        for k, seed, score in ((0, 0, 0.2), (0, 1, 0.4), (1, 0, 0.9))
    ]
    found = summarize(lines)
    assert found["mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert found["deviation"] == pytest.approx(0.3)
    assert [fold["runs"] for fold in found["by_fold"]] == [2, 1]
    # Of one fold it is that of its runs.
    assert summarize(lines[:2])["deviation"] == pytest.approx(0.1)


def cell_lines(validation, test):
    return [
        {
            "fold": k,
            "choice": {"depth": 1},
            "seed": 0,
            "validation_accuracy": a,
            "test_accuracy": b,
        }
        for k, (a, b) in enumerate(zip(validation, test, strict=True))
    ]


def test_differences_are_paired():
    first = cell_lines([0.5] * 3, [0.2, 0.5, 0.8])
    second = cell_lines([0.5] * 3, [0.3, 0.7, 0.8])
    found = differences([summarize(first), summarize(second)])
    assert found[0] is None
    assert found[1]["mean"] == pytest.approx(0.1)
    # Differences of 0.1, 0.2 and 0.0, whose deviation is 0.1.
    assert found[1]["standard_error"] == pytest.approx(0.1 / 3**0.5)


def test_the_best_in_each_fold_is_that_of_the_validation_items():
    first = cell_lines([0.9, 0.1, 0.5], [0.1, 0.2, 0.3])
    second = cell_lines([0.8, 0.7, 0.5], [1.0, 0.4, 0.6])
    cells = [({"kernel": "a"}, first), ({"kernel": "b"}, second)]
    found = best_in_each_fold(cells)
    assert [line["choice"]["kernel"] for line in found] == ["a", "b", "a"]
    assert [line["test_accuracy"] for line in found] == [0.1, 0.4, 0.3]
    assert found[0]["choice"] == {"kernel": "a", "depth": 1}
    found = best_in_each_fold(cells, greater=False)
    assert [line["choice"]["kernel"] for line in found] == ["b", "a", "a"]


def test_runs_are_not_repeated(tmp_path):
    file = tmp_path / "runs.jsonl"
    whole, calls, _ = run(file=file)
    assert len(calls) == 10
    # No candidate is scored on test items, and none stands for a final run.
    for line in read_lines(file):
        tested = any(name.startswith("test_") for name in line)
        assert line["kind"] == ("final" if tested else "choice")
    again, calls, _ = run(file=file)
    assert calls == [] and again == whole
    # One more seed, and one more fold.
    _, calls, _ = run(file=file, folds=["a", "b", "c"], seeds=[0, 1, 2])
    assert calls == [
        (2, "a", 2, *FINAL),
        (2, "b", 2, *FINAL),
        *((depth, "c", 0, *CANDIDATE) for depth in (1, 2, 3)),
        *((2, "c", seed, *FINAL) for seed in (0, 1, 2)),
    ]
    # Other data are another run.
    _, calls, _ = run(file=file, about={"data": "other"}, seeds=[0])
    assert len(calls) == 8


def test_without_a_choice_no_candidate_is_trained():
    trainer = Trainer()
    lines = assess(trainer, {0: "a"}, GRID[:1], (0, 1), told=list)
    assert trainer.calls == [(1, "a", seed, *FINAL) for seed in (0, 1)]
    assert [line["kind"] for line in lines] == ["final"] * 2


def test_lines_of_candidates_that_were_tested_are_refused(tmp_path):
    """An earlier version did not tell them from final ones."""
    file = tmp_path / "runs.jsonl"
    run(file=file)
    text = file.read_text().replace('"kind": "choice", ', "", 1)
    file.write_text(text)
    with pytest.raises(ValueError, match=f"^{file}, line 1 .*kind=None"):
        run(file=file)
    assert file.read_text() == text


def test_a_line_that_was_cut_off_is_repeated(tmp_path):
    file = tmp_path / "runs.jsonl"
    whole, _, _ = run(file=file)
    text = file.read_text()
    file.write_text(text[:-20])
    again, calls, _ = run(file=file)
    assert again == whole and calls == [(2, "b", 1, *FINAL)]
    assert file.read_text() == text


def test_a_damaged_line_is_named_and_nothing_is_deleted(tmp_path):
    file = tmp_path / "runs.jsonl"
    run(file=file)
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:10] + "\x00" + lines[1][11:]
    damaged = "\n".join(lines) + "\n"
    file.write_text(damaged)
    with pytest.raises(ValueError, match="runs.jsonl, line 2 expects"):
        run(file=file)
    assert file.read_text() == damaged
    file.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(ValueError, match="line 2 expects a JSON object"):
        read_lines(file)


def test_lines_are_added_after_the_last_whole_one(tmp_path):
    file = tmp_path / "lines.jsonl"
    append_line(file, {"a": 1})
    with file.open("a") as lines:
        lines.write('{"b')
    append_line(file, {"c": 3})
    assert file.read_text() == '{"a": 1}\n{"c": 3}\n'


# Which items are where.


def check(fold, count=42):
    parts = [fold[name].tolist() for name in ("train", "validation", "test")]
    assert sorted(sum(parts, [])) == list(range(count))
    assert all(parts)


def test_drawn_folds_test_each_item_once_and_train_on_none_of_them():
    folds = draw_folds(LABELS, 5, seed=1)
    for fold in folds:
        check(fold)
        counts = np.bincount(LABELS[fold["test"]], minlength=3)
        assert set(counts - [4, 2, 2]) <= {0, 1}
        assert len(np.unique(LABELS[fold["validation"]])) == 3
    tested = np.concatenate([fold["test"] for fold in folds])
    assert sorted(tested) == list(range(len(LABELS)))
    other = draw_folds(LABELS, 5, seed=2)
    assert (folds[0]["test"] != other[0]["test"]).any()


def test_a_drawn_split():
    split = draw_split(np.repeat([0, 1, 2], [50, 30, 20]), seed=0)
    check(split, 100)
    assert [len(split[n]) for n in ("train", "validation", "test")] == [
        80,
        10,
        10,
    ]
    # A few items of each class are enough.
    small = draw_split([0] * 3 + [1] * 4, seed=0)
    check(small, 7)
    assert set(small["test"].tolist()) & set(range(3))


@pytest.mark.parametrize("counts", [[3, 30], [3, 3, 3], [3, 4, 200], [5, 95]])
@pytest.mark.parametrize("seed", range(3))
def test_rare_classes_are_in_each_part(counts, seed):
    labels = np.random.default_rng(seed).permutation(
        np.repeat(range(len(counts)), counts)
    )
    splits = [draw_split(labels, seed), *draw_folds(labels, 3, seed)]
    for split in splits:
        check(split, len(labels))
        for ids in split.values():
            assert set(labels[ids]) == set(labels)
    size = max(len(counts), round(sum(counts) / 10))
    assert len(splits[0]["test"]) == size
    again, other = draw_split(labels, seed), draw_split(labels, seed + 9)
    np.testing.assert_array_equal(again["test"], splits[0]["test"])
    if len(labels) > 20:
        assert other["train"].tolist() != splits[0]["train"].tolist()


def test_two_folds():
    labels = np.repeat([0, 1], [4, 20])
    for fold in draw_folds(labels, 2):
        assert all(len(set(labels[ids])) == 2 for ids in fold.values())


@pytest.mark.parametrize(
    ("draw", "labels", "message"),
    [
        (draw_split, [0, 0, 0], "at least two classes. Received: 3 of .* 0"),
        (draw_split, [], "expects items"),
        (draw_split, [0] * 9 + [4] * 2, "at least 3 items.*2 of the class 4"),
        (
            lambda labels: draw_folds(labels, 5),
            [0] * 9 + [4] * 4,
            "at least 5 items.*4 of the class 4",
        ),
        (lambda labels: draw_folds(labels, 1), LABELS, "at least 2 folds"),
        (
            lambda labels: draw_folds(labels, 2),
            [0] * 9 + [4] * 3,
            "at least 4 items.*3 of the class 4",
        ),
    ],
)
def test_too_few_items_are_told_beforehand(draw, labels, message):
    with pytest.raises(ValueError, match=message):
        draw(labels)


def written(tmp_path, folds):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": folds}))
    return path


def test_folds_of_a_file(tmp_path):
    folds = [
        {"train": [2, 3], "validation": [1], "test": [0]},
        {"train": [0, 3], "validation": [2], "test": [1]},
    ]
    found = load_folds(written(tmp_path, folds), 4)
    assert [{k: v.tolist() for k, v in fold.items()} for fold in found] == folds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [2, 3, 0]}, "4 items once per fold.*5 ids in fold 1"),
        ({"train": [1, 3]}, "4 items once per fold"),
        ({"test": [0], "train": [1, 3]}, "item 0 in folds 0 and 1"),
        ({"validation": [], "train": [0, 2, 3]}, "an empty part in fold 1"),
        ({"test": "a"}, "expects a number of folds, or a JSON file"),
    ],
)
def test_folds_that_are_refused(tmp_path, changes, message):
    folds = [
        {"train": [2, 3], "validation": [1], "test": [0]},
        {"train": [0, 3], "validation": [2], "test": [1], **changes},
    ]
    with pytest.raises(ValueError, match=message):
        load_folds(written(tmp_path, folds), 4)


def test_a_file_of_folds_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="--splits expects .*missing.json"):
        load_folds(tmp_path / "missing.json", 4)
