"""Named tensors of a source, of which each is used once."""

import collections.abc
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np


class Renamed(collections.abc.Mapping):
    """Arrays of other mappings, under names of its own.

    Args:
        places: dict from names to pairs of a mapping and a name there.
    """

    def __init__(
        self, places: Mapping[str, tuple[Mapping[str, np.ndarray], str]]
    ) -> None:
        self._places = places

    def __getitem__(self, name: str) -> np.ndarray:
        arrays, name = self._places[name]
        return arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Tensors:
    """Tensors by name, with strict accounting.

    Args:
        arrays: mapping from names to arrays, which may be read when they are
            asked for.
        source: str, where they are from; for messages.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], source: str) -> None:
        self._arrays = arrays
        self._left = set(arrays)
        self.source = source

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def take(self, name: str, *shape: int | None) -> np.ndarray:
        """The tensor called `name`, which nothing else takes, in float32.

        Args:
            name: str.
            *shape: ints that it must have; `None` for any.

        Raises:
            ValueError: if there is none of that name and shape, or it is not
                made of finite numbers.
        """
        if name not in self._arrays:
            raise ValueError(
                f"{self.source} expects a tensor {name!r}, which is missing. "
                f"Received: {self._some(self._left)}"
            )
        if name not in self._left:
            raise AssertionError(f"{name} is taken twice")
        self._left.remove(name)
        array = np.asarray(self._arrays[name])
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, found)
            for wanted, found in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(
                f"{self.source} expects the tensor {name!r} to have the shape "
                f"({wanted}). Received: {tuple(array.shape)}"
            )
        if array.dtype.kind != "f" and array.dtype != ml_dtypes.bfloat16:
            raise ValueError(
                f"{self.source} expects floats in the tensor {name!r}. "
                f"Received: dtype={array.dtype}"
            )
        array = array.astype("float32")
        if not np.isfinite(array).all():
            raise ValueError(
                f"{self.source} expects finite numbers in the tensor {name!r}. "
                "Received: NaN or infinity"
            )
        return array

    def ignore(self, *names: str) -> list[str]:
        """Leaves out tensors that have no part in what the source computes.

        Args:
            *names: str; there may be none of that name.

        Returns:
            Those that there were.
        """
        found = [name for name in names if name in self._left]
        self._left.difference_update(found)
        return found

    def finish(self) -> None:
        """Refuses what nobody took.

        Raises:
            ValueError: naming the tensors.
        """
        if self._left:
            raise ValueError(
                f"{self.source} expects no tensors but those that its model "
                f"computes with. Received: {self._some(self._left)}"
            )

    def _some(self, names):
        names = sorted(names)
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return ", ".join(map(repr, names[:8])) + more if names else "no others"
