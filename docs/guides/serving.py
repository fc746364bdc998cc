# %% [markdown]
# # Serving, LiteRT, ONNX
#
# `keras_topo.export` exports all kinds of models. Inputs can be images, videos, volumes,
# sequences (of features or of token ids), whole graphs, or the nodes of a graph. Outputs
# can be classes, independent labels, or numbers, per example or per pixel, frame, token or
# node.
#
# Every export is verified: the file is loaded without Keras and keras_topo (a SavedModel in
# a clean process with only TensorFlow), and its outputs are compared before it is put in
# place.

# %%
import numpy as np
import tensorflow as tf

import keras_topo
from keras_topo.presets import read_preprocessor

model = keras_topo.from_preset("topvit-cifar10")
names = read_preprocessor("topvit-cifar10")["class_names"]
keras_topo.export(model, "export/1", class_names=names)
served = tf.saved_model.load("export/1")
images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3))
answer = served.signatures["serving_default"](
    images=tf.constant(images, "float32")
)
print(sorted(answer))  # ['class', 'logits', 'probabilities']

# %% [markdown]
# `serving_default` takes pixels. `classify_bytes` takes image files, which it decodes,
# rotates and resizes as in training:

# %%
file = tf.io.encode_png(tf.constant(images[0], "uint8"))
answer = served.signatures["classify_bytes"](image_bytes=file[None])
print(answer["classes"].shape)  # (1, 5)

# %% [markdown]
# `deploy/` has the configuration for TensorFlow Serving, and a client
# ([serving](../../deploy/README.md)).
#
# Input sizes can be unknown. Models with mixed precision, with adapters (`enable_lora`), or
# with nested models are exported the same way. int8 models can be exported as SavedModels.
# If a model ends in a softmax, no second softmax is applied.
#
# ## Graphs
#
# An estimator exports a SavedModel in one line. The SavedModel takes raw graphs, with the
# values of their labels, features, weights and directions, and returns named outputs. It
# needs neither this package nor tensorflow-gnn.

# %%
import networkx

from keras_topo import GraphClassifier
from keras_topo.graphs import GraphPreprocessor

graphs = [networkx.cycle_graph(5 + k % 8) for k in range(80)]
for k, graph in enumerate(graphs):  # rings of carbon and nitrogen
    labels = {node: "CN"[node % 2 * (k % 2)] for node in graph}
    networkx.set_node_attributes(graph, labels, "atom")
y = ["mixed" if k % 2 else "pure" for k in range(80)]
preprocessor = GraphPreprocessor({"node_labels": "atom"})
rings = GraphClassifier(preprocessor, epochs=10, depth=1, verbose=0)
rings.fit(graphs[:60], y[:60])
print(rings.evaluate(graphs[60:], y[60:])["accuracy"])  # above 0.9
rings.export("rings/1")
serve = tf.saved_model.load("rings/1").signatures["serving_default"]
answer = serve(
    node_labels=tf.constant([["C", "N", "C", "N", "C", "N"]]),
    node_mask=tf.fill((1, 6), True),
    # -1 and -1 pad edges.
    edges=tf.constant([[[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0]]]),
)
print(answer["class"].numpy())  # [b'mixed']

# %% [markdown]
# A classifier returns `logits`, `probabilities` and `class`. A model of several labels
# returns `logits` and `probabilities` for each label, and `labels` if the labels have
# names. A regressor returns `predictions`. `serve_examples` takes the same graphs as
# serialized GraphTensors, which `keras_topo.graph_tensors.graph_to_example` makes from a
# `Graph`. To export your own model this way, call
# `keras_topo.export(with_preprocessing(model, preprocessor), path)`.
#
# The size of a request is checked before memory is allocated: `max_elements` limits graphs
# x nodes^2 of a batch, so that a request of 1.5 kB takes less than 300 MB
# (`tests/test_published_graphs.py` measures it). Unknown labels, numbers that are not
# finite or that would lead to NaN, and bytes that are not an example raise an error that
# names the input:

# %%
try:
    serve(
        node_labels=tf.constant([["C", "Xe", "C"]]),
        node_mask=tf.fill((1, 3), True),
        edges=tf.constant([[[0, 1], [1, 2], [2, 0]]]),
    )
except tf.errors.InvalidArgumentError as error:
    print("node_labels" in str(error))  # True

# %% [markdown]
# A node classifier of a single graph holds that graph. Export it with `export(model, path,
# features=features)`. It takes node ids.
#
# ## LiteRT and ONNX
#
# Both need `pip install keras-topo[runtimes]`. The three formats of `topvit-cifar10` agree
# to 1e-5 (`tests/test_runtimes.py`).

# %%
import ai_edge_litert  # noqa: F401
import onnxruntime
import tf2onnx  # noqa: F401

keras_topo.export(model, "model.tflite", "litert", class_names=names)
keras_topo.export(model, "model.onnx", "onnx", class_names=names)
session = onnxruntime.InferenceSession("model.onnx")
print(session.get_inputs()[0].name)  # images
