"""Asks a SavedModel as clients do, in a process with TensorFlow alone.

    python soak.py SAVED_MODEL REQUESTS.json

`REQUESTS.json`: `good`, a list of `{signature, inputs, outputs}`, and `bad`,
of `{name, signature, inputs}`, whose tensors are serialized TensorProtos in
base64. 8 threads send 2,000 good requests; then each bad one has to be
refused, and the next good one answered. Prints a JSON summary.
"""

import base64
import concurrent.futures
import json
import sys

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

REQUESTS, THREADS, TOLERANCE = 2000, 8, 1e-5


def tensors(encoded):
    return {
        name: tf.make_ndarray(
            tensor_pb2.TensorProto.FromString(base64.b64decode(text))
        )
        for name, text in encoded.items()
    }


def difference(served, expected):
    """The largest difference of numbers; infinity for different names."""
    if expected.dtype == object:
        return 0.0 if (served == expected).all() else float("inf")
    return float(np.abs(served - expected).max(initial=0))


def main():
    path, file = sys.argv[1:]
    model = tf.saved_model.load(path)
    foreign = {"keras_topo", "tf_keras", "tensorflow_gnn"} & set(sys.modules)
    assert not foreign, foreign
    with open(file) as opened:
        requests = json.load(opened)
    good = [
        (r["signature"], tensors(r["inputs"]), tensors(r["outputs"]))
        for r in requests["good"]
    ]

    # Check names first: an input that cannot be sent is not a refusal.
    for bad in requests["bad"]:
        _, inputs = model.signatures[
            bad["signature"]
        ].structured_input_signature
        assert set(inputs) == set(bad["inputs"]), (inputs, bad["name"])

    def ask(number):
        signature, inputs, expected = good[number % len(good)]
        outputs = model.signatures[signature](
            **{name: tf.constant(x) for name, x in inputs.items()}
        )
        return max(
            difference(outputs[name].numpy(), x) for name, x in expected.items()
        )

    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        differences = list(threads.map(ask, range(REQUESTS)))
    assert max(differences) <= TOLERANCE, max(differences)

    refused = {}
    for number, bad in enumerate(requests["bad"]):
        signature = model.signatures[bad["signature"]]
        inputs = {k: tf.constant(x) for k, x in tensors(bad["inputs"]).items()}
        try:
            outputs = signature(**inputs)
        # The second form is for messages that quote bytes that are not text.
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
            refused[bad["name"]] = f"{type(error).__name__}: {error}"[:200]
        else:
            raise AssertionError(f"{bad['name']} was answered: {outputs}")
        assert ask(number) <= TOLERANCE
    rows = [len(next(iter(inputs.values()))) for _, inputs, _ in good]
    print(
        json.dumps(
            {
                "requests": REQUESTS,
                "threads": THREADS,
                "rows": [min(rows), max(rows)],
                "largest_difference": max(differences),
                "refused": refused,
            }
        )
    )


if __name__ == "__main__":
    main()
