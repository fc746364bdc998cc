# %% [markdown]
# # Several devices and hosts
#
# Layers, masks and models are ordinary Keras objects, so both kinds of data parallelism
# work: `tf.distribute` on the devices of one host, and `keras.distribution` with the JAX
# backend on several hosts. Training on two devices equals training on one, up to rounding.
# The tests compare two logical devices, and two processes, with one.
#
# ## Several devices of one host, TensorFlow
#
# This guide splits the CPU into two logical devices. On a machine with several GPUs, leave
# that out.

# %%
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, 2 * [tf.config.LogicalDeviceConfiguration()]
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
print(strategy.num_replicas_in_sync)  # 2

# %%
from keras_topo.models import topvit

random = np.random.default_rng(0)
x = random.integers(0, 256, (64, 16, 16, 3)).astype("float32")
y = (x.mean((1, 2, 3)) > np.median(x.mean((1, 2, 3)))).astype("int32")


def trained():
    keras.utils.set_random_seed(0)
    model = topvit((16, 2, 32, 1), image_shape=(16, 16, 3), num_classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    model.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    return model


with strategy.scope():
    shared = trained()
alone = trained()
difference = max(
    float(abs(a - b).max())
    for a, b in zip(shared.get_weights(), alone.get_weights(), strict=True)
)
print(difference)  # below 1e-4

# %% [markdown]
# ## Several hosts, JAX
#
# Every host runs the same program with its own `process` number. `keras.distribution` joins
# all their devices in one mesh:
#
# ```python
# # KERAS_BACKEND=jax
# import keras
#
# hosts = ["10.0.0.1:1234", "10.0.0.2:1234"]
# keras.distribution.initialize(",".join(hosts), len(hosts), process)
# parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
# with parallel.scope():
#     model = topvit("mini")
#     ...  # each process feeds its share of a batch
# ```
#
# ## The command line
#
# `--distribute mirrored` and `--distribute multihost` do this for you. They split the
# batches, and the first process writes the run folder. See
# [training](../training.md#several-devices-several-hosts).
