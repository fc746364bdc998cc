"""Requests to TensorFlow Serving, and a client that sends one.

    python deploy/client.py topvit-cifar10 classify_bytes photo.jpg
    python deploy/client.py gkat-enzymes serve_examples graph.example --grpc

Files are sent as they are: JPEG or PNG for models of images, a serialized
GraphTensor for models of graphs. REST needs nothing but Python; gRPC needs
tensorflow-serving-api.
"""

import argparse
import base64
import json
import sys
import urllib.request

# The input of each signature that takes files.
FILES = {"classify_bytes": "image_bytes", "serve_examples": "examples"}


def rest_request(signature, inputs):
    """The body of `POST /v1/models/NAME:predict`.

    Args:
        signature: str, the name of the signature.
        inputs: dict from the names of its inputs to lists or arrays, the batch
            first; bytes travel as base64.
    """
    return json.dumps(
        {
            "signature_name": signature,
            "inputs": {name: _plain(x) for name, x in inputs.items()},
        }
    )


def _plain(x):
    if isinstance(x, bytes):
        return {"b64": base64.b64encode(x).decode()}
    if hasattr(x, "tolist"):
        x = x.tolist()
    return [_plain(item) for item in x] if isinstance(x, list) else x


def grpc_request(model, signature, inputs):
    """A `tensorflow.serving.PredictRequest`, for port 8500.

    Args:
        model: str, its name in `models.config`.
        signature, inputs: see `rest_request`; arrays of the signature's dtypes.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, x in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(x))
    return request


def ask_rest(server, model, signature, inputs):
    """What the server answers, a dict."""
    request = urllib.request.Request(
        f"http://{server}:8501/v1/models/{model}:predict",
        rest_request(signature, inputs).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["outputs"]


def ask_grpc(server, model, signature, inputs):
    """What the server answers, a dict of arrays."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(f"{server}:8500") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = grpc_request(model, signature, inputs)
        outputs = stub.Predict(request, timeout=30).outputs
    return {name: tf.make_ndarray(x) for name, x in outputs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("signature", choices=FILES)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--server", default="localhost")
    parser.add_argument("--grpc", action="store_true")
    arguments = parser.parse_args()
    contents = []
    for name in arguments.files:
        with open(name, "rb") as file:
            contents.append(file.read())
    ask = ask_grpc if arguments.grpc else ask_rest
    answer = ask(
        arguments.server,
        arguments.model,
        arguments.signature,
        {FILES[arguments.signature]: contents},
    )
    for name, values in answer.items():
        print(f"{name}: {values}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
