"""Files of a data set in a folder or a zip archive, read piece by piece."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from keras_topo.annotations import StrPath

# COLLAB, the largest archive of the benchmarks, unpacks to 0.36 GB.
MAX_BYTES = 2**30
# Compressed bytes that are read at once. `zipfile` bounds what a piece of
# deflate unpacks to, but not what one of LZMA does: up to 7,000 times as much.
PIECES = {
    zipfile.ZIP_STORED: 2**18,
    zipfile.ZIP_DEFLATED: 2**18,
    zipfile.ZIP_LZMA: 2**12,
}
ENCRYPTED = 1


@contextlib.contextmanager
def open_files(path: StrPath, max_bytes: int = MAX_BYTES) -> Iterator["_Files"]:
    """The files of a folder, or the members of a zip archive.

    Args:
        path: folder or zip file.
        max_bytes: int; more than this is not read, of all files together.

    Yields:
        An object with `name in files`, by the base name of a file, and
        `files.pieces(name)`, a generator of `bytes`.

    Raises:
        ValueError: if there is no such file, it is no zip archive, is damaged
            or has members outside its own folder.
    """
    path = Path(path)
    if path.is_dir():
        yield _Folder(path, max_bytes)
        return
    if not path.is_file():
        raise ValueError(
            f"`path` expects a zip file or a folder. Received: {path}, which "
            "does not exist"
        )
    with _reading("the directory", path):
        archive = zipfile.ZipFile(path)
    with archive:
        found, expected = len(archive.infolist()), _count_members(path)
        if expected not in (found, 2**16 - 1):  # The latter: not said there.
            # One damaged byte, a length, makes an entry swallow the next one.
            raise ValueError(
                f"the directory of {path} expects {expected} members, by its "
                f"end. Received: {found}"
            )
        yield _Archive(archive, path, max_bytes)


def _count_members(path):
    """Members of a zip archive by the record at its end."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 2**16 - 22))
        end = stream.read()
    return int.from_bytes(end[end.rfind(b"PK\5\6") :][10:12], "little")


class _Files:
    """What folders and archives have in common: the limit."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path, self.max_bytes, self.left = path, max_bytes, max_bytes

    def __contains__(self, name: str) -> bool:
        raise NotImplementedError

    def _read(self, name: str) -> Iterator[bytes]:
        raise NotImplementedError

    def check_size(self, size: int, name: str) -> None:
        """Raises a ValueError where `size` more bytes are too many."""
        if size > self.left:
            raise ValueError(
                f"the files of {self.path} expect at most "
                f"max_bytes={self.max_bytes} bytes together, unpacked. "
                f"Received: {name}, with which they have more"
            )

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yields the content of a file; `ValueError` if it is too large."""
        for piece in self._read(name):
            self.check_size(len(piece), name)
            self.left -= len(piece)
            yield piece


class _Folder(_Files):
    def __contains__(self, name: str) -> bool:
        return (self.path / name).is_file()

    def _read(self, name: str) -> Iterator[bytes]:
        with (self.path / name).open("rb") as stream:
            while piece := stream.read(2**18):
                yield piece


class _Archive(_Files):
    def __init__(
        self, archive: zipfile.ZipFile, path: Path, max_bytes: int
    ) -> None:
        super().__init__(path, max_bytes)
        self.archive, self.members, self.repeated = archive, {}, set()
        for member in archive.infolist():
            parts = PurePosixPath(member.filename.replace("\\", "/"))
            outside = parts.is_absolute() or ".." in parts.parts
            if outside or ":" in member.filename:
                # Nothing is unpacked, but such an archive is not what it
                # seems.
                raise ValueError(
                    "an archive expects members inside its own folder. "
                    f"Received: {member.filename!r} in {path}"
                )
            if member.compress_type in PIECES and not _is_encrypted(member):
                # Compares the two names that a member has. By one damaged
                # byte in the other a file would seem not to be there.
                with _reading(member.filename, path):
                    archive.open(member).close()
            if member.is_dir():
                continue
            if parts.name in self.members:
                self.repeated.add(parts.name)
            self.members[parts.name] = member

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def _read(self, name: str) -> Iterator[bytes]:
        member = self.members[name]
        if name in self.repeated:
            raise ValueError(
                f"an archive expects one member of the name {name}. Received: "
                f"several of them in {self.path}"
            )
        if _is_encrypted(member):
            raise ValueError(
                f"an archive expects members without a password. Received: "
                f"{member.filename} in {self.path}, which is encrypted"
            )
        if member.compress_type not in PIECES:
            raise ValueError(
                "an archive expects members that are stored or compressed by "
                f"deflate or LZMA. Received: {member.filename} in {self.path}, "
                f"compressed by method {member.compress_type}"
            )
        self.check_size(member.file_size, name)
        with _reading(name, self.path):
            stream = self.archive.open(member)
        with stream:
            while True:
                # To its end, where the checksum is compared.
                with _reading(name, self.path):
                    piece = stream.read(PIECES[member.compress_type])
                if not piece:
                    return
                yield piece


def _is_encrypted(member):
    return bool(member.flag_bits & ENCRYPTED)


@contextlib.contextmanager
def _reading(name, path):
    try:
        yield
    except Exception as error:
        # zipfile, zlib and lzma raise errors of a dozen kinds for damaged
        # bytes, MemoryError and IndexError among them.
        raise ValueError(
            f"{name} of the archive {path} cannot be read: it is truncated or "
            f"corrupt, or no zip file ({type(error).__name__}: {error})"
        ) from error
