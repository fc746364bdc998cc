"""The examples of graphs in the README and in docs/graphs.md, as they stand."""

import contextlib
import io
import pathlib
import re
import types

import numpy as np
import pytest

from keras_topo import GraphClassifier

pytestmark = pytest.mark.tensorflow_only
ROOT = pathlib.Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
GUIDE = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
#: title of a chapter -> its examples
CHAPTERS = {
    text.partition("\n")[0]: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for text in GUIDE.split("\n## ")[1:]
}


def test_lists_of_graphs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    chapter = README.read_text(encoding="utf-8").partition("## Graphs\n")[2]
    first, _, rest = chapter.partition("### Kernels and layers")
    serving = rest.partition("### Serving graphs")[2].partition("### Links")[0]
    chapter, names = first + serving, {}
    for example in re.findall(r"```python\n(.*?)```", chapter, re.DOTALL):
        exec(example, names)
    assert names["model"].evaluate(names["graphs"][60:], names["y"][60:])[
        "accuracy"
    ] == pytest.approx(1.0)
    printed = capsys.readouterr().out
    for line in re.findall(r"print\(.*  # (\[.*?\])", chapter):
        assert line in printed


@pytest.mark.few(
    "Links",
    "Classes of nodes, in many graphs",
    "Edges that matter",
)
@pytest.mark.parametrize("title", CHAPTERS)
def test_guide(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in CHAPTERS[title]:
        if "torch_geometric" in example:
            pytest.importorskip("torch_geometric")
        if "plot_" in example:
            pytest.importorskip("matplotlib")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example, {})
        check_printed(example, printed.getvalue())


def test_examples_are_short():
    for title, examples in CHAPTERS.items():
        for example in examples:
            lines = [
                line
                for line in example.splitlines()
                if line.strip() and not line.startswith(("import ", "from "))
            ]
            assert len(lines) <= 8, title


def check_printed(example, printed):
    """Compares what was printed with the comments behind `print`."""
    expected = re.findall(r"^print\(.*\)  # (.*)$", example, re.MULTILINE)
    lines = printed.splitlines()
    assert expected and len(lines) == len(expected)
    for line, comment in zip(lines, expected, strict=True):
        word, _, bound = comment.partition(" ")
        if word == "above":
            assert float(line.strip("[]")) > float(bound), line
        elif word == "below":
            assert float(line.strip("[]")) < float(bound), line
        else:
            assert line == comment


def test_what_is_printed_is_compared():
    example = "print(a)  # [0 1]\nprint(b)  # above 0.5\nprint(c)  # below 2\n"
    check_printed(example, "[0 1]\n0.6\n[1.5]\n")
    for wrong in ("[1 1]\n0.6\n1\n", "[0 1]\n0.4\n1\n", "[0 1]\n0.6\n3\n"):
        with pytest.raises(AssertionError):
            check_printed(example, wrong)


def test_what_looks_like_pyg():
    """Paths and rings as in the guide, without torch."""
    graphs = []
    for k in range(80):
        nodes, ring = 5 + k // 2 % 8, k % 2
        source = np.arange(nodes - 1 + ring)
        edges = np.stack([source, (source + 1) % nodes])
        edges = np.concatenate([edges, edges[::-1]], axis=1)
        graphs.append(
            types.SimpleNamespace(
                edge_index=edges, num_nodes=nodes, y=np.array([ring])
            )
        )
    model = GraphClassifier(epochs=10, depth=1, verbose=0).fit(graphs[:60])
    assert model.predict(graphs[60:64]).tolist() == [0, 1, 0, 1]
