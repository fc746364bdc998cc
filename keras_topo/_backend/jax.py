"""JAX: slices with traced starts, FFTs, checkpointed maps."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.core import Tracer

from keras_topo.annotations import Tensor


def slice_axis(
    x: Tensor, start: int | Tensor, size: int | Tensor, axis: int
) -> Tensor:
    """`x[start : start + size]` along `axis`; `start` may be traced."""
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def update_axis(x, update, start, axis):
    """`x` with `update` in it, from `start` along `axis`."""
    return jax.lax.dynamic_update_slice_in_dim(x, update, start, axis)


def ensure_size(x, size, axis):
    """`x`, whose size along `axis` must be `size`."""
    if x.shape[axis] != size:
        raise ValueError(
            f"expected a size of {size} along axis {axis}. Received: a tensor "
            f"of shape {x.shape}"
        )
    return x


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """`jax.numpy.matmul`; the TensorFlow module says why it is here."""
    return jnp.matmul(x, y)


def divide(x, total):
    """`x / total`, the rows of `x` by one number each.

    The derivative of a division holds `total ** -2`, which leaves the range of
    float32 for a total below 1e-19 or above 1e19, and gradients with it. So
    both are scaled first, by a power of two, which rounds nothing.

    Args:
        x: `(..., n)`.
        total: `(..., 1)`, not zero.
    """
    exponent = jnp.round(jnp.log2(jnp.abs(jax.lax.stop_gradient(total))))
    scale = jnp.exp2(-jnp.clip(exponent, -126, 126))
    return (x * scale) / (total * scale)


def concrete(x: Tensor) -> np.ndarray | None:
    """The value of a tensor as an array; `None` where it is traced."""
    return None if isinstance(x, Tracer) else np.asarray(x)


def constant(array: np.ndarray) -> Tensor:
    """An array of the host as a tensor."""
    return jnp.asarray(array)


def register_pytree(registered, take_apart, put_together):
    """Makes objects of a class arguments of compiled functions.

    Args:
        registered: the class.
        take_apart: from an object to a list of tensors and a hashable
            structure.
        put_together: from a structure and an iterable of tensors to an object.
    """
    jax.tree_util.register_pytree_node(registered, take_apart, put_together)


def sparse_sum(
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    weights: Tensor | None,
    num_rows: int | Tensor,
) -> Tensor:
    """`A x`, a sparse matrix by its entries, sorted by rows, times `(n, c)`."""
    terms = x[columns]
    if weights is not None:
        terms = terms * weights[:, None]
    return jax.ops.segment_sum(terms, rows, num_rows, indices_are_sorted=True)


# Numbers that are gathered at a time.
ENTRY_BLOCK = 2**24


def sparse_product(
    values: Tensor,
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    num_rows: int | Tensor,
) -> Tensor:
    """`A x`: `y[r] = sum values[e] x[columns[e]]` over entries of row `r`.

    Args:
        values: `(entries,)`.
        x: `(n, c)`.
        rows, columns: `(entries,)`, int32, in any order.
        num_rows: int.

    Returns:
        `(num_rows, c)`.

    Large products, and their gradients, gather a block of entries at a time.
    """
    count = values.shape[0]
    size = max(ENTRY_BLOCK // max(x.shape[1], 1), 1)
    if count <= size:
        return jax.ops.segment_sum(values[:, None] * x[columns], rows, num_rows)
    blocks = -(-count // size)

    def split(entries):
        # Entries of value 0 fill the last block.
        padded = jnp.pad(entries, (0, blocks * size - count))
        return padded.reshape(blocks, size)

    @jax.checkpoint
    def terms(values, x, columns):
        return values[:, None] * x[columns]

    def step(y, block):
        values, rows, columns = block
        return y.at[rows].add(terms(values, x, columns)), None

    y = jnp.zeros((num_rows, x.shape[1]), jnp.result_type(values, x))
    return jax.lax.scan(step, y, tuple(map(split, (values, rows, columns))))[0]


def entry_products(
    x: Tensor, y: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """`sum_c x[rows[e], c] y[columns[e], c]` for each entry, `(entries,)`.

    Large ones, and their gradients, gather a block of entries at a time.
    """

    @jax.checkpoint
    def products(x, y, rows, columns):
        return jnp.sum(x[rows] * y[columns], axis=-1)

    count = rows.shape[0]
    size = max(ENTRY_BLOCK // max(x.shape[1], 1), 1)
    if count <= size:
        return products(x, y, rows, columns)
    blocks = -(-count // size)

    def split(entries):
        padded = jnp.pad(entries, (0, blocks * size - count))
        return padded.reshape(blocks, size)

    found = jax.lax.map(
        lambda block: products(x, y, *block), (split(rows), split(columns))
    )
    return found.reshape(-1)[:count]


def with_derivatives(
    y: Tensor, sources: Sequence[Tensor], pullback: Callable[..., Any]
) -> Tensor:
    """`y` with the derivatives that `pullback` states; the TensorFlow module
    says what for."""

    @jax.custom_vjp
    def attach(y, *sources):
        return y

    def forward(y, *sources):
        # Differentiated once more, this is not opaque: plain `y` would be
        # constant there.
        y = attach(y, *sources)
        return y, (y, sources)

    def backward(residuals, upstream):
        y, sources = residuals
        return jnp.zeros_like(y), *pullback(y, upstream, *sources)

    attach.defvjp(forward, backward)
    return attach(jax.lax.stop_gradient(y), *sources)


def add_in_steps(
    y: Tensor, targets: Tensor, sources: Tensor, weights: Tensor
) -> Tensor:
    """`y[targets[k]] += weights[k] y[sources[k]]` for one `k` after another;
    the TensorFlow module says more."""

    def step(y, edges):
        targets, sources, weights = edges
        return y.at[targets].add(weights * y[sources]), None

    return jax.lax.scan(step, y, (targets, sources, weights))[0]


def staged(function):
    """A function of tensors, compiled as one."""
    return jax.jit(function)


def compiled(function, layer):
    """A function of tensors that uses the weights of a layer, compiled; the
    weights are those at the time of a call."""

    def pure(values, *arguments):
        mapping = list(zip(layer.variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arguments)

    pure = jax.jit(pure)

    def call(*arguments):
        return pure([v.value for v in layer.variables], *arguments)

    return call


def scan(step, state, sequences):
    """All states of `state = step(state, *items)`, `(length, ...)`."""

    def body(state, items):
        state = step(state, *items)
        return state, state

    return jax.lax.scan(body, state, list(sequences))[1]


def serial_loop(start, stop, body, state):
    """`state = body(k, *state)` for `k` from `start` to below `stop`."""
    return jax.lax.fori_loop(
        start, stop, lambda k, state: tuple(body(k, *state)), tuple(state)
    )


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
    """
    rank = len(grid_shape)
    padded_shape = kernel.shape[-rank:]
    spectrum = jnp.expand_dims(_rfftn(kernel, padded_shape), -1 - rank)
    product = _rfftn(x, padded_shape) * spectrum
    return _irfftn(product, padded_shape, grid_shape)


def _rfftn(x, padded_shape):
    """Real FFT of the trailing axes, one at a time: the last first, so that
    rows of padding are transformed only once they are not zero any more."""
    x = jnp.fft.rfft(x, padded_shape[-1])
    for k in range(len(padded_shape) - 2, -1, -1):
        axis = k - len(padded_shape)
        x = jnp.fft.fft(x, padded_shape[k], axis=axis)
    return x


def _irfftn(x, padded_shape, grid_shape):
    """Inverse of `_rfftn`, cropping every axis as soon as it is back."""
    for k in range(len(padded_shape) - 1):
        axis = k - len(padded_shape)
        x = jnp.fft.ifft(x, axis=axis)
        x = jax.lax.slice_in_dim(x, 0, grid_shape[k], axis=axis)
    return jnp.fft.irfft(x, padded_shape[-1])[..., : grid_shape[-1]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def windows(x, queries, keys):
    """Windows of the second to last axis, each one further to the left.

    Returns:
        `y[..., a, j, :] = x[..., queries - 1 - a + j, :]`, of shape `(...,
        queries, keys, c)`, from `x` of shape `(..., queries + keys - 1, c)`.

    Runs of `c` numbers are gathered. The derivative is that of `_tiled`,
    which sums over an axis where that of a gather would scatter.
    """
    ids = np.arange(queries)[::-1, None] + np.arange(keys)
    return jnp.take(x, ids, axis=-2)


@windows.defjvp
def _windows_jvp(queries, keys, primals, tangents):
    (x,), (dx,) = primals, tangents
    return windows(x, queries, keys), _tiled(dx, queries, keys)


def _tiled(x, queries, keys):
    """`windows` by tiling: padded to an odd one out, the offsets read with a
    period one shorter shift by one from row to row."""
    width = queries + keys - 1
    lead, c = x.shape[:-2], x.shape[-1]
    x = jnp.pad(x, [(0, 0)] * len(lead) + [(0, 1), (0, 0)])
    x = jnp.broadcast_to(x[..., None, :, :], (*lead, queries, width + 1, c))
    x = x.reshape(*lead, queries * (width + 1), c)[..., : queries * width, :]
    x = x.reshape(*lead, queries, width, c)
    return x[..., queries - 1 : queries - 1 + keys, :]


def keep_whole(x: Tensor) -> Tensor:
    """`x`, computed once and kept, not again for all that it enters into."""
    return jax.lax.optimization_barrier(x)


def has_fused_attention(length, dtype):
    """Whether to call `keras.ops.dot_product_attention` with a bias.

    It computes in float32 and holds all scores, which short sequences may. On
    TPUs it ignores the bias.
    """
    known = jax.default_backend() in ("cpu", "gpu")
    return known and dtype == "float32" and length <= 1024


def checkpointed_map(
    function: Callable[..., Tensor],
    blocks: Sequence[Tensor],
    shared: Sequence[Tensor],
) -> Tensor:
    """Maps `function(block, shared)` over blocks, one after the other.

    Args:
        function: from a list of slices (one of each of `blocks`) and the list
            `shared` to a tensor.
        blocks: list of tensors of shape `(num_blocks, ...)`.
        shared: list of tensors that every block sees.

    Returns:
        The results, stacked: `(num_blocks, ...)`.

    The gradient recomputes each block, so that neither direction holds the
    intermediate results of more than one.
    """
    checkpointed = jax.checkpoint(lambda block: function(block, shared))
    return jax.lax.map(checkpointed, list(blocks))


def equal_to_strings(x, values):
    """JAX has no tensors of strings."""
    raise ValueError(
        "Labels that are strings expect the TensorFlow backend inside a model. "
        f"Received: the JAX backend, and the labels {values}"
    )


def compiles_by_default():
    """Whether training is to be compiled by XLA: always, on JAX."""
    return True
