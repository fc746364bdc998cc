"""What `keras.ops` lacks or does badly, one implementation per backend.

Every backend module defines

- `slice_axis(x, start, size, axis)`: a slice whose start may be traced;
- `concrete(x)`: the value of a tensor, `None` where it is traced;
- `constant(array)`: an array of the host as a tensor, not in the graph;
- `sparse_sum(x, rows, columns, weights, num_rows)`: a sparse product;
- `serial_loop(start, stop, body, state)`: one that holds one state at a time;
- `sparse_product(...)`: the same with entries in any order, differentiable
  with respect to their values;
- `matmul(x, y)`: batched matrix products, safe to broadcast;
- `register_pytree(class, take_apart, put_together)`: objects of the class as
  arguments of compiled functions;
- `toeplitz_fft(x, kernel, grid_shape)`: d-dimensional circular convolution
  of zero-padded data, by real FFTs that skip the padding;
- `checkpointed_map(function, blocks, shared)`: a sequential map whose
  gradient recomputes one block at a time.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_topo._backend.tensorflow import (
        checkpointed_map,
        concrete,
        constant,
        matmul,
        register_pytree,
        serial_loop,
        slice_axis,
        sparse_product,
        sparse_sum,
        toeplitz_fft,
    )
elif keras.backend.backend() == "jax":
    from keras_topo._backend.jax import (
        checkpointed_map,
        concrete,
        constant,
        matmul,
        register_pytree,
        serial_loop,
        slice_axis,
        sparse_product,
        sparse_sum,
        toeplitz_fft,
    )
else:
    raise ImportError(
        "keras_topo runs on the Keras backends 'tensorflow' and 'jax'; set "
        "the environment variable KERAS_BACKEND before importing keras. "
        f"Received: backend={keras.backend.backend()!r}"
    )

__all__ = [
    "checkpointed_map",
    "concrete",
    "constant",
    "matmul",
    "register_pytree",
    "serial_loop",
    "slice_axis",
    "sparse_product",
    "sparse_sum",
    "toeplitz_fft",
]
