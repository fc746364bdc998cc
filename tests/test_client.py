"""`deploy/client.py` against servers that refuse, answer, or are none."""

import contextlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
from concurrent import futures

import pytest
from test_serving import client

pytestmark = pytest.mark.tensorflow_only

REFUSAL = (
    "assertion failed: [image_bytes[0] must be a JPEG, a PNG, a BMP, a GIF or "
    "a WebP. Received: 4 bytes of something else]"
)
WHOLE = f"Graph execution error:\n{REFUSAL}\n\t [[{{{{node Assert}}}}]]"


@contextlib.contextmanager
def rest_server(status, body):
    """Gives the same answer to every request; yields address and requests."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            seen.append((self.path, json.loads(self.rfile.read(length))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("localhost", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"localhost:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def grpc_server(predict):
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc as apis

    class Service(apis.PredictionServiceServicer):
        def Predict(self, request, context):
            return predict(request, context)

    server = grpc.server(futures.ThreadPoolExecutor(1))
    apis.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"\xff\xd8no")
    return str(file)


def run(capsys, *arguments):
    """The exit status, and what was written to both outputs."""
    status = client.main(list(arguments))
    return status, *capsys.readouterr()


def classify(capsys, photo, server, *options):
    return run(
        capsys, "cats", "classify_bytes", photo, "--server", server, *options
    )


def check_error(found, *words):
    """Status 1, nothing on the standard output, and one line of error."""
    status, out, err = found
    assert status == 1 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_an_answer_over_rest(capsys, photo):
    body = json.dumps({"outputs": {"classes": [["cat"]], "scores": [[0.9]]}})
    with rest_server(200, body.encode()) as (server, seen):
        status, out, err = classify(capsys, photo, server)
    assert (status, err) == (0, "")
    assert out == "classes: [['cat']]\nscores: [[0.9]]\n"
    ((path, request),) = seen
    assert path == "/v1/models/cats:predict"
    assert request["signature_name"] == "classify_bytes"
    assert request["inputs"] == {"image_bytes": [{"b64": "/9hubw=="}]}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, json.dumps({"error": WHOLE}), [REFUSAL, "(400)"]),
        (404, '{"error": "Servable not found: cats"}', ["Servable not found"]),
        (502, "<html>Bad gateway</html>", ["Bad gateway", "(502)"]),
        (503, "", ["refused (503)"]),
        (200, "<html>Hello</html>", ["not an answer", "Hello"]),
        (200, '{"predictions": [1]}', ["not an answer", "predictions"]),
    ],
)
def test_what_a_server_says_over_rest(capsys, photo, status, body, words):
    with rest_server(status, body.encode()) as (server, _):
        check_error(classify(capsys, photo, server), server, *words)


def free_port():
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return taken.getsockname()[1]


def test_no_server(capsys, photo, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", 5)
    server = f"localhost:{free_port()}"
    check_error(classify(capsys, photo, server), server, "no answer")
    found = classify(capsys, photo, server, "--grpc")
    check_error(found, server, "UNAVAILABLE")


def test_a_server_that_is_silent(capsys, photo, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    with socket.create_server(("localhost", 0)) as silent:
        server = f"localhost:{silent.getsockname()[1]}"
        check_error(classify(capsys, photo, server), "no answer", "timed out")
        found = classify(capsys, photo, server, "--grpc")
        check_error(found, "DEADLINE_EXCEEDED")


def test_answers_and_refusals_over_grpc(capsys, photo):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    def answer(request, context):
        assert request.model_spec.name == "cats"
        (sent,) = tf.make_ndarray(request.inputs["image_bytes"])
        assert sent == b"\xff\xd8no"
        found = predict_pb2.PredictResponse()
        scores = tf.make_tensor_proto([[0.5]])
        found.outputs["scores"].CopyFrom(scores)
        return found

    def refuse(request, context):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, WHOLE)

    with grpc_server(answer) as server:
        found = classify(capsys, photo, server, "--grpc")
    assert found == (0, "scores: [[0.5]]\n", "")
    with grpc_server(refuse) as server:
        found = classify(capsys, photo, server, "--grpc")
    check_error(found, REFUSAL, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["graphs.json", "No such file"]),
        ("[{", ["graphs.json", "expects JSON"]),
        ("\udcff", ["graphs.json", "expects JSON"]),
        ("[1, 2]", ["expects a list of dicts"]),
        ('[{"atoms": []}]', ["the same fields"]),
        ('[{"edges": []}]', ["num_nodes"]),
        ('[{"node_labels": [0, 1]}]', ["the same fields", "edges"]),
        ('[{"edges": [], "num_nodes": "2"}]', ["num_nodes", "integer", "'2'"]),
        ('[{"edges": [], "node_labels": 3}]', ["`node_labels` expects a list"]),
        ('[{"edges": null, "num_nodes": 1}]', ["`edges` expects a list"]),
        (
            '[{"edges": [], "num_nodes": 1, "edge_features": []}]',
            ["`edge_features` expects a value"],
        ),
        (
            '[{"edges": [[0, 1]], "features": [["a"], ["b"]]}]',
            ["`features` expects numbers"],
        ),
    ],
)
def test_files_of_graphs(capsys, tmp_path, text, words):
    file = tmp_path / "graphs.json"
    if text is not None:
        file.write_bytes(text.encode(errors="surrogateescape"))
    found = run(capsys, "gkat-mutag", "serving_default", str(file))
    check_error(found, *words)


def test_one_graph_is_a_list_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "graph.json").write_text('{"edges": [], "num_nodes": 1}')
    inputs = client.read_inputs("serving_default", ["~/graph.json"])
    assert inputs == {"node_mask": [[True]], "edges": [[[-1, -1]]]}


def test_numbers_are_floats_where_signatures_have_floats():
    import tensorflow as tf

    graphs = [
        {"edges": [[0, 1]], "features": [[1, 0], [0, 1]], "edge_weights": [2]},
        {"edges": [], "features": [[3, 4]], "edge_weights": []},
    ]
    inputs = client.graph_inputs(graphs)
    request = client.grpc_request("m", "serving_default", inputs)
    dtypes = {name: x.dtype for name, x in request.inputs.items()}
    assert dtypes == {
        "node_mask": tf.bool.as_datatype_enum,
        "edges": tf.int32.as_datatype_enum,
        "features": tf.float32.as_datatype_enum,
        "edge_weights": tf.float32.as_datatype_enum,
    }
    assert inputs["features"] == [[[1, 0], [0, 1]], [[3, 4], [0, 0]]]


def test_rest_needs_nothing_but_python(photo):
    """It needs no package of this environment, and prints no traceback."""
    file = pathlib.Path(client.__file__)
    command = [sys.executable, "-I", "-S", str(file), "cats", "classify_bytes"]
    found = subprocess.run(
        [*command, photo, "--server", f"localhost:{free_port()}"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    check_error((found.returncode, found.stdout, found.stderr), "no answer")
