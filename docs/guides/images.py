# %% [markdown]
# # Images
#
# A small vision Transformer with a mask learns the digits of scikit-learn. Its softmax twin
# learns the same, and pictures show what the mask has learned.

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
# `"mini"` to `"L"`, or four numbers: channels, heads, hidden units, blocks. Pixels go from 0
# to 255. `mask=` is a [mask](../concepts/masks.md) or its name.


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
# With the same arguments, `attention="softmax"` is the ordinary vision Transformer and
# `attention="linear"` linear attention without a mask.

# %%
softmax = trained(attention="softmax")
print(softmax.evaluate(x[1500:], y[1500:], verbose=0)[1])  # above 0.85

# %% [markdown]
# On 16 tokens all of these do well. What a mask buys on CIFAR-10 is in
# [results](../../results/README.md#masks-on-cifar-10).
#
# ## From layers
#
# The same layers make models of your own. They take `(batch, *grid, channels)` for
# sequences, images and videos, of any size, known or not. `fit`, `jit_compile`, mixed
# precision, `.keras` files and padding masks work as for any Keras layer.

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
# ## Looking inside
#
# `attention_weights` gives the weights of each layer. `plot_masks` draws the masks, and
# `plot_attention` what one token of an image attends to.

# %%
weights = visualize.attention_weights(model, x[:1])
print(len(weights))  # 2
visualize.plot_masks(model).savefig("masks.png")
visualize.plot_attention(model, x[0], token=(1, 2)).savefig("attention.png")

# %% [markdown]
# In a call, `return_attention_scores=True` gives the scores beside the output, as in
# `keras.layers.MultiHeadAttention`.
#
# The masks of a model on CIFAR-10, seen from a token in the middle and from a corner, one
# row per layer:
#
# ![Learned masks by layer and head](../masks-cifar10.png)
#
# What a token of an image attends to, before training and after:
#
# ![What a token of an image attends to](../attention-cifar10.png)
