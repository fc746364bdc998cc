"""Where presets lie, and what is in their folders."""

import hashlib
import json
import logging
import os
import pathlib

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
PREPROCESSOR, METRICS = "preprocessor.json", "metrics.json"
CARD, CHECKSUMS = "README.md", "checksums.json"
#: What presets were before: one file of Keras. Read for one more version.
MODEL = "model.keras"
#: Files that programs read, and whose checksums are kept. A card may be
#: edited.
CHECKED = (CONFIG, WEIGHTS, PREPROCESSOR, METRICS)

logger = logging.getLogger("keras_topo.presets")


def presets():
    """The trained models that come with the package.

    Returns:
        A dict from names to dicts with `task` (`"images"`, `"graphs"` or
        `"nodes"`), `data`, `test_accuracy` (0 to 1; the mean over seeds where
        there are several; `metrics.json` has that of the file), `parameters`
        (trainable ones) and `path`, the folder of the preset, in a checkout
        with a SavedModel and a model card too.

    Example:

    >>> sorted(keras_topo.presets())
    ['gkat-citeseer', 'gkat-cora', 'gkat-enzymes', ...]
    """
    found = {}
    for zoo in zoo_folders():
        folders = sorted(zoo.iterdir()) if zoo.is_dir() else []
        for folder in filter(is_preset, folders):
            if folder.name in found:
                continue
            metrics = read_metrics(folder)
            found[folder.name] = {
                "task": metrics.get("task"),
                "data": metrics.get("arguments", {}).get("data"),
                "test_accuracy": rounded(metrics.get("test_accuracy")),
                "parameters": metrics.get("parameters"),
                "path": str(folder),
            }
    return found


def rounded(share):
    """To a hundredth of a percent, which no test set exceeds."""
    return None if share is None else round(share, 4)


def is_preset(folder):
    """Whether a folder holds a preset, of this version or the one before."""
    return (folder / CONFIG).is_file() or (folder / MODEL).is_file()


def zoo_folders():
    """Where presets lie: in the installed package, or in a checkout."""
    package = pathlib.Path(__file__).parents[1]
    return [package / "zoo", package.parent / "saved_models"]


def find_preset(name_or_path):
    """The local folder of a preset, downloaded if it is an `hf://` handle.

    Args:
        name_or_path: see `keras_topo.from_preset`.

    Returns:
        A `pathlib.Path`; for a `.keras` file the folder that it is in.

    Raises:
        ValueError: if there is no such preset.
        ImportError: for `hf://` without huggingface_hub.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(
            "`name_or_path` expects a str or a path. Received: name_or_path="
            f"{name_or_path!r}"
        )
    text = os.fspath(name_or_path)
    if text.startswith("hf://"):
        return _download(text)
    # A folder of the same name must not take the place of a known preset.
    if isinstance(name_or_path, str) and pathlib.Path(text).name == text:
        for zoo in zoo_folders():
            if is_preset(zoo / text):
                return zoo / text
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


def read_metrics(folder):
    """What `metrics.json` of a preset says; empty without one."""
    return read_json(pathlib.Path(folder).expanduser() / METRICS)


def read_preprocessor(name_or_path):
    """What turns raw inputs into inputs of a preset's model.

    Args:
        name_or_path: see `keras_topo.from_preset`.

    Returns:
        A dict, as it was given to `keras_topo.save_preset`; empty if none was.

    Example:

    >>> keras_topo.presets.read_preprocessor("topvit-cifar10")["class_names"]
    ['airplane', 'automobile', ...]
    """
    return read_json(find_preset(name_or_path) / PREPROCESSOR)


def read_json(file):
    """What a file of JSON holds; an empty dict where there is none."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{file} expects a JSON object. Received: a {type(found).__name__}"
        )
    return found


def write_json(file, value):
    """Writes indented JSON, whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def write_checksums(folder):
    """Notes the SHA-256 of the files of a preset that programs read."""
    sums = {
        name: _digest(folder / name)
        for name in CHECKED
        if (folder / name).is_file()
    }
    write_json(folder / CHECKSUMS, sums)


def check_checksums(folder):
    """Compares the files of a preset with `checksums.json`.

    Raises:
        ValueError: naming the file that is missing or was changed, or if the
            configuration or the weights have no checksum.
    """
    sums = read_json(folder / CHECKSUMS)
    for name in dict.fromkeys((CONFIG, WEIGHTS, *sums)):
        if name not in CHECKED or name not in sums:
            raise ValueError(
                f"{folder / CHECKSUMS} expects the SHA-256 of {CONFIG} and "
                f"{WEIGHTS}, and of no files but {', '.join(CHECKED)}. "
                f"Received: {sorted(sums)}"
            )
        file = folder / name
        found = _digest(file) if file.is_file() else None
        if found != sums[name]:
            raise ValueError(
                f"{file} is not the file that was saved: it was changed, or "
                "downloaded in part. Expected the SHA-256 "
                f"{sums[name]}. Received: {found or 'no file'}"
            )


def _digest(file):
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------- the hub


def hub_handle(handle):
    """Repository and revision of `hf://user/repository@revision`."""
    repository, _, revision = handle.removeprefix("hf://").partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(
            "`name_or_path` expects hf://user/repository or "
            f"hf://user/repository@revision. Received: {handle!r}"
        )
    return repository, revision or None


def hub(handle):
    """The module huggingface_hub, which only handles need."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "hf:// handles need huggingface_hub: pip install huggingface_hub. "
            f"Received: {handle!r}"
        ) from error
    return huggingface_hub


def _download(handle):
    module = hub(handle)
    repository, revision = hub_handle(handle)
    folder = module.snapshot_download(
        repository,
        revision=revision,
        allow_patterns=[*CHECKED, CHECKSUMS, MODEL],
    )
    folder = pathlib.Path(folder)
    if not is_preset(folder):
        raise ValueError(
            f"{handle} has neither {CONFIG} nor {MODEL}. Received: {handle!r}"
        )
    return folder
