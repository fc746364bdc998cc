"""Requests to TensorFlow Serving, and a client that sends one.

    python deploy/client.py topvit-cifar10 classify_bytes photo.jpg
    python deploy/client.py gkat-mutag serving_default graphs.json
    python deploy/client.py gkat-enzymes serve_examples graph.example --grpc

Files are sent as they are: JPEG, PNG, BMP, GIF or WebP for models of images, a
serialized GraphTensor for models of graphs. A file of JSON holds a list of
graphs, such as `[{"edges": [[0, 1], [1, 2]], "node_labels": [0, 0, 3]}]`: see
`graph_inputs`. REST needs nothing but Python, gRPC tensorflow-serving-api.

What goes wrong is one line, and the exit status 1: the reason that the server
gave, or why there was no answer.
"""

import argparse
import base64
import http.client
import json
import os
import sys
import urllib.error
import urllib.request

# The input of each signature that takes files.
FILES = {"classify_bytes": "image_bytes", "serve_examples": "examples"}

TIMEOUT = 30  # Seconds.


class NoAnswer(Exception):
    """The server refused a request, or did not answer; the text says why."""


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


# What nodes and edges have, and what pads it; labels pad themselves.
OF_NODES = {"node_labels": None, "features": 0.0}
OF_EDGES = {
    "edges": -1,
    "edge_weights": 0.0,
    "edge_labels": None,
    "edge_features": 0.0,
}


def graph_inputs(graphs):
    """Raw graphs as inputs of `serving_default`, padded to one size.

    Args:
        graphs: list of dicts of lists: `edges`, pairs of node ids, and of
            `node_labels`, `features`, `edge_weights`, `edge_labels` and
            `edge_features` what the model takes, one for each node or edge.
            `num_nodes` where neither labels nor features say how many.

    Raises:
        ValueError: if graphs do not have the same fields, or a field not one
            value for each node or edge.
    """
    if not isinstance(graphs, list) or not all(
        isinstance(graph, dict) for graph in graphs
    ):
        raise ValueError(
            "a list of graphs expects dicts, such as {'edges': [[0, 1]]}. "
            f"Received: {str(graphs)[:60]}"
        )
    fields = {key for graph in graphs for key in graph} - {"num_nodes"}
    unknown = fields - OF_NODES.keys() - OF_EDGES.keys()
    if not graphs or unknown or any(fields - graph.keys() for graph in graphs):
        raise ValueError(
            "graphs expect the same fields, of `edges`, "
            f"{', '.join([*OF_NODES, *OF_EDGES][:-1])}. Received: "
            f"{[sorted(graph) for graph in graphs]}"
        )
    sizes = [_size(graph) for graph in graphs]
    counts = [len(graph["edges"]) for graph in graphs]
    most = max(sizes)
    found = {"node_mask": [[k < size for k in range(most)] for size in sizes]}
    for of, lengths in ((OF_NODES, sizes), (OF_EDGES, counts)):
        # A list without edges has no shape of its own.
        length = max(1, *lengths)
        for key in of.keys() & fields:
            found[key] = _padded(graphs, key, of[key], lengths, length)
    return found


def _size(graph):
    if "num_nodes" in graph:
        return graph["num_nodes"]
    known = [key for key in OF_NODES if key in graph]
    if not known:
        raise ValueError(
            "a graph without labels and features of nodes expects num_nodes. "
            f"Received: {sorted(graph)}"
        )
    return len(graph[known[0]])


def _padded(graphs, key, value, lengths, length):
    rows = [row for graph in graphs for row in graph[key]]
    first = rows[0] if rows else [-1, -1] if key == "edges" else 0
    padding = first if value is None else value
    if isinstance(first, list):
        padding = [value] * len(first)
    found = []
    for graph, expected in zip(graphs, lengths, strict=True):
        if len(graph[key]) != expected:
            raise ValueError(
                f"`{key}` expects {expected} rows. Received: {len(graph[key])}"
            )
        found.append(graph[key] + [padding] * (length - expected))
    return found


def ask_rest(server, model, signature, inputs):
    """What the server answers, a dict.

    Args:
        server: str, HOST or HOST:PORT; the port of REST is 8501.
        model, signature, inputs: see `grpc_request`.

    Raises:
        NoAnswer: with the reason that the server gave.
    """
    address = _with_port(server, 8501)
    request = urllib.request.Request(
        f"http://{address}/v1/models/{model}:predict",
        rest_request(signature, inputs).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            reason = _reason(error.read())
        raise NoAnswer(f"{address}: {reason} ({error.code})") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(f"{address}: no answer ({reason})") from error
    try:
        return dict(json.loads(text)["outputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswer(
            f"{address}: not an answer of TensorFlow Serving: {text[:60]!r}"
        ) from error


def _reason(body):
    """The `error` that TensorFlow Serving writes, or what else there is."""
    try:
        return json.loads(body)["error"].strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return body[:200].decode(errors="replace").strip() or "refused"


def ask_grpc(server, model, signature, inputs):
    """What the server answers, a dict of arrays.

    Args:
        server: str, HOST or HOST:PORT; the port of gRPC is 8500.
        model, signature, inputs: see `grpc_request`.

    Raises:
        NoAnswer: with the reason that the server gave.
    """
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import prediction_service_pb2_grpc
    except ImportError as error:
        raise NoAnswer(
            f"--grpc needs tensorflow-serving-api ({error})"
        ) from error

    address = _with_port(server, 8500)
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = grpc_request(model, signature, inputs)
        try:
            outputs = stub.Predict(request, timeout=TIMEOUT).outputs
        except grpc.RpcError as error:
            raise NoAnswer(
                f"{address}: {error.details()} ({error.code().name})"
            ) from error
    return {name: tf.make_ndarray(x) for name, x in outputs.items()}


def _with_port(server, port):
    return server if ":" in server else f"{server}:{port}"


def read_inputs(signature, files):
    """Inputs of a signature, of files: `graph_inputs` of those of JSON.

    Raises:
        OSError: a file is not there.
        ValueError: a file of graphs is none.
    """
    contents = []
    for name in files:
        with open(os.path.expanduser(name), "rb") as file:
            contents.append(file.read())
    if signature in FILES:
        return {FILES[signature]: contents}
    graphs = []
    for name, text in zip(files, contents, strict=True):
        try:
            found = json.loads(text)
        except ValueError as error:  # UnicodeDecodeError is one, too.
            raise ValueError(
                f"{name} expects JSON, a list of graphs. Received: {error}"
            ) from error
        graphs += found if isinstance(found, list) else [found]
    return graph_inputs(graphs)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="client.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model")
    parser.add_argument("signature", choices=[*FILES, "serving_default"])
    parser.add_argument("files", nargs="+")
    parser.add_argument(
        "--server", default="localhost", help="HOST, or HOST:PORT"
    )
    parser.add_argument("--grpc", action="store_true")
    arguments = parser.parse_args(argv)
    ask = ask_grpc if arguments.grpc else ask_rest
    try:
        inputs = read_inputs(arguments.signature, arguments.files)
        answer = ask(
            arguments.server, arguments.model, arguments.signature, inputs
        )
    except (NoAnswer, OSError, ValueError) as error:
        # Reasons of TensorFlow have several lines.
        print("error:", *str(error).split(), file=sys.stderr)
        return 1
    for name, values in answer.items():
        print(f"{name}: {values}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
