"""The examples of the README that take graphs of one's own, as they stand."""

import pathlib
import re

import pytest

pytestmark = pytest.mark.tensorflow_only
README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


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
