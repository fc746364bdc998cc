# %% [markdown]
# # Graphs of your own
#
# Pass a list of graphs to `fit`. `predict` returns predictions in the order of its graphs.
# Graphs can come from networkx, PyTorch Geometric, DGL or SciPy, or be a
# `keras_topo.graphs.Graph`.
#
# | estimator | predicts |
# |---|---|
# | `GraphClassifier`, `GraphRegressor` | a class, several labels, or numbers for each graph |
# | `NodeClassifier`, `NodeRegressor` | the same for each node of many graphs |
# | `LinkPredictor` | which pairs of nodes of one graph are linked |
#
# `GraphPreprocessor` defines the inputs of the model. By default they are the label and the
# features of each node, or its degree if it has neither, and the return probabilities of
# random walks. Every preset includes the preprocessor, so a saved model takes raw graphs.
#
# ## Labels of nodes
#
# `attributes` names the node attributes to read. Some of these rings contain nitrogen:

# %%
import networkx

from keras_topo import GraphClassifier
from keras_topo.graphs import GraphPreprocessor

graphs = [networkx.cycle_graph(5 + k % 8) for k in range(80)]
for k, graph in enumerate(graphs):
    labels = {node: "CN"[node % 2 * (k % 2)] for node in graph}
    networkx.set_node_attributes(graph, labels, "atom")
y = ["mixed" if k % 2 else "pure" for k in range(80)]
preprocessor = GraphPreprocessor({"node_labels": "atom"})
model = GraphClassifier(preprocessor, epochs=10, depth=1, verbose=0)
model.fit(graphs[:60], y[:60])
model.save("runs/rings")
again = GraphClassifier.from_preset("runs/rings")
print(again.predict(graphs[60:62]))  # ['pure' 'mixed']

# %% [markdown]
# ## PyTorch Geometric
#
# Pass `Data` objects directly. `edge_index`, `x`, `edge_attr`, `edge_weight` and `y` are
# read if present. The package does not import torch: any object with these fields works.
# This cell needs `pip install torch torch_geometric`. The model tells paths from rings:

# %%
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from keras_topo import GraphClassifier

graphs = []
for k in range(80):
    nodes, ring = 5 + k // 2 % 8, k % 2
    source = torch.arange(nodes - 1 + ring)
    edges = to_undirected(torch.stack([source, (source + 1) % nodes]))
    graphs.append(Data(edge_index=edges, num_nodes=nodes, y=torch.tensor(ring)))
model = GraphClassifier(epochs=10, depth=1, verbose=0).fit(graphs[:60])
print(model.predict(graphs[60:64]))  # [0 1 0 1]

# %% [markdown]
# ## Adjacency matrices
#
# Adjacency matrices can come from SciPy or NumPy. Their entries are the edge weights. Half
# of these graphs have two groups of nodes with few edges between them:

# %%
import numpy as np
import scipy.sparse

from keras_topo import GraphClassifier

random, node = np.random.default_rng(0), np.arange(20)
same = node % 2 == node[:, None] % 2
shares = {"groups": np.where(same, 0.6, 0.1), "random": 0.34}
y = ["groups", "random"] * 60
upper = [np.triu(random.random((20, 20)) < shares[kind], k=1) for kind in y]
graphs = [scipy.sparse.csr_array(matrix + matrix.T) for matrix in upper]
model = GraphClassifier(epochs=15, depth=1, verbose=0).fit(graphs[:90], y[:90])
print(model.evaluate(graphs[90:], y[90:])["accuracy"])  # above 0.8

# %% [markdown]
# ## Numbers to predict
#
# This model learns to count triangles in random graphs. The printed figure is its error
# divided by the error of always predicting the mean:

# %%
import networkx
import numpy as np

from keras_topo import GraphRegressor

graphs = [
    networkx.gnp_random_graph(12, 0.2 + k % 9 / 30, k) for k in range(160)
]
y = [sum(networkx.triangles(graph).values()) / 3 for graph in graphs]
model = GraphRegressor(epochs=15, depth=1, verbose=0).fit(graphs[:120], y[:120])
error = model.evaluate(graphs[120:], y[120:])["mean_absolute_error"]
print(error / np.abs(y[120:] - np.mean(y[:120])).mean())  # below 0.5

# %% [markdown]
# ## Classes of nodes, in many graphs
#
# This model finds articulation points: nodes whose removal disconnects the graph. Targets
# are one array per graph. 72% of these nodes are not articulation points:

# %%
import networkx
import numpy as np

from keras_topo import NodeClassifier

graphs = [networkx.gnp_random_graph(15, 0.15, seed=k) for k in range(160)]
cuts = [set(networkx.articulation_points(graph)) for graph in graphs]
y = [np.array([int(node in cut) for node in range(15)]) for cut in cuts]
model = NodeClassifier(epochs=15, depth=1, verbose=0).fit(graphs[:120], y[:120])
print(model.evaluate(graphs[120:], y[120:])["accuracy"])  # above 0.9

# %% [markdown]
# ## Features of edges
#
# Features and labels of edges gate the kernel. They also enter local messages that are
# added to attention ([results](../../results/README.md#features-of-edges)).
#
# ## Links
#
# `LinkPredictor` learns from one graph which pairs of its nodes are linked, and scores
# other pairs. Here it predicts which characters of Les Misérables appear together. A tenth
# of the 254 edges are held out:

# %%
import networkx

from keras_topo import LinkPredictor
from keras_topo.graphs import Graph, split_edges

network = networkx.les_miserables_graph()
split = split_edges(Graph.from_networkx(network), (0.9, 0.0, 0.1))
model = LinkPredictor(epochs=30, verbose=0).fit(split.graph)
print(model.evaluate(split.test, split.test_negatives)["roc_auc"])  # above 0.8
nodes = list(network)
pair = nodes.index("Cosette"), nodes.index("Marius")
print(model.predict_proba([pair]))  # above 0.5

# %% [markdown]
# An edge must not be part of the kernel that predicts it. So edges are divided into folds,
# and the edges of each fold are predicted from the kernel of the other folds.
# `encoder="gcn"` uses graph convolutions instead. For comparison, `keras_topo.graphs` has
# `common_neighbors`, `adamic_adar`, `resource_allocation` and `katz`
# ([results](../../results/README.md#links)).
#
# ## Important edges
#
# `edge_importance` removes each edge in turn and returns how much the log-odds of the
# predicted class decrease. Here a trained model classifies a molecule, 1-nitropyrene. The
# classes are -1 and 1 (mutagenic):

# %%
import networkx

from keras_topo import GraphClassifier
from keras_topo.visualize import plot_edge_importance

molecule = networkx.hexagonal_lattice_graph(2, 2)  # four rings of carbon
networkx.set_node_attributes(molecule, 0, "atom")
molecule.add_nodes_from([("N", {"atom": 1}), *((k, {"atom": 2}) for k in "Oo")])
molecule.add_edges_from([((0, 1), "N"), ("N", "O"), ("N", "o")])
mutag = GraphClassifier.from_preset("gkat-mutag", {"node_labels": "atom"})
print(mutag.predict([molecule]))  # [1]
figure = plot_edge_importance(mutag, molecule, names=16 * "C" + "NOO")
figure.savefig("edge-importance.png")

# %% [markdown]
# ![A molecule whose edges are colored by importance](../edge-importance.png)
#
# This model relies on the rings more than on the nitro group. Without the bond in the
# middle, the molecule no longer has four rings, and the probability falls from 0.92 to
# 0.63.
