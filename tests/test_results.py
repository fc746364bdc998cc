"""Tables of `results/README.md` that list single runs are those of the runs."""

import json
import pathlib
import re
import statistics

import pytest

from benchmarks import fold_tables
from keras_topo.training import options
from keras_topo.training.configs.text import variants

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
CHAPTERS = (RESULTS / "README.md").read_text(encoding="utf-8").split("\n## ")
SEEDS = ("seed 0", "seed 1", "seed 2")


def lines_of(file):
    text = (RESULTS / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def masked_images(file="cifar10-masks/runs.jsonl"):
    """Accuracy in percent by the row of the table and the seed."""
    names = {
        "decays": "linear attention, table that starts as decays",
        "ones": "linear attention, table that starts as ones",
        "gated": "linear attention, gates",
        "curves": "linear attention, decays along curves",
        "softmax": "softmax",
        "biased": "softmax, a table as its bias",
        "none": "linear attention, no mask",
    }

    def kind(run):
        if "arguments" not in run:  # The first runs have no arguments.
            return run["variant"]
        arguments = run["arguments"]
        if arguments["attention"] == "softmax":
            # Runs before there were biases name a table that they did not have.
            plain = run["parameters"] in (311_146, 358_810)
            return "softmax" if plain else "biased"
        if arguments["attention"] == "linear":
            return "none"
        if arguments["mask"] == "table":
            return arguments["mask_initial"]
        return arguments["mask"]

    return {
        (names[kind(run)], run["seed"]): 100 * run["test_accuracy"]
        for run in lines_of(file)
    }


def with_convolutions():
    return masked_images("cifar10-convolutions/runs.jsonl")


def linearized_images():
    found = {
        ("teacher, softmax", seed): accuracy
        for (name, seed), accuracy in masked_images().items()
        if name == "softmax" and seed == 2
    }
    for file, name in (
        ("runs", "linearized"),
        ("scratch", "the same model from scratch"),
    ):
        for run in lines_of(f"linearize/{file}.jsonl"):
            found[name, run["seed"]] = 100 * run["test_accuracy"]
    return found


def language_models():
    """Bits per byte; rows are told apart by their variant and features."""
    masks = {
        (changes.get("mask", "decay"), changes.get("similarity", "relu")): name
        for name, changes in variants.items()
    }
    found = {}
    for run in lines_of("text/runs.jsonl"):
        mask, similarity = (
            run["arguments"][name] for name in ("mask", "similarity")
        )
        name = masks.get((mask, similarity)) or masks[mask, "relu"]
        key = f"`{name}`", similarity == "hedgehog", run["seed"]
        found[key] = run["test_bits_per_byte"]
    return found


def chapter(title):
    (found,) = (text for text in CHAPTERS if text.partition("\n")[0] == title)
    return found


def rows_of(title):
    """The rows of the table of a chapter, as dicts by its header."""
    table = [
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in chapter(title).splitlines()
        if line.startswith("| ")
    ]
    header, *rows = table
    return [dict(zip(header, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("title", "measured", "key_of", "digits"),
    [
        (
            "Masks on CIFAR-10 with a convolutional stem",
            with_convolutions,
            lambda row: (row[""],),
            1,
        ),
        (
            "Masks on CIFAR-10",
            masked_images,
            lambda row: (row[""],),
            1,
        ),
        (
            "Softmax to linear on CIFAR-10",
            linearized_images,
            lambda row: (row[""],),
            1,
        ),
        (
            "Language models of bytes",
            language_models,
            lambda row: (
                row["`--variant`"],
                "learned features" in row["attention"],
            ),
            3,
        ),
    ],
)
def test_tables_are_those_of_the_runs(title, measured, key_of, digits):
    expected, shown = measured(), set()
    for row in rows_of(title):
        for seed, column in enumerate(SEEDS):
            if row.get(column):
                key = (*key_of(row), seed)
                assert row[column] == f"{expected[key]:.{digits}f}", key
                shown.add(key)
        if row.get("mean"):
            values = [expected[(*key_of(row), seed)] for seed in range(3)]
            assert row["mean"] == f"{statistics.mean(values):.{digits}f}"
    assert shown == expected.keys()


def test_published_figures_are_those_of_the_page_of_graphs():
    for row in rows_of("Graphs, ten folds"):
        data = re.match(r"\[(.*)\]", row["data"]).group(1)
        _, gkat, _, without_edges = fold_tables.DATA[data]
        published = row["published: GKAT, no edges"]
        assert published == f"{gkat:.1f}, {without_edges:.1f}"


def test_options_of_beacons_are_those_of_the_runs():
    text = " ".join(chapter("A graph of 100,000 nodes").split())
    match = re.search(r"The baselines add `(.*?)`, and GAT also `(.*?)`:", text)
    of_all, of_gat = match.groups()
    for row in rows_of("A graph of 100,000 nodes"):
        name = re.search(r"\((.*)\)", row[""]).group(1)
        words = f"nodes --data beacons --out - {row['options'].strip('`')}"
        if "--model gkat" not in words:
            words += f" {of_all}"
        if "--model gat" in words:
            words += f" {of_gat}"
        settings = options.parse(words.split())[2].filled()
        metrics = json.loads((RESULTS / name / "metrics.json").read_text())
        for key, value in metrics["arguments"].items():
            if hasattr(settings, key) and value is not None:
                found = getattr(settings, key)
                found = list(found) if isinstance(found, tuple) else found
                assert found == value, (name, key)


def test_the_model_from_scratch_had_no_warm_up():
    text = " ".join(chapter("Softmax to linear on CIFAR-10").split())
    assert "from scratch had no warm-up" in text
    for run in lines_of("linearize/scratch.jsonl"):
        assert run["arguments"]["warmup_epochs"] == 0


def test_figures_of_pixels():
    text = chapter("Pixels of CIFAR-10 as tokens")
    for run in lines_of("cifar10-pixels/runs.jsonl"):
        figures = run["validation_accuracy"], run["test_accuracy"]
        assert f"| {figures[0]:.1%} | {figures[1]:.2%} |" in text


def test_figures_of_the_zoo_in_training():
    text = chapter("The zoo's model of CIFAR-10")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
    ]
    for run in lines_of("cifar10-zoo/trials.jsonl"):
        attention = run["arguments"]["attention"]
        (row,) = (row for row in rows if f"`{attention}`" in row)
        assert row[2 + run["seed"]] == f"{run['test_accuracy']:.2%}"[:-1]
    by_seed = {
        (run["arguments"]["attention"], run["seed"]): run["test_accuracy"]
        for run in lines_of("cifar10-zoo/trials.jsonl")
    }
    for other in ("linear", "softmax"):
        gains = [
            100 * (by_seed["toeplitz", seed] - by_seed[other, seed])
            for seed in range(3)
        ]
        error = statistics.stdev(gains) / 3**0.5
        assert f"by {statistics.mean(gains):.1f} ± {error:.1f}" in text
    count = 0
    for part in ("first", "second", "third", "whole", "enlarged", "sizes"):
        folder = RESULTS / "cifar10-zoo" / part
        (row,) = (row for row in rows if row[0].startswith(f"`{part}`"))
        given = json.loads((folder / "arguments.json").read_text())
        assert row[2] == f"{given['cutmix']:g}, {given['mixup']:g}"
        assert float(row[3]) == given["learning_rate"]
        epochs = lines_of(f"cifar10-zoo/{part}/metrics.jsonl")
        assert row[1].split(" ")[0] == str(len(epochs))
        assert row[4] == f"{epochs[-1]['accuracy']:.1%}"
        validated = epochs[-1].get("val_accuracy")
        assert row[5] == (f"{validated:.1%}" if validated else "")
        metrics = json.loads((folder / "metrics.json").read_text())
        tested = metrics.get("test_accuracy")
        assert row[6] == (f"{tested:.2%}" if tested else "")
        if part == "sizes":
            assert at_sizes(metrics, "test", 2) in text
            continue
        count += len(epochs)
        if part == "enlarged":
            assert f"reaches **{tested:.1%}** of the test images" in text
            assert f"with {metrics['parameters']:,} parameters" in text
    assert f"this one was trained for {count}, and" in text
    for run in lines_of("cifar10-zoo/unmixed.jsonl"):
        for name in ("validation", "test"):
            digits = 1 if name == "validation" else 2
            assert f"{run[f'{name}_accuracy']:.{digits}%}" in text
            if f"{name}_accuracy_at_32" in run:
                assert at_sizes(run, name, digits) in text


def at_sizes(metrics, name, digits):
    """Accuracies at three sizes, as the pages write them."""
    a, b, c = (
        f"{value:.{digits}%}"
        for key, value in metrics.items()
        if key.startswith(f"{name}_accuracy_at_")
    )
    return f"{a}, {b} and {c}"


def test_figures_of_image_sizes():
    page = (RESULTS / "images.md").read_text(encoding="utf-8")
    found = {}
    for line in lines_of("cifar10-zoo/image-sizes.jsonl"):
        found.setdefault(line["preset"], []).append(f"{line['right']:.2%}")
    assert len(found) == 2
    for preset, figures in found.items():
        assert f"| `{preset}` | {' | '.join(figures)} |" in page


def test_figures_of_orientations():
    page = (RESULTS / "images.md").read_text(encoding="utf-8")
    found = {}
    for line in lines_of("cifar10-zoo/orientations.jsonl"):
        found.setdefault(line["format"], []).append(line["right"])
    assert {len(figures) for figures in found.values()} == {16}
    (exact,) = {*found["PNG"], *found["WEBP"]}
    assert f"accuracy is {exact:.1%} for every orientation" in page
    lowest, highest = min(found["JPEG"]), max(found["JPEG"])
    assert f"it is {lowest:.1%} to {highest:.1%}:" in page


def test_figures_of_few_labels():
    page = (RESULTS.parent / "docs" / "benchmarks.md").read_text("utf-8")
    names = {"last layer": "last layer alone"}
    columns = []
    for file in ("photos", "digits"):
        path = RESULTS.parent / "docs" / f"fine-tuning-{file}.json"
        rows, best = json.loads(path.read_text())["rows"], {}
        for row in rows:
            score = statistics.mean(row["validation"])
            if score > best.get(row["way"], (-1,))[0]:
                best[row["way"]] = score, row["test"]
        columns.append({way: test for way, (_, test) in best.items()})
    for way in columns[0]:
        cells = [
            f"{statistics.mean(tests):.1%} ± {statistics.stdev(tests):.1%}"
            for tests in (column[way] for column in columns)
        ]
        cells = " | ".join(cell.replace("% ±", " ±") for cell in cells)
        assert f"| {names.get(way, way)} | {cells} |" in page


def test_the_page_of_graphs_is_that_of_the_folders():
    """As `python -m benchmarks.fold_tables` writes it."""
    expected = fold_tables.page(fold_tables.read())
    assert fold_tables.PAGE.read_text(encoding="utf-8") == expected
    for data, row in fold_tables.read():
        assert data in fold_tables.DATA, (data, row)


def test_differences_of_kernels_on_the_page(tmp_path):
    """The row of a data set whose kernels are compared, and the picture."""

    def result(kernel, mean, gain=None):
        found = {"cell": {"kernel": kernel}, "mean": mean, "deviation": 0.02}
        if gain is not None:
            found["difference"] = {"mean": gain, "standard_error": 0.005}
        return found

    summary = {
        "data": "DD",
        "results": [
            result("ones", 0.7),
            result("random_walk", 0.75, 0.05),
            result("steps+labeled_walk+ones", 0.69, -0.01),
        ],
        "chosen": {"mean": 0.74, "deviation": 0.03},
    }
    (tmp_path / "dd-gkat").mkdir()
    file = tmp_path / "dd-gkat" / "folds.json"
    file.write_text(json.dumps(summary), encoding="utf-8")
    found = fold_tables.read(tmp_path)
    page = fold_tables.page(found)
    link = "(tables/dd-gkat/folds.md)"
    assert f"| D&D | 78.6 | [74.0 ± 3.0]{link} |" in page
    assert (
        f"| D&D | [70.0 ± 2.0]{link} | [75.0 ± 2.0]{link} | +5.0 ± 0.5 | "
        f"[69.0 ± 2.0]{link} | -1.0 ± 0.5 |"
    ) in page
    assert "The kernel alone" not in page
    fold_tables.draw(found, tmp_path / "differences.png")
    assert (tmp_path / "differences.png").stat().st_size > 5_000

    # The runs of the kernel alone are another section, and change no other.
    (tmp_path / "dd-plain").mkdir()
    summary["results"] = [result("ones", 0.6), result("random_walk", 0.7, 0.1)]
    file = tmp_path / "dd-plain" / "folds.json"
    file.write_text(json.dumps(summary), encoding="utf-8")
    found = fold_tables.read(tmp_path)
    more = fold_tables.page(found)
    assert more.startswith(page)
    link = "(tables/dd-plain/folds.md)"
    row = f"| D&D | [60.0 ± 2.0]{link} | [70.0 ± 2.0]{link} | +10.0 ± 0.5 |  |"
    assert row in more[len(page) :]
    fold_tables.draw(found, tmp_path / "plain.png", plain=True)
    assert (tmp_path / "plain.png").stat().st_size > 5_000


def test_links_of_the_page():
    """To files, or to runs, whose metrics the site shows."""
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)#:]+)\)", text))
    assert len(links) > 20
    for link in links:
        path = RESULTS / link
        assert path.is_file() or (path / "metrics.json").is_file(), link
