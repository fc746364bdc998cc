# %% [markdown]
# # Kernels and layers on graphs
#
# `GraphClassifier` and the other estimators are built from parts that you can also use with
# `model.fit`. On a graph the mask is a **kernel** on pairs of nodes. It measures, for
# example, how much random walks from the two nodes overlap, or how much heat diffuses from
# one node to the other. GKAT multiplies attention by this kernel, so one layer reaches as
# far as the kernel.

# %%
import keras
import numpy as np

from keras_topo.graphs import Graph, GraphBatch, random_walk_kernel
from keras_topo.layers import GraphKernelAttention, GraphPooling, NodeWise

triangle = Graph.from_edges([(0, 1), (1, 2), (2, 0)], 3, features=np.eye(3))
path = Graph.from_edges([(0, 1), (1, 2)], 3, features=np.eye(3))
kernels = [random_walk_kernel(g.adjacency, length=3) for g in (triangle, path)]
batch = GraphBatch.from_graphs([triangle, path], kernels)

model = keras.Sequential(
    [
        GraphKernelAttention(num_heads=4, key_dim=8),
        NodeWise(keras.layers.ELU()),  # any Keras layer, on the nodes
        GraphKernelAttention(num_heads=4, key_dim=8),
        GraphPooling("mean+max"),
        keras.layers.Dense(2),
    ]
)
logits = model(batch.inputs())  # a dict: nodes, kernel, node_mask
print(logits.shape)  # (2, 2)

# %% [markdown]
# The length of a walk is its number of nodes, including the first. If nodes have no
# features, add structural ones such as `keras_topo.graphs.node_features` (degrees) and
# `return_probabilities`. Without them all nodes are equal, and averages of equal vectors
# are the same under any kernel.
#
# A kernel can be dense, the logarithm of a dense kernel (`LogKernel`, the fastest if
# several layers share it), sparse pairs with values, or factors. Use one for all heads or
# one per head. A layer can also hold a fixed graph. The similarity is softmax, additive (as
# in GAT) or a feature map.
#
# ## Raw graphs
#
# `GraphPreprocessor` learns the vocabulary and statistics of the training graphs: the
# values of node and edge labels, degrees, moments of features, classes. It adds walk return
# probabilities or eigenvectors of the Laplacian, and computes kernels. `GraphSequence` is a
# `keras.utils.PyDataset` of batches. `with_preprocessing` makes a model that takes raw
# graphs.

# %%
import networkx

from keras_topo.graphs import GraphPreprocessor, GraphSequence

graphs = [
    make(5 + k)
    for k in range(12)
    for make in (networkx.path_graph, networkx.cycle_graph)
]
y = np.tile([0, 1], 12)
preprocessor = GraphPreprocessor().adapt(graphs)
batches = GraphSequence(graphs, preprocessor, y, batch_size=8)
inputs, targets = batches[0]
print(sorted(inputs))  # ['kernel', 'node_mask', 'nodes']

# %% [markdown]
# `keras_topo.graphs` uses NumPy and SciPy. It reads TUDataset archives (labels and
# attributes of nodes, edges and graphs; classes or numbers to predict) and Planetoid data
# (npz, or the public `ind.NAME.*` files, whose pickles are never executed). It generates
# synthetic tasks and computes kernels, exactly or from sampled walks: random walks,
# diffusion, PageRank.
#
# ## Models
#
# `keras_topo.models` has `gkat_graph_classifier` and `gkat_node_classifier`. The latter
# comes in a published form, a modern form, and a form that predicts first and then
# propagates, also with consistency training on randomly dropped nodes. The baselines are
# `gcn`, `gat`, `sgc`, `appnp` and `gin`. The estimators train any of them:
# `keras_topo.GraphClassifier(model="gin")`.
#
# If graphs have more than 512 nodes, the graphs of a batch are joined into one sparse graph
# with the 32 largest entries of each row of the kernel. Memory is then linear in the number
# of nodes ([figures](../../results/README.md#memory-of-an-epoch)). `form="factors"` uses
# low-rank kernels for linear attention: walks that meet at the same hubs.
#
# Available kernels are random walks, diffusion, the single steps of walks, walks that
# see equal labels, and combinations. With `learned_kernel=True` each head of GKAT learns its
# own weighted sum of these:
# `GraphClassifier(GraphPreprocessor(kernel="steps+labeled_walk+ones"),
# learned_kernel=True)`.
