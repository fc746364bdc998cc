# %% [markdown]
# # A mask of your own
#
# A mask is a registered class with two methods. `build` creates the weights for a number of
# heads. `operator` returns the operator for the [topology](../concepts/topologies.md) of a
# call. `topology.offsets()` returns the possible offsets between two tokens along each
# axis, and `topology.units` what to measure them in: the size of each axis of a grid, so
# that the mask resamples, and one token of a sequence. `topology.toeplitz` makes an
# operator from a table of values per offset, `(heads, *offsets)`.

# %%
import keras
import numpy as np
from keras import ops

from keras_topo.masks import DecayMask, Mask
from keras_topo.models import topvit


@keras.saving.register_keras_serializable(package="mine")
class Gaussian(Mask):
    nonnegative = True

    def build(self, num_heads, topology):
        self.width = self.add_weight(
            shape=(num_heads, 1, 1), initializer="ones"
        )

    def operator(self, topology):  # a 2-D grid of the size of the call
        row, column = topology.offsets()
        height, width = topology.units
        squares = (row / height) ** 2 + (column / width) ** 2
        return topology.toeplitz(ops.exp(-squares / self.width**2))


model = topvit(
    (32, 2, 64, 2), patch_size=4, image_shape=(None, None, 3), mask=Gaussian()
)
print(model(np.zeros((1, 40, 48, 3))).shape)  # (1, 10)

# %% [markdown]
# The mask works in every layer, block, model and saved file, on grids of any size. It can
# be added to and multiplied by other masks:

# %%
model.save("mine.keras")
again = keras.saving.load_model("mine.keras")
x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))
print(np.allclose(again(x), model(x)))  # True
both = topvit((32, 2, 64, 1), mask=Gaussian() + DecayMask())
print(both(np.zeros((1, 32, 32, 3))).shape)  # (1, 10)

# %% [markdown]
# On the command line, give its file and name:
#
# ```sh
# python -m training.train images --mask mine.py:Gaussian
# ```
#
# ## An operator of your own
#
# If a mask is not a function of the offset, write an operator. It needs a product and a
# transpose. This one is a diagonal matrix plus a matrix of rank one:

# %%
from keras_topo.attention import masked_linear_attention
from keras_topo.operators import MaskOperator


class DiagonalPlusRankOne(MaskOperator):
    """`M = diag(d) + u u^T`."""

    _fields = ("d", "u")

    def __init__(self, d, u):
        self.d, self.u = ops.convert_to_tensor(d), ops.convert_to_tensor(u)
        super().__init__(2 * tuple(self.d.shape), self.d.dtype)

    def _apply(self, x):  # (..., 1, columns, tokens)
        return self.d * x + ops.sum(self.u * x, -1, keepdims=True) * self.u

    def _transpose(self):
        return self


q, k, v = np.random.rand(3, 1, 8, 785, 64).astype("float32")
d, u = np.random.rand(2, 785).astype("float32")
out = masked_linear_attention(q, k, v, DiagonalPlusRankOne(d, u))
print(out.shape)  # (1, 8, 785, 64)

# %% [markdown]
# Optional methods make it faster: `_rows` and `_rows_at` compute rows without a full
# product, `_cost` returns the cost of a product, and `_own_forms` lists cheaper forms of
# attention. See [`MaskOperator`](../reference/operators.md).
#
# ## Tests
#
# `keras_topo.testing` has the tests that the library uses for its own operators and layers.
# `run_operator_test` compares products, gradients, rows and attention with the dense
# matrix. `run_layer_test` checks config, shapes, padding, dtypes, files, compilation,
# quantization and training of a layer.

# %%
from keras_topo.testing import run_operator_test

run_operator_test(
    DiagonalPlusRankOne,
    lambda d, u: np.diag(d) + np.outer(u, u),
    parameters=[np.random.rand(7), np.random.rand(7)],
)
