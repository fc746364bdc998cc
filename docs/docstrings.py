"""Prepares docstrings for the reference of the site."""

import re

import griffe

# From `>>>` to the next empty line.
EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).+)*", re.MULTILINE)
# What only the run of the examples reads.
DIRECTIVE = re.compile(r" *# doctest: .*$", re.MULTILINE)
CALL = re.compile(r"^Call arguments:\n((?:(?:    .*)?\n)+)", re.MULTILINE)
ARGUMENT = re.compile(r"^    ([\w`*, ]+): ", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Adds fences to examples, and turns call arguments into lists."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            text = EXAMPLE.sub(fenced, obj.docstring.value)
            obj.docstring.value = CALL.sub(listed, text + "\n").rstrip()


def fenced(match):
    indent = match[1]
    return f"{indent}```pycon\n{DIRECTIVE.sub('', match[0])}\n{indent}```"


def listed(match):
    items = ARGUMENT.sub(r"- **`\1`** – ", match[1])
    return f"**Call arguments:**\n\n{items}"
