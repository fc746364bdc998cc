"""Run in a process of its own: growth of its peak memory, in MiB.

One training step's worth of attention (the output and all gradients), by the
fast form on a grid of 128 x 128 tokens, by the explicit one of 96 x 96.
"""

import os
import resource
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
import reference as ref  # noqa: E402

from keras_topo.attention import masked_linear_attention  # noqa: E402
from keras_topo.operators import BlockToeplitz  # noqa: E402


def peak():
    """Peak memory of the process in MiB (reported in kB, on macOS bytes)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def step(implementation, grid, features, method):
    n = grid[0] * grid[1]
    random = np.random.default_rng(0)
    shape = (1, 1, n, features)
    arrays = [random.uniform(0.1, 1, shape) for _ in range(4)]
    axes = [random.uniform(0.5, 1, 2 * n - 1) for n in grid]
    tables = axes if method == "kronecker" else [np.outer(*axes)]

    def attend(query, key, value, *tables):
        table = [list(tables)] if method == "kronecker" else tables[0]
        mask = BlockToeplitz(table, grid, method)
        return masked_linear_attention(
            query, key, value, mask, implementation=implementation
        )

    compute = ref.with_gradients(attend)
    tensors = [ref.tensor(a, "float32") for a in (*arrays, *tables)]
    y, gradients = compute(*tensors)
    total = sum(float(np.sum(np.abs(ref.numpy(g)))) for g in [y, *gradients])
    assert np.isfinite(total)


if __name__ == "__main__":
    for implementation, features, method, side in (
        ("fast", 64, "kronecker", 128),
        ("explicit", 8, "auto", 96),
    ):
        # Start threads, kernels and compilers first, on a small grid.
        step(implementation, (36, 36), features, method)
        before = peak()
        step(implementation, (side, side), features, method)
        print(implementation, peak() - before)
