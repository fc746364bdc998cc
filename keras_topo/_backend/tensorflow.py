"""TensorFlow: slices with traced starts, FFTs, checkpointed maps."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.compiler.tf2xla.ops.gen_xla_ops import (
    xla_optimization_barrier,
)
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_topo.annotations import Tensor


def _leave_unconverted(package):
    """Keeps AutoGraph off a package when a user's function is traced.

    The package branches on Python values alone: there is nothing to convert,
    and the conversion of its sources takes seconds. TensorFlow keeps a list of
    such packages, Keras among them, without a public way into it; the public
    decorator would have to stand at every function of the package.
    """
    try:
        from tensorflow.python.autograph.core import config

        rules = tuple(config.CONVERSION_RULES)
        config.CONVERSION_RULES = (config.DoNotConvert(package), *rules)
    except (ImportError, AttributeError, TypeError):
        # Another TensorFlow, where a first trace takes longer.
        return


_leave_unconverted("keras_topo")


def slice_axis(
    x: Tensor, start: int | Tensor, size: int | Tensor, axis: int
) -> Tensor:
    """`x[..., start : start + size, ...]` along `axis`; `start` may be traced.

    `tf.slice` with explicit sizes is the one form of slicing that XLA accepts
    with a traced start.
    """
    dynamic = tf.shape(x)
    sizes = [
        dynamic[k] if extent is None else extent
        for k, extent in enumerate(x.shape)
    ]
    starts = [0] * len(sizes)
    axis = axis % len(sizes)
    starts[axis], sizes[axis] = start, size
    return tf.slice(x, starts, sizes)


def update_axis(x, update, start, axis):
    """`x` with `update` in it, from `start` along `axis`, which may be traced.

    The one operation for this that XLA compiles has no gradient of its own.
    What would stand beyond the end is moved back from it.
    """
    count = tf.shape(x)[axis]
    size = update.shape[axis]
    size = tf.shape(update)[axis] if size is None else size
    start = tf.clip_by_value(start, 0, count - size)

    @tf.custom_gradient
    def write(x, update):
        starts: list[Tensor] = [0] * len(x.shape)
        starts[axis] = start

        def gradient(upstream):
            ids = tf.range(count)
            inside = (ids >= start) & (ids < start + size)
            shape = [1] * len(x.shape)
            shape[axis] = -1
            kept = tf.cast(tf.reshape(~inside, shape), upstream.dtype)
            return upstream * kept, slice_axis(upstream, start, size, axis)

        return ops.slice_update(x, starts, update), gradient

    return write(x, update)


def ensure_size(x, size, axis):
    """`x`, whose size along `axis` must be `size`: an error when it is run,
    where the graph does not know it, with both shapes in it."""
    shape = [None] * len(x.shape)
    shape[axis] = size
    return tf.ensure_shape(x, shape)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """`keras.ops.matmul`, around a fault of TensorFlow on CPUs.

    Up to 2.21 the oneDNN product of `(batch, 1, i, k)`, one head, with a single
    matrix that has batch axes, `(1, k, j)`, reads and writes out of bounds
    (tensorflow/tensorflow issues 117700 and 123109). Without those axes the
    product takes another way, and so does its gradient.
    """
    lead = tuple(y.shape[:-2])
    if (
        len(x.shape) == 4
        and x.shape[1] == 1
        and 1 <= len(lead) <= 2
        and all(n == 1 for n in lead)
    ):
        y = tf.squeeze(y, list(range(len(lead))))
    return ops.matmul(x, y)


@tf.custom_gradient
def divide(x, total):
    """`x / total`, the rows of `x` by one number each.

    XLA would make one divisor, `total ** 2`, of the two in the gradient of the
    division, which leaves the range of float32 for a total below 1e-19 or above
    1e19, and gradients with it.

    Args:
        x: `(..., n)`.
        total: `(..., 1)`, not zero.
    """
    y = x / total

    def gradient(upstream):
        # Not `y`, which is constant in derivatives of this; nor this function,
        # for saved models keep gradients, but not those of gradients.
        along = tf.reduce_sum(upstream * (x / total), axis=-1, keepdims=True)
        return upstream / total, -along / total

    return y, gradient


def concrete(x: Tensor) -> np.ndarray | None:
    """The value of a tensor as an array; `None` where it is traced."""
    # Variables always have the method, and refuse it in a graph.
    variable = isinstance(x, (tf.Variable, keras.Variable))
    if variable and not tf.executing_eagerly():
        return None
    return x.numpy() if hasattr(x, "numpy") else None


def constant(array: np.ndarray) -> Tensor:
    """An array of the host as a tensor.

    A large one is made outside of a function that is being traced, which
    captures it: in the graph of the function, arrays may not have more than 2
    GB together.
    """
    if array.nbytes < 2**16:
        return tf.convert_to_tensor(array)
    with tf.init_scope():
        return tf.convert_to_tensor(array)


def register_pytree(registered, take_apart, put_together):
    """Makes objects of a class arguments of `tf.function`.

    Args:
        registered: the class.
        take_apart: from an object to a list of tensors and a hashable
            structure.
        put_together: from a structure and an iterable of tensors to an object.
    """

    def flatten(self) -> tuple[Any, tuple[Tensor, ...]]:
        leaves, structure = take_apart(self)
        return (structure,), tuple(leaves)

    def unflatten(metadata: Any, leaves: Any) -> Any:
        return put_together(*metadata, leaves)

    # The protocol of tf.nest for classes of one's own.
    registered.__tf_flatten__ = flatten
    registered.__tf_unflatten__ = staticmethod(unflatten)


def with_derivatives(
    y: Tensor, sources: Sequence[Tensor], pullback: Callable[..., Any]
) -> Tensor:
    """`y` with the derivatives that `pullback` states.

    For solutions of equations: how `y` was found, in loops that keep nothing,
    plays no part in its derivatives, which follow from `y` itself. The `y` that
    `pullback` sees has its derivatives too, and `pullback` consists of
    differentiable steps, so derivatives of all orders are right.

    Args:
        y: tensor, computed from `sources`; how is ignored.
        sources: list of floating tensors.
        pullback: function `(y, upstream, *sources)` to the list of gradients
            with respect to `sources`.
    """

    @tf.custom_gradient
    def attach(y, *sources):
        def gradient(upstream):
            # A captured `y` would count as constant in derivatives of this.
            again = attach(y, *sources)
            return tf.zeros_like(y), *pullback(again, upstream, *sources)

        return y, gradient

    return attach(tf.stop_gradient(y), *sources)


def staged(function):
    """A function of tensors that runs as one graph also where steps would be
    run as they come, which takes long for small ones."""
    graph = tf.function(function, autograph=False, reduce_retracing=True)

    def call(*tensors):
        return (graph if tf.executing_eagerly() else function)(*tensors)

    return call


def compiled(function, layer):
    """A function of tensors that uses the weights of a layer, as one graph."""
    del layer
    return tf.function(function, autograph=False)


def scan(step, state, sequences):
    """`state = step(state, *items)` along the first axis of `sequences`.

    Args:
        step: function from a tensor and slices to the next state, of the same
            shape.
        state: tensor.
        sequences: list of tensors `(length, ...)`, of known length.

    Returns:
        All states, `(length, ...)`. Not meant to be differentiated.
    """
    length = sequences[0].shape[0]
    states = tf.TensorArray(state.dtype, length, element_shape=state.shape)

    def body(k, state, states):
        state = step(state, *(x[k] for x in sequences))
        return state, states.write(k, state)

    return serial_loop(0, length, body, (state, states))[1].stack()


def serial_loop(start, stop, body, state):
    """`state = body(k, *state)` for `k` from `start` to below `stop`, strictly
    one after the other, so that no more than one state is held.

    Args:
        start, stop: ints.
        body: function from an int32 scalar and tensors to as many tensors.
        state: tuple of tensors.
    """
    counter = tf.constant(start)
    # A TensorArray has no shape.
    shapes = [getattr(x, "shape", tf.TensorShape([])) for x in state]
    _, *state = tf.while_loop(
        lambda k, *_: k < stop,
        lambda k, *state: (k + 1, *body(k, *state)),
        (counter, *state),
        shape_invariants=(counter.shape, *shapes),
        parallel_iterations=1,
    )
    return state


def toeplitz_fft(
    x: Tensor, kernel: Tensor, grid_shape: Sequence[int]
) -> Tensor:
    """Circular convolution of zero-padded `x` with `kernel`, then cropped.

    Args:
        x: `(..., columns, *grid_shape)`, float32 or float64.
        kernel: `(..., *padded_shape)`; its leading axes broadcast against
            those of `x` without the columns.
        grid_shape: sizes of the trailing grid axes of `x`.

    Returns:
        `(..., columns, *grid_shape)`.

    The gradient is written out: it needs one transform of the upstream
    gradient for both arguments, where automatic differentiation of `irfft`
    would transform full complex arrays.
    """
    grid_shape = tuple(grid_shape)
    padded_shape = tuple(kernel.shape[-len(grid_shape) :])

    @tf.custom_gradient
    def convolve(x, kernel):
        def spectrum_of(kernel):
            return tf.expand_dims(
                _rfftn(kernel, padded_shape), -1 - len(grid_shape)
            )

        # An eager tape outside would record, and so keep, every step.
        x_hat = _rfftn(tf.stop_gradient(x), padded_shape)
        spectrum = spectrum_of(tf.stop_gradient(kernel))
        y = _irfftn(x_hat * spectrum, padded_shape, grid_shape)

        def gradient(upstream):
            upstream_hat = _rfftn(upstream, padded_shape)
            dx = upstream_hat * tf.math.conj(spectrum_of(kernel))
            dx = _irfftn(dx, padded_shape, grid_shape)
            # Recomputed, not kept: the spectrum of x is four times x.
            product = tf.math.conj(_rfftn(x, padded_shape)) * upstream_hat
            product = tf.reduce_sum(product, axis=-1 - len(grid_shape))
            dkernel = _irfftn(product, padded_shape, padded_shape)
            return _unbroadcast(dx, x), _unbroadcast(dkernel, kernel)

        return y, gradient

    return convolve(x, kernel)


def _rfftn(x, padded_shape):
    """Real FFT of the trailing axes; the result keeps its axes permuted.

    One axis at a time, the last first: rows of padding are transformed only
    once they have stopped being zero. `_irfftn` undoes the permutation.
    """
    # Padded here: of an empty batch `tf.signal.rfft` does not pad.
    x = tf.signal.rfft(_pad_last(x, padded_shape[-1]), [padded_shape[-1]])
    for k in range(len(padded_shape) - 2, -1, -1):
        x = _swap_with_last(x, k - len(padded_shape))
        x = tf.signal.fft(_pad_last(x, padded_shape[k]))
    return x


def _pad_last(x, length):
    """Zeros at the end of the last axis, up to a length."""
    padding = length - x.shape[-1]
    if not padding:
        return x
    return tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, padding]])


def _irfftn(x, padded_shape, grid_shape):
    """Inverse of `_rfftn`, cropping every axis as soon as it is back."""
    for k in range(len(padded_shape) - 1):
        x = tf.signal.ifft(x)[..., : grid_shape[k]]
        x = _swap_with_last(x, k - len(padded_shape))
    return tf.signal.irfft(x, [padded_shape[-1]])[..., : grid_shape[-1]]


def _swap_with_last(x, axis):
    rank = len(x.shape)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return tf.transpose(x, order)


def _unbroadcast(gradient, like):
    """Sums `gradient` over the axes along which `like` was broadcast."""
    extra = len(gradient.shape) - len(like.shape)
    if extra:
        gradient = tf.reduce_sum(gradient, axis=list(range(extra)))
    if None in [*gradient.shape, *like.shape]:
        # Axes of unknown size may turn out to be one.
        shape = tf.shape(like)
        _, axes = tf.raw_ops.BroadcastGradientArgs(
            s0=tf.shape(gradient), s1=shape
        )
        gradient = tf.reshape(tf.reduce_sum(gradient, axis=axes), shape)
        return tf.ensure_shape(gradient, like.shape)
    axes = [
        k
        for k, (g, n) in enumerate(zip(gradient.shape, like.shape, strict=True))
        if n == 1 and g != 1
    ]
    if axes:
        gradient = tf.reduce_sum(gradient, axis=axes, keepdims=True)
    return gradient


def windows(x, queries, keys):
    """Windows of the second to last axis, each one further to the left.

    Returns:
        `y[..., a, j, :] = x[..., queries - 1 - a + j, :]`, of shape `(...,
        queries, keys, c)`, from `x` of shape `(..., queries + keys - 1, c)`.

    Runs of `c` numbers are gathered; the gradient, a sum over windows, is
    written as a sum over an axis, where that of a gather would scatter.
    """
    ids = np.arange(queries)[::-1, None] + np.arange(keys)

    @tf.custom_gradient
    def gathered(x):
        y = tf.gather(x, ids, axis=len(x.shape) - 2)
        return y, lambda upstream: _add_windows(upstream, queries, keys)

    return gathered(x)


def _add_windows(y, queries, keys):
    """The transpose of `windows`: `(..., queries + keys - 1, c)`."""
    width = queries + keys - 1
    lead, c = tuple(ops.shape(y))[:-3], y.shape[-1]
    # Padded rows, read with a period one shorter, shift from row to row.
    y = tf.pad(
        tf.reverse(y, [len(y.shape) - 3]),
        [[0, 0]] * (len(y.shape) - 2) + [[0, width + 1 - keys], [0, 0]],
    )
    y = tf.reshape(y, (*lead, queries * (width + 1), c))
    y = slice_axis(y, 0, queries * width, -2)
    y = tf.reshape(y, (*lead, queries, width, c))
    return tf.reduce_sum(y, axis=-3)


def keep_whole(x: Tensor) -> Tensor:
    """`x`, computed once and kept, not again for all that it enters into."""
    if not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return x

    # The barrier of TensorFlow has no gradient.
    @tf.custom_gradient
    def kept(x):
        (y,) = xla_optimization_barrier([x])
        return y, lambda upstream: upstream

    return kept(x)


def has_fused_attention(length, dtype):
    """Whether `keras.ops.dot_product_attention` does better than its equation:
    TensorFlow has no fused attention."""
    return False


def checkpointed_map(
    function: Callable[..., Tensor],
    blocks: Sequence[Tensor],
    shared: Sequence[Tensor],
) -> Tensor:
    """Maps `function(block, shared)` over blocks, one after the other.

    Args:
        function: from a list of slices (one of each of `blocks`) and the list
            `shared` to a tensor. Everything that it differentiates with
            respect to must come through these two lists.
        blocks: list of tensors of shape `(num_blocks, ...)`.
        shared: list of tensors that every block sees.

    Returns:
        The results, stacked: `(num_blocks, ...)`.

    Neither direction holds the intermediate results of more than one block:
    the gradient is a second loop that recomputes each block, and autodiff
    never sees the loops, so nothing is accumulated on their account.
    """
    num_blocks = blocks[0].shape[0]
    split = len(blocks)
    # Plain Python that builds a graph: nothing for AutoGraph to convert.
    function = tf.autograph.experimental.do_not_convert(function)

    @tf.custom_gradient
    def mapped(*tensors):
        blocks, shared = list(tensors[:split]), list(tensors[split:])
        # An eager tape outside would record every step of every block.
        unrecorded = [tf.stop_gradient(x) for x in tensors]

        def forward(index):
            slices = [b[index] for b in unrecorded[:split]]
            return [function(slices, unrecorded[split:])]

        (output,) = _stack_loop(num_blocks, forward)

        def gradient(upstream):
            differentiable = [x.dtype.is_floating for x in [*blocks, *shared]]

            def backward(index):
                slices = [b[index] for b in blocks]
                sources = [
                    x
                    for x, keep in zip(
                        [*slices, *shared], differentiable, strict=True
                    )
                    if keep
                ]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(sources)
                    y = function(slices, shared)
                gradients: list[Tensor] = tape.gradient(
                    y,
                    sources,
                    output_gradients=upstream[index],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                # The gradient of a slice with a traced start forgets it.
                for source, g in zip(sources, gradients, strict=True):
                    g.set_shape(source.shape)
                return gradients

            count = sum(differentiable[:split])
            gradients = iter(_stack_loop(num_blocks, backward, count))
            return [
                next(gradients) if keep else None for keep in differentiable
            ]

        return output, gradient

    return mapped(*blocks, *shared)


@tf.autograph.experimental.do_not_convert
def _stack_loop(num_blocks, body, num_stacked=1):
    """Runs `body(0), body(1), ...` strictly one after the other.

    The first `num_stacked` results of `body` are stacked, the others summed.
    """
    first = body(tf.constant(0))
    if num_blocks == 1:
        return [x[None] for x in first[:num_stacked]] + first[num_stacked:]
    arrays = tuple(
        tf.TensorArray(x.dtype, num_blocks, element_shape=x.shape).write(0, x)
        for x in first[:num_stacked]
    )

    def step(index, arrays, sums):
        results = body(index)
        arrays = tuple(
            array.write(index, x)
            for array, x in zip(arrays, results[:num_stacked], strict=True)
        )
        sums = tuple(
            total + x
            for total, x in zip(sums, results[num_stacked:], strict=True)
        )
        return index + 1, arrays, sums

    _, arrays, sums = tf.while_loop(
        lambda index, *_: index < num_blocks,
        step,
        (tf.constant(1), arrays, tuple(first[num_stacked:])),
        maximum_iterations=num_blocks - 1,
        parallel_iterations=1,
    )
    return [array.stack() for array in arrays] + list(sums)


def equal_to_strings(x, values):
    """`(..., len(values))`, bool, of a tensor of strings."""
    x = tf.expand_dims(tf.convert_to_tensor(x), -1)
    return tf.equal(x, tf.constant(values))


def compiles_by_default():
    """Whether training is to be compiled by XLA: on accelerators.

    On CPUs each of the many shapes of batches of graphs costs seconds.
    """
    return bool(tf.config.list_physical_devices("GPU"))
