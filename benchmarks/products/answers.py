"""The processes of `benchmarks.masks`: masks and dense matrices, and peers."""

import time

import numpy as np

from benchmarks.measure import (
    Kept,
    compile_call,
    measure_growth,
    measure_seconds,
    memory_status,
)
from benchmarks.products import forests, graphs, grids
from benchmarks.products.rows import DENSE, OURS_64

FRESH_FROM = 100_000  # tokens; larger results have their own process
CHECKED_COLUMNS = 8

ROWS = {row.name: row for row in (*forests.ROWS, *graphs.ROWS, *grids.ROWS)}


def answer_keras():
    """A function from requests to answers that caches one size at a time."""
    prepared = Kept()

    def answer(request):
        prepared.enter((request["row"], request["tokens"]))
        row, method = ROWS[request["row"]], request["method"]
        if method not in prepared:
            prepared[method], found = prepare_keras(row, request, prepared)
            if request.get("prepare"):
                return found
        return {"seconds": measure_seconds(prepared[method])}

    return answer


def prepare_keras(row, request, prepared):
    """A call of a method, and the cost of its preparation and first call."""
    import keras

    # The import is not part of the preparation.
    import keras_topo.operators  # noqa: F401

    tokens, method = request["tokens"], request["method"]
    if method == DENSE:
        matrix = np.random.default_rng(2).random((tokens, tokens), "float32")
        arrays = [random_columns(request), matrix]
        tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
        return compile_call(lambda x, matrix: matrix @ x, tensors), {}
    dtype = "float64" if method == OURS_64 else "float32"
    inputs = row.inputs(tokens)
    found = {}

    def prepare():
        began = time.perf_counter()
        operator = prepared.get("operator")
        if operator is None:
            operator = prepared["operator"] = row.build(inputs)
        found["prepare"] = time.perf_counter() - began
        began = time.perf_counter()
        x = keras.ops.convert_to_tensor(random_columns(request, dtype))
        tensors = [x, *operator.tensors()]
        call = compile_call(
            lambda x, *tensors: operator.with_tensors(tensors) @ x, tensors
        )
        y = np.asarray(call())
        found["first"] = time.perf_counter() - began
        if request.get("prepare"):
            np.save(request["prepare"], y[:, :CHECKED_COLUMNS])
        prepared["call"] = call

    if tokens < FRESH_FROM:
        prepare()
    else:
        found["megabytes"] = measure_growth(prepare)
        # Of the whole process, including interpreter and frameworks.
        found["process_megabytes"] = memory_status("VmHWM")
    return prepared.pop("call"), found


def random_columns(request, dtype="float32"):
    """The input of the product, the same in every process."""
    shape = (request["tokens"], request["columns"])
    x = np.random.default_rng(1).standard_normal(shape, "float32")
    return x.astype(dtype, copy=False)


def answer_peers():
    """As `answer_keras`."""
    prepared = Kept()

    def answer(request):
        prepared.enter((request["row"], request["tokens"]))
        row = ROWS[request["row"]]
        if "inputs" not in prepared:
            inputs = row.inputs(request["tokens"])
            prepared["inputs"] = row.share(inputs) if row.share else inputs
        inputs = prepared["inputs"]
        if "check" in request:
            x = random_columns(request, "float64")[:, :CHECKED_COLUMNS]
            y, reference = np.load(request["check"]), row.peers[0]
            reference = reference.prepare(inputs, np.ascontiguousarray(x))()
            return {"error": relative_error(y, reference)}
        name = request["method"]
        if name not in prepared:
            peer = next(peer for peer in row.peers if peer.name == name)
            x = random_columns(request, peer.dtype)
            prepared[name] = peer.prepare(inputs, x)
        return {"seconds": measure_seconds(prepared[name])}

    return answer


def relative_error(y, reference):
    """The largest relative error over the columns."""
    error = np.linalg.norm(y.astype("float64") - reference, axis=0)
    return float((error / np.linalg.norm(reference, axis=0)).max())
