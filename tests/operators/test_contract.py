"""The contract of `MaskOperator`, checked on every operator.

By `keras_topo.testing`: every method is compared with the dense matrix, built
in NumPy from the definition (`tests/reference.py`). **A new operator joins with
one `case`: see `cases.py`.**
"""

import re

import keras
import numpy as np
import pytest
import reference as ref
from cases import (
    CASES,
    one_of_each_kind,
    parametrize,
    representatives,
    without_batch,
)
from keras import ops

from keras_topo.operators import (
    Causal,
    Dense,
    LowRank,
    Scaled,
)

NAMES = {c.name for c in CASES}
# Of twins, one without and one with a batch axis, each is run once eagerly.
WITH_BATCH = [c for c in CASES if c.name + "-batch2" not in NAMES]
WITHOUT_BATCH = [c for c in CASES if "batch2" not in c.name]

# Names of one of each kind.
KINDS = [re.escape(c.name) + "$" for c in without_batch(one_of_each_kind())]

# Eagerly, JAX compiles every step by itself, which takes minutes; TensorFlow
# has every size, and XLA the same arithmetic on both.
eager_only = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="slow to run eagerly on JAX"
)


# Besides one of each class and method: one token, and shared parameters.
EDGES = r".*-1(-batch2)?$|.*1-token|.*broadcast|.*auto|.*symmetric"


@eager_only
@parametrize(
    WITH_BATCH,
    [*representatives(), *(c for c in CASES if re.match(EDGES, c.name))],
)
def test_every_method_in_float64(case):
    case.contract().check_methods("float64")


# Where float32 is more than fewer digits: transforms, powers, sums of many.
ROUNDED = "toeplitz-fft|block_toeplitz.*fft|torus|separable|forest|diffusion"
ROUNDED += "|resolvent|gated|decay|kronecker|low_rank|pairs|factors|sum"


@eager_only
@parametrize(
    WITHOUT_BATCH,
    [c for c in without_batch(one_of_each_kind()) if re.match(ROUNDED, c.name)],
)
def test_every_method_in_float32(case):
    case.contract().check_methods("float32")


# On JAX, other tests compile the rest: of attention and of periodic grids.
ON_JAX = "(?!block_toeplitz-3x4-dense|toeplitz-b|hypercube|cylinder|dense-exp"
ON_JAX += "|decay-causal|gated-70)"


@parametrize(representatives(), one_of_each_kind(), on_jax=ON_JAX)
def test_every_method_compiled(case):
    on_jax = keras.backend.backend() == "jax"
    # JAX has no eager run of the rest: one of each kind is compiled whole.
    whole = (
        r"dense-b|low_rank-two|decay-70|kronecker-3|.*3x4-fft|bordered-b|sum-b"
    )
    case.contract().check_methods(
        "float64" if on_jax else "float32",
        jit=True,
        brief=not (on_jax and re.match(whole, case.name)),
    )


def test_case_names_are_unique():
    assert len(NAMES) == len(CASES)


@parametrize(WITHOUT_BATCH, on_jax="|".join(KINDS))
def test_what_an_operator_says_of_itself(case):
    case.contract().check_description()


@parametrize(WITHOUT_BATCH)
def test_taking_apart_and_putting_together(case):
    case.contract().check_parts()


def inputs(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


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
