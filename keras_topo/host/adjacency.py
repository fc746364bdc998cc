"""Checks of what describes a graph: adjacency matrices, ids, numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike

from keras_topo.annotations import Adjacency

# How far weights of the two directions of an edge may differ, as a share of
# the largest: products of float32 depend on their order.
ROUNDING = 1e-6


def as_adjacency(adjacency: Adjacency, dtype: str = "float32") -> Any:
    """`adjacency`, checked, as a CSR array without stored zeros.

    Args:
        adjacency: `(nodes, nodes)`, scipy sparse or array; or a `Graph`.
        dtype: of the result.

    Raises:
        ValueError: if it is not square, has no nodes, or a weight is negative
            or not finite; the message names the edge.
    """
    # That of a `Graph`, a class above host code, has been checked.
    checked = getattr(adjacency, "adjacency", None)
    if checked is not None and scipy.sparse.issparse(checked):
        return checked.astype(dtype)
    if not scipy.sparse.issparse(adjacency):
        adjacency = as_array(adjacency, "adjacency")
    if adjacency.ndim != 2 or adjacency.dtype.kind not in "biuf":
        raise ValueError(
            "`adjacency` expects a Graph, a scipy sparse matrix or an array, "
            "with two axes, of numbers. Received: adjacency of shape "
            f"{adjacency.shape} and dtype {adjacency.dtype}"
        )
    if adjacency.dtype.kind == "b":
        # An edge that comes twice is there, and not twice.
        adjacency = scipy.sparse.csr_array(adjacency)
    # A copy, made before duplicates are added up, which small integers cannot
    # hold.
    adjacency = scipy.sparse.csr_array(adjacency.astype(dtype))
    if adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(
            "`adjacency` expects a square matrix. Received: adjacency of "
            f"shape {adjacency.shape}"
        )
    if adjacency.shape[0] == 0:
        raise ValueError(
            "a graph needs at least one node. Received: adjacency of shape "
            f"{adjacency.shape}"
        )
    wrong = ~(np.isfinite(adjacency.data) & (adjacency.data >= 0))
    if wrong.any():
        edges, first = adjacency.tocoo(), int(np.argmax(wrong))
        i, j = int(edges.row[first]), int(edges.col[first])
        raise ValueError(
            "`adjacency` expects finite weights that are not negative. "
            f"Received: the weight {adjacency.data[first]:g} at the edge "
            f"({i}, {j})"
        )
    adjacency.sum_duplicates()
    adjacency.eliminate_zeros()
    return adjacency


def is_symmetric(adjacency: Any) -> bool:
    """Whether a sparse matrix without negative entries is, but for rounding.

    An edge in one direction alone is none of it, however small its weight.
    """
    difference = abs(adjacency - adjacency.T)
    if not difference.nnz:
        return True
    pattern = adjacency.astype(bool)
    return not (pattern != pattern.T).nnz and bool(
        difference.max() <= ROUNDING * adjacency.data.max()
    )


def check_symmetric(adjacency: Any) -> None:
    """Raises a ValueError unless a sparse matrix is, but for rounding."""
    difference = abs(adjacency - adjacency.T).tocoo()
    if difference.nnz and difference.max() > ROUNDING * adjacency.data.max():
        largest = np.argmax(difference.data)
        i, j = int(difference.row[largest]), int(difference.col[largest])
        raise ValueError(
            "`adjacency` expects a symmetric matrix. Received: "
            f"{adjacency[i, j]:g} from {i} to {j} and {adjacency[j, i]:g} "
            "back"
        )


def check_node_ids(ids: np.ndarray, num_nodes: int, name: str) -> None:
    """Raises a ValueError unless `ids` are ints from 0 to below num_nodes."""
    if ids.size and ids.dtype.kind not in "iu":
        raise ValueError(
            f"`{name}` expects node ids, ints. Received: {name} of dtype "
            f"{ids.dtype}"
        )
    outside = (ids < 0) | (ids >= num_nodes)
    if outside.any():
        raise ValueError(
            f"`{name}` expects node ids from 0 to {num_nodes - 1}. Received: "
            f"{int(ids[outside][0])}"
        )


def as_array(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as an array of any dtype."""
    try:
        return np.asarray(values)
    except ValueError as error:  # Rows of different lengths.
        raise ValueError(
            f"`{name}` expects an array. Received: {name} of rows that differ "
            "in length"
        ) from error


def as_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as a float32 array of its own, if they are numbers."""
    array = as_array(values, name)
    if array.dtype.kind not in "biuf" and array.size:
        raise ValueError(
            f"`{name}` expects numbers. Received: {name} of dtype "
            f"{array.dtype}, such as {array.ravel()[:1].tolist()[0]!r}"
        )
    return array.astype("float32")


def as_integers(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as an int64 array of its own, if they are integers, of any
    dtype."""
    array = as_array(values, name)
    integral = array.dtype.kind in "biu" or not array.size
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.floor(array))
        integral = whole.all()
        array = array if integral else array[~whole]
    if not integral:
        raise ValueError(
            f"`{name}` expects integers. Received: {name} of dtype "
            f"{array.dtype}, such as {array.ravel()[:1].tolist()[0]!r}"
        )
    return array.astype("int64")


def check_int32(values: Sequence[Any], name: str) -> None:
    """Raises a ValueError unless models can take ints as labels."""
    limits = np.iinfo("int32")
    for value in values:
        if not limits.min <= value <= limits.max:
            raise ValueError(
                f"`{name}` of models expects labels of 32 bits: number them "
                f"first. Received: {value}"
            )
