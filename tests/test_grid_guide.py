"""The page on video and segmentation, as it stands."""

import contextlib
import io
import pathlib
import re

import pytest
from test_readme import check_printed

pytestmark = [pytest.mark.tensorflow_only, pytest.mark.slow]

PAGE = (
    pathlib.Path(__file__)
    .resolve()
    .parents[1]
    .joinpath("docs", "video-and-segmentation.md")
)
CHAPTERS = {
    text.partition("\n")[0]: text
    for text in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
}


@pytest.mark.parametrize("title", CHAPTERS)
def test_page(title, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", CHAPTERS[title], re.DOTALL)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        for example in examples:
            exec(example, names)
    check_printed("\n".join(examples), printed.getvalue())
    pictures = {file.name for file in tmp_path.rglob("*.png")}
    shown = set(re.findall(r"\]\((.*?\.png)\)", CHAPTERS[title]))
    assert pictures == shown
