"""The files of the cache of kernels: how one is written, read and removed.

An entry is one file: the numbers of all kernels, one after another; what they
are, as JSON; and a trailer with a digest of all that comes before it. It is
written under a name that no other writer has, as the kernels are computed, and
renamed once it is complete. So no process, killed or not, leaves half of one.
"""

import contextlib
import hashlib
import json
import math
import mmap
import os
import re
import secrets
import stat
import struct
import sys
import time
from pathlib import Path

import numpy as np

from keras_topo.annotations import StrPath
from keras_topo.graphs.code_keys import as_bytes

# The length of the JSON, and the layout of the file; then comes the digest.
TRAILER = struct.Struct("<Q8s")
LAYOUT = b"KTOPO-02"
DIGEST = hashlib.sha256
BLOCK = 2**22

# Entries, and what a killed process leaves of one; of the layout before this,
# `.values` and `.npy` files too.
NAMES = re.compile(
    r"(\w+|<lambda>)-[0-9a-f]{32}"
    r"\.(kernels|values|npy|(kernels\.[0-9a-f]{16}|\d+)\.partial)"
)
# Seconds after which no process is taken to be still writing to a file.
STALE = 24 * 3600


class NotKept(Exception):
    """Why there can be no entry; the same words for all files of a folder."""


class Entry:
    """An entry that is being written.

    The file is not made by `tempfile`, which would keep it from other users,
    who may share the folder.
    """

    def __init__(self, path: Path, dtype: np.dtype, limit: float) -> None:
        self.path, self.dtype, self.limit = path, dtype, limit
        self.partial = Path(f"{path}.{secrets.token_hex(8)}.partial")
        self.shapes, self.size, self.digest = [], 0, DIGEST()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.partial.open("xb", buffering=0)
        except OSError as error:
            raise NotKept(error.strerror or error) from error

    def add(self, kernel: np.ndarray) -> None:
        numbers = as_bytes(kernel)
        self._write(numbers)
        self.digest.update(numbers)
        self.shapes.append(kernel.shape)

    def complete(self) -> None:
        about = _description(self.path, self.dtype, self.shapes)
        tail = about + TRAILER.pack(len(about), LAYOUT)
        whole = self.digest.copy()
        whole.update(tail)
        self._write(tail + whole.digest())
        try:
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.partial, self.path)
        except OSError as error:
            raise NotKept(error.strerror or error) from error

    def read(self) -> list[np.ndarray] | None:
        """The kernels so far, in memory; `None` if the disk has lost some."""
        digest, kernels = DIGEST(), []
        try:
            with self.partial.open("rb") as file:
                for shape in self.shapes:
                    kernel = np.empty(shape, self.dtype)
                    file.readinto(as_bytes(kernel))
                    digest.update(as_bytes(kernel))
                    kernels.append(kernel)
        except OSError:
            return None
        return kernels if digest.digest() == self.digest.digest() else None

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()
        remove(self.partial)

    def _write(self, data):
        self.size += len(data)
        if self.size > self.limit:
            raise NotKept(
                "they are larger than KERAS_TOPO_CACHE_LIMIT, "
                f"{self.limit / 1e9:g} GB"
            )
        data = memoryview(data)
        try:
            while data:
                data = data[self.file.write(data) :]
        except OSError as error:
            raise NotKept(error.strerror or error) from error


def load_entry(path: Path, dtype: np.dtype) -> list[np.ndarray] | None:
    """The kernels of an entry; `None` if there is none, or a damaged one."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    with file:
        try:
            shapes = _checked_shapes(file, path, dtype)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            sizes = [math.prod(shape) for shape in shapes]
            # As plain arrays: a view of the type memmap costs more than its
            # numbers.
            numbers = np.frombuffer(mapped, dtype, sum(sizes))
            pieces = np.split(numbers, np.cumsum(sizes)[:-1])
            kernels = [
                p.reshape(s) for p, s in zip(pieces, shapes, strict=True)
            ]
        except Exception as error:  # noqa: BLE001
            # Whatever is wrong with it, the file can be computed again.
            print(
                f"note: cached kernels in {path} cannot be read and are "
                f"computed again ({error})",
                file=sys.stderr,
            )
            return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return kernels


def find_files(folder: Path) -> list[tuple[float, bool, int, str]]:
    """Time of last use, whether partial, bytes and path of each file."""
    found = []
    with contextlib.suppress(OSError):
        for name in filter(NAMES.fullmatch, os.listdir(folder)):
            path = os.path.join(folder, name)
            # Another process may remove it meanwhile.
            with contextlib.suppress(OSError):
                about = os.lstat(path)
                if stat.S_ISREG(about.st_mode):
                    partial = name.endswith(".partial")
                    found.append((about.st_mtime, partial, about.st_size, path))
    return found


def make_room(newest: Path, limit: float) -> None:
    """Removes the entries that are too many, and what is left of others."""
    files = sorted(find_files(newest.parent))
    total = sum(size for _, partial, size, _ in files if not partial)
    for used, partial, size, path in files:
        if partial:
            if time.time() - used > STALE:
                remove(path)
        elif total > limit and path != str(newest) and remove(path):
            total -= size


def remove(path: StrPath) -> bool:
    """Whether a file is gone; that of another user may not be."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _checked_shapes(file, path, dtype):
    """The shapes in an entry, after its digest has been found to be right."""
    size = os.fstat(file.fileno()).st_size - TRAILER.size - DIGEST().digest_size
    if size < 0:
        raise ValueError("it has been cut short")
    file.seek(size)
    trailer = file.read(TRAILER.size)
    length, layout = TRAILER.unpack(trailer)
    if layout != LAYOUT:
        raise ValueError("it has been cut short, or has another layout")
    digest, left = DIGEST(), size
    file.seek(0)
    while left:
        block = file.read(min(left, BLOCK))
        if not block:
            raise ValueError("it has been cut short")
        digest.update(block)
        left -= len(block)
    digest.update(trailer)
    if file.read()[TRAILER.size :] != digest.digest():
        raise ValueError("it has been changed")
    file.seek(size - length)
    about = file.read(length)
    shapes = json.loads(about)["shapes"]
    numbers = sum(map(math.prod, shapes))
    if (
        about != _description(path, dtype, shapes)
        or numbers * dtype.itemsize != size - length
    ):
        raise ValueError("it holds other kernels")
    return shapes


def _description(path, dtype, shapes):
    about = {"name": path.name, "dtype": repr(dtype), "shapes": shapes}
    return json.dumps(about).encode()
