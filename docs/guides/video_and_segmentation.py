# %% [markdown]
# # Video and segmentation
#
# This guide trains and exports two models on generated data. One classifies videos of 16
# frames of 64 x 64 pixels. The other predicts a class for each pixel of images of 96 x 128.
# `keras_topo.export` writes each as a SavedModel, `"litert"` or `"onnx"`, and verifies it
# outside of Keras.
#
# Layers take `(batch, *grid, channels)` for grids of one to three axes. Masks, positions
# and patches have one value per axis.
#
# ## Video
#
# A bright square moves right, left, down or up in front of noise. A single frame does not
# show the direction. Patches of 4 x 16 x 16 make a grid of 4 x 4 x 4 tokens:

# %%
import keras
import numpy as np

from keras_topo.layers import PatchEmbedding, TopologicalEncoderBlock

NAMES = ["right", "left", "down", "up"]
STEPS = [(0, 1), (0, -1), (1, 0), (-1, 0)]


def videos(count, seed):
    random = np.random.default_rng(seed)
    x = 50 * random.random((count, 16, 64, 64, 3), "float32")
    y = random.integers(0, 4, count)
    for video, label in zip(x, y, strict=True):
        place = random.integers(0, 64, 2)
        for frame in video:
            rows, columns = (place[:, None] + np.arange(20)) % 64
            frame[np.ix_(rows, columns)] += 150
            place = place + 3 * np.array(STEPS[label])
    return x, y


keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((16, 64, 64, 3), name="videos"),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        PatchEmbedding(32, patch_size=(4, 16, 16)),
        TopologicalEncoderBlock(num_heads=4, mask="decay"),
        keras.layers.GlobalAveragePooling3D(),
        keras.layers.Dense(4),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
model.fit(*videos(96, 0), batch_size=16, epochs=12, verbose=0)
print(model.evaluate(*videos(32, 1), verbose=0)[1])  # above 0.9

# %% [markdown]
# The exported model returns named outputs and needs only TensorFlow:

# %%
import tensorflow as tf

import keras_topo

keras_topo.export(model, "runs/motion/1", class_names=NAMES, overwrite=True)
serve = tf.saved_model.load("runs/motion/1").signatures["serving_default"]
x, y = videos(4, 2)
answer = serve(inputs=tf.constant(x))
names = [name.decode() for name in answer["class"].numpy()]
print(
    names, names == [NAMES[k] for k in y]
)  # ['up', 'up', 'left', 'down'] True

# %% [markdown]
# ## Segmentation
#
# Disks have stripes along rows or columns, in random colors. Where two disks overlap, the
# one with columns counts. Patches of 8 x 8 make a grid of 12 x 16 tokens, and a transposed
# convolution turns each token into logits for its pixels:

# %%
import keras

from keras_topo.layers import (
    PatchEmbedding,
    PositionEmbedding,
    TopologicalEncoderBlock,
)

NAMES = ["background", "rows", "columns"]


def scenes(count, seed):
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :128]
    x = 50 * random.random((count, 96, 128, 3), "float32")
    y = np.zeros((count, 96, 128), "int32")
    for image, classes in zip(x, y, strict=True):
        for label in (1, 2):
            r, c = random.integers(24, 72), random.integers(24, 104)
            inside = (rows - r) ** 2 + (columns - c) ** 2 < 22**2
            stripes = (rows if label == 1 else columns) // 2 % 2 == 1
            image[inside & stripes] = random.uniform(100, 255, 3)
            classes[inside] = label
    return x, y


keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((96, 128, 3), name="images"),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        PatchEmbedding(48, patch_size=8),
        PositionEmbedding(),
        TopologicalEncoderBlock(num_heads=4, mask="decay"),
        keras.layers.Conv2DTranspose(3, 8, strides=8),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
model.fit(*scenes(128, 0), batch_size=8, epochs=12, verbose=0)
print(model.evaluate(*scenes(32, 1), verbose=0)[1])  # above 0.9

# %% [markdown]
# The exported model returns a class name for every pixel, and the `probabilities` of all
# classes:

# %%
import tensorflow as tf

import keras_topo

keras_topo.export(model, "runs/scenes/1", class_names=NAMES, overwrite=True)
serve = tf.saved_model.load("runs/scenes/1").signatures["serving_default"]
x, y = scenes(3, 2)
answer = serve(images=tf.constant(x))
print(answer["class"].shape)  # (3, 96, 128)

# %% [markdown]
# The images, their true classes, and the predicted classes:

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(3, 3, figsize=(9, 7), layout="constrained")
served = np.argmax(answer["probabilities"], axis=-1)
columns = {"image": x.astype("uint8"), "classes": y, "served": served}
for row, panels in enumerate(axes):
    for axis, (title, found) in zip(panels, columns.items(), strict=True):
        axis.imshow(found[row], vmin=0, vmax=2)
        axis.set(title=title if row == 0 else None, xticks=[], yticks=[])
figure.savefig("runs/segmentation.png", dpi=70)

# %% [markdown]
# ![Images, their true classes, and the predicted classes](../segmentation.png)
