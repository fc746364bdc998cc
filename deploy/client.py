"""Requests to TensorFlow Serving, and a client that sends one.

    python deploy/client.py topvit-cifar10 classify_bytes photo.jpg
    python deploy/client.py gkat-mutag serving_default graphs.json
    python deploy/client.py gkat-enzymes serve_examples graph.example --grpc

Files are sent unchanged: JPEG, PNG, BMP, GIF or WebP for image models, a
serialized GraphTensor for graph models. A JSON file holds a list of graphs,
such as `[{"edges": [[0, 1], [1, 2]], "node_labels": [0, 0, 3]}]`; see
`graph_inputs`. REST needs only Python; gRPC needs tensorflow-serving-api.

On failure the client prints one line with the reason, and exits with status 1.
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
    """The server refused a request or did not answer; the text says why."""


def rest_request(signature, inputs):
    """The body of `POST /v1/models/NAME:predict`.

    Args:
        signature: str, the name of the signature.
        inputs: dict from input names to lists or arrays, batch axis first;
            bytes are sent as base64.
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
        model: str, the name in `models.config`.
        signature, inputs: see `rest_request`; arrays must have the dtypes of
            the signature.
    """
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, x in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(x))
    return request


# Fields of nodes and edges with their padding values; labels are padded with
# their first value.
OF_NODES = {"node_labels": None, "features": 0.0}
OF_EDGES = {
    "edges": -1,
    "edge_weights": 0.0,
    "edge_labels": None,
    "edge_features": 0.0,
}


# Whose padding is as long as a value of theirs.
NEED_A_ROW = ("features", "edge_features")


def graph_inputs(graphs):
    """Raw graphs as inputs of `serving_default`, padded to one size.

    Args:
        graphs: list of dicts of lists: `edges`, pairs of node ids, and those
            of `node_labels`, `features`, `edge_weights`, `edge_labels` and
            `edge_features` that the model takes, one per node or edge.
            `num_nodes` is needed if there are no labels or features of nodes.

    Raises:
        ValueError: if graphs have different fields, or a field is no list of
            one value per node or edge.
    """
    if not isinstance(graphs, list) or not all(
        isinstance(graph, dict) for graph in graphs
    ):
        raise ValueError(
            "`graphs` expects a list of dicts, such as {'edges': [[0, 1]]}. "
            f"Received: {str(graphs)[:60]}"
        )
    fields = {key for graph in graphs for key in graph} - {"num_nodes"}
    unknown = fields - OF_NODES.keys() - OF_EDGES.keys()
    same = not any(fields - graph.keys() for graph in graphs)
    if not graphs or unknown or not same or "edges" not in fields:
        raise ValueError(
            "`graphs` expects the same fields in each graph, edges and some of "
            f"{', '.join(sorted({*OF_NODES, *OF_EDGES} - {'edges'}))}. "
            f"Received: {[sorted(graph) for graph in graphs]}"
        )
    for graph in graphs:
        for key in fields:
            if not isinstance(graph[key], list):
                raise ValueError(
                    f"`{key}` expects a list. Received: {str(graph[key])[:60]}"
                )
    sizes = [_size(graph) for graph in graphs]
    counts = [len(graph["edges"]) for graph in graphs]
    most = max(sizes)
    found = {"node_mask": [[k < size for k in range(most)] for size in sizes]}
    for of, lengths in ((OF_NODES, sizes), (OF_EDGES, counts)):
        # At least one row, because an empty list has no shape.
        length = max(1, *lengths)
        for key in of.keys() & fields:
            found[key] = _padded(graphs, key, of[key], lengths, length)
    return found


def _size(graph):
    if "num_nodes" in graph:
        if type(graph["num_nodes"]) is not int:
            raise ValueError(
                "`num_nodes` expects an integer. Received: "
                f"{graph['num_nodes']!r}"
            )
        return graph["num_nodes"]
    known = [key for key in OF_NODES if key in graph]
    if not known:
        raise ValueError(
            "A graph without node_labels and features expects num_nodes. "
            f"Received: {sorted(graph)}"
        )
    return len(graph[known[0]])


def _padded(graphs, key, value, lengths, length):
    rows = [row for graph in graphs for row in graph[key]]
    if not rows and key in NEED_A_ROW:
        raise ValueError(
            f"`{key}` expects a value in one graph at least, from which those "
            "of padding follow. Received: none"
        )
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
        values = graph[key]
        if isinstance(value, float):
            # gRPC tells integers from other numbers.
            values = _as_floats(values, key)
        found.append(values + [padding] * (length - expected))
    return found


def _as_floats(values, key):
    if isinstance(values, list):
        return [_as_floats(x, key) for x in values]
    if isinstance(values, bool) or not isinstance(values, (int, float)):
        raise ValueError(f"`{key}` expects numbers. Received: {values!r}")
    return float(values)


def ask_rest(server, model, signature, inputs):
    """The answer of the server over REST, a dict.

    Args:
        server: str, HOST or HOST:PORT; the default port is 8501.
        model, signature, inputs: see `grpc_request`.

    Raises:
        NoAnswer: with the reason.
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
    """The `error` of TensorFlow Serving, or else the text of the body."""
    try:
        return json.loads(body)["error"].strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return body[:200].decode(errors="replace").strip() or "refused"


def ask_grpc(server, model, signature, inputs):
    """The answer of the server over gRPC, a dict of arrays.

    Args:
        server: str, HOST or HOST:PORT; the default port is 8500.
        model, signature, inputs: see `grpc_request`.

    Raises:
        NoAnswer: with the reason.
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
    """Inputs of a signature from files; JSON files go through `graph_inputs`.

    Raises:
        OSError: if a file is missing.
        ValueError: if a JSON file does not hold graphs.
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
        except ValueError as error:  # Includes UnicodeDecodeError.
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
        # Error texts of TensorFlow have several lines.
        print("error:", *str(error).split(), file=sys.stderr)
        return 1
    for name, values in answer.items():
        print(f"{name}: {values}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
