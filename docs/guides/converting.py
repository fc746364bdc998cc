# %% [markdown]
# # Pretrained weights
#
# `keras_topo.convert` converts vision Transformers of other libraries: ViT, DeiT and DINOv2
# (including register tokens and gated units) from `transformers` and KerasHub, the npz
# files of google-research's ViT, and the published TopViT. With network access it is one
# line:
#
# ```python
# model = keras_topo.convert(
#     "hf://facebook/dinov2-small", image_shape=(224, 224), num_classes=10
# )
# ```
#
# In this guide a file of random weights replaces the download. It has the names and shapes
# of the npz files of google-research's ViT.

# %%
import keras
import numpy as np

import keras_topo

random, channels, heads, patch, grid = np.random.default_rng(0), 48, 3, 8, 4


def weights(*shape):
    return random.normal(0, 0.05, shape).astype("float32")


def dense(name, *shape):
    return {
        f"{name}/kernel": weights(*shape),
        f"{name}/bias": weights(*shape[-1:]),
    }


def norm(name):
    return {
        f"{name}/scale": 1 + weights(channels),
        f"{name}/bias": weights(channels),
    }


tree = {
    "cls": weights(1, 1, channels),
    **dense("embedding", patch, patch, 3, channels),
    "Transformer/posembed_input/pos_embedding": weights(
        1, 1 + grid**2, channels
    ),
    **norm("Transformer/encoder_norm"),
    **dense("head", channels, 100),
}
for k in range(2):
    block = f"Transformer/encoderblock_{k}"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    tree |= norm(f"{block}/LayerNorm_0") | norm(f"{block}/LayerNorm_2")
    for part in ("query", "key", "value"):
        size = channels // heads
        tree[f"{attention}/{part}/kernel"] = weights(channels, heads, size)
        tree[f"{attention}/{part}/bias"] = weights(heads, size)
    tree |= dense(f"{attention}/out", heads, channels // heads, channels)
    tree |= dense(f"{block}/MlpBlock_3/Dense_0", channels, 4 * channels)
    tree |= dense(f"{block}/MlpBlock_3/Dense_1", 4 * channels, channels)
np.savez("vit.npz", **tree)

# %% [markdown]
# ## Converting
#
# The converted model takes pixels from 0 to 255. Its outputs match those of the source
# within 1e-5 (float32). `python -m tests.convert_table` compares it with random models of
# the original libraries at the published sizes (`pip install keras-topo[convert-tests]`).
# At size Ti the largest difference over all sources is 3.5e-6.

# %%
model = keras_topo.convert("vit.npz")
print(model.output_shape)  # (None, 100)
larger = keras_topo.convert("vit.npz", image_shape=(48, 64), num_classes=10)
print(larger(np.zeros((1, 48, 64, 3), "float32")).shape)  # (1, 10)

# %% [markdown]
# Folders written by `save_pretrained`, trees of parameters and KerasHub models work the
# same way. `convert` reads safetensors without PyTorch and never runs code from a file. It
# raises an error that names every missing or unexpected tensor:

# %%
del tree["Transformer/encoder_norm/scale"]
try:
    keras_topo.convert(tree)
except ValueError as error:
    print("encoder_norm/scale" in str(error))  # True

# %% [markdown]
# ## Using the model
#
# The result is an ordinary model. You can train it, save it as a preset, and export it.
# [`linearize`](linearize.py) replaces its softmax attention by linear attention.

# %%
keras_topo.save_preset(larger, "presets/vit")
again = keras_topo.from_preset("presets/vit")
x = random.integers(0, 256, (2, 48, 64, 3)).astype("float32")
print(
    np.allclose(again.predict(x, verbose=0), larger.predict(x, verbose=0))
)  # True
student = keras_topo.linearize(larger)
student.compile(
    "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
print(np.isfinite(student.train_on_batch(x, np.array([1, 2]))))  # True

# %% [markdown]
# With `transformers` installed, you can also convert a model made from a configuration,
# with random weights and without network access:

# %%
import transformers

config = transformers.ViTConfig(
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=96,
    image_size=32,
    patch_size=8,
    num_labels=5,
)
transformers.ViTForImageClassification(config).save_pretrained("vit")
print(keras_topo.convert("vit").output_shape)  # (None, 5)
