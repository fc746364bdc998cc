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
