"""`MaskOperator`: a mask as a linear operator that owns its attention."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_topo._backend import ensure_size
from keras_topo.annotations import (
    FormName,
    Shape,
    Size,
    State,
    Tensor,
    TensorLike,
)
from keras_topo.operators import cost as costs
from keras_topo.operators.blocks import BLOCK_ELEMENTS
from keras_topo.operators.columns import columns_attention
from keras_topo.operators.explicit import explicit_attention
from keras_topo.operators.forms import Explanation, Form, Problem, choose
from keras_topo.operators.layouts import relayout
from keras_topo.operators.linear import low_rank_attention
from keras_topo.operators.parameters import accumulation_dtype
from keras_topo.operators.plan import Plan
from keras_topo.operators.shapes import agree, check_batch, static_size
from keras_topo.operators.tensor_holder import TensorHolder


class MaskOperator(TensorHolder):
    """An attention mask `M`, known through its products.

    A mask between `L` query tokens and `L` key tokens is an `L x L` matrix.
    The operators of this package hold what defines the matrix, a table of
    offsets or two factors, and multiply by it without forming it. They hold
    no weights: an operator is a function of tensors, built anew in every
    call, and differentiable with respect to them.

    Leading axes of the parameters (heads, examples) are batch axes and
    broadcast, as in `matmul`.

    **Attention.** `attend` is masked linear attention with the mask, in the
    cheapest of the forms that the operator knows. Two are there for every
    mask: `"explicit"`, scores times rows of the mask, and `"columns"`, `m (d +
    1)` products. `explain` says which one is taken, and why.

    **Operators as arguments.** Operators are pytrees whose leaves are their
    tensors: `jax.jit`, `jax.grad` (with `allow_int=True` where ids are among
    them) and `tf.function` take and return them.

    **To write a new operator**, list the attributes that hold tensors or
    other operators in `_fields` (gradients reach those alone), call
    `super().__init__` and implement `_apply` (the product) and `_transpose`.
    Then, for speed, `_rows` and `_rows_at`, where rows can be had for less
    than a product with unit vectors; `_cost`, which is that of a dense matrix
    otherwise; and `_own_forms`, where the mask knows a cheaper attention.
    `keras_topo.testing.run_operator_test` checks it against its dense form.

    **Layouts.** `_apply` takes `x` of shape `(..., A, columns, B)` with
    `A * B = L`: the token axis, split in two, on both sides of the columns.
    `A = 1` puts the tokens last, where an FFT wants them; `A = L` puts them
    first; and for a grid, `A = n1` allows matrix products along the first and
    the last grid axis without any transposition. `Plan.layouts` lists the
    values of `A` that an operator handles, best first; `apply` converts others.

    Args:
        shape: tuple, `(*batch, L, L)`.
        dtype: string, the dtype of the entries.

    Example:

    >>> mask = keras_topo.operators.ExponentialDecay(0.1, length=6)
    >>> q, k, v = np.random.rand(3, 1, 2, 6, 4)  # batch, heads, tokens, d
    >>> numerator, denominator = mask.attend(q, k, v)
    >>> tuple((numerator / denominator).shape)
    (1, 2, 6, 4)
    """

    # NumPy arrays leave `array * operator` and `array @ operator` to us.
    __array_ufunc__ = None

    #: Sums and multiples, set by the module that defines them.
    _sum_of: Any = None
    _scaled_by: Any = None

    def __init__(self, shape: Iterable[Size], dtype: str):
        self._shape = tuple(shape)
        self._dtype = keras.backend.standardize_dtype(dtype)
        if self._shape[-1] is not None and self._shape[-1] < 1:
            raise ValueError(
                f"{type(self).__name__} needs at least one token. "
                f"Received: shape={self._shape}"
            )

    @property
    def shape(self) -> Shape:
        """`(*batch, L, L)`."""
        return self._shape

    @property
    def dtype(self) -> str:
        """Dtype of the entries, as a string."""
        return self._dtype

    @property
    def batch_shape(self) -> Shape:
        """Leading axes of the mask: heads, or examples and heads."""
        return self._shape[:-2]

    @property
    def num_tokens(self) -> Size:
        """`L`; `None` where a traced function does not know it.

        `Dense`, `LowRank` and `SparsePairs` work without knowing it, which
        graphs of different sizes need.
        """
        return self._shape[-1]

    # Products and rows.

    def matmul(self, x: TensorLike) -> Tensor:
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
        if len(x.shape) < 2 or not agree((x.shape[-2],), (self.num_tokens,)):
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

    def __matmul__(self, x: TensorLike) -> Tensor:
        return self.matmul(x)

    def apply(self, x: Tensor) -> Tensor:
        """The product in any layout `(..., A, columns, B)`: see the class."""
        split, layouts = x.shape[-3], self.plan.layouts
        if split in layouts:
            return self._apply(x)
        return relayout(self._apply(relayout(x, layouts[0])), split)

    def to_dense(self) -> Tensor:
        """The matrix, `(*batch, L, L)`."""
        return self.rows(0, self.num_tokens)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of the matrix, `(*batch, stop - start, L)`.

        Entries are exact: those that are zero are zero, not rounded.

        Raises:
            ValueError: unless `0 <= start < stop <= L`.
        """
        if not 0 <= start < stop <= self.num_tokens:
            raise ValueError(
                "rows expects 0 <= start < stop <= "
                f"{self.num_tokens}. Received: start={start}, stop={stop}"
            )
        return self._rows(start, stop - start)

    def transpose(self) -> "MaskOperator":
        """The operator of the transposed matrix."""
        return self._transpose()

    @property
    def T(self) -> "MaskOperator":  # noqa: N802
        return self._transpose()

    # Attention.

    def attend(
        self,
        query_features: TensorLike,
        key_features: TensorLike,
        value: TensorLike,
        implementation: FormName = "auto",
        state: State | None = None,
        return_state: bool = False,
    ) -> tuple[Tensor, ...]:
        """Masked linear attention, numerators and denominators.

        `numerator_i = sum_j M_ij (phi(q_i) . phi(k_j)) v_j`, and the
        denominator is the same for values of one. Those of different masks
        can be added up before the division.

        Args:
            query_features: `(batch, heads, L, m)`.
            key_features: `(batch, heads, L, m)`.
            value: `(batch, heads, L, d)`.
            implementation: `"auto"`, the cheapest form; `"fast"`, the cheapest
                but `"explicit"`; or the name of a form.
            state: for causal masks, the state that earlier tokens have left:
                from `initial_state` or an earlier call. The mask covers only
                the tokens of this call.
            return_state: bool, whether to return the state after these tokens.

        Returns:
            Numerators `(batch, heads, L, d)` and denominators `(batch, heads,
            L, 1)`, in float32 at least; and the state, if asked for.

        Raises:
            ValueError: if shapes do not match, there is no such form, or the
                mask carries no state.
        """
        tensors = [
            ops.convert_to_tensor(x)
            for x in (query_features, key_features, value)
        ]
        self._check_attention(tensors)
        dtype = accumulation_dtype(*[x.dtype for x in tensors])
        tensors = [ops.cast(x, dtype) for x in tensors]
        if self.num_tokens is not None:
            # The mask knows how many tokens there are.
            tensors = [
                ensure_size(x, self.num_tokens, -2)
                if x.shape[-2] is None
                else x
                for x in tensors
            ]
        if state is not None or return_state:
            self._require_state()
            if implementation != "auto":
                raise ValueError(
                    '`implementation` expects "auto" with a state, which has '
                    f"one form. Received: implementation={implementation!r}"
                )
            query, key, value = tensors
            *output, state = self._attend_with_state(query, key, value, state)
            return (*output, state) if return_state else tuple(output)
        problem = Problem.of(tensors[0], tensors[2])
        return choose(self.forms(problem), implementation).attend(*tensors)

    def explain(
        self, num_features: int, value_dim: int, batch: int = 1, heads: int = 1
    ) -> Explanation:
        """Which form attention takes, and why.

        Args:
            num_features: int, `m`.
            value_dim: int, `d`.
            batch, heads: ints.

        Returns:
            `Explanation`, with the forms and their costs; print it.

        Example:

        >>> mask = keras_topo.operators.ExponentialDecay(0.1, 4096)
        >>> print(mask.explain(64, 64))
        ExponentialDecay: chunks
          for batch=1, heads=1, length=4,096, num_features=64, value_dim=64
          chunks                       1.00 x the cost
          columns                     10.09 x the cost
          explicit                    11.18 x the cost
        """
        length = static_size((self.num_tokens,))
        problem = Problem(batch, heads, length, num_features, value_dim)
        forms = sorted(self.forms(problem), key=lambda form: form.weight)
        return Explanation(type(self).__name__, problem, tuple(forms))

    def attend_cost(self, num_features: int, value_dim: int) -> float:
        """Estimated work of `attend` for one head of one example."""
        length = static_size((self.num_tokens,))
        problem = Problem(1, 1, length, num_features, value_dim)
        return choose(self.forms(problem)).cost

    def forms(self, problem: Problem) -> list[Form]:
        """The forms of attention that the operator knows, a list of `Form`."""
        forms = list(self._own_forms(problem))
        factors = self.factors()
        if factors is not None:

            def low_rank(query, key, value):
                return low_rank_attention(query, key, value, factors)

            cost = costs.low_rank_cost(problem, factors[0].shape[-1])
            forms.append(Form("low rank", cost, low_rank))
        if self.num_tokens is None and forms:
            # Nothing to estimate the general forms by.
            return forms

        def explicit(query, key, value):
            return explicit_attention(query, key, value, self)

        def columns(query, key, value):
            return columns_attention(query, key, value, self)

        forms.append(Form("explicit", self._explicit_cost(problem), explicit))
        if self.num_tokens is not None:
            cost = self._columns_cost(problem)
            forms.append(Form("columns", cost, columns, self.plan.exact))
        return forms

    def cost(self, columns: int) -> float:
        """Estimated work of a product with `columns` columns, per batch entry.

        The unit, shared by all operators, is one multiply-add inside a large
        float32 matrix product: see `keras_topo.operators.cost`.
        """
        return self._cost(columns)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """`(u, w)` of shapes `(*batch, L, r)` with `M = u w^T`, or `None`.

        Where they exist, masked linear attention is plain linear attention
        with `r` times as many features.
        """
        return None

    @property
    def nonnegative(self) -> bool | None:
        """Whether no entry is below zero; `None` where that is not known.

        A promise, not an estimate: `True` is what keeps the normalizer of
        attention away from zero, `False` means that there are negative
        entries. Rounding does not count, as in a kernel that is the inverse
        of a transform: entries down to -1e-6 times the largest pass for
        zeros. Operators made of operators inherit it, taking none of them for
        zero throughout.

        Nothing is computed in traced functions: there, only masks that are
        non-negative by construction know. Elsewhere up to a million numbers
        of each parameter are looked at.
        """
        return self._nonnegative()

    # State, of causal masks.

    @property
    def carries_state(self) -> bool:
        """Whether tokens leave a state of fixed size to those after them."""
        return False

    def initial_state(
        self,
        batch_size: int,
        num_heads: int,
        num_features: int,
        value_dim: int,
        dtype: str = "float32",
    ) -> State:
        """The state before the first token, of causal masks.

        Returns:
            `(batch, heads, m, d + 1)`, zeros, for one decay; a tuple of them
            for a sum.

        Raises:
            ValueError: if the mask carries no state.
        """
        self._require_state()
        return self._initial_state(
            (batch_size, num_heads, num_features, value_dim), dtype
        )

    def step(
        self,
        query_features: Tensor,
        key_features: Tensor,
        value: Tensor,
        state: State,
    ) -> tuple[Tensor, Tensor, State]:
        """Attention of one more token, at constant cost.

        Args:
            query_features: `(batch, heads, m)`.
            key_features: `(batch, heads, m)`.
            value: `(batch, heads, d)`.
            state: from `initial_state`, `attend` or the step before.

        Returns:
            The numerator `(batch, heads, d)`, the denominator `(batch, heads,
            1)` and the new state.

        Raises:
            ValueError: if the mask carries no state, or shapes do not match.
        """
        self._require_state()
        return self._step(query_features, key_features, value, state)

    def _require_state(self):
        if not self.carries_state:
            raise ValueError(
                "`state` and `step` are for causal masks: Causal, "
                "ExponentialDecay and GatedDecay with causal=True, and their "
                f"sums and multiples. Received: {self}"
            )

    # Arithmetic.

    def __add__(self, other: "MaskOperator | float") -> "MaskOperator":
        if isinstance(other, (int, float)) and other == 0:
            return self  # the start of Python's `sum`
        if not isinstance(other, MaskOperator):
            return NotImplemented
        return self._sum_of([self, other])

    __radd__ = __add__

    def __neg__(self) -> "MaskOperator":
        return self._scaled_by(self, -1.0)

    def __sub__(self, other: "MaskOperator") -> "MaskOperator":
        if not isinstance(other, MaskOperator):
            return NotImplemented
        return self._sum_of([self, -other])

    def __mul__(self, scalar: TensorLike) -> "MaskOperator":
        if isinstance(scalar, MaskOperator):
            return NotImplemented
        return self._scaled_by(self, scalar)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    # What a subclass implements.

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} must implement `_apply(x)`, its product"
        )

    def _transpose(self) -> "MaskOperator":
        raise NotImplementedError(
            f"{type(self).__name__} must implement `_transpose()`, the "
            "transposed operator"
        )

    def _plan(self) -> Plan:
        """How the operator likes its work divided, a `Plan`."""
        return Plan(held_per_column=self.num_tokens, rows_cost=self._unit_cost)

    def _cost(self, columns: int) -> float:
        """The default is that of a dense matrix."""
        return costs.product_cost(self.num_tokens, self.num_tokens, columns)

    def _own_forms(self, problem: Problem) -> Sequence[Form]:
        """Forms of attention beside the general ones, a tuple of `Form`."""
        return ()

    def _nonnegative(self) -> bool | None:
        """`True`, `False` or `None`; see `nonnegative`."""
        return None

    def _traced_negative(self) -> Tensor | None:
        """Where `_nonnegative` knows nothing because parameters are traced: a
        traced bool, whether there are entries below zero, or `None`."""
        return None

    def _rows(self, start: int | Tensor, size: int) -> Tensor:
        """`size` rows from any `start`, an int or a traced scalar."""
        return self._rows_at(start + ops.arange(size, dtype="int32"))

    def _rows_at(self, ids: Tensor) -> Tensor:
        """Rows at int32 ids `(n,)`, in any order, `(*batch, n, L)`.

        The default multiplies unit vectors, `E M = (M^T E^T)^T`.
        """
        size = tuple(ops.shape(ids))[0]
        unit = ops.one_hot(
            ids, self.num_tokens, dtype=accumulation_dtype(self.dtype)
        )
        unit = ops.reshape(
            unit, (1,) * len(self.batch_shape) + (1, size, self.num_tokens)
        )
        rows = ops.squeeze(self._transpose()._unit_product(unit), -3)
        return ops.cast(rows, self.dtype)

    def _unit_product(self, x: Tensor) -> Tensor:
        """`apply` on unit vectors, for `_rows_at`: zeros have to be zeros
        there, for softmax attention sees what is not."""
        return self.apply(x)

    def _for_rows(self) -> "MaskOperator":
        """An equal operator whose rows are cheap, for what they share has been
        computed: once for each attention."""
        return self

    def _initial_state(
        self, sizes: tuple[int, int, int, int], dtype: str
    ) -> State:
        """The state before the first token; `sizes` are batch, heads, m, d."""
        raise NotImplementedError

    def _step(
        self, query: Tensor, key: Tensor, value: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        raise NotImplementedError

    def _attend_with_state(
        self, query: Tensor, key: Tensor, value: Tensor, state: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """Numerators, denominators and the state after the tokens; a `state`
        of `None` is that before the first."""
        raise NotImplementedError

    # What attention asks.

    @property
    def plan(self) -> Plan:
        """How the operator likes its work divided, a `Plan`."""
        return self._plan()

    @property
    def _unit_cost(self):
        """Work of all rows by products with unit vectors."""
        if self.num_tokens is None:
            return 0.0
        return self._cost(self.num_tokens)

    def _explicit_cost(self, problem):
        length = problem.length
        square = length * length
        scores = square * (problem.num_features + problem.value_dim)
        # Fitted to measurements: part of what passes through memory stays in
        # the cache between a product and the next. The batch shares the mask.
        passes = 2.5 * costs.ELEMENT * square
        rows = 1.5 * costs.ELEMENT * square + self.plan.rows_cost
        rows = rows * static_size(self.batch_shape)
        blocks = max(1, problem.pairs * square // BLOCK_ELEMENTS)
        return (
            4 * costs.LAUNCH * blocks + problem.pairs * (scores + passes) + rows
        )

    def _columns_cost(self, problem):
        length = problem.length
        columns = problem.num_features * (problem.value_dim + 1)
        passes = 4 * costs.ELEMENT * length * columns
        blocks = max(1, problem.pairs * length * columns // BLOCK_ELEMENTS)
        work = self._cost(columns) + passes
        return costs.LAUNCH * blocks + problem.pairs * work

    def _check_attention(self, tensors):
        query, key, value = tensors
        if any(len(x.shape) != 4 for x in tensors) or not (
            agree(query.shape, key.shape)
            and agree(query.shape[:-1], value.shape[:-1])
            and agree((self.num_tokens,), value.shape[-2:-1])
        ):
            raise ValueError(
                "`query_features` and `key_features` expect the same shape "
                "(batch, heads, tokens, features), and `value` the same batch, "
                f"heads and tokens, {self.num_tokens} of them. Received: "
                + ", ".join(
                    f"{name} of shape {tuple(x.shape)}"
                    for name, x in zip(
                        ("query_features", "key_features", "value"),
                        tensors,
                        strict=True,
                    )
                )
            )
        check_batch(self, tuple(value.shape[:2]))


def widest_dtype(operators):
    """The dtype that holds the entries of all `operators`."""
    dtypes = {operator.dtype for operator in operators}
    return dtypes.pop() if len(dtypes) == 1 else accumulation_dtype(*dtypes)


def require_operator(value, name):
    if not isinstance(value, MaskOperator):
        raise ValueError(
            f"`{name}` expects a MaskOperator. Received: {name}={value!r}"
        )
