"""`Case`: an operator with its matrix."""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
import reference as ref

from keras_topo.testing import OperatorTest


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    #: From tensors to the operator; where there are none, from its dtype.
    build: Callable
    #: From arrays to the matrix. Analytic: it is differentiated by complex
    #: steps.
    dense: Callable
    #: Of the parameters, batch axes included.
    shapes: tuple
    #: Whether `factors` exist.
    low_rank: bool = False

    def parameters(self):
        """Arrays in float64, the same in every run."""
        random = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [random.uniform(0.2, 1.2, shape) for shape in self.shapes]

    def operator(self, dtype="float64", parameters=None):
        if not self.shapes:
            return self.build(dtype)
        parameters = parameters or self.parameters()
        return self.build(*[ref.tensor(p, dtype) for p in parameters])

    def matrix(self):
        return self.dense(*self.parameters())

    def contract(self):
        return OperatorTest(
            self.build,
            self.dense,
            self.parameters(),
            low_rank=self.low_rank,
            # Of an inverse, the oracle knows zeros up to rounding.
            rounding=1e-13 if "resolvent" in self.name else 0.0,
        )


def case(name, build, dense, *shapes, low_rank=False, batches=((), (2,))):
    """The case once without and once with a batch axis."""
    return [
        Case(
            name + "".join(f"-batch{n}" for n in batch),
            build,
            dense,
            tuple((*batch, *shape) for shape in shapes),
            low_rank,
        )
        for batch in batches
    ]


def alone(*args, **kwargs):
    """A case whose shapes hold their batch axes, or that has none."""
    return case(*args, **kwargs, batches=((),))
