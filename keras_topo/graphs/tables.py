"""Tables of numbers as text: one record per line, columns between commas."""

import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

# Text that is parsed at once, so that memory is that of the numbers.
BLOCK = 2**22
# What a byte may be in a table.
NUMBER, BLANK, COMMA, NEWLINE = 1, 2, 3, 4
KINDS = np.zeros(256, "uint8")
KINDS[list(b"0123456789+-.eE")] = NUMBER
KINDS[list(b" \t")] = BLANK
KINDS[ord(",")] = COMMA
KINDS[ord("\n")] = NEWLINE
# Integers are below this one; among reals, below what float64 tells apart.
LIMIT = 10**18
EXACT = 2**53
REAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def read_table(
    pieces: Iterable[bytes],
    file: str,
    dtype: Literal["int64", "float32", "float64"],
    columns: int | None = None,
    hint: str = "",
) -> Iterator[tuple[int, np.ndarray]]:
    """Parses a table block by block.

    Blanks around commas, a byte-order mark of UTF-8, line ends of Windows and
    blank lines at the end are accepted. Numbers are decimal and finite; there
    are no underscores, no hexadecimal digits and no other characters.

    Args:
        pieces: iterable of `bytes`, the text.
        file: str, the name of the file, for errors.
        dtype: "int64" for whole numbers, which may be written as `1.0`;
            "float32"; or "float64", where blocks of whole numbers come as
            int64.
        columns: int, numbers per line; defaults to those of the first line.
        hint: str, what an error about the number of columns ends with.

    Yields:
        The number of the first line, from 1, and the numbers `(lines,
        columns)` of one block.

    Raises:
        ValueError: if a line is no such record, or has another number of
            columns; the message names the file and the line.
    """
    line, blank = 1, 0
    for text in _blocks(pieces, file):
        stripped = text.rstrip(b" \t\n")
        if not stripped:
            blank += text.count(b"\n")
            continue
        if blank:
            # Blank lines are no end if something follows.
            raise ValueError(_expects(file, columns, dtype, line, b"", hint))
        if columns is None:
            columns = stripped.split(b"\n", 1)[0].count(b",") + 1
        end = len(stripped)
        values = _parse(text[:end] + b"\n", columns, dtype)
        if values is None:
            number, wrong = _bad_line(text[:end], columns, dtype)
            raise ValueError(
                _expects(file, columns, dtype, line + number, wrong, hint)
            )
        yield line, values
        line += len(values)
        # The first of these ended the last record.
        blank = max(text.count(b"\n", end) - 1, 0)


def collect_table(
    pieces: Iterable[bytes],
    file: str,
    dtype: Literal["int64", "float32", "float64"],
    columns: int | None = None,
    most: int | None = None,
) -> np.ndarray:
    """All of `read_table`, an array `(lines, columns)`.

    Args:
        most: int, lines that there may be.
    """
    blocks = []
    for line, values in read_table(pieces, file, dtype, columns):
        blocks.append(values)
        if most is not None and line + len(values) - 1 > most:
            raise ValueError(
                f"{file} expects at most {most} lines. Received: line "
                f"{most + 1}"
            )
    if not blocks:
        return np.zeros((0, columns or 1), dtype)
    return np.concatenate(blocks)


def _blocks(pieces, file):
    """Yields text of about `BLOCK` bytes that ends where a line ends."""
    buffer, line = bytearray(), 1
    for piece in pieces:
        buffer += piece
        if len(buffer) < BLOCK:
            continue
        end = buffer.rfind(b"\n") + 1
        if not end:
            raise ValueError(
                f"{file} expects lines of at most {BLOCK} bytes. Received: a "
                f"longer one, line {line}"
            )
        text = bytes(memoryview(buffer)[:end])
        del buffer[:end]
        yield _plain(text, file, line == 1)
        line += text.count(b"\n")
    yield _plain(bytes(buffer), file, line == 1)


def _plain(text, file, is_first):
    """`text` without what some editors add to it."""
    if is_first:
        if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(
                f"{file} expects ASCII or UTF-8. Received: UTF-16, by the mark "
                "at its beginning (line 1)"
            )
        text = text.removeprefix(b"\xef\xbb\xbf")
    return text.replace(b"\r\n", b"\n")


def _parse(text, columns, dtype):
    """Numbers of whole lines, `(lines, columns)`; `None` if some are wrong."""
    kinds = KINDS[np.frombuffer(text, "uint8")]
    if not kinds.all():
        return None
    # The first byte of a number, commas and newlines: they have to alternate.
    marks = kinds == NUMBER
    marks[1:] &= ~marks[:-1]
    marks |= kinds >= COMMA
    marks = kinds[marks]
    expected = np.tile(np.array([NUMBER, COMMA], "uint8"), columns)
    expected[-1] = NEWLINE
    if len(marks) % len(expected):
        return None
    if (marks.reshape(-1, len(expected)) != expected).any():
        return None
    whole = _is_whole(text)
    values = None
    # A sign alone would be read as zero.
    signs = b"-" in text or b"+" in text
    lone = signs and re.search(rb"[+-](?!\d)", text)
    if whole and dtype != "float32" and not lone:
        values = _numbers(text, "int64")
        # Larger ones are cut to the largest without a word.
        if values is not None and not (np.abs(values) < LIMIT).all():
            values = None
    if values is None and not (whole and dtype == "int64"):
        values = _numbers(text, "float64")
    if values is None or len(values) * 2 != len(marks):
        return None
    values = values.reshape(-1, columns)
    if values.dtype == "int64":
        return values
    if dtype == "float32":
        with np.errstate(over="ignore"):
            values = values.astype("float32")
        return values if np.isfinite(values).all() else None
    if (np.abs(values) < EXACT).all() and (values == np.round(values)).all():
        return values.astype("int64")
    if dtype == "int64" or not np.isfinite(values).all():
        return None
    return values


def _is_whole(text):
    """Whether all numbers are written as integers."""
    return not any(character in text for character in (b".", b"e", b"E"))


def _numbers(text, dtype):
    try:
        with warnings.catch_warnings():
            # Older versions of NumPy warn where others raise.
            warnings.simplefilter("error")
            return np.fromstring(text.replace(b",", b" "), dtype=dtype, sep=" ")
    except (ValueError, DeprecationWarning):
        return None


def _bad_line(text, columns, dtype):
    """Which line is wrong, counted from 0, and its content."""
    whole = _is_whole(text)
    for number, line in enumerate(text.split(b"\n")):
        fields = [field.strip(b" \t") for field in line.split(b",")]
        if len(fields) != columns or not all(
            _is_number(field, dtype, whole) for field in fields
        ):
            return number, line
    raise AssertionError("a block is refused in which no line is wrong")


def _is_number(field, dtype, whole):
    if not REAL.fullmatch(field):
        return False
    if dtype == "int64" and whole:
        return abs(int(field)) < LIMIT if len(field) < 100 else False
    value = float(field)
    if dtype == "int64":
        return abs(value) < EXACT and value == round(value)
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.array(value).astype(dtype)))


def _expects(file, columns, dtype, line, wrong, hint):
    kind = "whole numbers" if dtype == "int64" else "finite numbers"
    count = "" if columns is None else f"{columns} "
    kind = kind[:-1] if columns == 1 else kind
    shown = wrong[:60].decode("utf-8", "backslashreplace")
    if wrong.count(b",") + 1 == columns or not wrong:
        hint = ""
    return (
        f"{file} expects {count}{kind} per line, separated by commas. "
        f"Received: line {line}, {shown!r}{hint}"
    )
