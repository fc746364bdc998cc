"""Products, rows and gradients of an operator, against its dense matrix."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo.operators import LowRank, MaskOperator, Sum
from keras_topo.testing.comparison import (
    assert_close,
    compiled,
    complex_step_gradients,
    dtype_of,
    numpy,
    relative_error,
    staged,
    tensor,
    with_gradients,
)

TOLERANCE = {"float64": 1e-11, "float32": 5e-5}
COLUMNS = 3


class ProductTest:
    """What every operator owes as a matrix; `OperatorTest` adds attention."""

    def __init__(
        self,
        make_operator: Callable[..., MaskOperator],
        dense: Callable[..., np.ndarray],
        parameters: Sequence[ArrayLike] = (),
        make_piece: Callable[..., MaskOperator] | None = None,
        low_rank: bool | None = None,
        rounding: float = 0.0,
    ):
        self.make_operator = make_operator
        self.dense = dense
        self.parameters = [np.asarray(p, "float64") for p in parameters]
        self.make_piece = make_piece
        self.low_rank = low_rank
        self.rounding = rounding
        self.matrix = np.asarray(dense(*self.parameters))
        self.length = self.matrix.shape[-1]

    def operator(self, dtype: str = "float64") -> MaskOperator:
        """The operator in a dtype."""
        return self._make(self._tensors(self.parameters, dtype), dtype)

    def check_description(self) -> None:
        """Shapes, dtypes, costs and layouts that an operator states."""
        for dtype in ("float64", "float32"):
            operator = self.operator(dtype)
            require = self._requirement("description", operator)
            require(isinstance(operator, MaskOperator), "a MaskOperator")
            require(
                operator.shape == operator.T.shape == self.matrix.shape
                and operator.batch_shape == self.matrix.shape[:-2]
                and operator.num_tokens == self.length,
                f"the shape {self.matrix.shape}, also of the transpose",
            )
            require(
                operator.dtype == operator.T.dtype == dtype
                and (2.0 * operator).dtype == dtype,
                f"the dtype {dtype}, also of the transpose and of multiples",
            )
            name, shape = type(operator).__name__, str(operator.shape)
            require(
                name in repr(operator) and shape in repr(operator),
                "its name and shape in `repr`",
            )
            few, many = operator.cost(1), operator.cost(10_000)
            require(
                0 < few < many < float("inf"),
                f"costs that grow with columns, not {few} and {many}",
            )
            layouts = operator.plan.layouts
            require(
                all(self.length % split == 0 for split in layouts),
                f"layouts that divide {self.length}, not {layouts}",
            )

    def check_methods(
        self, dtype: str = "float64", jit: bool = False, brief: bool = False
    ) -> None:
        """Products, gradients, rows, layouts, transposes, sums, factors.

        Args:
            dtype: `"float64"` or `"float32"`.
            jit: bool, whether to compile them, as one function.
            brief: bool, whether to leave out what does not differ under a
                compiler.
        """
        operator = self.operator(dtype)
        # A block that suits no grid, and reaches the end.
        step = min(self.length, 2 + self.length // 3)
        start = self.length - step
        arrays = samples(self.matrix)
        data = {name: tensor(x, dtype) for name, x in arrays.items()}

        def function(start, data, parameters):
            return evaluate(
                self.make_operator,
                start,
                step,
                data,
                parameters,
                self.low_rank,
                brief,
            )

        if jit:
            function = compiled(function)
        actual = function(
            tensor(start, "int32"), data, self._tensors(self.parameters, dtype)
        )
        wanted = expected_results(
            self.dense, self.parameters, start, step, arrays
        )
        missing = set(wanted) - set(actual)
        if not brief and missing - {"factors", "transposed factors"}:
            raise AssertionError(f"not compared: {sorted(missing)}")
        wrong = []
        for name, result in actual.items():
            array = wanted[name]
            found = keras.backend.standardize_dtype(result.dtype)
            if found != dtype:
                wrong.append(f"{name}: {found}")
            result = numpy(result)
            if name in ("traced rows", "rows at"):
                # These may keep batch axes to be broadcast.
                result = np.broadcast_to(result, array.shape)
            if result.shape != array.shape:
                wrong.append(f"{name}: shape {result.shape}, not {array.shape}")
                continue
            error = relative_error(result, array)
            if not error <= TOLERANCE[dtype]:
                wrong.append(f"{name}: relative error {error:.1e}")
        self._requirement(f"methods in {dtype}", operator)(
            not wrong, f"the results of the dense matrix. Wrong are {wrong}"
        )

    def check_parts(self) -> None:
        """`tensors` and `with_tensors`, which checkpointed loops use and
        through which gradients reach every tensor."""
        operator = self.operator()
        require = self._requirement("parts", operator)
        tensors = operator.tensors()
        require(
            bool(tensors) == bool(self.parameters),
            "`tensors()` if and only if there are parameters",
        )
        # The copy holds what it is given, and the original is left alone.
        others = [x + 1.0 for x in tensors]
        given = operator.with_tensors(others).tensors()
        require(
            all(a is b for a, b in zip(given, others, strict=True)),
            "a copy `with_tensors` that holds them",
        )
        kept = zip(operator.tensors(), tensors, strict=True)
        require(
            all(a is b for a, b in kept), "no change through `with_tensors`"
        )

    def check_zeros(self) -> None:
        """Zeros are zeros, not small numbers, in rows, which softmax
        attention takes for visible where they are not zero."""
        matrix, length = self.matrix, self.length
        start, order = length // 3, np.arange(length, dtype="int32")[::-1]

        def rows(parameters, start):
            operator = self._make(parameters, "float32")
            prepared = operator._for_rows()
            size = length - length // 3
            return (
                operator.to_dense(),
                prepared._rows(start, size),
                prepared._rows_at(order.copy()),
            )

        found = staged(rows)(
            self._tensors(self.parameters, "float32"), tensor(start, "int32")
        )
        wanted = matrix, matrix[..., start:, :], matrix[..., order, :]
        for actual, expected in zip(found, wanted, strict=True):
            actual = np.broadcast_to(numpy(actual), expected.shape)
            hidden = np.abs(expected) <= self.rounding * np.abs(matrix).max()
            self._requirement("zeros", self.operator())(
                np.array_equal(actual == 0, hidden),
                "zeros exactly where the dense matrix has them. Received: "
                f"{np.sum((actual == 0) != hidden)} other entries",
            )

    def check_second_derivatives(self) -> None:
        """Hessian-vector products of a loss of the product, against
        differences of its gradient."""
        random = np.random.default_rng(2)
        x = random.normal(size=(*self.matrix.shape[:-1], 2))
        point = [x, *self.parameters]
        direction = [random.normal(size=p.shape) for p in point]
        # Differences of the cubes of large numbers would say nothing.
        scale = 1.0 / np.abs(self.matrix @ x).max()
        one = tensor(1.0, "float64")

        def loss(x, *parameters):
            y = scale * (self._make(list(parameters), "float64") @ x)
            # Not a function of Keras, which knows no float64 on JAX.
            return ops.sum(y - y * y * y / 6)

        def gradient(*tensors):
            return with_gradients(loss)(one, *tensors)[1]

        def slope(*tensors):
            pairs = zip(gradient(*tensors), direction, strict=True)
            return sum(ops.sum(g * tensor(d)) for g, d in pairs)

        def shifted(step):
            return [
                tensor(p + step * d)
                for p, d in zip(point, direction, strict=True)
            ]

        step = 1e-5
        found = traced(lambda *t: with_gradients(slope)(one, *t)[1])(
            *shifted(0.0)
        )
        near = traced(gradient)
        above, below = near(*shifted(step)), near(*shifted(-step))
        for k, (h, a, b) in enumerate(zip(found, above, below, strict=True)):
            wanted = (numpy(a) - numpy(b)) / (2 * step)
            self._close(h, wanted, 1e-6, f"second derivatives, argument {k}")

    def check_pytree(self) -> None:
        """The operator as an argument of a compiled function, which is traced
        once and returns it."""
        operator = self.operator()
        require = self._requirement("pytree", operator)
        ones = np.ones((self.length, 1))
        seen = []

        def multiply(operator, x):
            seen.append(operator)
            return operator @ x, operator

        multiply = traced(multiply)
        y, same = multiply(operator, tensor(ones))
        self._close(y, self.matrix @ ones, 1e-11, "pytree")
        twice, _ = multiply(same.with_tensors(operator.tensors()), tensor(ones))
        require(len(seen) == 1, f"one trace, not {len(seen)}")
        require(
            isinstance(seen[0], MaskOperator) and type(same) is type(operator),
            f"the same class inside and after, not {same}",
        )
        self._close(twice, numpy(y), 1e-12, "pytree, second call")

    # What checks share.

    def _make(self, tensors, dtype):
        return self.make_operator(*(tensors or [dtype]))

    def _tensors(self, arrays, dtype):
        return [tensor(p, dtype) for p in arrays]

    def _requirement(self, check, operator):
        def require(fulfilled, expected):
            if not fulfilled:
                raise AssertionError(
                    f"{operator}, check of {check}: expected {expected}"
                )

        return require

    def _close(self, actual, expected, tolerance, check):
        name = type(self.operator()).__name__
        assert_close(actual, expected, tolerance, f"{name}, check of {check}")


def traced(function):
    """A graph on TensorFlow, a compiled function on JAX."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return compiled(function)


def samples(matrix):
    """Inputs to products, by name, for the products of `evaluate`."""
    length, batch = matrix.shape[-1], matrix.shape[:-2]
    ones = (1,) * len(batch)
    x = _inputs((3, *ones, length, COLUMNS), 1)
    return {
        # x lacks the batch axes of the operator, and the operator one of x.
        "x": x,
        "upstream": _inputs((matrix @ x).shape, 2),
        "no batch": _inputs((length, COLUMNS), 3),
        "ones": _inputs((*ones, length, 1), 4),
        "batch": _inputs((*batch, length, COLUMNS), 5),
        "more": _inputs((2, *batch, length, COLUMNS), 6),
    }


def evaluate(make, start, step, data, parameters, low_rank, brief):
    """Every method of an operator: a dict from names to tensors.

    One function for all, which is compiled once; in brief, what differs under
    a compiler.
    """
    dtype = dtype_of(data["x"])
    operator = make(*(parameters or [dtype]))
    length = operator.num_tokens
    results = {"dense": operator.to_dense()}

    def product(*tensors):
        *parameters, x = tensors
        return make(*(parameters or [dtype])) @ x

    y, gradients = with_gradients(product)(
        data["upstream"], *parameters, data["x"]
    )
    results["product x"] = y
    for k, gradient in enumerate(gradients):
        results[f"gradient {k}"] = gradient
    # As blocked attention asks for them.
    results["traced rows"] = operator._for_rows()._rows(start, step)
    order = (start + np.arange(length, dtype="int32")[::-1]) % length
    results["rows at"] = operator._rows_at(order)
    if brief:
        return results
    for name in ("no batch", "ones", "more"):
        results[f"product {name}"] = operator.matmul(data[name])
    for first, last in _row_ranges(length):
        results[f"rows {first}:{last}"] = operator.rows(first, last)
    for split in _divisors(length):
        x = data["batch"]
        shape = tuple(x.shape)
        shape = (*shape[:-2], split, length // split, shape[-1])
        x = ops.swapaxes(ops.reshape(x, shape), -1, -2)
        results[f"layout {split}"] = operator.apply(x)
    transposed = operator.T
    results["transposed dense"] = operator.transpose().to_dense()
    results["transposed product"] = transposed @ data["more"]
    results["transposed twice"] = transposed.T.rows(0, 1)
    results["scaled"] = (2.5 * operator).rows(0, 1)
    total = operator + operator * np.float64(2.0)
    assert isinstance(total, Sum), f"expected a Sum. Received: {total}"
    results["sum"] = total @ data["no batch"]
    results["sum rows"] = total.rows(length - 1, length)
    again = operator.with_tensors([x * 1.0 for x in operator.tensors()])
    assert type(again) is type(operator) and again.shape == operator.shape, (
        f"with_tensors expected {operator}. Received: {again}"
    )
    results["put together"] = again @ data["no batch"]
    factors = operator.factors()
    assert low_rank is None or (factors is not None) == low_rank, (
        f"factors() expected {'a pair' if low_rank else None}. Received: "
        f"{factors}"
    )
    if factors is not None:
        results["factors"] = LowRank(*factors).to_dense()
        w, u = transposed.factors()
        results["transposed factors"] = LowRank(u, w).to_dense()
    return results


def expected_results(dense, parameters, start, step, data):
    """What `evaluate` should return, by NumPy; factors included."""
    matrix = dense(*parameters)
    length, batch = matrix.shape[-1], matrix.shape[:-2]
    transposed = np.swapaxes(matrix, -1, -2)
    results = {"dense": matrix, "product x": matrix @ data["x"]}

    def loss(*parameters):
        return np.sum(data["upstream"] * (dense(*parameters) @ data["x"]))

    dx = transposed @ data["upstream"]
    dx = dx.sum(tuple(range(dx.ndim - data["x"].ndim)))
    ones = [k for k, n in enumerate(data["x"].shape[:-2]) if n == 1]
    dx = dx.sum(tuple(ones), keepdims=True)
    gradients = complex_step_gradients(loss, parameters)
    for k, gradient in enumerate([*gradients, dx]):
        results[f"gradient {k}"] = gradient
    for name in ("no batch", "ones", "more"):
        results[f"product {name}"] = matrix @ data[name]
    results["traced rows"] = matrix[..., start : start + step, :]
    order = (start + np.arange(length)[::-1]) % length
    results["rows at"] = matrix[..., order, :]
    for first, last in _row_ranges(length):
        results[f"rows {first}:{last}"] = matrix[..., first:last, :]
    y = matrix @ data["batch"]
    assert y.shape[:-2] == batch
    for split in _divisors(length):
        results[f"layout {split}"] = _lay_out(y, split)
    results["transposed dense"] = transposed
    results["transposed product"] = transposed @ data["more"]
    results["transposed twice"] = matrix[..., :1, :]
    results["scaled"] = 2.5 * matrix[..., :1, :]
    results["sum"] = 3 * matrix @ data["no batch"]
    results["sum rows"] = 3 * matrix[..., -1:, :]
    results["put together"] = matrix @ data["no batch"]
    results["factors"] = results["transposed factors"] = matrix
    return results


def _inputs(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def _row_ranges(length):
    """One row, the last, all but the first, and some that suit no grid."""
    return sorted(
        {
            (0, 1),
            (length - 1, length),
            (min(1, length - 1), length),
            (length // 3, length // 3 * 2 + 1),
        }
    )


def _divisors(length):
    return [a for a in range(1, length + 1) if length % a == 0]


def _lay_out(x, split):
    """`(..., L, columns)` to `(..., split, columns, L / split)`."""
    shape = x.shape[:-2] + (split, x.shape[-2] // split, x.shape[-1])
    return np.swapaxes(np.reshape(x, shape), -1, -2)
