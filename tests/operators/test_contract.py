"""The contract of `MaskOperator`, checked on every operator.

Every method is compared with the dense matrix, built in NumPy from the
definition (`tests/reference.py`). **A new operator joins with one `case`: see
`cases.py`.**
"""

import re

import keras
import numpy as np
import pytest
import reference as ref
from cases import CASES, parametrize, representatives
from keras import ops

from keras_topo.operators import (
    Causal,
    Dense,
    LowRank,
    MaskOperator,
    Scaled,
    Sum,
)

COLUMNS = 3
TOLERANCE = {"float64": 1e-11, "float32": 5e-5}


def inputs(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def row_ranges(length):
    """One row, the last, all but the first, and some that suit no grid."""
    return sorted(
        {
            (0, 1),
            (length - 1, length),
            (min(1, length - 1), length),
            (length // 3, length // 3 * 2 + 1),
        }
    )


def divisors(length):
    return [a for a in range(1, length + 1) if length % a == 0]


def lay_out(x, split):
    """`(..., L, columns)` to `(..., split, columns, L / split)`."""
    shape = x.shape[:-2] + (split, x.shape[-2] // split, x.shape[-1])
    return np.swapaxes(np.reshape(x, shape), -1, -2)


def samples(case):
    """Inputs to products, by name, for the products of `evaluate`."""
    matrix = case.matrix()
    length, batch = matrix.shape[-1], matrix.shape[:-2]
    ones = (1,) * len(batch)
    x = inputs((3, *ones, length, COLUMNS), 1)
    return {
        # x lacks the batch axes of the operator, and the operator one of x.
        "x": x,
        "upstream": inputs((matrix @ x).shape, 2),
        "no batch": inputs((length, COLUMNS), 3),
        "ones": inputs((*(1 for _ in batch), length, 1), 4),
        "batch": inputs((*batch, length, COLUMNS), 5),
        "more": inputs((2, *batch, length, COLUMNS), 6),
    }


def evaluate(case, start, step, data, parameters, brief):
    """Every method of an operator: a dict from names to tensors.

    One function for all, which is compiled once; in brief, what differs under
    a compiler.
    """
    dtype = data["x"].dtype
    operator = case.build(*(parameters or [dtype]))
    length = operator.num_tokens
    results = {"dense": operator.to_dense()}

    def product(*tensors):
        *parameters, x = tensors
        return case.build(*(parameters or [dtype])) @ x

    y, gradients = ref.with_gradients(product)(
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
    for first, last in row_ranges(length):
        results[f"rows {first}:{last}"] = operator.rows(first, last)
    for split in divisors(length):
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
    assert isinstance(total, Sum)
    results["sum"] = total @ data["no batch"]
    results["sum rows"] = total.rows(length - 1, length)
    tensors = operator.tensors()
    again = operator.with_tensors([x * 1.0 for x in tensors])
    assert type(again) is type(operator) and again.shape == operator.shape
    results["put together"] = again @ data["no batch"]
    factors = operator.factors()
    assert (factors is not None) == case.low_rank
    if case.low_rank:
        results["factors"] = LowRank(*factors).to_dense()
        w, u = transposed.factors()
        results["transposed factors"] = LowRank(u, w).to_dense()
    return results


def expected(case, start, step, data):
    matrix = case.matrix()
    length, batch = matrix.shape[-1], matrix.shape[:-2]
    transposed = np.swapaxes(matrix, -1, -2)
    results = {"dense": matrix, "product x": matrix @ data["x"]}

    def loss(*parameters):
        product = case.dense(*parameters) @ data["x"]
        return np.sum(data["upstream"] * product)

    dx = transposed @ data["upstream"]
    dx = dx.sum(tuple(range(dx.ndim - data["x"].ndim)))
    ones = [k for k, n in enumerate(data["x"].shape[:-2]) if n == 1]
    dx = dx.sum(tuple(ones), keepdims=True)
    gradients = ref.complex_step_gradients(loss, case.parameters())
    for k, gradient in enumerate([*gradients, dx]):
        results[f"gradient {k}"] = gradient
    for name in ("no batch", "ones", "more"):
        results[f"product {name}"] = matrix @ data[name]
    results["traced rows"] = matrix[..., start : start + step, :]
    results["rows at"] = matrix[
        ..., (start + np.arange(length)[::-1]) % length, :
    ]
    for first, last in row_ranges(length):
        results[f"rows {first}:{last}"] = matrix[..., first:last, :]
    y = matrix @ data["batch"]
    assert y.shape[:-2] == batch
    for split in divisors(length):
        results[f"layout {split}"] = lay_out(y, split)
    results["transposed dense"] = transposed
    results["transposed product"] = transposed @ data["more"]
    results["transposed twice"] = matrix[..., :1, :]
    results["scaled"] = 2.5 * matrix[..., :1, :]
    results["sum"] = 3 * matrix @ data["no batch"]
    results["sum rows"] = 3 * matrix[..., -1:, :]
    results["put together"] = matrix @ data["no batch"]
    if case.low_rank:
        results["factors"] = results["transposed factors"] = matrix
    return results


def check_every_method(case, dtype, run_compiled=False, brief=False):
    operator = case.operator(dtype)
    length = operator.num_tokens
    # A block that suits no grid, and reaches the end.
    step = min(length, 2 + length // 3)
    start = length - step
    arrays = samples(case)
    data = {name: ref.tensor(x, dtype) for name, x in arrays.items()}
    parameters = [ref.tensor(p, dtype) for p in case.parameters()]

    def function(start, data, parameters):
        return evaluate(case, start, step, data, parameters, brief)

    if run_compiled:
        function = ref.compiled(function)
    actual = function(ref.tensor(start, "int32"), data, parameters)
    wanted = expected(case, start, step, arrays)
    assert set(actual) <= set(wanted) and (brief or len(actual) == len(wanted))
    wrong = []
    for name, result in actual.items():
        array = wanted[name]
        assert keras.backend.standardize_dtype(result.dtype) == dtype, name
        result = ref.numpy(result)
        if name in ("traced rows", "rows at"):
            # These may keep batch axes to be broadcast.
            result = np.broadcast_to(result, array.shape)
        error = ref.relative_error(result, array)
        if not error <= TOLERANCE[dtype]:
            wrong.append(f"{name}: relative error {error:.1e}")
    assert not wrong, wrong


each_case = parametrize(CASES)

# Eagerly, JAX compiles every step by itself, which takes minutes; TensorFlow
# has every size, and XLA the same arithmetic on both.
eager_only = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="slow to run eagerly on JAX"
)


@eager_only
@each_case
def test_every_method_in_float64(case):
    check_every_method(case, "float64", run_compiled=False)


@eager_only
@parametrize([c for c in CASES if "batch2" not in c.name])
def test_every_method_in_float32(case):
    check_every_method(case, "float32")


@parametrize(representatives())
def test_every_method_compiled(case):
    on_jax = keras.backend.backend() == "jax"
    # JAX has no eager run of the rest: one of each kind is compiled whole.
    whole = r"dense|low_rank-two|decay|kronecker-3|.*3x4-fft|bordered-b|sum-b"
    check_every_method(
        case,
        "float64" if on_jax else "float32",
        run_compiled=True,
        brief=not (on_jax and re.match(whole, case.name)),
    )


def test_case_names_are_unique():
    assert len({c.name for c in CASES}) == len(CASES)


@parametrize([c for c in CASES if "batch2" not in c.name])
def test_what_an_operator_says_of_itself(case):
    matrix = case.matrix()
    for dtype in ("float64", "float32"):
        operator = case.operator(dtype)
        assert isinstance(operator, MaskOperator)
        assert operator.shape == operator.T.shape == matrix.shape
        assert operator.batch_shape == matrix.shape[:-2]
        assert operator.num_tokens == matrix.shape[-1]
        assert operator.dtype == operator.T.dtype == dtype
        assert (2.0 * operator).dtype == dtype
        assert type(operator).__name__ in repr(operator)
        assert str(operator.shape) in repr(operator)
        few, many = operator.cost(1), operator.cost(10_000)
        assert 0 < few < many < float("inf")
        length = operator.num_tokens
        assert all(length % split == 0 for split in operator.plan.layouts)


@parametrize([c for c in CASES if "batch2" not in c.name])
def test_taking_apart_and_putting_together(case):
    """As checkpointed loops do, whose gradients must reach every tensor."""
    operator = case.operator()
    tensors = operator.tensors()
    assert bool(tensors) == bool(case.shapes)
    # The copy holds what it is given, and the original is left alone.
    others = [x + 1.0 for x in tensors]
    given = operator.with_tensors(others).tensors()
    assert all(a is b for a, b in zip(given, others, strict=True))
    kept = zip(operator.tensors(), tensors, strict=True)
    assert all(a is b for a, b in kept)


def test_products_with_other_dtypes():
    """In the wider of the two, and in float32 at least."""
    matrix = inputs((5, 5))
    x = inputs((5, 2), 1)
    for mask_dtype, x_dtype, dtype in (
        ("float32", "float64", "float64"),
        ("float64", "float32", "float64"),
        ("bfloat16", "bfloat16", "float32"),
        ("float32", "float16", "float32"),
    ):
        mask = Dense(ops.cast(matrix, mask_dtype))
        y = mask @ ops.cast(x, x_dtype)
        assert keras.backend.standardize_dtype(y.dtype) == dtype
        ref.assert_close(y, matrix @ x, 2e-2)


def test_no_columns():
    for mask in (Dense(np.eye(4)), LowRank(np.ones((4, 2))), Causal(4)):
        assert tuple((mask @ np.ones((4, 0))).shape) == (4, 0)


def test_tensors_and_numbers_as_factors():
    mask = Dense(np.eye(3, dtype="float32"))
    for scalar in (2.0, np.float64(2.0), np.array(2.0), ref.tensor(2.0)):
        assert (mask * scalar).dtype == "float32"
        ref.assert_close((mask * scalar).to_dense(), 2 * np.eye(3), 0)
    for scalar in (2.0, np.float64(2.0), np.array([2.0, 3.0])):
        assert isinstance(scalar * mask, Scaled)
    for wrong in (lambda: mask + 1.0, lambda: mask * mask):
        with pytest.raises(TypeError):
            wrong()
