"""The former command for images, as `python -m training.train images`.

It translates commands, such as those of older model cards, to the new form.
"""

from . import startup  # noqa: F401  isort: skip

import argparse
import sys

from keras_topo.training import train

POLICIES = {
    "none": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}


def translated(argv):
    """Options of this command as those of `training.train images`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--mixed-precision", choices=POLICIES)
    for name in ("--image-size", "--patch-size", "--classes"):
        parser.add_argument(name)
    known, rest = parser.parse_known_args(argv)
    if known.data == "digits":
        rest += ["--variant", "digits"]
    else:
        rest += ["--data", known.data]
    if known.mixed_precision:
        rest += ["--dtype-policy", POLICIES[known.mixed_precision]]
    # HEIGHTxWIDTH, and NAME,NAME.
    if known.image_size:
        rest += ["--image-size", *known.image_size.split("x")]
    if known.patch_size:
        rest += ["--patch-size", *known.patch_size.split("x")]
    if known.classes:
        rest += ["--classes", *known.classes.split(",")]
    return ["images", *rest]


def main(argv=None):
    """Runs the script; returns its exit status."""
    return train.main(translated(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
