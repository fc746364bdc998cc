# %% [markdown]
# # Images
#
# This guide trains a small vision Transformer with a mask on the digits of scikit-learn,
# compares it with softmax attention, and plots the learned masks.

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_topo import visualize
from keras_topo.models import topvit

digits = load_digits()
x = (digits.images * 255 / 16).astype("float32")[..., None]
order = np.random.default_rng(0).permutation(len(x))
x, y = x[order], digits.target[order]


# %% [markdown]
# ## A model with a mask
#
# `topvit` builds patches, positions, encoder blocks and a classifier. Its size is a name,
# `"mini"` to `"L"`, or four numbers: channels, heads, hidden units, blocks. Pixels range
# from 0 to 255. `mask=` is a [mask](../concepts/masks.md) or the name of one.


# %%
def trained(**options):
    keras.utils.set_random_seed(0)
    model = topvit(
        (32, 2, 64, 2), patch_size=2, image_shape=(8, 8, 1), **options
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    model.fit(x[:1500], y[:1500], epochs=10, verbose=0)
    return model


model = trained(mask="table")
print(model.evaluate(x[1500:], y[1500:], verbose=0)[1])  # above 0.9

# %% [markdown]
# With the same arguments, `attention="softmax"` builds the ordinary vision Transformer, and
# `attention="linear"` uses linear attention without a mask.

# %%
softmax = trained(attention="softmax")
print(softmax.evaluate(x[1500:], y[1500:], verbose=0)[1])  # above 0.85

# %% [markdown]
# With 16 tokens, all of these do well. For the effect of a mask on CIFAR-10, see
# [results](../../results/README.md#masks-on-cifar-10).
#
# ## Building from layers
#
# Use the same layers in your own models. They take `(batch, *grid, channels)` for
# sequences, images and videos of any size, known or unknown. `fit`, `jit_compile`, mixed
# precision, `.keras` files and padding masks work as with any Keras layer.

# %%
from keras_topo.layers import (
    PatchEmbedding,
    PositionEmbedding,
    TopologicalEncoderBlock,
)

own = keras.Sequential(
    [
        keras.Input((32, 32, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        PatchEmbedding(96, patch_size=4),
        PositionEmbedding(),
        TopologicalEncoderBlock(num_heads=3, mask="decay"),
        TopologicalEncoderBlock(num_heads=3, mask="decay"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
)
print(own(np.zeros((2, 32, 32, 3))).shape)  # (2, 10)

# %% [markdown]
# ## Plotting masks and attention
#
# `attention_weights` returns the weights of each layer. `plot_masks` plots the masks, and
# `plot_attention` the attention of one token of an image.

# %%
weights = visualize.attention_weights(model, x[:1])
print(len(weights))  # 2
visualize.plot_masks(model).savefig("masks.png")
visualize.plot_attention(model, x[0], token=(1, 2)).savefig("attention.png")

# %% [markdown]
# With `return_attention_scores=True`, a call also returns the scores, as in
# `keras.layers.MultiHeadAttention`.
#
# The masks of a model trained on CIFAR-10, for a token in the center and one in a corner,
# one row per layer:
#
# ![Learned masks by layer and head](../masks-cifar10.png)
#
# The attention of one token of an image, before and after training:
#
# ![Attention of one token of an image](../attention-cifar10.png)
