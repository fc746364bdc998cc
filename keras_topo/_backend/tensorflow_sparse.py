"""TensorFlow: sparse products, their gradients, and triangular systems."""

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from keras_topo._backend.tensorflow import serial_loop
from keras_topo.annotations import Tensor


def sparse_sum(
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    weights: Tensor | None,
    num_rows: int | Tensor,
) -> Tensor:
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


def sparse_product(
    values: Tensor,
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    num_rows: int | Tensor,
) -> Tensor:
    """`A x`: `y[r] = sum values[e] x[columns[e]]` over entries of row `r`.

    Nothing of the size of entries times columns is held, in either direction.

    Args:
        values: `(entries,)`.
        x: `(n, c)`.
        rows, columns: `(entries,)`, int32, in any order.
        num_rows: int, or a traced scalar.

    Returns:
        `(num_rows, c)`.
    """
    graph = tf.compat.v1.get_default_graph()
    static_rows = num_rows if isinstance(num_rows, int) else None
    if not rows.shape[0] and rows.shape[0] is not None:
        zeros = tf.zeros(tf.stack([num_rows, tf.shape(x)[-1]]), x.dtype)
        return tf.ensure_shape(zeros, (static_rows, x.shape[-1]))
    if GraphOrParentsInXlaContext(graph):
        # XLA has no sparse products.
        terms = values[:, None] * tf.gather(x, columns)
        return tf.math.unsorted_segment_sum(terms, rows, num_rows)
    indices = tf.stack([rows, columns], axis=1)
    shape = tf.cast(tf.stack([num_rows, tf.shape(x)[0]]), tf.int64)

    def multiply(values, x):
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
            )
            for part in parts
        ]
        return products[0] if len(parts) == 1 else tf.concat(products, axis=1)

    @tf.custom_gradient
    def product(values, x):
        y = multiply(values, x)
        y.set_shape((static_rows, x.shape[-1]))

        def gradient(upstream):
            dvalues = entry_products(upstream, x, rows, columns)
            dx = sparse_product(values, upstream, columns, rows, _rows_of(x))
            return dvalues, dx

        return y, gradient

    return product(values, x)


# TensorFlow's sparse product takes several times as long per column from 32
# columns on.
SPARSE_COLUMNS = 16
# Numbers of each factor that are gathered at a time.
ENTRY_BLOCK = 2**24


def entry_products(
    x: Tensor, y: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """`sum_c x[rows[e], c] y[columns[e], c]` for each entry, `(entries,)`.

    Outside of XLA, entries are gathered a block at a time, in both directions.
    """
    if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        terms = tf.gather(x, rows) * tf.gather(y, columns)
        return tf.reduce_sum(terms, axis=-1)

    @tf.custom_gradient
    def products(x, y):
        def gradient(upstream):
            dx = sparse_product(upstream, y, rows, columns, _rows_of(x))
            dy = sparse_product(upstream, x, columns, rows, _rows_of(y))
            return dx, dy

        return _entry_products(x, y, rows, columns), gradient

    return products(x, y)


def _rows_of(x):
    return tf.shape(x)[0] if x.shape[0] is None else x.shape[0]


def _entry_products(x, y, rows, columns):
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


def add_in_steps(
    y: Tensor, targets: Tensor, sources: Tensor, weights: Tensor
) -> Tensor:
    """`y[targets[k]] += weights[k] y[sources[k]]` for one `k` after another.

    Not differentiable.

    Args:
        y: `(n, ...)`.
        targets, sources: `(steps, width)`, int32. What is read in a step is
            not written in it.
        weights: `(steps, width, ...)`, with axes of 1 for others of `y`.
    """
    graph = tf.compat.v1.get_default_graph()
    if GraphOrParentsInXlaContext(graph) or tf.config.list_physical_devices(
        "GPU"
    ):
        return _add_in_steps(y, targets, sources, weights, _scatter_add)
    return _add_in_place(y, targets, sources, weights)


def _scatter_add(y, places, terms):
    return tf.tensor_scatter_nd_add(y, places[:, None], terms)


def _inplace_add(y, places, terms):
    # On GPUs this loses all but one of the terms for a place.
    return tf.raw_ops.InplaceAdd(x=y, i=places, v=terms)


# One step after another from Python takes ten times as long as in a graph.
@tf.function(autograph=False, reduce_retracing=True)
def _add_in_place(y, targets, sources, weights):
    # Scatters copy all of `y` in every step. This adds to it where it is,
    # which is a copy that nobody else reads.
    y = tf.raw_ops.DeepCopy(x=y)
    return _add_in_steps(y, targets, sources, weights, _inplace_add)


def _add_in_steps(y, targets, sources, weights, add):
    def step(k, y):
        terms = weights[k] * tf.gather(y, sources[k])
        return (add(y, targets[k], terms),)

    return serial_loop(0, tf.shape(targets)[0], step, (y,))[0]
