"""The examples of docs/linearize.md, as they stand, one after the other."""

import contextlib
import io
import pathlib
import re

import pytest
from test_readme import check_printed

from keras_topo.training import options

GUIDE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "linearize.md"
TEXT = GUIDE.read_text(encoding="utf-8")


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_examples():
    names = {}
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example, names)
        check_printed(example, printed.getvalue())


@pytest.mark.tensorflow_only
def test_commands():
    text = TEXT.replace("\\\n", " ")
    found = re.findall(r"^python -m training\.train (.*)$", text, re.MULTILINE)
    assert [line.split()[0] for line in found] == ["images", "linearize"]
    for line in found:
        options.parse(line.split())
