"""Files for other runtimes, LiteRT and ONNX, tried before they are kept.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np

from keras_topo.annotations import StrPath
from keras_topo.export.copies import plain_copy
from keras_topo.export.endpoints import describe
from keras_topo.export.kinds import served
from keras_topo.export.saved_models import check_local, check_tolerance
from keras_topo.export.served import rows_of
from keras_topo.export.verification import Comparison

#: Greatest |answer - Keras| allowed, relative to max(1, the largest |logit|).
TOLERANCE = 1e-4
PACKAGES = {
    "litert": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}
#: What lists the names of classes, in a LiteRT file and in metadata of ONNX.
LABELS_FILE, LABELS_KEY = "labels.txt", "class_names"
OF_SAVED_MODELS = (
    "top_k",
    "max_pixels",
    "sample_bits",
    "signatures",
    "max_nodes",
    "max_elements",
)
# Sizes of the batch that are tried: any, or one where that does not work.
BATCHES = (None, 1)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises a ValueError for an option of what a file does not have: further
    signatures, and checks of requests."""
    for name in OF_SAVED_MODELS:
        if options.get(name) is not None:
            raise ValueError(
                f"`{name}` is an option of SavedModels: files of other "
                "runtimes have one signature, and no limits of their own. "
                f"Received: {name}={options[name]!r}"
            )


def write_file(
    model: keras.Model,
    path: StrPath,
    runtime: Literal["litert", "onnx"],
    options: Mapping[str, Any],
    overwrite: bool,
    verify: bool,
    tolerance: float | None,
) -> dict[str, Any]:
    """Writes, tries and publishes a file.

    Args:
        runtime: `"litert"` or `"onnx"`.
        options: dict: see `keras_topo.export.kinds.served`.
        model, path, overwrite, verify, tolerance: see `keras_topo.export`.

    Returns:
        The report: see `keras_topo.export`.
    """
    _check_packages(runtime)
    path = _check_file(path, overwrite)
    limit = TOLERANCE
    if tolerance is not None:
        limit = check_tolerance(tolerance, model)
    plain, cases = _as_float32(model, options, limit)
    described = differences = None
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / ("model" + SUFFIXES[runtime])
        for batch in BATCHES:
            try:
                described = _convert(plain, file, runtime, batch)
                if verify:
                    differences = _compare(plain, file, runtime, cases, limit)
                break
            except RuntimeError:  # Some models work one by one alone.
                if batch == BATCHES[-1]:
                    raise
        path.parent.mkdir(parents=True, exist_ok=True)
        # A rename leaves the earlier file, or the whole of the new one.
        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            beside.write_bytes(file.read_bytes())
            # Something may have appeared there meanwhile.
            os.replace(beside, _check_file(path, overwrite))
        finally:
            beside.unlink(missing_ok=True)
    return {
        "path": str(path),
        "signatures": {"serving_default": described},
        **plain.answers.report(),
        "verified": differences is not None,
        "tolerance": None if differences is None else limit,
        "max_abs_difference": differences and max(differences.values()),
        "differences": differences,
    }


def _check_packages(runtime):
    missing = [name for name in PACKAGES[runtime] if not _is_there(name)]
    if missing:
        raise ImportError(
            f"format={runtime!r} needs {', '.join(PACKAGES[runtime])}: pip "
            f"install 'keras-topo[runtimes]'. Missing: {', '.join(missing)}"
        )


def _is_there(name):
    return importlib.util.find_spec(name) is not None


def _check_file(path, overwrite):
    check_local(path)
    path = pathlib.Path(path).expanduser()
    if path.is_dir() or path.exists() and not overwrite:
        raise FileExistsError(
            "`path` must be a file that does not exist, unless "
            f"`overwrite=True`. Received: path={str(path)!r}"
        )
    return path


def _as_float32(model, options, tolerance):
    """What a copy of the model is served as, and its cases.

    Raises:
        RuntimeError: if the copy does not answer as the model does.
    """
    own = served(model, **options)
    # A copy is not compiled: its loss says nothing of the task.
    options = {**options, "task": own.answers.task}
    plain = served(plain_copy(model), **options)
    own, cases = rows_of(_plain_cases(own)), _plain_cases(plain)
    rows = rows_of(cases)
    plain.answers.settle(rows, tolerance)
    plain.answers.check_finite(rows)
    # The rounding of half precision, and of FFTs, is the model's own.
    allowed = max(tolerance, check_tolerance(None, model))
    comparison = Comparison(allowed * float(np.abs(own).max(initial=1.0)))
    comparison.add("outputs in float32", rows, own)
    return plain, cases


def _plain_cases(found):
    """Cases of `serving_default`, of the model alone."""
    return [
        case
        for case in found.cases()
        if case.signature == "serving_default" and len(case.expected)
    ]


def _convert(found, file, runtime, batch):
    """Writes the file of what a model is served as.

    Returns:
        The `inputs` and `outputs` of its signature.

    Raises:
        RuntimeError: if it cannot be converted.
    """
    import tensorflow as tf

    specs = {
        name: tf.TensorSpec((batch, *spec.shape[1:]), spec.dtype, name)
        for name, spec in found.specs.items()
    }

    # By position: files name inputs as their specs do.
    def serving_default(*values):
        inputs = dict(zip(specs, values, strict=True))
        return found.answers.numbers(found.call(inputs), found.real(inputs))

    function = tf.function(serving_default, autograph=False)
    traced = function.get_concrete_function(*specs.values())
    write = _write_onnx if runtime == "onnx" else _write_litert
    try:
        write(found, function, list(specs.values()), file)
    except Exception as error:  # Converters raise whatever they like.
        raise _not_run(found, runtime, error) from error
    outputs = traced.structured_outputs.items()
    return {
        "inputs": {name: describe(x) for name, x in specs.items()},
        "outputs": {name: describe(x) for name, x in outputs},
    }


def _compare(found, file, runtime, cases, tolerance):
    """Differences of each output, as `Comparison` has them."""
    run = _run_onnx if runtime == "onnx" else _run_litert
    scale = float(np.abs(rows_of(cases)).max(initial=1.0))
    comparison = Comparison(tolerance * scale)
    for case in cases:
        try:
            answer = run(file, case.inputs)
        except Exception as error:  # Runtimes, too.
            raise _not_run(found, runtime, error) from error
        found.answers.compare_numbers(
            comparison, answer, case.expected, case.real
        )
    return comparison.differences


def _not_run(found, runtime, error):
    """The error of what a converter or a runtime cannot do."""
    text = str(error).strip()
    missing = re.search(r"TF Select ops: (.*)", text)
    if missing:
        text = f"it has no {missing[1]}"
    if any(None in spec.shape[1:] for spec in found.specs.values()):
        text = (
            f"{text[:1000]}; `input_shape` gives sizes to axes that a model "
            "of tensors leaves open"
        )
    return RuntimeError(f"`model` cannot be run by {runtime}: {text[:2000]}")


def _write_litert(found, function, specs, file):
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    for part in (found.model, *found.tracked):
        archive.track(part)
    archive.add_endpoint("serving_default", function, specs)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        file.write_bytes(converter.convert())
    if found.answers.names:
        # Behind the model, as the metadata tools of LiteRT pack files.
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(LABELS_FILE, "\n".join(found.answers.names) + "\n")


def _write_onnx(found, function, specs, file):
    # Of an extra that type checks do not need.
    import onnx  # pyright: ignore[reportMissingImports]
    import tf2onnx  # pyright: ignore[reportMissingImports]

    know_erfc()
    with _quiet():
        model, _ = tf2onnx.convert.from_function(function, specs)
    if found.answers.names:
        names = json.dumps(found.answers.names, ensure_ascii=False)
        onnx.helper.set_model_props(model, {LABELS_KEY: names})
    onnx.save(model, str(file))


@contextlib.contextmanager
def _quiet():
    import tensorflow as tf

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*np.object.*")
            yield
    finally:
        logger.setLevel(level)


def know_erfc() -> None:
    """Teaches tf2onnx the operation of the GELU: `erfc(x) = 1 - erf(x)`."""
    from tf2onnx.handler import tf_op  # pyright: ignore[reportMissingImports]

    class Erfc:
        @classmethod
        def version_9(cls, context, node, **options):
            name, outputs = node.name, node.output
            dtype = context.get_dtype(outputs[0])
            shape = context.get_shape(outputs[0])
            inputs = list(node.input)
            context.remove_node(name)
            erf = context.make_node("Erf", inputs, name=f"{name}_erf")
            one = context.make_const(
                f"{name}_one", np.ones((), "float32")
            ).output[0]
            context.make_node(
                "Sub",
                [one, erf.output[0]],
                name=name,
                outputs=outputs,
                dtypes=[dtype],
                shapes=[shape],
            )

    tf_op("Erfc")(Erfc)


def _run_litert(file, inputs):
    """The answers of a LiteRT file, a dict of arrays."""
    from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
        Interpreter,
    )

    runner = Interpreter(str(file)).get_signature_runner()
    first = next(iter(runner.get_input_details().values()))

    def run(inputs):
        # The arrays are the runner's own, and the next call's.
        return {name: np.array(x) for name, x in runner(**inputs).items()}

    return _in_batches(run, first["shape_signature"][0], inputs)


def _in_batches(run, size, inputs):
    """The answers to a batch, one by one where a file takes one alone."""
    batch = len(next(iter(inputs.values())))
    if size != 1 or batch == 1:
        return run(inputs)
    found = [
        run({name: x[k : k + 1] for name, x in inputs.items()})
        for k in range(batch)
    ]
    return {key: np.concatenate([y[key] for y in found]) for key in found[0]}


def _run_onnx(file, inputs):
    """The answers of an ONNX file, a dict of arrays."""
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # What goes wrong is raised as well.
    session = onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(inputs):
        return dict(zip(names, session.run(names, inputs), strict=True))

    return _in_batches(run, session.get_inputs()[0].shape[0], inputs)
