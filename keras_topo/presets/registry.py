"""The registry: names of trained models, and what is known of each.

`presets.json` lies beside the folders of the zoo, and is installed with them:

| key | what it says |
|---|---|
| `handle` | where the preset is: a folder beside the registry, or `hf://user/repository@revision` |
| `sha256` | of each file that programs read |
| `size` | of these files together, bytes |
| `task` | `"images"`, `"graphs"` or `"nodes"` |
| `figure` | how good it is: its name (`metric`), `value`, `examples` that were tested, and over several runs their number and `deviation` |
| `data`, `data_license` | what it was trained on, and by whose leave |
| `parameters` | trainable ones |

`python -m training.publish --registry saved_models` writes it again.
"""  # noqa: E501

import os
import pathlib
from typing import Any

from keras_topo.annotations import StrPath
from keras_topo.presets.folders import (
    CHECKED,
    CONFIG,
    PREPROCESSOR,
    WEIGHTS,
    digest,
    is_preset,
    read_json,
    read_metrics,
    write_json,
)
from keras_topo.presets.hub import download

REGISTRY = "presets.json"
FORMAT = 1


class Presets(dict[str, dict[str, Any]]):
    """A dict from names to what is known of presets, printed as a table."""

    def __repr__(self) -> str:
        rows = [("name", "task", "data", "figure", "parameters", "size")]
        for name, entry in self.items():
            rows.append(
                (
                    name,
                    entry["task"] or "",
                    entry["data"] or "",
                    _figure_text(entry["figure"]),
                    f"{entry['parameters'] or 0:,}",
                    f"{entry['size'] / 1e6:.1f} MB",
                )
            )
        return _table(rows, right=(4, 5)) + _licenses(self)

    __str__ = __repr__


def presets() -> Presets:
    """The trained models that are known by name.

    Returns:
        A dict from names to dicts, which is printed as a table. Each has what
        the registry says (`keras_topo.presets.registry`): `handle`, `sha256`,
        `size` in bytes, `task` (`"images"`, `"graphs"` or `"nodes"`), `figure`,
        `data`, `data_license`, `parameters`; and `test_accuracy` (0 to 1; the
        mean over seeds where there are several; `metrics.json` has that of the
        file) and `path`, the folder of the preset, in a checkout with a
        SavedModel and a model card too, or `None` of one that is elsewhere.

    Example:

    >>> list(keras_topo.presets())[:2]
    ['gkat-citeseer', 'gkat-cora']
    >>> round(keras_topo.presets()["gkat-cora"]["figure"]["value"], 2)
    0.84
    """
    found = Presets()
    for zoo in zoo_folders():
        for name, entry in read_registry(zoo).items():
            if name in found:
                continue
            figure = entry["figure"] or {}
            accuracy = figure.get("metric") == "test accuracy"
            found[name] = {
                **entry,
                "test_accuracy": figure["value"] if accuracy else None,
                "path": None if _is_remote(entry) else str(_local(zoo, entry)),
            }
    return found


def zoo_folders() -> list[pathlib.Path]:
    """Where presets lie: in the installed package, or in a checkout."""
    package = pathlib.Path(__file__).parents[1]
    return [package / "zoo", package.parent / "saved_models"]


def find_preset(name_or_path: StrPath) -> pathlib.Path:
    """The local folder of a preset, downloaded if need be.

    Args:
        name_or_path: see `keras_topo.from_preset`.

    Returns:
        A `pathlib.Path`; for a `.keras` file the folder that it is in.

    Raises:
        ValueError: if there is no such preset.
        ImportError: for `hf://` without huggingface_hub.

    Example:

    >>> from keras_topo.presets import find_preset
    >>> find_preset("gkat-cora").name
    'gkat-cora'
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(
            "`name_or_path` expects a str or a path. Received: name_or_path="
            f"{name_or_path!r}"
        )
    text = os.fspath(name_or_path)
    if text.startswith("hf://"):
        return download(text)
    zoo, entry = _entry(name_or_path)
    if entry is not None:
        remote = _is_remote(entry)
        return download(entry["handle"]) if remote else _local(zoo, entry)
    path = pathlib.Path(text).expanduser()
    if path.suffix == ".keras" and path.is_file():
        return path.parent
    if is_preset(path):
        return path
    raise ValueError(
        f"`name_or_path` expects a folder with {CONFIG} and {WEIGHTS}, a "
        ".keras file, a handle hf://user/repository, or one of "
        f"{sorted(presets())}. Received: name_or_path={text!r}"
    )


def known_digests(name_or_path: StrPath) -> dict[str, str] | None:
    """The SHA-256 of files that the registry has for a name, or `None`."""
    _, entry = _entry(name_or_path)
    return None if entry is None else entry["sha256"]


def read_preprocessor(name_or_path: StrPath) -> dict[str, Any]:
    """What turns raw inputs into inputs of a preset's model.

    Args:
        name_or_path: see `keras_topo.from_preset`.

    Returns:
        A dict, as it was given to `keras_topo.save_preset`; empty if none was.

    Example:

    >>> from keras_topo.presets import read_preprocessor
    >>> read_preprocessor("topvit-cifar10")["class_names"][:2]
    ['airplane', 'automobile']
    """
    return read_json(find_preset(name_or_path) / PREPROCESSOR)


def read_registry(zoo: pathlib.Path) -> dict[str, Any]:
    """Entries of the registry in a folder, by name; empty without one.

    Raises:
        ValueError: if it is of another format.
    """
    file = zoo / REGISTRY
    if not file.is_file():
        return {}
    found = read_json(file)
    if found.get("format") != FORMAT:
        raise ValueError(
            f"{file} expects the format {FORMAT}. Received: "
            f"format={found.get('format')!r}; a later version of keras_topo "
            "may read it"
        )
    return found["presets"]


def write_registry(zoo: pathlib.Path) -> dict[str, Any]:
    """Writes the registry of the presets in a folder, from what they hold.

    Entries of presets that lie elsewhere, on a hub, stay as they are.

    Args:
        zoo: `pathlib.Path`.

    Returns:
        The entries, a dict.

    Raises:
        ValueError: if the metrics of a preset do not say what its data may be
            used for.
    """
    entries = {
        name: entry
        for name, entry in read_registry(zoo).items()
        if _is_remote(entry)
    }
    for folder in sorted(zoo.iterdir()):
        if is_preset(folder):
            entries[folder.name] = _described(folder)
    entries = dict(sorted(entries.items()))
    write_json(zoo / REGISTRY, {"format": FORMAT, "presets": entries})
    return entries


def _described(folder):
    """The entry of a preset."""
    metrics = read_metrics(folder)
    if not metrics.get("data_license"):
        raise ValueError(
            f"{folder} expects `data_license` in its metrics.json, which "
            "`python -m training.publish --data-license TEXT` writes. "
            f"Received: data_license={metrics.get('data_license')!r}"
        )
    files = [folder / name for name in CHECKED if (folder / name).is_file()]
    data = metrics.get("arguments", {}).get("data")
    return {
        "handle": folder.name,
        "sha256": {file.name: digest(file) for file in files},
        "size": sum(file.stat().st_size for file in files),
        "task": metrics.get("task"),
        "figure": _figure(metrics),
        "data": data and pathlib.Path(data).stem,
        "data_license": metrics["data_license"],
        "parameters": metrics.get("parameters"),
    }


def _figure(metrics):
    value = metrics.get("test_accuracy")
    if value is None:
        return None
    # To a hundredth of a percent, which no test set exceeds.
    figure = {"metric": "test accuracy", "value": round(value, 4)}
    counts = metrics.get("images") or metrics.get("graphs")
    counts = counts or metrics.get("nodes") or {}
    if "test" in counts:
        figure["examples"] = counts["test"]
    if metrics.get("runs", 1) > 1:
        figure["runs"] = metrics["runs"]
        figure["deviation"] = round(metrics["test_deviation"], 4)
    return figure


def _entry(name_or_path):
    """The zoo and the entry of a name, or two `None`s."""
    # A folder of the same name must not take the place of a known preset.
    if isinstance(name_or_path, str):
        for zoo in zoo_folders():
            entry = read_registry(zoo).get(name_or_path)
            if entry is not None:
                return zoo, entry
    return None, None


def _is_remote(entry):
    return entry["handle"].startswith("hf://")


def _local(zoo, entry):
    handle = entry["handle"]
    if pathlib.Path(handle).name != handle:
        raise ValueError(
            f"{zoo / REGISTRY} expects handles that are names of folders "
            f"beside it, or hf://user/repository. Received: {handle!r}"
        )
    return zoo / handle


def _figure_text(figure):
    if figure is None:
        return ""
    spread = ""
    if "deviation" in figure:
        spread = f" +- {100 * figure['deviation']:.1f}"
    return f"{figure['metric']} {100 * figure['value']:.1f}{spread}%"


def _table(rows, right):
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            text.rjust(width) if k in right else text.ljust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _licenses(entries):
    """Lines of what data may be used for, each once."""
    found = {}
    for entry in entries.values():
        names = found.setdefault(entry["data_license"], [])
        if entry["data"] not in names:
            names.append(entry["data"])
    lines = [
        f"license of the data {', '.join(map(str, names))}: {text}"
        for text, names in found.items()
    ]
    return "".join(f"\n{line}" for line in lines)
