"""Image files in class folders and tars, and their decoding."""

import functools
import tarfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import tensorflow as tf

from keras_topo.decoding import decode, resized

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp")

# The same as in `keras_topo.export_saved_model`.
MAX_PIXELS = 25_000_000


class EncodedImage(NamedTuple):
    """An image file not yet decoded; `where` names it in errors."""

    where: str
    class_name: str
    data: object  # a path to read, or a `Member`


class Member(NamedTuple):
    """The location of a file in an uncompressed archive."""

    archive: Path
    offset: int
    size: int

    def read(self):
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class File(NamedTuple):
    """A file in a folder of class folders; `parts` is its relative path."""

    parts: tuple
    where: str
    data: object

    @property
    def is_hidden(self):
        """Whether the file, or a folder around it, is hidden.

        Notebooks keep copies in `.ipynb_checkpoints`, and macOS writes file
        attributes as `._NAME`, also into archives.
        """
        return any(p.startswith(".") or p == "__MACOSX" for p in self.parts)

    @property
    def is_image(self):
        """Whether the name has the suffix of an image."""
        return self.parts[-1].lower().endswith(IMAGE_SUFFIXES)


def read_class_folders(folder, remarks):
    """Lists the image files of a folder of class folders, in sorted order."""
    # Class folders may be symbolic links, into which rglob does not descend.
    paths = [
        path
        for entry in folder.iterdir()
        for path in (entry.rglob("*") if entry.is_dir() else [entry])
    ]
    files = [
        File(path.relative_to(folder).parts, str(path), path)
        for path in paths
        if path.is_file()
    ]
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    return _of_classes(folder, folders, files, remarks)


def read_tar(path, split, remarks):
    """Lists the image files among `<split>/<class>/<file>` members of a tar,
    without unpacking it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        # A complete archive ends in two empty blocks of 512 bytes.
        file.seek(max(size - 1024, 0))
        if file.read() != bytes(1024):
            raise ValueError(
                "The archive is truncated or not an uncompressed tar. "
                f"Received: {str(path)!r} of {size} bytes"
            )
    # As after unpacking, the last member of a name counts.
    files, folders = {}, set()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                parts = _checked_parts(path, member)
                if member.isdir() and parts[:1] in ((), (split,)):
                    folders.update(parts[1:2])
                    continue
                if parts[:1] != (split,) and _hidden(parts):
                    continue  # Attributes of the folder, or of another.
                if parts[:1] != (split,) or len(parts) < 2:
                    raise ValueError(
                        f"{path} must hold members {split}/<class>/<file>. "
                        f"Received: {member.name!r}"
                    )
                folders.update(parts[1:-1][:1])
                files[parts] = File(
                    parts[1:],
                    f"{path}: {member.name}",
                    Member(path, member.offset_data, member.size),
                )
    except tarfile.TarError as error:
        raise ValueError(
            f"The archive is damaged ({error}). Received: {str(path)!r}"
        ) from error
    if not files:
        raise ValueError(
            f"The archive must hold images. Received: {str(path)!r}, which is "
            "empty"
        )
    return _of_classes(path, folders, list(files.values()), remarks)


def _of_classes(source, folders, files, remarks):
    """The images among files of a folder or a tar.

    Args:
        source: the folder or tar, for errors.
        folders: set of str, the top-level folders.
        files: list of `File`s.
        remarks: list; remarks about files left out are appended.
    """
    # The order in a folder or an archive is arbitrary, so sort by name.
    files = sorted(files, key=lambda file: file.parts)
    hidden = [f for f in files if f.is_hidden and f.is_image]
    files = [f for f in files if not f.is_hidden]
    images = [f for f in files if f.is_image and len(f.parts) > 1]
    others = [f for f in files if not (f.is_image and len(f.parts) > 1)]
    classes = {name for name in folders if not _hidden((name,))}
    if not classes:
        raise ValueError(
            "A folder of images must hold one folder per class. "
            f"Received: {str(source)!r}, which holds none"
        )
    for name in sorted(classes - {f.parts[0] for f in images}):
        raise ValueError(
            "Every class folder must hold images "
            f"({', '.join(IMAGE_SUFFIXES)}). "
            f"Received: {name!r} in {str(source)!r}, which holds none"
        )
    if others:
        remarks.append(
            f"left out {len(others)} files that are no images by their name or "
            f"in no class folder, e.g. {others[0].where}"
        )
    if hidden:
        remarks.append(
            f"left out {len(hidden)} hidden images, e.g. {hidden[0].where}"
        )
    return [EncodedImage(f.where, f.parts[0], f.data) for f in images]


def _checked_parts(path, member):
    """The path parts of a member, which must be a plain file or a folder."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        problem = "a path that leads outside the archive"
    elif not (member.isfile() or member.isdir()):
        problem = "a link or a device"
    elif member.issparse():
        problem = "a sparse file, which may claim any size"
    else:
        return name.parts
    raise ValueError(
        "An archive of images must hold plain files with relative paths. "
        f"Received: {member.name!r} in {str(path)!r}, {problem}"
    )


class Reader:
    """Decodes image files with the same functions as exported models.

    Args:
        max_pixels: int, the largest height x width to decode.
        sample_bits: int, number of bits used in 16-bit samples; see
            `keras_topo.decoding.decode`.

    Attributes:
        num_deep: int, number of images with 16 bits per sample.
        brightest: int, the largest of their samples, as 8 bits.
    """

    def __init__(self, max_pixels=MAX_PIXELS, sample_bits=16):
        self.max_pixels = max_pixels
        self._read = _reader(max_pixels, sample_bits)
        self.num_deep = 0
        self.brightest = 0

    def read(self, image, size=None):
        """Decodes an `EncodedImage`.

        Args:
            image: `EncodedImage`.
            size: height and width of the result; default: no resizing.

        Returns:
            Pixels, uint8 (height, width, 3), and the original size.

        Raises:
            ValueError: if the file does not decode; the message names it.
        """
        data = self._bytes(image)
        try:
            pixels, found, brightest = self._read(
                tf.constant(data), tf.constant(image.where), self._size(size)
            )
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(
                "Every image file must be a complete JPEG, PNG, BMP, GIF or "
                f"WebP. Received: {image.where} ({len(data)} bytes), which "
                f"does not decode: {_reason(error, image.where)}"
            ) from error
        # The header of a PNG: a signature, IHDR, its size, and the bits.
        if data[:4] == b"\x89PNG" and data[24] == 16:
            self.num_deep += 1
            self.brightest = max(self.brightest, int(brightest))
        return pixels.numpy(), tuple(found.numpy().tolist())

    @staticmethod
    @functools.cache
    def _size(size):
        return tf.constant(size or (0, 0), tf.int32)

    def _bytes(self, image):
        # An upper bound for any file: four samples of 16 bits per pixel.
        most = 8 * self.max_pixels + (1 << 20)
        is_member = isinstance(image.data, Member)
        size = image.data.size if is_member else image.data.stat().st_size
        if size > most:
            raise ValueError(
                f"Every image file must have at most {most:,} bytes, for "
                f"`max_pixels` (--max-pixels) of {self.max_pixels:,}. "
                f"Received: {image.where} of {size:,} bytes"
            )
        return image.data.read() if is_member else image.data.read_bytes()


@functools.cache
def _reader(max_pixels, sample_bits):
    def read(encoded, name, size):
        pixels = decode(encoded, name, 3, max_pixels, sample_bits)
        found = tf.shape(pixels)[:2]
        same = tf.reduce_all((size == found) | (size == 0))
        image = tf.cond(
            same,
            lambda: pixels,
            lambda: tf.cast(resized(pixels, size), tf.uint8),
        )
        return image, found, tf.reduce_max(pixels)

    signature = [
        tf.TensorSpec((), tf.string),
        tf.TensorSpec((), tf.string),
        tf.TensorSpec((2,), tf.int32),
    ]
    # A concrete function takes two thirds of the time per call.
    traced = tf.function(read, input_signature=signature, autograph=False)
    return traced.get_concrete_function()


def _reason(error, where):
    """The message of a TensorFlow error, without its origin."""
    _, found, rest = error.message.partition(f"[{where} ")
    if found:  # One of our own.
        return rest.partition("]\n")[0]
    lines = [line.strip() for line in error.message.splitlines()]
    noise = ("[[", "Graph execution", "Detected at", "<stack traces")
    lines = [line for line in lines if line and not line.startswith(noise)]
    return lines[-1] if lines else error.message


def _hidden(parts):
    return File(parts, "", None).is_hidden
