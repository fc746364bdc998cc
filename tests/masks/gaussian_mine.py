"""A mask as a user writes it, in a module of its own."""

import keras
from keras import ops

from keras_topo.masks import Mask


@keras.saving.register_keras_serializable(package="mine")
class GaussianMine(Mask):
    nonnegative = True

    def build(self, num_heads, topology):
        self.width = self.add_weight((num_heads,), "ones", name="width")

    def operator(self, topology):
        axes = zip(topology.offsets(), topology.units, strict=True)
        squares = sum((offset / unit) ** 2 for offset, unit in axes)
        width = ops.reshape(self.width, (-1, *[1] * squares.ndim))
        return topology.toeplitz(ops.exp(-squares * width**2))
