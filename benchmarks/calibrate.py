"""Measures the constants of `keras_topo.operators.cost` on this machine.

    python -m benchmarks.calibrate [--rounds 7] [--jit]

Each constant is a ratio: the time of an operation over the time of one
multiply-add in a large float32 matrix product. The two take turns, and the
median over the rounds is printed.
"""

import argparse
import sys

import numpy as np
from keras import ops

from benchmarks.harness import format_table, ratio_of, take_turns
from benchmarks.measure import compile_call, measure_seconds
from keras_topo._backend import toeplitz_fft
from keras_topo.operators import cost as costs
from keras_topo.operators.toeplitz import fft_cost

UNIT = "large product"
SIZE = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jit", action="store_true")
    arguments = parser.parse_args()
    subjects = make_subjects()
    calls = {
        name: compile_call(function, tensors, jit=arguments.jit)
        for name, (function, tensors, _) in subjects.items()
    }
    for call in calls.values():
        call()
    rounds = take_turns(
        lambda name: {"seconds": measure_seconds(calls[name])},
        list(calls),
        arguments.rounds,
    )
    rows = []
    for name, (_, _, units) in subjects.items():
        measured = ratio_of(rounds, name, UNIT) * subjects[UNIT][2] / units
        in_use = getattr(costs, name, None)
        rows.append(
            [name, f"{measured:.3g}", "" if in_use is None else f"{in_use:.3g}"]
        )
    print(format_table(["", "measured", "in use"], rows))
    return 0


def make_subjects():
    """name -> (function, arguments, number of units of work)."""
    random = np.random.default_rng(0)

    def tensor(*shape):
        return ops.convert_to_tensor(random.random(shape, dtype="float32"))

    columns, side = 128, 128
    # The cost model's count of FFT work, without its constants.
    units = (fft_cost((side, side), columns) - 12 * costs.LAUNCH) / costs.FFT
    rows = SIZE * SIZE // side
    return {
        UNIT: (
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


if __name__ == "__main__":
    sys.exit(main())
