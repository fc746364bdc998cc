# %% [markdown]
# # Causal sequences and streaming
#
# With `causal=True`, no token attends to later tokens. With decays, gates, or causality
# alone, one small matrix per head summarizes all past tokens, so the cost of a token does
# not depend on the length of the past. You can process a sequence whole, in pieces, or
# token by token. Outputs and gradients are equal.

# %%
import keras
import numpy as np

from keras_topo.layers import MaskedAttention
from keras_topo.models import causal_lm

layer = MaskedAttention(num_heads=4, key_dim=16, mask="gated", causal=True)
x = np.random.default_rng(0).random((2, 100, 64), "float32")
whole = layer(x)
state = layer.initial_state(batch_size=2)
first, state = layer.extend(x[:, :99], state)
last, state = layer.step(x[:, 99], state)
print(np.allclose(last, whole[:, 99], atol=1e-5))  # True

# %% [markdown]
# The state of a head has `features x (value_dim + 1)` numbers, after 100 tokens or after a
# million ([the mathematics](../concepts/attention.md#decays-do-better-than-the-lemma)).
#
# | mask | on a causal sequence |
# |---|---|
# | `"causal"` | linear attention |
# | `"decay"` | one rate per head, at several scales: the masks of RetNet |
# | `"gated"` | one rate per token and head: gated linear attention, Mamba-2 |
# | `"table"` | relative positions, of up to `reach` tokens |
#
# A table and `similarity="softmax"` have no such matrix. They stream with the keys and
# values of all past tokens, for which `initial_state(batch_size, max_tokens)` makes room. A
# layer must be called or built before it makes a state.
#
# ## Cross attention
#
# Queries come from one sequence, keys and values from another. Masks also work with
# `similarity="softmax"`.

# %%
cross = MaskedAttention(4, 16, mask="decay", similarity="softmax")
memory = np.random.default_rng(1).random((2, 30, 64), "float32")
print(cross(x, memory).shape)  # (2, 100, 64)

# %% [markdown]
# ## A language model
#
# `causal_lm` builds a language model from such blocks. Here it learns a repeating text of
# 16 bytes and continues it.

# %%
text = np.frombuffer(64 * b"keras_topo masks", "uint8").astype("int32")
windows = np.stack([text[k : k + 33] for k in range(0, 960, 5)])
keras.utils.set_random_seed(0)
model = causal_lm(channels=32, num_heads=2, depth=2, mask="decay")
model.compile(
    keras.optimizers.Adam(1e-2),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
model.fit(windows[:, :-1], windows[:, 1:], epochs=15, verbose=0)
written = model.generate(text[None, :16], 16, temperature=0)
print(
    bytes(written[0].astype("uint8")).decode()
)  # keras_topo maskskeras_topo masks

# %% [markdown]
# `generate` reads the prompt in one piece and then steps. To do the same by hand, use
# `extend` and `step` of the model:

# %%
state = model.initial_state(batch_size=1)
logits, state = model.extend(text[None, :16], state)
print(chr(int(np.argmax(logits[0, -1]))))  # k

# %% [markdown]
# `python -m training.train text --out runs/text` trains such a model on the bytes of the
# Python standard library's source code. See [training](../training.md#text) and
# [results](../../results/README.md#language-models-of-bytes).
