"""The README: its examples run, and its tables are those of the records."""

import contextlib
import importlib.util
import io
import json
import pathlib
import re

import numpy as np
import pytest
from documented import blocks, check_printed, slug

from benchmarks import attention_tables, page

ROOT = pathlib.Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTERS = {text.partition("\n")[0]: text for text in TEXT.split("\n## ")[1:]}
EXAMPLES = {title: blocks(text) for title, text in CHAPTERS.items()}
RUNTIMES = ("ai_edge_litert", "tf2onnx", "onnxruntime")


def run(title, tmp_path, monkeypatch, leave_out=()):
    """The names that the example of a chapter defines, and what it prints."""
    monkeypatch.chdir(tmp_path)
    (example,) = EXAMPLES[title]
    for text in leave_out:
        example = "\n".join(
            line for line in example.splitlines() if text not in line
        )
    # Progress bars are printed too.
    example = re.sub(r"(epochs=\d+)\)", r"\1, verbose=0)", example)
    example = example.replace("y[1500:])[1]", "y[1500:], verbose=0)[1]")
    names, printed = {"__name__": "example"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, names)
    check_printed(example, printed.getvalue())
    return names


@pytest.mark.slow_on_jax
def test_images(tmp_path, monkeypatch):
    run("Images", tmp_path, monkeypatch)


@pytest.mark.tensorflow_only
def test_graphs(tmp_path, monkeypatch):
    names = run("Graphs", tmp_path, monkeypatch)
    again = names["GraphClassifier"].from_preset("runs/rings")
    assert again.predict(names["graphs"][60:62]).tolist() == ["path", "ring"]


@pytest.mark.slow_on_jax
def test_long_sequences(tmp_path, monkeypatch):
    names = run("Long sequences", tmp_path, monkeypatch)
    assert names["whole"].shape == (1, 16384, 64)


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_export(tmp_path, monkeypatch):
    missing = [n for n in RUNTIMES if importlib.util.find_spec(n) is None]
    run("Export", tmp_path, monkeypatch, ("litert", "onnx") if missing else ())
    assert (tmp_path / "export" / "1" / "saved_model.pb").is_file()
    if not missing:
        assert (tmp_path / "model.tflite").is_file()
        assert (tmp_path / "model.onnx").is_file()


@pytest.mark.slow_on_jax
def test_a_mask_of_your_own(tmp_path, monkeypatch):
    model = run("A mask of your own", tmp_path, monkeypatch)["model"]
    assert model(np.zeros((1, 40, 48, 3))).shape == (1, 10)


def test_every_example_is_run():
    found = {title for title, examples in EXAMPLES.items() if examples}
    assert found == {
        "Images",
        "Graphs",
        "Long sequences",
        "Export",
        "A mask of your own",
    }


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 170
    for title, most in (
        ("Images", 12),
        ("Graphs", 12),
        ("Long sequences", 12),
        ("Export", 6),
        ("A mask of your own", 15),
    ):
        lines = [line for line in EXAMPLES[title][0].splitlines() if line]
        assert len(lines) <= most, title


def test_speeds_are_those_of_the_record():
    records = json.loads((ROOT / "docs" / "attention.json").read_text())
    measured = rows(
        attention_tables.format_lengths(records["results"], backward=False)
    )
    stated = rows(CHAPTERS["When it pays off"])
    assert stated["tokens"] == measured[""]
    for kind in ("decay", "causal decay", "gated decay", "table"):
        assert kind in stated
    for kind in stated.keys() - {"tokens"}:
        assert stated[kind] == measured[kind], kind


def test_tables_of_benchmarks_are_those_of_the_record():
    text = page.PAGE.read_text(encoding="utf-8")
    for file, tables in page.TABLES.items():
        for name in tables:
            assert text.count(f"<!-- {file}: {name} -->") == 1
    records = page.read_records()
    # Mended by `python -m benchmarks.page`.
    assert page.with_tables(text, records) == text
    for file, some in records.items():
        slower = [{**record, "ratio": 0.01} for record in some]
        assert page.with_tables(text, {**records, file: slower}) != text


def test_figures_of_presets_are_those_of_the_registry():
    registry = json.loads((ROOT / "saved_models" / "presets.json").read_text())[
        "presets"
    ]
    stated = rows(CHAPTERS["Trained models"])
    stated.pop("preset")
    assert stated.keys() == {f"`{name}`" for name in registry}
    for name, entry in registry.items():
        figure = entry["figure"]
        text = f"{100 * figure['value']:.1f}"
        if "deviation" in figure:
            text += f" ± {100 * figure['deviation']:.1f}"
        assert stated[f"`{name}`"][-1] == f"{text}%", name


@pytest.mark.parametrize("line", re.findall(r"^- .*(?:\n  .*)*", TEXT, re.M))
def test_figures_are_in_the_results(line):
    """Each figure of a claim appears in the section that it links to."""
    results = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    (anchor,) = re.findall(r"results/README\.md#([\w-]+)\)", line)
    (chapter,) = (
        text
        for text in results.split("\n## ")
        if slug(text.partition("\n")[0]) == anchor
    )
    figures = re.findall(r"\d+\.\d+", line)
    assert figures
    for figure in figures:
        assert figure in chapter, figure


def rows(text):
    """Lines of tables by their first cells."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| ") or line.startswith("|  |"):
            first, *others = (cell.strip() for cell in line[1:-1].split("|"))
            found[first] = others
    return found
