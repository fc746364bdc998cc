"""Attention on many tokens does not hold what it must not hold."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parent / "peak_memory.py"


@pytest.mark.slow
@pytest.mark.slow_on_jax
def test_gradients_on_many_tokens_hold_no_whole_intermediate():
    """Neither scores (9,216^2: 324 MiB a copy, of which a gradient keeps
    several) nor products of 16,384 tokens with every column (L x m x (d + 1):
    260 MiB a copy)."""
    pytest.importorskip("resource", reason="not on this platform")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    growth = dict(line.split() for line in result.stdout.splitlines()[-2:])
    # Measured: 225 to 430, and kept whole 1750.
    assert float(growth["fast"]) < 640, growth
    # Measured: no more than the fast form before it; kept whole, 2500 at
    # least.
    assert float(growth["explicit"]) < 512, growth
