"""A quiet start of `keras-topo` and `python -m keras_topo.training.NAME`.

Python imports this package before the script, and TensorFlow with it: what the
script itself does about TensorFlow's first lines would come too late.
"""

import os
import sys

COMMAND = "keras-topo"


def starts_a_script(started):
    """Whether a command line, `sys.orig_argv`, starts a script of ours."""
    if "-m" in started[:-1]:
        module = started[started.index("-m") + 1]
        return (module + ".").startswith(
            ("keras_topo.training.", "keras_topo.__main__.")
        ) or module == "keras_topo"
    name = os.path.basename(started[1]) if started[1:] else ""
    return name.removesuffix(".exe").removesuffix("-script.py") == COMMAND


if starts_a_script(sys.orig_argv):
    from keras_topo.training import startup  # noqa: F401
