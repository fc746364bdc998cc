"""The mutants of `tests/mutants.py`: what is replaced by what, and which tests
notice it. `tests/test_mutants.py` checks that each of them still applies."""

import tests.mutants_of_graphs
import tests.mutants_of_training  # noqa: F401
from tests.mutant import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
