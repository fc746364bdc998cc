"""Examples in documents print what their comments say."""

import re

# `print(...)  # expected`, on one line or on the last one of several.
PRINTED = re.compile(r"^[ ]*(?:print\(.*)?\)  # (.*)$", re.MULTILINE)
MODULES = re.compile(r"^[ ]*(?:import|from) (\w+)", re.MULTILINE)


def blocks(text):
    """The Python blocks of a page in Markdown."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def cells(text):
    """The cells of code of a guide."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    kinds, codes = parts[1::2], parts[2::2]
    return [
        code
        for kind, code in zip(kinds, codes, strict=True)
        if "[markdown]" not in kind
    ]


def slug(title):
    """The anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def check_printed(example, printed):
    """Compares what was printed with the comments behind `print`."""
    expected = PRINTED.findall(example)
    lines = printed.splitlines()
    assert len(lines) == len(expected), (expected, lines)
    for line, comment in zip(lines, expected, strict=True):
        word, _, bound = comment.partition(" ")
        if word == "above":
            assert float(line.strip("[]")) > float(bound), line
        elif word == "below":
            assert float(line.strip("[]")) < float(bound), line
        else:
            assert line == comment, (line, comment)
