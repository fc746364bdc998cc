"""Requests that TensorFlow Serving sends to itself before it serves.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup(
    folder: pathlib.Path,
    requests: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> None:
    """Writes the requests that TensorFlow Serving sends to itself at first, a
    `PredictionLog` each, so that no client waits for a first call."""
    import tensorflow as tf

    file = folder / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in requests:
            if all(array.shape[0] for array in inputs.values()):
                writer.write(prediction_log(signature, inputs))


def prediction_log(signature: str, inputs: Mapping[str, np.ndarray]) -> bytes:
    """A serialized `tensorflow.serving.PredictionLog` of a request.

    Its messages are those of tensorflow-serving-api, which is not needed for
    four fields: a message in another is its number, its length and itself.
    """
    import tensorflow as tf

    spec = _message(3, signature.encode())  # ModelSpec.signature_name
    request = _message(1, spec)  # PredictRequest.model_spec
    for name, array in inputs.items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        entry = _message(1, name.encode()) + _message(2, tensor)
        request += _message(2, entry)  # PredictRequest.inputs
    log = _message(1, request)  # PredictLog.request
    return _message(6, log)  # PredictionLog.predict_log


def _message(number, payload):
    """A field of the wire format of protocol buffers, of a known length."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(n):
    octets = []
    while n > 127:
        octets.append(n & 127 | 128)
        n >>= 7
    return bytes([*octets, n])
