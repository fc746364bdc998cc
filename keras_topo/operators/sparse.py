"""Masks that are zero almost everywhere."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_topo._backend import concrete
from keras_topo.annotations import Size, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.forms import Form, Problem
from keras_topo.operators.pairs import flat_pairs, pair_attention
from keras_topo.operators.parameters import as_tensor, nonnegative_values
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import broadcast_batch, broadcast_sizes


class SparsePairs(MaskOperator):
    """The mask `M[i, j]`, the sum of the values of the pairs `(i, j)`.

    A sparse matrix by coordinates: the edges of a graph, or a truncated
    kernel. Pairs that are not listed have the value 0; a pair listed twice
    has the sum; a pair of value 0 may stand anywhere, which pads examples to
    the same number of pairs.

    *Complexity*: products `O(pairs)` a column.

    Args:
        pairs: `(*batch, pairs, 2)`, int: `i` (query) and `j` (key). Its batch
            axes broadcast against those of `values`.
        values: `(*batch, pairs)`.
        num_tokens: int, `L`; `None` where a traced function does not know it.

    Raises:
        ValueError: if `pairs` does not hold pairs of integers, or not as many
            as `values`, or ids outside of the matrix (arrays are looked at,
            tensors are not).

    Example:

    >>> mask = SparsePairs([[0, 1], [1, 0]], [1.0, 2.0], num_tokens=2)
    >>> print(np.array(mask.to_dense()))
    [[0. 1.]
     [2. 0.]]
    """

    # Not the pairs: nothing is differentiated with respect to node ids.
    _fields = ("values",)

    def __init__(self, pairs: TensorLike, values: TensorLike, num_tokens: Size):
        self.pairs = check_pairs(pairs, (num_tokens, num_tokens))
        self.values = as_tensor(values, "values", 1)
        if self.values.shape[-1] != self.pairs.shape[-2]:
            raise ValueError(
                "`values` expects one for each pair. Received: pairs of shape "
                f"{tuple(self.pairs.shape)}, values of shape "
                f"{tuple(self.values.shape)}"
            )
        batch = broadcast_batch(self.pairs.shape[:-2], self.values.shape[:-1])
        super().__init__((*batch, num_tokens, num_tokens), self.values.dtype)

    @property
    def num_pairs(self) -> Size:
        return self.values.shape[-1]

    def _plan(self):
        length = self.num_tokens
        held = max(self.num_pairs or 0, length or 0) or None
        return Plan(layouts=(1, length), held_per_column=held)

    def _apply(self, x):
        if x.shape[-3] == 1:
            # Rows of tokens are gathered and summed: tokens first.
            x = ops.swapaxes(ops.squeeze(x, -3), -1, -2)
            y = self._apply_first(x)
            return ops.expand_dims(ops.swapaxes(y, -1, -2), -3)
        return ops.expand_dims(self._apply_first(ops.squeeze(x, -1)), -1)

    def _apply_first(self, x):
        length, columns = tuple(ops.shape(x))[-2:]
        values = ops.cast(self.values, x.dtype)
        if len(self.pairs.shape) == 2:
            # The same pairs for all: batch axes are columns.
            rows, keys = self.pairs[:, 0], self.pairs[:, 1]
            terms = ops.take(x, keys, axis=-2) * ops.expand_dims(values, -1)
            terms = ops.moveaxis(terms, -2, 0)
            y = ops.segment_sum(terms, rows, num_segments=length)
            return ops.moveaxis(y, 0, -2)
        lead = broadcast_sizes(
            tuple(ops.shape(x))[:-2],
            tuple(ops.shape(self.pairs))[:-2],
            tuple(ops.shape(values))[:-1],
        )
        x = ops.broadcast_to(x, lead + (length, columns))
        rows, keys = flat_pairs(self.pairs, lead, length)
        total, count = math.prod(lead), tuple(ops.shape(values))[-1]
        values = ops.broadcast_to(values, lead + (count,))
        terms = ops.take(ops.reshape(x, (total * length, columns)), keys, 0)
        terms = terms * ops.reshape(values, (total * count, 1))
        y = ops.segment_sum(terms, rows, num_segments=total * length)
        return ops.reshape(y, lead + (length, columns))

    def _rows(self, start, size):
        # All rows, where their number is traced.
        length = size if self.num_tokens is None else self.num_tokens
        return dense_rows(self.pairs, self.values, start, size, length)

    def _transpose(self):
        return SparsePairs(
            ops.flip(self.pairs, -1), self.values, self.num_tokens
        )

    def _nonnegative(self):
        known = nonnegative_values(self.values)
        if known is not False:
            return known
        # The sum of a pair listed twice may not be negative; those of value
        # zero fill up.
        pairs, values = concrete(self.pairs), concrete(self.values)
        if pairs is None or values is None:
            return None
        pairs = pairs.astype("int64")
        place = pairs[..., 0] * (1 + pairs.max(initial=0)) + pairs[..., 1]
        place, value = np.broadcast_arrays(place, values)
        place = np.where(value == 0, -1 - np.arange(place.shape[-1]), place)
        place = np.sort(place, axis=-1)
        return None if (place[..., 1:] == place[..., :-1]).any() else False

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        def attend(query, key, value):
            return pair_attention(query, key, value, self.pairs, self.values)

        pairs = self.num_pairs or 32 * problem.length  # unknown: a guess
        passes = 4 * (problem.num_features + problem.value_dim)
        work = costs.ELEMENT * problem.pairs * pairs * passes
        return (Form("pairs", 10 * costs.LAUNCH + work, attend),)

    def _cost(self, columns):
        pairs = self.num_pairs or 32 * self.num_tokens  # unknown: a guess
        return 4 * costs.LAUNCH + 6 * costs.ELEMENT * pairs * columns


def check_pairs(pairs, sizes, name="pairs", ids_of=("tokens", "tokens")):
    """`pairs` as an int32 tensor `(..., pairs, 2)`.

    Args:
        pairs: array or tensor. Ids in arrays are looked at: products would
            pass over entries that stand outside of the matrix, or read at
            random. Those in tensors are not.
        sizes: numbers of rows and columns of the matrix, `None` for unknown.
        name: of the argument.
        ids_of: what the rows and columns are.

    Raises:
        ValueError: if `pairs` has another shape, holds no integers, or ids
            outside of the matrix.
    """
    if not (ops.is_tensor(pairs) or isinstance(pairs, keras.Variable)):
        _check_ids(np.asarray(pairs), sizes, name, ids_of)
    pairs = ops.cast(ops.convert_to_tensor(pairs), "int32")
    if len(pairs.shape) < 2 or pairs.shape[-1] != 2:
        raise ValueError(
            f"`{name}` expects the shape (..., pairs, 2). Received: {name} of "
            f"shape {tuple(pairs.shape)}"
        )
    return pairs


def _check_ids(pairs, sizes, name, ids_of):
    """Raises a ValueError unless ids are of rows and columns that exist."""
    if pairs.shape[-1:] != (2,) or not pairs.size:
        return  # For the check of shapes; an empty array may be of floats.
    if pairs.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` expects integers. Received: {name} of dtype "
            f"{pairs.dtype}"
        )
    for k, (kind, size) in enumerate(zip(ids_of, sizes, strict=True)):
        ids = pairs[..., k]
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or (size is not None and high >= size):
            known = "" if size is None else f" to {size - 1}"
            raise ValueError(
                f"`{name}` expects ids of {kind} from 0{known}. Received: "
                f"{low if low < 0 else high}"
            )


def dense_rows(pairs, values, start, size, width):
    """Rows of the matrix that sums `values` at `pairs`.

    Args:
        pairs: `(*batch, entries, 2)`.
        values: `(*batch, entries)`; the batch axes broadcast.
        start, size: the first row, an int or traced, and their number.
        width: int, columns of the matrix.

    Returns:
        `(*batch, size, width)`.
    """
    row = pairs[..., 0] - start
    inside = ops.logical_and(row >= 0, row < size)
    # One number for a place in the block; those of others add zero to it.
    place = ops.where(inside, row * width + pairs[..., 1], 0)
    values = ops.where(inside, values, ops.zeros_like(values))
    lead = broadcast_sizes(
        tuple(ops.shape(place))[:-1], tuple(ops.shape(values))[:-1]
    )
    total, count = math.prod(lead), tuple(ops.shape(values))[-1]
    place = ops.reshape(
        ops.broadcast_to(place, lead + (count,)), (total, count)
    )
    offset = size * width * ops.arange(total, dtype="int32")
    dense = ops.segment_sum(
        ops.reshape(
            ops.broadcast_to(values, lead + (count,)), (total * count,)
        ),
        ops.reshape(place + offset[:, None], (total * count,)),
        num_segments=total * size * width,
    )
    return ops.reshape(dense, lead + (size, width))
