"""Peers that use filters and convolutions, for sequences, grids and paths."""

import functools
import math

import numpy as np
import scipy.fft
import scipy.signal

from benchmarks.measure import num_threads
from benchmarks.products.rows import Peer


def filter_peer(rate):
    return Peer("lfilter", functools.partial(prepare_filter, rate))


def prepare_filter(rate, inputs, x):
    """A recursive filter in both directions, along contiguous columns."""
    one = np.ones(1, x.dtype)
    recursion = np.array([1, -math.exp(-rate)], x.dtype)

    def call():
        z = np.ascontiguousarray(x.T)
        y = scipy.signal.lfilter(one, recursion, z)
        y += scipy.signal.lfilter(one, recursion, z[:, ::-1])[:, ::-1]
        y -= z
        return np.ascontiguousarray(y.T)

    return call


def prepare_toeplitz_fft(inputs, x):
    column, row = inputs
    table = np.concatenate([row[:0:-1], column])
    return prepare_fft(table, (len(column),), x)


def prepare_fft(table, grid, x):
    """Circular convolution of padded columns with a transformed table."""
    padded = tuple(scipy.fft.next_fast_len(n, real=True) for n in table.shape)
    # The offset 0 first; negative ones wrap around.
    kernel = np.zeros(padded, x.dtype)
    kernel[tuple(slice(n) for n in table.shape)] = table
    kernel = np.roll(kernel, [1 - n for n in grid], range(len(grid)))
    return prepare_circular(kernel, grid, x)


def prepare_circular(kernel, grid, x):
    """Circular convolution with a kernel that is transformed beforehand."""
    axes, workers = range(-len(grid), 0), num_threads()
    spectrum = scipy.fft.rfftn(kernel)
    inside = (slice(None), *(slice(n) for n in grid))

    def call():
        z = np.ascontiguousarray(x.T).reshape(-1, *grid)
        z = scipy.fft.rfftn(z, kernel.shape, axes, workers=workers)
        z *= spectrum
        z = scipy.fft.irfftn(
            z, kernel.shape, axes, workers=workers, overwrite_x=True
        )[inside]
        return np.ascontiguousarray(z.reshape(len(z), -1).T)

    return call
