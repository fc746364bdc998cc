"""The registry of presets: in step with the folders, printed, enforced."""

import json
import pathlib
import shutil
import sys
import types

import keras
import pytest

import keras_topo
from keras_topo.presets import registry, write_registry
from keras_topo.presets.folders import CHECKED, digest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ZOO = ROOT / "saved_models"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A zoo of two presets, set as the known one."""
    for name in ("one", "two"):
        keras_topo.save_preset(
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
            tmp_path / name,
            preprocessor={"task": "images"},
            metrics={
                "task": "images",
                "test_accuracy": 0.123456,
                "images": {"test": 100},
                "parameters": 8,
                "arguments": {"data": "../folder/digits"},
                "data_license": "BSD",
            },
        )
    monkeypatch.setattr(registry, "zoo_folders", lambda: [tmp_path])
    write_registry(tmp_path)
    return tmp_path


def test_registry_and_folders_are_in_step(tmp_path):
    """`python -m training.publish --registry saved_models` writes it."""
    listed = json.loads((ZOO / "presets.json").read_text())
    copy = tmp_path / "zoo"
    shutil.copytree(
        ZOO, copy, ignore=shutil.ignore_patterns("1", "*.png", "presets.json")
    )
    assert write_registry(copy) == listed["presets"]
    assert (copy / "presets.json").read_text() == (
        ZOO / "presets.json"
    ).read_text()
    for name, entry in listed["presets"].items():
        folder = ZOO / name
        assert entry["handle"] == name
        assert "config.json" in entry["sha256"]
        assert "model.weights.h5" in entry["sha256"]
        files = [folder / file for file in CHECKED]
        assert entry["sha256"] == {f.name: digest(f) for f in files}
        assert entry["size"] == sum(f.stat().st_size for f in files)
        assert entry["data_license"] and entry["data"] and entry["task"]
        assert 0.5 < entry["figure"]["value"] < 1
        # Cards show the same figures as the registry.
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert f"{entry['figure']['value']:.2%}" in card
        assert entry["data_license"] in card
        # No folder has the former format.
        assert not (folder / "model.keras").exists()
    tables = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in tables for name in listed["presets"])


def test_presets_are_data_and_a_table(zoo):
    found = keras_topo.presets()
    assert list(found) == ["one", "two"]
    one = found["one"]
    assert one["figure"] == {
        "metric": "test accuracy",
        "value": 0.1235,
        "examples": 100,
    }
    assert one["test_accuracy"] == 0.1235
    assert one["data"] == "digits" and one["data_license"] == "BSD"
    assert one["path"] == str(zoo / "one") and one["parameters"] == 8
    assert json.loads(json.dumps(found)) == dict(found)
    head, *lines, license_of_data = str(found).splitlines()
    assert head.split() == "name task data figure parameters size".split()
    assert [line.split()[0] for line in lines] == ["one", "two"]
    assert "test accuracy 12.3%" in lines[0]
    assert license_of_data == "license of the data digits: BSD"
    assert repr(found) == str(found)


def test_files_are_held_against_the_registry(zoo):
    assert keras_topo.from_preset("one").output_shape == (None, 2)
    # Another preset in its place, with valid checksums.
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    keras_topo.save_preset(other, zoo / "one")
    assert keras_topo.from_preset(zoo / "one").output_shape == (None, 5)
    with pytest.raises(ValueError, match="is not the file that was saved"):
        keras_topo.from_preset("one")
    shutil.rmtree(zoo / "two")
    with pytest.raises(ValueError, match="Received: no file"):
        keras_topo.from_preset("two")


def test_what_lies_on_a_hub(zoo, monkeypatch, tmp_path_factory):
    """It is downloaded by its handle and also checked against the registry."""
    cache = tmp_path_factory.mktemp("hub") / "two"
    shutil.move(zoo / "two", cache)
    file = zoo / "presets.json"
    listed = json.loads(file.read_text())
    listed["presets"]["two"]["handle"] = "hf://someone/two@v1"
    file.write_text(json.dumps(listed))
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision))
        return str(cache)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert keras_topo.presets()["two"]["path"] is None
    assert keras_topo.from_preset("two").output_shape == (None, 2)
    assert asked == [("someone/two", "v1")]
    # Entries without a folder stay when the registry is rewritten.
    assert write_registry(zoo) == listed["presets"]
    (cache / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match="metrics.json is not the file"):
        keras_topo.from_preset("two")


def test_registries_that_are_refused(zoo):
    file = zoo / "presets.json"
    listed = json.loads(file.read_text())
    for handle in ("../one", "/one", "a/b"):
        listed["presets"]["one"]["handle"] = handle
        file.write_text(json.dumps(listed))
        with pytest.raises(ValueError, match="names of folders"):
            keras_topo.from_preset("one")
    file.write_text(json.dumps({**listed, "format": 2}))
    with pytest.raises(ValueError, match="expects the format 1.*format=2"):
        keras_topo.presets()
    file.unlink()
    keras_topo.save_preset(keras_topo.from_preset(zoo / "one"), zoo / "three")
    with pytest.raises(ValueError, match="`data_license`.*publish"):
        write_registry(zoo)


def test_the_command_that_writes_it(zoo, capsys):
    from keras_topo.training import publish

    before = (zoo / "presets.json").read_text()
    (zoo / "presets.json").unlink()
    assert publish.main(["--registry", str(zoo)]) == 0
    assert "one, two" in capsys.readouterr().out
    assert (zoo / "presets.json").read_text() == before
    # Publishing there requires the license of the data.
    run = zoo / "run"
    shutil.copytree(zoo / "one", run)
    (run / "saved_model" / "1").mkdir(parents=True)
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["data_license"]
    metrics["export"] = {"path": "elsewhere"}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert publish.main([str(run), str(zoo / "new")]) == 2
    error = capsys.readouterr().err
    assert "--data-license expects" in error
    assert not (zoo / "new").exists()
