"""Masks on sequences, grids, tori and cubes, and their peers.

Functions are named as in `benchmarks.products.forests`.
"""

import functools
import math

import numpy as np
import scipy.linalg

from benchmarks.measure import num_threads
from benchmarks.products.convolutions import (
    filter_peer,
    prepare_circular,
    prepare_fft,
    prepare_toeplitz_fft,
)
from benchmarks.products.rows import SIZES, Peer, Row, in_numpy

GRIDS = (32**2, 100**2, 320**2, 1000**2)
CUBES = (2**10, 2**14, 2**17, 2**20)
DECAY = 0.05  # a token of a sequence


def random_toeplitz(tokens):
    """First column and row."""
    column, row = np.random.default_rng(0).random((2, tokens), "float32")
    row[0] = column[0]
    return column, row


def build_toeplitz(inputs):
    from keras_topo.operators import Toeplitz

    return Toeplitz(*inputs)


def prepare_matmul_toeplitz(inputs, x):
    # It computes in float64 for any input dtype.
    column_and_row = tuple(v.astype(x.dtype) for v in inputs)
    return lambda: scipy.linalg.matmul_toeplitz(
        column_and_row, x, check_finite=False, workers=num_threads()
    )


def random_table(tokens):
    side = math.isqrt(tokens)
    return np.random.default_rng(0).random((2 * side - 1,) * 2, "float32")


def build_block_toeplitz(table):
    from keras_topo.operators import BlockToeplitz

    return BlockToeplitz(table, [(n + 1) // 2 for n in table.shape])


def prepare_grid_fft(table, x):
    return prepare_fft(table, tuple((n + 1) // 2 for n in table.shape), x)


def random_ring_table(tokens):
    side = math.isqrt(tokens)
    return np.random.default_rng(0).random((side, side), "float32")


def build_torus(table):
    from keras_topo.operators import Torus

    return Torus(table, table.shape)


def prepare_torus_fft(table, x):
    return prepare_circular(table.astype(x.dtype), table.shape, x)


def build_decay(tokens):
    from keras_topo.operators import ExponentialDecay

    return ExponentialDecay(DECAY, tokens)


def random_factors(tokens):
    side = math.isqrt(tokens)
    return np.random.default_rng(0).random((2, side, side), "float32")


def build_kronecker(factors):
    from keras_topo.operators import Kronecker

    return Kronecker(list(factors))


def prepare_kronecker(factors, x):
    first, second = factors.astype(x.dtype)
    side = len(first)

    def call():
        z = first @ x.reshape(side, -1)
        return np.matmul(second, z.reshape(side, side, -1)).reshape(x.shape)

    return call


def num_dimensions(tokens):
    return tokens.bit_length() - 1


def build_hypercube(dimensions):
    from keras_topo.operators import hypercube

    return hypercube(0.5, dimensions)


def prepare_hypercube(dimensions, x, most=3):
    """A product with an 8 x 8 matrix for three dimensions at a time."""
    edge = np.array([[1, 0.5], [0.5, 1]], x.dtype)
    cube = functools.reduce(np.kron, [edge] * most)

    def call():
        y, after = x, x.shape[1]
        for start in range(0, dimensions, most):
            size = 2 ** min(most, dimensions - start)
            y = np.matmul(cube[:size, :size], y.reshape(-1, size, after))
            after *= size
        return y.reshape(x.shape)

    return call


def build_causal(tokens):
    from keras_topo.operators import Causal

    return Causal(tokens)


def prepare_cumsum(tokens, x):
    return lambda: np.cumsum(x, axis=0)


ROWS = (
    Row(
        "Toeplitz",
        SIZES,
        random_toeplitz,
        build_toeplitz,
        (
            Peer("scipy.fft", prepare_toeplitz_fft),
            Peer("matmul_toeplitz, float64", prepare_matmul_toeplitz),
        ),
    ),
    Row(
        "BlockToeplitz, square grid",
        GRIDS,
        random_table,
        build_block_toeplitz,
        (Peer("scipy.fft", prepare_grid_fft),),
    ),
    Row(
        "Torus, square grid",
        GRIDS,
        random_ring_table,
        build_torus,
        (Peer("scipy.fft", prepare_torus_fft),),
    ),
    Row(
        "Kronecker, two dense factors",
        GRIDS,
        random_factors,
        build_kronecker,
        in_numpy("two NumPy products", prepare_kronecker),
    ),
    Row(
        "hypercube",
        CUBES,
        num_dimensions,
        build_hypercube,
        in_numpy("NumPy, axis by axis", prepare_hypercube),
    ),
    Row("ExponentialDecay", SIZES, int, build_decay, (filter_peer(DECAY),)),
    Row("Causal", SIZES, int, build_causal, (Peer("cumsum", prepare_cumsum),)),
)
