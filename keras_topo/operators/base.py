"""`MaskOperator`: a mask as a linear operator."""

import copy
import math

import keras
from keras import ops

from keras_topo._backend import concrete
from keras_topo.operators import cost as costs

# Parameters up to this size are looked at for negative entries.
CHECKED_ENTRIES = 10**6


class MaskOperator:
    """An attention mask `M`, known through its products.

    A mask between `L` query tokens and `L` key tokens is an `L x L` matrix.
    The operators of this package hold what defines the matrix, a table of
    offsets or two factors, and multiply by it without forming it. They hold
    no weights: an operator is a function of tensors, built anew in every
    call, and differentiable with respect to them.

    Leading axes of the parameters (heads, examples) are batch axes and
    broadcast, as in `matmul`.

    **To write a new operator**, list the attributes that hold tensors or
    other operators in `_fields` (gradients reach those alone), call
    `super().__init__` and implement `_apply` (the product) and `_transpose`.
    Then, for speed, `_rows`, where a block of rows can be had for less than a
    product with unit vectors, and `_cost`, which is that of a dense matrix
    otherwise. The shared contract suite in `tests/operators` checks it against
    its dense form.

    **Layouts.** `_apply` takes `x` of shape `(..., A, columns, B)` with
    `A * B = L`: the token axis, split in two, on both sides of the columns.
    `A = 1` puts the tokens last, where an FFT wants them; `A = L` puts them
    first; and for a grid, `A = n1` allows matrix products along the first and
    the last grid axis without any transposition. `_layouts` lists the values
    of `A` that an operator handles, best first; `apply` converts others.

    Args:
        shape: tuple, `(*batch, L, L)`.
        dtype: string, the dtype of the entries.
    """

    #: Names of the attributes that hold tensors, operators, lists of them, or
    #: `None`.
    _fields = ()

    # NumPy arrays leave `array * operator` and `array @ operator` to us.
    __array_ufunc__ = None

    def __init__(self, shape, dtype):
        self._shape = tuple(shape)
        self._dtype = keras.backend.standardize_dtype(dtype)
        if self._shape[-1] is not None and self._shape[-1] < 1:
            raise ValueError(
                f"{type(self).__name__} needs at least one token. "
                f"Received: shape={self._shape}"
            )

    @property
    def shape(self):
        """`(*batch, L, L)`."""
        return self._shape

    @property
    def dtype(self):
        """Dtype of the entries, as a string."""
        return self._dtype

    @property
    def batch_shape(self):
        """Leading axes of the mask: heads, or examples and heads."""
        return self._shape[:-2]

    @property
    def num_tokens(self):
        """`L`; `None` where a traced function does not know it.

        `Dense`, `LowRank` and `SparsePairs` work without knowing it, which
        graphs of different sizes need.
        """
        return self._shape[-1]

    def matmul(self, x):
        """The product `M x`.

        Args:
            x: `(..., L, columns)`; its leading axes broadcast against the
                batch axes of the operator.

        Returns:
            `(..., L, columns)`, in the wider of the two dtypes and at least
            float32.

        Raises:
            ValueError: if `x` has fewer than two axes or another number of
                tokens.
        """
        x = ops.convert_to_tensor(x)
        if len(x.shape) < 2 or (
            x.shape[-2] != self.num_tokens
            and None not in (x.shape[-2], self.num_tokens)
        ):
            raise ValueError(
                f"{type(self).__name__}.matmul expects `x` of shape (..., "
                f"{self.num_tokens}, columns). Received: x of shape "
                f"{tuple(x.shape)}"
            )
        x = ops.cast(x, accumulation_dtype(x.dtype, self.dtype))
        missing = len(self.batch_shape) - (len(x.shape) - 2)
        if missing > 0:
            x = ops.reshape(x, (1,) * missing + tuple(ops.shape(x)))
        # (..., L, columns) is the layout A = L with a trailing axis of one.
        return ops.squeeze(self.apply(ops.expand_dims(x, -1)), -1)

    def __matmul__(self, x):
        return self.matmul(x)

    def apply(self, x):
        """The product in any layout `(..., A, columns, B)`: see the class."""
        split = x.shape[-3]
        if split in self._layouts:
            return self._apply(x)
        return relayout(self._apply(relayout(x, self._layouts[0])), split)

    def to_dense(self):
        """The matrix, `(*batch, L, L)`."""
        return self.rows(0, self.num_tokens)

    def rows(self, start, stop):
        """Rows `start` to `stop` of the matrix, `(*batch, stop - start, L)`.

        Raises:
            ValueError: unless `0 <= start < stop <= L`.
        """
        if not 0 <= start < stop <= self.num_tokens:
            raise ValueError(
                "rows expects 0 <= start < stop <= "
                f"{self.num_tokens}. Received: start={start}, stop={stop}"
            )
        return self._rows(start, stop - start)

    def transpose(self):
        """The operator of the transposed matrix."""
        return self._transpose()

    @property
    def T(self):  # noqa: N802
        return self._transpose()

    def cost(self, columns):
        """Estimated work of a product with `columns` columns, per batch entry.

        The unit, shared by all operators, is one multiply-add inside a large
        float32 matrix product: see `keras_topo.operators.cost`.
        """
        return self._cost(columns)

    def factors(self):
        """`(u, w)` of shapes `(*batch, L, r)` with `M = u w^T`, or `None`.

        Where they exist, masked linear attention is plain linear attention
        with `r` times as many features.
        """
        return None

    @property
    def nonnegative(self):
        """Whether no entry is below zero; `None` where that is not known.

        A promise, not an estimate: `True` is what keeps the normalizer of
        attention away from zero, `False` means that there are negative
        entries. Rounding does not count, as in a kernel that is the inverse
        of a transform: entries down to -1e-6 times the largest pass for
        zeros. Operators made of operators inherit it, taking none of them for
        zero throughout.

        Nothing is computed in traced functions: there, only masks that are
        non-negative by construction know. Elsewhere the parameters are looked
        at, up to a million numbers of each.
        """
        return self._nonnegative()

    def __add__(self, other):
        from keras_topo.operators.algebra import Sum

        if not isinstance(other, MaskOperator):
            return NotImplemented
        return Sum([self, other])

    def __mul__(self, scalar):
        from keras_topo.operators.algebra import Scaled

        if isinstance(scalar, MaskOperator):
            return NotImplemented
        return Scaled(self, scalar)

    __rmul__ = __mul__

    def __repr__(self):
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    # What a subclass implements.

    @property
    def _layouts(self):
        return (1,)

    @property
    def _held_per_column(self):
        """Numbers that a product holds at a time for each of its columns;
        `None` where a traced function does not know it."""
        return self.num_tokens

    @property
    def _fewest_columns(self):
        """Columns below which a product takes hardly less time."""
        return 1

    @property
    def _row_step(self):
        """Granularity of `_rows`: with a traced start, blocks of rows begin at
        multiples of this and are multiples of it long."""
        return 1

    @property
    def _num_leading_rows(self):
        """Rows before the first one at which a traced block may start."""
        return 0

    def _apply(self, x):
        raise NotImplementedError(
            f"{type(self).__name__} must implement `_apply(x)`, its product"
        )

    def _transpose(self):
        raise NotImplementedError(
            f"{type(self).__name__} must implement `_transpose()`, the "
            "transposed operator"
        )

    def _cost(self, columns):
        """The default is that of a dense matrix."""
        return product_cost(self.num_tokens, self.num_tokens, columns)

    def _nonnegative(self):
        """`True`, `False` or `None`; see `nonnegative`."""
        return None

    def _rows(self, start, size):
        """`size` rows from `start`, an int or a traced scalar.

        The default multiplies unit vectors, `E M = (M^T E^T)^T`.
        """
        unit = ops.one_hot(
            start + ops.arange(size),
            self.num_tokens,
            dtype=accumulation_dtype(self.dtype),
        )
        unit = ops.reshape(
            unit, (1,) * len(self.batch_shape) + (1, size, self.num_tokens)
        )
        rows = ops.squeeze(self._transpose()._unit_product(unit), -3)
        rows = ops.cast(rows, self.dtype)
        return ops.broadcast_to(
            rows, self.batch_shape + (size, self.num_tokens)
        )

    def _unit_product(self, x):
        """`apply` on unit vectors, for `_rows`: zeros have to be zeros there,
        for softmax attention sees what is not."""
        return self.apply(x)

    @property
    def _rows_cost(self):
        """Work of all rows, beyond that of writing them."""
        if type(self)._rows is MaskOperator._rows:
            return self._cost(self.num_tokens)
        return 0.0

    # Taking an operator apart into tensors and putting it together again, as
    # checkpointed loops need.

    def tensors(self):
        """The tensors that define the operator, as a flat list.

        Raises:
            ValueError: if an attribute holds a tensor or an operator that
                `_fields` does not name: there would be no gradient for it.
        """
        for name, value in vars(self).items():
            if name not in self._fields and _is_parameter(value):
                raise ValueError(
                    f"`_fields` of {type(self).__name__} expects the names of "
                    "all attributes that hold tensors or operators. Received: "
                    f"_fields={self._fields}, without {name!r}"
                )
        found = []
        for name in self._fields:
            found.extend(_flatten(getattr(self, name)))
        return found

    def with_tensors(self, tensors):
        """A copy of the operator that holds `tensors`, in the same order."""
        iterator = iter(tensors)
        return self._rebuild(iterator)

    def _rebuild(self, iterator):
        clone = copy.copy(self)
        for name in self._fields:
            setattr(clone, name, _unflatten(getattr(self, name), iterator))
        return clone


def _is_parameter(value):
    """Whether `value` is differentiable, or an operator."""
    if isinstance(value, MaskOperator):
        return True
    if isinstance(value, keras.Variable) or ops.is_tensor(value):
        dtype = keras.backend.standardize_dtype(value.dtype)
        return keras.backend.is_float_dtype(dtype)
    return False


def _flatten(value):
    if value is None:
        return []
    if isinstance(value, MaskOperator):
        return value.tensors()
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _flatten(item)]
    # A variable would be read inside the loops of attention otherwise.
    return [ops.convert_to_tensor(value)]


def _unflatten(value, iterator):
    if value is None:
        return None
    if isinstance(value, MaskOperator):
        return value._rebuild(iterator)
    if isinstance(value, (list, tuple)):
        return [_unflatten(item, iterator) for item in value]
    return next(iterator)


def relayout(x, split):
    """From `(..., A, columns, B)` to `(..., split, columns, A * B / split)`."""
    shape = tuple(ops.shape(x))
    lead, (a, columns, b) = shape[:-3], shape[-3:]
    if a == split:
        return x
    tokens = a * b
    if a != 1 and b != 1:
        x = ops.swapaxes(x, -3, -2)
    # Now (columns, A, B) or, where one of A and B is 1, equally good.
    if b == 1 and a != 1:
        x = ops.reshape(x, lead + (tokens, columns))
        if split == 1:
            return ops.expand_dims(ops.swapaxes(x, -2, -1), -3)
        x = ops.reshape(x, lead + (split, tokens // split, columns))
        return ops.swapaxes(x, -2, -1)
    x = ops.reshape(x, lead + (columns, split, tokens // split))
    return ops.swapaxes(x, -3, -2)


def accumulation_dtype(*dtypes):
    """The widest of `dtypes` and float32: what products are computed in.

    Not `keras.backend.result_type`, which knows no float64 on JAX.
    """
    names = {keras.backend.standardize_dtype(dtype) for dtype in dtypes}
    return "float64" if "float64" in names else "float32"


def widest_dtype(operators):
    """The dtype that holds the entries of all `operators`."""
    dtypes = {operator.dtype for operator in operators}
    return dtypes.pop() if len(dtypes) == 1 else accumulation_dtype(*dtypes)


def as_tensor(value, name, min_rank):
    """`value` as a floating tensor with at least `min_rank` axes."""
    value = ops.convert_to_tensor(value)
    if not keras.backend.is_float_dtype(value.dtype):
        value = ops.cast(value, keras.config.floatx())
    if len(value.shape) < min_rank:
        raise ValueError(
            f"`{name}` expects at least {min_rank} axes. Received: {name} of "
            f"shape {tuple(value.shape)}"
        )
    return value


def broadcast_batch(*shapes):
    """Broadcasts batch shapes in which `None` stands for an unknown size."""
    rank = max(len(shape) for shape in shapes)
    result = []
    for sizes in zip(
        *[(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes],
        strict=True,
    ):
        known = {size for size in sizes if size not in (1, None)}
        if len(known) > 1:
            raise ValueError(
                "Batch axes of operators must broadcast. Received: "
                f"batch shapes {shapes}"
            )
        unknown = None if None in sizes else 1
        result.append(known.pop() if known else unknown)
    return tuple(result)


def require_operator(value, name):
    if not isinstance(value, MaskOperator):
        raise ValueError(
            f"`{name}` expects a MaskOperator. Received: {name}={value!r}"
        )


def product_cost(rows, inner, columns):
    """Cost of a dense product, its reading and writing included."""
    penalty = costs.SMALL_PRODUCT if min(rows, inner) < 512 else 1.0
    return costs.LAUNCH + penalty * math.prod((rows, inner, columns))


def nonnegative_values(x):
    """Whether a tensor has no entries below zero but for rounding; `None`
    where it is traced, large or not a number."""
    if None in x.shape or math.prod(x.shape) > CHECKED_ENTRIES:
        return None
    values = concrete(x)
    if values is None or not values.size:
        return None
    smallest = float(values.min())
    if math.isnan(smallest):
        return None
    return smallest >= 0 or smallest >= -1e-6 * float(values.max())


def all_known(known):
    """`all` of truths that may be `None`, unknown."""
    known = list(known)
    if False in known:
        return False
    return None if None in known else True
