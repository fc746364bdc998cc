"""Image files: of folders of class folders and of tars, and their pixels."""

import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import tensorflow as tf

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


class EncodedImage(NamedTuple):
    """An image file not yet decoded; `where` names it in errors."""

    where: str
    class_name: str
    data: object  # bytes, or a path to read


def read_class_folders(folder, remarks):
    """Lists the image files of a folder of class folders, in sorted order."""
    classes = sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    )
    if not classes:
        raise ValueError(
            "A folder of images must hold one folder per class. "
            f"Received: {str(folder)!r}, which holds none"
        )
    encoded = []
    others = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".")
    )
    for class_folder in classes:
        files = sorted(
            path
            for path in class_folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )
        images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
        others += [f for f in files if f.suffix.lower() not in IMAGE_SUFFIXES]
        if not images:
            raise ValueError(
                "Every class folder must hold images "
                f"({', '.join(IMAGE_SUFFIXES)}). "
                f"Received: {str(class_folder)!r}, which holds none"
            )
        encoded += [EncodedImage(str(f), class_folder.name, f) for f in images]
    if others:
        remarks.append(
            f"left out {len(others)} files that are no images by their name or "
            f"in no class folder, e.g. {others[0]}"
        )
    return encoded


def read_tar(path, split):
    """Reads `<split>/<class>/<file>` members into memory, unpacking nothing."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        # A complete archive ends in two empty blocks of 512 bytes.
        file.seek(max(size - 1024, 0))
        if file.read() != bytes(1024):
            raise ValueError(
                "The archive is truncated or not an uncompressed tar. "
                f"Received: {str(path)!r} of {size} bytes"
            )
    encoded = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                _check_member(path, member)
                if member.isdir():
                    continue
                parts = PurePosixPath(member.name).parts
                if len(parts) != 3 or parts[0] != split:
                    raise ValueError(
                        f"{path} must hold members {split}/<class>/<file>. "
                        f"Received: {member.name!r}"
                    )
                encoded.append(
                    EncodedImage(
                        f"{path}: {member.name}",
                        parts[1],
                        tar.extractfile(member).read(),
                    )
                )
    except tarfile.TarError as error:
        raise ValueError(
            f"The archive is damaged ({error}). Received: {str(path)!r}"
        ) from error
    if not encoded:
        raise ValueError(
            f"The archive must hold images. Received: {str(path)!r}, an "
            "empty one"
        )
    # The order of an archive is an accident; that of the names is not.
    return sorted(encoded, key=lambda image: image.where)


def _check_member(path, member):
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        problem = "a path that leads outside the archive"
    elif not (member.isfile() or member.isdir()):
        problem = "a link or a device"
    else:
        return
    raise ValueError(
        "An archive of images must hold plain files with relative paths. "
        f"Received: {member.name!r} in {str(path)!r}, {problem}"
    )


def decode(image):
    """Decodes one image to (height, width, 3) uint8, or names the culprit."""
    data = image.data
    if isinstance(data, Path):
        data = data.read_bytes()
    try:
        return tf.io.decode_image(
            data, channels=3, expand_animations=False
        ).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            "Every image file must be a complete JPEG, PNG, BMP or GIF. "
            f"Received: {image.where} ({len(data)} bytes), which does not "
            "decode"
        ) from error
