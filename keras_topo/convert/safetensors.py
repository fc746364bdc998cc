"""Files of safetensors, read with NumPy.

A file is the length of a header (8 bytes, little-endian), the header (JSON:
names to dtype, shape and place) and the numbers. Nothing of it is trusted:
whatever the header says, no byte outside of the file is read, and no more
memory is taken than the file has bytes.
"""

import collections.abc
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np

from keras_topo.annotations import StrPath
from keras_topo.convert.tensors import Renamed

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_DTYPES = {
    "BOOL": np.dtype("bool"),
    "U8": np.dtype("uint8"),
    "I8": np.dtype("int8"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
# That of the reference implementation.
_LONGEST_HEADER = 100_000_000
# As many as older versions of NumPy have.
_MOST_AXES = 32


class SafetensorsFile(collections.abc.Mapping):
    """The tensors of a file, mapped into memory when they are asked for.

    Args:
        path: of the file.

    Raises:
        ValueError: naming the file, if it is not what the format says.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = pathlib.Path(path)
        self._places = {}
        try:
            size = os.path.getsize(self.path)
            with open(self.path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                    raise ValueError(
                        f"a header of {length} bytes in a file of {size}"
                    )
                header = json.loads(
                    file.read(length).decode("utf-8"),
                    object_pairs_hook=_without_duplicates,
                )
            self._start = 8 + length
            self._read_header(header, size - self._start)
        except (ValueError, RecursionError, OSError) as error:
            raise ValueError(
                f"{self.path} is no safetensors file, or a damaged one: {error}"
            ) from error

    def _read_header(self, header, size):
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        header.pop("__metadata__", None)
        for name, entry in header.items():
            self._places[name] = _place(name, entry, size)
        end = 0
        for name, (_, _, start, stop) in sorted(
            self._places.items(), key=lambda item: item[1][2:]
        ):
            if start != end:
                raise ValueError(
                    f"{name!r} starts at byte {start}, and the tensor before "
                    f"it ends at {end}"
                )
            end = stop
        if end != size:
            raise ValueError(f"tensors end at byte {end} of {size}")

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, start, stop = self._places[name]
        if start == stop:
            return np.zeros(shape, dtype)
        return np.memmap(
            self.path, dtype, "r", self._start + start, shape or (1,)
        ).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_folder(folder: pathlib.Path) -> Mapping[str, np.ndarray]:
    """The tensors of a folder, in one file or in several.

    Args:
        folder: `pathlib.Path`.

    Returns:
        A mapping from names to arrays.

    Raises:
        ValueError: if there is no such file, or one is damaged or does not
            hold what the index says.
    """
    if (folder / SINGLE).is_file():
        return SafetensorsFile(folder / SINGLE)
    index = folder / INDEX
    if not index.is_file():
        found = sorted(p.name for p in folder.iterdir())[:20]
        raise ValueError(
            f"{folder} expects {SINGLE}, or {INDEX} and the files that it "
            "names; other formats hold pickles and are not read "
            "(`save_pretrained` of transformers writes safetensors). "
            f"Received: {found}"
        )
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
        if any(pathlib.PurePath(name).name != name for name in files):
            raise ValueError(f"it names {files}")
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{index} expects a `weight_map` from names of tensors to names of "
            f"files beside it: {error!r}"
        ) from error
    tensors = {}
    shards = {name: SafetensorsFile(folder / name) for name in files}
    for file, shard in shards.items():
        for name in shard:
            if places.get(name) != file:
                raise ValueError(
                    f"{folder / file} holds {name!r}, which {index.name} has "
                    f"in {places.get(name)!r}"
                )
    for name, file in places.items():
        if name not in shards[file]:
            raise ValueError(
                f"{folder / file} expects a tensor {name!r}, which is missing"
            )
        tensors[name] = (shards[file], name)
    return Renamed(tensors)


def _place(name, entry, size):
    """Dtype, shape, first byte and end of a tensor."""
    try:
        dtype = _DTYPES.get(entry["dtype"])
        shape = tuple(entry["shape"])
        start, stop = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the header says {entry!r} of {name!r}, which is not a dtype, a "
            "shape and two data_offsets"
        ) from error
    if dtype is None:
        raise ValueError(f"{name!r} has the unknown dtype {entry['dtype']!r}")
    numbers = (*shape, start, stop)
    whole = all(type(n) is int and n >= 0 for n in numbers)
    # NumPy has limits for arrays without entries, too.
    if (
        not whole
        or len(shape) > _MOST_AXES
        or math.prod(max(n, 1) for n in shape) >= 1 << 59
    ):
        raise ValueError(f"{name!r} has the places or sizes {numbers}")
    if stop > size or stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{name!r} lies at bytes {start} to {stop} of {size}, with shape "
            f"{shape} of {entry['dtype']}"
        )
    return dtype, shape, start, stop


def _without_duplicates(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found
