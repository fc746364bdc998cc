"""A quiet start of installed scripts, `python -m keras_topo.training.NAME`.

Python imports this package before the script, and TensorFlow with it: what the
script itself does about TensorFlow's first lines would come too late.
"""

import sys

_started = sys.orig_argv
_module = _started[_started.index("-m") + 1 :] if "-m" in _started else []

if _module and _module[0].startswith("keras_topo.training."):
    from keras_topo.training import startup  # noqa: F401
