"""Model builders: compositions of keras_topo layers, nothing else."""

from keras_topo.models.causal_lm import CausalLanguageModel, causal_lm
from keras_topo.models.gkat import gkat_graph_classifier, gkat_node_classifier
from keras_topo.models.graph_baselines import gat, gcn, sgc
from keras_topo.models.graph_pipeline import from_edges
from keras_topo.models.link_prediction import gkat_link_predictor
from keras_topo.models.topvit import topvit

__all__ = [
    "CausalLanguageModel",
    "causal_lm",
    "from_edges",
    "gat",
    "gcn",
    "gkat_graph_classifier",
    "gkat_link_predictor",
    "gkat_node_classifier",
    "sgc",
    "topvit",
]
