"""Model builders: compositions of keras_topo layers, nothing else."""

from keras_topo.models.causal_lm import CausalLanguageModel, causal_lm
from keras_topo.models.copies import SequentialOfCopies
from keras_topo.models.gkat import gkat_graph_classifier, gkat_node_classifier
from keras_topo.models.graph_baselines import appnp, gat, gcn, gin, sgc
from keras_topo.models.graph_pipeline import from_edges, with_edge_inputs
from keras_topo.models.link_prediction import gkat_link_predictor
from keras_topo.models.raw_graphs import (
    from_graphs,
    l1_normalized,
    with_preprocessing,
)
from keras_topo.models.table import MODELS, GraphModel
from keras_topo.models.topvit import topvit

__all__ = [
    "MODELS",
    "CausalLanguageModel",
    "GraphModel",
    "SequentialOfCopies",
    "appnp",
    "causal_lm",
    "from_edges",
    "from_graphs",
    "gat",
    "gcn",
    "gin",
    "gkat_graph_classifier",
    "gkat_link_predictor",
    "gkat_node_classifier",
    "l1_normalized",
    "sgc",
    "topvit",
    "with_edge_inputs",
    "with_preprocessing",
]
