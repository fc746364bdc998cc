"""Training on several devices is training on one."""

import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_topo.training.distribution import Distribution, start

pytestmark = pytest.mark.tensorflow_only

# 121 validation images: a last batch that two cannot share out.
COMMAND = (
    "--data digits --limit 121 --epochs 2 --batch-size 32 --dropout 0 "
    "--learning-rate 1e-3 --warmup-epochs 0 --clip-norm 0.5"
).split()
SCRIPT = """
import sys
from keras_topo.training import images
import tensorflow as tf
devices = int(sys.argv.pop(1))
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
sys.exit(images.main())
"""


def process(folder, *options, backend="tensorflow", devices=1):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(devices), *COMMAND]
        + ["--out", str(folder), *options],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    outputs = [p.communicate(timeout=600)[0] for p in processes]
    for p, output in zip(processes, outputs, strict=True):
        assert p.returncode == 0, output
    return outputs


def history(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return [[json.loads(line)[name] for name in names] for line in lines]


def assert_equal_runs(one, other):
    np.testing.assert_allclose(history(one), history(other), rtol=2e-4)
    first, second = (
        keras.saving.load_model(folder / "model.keras")
        for folder in (one, other)
    )
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4, err_msg=a.path)
    tests = [
        json.loads((folder / "metrics.json").read_text())["test_accuracy"]
        for folder in (one, other)
    ]
    assert tests[0] == tests[1]


@pytest.mark.slow
def test_two_devices_of_a_host(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    finish(process(one))
    finish(process(two, "--distribute", "mirrored", devices=2))
    assert_equal_runs(one, two)


@pytest.mark.slow
def test_two_processes_on_jax(tmp_path):
    pytest.importorskip("jax")
    one, two = tmp_path / "one", tmp_path / "two"
    finish(process(one, backend="jax"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    hosts = ["--hosts", f"localhost:{port}", f"localhost:{port + 1}"]
    first, second = finish(
        *(
            process(
                two,
                *("--distribute", "multihost", *hosts, "--process", str(k)),
                backend="jax",
            )
            for k in range(2)
        )
    )
    # The first one alone prints and writes.
    assert "Test accuracy" in first and "poch 1" not in second
    assert_equal_runs(one, two)


def test_rows_that_processes_feed():
    x, y = np.arange(10), np.arange(20).reshape(10, 2)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    shares = [
        [
            [part.numpy() for part in batch]
            for batch in Distribution(devices=4, processes=2, process=k).share(
                batches
            )
        ]
        for k in range(2)
    ]
    sizes = [[len(batch[0]) for batch in share] for share in shares]
    assert sizes == [[4, 2], [4, 2]]
    for (x0, y0, w0), (x1, y1, w1), count in zip(*shares, (7, 3), strict=True):
        found, weights = np.append(x0, x1), np.append(w0, w1)
        np.testing.assert_array_equal(
            np.unique(found[weights > 0]), found[:count]
        )
        assert weights.sum() == pytest.approx(len(found))
        np.testing.assert_array_equal(np.vstack([y0, y1])[:, 0], 2 * found)
    assert Distribution().share(batches) is batches


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"hosts": ["a:1"]}, "--distribute multihost.*'none'"),
        ({"distribute": "multihost"}, "jax backend.*tensorflow"),
        ({"distribute": "mirrored", "process": 1}, "multihost.*'mirrored'"),
    ],
)
def test_errors(arguments, message):
    defaults = {"distribute": "none", "hosts": None, "process": None}
    with pytest.raises(ValueError, match=message):
        start({**defaults, "batch_size": 4, **arguments})
