"""`Mask`: a mask as a layer, which makes its operator for any topology."""

from collections.abc import Iterable
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_topo.annotations import Initializer, Tensor, TensorLike
from keras_topo.masks.topology import Nodes, Topology
from keras_topo.operators import MaskOperator
from keras_topo.operators.hadamard import causal_part


class Mask(keras.layers.Layer):
    """How much one token may take from another, learned per head.

    A mask holds the weights; for the topology of a call it makes a
    `MaskOperator`, with which attention is computed. `MaskedAttention` and its
    relatives take a mask, or the name of one, build it for the tokens that
    they are built for, and ask it for an operator in every call.

    **To write one**, register a subclass with
    `keras.saving.register_keras_serializable` and implement `build`, which
    creates weights with `self.add_weight`, and `operator`:

    >>> @keras.saving.register_keras_serializable(package="mine")
    ... class Gaussian(Mask):
    ...     nonnegative = True
    ...
    ...     def build(self, num_heads, topology):
    ...         self.width = self.add_weight(
    ...             shape=(num_heads,), initializer="ones", name="width"
    ...         )
    ...
    ...     def operator(self, topology):
    ...         squares = sum(
    ...             (offset / unit) ** 2
    ...             for offset, unit in zip(
    ...                 topology.offsets(), topology.units
    ...             )
    ...         )
    ...         width = ops.reshape(self.width, (-1, *[1] * squares.ndim))
    ...         return topology.toeplitz(ops.exp(-squares / width**2))

    It works in every layer, block, model builder, script and saved file, on
    sequences (causal ones too) and grids of any size, with prefix tokens.

    Divide offsets by `topology.units`: on a grid, the size of each axis, and on
    a sequence, one token. A mask that divides by the length of a sequence
    changes with what is padded or still to come, and cannot be streamed.

    Sums and products of masks are masks: `DecayMask() + TableMask()`,
    `GatedMask() * CausalMask()`.

    Weights are in float32 under every dtype policy but float64, and are never
    cast down.

    Attributes:
        nonnegative: bool, whether no entry is ever negative. If `False`,
            attention checks in each call where the operator does not know.
        uses_inputs: bool, whether the mask is computed from the tokens,
            `topology.inputs`, and so has no rows without them.
        needs_reach: bool, whether the mask is made for certain sizes, and has
            to know them where inputs are of any size; see `set_reach`.
    """

    nonnegative = False
    uses_inputs = False
    needs_reach = False
    #: Whether it hides later tokens from earlier ones, whoever asks.
    is_causal = False

    def build(self, num_heads: int, topology: Topology) -> None:
        """Creates the weights.

        Args:
            num_heads: int, number of heads.
            topology: `Sequence`, `Grid` or `Nodes`; sizes are `None` where the
                layer is built for inputs of any size.
        """

    def operator(self, topology: Topology) -> MaskOperator:
        """The mask of a topology.

        Args:
            topology: `Sequence`, `Grid` or `Nodes`, of the call.

        Returns:
            A `MaskOperator` of shape `(L, L)`, `(heads, L, L)` or `(batch,
            heads, L, L)`, as `topology.toeplitz` and `topology.bordered` make
            it with prefix tokens.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `operator(topology)`"
        )

    def add_weight(
        self,
        shape: tuple[int, ...] | None = None,
        initializer: Initializer = None,
        dtype: str | None = None,
        **options: Any,
    ) -> keras.Variable:
        """As that of a Keras layer, in float32 at least."""
        if dtype is None:
            dtype = wide_dtype(self)
        options = {"autocast": False, **options}
        return super().add_weight(shape, initializer, dtype, **options)

    def set_reach(self, sizes: Iterable[int]) -> None:
        """Says what a mask is made for that needs to know it, unless it says
        so itself: the sizes of a grid, or the length of a sequence."""
        if getattr(self, "reach", sizes) is None:
            self.reach = tuple(sizes)

    @property
    def lacks_reach(self) -> bool:
        """Whether it needs to know sizes that nobody has said yet."""
        return self.needs_reach and getattr(self, "reach", ()) is None

    def clone(self) -> Self:
        """A mask like this one with weights of its own, not built yet."""
        return type(self).from_config(self.get_config())

    #: Sums and products, set by the module that defines them.
    _sum_of: Any = None
    _product_of: Any = None

    def __add__(self, other: "Mask") -> "Mask":
        if not isinstance(other, Mask):
            return NotImplemented
        return self._sum_of([self, other])

    def __radd__(self, other: Any) -> Self:
        # `sum` starts with zero.
        if not isinstance(other, int) or other != 0:
            return NotImplemented
        return self

    def __mul__(self, other: "Mask") -> "Mask":
        if not isinstance(other, Mask):
            return NotImplemented
        return self._product_of([self, other])

    # The layer that owns a mask builds it, with a topology that no file holds.

    def get_build_config(self) -> dict[str, Any] | None:
        return None

    def build_from_config(self, config: dict[str, Any] | None) -> None:
        del config

    # Files of version 0.1 hold the weights of masks among those of the layer
    # that owns it, which hands them on.
    _given = False

    def load_own_variables(self, store: Any) -> None:
        given, self._given = self._given, False
        if given and not len(store.keys()):
            return
        super().load_own_variables(store)

    def take_variables(self, arrays: Iterable[ArrayLike]) -> None:
        """Sets the weights from arrays, in their order."""
        for variable, array in zip(self.weights, arrays, strict=True):
            variable.assign(array)
        self._given = True


def operator_for(mask: Mask, topology: Topology) -> MaskOperator:
    """The operator of a mask, checked, on all tokens of a topology."""
    operator = mask.operator(topology)
    if not isinstance(operator, MaskOperator):
        raise ValueError(
            f"`{type(mask).__name__}.operator` expects to return a "
            f"MaskOperator. Received: {operator!r}"
        )
    if topology.causal:
        # Whatever the mask knows of causality.
        operator = causal_part(operator, topology.shape[0])
    found, expected = operator.num_tokens, topology.num_tokens
    if not isinstance(found, int) or not isinstance(expected, int):
        return operator
    if found == expected:
        return operator
    if found == topology.num_cells:
        return topology.bordered(operator)
    own_nodes = getattr(mask, "num_nodes", None)
    if own_nodes is not None and own_nodes == found:
        raise ValueError(
            f"{type(mask).__name__} expects inputs of {own_nodes} nodes, those "
            f"of its graph. Received: inputs of {expected} tokens"
        )
    raise ValueError(
        f"`{type(mask).__name__}.operator` expects to return an operator on "
        f"the {expected} tokens of {topology}. Received: {operator!r}"
    )


def wide_dtype(layer: keras.layers.Layer) -> str:
    """That of what is never cast down: float32 under any policy but float64."""
    return "float64" if layer.variable_dtype == "float64" else "float32"


def require_axes(mask: Mask, topology: Topology, axes: int) -> None:
    """Raises for tokens with another number of axes than those that a mask was
    built for, where it has weights for each axis."""
    if isinstance(topology, Nodes):
        return  # Which have no offsets: they say so themselves.
    if len(topology.shape) != axes:
        what = f"a grid of {axes} axes"
        if axes == 1:
            what = "a sequence, or a grid of one axis"
        raise ValueError(
            f"{type(mask).__name__} expects {what}, as it was built for: it "
            f"has weights for each axis. Received: {topology}"
        )


def refuse_periodic(mask: Mask, topology: Topology) -> None:
    """Raises where the ends of an axis meet, for masks that do not know of
    it."""
    if any(topology.periodic):
        raise ValueError(
            f"{type(mask).__name__} expects a grid whose ends do not meet. "
            f"Received: {topology}"
        )


def positive_weight(
    layer: keras.layers.Layer, name: str, initial: ArrayLike
) -> keras.Variable:
    """A weight whose softplus starts at the numbers `initial`, not zero; in
    float32 at least."""
    initial = inverse_softplus(initial)
    return layer.add_weight(
        name=name,
        shape=initial.shape,
        initializer=keras.initializers.Constant(initial),
        dtype=wide_dtype(layer),
        autocast=False,
    )


def inverse_softplus(x: ArrayLike) -> np.ndarray:
    """Of numbers that are not negative, float32."""
    x = np.maximum(np.asarray(x, "float64"), 1e-30)
    # Written so that large numbers, for which it is the identity, stay finite.
    return (x + np.log(-np.expm1(-x))).astype("float32")


def magnitudes(x: Tensor) -> Tensor:
    """Absolute values, whose derivative at zero is one.

    That of TensorFlow's `abs` is zero: entries that start so small that they
    are zero in float32 would stay so.
    """
    return ops.where(x >= 0, x, -x)


def softplus(weight: TensorLike) -> Tensor:
    """Of a weight, as a tensor."""
    return ops.softplus(ops.convert_to_tensor(weight))
