"""Models for other runtimes: LiteRT and ONNX, tried before they are kept.

TensorFlow is imported inside the functions: see `keras_topo.saved_models`.
"""

import pathlib
import tempfile
import warnings

import keras
import numpy as np

from keras_topo.saved_models import check_backend

#: Greatest |answer - Keras| allowed, relative to max(1, the largest |logit|).
TOLERANCE = 1e-4
PACKAGES = {
    "litert": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}


def export_litert(model, path, *, tolerance=TOLERANCE):
    """Writes an image classifier as a LiteRT (TensorFlow Lite) file.

    Masks go along as explicit matrices (`implementation="explicit"`): FFTs are
    not among the operations of the runtime. That is the faster way on the few
    hundred tokens of an image anyway, and takes memory of the square of their
    number.

    Args:
        model: a built functional or Sequential `keras.Model` with one input of
            a known shape, but for the batch, and one output.
        path: the file to write, `.tflite`.
        tolerance: the greatest difference to the Keras model that passes,
            relative to the largest logit (or to 1).

    Returns:
        A dict with `path`, `tolerance` and `max_abs_difference`, that of the
        answers to a batch of random images in the runtime and in Keras.

    Raises:
        ValueError: if the model is not of the kind above.
        ImportError: without ai-edge-litert.
        RuntimeError: if the backend is not TensorFlow, the model cannot be
            converted, or the file does not give the answers of the model;
            nothing is left at `path` then.

    Example:

    >>> model = topvit("mini", image_shape=(32, 32, 3))
    >>> keras_topo.export_litert(model, "topvit.tflite")["max_abs_difference"]
    4.7e-06
    """
    return _export(model, path, tolerance, "litert", _run_litert)


def export_onnx(model, path, *, tolerance=TOLERANCE):
    """Writes an image classifier as an ONNX file.

    As `export_litert`, for ONNX Runtime; needs onnx, onnxruntime and tf2onnx.
    """
    return _export(model, path, tolerance, "onnx", _run_onnx)


def _export(model, path, tolerance, runtime, run):
    check_backend()
    missing = [name for name in PACKAGES[runtime] if not _is_there(name)]
    if missing:
        raise ImportError(
            f"export_{runtime} needs {', '.join(PACKAGES[runtime])}: pip "
            f"install keras-topo[runtimes]. Missing: {', '.join(missing)}"
        )
    path = pathlib.Path(path).expanduser()
    explicit = with_explicit_masks(_checked(model))
    shape = tuple(model.inputs[0].shape[1:])
    random = np.random.default_rng(0)
    # One at a time: files for LiteRT are for a batch of one.
    images = random.integers(0, 256, (3, 1, *shape)).astype("float32")
    expected = np.concatenate([np.asarray(model(x)) for x in images])
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / ("model" + SUFFIXES[runtime])
        try:
            _convert(explicit, file, runtime)
            answers = np.concatenate([run(file, x) for x in images])
        except Exception as error:  # Converters raise whatever they like.
            raise RuntimeError(
                f"`model` cannot be run by {runtime}: "
                f"{str(error).strip()[:2000]}"
            ) from error
        difference = float(np.abs(answers - expected).max())
        limit = tolerance * max(1.0, float(np.abs(expected).max()))
        # Written so that NaN fails.
        if not difference <= limit:
            raise RuntimeError(
                f"the file differs from the Keras model by {difference:.3g}; "
                f"allowed is {limit:.3g}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes())
    return {
        "path": str(path),
        "tolerance": tolerance,
        "max_abs_difference": difference,
    }


def _is_there(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


def _checked(model):
    shapes = [
        tuple(x.shape[1:])
        for x in (getattr(model, "inputs", None) or ())
        + (getattr(model, "outputs", None) or ())
    ]
    if len(shapes) != 2 or any(None in shape for shape in shapes):
        raise ValueError(
            "`model` expects a built keras.Model with one input of known shape "
            f"and one output. Received: model={model!r}"
        )
    return model


def with_explicit_masks(model):
    """The model with the same weights, and masks as matrices."""

    def copy(layer):
        config = layer.get_config()
        if config.get("implementation"):
            config["implementation"] = "explicit"
        return type(layer).from_config(config)

    clone = keras.models.clone_model(model, clone_function=copy)
    clone.set_weights(model.get_weights())
    # Keras exports what was called, and a clone never was.
    clone(np.zeros((1, *model.inputs[0].shape[1:]), "float32"))
    return clone


def _convert(model, file, runtime):
    if runtime == "onnx":
        _know_erfc()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*np.object.*")
        model.export(str(file), format=runtime, verbose=False)


def _know_erfc():
    """Teaches tf2onnx the operation of the GELU: `erfc(x) = 1 - erf(x)`."""
    from tf2onnx.handler import tf_op

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


def _run_litert(file, images):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(file)).get_signature_runner()
    (name,) = runner.get_input_details()
    (answer,) = runner(**{name: images}).values()
    return answer


def _run_onnx(file, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(file), providers=["CPUExecutionProvider"]
    )
    (answer,) = session.run(None, {session.get_inputs()[0].name: images})
    return answer
