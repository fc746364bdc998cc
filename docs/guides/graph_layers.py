# %% [markdown]
# # Kernels and layers on graphs
#
# `GraphClassifier` and its relatives are made of parts that work with `model.fit` as well.
# Between the nodes of a graph the mask is a **kernel** of the graph: how much a random walk
# from one node and one from another have in common, or how much heat gets from one to the
# other. Attention is multiplied by it (GKAT), so that one layer sees as far as the kernel
# does.

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
# The length of a walk counts its nodes, the first included. Nodes that know nothing of
# themselves need features that say where they are, such as `keras_topo.graphs.node_features`
# (degrees) and `return_probabilities`: the average of equal things is the same under any
# kernel.
#
# Kernels come dense; as their logarithms (`LogKernel`, the fastest where several layers share
# them); as sparse pairs with values; or as factors, one for all heads or one each. A layer
# may also hold the one graph it is for. Similarities are softmax, additive (as in GAT) or a
# feature map.
#
# ## Raw graphs
#
# `GraphPreprocessor` learns from the training graphs what their data are: the values of
# labels of nodes and edges, degrees, statistics, classes. It adds walk return probabilities
# or eigenvectors of the Laplacian, and computes kernels. `GraphSequence` is a
# `keras.utils.PyDataset` of batches, and `with_preprocessing` makes a model that takes raw
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
# `keras_topo.graphs`, on NumPy and SciPy, reads TUDataset archives (labels and attributes of
# nodes, edges and graphs; classes or numbers to predict) and Planetoid data (npz, or the
# public `ind.NAME.*` files, of which nothing is executed). It generates tasks, and computes
# kernels, exactly or from sampled walks: random walks, diffusion, PageRank.
#
# ## Models
#
# `keras_topo.models` has `gkat_graph_classifier`, `gkat_node_classifier` (published, modern,
# or predicting first and propagating then, also with consistency training on randomly
# dropped nodes), and to compare with `gcn`, `gat`, `sgc`, `appnp` and `gin`. `keras_topo.GraphClassifier(model="gin")` and its relatives train any of them.
#
# Where graphs have more than 512 nodes, batches join them into one, with the 32 largest
# entries of each row of the kernel: memory is linear in nodes
# ([figures](../../results/README.md#memory-of-an-epoch)). `form="factors"` has kernels of
# low rank for linear attention: walks that meet at the same hubs.
#
# Kernels are those of random walks, diffusion, the steps of walks, walks that see the same
# labels, or several of them. With `learned_kernel=True` each head of GKAT learns its own as
# a sum of these: `GraphClassifier(GraphPreprocessor(kernel="steps+labeled_walk+ones"),
# learned_kernel=True)`.
