"""The former command for graphs, as `python -m training.train graphs`.

It translates commands, such as those of older model cards, to the new form.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys

from keras_topo.training import train


def translated(argv):
    """Options of this command as those of `training.train graphs`."""
    parser = argparse.ArgumentParser(
        "python -m training.graphs", add_help=False, allow_abbrev=False
    )
    parser.add_argument("--protocol", choices=["split", "folds"])
    parser.add_argument("--final-runs")
    parser.add_argument("--degrees", action=argparse.BooleanOptionalAction)
    parser.add_argument("--select", action="append", default=[])
    known, rest = parser.parse_known_args(argv)
    if known.protocol == "folds" and not any(
        text.partition("=")[0] == "--splits" for text in rest
    ):
        parser.error("--protocol folds expects --splits, a JSON file of folds")
    if known.final_runs:
        rest += ["--seeds", known.final_runs]
    if known.degrees is not None:
        rest += ["--degrees", str(known.degrees)]
    if known.select:
        rest += ["--select", *known.select]
    return ["graphs", *rest]


def main(argv=None):
    """Runs the script; returns its exit status."""
    return train.main(translated(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
