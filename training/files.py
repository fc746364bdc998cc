"""Files of runs: written whole or not at all, read with care."""

import hashlib
import json
import os

import numpy as np


def write_text(path, text):
    """Writes a file so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_json(path, value):
    """Writes a value as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_lines(file):
    """The lines of a file of JSON.

    Args:
        file: `pathlib.Path`, which need not be there.

    Returns:
        A list of dicts. What a kill cut off, at the end and without a line
        break, is no line; `append_line` writes in its place.

    Raises:
        ValueError: a line is damaged; the message names it. Nothing is
            changed in the file.
    """
    lines = []
    if not file.exists():
        return lines
    whole, _, _ = file.read_bytes().rpartition(b"\n")
    for number, text in enumerate(whole.splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise ValueError(
                f"{file}, line {number} expects an object of JSON; repair the "
                "line, or remove it to repeat what it was about. Received: "
                f"{text[:60]!r}"
            )
        lines.append(line)
    return lines


def append_line(file, line):
    """Adds a line of JSON to a file, after its last whole line."""
    with file.open("a+b") as lines:
        lines.seek(0)
        whole, found, _ = lines.read().rpartition(b"\n")
        lines.truncate(len(whole) + len(found))
        lines.write(json.dumps(line).encode() + b"\n")


def digest(*values):
    """A hash of arrays and of other values that JSON can hold.

    Args:
        values: arrays, `None`, or values of JSON.

    Returns:
        A str of hexadecimal digits.
    """
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype != object:
            head = [str(value.dtype), value.shape]
            found.update(json.dumps(head).encode())
            found.update(np.ascontiguousarray(value))
        else:
            found.update(json.dumps(value).encode())
    return found.hexdigest()
