"""Topologies: what the tokens of a call are, and where they lie.

A mask makes its operator for a topology. Sizes are ints, or traced scalars
where a traced function does not know them; a layer that is built for inputs of
any size hands `None` to `Mask.build`.
"""

import dataclasses
import math
from typing import Any, NoReturn

import numpy as np
from keras import ops

from keras_topo.annotations import Shape, Size, Tensor, TensorLike
from keras_topo.operators import BlockToeplitz, Bordered
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.hadamard import causal_part
from keras_topo.operators.unsized import UnsizedToeplitz


class Topology:
    """What sequences and grids share.

    Attributes:
        shape: sizes of the axes.
        causal: bool, whether tokens see none after them.
        periodic: a bool per axis, whether its ends meet.
        num_prefix_tokens: int, tokens in front of the others.
        inputs: the tokens of the call, `(batch, *shape, channels)` without
            prefix tokens, from which a mask may compute; or `None`.
        dtype: that of offsets and extents, and of the weights of the mask.
        padding_mask: `(batch, tokens)` without prefix tokens, boolean, `True`
            for real tokens; or `None`.
    """

    # Of each kind in its own way: a field, or a property.
    shape: Any
    periodic: Any
    dtype: Any
    causal: bool = False
    num_prefix_tokens: int = 0
    inputs: Any = None
    padding_mask: Any = None

    @property
    def is_known(self) -> bool:
        """Whether all sizes are ints."""
        return all(isinstance(n, int) for n in self.shape)

    @property
    def num_cells(self) -> Size:
        """The number of tokens without the prefix; `None` if not known."""
        if None in self.shape:
            return None
        return math.prod(self.shape)

    @property
    def num_tokens(self) -> Size:
        """The number of tokens; `None` if it is not known."""
        cells = self.num_cells
        return None if cells is None else cells + self.num_prefix_tokens

    @property
    def extents(self) -> tuple[Any, ...]:
        """The sizes of the axes as floating numbers, `None` where they are
        not known."""
        return tuple(n if n is None else self._as_float(n) for n in self.shape)

    def _as_float(self, n):
        return float(n) if isinstance(n, int) else ops.cast(n, self.dtype)

    @property
    def units(self) -> tuple[Any, ...]:
        """What masks measure offsets in along each axis, as floating numbers:
        the size of the axis of a grid, so that a mask resamples, and one token
        of a sequence, whose outputs must not depend on what follows."""
        return self.extents

    @property
    def cells(self) -> "Topology":
        """The same topology without its prefix tokens."""
        return self

    def offsets(self) -> tuple[Tensor, ...]:
        """The offsets `i - j` that two tokens may have along each axis.

        Returns:
            One array per axis, of shape `(1, ..., o_k, ..., 1)`, so
            that they broadcast to a table of all offsets; `o_k` is `2 n_k - 1`
            (from `1 - n_k` to `n_k - 1`), and along a periodic axis `n_k`, the
            shorter way round.
        """
        axes = len(self.shape)
        found = []
        for k, (n, wraps) in enumerate(
            zip(self.shape, self.periodic, strict=True)
        ):
            shape = (1,) * k + (-1,) + (1,) * (axes - k - 1)
            offsets = ops.arange(0 if wraps else 1 - n, n)
            if wraps:
                far = offsets > n // 2
                offsets = ops.where(far, offsets - n, offsets)
            found.append(ops.reshape(ops.cast(offsets, self.dtype), shape))
        return tuple(found)

    def toeplitz(self, table: TensorLike) -> MaskOperator:
        """The mask in which only the offset of two tokens counts.

        Args:
            table: `(*batch, o_1, ..., o_d)`, an entry for each of `offsets()`;
                or, where it is a sum of products, a list of terms, each a list
                of one table `(*batch, o_k)` per axis, which is faster.

        Returns:
            A `MaskOperator` on all tokens. Of a causal sequence, entries of
            later tokens are zero; entries of prefix tokens are one.
        """
        if self.causal or not self.is_known:
            table = _whole_table(table)
        if self.is_known:
            mask = BlockToeplitz(table, self.shape, periodic=self.periodic)
        else:
            mask = UnsizedToeplitz(table, self.shape, self.periodic)
        if self.causal:
            mask = causal_part(mask, *self.shape)
        return self.bordered(mask)

    def bordered(self, operator: MaskOperator) -> MaskOperator:
        """An operator on the cells, with prefix tokens in front."""
        if not self.num_prefix_tokens:
            return operator
        return Bordered(operator, self.num_prefix_tokens)


@dataclasses.dataclass(frozen=True)
class Sequence(Topology):
    """Tokens one after the other. Masks measure distances in tokens.

    Args:
        length: int, number of tokens; `None` where it is not known, or a
            traced scalar.
        causal: bool, whether tokens see none after them.
        inputs: `(batch, length, channels)`, the tokens, or `None`.
        dtype: that of offsets, the dtype of the weights of the mask.
        padding_mask: `(batch, tokens)`, `True` for real ones, or `None`.

    Raises:
        ValueError: if `length` is an int below 1.

    Example:

    >>> print(np.array(Sequence(3).offsets()[0]))
    [-2. -1.  0.  1.  2.]
    """

    length: Any
    causal: bool = False
    inputs: Any = dataclasses.field(default=None, compare=False, repr=False)
    dtype: str = dataclasses.field(default="float32", repr=False)
    padding_mask: Any = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        _check_sizes((self.length,), "length")

    @property
    def shape(self) -> Shape:
        return (self.length,)

    @property
    def units(self) -> tuple[Any, ...]:
        return (1.0,)

    @property
    def periodic(self) -> tuple[bool, ...]:
        return (False,)


@dataclasses.dataclass(frozen=True)
class Grid(Topology):
    """Tokens on a grid, in row-major order. Masks measure distances relative
    to its extent, so that they mean the same at another resolution.

    Args:
        shape: ints, one to three, the sizes of the axes; `None` where one is
            not known, or a traced scalar.
        num_prefix_tokens: int, tokens in front of those of the grid: class or
            register tokens, which see all and are seen by all.
        periodic: bool, or one per axis, whether its ends meet.
        inputs: `(batch, *shape, channels)`, the tokens without the prefix, or
            `None`.
        dtype: that of offsets, the dtype of the weights of the mask.
        padding_mask: `(batch, tokens)`, `True` for real ones, or `None`.

    Raises:
        ValueError: if a size is below 1, there are more than three axes, or
            `num_prefix_tokens` is negative.

    Example:

    >>> grid = Grid((14, 28), num_prefix_tokens=1)
    >>> grid.num_tokens
    393
    """

    shape: Any
    num_prefix_tokens: int = 0
    periodic: Any = False
    inputs: Any = dataclasses.field(default=None, compare=False, repr=False)
    dtype: str = dataclasses.field(default="float32", repr=False)
    padding_mask: Any = dataclasses.field(
        default=None, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        shape = self.shape
        if not isinstance(shape, (tuple, list)) or not 1 <= len(shape) <= 3:
            raise ValueError(
                "`shape` expects one to three sizes. Received: "
                f"shape={self.shape!r}"
            )
        shape = tuple(int(n) if _is_int(n) else n for n in shape)
        _check_sizes(shape, "shape")
        periodic = self.periodic
        if isinstance(periodic, (bool, np.bool_)):
            periodic = (bool(periodic),) * len(shape)
        if not isinstance(periodic, (tuple, list)) or len(periodic) != len(
            shape
        ):
            raise ValueError(
                f"`periodic` expects a bool, or one for each of {len(shape)} "
                f"axes. Received: periodic={self.periodic!r}"
            )
        prefix = self.num_prefix_tokens
        if not _is_int(prefix) or prefix < 0:
            raise ValueError(
                "`num_prefix_tokens` expects an int of at least 0. Received: "
                f"num_prefix_tokens={prefix!r}"
            )
        # Frozen: there is no other way to store what was cleaned.
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "periodic", tuple(map(bool, periodic)))

    @property
    def cells(self) -> "Grid":
        return dataclasses.replace(self, num_prefix_tokens=0)


@dataclasses.dataclass(frozen=True)
class Nodes(Topology):
    """The nodes of the graph that a mask holds itself: without an order, and
    without offsets.

    Args:
        num_nodes: int, or `None` where it is not known.
        inputs: `(batch, nodes, channels)`, or `None`.
        padding_mask: `(batch, nodes)`, `True` for real ones, or `None`.

    Example:

    >>> Nodes(34).num_tokens
    34
    """

    num_nodes: Any = None
    inputs: Any = dataclasses.field(default=None, compare=False, repr=False)
    padding_mask: Any = dataclasses.field(
        default=None, compare=False, repr=False
    )

    @property
    def shape(self) -> Shape:
        return (self.num_nodes,)

    @property
    def periodic(self) -> NoReturn:
        """Masks of offsets ask for it first; nodes have no offsets."""
        raise ValueError(
            "`topology` expects a Sequence or a Grid for this mask, because "
            "nodes of a graph have no offsets; masks between nodes are "
            "subclasses of GraphMask, such as DiffusionMask. Received: "
            f"topology={self!r}"
        )


def _check_sizes(shape, name):
    if any(_is_int(n) and n < 1 for n in shape) or any(
        isinstance(n, (float, str, bool)) for n in shape
    ):
        raise ValueError(
            f"`{name}` expects positive ints. Received: {name}={shape}"
        )


def _is_int(n):
    return isinstance(n, (int, np.integer)) and not isinstance(n, bool)


def _whole_table(table):
    """One table of a sum of products."""
    if not isinstance(table, (list, tuple)):
        return table
    total = 0
    for term in table:
        axes = len(term)
        product = 1
        for k, axis in enumerate(term):
            after = (None,) * (axes - k - 1)
            index = (..., *(None,) * k, slice(None), *after)
            product = product * ops.convert_to_tensor(axis)[index]
        total = total + product
    return total
