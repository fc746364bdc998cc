"""TensorFlow: slices with traced starts, FFTs, checkpointed maps."""

import keras
import tensorflow as tf
from keras import ops
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext


def slice_axis(x, start, size, axis):
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


def matmul(x, y):
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


def concrete(x):
    """The value of a tensor as an array; `None` where it is traced."""
    # Variables always have the method, and refuse it in a graph.
    variable = isinstance(x, (tf.Variable, keras.Variable))
    if variable and not tf.executing_eagerly():
        return None
    return x.numpy() if hasattr(x, "numpy") else None


def constant(array):
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

    def flatten(self):
        leaves, structure = take_apart(self)
        return (structure,), tuple(leaves)

    def unflatten(metadata, leaves):
        return put_together(*metadata, leaves)

    # The protocol of tf.nest for classes of one's own.
    registered.__tf_flatten__ = flatten
    registered.__tf_unflatten__ = staticmethod(unflatten)


def sparse_sum(x, rows, columns, weights, num_rows):
    """`A x`, a sparse matrix by its entries, sorted by rows, times `(n, c)`.

    Args:
        rows, columns: `(entries,)`, int32.
        weights: `(entries,)`, or `None` for ones.
        num_rows: int.
    """
    if not rows.shape[0]:
        # The number of columns may be traced.
        zeros = tf.zeros(tf.stack([num_rows, tf.shape(x)[-1]]), x.dtype)
        return tf.ensure_shape(zeros, (num_rows, x.shape[-1]))
    graph = tf.compat.v1.get_default_graph()
    if weights is None and not GraphOrParentsInXlaContext(graph):
        # Nothing is gathered: the rows are summed where they are. XLA has no
        # such operation.
        return tf.sparse.segment_sum(x, columns, rows, num_segments=num_rows)
    terms = tf.gather(x, columns)
    if weights is not None:
        terms = terms * tf.cast(weights[:, None], x.dtype)
    return tf.math.unsorted_segment_sum(terms, rows, num_rows)


def sparse_product(values, x, rows, columns, num_rows):
    """`A x`: `y[r] = sum values[e] x[columns[e]]` over entries of row `r`.

    Nothing of the size of entries times columns is held, in either direction.

    Args:
        values: `(entries,)`.
        x: `(n, c)`.
        rows, columns: `(entries,)`, int32, in any order.
        num_rows: int.

    Returns:
        `(num_rows, c)`.
    """
    graph = tf.compat.v1.get_default_graph()
    if not rows.shape[0] and rows.shape[0] is not None:
        zeros = tf.zeros(tf.stack([num_rows, tf.shape(x)[-1]]), x.dtype)
        return tf.ensure_shape(zeros, (num_rows, x.shape[-1]))
    if GraphOrParentsInXlaContext(graph):
        # XLA has no sparse products.
        terms = values[:, None] * tf.gather(x, columns)
        return tf.math.unsorted_segment_sum(terms, rows, num_rows)
    indices = tf.stack([rows, columns], axis=1)
    shape = tf.cast(tf.stack([num_rows, tf.shape(x)[0]]), tf.int64)

    def multiply(values, x, transposed):
        width = x.shape[-1]
        parts = [x]
        if width is not None and width > SPARSE_COLUMNS:
            parts = tf.split(
                x,
                [
                    min(SPARSE_COLUMNS, width - k)
                    for k in range(0, width, SPARSE_COLUMNS)
                ],
                axis=1,
            )
        products = [
            tf.raw_ops.SparseTensorDenseMatMul(
                a_indices=indices,
                a_values=values,
                a_shape=shape,
                b=part,
                adjoint_a=transposed,
            )
            for part in parts
        ]
        return products[0] if len(parts) == 1 else tf.concat(products, axis=1)

    @tf.custom_gradient
    def product(values, x):
        y = multiply(values, x, False)
        y.set_shape((num_rows, x.shape[-1]))

        def gradient(upstream):
            dx = multiply(values, upstream, True)
            return _entry_products(upstream, x, rows, columns), dx

        return y, gradient

    return product(values, x)


# TensorFlow's sparse product takes several times as long per column from 32
# columns on.
SPARSE_COLUMNS = 16
# Numbers of each factor that are gathered at a time.
ENTRY_BLOCK = 2**24


def _entry_products(x, y, rows, columns):
    """`sum_c x[rows[e], c] y[columns[e], c]` for each entry."""
    count = tf.shape(rows)[0]
    size = tf.maximum(ENTRY_BLOCK // tf.maximum(tf.shape(x)[-1], 1), 1)
    array = tf.TensorArray(
        x.dtype, 0, dynamic_size=True, infer_shape=False, element_shape=(None,)
    )

    def step(start, array):
        part = slice(start, start + size)
        terms = tf.gather(x, rows[part]) * tf.gather(y, columns[part])
        array = array.write(array.size(), tf.reduce_sum(terms, axis=-1))
        return start + size, array

    _, array = tf.while_loop(
        lambda start, _: start < count,
        step,
        (tf.constant(0), array),
        parallel_iterations=1,
    )
    found = array.concat()
    found.set_shape(rows.shape)
    return found


def serial_loop(start, stop, body, state):
    """`state = body(k, *state)` for `k` from `start` to below `stop`, strictly
    one after the other, so that no more than one state is held.

    Args:
        start, stop: ints.
        body: function from an int32 scalar and tensors to as many tensors.
        state: tuple of tensors.
    """
    counter = tf.constant(start)
    _, *state = tf.while_loop(
        lambda k, *_: k < stop,
        lambda k, *state: (k + 1, *body(k, *state)),
        (counter, *state),
        shape_invariants=(counter.shape, *(x.shape for x in state)),
        parallel_iterations=1,
    )
    return state


def toeplitz_fft(x, kernel, grid_shape):
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
    x = tf.signal.rfft(x, [padded_shape[-1]])
    for k in range(len(padded_shape) - 2, -1, -1):
        x = _swap_with_last(x, k - len(padded_shape))
        padding = padded_shape[k] - x.shape[-1]
        if padding:
            x = tf.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[0, padding]])
        x = tf.signal.fft(x)
    return x


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
    axes = [
        k
        for k, (g, n) in enumerate(zip(gradient.shape, like.shape, strict=True))
        if n == 1 and g != 1
    ]
    if axes:
        gradient = tf.reduce_sum(gradient, axis=axes, keepdims=True)
    return gradient


def checkpointed_map(function, blocks, shared):
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
                gradients = tape.gradient(
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
