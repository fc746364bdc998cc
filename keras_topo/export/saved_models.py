"""SavedModels: written aside, tried, and only then put in place.

TensorFlow is imported inside the functions: see `keras_topo.export`.
"""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_topo.annotations import StrPath
from keras_topo.export.endpoints import add_endpoints
from keras_topo.export.served import Case, Served, rows_of
from keras_topo.export.verification import (
    Comparison,
    answers_of_a_clean_process,
)
from keras_topo.export.warmup import write_warmup

# Greatest allowed |served - Keras|, relative to max(1, the largest |logit|).
# Graph rewriting fuses and reorders sums, which moves a result by a few units
# in the last place; those are 2^-10 wide in float16 and 2^-7 in bfloat16.
TOLERANCES = {"bfloat16": 5e-2, "float16": 1e-2, "float32": 1e-5}


def write_saved_model(
    served: Served,
    path: StrPath,
    overwrite: bool,
    verify: bool,
    tolerance: float | None,
) -> dict[str, Any]:
    """Writes, tries and publishes a SavedModel.

    Args:
        served: `keras_topo.export.served.Served`, what a model is served as.
        path, overwrite, verify, tolerance: see `export_saved_model`.

    Returns:
        The report: see `export_saved_model`.
    """
    path = check_path(path, overwrite)
    tolerance = check_tolerance(tolerance, served.model)
    cases = served.cases()
    served.answers.settle(rows_of(cases), tolerance)
    archive = keras.export.ExportArchive()
    for part in (served.model, *served.tracked):
        archive.track(part)
    described = add_endpoints(archive, served.endpoints())

    differences = None
    with hidden_sibling(path) as folder:
        write(archive, folder)
        for name, text in served.files():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        write_warmup(folder, served.warmup(cases))
        if verify:
            differences = compare(folder, served, cases, tolerance)
        # Something may have appeared there meanwhile.
        publish(folder, check_path(path, overwrite))
    return {
        "path": str(path),
        "signatures": described,
        **served.answers.report(),
        "verified": differences is not None,
        "tolerance": None if differences is None else tolerance,
        "max_abs_difference": differences and max(differences.values()),
        "differences": differences,
    }


def compare(
    folder: pathlib.Path,
    served: Served,
    cases: Sequence[Case],
    tolerance: float,
) -> dict[str, float]:
    """Asks a SavedModel, and compares its answers with what is expected.

    Returns:
        A dict from names of outputs to the largest absolute differences.

    Raises:
        RuntimeError: if they differ by more than is allowed.
    """
    rows = rows_of(cases)
    # First: what is not finite, the other process would not answer.
    served.answers.check_finite(rows)
    # What rounds the logits moves the probabilities by as much at most.
    scale = float(np.abs(rows).max(initial=1.0))
    comparison = Comparison(tolerance * scale)
    requests = [(case.signature, case.inputs) for case in cases]
    answers = answers_of_a_clean_process(folder, requests)
    for case, answer in zip(cases, answers, strict=True):
        served.compare(comparison, case, answer)
    return comparison.differences


def check_local(path: StrPath) -> None:
    """Raises a ValueError for a path of an object store."""
    if "://" in str(path):
        raise ValueError(
            "`path` must be a local folder or file: a rename publishes the "
            "model, and object stores have none. Export locally, then upload. "
            f"Received: path={str(path)!r}"
        )


def check_path(path: StrPath, overwrite: bool) -> pathlib.Path:
    check_local(path)
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


def check_tolerance(tolerance: float | None, model: keras.Model) -> float:
    """As given, or the loosest that the dtypes of the layers ask for."""
    if tolerance is None:
        dtypes = {layer.compute_dtype for layer in model._flatten_layers()}
        return max(TOLERANCES.get(dtype, 1e-5) for dtype in dtypes)
    is_number = isinstance(tolerance, (int, float, np.number))
    if isinstance(tolerance, bool) or not is_number or not tolerance > 0:
        raise ValueError(
            "`tolerance` must be a positive number or None. "
            f"Received: tolerance={tolerance!r}"
        )
    return float(tolerance)


@contextlib.contextmanager
def hidden_sibling(path: pathlib.Path) -> Iterator[pathlib.Path]:
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


def write(archive: keras.export.ExportArchive, folder: pathlib.Path) -> None:
    import tensorflow as tf

    # In a notebook, TensorFlow would announce the hidden folder's name.
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        archive.write_out(str(folder), verbose=False)
    finally:
        logger.setLevel(level)


def publish(folder: pathlib.Path, path: pathlib.Path) -> None:
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
