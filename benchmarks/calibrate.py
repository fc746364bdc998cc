"""Measures the constants of `keras_topo.operators.cost` on this machine.

    python -m benchmarks.calibrate [--rounds 7] [--jit]

Prints each constant as the ratio that it is: the time of what it stands for
over the time of one multiply-add in a large float32 matrix product, the two
taking turns, median over the rounds.
"""

import argparse
import math
import statistics
import time

import numpy as np
from keras import ops

from benchmarks.attention import compile_function
from keras_topo._backend import toeplitz_fft
from keras_topo.operators import cost as costs
from keras_topo.operators.toeplitz import fft_cost

SIZE = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jit", action="store_true")
    arguments = parser.parse_args()
    subjects = {
        name: (
            compile_function(function, tensors, False, arguments.jit),
            tensors,
            units,
        )
        for name, (function, tensors, units) in make_subjects().items()
    }
    for function, tensors, _ in subjects.values():
        function(*tensors)
    ratios = {name: [] for name in subjects}
    for _ in range(arguments.rounds):
        unit = seconds(subjects["large product"]) / SIZE**3
        for name, subject in subjects.items():
            ratios[name].append(seconds(subject) / subject[2] / unit)
    print(f"{'':28}{'measured':>12}{'in use':>12}")
    for name, values in ratios.items():
        in_use = getattr(costs, name, None)
        print(
            f"{name:28}{statistics.median(values):12.3g}"
            + (f"{in_use:12.3g}" if in_use else "")
        )


def make_subjects():
    """name -> (function, arguments, how many units it stands for)."""
    random = np.random.default_rng(0)

    def tensor(*shape):
        return ops.convert_to_tensor(random.random(shape, dtype="float32"))

    columns, side = 128, 128
    # The cost model's count of FFT work, without its constants.
    units = (fft_cost((side, side), columns) - 12 * costs.LAUNCH) / costs.FFT
    rows = SIZE * SIZE // side
    return {
        "large product": (
            ops.matmul,
            [tensor(SIZE, SIZE), tensor(SIZE, SIZE)],
            SIZE**3,
        ),
        "ELEMENT": (
            lambda x: ops.square(x) + x,
            [tensor(SIZE, SIZE)],
            2 * SIZE**2,
        ),
        "FFT": (
            lambda x, kernel: toeplitz_fft(x, kernel, (side, side)),
            [tensor(columns, side, side), tensor(2 * side, 2 * side)],
            units,
        ),
        "SMALL_PRODUCT": (
            ops.matmul,
            [tensor(rows, side), tensor(side, side)],
            rows * side * side,
        ),
        "LAUNCH": (lambda x: x + 1.0, [tensor(8)], 1),
    }


def seconds(subject):
    """Of one call: the mean over enough of them for the clock."""
    function, tensors, _ = subject
    start = time.perf_counter()
    function(*tensors)
    repeats = math.ceil(0.05 / max(time.perf_counter() - start, 1e-6))
    start = time.perf_counter()
    for _ in range(repeats):
        function(*tensors)
    return (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    main()
