"""Publication of SavedModels: whole or not at all, after verification."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from export_models import answers_with, dense_model, load_unverified

from keras_topo.export import export_saved_model, saved_models, verification

pytestmark = pytest.mark.tensorflow_only


def test_the_version_appears_whole(tmp_path, monkeypatch):
    path = tmp_path / "model" / "1"
    seen = []

    def ask(folder, requests):
        assert (folder / "saved_model.pb").is_file()
        seen.extend(entry.name for entry in path.parent.iterdir())
        return answers_with(lambda _: None)(folder, requests)

    monkeypatch.setattr(saved_models, "answers_of_a_clean_process", ask)
    export_saved_model(dense_model(), path)
    (name,) = seen
    assert name.startswith(".1.")
    assert [entry.name for entry in path.parent.iterdir()] == ["1"]


def test_an_existing_model_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "1"
    load_unverified(dense_model(units=3), path)
    with pytest.raises(FileExistsError, match="`path`.*Received: path="):
        export_saved_model(dense_model(units=4), path, verify=False)
    loaded = load_unverified(dense_model(units=4), path, overwrite=True)
    output = loaded.signatures["serving_default"].structured_outputs["logits"]
    assert output.shape[1] == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_what_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "1"

    def ask(folder, requests):
        path.mkdir()
        (path / "precious.txt").write_text("years of work")
        return answers_with(lambda _: None)(folder, requests)

    monkeypatch.setattr(saved_models, "answers_of_a_clean_process", ask)
    with pytest.raises(FileExistsError, match="`path`"):
        export_saved_model(dense_model(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    assert (path / "precious.txt").exists()


def test_only_a_saved_model_is_ever_deleted(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="must be a SavedModel folder"):
        export_saved_model(dense_model(), folder, overwrite=True)
    assert (folder / "chapter.tex").exists()


def test_a_failed_export_leaves_the_earlier_model(tmp_path, monkeypatch):
    path = tmp_path / "1"
    load_unverified(dense_model(units=3), path)

    def disk_is_full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(saved_models.os, "rename", disk_is_full)
    with pytest.raises(OSError, match="no space left"):
        export_saved_model(
            dense_model(units=4), path, overwrite=True, verify=False
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    signatures = tf.saved_model.load(str(path)).signatures
    output = signatures["serving_default"].structured_outputs["logits"]
    assert output.shape[1] == 3


# -------------------------------------------------------------- verification


def change_logits(results):
    results[2]["logits"][1, 2] *= 1.001


def make_nan(results):
    results[1]["probabilities"][0, 0] = np.nan


def change_scores(results):
    results[5]["scores"][2, 0] *= 0.9


def swap_classes(results):
    results[4]["classes"] = results[4]["classes"][:, ::-1]


def drop_a_row(results):
    results[2]["logits"] = results[2]["logits"][:2]


@pytest.mark.parametrize(
    "change, message",
    [
        (change_logits, "`logits` differ from the Keras model's by "),
        (make_nan, "`probabilities` differ .* by nan"),
        pytest.param(
            *(change_scores, "`scores` differ .* by "), marks=pytest.mark.slow
        ),
        (swap_classes, "`classes` name .* which the Keras model gives to"),
        (drop_a_row, r"answers `logits` as float32 \(2, 3\)"),
    ],
)
def test_a_difference_is_named_and_nothing_is_published(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(change)
    )
    with pytest.raises(RuntimeError, match=message):
        export_saved_model(dense_model(), tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_a_model_of_nan_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        saved_models, "answers_of_a_clean_process", answers_with(lambda _: None)
    )
    model = dense_model()
    model.layers[-1].bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(RuntimeError, match="`model` gives logits that are not"):
        export_saved_model(model, tmp_path / "1")
    assert not list(tmp_path.iterdir())


def test_the_clean_process_has_no_keras_and_tells_what_failed(tmp_path):
    # The process itself reports what it blocks, since this is under test.
    code = verification.CLEAN_PROCESS.partition("import pickle")[0]
    for module in ("keras", "keras_topo", "keras_topo.export"):
        job = json.dumps(["", "", "", sys.path])
        finished = subprocess.run(
            [sys.executable, "-I", "-c", f"{code}\nimport {module}", job],
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 1
        assert "is out of bounds in this process" in finished.stderr

    message = "does not serve in a process of its own.*exit status 1"
    with pytest.raises(RuntimeError, match=f"(?s){message}.*saved_model"):
        verification.answers_of_a_clean_process(tmp_path, [])
