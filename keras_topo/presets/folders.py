"""What is in the folder of a preset, and whether it is what was saved."""

import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_topo.annotations import StrPath

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
PREPROCESSOR, METRICS = "preprocessor.json", "metrics.json"
CARD, CHECKSUMS = "README.md", "checksums.json"
#: What presets were before: one file of Keras. Read for one more version.
MODEL = "model.keras"
#: Files that programs read, and whose checksums are kept. A card may be
#: edited.
CHECKED = (CONFIG, WEIGHTS, PREPROCESSOR, METRICS)

logger = logging.getLogger("keras_topo.presets")


def is_preset(folder: pathlib.Path) -> bool:
    """Whether a folder holds a preset, of this version or the one before."""
    return (folder / CONFIG).is_file() or (folder / MODEL).is_file()


def read_metrics(folder: StrPath) -> dict[str, Any]:
    """What `metrics.json` of a preset says; empty without one.

    Example:

    >>> from keras_topo.presets import find_preset, read_metrics
    >>> round(read_metrics(find_preset("gkat-mutag"))["test_accuracy"], 2)
    0.89
    """
    return read_json(pathlib.Path(folder).expanduser() / METRICS)


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """What a file of JSON holds; an empty dict where there is none."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{file} expects a JSON object. Received: a {type(found).__name__}"
        )
    return found


def write_json(file: pathlib.Path, value: Any) -> None:
    """Writes indented JSON, whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def write_checksums(folder: pathlib.Path) -> None:
    """Notes the SHA-256 of the files of a preset that programs read."""
    sums = {
        name: digest(folder / name)
        for name in CHECKED
        if (folder / name).is_file()
    }
    write_json(folder / CHECKSUMS, sums)


def check_checksums(
    folder: pathlib.Path, known: Mapping[str, str] | None = None
) -> None:
    """Compares the files of a preset with what was saved.

    Args:
        folder: `pathlib.Path`.
        known: dict of SHA-256 by files, of the registry; by default those that
            `checksums.json` has.

    Raises:
        ValueError: naming the file that is missing or was changed, or if the
            configuration or the weights have no checksum.
    """
    sums = read_json(folder / CHECKSUMS) if known is None else known
    for name in dict.fromkeys((CONFIG, WEIGHTS, *sums)):
        if name not in CHECKED or name not in sums:
            raise ValueError(
                f"{folder / CHECKSUMS} expects the SHA-256 of {CONFIG} and "
                f"{WEIGHTS}, and of no files but {', '.join(CHECKED)}. "
                f"Received: {sorted(sums)}"
            )
        file = folder / name
        found = digest(file) if file.is_file() else None
        if found != sums[name]:
            raise ValueError(
                f"{file} is not the file that was saved: it was changed, or "
                "downloaded in part. Expected the SHA-256 "
                f"{sums[name]}. Received: {found or 'no file'}"
            )


def digest(file: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()
