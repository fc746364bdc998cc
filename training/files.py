"""Files of runs: atomic writes, checked reads."""

import hashlib
import json
import os

import numpy as np


def write_text(path, text):
    """Writes a file atomically: completely or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_json(path, value):
    """Writes a value as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_lines(file):
    """The lines of a JSON Lines file.

    Args:
        file: `pathlib.Path`; the file may be missing.

    Returns:
        A list of dicts. An incomplete last line, cut off by a kill, is ignored;
        `append_line` replaces it.

    Raises:
        ValueError: if a line is damaged; the message names it. The file is not
            changed.
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
                f"{file}, line {number} expects a JSON object; repair the "
                "line, or remove it to repeat its run. Received: "
                f"{text[:60]!r}"
            )
        lines.append(line)
    return lines


def append_line(file, line):
    """Appends a line of JSON to a file, after its last complete line."""
    with file.open("a+b") as lines:
        lines.seek(0)
        whole, found, _ = lines.read().rpartition(b"\n")
        lines.truncate(len(whole) + len(found))
        lines.write(json.dumps(line).encode() + b"\n")


def digest(*values):
    """A hash of arrays and of other JSON values.

    Args:
        values: arrays, `None`, or JSON values.

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
