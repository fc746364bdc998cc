# %% [markdown]
# # Large graphs and forests
#
# If a graph is too large for a matrix of all pairs of nodes, use a mask that holds the
# graph and only computes matrix-vector products: diffusion by sparse products, functions of
# the distance in a forest, or sampled walks. The parameters are learned per head
# ([list](../concepts/masks.md#on-graphs)).

# %%
import keras
import numpy as np
import scipy.sparse

from keras_topo.callbacks import Resample
from keras_topo.graphs import minimum_spanning_forest
from keras_topo.layers import ForestAttention, GraphKernelAttention
from keras_topo.masks import DiffusionMask, RandomFeaturesMask

random = np.random.default_rng(0)
adjacency = scipy.sparse.random_array((2000, 2000), density=0.005, rng=random)
adjacency = (adjacency + adjacency.T).tocsr()
lengths = adjacency.copy()
lengths.data = 1 / lengths.data  # strong edges are short
forest, lengths = minimum_spanning_forest(lengths)
model = keras.Sequential(
    [
        keras.Input((2000, 16)),
        GraphKernelAttention(
            4, 4, similarity="relu", graph_kernel=DiffusionMask(adjacency)
        ),
        GraphKernelAttention(
            4, 4, similarity="relu", graph_kernel=RandomFeaturesMask(adjacency)
        ),
        ForestAttention(4, 4, forest, lengths, function="rational"),
        keras.layers.Dense(2),
    ]
)
x = random.random((1, 2000, 16), "float32")
print(model(x).shape)  # (1, 2000, 2)

# %% [markdown]
# Walks are sampled once. The callback `Resample` samples them again between epochs. The
# targets here are random; the example shows that gradients reach every mask.

# %%
y = random.integers(0, 2, (1, 2000))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-2), loss)
before = [w.numpy().copy() for w in model.trainable_weights]
model.fit(x, y, epochs=3, callbacks=[Resample()], verbose=0)
moved = [
    bool(np.any(old != new.numpy()))
    for old, new in zip(before, model.trainable_weights, strict=True)
]
print(all(moved))  # True

# %% [markdown]
# ## Forests
#
# A forest is given by the parent of each node, -1 for roots. `Forest.from_trees` joins a
# batch of trees into one forest. `minimum_spanning_forest` and `breadth_first_forest` make
# a forest from a graph. Nodes of different trees do not attend to each other.

# %%
from keras_topo.operators import ForestDistance, ForestExponential

parents = (np.arange(1_000_000) - 1) // 2  # a binary tree of a million nodes
parents[0] = -1
decay = ForestExponential(parents, a=-0.5)  # exp(-0.5 d)
sums = decay.matmul(np.ones((1_000_000, 1), "float32"))
print(sums.shape)  # (1000000, 1)
rational = ForestDistance(parents[:1000], lambda d: 1 / (1 + d**2))
print(rational.matmul(np.ones((1000, 1), "float32")).shape)  # (1000, 1)

# %% [markdown]
# For the cost at a million tokens, see [benchmarks](../benchmarks.md#a-million-tokens). One
# command trains on a graph of 100,000 nodes: `python -m training.train nodes --variant
# beacons --out runs/beacons` ([results](../../results/README.md#a-graph-of-100000-nodes)).
