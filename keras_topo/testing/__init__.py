"""Contract tests for operators and layers of your own.

- `run_operator_test` checks a `keras_topo.operators.MaskOperator` against its
  dense matrix; `OperatorTest` has the same checks one by one.
- `run_layer_test` checks that a Keras layer does what models, files and
  servers expect of it.

Both work under any test runner: they raise an `AssertionError` that names the
check. They run on the backend that Keras runs on.
"""

from keras_topo.testing.layers import run_layer_test
from keras_topo.testing.operators import OperatorTest, run_operator_test

__all__ = ["OperatorTest", "run_layer_test", "run_operator_test"]
