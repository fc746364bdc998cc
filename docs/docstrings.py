"""Examples in docstrings as blocks of code, for the reference of the site."""

import re

import griffe

# From `>>>` to the next empty line.
EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?! *$).+)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Puts fences around what follows `>>>`."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(match):
    indent = match[1]
    return f"{indent}```pycon\n{match[0]}\n{indent}```"
