"""What `keras.ops` lacks or does badly, one implementation per backend.

Every backend module defines

- `slice_axis(x, start, size, axis)`: a slice whose start may be traced;
- `update_axis(x, update, start, axis)`: the reverse, with gradients;
- `ensure_size(x, size, axis)`: `x`, checked where its size is not known yet;
- `concrete(x)`: the value of a tensor, `None` where it is traced;
- `constant(array)`: an array of the host as a tensor, not in the graph;
- `sparse_sum(x, rows, columns, weights, num_rows)`: a sparse product;
- `scan(step, state, sequences)`: all states of a recurrence;
- `staged(function)`: one that runs as a graph of its own in eager calls;
- `compiled(function, layer)`: one that uses the weights of a layer, compiled;
- `compiles_by_default()`: whether XLA pays for shapes that vary;
- `serial_loop(start, stop, body, state)`: one that holds one state at a time;
- `sparse_product(...)`: the same with entries in any order, differentiable
  with respect to their values;
- `entry_products(x, y, rows, columns)`: the gradient of that, `x_r . y_c` at
  each entry;
- `add_in_steps(y, targets, sources, weights)`: a triangular sparse system,
  solved level by level;
- `with_derivatives(y, sources, pullback)`: a result whose derivatives, of all
  orders, are stated instead of recorded;
- `matmul(x, y)`: batched matrix products, safe to broadcast;
- `register_pytree(class, take_apart, put_together)`: objects of the class as
  arguments of compiled functions;
- `divide(x, total)`: a quotient whose gradient never squares the divisor;
- `toeplitz_fft(x, kernel, grid_shape)`: d-dimensional circular convolution
  of zero-padded data, by real FFTs that skip the padding;
- `windows(x, queries, keys)`: an axis of offsets as two axes of tokens;
- `has_fused_attention(length, dtype)`: whether Keras's attention is one kernel;
- `keep_whole(x)`: `x`, which a compiler computes once and keeps;
- `equal_to_strings(x, values)`: where strings are those of a list;
- `checkpointed_map(function, blocks, shared)`: a sequential map whose
  gradient recomputes one block at a time.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_topo._backend.tensorflow import (
        checkpointed_map,
        compiled,
        compiles_by_default,
        concrete,
        constant,
        divide,
        ensure_size,
        equal_to_strings,
        has_fused_attention,
        keep_whole,
        matmul,
        register_pytree,
        scan,
        serial_loop,
        slice_axis,
        staged,
        toeplitz_fft,
        update_axis,
        windows,
        with_derivatives,
    )
    from keras_topo._backend.tensorflow_sparse import (
        add_in_steps,
        entry_products,
        sparse_product,
        sparse_sum,
    )
elif keras.backend.backend() == "jax":
    from keras_topo._backend.jax import (
        add_in_steps,
        checkpointed_map,
        compiled,
        compiles_by_default,
        concrete,
        constant,
        divide,
        ensure_size,
        entry_products,
        equal_to_strings,
        has_fused_attention,
        keep_whole,
        matmul,
        register_pytree,
        scan,
        serial_loop,
        slice_axis,
        sparse_product,
        sparse_sum,
        staged,
        toeplitz_fft,
        update_axis,
        windows,
        with_derivatives,
    )
else:
    raise ImportError(
        "keras_topo runs on the Keras backends 'tensorflow' and 'jax'; set "
        "the environment variable KERAS_BACKEND before importing keras. "
        f"Received: backend={keras.backend.backend()!r}"
    )

__all__ = [
    "add_in_steps",
    "checkpointed_map",
    "compiled",
    "compiles_by_default",
    "concrete",
    "constant",
    "has_fused_attention",
    "keep_whole",
    "divide",
    "ensure_size",
    "matmul",
    "register_pytree",
    "entry_products",
    "equal_to_strings",
    "scan",
    "serial_loop",
    "slice_axis",
    "sparse_product",
    "sparse_sum",
    "staged",
    "toeplitz_fft",
    "update_axis",
    "windows",
    "with_derivatives",
]
