"""The former command for motifs, as `python -m training.train motifs`.

It translates commands, such as those of results/, to the new form.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys

from keras_topo.training import train
from keras_topo.training.graph_data import GENERATED

METHODS = ["gkat", "ones", "gat", "gcn", "sgc"]


def translated(argv):
    """Options of this command as those of `training.train motifs`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    tasks = [name for name in GENERATED if name != "cycles"]
    parser.add_argument("--tasks", nargs="+", default=tasks)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--walk-lengths", nargs="+", default=["4"])
    parser.add_argument("--seeds", default="5")
    known, rest = parser.parse_known_args(argv)
    compare = [
        f"data={','.join(known.tasks)}",
        f"model={','.join(known.methods)}",
    ]
    if known.walk_lengths != ["4"]:
        compare.append(f"kernel_sizes={','.join(known.walk_lengths)}")
    return ["motifs", *rest, "--seeds", known.seeds, "--compare", *compare]


def main(argv=None):
    """Runs the script; returns its exit status."""
    return train.main(translated(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
