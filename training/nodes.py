"""The former command for nodes, as `python -m training.train nodes`.

It translates commands, such as those of older model cards, to the new form.
"""

from . import startup  # noqa: F401  isort: skip

import sys

from keras_topo.training import train


def main(argv=None):
    """Runs the script; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return train.main(["nodes", *argv])


if __name__ == "__main__":
    sys.exit(main())
