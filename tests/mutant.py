"""What a mutant is: an error put into the code, and who notices it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutant:
    """An error to put into the code.

    Attributes:
        name: what is wrong with it.
        file: path from the root of the repository.
        source: text that the file has once.
        replacement: what stands there instead.
        tests: paths of tests, at least one of which is to fail; what is
            likely to fail comes first.
    """

    name: str
    file: str
    source: str
    replacement: str
    tests: tuple


def group(file, *tests):
    """Makes the mutants of one file."""

    def add(name, source, replacement):
        assert name not in {mutant.name for mutant in MUTANTS}, name
        MUTANTS.append(Mutant(name, file, source, replacement, tests))

    return add


MUTANTS = []
