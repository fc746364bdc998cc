"""Presets of a hub, by handles `hf://user/repository@revision`."""

import pathlib
from typing import Any

from keras_topo.presets.folders import (
    CHECKED,
    CHECKSUMS,
    CONFIG,
    MODEL,
    is_preset,
)


def hub_handle(handle: str) -> tuple[str, str | None]:
    """Repository and revision of `hf://user/repository@revision`."""
    repository, _, revision = handle.removeprefix("hf://").partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(
            "`name_or_path` expects hf://user/repository or "
            f"hf://user/repository@revision. Received: {handle!r}"
        )
    return repository, revision or None


def hub(handle: str) -> Any:
    """The module huggingface_hub, which only handles need."""
    try:
        # Of no extra: whoever has a handle has it.
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "hf:// handles need huggingface_hub: pip install huggingface_hub. "
            f"Received: {handle!r}"
        ) from error
    return huggingface_hub


def download(handle: str) -> pathlib.Path:
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
