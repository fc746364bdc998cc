# %% [markdown]
# # Fine-tuning and other sizes
#
# This guide fine-tunes a trained model on other classes and uses it on another image size.

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_topo

model = keras_topo.from_preset("topvit-cifar10")
print(model.input_shape)  # (None, 40, 40, 3)

# %% [markdown]
# ## Other classes
#
# `num_classes` replaces the output layer by an untrained one. Here the model learns digits
# from ten images of each. The images are enlarged to its size and repeated to three
# channels. Batch normalization is frozen: after so few updates, its statistics would be
# neither those of CIFAR-10 nor those of digits.

# %%
digits = load_digits()
images = np.repeat(np.repeat(digits.images * 255 / 16, 5, axis=1), 5, axis=2)
images = np.stack(3 * [images], axis=-1).astype("float32")
few = np.concatenate(
    [np.flatnonzero(digits.target == k)[:10] for k in range(10)]
)
test = np.arange(1500, 1797)

keras.utils.set_random_seed(0)
tuned = keras_topo.from_preset("topvit-cifar10", num_classes=10)
for layer in tuned.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.trainable = False
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(1e-3, clipnorm=1.0)
tuned.compile(optimizer, loss, metrics=["accuracy"])
tuned.fit(images[few], digits.target[few], batch_size=20, epochs=16, verbose=0)
print(
    tuned.evaluate(images[test], digits.target[test], verbose=0)[1]
)  # above 0.6

# %% [markdown]
# To train the last layer only, freeze the others before `compile`:
#
# ```python
# for layer in tuned.layers[:-1]:
#     layer.trainable = False
# ```
#
# ## Other sizes
#
# `image_shape` resamples positions and tables of offsets to another grid, relative to its
# extent. All other masks are relative to the grid already.

# %%
wide = keras_topo.from_preset("topvit-cifar10", image_shape=(40, 48))
print(wide(np.zeros((1, 40, 48, 3), "float32")).shape)  # (1, 10)

# %% [markdown]
# A model can also be built for images of any size:

# %%
open_model = keras_topo.models.topvit(
    (32, 2, 64, 1), image_shape=(None, None, 3), mask="decay"
)
for height, width in ((32, 32), (24, 40)):
    shape = open_model(np.zeros((1, height, width, 3), "float32")).shape
print(shape)  # (1, 10)

# %% [markdown]
# Training on several sizes improves accuracy at other sizes
# ([figures](../../results/images.md#images-of-other-sizes)): `topvit-cifar10-sizes` was
# trained on three. On the command line, use `--from`, `--freeze`, `--sizes` and
# `--freeze-batch-norm` ([training](../training.md#fine-tuning)).
