"""The rows of `benchmarks.masks`."""

import dataclasses
from collections.abc import Callable

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ONE_THREAD = "numpy, one thread"
OURS, OURS_64, DENSE = "product", "product, float64", "dense"


@dataclasses.dataclass(frozen=True)
class Peer:
    """An implementation of the same product without this package.

    Args:
        name: str.
        prepare: function from the inputs of a row and `x` `(tokens, columns)`
            to a function without arguments, which returns the product in the
            dtype of `x` at least.
        dtype: str, of `x`.
        exponent: float, growth exponent of its time, for `--limit`.
        kind: str, the process: `"numpy"`, or `"numpy, one thread"`.
    """

    name: str
    prepare: Callable
    dtype: str = "float32"
    exponent: float = 1.2
    kind: str = "numpy"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        name: str.
        sizes: tokens.
        inputs: function from the number of tokens to the data that define the
            mask, on the host; the same in every process.
        build: function from the inputs to the operator; it counts as
            preparation.
        peers: tuple of `Peer`; the first gives the reference, in float64.
        share: function from the inputs to slow preparation that all peers
            share; `None` if they start from the inputs.
        columns: int, or `None` for the requested number.
        also_float64: bool, whether the product is timed in float64 too.
    """

    name: str
    sizes: tuple
    inputs: Callable
    build: Callable
    peers: tuple
    share: Callable | None = None
    columns: int | None = None
    also_float64: bool = False

    def methods(self):
        """The names of the methods, ours first, with their process kinds."""
        methods = {OURS: "tensorflow"}
        if self.also_float64:
            methods[OURS_64] = "tensorflow"
        methods[DENSE] = "tensorflow"
        return methods | {peer.name: peer.kind for peer in self.peers}

    def exponent(self, method):
        """The growth exponent of the time of a method."""
        known = {DENSE: 2.0} | {p.name: p.exponent for p in self.peers}
        return known.get(method, 1.2)


def in_numpy(name, prepare, **options):
    """Two peers: BLAS with all threads, and with one, which is faster for
    small matrices and wherever a core is busy with something else."""
    return (
        Peer(name, prepare, **options),
        Peer(f"{name}, one thread", prepare, kind=ONE_THREAD, **options),
    )
