"""Writing, publishing and trying a SavedModel, whatever it answers.

TensorFlow is imported inside the functions, so that importing this module
under another backend costs nothing and the error about the backend is ours.
"""

import contextlib
import functools
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import uuid

import keras
import numpy as np

# Greatest allowed |served - Keras|, relative to max(1, the largest |logit|).
# Graph rewriting fuses and reorders sums, which moves a result by a few units
# in the last place; those are 2^-10 wide in float16 and 2^-7 in bfloat16.
TOLERANCES = {"bfloat16": 5e-2, "float16": 1e-2, "float32": 1e-5}


# ---------------------------------------------------------------- the checks


def check_backend():
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            "`export_saved_model` needs the TensorFlow backend. Save the model "
            'here with `model.save("model.keras")`, then load and export it in '
            "a process started with the environment variable "
            f"KERAS_BACKEND=tensorflow. Received: backend={backend!r}"
        )


def check_path(path, overwrite):
    if "://" in str(path):
        raise ValueError(
            "`path` must be a local folder: a rename publishes the model, and "
            "object stores have none. Export locally, then upload. "
            f"Received: path={str(path)!r}"
        )
    path = pathlib.Path(path).expanduser().absolute()
    if not os.path.lexists(path):
        return path
    if not overwrite:
        raise FileExistsError(
            "`path` must not exist, unless `overwrite=True`. A model that is "
            "being served gets a new version, the next number. "
            f"Received: path={str(path)!r}"
        )
    # What is replaced gets deleted: only ever something this could have made.
    if path.is_symlink() or not (path / "saved_model.pb").is_file():
        raise FileExistsError(
            "`path` must be a SavedModel folder to be overwritten. "
            f"Received: path={str(path)!r}"
        )
    return path


def check_tolerance(tolerance, model):
    """As given, or the loosest that the dtypes of the layers ask for."""
    if tolerance is None:
        dtypes = {layer.compute_dtype for layer in (model, *model.layers)}
        return max(TOLERANCES.get(dtype, 1e-5) for dtype in dtypes)
    if not isinstance(tolerance, (int, float)) or not tolerance > 0:
        raise ValueError(
            "`tolerance` must be a positive number or None. "
            f"Received: tolerance={tolerance!r}"
        )
    return float(tolerance)


# ---------------------------------------------------------------- the writing


def describe(tensor):
    return f"{tensor.dtype.name} {tuple(tensor.shape)}"


@contextlib.contextmanager
def hidden_sibling(path):
    """A new folder name on the same file system, gone when the block ends.

    TensorFlow Serving ignores names that are not numbers. `tempfile.mkdtemp`
    would do but for its permissions: other users, such as the server's, could
    not read the model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(archive, folder):
    import tensorflow as tf

    # In a notebook, TensorFlow would announce the hidden folder's name.
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        archive.write_out(str(folder), verbose=False)
    finally:
        logger.setLevel(level)


def require(condition, message, values):
    """An assertion in a signature that shows the first value that breaks it.

    Args:
        condition: bool tensor, true where all is well.
        message: str, before the value.
        values: tensor of the shape of `condition`.

    Returns:
        An operation to put into `tf.control_dependencies`.
    """
    import tensorflow as tf

    # Traced, a comparison of splits does not know that it has one axis.
    condition, values = tf.reshape(condition, [-1]), tf.reshape(values, [-1])
    bad = tf.boolean_mask(values, tf.logical_not(condition))[:1]
    if bad.dtype == tf.string:
        # A client's bytes may be many, and no text.
        shown = tf.strings.substr(bad, 0, 60)
        shown = tf.strings.unicode_transcode(shown, "UTF-8", "UTF-8")
    else:
        shown = tf.strings.as_string(bad)
    text = tf.strings.join([message, " ", tf.strings.reduce_join(shown)])
    return tf.debugging.Assert(tf.reduce_all(condition), [text])


def add_endpoints(archive, endpoints):
    """Adds signatures to an archive, none of which answers NaN or infinity.

    Args:
        archive: `keras.export.ExportArchive`.
        endpoints: dict from names to a function and its arguments:
            `tf.TensorSpec`s, or one dict of them.

    Returns:
        A dict from names to the dtypes and shapes of `inputs` and `outputs`.
    """
    described = {}
    for name, (function, arguments) in endpoints.items():
        inputs = keras.tree.flatten(arguments)
        traced = archive.add_endpoint(
            name, _only_finite(function, inputs), arguments
        )
        outputs = traced.get_concrete_function(*arguments).structured_outputs
        described[name] = {
            "inputs": {x.name: describe(x) for x in inputs},
            "outputs": {key: describe(x) for key, x in outputs.items()},
        }
    return described


def _only_finite(function, inputs):
    """The function, whose outputs are an error unless they are finite.

    Finite inputs may overflow anywhere inside: what counts is what comes out.
    """
    import tensorflow as tf

    names = " and ".join(f"`{x.name}`" for x in inputs)

    @functools.wraps(function)
    def checked(*args):
        outputs = function(*args)
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(tf.math.is_finite(x)),
                [
                    f"{names} expect values from which the model computes "
                    f"finite {key}. Received: values that lead to NaN or "
                    "infinity"
                ],
            )
            for key, x in outputs.items()
            if x.dtype.is_floating
        ]
        with tf.control_dependencies(checks):
            return {key: tf.identity(x) for key, x in outputs.items()}

    return checked


def write_verified(archive, path, report, verify, tolerance, files, warmup):
    """Writes an archive, tries it, and only then puts it in place.

    Args:
        archive: `keras.export.ExportArchive` with its endpoints.
        path: `pathlib.Path` to publish under.
        report: dict, what else the caller says of the export.
        verify: function from the written folder to the largest difference of
            each output, or `None`.
        tolerance: float, what `verify` allows; for the report.
        files: pairs of a name in the folder and a text.
        warmup: requests, as for `answers_of_a_clean_process`, that TensorFlow
            Serving is to try before it serves; those of nothing are left out.

    Returns:
        The report of an export.
    """
    differences = None
    with hidden_sibling(path) as folder:
        write(archive, folder)
        for name, text in files:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        write_warmup(folder, warmup)
        if verify is not None:
            differences = verify(folder)
        publish(folder, path)
    return {
        "path": str(path),
        **report,
        "verified": differences is not None,
        "tolerance": None if differences is None else tolerance,
        "max_abs_difference": differences and max(differences.values()),
        "differences": differences,
    }


WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def write_warmup(folder, requests):
    """Writes the requests that TensorFlow Serving sends to itself at first, a
    `PredictionLog` each, so that no client waits for a first call."""
    import tensorflow as tf

    file = folder / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, inputs in requests:
            if all(array.shape[0] for array in inputs.values()):
                writer.write(prediction_log(signature, inputs))


def prediction_log(signature, inputs):
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


def check_class_names(class_names, classes):
    """A list of strings, one per class, or `None`.

    Keras's `class_indices`, a dict from names to indices, is put in the order
    of the indices.
    """
    if class_names is None:
        return None
    names = [] if isinstance(class_names, str) else list(class_names)
    if isinstance(class_names, dict):
        # Values that are not the indices from 0 leave the names too few.
        by_index = {index: name for name, index in class_names.items()}
        names = [by_index[k] for k in range(len(names)) if k in by_index]
    strings = all(isinstance(name, str) for name in names)
    if not strings or len(names) != classes:
        raise ValueError(
            f"`class_names` must be {classes} strings, one for each logit of "
            "the model, or a dict from them to the indices from 0. Received: "
            f"class_names={class_names!r}"
        )
    return [str(name) for name in names]


def check_logits(output, refused=("softmax", "sigmoid")):
    """Refuses an output of a functional model that ends in an activation."""
    operation = output._keras_history.operation
    while len(getattr(operation, "outputs", None) or ()) == 1:  # a model
        operation = operation.outputs[0]._keras_history.operation
    activation = getattr(operation, "activation", None)
    names = (
        getattr(activation, "__name__", type(activation).__name__),
        type(operation).__name__,  # keras.layers.Softmax, keras.ops.softmax
    )
    for name in names:
        if name.lower() in refused:
            raise ValueError(
                "`model` must return logits, since the exported signatures "
                "apply the softmax: leave the last activation out. "
                f"Received: model that ends in {name.lower()!r}"
            )


def are_probabilities(rows, tolerance):
    """Whether outputs, `(batch, classes)`, are probabilities already: none is
    negative, and rows sum to one."""
    if not rows.size or not np.isfinite(rows).all() or rows.min() < 0:
        return False
    return bool(np.abs(rows.sum(-1) - 1).max() <= max(1e-3, tolerance))


def refuse_probabilities(rows, tolerance):
    """Raises where the outputs of a model have gone through a softmax."""
    if are_probabilities(rows, tolerance):
        raise ValueError(
            "`model` must return logits, since the exported signatures apply "
            "the softmax: leave the last activation out. Received: a model "
            "whose outputs are probabilities"
        )


def publish(folder, path):
    """Renames a finished folder to `path`, away with what is there."""
    if not path.exists():
        os.rename(folder, path)
        return
    with hidden_sibling(path) as old:
        os.rename(path, old)
        try:
            os.rename(folder, path)
        except OSError:
            os.rename(old, path)
            raise


# ----------------------------------------------------------- the verification


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


class Comparison:
    """The largest difference of each output, held against a limit."""

    def __init__(self, limit):
        self.limit = limit
        self.differences = {}

    def add(self, name, served, expected):
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


def answers_of_a_clean_process(folder, requests):
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
