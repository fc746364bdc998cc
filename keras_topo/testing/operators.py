"""`run_operator_test`: the contract of `MaskOperator`, checked on one."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo.attention import masked_linear_attention
from keras_topo.operators.base import MaskOperator
from keras_topo.operators.forms import Problem
from keras_topo.testing.comparison import (
    dtype_of,
    numpy,
    staged,
    tensor,
    with_gradients,
)
from keras_topo.testing.operator_products import ProductTest

FEATURES, VALUES = 2, 3


def run_operator_test(
    make_operator: Callable[..., MaskOperator],
    dense: Callable[..., np.ndarray],
    parameters: Sequence[ArrayLike] = (),
    make_piece: Callable[..., MaskOperator] | None = None,
    low_rank: bool | None = None,
    rounding: float = 0.0,
) -> None:
    """Checks a mask operator against its dense matrix, in every respect.

    All checks of `OperatorTest`, one after the other: products in float64 and
    float32, adjoints, gradients, batch axes, rows, layouts, eagerly and
    compiled; every form of attention and its gradients; exact zeros, sizes
    that a traced function does not know, empty batches, second derivatives,
    tiny weights; the operator as an argument of compiled functions; and its
    state, where it carries one.

    On JAX, call `jax.config.update("jax_enable_x64", True)` first: most checks
    run in float64.

    Args:
        make_operator: callable, from the parameters as tensors to the
            `MaskOperator`. Without parameters it gets the dtype, a string.
        dense: callable, from the parameters as NumPy arrays to the matrix
            `(*batch, L, L)`. It is differentiated by complex steps, so it must
            be analytic and accept complex arrays: no `abs`, `max` or cast to
            float.
        parameters: list of arrays, the point at which the operator is
            checked. Choose numbers around 1 at which entries are not negative,
            and a batch axis, as tests of broadcasting are idle without one.
        make_piece: callable `(start, stop, *parameters)`, the operator of the
            tokens from `start` to `stop` alone; required of operators that
            carry state.
        low_rank: bool, whether `factors()` exist; `None` allows either.
        rounding: float, entries of `dense` up to this times the largest pass
            for zeros, where it knows zeros only up to rounding.

    Raises:
        AssertionError: if a check fails; the message names it.
        ValueError: if the operator carries state and `make_piece` is missing.

    Example:

    >>> from keras_topo.operators import ExponentialDecay
    >>> distance = abs(np.arange(6)[:, None] - np.arange(6))
    >>> run_operator_test(
    ...     lambda rate: ExponentialDecay(rate, 6),
    ...     lambda rate: np.exp(-rate[..., None, None] * distance),
    ...     [np.array([0.3, 0.7])],
    ... )
    """
    test = OperatorTest(
        make_operator, dense, parameters, make_piece, low_rank, rounding
    )
    test.check_description()
    test.check_methods("float64")
    test.check_methods("float32")
    test.check_methods("float32", jit=True, brief=True)
    test.check_parts()
    test.check_zeros()
    test.check_second_derivatives()
    test.check_pytree()
    if test.matrix.ndim <= 4:
        test.check_attention()
        test.check_empty_batch()
        if test.operator().nonnegative is not False:
            test.check_tiny_weights()
        if test.can_hide_sizes():
            test.check_unknown_sizes((1,))
            test.check_unknown_sizes((0, 1))
    if test.operator().carries_state:
        test.check_state()


class OperatorTest(ProductTest):
    """The contract of `MaskOperator` for one operator, check by check.

    For test suites that run checks apart from each other; otherwise see
    `run_operator_test`, whose arguments it takes.

    Each check raises an AssertionError that names it.
    """

    def check_attention(self) -> None:
        """Every form of attention, and the gradients of each."""
        operator = self.operator()
        require = self._requirement("attention", operator)
        lead = self._lead()
        arrays = self._query_key_value(lead)
        batch, heads = lead
        problem = Problem(batch, heads, self.length, FEATURES, VALUES)
        names = [form.name for form in operator.forms(problem)]
        require(
            "explicit" in names and len(set(names)) == len(names),
            f"forms of different names, explicit among them, not {names}",
        )
        chosen = operator.explain(FEATURES, VALUES, *lead).form
        require(chosen in names, f"one of {names}, not {chosen!r}, explained")
        alone = operator.explain(FEATURES, VALUES).forms[0].cost
        require(
            0 < operator.attend_cost(FEATURES, VALUES) == alone,
            f"`attend_cost` to be that of the cheapest form, {alone}",
        )
        expected = self._oracle(*arrays)
        upstream = np.random.default_rng(1).normal(size=expected.shape)

        def attend(name, tensors):
            query, key, value, *parameters = tensors
            operator = self._make(parameters, dtype_of(query))
            parts = operator.attend(query, key, value, name)
            return ops.concatenate(parts, axis=-1)

        gradients = {}
        for name in names:
            function = with_gradients(lambda *t, n=name: attend(n, t))
            y, found = staged(function)(
                *map(tensor, (upstream, *arrays, *self.parameters))
            )
            self._close(y, expected, 1e-11, f"attention, {name}")
            gradients[name] = [numpy(g) for g in found]
        for name in names:
            pairs = zip(gradients[name], gradients["explicit"], strict=True)
            for k, (found, wanted) in enumerate(pairs):
                self._close(
                    found, wanted, 1e-10, f"attention, {name}, gradient {k}"
                )

    def can_hide_sizes(self) -> bool:
        """Whether `check_unknown_sizes` applies: on TensorFlow, of an operator
        all of whose parameters have its batch axes."""
        batch = self.matrix.shape[:-2]
        return (
            keras.backend.backend() == "tensorflow"
            and bool(batch)
            and all(p.shape[: len(batch)] == batch for p in self.parameters)
        )

    def check_unknown_sizes(self, axes: tuple[int, ...]) -> None:
        """Attention where a traced function does not know how many examples
        or heads there are, of queries and of parameters of one mask each.

        Args:
            axes: tuple, `(1,)` for heads, `(0, 1)` for both.
        """
        import tensorflow as tf

        arrays = self._query_key_value(self._lead())
        arrays = [x.astype("float32") for x in (*arrays, *self.parameters)]
        rank = self.matrix.ndim - 2

        def spec(x, count):
            """`count`: how many of its leading axes are batch axes."""
            shape = [
                None if k < count and k + 2 - count in axes and n != 1 else n
                for k, n in enumerate(x.shape)
            ]
            return tf.TensorSpec(shape, x.dtype)

        signature = [spec(x, 2) for x in arrays[:3]]
        signature += [spec(x, min(rank, x.ndim)) for x in arrays[3:]]
        expected = self._oracle(*arrays[:3])
        for implementation in ("explicit", "fast"):

            @tf.function(input_signature=signature)
            def attend(query, key, value, *parameters, name=implementation):
                operator = self._make(list(parameters), "float32")
                return ops.concatenate(
                    operator.attend(query, key, value, name), axis=-1
                )

            self._close(
                attend(*arrays),
                expected,
                5e-5,
                f"unknown sizes of axes {axes}, {implementation}",
            )

    def check_empty_batch(self) -> None:
        """Attention of no examples, and a product of none. An operator of one
        mask per example is left out."""
        if self.matrix.ndim == 4 and self.matrix.shape[0] != 1:
            return
        operator = self.operator("float32")
        require = self._requirement("empty batch", operator)
        heads = self._lead()[1]
        arrays = self._query_key_value((0, heads))
        arrays = [x.astype("float32") for x in arrays]
        problem = Problem(1, heads, self.length, FEATURES, VALUES)
        wanted = (0, heads, self.length, VALUES)
        for form in operator.forms(problem):

            def attend(query, key, value, name=form.name):
                return masked_linear_attention(
                    query, key, value, operator, implementation=name
                )

            shape = _shape_of(attend, *arrays)
            require(shape == wanted, f"{wanted} of {form.name}, not {shape}")
        x = np.zeros((0, *self.matrix.shape[:-2], self.length, 2), "float32")
        shape = _shape_of(operator.matmul, x)
        require(shape == x.shape, f"a product {x.shape}, not {shape}")

    def check_tiny_weights(self) -> None:
        """Attention of 1e-200 times the mask: rows are averages, however
        small their weights."""
        operator = self.operator()
        arrays = self._query_key_value(self._lead())
        expected = self._oracle(*arrays)
        with np.errstate(invalid="ignore"):
            expected = expected[..., :-1] / expected[..., -1:]
        expected = np.nan_to_num(expected)  # a token that sees none has zeros

        def attend(tensors, arrays):
            tiny = 1e-200 * operator.with_tensors(tensors)
            query, key, value = arrays
            return masked_linear_attention(query, key, value, tiny)

        y = staged(attend)(operator.tensors(), list(map(tensor, arrays)))
        self._close(y, expected, 1e-10, "tiny weights")

    def check_state(self, cuts: Sequence[Sequence[int]] | None = None) -> None:
        """Whole sequences, pieces and single steps give the same outputs, last
        states and gradients, from any state before them.

        Args:
            cuts: list of lists of ints, the ends of pieces, from 0 to the
                number of tokens; pieces of one token are steps.
        """
        if self.make_piece is None:
            raise ValueError(
                "`make_piece` expects a callable `(start, stop, *parameters)`, "
                f"as {self.operator()} carries state. Received: None"
            )
        length, lead = self.length, self._lead()
        arrays = [*self._query_key_value(lead), *self.parameters]
        state = self.operator().initial_state(
            *lead, FEATURES, VALUES, "float64"
        )
        leaves = keras.tree.flatten(state)
        # No state is a state of zeros.
        for given in (None, leaves):
            first = staged(lambda *t, s=given: self._run([0, length], t, s)[0])
            y = first(*map(tensor, arrays))
            self._close(y, self._oracle(*arrays[:3]), 1e-11, "state, initial")

        random = np.random.default_rng(7)
        before = [random.normal(size=tuple(x.shape)) for x in leaves]
        after = [random.normal(size=x.shape) for x in before]
        upstream = random.normal(size=(*lead, length, VALUES + 1))

        def results(cuts):
            def loss(*tensors):
                given = tensors[len(arrays) :]
                y, left = self._run(cuts, tensors[: len(arrays)], given)
                total = ops.sum(y * tensor(upstream))
                for x, weights in zip(left, after, strict=True):
                    total = total + ops.sum(x * tensor(weights))
                return total

            def function(*tensors):
                y, left = self._run(
                    cuts, tensors[: len(arrays)], tensors[len(arrays) :]
                )
                one = ops.ones((), "float64")
                _, gradients = with_gradients(loss)(one, *tensors)
                return [y, *left, *gradients]

            tensors = map(tensor, [*arrays, *before])
            return [numpy(x) for x in staged(function)(*tensors)]

        wanted = results([0, length])
        if cuts is None:
            few = range(min(1, length), min(3, length) + 1)
            cuts = [sorted({0, *few, length}), sorted({0, length // 2, length})]
        for ends in cuts:
            for k, (a, b) in enumerate(zip(results(ends), wanted, strict=True)):
                self._close(a, b, 1e-11, f"state, pieces {ends}, result {k}")

    def _run(self, cuts, tensors, state):
        """Numerators and denominators of all pieces, and the last state as a
        list; `state` is a list, or `None`."""
        query, key, value, *parameters = tensors
        assert self.make_piece is not None
        if state is not None:
            batch, heads = self._lead()
            like = self.operator().initial_state(batch, heads, 1, 1)
            state = keras.tree.pack_sequence_as(like, list(state))
        outputs = []
        for first, last in zip(cuts[:-1], cuts[1:], strict=True):
            operator = self.make_piece(
                first, last, *(parameters or [dtype_of(query)])
            )
            q, k, v = (x[:, :, first:last] for x in (query, key, value))
            if last - first == 1 and state is not None:
                *output, state = operator.step(
                    q[:, :, 0], k[:, :, 0], v[:, :, 0], state
                )
                output = [x[:, :, None] for x in output]
            else:
                *output, state = operator.attend(
                    q, k, v, state=state, return_state=True
                )
            outputs.append(ops.concatenate(output, -1))
        return ops.concatenate(outputs, axis=2), keras.tree.flatten(state)

    def _lead(self, default: int = 2) -> tuple[int, int]:
        """Batch and heads that suit the matrix."""
        batch, heads = (1, 1, *self.matrix.shape[:-2])[-2:]
        return (
            default if batch == 1 else batch,
            default if heads == 1 else heads,
        )

    def _query_key_value(self, lead):
        random = np.random.default_rng(0)
        shape = (2, *lead, self.length, FEATURES)
        query, key = random.uniform(0.1, 1.0, shape)
        return [query, key, random.normal(size=(*lead, self.length, VALUES))]

    def _oracle(self, query, key, value):
        scores = np.einsum("...im,...jm->...ij", query, key) * self.matrix
        value = np.concatenate([value, np.ones_like(value[..., :1])], -1)
        return scores @ value


def _shape_of(function: Callable[..., Any], *arrays: Any) -> Any:
    """The shape of a result; JAX need not compute what has no entries."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.eval_shape(function, *arrays).shape
    return tuple(function(*arrays).shape)
