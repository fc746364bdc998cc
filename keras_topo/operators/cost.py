"""The shared unit of `MaskOperator.cost`, and what things cost in it.

One unit is one multiply-add inside a large float32 matrix product. The other
constants say how many of those the machine could have done in the time that
something else takes. They are ratios, so they travel between machines of a
kind better than times do. `python -m benchmarks.calibrate` measures them
again and prints this table; the values below are its medians on two x86 cores
with the TensorFlow backend.
"""

#: One element passed once through memory by an elementwise operation.
ELEMENT = 30.0

#: One element of a real FFT of length n, divided by log2(n); transforms along
#: axes other than the last include their transposition.
FFT = 25.0

#: One multiply-add of a product with a small matrix, relative to a large one.
SMALL_PRODUCT = 1.15

#: Starting one operation on a tensor, whatever its size.
LAUNCH = 1.0e6
