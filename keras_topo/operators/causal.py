"""The mask of autoregression."""

from keras import ops

from keras_topo.annotations import Tensor
from keras_topo.operators import cost as costs
from keras_topo.operators.ordered import OrderedDecay, split_length
from keras_topo.operators.plan import Plan


class Causal(OrderedDecay):
    """The mask of autoregression: token `i` sees the tokens `j <= i`.

    A decay of rate zero: what the tokens so far leave behind is the sum
    `sum_j phi(k_j) [v_j, 1]^T`, the state of linear causal attention.

    *Complexity*: products `O(L columns)` by prefix sums.

    Args:
        length: int, number of tokens; or an int32 scalar where a traced
            function does not know it.
        reverse: bool; `True` for the transpose, `j >= i`.
        dtype: dtype of the entries.

    Example:

    >>> print(np.array(Causal(3).to_dense()))
    [[1. 0. 0.]
     [1. 1. 0.]
     [1. 1. 1.]]
    """

    _fields = ("traced_length",)

    def __init__(
        self,
        length: int | Tensor,
        reverse: bool = False,
        dtype: str = "float32",
    ):
        length, self.traced_length = split_length(length)
        super().__init__((length, length), dtype)
        self.reverse = bool(reverse)

    def _plan(self):
        length = self.num_tokens
        return Plan(layouts=(1, length), held_per_column=length)

    def _directions(self):
        rates = ops.zeros((1,), self.dtype)
        return (None, rates) if self.reverse else (rates, None)

    def _apply(self, x):
        axis = -1 if x.shape[-3] == 1 else -3
        if self.reverse:
            return ops.flip(ops.cumsum(ops.flip(x, axis), axis), axis)
        return ops.cumsum(x, axis)

    def _rows_at(self, ids):
        row = ids[:, None]
        column = ops.arange(self.length, dtype="int32")[None, :]
        visible = column >= row if self.reverse else column <= row
        return ops.cast(visible, self.dtype)

    def _transpose(self):
        return Causal(self.length, not self.reverse, self.dtype)

    def _cost(self, columns):
        return costs.LAUNCH + 4 * costs.ELEMENT * self.num_tokens * columns
