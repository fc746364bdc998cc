"""Operators made of operators: sums, multiples, blocks and borders."""

from keras import ops

from keras_topo._backend import concrete, slice_axis
from keras_topo.operators import cost as costs
from keras_topo.operators.base import (
    MaskOperator,
    all_known,
    as_tensor,
    broadcast_batch,
    nonnegative_values,
    require_operator,
    widest_dtype,
)


class Sum(MaskOperator):
    """The sum of masks; also written `a + b`.

    *Complexity*: that of the terms, one after the other.

    Args:
        operators: non-empty list of operators on the same tokens.

    Raises:
        ValueError: if the list is empty or the numbers of tokens differ.
    """

    _fields = ("operators",)

    def __init__(self, operators):
        if not isinstance(operators, (list, tuple)) or not operators:
            raise ValueError(
                "`operators` expects a non-empty list. Received: "
                f"operators={operators!r}"
            )
        for operator in operators:
            require_operator(operator, "operators")
        self.operators = list(operators)
        lengths = [operator.num_tokens for operator in operators]
        if len(set(lengths)) > 1:
            raise ValueError(
                "`operators` expects operators on the same number of tokens. "
                f"Received: operators on {lengths} tokens"
            )
        batch = broadcast_batch(*[o.batch_shape for o in operators])
        super().__init__(
            (*batch, lengths[0], lengths[0]), widest_dtype(operators)
        )

    @property
    def _layouts(self):
        # One that all terms share, so that x is laid out once.
        shared = [
            split
            for split in self.operators[0]._layouts
            if all(split in o._layouts for o in self.operators)
        ]
        return tuple(shared) or (1,)

    @property
    def _held_per_column(self):
        return max(o._held_per_column or 0 for o in self.operators) or None

    @property
    def _fewest_columns(self):
        return max(o._fewest_columns for o in self.operators)

    def _apply(self, x):
        total = self.operators[0].apply(x)
        for operator in self.operators[1:]:
            total = total + operator.apply(x)
        return total

    def _rows(self, start, size):
        total = 0
        for operator in self.operators:
            if isinstance(start, int) or self._is_aligned(operator):
                rows = operator._rows(start, size)
            else:
                # Blocks that suit the others cut across this one's.
                rows = MaskOperator._rows(operator, start, size)
            total = total + ops.cast(rows, self.dtype)
        return total

    @property
    def _row_step(self):
        return max(operator._row_step for operator in self.operators)

    @property
    def _num_leading_rows(self):
        coarsest = max(self.operators, key=lambda o: o._row_step)
        return coarsest._num_leading_rows

    def _is_aligned(self, operator):
        """Whether blocks of rows that suit the sum suit `operator` too."""
        offset = self._num_leading_rows - operator._num_leading_rows
        return (
            offset >= 0
            and offset % operator._row_step == 0
            and self._row_step % operator._row_step == 0
        )

    def _transpose(self):
        return Sum([o._transpose() for o in self.operators])

    def _nonnegative(self):
        # What is negative in one term may not be in the sum.
        return all_known(o.nonnegative for o in self.operators) or None

    def factors(self):
        pairs = [operator.factors() for operator in self.operators]
        if any(pair is None for pair in pairs):
            return None
        return tuple(
            _concatenate_columns([pair[k] for pair in pairs]) for k in (0, 1)
        )

    @property
    def _rows_cost(self):
        return sum(operator._rows_cost for operator in self.operators)

    def _cost(self, columns):
        passes = (len(self.operators) - 1) * costs.ELEMENT
        return passes * self.num_tokens * columns + sum(
            operator._cost(columns) for operator in self.operators
        )


class Scaled(MaskOperator):
    """A multiple of a mask; also written `scalar * operator`.

    Args:
        operator: the mask.
        scalar: number, or a tensor that broadcasts against the batch axes of
            the mask: one factor a head.
    """

    _fields = ("operator", "scalar")

    def __init__(self, operator, scalar):
        require_operator(operator, "operator")
        self.operator = operator
        self.scalar = ops.cast(as_tensor(scalar, "scalar", 0), operator.dtype)
        batch = broadcast_batch(operator.batch_shape, self.scalar.shape)
        super().__init__((*batch, *operator.shape[-2:]), operator.dtype)

    def _times(self, x, trailing):
        scalar = ops.cast(self.scalar, x.dtype)
        shape = tuple(ops.shape(scalar)) + (1,) * trailing
        return x * ops.reshape(scalar, shape)

    @property
    def _layouts(self):
        return self.operator._layouts

    @property
    def _held_per_column(self):
        return self.operator._held_per_column

    @property
    def _fewest_columns(self):
        return self.operator._fewest_columns

    def _apply(self, x):
        return self._times(self.operator.apply(x), 3)

    def _rows(self, start, size):
        return self._times(self.operator._rows(start, size), 2)

    @property
    def _row_step(self):
        return self.operator._row_step

    @property
    def _num_leading_rows(self):
        return self.operator._num_leading_rows

    def _transpose(self):
        return Scaled(self.operator._transpose(), self.scalar)

    def _nonnegative(self):
        known = self.operator.nonnegative
        if known is False:
            # Zeros and negative numbers may hide what is negative.
            scalar = concrete(self.scalar)
            positive = scalar is not None and (scalar > 0).all()
            return False if positive else None
        return known and nonnegative_values(self.scalar)

    def factors(self):
        pair = self.operator.factors()
        return pair and (self._times(pair[0], 2), pair[1])

    @property
    def _rows_cost(self):
        return self.operator._rows_cost

    def _cost(self, columns):
        passes = costs.ELEMENT * self.num_tokens * columns
        return passes + self.operator._cost(columns)


class BlockDiagonal(MaskOperator):
    """Masks side by side, invisible to each other: a batch as one graph.

    *Complexity*: that of the blocks, one after the other.

    Args:
        operators: non-empty list of operators, in the order of their tokens.
    """

    _fields = ("operators",)

    def __init__(self, operators):
        if not isinstance(operators, (list, tuple)) or not operators:
            raise ValueError(
                "`operators` expects a non-empty list. Received: "
                f"operators={operators!r}"
            )
        for operator in operators:
            require_operator(operator, "operators")
        self.operators = list(operators)
        length = sum(operator.num_tokens for operator in operators)
        batch = broadcast_batch(*[o.batch_shape for o in operators])
        super().__init__((*batch, length, length), widest_dtype(operators))

    def _apply(self, x):
        pieces, start = [], 0
        for operator in self.operators:
            stop = start + operator.num_tokens
            pieces.append(
                operator.apply(slice_axis(x, start, operator.num_tokens, -1))
            )
            start = stop
        return ops.concatenate(_broadcast_leading(pieces, trailing=3), axis=-1)

    def _transpose(self):
        return BlockDiagonal([o._transpose() for o in self.operators])

    def _nonnegative(self):
        return all_known(o.nonnegative for o in self.operators)

    def factors(self):
        pairs = [operator.factors() for operator in self.operators]
        if any(pair is None for pair in pairs):
            return None
        return tuple(
            _concatenate_columns(
                [
                    _pad_tokens(pair[k], before, after)
                    for pair, (before, after) in zip(
                        pairs, self._tokens_around(), strict=True
                    )
                ]
            )
            for k in (0, 1)
        )

    def _tokens_around(self):
        """Tokens before and after each block."""
        before = 0
        for operator in self.operators:
            yield before, self.num_tokens - before - operator.num_tokens
            before += operator.num_tokens

    def _cost(self, columns):
        passes = costs.ELEMENT * self.num_tokens * columns
        return passes + sum(o._cost(columns) for o in self.operators)


class Bordered(MaskOperator):
    """A mask with prefix tokens, which see all tokens and are seen by all.

    `[[1, 1], [1, M]]`: the mask of class or register tokens in front of a
    grid, whose entries are 1.

    *Complexity*: that of `operator`, and `2 L` additions a column.

    Args:
        operator: the mask of the tokens after the prefix.
        num_prefix_tokens: int, at least 0.

    Raises:
        ValueError: if `num_prefix_tokens` is negative.
    """

    _fields = ("operator",)

    def __init__(self, operator, num_prefix_tokens):
        require_operator(operator, "operator")
        if not isinstance(num_prefix_tokens, int) or num_prefix_tokens < 0:
            raise ValueError(
                "`num_prefix_tokens` expects an int of at least 0. Received: "
                f"num_prefix_tokens={num_prefix_tokens!r}"
            )
        self.operator = operator
        self.num_prefix_tokens = num_prefix_tokens
        length = operator.num_tokens + num_prefix_tokens
        super().__init__(
            (*operator.batch_shape, length, length), operator.dtype
        )

    def _apply(self, x):
        prefix, rest = ops.split(x, [self.num_prefix_tokens], axis=-1)
        from_prefix = ops.sum(prefix, -1, keepdims=True)
        to_prefix = from_prefix + ops.sum(rest, -1, keepdims=True)
        lead = tuple(ops.shape(to_prefix))[:-1]
        pieces = [
            ops.broadcast_to(to_prefix, lead + (self.num_prefix_tokens,)),
            self.operator.apply(rest) + from_prefix,
        ]
        return ops.concatenate(_broadcast_leading(pieces, trailing=3), -1)

    def _rows(self, start, size):
        prefix = self.num_prefix_tokens
        if isinstance(start, int) and start < prefix:
            top = min(size, prefix - start)
            ones = ops.ones(
                self.batch_shape + (top, self.num_tokens), self.dtype
            )
            if top == size:
                return ones
            return ops.concatenate([ones, self._rows(prefix, size - top)], -2)
        rows = self.operator._rows(start - prefix, size)
        lead = tuple(ops.shape(rows))[:-1]
        return ops.concatenate(
            [ops.ones(lead + (prefix,), rows.dtype), rows], -1
        )

    @property
    def _row_step(self):
        return self.operator._row_step

    @property
    def _num_leading_rows(self):
        return self.num_prefix_tokens + self.operator._num_leading_rows

    def _transpose(self):
        return Bordered(self.operator._transpose(), self.num_prefix_tokens)

    def _nonnegative(self):
        return self.operator.nonnegative

    def factors(self):
        pair = self.operator.factors()
        if pair is None:
            return None
        # 1_prefix 1^T + 1_rest 1_prefix^T + [0; u] [0; w]^T
        prefix = self.num_prefix_tokens
        rest = self.operator.num_tokens
        first = ops.ones((prefix, 1), self.dtype)
        last = ops.ones((rest, 1), self.dtype)
        first = _pad_tokens(first, 0, rest)
        last = _pad_tokens(last, prefix, 0)
        u, w = [_pad_tokens(factor, prefix, 0) for factor in pair]
        return (
            _concatenate_columns([first, last, u]),
            _concatenate_columns([first + last, first, w]),
        )

    @property
    def _rows_cost(self):
        return self.operator._rows_cost

    def _cost(self, columns):
        passes = 3 * costs.ELEMENT * self.num_tokens * columns
        return costs.LAUNCH + passes + self.operator._cost(columns)


class Permuted(MaskOperator):
    """A mask whose tokens come in another order: `M[order[i], order[j]]` is
    entry `(i, j)` of `operator`.

    Graphs are kept in an order in which neighbors are near each other.

    *Complexity*: that of `operator`, and two passes over a column.

    Args:
        operator: the mask in the other order.
        order: `(L,)`, int32, which token of this mask each one of `operator`
            is.
        inverse: `(L,)`, int32, the inverse permutation.
    """

    _fields = ("operator",)

    def __init__(self, operator, order, inverse):
        require_operator(operator, "operator")
        self.operator, self.order, self.inverse = operator, order, inverse
        super().__init__(operator.shape, operator.dtype)

    @property
    def _layouts(self):
        return (self.num_tokens,)

    @property
    def _held_per_column(self):
        return 2 * self.num_tokens + self.operator._held_per_column

    @property
    def _fewest_columns(self):
        return self.operator._fewest_columns

    def _apply(self, x):
        x = permute(x, self.order, self.inverse, -3)
        return permute(self.operator.apply(x), self.inverse, self.order, -3)

    def _unit_product(self, x):
        x = permute(x, self.order, self.inverse, -1)
        y = self.operator._unit_product(x)
        return permute(y, self.inverse, self.order, -1)

    def _transpose(self):
        return Permuted(self.operator._transpose(), self.order, self.inverse)

    def _nonnegative(self):
        return self.operator.nonnegative

    def factors(self):
        pair = self.operator.factors()
        if pair is None:
            return None
        return tuple(
            permute(factor, self.inverse, self.order, -2) for factor in pair
        )

    def _cost(self, columns):
        passes = 4 * costs.ELEMENT * self.num_tokens * columns
        return 2 * costs.LAUNCH + passes + self.operator._cost(columns)


def permute(x, order, inverse, axis):
    """`x` in another order along an axis; the gradient is a permutation too,
    where that of a gather would be a sum over equal ids."""

    @ops.custom_gradient
    def permuted(x):
        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            return ops.take(upstream, inverse, axis=axis)

        return ops.take(x, order, axis=axis), gradient

    return permuted(x)


def _broadcast_leading(tensors, trailing):
    """Broadcasts all axes of `tensors` but the trailing ones."""
    lead = tuple(ops.shape(tensors[0]))[:-trailing]
    for x in tensors[1:]:
        other = tuple(ops.shape(x))[:-trailing]
        lead = tuple(
            b if isinstance(a, int) and a == 1 else a
            for a, b in zip(lead, other, strict=True)
        )
    return [
        ops.broadcast_to(x, lead + tuple(ops.shape(x))[-trailing:])
        for x in tensors
    ]


def _concatenate_columns(factors):
    """Concatenates `(*batch, L, r)` along `r`, broadcasting the batch."""
    batch = broadcast_batch(*[f.shape[:-2] for f in factors])
    return ops.concatenate(
        [ops.broadcast_to(f, batch + tuple(f.shape[-2:])) for f in factors],
        -1,
    )


def _pad_tokens(factor, before, after):
    """Zero rows for the tokens before and after those of a factor."""
    padding = [(0, 0)] * (len(factor.shape) - 2) + [(before, after), (0, 0)]
    return ops.pad(factor, padding)
