"""The built wheel alone: the zoo loads, does what cards say, and goes on."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

import keras_topo

pytestmark = [pytest.mark.tensorflow_only, pytest.mark.slow]

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package of a wheel, beside the test dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = ["install", "--no-deps", "--target", target, wheel]
    subprocess.run([*pip, *install], check=True)
    return target


def python(installed, folder, code, *arguments):
    """Runs code with only the installed package of this project."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(installed),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout


def test_presets_come_with_the_wheel(installed, tmp_path):
    code = """
        import json
        import keras_topo, keras_topo.models, keras_topo.training
        print(json.dumps([keras_topo.__file__, *keras_topo.presets()]))
    """
    file, *names = json.loads(
        python(installed, tmp_path, code).splitlines()[-1]
    )
    assert file.startswith(str(installed))
    assert names == list(keras_topo.presets())


def test_images_by_the_card_then_on_another_grid_with_other_classes(
    installed, tmp_path, shared_data
):
    """The accuracy of the card, and at 40 x 48 within 5 points of it."""
    code = """
        import json, sys
        import keras
        import keras_topo
        from keras_topo.training.datasets import load_images

        def accuracy(model, image_size):
            test = load_images("cifar10", sys.argv[1], image_size, 10000).test
            logits = model.predict(test.images, batch_size=250, verbose=0)
            return float((logits.argmax(-1) == test.labels).mean())

        path = keras_topo.presets()["topvit-cifar10"]["path"]
        metrics = json.load(open(path + "/metrics.json"))
        said = metrics["test_accuracy"]
        model = keras_topo.from_preset(path)
        same = accuracy(model, model.input_shape[1:3])
        other = keras_topo.from_preset(path, image_shape=(40, 48))
        print(json.dumps([said, same, accuracy(other, (40, 48))]))
    """
    folder = shared_data / "cifar10"
    printed = python(installed, tmp_path, code, folder)
    said, same, larger = json.loads(printed.splitlines()[-1])
    print(f"card {said:.2%}, found {same:.2%}, at 40 x 48 {larger:.2%}")
    assert abs(said - same) < 1e-3
    assert abs(larger - same) < 0.05

    code = """
        from keras_topo.training import images
        images.main(
            ["--data", "digits", "--classes", "1,2,7", "--image-size", "40x48"]
            + ["--from", "topvit-cifar10", "--epochs", "5", "--out", "fine"]
            + ["--per-class", "30"]
        )
    """
    python(installed, tmp_path, code)
    metrics = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    print(f"fine-tuned to three digits: {metrics['test_accuracy']:.2%}")
    assert metrics["image_shape"] == [40, 48, 3]
    assert metrics["test_accuracy"] > 0.6


@pytest.mark.parametrize("name", ["enzymes", "mutag", "nci1", "proteins"])
def test_graphs_by_the_card(installed, tmp_path, shared_data, name):
    """Raw graphs, as a client sends them, and other classes."""
    code = """
        import json, sys
        import numpy as np
        import keras_topo
        from keras_topo.graphs import load_tu_dataset
        from keras_topo.training.graph_data import stratified_split

        path = keras_topo.presets()[sys.argv[1]]["path"]
        metrics = json.load(open(path + "/metrics.json"))
        arguments = metrics["arguments"]
        seed = arguments["seed"]
        dataset = load_tu_dataset(sys.argv[2], arguments["data"])
        test = stratified_split(dataset.labels, seed)[2]
        estimator = keras_topo.GraphClassifier.from_preset(path)
        found = estimator.predict([dataset.graphs[i] for i in test])
        expected = dataset.labels[test]
        right = found == expected
        other = keras_topo.from_preset(path, num_classes=5)
        found = metrics["test_accuracy"], right.mean(), other.output_shape[-1]
        print(json.dumps(found))
    """
    arguments = f"gkat-{name}", shared_data / "tu"
    printed = python(installed, tmp_path, code, *arguments)
    said, found, classes = json.loads(printed.splitlines()[-1])
    print(f"{name}: card {said:.2%}, found {found:.2%}")
    assert abs(said - found) < 1e-6
    assert classes == 5
