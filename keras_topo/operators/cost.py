"""The shared unit of `MaskOperator.cost`, and what things cost in it.

One unit is one multiply-add inside a large float32 matrix product. The other
constants say how many of those the machine could have done in the time that
something else takes. They are ratios, so they travel between machines of a
kind better than times do. `python -m benchmarks.calibrate` measures them and
prints them beside the values below.

The values were chosen so that `implementation="auto"` picks what is faster in
graphs on two x86 cores, in what `python -m benchmarks.attention` measured
there. They are of the size of what the script measures by itself, but for
`LAUNCH`: it times whole calls from Python, and an operation inside a graph
starts for a fraction of that.
"""

import math

#: One element passed once through memory by an elementwise operation.
ELEMENT = 30.0

#: One element of a real FFT of length n, divided by log2(n); transforms along
#: axes other than the last include their transposition.
FFT = 40.0

#: One multiply-add of a product with a small matrix, relative to a large one.
SMALL_PRODUCT = 1.15

#: Starting one operation on a tensor, whatever its size.
LAUNCH = 1.0e6

#: A multiply-add in many products of small matrices, which use the cores less
#: well, and whose gradients take more passes than those of large ones.
BATCHED_PRODUCT = 2.0


def product_cost(rows, inner, columns):
    """Cost of a dense product, its reading and writing included."""
    penalty = SMALL_PRODUCT if min(rows, inner) < 512 else 1.0
    return LAUNCH + penalty * math.prod((rows, inner, columns))


def low_rank_cost(problem, rank):
    """Cost of linear attention with `rank` times as many features."""
    features = problem.num_features * rank
    products = 2 * problem.length * features * (problem.value_dim + 1)
    passes = 4 * ELEMENT * problem.length * features
    return 4 * LAUNCH + problem.pairs * (products + passes)
