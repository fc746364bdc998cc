"""Quiet start of the training scripts: import this before anything else.

TensorFlow prints a few informational lines while it loads, before any of its
log levels apply. This module drops them. All other output of the import, such
as errors and other warnings, is kept.
"""

import os
import re
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_NOISE = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog"
    rb"|I\d{4} \d\d:\d\d:)"
)


def _import_quietly():
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    # The lines come from C++, so the file descriptor itself is redirected.
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            captured.seek(0)
            for line in captured:
                if not _NOISE.match(line):
                    os.write(2, line)


_import_quietly()
