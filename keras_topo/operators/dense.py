"""Masks without structure to exploit, and the one that hides nothing."""

from collections.abc import Sequence

from keras import ops

from keras_topo._backend import matmul, slice_axis
from keras_topo.annotations import Tensor, TensorLike
from keras_topo.operators import cost as costs
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.cost import product_cost
from keras_topo.operators.forms import Form, Problem
from keras_topo.operators.linear import linear_attention
from keras_topo.operators.parameters import (
    as_tensor,
    nonnegative_values,
    traced_negative,
)
from keras_topo.operators.plan import Plan

# A logarithm that stands for an entry of zero, and still is finite.
HIDDEN = -1e30


class Dense(MaskOperator):
    """A mask given entry by entry.

    *Complexity*: products `O(L^2 columns)`, memory `O(L^2)`.

    Args:
        matrix: `(*batch, L, L)`.

    Raises:
        ValueError: if `matrix` is not square.

    Example:

    >>> mask = Dense(np.tril(np.ones((4, 4), "float32")))
    >>> print(np.array(mask.matmul(np.ones((4, 1), "float32"))[:, 0]))
    [1. 2. 3. 4.]
    """

    _fields = ("matrix",)

    def __init__(self, matrix: TensorLike):
        self.matrix = _square(matrix, "matrix")
        super().__init__(self.matrix.shape, self.matrix.dtype)

    def _plan(self):
        length = self.num_tokens
        return Plan(layouts=(1, length), held_per_column=length)

    def _apply(self, x):
        return apply_matrix(self.matrix, x)

    def _rows(self, start, size):
        return slice_axis(self.matrix, start, size, -2)

    def _rows_at(self, ids):
        return ops.take(self.matrix, ids, axis=-2)

    def _transpose(self):
        return Dense(ops.swapaxes(self.matrix, -1, -2))

    def _nonnegative(self):
        return nonnegative_values(self.matrix)

    def _traced_negative(self):
        return traced_negative(self.matrix)

    def _cost(self, columns):
        return product_cost(self.num_tokens, self.num_tokens, columns)


class DenseExp(Dense):
    """A mask given by the logarithms of its entries, `M = exp(N)`.

    What softmax attention adds to its logits: there, `N` is used as it is and
    nothing is exponentiated twice. Entries of -1e30 or less hide.

    *Complexity*: as `Dense`, and `L^2` exponentials where `M` is needed.

    Args:
        log_matrix: `(*batch, L, L)`, `N`, finite.

    Raises:
        ValueError: if `log_matrix` is not square.

    Example:

    >>> mask = DenseExp(np.log([[1.0, 2.0], [3.0, 4.0]]))
    >>> print(np.array(mask.to_dense()).round(4))
    [[1. 2.]
     [3. 4.]]
    """

    _fields = ("log_matrix",)

    def __init__(self, log_matrix: TensorLike):
        self.log_matrix = _square(log_matrix, "log_matrix")
        MaskOperator.__init__(
            self, self.log_matrix.shape, self.log_matrix.dtype
        )

    @property
    def matrix(self) -> Tensor:
        return ops.exp(self.log_matrix)

    def log_rows(self, start: int | Tensor, size: int) -> Tensor:
        """Rows of `N`, `(*batch, size, L)`."""
        return slice_axis(self.log_matrix, start, size, -2)

    def _rows(self, start, size):
        return ops.exp(self.log_rows(start, size))

    def _rows_at(self, ids):
        return ops.exp(ops.take(self.log_matrix, ids, axis=-2))

    def _transpose(self):
        return DenseExp(ops.swapaxes(self.log_matrix, -1, -2))

    def _nonnegative(self):
        return True

    def _traced_negative(self):
        return None


def _square(matrix, name):
    matrix = as_tensor(matrix, name, 2)
    if matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(
            f"`{name}` expects as many rows as columns. Received: {name} of "
            f"shape {tuple(matrix.shape)}"
        )
    return matrix


def apply_matrix(matrix: Tensor, x: Tensor) -> Tensor:
    """`M x` for a dense `M` and `x` in the layout `A = 1` or `A = L`."""
    matrix = ops.cast(matrix, x.dtype)
    if x.shape[-3] == 1:
        y = matmul(ops.squeeze(x, -3), ops.swapaxes(matrix, -1, -2))
        return ops.expand_dims(y, -3)
    return ops.expand_dims(matmul(matrix, ops.squeeze(x, -1)), -1)


class Ones(MaskOperator):
    """The mask that hides nothing, `1 1^T`: unmasked linear attention.

    *Complexity*: products `O(L columns)`; rank 1.

    Args:
        length: int, number of tokens.
        dtype: dtype of the entries.

    Example:

    >>> print(np.array(Ones(2).to_dense()))
    [[1. 1.]
     [1. 1.]]
    """

    def __init__(self, length: int, dtype: str = "float32"):
        super().__init__((length, length), dtype)

    def _plan(self):
        length = self.num_tokens
        return Plan(layouts=(1, length), held_per_column=length)

    def _apply(self, x):
        axis = -1 if x.shape[-3] == 1 else -3
        return ops.broadcast_to(
            ops.sum(x, axis=axis, keepdims=True), ops.shape(x)
        )

    def _rows_at(self, ids):
        size = tuple(ops.shape(ids))[0]
        return ops.ones((size, self.num_tokens), self.dtype)

    def _transpose(self):
        return self

    def _nonnegative(self):
        return True

    def factors(self) -> tuple[Tensor, Tensor]:
        ones = ops.ones((self.num_tokens, 1), self.dtype)
        return ones, ones

    def _cost(self, columns):
        return costs.LAUNCH + costs.ELEMENT * self.num_tokens * columns

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        features = problem.num_features * (problem.value_dim + 1)
        work = 2 * problem.pairs * problem.length * features
        return (Form("linear", 4 * costs.LAUNCH + work, linear_attention),)
