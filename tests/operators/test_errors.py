"""What operators refuse: the argument, what was expected, what came."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_topo.operators import (
    BlockDiagonal,
    BlockToeplitz,
    Bordered,
    Causal,
    Dense,
    ExponentialDecay,
    ForestExponential,
    Kronecker,
    LowRank,
    MaskOperator,
    Ones,
    Permuted,
    Scaled,
    SparsePairs,
    Sum,
    Toeplitz,
)


def ones(*shape):
    return np.ones(shape, "float32")


def dense(length, *batch):
    return Dense(ones(*batch, length, length))


ERRORS = {
    "inverse": (
        lambda: Permuted(Ones(3), [1, 2, 0], [1, 2, 0]),
        "`inverse` expects the inverse permutation of `order`",
    ),
    "pairs-range": (
        lambda: SparsePairs([[0, 2]], [1.0], 2),
        "`pairs` expects ids of tokens from 0 to 1. Received: 2",
    ),
    "pairs-range-each": (
        lambda: SparsePairs([[[0, 0]], [[3, 0]]], [1.0], 3),
        "`pairs` expects ids of tokens from 0 to 2. Received: 3",
    ),
    "pairs-negative": (
        lambda: SparsePairs([[0, -1]], [1.0], None),
        "`pairs` expects ids of tokens from 0. Received: -1",
    ),
    "pairs-floats": (
        lambda: SparsePairs([[0.0, 1.5]], [1.0], 2),
        "`pairs` expects integers. Received: pairs of dtype float64",
    ),
    "dense-vector": (lambda: Dense(ones(3)), "`matrix`"),
    "dense-oblong": (lambda: Dense(ones(3, 4)), "`matrix`"),
    "dense-empty": (lambda: Dense(ones(0, 0)), "Dense needs"),
    "ones-empty": (lambda: Ones(0), "Ones needs"),
    "ones-negative": (lambda: Ones(-3), "Ones needs"),
    "causal-empty": (lambda: Causal(0), "Causal needs"),
    "forest-cycle": (
        lambda: ForestExponential([1, 2, 0, -1]),
        r"a cycle through the edge from \d to its parent \d",
    ),
    "forest-loop": (lambda: ForestExponential([-1, 1]), "edge from 1 to"),
    "forest-empty": (
        lambda: ForestExponential(np.zeros(0, int)),
        "`parents` expects at least one",
    ),
    "forest-range": (
        lambda: ForestExponential([-1, 5]),
        r"`parents` .* from -1 to 1. Received: parents\[1\]=5",
    ),
    "forest-floats": (lambda: ForestExponential([-1.0, 0.0]), "of integers"),
    "forest-weights": (
        lambda: ForestExponential([-1, 0], [1.0, 2.0, 3.0]),
        "`edge_weights` expects the shape",
    ),
    "forest-weights-three": (
        lambda: ForestExponential([-1, 0], (ones(2), ones(2), ones(2))),
        "tuple of 3",
    ),
    "forest-weights-nan": (
        lambda: ForestExponential([-1, 0], [1.0, np.nan]),
        "finite numbers. Received: .* node 1",
    ),
    "forest-vectors": (
        lambda: ForestExponential([-1, 0], ones(2, 3), a=ones(2)),
        "`a` expects",
    ),
    "decay-empty": (lambda: ExponentialDecay(0.5, 0), "ExponentialDecay"),
    "toeplitz-scalar": (lambda: Toeplitz(1.0), "`column`"),
    "toeplitz-scalar-row": (lambda: Toeplitz(ones(3), 1.0), "`row`"),
    "toeplitz-lengths": (lambda: Toeplitz(ones(3), ones(4)), "`row`"),
    "toeplitz-method": (
        lambda: Toeplitz(ones(3), method="kronecker"),
        "`method`",
    ),
    "toeplitz-batch": (lambda: Toeplitz(ones(2, 3), ones(3, 3)), "[Bb]atch"),
    "grid-sizes": (lambda: BlockToeplitz(ones(5, 5), (3, 4)), "`table`"),
    "grid-rank": (lambda: BlockToeplitz(ones(5), (3, 3)), "`table`"),
    "grid-zero": (lambda: BlockToeplitz(ones(5, 5), (3, 0)), "`grid_shape`"),
    "grid-none": (lambda: BlockToeplitz(ones(5, 5), ()), "`grid_shape`"),
    "grid-float": (lambda: BlockToeplitz(ones(5), (3.0,)), "`grid_shape`"),
    "grid-method": (
        lambda: BlockToeplitz(ones(5), (3,), method="direct"),
        "`method`",
    ),
    "separable-empty": (lambda: BlockToeplitz([], (3,)), "`table`"),
    "separable-axes": (
        lambda: BlockToeplitz([[ones(5)]], (3, 3)),
        "`table`",
    ),
    "separable-sizes": (
        lambda: BlockToeplitz([[ones(5), ones(4)]], (3, 3)),
        "`table`",
    ),
    "kronecker-empty": (lambda: Kronecker([]), "`factors`"),
    "kronecker-operator": (lambda: Kronecker(dense(3)), "`factors`"),
    "kronecker-oblong": (lambda: Kronecker([ones(2, 3)]), "`matrix`"),
    "kronecker-batch": (
        lambda: Kronecker([dense(2, 3), dense(2, 4)]),
        "[Bb]atch",
    ),
    "low_rank-vector": (lambda: LowRank(ones(3)), "`u`"),
    "low_rank-tokens": (lambda: LowRank(ones(3, 2), ones(4, 2)), "`w`"),
    "low_rank-rank": (lambda: LowRank(ones(3, 2), ones(3, 1)), "`w`"),
    "sum-empty": (lambda: Sum([]), "`operators`"),
    "sum-of-arrays": (lambda: Sum([ones(2, 2)]), "`operators`"),
    "sum-tokens": (lambda: Sum([dense(2), dense(3)]), "`operators`"),
    "plus-tokens": (lambda: dense(2) + dense(3), "`operators`"),
    "sum-batch": (lambda: Sum([dense(2, 2), dense(2, 3)]), "[Bb]atch"),
    "scaled-array": (lambda: Scaled(ones(2, 2), 2.0), "`operator`"),
    "scaled-batch": (lambda: Scaled(dense(2, 3), ones(2)), "[Bb]atch"),
    "blocks-empty": (lambda: BlockDiagonal([]), "`operators`"),
    "blocks-of-arrays": (
        lambda: BlockDiagonal([dense(2), ones(2, 2)]),
        "`operators`",
    ),
    "bordered-array": (lambda: Bordered(ones(2, 2), 1), "`operator`"),
    "bordered-negative": (
        lambda: Bordered(dense(2), -1),
        "`num_prefix_tokens`",
    ),
    "bordered-float": (
        lambda: Bordered(dense(2), 1.0),
        "`num_prefix_tokens`",
    ),
    "product-tokens": (lambda: dense(3) @ ones(4, 1), "`x`"),
    "product-vector": (lambda: dense(3) @ ones(3), "`x`"),
    "rows-order": (lambda: dense(3).rows(2, 1), "rows"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_names_the_argument_and_what_came(name):
    build, argument = ERRORS[name]
    with pytest.raises(ValueError, match=argument) as caught:
        build()
    assert " Received: " in str(caught.value)


def test_array_times_operator_on_the_right_is_no_silent_broadcast():
    with pytest.raises(TypeError):
        ones(3, 3) @ dense(3)


def test_whole_numbers_become_floats():
    assert Dense(np.eye(3, dtype="int64")).dtype == keras.config.floatx()
    assert Toeplitz([1, 2, 3]).dtype == keras.config.floatx()


class Forgetful(MaskOperator):
    """Holds a tensor that `_fields` does not name."""

    def __init__(self):
        self.scale = ops.ones(3)
        super().__init__((3, 3), "float32")

    def _apply(self, x):
        return self.scale * x

    def _transpose(self):
        return self


def test_an_operator_that_forgets_its_fields():
    with pytest.raises(ValueError, match="_fields.*'scale'"):
        Forgetful().tensors()


def test_an_operator_of_ones_own():
    """Product and transpose are enough; what is missing is named."""

    class Scaling(Forgetful):
        _fields = ("scale",)

    mask = Scaling() + Ones(3)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(mask.to_dense()), np.eye(3) + 1
    )
    assert mask.cost(4) > 0
    bare = MaskOperator((2, 2), "float32")
    with pytest.raises(NotImplementedError, match="_apply"):
        bare.matmul(ones(2, 1))
    with pytest.raises(NotImplementedError, match="_transpose"):
        bare.transpose()
