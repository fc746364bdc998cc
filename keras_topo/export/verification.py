"""What was written, asked in a process of its own, against the Keras model."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from keras_topo.annotations import StrPath


class Comparison:
    """The largest difference of each output, held against a limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.differences = {}

    def add(self, name: str, served: np.ndarray, expected: np.ndarray) -> None:
        if served.shape != expected.shape or served.dtype != expected.dtype:
            raise RuntimeError(
                f"The exported model answers `{name}` as {served.dtype} "
                f"{served.shape}, and the Keras model as {expected.dtype} "
                f"{expected.shape}."
            )
        difference = float(np.abs(served - expected).max(initial=0.0))
        # Written so that NaN fails.
        if not difference <= self.limit:
            raise RuntimeError(
                f"The exported model's `{name}` differ from the Keras model's "
                f"by {difference:.3g}; allowed is {self.limit:.3g}. If this is "
                "rounding, pass a larger `tolerance`."
            )
        known = self.differences.get(name, 0.0)
        self.differences[name] = max(known, difference)


# Runs with TensorFlow and the standard library. TensorFlow itself asks *where*
# Keras is while it is imported, so the finder answers, and only an import
# fails.
CLEAN_PROCESS = """
import importlib.machinery, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tf_keras", "keras_topo"):
            return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec):
        raise ImportError(spec.name + " is out of bounds in this process")
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Blocker())
folder, requests, answers, paths = json.loads(sys.argv[1])
sys.path += [path for path in paths if path not in sys.path]

import pickle
import tensorflow as tf

with open(requests, "rb") as file:
    requests = pickle.load(file)
signatures = tf.saved_model.load(folder).signatures
results = []
for name, inputs in requests:
    signature = signatures[name]
    specs = signature.structured_input_signature[1]
    tensors = {
        key: tf.constant(inputs[key], specs[key].dtype) for key in inputs
    }
    outputs = signature(**tensors)
    results.append({key: outputs[key].numpy() for key in outputs})
assert not {"keras", "keras_topo"} & set(sys.modules)
with open(answers, "wb") as file:
    pickle.dump(results, file)
"""


def answers_of_a_clean_process(
    folder: StrPath, requests: Sequence[tuple[str, Mapping[str, np.ndarray]]]
) -> list[dict[str, np.ndarray]]:
    """What a SavedModel answers where there is TensorFlow and no Keras.

    Args:
        folder: The SavedModel.
        requests: Pairs of a signature's name and {input name: array}.

    Returns:
        A list of {output name: array}, one for each request.
    """
    environment = dict(os.environ)
    for name in ("KERAS_BACKEND", "TF_USE_LEGACY_KERAS"):
        environment.pop(name, None)
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # This process may hold all of an accelerator's memory.
    environment["CUDA_VISIBLE_DEVICES"] = "-1"

    with tempfile.TemporaryDirectory() as exchange:
        files = [os.path.join(exchange, name) for name in ("ask", "answer")]
        with open(files[0], "wb") as file:
            pickle.dump(requests, file)
        # Isolated mode leaves out PYTHONPATH and the user's own packages,
        # among which TensorFlow may be.
        paths = [entry for entry in sys.path if os.path.isabs(entry)]
        job = json.dumps([str(folder), *files, paths])
        finished = subprocess.run(
            [sys.executable, "-I", "-c", CLEAN_PROCESS, job],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if finished.returncode != 0:
            raise RuntimeError(
                "The exported model does not serve in a process of its own, "
                "with TensorFlow and without Keras (exit status "
                f"{finished.returncode}):\n{finished.stderr[-4000:]}"
            )
        with open(files[1], "rb") as file:
            return pickle.load(file)
