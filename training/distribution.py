"""Data-parallel training on all devices of a host, or on several hosts.

Every device holds the whole model and a share of each batch. The training
equals that on one device with the same batches, up to rounding.

| `--distribute` | backend | devices |
|---|---|---|
| `none` | any | one |
| `mirrored` | TensorFlow | all of this host: `tf.distribute.MirroredStrategy` |
| `multihost` | JAX | all of all hosts: `keras.distribution` |

With several hosts, each runs the same command with its own `--process`. The run
folder and the data must be on shared storage:

    KERAS_BACKEND=jax python -m training.train images ... \\
        --distribute multihost --hosts host-a:9876 host-b:9876 \\
        --process 0     # 1 on host-b
"""

import contextlib

import keras
import tensorflow as tf


def start(arguments):
    """Sets up `--distribute`; call it once per process.

    Args:
        arguments: dict with `distribute`, `hosts`, `process`, `batch_size`.

    Returns:
        A `Distribution`.

    Raises:
        ValueError: for a wrong backend or wrong hosts, or if a batch cannot be
            split evenly between the devices.
    """
    kind, backend = arguments["distribute"], keras.backend.backend()
    hosts, process = arguments["hosts"], arguments["process"]
    if kind != "multihost" and (hosts is not None or process is not None):
        raise ValueError(
            "`hosts` and `process` (--hosts, --process) are for --distribute "
            f"multihost. Received: distribute={kind!r}"
        )
    if kind == "none":
        return Distribution()
    expected = {"mirrored": "tensorflow", "multihost": "jax"}[kind]
    if backend != expected:
        raise ValueError(
            f"`distribute` (--distribute) {kind} expects the {expected} "
            f"backend, KERAS_BACKEND={expected}. Received: {backend}"
        )
    if kind == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
        found = Distribution(
            strategy.scope, devices=strategy.num_replicas_in_sync
        )
    else:
        found = _multihost(hosts, process)
    if arguments["batch_size"] % found.devices:
        raise ValueError(
            f"`batch_size` (--batch-size) expects a multiple of the "
            f"{found.devices} devices. Received: {arguments['batch_size']}"
        )
    return found


def _multihost(hosts, process):
    if not hosts or process is None or process >= len(hosts):
        raise ValueError(
            "`hosts` and `process` (--hosts, --process) expect an address for "
            "each process, and the index of this process, from 0. Received: "
            f"hosts={hosts}, process={process}"
        )
    import jax

    keras.distribution.initialize(",".join(hosts), len(hosts), process)
    # Each process makes its own share of a batch.
    parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
    return Distribution(
        parallel.scope,
        devices=jax.device_count(),
        processes=len(hosts),
        process=process,
    )


class Distribution:
    """The devices and processes of a training.

    Args:
        scope: returns the context in which a model is built and trained.
        devices: int, number of devices that share a batch.
        processes: int, number of processes; each feeds its share.
        process: int, index of this process; process 0 writes, prints and
            tests.

    Attributes:
        devices, processes, process: see above.
    """

    def __init__(
        self,
        scope=contextlib.nullcontext,
        devices=1,
        processes=1,
        process=0,
    ):
        self.scope = scope
        self.devices, self.processes = devices, processes
        self.process = process

    @property
    def is_first(self):
        return self.process == 0

    def share(self, dataset):
        """The rows of each batch that this process feeds.

        Args:
            dataset: `tf.data.Dataset` of `(x, y)`, the same in all processes.

        Returns:
            With one device, the same dataset; else a dataset of `(x, y,
            weights)`. If a batch cannot be split evenly, its last row is
            repeated with weight zero, so that weighted means do not change.
        """
        if self.devices == 1:
            return dataset
        return dataset.map(self._rows, num_parallel_calls=tf.data.AUTOTUNE)

    def _rows(self, x, y):
        count = tf.shape(y)[0]
        per_device = -(-count // self.devices)
        each = per_device * (self.devices // self.processes)
        start = self.process * each
        index = tf.range(start, start + each)
        weights = tf.cast(index < count, tf.float32)
        total = tf.cast(each * self.processes, tf.float32)
        weights *= total / tf.cast(count, tf.float32)
        index = tf.minimum(index, count - 1)
        return tf.gather(x, index), tf.gather(y, index), weights

    def wait(self, name):
        """Waits until all processes have called this method."""
        if self.processes > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(name)
